//! Files on the local disk that have no name: they are gone when nobody has them open, however the process ends. So
//! there is nothing to lock and nothing to clean up after a crash. It knows nothing of what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sink::state::Nonce;

/// A local directory for files that are not sent yet.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
}

/// A file that only this process can find.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: File,
    length: u64,
    directory: PathBuf,
}

impl Spool {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory).map_err(|error| of_spool(directory, &error))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// A new file, empty.
    pub(super) fn file(&self) -> io::Result<SpoolFile> {
        let path = self.directory.join(Nonce::random().to_string());
        let open = || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            fs::remove_file(&path)?;
            Ok(file)
        };
        let file = open().map_err(|error: io::Error| of_spool(&self.directory, &error))?;
        Ok(SpoolFile { file, length: 0, directory: self.directory.clone() })
    }
}

impl SpoolFile {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The bytes from `offset` on, at most so many.
    pub(super) fn piece(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; rest.min(most)];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| of_spool(&self.directory, &error))?;
        Ok(bytes)
    }
}

impl Write for SpoolFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes).map_err(|error| of_spool(&self.directory, &error))?;
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Nobody shall look for a full disk in HDFS.
fn of_spool(directory: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("in the local spool `{}`: {error}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_in_pieces_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Spool::open(directory.path()).unwrap().file().unwrap();
        file.write_all(b"abcdefg").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let pieces: Vec<_> = (0..4).map(|n| file.piece(n * 3, 3).unwrap()).collect();
        assert_eq!((file.length(), pieces.concat()), (7, b"abcdefg".to_vec()));
    }

    #[test]
    fn a_spool_that_cannot_be_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told = Spool::open(file.path()).unwrap_err().to_string();
        assert!(told.starts_with("in the local spool `/"), "{told}");
    }
}
