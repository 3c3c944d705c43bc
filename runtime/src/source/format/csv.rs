//! CSV with a header: a record is a row as one JSON object whose values are strings, as `csv.DictReader` and
//! `json.dumps` would make it. Values are never given types.

use std::io;

use super::{Cutter, Found, Window, too_large};
use crate::batch::{BatchBuilder, RecordRef, Unreadable};
use crate::csv::{FieldSpan, Scan, blank_lines, delimiter_of, physical_line, scan_row};
use crate::offset::Offset;

#[derive(Debug)]
pub(super) struct Rows {
    delimiter: u8,
    max: usize,
    columns: Vec<Column>,
    /// The row found last.
    fields: Vec<FieldSpan>,
    /// Before this position of the file no row spans lines: see [`Rows::first_line_only`].
    distrusted_until: u64,
    /// A row's JSON, kept for its capacity.
    json: Vec<u8>,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// What stands before its value: `{"id":"` or `","age":"`.
    before: Vec<u8>,
}

/// [`super::Error`] without the file's name.
pub(super) enum OpenError {
    Read(io::Error),
    Header(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl Rows {
    /// Reads the header. A file without any row has no columns and no records.
    pub(super) fn open(window: &mut Window, delimiter: Option<u8>, max: usize) -> Result<Self, OpenError> {
        let mut rows = Self {
            delimiter: b',',
            max,
            columns: Vec::new(),
            fields: Vec::new(),
            distrusted_until: 0,
            json: Vec::new(),
        };
        skip_blank_lines(window)?;
        rows.delimiter = match delimiter {
            Some(given) => given,
            None => find_delimiter(window, max)?,
        };
        if let Some(next) = rows.read_header(window)? {
            window.consume(next);
        }
        Ok(rows)
    }

    fn read_header(&mut self, window: &mut Window) -> Result<Option<usize>, OpenError> {
        if window.bytes().is_empty() {
            return Ok(None);
        }
        let problem = match self.scan(window)?.0 {
            Scan::Row { len, next } if len <= self.max => {
                self.columns = columns(&window.bytes()[..len], &self.fields)?;
                return Ok(Some(next));
            }
            Scan::Stray(at) => {
                format!("has text behind the closing quote at byte {at}; quote the whole name")
            }
            Scan::Unclosed => "opens a quote and never closes it".to_owned(),
            Scan::Row { .. } | Scan::Partial => {
                "is longer than a record may be; is this a CSV file?".to_owned()
            }
        };
        Err(OpenError::Header(problem))
    }

    /// What stands at the front of the window, and how far that was looked at. [`Scan::Partial`] only if it is
    /// longer than a record may be.
    ///
    /// It never looks further than the longest record with its line end reaches, so that the size of the window makes no
    /// difference.
    fn scan(&mut self, window: &mut Window) -> io::Result<(Scan, usize)> {
        let reach = self.max + 2;
        loop {
            let bytes = window.bytes();
            let (end, last) = match self.distrusted_line(window) {
                Some(end) => (end, true),
                None => (bytes.len(), window.ended()),
            };
            let last = last && end <= reach;
            match scan_row(&bytes[..end.min(reach)], self.delimiter, last, &mut self.fields) {
                Scan::Partial if end <= reach => {}
                scan @ Scan::Stray(at) => return Ok((scan, at)),
                scan => return Ok((scan, end.min(reach))),
            }
            window.extend()?;
        }
    }

    /// The end of the first line, line end included, if a row there may not span lines.
    fn distrusted_line(&self, window: &Window) -> Option<usize> {
        let bytes = window.bytes();
        let left = self.distrusted_until.checked_sub(window.position()).filter(|&left| left > 0)?;
        let end = physical_line(&bytes[..bytes.len().min(left as usize)])?;
        let line_end = if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 };
        Some(end + line_end)
    }

    /// Gives up only the first line of something that cannot be a row, for the rows behind it are most likely
    /// sound: what is wrong is nearly always a quote that was opened and not closed.
    ///
    /// `until` is how far the scan went. Before that position rows do not span lines any more: what is scanned
    /// again is then scanned once, not once per line.
    fn first_line_only(&mut self, window: &mut Window, until: usize) -> io::Result<Found> {
        let Some((len, taken)) = self.first_line(window)? else {
            return too_large(window, self.max, physical_line);
        };
        // Not further than a record reaches, so that the size of the window makes no difference.
        let until = until.min(self.max + 1);
        self.distrusted_until = self.distrusted_until.max(window.position() + until as u64);
        let bytes = window.bytes()[..len].to_vec();
        let (code, message) = if until < len {
            (
                "stray-quote",
                format!(
                    "text behind the closing quote at byte {until}; a quote inside quotes is written twice"
                ),
            )
        } else {
            (
                "unclosed-quote",
                "a quote is opened in this line and not closed where a field can end".to_owned(),
            )
        };
        Ok(Found::Unreadable { bytes, taken, code, message })
    }

    /// The first line without and with its line end; `None` if it is longer than a record may be.
    fn first_line(&self, window: &mut Window) -> io::Result<Option<(usize, usize)>> {
        loop {
            let bytes = window.bytes();
            let end = physical_line(bytes);
            if end.unwrap_or(bytes.len()) > self.max {
                return Ok(None);
            }
            match end {
                Some(end) => return Ok(Some((end, end + 1))),
                None if window.ended() => return Ok(Some((bytes.len(), bytes.len()))),
                None => window.extend()?,
            }
        }
    }

    fn ragged(&self, row: &[u8], taken: usize) -> Found {
        let message = format!("row has {} fields, the header has {}", self.fields.len(), self.columns.len());
        Found::Unreadable { bytes: row.to_vec(), taken, code: "ragged-row", message }
    }

    fn write_json(&mut self, row: &[u8]) {
        self.json.clear();
        for (column, field) in self.columns.iter().zip(&self.fields) {
            self.json.extend_from_slice(&column.before);
            escape(&field.text(row), &mut self.json);
        }
        self.json.extend_from_slice(b"\"}");
    }

    fn not_utf8(&self, row: &[u8], valid: usize) -> String {
        let name = |i: usize| self.columns.get(i).map_or("", |c| c.name.as_str());
        let at = self.fields.iter().position(|f| f.range.end > valid).unwrap_or(0);
        format!(
            "byte 0x{:02X} at position {valid} of the row, in field {}, is not UTF-8; save the file as UTF-8",
            row[valid],
            name(at)
        )
    }
}

impl Cutter for Rows {
    fn find(&mut self, window: &mut Window) -> io::Result<Option<Found>> {
        skip_blank_lines(window)?;
        if window.bytes().is_empty() {
            return Ok(None);
        }
        let (scan, until) = self.scan(window)?;
        let Scan::Row { len, next } = scan else {
            return self.first_line_only(window, until).map(Some);
        };
        let row = &window.bytes()[..len];
        let ragged = self.fields.len() != self.columns.len();
        if len > self.max || (ragged && physical_line(row).is_some()) {
            return self.first_line_only(window, len).map(Some);
        }
        Ok(Some(if ragged { self.ragged(row, next) } else { Found::Record { len, taken: next } }))
    }

    fn add(&mut self, row: &[u8], offset: Offset, builder: &mut BatchBuilder) {
        if let Err(error) = std::str::from_utf8(row) {
            let message = self.not_utf8(row, error.valid_up_to());
            return builder.push_unreadable(Unreadable {
                offset,
                bytes: row.to_vec(),
                code: "not-utf8",
                message,
            });
        }
        self.write_json(row);
        builder.push(offset, RecordRef { value: Some(&self.json), timestamp_ms: -1, ..RecordRef::default() });
    }
}

fn skip_blank_lines(window: &mut Window) -> io::Result<()> {
    loop {
        let blank = blank_lines(window.bytes());
        let all = blank == window.bytes().len();
        window.consume(blank);
        if !all || window.ended() {
            return Ok(());
        }
        window.extend()?;
    }
}

fn find_delimiter(window: &mut Window, max: usize) -> io::Result<u8> {
    while physical_line(window.bytes()).is_none() && !window.ended() && window.bytes().len() <= max {
        window.extend()?;
    }
    // No more than may be a header, so that the size of the window makes no difference.
    Ok(delimiter_of(&window.bytes()[..window.bytes().len().min(max + 1)]))
}

fn columns(row: &[u8], fields: &[FieldSpan]) -> Result<Vec<Column>, OpenError> {
    let mut columns: Vec<Column> = Vec::with_capacity(fields.len());
    let mut seen = std::collections::BTreeMap::new();
    for (i, field) in fields.iter().enumerate() {
        let n = i + 1;
        let name = String::from_utf8(field.text(row).into_owned())
            .map_err(|_| OpenError::Header(format!("is not UTF-8 in column {n}; save the file as UTF-8")))?;
        if name.is_empty() {
            return Err(OpenError::Header(format!(
                "has no name for column {n} of {}; give it one",
                fields.len()
            )));
        }
        if let Some(first) = seen.insert(name.clone(), n) {
            let problem = format!("names columns {first} and {n} both \"{name}\"; rename one of them");
            return Err(OpenError::Header(problem));
        }
        let mut before = if i == 0 { b"{\"".to_vec() } else { b"\",\"".to_vec() };
        escape(name.as_bytes(), &mut before);
        before.extend_from_slice(b"\":\"");
        columns.push(Column { name, before });
    }
    Ok(columns)
}

/// Writes `text` as it stands between the quotes of a JSON string.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut plain = 0;
    for (i, &byte) in text.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[plain..i]);
        escape_byte(byte, out);
        plain = i + 1;
    }
    out.extend_from_slice(&text[plain..]);
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        b'"' | b'\\' => byte,
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
