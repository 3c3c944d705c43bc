//! Whole and decimal numbers. Never by way of a float.

use super::{Wrong, text};
use crate::json::Value;
use crate::row::Decimal;

/// A whole number: a JSON number or a text of ASCII digits, with a `-` before them or not. Leading zeros are taken
/// in a text (JSON has none); `+`, points, exponents and separators are not.
///
/// # Errors
/// [`Wrong::NotInteger`], or [`Wrong::OutOfRange`] beyond 64 bits.
#[inline]
pub fn integer(value: &Value<'_>) -> Result<Option<i64>, Wrong> {
    let text = match value {
        Value::Number(number) => Some(*number),
        _ => text(value).map_err(|_| Wrong::NotInteger)?,
    };
    text.map(parse_integer).transpose()
}

#[inline]
fn parse_integer(text: &str) -> Result<i64, Wrong> {
    match text.as_bytes() {
        // Shorter than any that could be too large.
        [b'0'..=b'9', ..] if text.len() <= 18 => parse_short(text.as_bytes()),
        _ => parse_any(text),
    }
}

#[inline(always)]
fn parse_short(digits: &[u8]) -> Result<i64, Wrong> {
    let mut number = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Wrong::NotInteger);
        }
        number = number * 10 + i64::from(digit);
    }
    Ok(number)
}

#[inline(never)]
fn parse_any(text: &str) -> Result<i64, Wrong> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NotInteger);
    }
    text.parse().map_err(|_| Wrong::OutOfRange)
}

/// An exact decimal number of at most `PRECISION` digits, `SCALE` of them after the point: a JSON number, or a text
/// such as `-12.50`. Zeros at the end do not count as digits. A JSON number may have an exponent, a text may not.
///
/// # Errors
/// [`Wrong::NotDecimal`], [`Wrong::OutOfRange`], or [`Wrong::TooPrecise`] where rounding would be needed.
pub fn decimal<const PRECISION: u8, const SCALE: u8>(
    value: &Value<'_>,
) -> Result<Option<Decimal<PRECISION, SCALE>>, Wrong> {
    let number = match value {
        Value::Number(number) => {
            let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
            // Beyond 32 bits the sign alone decides what is wrong with it.
            let beyond = if exponent.starts_with('-') { i32::MIN } else { i32::MAX };
            Some((mantissa, exponent.parse().unwrap_or(beyond)))
        }
        _ => text(value).map_err(|_| Wrong::NotDecimal)?.map(|text| (text, 0)),
    };
    let Some((mantissa, exponent)) = number else { return Ok(None) };
    let unscaled = Digits::parse(mantissa)?.unscaled(i64::from(exponent) + i64::from(SCALE))?;
    Decimal::new(unscaled).map(Some).ok_or(Wrong::OutOfRange)
}

/// A number: `digits` without the zeros at its end, times 10^`exponent`.
#[derive(Default)]
struct Digits {
    digits: i128,
    exponent: i64,
}

impl Digits {
    /// `-? [0-9]+ (\. [0-9]+)?`
    fn parse(text: &str) -> Result<Self, Wrong> {
        let plain = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = plain.split_once('.').unwrap_or((plain, "0"));
        let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits_only(whole) || !digits_only(fraction) {
            return Err(Wrong::NotDecimal);
        }
        let mut number = Self { digits: 0, exponent: -(fraction.len() as i64) };
        let mut zeros = 0_u32;
        for digit in whole.bytes().chain(fraction.bytes()) {
            if digit == b'0' {
                zeros += 1;
            } else {
                number.append(zeros, digit - b'0')?;
                zeros = 0;
            }
        }
        number.exponent += i64::from(zeros);
        number.digits = if plain.len() < text.len() { -number.digits } else { number.digits };
        Ok(number)
    }

    fn append(&mut self, zeros: u32, digit: u8) -> Result<(), Wrong> {
        if self.digits != 0 {
            let shifted = 10_i128.checked_pow(zeros + 1).and_then(|power| self.digits.checked_mul(power));
            self.digits = shifted.ok_or(Wrong::OutOfRange)?;
        }
        self.digits = self.digits.checked_add(i128::from(digit)).ok_or(Wrong::OutOfRange)?;
        Ok(())
    }

    /// The number times 10^`shift`, if that is whole.
    fn unscaled(&self, shift: i64) -> Result<i128, Wrong> {
        if self.digits == 0 {
            return Ok(0);
        }
        let power = self.exponent.saturating_add(shift);
        let power =
            if power < 0 { Err(Wrong::TooPrecise) } else { Ok(u32::try_from(power).unwrap_or(u32::MAX)) }?;
        let scaled = 10_i128.checked_pow(power).and_then(|power| self.digits.checked_mul(power));
        scaled.ok_or(Wrong::OutOfRange)
    }
}
