//! Rows as records of Kafka topics, exactly once: rows, rejects, the position and, where the records came from Kafka, the
//! offsets of their group become visible in one transaction. A target is a topic.
//!
//! ```text
//! weir.<pipeline>.progress   per sink, topic and partition: the SinkState; the last record of a key counts
//! weir.<pipeline>.rejects    rows that their topic refuses for what is in them, with the reason
//! <topic>                    the rows, with where each came from in its headers
//! ```
//!
//! What is staged waits in memory, encoded. A commit is one transaction over all partitions that have something staged;
//! between two calls of the sink none is open, so that to release a partition is to drop memory.
//!
//! Who may commit is decided in one of two ways:
//!
//! | the records come | the name of the transactions | who was overtaken is fenced by |
//! |---|---|---|
//! | from Kafka | `weir.<pipeline>.<random>` | the group: its offsets move in the transaction, for members alone |
//! | from files | `weir.<pipeline>.<sink>` | the name: who begins under it fences who did before |
//!
//! A claim reads the progress topic to its end, holds what it finds against the laws, and writes it back with its own
//! epoch, in a transaction of that kind. So no commit of a lower epoch can follow: the group, or the name, has moved on.
//! Whoever begins under the name has to read on before anything else, since what it knew may not be true any more.

mod attempt;
mod back;
mod claim;
mod progress;
mod reject;
mod staging;
mod topics;
mod transaction;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::state::{Claim, Commit, Epoch, Nonce, Refused, SinkState};
use super::{Committed, Count, Error, Problem, Repeated, Resolved, RoutedBatch, Sink, Staged};
use crate::kafka::group::{GroupOffsets, Membership};
use crate::kafka::produce::Compression;
use crate::kafka::transactions::{Settings, Transactions};
use crate::kafka::{self, Cluster};
use crate::offset::{Offset, OffsetRange, TopicPartition};
use attempt::Tries;
pub use back::KafkaReader;
use progress::Progress;
use staging::Staging;
use topics::Topics;

/// Every place at which a test can stop this sink, in the order in which a claim, and then a commit, comes by.
pub const FAILPOINTS: [&str; 8] = [
    "kafka.after_renewal",
    "kafka.before_begin",
    "kafka.after_begin",
    "kafka.after_rows",
    "kafka.after_progress",
    "kafka.after_offsets",
    "kafka.before_commit",
    "kafka.after_commit",
];

/// What a Kafka sink is told.
#[derive(Clone)]
pub struct KafkaConfig {
    /// Where the topics are.
    pub cluster: Cluster,
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The sink's name in the pipeline.
    pub sink: Arc<str>,
    /// The group that the records are read in, `weir.<pipeline>`, where they come from topics of the same cluster; absent
    /// where they come from files.
    pub member: Option<Arc<dyn Membership>>,
    /// Whether each row says in the header `weir-origin` from which record it comes: its topic, partition and offset, the
    /// number of the row among those of the record, and the plan, as `customers-raw/3/1042/0/7`; and in `weir-attempt` how
    /// often that was sent through again, if it was. Dead letters and rejects always do.
    pub provenance: bool,
    /// Whether topics are made that are not there. Those of Weir's own always are.
    pub create: bool,
    /// How records are packed.
    pub compression: Compression,
    /// The topics of targets that have another name.
    pub topics: BTreeMap<Arc<str>, String>,
    /// After so long the cluster gives up the transaction of a process that stands still or is gone; whoever takes over
    /// waits for that.
    pub transaction_timeout: Duration,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pipeline, sink, grouped) = (&self.pipeline, &self.sink, self.member.is_some());
        f.debug_struct("KafkaConfig")
            .field("cluster", &self.cluster)
            .field("pipeline", pipeline)
            .field("sink", sink)
            .field("grouped", &grouped)
            .finish_non_exhaustive()
    }
}

impl KafkaConfig {
    /// Records from files, to topics that are made where they are missing, with provenance.
    pub fn new(cluster: Cluster, pipeline: impl Into<Arc<str>>, sink: impl Into<Arc<str>>) -> Self {
        Self {
            cluster,
            pipeline: pipeline.into(),
            sink: sink.into(),
            member: None,
            provenance: true,
            create: true,
            compression: Compression::Lz4,
            topics: BTreeMap::new(),
            transaction_timeout: Duration::from_secs(10),
        }
    }
}

/// What happened to a sink since it was opened.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rows that went to `weir.<pipeline>.rejects`.
    pub rejected: Count,
}

/// The group whose offsets move with the rows.
struct Group {
    offsets: GroupOffsets,
    member: Arc<dyn Membership>,
}

/// A sink that writes to Kafka topics.
pub struct KafkaSink {
    config: KafkaConfig,
    /// What transactions are begun under.
    id: String,
    group: Option<Group>,
    topics: Topics,
    progress: Progress,
    transactions: Transactions,
    /// How the producer that is there was set up.
    begun_with: Option<Settings>,
    owned: BTreeMap<TopicPartition, Owned>,
    tally: Arc<Tally>,
}

/// A claimed partition.
struct Owned {
    epoch: Epoch,
    owner: Nonce,
    next: Offset,
    /// Behind what was written.
    end: Offset,
    staging: Staging,
    /// Rows that a commit would refuse whose answer was lost.
    in_doubt: u64,
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owned: Vec<_> = self.owned.keys().collect();
        f.debug_struct("KafkaSink")
            .field("config", &self.config)
            .field("owned", &owned)
            .finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Reaches the cluster, and makes the topics for positions and rejects where they are missing.
    ///
    /// # Errors
    /// [`Error::Transient`] where the cluster cannot be reached or refuses.
    pub fn open(config: KafkaConfig) -> Result<Self, Error> {
        let (cluster, pipeline) = (&config.cluster, &config.pipeline);
        let topic = |name: &str| format!("weir.{pipeline}.{name}");
        let progress = Progress::open(cluster, &topic("progress"), &config.sink)?;
        let topics = Topics::open(cluster, config.create, config.topics.clone(), &topic("rejects"))?;
        transactions_may_last(cluster, &topic("progress"), config.transaction_timeout)?;
        let group = match &config.member {
            Some(member) => {
                let offsets = GroupOffsets::new(cluster, &format!("weir.{pipeline}")).map_err(of_cluster)?;
                Some(Group { offsets, member: member.clone() })
            }
            None => None,
        };
        let id = match &group {
            Some(_) => topic(&Nonce::random().to_string()),
            None => topic(&config.sink),
        };
        let transactions = Transactions::new(cluster);
        let (begun_with, owned, tally) = (None, BTreeMap::new(), Arc::default());
        Ok(Self { config, id, group, topics, progress, transactions, begun_with, owned, tally })
    }

    /// Makes the topic of a target, or looks at the one that is there. Without it the first row does.
    ///
    /// # Errors
    /// [`Error::Permanent`] with what makes one that is missing and may not be made here.
    pub fn prepare(&mut self, target: &Arc<str>) -> Result<(), Error> {
        self.topics.find(target).map(drop)
    }

    /// What happened so far; it goes on counting.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    fn settings(&self) -> Settings {
        /// What the client takes at most, and what makes batches no smaller.
        const MOST: usize = 1_000_000_000;
        const BATCH: usize = 1_000_000;
        let (least, most) = self.topics.extremes();
        Settings {
            id: self.id.clone(),
            timeout: self.config.transaction_timeout,
            compression: self.config.compression,
            batch_bytes: least.clamp(1, BATCH),
            record_bytes: most.clamp(1_000, MOST),
        }
    }

    /// Whether there is a producer over which nothing hangs, and that sends what the topics take; and it is known where the sink
    /// stands.
    fn is_fit(&mut self) -> bool {
        self.progress.is_whole()
            && self.transactions.is_fit()
            && self.begun_with.as_ref() == Some(&self.settings())
    }

    /// Begins under the name anew, and finds out where the sink stands since.
    fn renew(&mut self) -> Result<(), Error> {
        let settings = self.settings();
        self.transactions.renew(&settings).map_err(of_cluster)?;
        self.begun_with = Some(settings);
        fail::fail_point!("kafka.after_renewal");
        self.progress.read_on()
    }
}

impl Owned {
    fn new(claim: &Claim, next: Offset) -> Self {
        let (epoch, owner) = (claim.epoch, claim.owner);
        Self { epoch, owner, next, end: next, staging: Staging::default(), in_doubt: 0 }
    }

    fn check_range(&self, commit: &Commit) -> Result<(), Error> {
        let written = OffsetRange::new(self.next, self.end);
        if written.is_empty() || written == commit.range {
            return Ok(());
        }
        Err(Error::Permanent(Problem::new(format!("{written} was written, {} is committed", commit.range))))
    }

    fn move_on(&mut self, commit: &Commit) {
        self.staging = self.staging.next();
        (self.next, self.end) = (commit.range.end, commit.range.end);
    }
}

impl Sink for KafkaSink {
    fn claim(&mut self, claim: &Claim) -> Result<SinkState, Error> {
        let mut ended = self.claim_together(std::slice::from_ref(claim));
        ended.pop().expect("every claim has an answer")
    }

    fn claim_together(&mut self, claims: &[Claim]) -> Vec<Result<SinkState, Error>> {
        claims.iter().for_each(|claim| self.release(&claim.at));
        together(claims.len(), |answers, tries| self.claim_once(claims, answers, tries))
    }

    fn write(&mut self, rows: RoutedBatch) -> Result<Staged, Error> {
        let provenance = self.config.provenance;
        let owned = self.owned.get_mut(&rows.at).ok_or_else(|| not_claimed(&rows.at))?;
        if rows.range.start != owned.end {
            return Err(Refused::NotNext { range: rows.range, next: owned.end }.into());
        }
        for part in rows.parts.iter().filter(|part| part.rows.num_rows() > 0) {
            owned.staging.add(part, self.topics.find(&part.target)?, &rows.plan, provenance)?;
        }
        owned.end = rows.range.end;
        Ok(Staged { rows: owned.staging.n_rows(), bytes: owned.staging.n_bytes(), full: false })
    }

    fn commit(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Committed, Error> {
        let mut ended = self.commit_together(&[(at.clone(), commit.clone())]);
        ended.pop().expect("every commit has an answer")
    }

    fn commit_together(&mut self, commits: &[(TopicPartition, Commit)]) -> Vec<Result<Committed, Error>> {
        together(commits.len(), |answers, tries| self.commit_once(commits, answers, tries))
    }

    fn prefers_together(&self) -> bool {
        true
    }

    /// Whoever begins under the name ends what was in doubt; then the record of the position tells.
    fn resolve(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Resolved, Error> {
        if !self.is_fit() {
            self.renew()?;
        }
        let resolved = self.resolved(at, commit)?;
        if resolved == Resolved::Committed {
            self.done(at, commit);
        }
        Ok(resolved)
    }

    fn release(&mut self, at: &TopicPartition) {
        self.owned.remove(at);
    }
}

/// Attempts until each of `n` has an answer, or none that is left will get one.
fn together<T>(
    n: usize,
    mut attempt: impl FnMut(&mut [Option<Result<T, Error>>], &mut Tries) -> Result<bool, Error>,
) -> Vec<Result<T, Error>> {
    let mut answers: Vec<_> = (0..n).map(|_| None).collect();
    let mut tries = Tries::new();
    let failed = loop {
        match attempt(&mut answers, &mut tries) {
            Ok(true) => break None,
            Ok(false) => {}
            Err(error) => break Some(error),
        }
    };
    let mut failed = failed.map(Repeated::new);
    let answer = |answer: Option<_>| {
        answer.unwrap_or_else(|| Err(failed.as_mut().expect("all are answered, or none is").next()))
    };
    answers.into_iter().map(answer).collect()
}

fn not_claimed(at: &TopicPartition) -> Error {
    Error::Permanent(Problem::new(format!("{at} is not claimed")))
}

/// Whether the cluster lets transactions last as long as ours may, as far as we may know.
fn transactions_may_last(cluster: &Cluster, topic: &str, ours: Duration) -> Result<(), Error> {
    let Some(most) = cluster.longest_transaction(topic).filter(|most| *most < ours) else {
        return Ok(());
    };
    let (ours, most) = (ours.as_millis(), most.as_millis());
    let text = format!(
        "transactions may last {ours} ms, and the cluster allows {most} ms (transaction.max.timeout.ms of its brokers)"
    );
    Err(Error::Permanent(Problem::new(text).hint(format!("raise it there to at least {ours}"))))
}

/// A cluster that refuses is asked again: rights are given, and topics are made, while a pipeline waits.
fn of_cluster(error: kafka::Error) -> Error {
    let problem = Problem::new(error.to_string());
    match error {
        kafka::Error::Property { .. } => Error::Permanent(problem),
        kafka::Error::TooOld { .. } => Error::Permanent(Problem { hint: error.hint(), ..problem }),
        kafka::Error::Denied { .. } => {
            let text = format!("E_SINK_DENIED: {error}");
            Error::Transient(Problem { hint: error.hint(), ..Problem::new(text) })
        }
        kafka::Error::Refused { .. } => Error::Transient(problem),
        kafka::Error::NoTopic { .. } => Error::Transient(problem.hint("somebody deleted it: make it again")),
        kafka::Error::TransactionOpen { .. } | kafka::Error::Unreachable { .. } => {
            Error::Transient(Problem { hint: error.hint(), ..problem })
        }
    }
}

#[cfg(test)]
mod tests;
