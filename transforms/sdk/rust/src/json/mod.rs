//! Reads one JSON object in one pass, borrowing from the record. Never builds a tree and never rounds a number.
//!
//! Strict RFC 8259: UTF-8 without a byte order mark, nothing after the object, no lone surrogates. Of a key that
//! comes twice the last value counts. Objects and arrays may be nested [`DEPTH_LIMIT`] deep, the outer object
//! included. A number of any size is taken, as its text.

mod plain;
mod reader;

use std::borrow::Cow;
use std::fmt;

use plain::Key;
use reader::Reader;

/// How many objects and arrays may stand inside each other, the outermost included.
pub const DEPTH_LIMIT: u32 = 128;

/// The keys that a transform wants from an object; best in the order in which they usually come.
///
/// ```
/// use weir_sdk::json::{Object, Value};
///
/// const CUSTOMER: Object<2> = Object::with(["id", "age"]);
/// let [id, age] = CUSTOMER.read(br#"{"id":"7","name":"Ada","age":36}"#).unwrap();
/// assert_eq!(id, Value::from("7"));
/// assert_eq!(age, Value::Number("36"));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Object<const N: usize> {
    keys: [Key; N],
}

/// What a key has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Value<'a> {
    /// The object does not have the key.
    #[default]
    Absent,
    Null,
    Boolean(bool),
    /// A number as it was written.
    Number(&'a str),
    /// Owned only if it was written with escapes.
    Text(Cow<'a, str>),
    /// An object or array as it was written.
    Nested(&'a str),
}

/// Why a value is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    /// Bytes from the beginning of the value.
    pub at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A tombstone.
    Absent,
    NotUtf8,
    /// Something else than an object.
    NotObject,
    /// It ends too early.
    Unfinished,
    /// A byte that the grammar has not here.
    Unexpected,
    BadNumber,
    BadEscape,
    LoneSurrogate,
    /// A byte below 0x20 in a string, where it has to be escaped.
    ControlByte,
    TooDeep,
    /// Something after the object.
    Trailing,
}

impl<const N: usize> Object<N> {
    /// # Panics
    /// At compile time, if a key has a character that JSON escapes.
    #[must_use]
    pub const fn with(keys: [&'static str; N]) -> Self {
        let mut all = [Key::new(""); N];
        let mut at = 0;
        while at < N {
            all[at] = Key::new(keys[at]);
            at += 1;
        }
        Self { keys: all }
    }

    /// The values of the wanted keys, in the order in which they were named.
    ///
    /// # Errors
    /// Why `bytes` is no JSON object, and where.
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Result<[Value<'a>; N], Error> {
        self.read_text(text(bytes)?)
    }

    /// As [`read`](Self::read), of what is known to be UTF-8.
    ///
    /// # Errors
    /// Why `text` is no JSON object, and where.
    #[inline]
    pub fn read_text<'a>(&self, text: &'a str) -> Result<[Value<'a>; N], Error> {
        // Filled where it is returned: values that were just written are slow to copy.
        let mut read = Ok([const { Value::Absent }; N]);
        if let Ok(values) = &mut read
            && let Err(error) = Reader::new(text).object(&self.keys, values)
        {
            read = Err(error);
        }
        read
    }
}

/// `bytes` as text.
///
/// # Errors
/// [`Code::NotUtf8`], and where.
#[inline]
pub fn text(bytes: &[u8]) -> Result<&str, Error> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| {
        let valid = simdutf8::compat::from_utf8(bytes).err().map_or(0, |error| error.valid_up_to());
        Error { code: Code::NotUtf8, at: valid }
    })
}

impl Value<'_> {
    /// Whether the key is missing or has null.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent | Self::Null)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// As it was written, but for escapes: what a person wants to see as the detail of a reject.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing"),
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Number(text) | Self::Nested(text) => f.write_str(text),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl Code {
    /// Stable and short, fit to be a reason's code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "no-value",
            Self::NotUtf8 => "not-utf8",
            Self::NotObject => "not-an-object",
            Self::Unfinished => "unfinished",
            Self::Unexpected => "unexpected-byte",
            Self::BadNumber => "bad-number",
            Self::BadEscape => "bad-escape",
            Self::LoneSurrogate => "lone-surrogate",
            Self::ControlByte => "control-byte",
            Self::TooDeep => "too-deep",
            Self::Trailing => "trailing-bytes",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.code.as_str(), self.at)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
