//! Files that are one record each, as one partition in the order of first sight. It never reads a file twice.

use super::{Error as FilesError, FileEntry, Inputs};
use crate::batch::BatchBuilder;
use crate::offset::Offset;
use crate::source::format::{self, Filled, Format, Options, RecordReader};

/// Reads whole files as records: the file with number `n` is the record at offset `n`.
#[derive(Debug)]
pub struct DirectoryReader {
    inputs: Inputs,
    entries: Vec<FileEntry>,
    options: Options,
    next: Offset,
}

/// Why a file could not be made a record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not known or not there, or has another length than when it was first seen.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Its bytes did not come.
    #[error(transparent)]
    Format(#[from] format::Error),
}

impl From<Error> for crate::source::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Files(error) => error.into(),
            Error::Format(error) => error.into(),
        }
    }
}

impl DirectoryReader {
    /// A reader of the files `entries`, in any order, from offset `next` on. A longer file than
    /// `max_record_bytes` is unreadable, as `record-too-large`.
    pub fn new(inputs: Inputs, mut entries: Vec<FileEntry>, next: Offset, max_record_bytes: usize) -> Self {
        entries.sort_by_key(|e| e.partition);
        Self { inputs, entries, options: Options { max_record_bytes, ..Options::new(Format::Raw) }, next }
    }

    /// The offset of the file that comes next.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// See [`RecordReader::fill`]; what it added before an error is good.
    ///
    /// # Errors
    /// [`Error`], for the file at [`Self::next`]: also if it is not among the entries, so that none is passed over.
    pub fn fill(
        &mut self,
        builder: &mut BatchBuilder,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Filled, Error> {
        while builder.n_records() < max_records && builder.bytes() < max_bytes {
            let i = self.entries.partition_point(|e| i64::from(e.partition) < self.next.get());
            self.next = match self.entries.get(i) {
                Some(entry) if i64::from(entry.partition) == self.next.get() => self.add(entry, builder)?,
                None if self.next == self.end() => return Ok(Filled::End),
                _ => return Err(FilesError::Unknown { wanted: self.next, known: self.entries.len() }.into()),
            };
        }
        Ok(Filled::Full)
    }

    /// Where the next file that is found will be.
    fn end(&self) -> Offset {
        self.entries.last().map_or(Offset::ZERO, |last| Offset::new(last.partition.into()).next())
    }

    fn add(&self, entry: &FileEntry, builder: &mut BatchBuilder) -> Result<Offset, Error> {
        let file = self.inputs.open(&entry.path)?;
        entry.check_length(&file)?;
        let at = Offset::new(entry.partition.into());
        let mut reader =
            RecordReader::open(Box::new(file), entry.path.as_str(), &self.options)?.starting_at(at);
        reader.fill(builder, builder.n_records() + 1, usize::MAX)?;
        Ok(reader.next())
    }
}
