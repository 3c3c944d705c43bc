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
    /// It is not there, or has another length than when it was first seen.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Its bytes did not come.
    #[error(transparent)]
    Format(#[from] format::Error),
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
    /// [`Error`], for the file at [`Self::next`].
    pub fn fill(
        &mut self,
        builder: &mut BatchBuilder,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Filled, Error> {
        while builder.n_records() < max_records && builder.bytes() < max_bytes {
            let i = self.entries.partition_point(|e| i64::from(e.partition) < self.next.get());
            let Some(entry) = self.entries.get(i) else { return Ok(Filled::End) };
            self.next = self.add(entry, builder)?;
        }
        Ok(Filled::Full)
    }

    fn add(&self, entry: &FileEntry, builder: &mut BatchBuilder) -> Result<Offset, Error> {
        let file = self.inputs.open(&entry.path)?;
        let length = file
            .metadata()
            .map_err(|source| FilesError::Io { tried: "reading", path: entry.path.clone(), source })?
            .len();
        if length != entry.length {
            return Err(FilesError::Length { path: entry.path.clone(), was: entry.length, is: length }.into());
        }
        let at = Offset::new(entry.partition.into());
        let mut reader =
            RecordReader::open(Box::new(file), entry.path.as_str(), &self.options)?.starting_at(at);
        reader.fill(builder, builder.n_records() + 1, usize::MAX)?;
        Ok(reader.next())
    }
}
