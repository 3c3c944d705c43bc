//! From columns to what SQLite stores. A value is stored exactly or its row is refused; nothing is rounded, cut or
//! turned into null. Only a zero loses its sign.
//!
//! | column | type | value |
//! |---|---|---|
//! | boolean | INTEGER | 0 or 1 |
//! | int32, int64 | INTEGER | itself |
//! | double | REAL | itself, but -0.0 is 0.0: SQLite has one zero; NaN is refused, since SQLite would store null |
//! | decimal | TEXT | all digits of its scale: `12.50` |
//! | text, JSON text | TEXT | itself; refused with a NUL byte, where SQL would take it to end |
//! | binary | BLOB | itself |
//! | date, timestamp | TEXT | as in [`crate::sink::json`] |

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, TimeUnit};
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use super::rows::bound;
use crate::origin::Origin;
use crate::sink::json;

/// A type of SQLite's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Integer,
    Real,
    Text,
    Blob,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text => "TEXT",
            Self::Blob => "BLOB",
        })
    }
}

/// What the values of `field` are stored as; `None` for a type that no transform can declare.
pub(super) fn kind(field: &Field) -> Option<Kind> {
    Some(match field.data_type() {
        DataType::Boolean | DataType::Int32 | DataType::Int64 => Kind::Integer,
        DataType::Float64 => Kind::Real,
        DataType::Decimal128(..) | DataType::Utf8 | DataType::Date32 => Kind::Text,
        DataType::Timestamp(TimeUnit::Microsecond, _) => Kind::Text,
        DataType::Binary => Kind::Blob,
        _ => return None,
    })
}

/// The values of one column.
pub(super) enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    /// The same text in every row.
    SameText(Arc<str>),
    /// The same number in every row.
    Same(i64),
    /// Numbers that are never null.
    Offsets(&'a [i64]),
    Indexes(&'a [i32]),
    /// Where records came first that come again.
    Topics(&'a [Origin]),
    Origins(&'a [Origin], fn(&Origin) -> i64),
}

impl<'a> Values<'a> {
    /// The values of a column for which [`kind`] has an answer.
    pub(super) fn new(array: &'a dyn Array) -> Self {
        match array.data_type() {
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int32 => Self::Int32(array.as_primitive()),
            DataType::Int64 => Self::Int64(array.as_primitive()),
            DataType::Float64 => Self::Double(array.as_primitive()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive()),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Binary => Self::Binary(array.as_binary()),
            DataType::Date32 => Self::Date(array.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Timestamp(array.as_primitive()),
            other => unreachable!("a table has no column of type {other}"),
        }
    }

    /// Why SQLite could not store the value as it is.
    pub(super) fn refusal(&self, row: usize) -> Option<&'static str> {
        match self {
            Self::Text(texts) if texts.is_valid(row) && texts.value(row).as_bytes().contains(&0) => {
                Some("0x00 is not allowed in text")
            }
            Self::Double(doubles) if doubles.is_valid(row) && doubles.value(row).is_nan() => {
                Some("NaN has no REAL")
            }
            _ => None,
        }
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        let array: &dyn Array = match self {
            Self::Boolean(array) => array,
            Self::Int32(array) => array,
            Self::Int64(array) => array,
            Self::Double(array) => array,
            Self::Decimal(array) => array,
            Self::Text(array) => array,
            Self::Binary(array) => array,
            Self::Date(array) => array,
            Self::Timestamp(array) => array,
            Self::SameText(_) | Self::Same(_) | Self::Offsets(_) | Self::Indexes(_) => return false,
            Self::Topics(_) | Self::Origins(..) => return false,
        };
        array.is_null(row)
    }

    /// Adds the value to those of a statement.
    pub(super) fn bind(&self, row: usize, values: &mut SqliteArguments) {
        if self.is_null(row) {
            return bound(values.add(None::<i64>));
        }
        bound(match self {
            Self::Boolean(column) => values.add(i64::from(column.value(row))),
            Self::Int32(column) => values.add(i64::from(column.value(row))),
            Self::Int64(column) => values.add(column.value(row)),
            Self::Double(column) => values.add(column.value(row)),
            Self::Decimal(column) => values.add(column.value_as_string(row)),
            Self::Text(column) => values.add(Arc::<str>::from(column.value(row))),
            Self::Binary(column) => values.add(column.value(row)),
            Self::Date(column) => values.add(text_or_count(column.value(row), json::date)),
            Self::Timestamp(column) => values.add(text_or_count(column.value(row), json::timestamp)),
            Self::SameText(text) => values.add(text.clone()),
            Self::Same(number) => values.add(*number),
            Self::Offsets(column) => values.add(column[row]),
            Self::Indexes(column) => values.add(i64::from(column[row])),
            Self::Topics(origins) => values.add(origins[row].at.topic.clone()),
            Self::Origins(origins, number) => values.add(number(&origins[row])),
        });
    }
}

fn text_or_count<N: fmt::Display + Copy, T: fmt::Display>(count: N, text: impl Fn(N) -> Option<T>) -> String {
    text(count).map_or_else(|| count.to_string(), |text| text.to_string())
}
