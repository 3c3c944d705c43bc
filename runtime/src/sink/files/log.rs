//! The commit log of one partition: files numbered without a hole, each put where there was none, and snapshots that
//! take the place of the older ones ([`super::compact`]). It is the only truth about what was delivered; visible files
//! follow from it and are never asked.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::names::{self, Logged, Places};
use super::record::{self, CommitRecord, Record, Snapshot, StoredFile, Unreadable};
use super::storage::{Storage, failed};
use crate::sink::state::{Nonce, SinkState};
use crate::sink::{Error, Problem};

/// How often a put whose answer was lost, and which did not happen, is tried before the caller is told.
const PUT_ATTEMPTS: usize = 3;
/// How often a log that changes while it is read is read again before the caller is told.
const READ_ATTEMPTS: usize = 5;

/// The log of one partition, and the staging directory of one epoch.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) places: Places,
    staged: String,
}

/// What the log says.
#[derive(Debug)]
pub(super) struct History {
    /// Where the partition stands.
    pub(super) state: SinkState,
    /// The number of the newest record.
    pub(super) last: u64,
    /// How many records there are after the newest snapshot.
    pub(super) records: u64,
    /// The files that may not have their visible names yet, by the number of their record.
    pub(super) pending: Vec<(u64, Vec<StoredFile>)>,
}

/// Which files a log has, by their numbers in ascending order.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Listing {
    pub(super) records: Vec<u64>,
    pub(super) snapshots: Vec<u64>,
}

/// A record that was written in full and not yet put.
#[derive(Clone, Debug)]
pub(super) struct StagedRecord {
    pub(super) path: String,
    nonce: Nonce,
}

/// How a put ended.
#[derive(Debug)]
pub(super) enum Put {
    /// The record is there; `found_out`: the answer was lost and the log had to be asked.
    Done { found_out: bool },
    /// Another record has the number.
    Taken,
    /// It is not there and cannot be any more: a higher epoch removed it.
    CleanedAway,
    /// Nothing answers; the text says what.
    Unknown(String),
}

/// What a put whose answer was lost left behind.
enum Look {
    Ours,
    Taken,
    Absent { staged: bool },
}

impl Log {
    pub(super) fn new(storage: Arc<dyn Storage>, places: Places, staged: String) -> Self {
        Self { storage, places, staged }
    }

    /// Reads the newest snapshot and the records after it; `None` where there is no log.
    pub(super) fn read(&self) -> Result<Option<History>, Error> {
        self.settled(|listing| self.replay(listing))
    }

    /// Answers what `read` says of a listing. While the owner compacts, what was listed can be gone when it is to be
    /// read, and a listing can miss what came when it had begun; so an error counts only if nothing has changed since.
    fn settled<T>(&self, read: impl Fn(&Listing) -> Result<T, Error>) -> Result<T, Error> {
        let mut listing = self.list()?;
        for _ in 0..READ_ATTEMPTS {
            let answer = read(&listing);
            if answer.is_ok() {
                return answer;
            }
            let now = self.list()?;
            if now == listing {
                return answer;
            }
            listing = now;
        }
        Err(self.restless())
    }

    fn restless(&self) -> Error {
        let path = self.storage.show(&self.places.log());
        Error::Transient(Problem::new(format!("`{path}` changes faster than it can be read")))
    }

    /// What the newest snapshot covers is never looked at: a process that was overtaken may have put a record there.
    fn replay(&self, listing: &Listing) -> Result<Option<History>, Error> {
        let (mut state, first) = match listing.snapshots.last() {
            Some(&n) => (Some(self.read_snapshot(n)?), n + 1),
            None => (None, 0),
        };
        let mut pending = Vec::new();
        let (mut rolled, mut next) = (0, first);
        for &n in listing.records.iter().filter(|n| **n >= first) {
            if n != next {
                return Err(self.corrupt(next, "is missing, although later records are there"));
            }
            let record = self.read_record(n)?;
            if let Record::Commit(CommitRecord { files, rolled: upto, .. }) = &record {
                rolled = rolled.max(*upto);
                pending.push((n, files.clone()));
            }
            record.apply(&mut state).map_err(|broken| self.corrupt(n, &broken.to_string()))?;
            next += 1;
        }
        pending.retain(|(n, _)| *n > rolled);
        Ok(state.map(|state| History { state, last: next - 1, records: next - first, pending }))
    }

    pub(super) fn list(&self) -> Result<Listing, Error> {
        let directory = self.places.log();
        let mut listing = Listing::default();
        for name in
            self.names(&directory)?.iter().filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        {
            match names::logged(name) {
                Some(Logged::Record(n)) => listing.records.push(n),
                Some(Logged::Snapshot(n)) => listing.snapshots.push(n),
                None => {
                    return Err(
                        self.newer(&format!("{directory}/{name}"), "is of a kind unknown to this program")
                    );
                }
            }
        }
        listing.records.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }

    fn read_record(&self, n: u64) -> Result<Record, Error> {
        self.read_text(&self.places.record(n))
    }

    fn read_snapshot(&self, n: u64) -> Result<SinkState, Error> {
        let path = self.places.snapshot(n);
        let Snapshot { upto, state } = self.read_text(&path)?;
        if upto != n {
            return Err(self.corrupt_at(&path, &format!("is the snapshot of record {upto}")));
        }
        Ok(state)
    }

    fn read_text<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let text = self.storage.read(path).map_err(|e| failed(&*self.storage, "read", path, e))?;
        match record::from_text(&text) {
            Ok((_, record)) => Ok(record),
            Err(newer @ Unreadable::Newer(_)) => Err(self.newer(path, &newer.to_string())),
            Err(other) => Err(self.corrupt_at(path, &other.to_string())),
        }
    }

    /// Writes a record in full, under a name that means nothing yet.
    pub(super) fn stage<T: record::Stored>(&self, nonce: Nonce, record: &T) -> Result<StagedRecord, Error> {
        let path = format!("{}/record-{}", self.staged, Nonce::random());
        let write = || {
            let mut file = self.storage.create(&path)?;
            file.write_all(&record::to_text(record, nonce))?;
            file.close()?.wait()
        };
        write().map_err(|e| failed(&*self.storage, "write", &path, e))?;
        Ok(StagedRecord { path, nonce })
    }

    /// Makes a staged record number `n`, if that number is free.
    pub(super) fn put(&self, n: u64, staged: &StagedRecord) -> Put {
        let path = self.places.record(n);
        let mut lost = String::new();
        for _ in 0..PUT_ATTEMPTS {
            let Err(error) = self.storage.publish(&staged.path, &path) else {
                return Put::Done { found_out: false };
            };
            lost = failed(&*self.storage, "publish", &path, error).to_string();
            match self.look(n, staged) {
                Ok(Look::Ours) => return Put::Done { found_out: true },
                Ok(Look::Taken) => return Put::Taken,
                Ok(Look::Absent { staged: false }) => return Put::CleanedAway,
                Ok(Look::Absent { staged: true }) => {}
                Err(error) => return Put::Unknown(format!("{lost}; then {error}")),
            }
        }
        Put::Unknown(lost)
    }

    /// Answers for a put whose outcome is unknown. If it did not happen, it cannot any more.
    pub(super) fn withdraw(&self, n: u64, staged: &StagedRecord) -> Result<Option<Put>, Error> {
        let remove = || self.storage.delete(&staged.path);
        if let Look::Absent { .. } = self.look(n, staged)? {
            remove().map_err(|e| failed(&*self.storage, "remove", &staged.path, e))?;
        }
        Ok(match self.look(n, staged)? {
            Look::Ours => Some(Put::Done { found_out: true }),
            Look::Taken => Some(Put::Taken),
            Look::Absent { .. } => None,
        })
    }

    fn look(&self, n: u64, staged: &StagedRecord) -> Result<Look, Error> {
        let path = self.places.record(n);
        let length =
            |path: &str| self.storage.length(path).map_err(|e| failed(&*self.storage, "look at", path, e));
        // In this order: a put that is only late can happen in between, and then takes the staged record away.
        let is_staged = length(&staged.path)?.is_some();
        if length(&path)?.is_none() {
            return Ok(Look::Absent { staged: is_staged });
        }
        let text = self.storage.read(&path).map_err(|e| failed(&*self.storage, "read", &path, e))?;
        let (nonce, _) = record::from_text::<Record>(&text).map_err(|e| self.corrupt(n, &e.to_string()))?;
        if nonce != staged.nonce {
            return Ok(Look::Taken);
        }
        let log = self.places.log();
        self.storage.sync(&log).map_err(|e| failed(&*self.storage, "sync", &log, e))?;
        Ok(Look::Ours)
    }

    /// Whether record `n`, which was just put, lies where a snapshot stands for all records. Then it does not count:
    /// whoever put it was overtaken, the record that decided had the number before, and has been deleted since. A
    /// snapshot is written before anything that it covers is deleted, so a number that was free for that reason is
    /// always found out.
    pub(super) fn overtaken(&self, n: u64, staged: &StagedRecord) -> Result<bool, Error> {
        if !self.is_covered(n)? {
            return Ok(false);
        }
        // Nobody reads it there; the next owner who compacts would delete it, too.
        let take_back = || match self.look(n, staged)? {
            Look::Ours => {
                let path = self.places.record(n);
                self.storage.delete(&path).map_err(|e| failed(&*self.storage, "remove", &path, e))
            }
            Look::Taken | Look::Absent { .. } => Ok(()),
        };
        if let Err(error) = take_back() {
            tracing::debug!(n, %error, "a record that does not count stays behind");
        }
        Ok(true)
    }

    /// Whether a snapshot stands for record `n`. A listing can miss what came when it had begun, so only one that finds
    /// all as it was before says no.
    pub(super) fn is_covered(&self, n: u64) -> Result<bool, Error> {
        let mut before = None;
        for _ in 0..READ_ATTEMPTS {
            let listing = self.list()?;
            if listing.snapshots.last().is_some_and(|newest| *newest >= n) {
                return Ok(true);
            }
            if before.as_ref() == Some(&listing) {
                return Ok(false);
            }
            before = Some(listing);
        }
        Err(self.restless())
    }

    /// The first state of any partition of another topic that has this topic's name, if a log knows one.
    pub(super) fn sibling(&self, topic: &str) -> Result<Option<SinkState>, Error> {
        for id in self.names(&self.places.topics)?.iter().filter(|id| **id != self.places.topic_id) {
            let partitions = self.names(&self.places.partitions(id))?;
            for partition in partitions.iter().filter_map(|name| name.parse().ok()) {
                let other = Self { places: self.places.of(id, partition), ..self.clone() };
                if let Some(state) = other.first()?.filter(|state| *state.topic == *topic) {
                    return Ok(Some(state));
                }
            }
        }
        Ok(None)
    }

    /// The oldest state that the log knows; `None` where there is no log.
    fn first(&self) -> Result<Option<SinkState>, Error> {
        self.settled(|listing| match (listing.snapshots.last(), listing.records.first()) {
            (Some(&n), _) => self.read_snapshot(n).map(Some),
            (None, Some(_)) => match self.read_record(0)? {
                Record::Init { state } => Ok(Some(state)),
                _ => Ok(None),
            },
            (None, None) => Ok(None),
        })
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, Error> {
        self.storage.list(directory).map_err(|e| failed(&*self.storage, "list", directory, e))
    }

    fn corrupt(&self, n: u64, why: &str) -> Error {
        self.corrupt_at(&self.places.record(n), why)
    }

    fn corrupt_at(&self, path: &str, why: &str) -> Error {
        let problem = Problem::new(format!("E_LOG_CORRUPT: `{}` {why}", self.storage.show(path)));
        Error::Permanent(
            problem.hint("restore the file from a backup; the log cannot be continued without it"),
        )
    }

    fn newer(&self, path: &str, why: &str) -> Error {
        let problem = Problem::new(format!("E_LOG_NEWER: `{}` {why}", self.storage.show(path)));
        Error::Permanent(problem.hint("run the newer version of weir that wrote it"))
    }
}
