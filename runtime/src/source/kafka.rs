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
use crate::kafka::topics::Bounds;
use crate::kafka::{self, Cluster};
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::{Epoch, Fingerprint, Start};
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
    /// The replay input, whose records are envelopes; read as well from when it is there.
    pub replay: Arc<str>,
    /// Of the group, as far as it is known: see [`Incarnation`].
    pub incarnation: u32,
    /// Records in a batch, at most.
    pub batch_records: usize,
    /// Bytes in a batch, about, at most; a single record may be larger.
    pub batch_bytes: usize,
    /// Whether it ends where the partitions end, or goes on.
    pub once: bool,
}

/// How often it says how far what it reads goes.
const SAY_ENDS: Duration = Duration::from_secs(1);

/// For what is to be read to gather since partitions were begun last: for each step the client goes through all that it reads, and
/// sinks may claim the partitions of a topic, thousands of them, one after the other.
const GATHER: Duration = Duration::from_millis(50);

/// What says where each of some partitions of a topic begins in a sink that has no state of it: the same for every sink and
/// every process, for good, because it is written down before it is said. It is told the topic's id.
pub type Starts = Box<dyn FnMut(&[TopicPartition], &Arc<str>) -> Result<Vec<Start>, Error> + Send>;

/// Says how often the generations of the group began again, as it is written down for all processes; raised first to what is
/// given, where that is higher.
pub type Incarnation = Box<dyn FnMut(Option<u32>) -> Result<u32, Error> + Send>;

/// See the module.
pub struct KafkaSource {
    settings: KafkaSettings,
    cluster: Cluster,
    member: Member,
    budget: Budget,
    starts: Starts,
    incarnation: Incarnation,
    doubt: Option<Doubt>,
    /// What was found out and not said yet.
    to_say: VecDeque<SourceEvent>,
    /// Ours, but not said to be: what has to be known of them is not.
    unknown: Vec<(TopicPartition, u64)>,
    ask_again: Option<Instant>,
    ends_said: Option<Instant>,
    /// Ours, and said to be.
    ours: BTreeMap<TopicPartition, State>,
    /// Those of them that are to be read, and are not yet.
    asked: BTreeSet<TopicPartition>,
    /// How many of them are begun at once: fewer after they could not be begun together.
    together: usize,
    /// When some were begun last.
    begun: Option<Instant>,
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
    Asked(Wanted),
    Reading(Reading),
    /// Not to be read for now.
    Held,
    /// Read up to where it ended by a source that does not go on, or given up by the pipeline.
    Done,
}

/// To be read as this run, from there on, behind this record.
#[derive(Clone, Debug)]
struct Wanted {
    run: RunId,
    from: Offset,
    last: Option<Fingerprint>,
}

#[derive(Debug)]
struct Reading {
    run: RunId,
    next: Offset,
    /// Read before `next`, and not delivered: what the sinks have it for.
    last: Option<Fingerprint>,
    /// Where it ended when it was begun.
    end: Offset,
    /// Where it was last said to end.
    said: Offset,
}

/// A sink refused a claim under an epoch that the group gave us. In a group that lives, whoever joins after that is given a
/// higher generation than any that a sink has seen; in one that was forgotten and began again, maybe not.
struct Doubt {
    /// What the sink has.
    held: Epoch,
    /// The group was left since, so what it gives us next comes of joining it anew.
    left: bool,
}

/// What a partition had.
struct Filled {
    at: TopicPartition,
    builder: BatchBuilder,
    /// The offset behind all of it, with what is no record.
    up_to: Offset,
    /// Nothing more of it is read.
    ends: bool,
    /// Why it cannot be read on from there.
    broken: Option<Broken>,
}

impl KafkaSource {
    /// A source that joins its group when it is first asked for something. `starts` is asked for every partition that
    /// becomes ours, `incarnation` where sinks refuse what the group gave us.
    ///
    /// # Errors
    /// Those of [`Member::new`].
    pub fn new(
        cluster: &Cluster,
        settings: KafkaSettings,
        budget: Budget,
        starts: Starts,
        incarnation: Incarnation,
    ) -> Result<Self, kafka::Error> {
        let member = Member::new(cluster, &settings.group)?;
        Ok(Self {
            settings,
            cluster: cluster.clone(),
            member,
            budget,
            starts,
            incarnation,
            doubt: None,
            to_say: VecDeque::new(),
            unknown: Vec::new(),
            ask_again: None,
            ends_said: None,
            ours: BTreeMap::new(),
            asked: BTreeSet::new(),
            together: usize::MAX,
            begun: None,
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
        match self.member.join(&topics, Some(&self.settings.replay)) {
            Ok(()) => self.joined = true,
            Err(error) => tracing::warn!(%error, "the group of Kafka"),
        }
    }

    /// Joins the group; where there is doubt about what it says, leaves it before that, once nothing is under way any more.
    fn join_or_leave(&mut self) {
        let Some(doubt) = self.doubt.as_mut().filter(|doubt| !doubt.left) else {
            if !self.joined {
                self.join();
            }
            return;
        };
        if self.joined {
            if self.ours.is_empty() {
                self.member.leave();
                self.joined = false;
            }
        } else if self.member.has_nothing() {
            doubt.left = true;
            self.join();
        }
    }

    fn hear(&mut self) {
        self.join_or_leave();
        match self.member.told() {
            Some(Told::Assigned { generation, partitions }) => self.assigned(generation, partitions),
            Some(Told::Revoked(partitions)) => self.revoked(partitions),
            Some(Told::Lost(partitions)) => self.lost(&partitions),
            Some(Told::Trouble(error)) => {
                let error = Error::from(error);
                tracing::warn!(hint = error.hint(), %error, "the group of Kafka");
            }
            None => {}
        }
    }

    fn assigned(&mut self, generation: u64, partitions: Vec<TopicPartition>) {
        tracing::info!(generation, n = partitions.len(), "the group gave us partitions");
        // It is about to be left: then they are wanted back.
        if self.doubt.as_ref().is_some_and(|doubt| !doubt.left) {
            return;
        }
        self.heard = true;
        self.said_exhausted = false;
        if let Some(Doubt { held, .. }) = self.doubt.take()
            && let Err(error) = self.find_incarnation(held, generation)
        {
            for at in partitions {
                self.ours.insert(at.clone(), State::Done);
                self.to_say.push_back(SourceEvent::Failed { at, error: same(&error) });
            }
            return;
        }
        self.unknown.extend(partitions.into_iter().map(|at| (at, generation)));
        self.ask_again = None;
    }

    /// The group gave us `generation` after a sink had been claimed under `held`.
    fn find_incarnation(&mut self, held: Epoch, generation: u64) -> Result<(), Error> {
        let ours = self.settings.incarnation;
        let began_again = held.incarnation == ours && generation <= held.generation;
        match (self.incarnation)(began_again.then(|| ours + 1)) {
            Ok(now) if now < held.incarnation => {
                return Err(Error::Input {
                    text: format!(
                        "E_STALE_GENERATION: a sink was claimed in incarnation {} of the group, and the plan log knows {now}",
                        held.incarnation
                    ),
                    hint: Some("the plan log is older than the sinks: restore its topic".to_owned()),
                });
            }
            Ok(now) if now == ours => {}
            Ok(now) => {
                let Epoch { generation: held, .. } = held;
                tracing::warn!(
                    group = &*self.settings.group,
                    generation,
                    held,
                    incarnation = now,
                    "E_STALE_GENERATION: the group was forgotten or deleted, and its generations began again: going on in \
                     another incarnation of it"
                );
                self.settings.incarnation = now;
            }
            // Then the next claim is refused as well, and it is looked at again.
            Err(error) => tracing::warn!(%error, "the incarnation of the group"),
        }
        Ok(())
    }

    fn revoked(&mut self, partitions: Vec<TopicPartition>) {
        tracing::info!(n = partitions.len(), "the group wants partitions back");
        for at in partitions {
            self.unknown.retain(|(unknown, _)| *unknown != at);
            if self.ours.contains_key(&at) {
                if self.going.insert(at.clone()) {
                    self.to_say.push_back(SourceEvent::Revoked(at));
                }
            } else {
                // Nobody was told that it is ours.
                self.member.let_go(&at);
            }
        }
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        tracing::warn!(n = partitions.len(), "the group went on without us");
        // It will say again what is ours.
        self.heard = false;
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
        let mut of_topics: BTreeMap<Arc<str>, Vec<(TopicPartition, u64)>> = BTreeMap::new();
        for (at, generation) in std::mem::take(&mut self.unknown) {
            of_topics.entry(at.topic.clone()).or_default().push((at, generation));
        }
        for (topic, partitions) in of_topics {
            match self.assignments(&topic, &partitions) {
                Ok(assignments) => {
                    let ours = assignments.iter().map(|ours| (ours.at.clone(), State::Assigned));
                    self.ours.extend(ours);
                    self.to_say.push_back(SourceEvent::Assigned(assignments));
                }
                Err(Error::Unreachable { text, hint }) => {
                    tracing::warn!(%topic, hint, error = text, "ours, but not begun: asking again");
                    self.unknown.extend(partitions);
                    self.ask_again = Some(Instant::now() + ASK_AGAIN);
                }
                Err(error) => {
                    for (at, _) in partitions {
                        self.ours.insert(at.clone(), State::Done);
                        self.to_say.push_back(SourceEvent::Failed { at, error: same(&error) });
                    }
                }
            }
        }
    }

    /// What is to be known of partitions of one topic, each with the generation in which it came.
    fn assignments(
        &mut self,
        topic: &Arc<str>,
        partitions: &[(TopicPartition, u64)],
    ) -> Result<Vec<Assignment>, Error> {
        let topic_id: Arc<str> = self.cluster.topic_id(topic)?.into();
        let all: Vec<_> = partitions.iter().map(|(at, _)| at.clone()).collect();
        let starts = (self.starts)(&all, &topic_id)?;
        let assignment = |((at, generation), start): (&(TopicPartition, u64), Start)| Assignment {
            at: at.clone(),
            topic_id: topic_id.clone(),
            group: self.settings.group.clone(),
            epoch: Epoch { incarnation: self.settings.incarnation, generation: *generation },
            start,
            input: None,
        };
        Ok(partitions.iter().zip(starts).map(assignment).collect())
    }

    /// Where partitions end that did not end there when it was last said.
    #[expect(clippy::disallowed_methods, reason = "when to look is no decision about a record")]
    fn ends(&mut self) -> Option<SourceEvent> {
        let now = Instant::now();
        if self.ends_said.is_some_and(|at| now.duration_since(at) < SAY_ENDS) {
            return None;
        }
        self.ends_said = Some(now);
        let mut ends = Vec::new();
        for (at, state) in &mut self.ours {
            let State::Reading(reading) = state else { continue };
            let end = self.member.end_seen(at).unwrap_or(reading.end).max(reading.end);
            if end != std::mem::replace(&mut reading.said, end) {
                ends.push((at.clone(), end));
            }
        }
        (!ends.is_empty()).then_some(SourceEvent::Seen(ends))
    }

    /// Changes the state of a partition that is ours; what was taken of it is forgotten.
    fn set(&mut self, at: &TopicPartition, to: State) {
        if let Some(state) = self.ours.get_mut(at) {
            *state = to;
        }
        self.filled.take_if(|filled| filled.at == *at);
    }

    /// Begins to read what is to be read, as much of it together as can be.
    #[expect(clippy::disallowed_methods, reason = "when to begin is no decision about a record")]
    fn begin(&mut self) {
        let is_early = || self.begun.is_some_and(|at| at.elapsed() < GATHER);
        if self.asked.is_empty() || self.asked.len() < self.together && is_early() {
            return;
        }
        let mut asked = Vec::new();
        while asked.len() < self.together
            && let Some(at) = self.asked.pop_first()
        {
            if let Some(State::Asked(wanted)) = self.ours.get(&at)
                && !self.going.contains(&at)
            {
                asked.push((at, wanted.clone()));
            }
        }
        let all: Vec<_> = asked.iter().map(|(at, ..)| at.clone()).collect();
        if all.is_empty() {
            return;
        }
        match self.member.bounds(&all) {
            // One that nobody leads must not keep the others.
            Err(error) if all.len() > 1 => {
                tracing::debug!(%error, n = all.len(), "not all of them together: half as many");
                self.together = all.len() / 2;
                self.asked.extend(all);
            }
            Err(error) => {
                let error = Error::from(error);
                all.iter().for_each(|at| self.cannot_begin(at, same(&error)));
            }
            Ok(bounds) => {
                self.together = self.together.saturating_mul(2);
                self.begin_within(asked, bounds);
            }
        }
        self.begun = Some(Instant::now());
    }

    /// Begins partitions, of each of which it is known from where to where it has records.
    fn begin_within(&mut self, asked: Vec<(TopicPartition, Wanted)>, bounds: Vec<Bounds>) {
        let mut places = Vec::new();
        for ((at, Wanted { run, from, last }), bounds) in asked.into_iter().zip(bounds) {
            match bounds.map_err(Error::from).and_then(|bounds| within(&at, from, bounds)) {
                Ok((first, end)) => {
                    // Retention may have taken it.
                    let last = last.filter(|last| first <= last.offset && last.offset < from);
                    places.push((at.clone(), last.as_ref().map_or(from, |last| last.offset)));
                    let reading = Reading { run, next: from, last, end, said: Offset::ZERO };
                    self.set(&at, State::Reading(reading));
                }
                Err(error) => self.cannot_begin(&at, error),
            }
        }
        for (at, error) in self.member.start(&places) {
            self.cannot_begin(&at, error.into());
        }
    }

    fn cannot_begin(&mut self, at: &TopicPartition, error: Error) {
        self.set(at, State::Held);
        self.to_say.push_back(SourceEvent::Failed { at: at.clone(), error });
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
        let Filled { at, builder, up_to, ends, broken } = filled;
        let Some(State::Reading(reading)) = self.ours.get_mut(&at) else { return None };
        reading.next = up_to;
        let run = reading.run;
        if ends {
            self.set(&at, State::Done);
            self.to_say.push_back(SourceEvent::End { run, at, end: up_to, for_good: false });
        } else if let Some(broken) = broken {
            // Behind the batch, since it is said after it.
            self.failed(&at, up_to, broken);
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
        builder.remember();
        if at.topic == self.settings.replay {
            builder.open_envelopes();
        }
        builder.reserve(self.last.0, self.last.1);
        let (records, bytes) = (self.settings.batch_records, self.settings.batch_bytes);
        let taken = self.member.take(at, &mut builder, reading.last.as_ref(), records, bytes);
        let end = reading.end;
        if let Some(broken) = taken.error {
            let up_to = builder.next();
            if builder.n_records() == 0 {
                self.failed(at, up_to, broken);
                return None;
            }
            return Some(Filled { at: at.clone(), builder, up_to, ends: false, broken: Some(broken) });
        }
        let up_to = taken.end.map_or(builder.next(), |end| end.max(builder.next()));
        let ends = self.settings.once && (taken.end.is_some() || up_to >= end);
        if builder.n_records() == 0 && !ends {
            return None;
        }
        self.last = (builder.n_records(), builder.bytes());
        Some(Filled { at: at.clone(), builder, up_to, ends, broken: None })
    }

    fn failed(&mut self, at: &TopicPartition, from: Offset, broken: Broken) {
        self.set(at, State::Held);
        self.member.stop(at);
        let error = match broken {
            Broken::Corrupt(text) => Error::Input {
                text: format!("E_INPUT_CORRUPT: {at} cannot be read from {from} on: {text}"),
                hint: Some("restore the partition from a replica".to_owned()),
            },
            Broken::Replaced(offset) => Error::Input {
                text: format!(
                    "E_TOPIC_REPLACED: the record of {at} at {offset} is not the one that the sinks have rows of"
                ),
                hint: Some(
                    "the topic lost records and got others, as by an unclean election of a leader: find out which, and \
                     restore it or read it with a pipeline of another name"
                        .to_owned(),
                ),
            },
            Broken::Denied(text) => kafka::Error::Denied { what: format!("reading {at}"), text }.into(),
            Broken::Other(text) => Error::Unreachable { text: format!("reading {at}: {text}"), hint: None },
        };
        self.to_say.push_back(SourceEvent::Failed { at: at.clone(), error });
    }

    /// Whether there is nothing left to read for a source that does not go on.
    fn is_exhausted(&self) -> bool {
        let done = |state: &State| matches!(state, State::Done);
        self.settings.once
            && self.heard
            && self.doubt.is_none()
            && self.unknown.is_empty()
            && self.ours.values().all(done)
    }
}

impl Source for KafkaSource {
    fn poll(&mut self) -> Poll {
        self.hear();
        self.find_out();
        self.begin();
        if let Some(event) = self.to_say.pop_front() {
            return Poll::Event(event);
        }
        if let Some(ends) = self.ends() {
            return Poll::Event(ends);
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

    fn read(&mut self, run: RunId, at: &TopicPartition, from: Offset, last: Option<Fingerprint>) {
        if !self.ours.contains_key(at) || self.going.contains(at) {
            return;
        }
        self.said_exhausted = false;
        self.set(at, State::Asked(Wanted { run, from, last }));
        self.asked.insert(at.clone());
    }

    fn hold(&mut self, at: &TopicPartition) {
        if !matches!(self.ours.get(at), Some(State::Done)) {
            self.set(at, State::Held);
        }
    }

    fn overtaken(&mut self, at: &TopicPartition, by: Epoch) {
        if let Some(doubt) = &mut self.doubt {
            doubt.held = doubt.held.max(by);
            return;
        }
        if !self.ours.contains_key(at) || self.going.contains(at) {
            return;
        }
        self.doubt = Some(Doubt { held: by, left: false });
        tracing::info!(%by, "refused by a sink: joining the group anew, to see who is right");
        self.unknown.clear();
        for at in self.ours.keys() {
            if self.going.insert(at.clone()) {
                self.to_say.push_back(SourceEvent::Revoked(at.clone()));
            }
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

/// What is said of several partitions is said of each.
fn same(error: &Error) -> Error {
    match error {
        Error::Input { text, hint } => Error::Input { text: text.clone(), hint: hint.clone() },
        Error::Unreachable { text, hint } => Error::Unreachable { text: text.clone(), hint: hint.clone() },
        Error::Io { what, source } => {
            let source = std::io::Error::new(source.kind(), source.to_string());
            Error::Io { what: what.clone(), source }
        }
    }
}

/// Where the records end of a partition that is read from `from` on, if all of them from there on are still there.
fn within(
    at: &TopicPartition,
    from: Offset,
    (first, end): (Offset, Offset),
) -> Result<(Offset, Offset), Error> {
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
    Ok((first, end))
}

impl From<kafka::Error> for Error {
    fn from(error: kafka::Error) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
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
