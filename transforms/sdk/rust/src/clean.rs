//! Strict types from loose values. Never guesses: what is not exactly of the type is an error with a code, and what
//! is absent, null or blank is `None`.
//!
//! Blanks around a text are cut off first: all that Unicode calls white space, so also a no-break space, but
//! neither a zero-width space nor a byte order mark.

mod number;
mod time;

use std::fmt;

use crate::json::Value;
use crate::scan;

pub use number::{decimal, integer};
pub use time::{date, timestamp};

/// Why a value is not of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    NotText,
    NotInteger,
    NotDecimal,
    NotBoolean,
    NotDate,
    NotTimestamp,
    /// Of the type, but larger or smaller than it can tell.
    OutOfRange,
    /// More digits after the point than the type has.
    TooPrecise,
}

impl Wrong {
    /// Stable and short, fit to be a reason's code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotText => "not-text",
            Self::NotInteger => "not-integer",
            Self::NotDecimal => "not-decimal",
            Self::NotBoolean => "not-boolean",
            Self::NotDate => "not-date",
            Self::NotTimestamp => "not-timestamp",
            Self::OutOfRange => "out-of-range",
            Self::TooPrecise => "too-precise",
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for Wrong {}

/// The text without the blanks around it; `None` if nothing is left.
#[inline(always)]
#[must_use]
pub fn trim(text: &str) -> Option<&str> {
    match text.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => Some(text),
        _ => trim_any(text),
    }
}

#[inline(never)]
fn trim_any(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// What stands before the first `mark`, trimmed; `None` if there is no mark, or nothing before it.
///
/// ```
/// use weir_sdk::clean;
///
/// assert_eq!(clean::before("Boston , Massachusetts", ','), Some("Boston"));
/// assert_eq!(clean::before("Boston", ','), None);
/// ```
#[inline]
#[must_use]
pub fn before(text: &str, mark: char) -> Option<&str> {
    let at = match u8::try_from(mark) {
        Ok(mark) if mark.is_ascii() => scan::find(text.as_bytes(), mark),
        _ => text.find(mark),
    };
    trim(&text[..at?])
}

/// A text, trimmed.
///
/// # Errors
/// [`Wrong::NotText`] for anything but a text.
#[inline]
pub fn text<'v>(value: &'v Value<'_>) -> Result<Option<&'v str>, Wrong> {
    match value {
        Value::Text(text) => Ok(trim(text)),
        Value::Absent | Value::Null => Ok(None),
        _ => Err(Wrong::NotText),
    }
}

/// A text, trimmed, or a whole number as it was written: what identifiers come as.
///
/// # Errors
/// [`Wrong::NotText`] for anything else.
#[inline]
pub fn text_or_integer<'v>(value: &'v Value<'_>) -> Result<Option<&'v str>, Wrong> {
    match value {
        Value::Number(number) if !number.contains(['.', 'e', 'E']) => Ok(Some(number)),
        _ => text(value),
    }
}

/// JSON's `true` and `false`, or these words as a text, in upper or lower case.
///
/// # Errors
/// [`Wrong::NotBoolean`] for anything else; `1`, `yes` and `on` too.
pub fn boolean(value: &Value<'_>) -> Result<Option<bool>, Wrong> {
    if let Value::Boolean(boolean) = value {
        return Ok(Some(*boolean));
    }
    match text(value).map_err(|_| Wrong::NotBoolean)? {
        None => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(Wrong::NotBoolean),
    }
}

#[cfg(test)]
mod tests;
