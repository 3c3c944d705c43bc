//! The laws of the cleaning functions.

use proptest::prelude::*;

use super::*;
use crate::row::{Date, Decimal, Timestamp};

fn check<T: Copy + PartialEq + fmt::Debug>(
    cleaner: impl for<'v> Fn(&Value<'v>) -> Result<Option<T>, Wrong>,
    cases: &[(&str, Result<T, Wrong>)],
) {
    for (text, expected) in cases {
        assert_eq!(cleaner(&Value::from(*text)), expected.map(Some), "{text:?}");
    }
    for absent in [Value::Absent, Value::Null, "".into(), " \t\u{a0}\u{3000}".into()] {
        assert_eq!(cleaner(&absent), Ok(None), "{absent:?}");
    }
    assert!(cleaner(&Value::Nested("{}")).is_err());
}

#[test]
fn blanks_around_a_text_are_cut_off() {
    assert_eq!(trim(" \u{a0}a b\u{3000}\n"), Some("a b"));
    assert_eq!(trim("é "), Some("é"));
    assert_eq!(trim("\u{feff}a"), Some("\u{feff}a"));
    assert_eq!(trim("\u{200b}"), Some("\u{200b}"));
    assert_eq!(trim(" "), None);
}

#[test]
fn a_text_is_no_number() {
    assert_eq!(text(&Value::Number("1")), Err(Wrong::NotText));
    assert_eq!(text(&" a ".into()), Ok(Some("a")));
    assert_eq!(text_or_integer(&Value::Number("12345678901234567890")), Ok(Some("12345678901234567890")));
    assert_eq!(text_or_integer(&Value::Number("1.0")), Err(Wrong::NotText));
    assert_eq!(text_or_integer(&Value::Number("1e3")), Err(Wrong::NotText));
    assert_eq!(text_or_integer(&Value::Boolean(true)), Err(Wrong::NotText));
}

#[test]
fn an_integer_is_digits_and_a_minus() {
    let (no, range) = (Err(Wrong::NotInteger), Err(Wrong::OutOfRange));
    check(
        integer,
        &[
            ("42", Ok(42)),
            (" -7 ", Ok(-7)),
            ("007", Ok(7)),
            ("-0", Ok(0)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", range),
            ("99999999999999999999999", range),
            ("+1", no),
            ("1_000", no),
            ("1,000", no),
            ("1.0", no),
            ("1e3", no),
            ("0x10", no),
            ("-", no),
            ("- 1", no),
            ("--1", no),
            ("４２", no),
            ("٤٢", no),
            ("abc", no),
        ],
    );
    assert_eq!(integer(&Value::Number("-12")), Ok(Some(-12)));
    assert_eq!(integer(&Value::Number("1.0")), no.map(Some));
    assert_eq!(integer(&Value::Boolean(true)), no.map(Some));
}

#[test]
fn a_decimal_is_exact_or_refused() {
    let (no, range, precise) = (Err(Wrong::NotDecimal), Err(Wrong::OutOfRange), Err(Wrong::TooPrecise));
    let ok = |unscaled| Ok(Decimal::<5, 2>::new(unscaled).expect("five digits"));
    check(
        decimal::<5, 2>,
        &[
            ("1", ok(100)),
            ("-12.5", ok(-1250)),
            ("999.99", ok(99_999)),
            ("1000", range),
            ("0.01", ok(1)),
            ("0.001", precise),
            ("0.0100000000000000000000000000000000000000000000", ok(1)),
            ("0000000000000000000000000000000000000000000001.50", ok(150)),
            ("1.005", precise),
            ("340282366920938463463374607431768211456", range),
            (".5", no),
            ("5.", no),
            ("1e2", no),
            ("+1", no),
            ("1,5", no),
            ("", Err(Wrong::NotDecimal)),
        ][..15],
    );
    let number = |text| decimal::<5, 2>(&Value::Number(text));
    assert_eq!(number("1e2"), ok(10_000).map(Some));
    assert_eq!(number("125E-2"), ok(125).map(Some));
    assert_eq!(number("1e-3"), precise.map(Some));
    assert_eq!(number("1e999999999999"), range.map(Some));
    assert_eq!(number("1e-999999999999"), precise.map(Some));
    assert_eq!(number("0e999999999999"), ok(0).map(Some));
}

#[test]
fn a_boolean_is_one_of_two_words() {
    let no = Err(Wrong::NotBoolean);
    check(boolean, &[("true", Ok(true)), ("False", Ok(false)), (" TRUE ", Ok(true)), ("1", no), ("yes", no)]);
    assert_eq!(boolean(&Value::Boolean(false)), Ok(Some(false)));
    assert_eq!(boolean(&Value::Number("1")), no.map(Some));
}

#[test]
fn a_date_exists() {
    let (no, range) = (Err(Wrong::NotDate), Err(Wrong::OutOfRange));
    check(
        date,
        &[
            ("1970-01-01", Ok(Date(0))),
            ("1969-12-31", Ok(Date(-1))),
            ("2000-02-29", Ok(Date(11_016))),
            ("2024-02-29", Ok(Date(19_782))),
            ("0001-01-01", Ok(Date(-719_162))),
            ("9999-12-31", Ok(Date(2_932_896))),
            ("2023-02-29", range),
            ("1900-02-29", range),
            ("2024-04-31", range),
            ("2024-13-01", range),
            ("2024-00-01", range),
            ("2024-01-00", range),
            ("0000-01-01", range),
            ("2024-1-01", no),
            ("2024/01/01", no),
            ("20240101", no),
            ("01.02.2024", no),
            ("2024-01-01T00:00:00Z", no),
            ("２024-01-1", no),
        ],
    );
    assert_eq!(date(&Value::Number("20240101")), no.map(Some));
}

#[test]
fn a_timestamp_is_in_utc() {
    let (no, range) = (Err(Wrong::NotTimestamp), Err(Wrong::OutOfRange));
    check(
        timestamp,
        &[
            ("1970-01-01T00:00:00Z", Ok(Timestamp(0))),
            ("1970-01-01t00:00:00.000001z", Ok(Timestamp(1))),
            ("1969-12-31T23:59:59.5Z", Ok(Timestamp(-500_000))),
            ("1970-01-01T01:00:00+01:00", Ok(Timestamp(0))),
            ("1969-12-31T23:30:00-00:30", Ok(Timestamp(0))),
            ("2024-02-29T12:34:56.789Z", Ok(Timestamp(1_709_210_096_789_000))),
            ("2024-02-29T12:34:56.123456000Z", Ok(Timestamp(1_709_210_096_123_456))),
            ("2024-02-29T12:34:56.1234567Z", Err(Wrong::TooPrecise)),
            ("2024-02-30T00:00:00Z", range),
            ("2024-01-01T24:00:00Z", range),
            ("2024-01-01T23:59:60Z", range),
            ("2024-01-01T00:00:00+24:00", range),
            ("0001-01-01T00:00:00+00:01", range),
            ("9999-12-31T23:59:59-00:01", range),
            ("2024-01-01T00:00:00", no),
            ("2024-01-01 00:00:00Z", no),
            ("2024-01-01T00:00Z", no),
            ("2024-01-01T00:00:00.Z", no),
            ("2024-01-01T00:00:00+0100", no),
            ("2024-01-01", no),
            ("1704067200", no),
        ],
    );
}

proptest! {
    #[test]
    fn every_integer_is_read_back(number in any::<i64>()) {
        prop_assert_eq!(integer(&number.to_string().as_str().into()), Ok(Some(number)));
        prop_assert_eq!(integer(&Value::Number(&number.to_string())), Ok(Some(number)));
    }

    #[test]
    fn every_decimal_is_read_back(unscaled in -99_999_i128..=99_999) {
        let (sign, magnitude) = (if unscaled < 0 { "-" } else { "" }, unscaled.unsigned_abs());
        let text = format!("{sign}{}.{:02}", magnitude / 100, magnitude % 100);
        prop_assert_eq!(decimal::<5, 2>(&text.as_str().into()), Ok(Decimal::new(unscaled)));
    }

    #[test]
    fn the_day_after_a_date_is_one_more(days in -719_162..2_932_896) {
        let (year, month, day) = civil(days);
        let text = format!("{year:04}-{month:02}-{day:02}");
        prop_assert_eq!(date(&text.as_str().into()), Ok(Some(Date(days))));
    }
}

/// The date of a day, counted month by month from 0001-01-01.
fn civil(days: i32) -> (i32, i32, i32) {
    let mut left = days + 719_162;
    let leap = |year: i32| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1;
    while left >= 365 + i32::from(leap(year)) {
        left -= 365 + i32::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i32::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, i32::try_from(month).expect("twelve months") + 1, left + 1)
}
