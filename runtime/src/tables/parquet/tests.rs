//! The laws of reference tables from Parquet: the values as they are, and all or nothing.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
    Int8Array, Int32Array, LargeStringArray, StringArray, StringViewArray, TimestampMillisecondArray,
    TimestampNanosecondArray, UInt64Array,
};

use super::*;
use crate::tables::file::load;

fn file(columns: &[(&str, ArrayRef)]) -> Vec<u8> {
    let rows = RecordBatch::try_from_iter_with_nullable(
        columns.iter().map(|(name, array)| (*name, array.clone(), true)),
    );
    let rows = rows.unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    file
}

fn field(name: &str, data_type: DataType, nullable: bool) -> Field {
    Field { name: name.to_owned(), data_type, nullable, doc: String::new() }
}

fn need(columns: Vec<Field>) -> TableNeed {
    TableNeed { name: "us_cities".to_owned(), columns, required: true, doc: String::new() }
}

/// What a column of one type becomes, where there may be none and where there may not.
fn values_of(
    data_type: DataType,
    nullable: bool,
    array: impl Array + 'static,
) -> Result<TableColumn, String> {
    let file = file(&[("x", Arc::new(array))]);
    let table = load(&need(vec![field("x", data_type, nullable)]), &file, &TableOptions::default());
    table.map(|mut table| table.columns.remove(0)).map_err(|e| e.to_string())
}

fn check(data_type: DataType, array: impl Array + 'static, expected: TableValues) {
    let column = values_of(data_type, false, array).unwrap();
    assert_eq!((column.values, column.validity), (expected, vec![]), "{data_type:?}");
}

fn check_refused(data_type: DataType, array: impl Array + 'static, expected: &str) {
    assert_eq!(
        values_of(data_type, false, array).unwrap_err(),
        format!("table us_cities: column x {expected}")
    );
}

fn bytes(values: &[&[u8]]) -> TableValues {
    TableValues::VarBytes(values.iter().map(|v| Some(*v)).collect())
}

const CENTS: DataType = DataType::Decimal { precision: 4, scale: 2 };

fn cents(values: &[i128]) -> TableValues {
    TableValues::Decimals(values.iter().flat_map(|n| n.to_le_bytes()).collect())
}

fn decimal(values: Vec<i128>, scale: i8) -> Decimal128Array {
    Decimal128Array::from(values).with_precision_and_scale(20, scale).unwrap()
}

#[test]
fn a_value_of_the_declared_type_is_exactly_itself() {
    check(DataType::Boolean, BooleanArray::from(vec![true, false, true]), TableValues::Booleans(vec![0b101]));
    check(DataType::Int32, Int8Array::from(vec![-1, 7]), TableValues::Int32s(vec![-1, 7]));
    check(DataType::Int64, UInt64Array::from(vec![u64::MAX >> 1]), TableValues::Int64s(vec![i64::MAX]));
    check(DataType::Double, Float32Array::from(vec![0.5]), TableValues::Doubles(vec![0.5]));
    check(DataType::Date, Date32Array::from(vec![-1, 1]), TableValues::Int32s(vec![-1, 1]));
    let utc = TimestampMillisecondArray::from(vec![1, -1]).with_timezone("UTC");
    check(DataType::Timestamp, utc, TableValues::Int64s(vec![1_000, -1_000]));
    let utc = TimestampNanosecondArray::from(vec![-2_000]).with_timezone("UTC");
    check(DataType::Timestamp, utc, TableValues::Int64s(vec![-2]));
    check(CENTS, decimal(vec![-19_990, 10], 3), cents(&[-1_999, 1]));
    check(CENTS, Int32Array::from(vec![99]), cents(&[9_900]));
    check(DataType::Utf8, StringArray::from(vec![" a ", ""]), bytes(&[b" a ", b""]));
    check(DataType::Utf8, LargeStringArray::from(vec!["b"]), bytes(&[b"b"]));
    check(DataType::Json, StringArray::from(vec!["{\"a\": 1}"]), bytes(&[b"{\"a\": 1}"]));
    check(DataType::Binary, BinaryArray::from(vec![&b"\xff"[..]]), bytes(&[b"\xff"]));
}

#[test]
fn a_value_that_the_declared_type_does_not_hold_is_refused_with_its_row() {
    let whole = "and has to be a whole number of 32 bits";
    check_refused(
        DataType::Int32,
        UInt64Array::from(vec![1, 1 << 31]),
        &format!("of row 2 is \"2147483648\" {whole}"),
    );
    check_refused(
        DataType::Int32,
        Int32Array::from(vec![Some(1), None]),
        &format!("of row 2 is absent {whole}"),
    );
    check_refused(
        DataType::Double,
        Float64Array::from(vec![f64::NAN]),
        "of row 1 is \"NaN\" and has to be a number",
    );
    check_refused(
        CENTS,
        decimal(vec![10, 1], 3),
        "of row 2 is \"0.001\" and has to be a number of at most 4 digits, 2 of them behind the point",
    );
    check_refused(
        CENTS,
        Int32Array::from(vec![100]),
        "of row 1 is \"100\" and has to be a number of at most 4 digits, 2 of them behind the point",
    );
    check_refused(DataType::Json, StringArray::from(vec!["{"]), "of row 1 is \"{\" and has to be JSON");
    let fine = TimestampNanosecondArray::from(vec![1]).with_timezone("UTC");
    assert!(values_of(DataType::Timestamp, true, fine).unwrap_err().contains("column x of row 1 is "));
}

#[test]
fn a_column_of_another_type_is_refused_even_without_a_row() {
    check_refused(
        DataType::Int64,
        StringArray::from(Vec::<&str>::new()),
        "is of type Utf8, and has to hold a whole number of 64 bits",
    );
    check_refused(DataType::Utf8, Int32Array::from(vec![1]), "is of type Int32, and has to hold text");
    check_refused(
        DataType::Timestamp,
        TimestampMillisecondArray::from(vec![1]),
        "is of type Timestamp(ms), and has to hold moments (a timestamp adjusted to UTC)",
    );
}

#[test]
fn an_absent_value_is_absent_where_there_may_be_none() {
    let column = values_of(DataType::Int32, true, Int32Array::from(vec![Some(5), None, Some(6)])).unwrap();
    assert_eq!((column.values, column.validity), (TableValues::Int32s(vec![5, 0, 6]), vec![0b101]));
    let column = values_of(DataType::Utf8, true, StringArray::from(vec![None, Some("")])).unwrap();
    assert_eq!((column.values, column.validity), (bytes(&[b"", b""]), vec![0b10]));
}

#[test]
fn columns_are_found_as_in_other_tables() {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let file = file(&[("State short", text("NY")), ("ignored", text("?")), ("City", text("Rye"))]);
    let wanted = need(vec![field("city", DataType::Utf8, false), field("state", DataType::Utf8, false)]);
    let options = |columns: &[(&str, &str)]| TableOptions {
        columns: columns.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        ..TableOptions::default()
    };
    let table = load(&wanted, &file, &options(&[("state", "State short")])).unwrap();
    assert_eq!((table.rows, &*table.digest), (1, &*digest::of(&file)));
    let values: Vec<_> = table.columns.into_iter().map(|column| column.values).collect();
    assert_eq!(values, [bytes(&[b"Rye"]), bytes(&[b"NY"])]);
    let missing = load(&wanted, &file, &options(&[])).unwrap_err().to_string();
    let text = "table us_cities: no column for state: the file has no column \"state\", only State short, ignored, City; name the right one under columns";
    assert_eq!(missing, text);
    let delimiter = TableOptions { delimiter: Some(b';'), ..TableOptions::default() };
    assert!(matches!(load(&wanted, &file, &delimiter).unwrap_err().problem, Problem::Delimiter));
}

/// A dictionary of one value, and a long run of it.
#[test]
fn a_small_file_of_much_is_refused_before_all_of_it_is_unpacked() {
    let text = "x".repeat(1000);
    let all = |array: ArrayRef| file(&[("x", array)]);
    for packed in [
        all(Arc::new(StringArray::from(vec![&*text; 100_000]))),
        all(Arc::new(StringViewArray::from(vec![&*text; 100_000]))),
        all(Arc::new(DictionaryArray::<Int32Type>::from_iter(std::iter::repeat_n(&*text, 100_000)))),
    ] {
        assert!(packed.len() < 100_000, "{}", packed.len());
        let wanted = need(vec![field("x", DataType::Utf8, false)]);
        let read = |most| read_sound(&wanted, &packed, &TableOptions::default(), most);
        let Err(Problem::Unpacked { rows, most: 10_000_000 }) = read(10_000_000) else {
            panic!("not refused")
        };
        assert!((9_000..20_000).contains(&rows), "{rows}");
        assert_eq!(read(120_000_000).unwrap().rows, 100_000);
    }
}

#[test]
fn a_file_that_is_compressed_in_another_way_is_refused_with_that_way() {
    let mut file = file(&[("x", Arc::new(StringArray::from(vec!["a"])))]);
    // The path of the column, and behind it the codec.
    let [path @ .., _] = [0x19, 0x18, 1, b'x', 0x15, 0];
    let at = file.windows(path.len()).position(|bytes| bytes == path).expect("there is a column");
    file[at + path.len()] = 1 << 1;
    let wanted = need(vec![field("x", DataType::Utf8, false)]);
    let error = load(&wanted, &file, &TableOptions::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "table us_cities: the Parquet file is compressed with SNAPPY, which is not read here; write it again with zstd or uncompressed"
    );
}

#[test]
fn a_damaged_file_is_refused_and_harms_nobody() {
    let file = file(&[("x", Arc::new(StringArray::from(vec!["a", "b"])))]);
    let wanted = need(vec![field("x", DataType::Utf8, false)]);
    for end in 12..file.len() {
        let error = load(&wanted, &file[..end], &TableOptions::default()).unwrap_err();
        assert!(matches!(error.problem, Problem::Parquet(_)), "{end}: {error}");
    }
    for at in 4..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 0xff;
        // Not every byte matters; what matters here is that there is an answer.
        if let Ok(table) = load(&wanted, &changed, &TableOptions::default()) {
            assert_eq!(table.columns.len(), 1);
        }
    }
}

/// Found by `runtime/fuzz`: 220 bytes that keep the reader busy for seconds, and a megabyte of the like for days.
#[test]
fn metadata_with_a_list_of_truth_values_is_refused_before_the_reader_counts_them() {
    let file = &include_bytes!("../../../fuzz/seeds/parquet_table/list_of_truth_values")[3..];
    let wanted = need(vec![field("text", DataType::Utf8, true)]);
    let error = load(&wanted, file, &TableOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with("its metadata has a list of truth values, which none has"), "{error}");
}
