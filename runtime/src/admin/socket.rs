//! The socket of a process: a file in a directory that all processes of a pipeline share. Whoever may write to the
//! file may ask; nobody else may at any moment. It never removes one that somebody answers at.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket};

use super::Error;

/// A longer path is no address for a socket; the shortest such limit of a system has 104 bytes, one of them for the end.
const LONGEST: usize = 103;

/// How many may wait to be let in.
const BACKLOG: u32 = 64;

/// A socket of this process. Dropped, its file is gone.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Makes the directory, removes what dead processes left there, and listens. Needs a runtime around it.
    pub(super) fn make(directory: &Path, pid: u32) -> Result<(Self, UnixListener), Error> {
        let failed = |source| Error::Socket { path: directory.join(format!("{pid}.sock")), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        remove_stale(directory).map_err(failed)?;
        let name = free_name(directory, pid);
        let listener = listen(directory, &name).map_err(failed)?;
        Ok((Self { path: directory.join(name) }, listener))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

/// Processes in containers may have the same number.
fn free_name(directory: &Path, pid: u32) -> String {
    let more = (2..).map(|n| format!("{pid}-{n}.sock"));
    let mut names = std::iter::once(format!("{pid}.sock")).chain(more);
    names.find(|name| !directory.join(name).exists()).expect("there are many")
}

/// Its file has its name only once it is for its owner alone and somebody listens: who finds it may ask, and finds it
/// neither open to others nor dead.
fn listen(directory: &Path, name: &str) -> io::Result<UnixListener> {
    let hidden = format!(".{name}.tmp");
    let (from, to) = (directory.join(&hidden), directory.join(name));
    match fs::remove_file(&from) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    by_short_path(directory, &hidden, |path| socket.bind(path))?;
    fs::set_permissions(&from, Permissions::from_mode(0o600))?;
    let listener = socket.listen(BACKLOG)?;
    fs::rename(&from, &to)?;
    Ok(listener)
}

/// The sockets in a directory, in the order of their names; none if it is not there.
///
/// # Errors
/// If it cannot be listed.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let mut found = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    found.retain(|path| path.extension().is_some_and(|extension| extension == "sock"));
    found.sort();
    Ok(found)
}

/// Connects; an error of kind `ConnectionRefused` or `NotFound` says that nobody is there any more.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    by_short_path(path.parent().unwrap_or(Path::new("")), &name, |path| UnixStream::connect(path))
}

fn remove_stale(directory: &Path) -> io::Result<()> {
    for path in list(directory)? {
        match connect(&path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(&path).or_else(gone)?
            }
            _ => {}
        }
    }
    Ok(())
}

/// Somebody else removed it.
fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Calls `reach` with a path of the file that is short enough for a socket: where the whole one is not, by way of the
/// directory, which this process has open for so long. Linux has such paths.
fn by_short_path<T>(
    directory: &Path,
    name: &str,
    reach: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let path = directory.join(name);
    if path.as_os_str().len() <= LONGEST {
        return reach(&path);
    }
    let held = File::open(directory)?;
    reach(Path::new(&format!("/proc/self/fd/{}/{name}", held.as_raw_fd())))
}
