//! Which files a source has. It lists, opens and hashes; which of them were there before is for
//! [`reconcile`](registry::reconcile) to say, and it never reads a record.

mod directory;
mod reader;
mod registry;
pub mod replays;

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::format::{self, Format};
use crate::offset::Offset;
pub use directory::{DirectoryReader, Error as DirectoryError};
pub use reader::{Discover, FileSettings, FileSource, Roots};
pub use registry::{FileEntry, Known, NewFile, Recheck, Reconciled, reconcile};

/// The files of a source: one file, or all in a directory and below.
#[derive(Clone, Debug)]
pub struct Inputs {
    path: PathBuf,
    format: Option<Format>,
}

/// A file as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Below the source, with `/`; the file's name if the source is a file.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub modified_ns: i64,
    /// How it is read.
    pub format: Format,
}

/// What a listing found, each in the order of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// To be read.
    pub found: Vec<Found>,
    /// Paths of files whose names tell no format. Worth a warning: their data is not read.
    pub unknown: Vec<String>,
}

/// Why the files of a source cannot be read, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{tried} {path} failed: {source}")]
    Io {
        /// `listing`, `opening` or `reading`.
        tried: &'static str,
        /// The whole path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody said how to read the file.
    #[error("the name {path} does not tell a format; set format to csv, jsonl or raw")]
    UnknownFormat {
        /// The whole path.
        path: String,
    },
    /// Paths are kept as text.
    #[error("the path {path} is not UTF-8; rename it")]
    PathNotUtf8 {
        /// As far as it can be shown.
        path: String,
    },
    /// A file went away before all its records had arrived.
    #[error(
        "E_INPUT_GAP: {path} (partition {partition}) is gone, and not all sinks have its end; put it back"
    )]
    Gap {
        /// Below the source.
        path: String,
        /// Its partition.
        partition: i32,
    },
    /// A file is longer or shorter than when it was first seen.
    #[error(
        "E_INPUT_CHANGED: {path} had {was} bytes when it was first seen and has {is} bytes now; files are moved in complete and never changed"
    )]
    Length {
        /// Below the source.
        path: String,
        /// Bytes then.
        was: u64,
        /// Bytes now.
        is: u64,
    },
    /// A file has other bytes than when it was first seen.
    #[error(
        "E_INPUT_CHANGED: {path} had digest {was} when it was first seen and has {is} now; files are moved in complete and never changed"
    )]
    Digest {
        /// Below the source.
        path: String,
        /// The digest then.
        was: String,
        /// The digest now.
        is: String,
    },
    /// A file that was begun in one format is to be read in another.
    #[error("E_INPUT_CHANGED: {path} was begun as {was} and cannot go on as {is}; set the format back")]
    Format {
        /// Below the source.
        path: String,
        /// The format then.
        was: Format,
        /// The format now.
        is: Format,
    },
    /// Files that are a record each share a partition, and other files have one each: the numbers of the one would
    /// be taken for those of the other.
    #[error("E_INPUT_CHANGED: {known} was read as {was}, and {path} is to be read as {is}")]
    Mixed {
        /// A file that was seen before, below the source.
        known: String,
        /// Its format.
        was: Format,
        /// A file that is there now, below the source.
        path: String,
        /// Its format.
        is: Format,
    },
    /// A file that is a record is not among those that are known, but later ones are, or the sinks have it already.
    #[error(
        "E_INPUT_GAP: file number {wanted} is to be read next and is not among the {known} files that are known"
    )]
    Unknown {
        /// Its number.
        wanted: Offset,
        /// How many there are.
        known: usize,
    },
    /// Partition numbers have 31 bits.
    #[error("there is no partition number left for {path}")]
    TooMany {
        /// Below the source.
        path: String,
    },
}

impl Error {
    /// What a person can do, where the text does not say it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Mixed { .. } => Some(
                "set the format back, or read these files with a pipeline of another name and state directory",
            ),
            Self::Unknown { .. } => Some("restore the state directory of the pipeline from a backup"),
            _ => None,
        }
    }
}

impl From<Error> for crate::source::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { tried, path, source } => Self::Io { what: format!("{tried} {path} failed"), source },
            other => Self::Input { text: other.to_string(), hint: other.hint().map(str::to_owned) },
        }
    }
}

impl From<format::Error> for crate::source::Error {
    fn from(error: format::Error) -> Self {
        match error {
            format::Error::Read { path, position, source } => {
                Self::Io { what: format!("reading {path} failed behind byte {position}"), source }
            }
            other => Self::Input { text: other.to_string(), hint: None },
        }
    }
}

impl Inputs {
    /// The file at `path`, or all below the directory there; `format` for all of them, or each by its name.
    pub fn new(path: impl Into<PathBuf>, format: Option<Format>) -> Self {
        Self { path: path.into(), format }
    }

    /// What is there now. In a directory, names that begin with a dot or end in `.tmp` or `~` are passed over,
    /// and so is all that is not a file; links are followed to files, not to directories.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::PathNotUtf8`]; [`Error::UnknownFormat`] if the source is a single file.
    pub fn list(&self) -> Result<Listing, Error> {
        let metadata = fs::metadata(&self.path).map_err(|e| failed("listing", &self.path, e))?;
        if !metadata.is_dir() {
            return self.single(&metadata);
        }
        let mut listing = Listing::default();
        for (path, metadata) in walk(&self.path)? {
            match self.found(&path, &metadata) {
                Some(found) => listing.found.push(found),
                None => listing.unknown.push(path),
            }
        }
        Ok(listing)
    }

    /// Opens a file by its path below the source.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(&self, path: &str) -> Result<File, Error> {
        let whole = self.whole_path(path);
        File::open(&whole).map_err(|e| failed("opening", &whole, e))
    }

    /// `sha256:` and the digest of a file's bytes in hexadecimal. Reads all of it, a piece at a time.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Length`] if the file has not as many bytes as when it was listed.
    pub fn digest(&self, found: &Found) -> Result<String, Error> {
        let mut file = self.open(&found.path)?;
        let mut hash = Sha256::new();
        let mut piece = vec![0; 256 << 10];
        let mut length = 0;
        loop {
            let n = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(failed("reading", &self.whole_path(&found.path), e)),
            };
            hash.update(&piece[..n]);
            length += n as u64;
        }
        if length != found.length {
            return Err(Error::Length { path: found.path.clone(), was: found.length, is: length });
        }
        Ok(crate::digest::text(hash))
    }

    fn whole_path(&self, path: &str) -> PathBuf {
        if self.path.is_dir() { self.path.join(path) } else { self.path.clone() }
    }

    fn single(&self, metadata: &Metadata) -> Result<Listing, Error> {
        let name = text(Path::new(self.path.file_name().unwrap_or(self.path.as_os_str())))?;
        let found =
            self.found(&name, metadata).ok_or_else(|| Error::UnknownFormat { path: shown(&self.path) })?;
        Ok(Listing { found: vec![found], unknown: Vec::new() })
    }

    fn found(&self, path: &str, metadata: &Metadata) -> Option<Found> {
        Some(Found {
            path: path.to_owned(),
            length: metadata.len(),
            modified_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            format: self.format.or_else(|| Format::of_path(path))?,
        })
    }
}

/// All files below `root`, by their paths below it.
fn walk(root: &Path) -> Result<BTreeMap<String, Metadata>, Error> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(|e| failed("listing", &directory, e))? {
            let entry = entry.map_err(|e| failed("listing", &directory, e))?;
            let path = entry.path();
            if passed_over(&entry.file_name().to_string_lossy()) {
                continue;
            }
            if entry.file_type().map_err(|e| failed("listing", &path, e))?.is_dir() {
                directories.push(path);
                continue;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => {
                    files.insert(
                        text(path.strip_prefix(root).expect("it was listed below the root"))?,
                        metadata,
                    );
                }
                Ok(_) => {}
                // It went away while we looked, or is a link to nothing: not there.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("listing", &path, e)),
            }
        }
    }
    Ok(files)
}

fn passed_over(name: &str) -> bool {
    name.starts_with('.') || name.ends_with(".tmp") || name.ends_with('~')
}

fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::PathNotUtf8 { path: shown(path) })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn failed(tried: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { tried, path: shown(path), source }
}

#[cfg(test)]
mod tests;
