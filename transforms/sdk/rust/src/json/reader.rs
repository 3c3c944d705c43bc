//! Where the reader stands in the text, and the grammar. Never goes back.

use std::borrow::Cow;

use super::plain::{self, Key};
use super::{Code, DEPTH_LIMIT, Error, Value};
use crate::scan::plain_end;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    #[inline(always)]
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Reads the outer object: what it has of `keys` goes to `values`, which are as many.
    pub(super) fn object(&mut self, keys: &[Key], values: &mut [Value<'a>]) -> Result<(), Error> {
        self.open_object()?;
        if !self.closes(b'}') {
            let mut next = 0;
            loop {
                let passed = plain::pass(self.text, self.at, keys, next, values);
                (self.at, next) = (passed.at, passed.next);
                if passed.closed || self.member(keys, &mut next, values)? {
                    break;
                }
            }
        }
        self.finish()
    }

    /// Reads a member of any kind. Says whether it was the last.
    #[inline(never)]
    fn member(&mut self, keys: &[Key], next: &mut usize, values: &mut [Value<'a>]) -> Result<bool, Error> {
        self.space();
        let key = self.key()?;
        self.colon()?;
        match keys.iter().position(|wanted| wanted.name == key) {
            Some(at) => {
                values[at] = self.value()?;
                *next = at + 1;
            }
            None => self.skip_value(1)?,
        }
        self.ends(b'}')
    }

    /// Passes the brace that opens the outer object.
    #[inline(always)]
    fn open_object(&mut self) -> Result<(), Error> {
        self.space();
        if self.peek() != Some(b'{') {
            return Err(self.error(if self.peek().is_none() { Code::Unfinished } else { Code::NotObject }));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Whether the next byte is `end`; passes it if so.
    #[inline(always)]
    fn closes(&mut self, end: u8) -> bool {
        let closes = self.peek() == Some(end);
        self.at += usize::from(closes);
        closes
    }

    /// After a value: passes a comma (and says no) or `end` (and says yes).
    #[inline(always)]
    fn ends(&mut self, end: u8) -> Result<bool, Error> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(false)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Nothing but white space may be left.
    #[inline(always)]
    fn finish(&mut self) -> Result<(), Error> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.error(Code::Trailing)) }
    }

    #[inline]
    fn key(&mut self) -> Result<Cow<'a, str>, Error> {
        match self.peek() {
            Some(b'"') => self.string(),
            _ => Err(self.unexpected()),
        }
    }

    #[inline(always)]
    fn colon(&mut self) -> Result<(), Error> {
        self.space();
        if !self.closes(b':') {
            return Err(self.unexpected());
        }
        self.space();
        Ok(())
    }

    /// A value of the outer object.
    #[inline(always)]
    fn value(&mut self) -> Result<Value<'a>, Error> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            _ => self.other_value(),
        }
    }

    #[inline]
    fn other_value(&mut self) -> Result<Value<'a>, Error> {
        let start = self.at;
        let first = self.peek();
        self.skip_value(1)?;
        let text = &self.text[start..self.at];
        Ok(match first {
            Some(b'n') => Value::Null,
            Some(b't' | b'f') => Value::Boolean(first == Some(b't')),
            Some(b'{' | b'[') => Value::Nested(text),
            _ => Value::Number(text),
        })
    }

    /// Checks a value that stands inside `depth` objects and arrays, and forgets it.
    #[inline]
    fn skip_value(&mut self, depth: u32) -> Result<(), Error> {
        match self.peek() {
            Some(b'"') => self.skip_string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => self.skip_nested(depth, b'}'),
            Some(b'[') => self.skip_nested(depth, b']'),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(self.unexpected()),
        }
    }

    fn skip_nested(&mut self, depth: u32, end: u8) -> Result<(), Error> {
        if depth >= DEPTH_LIMIT {
            return Err(self.error(Code::TooDeep));
        }
        self.at += 1;
        self.space();
        if self.closes(end) {
            return Ok(());
        }
        loop {
            if end == b'}' {
                self.skip_key()?;
            }
            self.skip_value(depth + 1)?;
            if self.ends(end)? {
                return Ok(());
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), Error> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected());
        }
        self.skip_string()?;
        self.colon()
    }

    #[inline(always)]
    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        let start = self.at + 1;
        self.at = plain_end(self.text.as_bytes(), start);
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        self.escaped(start).map(Cow::Owned)
    }

    /// The rest of a string that began at `start` and is plain up to here.
    #[cold]
    fn escaped(&mut self, start: usize) -> Result<String, Error> {
        let mut whole = String::from(&self.text[start..self.at]);
        while let Some(character) = self.escape_or_end()? {
            whole.push(character);
            let plain = self.at;
            self.at = plain_end(self.text.as_bytes(), plain);
            whole.push_str(&self.text[plain..self.at]);
        }
        Ok(whole)
    }

    #[inline]
    fn skip_string(&mut self) -> Result<(), Error> {
        self.at = plain_end(self.text.as_bytes(), self.at + 1);
        while self.escape_or_end()?.is_some() {
            self.at = plain_end(self.text.as_bytes(), self.at);
        }
        Ok(())
    }

    /// At the end of a plain part: passes an escape and gives its character, or passes the closing quote.
    #[inline]
    fn escape_or_end(&mut self) -> Result<Option<char>, Error> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(None)
            }
            Some(b'\\') => self.escape().map(Some),
            Some(_) => Err(self.error(Code::ControlByte)),
            None => Err(self.error(Code::Unfinished)),
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let escape = self.at;
        let character = match self.text.as_bytes().get(escape + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) => return Err(self.error(Code::BadEscape)),
            None => return Err(Error { code: Code::Unfinished, at: escape + 1 }),
        };
        self.at += 2;
        Ok(character)
    }

    /// `\uXXXX`, or two of them that make a pair of surrogates.
    fn unicode_escape(&mut self) -> Result<char, Error> {
        let start = self.at;
        let lone = Error { code: Code::LoneSurrogate, at: start };
        let first = self.hex()?;
        let code = match first {
            0xd800..0xdc00 if self.text.as_bytes()[self.at..].starts_with(b"\\u") => match self.hex()? {
                second @ 0xdc00..0xe000 => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                _ => return Err(lone),
            },
            _ => first,
        };
        char::from_u32(code).ok_or(lone)
    }

    /// The four digits of `\uXXXX`.
    fn hex(&mut self) -> Result<u32, Error> {
        let Some(digits) = self.text.as_bytes().get(self.at + 2..self.at + 6) else {
            return Err(self.error(Code::BadEscape));
        };
        let mut code = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or(self.error(Code::BadEscape))?;
            code = code << 4 | digit;
        }
        self.at += 6;
        Ok(code)
    }

    fn word(&mut self, word: &str) -> Result<(), Error> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.unexpected());
        }
        self.at += word.len();
        Ok(())
    }

    /// `-? (0 | [1-9][0-9]*) (\.[0-9]+)? ([eE][+-]?[0-9]+)?`
    fn number(&mut self) -> Result<(), Error> {
        self.closes(b'-');
        if !self.closes(b'0') {
            self.digits()?;
        }
        if self.closes(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.closes(b'+') {
                self.closes(b'-');
            }
            self.digits()?;
        }
        match self.peek() {
            Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'+' | b'-' | b'_') => {
                Err(self.error(Code::BadNumber))
            }
            _ => Ok(()),
        }
    }

    fn digits(&mut self) -> Result<(), Error> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error(Code::BadNumber)) } else { Ok(()) }
    }

    #[inline(always)]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[cold]
    fn unexpected(&self) -> Error {
        self.error(if self.peek().is_none() { Code::Unfinished } else { Code::Unexpected })
    }

    #[cold]
    fn error(&self, code: Code) -> Error {
        Error { code, at: self.at }
    }
}
