//! Sizes and times as people write them, with a unit, and fractions. Never guesses a unit.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::{names::Complaint, nearest};

/// A number of bytes, more than 0. Written `"256 MiB"`, `"64 MB"`, or as a whole number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "WrittenSize")]
pub struct ByteSize(u64);

/// A length of time, more than 0, in whole milliseconds. Written `"5 s"`, `"500 ms"`, `"2 min"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(u64);

/// A part of a whole, from 0 to 1, in millionths. Written as a number, `0.001`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "f64")]
pub struct Fraction(u32);

/// Largest first; the first that divides a size is the one it is shown in.
const SIZES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

const PERIODS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

impl ByteSize {
    pub(super) const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub(super) const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// Of a number that was checked before.
    pub(crate) const fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub fn parse(text: &str) -> Result<Self, Complaint> {
        parse(text, "size", "256 MiB", SIZES).map(Self)
    }
}

impl Period {
    pub(crate) const fn milliseconds(n: u64) -> Self {
        Self(n)
    }

    pub(crate) const fn seconds(n: u64) -> Self {
        Self(n * 1_000)
    }

    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    pub fn parse(text: &str) -> Result<Self, Complaint> {
        parse(text, "time", "5 s", PERIODS).map(Self)
    }
}

impl Fraction {
    const WHOLE: u32 = 1_000_000;

    pub(super) const fn millionths(n: u32) -> Self {
        assert!(n <= Self::WHOLE, "a fraction is at most the whole");
        Self(n)
    }

    pub fn get(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// To the next millionth; more than nothing stays more than nothing.
    pub fn parse(number: f64) -> Result<Self, Complaint> {
        if !(0.0..=1.0).contains(&number) {
            return Err(Complaint::new(
                format!("{number} is not a fraction"),
                "write a number from 0 to 1, such as 0.001".to_owned(),
            ));
        }
        Ok(Self((number * f64::from(Self::WHOLE)).ceil() as u32))
    }
}

fn parse(text: &str, what: &str, example: &str, units: &[(&str, u64)]) -> Result<u64, Complaint> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let wrong = || {
        Complaint::new(
            format!("`{text}` is not a {what}"),
            format!("write a whole number and a unit, such as \"{example}\""),
        )
    };
    if number.is_empty() || unit.starts_with(['.', ',', '_']) {
        return Err(wrong());
    }
    let names = || units.iter().rev().map(|(name, _)| *name);
    let unit = match unit.trim() {
        "" => {
            let names = nearest::list(&names().collect::<Vec<_>>());
            return Err(Complaint::new(
                format!("`{text}` has no unit"),
                format!("write a unit behind it: {names}"),
            ));
        }
        unit => unit,
    };
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(Complaint {
            message: format!("unknown unit `{unit}`"),
            help: nearest::hint(unit, names()),
        });
    };
    let value = number.parse().ok().and_then(|n: u64| n.checked_mul(*factor));
    match value {
        Some(0) => Err(Complaint::new(format!("`{text}` is nothing"), format!("a {what} is more than 0"))),
        Some(value) if i64::try_from(value).is_ok() => Ok(value),
        _ => Err(Complaint::new(
            format!("`{text}` is too much"),
            format!("the largest {what} is {}", show(i64::MAX as u64, &units[units.len() - 1..])),
        )),
    }
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let (unit, factor) =
        units.iter().find(|(_, factor)| value.is_multiple_of(*factor)).expect("the last unit is 1");
    format!("{} {unit}", value / factor)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenSize {
    Bytes(u64),
    Text(String),
}

impl TryFrom<WrittenSize> for ByteSize {
    type Error = Complaint;

    fn try_from(written: WrittenSize) -> Result<Self, Complaint> {
        match written {
            WrittenSize::Bytes(bytes) => Self::parse(&format!("{bytes} B")),
            WrittenSize::Text(text) => Self::parse(&text),
        }
    }
}

impl TryFrom<String> for Period {
    type Error = Complaint;

    fn try_from(text: String) -> Result<Self, Complaint> {
        Self::parse(&text)
    }
}

impl TryFrom<f64> for Fraction {
    type Error = Complaint;

    fn try_from(number: f64) -> Result<Self, Complaint> {
        Self::parse(number)
    }
}

impl fmt::Debug for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

impl Serialize for Fraction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.get())
    }
}

impl JsonSchema for Fraction {
    fn schema_name() -> Cow<'static, str> {
        "fraction".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "fraction", "type": ["number", "integer"], "minimum": 0, "maximum": 1 })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(self.0, SIZES))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(self.0, PERIODS))
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "size", "type": ["string", "integer"] })
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "time", "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint<T: fmt::Debug>(result: Result<T, Complaint>) -> String {
        let complaint = result.expect_err("the text is wrong");
        format!("{}; {}", complaint.message, complaint.help.unwrap_or_default())
    }

    #[test]
    fn a_size_is_a_whole_number_with_a_unit() {
        for (text, bytes) in [("256 MiB", 256 << 20), ("64 MB", 64_000_000), ("1kB", 1_000), (" 7 B ", 7)] {
            assert_eq!(ByteSize::parse(text).map(ByteSize::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_none_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("256 MIB", "unknown unit `MIB`; did you mean `MiB`?"),
            (
                "256 pounds",
                "unknown unit `pounds`; known here: `B`, `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`, `TB`, `TiB`",
            ),
            (
                "1024",
                "`1024` has no unit; write a unit behind it: `B`, `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`, `TB`, `TiB`",
            ),
            ("1.5 GiB", "`1.5 GiB` is not a size; write a whole number and a unit, such as \"256 MiB\""),
            ("-1 B", "`-1 B` is not a size; write a whole number and a unit, such as \"256 MiB\""),
            ("", "`` is not a size; write a whole number and a unit, such as \"256 MiB\""),
            ("0 B", "`0 B` is nothing; a size is more than 0"),
            ("9999999999 GiB", "`9999999999 GiB` is too much; the largest size is 9223372036854775807 B"),
        ] {
            assert_eq!(complaint(ByteSize::parse(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_time_is_a_whole_number_with_a_unit() {
        for (text, ms) in
            [("5 s", 5_000), ("500 ms", 500), ("2 min", 120_000), ("1h", 3_600_000), ("1 d", 86_400_000)]
        {
            assert_eq!(Period::parse(text).map(Period::duration), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(
            complaint(Period::parse("5 sec")),
            "unknown unit `sec`; known here: `ms`, `s`, `min`, `h`, `d`"
        );
    }

    #[test]
    fn a_fraction_is_from_0_to_1_and_never_rounded_to_nothing() {
        for (number, is) in [(0.0, 0.0), (1.0, 1.0), (0.001, 0.001), (1e-9, 1e-6)] {
            assert_eq!(Fraction::parse(number).map(Fraction::get), Ok(is), "{number}");
        }
        for number in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(complaint(Fraction::parse(number)).ends_with("from 0 to 1, such as 0.001"), "{number}");
        }
    }

    #[test]
    fn a_quantity_is_shown_as_it_would_be_written() {
        for text in ["256 MiB", "64 MB", "1 B", "1 kB", "16 KiB", "3 TiB"] {
            assert_eq!(ByteSize::parse(text).map(|size| size.to_string()), Ok(text.to_owned()));
        }
        for text in ["5 s", "500 ms", "2 min", "3 d"] {
            assert_eq!(Period::parse(text).map(|period| period.to_string()), Ok(text.to_owned()));
        }
    }
}
