//! The laws of reference tables: any bytes of a file are a table exactly as it was wanted, or a problem that can be
//! told.

use crate::description::{DataType, Field, TableNeed};
use crate::tables::file::load;
use crate::tables::{Table, TableColumn, TableOptions, TableValues};

/// Any bytes as a CSV file. The first three say what is wanted of it: one bit for each column and whether it may be
/// empty, and the delimiter.
///
/// # Panics
/// If what is loaded is not what was wanted.
pub fn any_csv_table(bytes: &[u8]) {
    let Some((need, options, file)) = wanted(bytes) else { return };
    if file.starts_with(b"PAR1") {
        return;
    }
    check(&need, file, &options);
    if let Ok(table) = load(&need, file, &options)
        && !file.starts_with(b"\xef\xbb\xbf")
    {
        let marked = load(&need, &[b"\xef\xbb\xbf", file].concat(), &options);
        let same = |marked: Table| (marked.rows, marked.columns) == (table.rows, table.columns.clone());
        assert!(marked.is_ok_and(same), "a byte order mark makes another table");
    }
}

/// Any bytes as a Parquet file, behind three as for [`any_csv_table`].
///
/// # Panics
/// If what is loaded is not what was wanted.
pub fn any_parquet_table(bytes: &[u8]) {
    let Some((need, _, file)) = wanted(bytes) else { return };
    if file.starts_with(b"PAR1") {
        check(&need, file, &TableOptions::default());
    }
}

fn wanted(bytes: &[u8]) -> Option<(TableNeed, TableOptions, &[u8])> {
    const TYPES: [(&str, DataType); 8] = [
        ("Ok", DataType::Boolean),
        ("n_32", DataType::Int32),
        ("n-64", DataType::Int64),
        ("share", DataType::Double),
        ("sum", DataType::Decimal { precision: 5, scale: 2 }),
        ("text", DataType::Utf8),
        ("day", DataType::Date),
        ("at", DataType::Timestamp),
    ];
    const MORE: [(&str, DataType); 2] = [("bytes", DataType::Binary), ("more", DataType::Json)];
    let [picked, nullable, last, file @ ..] = bytes else { return None };
    let field = |(name, data_type): (&str, DataType), nullable| Field {
        name: name.to_owned(),
        data_type,
        nullable,
        doc: String::new(),
    };
    let bit = |of: u8, i: usize| of >> i & 1 == 1;
    let mut columns: Vec<Field> = Vec::new();
    columns.extend((0..8).filter(|&i| bit(*picked, i)).map(|i| field(TYPES[i], bit(*nullable, i))));
    columns.extend((0..2).filter(|&i| bit(*last, i)).map(|i| field(MORE[i], bit(*last, i + 2))));
    let delimiter = [None, Some(b','), Some(b';'), Some(b'x')][usize::from(last >> 4 & 3)];
    let need = TableNeed { name: "t".to_owned(), columns, required: true, doc: String::new() };
    Some((need, TableOptions { delimiter, ..TableOptions::default() }, file))
}

fn check(need: &TableNeed, file: &[u8], options: &TableOptions) {
    match load(need, file, options) {
        Ok(table) => {
            assert_eq!(load(need, file, options).as_ref(), Ok(&table), "the same bytes give another table");
            assert_eq!(table.columns.len(), need.columns.len());
            let columns = need.columns.iter().zip(&table.columns);
            columns.for_each(|(field, column)| check_column(field, column, table.rows as usize));
        }
        Err(error) => assert!(error.to_string().starts_with("table t: ")),
    }
}

fn check_column(field: &Field, column: &TableColumn, rows: usize) {
    let validity = &column.validity;
    assert_eq!(column.name, field.name);
    assert!(validity.is_empty() || field.nullable && validity.len() == rows.div_ceil(8), "{column:?}");
    let present = |row: usize| validity.is_empty() || validity[row / 8] >> (row % 8) & 1 == 1;
    match (&column.values, field.data_type) {
        (TableValues::Booleans(bits), DataType::Boolean) => assert_eq!(bits.len(), rows.div_ceil(8)),
        (TableValues::Int32s(all), DataType::Int32 | DataType::Date) => assert_eq!(all.len(), rows),
        (TableValues::Int64s(all), DataType::Int64 | DataType::Timestamp) => assert_eq!(all.len(), rows),
        (TableValues::Doubles(all), DataType::Double) => {
            assert_eq!(all.len(), rows);
            assert!(all.iter().all(|n| n.is_finite()), "{all:?}");
        }
        (TableValues::Decimals(all), DataType::Decimal { precision, .. }) => {
            let (all, rest) = all.as_chunks::<16>();
            assert_eq!((all.len(), rest.len()), (rows, 0));
            let fits = |n: &[u8; 16]| i128::from_le_bytes(*n).unsigned_abs() < 10_u128.pow(precision.into());
            assert!(all.iter().all(fits), "{all:?}");
        }
        (TableValues::VarBytes(all), DataType::Utf8 | DataType::Binary | DataType::Json) => {
            assert_eq!((all.len(), all.validity.len()), (rows, 0));
            for (row, entry) in all.iter().enumerate() {
                let entry = entry.expect("validity is the column's");
                assert!(present(row) || entry.is_empty(), "row {row} is absent and has bytes");
                check_bytes(field.data_type, entry, present(row));
            }
        }
        (values, data_type) => panic!("{values:?} for {data_type:?}"),
    }
}

fn check_bytes(data_type: DataType, entry: &[u8], present: bool) {
    if data_type != DataType::Binary {
        assert!(std::str::from_utf8(entry).is_ok(), "{}", entry.escape_ascii());
    }
    if data_type == DataType::Json && present {
        let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(entry);
        assert!(parsed.is_ok(), "{}", entry.escape_ascii());
    }
}
