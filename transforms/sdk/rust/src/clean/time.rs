//! Dates and timestamps. Never a local time, never a guess at the order of day and month.

use super::{Wrong, text};
use crate::json::Value;
use crate::row::{Date, Timestamp};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A date `YYYY-MM-DD` that exists, from year 0001 to 9999 of the Gregorian calendar, also before there was one.
///
/// # Errors
/// [`Wrong::NotDate`] for another form, [`Wrong::OutOfRange`] for a day that does not exist.
pub fn date(value: &Value<'_>) -> Result<Option<Date>, Wrong> {
    let Some(text) = text(value).map_err(|_| Wrong::NotDate)? else { return Ok(None) };
    let date: &[u8; 10] = text.as_bytes().try_into().map_err(|_| Wrong::NotDate)?;
    days(date, Wrong::NotDate).map(|days| Some(Date(days)))
}

/// A timestamp after RFC 3339, such as `2024-02-29T23:59:59.5+01:00`: `T` and `Z` in either case, seconds from 0 to
/// 59, years from 0001 to 9999 in UTC.
///
/// # Errors
/// [`Wrong::NotTimestamp`] for another form (without an offset too), [`Wrong::OutOfRange`] for a time that does not
/// exist, [`Wrong::TooPrecise`] for digits below the microsecond that are not 0.
pub fn timestamp(value: &Value<'_>) -> Result<Option<Timestamp>, Wrong> {
    let Some(text) = text(value).map_err(|_| Wrong::NotTimestamp)? else { return Ok(None) };
    parse_timestamp(text.as_bytes()).map(|micros| Some(Timestamp(micros)))
}

fn parse_timestamp(text: &[u8]) -> Result<i64, Wrong> {
    let (date, rest) = text.split_first_chunk::<10>().ok_or(Wrong::NotTimestamp)?;
    let (time, rest) = rest.split_first_chunk::<9>().ok_or(Wrong::NotTimestamp)?;
    let [b'T' | b't', h0, h1, b':', m0, m1, b':', s0, s1] = *time else { return Err(Wrong::NotTimestamp) };
    let days = i64::from(days(date, Wrong::NotTimestamp)?);
    let seconds = clock([h0, h1], [m0, m1])? * 60 + number(&[s0, s1], 59)?;
    let (micros, rest) = fraction(rest)?;
    let utc = days * SECONDS_PER_DAY + seconds - offset(rest)?;
    let (first, last) = (gregorian(1, 1, 1) * SECONDS_PER_DAY, gregorian(10_000, 1, 1) * SECONDS_PER_DAY);
    if !(first..last).contains(&utc) {
        return Err(Wrong::OutOfRange);
    }
    Ok(utc * MICROS_PER_SECOND + micros)
}

/// Minutes from `HH` and `MM`.
fn clock(hours: [u8; 2], minutes: [u8; 2]) -> Result<i64, Wrong> {
    Ok(number(&hours, 23)? * 60 + number(&minutes, 59)?)
}

/// `.5` in microseconds, and what follows.
fn fraction(text: &[u8]) -> Result<(i64, &[u8]), Wrong> {
    let [b'.', text @ ..] = text else { return Ok((0, text)) };
    let len = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() {
        return Err(Wrong::NotTimestamp);
    }
    if digits.iter().skip(6).any(|digit| *digit != b'0') {
        return Err(Wrong::TooPrecise);
    }
    let six = digits.iter().chain(std::iter::repeat(&b'0')).take(6);
    Ok((six.fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0')), rest))
}

/// `Z` or `+HH:MM`, in seconds.
fn offset(text: &[u8]) -> Result<i64, Wrong> {
    match *text {
        [b'Z' | b'z'] => Ok(0),
        [b'+', h0, h1, b':', m0, m1] => Ok(clock([h0, h1], [m0, m1])? * 60),
        [b'-', h0, h1, b':', m0, m1] => Ok(-clock([h0, h1], [m0, m1])? * 60),
        _ => Err(Wrong::NotTimestamp),
    }
}

fn number(digits: &[u8; 2], max: i64) -> Result<i64, Wrong> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Wrong::NotTimestamp);
    }
    let number = i64::from(digits[0] - b'0') * 10 + i64::from(digits[1] - b'0');
    if number <= max { Ok(number) } else { Err(Wrong::OutOfRange) }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
fn days(date: &[u8; 10], form: Wrong) -> Result<i32, Wrong> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *date else { return Err(form) };
    if ![y0, y1, y2, y3, m0, m1, d0, d1].iter().all(u8::is_ascii_digit) {
        return Err(form);
    }
    let digits = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    let (year, month, day) = (digits(&[y0, y1, y2, y3]), digits(&[m0, m1]), digits(&[d0, d1]));
    if year == 0 || !(1..=12).contains(&month) || !(1..=last_day(year, month)).contains(&day) {
        return Err(Wrong::OutOfRange);
    }
    Ok(i32::try_from(gregorian(year, month, day)).expect("years of four digits"))
}

fn last_day(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. The year begins in March, so that the leap day is its last; 719,468 days lie between
/// 0000-03-01 and 1970-01-01.
const fn gregorian(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (months * 153 + 2) / 5 + day - 1 - 719_468
}
