//! The one form in which rows become JSON, in files and in Kafka alike. It never loses a value: what JSON has no
//! number for is a string.
//!
//! | column | in JSON |
//! |---|---|
//! | boolean, int32, int64 | itself |
//! | double | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` as strings, since JSON has no such numbers |
//! | decimal | a string with all digits of its scale: `"12.50"` |
//! | text | a string |
//! | JSON text | inlined; the transform's output was checked to be JSON |
//! | binary | base64, with padding |
//! | date | `"2026-01-31"` |
//! | timestamp | RFC 3339 in UTC with microseconds: `"2026-01-31T12:00:00.000000Z"` |
//! | null | `null`; every column is there in every row |
//!
//! A date or timestamp outside the years -9999 to 9999 is its plain count of days or microseconds.
//!
//! Written by hand rather than with arrow-json, which writes decimals as numbers, binary as hexadecimal, NaN as
//! null and JSON as quoted text: four of ten types would be ours anyway.

use std::io::Write;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, TimeUnit};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{ToSpan, civil};
use serde_json::Value;

use crate::description::JSON_MARK;

/// The rows of a batch, ready to be written one by one as JSON objects.
#[derive(Debug)]
pub struct JsonRows<'a> {
    /// Per column, what stands before its value: `{"id":` for the first, `,"name":` for the others.
    leads: Vec<Vec<u8>>,
    columns: Vec<(&'a dyn Array, Column<'a>)>,
}

/// A column of a type that no transform can declare.
#[derive(Debug, thiserror::Error)]
#[error("column `{name}` of type {data_type} has no form in JSON")]
pub struct Unsupported {
    name: String,
    data_type: DataType,
}

#[derive(Debug)]
enum Column<'a> {
    Boolean(&'a BooleanArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array),
    Text(&'a StringArray),
    Json(&'a StringArray),
    Binary(&'a BinaryArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    /// One of few texts, such as the topic of every row.
    Label(&'a [i32], &'a StringArray),
}

impl<'a> JsonRows<'a> {
    /// Prepares `rows`.
    ///
    /// # Errors
    /// If a column is of a type that [`crate::description::DataType`] does not have.
    pub fn new(rows: &'a RecordBatch) -> Result<Self, Unsupported> {
        let schema = rows.schema_ref();
        let leads = schema.fields().iter().enumerate().map(|(i, field)| lead(i, field.name())).collect();
        let columns = schema.fields().iter().zip(rows.columns());
        let columns = columns.map(|(field, array)| Ok((array.as_ref(), column(field, array.as_ref())?)));
        Ok(Self { leads, columns: columns.collect::<Result<_, _>>()? })
    }

    /// Row `row` as a value. A column of JSON may hold what reads as JSON and has no value here: a number too large, half a
    /// character; then it is the text.
    pub fn value(&self, row: usize) -> Value {
        let mut json = Vec::new();
        self.write(row, &mut json);
        serde_json::from_slice(&json)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&json).into_owned()))
    }

    /// Appends row `row` as one JSON object without a line break.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.columns.is_empty() {
            out.push(b'{');
        }
        for (lead, (array, column)) in self.leads.iter().zip(&self.columns) {
            out.extend_from_slice(lead);
            match array.is_null(row) {
                true => out.extend_from_slice(b"null"),
                false => column.write(row, out),
            }
        }
        out.push(b'}');
    }
}

fn lead(i: usize, name: &str) -> Vec<u8> {
    let mut lead = vec![if i == 0 { b'{' } else { b',' }];
    write_text(name, &mut lead);
    lead.push(b':');
    lead
}

fn column<'a>(field: &Field, array: &'a dyn Array) -> Result<Column<'a>, Unsupported> {
    Ok(match array.data_type() {
        DataType::Boolean => Column::Boolean(array.as_boolean()),
        DataType::Int32 => Column::Int32(array.as_primitive()),
        DataType::Int64 => Column::Int64(array.as_primitive()),
        DataType::Float64 => Column::Double(array.as_primitive()),
        DataType::Decimal128(..) => Column::Decimal(array.as_primitive()),
        DataType::Utf8 if field.metadata().contains_key(JSON_MARK) => Column::Json(array.as_string()),
        DataType::Utf8 => Column::Text(array.as_string()),
        DataType::Binary => Column::Binary(array.as_binary()),
        DataType::Date32 => Column::Date(array.as_primitive()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Column::Timestamp(array.as_primitive()),
        DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8 => {
            let labels = array.as_dictionary::<Int32Type>();
            Column::Label(labels.keys().values(), labels.values().as_string())
        }
        other => return Err(Unsupported { name: field.name().clone(), data_type: other.clone() }),
    })
}

impl Column<'_> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Boolean(column) => write_plain(column.value(row), out),
            Self::Int32(column) => write_plain(column.value(row), out),
            Self::Int64(column) => write_plain(column.value(row), out),
            Self::Double(column) => write_double(column.value(row), out),
            Self::Decimal(column) => write_quoted(column.value_as_string(row), out),
            Self::Text(column) => write_text(column.value(row), out),
            Self::Json(column) => write_json(column.value(row), out),
            Self::Binary(column) => write_quoted(BASE64_STANDARD.encode(column.value(row)), out),
            Self::Date(column) => write_date(column.value(row), out),
            Self::Timestamp(column) => write_timestamp(column.value(row), out),
            Self::Label(keys, labels) => write_text(labels.value(keys[row] as usize), out),
        }
    }
}

fn write_plain(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "{value}").expect("memory takes bytes");
}

/// For text that holds nothing to escape.
fn write_quoted(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "\"{value}\"").expect("memory takes bytes");
}

fn write_text(value: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("memory takes bytes");
}

fn write_double(value: f64, out: &mut Vec<u8>) {
    match value {
        v if v.is_finite() => serde_json::to_writer(out, &v).expect("memory takes bytes"),
        v if v.is_nan() => out.extend_from_slice(b"\"NaN\""),
        v if v > 0.0 => out.extend_from_slice(b"\"Infinity\""),
        _ => out.extend_from_slice(b"\"-Infinity\""),
    }
}

/// Line breaks in JSON are always between its tokens, so a space says the same and keeps the row on one line.
fn write_json(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    out[start..].iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
}

fn write_date(days: i32, out: &mut Vec<u8>) {
    match date(days) {
        Some(date) => write_quoted(date, out),
        None => write_plain(days, out),
    }
}

/// A count of days as the calendar has it, if it does.
pub(super) fn date(days: i32) -> Option<civil::Date> {
    // More than a span of days may hold would be refused with a panic.
    const MAX_DAYS: i64 = 7_000_000;
    let days = Some(i64::from(days)).filter(|days| days.abs() < MAX_DAYS)?;
    civil::date(1970, 1, 1).checked_add(days.days()).ok()
}

/// The moments of the library end before the year 9999 does, so days and the time of day are told apart here.
fn write_timestamp(microseconds: i64, out: &mut Vec<u8>) {
    match timestamp(microseconds) {
        Some(at) => write_quoted(at, out),
        None => write_plain(microseconds, out),
    }
}

/// A count of microseconds as RFC 3339 has it, with all six digits behind the point, if it does.
pub(super) fn timestamp(microseconds: i64) -> Option<impl std::fmt::Display> {
    const PER_DAY: i64 = 86_400_000_000;
    let date = date(i32::try_from(microseconds.div_euclid(PER_DAY)).ok()?)?;
    Some(AtMicroseconds { date, of_day: microseconds.rem_euclid(PER_DAY) })
}

/// Bytes, as they stand in a row.
pub(super) fn of_bytes(bytes: &[u8]) -> Value {
    Value::String(BASE64_STANDARD.encode(bytes))
}

/// A text that is JSON; the text itself where it has no value here.
pub(super) fn of_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// A double.
pub(super) fn of_double(value: f64) -> Value {
    let mut text = Vec::new();
    write_double(value, &mut text);
    serde_json::from_slice(&text).expect("it was just written")
}

/// A count of days.
pub(super) fn of_date(days: i32) -> Value {
    date(days).map_or_else(|| Value::from(days), |date| Value::from(date.to_string()))
}

/// A count of microseconds.
pub(super) fn of_timestamp(microseconds: i64) -> Value {
    timestamp(microseconds).map_or_else(|| Value::from(microseconds), |time| Value::from(time.to_string()))
}

/// The other way round, of a time in that form, in milliseconds.
pub(super) fn milliseconds(value: &Value) -> Option<i64> {
    if let Some(microseconds) = value.as_i64() {
        return Some(microseconds.div_euclid(1_000));
    }
    let at: civil::DateTime = value.as_str()?.strip_suffix('Z')?.parse().ok()?;
    let days = civil::date(1970, 1, 1).until(at.date()).ok()?.get_days();
    let time = at.time();
    let of_day = i64::from(time.hour()) * 3_600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some((i64::from(days) * 86_400 + of_day) * 1_000 + i64::from(time.millisecond()))
}

struct AtMicroseconds {
    date: civil::Date,
    /// Microseconds since midnight.
    of_day: i64,
}

impl std::fmt::Display for AtMicroseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, fraction) = (self.of_day / 1_000_000, self.of_day % 1_000_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z", self.date)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::ArrayRef;
    use arrow::datatypes::Schema;

    use super::*;
    use crate::description;

    fn check(data_type: description::DataType, array: impl Array + 'static, expected: &str) {
        let (name, nullable, doc) = ("x".to_owned(), true, String::new());
        let field = description::Field { name, data_type, nullable, doc }.to_arrow();
        let array = arrow::compute::cast(&array, field.data_type()).unwrap();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
        let written = JsonRows::new(&rows).unwrap();
        let mut out = Vec::new();
        (0..rows.num_rows()).for_each(|row| written.write(row, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn every_type_has_the_one_form_of_the_product() {
        use description::DataType::*;
        check(Boolean, BooleanArray::from(vec![Some(true), None]), r#"{"x":true}{"x":null}"#);
        check(Int32, Int32Array::from(vec![-7]), r#"{"x":-7}"#);
        check(Int64, Int64Array::from(vec![i64::MAX]), r#"{"x":9223372036854775807}"#);
        let cents = Decimal128Array::from(vec![1250, -5]).with_precision_and_scale(10, 2).unwrap();
        check(Decimal { precision: 10, scale: 2 }, cents, r#"{"x":"12.50"}{"x":"-0.05"}"#);
        check(Utf8, StringArray::from(vec!["a\"\n\u{1}é"]), "{\"x\":\"a\\\"\\n\\u0001é\"}");
        check(Binary, BinaryArray::from(vec![&b"\x00\xff"[..]]), r#"{"x":"AP8="}"#);
        check(Json, StringArray::from(vec!["{\n \"a\": 1\r\n}"]), r#"{"x":{  "a": 1  }}"#);
    }

    #[test]
    fn doubles_that_json_has_no_number_for_are_strings() {
        let doubles = Float64Array::from(vec![0.1, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]);
        let expected = r#"{"x":0.1}{"x":1.0}{"x":"NaN"}{"x":"Infinity"}{"x":"-Infinity"}{"x":-0.0}"#;
        check(description::DataType::Double, doubles, expected);
    }

    #[test]
    fn times_are_rfc_3339_and_those_beyond_the_calendar_plain_counts() {
        let times = TimestampMicrosecondArray::from(vec![0, 1, -1, i64::MAX]).with_timezone("UTC");
        let expected = concat!(
            r#"{"x":"1970-01-01T00:00:00.000000Z"}{"x":"1970-01-01T00:00:00.000001Z"}"#,
            r#"{"x":"1969-12-31T23:59:59.999999Z"}{"x":9223372036854775807}"#
        );
        check(description::DataType::Timestamp, times, expected);
        let edges = [253_402_300_799_999_999, 253_402_300_800_000_000, -377_705_116_800_000_001, i64::MIN];
        let times = TimestampMicrosecondArray::from(edges.to_vec()).with_timezone("UTC");
        let expected = concat!(
            r#"{"x":"9999-12-31T23:59:59.999999Z"}{"x":253402300800000000}"#,
            r#"{"x":-377705116800000001}{"x":-9223372036854775808}"#
        );
        check(description::DataType::Timestamp, times, expected);
        let days = Date32Array::from(vec![0, -1, 20_484, i32::MAX, i32::MIN]);
        let expected = concat!(
            r#"{"x":"1970-01-01"}{"x":"1969-12-31"}{"x":"2026-01-31"}"#,
            r#"{"x":2147483647}{"x":-2147483648}"#
        );
        check(description::DataType::Date, days, expected);
    }

    #[test]
    fn a_time_is_read_back_as_it_was_to_the_millisecond() {
        for micros in [0, 1_769_860_800_001_000, -1_000, -377_705_116_800_000_000, 253_402_300_799_999_000] {
            let text = timestamp(micros).unwrap().to_string();
            assert_eq!(milliseconds(&Value::String(text.clone())), Some(micros / 1_000), "{text}");
        }
        assert_eq!(milliseconds(&Value::from(253_402_300_800_000_000_i64)), Some(253_402_300_800_000));
        assert_eq!(milliseconds(&Value::from("yesterday")), None);
    }

    #[test]
    fn a_type_that_no_transform_can_declare_is_named() {
        let array: ArrayRef = Arc::new(arrow::array::UInt8Array::from(vec![1]));
        let rows = RecordBatch::try_from_iter([("x", array)]).unwrap();
        let error = JsonRows::new(&rows).unwrap_err();
        assert_eq!(error.to_string(), "column `x` of type UInt8 has no form in JSON");
    }
}
