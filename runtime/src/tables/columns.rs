//! From the text of a cell to a value of the declared type: exactly, or not at all. It never guesses a type.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{Timestamp, civil};

use super::{TableColumn, TableValues};
use crate::batch::VarBytes;
use crate::description::{DataType, Field};

/// A column while its rows come in.
#[derive(Debug)]
pub(super) struct ColumnBuilder<'a> {
    field: &'a Field,
    values: TableValues,
    present: Vec<bool>,
}

impl<'a> ColumnBuilder<'a> {
    pub(super) fn new(field: &'a Field) -> Self {
        let values = match field.data_type {
            DataType::Boolean => TableValues::Booleans(Vec::new()),
            DataType::Int32 | DataType::Date => TableValues::Int32s(Vec::new()),
            DataType::Int64 | DataType::Timestamp => TableValues::Int64s(Vec::new()),
            DataType::Double => TableValues::Doubles(Vec::new()),
            DataType::Decimal { .. } => TableValues::Decimals(Vec::new()),
            DataType::Utf8 | DataType::Binary | DataType::Json => TableValues::VarBytes(VarBytes::default()),
        };
        Self { field, values, present: Vec::new() }
    }

    pub(super) fn field(&self) -> &'a Field {
        self.field
    }

    /// Adds a row. A blank cell is an absent value; where there has to be one, it is the empty text, or refused
    /// (`false`) in a column of another type. Text is taken as it stands, the rest without spaces around it.
    pub(super) fn push(&mut self, cell: &str) -> bool {
        let blank = cell.trim().is_empty();
        let absent = blank && self.field.nullable;
        let fits = if absent {
            self.push_blank();
            true
        } else {
            self.push_value(if blank { "" } else { cell }).is_some()
        };
        self.present.push(!absent);
        fits
    }

    fn push_blank(&mut self) {
        match &mut self.values {
            TableValues::Booleans(bits) => push_bit(bits, self.present.len(), false),
            TableValues::Int32s(all) => all.push(0),
            TableValues::Int64s(all) => all.push(0),
            TableValues::Doubles(all) => all.push(0.0),
            TableValues::Decimals(all) => all.extend([0; 16]),
            TableValues::VarBytes(all) => all.push(Some(b"")),
        }
    }

    fn push_value(&mut self, text: &str) -> Option<()> {
        let cell = text.trim();
        let data_type = self.field.data_type;
        match &mut self.values {
            TableValues::Booleans(bits) => push_bit(bits, self.present.len(), boolean(cell)?),
            TableValues::Int32s(all) if data_type == DataType::Date => all.push(date(cell)?),
            TableValues::Int32s(all) => all.push(cell.parse().ok()?),
            TableValues::Int64s(all) if data_type == DataType::Timestamp => all.push(timestamp(cell)?),
            TableValues::Int64s(all) => all.push(cell.parse().ok()?),
            TableValues::Doubles(all) => all.push(cell.parse().ok().filter(|n: &f64| n.is_finite())?),
            TableValues::Decimals(all) => {
                let DataType::Decimal { precision, scale } = data_type else { return None };
                all.extend(decimal(cell, precision, scale)?.to_le_bytes());
            }
            TableValues::VarBytes(all) if data_type == DataType::Utf8 => all.push(Some(text.as_bytes())),
            TableValues::VarBytes(all) if data_type == DataType::Binary => {
                all.push(Some(&BASE64_STANDARD.decode(cell).ok().filter(|bytes| !bytes.is_empty())?));
            }
            TableValues::VarBytes(all) => {
                serde_json::from_str::<&serde_json::value::RawValue>(cell).ok()?;
                all.push(Some(cell.as_bytes()));
            }
        }
        Some(())
    }

    pub(super) fn finish(self) -> TableColumn {
        let mut validity = Vec::new();
        if self.present.contains(&false) {
            self.present.iter().enumerate().for_each(|(i, &present)| push_bit(&mut validity, i, present));
        }
        TableColumn { name: self.field.name.clone(), values: self.values, validity }
    }
}

/// How a cell of this type is written, for people.
pub(super) fn wanted(data_type: DataType) -> String {
    match data_type {
        DataType::Boolean => "true or false".to_owned(),
        DataType::Int32 => "a whole number of 32 bits".to_owned(),
        DataType::Int64 => "a whole number of 64 bits".to_owned(),
        DataType::Double => "a number".to_owned(),
        DataType::Decimal { precision, scale } => {
            format!("a number of at most {precision} digits, {scale} of them behind the point")
        }
        DataType::Utf8 => "text".to_owned(),
        DataType::Binary => "base64".to_owned(),
        DataType::Json => "JSON".to_owned(),
        DataType::Date => "a date like 2026-01-31".to_owned(),
        DataType::Timestamp => {
            "a time like 2026-01-31T12:00:00Z, with at most six digits behind the point".to_owned()
        }
    }
}

pub(super) fn push_bit(bits: &mut Vec<u8>, i: usize, set: bool) {
    if i.is_multiple_of(8) {
        bits.push(0);
    }
    bits[i / 8] |= u8::from(set) << (i % 8);
}

fn boolean(cell: &str) -> Option<bool> {
    match cell.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Days. The length keeps out a time behind the date, which the parser would drop.
fn date(cell: &str) -> Option<i32> {
    let day: civil::Date = cell.parse().ok().filter(|_| cell.len() == "2026-01-31".len())?;
    let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    i32::try_from(midnight.as_second().div_euclid(86_400)).ok()
}

/// Microseconds; a finer time is refused, not rounded.
fn timestamp(cell: &str) -> Option<i64> {
    let time: Timestamp = cell.parse().ok()?;
    (time.subsec_nanosecond() % 1_000 == 0).then(|| time.as_microsecond())
}

/// The number times ten to the `scale`.
fn decimal(cell: &str, precision: u8, scale: u8) -> Option<i128> {
    let (negative, digits) = match cell.as_bytes() {
        [b'-', ..] => (true, &cell[1..]),
        [b'+', ..] => (false, &cell[1..]),
        _ => (false, cell),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let all_digits = (whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit());
    let some_digit = digits.bytes().any(|b| b.is_ascii_digit());
    if !all_digits || !some_digit || fraction.len() > scale.into() {
        return None;
    }
    let digits = format!("{whole}{fraction:0<width$}", width = usize::from(scale));
    let digits = digits.trim_start_matches('0');
    let n: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    (digits.len() <= precision.into()).then_some(if negative { -n } else { n })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column(data_type: DataType, nullable: bool, cells: &[&str]) -> Option<TableColumn> {
        let field = Field { name: "c".to_owned(), data_type, nullable, doc: String::new() };
        let mut builder = ColumnBuilder::new(&field);
        cells.iter().all(|cell| builder.push(cell)).then(|| builder.finish())
    }

    fn check(data_type: DataType, cells: &[&str], expected: TableValues) {
        let column = column(data_type, false, cells).expect("every cell is of the type");
        assert_eq!((column.values, column.validity), (expected, vec![]), "{data_type:?}");
    }

    fn check_refused(data_type: DataType, cells: &[&str]) {
        for cell in cells {
            assert_eq!(column(data_type, false, &[cell]), None, "{data_type:?} {cell:?}");
        }
    }

    const CENTS: DataType = DataType::Decimal { precision: 4, scale: 2 };

    #[test]
    fn a_cell_of_the_declared_type_is_exactly_its_value() {
        check(DataType::Boolean, &["true", "FALSE", " true"], TableValues::Booleans(vec![0b101]));
        check(DataType::Int32, &["-1", " 2147483647 "], TableValues::Int32s(vec![-1, i32::MAX]));
        check(DataType::Int64, &["9223372036854775807"], TableValues::Int64s(vec![i64::MAX]));
        check(DataType::Double, &["1e3", "-0.5"], TableValues::Doubles(vec![1000.0, -0.5]));
        check(DataType::Date, &["1970-01-02", "1969-12-31"], TableValues::Int32s(vec![1, -1]));
        check(DataType::Timestamp, &["1970-01-01T01:00:00.000001+01:00"], TableValues::Int64s(vec![1]));
        let decimals = [-1999_i128, 50, 9990, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        check(CENTS, &["-19.99", ".5", "0099.9000", "-0"], TableValues::Decimals(decimals));
        let bytes = |entries: &[&[u8]]| TableValues::VarBytes(entries.iter().map(|e| Some(*e)).collect());
        check(DataType::Utf8, &[" a ", " "], bytes(&[b" a ", b""]));
        check(DataType::Binary, &["/w=="], bytes(&[b"\xff"]));
        check(DataType::Json, &[" {\"a\": 1} "], bytes(&[b"{\"a\": 1}"]));
    }

    #[test]
    fn a_cell_that_is_not_exactly_of_the_declared_type_is_refused() {
        check_refused(DataType::Boolean, &["1", "yes", ""]);
        check_refused(DataType::Int32, &["2147483648", "1.0", "0x1", " "]);
        check_refused(DataType::Double, &["NaN", "inf", "1e400", "1,5"]);
        check_refused(CENTS, &["100", "0.001", ".", "-", "1e2", "--1", "1.2.3", "+-1"]);
        check_refused(DataType::Date, &["2026-02-30", "2026-01-31T10:00:00", "31.01.2026"]);
        check_refused(
            DataType::Timestamp,
            &["2026-01-31", "2026-01-31T10:00:00", "2026-01-31T10:00:00.0000001Z"],
        );
        check_refused(DataType::Binary, &["?", "_w==", " "]);
        check_refused(DataType::Json, &["{", "1 2", "{a:1}"]);
    }

    #[test]
    fn a_blank_cell_is_an_absent_value_where_there_may_be_none() {
        for data_type in [DataType::Boolean, DataType::Utf8, CENTS, DataType::Json, DataType::Date] {
            let column = column(data_type, true, &["", " ", ""]).expect("blank cells are allowed");
            assert_eq!(column.validity, [0], "{data_type:?}");
        }
        let text = column(DataType::Utf8, true, &["a", " ", "b"]).unwrap();
        assert_eq!(text.validity, [0b101]);
        assert_eq!(
            text.values,
            TableValues::VarBytes([Some(&b"a"[..]), Some(b""), Some(b"b")].into_iter().collect())
        );
    }

    proptest! {
        #[test]
        fn a_decimal_keeps_all_its_digits(n in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0_u8..=38) {
            let digits = format!("{:0>width$}", n.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            let sign = if n < 0 { "-" } else { "" };
            prop_assert_eq!(decimal(&format!("{sign}{whole}.{fraction}"), 38, scale), Some(n));
        }
    }
}
