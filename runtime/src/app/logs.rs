//! Where a pipeline writes down its decisions, and keeps the bytes that they name: in its state directory where records
//! come from files, in topics where they come from Kafka. It decides nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use backon::{BlockingRetryable as _, ExponentialBuilder};

use crate::kafka::{self, Cluster};
use crate::plan::files::FileLog;
use crate::plan::kafka::{KafkaLog, KafkaStore};
use crate::plan::store::{FileStore, Store};
use crate::plan::{Entry, Error, History, PlanLog};

use super::StateDir;

/// The plan log, for all threads of this process, and what it adds up to as far as it was read.
#[derive(Clone)]
pub(super) struct SharedLog(Arc<Mutex<Inner>>);

pub(super) struct Inner {
    pub(super) history: History,
    pub(super) log: Box<dyn PlanLog>,
    /// Whether it is somewhere else, and may come back when it is gone.
    far: bool,
}

/// How long a cluster is waited for that takes no decision: with waits from 100 ms to 10 s, some two minutes. Records wait
/// as long, since no decision may be taken that nobody could find again.
fn patience() -> ExponentialBuilder {
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(10));
    ExponentialBuilder::default().with_min_delay(least).with_max_delay(most).with_max_times(18).with_jitter()
}

impl SharedLog {
    /// In files of the state directory.
    pub(super) fn in_files(state: &StateDir) -> Result<Self> {
        Self::read(Box::new(FileLog::open(state.plans())?), false)
    }

    /// In a topic.
    pub(super) fn in_kafka(cluster: &Cluster, pipeline: &str) -> Result<Self> {
        Self::read(Box::new(KafkaLog::open(cluster, pipeline)?), true)
    }

    fn read(mut log: Box<dyn PlanLog>, far: bool) -> Result<Self> {
        let history = if far { read_far(log.as_mut())? } else { read(log.as_mut())? };
        Ok(Self(Arc::new(Mutex::new(Inner { history, log, far }))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics with the log in hand")
    }

    /// Asks until there is an answer, or it has taken too long.
    fn ask<T>(&self, ask: impl Fn(&mut dyn PlanLog) -> Result<T, Error>) -> Result<T, Error> {
        let passes = |error: &Error| matches!(error, Error::Io { .. }) && self.lock().far;
        let warn = |error: &Error, wait: Duration| {
            tracing::warn!(%error, ?wait, "the plan log does not answer: records wait for it");
        };
        (|| ask(self.lock().log.as_mut())).retry(patience()).when(passes).notify(warn).call()
    }
}

/// What a log adds up to.
pub(super) fn read(log: &mut dyn PlanLog) -> Result<History, Error> {
    let mut history = History::default();
    history.catch_up(log)?;
    Ok(history)
}

/// The same of one that is somewhere else: a broker that has just come back leads nothing for a moment.
pub(super) fn read_far(log: &mut dyn PlanLog) -> Result<History, Error> {
    let moment = ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_max_times(6);
    (|| read(log)).retry(moment).when(may_pass).call()
}

fn may_pass(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    let said = source.get_ref().and_then(|source| source.downcast_ref::<kafka::Error>());
    !matches!(said, Some(kafka::Error::Denied { .. }))
}

/// The same for who asks again anyway: one that does not answer is an error at once.
pub(super) struct Impatient(pub(super) SharedLog);

impl PlanLog for Impatient {
    fn read(&mut self, from: u64) -> Result<Vec<(u64, Entry)>, Error> {
        self.0.lock().log.read(from)
    }

    fn put(&mut self, at: u64, entry: &Entry) -> Result<bool, Error> {
        self.0.lock().log.put(at, entry)
    }
}

impl PlanLog for SharedLog {
    fn read(&mut self, from: u64) -> Result<Vec<(u64, Entry)>, Error> {
        self.ask(|log| log.read(from))
    }

    fn put(&mut self, at: u64, entry: &Entry) -> Result<bool, Error> {
        self.ask(|log| log.put(at, entry))
    }
}

/// Bytes in a topic, of which this host keeps a copy.
#[derive(Debug)]
pub(super) struct Cached {
    cluster: Cluster,
    pipeline: String,
    copy: FileStore,
}

impl Cached {
    /// `copy` may be shared by processes, since nothing in it ever changes.
    pub(super) fn new(cluster: &Cluster, pipeline: &str, copy: FileStore) -> Self {
        Self { cluster: cluster.clone(), pipeline: pipeline.to_owned(), copy }
    }

    fn shared(&self) -> KafkaStore {
        KafkaStore::new(&self.cluster, &self.pipeline)
    }
}

impl Store for Cached {
    fn put(&self, bytes: &[u8]) -> Result<Arc<str>, Error> {
        self.shared().put(bytes)?;
        self.copy.put(bytes)
    }

    fn get(&self, digest: &str) -> Result<Vec<u8>, Error> {
        match self.copy.get(digest) {
            Err(Error::Store { .. }) => {
                let bytes = self.shared().get(digest)?;
                self.copy.put(&bytes)?;
                Ok(bytes)
            }
            found => found,
        }
    }

    fn file(&self, digest: &str) -> Result<PathBuf, Error> {
        self.get(digest)?;
        self.copy.file(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log without entries that answers after some questions.
    struct Silent(usize);

    impl PlanLog for Silent {
        fn read(&mut self, _: u64) -> Result<Vec<(u64, Entry)>, Error> {
            let what = "the plan log".to_owned();
            let silent = self.0.checked_sub(1).inspect(|left| self.0 = *left).is_some();
            match silent {
                true => Err(Error::Io { what, source: std::io::Error::other("no leader") }),
                false => Ok(Vec::new()),
            }
        }

        fn put(&mut self, _: u64, _: &Entry) -> Result<bool, Error> {
            unreachable!("it is only read")
        }
    }

    #[test]
    fn a_log_somewhere_else_that_does_not_answer_for_a_moment_is_read_all_the_same() {
        assert!(read_far(&mut Silent(2)).is_ok());
        assert!(read(&mut Silent(2)).is_err());
    }

    #[test]
    fn who_may_not_read_a_log_is_told_so_at_once() {
        let denied = kafka::Error::Denied { what: "reading".to_owned(), text: "no".to_owned() };
        let error = |source| Error::Io { what: "the plan log".to_owned(), source };
        assert!(!may_pass(&error(std::io::Error::other(denied))));
        assert!(may_pass(&error(std::io::Error::other("no leader"))));
    }
}
