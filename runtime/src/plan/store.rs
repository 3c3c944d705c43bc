//! The bytes that plans name, by their digest: components and tables. What is here never changes.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use super::files::{sync_dir, write_synced};
use crate::sink::state::Nonce;

/// Keeps bytes by their digest. Every process of a pipeline that is told a digest by the plan log finds its bytes.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Keeps `bytes` durably and returns their digest. Keeping the same bytes again changes nothing. After a crash half-way
    /// they are not there, and may be kept again.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn put(&self, bytes: &[u8]) -> Result<Arc<str>, Error>;

    /// The bytes of `digest`, checked.
    ///
    /// # Errors
    /// [`Error::Store`] if they are not there or are others; [`Error::Io`].
    fn get(&self, digest: &str) -> Result<Vec<u8>, Error>;

    /// A file on this machine with the bytes of `digest`. It must not be changed.
    ///
    /// # Errors
    /// As of [`Self::get`].
    fn file(&self, digest: &str) -> Result<PathBuf, Error>;
}

/// A directory of files named by the SHA-256 of their bytes.
#[derive(Clone, Debug)]
pub struct FileStore {
    dir: PathBuf,
}

impl FileStore {
    /// Opens the store in `dir`, which is made if it is not there.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|e| io_error(&dir.display().to_string(), e))?;
        Ok(Self { dir })
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(digest.replace([':', '/', '.'], "-"))
    }
}

impl Store for FileStore {
    fn put(&self, bytes: &[u8]) -> Result<Arc<str>, Error> {
        let digest: Arc<str> = crate::digest::of(bytes).into();
        let path = self.path(&digest);
        if path.exists() {
            return Ok(digest);
        }
        let temp = self.dir.join(format!(".{}.tmp", Nonce::random()));
        fail::fail_point!("store.before_temp");
        // Somebody may have cleared it away meanwhile.
        let kept = fs::create_dir_all(&self.dir)
            .and_then(|()| write_synced(&temp, bytes))
            .and_then(|()| {
                fail::fail_point!("store.after_temp", |_| Ok(()));
                fs::rename(&temp, &path)
            })
            .and_then(|()| sync_dir(&self.dir));
        kept.map_err(|e| io_error(&path.display().to_string(), e))?;
        Ok(digest)
    }

    fn get(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let path = self.path(digest);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                Error::Store { what: format!("{digest} is not in the store, {}", self.dir.display()) }
            }
            _ => io_error(&path.display().to_string(), e),
        })?;
        let found = crate::digest::of(&bytes);
        if found != digest {
            let what = format!("{} holds the bytes of {found}", path.display());
            return Err(Error::Store { what });
        }
        Ok(bytes)
    }

    fn file(&self, digest: &str) -> Result<PathBuf, Error> {
        self.get(digest)?;
        Ok(self.path(digest))
    }
}

fn io_error(path: &str, source: io::Error) -> Error {
    Error::Io { what: format!("keeping {path}"), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_by_their_digest_and_changed_bytes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let digest = store.put(b"abc").unwrap();
        assert_eq!(&*digest, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(store.put(b"abc").unwrap(), digest);
        assert_eq!(store.get(&digest).unwrap(), b"abc");
        fs::write(store.path(&digest), b"abd").unwrap();
        assert!(store.get(&digest).unwrap_err().to_string().starts_with("E_STORE"));
        assert!(store.get("sha256:00").is_err());
    }

    #[test]
    fn a_store_that_was_cleared_away_is_filled_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path().join("store")).unwrap();
        store.put(b"abc").unwrap();
        fs::remove_dir_all(dir.path().join("store")).unwrap();
        let digest = store.put(b"abc").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"abc");
    }
}
