//! Where rows go. A sink keeps its own position and stores it together with the rows; nothing else remembers
//! what was delivered.

pub mod back;
pub mod files;
pub mod json;
pub mod kafka;
pub mod memory;
pub mod postgres;
pub mod sqlite;
pub mod state;
pub mod table;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::buffer::{BooleanBuffer, ScalarBuffer};

use crate::batch::{Headers, VarBytes};
use crate::offset::{OffsetRange, TopicPartition};
use crate::origin::Origin;
use state::{Claim, Commit, Counters, Fingerprint, PlanRef, Refused, SinkState};

/// A place that takes rows and remembers, per input partition, which it has.
///
/// A sink belongs to one thread and blocks it; the pipeline gives each sink a thread of its own. All methods are
/// about one partition; several can be open at once.
///
/// | after a crash … | `write` returned | `commit` returned `Done` | `commit` was cut short, or said `Unknown` |
/// |---|---|---|---|
/// | are the rows visible? | no | all of them | all or none |
/// | the state says | what it said before | the range's end | whichever is true of the rows |
///
/// An error leaves what was staged for the partition undefined: the caller calls [`Sink::release`], claims again
/// and reads the input again from where the sinks stand.
pub trait Sink: Send {
    /// Takes the partition over: fences every lower epoch, finishes what a predecessor left half visible, and
    /// tells where this sink stands.
    ///
    /// # Errors
    /// [`Error::Conflict`] where a higher epoch owns it; [`Error::Permanent`] where the state is another
    /// group's, another topic's or another file's, or is missing although it must exist.
    fn claim(&mut self, claim: &Claim) -> Result<SinkState, Error>;

    /// As [`Self::claim`], for several partitions, in one step where the sink can: each has an answer of its own, in the
    /// order given. Here: one after the other.
    fn claim_together(&mut self, claims: &[Claim]) -> Vec<Result<SinkState, Error>> {
        claims.iter().map(|claim| self.claim(claim)).collect()
    }

    /// Stages rows. Nothing becomes visible. Batches of a partition come in offset order and touch.
    ///
    /// Returns how much is staged for the partition now.
    fn write(&mut self, rows: RoutedBatch) -> Result<Staged, Error>;

    /// Makes all that is staged for the partition visible together with its new position, or nothing.
    ///
    /// `commit.range` covers exactly what was written since the last commit.
    fn commit(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Committed, Error>;

    /// As [`Self::commit`], for several partitions, in one step where the sink can: each has an answer of its own, in
    /// the order given. Here: one after the other.
    fn commit_together(&mut self, commits: &[(TopicPartition, Commit)]) -> Vec<Result<Committed, Error>> {
        commits.iter().map(|(at, commit)| self.commit(at, commit)).collect()
    }

    /// Whether a commit of many partitions costs hardly more than that of one: then all are committed that have
    /// something staged as soon as one is due, and the limits are for what is staged over all of them.
    fn prefers_together(&self) -> bool {
        false
    }

    /// Answers, after [`Committed::Unknown`], whether that commit happened. If it did not, what was staged still
    /// is, and the *same* commit may be tried again.
    fn resolve(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Resolved, Error>;

    /// Forgets the partition and what was staged for it. Never fails and never touches anything durable that
    /// another owner could need.
    fn release(&mut self, at: &TopicPartition);
}

/// How a commit ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Committed {
    /// The rows are visible and the position has moved.
    Done,
    /// The answer was lost; the text says how. Only [`Sink::resolve`] can tell.
    Unknown(String),
}

/// What became of a commit whose answer was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolved {
    /// It happened.
    Committed,
    /// It did not, and cannot any more unless it is tried again.
    NotCommitted,
}

/// What waits for the next commit of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Staged {
    /// Rows over all targets.
    pub rows: u64,
    /// Bytes, as they will be stored.
    pub bytes: u64,
    /// The sink wants a commit rather than more rows, such as when it has many files open.
    pub full: bool,
}

/// The rows of one batch for one sink, without those the sink already has.
#[derive(Clone, Debug)]
pub struct RoutedBatch {
    /// Where the records came from.
    pub at: TopicPartition,
    /// The offsets it accounts for; starts where the last one ended.
    pub range: OffsetRange,
    /// The plan that made the rows.
    pub plan: PlanRef,
    /// What became of the range's records.
    pub counters: Counters,
    /// The last record of the range, if it has one.
    pub last: Option<Fingerprint>,
    /// See [`Commit::told`].
    pub told: u64,
    /// The rows. Parts of one target are in offset order.
    pub parts: Vec<Part>,
}

/// Rows for one target of a sink, in offset order.
#[derive(Clone, Debug)]
pub struct Part {
    /// Within the sink: a directory, a table, a topic.
    pub target: Arc<str>,
    /// The route they came by, or [`crate::route::DEAD_LETTERS`].
    pub route: Arc<str>,
    /// The declared columns, without provenance.
    pub rows: RecordBatch,
    /// Per row, the offset of the record it was made from.
    pub offsets: ScalarBuffer<i64>,
    /// Per row, where its record came first, in a batch of the replay input: what is said of the row is that. The offset
    /// is the one by which the sink knows how far it is. Absent: both are the same.
    pub origins: Option<Vec<Origin>>,
    /// Per row, its number among all rows of its record, over the routes in the order declared, from 0.
    pub index: ScalarBuffer<i32>,
    /// Per row, the time of its record in milliseconds since 1970-01-01T00:00:00Z; -1 where it has none.
    pub timestamps: ScalarBuffer<i64>,
    /// Per row, for sinks that have keys: the one that the transform set, else that of the record. Absent: no row has
    /// one.
    pub keys: Option<VarBytes>,
    /// Per row, for sinks that have headers: those that the transform set, else those of the record. Absent: no row
    /// has any.
    pub headers: Option<Headers>,
    /// Which rows delete what has their key. Absent: none does.
    pub deletes: Option<BooleanBuffer>,
}

impl Part {
    /// From where to where a row comes, as is said of it: the partition in which its record came first, and its offset there.
    /// `at` is the partition that was read.
    pub(super) fn coordinates<'a>(&'a self, at: &'a TopicPartition, row: usize) -> (&'a TopicPartition, i64) {
        match &self.origins {
            None => (at, self.offsets[row]),
            Some(origins) => (&origins[row].at, origins[row].offset.get()),
        }
    }

    /// How often the record of a row was sent through again; 0 where it never was.
    pub(super) fn attempt(&self, row: usize) -> u16 {
        self.origins.as_ref().map_or(0, |origins| origins[row].attempt)
    }
}

/// A number that a sink counts up and others look at.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// Why a sink did not do what it was asked, split by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Try again later: the disk is full, the server does not answer.
    #[error("{0}")]
    Transient(Problem),
    /// Step back: somebody else owns the partition.
    #[error("{0}")]
    Conflict(Refused),
    /// Stop the partition: trying again will not help.
    #[error("{0}")]
    Permanent(Problem),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Fenced { .. } | Refused::WentBack { .. } => Self::Conflict(refused),
            other => {
                let hint = other.hint().map(str::to_owned);
                Self::Permanent(Problem { hint, ..Problem::new(other.to_string()) })
            }
        }
    }
}

/// One error for several partitions.
pub(super) struct Repeated {
    first: Option<Error>,
    permanent: bool,
    text: String,
    hint: Option<String>,
}

impl Repeated {
    pub(super) fn new(error: Error) -> Self {
        let (permanent, hint) = match &error {
            Error::Permanent(problem) => (true, problem.hint.clone()),
            Error::Transient(problem) => (false, problem.hint.clone()),
            Error::Conflict(_) => (false, None),
        };
        Self { permanent, text: error.to_string(), hint, first: Some(error) }
    }

    pub(super) fn next(&mut self) -> Error {
        let problem = Problem { text: self.text.clone(), hint: self.hint.clone(), source: None };
        self.first.take().unwrap_or(match self.permanent {
            true => Error::Permanent(problem),
            false => Error::Transient(problem),
        })
    }
}

/// What was tried on what, why it failed, and what a person can do.
#[derive(Debug)]
pub struct Problem {
    /// Lower case, no period.
    pub text: String,
    /// What to do about it, if a person can.
    pub hint: Option<String>,
    /// What lies below.
    pub source: Option<std::io::Error>,
}

impl Problem {
    /// A problem without a cause below.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, source: None }
    }

    /// Adds what a person can do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds the cause.
    pub fn source(self, source: std::io::Error) -> Self {
        Self { source: Some(source), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod conformance;
