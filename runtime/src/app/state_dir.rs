//! The directory in which a pipeline remembers what is not its sinks' to remember. One process holds it at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::plan::store::FileStore;

/// A state directory that this process holds until it is dropped, or ends however it ends.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Option<File>,
}

/// Whether several processes may work with a state directory at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One process holds it.
    Alone,
    /// What is in it are copies of what all processes share elsewhere.
    WithOthers,
}

/// Another process holds the state directory.
#[derive(Debug, thiserror::Error)]
#[error("the pipeline runs already: process {pid} holds {}", path.display())]
pub struct Held {
    /// Which directory.
    pub path: PathBuf,
    /// Which process, as it wrote itself.
    pub pid: String,
}

impl StateDir {
    /// Makes the directory if it is not there, and takes hold of it, unless it is shared.
    ///
    /// # Errors
    /// [`Held`], or what the file system says.
    pub fn open(path: &Path, sharing: Sharing) -> Result<Self> {
        let what = || format!("opening the state directory {}", path.display());
        fs::create_dir_all(path).with_context(what)?;
        if sharing == Sharing::WithOthers {
            return Ok(Self { path: path.to_owned(), _lock: None });
        }
        let lock = path.join("lock");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock);
        let mut lock = options.with_context(what)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            lock.read_to_string(&mut pid).with_context(what)?;
            return Err(Held { path: path.to_owned(), pid: pid.trim().to_owned() }.into());
        }
        lock.set_len(0).and_then(|()| lock.rewind()).with_context(what)?;
        writeln!(lock, "{}", std::process::id()).with_context(what)?;
        Ok(Self { path: path.to_owned(), _lock: Some(lock) })
    }

    /// Where the plan log is.
    pub fn plans(&self) -> PathBuf {
        plans_in(&self.path)
    }

    /// The bytes that plans name.
    pub fn store(&self) -> Result<FileStore> {
        store_in(&self.path)
    }
}

/// Where the plan log is in a state directory, whoever holds it.
pub(super) fn plans_in(state: &Path) -> PathBuf {
    state.join("plans")
}

/// Where the records are in a state directory that come again, of a pipeline that reads files.
pub(super) fn replays_in(state: &Path) -> PathBuf {
    state.join("replay")
}

/// The bytes that plans name in a state directory, whoever holds it.
pub(super) fn store_in(state: &Path) -> Result<FileStore> {
    Ok(FileStore::open(state.join("store"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let held = StateDir::open(dir.path(), Sharing::Alone).unwrap();
        let refused = StateDir::open(dir.path(), Sharing::Alone).unwrap_err().downcast::<Held>().unwrap();
        assert_eq!(refused.pid, std::process::id().to_string());
        drop(held);
        StateDir::open(dir.path(), Sharing::Alone).unwrap();
    }
}
