//! What is true of a log, whoever compacts it: the records that were put at the number after the last one, in their
//! order. It remembers all of them, reads no snapshot, and says at once when something on the disk contradicts it.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::Files;
use crate::sink::files::names::{Logged, logged};
use crate::sink::files::record::{Record, Snapshot, StoredFile, from_text};
use crate::sink::state::{Nonce, SinkState};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Where the partition stood after each record.
    states: Vec<SinkState>,
    commits: BTreeSet<Nonce>,
    /// The files of all commits by their visible paths, and which record named them.
    files: BTreeMap<String, (usize, StoredFile)>,
    staged: BTreeMap<String, String>,
    /// The number of the newest snapshot.
    snapshot: Option<u64>,
    /// Commits of which their owner was told that they can never happen.
    ruled_out: BTreeSet<Nonce>,
    /// Records put where a snapshot covered everything.
    pub(super) too_late: u64,
}

/// What a file below the root is to the sink.
fn in_log(path: &str) -> Option<Logged> {
    let (directory, name) = path.rsplit_once('/')?;
    directory.ends_with("/log").then(|| logged(name)).flatten()
}

impl Truth {
    pub(super) fn has(&self, commit: Nonce) -> bool {
        self.commits.contains(&commit)
    }

    pub(super) fn rule_out(&mut self, commit: Nonce) -> Result<(), String> {
        self.ruled_out.insert(commit);
        match self.has(commit) {
            true => Err(format!("commit {commit} happened, its owner was told that it did not")),
            false => Ok(()),
        }
    }

    pub(super) fn try_again(&mut self, commit: Nonce) {
        self.ruled_out.remove(&commit);
    }

    /// A claim told its owner that the partition stands at `state`.
    pub(super) fn stands(&self, state: &SinkState) -> Result<(), String> {
        match self.states.contains(state) {
            true => Ok(()),
            false => Err(format!("a claim was told {state:?}, which never was")),
        }
    }

    pub(super) fn newest(&self) -> Option<&SinkState> {
        self.states.last()
    }

    pub(super) fn published(&mut self, path: &str, bytes: &[u8], disk: &Files) -> Result<(), String> {
        match in_log(path) {
            Some(Logged::Record(n)) => self.put(n, bytes, disk),
            Some(Logged::Snapshot(n)) => self.summed_up(n, bytes, disk),
            None => Err(format!("{path} was published")),
        }
    }

    fn put(&mut self, n: u64, bytes: &[u8], disk: &Files) -> Result<(), String> {
        let next = self.states.len() as u64;
        if n < next {
            self.too_late += 1;
            return match self.snapshot {
                Some(newest) if newest >= n => Ok(()),
                _ => Err(format!("record {n} was put twice, and no snapshot covers it")),
            };
        }
        if n > next {
            return Err(format!("record {n} was put before record {next}"));
        }
        let (_, record) = from_text::<Record>(bytes).map_err(|e| format!("record {n} {e}"))?;
        if let Record::Commit(commit) = &record {
            if self.ruled_out.contains(&commit.commit.id) {
                return Err(format!("commit {} happened after it was ruled out", commit.commit.id));
            }
            self.commits.insert(commit.commit.id);
            for file in &commit.files {
                check(file, disk.get(&file.staged)).map_err(|e| format!("record {n}: {e}"))?;
                self.staged.insert(file.staged.clone(), file.path.clone());
                self.files.insert(file.path.clone(), (n as usize, file.clone()));
            }
        }
        let mut state = self.states.last().cloned();
        record.apply(&mut state).map_err(|e| format!("record {n} {e}"))?;
        self.states.extend(state);
        Ok(())
    }

    fn summed_up(&mut self, n: u64, bytes: &[u8], disk: &Files) -> Result<(), String> {
        let (_, snapshot) = from_text::<Snapshot>(bytes).map_err(|e| format!("snapshot {n} {e}"))?;
        if snapshot.upto != n || self.states.get(n as usize) != Some(&snapshot.state) {
            return Err(format!("snapshot {n} says {snapshot:?}"));
        }
        let hidden = self.files.iter().find(|(path, (at, _))| *at as u64 <= n && disk.get(path).is_none());
        if let Some((path, _)) = hidden {
            return Err(format!("snapshot {n} covers {path}, which is not visible"));
        }
        self.snapshot = self.snapshot.max(Some(n));
        Ok(())
    }

    pub(super) fn renamed(&self, to: &str, bytes: &[u8]) -> Result<(), String> {
        match self.files.get(to) {
            Some((_, file)) => check(file, Some(bytes)),
            None => Err(format!("{to} is visible, and no record that counts names it")),
        }
    }

    pub(super) fn deleted(&self, path: &str, disk: &Files) -> Result<(), String> {
        match in_log(path) {
            Some(Logged::Record(n)) if self.snapshot.is_none_or(|newest| newest <= n) => {
                Err(format!("record {n} was deleted, the newest snapshot is {:?}", self.snapshot))
            }
            Some(Logged::Snapshot(n)) if self.snapshot == Some(n) => {
                Err(format!("snapshot {n} was deleted, and is the newest"))
            }
            _ => match self.staged.get(path) {
                Some(visible) if disk.get(visible).is_none() => {
                    Err(format!("{path} was committed and deleted"))
                }
                _ => Ok(()),
            },
        }
    }

    /// All that was committed is there, and nothing else; no offset twice.
    pub(super) fn all_visible(&self, disk: &Files) -> Result<(), String> {
        let mut offsets = BTreeSet::new();
        for (path, (_, file)) in &self.files {
            let bytes = disk.get(path);
            check(file, bytes)?;
            for row in bytes.unwrap_or_default().split(|byte| *byte == b'\n').filter(|row| !row.is_empty()) {
                let row: serde_json::Value =
                    serde_json::from_slice(row).map_err(|e| format!("{path}: {e}"))?;
                if !offsets.insert(row["weir_offset"].as_i64()) {
                    return Err(format!("{path} has {} again", row["weir_offset"]));
                }
            }
        }
        match disk.paths().find(|path| !path.starts_with("_weir/") && !self.files.contains_key(*path)) {
            Some(path) => Err(format!("{path} is visible, and no record names it")),
            None => Ok(()),
        }
    }
}

fn check(file: &StoredFile, found: Option<&[u8]>) -> Result<(), String> {
    let Some(bytes) = found else { return Err(format!("{} is not there", file.path)) };
    match (bytes.len() as u64, crc32fast::hash(bytes)) == (file.length, file.crc32) {
        true => Ok(()),
        false => Err(format!("{} is not what its record says", file.path)),
    }
}
