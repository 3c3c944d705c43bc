//! Topics of Kafka as a source: the group says which partitions are ours, the sinks from where they are read. It commits
//! no position, and never chooses one: a record that is not there any more stops its partition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::BatchBuilder;
use crate::budget::{Budget, Denied, Permit};
use crate::kafka::group::Membership;
use crate::kafka::member::{Broken, Member, Told};
use crate::kafka::{self, Cluster};
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::{Epoch, Start};
use crate::source::{Assignment, Error, Poll, RunId, Source, SourceEvent};

/// How long it waits for records before it looks whether it was told something.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long it waits before it asks again what could not be found out about partitions that are ours.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How a [`KafkaSource`] reads.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// The consumer group.
    pub group: Arc<str>,
    /// What is read.
    pub topics: Vec<Arc<str>>,
    /// Raised when the generations of the group began again.
    pub incarnation: u32,
    /// Records in a batch, at most.
    pub batch_records: usize,
    /// Bytes in a batch, about, at most; a single record may be larger.
    pub batch_bytes: usize,
    /// Whether it ends where the partitions end, or goes on.
    pub once: bool,
}

/// What says where a partition begins in a sink that has no state of it: the same for every sink and every process, for
/// good, because it is written down before it is said.
pub type Starts = Box<dyn FnMut(&TopicPartition, &Arc<str>) -> Result<Start, Error> + Send>;

/// See the module.
pub struct KafkaSource {
    settings: KafkaSettings,
    cluster: Cluster,
    member: Member,
    budget: Budget,
    starts: Starts,
    /// What was found out and not said yet.
    to_say: VecDeque<SourceEvent>,
    /// Ours, but not said to be: what has to be known of them is not.
    unknown: Vec<(TopicPartition, u64)>,
    ask_again: Option<Instant>,
    /// Ours, and said to be.
    ours: BTreeMap<TopicPartition, State>,
    /// Whose turn it was last.
    turn: Option<TopicPartition>,
    /// Asked back by the group, and not let go of yet.
    going: BTreeSet<TopicPartition>,
    /// A batch for which there was no room in the budget.
    filled: Option<Filled>,
    joined: bool,
    /// The group has said at least once what is ours.
    heard: bool,
    said_exhausted: bool,
    /// Records of the last batch, and its bytes: the next one is mostly like it.
    last: (usize, usize),
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    /// Said to be ours; it will be told from where it is read.
    Assigned,
    Reading(Reading),
    /// Not to be read for now.
    Held,
    /// Read up to where it ended by a source that does not go on, or given up by the pipeline.
    Done,
}

#[derive(Debug)]
struct Reading {
    run: RunId,
    next: Offset,
    /// Where it ended when it was begun.
    end: Offset,
}

/// What a partition had.
struct Filled {
    at: TopicPartition,
    builder: BatchBuilder,
    /// The offset behind all of it, with what is no record.
    up_to: Offset,
    /// Nothing more of it is read.
    ends: bool,
}

impl KafkaSource {
    /// A source that joins its group when it is first asked for something. `starts` is asked for every partition that
    /// becomes ours.
    ///
    /// # Errors
    /// Those of [`Member::new`].
    pub fn new(
        cluster: &Cluster,
        settings: KafkaSettings,
        budget: Budget,
        starts: Starts,
    ) -> Result<Self, kafka::Error> {
        let member = Member::new(cluster, &settings.group)?;
        Ok(Self {
            settings,
            cluster: cluster.clone(),
            member,
            budget,
            starts,
            to_say: VecDeque::new(),
            unknown: Vec::new(),
            ask_again: None,
            ours: BTreeMap::new(),
            turn: None,
            going: BTreeSet::new(),
            filled: None,
            joined: false,
            heard: false,
            said_exhausted: false,
            last: (0, 0),
        })
    }

    /// Who this process is in the group, for transactions that move its offsets.
    pub fn membership(&self) -> Arc<dyn Membership> {
        self.member.membership()
    }

    fn join(&mut self) {
        let topics: Vec<&str> = self.settings.topics.iter().map(|topic| &**topic).collect();
        match self.member.join(&topics) {
            Ok(()) => self.joined = true,
            Err(error) => tracing::warn!(%error, "the group of Kafka"),
        }
    }

    fn hear(&mut self) {
        if !self.joined {
            self.join();
        }
        match self.member.told() {
            Some(Told::Assigned { generation, partitions }) => {
                tracing::info!(generation, n = partitions.len(), "the group gave us partitions");
                self.heard = true;
                self.said_exhausted = false;
                self.unknown.extend(partitions.into_iter().map(|at| (at, generation)));
                self.ask_again = None;
            }
            Some(Told::Revoked(partitions)) => self.revoked(partitions),
            Some(Told::Lost(partitions)) => self.lost(&partitions),
            Some(Told::Trouble(error)) => {
                let error = Error::from(error);
                tracing::warn!(hint = error.hint(), %error, "the group of Kafka");
            }
            None => {}
        }
    }

    fn revoked(&mut self, partitions: Vec<TopicPartition>) {
        tracing::info!(n = partitions.len(), "the group wants partitions back");
        for at in partitions {
            self.unknown.retain(|(unknown, _)| *unknown != at);
            if self.ours.contains_key(&at) {
                self.going.insert(at.clone());
                self.to_say.push_back(SourceEvent::Revoked(at));
            } else {
                // Nobody was told that it is ours.
                self.member.let_go(&at);
            }
        }
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        tracing::warn!(n = partitions.len(), "the group went on without us");
        for at in partitions {
            self.unknown.retain(|(unknown, _)| unknown != at);
            self.set(at, State::Held);
            self.going.remove(at);
            if self.ours.remove(at).is_some() {
                self.to_say.push_back(SourceEvent::Lost(at.clone()));
            }
        }
    }

    /// Finds out what has to be known of partitions that are ours, and says so.
    #[expect(clippy::disallowed_methods, reason = "when to ask again is no decision about a record")]
    fn find_out(&mut self) {
        if self.unknown.is_empty() || self.ask_again.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.ask_again = None;
        let mut ids: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        for (at, generation) in std::mem::take(&mut self.unknown) {
            match self.assignment(&at, generation, &mut ids) {
                Ok(assignment) => {
                    self.ours.insert(at, State::Assigned);
                    self.to_say.push_back(SourceEvent::Assigned(assignment));
                }
                Err(error @ (Error::Input { .. } | Error::Io { .. })) => {
                    self.ours.insert(at.clone(), State::Done);
                    self.to_say.push_back(SourceEvent::Failed { at, error });
                }
                Err(error @ Error::Unreachable { .. }) => {
                    tracing::warn!(partition = %at, %error, "ours, but not begun: asking again");
                    self.unknown.push((at, generation));
                    self.ask_again = Some(Instant::now() + ASK_AGAIN);
                }
            }
        }
    }

    fn assignment(
        &mut self,
        at: &TopicPartition,
        generation: u64,
        ids: &mut BTreeMap<Arc<str>, Arc<str>>,
    ) -> Result<Assignment, Error> {
        let topic_id = match ids.get(&at.topic) {
            Some(id) => id.clone(),
            None => {
                let id: Arc<str> = self.cluster.topic_id(&at.topic)?.into();
                ids.insert(at.topic.clone(), id.clone());
                id
            }
        };
        let start = (self.starts)(at, &topic_id)?;
        let epoch = Epoch { incarnation: self.settings.incarnation, generation };
        Ok(Assignment {
            at: at.clone(),
            topic_id,
            group: self.settings.group.clone(),
            epoch,
            start,
            input: None,
        })
    }

    /// Changes the state of a partition that is ours; what was taken of it is forgotten.
    fn set(&mut self, at: &TopicPartition, to: State) {
        if let Some(state) = self.ours.get_mut(at) {
            *state = to;
        }
        self.filled.take_if(|filled| filled.at == *at);
    }

    fn begin(&mut self, run: RunId, at: &TopicPartition, from: Offset) -> Result<Reading, Error> {
        let (first, end) = self.member.bounds(at)?;
        if from < first {
            let text = format!(
                "E_INPUT_GAP: the records [{from}, {first}) of {at} are gone, and not all sinks have them"
            );
            return Err(Error::Input { text, hint: Some("see to the retention of the topic".to_owned()) });
        }
        if from > end {
            let text = format!("E_INPUT_TRUNCATED: {at} ends at {end}, and the sinks have it up to {from}");
            let hint = "the topic lost records that were read: restore it, or find out what became of them";
            return Err(Error::Input { text, hint: Some(hint.to_owned()) });
        }
        self.member.start(at, from)?;
        Ok(Reading { run, next: from, end })
    }

    /// The next batch, of the partition whose turn it is, if there is one and there is room for it.
    fn next_batch(&mut self) -> Option<Poll> {
        if self.filled.is_none() {
            self.filled = self.fill_next();
        }
        let filled = self.filled.take()?;
        let permit = match self.budget.try_acquire(filled.builder.bytes()) {
            Ok(permit) => permit,
            Err(Denied::Full) => {
                self.filled = Some(filled);
                return None;
            }
            Err(Denied::Closed) => return Some(Poll::Closed),
        };
        self.hand_on(filled, permit)
    }

    fn hand_on(&mut self, filled: Filled, permit: Permit) -> Option<Poll> {
        let Filled { at, builder, up_to, ends } = filled;
        let Some(State::Reading(reading)) = self.ours.get_mut(&at) else { return None };
        reading.next = up_to;
        let run = reading.run;
        if ends {
            self.set(&at, State::Done);
            self.to_say.push_back(SourceEvent::End { run, at, end: up_to, for_good: false });
        }
        let batch = builder.finish(up_to, permit)?;
        Some(Poll::Event(SourceEvent::Batch { run, batch }))
    }

    /// What the next partition in turn has.
    fn fill_next(&mut self) -> Option<Filled> {
        for _ in 0..self.ours.len() {
            let at = self.after(self.turn.as_ref())?;
            self.turn = Some(at.clone());
            if let Some(filled) = self.fill(&at) {
                return Some(filled);
            }
        }
        None
    }

    fn after(&self, turn: Option<&TopicPartition>) -> Option<TopicPartition> {
        let behind = turn.and_then(|turn| self.ours.range((Excluded(turn), Unbounded)).next());
        behind.or_else(|| self.ours.first_key_value()).map(|(at, _)| at.clone())
    }

    fn fill(&mut self, at: &TopicPartition) -> Option<Filled> {
        let Some(State::Reading(reading)) = self.ours.get(at) else { return None };
        if !self.member.has_something(at) {
            return None;
        }
        let mut builder = BatchBuilder::new(at.clone(), reading.next);
        builder.reserve(self.last.0, self.last.1);
        let (records, bytes) = (self.settings.batch_records, self.settings.batch_bytes);
        let taken = self.member.take(at, &mut builder, records, bytes);
        let end = reading.end;
        if let Some(broken) = taken.error {
            let at_offset = builder.next();
            self.failed(at, at_offset, broken);
            return None;
        }
        let up_to = taken.end.map_or(builder.next(), |end| end.max(builder.next()));
        let ends = self.settings.once && (taken.end.is_some() || up_to >= end);
        if builder.n_records() == 0 && !ends {
            return None;
        }
        self.last = (builder.n_records(), builder.bytes());
        Some(Filled { at: at.clone(), builder, up_to, ends })
    }

    fn failed(&mut self, at: &TopicPartition, from: Offset, broken: Broken) {
        self.set(at, State::Held);
        let error = match broken {
            Broken::Corrupt(text) => Error::Input {
                text: format!("E_INPUT_CORRUPT: {at} cannot be read from {from} on: {text}"),
                hint: Some("restore the partition from a replica".to_owned()),
            },
            Broken::Denied(text) => kafka::Error::Denied { what: format!("reading {at}"), text }.into(),
            Broken::Other(text) => Error::Unreachable { text: format!("reading {at}: {text}"), hint: None },
        };
        self.to_say.push_back(SourceEvent::Failed { at: at.clone(), error });
    }

    /// Whether there is nothing left to read for a source that does not go on.
    fn is_exhausted(&self) -> bool {
        let done = |state: &State| matches!(state, State::Done);
        self.settings.once && self.heard && self.unknown.is_empty() && self.ours.values().all(done)
    }
}

impl Source for KafkaSource {
    fn poll(&mut self) -> Poll {
        self.hear();
        self.find_out();
        if let Some(event) = self.to_say.pop_front() {
            return Poll::Event(event);
        }
        if let Some(poll) = self.next_batch() {
            return poll;
        }
        if let Some(event) = self.to_say.pop_front() {
            return Poll::Event(event);
        }
        if self.is_exhausted() && !std::mem::replace(&mut self.said_exhausted, true) {
            return Poll::Event(SourceEvent::Exhausted);
        }
        self.member.wait(PATIENCE);
        Poll::Again
    }

    fn read(&mut self, run: RunId, at: &TopicPartition, from: Offset) {
        if !self.ours.contains_key(at) || self.going.contains(at) {
            return;
        }
        self.said_exhausted = false;
        match self.begin(run, at, from) {
            Ok(reading) => self.set(at, State::Reading(reading)),
            Err(error) => {
                self.set(at, State::Held);
                self.to_say.push_back(SourceEvent::Failed { at: at.clone(), error });
            }
        }
    }

    fn hold(&mut self, at: &TopicPartition) {
        if !matches!(self.ours.get(at), Some(State::Done)) {
            self.set(at, State::Held);
        }
    }

    fn forget(&mut self, at: &TopicPartition, _: bool) {
        self.set(at, State::Done);
        if self.going.remove(at) {
            self.ours.remove(at);
        }
        self.member.let_go(at);
    }
}

impl From<kafka::Error> for Error {
    fn from(error: kafka::Error) -> Self {
        let (text, hint) = (error.to_string(), error.hint().map(str::to_owned));
        match error {
            kafka::Error::TooOld { .. } => Self::Input { text, hint },
            kafka::Error::NoTopic { .. } => {
                let hint = Some("make it, or mend `topics` in [source.kafka]".to_owned());
                Self::Unreachable { text: format!("E_INPUT_TOPIC: {text}"), hint }
            }
            kafka::Error::Denied { .. } => {
                Self::Unreachable { text: format!("E_INPUT_DENIED: {text}"), hint }
            }
            _ => Self::Unreachable { text, hint },
        }
    }
}

#[cfg(test)]
mod tests;
