//! A reference table from a CSV file: typed as declared, and all or nothing, since a table with a row missing
//! sends records the wrong way without a word. It never opens a file.

use std::collections::BTreeMap;

use super::Table;
use super::columns::{ColumnBuilder, wanted};
use super::header::find_columns;
use crate::csv::{BOM, FieldSpan, Scan, blank_lines, detect_delimiter, scan_row};
use crate::description::TableNeed;
use crate::digest;

/// How a table's file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsvOptions {
    /// Absent: [`detect_delimiter`].
    pub delimiter: Option<u8>,
    /// From the name of a wanted column to that of the file's column, exactly as the header has it. Wanted columns
    /// that are not here go by their own name, ignoring case, spaces, `_` and `-`.
    pub columns: BTreeMap<String, String>,
}

/// Why a file is not the table that a transform wants.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("table {table}: {problem}")]
pub struct TableError {
    /// The table's name.
    pub table: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a table's file. Lines count from 1, the header's included.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No header.
    #[error("the file is empty; its first line must name the columns")]
    Empty,
    /// Positions have 31 bits.
    #[error("the file has {0} bytes, and a table may have 2147483647")]
    TooLarge(usize),
    /// Another encoding.
    #[error(
        "line {line} is not UTF-8; save the file as UTF-8 (it may be in Latin-1, Windows-1252 or UTF-16)"
    )]
    NotUtf8 {
        /// Where.
        line: usize,
    },
    /// A quoted field that does not end, or goes on behind its end.
    #[error(
        "a quote in the row at line {line} is not closed where its field ends; a quote inside quotes is written twice"
    )]
    Quotes {
        /// Where the row begins.
        line: usize,
    },
    /// A row of another width.
    #[error("the row at line {line} has {fields} fields, the header has {header}")]
    Ragged {
        /// Where the row begins.
        line: usize,
        /// Fields in it.
        fields: usize,
        /// Fields in the header.
        header: usize,
    },
    /// A wanted column is not in the header.
    #[error("no column for {column}: the header has no \"{looked_for}\"{}, only {header}; name the right one under columns", meant(.nearest))]
    Missing {
        /// The wanted column.
        column: String,
        /// What it goes by.
        looked_for: String,
        /// All that there are.
        header: String,
        /// The one that may be meant.
        nearest: Option<String>,
    },
    /// Two columns could be the wanted one.
    #[error(
        "two columns for {column}: \"{first}\" and \"{second}\"; name one of them under columns, or rename one"
    )]
    Twice {
        /// The wanted column.
        column: String,
        /// A column of the file.
        first: String,
        /// Another.
        second: String,
    },
    /// A column is given a header that nobody wants.
    #[error("columns names {column}, which the transform does not want{}", meant(.nearest))]
    NotWanted {
        /// The name.
        column: String,
        /// The one that may be meant.
        nearest: Option<String>,
    },
    /// A cell is not of the declared type.
    #[error("column {column} of the row at line {line} is \"{cell}\" and has to be {wanted}")]
    Value {
        /// Where the row begins.
        line: usize,
        /// The wanted column.
        column: String,
        /// The cell, or its beginning.
        cell: String,
        /// What would do.
        wanted: String,
    },
}

/// Makes the table that `need` describes from the bytes of a file. Columns that nobody wants are left out, empty
/// lines passed over.
///
/// # Errors
/// [`TableError`], for the first thing that is wrong.
pub fn load(need: &TableNeed, bytes: &[u8], options: &CsvOptions) -> Result<Table, TableError> {
    read(need, bytes, options).map_err(|problem| TableError { table: need.name.clone(), problem })
}

fn read(need: &TableNeed, bytes: &[u8], options: &CsvOptions) -> Result<Table, Problem> {
    if i32::try_from(bytes.len()).is_err() {
        return Err(Problem::TooLarge(bytes.len()));
    }
    let mut rows = Rows::new(bytes, options.delimiter)?;
    if !rows.advance()? {
        return Err(Problem::Empty);
    }
    let header: Vec<String> = (0..rows.fields.len()).map(|i| rows.cell(i)).collect();
    let places = find_columns(need, &header, &options.columns)?;
    let mut columns: Vec<ColumnBuilder<'_>> = need.columns.iter().map(ColumnBuilder::new).collect();
    let mut n_rows = 0;
    while rows.advance()? {
        rows.check_width(header.len())?;
        for (column, &place) in columns.iter_mut().zip(&places) {
            rows.push(column, place)?;
        }
        n_rows += 1;
    }
    let columns = columns.into_iter().map(ColumnBuilder::finish).collect();
    Ok(Table { name: need.name.clone(), rows: n_rows, columns, digest: digest::of(bytes).into() })
}

/// The rows of a file in memory, one at a time.
struct Rows<'a> {
    bytes: &'a [u8],
    delimiter: u8,
    /// Where the row begins.
    start: usize,
    /// Where the next one begins.
    next: usize,
    /// Of the row, as positions behind `start`.
    fields: Vec<FieldSpan>,
}

impl<'a> Rows<'a> {
    fn new(bytes: &'a [u8], delimiter: Option<u8>) -> Result<Self, Problem> {
        if let Err(error) = std::str::from_utf8(bytes) {
            return Err(Problem::NotUtf8 { line: line_at(bytes, error.valid_up_to()) });
        }
        let next = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
        let delimiter = delimiter.unwrap_or_else(|| detect_delimiter(bytes));
        Ok(Self { bytes, delimiter, start: next, next, fields: Vec::new() })
    }

    /// Goes to the next row; `false` if there is none.
    fn advance(&mut self) -> Result<bool, Problem> {
        self.start = self.next + blank_lines(&self.bytes[self.next..]);
        let rest = &self.bytes[self.start..];
        if rest.is_empty() {
            return Ok(false);
        }
        let Scan::Row { next, .. } = scan_row(rest, self.delimiter, true, &mut self.fields) else {
            return Err(Problem::Quotes { line: self.line() });
        };
        self.next = self.start + next;
        Ok(true)
    }

    fn cell(&self, i: usize) -> String {
        String::from_utf8_lossy(&self.fields[i].text(&self.bytes[self.start..])).into_owned()
    }

    fn check_width(&self, header: usize) -> Result<(), Problem> {
        let fields = self.fields.len();
        if fields == header { Ok(()) } else { Err(Problem::Ragged { line: self.line(), fields, header }) }
    }

    fn push(&self, column: &mut ColumnBuilder<'_>, place: usize) -> Result<(), Problem> {
        let text = self.fields[place].text(&self.bytes[self.start..]);
        let cell = std::str::from_utf8(&text).expect("the whole file is UTF-8 and fields end at ASCII");
        if column.push(cell) {
            return Ok(());
        }
        let field = column.field();
        Err(Problem::Value {
            line: self.line(),
            column: field.name.clone(),
            cell: cell.chars().take(40).collect(),
            wanted: wanted(field.data_type),
        })
    }

    fn line(&self) -> usize {
        line_at(self.bytes, self.start)
    }
}

/// The number of the line in which `at` lies.
fn line_at(bytes: &[u8], at: usize) -> usize {
    let ends = |i: usize| bytes[i] == b'\n' || (bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n'));
    1 + (0..at).filter(|&i| ends(i)).count()
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (is \"{name}\" meant?)")).unwrap_or_default()
}

/// The name most like `name`, if one is like it at all.
pub(super) fn nearest(name: &str, names: &[&str]) -> Option<String> {
    let close = |other: &&&str| distance(name, other) <= 1 + name.chars().count() / 3;
    names.iter().filter(close).min_by_key(|other| distance(name, other)).map(|&other| other.to_owned())
}

/// How many letters to insert, leave out or change, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
