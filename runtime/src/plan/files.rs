//! A plan log of one file per entry in the state directory. A file's name is its place; none is ever rewritten.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Entry, Error, PlanLog, VERSION};
use crate::sink::state::Nonce;

/// See the module.
#[derive(Debug)]
pub struct FileLog {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Line {
    version: u64,
    entry: Entry,
}

impl FileLog {
    /// Opens the log in `dir`, which is made if it is not there.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(io_error("making", &dir))?;
        Ok(Self { dir })
    }

    fn path(&self, at: u64) -> PathBuf {
        self.dir.join(format!("{at:020}.json"))
    }

    fn entry(&self, at: u64) -> Result<Option<Entry>, Error> {
        let path = self.path(at);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("reading", &path)(e)),
        };
        check_version(&path, &bytes)?;
        let line: Line = serde_json::from_slice(&bytes).map_err(|e| corrupt(&path, &e))?;
        Ok(Some(line.entry))
    }
}

fn check_version(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let Version { version } = serde_json::from_slice(bytes).map_err(|e| corrupt(path, &e))?;
    if version > VERSION {
        return Err(Error::Newer { what: path.display().to_string(), found: version, known: VERSION });
    }
    Ok(())
}

fn corrupt(path: &Path, error: &serde_json::Error) -> Error {
    Error::Corrupt { what: format!("{}: {error}", path.display()) }
}

fn io_error<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io { what: format!("{verb} {}", path.display()), source }
}

impl PlanLog for FileLog {
    fn read(&mut self, from: u64) -> Result<Vec<(u64, Entry)>, Error> {
        let mut entries = Vec::new();
        for at in from.. {
            match self.entry(at)? {
                Some(entry) => entries.push((at, entry)),
                None => break,
            }
        }
        Ok(entries)
    }

    /// The entry is written and synced under a name of its own first, then linked to its place: a link fails where
    /// a name exists, so the first wins and nobody ever sees half an entry.
    fn put(&mut self, at: u64, entry: &Entry) -> Result<bool, Error> {
        let line = Line { version: entry.version(), entry: entry.clone() };
        let bytes = serde_json::to_vec(&line).expect("entries are plain data");
        let temp = self.dir.join(format!(".{}.tmp", Nonce::random()));
        fail::fail_point!("plan.before_temp");
        write_synced(&temp, &bytes).map_err(io_error("writing", &temp))?;
        fail::fail_point!("plan.after_temp");
        let path = self.path(at);
        let linked = fs::hard_link(&temp, &path);
        fail::fail_point!("plan.after_put");
        // The temporary name has served its purpose either way; one left behind is hidden and harmless.
        drop(fs::remove_file(&temp));
        match linked {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            other => other.map_err(io_error("linking", &path))?,
        }
        sync_dir(&self.dir).map_err(io_error("syncing", &self.dir))?;
        Ok(true)
    }
}

/// Writes a new file and makes its bytes durable.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod interleavings;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset::Offset;
    use crate::plan::By;
    use crate::plan::InputPartition;
    use crate::sink::state::{Cut, PlanRef};

    fn start(generation: u64) -> Entry {
        Entry::Start { generation, owner: Nonce::from_u128(7), runtime: "0.1.0".into() }
    }

    #[test]
    fn the_first_to_write_at_a_place_wins() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = FileLog::open(dir.path()).unwrap();
        assert!(log.put(0, &start(1)).unwrap());
        assert!(!log.put(0, &start(2)).unwrap());
        assert!(log.put(1, &start(3)).unwrap());
        assert_eq!(log.read(0).unwrap(), [(0, start(1)), (1, start(3))]);
        assert_eq!(log.read(1).unwrap(), [(1, start(3))]);
    }

    #[test]
    fn every_kind_of_entry_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = FileLog::open(dir.path()).unwrap();
        let plan = PlanRef { plan: 3, digest: "sha256:ab".into() };
        let by = By { who: "uid 0".into(), at_ms: 1_700_000_000_000 };
        let entries = [
            Entry::Topic { id: "topic".into() },
            start(4),
            Entry::Plan(crate::plan::tests::plan(Some(0), "sha256:ab")),
            Entry::Inputs { files: Vec::new() },
            Entry::Started { topic: None, partitions: vec![2], sinks: vec!["lake".into()] },
            Entry::Adopted {
                of: InputPartition::file(2),
                cut: Cut { from: Offset::new(7), plan },
                epoch: crate::sink::state::Epoch::new(4),
                runtime: "0.1.0".into(),
            },
            Entry::Paused { of: None, by: by.clone() },
            Entry::Resumed { of: Some(InputPartition::file(2)), by: by.clone() },
            Entry::Shadow(crate::plan::tests::shadow(2, "sha256:cd").into()),
            Entry::ShadowEnded { of: 8, how: crate::plan::ShadowEnd::Done, by, why: "enough".into() },
            Entry::Done { of: InputPartition::file(2), end: Offset::new(9) },
        ];
        for (at, entry) in (0..).zip(&entries) {
            assert!(log.put(at, entry).unwrap());
        }
        let read: Vec<_> = log.read(0).unwrap().into_iter().map(|(_, entry)| entry).collect();
        assert_eq!(read, entries);
    }

    #[test]
    fn an_entry_of_a_newer_version_is_refused_and_a_broken_one_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = FileLog::open(dir.path()).unwrap();
        fs::write(log.path(0), br#"{"version": 4, "entry": "unheard-of"}"#).unwrap();
        assert!(matches!(log.read(0), Err(Error::Newer { found: 4, .. })));
        fs::write(log.path(0), b"").unwrap();
        let error = log.read(0).unwrap_err().to_string();
        assert!(error.starts_with("E_LOG_CORRUPT") && error.contains("00000000000000000000.json"), "{error}");
    }
}
