//! The loop: event, batch, call, route, write, commit. [`Core`] decides and does nothing; [`threads`] does and
//! decides nothing. So the decisions run in a simulation as they run in the product.
//!
//! ```text
//!  source ──batch──▶ workers (one instance each) ──▶ back into offset order ──▶ one writer per sink
//!     ▲                                                                              │
//!     └────────────────── resume at the least offset of all sinks ◀── claim, commit ─┘
//! ```

mod orders;
mod plans;
pub mod shadow;
pub mod status;
pub mod threads;
mod track;
pub mod trial;

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::sync::Arc;
use std::time::Duration;

use crate::commit::{Claimed, Report};
use crate::offset::{Offset, TopicPartition};
use crate::origin::replay_topic;
use crate::plan::{Adopted, By, Entry, History, InputPartition};
use crate::route::{Fate, Routed};
use crate::rule::Judging;
use crate::sink::state::{
    Claim, Commit, Counters, Cut, Epoch, Fingerprint, Nonce, PlanRef, Start, TargetCounters,
};
use crate::sink::{self, Part, RoutedBatch};
use crate::source::{self, Assignment, RunId, SourceEvent};

pub use orders::{Order, Refusal, What};
use plans::NotReady;
pub use track::Job;
use track::{End, Maker, NotKnown, OTHER_LOG, Phase, Track};
use trial::{TakenBack, Trials};

/// What a pipeline is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// This process.
    pub owner: Nonce,
    /// The names of the sinks, in the order of the pipeline's.
    pub sinks: Vec<Arc<str>>,
    /// A partition stops when the transform failed on so many records in a row.
    pub stop_after_consecutive: u64,
    /// The topic of files, whose partitions the plan log knows by their numbers alone; it names all others.
    pub file_topic: Option<Arc<str>>,
    /// A sink that fails for a reason that may pass is tried again so often per partition without any commit in
    /// between.
    pub max_attempts: u32,
    /// When a plan that was put while records flow is taken back by itself, if ever.
    pub rollback: Option<trial::Limits>,
    /// The plan that ran before the one that this process begins with, where that is on trial still.
    pub on_trial_after: Option<u64>,
}

/// Why a partition stopped. It keeps its position: a later run goes on where it stood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Stop {
    /// With the code first where there is one.
    pub text: String,
    /// What a person can do.
    pub hint: Option<String>,
    /// Whether something outside could not be reached, so that it may go well another time.
    pub outside: bool,
}

impl Stop {
    /// Stops for good, until somebody changes something.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, outside: false }
    }

    /// Adds what a person can do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// What happens to a pipeline.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per batch: a box would be an allocation more")]
pub enum Event {
    /// The source has something.
    Source(SourceEvent),
    /// A worker is through with a batch.
    Transformed {
        /// The partition.
        at: TopicPartition,
        /// Of which run.
        run: RunId,
        /// Of which job.
        seq: u64,
        /// What came out.
        result: Result<Routed, Stop>,
    },
    /// A worker looks for the guilty records of a batch that failed, and found another one.
    Judging {
        /// The partition.
        at: TopicPartition,
        /// Of which run.
        run: RunId,
        /// Of which job.
        seq: u64,
        /// How far it is.
        judging: Judging,
    },
    /// A worker did not find all guilty records of a batch, since it was told to give up.
    GivenUp {
        /// The partition.
        at: TopicPartition,
        /// Of which run.
        run: RunId,
        /// Of which job.
        seq: u64,
    },
    /// A sink's writer has something.
    Sink {
        /// Which, by its place among the sinks.
        sink: usize,
        /// What.
        report: Report,
    },
    /// This plan is the newest in the plan log now, and ready here.
    Plan {
        /// Which.
        plan: PlanRef,
        /// Whether it is taken back by itself, if it does worse than the one before.
        on_trial: bool,
    },
    /// A plan could not be taken back, and nobody else put one: the log does not answer.
    Kept {
        /// Its number.
        plan: u64,
        /// Why.
        error: String,
    },
    /// This plan is the newest in the plan log now, and cannot be made ready here.
    NotReady {
        /// Its number.
        plan: u64,
        /// Why.
        stop: Stop,
    },
    /// The plan log tells of these cuts, in this order.
    Adopted(Vec<Adopted>),
    /// The plan log was read to its end since that was asked for, and all that it has was told before.
    LogRead {
        /// The number of the last of these questions.
        asked: u64,
    },
    /// What is not to be read, as the plan log has it up to a place: somebody may have paused it elsewhere.
    Paused {
        /// Behind the last entry that counts in it.
        up_to: u64,
        /// Who wants nothing to be read at all, if somebody does.
        all: Option<By>,
        /// Partitions of which nothing is to be read.
        partitions: BTreeMap<InputPartition, By>,
    },
    /// Somebody wants something.
    Order {
        /// Under which the answer is asked for.
        ticket: u64,
        /// What.
        order: Order,
    },
    /// Time has passed.
    Tick,
    /// Come to an end: finish what is under way, commit it, take in nothing more.
    Stop,
}

/// What a pipeline wants done, in this order.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per batch: a box would be an allocation more")]
pub enum Action {
    /// Claim partitions in a sink.
    Claim {
        /// Which sink.
        sink: usize,
        /// The claims, each with its run.
        claims: Vec<(RunId, Claim)>,
    },
    /// Read a partition.
    Read {
        /// The run.
        run: RunId,
        /// The partition.
        at: TopicPartition,
        /// From here on.
        from: Offset,
        /// The last record in front of that, if a sink knows it: the source has to find it there again.
        last: Option<Fingerprint>,
    },
    /// Tell the source that a sink refused a claim.
    Overtaken {
        /// Of this partition.
        at: TopicPartition,
        /// For what it was claimed under before.
        by: Epoch,
    },
    /// Read no more of a partition for now.
    Hold {
        /// The partition.
        at: TopicPartition,
    },
    /// Let go of a partition: no sink commits anything for it any more.
    Forget {
        /// The partition.
        at: TopicPartition,
        /// Whether every sink has all of it.
        finished: bool,
    },
    /// Transform a batch.
    Transform(Job),
    /// From now on, do not look for the guilty records of batches that failed, where it is of these.
    GiveUp(GiveUp),
    /// Give rows to a sink.
    Write {
        /// Which sink.
        sink: usize,
        /// The run.
        run: RunId,
        /// The rows.
        batch: RoutedBatch,
        /// Given back once the sink has staged them.
        permit: crate::budget::Permit,
    },
    /// Commit what a sink has staged for a partition.
    Flush {
        /// Which sink.
        sink: usize,
        /// The run.
        run: RunId,
        /// The partition.
        at: TopicPartition,
    },
    /// Forget a partition in a sink.
    Release {
        /// Which sink.
        sink: usize,
        /// The run.
        run: RunId,
        /// The partition.
        at: TopicPartition,
    },
    /// Append to the plan log, durably, before any later action.
    Log(Entry),
    /// Append to the plan log when there is time: people are to find it there.
    Tell(Entry),
    /// Read the plan log to its end.
    ReadLog {
        /// Under which number the answer is asked for: each is higher than the one before.
        asked: u64,
    },
    /// Take a plan back, if it still is the newest: plan `to` once more takes its place. Sooner or later another plan is
    /// heard of, or that this one stays.
    TakeBack {
        /// Which.
        plan: u64,
        /// What is to be done again.
        to: u64,
        /// Why, for people.
        why: String,
    },
    /// Answer whoever gave an order.
    Answer {
        /// Which.
        ticket: u64,
        /// Whether anything is different now, or why nothing is done.
        answer: Result<bool, Refusal>,
    },
    /// A partition stopped; for the person who runs this.
    Stopped {
        /// The partition.
        at: TopicPartition,
        /// Why.
        stop: Stop,
    },
}

/// Batches of which it is not found out which of their records are to blame. Such a look takes a fresh instance per guilty
/// record, which is minutes where most of them are. What some sink has already has to be made by its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// What is made for the first time by older plans.
    Below {
        /// Than this one.
        plan: u64,
        /// One of them was taken back: what it would make for the first time is not even begun.
        taken_back: Option<u64>,
    },
    /// All: the pipeline comes to its end.
    All,
}

impl GiveUp {
    /// Whether it is about `job`.
    pub fn is_about(self, job: &Job) -> bool {
        match self {
            Self::Below { plan, .. } => job.plan.plan < plan && !job.again,
            Self::All => true,
        }
    }

    /// Whether `job` need not be begun.
    pub fn is_left_out(self, job: &Job) -> bool {
        matches!(self, Self::Below { taken_back: Some(plan), .. } if job.plan.plan == plan && !job.again)
    }
}

/// What became of the records of this process, and how often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records taken in that at least one sink did not have.
    pub records: u64,
    /// Per route, the records with a row on it.
    pub routed: BTreeMap<Arc<str>, u64>,
    /// Per reason, the records refused for it first; those at which the transform failed are not among them.
    pub rejected: BTreeMap<Arc<str>, u64>,
    /// Records left out on purpose.
    pub dropped: u64,
    /// Records at which the transform failed.
    pub failed: u64,
    /// Records with a row on some route.
    pub n_routed: u64,
    /// Records refused with a reason.
    pub n_rejected: u64,
    /// Records that a sink was not given because it had them.
    pub skipped: u64,
    /// Records of which a sink was given nothing because they came again for a row in another one.
    pub elsewhere: u64,
    /// Batches made again for a sink that lags, with a plan older than the newest.
    pub replayed_older: u64,
    /// Partitions that were lost to another owner.
    pub lost: u64,
    /// Partitions that began again after a sink failed.
    pub restarted: u64,
    /// Partitions that began again with another plan than the one that could not go on.
    pub replanned: u64,
}

impl Tally {
    /// Adds the fates of a transformed batch.
    pub fn count(&mut self, routed: &Routed) {
        self.records += routed.n_records;
        for (_, fate) in &routed.fates {
            *match fate {
                Fate::Routed => &mut self.n_routed,
                Fate::Rejected => &mut self.n_rejected,
                Fate::Dropped => &mut self.dropped,
                Fate::Failed => &mut self.failed,
            } += 1;
        }
        for (route, n) in &routed.routes {
            *self.routed.entry(route.clone()).or_default() += n;
        }
        for (reason, n) in &routed.rejected {
            *self.rejected.entry(reason.clone()).or_default() += n;
        }
    }

    /// The equation that must hold, with its numbers.
    pub fn accounts(&self) -> String {
        let Self { records, n_routed, n_rejected, dropped, failed, .. } = self;
        format!(
            "{records} in = {n_routed} routed + {n_rejected} rejected + {dropped} dropped + {failed} failed"
        )
    }

    /// Whether every record has exactly one fate.
    pub fn conserved(&self) -> bool {
        self.records == self.n_routed + self.n_rejected + self.dropped + self.failed
    }
}

/// A partition that was left, and of which sinks may still be committing something.
#[derive(Debug)]
struct Leaving {
    at: TopicPartition,
    run: RunId,
    finished: bool,
    /// Sinks that have not said yet that they released it.
    waits_for: usize,
}

/// A partition that begins again after a while.
#[derive(Debug)]
struct Waiting {
    until: Duration,
    /// The plan that could not make its next records: it waits for a newer one, however long.
    past: Option<u64>,
    /// That could make them, and was not waited for.
    given_up: bool,
    assignment: Assignment,
    /// What is said of it if the pipeline ends first.
    stop: Stop,
}

/// What went wrong with a partition since its last commit.
#[derive(Debug)]
struct Trouble {
    /// How often.
    times: u32,
    since: Duration,
    /// The last time.
    why: Why,
}

/// Why a partition begins again after a while.
#[derive(Clone, Debug)]
struct Why {
    /// The sink that did not do what it was asked; the source if absent.
    sink: Option<Arc<str>>,
    text: String,
    hint: Option<String>,
}

/// The decisions of a pipeline.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    history: History,
    newest: PlanRef,
    /// The newest plan of the log and why it cannot run here, where that is so: nothing is read until it can, since
    /// others make offsets with it already.
    not_ready: Option<NotReady>,
    trials: Trials,
    tracks: BTreeMap<TopicPartition, Track>,
    /// Behind the last entry of a pause that this process decided.
    logged: u64,
    /// How often the plan log was asked for what a sink knows.
    asked: u64,
    /// Partitions that wait to be claimed again.
    waiting: BTreeMap<TopicPartition, Waiting>,
    leaving: Vec<Leaving>,
    /// Also while they are claimed again, until a commit shows that it went well.
    troubles: BTreeMap<TopicPartition, Trouble>,
    /// The topic of records that come again.
    replays: Arc<str>,
    /// Cuts that are to be in the plan log, and are not there yet.
    telling: BTreeMap<(InputPartition, u64), Cut>,
    /// Until they are assigned again, here or elsewhere.
    stopped: BTreeMap<TopicPartition, Stop>,
    next_run: u64,
    exhausted: bool,
    stopping: bool,
    tally: Tally,
    /// Partitions of which every sink has all.
    finished: u64,
    /// Per sink, what its commits counted.
    counted: Vec<Counters>,
    actions: VecDeque<Action>,
}

impl Core {
    /// A pipeline that runs `newest` and knows what the plan log says.
    pub fn new(settings: Settings, history: History, newest: PlanRef) -> Self {
        let replays = replay_topic(&settings.pipeline).into();
        let counted = vec![Counters::default(); settings.sinks.len()];
        let trials = Trials::new(settings.rollback, newest.plan, settings.on_trial_after);
        Self {
            settings,
            history,
            newest,
            not_ready: None,
            logged: 0,
            asked: 0,
            trials,
            tracks: BTreeMap::new(),
            waiting: BTreeMap::new(),
            leaving: Vec::new(),
            troubles: BTreeMap::new(),
            replays,
            telling: BTreeMap::new(),
            stopped: BTreeMap::new(),
            next_run: 0,
            exhausted: false,
            stopping: false,
            tally: Tally::default(),
            finished: 0,
            counted,
            actions: VecDeque::new(),
        }
    }

    /// The plan that makes new offsets.
    pub fn newest(&self) -> &PlanRef {
        &self.newest
    }

    /// What became of the records so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether there is nothing left to do: all partitions ended or stopped, and no other will come.
    pub fn is_done(&self) -> bool {
        let idle = self.tracks.is_empty() && self.leaving.is_empty() && self.actions.is_empty();
        idle && (self.stopping || self.exhausted && self.waiting.is_empty())
    }

    /// When [`Event::Tick`] has something to do next.
    pub fn deadline(&self) -> Option<Duration> {
        let waiting = self.waiting.values().map(|waiting| waiting.until);
        waiting.chain(self.tracks.values().filter_map(|track| track.leaves_by)).min()
    }

    /// Decides what follows from an event. `now` is the time since the process began.
    pub fn handle(&mut self, event: Event, now: Duration) -> impl Iterator<Item = Action> + '_ {
        match event {
            Event::Source(event) => self.source(event, now),
            Event::Transformed { at, run, seq, result } => self.transformed(&at, run, seq, result, now),
            Event::Judging { at, run, seq, judging } => self.judging(&at, run, seq, judging, now),
            Event::GivenUp { at, run, seq } => self.given_up(&at, run, seq, now),
            Event::Sink { sink, report } => self.sink(sink, report, now),
            Event::Plan { plan, on_trial } => self.plan(plan, on_trial, now),
            Event::Adopted(adopted) => self.adopted(adopted),
            Event::LogRead { asked } => self.log_read(asked),
            Event::Kept { plan, error } => self.kept(plan, &error, now),
            Event::NotReady { plan, stop } => self.not_ready(plan, stop),
            Event::Paused { up_to, all, partitions } => self.paused_elsewhere(up_to, all, partitions),
            Event::Order { ticket, order } => self.order(ticket, order),
            Event::Tick => self.tick(now),
            Event::Stop => self.stop(),
        }
        self.actions.drain(..)
    }

    /// An entry that was to be logged is in the plan log, at this place.
    pub fn logged(&mut self, entry: &Entry, at: u64) {
        if matches!(entry, Entry::Paused { .. } | Entry::Resumed { .. }) {
            self.logged = self.logged.max(at + 1);
        }
    }

    fn source(&mut self, event: SourceEvent, now: Duration) {
        match event {
            SourceEvent::Assigned(assignments) if !self.stopping => self.assigned(assignments),
            SourceEvent::Assigned(_) => {}
            SourceEvent::Batch { run, batch } => self.batch(run, batch),
            SourceEvent::End { run, at, end, for_good } => {
                if let Some(track) = self.tracks.get_mut(&at).filter(|track| track.reading == run) {
                    track.end = Some(End { offset: end, for_good });
                    self.advance(&at, now);
                }
            }
            SourceEvent::Seen(ends) => {
                for (at, end) in ends {
                    if let Some(track) = self.tracks.get_mut(&at) {
                        track.seen = Some(end);
                    }
                }
            }
            SourceEvent::Revoked(at) => self.revoked(&at, now),
            SourceEvent::Lost(at) => {
                self.waiting.remove(&at);
                self.stopped.remove(&at);
                self.drop_partition(&at);
            }
            SourceEvent::Failed { at, error } => self.source_failed(&at, error, now),
            SourceEvent::Exhausted => self.exhausted = true,
        }
    }

    /// What cannot be read as it is stops its partition; what does not answer is tried again.
    fn source_failed(&mut self, at: &TopicPartition, error: source::Error, now: Duration) {
        let text = error.to_string();
        match error {
            source::Error::Unreachable { hint, .. } => {
                self.try_again(at, Why { sink: None, text, hint }, now);
            }
            source::Error::Input { hint, .. } => self.stop_at(at, Stop { text, hint, outside: false }),
            source::Error::Io { .. } => self.stop_at(at, Stop { text, hint: None, outside: true }),
        }
    }

    /// Stops a partition, also one that was never begun.
    fn stop_at(&mut self, at: &TopicPartition, stop: Stop) {
        match self.tracks.contains_key(at) {
            true => self.drain(at, Some(stop)),
            false => self.stopped(at, stop),
        }
    }

    /// Claims every sink of the pipeline, in order, before anything is read: a zombie is fenced everywhere before
    /// this process looks where to go on.
    fn assigned(&mut self, assignments: Vec<Assignment>) {
        let mut ats = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let at = assignment.at.clone();
            self.drop_partition(&at);
            self.waiting.remove(&at);
            self.stopped.remove(&at);
            self.next_run += 1;
            self.tracks.insert(at.clone(), Track::new(RunId(self.next_run), assignment));
            ats.push(at);
        }
        if self.history.paused.is_some() {
            ats.iter().for_each(|at| self.track(at).phase = Phase::Unclaimed);
        } else {
            self.claim(0, &ats);
        }
    }

    /// Of a partition that is known to be there.
    fn track(&mut self, at: &TopicPartition) -> &mut Track {
        self.tracks.get_mut(at).expect("looked up before")
    }

    /// The partition as the plan log knows it.
    fn of(&self, at: &TopicPartition) -> InputPartition {
        match &self.settings.file_topic {
            Some(topic) if *topic == at.topic => InputPartition::file(at.partition),
            _ => InputPartition::of(at),
        }
    }

    fn claim(&mut self, sink: usize, ats: &[TopicPartition]) {
        let claims: Vec<_> = ats.iter().map(|at| (self.tracks[at].run, self.claim_of(at))).collect();
        if !claims.is_empty() {
            self.actions.push_back(Action::Claim { sink, claims });
        }
    }

    fn claim_of(&self, at: &TopicPartition) -> Claim {
        let assignment = &self.tracks[at].assignment;
        Claim {
            pipeline: self.settings.pipeline.clone(),
            group: assignment.group.clone(),
            topic_id: assignment.topic_id.clone(),
            at: at.clone(),
            epoch: assignment.epoch,
            owner: self.settings.owner,
            start: match self.history.started.contains_key(&self.of(at)) {
                true => Start::MustExist,
                false => assignment.start,
            },
            input: assignment.input.clone(),
        }
    }

    fn sink(&mut self, sink: usize, report: Report, now: Duration) {
        match report {
            Report::Claimed(claimed) => self.claimed(sink, claimed, now),
            Report::Committed { at, run, commit } if self.runs(&at, run) => {
                self.committed(sink, &at, &commit);
            }
            Report::Broken { at, run, error } if self.runs(&at, run) => {
                self.sink_failed(sink, &at, error, now);
            }
            Report::Committed { .. } | Report::Broken { .. } => {}
            Report::Released { at, run } => self.released(&at, run),
        }
    }

    fn runs(&self, at: &TopicPartition, run: RunId) -> bool {
        self.tracks.get(at).is_some_and(|track| track.run == run)
    }

    /// Claims what a sink gave us in the next one; what was the last's is read.
    fn claimed(&mut self, sink: usize, claimed: Vec<Claimed>, now: Duration) {
        let mut ours = Vec::with_capacity(claimed.len());
        for Claimed { at, run, state } in claimed {
            if !self.runs(&at, run) {
                continue;
            }
            match state {
                Ok(state) => {
                    self.track(&at).states.push(state);
                    ours.push(at);
                }
                Err(error) => {
                    if let sink::Error::Conflict(sink::state::Refused::Fenced { held, .. }) = &error {
                        self.actions.push_back(Action::Overtaken { at: at.clone(), by: *held });
                    }
                    self.sink_failed(sink, &at, error, now);
                }
            }
        }
        if sink + 1 < self.settings.sinks.len() {
            self.claim(sink + 1, &ours);
        } else {
            self.all_claimed(ours);
        }
    }

    /// From here on a state that is missing in a sink was lost, so that is written down before any commit.
    fn all_claimed(&mut self, mut ours: Vec<TopicPartition>) {
        ours.retain(|at| {
            let of = self.of(at);
            let track = self.tracks.get_mut(at).expect("looked up before");
            match track.all_claimed(|state| self.history.forgotten(&of, state)) {
                Ok(()) => true,
                // Whoever had it has told: this process only has to hear of it.
                Err(NotKnown::Forgotten(stop)) => {
                    if !matches!(track.phase, Phase::NeedsCuts(_)) {
                        let asked = self.ask_the_log(stop);
                        self.track(at).phase = Phase::NeedsCuts(asked);
                    }
                    false
                }
                Err(NotKnown::Differ(stop)) => {
                    self.drain(at, Some(stop));
                    false
                }
            }
        });
        self.log_started(&ours);
        for at in &ours {
            if self.settings.on_trial_after.is_some() {
                self.trials.counted_before(at, &self.tracks[at].states[0].counters);
            }
            // Whoever made them may have died before it told.
            for cut in self.tracks[at].cuts().to_vec() {
                self.log_cut(at, cut);
            }
            self.start_reading(at);
        }
    }

    fn log_started(&mut self, ours: &[TopicPartition]) {
        let sinks: Vec<_> = self.settings.sinks.iter().map(|name| name.to_string()).collect();
        let mut of_topics: BTreeMap<_, Vec<i32>> = BTreeMap::new();
        for at in ours {
            let of = self.of(at);
            if let btree_map::Entry::Vacant(started) = self.history.started.entry(of) {
                let of = started.key();
                of_topics.entry(of.topic.clone()).or_default().push(of.partition);
                started.insert(sinks.iter().cloned().collect());
            }
        }
        for (topic, partitions) in of_topics {
            self.actions.push_back(Action::Log(Entry::Started { topic, partitions, sinks: sinks.clone() }));
        }
    }

    fn start_reading(&mut self, at: &TopicPartition) {
        let track = self.tracks.get_mut(at).expect("checked by the caller");
        if track.floor() > self.newest.plan {
            // Whoever made rows with it had read it there.
            if !matches!(track.phase, Phase::NeedsPlan(_)) {
                let (needs, newest) = (track.floor(), self.newest.plan);
                let text = format!(
                    "E_PLAN_MISSING: a sink has rows of plan {needs}, and the plan log ends with plan {newest}"
                );
                let asked = self.ask_the_log(Stop::new(text).hint(OTHER_LOG));
                self.track(at).phase = Phase::NeedsPlan(asked);
            }
            return;
        }
        track.phase = Phase::Running;
        if self.is_paused(at) {
            self.track(at).held = true;
        } else {
            self.read(at);
        }
        if self.stopping {
            self.drain(at, None);
        }
    }

    fn batch(&mut self, run: RunId, batch: crate::batch::Batch) {
        let Some(track) = self.tracks.get_mut(batch.at()).filter(|track| track.reading == run) else {
            return;
        };
        if !matches!(track.phase, Phase::Running) {
            return;
        }
        let newest = self.newest.clone();
        for job in track.accept(batch, &newest) {
            let older = track.is_replay(job.batch.range().start) && job.plan.plan < newest.plan;
            self.tally.replayed_older += u64::from(older);
            self.actions.push_back(Action::Transform(job));
        }
    }

    fn transformed(
        &mut self,
        at: &TopicPartition,
        run: RunId,
        seq: u64,
        result: Result<Routed, Stop>,
        now: Duration,
    ) {
        let Some(track) = self.tracks.get_mut(at).filter(|track| track.run == run) else { return };
        track.transformed(seq, result);
        self.advance(at, now);
    }

    /// A plan on trial that fails at everything is not waited for until its batch is through.
    fn judging(&mut self, at: &TopicPartition, run: RunId, seq: u64, judging: Judging, now: Duration) {
        let Some(track) = self.tracks.get_mut(at).filter(|track| track.run == run) else { return };
        track.judging(seq, judging);
        if let Some(back) = self.trials.judging(self.judged_so_far(), now) {
            self.take_back(back);
        }
    }

    /// Of the plan on trial.
    fn judged_so_far(&self) -> Judging {
        let Some(plan) = self.trials.plan() else { return Judging::default() };
        let first = self.tracks.iter().filter(|(at, _)| *at.topic != *self.replays);
        first.map(|(_, track)| track.judged_so_far_of(plan)).sum()
    }

    fn given_up(&mut self, at: &TopicPartition, run: RunId, seq: u64, now: Duration) {
        let Some(track) = self.tracks.get_mut(at).filter(|track| track.run == run) else { return };
        track.give_up();
        track.transformed(seq, Err(left_to_the_next()));
        self.advance(at, now);
    }

    /// Hands on what is in order, and ends what has come to its end.
    fn advance(&mut self, at: &TopicPartition, now: Duration) {
        let mut back = None;
        while let Some((by, result)) = self.tracks.get_mut(at).and_then(Track::next_in_order) {
            // Behind a batch that could not be transformed nothing may be handed on.
            if self.tracks[at].halted {
                continue;
            }
            let is_left = !by.again && self.trials.taken_back() == Some(by.plan);
            let result = match is_left {
                true => {
                    self.track(at).give_up();
                    Err(left_to_the_next())
                }
                false => result,
            };
            // What comes again failed before: it says nothing of how a plan does.
            if let Ok(routed) = &result
                && !by.again
                && *at.topic != *self.replays
            {
                back = back.or(self.trials.made(routed, now));
            }
            match result.and_then(|routed| self.check_failures(at, routed)) {
                Ok(routed) => self.hand_on(at, routed),
                Err(stop) => {
                    // Also if the plan is taken back for a batch in front of it: the partition is to go on with the next.
                    let blamed = self.blame(at, by, &stop, now);
                    back = back.or(blamed);
                    self.track(at).halted = true;
                    self.drain(at, Some(stop));
                }
            }
        }
        self.finish_if_through(at);
        if let Some(back) = back {
            self.take_back(back);
        }
    }

    /// A partition cannot go on with the plan that was to make its next records. Where another plan may, it goes on with
    /// that one. What a sink has already is made again by the same plan in any case.
    fn blame(&mut self, at: &TopicPartition, by: Maker, stop: &Stop, now: Duration) -> Option<TakenBack> {
        let track = self.track(at);
        let ends_already = matches!(track.phase, Phase::Draining(Some(_)));
        if track.given_up {
            track.blamed = Some(by.plan);
        }
        if by.again || stop.outside || ends_already || track.given_up {
            return None;
        }
        let back = self.trials.stopped(by.plan, stop, now);
        let mended = self.trials.may_be_mended(by.plan, self.newest.plan);
        self.track(at).blamed = mended.then_some(by.plan);
        back
    }

    /// Nothing is read until another plan takes the place of the one that does worse.
    fn take_back(&mut self, TakenBack { plan, to, why }: TakenBack) {
        tracing::warn!(plan, to, %why, "the plan is taken back");
        self.actions.push_back(Action::TakeBack { plan, to, why });
        self.give_up_below(plan + 1);
        self.keep_all();
    }

    fn check_failures(&mut self, at: &TopicPartition, routed: Routed) -> Result<Routed, Stop> {
        let limit = self.settings.stop_after_consecutive;
        let track = self.tracks.get_mut(at).expect("checked by the caller");
        match track.count_failed(&routed, limit) {
            None => Ok(routed),
            Some(n) => {
                let text = format!(
                    "E_FAILING: the transform failed on {n} records in a row of {at}, up to {}",
                    routed.range
                );
                Err(Stop::new(text).hint(
                    "run `weir validate` on such records; dead_letter.stop_after_consecutive sets the limit",
                ))
            }
        }
    }

    /// Gives every sink what it does not have of a batch.
    fn hand_on(&mut self, at: &TopicPartition, routed: Routed) {
        let of = self.of(at);
        let track = self.tracks.get_mut(at).expect("checked by the caller");
        let (run, seed) = (track.run, crate::route::partition_seed(&track.assignment.topic_id, at.partition));
        let (history, epoch) = (&self.history, track.assignment.epoch);
        let told = track.told(|cut| history.knows_cut(&of, cut, epoch));
        let mut wanted = false;
        for (sink, routes) in routed.bindings.sinks.iter().enumerate() {
            let from = track.hand(sink, routed.range.end);
            let batch = for_sink(&routed, sink, routes, from, seed, told);
            let given = batch.as_ref().map_or(0, |batch| batch.counters.records_in);
            self.tally.skipped += routed.fates.len() as u64 - given;
            self.tally.elsewhere += batch.as_ref().map_or(0, |batch| batch.counters.elsewhere);
            wanted |= batch.is_some();
            let permit = routed.permit.clone();
            let write = |batch| Action::Write { sink, run, batch, permit };
            self.actions.extend(batch.map(write));
        }
        if wanted {
            self.tally.count(&routed);
        }
    }

    fn committed(&mut self, sink: usize, at: &TopicPartition, commit: &Commit) {
        self.troubles.remove(at);
        self.counted[sink].add(&commit.counters);
        let track = self.tracks.get_mut(at).expect("checked by the caller");
        track.committed(sink, commit.range.end);
        let begun = track.cuts().iter().rev().find(|cut| cut.plan == commit.plan);
        if let Some(cut) = begun.filter(|cut| cut.from == commit.range.start).cloned() {
            self.log_cut(at, cut);
        }
        self.finish_if_through(at);
    }

    fn finish_if_through(&mut self, at: &TopicPartition) {
        let Some(track) = self.tracks.get_mut(at) else { return };
        if track.is_finished() {
            let End { offset: end, for_good } = track.end.expect("finished");
            if for_good {
                let of = self.of(at);
                self.actions.push_back(Action::Log(Entry::Done { of, end }));
            }
            self.leave(at, true);
        } else if !track.is_released() {
            // Something is still being transformed.
        } else if track.end.is_some() || track.held || matches!(track.phase, Phase::Draining(_)) {
            if track.is_committed() {
                self.drained(at);
            } else {
                self.flush(at);
            }
        }
    }

    fn drained(&mut self, at: &TopicPartition) {
        let track = self.tracks.get_mut(at).expect("checked by the caller");
        let Phase::Draining(stop) = &mut track.phase else { return };
        let stop = stop.take();
        // That it is taken back may have been given up meanwhile.
        let (newest, given_up) = (self.newest.plan, track.given_up);
        let mended = |plan: &u64| !self.stopping && (given_up || self.trials.may_be_mended(*plan, newest));
        match (stop, track.blamed.filter(mended)) {
            (Some(stop), Some(plan)) => return self.wait_for_a_plan(at, plan, stop),
            (Some(stop), None) if !given_up => self.stopped(at, stop),
            _ => {}
        }
        self.leave(at, false);
    }

    /// The partition begins again as soon as there is a plan after `plan`, or that stays.
    fn wait_for_a_plan(&mut self, at: &TopicPartition, plan: u64, stop: Stop) {
        let track = &self.tracks[at];
        let (assignment, revoked) = (track.assignment.clone(), track.leaves_by.is_some());
        let given_up = track.given_up;
        self.leave(at, false);
        // Somebody else is to have it: they go on.
        if revoked {
            return;
        }
        tracing::warn!(partition = %at, plan, hint = stop.hint, error = %stop, "goes on with the next plan");
        self.tally.replanned += 1;
        let stays = given_up && !self.trials.is_taking_back();
        let until = if stays || self.newest.plan > plan { Duration::ZERO } else { Duration::MAX };
        self.waiting.insert(at.clone(), Waiting { until, past: Some(plan), given_up, assignment, stop });
    }

    fn stopped(&mut self, at: &TopicPartition, stop: Stop) {
        self.stopped.insert(at.clone(), stop.clone());
        self.actions.push_back(Action::Stopped { at: at.clone(), stop });
    }

    fn flush(&mut self, at: &TopicPartition) {
        let run = self.tracks[at].run;
        let flush = |sink| Action::Flush { sink, run, at: at.clone() };
        self.actions.extend((0..self.settings.sinks.len()).map(flush));
    }

    /// Takes in nothing more of a partition; what is under way is finished and committed, then it stops.
    fn drain(&mut self, at: &TopicPartition, stop: Option<Stop>) {
        let Some(track) = self.tracks.get_mut(at) else { return };
        match &track.phase {
            Phase::Running => track.phase = Phase::Draining(stop),
            Phase::Draining(None) if stop.is_some() => track.phase = Phase::Draining(stop),
            Phase::Draining(_) => return,
            Phase::Unclaimed | Phase::Claiming | Phase::NeedsPlan(_) | Phase::NeedsCuts(_) => {
                if let Some(stop) = stop {
                    self.stopped(at, stop);
                }
                self.leave(at, false);
                return;
            }
        }
        self.actions.push_back(Action::Hold { at: at.clone() });
        self.finish_if_through(at);
    }

    /// Somebody else is to have a partition. What is under way is brought to its end first, unless that takes too long.
    fn revoked(&mut self, at: &TopicPartition, now: Duration) {
        self.waiting.remove(at);
        self.stopped.remove(at);
        if let Some(track) = self.tracks.get_mut(at) {
            track.leaves_by = Some(now + REVOKE_PATIENCE);
            self.drain(at, None);
        } else if self.leaving.iter().all(|leaving| leaving.at != *at) {
            self.actions.push_back(Action::Forget { at: at.clone(), finished: false });
        }
    }

    /// Forgets a partition everywhere: first in the sinks, and only then in the source, which may give it away.
    fn leave(&mut self, at: &TopicPartition, finished: bool) {
        let Some(track) = self.tracks.remove(at) else { return };
        self.finished += u64::from(finished);
        let waits_for = self.settings.sinks.len();
        self.actions.push_back(Action::Hold { at: at.clone() });
        let release = |sink| Action::Release { sink, run: track.run, at: at.clone() };
        self.actions.extend((0..waits_for).map(release));
        self.leaving.push(Leaving { at: at.clone(), run: track.run, finished, waits_for });
    }

    fn released(&mut self, at: &TopicPartition, run: RunId) {
        let found = self.leaving.iter().position(|leaving| leaving.at == *at && leaving.run == run);
        let Some(found) = found else { return };
        self.leaving[found].waits_for -= 1;
        if self.leaving[found].waits_for > 0 {
            return;
        }
        let Leaving { at, finished, .. } = self.leaving.swap_remove(found);
        // Else it became ours again meanwhile, and may have been left again.
        if !self.tracks.contains_key(&at) && self.leaving.iter().all(|leaving| leaving.at != at) {
            self.actions.push_back(Action::Forget { at, finished });
        }
    }

    fn drop_partition(&mut self, at: &TopicPartition) {
        if self.tracks.contains_key(at) {
            self.leave(at, false);
        }
    }

    /// A sink that cannot go on with a partition makes it begin again where the sinks stand, unless somebody else
    /// owns it now or trying again will not help.
    fn sink_failed(&mut self, sink: usize, at: &TopicPartition, error: sink::Error, now: Duration) {
        let name = self.settings.sinks[sink].clone();
        match error {
            sink::Error::Conflict(refused @ sink::state::Refused::WentBack { .. }) => {
                let why = Why { sink: Some(name), text: refused.to_string(), hint: None };
                self.try_again(at, why, now);
            }
            sink::Error::Transient(problem) => {
                let why = Why { sink: Some(name), text: problem.to_string(), hint: problem.hint };
                self.try_again(at, why, now);
            }
            // The group will say who has it, or give it to us anew with a higher generation.
            sink::Error::Conflict(refused) if self.settings.file_topic.is_none() => {
                self.tally.lost += 1;
                tracing::warn!(sink = &*name, partition = %at, %refused, "another process has taken over");
                self.leave(at, false);
            }
            sink::Error::Conflict(refused) => {
                self.tally.lost += 1;
                let stop = Stop::new(format!("sink {name}: {at}: {refused}")).hint(
                    "another process runs this pipeline, or the state directory is older than the sinks",
                );
                self.stopped(at, stop);
                self.leave(at, false);
            }
            sink::Error::Permanent(problem) => {
                let stop =
                    Stop { text: format!("sink {name}: {problem}"), hint: problem.hint, outside: false };
                self.stopped(at, stop);
                self.leave(at, false);
            }
        }
    }

    /// The partition begins again after a while, unless that was tried too often: then it stops.
    fn try_again(&mut self, at: &TopicPartition, why: Why, now: Duration) {
        let Some(track) = self.tracks.get(at) else { return };
        let assignment = track.assignment.clone();
        let revoked = track.leaves_by.is_some();
        let fresh = || Trouble { times: 0, since: now, why: why.clone() };
        let trouble = self.troubles.entry(at.clone()).or_insert_with(fresh);
        trouble.times += 1;
        trouble.why = why.clone();
        let n = trouble.times;
        self.leave(at, false);
        // Somebody else is to have it: they try again.
        if revoked {
            return;
        }
        let what = why.sink.map_or_else(String::new, |sink| format!("sink {sink}: {at}: "));
        let text = format!("{what}{} (tried {n} times)", why.text);
        let stop = Stop { text, hint: why.hint, outside: true };
        if n > self.settings.max_attempts || self.stopping {
            self.stopped(at, stop);
            return;
        }
        tracing::warn!(partition = %at, attempt = n, hint = stop.hint, error = %stop, "trying again");
        self.tally.restarted += 1;
        self.waiting.insert(
            at.clone(),
            Waiting { until: now + backoff(n), past: None, given_up: false, assignment, stop },
        );
    }

    fn tick(&mut self, now: Duration) {
        let due = self.waiting.values().filter(|waiting| waiting.until <= now);
        let due: Vec<_> = due.map(|waiting| waiting.assignment.clone()).collect();
        self.assigned(due);
        let late = self.tracks.iter().filter(|(_, track)| track.leaves_by.is_some_and(|by| by <= now));
        let late: Vec<_> = late.map(|(at, _)| at.clone()).collect();
        late.iter().for_each(|at| self.leave(at, false));
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.actions.push_back(Action::GiveUp(GiveUp::All));
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        for (at, Waiting { stop, .. }) in waiting.filter(|(_, waiting)| !waiting.given_up) {
            self.stopped(&at, stop);
        }
        let all: Vec<_> = self.tracks.keys().cloned().collect();
        all.iter().for_each(|at| self.drain(at, None));
    }
}

/// What is under way of a partition that somebody else is to have may take so long to be committed; then it is theirs to
/// do again.
const REVOKE_PATIENCE: Duration = Duration::from_secs(10);

/// Why a batch that was given to a plan was not made, or goes nowhere: another plan makes those records.
fn left_to_the_next() -> Stop {
    Stop::new("records that the plan has not made are left to the next one")
}

/// 100 ms, doubled with each attempt, at most 30 s.
fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(100 << attempt.min(9)).min(Duration::from_secs(30))
}

/// What a sink with these routes still needs of a batch: their rows from offset `from` on. `None` if it has the whole
/// range.
fn for_sink(
    routed: &Routed,
    sink: usize,
    routes: &[(Arc<str>, Arc<str>)],
    from: Offset,
    seed: u64,
    told: u64,
) -> Option<RoutedBatch> {
    let range = routed.range.from(from)?;
    let mut counters = count_fates(routed, sink, from);
    let mut parts = Vec::new();
    for part in &routed.parts {
        for (_, target) in routes.iter().filter(|(route, _)| *route == part.route) {
            let part = routed.rows_for(part, sink, target);
            let first = part.offsets.partition_point(|offset| *offset < from.get());
            let n = part.offsets.len() - first;
            if n == 0 {
                continue;
            }
            let part = slice(&part, target, first, n);
            let counted = counters.targets.entry(target.clone()).or_default();
            count_rows(counted, &part, seed);
            parts.push(part);
        }
    }
    let (at, plan) = (routed.at.clone(), routed.plan.clone());
    Some(RoutedBatch { at, range, plan, counters, last: routed.last.clone(), told, parts })
}

fn count_fates(routed: &Routed, sink: usize, from: Offset) -> Counters {
    let first = routed.fates.partition_point(|(offset, _)| *offset < from);
    let mut counters = Counters::default();
    for (offset, fate) in &routed.fates[first..] {
        counters.records_in += 1;
        if routed.addressee(*offset).is_some_and(|to| to.sink != sink) {
            counters.elsewhere += 1;
            continue;
        }
        *match fate {
            Fate::Routed => &mut counters.routed,
            Fate::Rejected => &mut counters.rejected,
            Fate::Dropped => &mut counters.dropped,
            Fate::Failed => &mut counters.failed,
        } += 1;
    }
    counters
}

fn count_rows(counted: &mut TargetCounters, part: &Part, seed: u64) {
    counted.rows += part.offsets.len() as u64;
    for (offset, index) in part.offsets.iter().zip(&part.index) {
        counted.sum = counted.sum.wrapping_add(crate::route::row_hash(seed, *offset, *index));
    }
}

fn slice(part: &crate::route::RoutePart, target: &Arc<str>, first: usize, n: usize) -> Part {
    Part {
        target: target.clone(),
        route: part.route.clone(),
        rows: part.rows.slice(first, n),
        offsets: part.offsets.slice(first, n),
        origins: part.origins.as_ref().map(|origins| origins[first..first + n].to_vec()),
        index: part.index.slice(first, n),
        timestamps: part.timestamps.slice(first, n),
        keys: part.keys.as_ref().map(|keys| keys.slice(first..first + n)),
        headers: part.headers.as_ref().map(|headers| headers.slice(first..first + n)),
        deletes: part.deletes.as_ref().map(|deletes| deletes.slice(first, n)),
    }
}

#[cfg(test)]
mod rig;
#[cfg(test)]
mod simulation;
