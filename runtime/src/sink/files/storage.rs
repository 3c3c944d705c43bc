//! What the file sink asks of a file system. It asks for little, so that HDFS can give it too: no append, no
//! locks, no overwriting, nothing that depends on time.

use std::fmt;
use std::io::{self, Write};

use crate::sink::state::Nonce;
use crate::sink::{Error, Problem};

/// Files by their path below one root, with `/` between the parts.
///
/// `rename` and `publish` are atomic and never overwrite: of two that aim at one name, one fails with
/// [`io::ErrorKind::AlreadyExists`]. An error of any other kind means nothing: it may have happened.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Starts a new file. It is there, in directories that are made for it, when it was closed at the latest.
    fn create(&self, path: &str) -> io::Result<Box<dyn StagedFile>>;

    /// Gives the complete file `from` the name `to`, durably, if that is free. `from` may be there afterwards.
    fn publish(&self, from: &str, to: &str) -> io::Result<()>;

    /// Moves a file to a name that is free, and makes the directories above it.
    /// [`io::ErrorKind::NotFound`]: there is no `from`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes durable which names `directory` holds, where closing and renaming do not.
    fn sync(&self, directory: &str) -> io::Result<()>;

    /// The names in `directory`; none where there is no such directory. What was there before the call, and is not
    /// removed meanwhile, is among them.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// All bytes of a file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// So many bytes of a file from `start` on, or as many as there are.
    fn read_range(&self, path: &str, start: u64, most: usize) -> io::Result<Vec<u8>> {
        let all = self.read(path)?;
        let start = all.len().min(usize::try_from(start).unwrap_or(usize::MAX));
        Ok(all[start..all.len().min(start.saturating_add(most))].to_vec())
    }

    /// How long a file is; `None` where there is none.
    fn length(&self, path: &str) -> io::Result<Option<u64>>;

    /// Removes a file or an empty directory, if it is there.
    fn delete(&self, path: &str) -> io::Result<()>;

    /// How a person finds `path`.
    fn show(&self, path: &str) -> String;

    /// It was tried out and is in order: what is not, from now on, may be waited for.
    fn trust(&self) {}
}

/// A file that is being written. Dropped without being closed, it stays as it is and means nothing.
pub trait StagedFile: Write + Send {
    /// Begins to make everything written durable. It is when the answer has come.
    fn close(self: Box<Self>) -> io::Result<Box<dyn Closing>>;
}

/// A file that is on its way, with others beside it where the storage takes several at a time. Dropped before it is
/// there, it means nothing, as one that was never closed.
pub trait Closing: Send {
    /// Waits until everything written is durable below the path of the file.
    fn wait(self: Box<Self>) -> io::Result<()>;
}

/// One that is there already.
impl Closing for () {
    fn wait(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

/// Sorts a failed file operation by what to do next. Denied is no reason to give up: rights can be given back.
pub(super) fn failed(storage: &dyn Storage, what: &str, path: &str, error: io::Error) -> Error {
    let shown = storage.show(path);
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::Transient(
            Problem::new(format!("E_SINK_DENIED: cannot {what} `{shown}`"))
                .hint("give the user that runs the pipeline the right to read and write there")
                .source(error),
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Transient(
            Problem::new(format!("E_SINK_FULL: cannot {what} `{shown}`"))
                .hint("make room there, or raise the quota")
                .source(error),
        ),
        io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidData => {
            Error::Permanent(Problem::new(format!("cannot {what} `{shown}`")).source(error))
        }
        _ => Error::Transient(Problem::new(format!("cannot {what} `{shown}`")).source(error)),
    }
}

/// Tries out, in a directory of its own, what the sink's guarantee stands on.
///
/// # Errors
/// [`Error::Permanent`] if the file system overwrites or cannot do it, such as one without hard links.
pub(super) fn self_test(storage: &dyn Storage) -> Result<(), Error> {
    let directory = format!("_weir/self-test-{}", Nonce::random());
    let tried = try_out(storage, &directory);
    let cleaned = storage.list(&directory).and_then(|names| {
        names.iter().try_for_each(|name| storage.delete(&format!("{directory}/{name}")))?;
        storage.delete(&directory)
    });
    let unfit = |step: &'static str, error: Option<io::Error>| {
        let text = format!("the file system of `{}` is not fit for a file sink: {step}", storage.show(""));
        let hint = "choose a root on a local file system with hard links and renames that do not overwrite";
        let problem = Problem { source: error, ..Problem::new(text).hint(hint) };
        Error::Permanent(problem)
    };
    match tried {
        Ok(()) => cleaned.map_err(|e| failed(storage, "clean up", &directory, e)),
        Err(Unfit::Io(step, error)) if is_unsupported(&error) => Err(unfit(step, Some(error))),
        Err(Unfit::Io(_, error)) => Err(failed(storage, "write to", &directory, error)),
        Err(Unfit::Overwrote(step)) => Err(unfit(step, None)),
    }
}

enum Unfit {
    Io(&'static str, io::Error),
    Overwrote(&'static str),
}

/// Such answers do not change by waiting. `link` says "not permitted" where there are no hard links.
fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unsupported = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM, Errno::MLINK, Errno::XDEV];
    error.raw_os_error().is_some_and(|code| unsupported.iter().any(|errno| errno.raw_os_error() == code))
}

fn try_out(storage: &dyn Storage, directory: &str) -> Result<(), Unfit> {
    let path = |name: &str| format!("{directory}/{name}");
    let write = |name: &str| {
        let mut file = storage.create(&path(name))?;
        file.write_all(name.as_bytes())?;
        file.close()?.wait()
    };
    let io = |step| move |error| Unfit::Io(step, error);
    for name in ["a", "b"] {
        write(name).map_err(io("a file cannot be written"))?;
    }
    storage
        .publish(&path("a"), &path("published"))
        .map_err(io("it cannot publish a file under a second name"))?;
    refuses(storage.publish(&path("b"), &path("published")), "it publishes over a file that is there")?;
    storage.rename(&path("b"), &path("renamed")).map_err(io("it cannot rename without overwriting"))?;
    refuses(storage.rename(&path("published"), &path("renamed")), "it renames over a file that is there")?;
    storage.sync(directory).map_err(io("a directory cannot be made durable"))
}

fn refuses(answer: io::Result<()>, step: &'static str) -> Result<(), Unfit> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Unfit::Io(step, error)),
        Ok(()) => Err(Unfit::Overwrote(step)),
    }
}

#[cfg(test)]
pub(super) mod tests;
