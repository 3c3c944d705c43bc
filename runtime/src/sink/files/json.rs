//! Rows as JSON lines, in the form of [`crate::sink::json`].

use std::io::{self, Write};

use arrow::array::RecordBatch;

use super::encode::Counted;
use crate::sink::json::JsonRows;

/// A file of JSON lines under way.
pub(super) struct JsonLines {
    file: Counted,
    lines: Vec<u8>,
}

impl JsonLines {
    pub(super) fn new(file: Counted) -> Self {
        Self { file, lines: Vec::new() }
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> io::Result<()> {
        let json = JsonRows::new(rows).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        self.lines.clear();
        for row in 0..rows.num_rows() {
            json.write(row, &mut self.lines);
            self.lines.push(b'\n');
        }
        self.file.write_all(&self.lines)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.file.length()
    }

    pub(super) fn finish(self) -> Counted {
        self.file
    }
}
