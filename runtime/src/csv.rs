//! Where a CSV row and its fields begin and end in bytes. It never allocates for a field and knows no types.
//!
//! Stricter than most readers in one thing: behind a closing quote only a delimiter or a line end may stand. A
//! quote that somebody forgot to close is then found at the next quoted field, before it has swallowed the rows
//! behind it. Quotes inside an unquoted field (`5" pipe`) are plain text.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr2, memchr3, memmem};

/// The delimiters that [`detect_delimiter`] tells apart; the first one wins a tie.
pub const DELIMITERS: [u8; 4] = *b",;\t|";

/// The byte order mark that some programs put in front of UTF-8 text.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// One field of a row, as positions in the bytes that were scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSpan {
    /// Without the quotes around it.
    pub range: Range<usize>,
    /// Whether quotes are written twice inside.
    pub doubled: bool,
}

impl FieldSpan {
    /// The field's text, given the bytes that were scanned.
    pub fn text<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let text = &bytes[self.range.clone()];
        if self.doubled { Cow::Owned(undouble(text)) } else { Cow::Borrowed(text) }
    }
}

/// What stands at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A whole row.
    Row {
        /// Its bytes, without the line end.
        len: usize,
        /// Where the next one begins.
        next: usize,
    },
    /// More bytes are needed to tell.
    Partial,
    /// Text at this position, where a closing quote must be followed by a delimiter or a line end.
    Stray(usize),
    /// There are no more bytes, and a quoted field is open.
    Unclosed,
}

/// Finds the row at the front of `bytes` and its fields. `last` says that nothing comes behind `bytes`. A row
/// ends at LF, CRLF, CR or the end of the bytes. `fields` holds something useful only for [`Scan::Row`].
///
/// An empty line is a row of one empty field here; see [`blank_lines`].
pub fn scan_row(bytes: &[u8], delimiter: u8, last: bool, fields: &mut Vec<FieldSpan>) -> Scan {
    fields.clear();
    let mut at = 0;
    loop {
        let end = match bytes.get(at) {
            Some(b'"') => match scan_quoted(bytes, at + 1) {
                Some((field, end)) => {
                    fields.push(field);
                    end
                }
                None => return if last { Scan::Unclosed } else { Scan::Partial },
            },
            _ => {
                let end = memchr3(delimiter, b'\n', b'\r', &bytes[at..]).map_or(bytes.len(), |i| at + i);
                fields.push(FieldSpan { range: at..end, doubled: false });
                end
            }
        };
        match bytes.get(end) {
            Some(&b) if b == delimiter => at = end + 1,
            Some(b'\n' | b'\r') => return scan_line_end(bytes, end, last),
            Some(_) => return Scan::Stray(end),
            None if last => return Scan::Row { len: end, next: end },
            None => return Scan::Partial,
        }
    }
}

/// The field whose opening quote stands before `start`, and the position behind its closing quote.
///
/// A quote that is the last byte counts as closing: with more to come, the caller asks again.
fn scan_quoted(bytes: &[u8], start: usize) -> Option<(FieldSpan, usize)> {
    let mut from = start;
    loop {
        let quote = from + memchr(b'"', bytes.get(from..)?)?;
        if bytes.get(quote + 1) != Some(&b'"') {
            let field = FieldSpan { range: start..quote, doubled: from > start };
            return Some((field, quote + 1));
        }
        from = quote + 2;
    }
}

fn scan_line_end(bytes: &[u8], len: usize, last: bool) -> Scan {
    match (bytes[len], bytes.get(len + 1)) {
        (b'\r', None) if !last => Scan::Partial,
        (b'\r', Some(b'\n')) => Scan::Row { len, next: len + 2 },
        _ => Scan::Row { len, next: len + 1 },
    }
}

fn undouble(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(i) = memmem::find(rest, b"\"\"") {
        out.extend_from_slice(&rest[..=i]);
        rest = &rest[i + 2..];
    }
    out.extend_from_slice(rest);
    out
}

/// How many bytes of empty lines stand at the front.
pub fn blank_lines(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len())
}

/// Where the first line ends, quoted or not: the position of its CR or LF.
pub fn physical_line(bytes: &[u8]) -> Option<usize> {
    memchr2(b'\n', b'\r', bytes)
}

/// The delimiter of a file that begins with `first`: the one of [`DELIMITERS`] that is most frequent in its first
/// line, outside quotes; a comma if there is none.
pub fn detect_delimiter(first: &[u8]) -> u8 {
    let first = first.strip_prefix(BOM).unwrap_or(first);
    let first = &first[blank_lines(first)..];
    delimiter_of(first)
}

/// The same for a file whose header is at the front, whatever is in front of that is gone, and whatever is behind its
/// first line does not matter.
pub fn delimiter_of(header: &[u8]) -> u8 {
    let line = &header[..physical_line(header).unwrap_or(header.len())];
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut quoted = false;
    for byte in line {
        quoted ^= *byte == b'"';
        if let Some(i) = DELIMITERS.iter().position(|d| d == byte).filter(|_| !quoted) {
            counts[i] += 1;
        }
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    DELIMITERS[counts.iter().position(|&n| n == most).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(bytes: &[u8], delimiter: u8) -> Result<Vec<Vec<Vec<u8>>>, Scan> {
        let (mut rest, mut rows, mut fields) = (bytes, Vec::new(), Vec::new());
        loop {
            rest = &rest[blank_lines(rest)..];
            if rest.is_empty() {
                return Ok(rows);
            }
            match scan_row(rest, delimiter, true, &mut fields) {
                Scan::Row { next, .. } => {
                    rows.push(fields.iter().map(|f| f.text(rest).into_owned()).collect());
                    rest = &rest[next..];
                }
                other => return Err(other),
            }
        }
    }

    fn check(bytes: &str, expected: &[&[&str]]) {
        let expected: Vec<Vec<Vec<u8>>> =
            expected.iter().map(|row| row.iter().map(|f| f.as_bytes().to_vec()).collect()).collect();
        assert_eq!(rows(bytes.as_bytes(), b','), Ok(expected), "{bytes:?}");
    }

    #[test]
    fn a_row_ends_at_any_line_end_outside_quotes() {
        check("a,b\nc,d\r\ne,f\rg,h", &[&["a", "b"], &["c", "d"], &["e", "f"], &["g", "h"]]);
        check("\n\r\na,\"b\r\nc\"\n\n\"\"\n,\n", &[&["a", "b\r\nc"], &[""], &["", ""]]);
    }

    #[test]
    fn quotes_written_twice_are_one_and_quotes_in_plain_text_are_themselves() {
        check("\"a\"\"b\",5\" pipe,\"\"\"\"", &[&["a\"b", "5\" pipe", "\""]]);
    }

    #[test]
    fn text_behind_a_closing_quote_is_told_where_it_stands() {
        let mut fields = Vec::new();
        assert_eq!(scan_row(b"1,\"a\"b,2\n", b',', true, &mut fields), Scan::Stray(5));
        assert_eq!(scan_row(b"1,\"Zo,x\n2,\"Bob\",y\n", b',', true, &mut fields), Scan::Stray(11));
    }

    #[test]
    fn the_delimiter_is_the_most_frequent_one_of_the_first_line_outside_quotes() {
        for (first, expected) in [
            ("City|State short|State full\nA,B|C,D|,,,\n", b'|'),
            ("\u{feff}a;b,c;d\n", b';'),
            ("\"a,b,c\"\tb\n", b'\t'),
            ("only\n", b','),
            ("", b','),
        ] {
            assert_eq!(detect_delimiter(first.as_bytes()), expected, "{first:?}");
        }
    }

    fn quoted(field: &str) -> String {
        format!("\"{}\"", field.replace('"', "\"\""))
    }

    /// What the CSV reader that half the world uses makes of the same bytes.
    fn oracle(bytes: &[u8], delimiter: u8) -> Vec<Vec<Vec<u8>>> {
        let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        let (mut out, mut ends) = (vec![0; bytes.len() + 64], vec![0; bytes.len() + 64]);
        let (mut rows, mut at) = (Vec::new(), 0);
        loop {
            let (mut n_out, mut n_ends) = (0, 0);
            loop {
                let (result, read, written, ended) =
                    reader.read_record(&bytes[at..], &mut out[n_out..], &mut ends[n_ends..]);
                (at, n_out, n_ends) = (at + read, n_out + written, n_ends + ended);
                match result {
                    csv_core::ReadRecordResult::Record => break,
                    csv_core::ReadRecordResult::End => return rows,
                    _ => {}
                }
            }
            let starts = std::iter::once(0).chain(ends[..n_ends].iter().copied());
            rows.push(starts.zip(&ends[..n_ends]).map(|(a, &b)| out[a..b].to_vec()).collect());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_with_sound_quotes_read_as_in_other_readers(text in "[a\",;\r\n é]{0,40}") {
            if let Ok(rows) = rows(text.as_bytes(), b',') {
                prop_assert_eq!(rows, oracle(text.as_bytes(), b','));
            }
        }

        #[test]
        fn quoted_fields_come_back_as_they_were(table in prop::collection::vec(prop::collection::vec(any::<String>(), 1..5), 0..6)) {
            let text: String = table.iter().map(|row| row.iter().map(|f| quoted(f)).collect::<Vec<_>>().join("|") + "\n").collect();
            let expected: Vec<Vec<Vec<u8>>> = table.iter().map(|row| row.iter().map(|f| f.as_bytes().to_vec()).collect()).collect();
            prop_assert_eq!(rows(text.as_bytes(), b'|'), Ok(expected));
        }

        #[test]
        fn a_row_is_never_told_before_it_is_certain(text in "[a\",\r\n]{0,20}") {
            let (mut whole, mut part) = (Vec::new(), Vec::new());
            let told = scan_row(text.as_bytes(), b',', true, &mut whole);
            for end in 0..=text.len() {
                let early = scan_row(&text.as_bytes()[..end], b',', false, &mut part);
                prop_assert!(early == Scan::Partial || early == told);
            }
        }
    }
}
