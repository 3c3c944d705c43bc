//! A plan log in a Kafka topic, and the bytes that plans name in another: what every process of a pipeline shares where
//! records come from Kafka.
//!
//! A topic takes whatever is appended, so a record says for which place it is meant. Read from the first on, a record
//! counts if it is meant for the place that comes next, and all others came too late. Every reader comes to the same
//! log, since all read the same order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Entry, Error, PlanLog, VERSION};
use crate::kafka::log::{self, Keep, Line, TopicLog};
use crate::kafka::{self, Cluster};
use crate::sink::state::Nonce;

/// Of the bytes that are stored, in one record: half of what a topic takes by default.
const CHUNK: usize = 512 << 10;

/// See the module.
#[derive(Debug)]
pub struct KafkaLog {
    log: TopicLog,
    topic: String,
    /// Those that count, each with who wrote it.
    entries: Vec<(Nonce, Entry)>,
    /// From one on that cannot be understood: what comes behind it counts for whoever understands it.
    unread: VecDeque<Line>,
}

#[derive(Serialize, Deserialize)]
struct Meant {
    version: u64,
    at: u64,
    nonce: Nonce,
    entry: Entry,
}

impl KafkaLog {
    /// Opens the log of a pipeline in topic `weir.<pipeline>.plans`, which is made if it is not there: one partition, from
    /// which nothing is ever deleted.
    ///
    /// # Errors
    /// [`Error::Io`] where the cluster cannot be reached or refuses.
    pub fn open(cluster: &Cluster, pipeline: &str) -> Result<Self, Error> {
        let topic = topic_of(pipeline);
        let log = TopicLog::open(cluster, &topic, Keep::All).map_err(of_cluster)?;
        Ok(Self::of(log, topic))
    }

    /// The same where there is a log; nothing is made.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn open_if_there(cluster: &Cluster, pipeline: &str) -> Result<Option<Self>, Error> {
        let topic = topic_of(pipeline);
        let log = TopicLog::open_if_there(cluster, &topic, Keep::All).map_err(of_cluster)?;
        Ok(log.map(|log| Self::of(log, topic)))
    }

    fn of(log: TopicLog, topic: String) -> Self {
        Self { log, topic, entries: Vec::new(), unread: VecDeque::new() }
    }

    fn catch_up(&mut self) -> Result<(), Error> {
        self.unread.extend(self.log.read_on().map_err(of_cluster)?);
        while let Some(line) = self.unread.front() {
            if let Some(Meant { nonce, entry, .. }) = self.counts(line)? {
                self.entries.push((nonce, entry));
            }
            self.unread.pop_front();
        }
        Ok(())
    }

    /// The record, if it is meant for the place that comes next.
    fn counts(&self, line: &Line) -> Result<Option<Meant>, Error> {
        #[derive(Deserialize)]
        struct Place {
            version: u64,
            at: u64,
        }
        let next = self.entries.len() as u64;
        let what = || format!("a record of topic {} for place {next}", self.topic);
        let corrupt = |e: serde_json::Error| Error::Corrupt { what: format!("{}: {e}", what()) };
        let bytes = line.value.as_deref().unwrap_or_default();
        let Place { version, at } = serde_json::from_slice(bytes).map_err(corrupt)?;
        if at != next {
            return Ok(None);
        }
        if version > VERSION {
            return Err(Error::Newer { what: what(), found: version, known: VERSION });
        }
        serde_json::from_slice(bytes).map(Some).map_err(corrupt)
    }
}

impl PlanLog for KafkaLog {
    fn read(&mut self, from: u64) -> Result<Vec<(u64, Entry)>, Error> {
        self.catch_up()?;
        let entries = self.entries.iter().zip(0..).skip(usize::try_from(from).unwrap_or(usize::MAX));
        Ok(entries.map(|((_, entry), at)| (at, entry.clone())).collect())
    }

    /// An error leaves open whether the entry is there, or comes there still: never twice, and never in another place.
    fn put(&mut self, at: u64, entry: &Entry) -> Result<bool, Error> {
        // Who was first is told by what is read afterwards; a look before it would cost every entry as much again.
        if at > self.entries.len() as u64 {
            self.catch_up()?;
        }
        if at != self.entries.len() as u64 {
            return Ok(false);
        }
        let nonce = Nonce::random();
        let meant = Meant { version: entry.version(), at, nonce, entry: entry.clone() };
        let bytes = serde_json::to_vec(&meant).expect("entries are plain data");
        fail::fail_point!("plan.before_put");
        self.log.append(b"", Some(&bytes)).map_err(of_cluster)?;
        fail::fail_point!("plan.after_put");
        self.catch_up()?;
        let there = usize::try_from(at).ok().and_then(|at| self.entries.get(at));
        Ok(there.is_some_and(|(who, _)| *who == nonce))
    }
}

/// The bytes that plans name, by their digest, in pieces in topic `weir.<pipeline>.store`.
#[derive(Debug)]
pub struct KafkaStore {
    cluster: Cluster,
    topic: String,
}

impl KafkaStore {
    /// The store of a pipeline. Nobody is asked, and nothing is made.
    pub fn new(cluster: &Cluster, pipeline: &str) -> Self {
        Self { cluster: cluster.clone(), topic: format!("weir.{pipeline}.store") }
    }

    /// Keeps `bytes` durably and returns their digest; the topic is made if it is not there. After a crash half-way they are not
    /// there, and may be kept again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Arc<str>, Error> {
        let digest: Arc<str> = crate::digest::of(bytes).into();
        log::make_if_missing(&self.cluster, &self.topic, Keep::LastOfKey).map_err(of_cluster)?;
        let append = |key: &str, value: &[u8]| self.cluster.append(&self.topic, key.as_bytes(), Some(value));
        let mut n = 0;
        for piece in bytes.chunks(CHUNK) {
            append(&format!("{digest}/{n}"), piece).map_err(of_cluster)?;
            n += 1;
        }
        // Last: whoever finds it finds all pieces.
        append(&digest, n.to_string().as_bytes()).map_err(of_cluster)?;
        Ok(digest)
    }

    /// The bytes of `digest`, checked. Reads the whole topic: whoever gets them keeps them.
    ///
    /// # Errors
    /// [`Error::Store`] if they are not there or are others; [`Error::Io`].
    pub fn get(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let log = TopicLog::open_if_there(&self.cluster, &self.topic, Keep::LastOfKey).map_err(of_cluster)?;
        let lines = log.map_or_else(|| Ok(Vec::new()), |mut log| log.read_on()).map_err(of_cluster)?;
        let mut pieces: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for Line { key, value } in lines {
            if key.starts_with(digest.as_bytes()) {
                pieces.insert(key, value);
            }
        }
        let missing = || Error::Store { what: format!("{digest} is not in the store, topic {}", self.topic) };
        let mut piece = |key: String| pieces.remove(key.as_bytes()).flatten().ok_or_else(missing);
        let n = String::from_utf8(piece(digest.to_owned())?).ok().and_then(|n| n.parse::<u64>().ok());
        let mut bytes = Vec::new();
        for i in 0..n.ok_or_else(missing)? {
            bytes.extend(piece(format!("{digest}/{i}"))?);
        }
        match crate::digest::of(&bytes) {
            found if found == digest => Ok(bytes),
            found => Err(Error::Store {
                what: format!("topic {} has the bytes of {found} as {digest}", self.topic),
            }),
        }
    }
}

fn topic_of(pipeline: &str) -> String {
    format!("weir.{pipeline}.plans")
}

fn of_cluster(error: kafka::Error) -> Error {
    let what = "the plan log in Kafka".to_owned();
    Error::Io { what, source: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests;
