//! Cutting a stream of bytes into records: CSV rows, lines of JSON, or the whole of it. The same bytes give the
//! same records at the same offsets, however they arrive; a value is never checked for what it says.

mod csv;
mod envelopes;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod lines;
mod packed;
mod whole;
mod window;

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::{BatchBuilder, Unreadable};
use crate::csv::BOM;
use crate::offset::Offset;
pub use envelopes::envelope;
use packed::{Broken, Compression};
use window::Window;

/// How a file is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A header and rows. A record is a row as a JSON object, every value a string, in the header's order.
    Csv,
    /// A record is a line, byte for byte, without its LF or CRLF. A line without any byte is none.
    #[serde(rename = "jsonl")]
    JsonLines,
    /// A record is a whole file, with its path in the header `weir-path`.
    Raw,
    /// A record is a line of [`envelope`]: all there is of a record that comes again. No input is read so, but that of replays.
    Envelopes,
}

impl Format {
    /// The format that a file's name tells, if it does: by its last ending, `.gz` and `.zst` left out.
    pub fn of_path(path: &str) -> Option<Self> {
        let (_, name) = Compression::of_path(path);
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Csv => "csv",
            Self::JsonLines => "jsonl",
            Self::Raw => "raw",
            Self::Envelopes => "envelopes",
        })
    }
}

/// How to read. All of it decides which records there are, so it must stay as it is for a file that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// See [`Format`].
    pub format: Format,
    /// Between CSV fields: not a quote or a line end. Absent: [`crate::csv::detect_delimiter`].
    pub delimiter: Option<u8>,
    /// A longer record is unreadable, as `record-too-large`. In bytes of the file; at most 256 MiB.
    pub max_record_bytes: usize,
}

impl Options {
    /// The defaults for a format: the delimiter is found, a record has at most 16 MiB. An envelope is such a record with all
    /// that JSON escapes.
    pub fn new(format: Format) -> Self {
        let max_record_bytes = if format == Format::Envelopes { MAX_RECORD_BYTES } else { 16 << 20 };
        Self { format, delimiter: None, max_record_bytes }
    }
}

/// Why [`RecordReader::fill`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The builder has as much as was asked for.
    Full,
    /// There are no more records.
    End,
}

/// Why a file cannot be read at all. What is wrong with one record is [`Unreadable`] instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes did not come.
    #[error("reading {path} failed behind byte {position}: {source}")]
    Read {
        /// The file.
        path: Arc<str>,
        /// How many bytes had been made into records.
        position: u64,
        /// Why.
        source: io::Error,
    },
    /// The first row cannot name the fields.
    #[error("E_INPUT_HEADER: the header of {path} {problem}")]
    Header {
        /// The file.
        path: Arc<str>,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The file ends before the record to go on at.
    #[error(
        "E_INPUT_CHANGED: {path} has {found} records, and reading is to go on at record {wanted}: it was cut off or replaced"
    )]
    Short {
        /// The file.
        path: Arc<str>,
        /// Records in it.
        found: Offset,
        /// Where to go on.
        wanted: Offset,
    },
}

/// Reads the records of one file, from the first on. No threads: it reads when it is asked.
///
/// After an error it is of no use any more: open the file again and [`Self::skip_to`] where it was.
#[derive(Debug)]
pub struct RecordReader {
    path: Arc<str>,
    window: Window,
    state: State,
    next: Offset,
}

#[derive(Debug)]
enum State {
    Cutting(Box<dyn Cutter>),
    /// What is left is no whole record, and nothing comes behind it.
    Broken(Broken),
    /// That has been told.
    Ended,
}

impl RecordReader {
    /// A reader of `input`, which begins at the file's first byte; `path` is for messages and `weir-path`. A byte
    /// order mark in front of CSV or JSON lines is left out.
    ///
    /// A path that ends in `.gz` or `.zst` says that the bytes are compressed; they are unpacked while they are read,
    /// but for [`Format::Raw`], which hands on what is there. Where they break off,
    /// what is left is one unreadable record, as `broken-compression`, and the last one. A frame that looks back further
    /// than 8 MiB is [`Error::Read`] instead.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Header`] where the format has one.
    pub fn open(
        input: Box<dyn Read + Send>,
        path: impl Into<Arc<str>>,
        options: &Options,
    ) -> Result<Self, Error> {
        Self::open_in_chunks(input, path, options, CHUNK)
    }

    fn open_in_chunks(
        input: Box<dyn Read + Send>,
        path: impl Into<Arc<str>>,
        options: &Options,
        chunk: usize,
    ) -> Result<Self, Error> {
        let path = path.into();
        let failed = |source| Error::Read { path: path.clone(), position: 0, source };
        let input = match Compression::of_path(&path) {
            (Some(compression), _) if options.format != Format::Raw => {
                compression.unpack(input).map_err(failed)?
            }
            _ => input,
        };
        let mut window = Window::new(input, chunk);
        let state = match open_cutter(&mut window, &path, options) {
            Ok(cutter) => State::Cutting(cutter),
            Err(csv::OpenError::Read(source)) => State::Broken(Broken::of(source).map_err(failed)?),
            Err(csv::OpenError::Header(problem)) => return Err(Error::Header { path, problem }),
        };
        Ok(Self { path, window, state, next: Offset::ZERO })
    }

    /// The same reader with its first record at offset `at` instead of 0.
    pub fn starting_at(self, at: Offset) -> Self {
        Self { next: at, ..self }
    }

    /// The offset of the record that comes next.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Adds records until `builder` has `max_records` or at least `max_bytes`, or the file ends. The last record
    /// added may go beyond `max_bytes`.
    ///
    /// # Errors
    /// [`Error::Read`]; what was added before is good.
    pub fn fill(
        &mut self,
        builder: &mut BatchBuilder,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Filled, Error> {
        while builder.n_records() < max_records && builder.bytes() < max_bytes {
            let Some(found) = self.find()? else { return Ok(Filled::End) };
            let taken = found.taken();
            match (found, &mut self.state) {
                (Found::Record { len, .. }, State::Cutting(cutter)) => {
                    cutter.add(&self.window.bytes()[..len], self.next, builder);
                }
                (Found::Unreadable { bytes, code, message, .. }, _) => {
                    builder.push_unreadable(Unreadable { offset: self.next, bytes, code, message });
                }
                (Found::Record { .. }, _) => unreachable!("only a cutter finds a record"),
            }
            self.advance(taken);
        }
        Ok(Filled::Full)
    }

    /// Passes over the records before `at`, which is not behind [`Self::next`].
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Short`] if there is no such position in the file.
    pub fn skip_to(&mut self, at: Offset) -> Result<(), Error> {
        while self.next < at {
            let Some(found) = self.find()? else {
                return Err(Error::Short { path: self.path.clone(), found: self.next, wanted: at });
            };
            self.advance(found.taken());
        }
        Ok(())
    }

    /// Whether the file broke off, and nothing more comes of it.
    pub fn is_broken(&self) -> bool {
        !matches!(self.state, State::Cutting(_))
    }

    fn find(&mut self) -> Result<Option<Found>, Error> {
        if let State::Cutting(cutter) = &mut self.state {
            let (path, position) = (&self.path, self.window.position());
            match cutter.find(&mut self.window) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    let read = |source| Error::Read { path: path.clone(), position, source };
                    self.state = State::Broken(Broken::of(error).map_err(read)?);
                }
            }
        }
        let State::Broken(broken) = std::mem::replace(&mut self.state, State::Ended) else { return Ok(None) };
        Ok(Some(self.rest(&broken)))
    }

    /// What is left in front of a break.
    fn rest(&self, broken: &Broken) -> Found {
        let rest = self.window.bytes();
        let end = self.window.position() + rest.len() as u64;
        let message = format!("{broken}; nothing behind byte {end} of its content is read");
        tracing::error!(path = &*self.path, record = self.next.get(), "{message}");
        let bytes = rest[..rest.len().min(KEPT_BYTES)].to_vec();
        Found::Unreadable { bytes, taken: rest.len(), code: "broken-compression", message }
    }

    fn advance(&mut self, taken: usize) {
        self.window.consume(taken);
        self.next = self.next.next();
    }
}

fn open_cutter(
    window: &mut Window,
    path: &Arc<str>,
    options: &Options,
) -> Result<Box<dyn Cutter>, csv::OpenError> {
    let max = options.max_record_bytes.min(MAX_RECORD_BYTES);
    if options.format != Format::Raw {
        skip_bom(window)?;
    }
    Ok(match options.format {
        Format::Csv => Box::new(csv::Rows::open(window, options.delimiter, max)?),
        Format::JsonLines => Box::new(lines::Lines::new(max)),
        Format::Raw => Box::new(whole::Whole::new(path.clone(), max)),
        Format::Envelopes => Box::new(envelopes::Envelopes::new(max)),
    })
}

/// Knows where a record ends. One per format.
trait Cutter: fmt::Debug + Send {
    /// Brings the next record to the front of the window; `None` at the end of the file.
    fn find(&mut self, window: &mut Window) -> io::Result<Option<Found>>;

    /// Makes `bytes`, a record found last, an entry of `builder`.
    fn add(&mut self, bytes: &[u8], offset: Offset, builder: &mut BatchBuilder);
}

/// One offset's worth of the file.
enum Found {
    /// At the front of the window.
    Record {
        /// Bytes of it.
        len: usize,
        /// Bytes to consume, line end included.
        taken: usize,
    },
    /// Not a record.
    Unreadable {
        /// What to keep of it.
        bytes: Vec<u8>,
        /// Bytes to consume still.
        taken: usize,
        /// See [`Unreadable`].
        code: &'static str,
        /// See [`Unreadable`].
        message: String,
    },
}

impl Found {
    fn taken(&self) -> usize {
        match self {
            Self::Record { taken, .. } | Self::Unreadable { taken, .. } => *taken,
        }
    }
}

/// What is read at least at once.
const CHUNK: usize = 256 << 10;

/// What a batch can carry several of, JSON escapes included.
const MAX_RECORD_BYTES: usize = 256 << 20;

/// What is kept of a record that is too large to be one.
const KEPT_BYTES: usize = 64 << 10;

fn skip_bom(window: &mut Window) -> io::Result<()> {
    while window.bytes().len() < BOM.len() && !window.ended() {
        window.extend()?;
    }
    if window.bytes().starts_with(BOM) {
        window.consume(BOM.len());
    }
    Ok(())
}

/// Consumes what stands before `end` tells an end, without ever holding it whole, and says so.
fn too_large(window: &mut Window, max: usize, end: fn(&[u8]) -> Option<usize>) -> io::Result<Found> {
    let begin = window.position();
    let mut kept = Vec::new();
    loop {
        let at = end(window.bytes());
        let passed = at.unwrap_or(window.bytes().len());
        kept.extend_from_slice(&window.bytes()[..passed.min(KEPT_BYTES - kept.len())]);
        window.consume(passed);
        if at.is_some() || window.ended() {
            break;
        }
        window.extend()?;
    }
    let len = (window.position() - begin) as usize;
    let message = format!("{len} bytes, and a record may have {max}");
    Ok(Found::Unreadable { bytes: kept, taken: 0, code: "record-too-large", message })
}

#[cfg(test)]
mod tests;
