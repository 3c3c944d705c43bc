//! Files on a local disk. What it says is durable has been synced: the bytes, and the directory that names them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::storage::{Closing, StagedFile, Storage};

/// The files below one directory.
#[derive(Debug)]
pub struct LocalStorage {
    root: PathBuf,
}

impl LocalStorage {
    /// # Errors
    /// If `root` cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        make_directories(root)?;
        Ok(Self { root: root.canonicalize()? })
    }

    /// Of a root that is there, or is not.
    pub(super) fn to_read(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Storage for LocalStorage {
    fn create(&self, path: &str) -> io::Result<Box<dyn StagedFile>> {
        let path = self.path(path);
        make_directories(parent(&path))?;
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(LocalFile { file }))
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        make_directories(parent(&to))?;
        fs::hard_link(&from, &to)?;
        sync_directory(parent(&to))?;
        fs::remove_file(&from)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        make_directories(parent(&to))?;
        Ok(renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE)?)
    }

    fn sync(&self, directory: &str) -> io::Result<()> {
        sync_directory(&self.path(directory))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(directory)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(path))
    }

    fn read_range(&self, path: &str, start: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path(path))?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::with_capacity(most);
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn length(&self, path: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.path(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => Ok(Some(other?.len())),
        }
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        let path = self.path(path);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => fs::remove_dir(&path),
            other => other,
        };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn show(&self, path: &str) -> String {
        self.path(path).display().to_string()
    }
}

struct LocalFile {
    file: File,
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl StagedFile for LocalFile {
    fn close(self: Box<Self>) -> io::Result<Box<dyn Closing>> {
        self.file.sync_all()?;
        Ok(Box::new(()))
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Makes `path` and what is missing above it, each durably named by the one above.
fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() || path.as_os_str().is_empty() {
        return Ok(());
    }
    make_directories(parent(path))?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory(parent(path)),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}
