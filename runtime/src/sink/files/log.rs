//! The commit log of one partition: files numbered without a hole, each put where there was none. It is the only
//! truth about what was delivered; visible files follow from it and are never asked.

use std::sync::Arc;

use super::names::{self, Places};
use super::record::{self, CommitRecord, Record, StoredFile, Unreadable};
use super::storage::{Storage, failed};
use crate::sink::state::{Nonce, SinkState};
use crate::sink::{Error, Problem};

/// How often a put whose answer was lost, and which did not happen, is tried before the caller is told.
const PUT_ATTEMPTS: usize = 3;
/// A listing may be older than the one before, where several servers answer.
const LIST_ATTEMPTS: usize = 3;

/// The log of one partition, and the staging directory of one epoch.
#[derive(Clone, Debug)]
pub(super) struct Log {
    storage: Arc<dyn Storage>,
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
    /// The files that may not have their visible names yet, by the number of their record.
    pub(super) pending: Vec<(u64, Vec<StoredFile>)>,
}

/// A record that was written in full and not yet put.
#[derive(Clone, Debug)]
pub(super) struct StagedRecord {
    path: String,
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

    /// Reads the whole log; `None` where there is none.
    pub(super) fn read(&self) -> Result<Option<History>, Error> {
        let Some(last) = self.list()? else { return Ok(None) };
        let mut state = None;
        let mut commits = Vec::new();
        let mut rolled = 0;
        for n in 0..=last {
            let record = self.read_record(n)?;
            if let Record::Commit(CommitRecord { files, rolled: upto, .. }) = &record {
                rolled = rolled.max(*upto);
                commits.push((n, files.clone()));
            }
            record.apply(&mut state).map_err(|broken| self.corrupt(n, &broken.to_string()))?;
        }
        commits.retain(|(n, _)| *n > rolled);
        Ok(state.map(|state| History { state, last, pending: commits }))
    }

    /// The number of the newest record, once a listing shows no hole below it.
    fn list(&self) -> Result<Option<u64>, Error> {
        let mut missing = 0;
        for _ in 0..LIST_ATTEMPTS {
            let mut numbers = self.numbers()?;
            numbers.sort_unstable();
            let Some(hole) = (0..).zip(&numbers).find(|(n, found)| n != *found) else {
                return Ok(numbers.last().copied());
            };
            missing = hole.0;
        }
        Err(self.corrupt(missing, "is missing, although later records are there"))
    }

    fn numbers(&self) -> Result<Vec<u64>, Error> {
        let directory = self.places.log();
        let names = self.names(&directory)?;
        let mut numbers = Vec::with_capacity(names.len());
        for name in names.iter().filter(|name| name.starts_with(|c: char| c.is_ascii_digit())) {
            match names::record_number(name) {
                Some(n) => numbers.push(n),
                None => {
                    return Err(
                        self.newer(&format!("{directory}/{name}"), "is of a kind unknown to this program")
                    );
                }
            }
        }
        Ok(numbers)
    }

    fn read_record(&self, n: u64) -> Result<Record, Error> {
        let path = self.places.record(n);
        let text = self.storage.read(&path).map_err(|e| failed(&*self.storage, "read", &path, e))?;
        match record::from_text(&text) {
            Ok((_, record)) => Ok(record),
            Err(newer @ Unreadable::Newer(_)) => Err(self.newer(&path, &newer.to_string())),
            Err(other) => Err(self.corrupt(n, &other.to_string())),
        }
    }

    /// Writes a record in full, under a name that means nothing yet.
    pub(super) fn stage(&self, nonce: Nonce, record: &Record) -> Result<StagedRecord, Error> {
        let path = format!("{}/record-{}", self.staged, Nonce::random());
        let write = || {
            let mut file = self.storage.create(&path)?;
            file.write_all(&record::to_text(record, nonce))?;
            file.close()
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
        let (nonce, _) = record::from_text(&text).map_err(|e| self.corrupt(n, &e.to_string()))?;
        if nonce != staged.nonce {
            return Ok(Look::Taken);
        }
        let log = self.places.log();
        self.storage.sync(&log).map_err(|e| failed(&*self.storage, "sync", &log, e))?;
        Ok(Look::Ours)
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

    /// The state that the log begins with; `None` where there is no log.
    fn first(&self) -> Result<Option<SinkState>, Error> {
        if self.list()?.is_none() {
            return Ok(None);
        }
        match self.read_record(0)? {
            Record::Init { state } => Ok(Some(state)),
            _ => Ok(None),
        }
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, Error> {
        self.storage.list(directory).map_err(|e| failed(&*self.storage, "list", directory, e))
    }

    fn corrupt(&self, n: u64, why: &str) -> Error {
        let path = self.storage.show(&self.places.record(n));
        let problem = Problem::new(format!("E_LOG_CORRUPT: `{path}` {why}"));
        Error::Permanent(
            problem.hint("restore the file from a backup; the log cannot be continued without it"),
        )
    }

    fn newer(&self, path: &str, why: &str) -> Error {
        let problem = Problem::new(format!("E_LOG_NEWER: `{}` {why}", self.storage.show(path)));
        Error::Permanent(problem.hint("run the newer version of weir that wrote it"))
    }
}
