//! A sample of records, read and cut into batches as a pipeline would. Its records are read once; it never knows
//! what becomes of them.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::batch::{Batch, BatchBuilder};
use crate::budget::Permit;
use crate::config::Limits;
use crate::offset::{Offset, TopicPartition};
use crate::source::files::{DirectoryError, DirectoryReader, FileEntry, Found, Inputs};
use crate::source::format::{self, Format, Options, RecordReader};

/// The name under which a sample's records go.
const TOPIC: &str = "sample";

/// Files, each a partition, or a stream.
#[derive(Debug)]
pub struct Sample {
    files: Inputs,
    to_read: VecDeque<Found>,
    /// By partition.
    names: Vec<Arc<str>>,
    reader: Option<(Reader, Offset)>,
    left_out: Vec<String>,
    /// Records in a batch, and bytes, about.
    cut: (usize, usize),
}

#[derive(Debug)]
enum Reader {
    File(Box<RecordReader>),
    Directory(DirectoryReader),
}

impl Sample {
    /// The file at `path`, or all files below the directory there; `format` for all of them, or each by its name.
    ///
    /// # Errors
    /// [`Error::Wrong`] where no file is there or none tells a format, [`Error::Unreadable`] where it cannot be
    /// looked at.
    pub fn files(path: &Path, format: Option<Format>) -> Result<Self, Error> {
        let files = Inputs::new(path, format);
        let listing = files.list().map_err(Error::listing)?;
        if listing.found.is_empty() {
            let text = format!(
                "no file in `{}` is a sample: none ends in .csv, .jsonl, .ndjson or .json, with or without .gz or .zst",
                path.display()
            );
            return Err(Error::wrong(text, "say how to read them with `--format csv|jsonl|raw`"));
        }
        let whole = listing.found.iter().all(|found| found.format == Format::Raw);
        let names = match whole {
            true => vec![TOPIC.into()],
            false => listing.found.iter().map(|found| found.path.as_str().into()).collect(),
        };
        let mut sample = Self::new(files, names);
        sample.left_out = listing.unknown;
        match whole {
            true => sample.reader = Some((sample.directory(&listing.found), Offset::ZERO)),
            false => sample.to_read = listing.found.into(),
        }
        Ok(sample)
    }

    /// What `input` gives, from its first byte to its end.
    ///
    /// # Errors
    /// See [`RecordReader::open`].
    pub fn stream(input: Box<dyn Read + Send>, format: Format) -> Result<Self, Error> {
        let reader =
            RecordReader::open(input, "the sample", &Options::new(format)).map_err(Error::reading)?;
        let mut sample = Self::new(Inputs::new("-", Some(format)), vec!["-".into()]);
        sample.reader = Some((Reader::File(Box::new(reader)), Offset::ZERO));
        Ok(sample)
    }

    fn new(files: Inputs, names: Vec<Arc<str>>) -> Self {
        let limits = Limits::default();
        let cut = (limits.batch_records.get() as usize, limits.batch_bytes.bytes() as usize);
        Self { files, to_read: VecDeque::new(), names, reader: None, left_out: Vec::new(), cut }
    }

    fn directory(&self, found: &[Found]) -> Reader {
        let entry = |(i, found): (usize, &Found)| FileEntry {
            partition: i as i32,
            path: found.path.clone(),
            length: found.length,
            modified_ns: found.modified_ns,
            digest: String::new(),
            format: found.format,
        };
        let entries = found.iter().enumerate().map(entry).collect();
        let max_bytes = Options::new(Format::Raw).max_record_bytes;
        Reader::Directory(DirectoryReader::new(self.files.clone(), entries, Offset::ZERO, max_bytes))
    }

    /// The name of a partition's file, or of the stream.
    pub fn name(&self, partition: i32) -> &Arc<str> {
        &self.names[partition as usize]
    }

    /// How many files there are, a stream and a directory of whole files counting as one.
    pub fn n_files(&self) -> usize {
        self.names.len()
    }

    /// Files whose names tell no format; they are not read.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The next batch, or `None` at the end of the last file.
    ///
    /// # Errors
    /// [`Error::Wrong`] where a file is not what it is said to be, [`Error::Unreadable`] where its bytes do not
    /// come.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            let Some((reader, start)) = &mut self.reader else {
                match self.open_next()? {
                    true => continue,
                    false => return Ok(None),
                }
            };
            let partition = (self.names.len() - self.to_read.len() - 1) as i32;
            let mut builder = BatchBuilder::new(TopicPartition::new(TOPIC, partition), *start);
            reader.fill(&mut builder, self.cut)?;
            *start = builder.next();
            let end = builder.next();
            match builder.finish(end, Permit::free()) {
                Some(batch) => return Ok(Some(batch)),
                None => self.reader = None,
            }
        }
    }

    /// Opens the next file; `false` if there is none.
    fn open_next(&mut self) -> Result<bool, Error> {
        let Some(found) = self.to_read.pop_front() else { return Ok(false) };
        let file = self.files.open(&found.path).map_err(Error::listing)?;
        let options = Options::new(found.format);
        let reader = RecordReader::open(Box::new(file), found.path, &options).map_err(Error::reading)?;
        self.reader = Some((Reader::File(Box::new(reader)), Offset::ZERO));
        Ok(true)
    }
}

impl Reader {
    fn fill(&mut self, builder: &mut BatchBuilder, (records, bytes): (usize, usize)) -> Result<(), Error> {
        match self {
            Self::File(reader) => reader.fill(builder, records, bytes).map(drop).map_err(Error::reading),
            Self::Directory(reader) => match reader.fill(builder, records, bytes) {
                Ok(_) => Ok(()),
                Err(DirectoryError::Files(e)) => Err(Error::listing(e)),
                Err(DirectoryError::Format(e)) => Err(Error::reading(e)),
            },
        }
    }
}

impl Error {
    fn reading(error: format::Error) -> Self {
        match error {
            format::Error::Read { .. } => Self::Unreadable(error.to_string()),
            _ => Self::Wrong { text: error.to_string(), hint: None },
        }
    }

    fn listing(error: crate::source::files::Error) -> Self {
        use crate::source::files::Error::{Io, UnknownFormat};
        match error {
            UnknownFormat { path } => Self::wrong(
                format!("the name of the sample `{path}` does not tell how to read it"),
                "say it with `--format csv|jsonl|raw`",
            ),
            Io { ref source, .. } => Self::of_file(error.to_string(), source),
            error => Self::Wrong { text: error.to_string(), hint: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(mut sample: Sample) -> Vec<(String, usize)> {
        let mut counts = Vec::new();
        while let Some(batch) = sample.next_batch().unwrap() {
            counts.push((sample.name(batch.at().partition).to_string(), batch.n_records()));
        }
        counts
    }

    #[test]
    fn every_file_of_a_directory_is_read_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("a.csv", "x\n1\n2\n"), ("b.jsonl", "{}\n{}\n{}\n"), ("c.txt", "?"), ("d.csv", "")]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let sample = Sample::files(dir.path(), None).unwrap();
        assert_eq!(sample.left_out(), ["c.txt"]);
        assert_eq!(counts(sample), [("a.csv".to_owned(), 2), ("b.jsonl".to_owned(), 3)]);
        let whole = Sample::files(dir.path(), Some(Format::Raw)).unwrap();
        assert_eq!(counts(whole), [(TOPIC.to_owned(), 4)]);
    }

    #[test]
    fn batches_are_cut_as_a_pipeline_cuts_them() {
        let lines = "{}\n".repeat(5_000);
        let sample = Sample::stream(Box::new(std::io::Cursor::new(lines)), Format::JsonLines).unwrap();
        assert_eq!(counts(sample), [("-".to_owned(), 4_096), ("-".to_owned(), 904)]);
    }

    #[test]
    fn a_name_that_tells_no_format_or_is_not_there_is_a_wrong_command() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.dat"), "").unwrap();
        for path in [dir.path().join("x.dat"), dir.path().to_owned()] {
            assert!(matches!(Sample::files(&path, None), Err(Error::Wrong { .. })));
        }
        assert!(matches!(Sample::files(&dir.path().join("none.csv"), None), Err(Error::Wrong { .. })));
    }
}
