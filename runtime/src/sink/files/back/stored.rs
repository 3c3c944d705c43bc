//! A file of a storage, read in pieces. It is never in memory as a whole.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use crate::sink::files::storage::Storage;

/// What is asked for at once, in bytes.
const PIECE: usize = 256 << 10;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) path: Arc<str>,
    /// Bytes.
    pub(super) length: u64,
}

impl Stored {
    /// All bytes from `position` on.
    pub(super) fn from(&self, position: u64) -> BufReader<Rest> {
        BufReader::with_capacity(PIECE, Rest { of: self.clone(), position })
    }

    /// So many bytes from `position` on, or an error.
    pub(super) fn bytes(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.storage.read_range(&self.path, position, length)?;
        match bytes.len() == length {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// What is left of a file.
#[derive(Debug)]
pub(super) struct Rest {
    of: Stored,
    position: u64,
}

impl Read for Rest {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.of.length.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let n = into.len().min(left);
        if n == 0 {
            return Ok(0);
        }
        into[..n].copy_from_slice(&self.of.bytes(self.position, n)?);
        self.position += n as u64;
        Ok(n)
    }
}
