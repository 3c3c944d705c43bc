//! From columns to what PostgreSQL takes, in its binary form, which COPY, arrays and parameters share. A value is stored
//! exactly or its row is refused; nothing is rounded, cut or turned into null.
//!
//! | column | type | others that will do |
//! |---|---|---|
//! | boolean | boolean | |
//! | int32 | integer | smallint, bigint, numeric: what is out of range is refused |
//! | int64 | bigint | smallint, integer, numeric: what is out of range is refused |
//! | double | double precision, with NaN and infinity | |
//! | decimal | numeric(precision, scale) | any numeric that does not round; what overflows is refused |
//! | text | text | varchar; what is too long is refused, and so is a NUL byte |
//! | JSON text | jsonb; refused with `\u0000`, which it cannot hold | json, text, varchar |
//! | binary | bytea | |
//! | date | date | |
//! | timestamp | timestamp with time zone | |
//!
//! A date or timestamp outside of PostgreSQL's calendar (4713 BC on) is refused.

use std::fmt;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array,
    Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::description::JSON_MARK;
use crate::origin::Origin;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const EPOCH_DAYS: i32 = 10_957;

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// The first day that PostgreSQL has, and the first that it does not have any more, from 2000-01-01.
const DAYS: std::ops::Range<i32> = -2_451_545..2_145_031_949;

/// The same in microseconds, for timestamps.
const MICROSECONDS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// What a value of a route is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Boolean,
    Int32,
    Int64,
    Double,
    Decimal { precision: u8, scale: i8 },
    Text,
    Json,
    Binary,
    Date,
    Timestamp,
}

/// A type of PostgreSQL's, as far as rows can have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Type {
    Boolean,
    Int2,
    Int4,
    Int8,
    Float8,
    /// Precision and scale, where they are limited.
    Numeric(Option<(i32, i32)>),
    Text,
    /// The most characters.
    Varchar(Option<usize>),
    Json,
    Jsonb,
    Bytea,
    Date,
    Timestamptz,
}

impl Kind {
    /// `None` for a type that no transform can declare.
    pub(super) fn of(field: &Field) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Boolean => Self::Boolean,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(precision, scale) => Self::Decimal { precision: *precision, scale: *scale },
            DataType::Utf8 if field.metadata().contains_key(JSON_MARK) => Self::Json,
            DataType::Utf8 => Self::Text,
            DataType::Binary => Self::Binary,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Timestamp,
            _ => return None,
        })
    }

    /// The type of a column that is made for it.
    pub(super) fn own(self) -> Type {
        match self {
            Self::Boolean => Type::Boolean,
            Self::Int32 => Type::Int4,
            Self::Int64 => Type::Int8,
            Self::Double => Type::Float8,
            Self::Decimal { precision, scale } => Type::Numeric(Some((precision.into(), scale.into()))),
            Self::Text => Type::Text,
            Self::Json => Type::Jsonb,
            Self::Binary => Type::Bytea,
            Self::Date => Type::Date,
            Self::Timestamp => Type::Timestamptz,
        }
    }

    /// Whether a column of type `to` stores its values as they are, or refuses them.
    pub(super) fn fits(self, to: Type) -> bool {
        match (self, to) {
            (Self::Int32 | Self::Int64, Type::Int2 | Type::Int4 | Type::Int8) => true,
            // A negative scale rounds, and one above the precision is for fractions alone.
            (Self::Int32 | Self::Int64, Type::Numeric(limit)) => {
                limit.is_none_or(|(precision, scale)| (0..=precision).contains(&scale))
            }
            (Self::Decimal { scale, .. }, Type::Numeric(limit)) => {
                limit.is_none_or(|(precision, digits)| (i32::from(scale)..=precision).contains(&digits))
            }
            (Self::Text, Type::Varchar(_)) => true,
            (Self::Json, Type::Json | Type::Text | Type::Varchar(_)) => true,
            _ => self.own() == to,
        }
    }
}

impl Type {
    /// The type with this number in `pg_type`, and this modifier in `pg_attribute`.
    pub(super) fn found(oid: i64, modifier: i32) -> Option<Self> {
        // The modifier counts the four bytes of a length that it once stood for.
        let modifier = (modifier >= 4).then(|| modifier - 4);
        Some(match oid {
            16 => Self::Boolean,
            17 => Self::Bytea,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            25 => Self::Text,
            114 => Self::Json,
            701 => Self::Float8,
            1043 => Self::Varchar(modifier.map(|most| most as usize)),
            1082 => Self::Date,
            1184 => Self::Timestamptz,
            // Eleven bits with a sign.
            1700 => Self::Numeric(modifier.map(|m| (m >> 16 & 0xffff, ((m & 0x7ff) ^ 1024) - 1024))),
            3802 => Self::Jsonb,
            _ => return None,
        })
    }

    /// The numbers of the type and of its array in `pg_type`.
    pub(super) fn oids(self) -> (u32, u32) {
        match self {
            Self::Boolean => (16, 1000),
            Self::Bytea => (17, 1001),
            Self::Int8 => (20, 1016),
            Self::Int2 => (21, 1005),
            Self::Int4 => (23, 1007),
            Self::Text => (25, 1009),
            Self::Json => (114, 199),
            Self::Float8 => (701, 1022),
            Self::Varchar(_) => (1043, 1015),
            Self::Date => (1082, 1182),
            Self::Timestamptz => (1184, 1185),
            Self::Numeric(_) => (1700, 1231),
            Self::Jsonb => (3802, 3807),
        }
    }

    /// Without what limits it, as arrays and casts name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Bytea => "bytea",
            Self::Int8 => "bigint",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Text => "text",
            Self::Json => "json",
            Self::Float8 => "double precision",
            Self::Varchar(_) => "varchar",
            Self::Date => "date",
            Self::Timestamptz => "timestamp with time zone",
            Self::Numeric(_) => "numeric",
            Self::Jsonb => "jsonb",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            Self::Varchar(Some(most)) => write!(f, "varchar({most})"),
            other => f.write_str(other.name()),
        }
    }
}

/// The values of one column.
pub(super) enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    /// The same text in every row.
    SameText(&'a str),
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
    /// The values of a column that has a [`Kind`].
    pub(super) fn new(array: &'a dyn Array) -> Self {
        match array.data_type() {
            DataType::Boolean => Self::Boolean(array.as_boolean()),
            DataType::Int32 => Self::Int32(array.as_primitive()),
            DataType::Int64 => Self::Int64(array.as_primitive()),
            DataType::Float64 => Self::Double(array.as_primitive()),
            DataType::Decimal128(_, scale) => Self::Decimal(array.as_primitive(), *scale as u8),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Binary => Self::Binary(array.as_binary()),
            DataType::Date32 => Self::Date(array.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Timestamp(array.as_primitive()),
            other => unreachable!("a table has no column of type {other}"),
        }
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(array) => array.is_null(row),
            Self::Int32(array) => array.is_null(row),
            Self::Int64(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Decimal(array, _) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
            Self::SameText(_) | Self::Same(_) | Self::Offsets(_) | Self::Indexes(_) => false,
            Self::Topics(_) | Self::Origins(..) => false,
        }
    }

    /// About as many bytes as the value takes.
    pub(super) fn size(&self, row: usize) -> usize {
        match self {
            Self::Text(texts) => texts.value_length(row) as usize + 4,
            Self::Binary(bytes) => bytes.value_length(row) as usize + 4,
            Self::SameText(text) => text.len() + 4,
            Self::Topics(origins) => origins[row].at.topic.len() + 4,
            _ => 12,
        }
    }

    fn integer(&self, row: usize) -> Option<i64> {
        Some(match self {
            Self::Int32(numbers) => numbers.value(row).into(),
            Self::Int64(numbers) => numbers.value(row),
            Self::Same(number) => *number,
            Self::Offsets(numbers) => numbers[row],
            Self::Indexes(numbers) => numbers[row].into(),
            Self::Origins(origins, number) => number(&origins[row]),
            _ => return None,
        })
    }

    /// Why a column of type `to`, which [fits](Kind::fits), could not store the value as it is. What only the database
    /// can know is left to it.
    pub(super) fn refusal(&self, row: usize, to: Type) -> Option<String> {
        if self.is_null(row) {
            return None;
        }
        let out_of_range = || Some(format!("out of range for {to}"));
        match (self, to) {
            (Self::Text(texts), _) => text_refusal(texts.value(row), to),
            (Self::Date(days), _) if date(days.value(row)).is_none() => out_of_range(),
            (Self::Timestamp(times), _) if timestamp(times.value(row)).is_none() => out_of_range(),
            (Self::Decimal(numbers, scale), Type::Numeric(Some((precision, digits)))) => {
                let places = precision - digits + i32::from(*scale);
                let too_large = !fits_places(numbers.value(row).unsigned_abs(), places);
                too_large.then(out_of_range).flatten()
            }
            (_, Type::Numeric(Some((precision, digits)))) => {
                let number = self.integer(row)?;
                let too_large = !fits_places(number.unsigned_abs().into(), precision - digits);
                too_large.then(out_of_range).flatten()
            }
            (_, Type::Int2) => i16::try_from(self.integer(row)?).is_err().then(out_of_range).flatten(),
            (_, Type::Int4) => i32::try_from(self.integer(row)?).is_err().then(out_of_range).flatten(),
            _ => None,
        }
    }

    /// Appends the value as `to`: its length, or -1 for null, and its bytes. It has no refusal.
    pub(super) fn write(&self, row: usize, to: Type, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return out.extend((-1_i32).to_be_bytes());
        }
        match (self, to) {
            (Self::Boolean(values), _) => sized(out, &[u8::from(values.value(row))]),
            (Self::Double(values), _) => sized(out, &values.value(row).to_be_bytes()),
            (Self::Decimal(values, scale), _) => write_numeric(values.value(row), *scale, out),
            (Self::Text(values), Type::Jsonb) => {
                // The version of its form comes first.
                let text = values.value(row);
                length(out, text.len() + 1);
                out.push(1);
                out.extend_from_slice(text.as_bytes());
            }
            (Self::Text(values), _) => sized(out, values.value(row).as_bytes()),
            (Self::SameText(text), _) => sized(out, text.as_bytes()),
            (Self::Topics(origins), _) => sized(out, origins[row].at.topic.as_bytes()),
            (Self::Binary(values), _) => sized(out, values.value(row)),
            (Self::Date(values), _) => sized(out, &allowed(date(values.value(row))).to_be_bytes()),
            (Self::Timestamp(values), _) => sized(out, &allowed(timestamp(values.value(row))).to_be_bytes()),
            (numbers, to) => {
                let number = allowed(numbers.integer(row));
                match to {
                    Type::Int2 => sized(out, &(number as i16).to_be_bytes()),
                    Type::Int4 => sized(out, &(number as i32).to_be_bytes()),
                    Type::Numeric(_) => write_numeric(number.into(), 0, out),
                    _ => sized(out, &number.to_be_bytes()),
                }
            }
        }
    }
}

fn allowed<T>(value: Option<T>) -> T {
    value.expect("a row with a refusal is not written")
}

fn length(out: &mut Vec<u8>, bytes: usize) {
    out.extend((bytes as i32).to_be_bytes());
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// PostgreSQL's count of days, where it has them.
fn date(days: i32) -> Option<i32> {
    days.checked_sub(EPOCH_DAYS).filter(|days| DAYS.contains(days))
}

/// PostgreSQL's count of microseconds, where it has them.
fn timestamp(microseconds: i64) -> Option<i64> {
    let epoch = i64::from(EPOCH_DAYS) * MICROSECONDS_PER_DAY;
    microseconds.checked_sub(epoch).filter(|microseconds| MICROSECONDS.contains(microseconds))
}

fn text_refusal(text: &str, to: Type) -> Option<String> {
    match to {
        _ if text.as_bytes().contains(&0) => Some("0x00 is not allowed in text".to_owned()),
        // PostgreSQL would cut spaces off without a word.
        Type::Varchar(Some(most)) if text.len() > most && text.chars().count() > most => {
            Some(format!("too long for {to}"))
        }
        Type::Jsonb if has_nul(text) => Some("\\u0000 is not allowed in jsonb".to_owned()),
        _ => None,
    }
}

/// Whether a string in a JSON text has a NUL, which is always written as `\u0000` there; `\\u0000` is none.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let slashes = json[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        slashes % 2 == 0
    })
}

/// Whether the number has at most so many digits.
fn fits_places(number: u128, places: i32) -> bool {
    match u32::try_from(places) {
        // No number of 128 bits has more than 39 digits.
        Ok(places) => 10_u128.checked_pow(places).is_none_or(|limit| number < limit),
        Err(_) => number == 0,
    }
}

/// PostgreSQL's numeric: groups of four digits, counted from the point.
fn write_numeric(number: i128, scale: u8, out: &mut Vec<u8>) {
    const GROUPS: usize = 11;
    let behind = usize::from(scale).div_ceil(4);
    let pad = (behind * 4 - usize::from(scale)) as u32;
    // From the last to the first.
    let mut groups = [0_u16; GROUPS];
    let mut n = 0;
    let mut rest = number.unsigned_abs();
    let (first, by) = (10_u128.pow(4 - pad), 10_u16.pow(pad));
    while rest > 0 {
        let unit = if n == 0 { first } else { 10_000 };
        groups[n] = (rest % unit) as u16 * if n == 0 { by } else { 1 };
        rest /= unit;
        n += 1;
    }
    let zeros = groups[..n].iter().take_while(|group| **group == 0).count();
    let digits = &groups[zeros..n];
    let weight = if digits.is_empty() { 0 } else { n as i16 - behind as i16 - 1 };
    let sign: u16 = if number < 0 { 0x4000 } else { 0 };
    length(out, 8 + 2 * digits.len());
    out.extend((digits.len() as i16).to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend(u16::from(scale).to_be_bytes());
    digits.iter().rev().for_each(|group| out.extend(group.to_be_bytes()));
}

#[cfg(test)]
mod tests;
