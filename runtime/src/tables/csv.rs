//! A reference table from a CSV file: typed as declared, and all or nothing, since a table with a row missing
//! sends records the wrong way without a word. It never opens a file.

use super::columns::{ColumnBuilder, wanted};
use super::header::find_columns;
use super::problem::Problem;
use super::{Table, TableOptions};
use crate::csv::{BOM, FieldSpan, Scan, blank_lines, detect_delimiter, scan_row};
use crate::description::TableNeed;
use crate::digest;

/// Makes the table that `need` describes from the bytes of a file of at most 2 GiB. Columns that nobody wants are left
/// out, empty lines passed over.
pub(super) fn read(need: &TableNeed, bytes: &[u8], options: &TableOptions) -> Result<Table, Problem> {
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

#[cfg(test)]
mod tests;
