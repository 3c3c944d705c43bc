//! How a pipeline stands at one moment, as plain data: for people, for programs, for numbers that are watched. It says
//! what is; it decides nothing, and nobody waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shadow::Standing;
use super::track::{Phase, Track};
use super::trial::{grouped, percent};
use super::{Core, Settings, Stop, Tally, Trouble};
use crate::commit::WriterStats;
use crate::offset::{Offset, TopicPartition};
use crate::plan::{By, History, InputPartition};
use crate::rule::Judging;
use crate::sink::state::{Counters, PlanRef};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The plan that makes new offsets.
    pub plan: PlanRef,
    /// How that plan stands, while it is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStatus>,
    /// How the plan stands that is tried on live records, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Standing>,
    /// What records took of this process under the two newest plans that made some, the newer one last.
    #[serde(default)]
    pub costs: Vec<Cost>,
    /// A newer plan that cannot run in this process, which reads nothing until it can.
    pub not_ready: Option<u64>,
    /// Since the process began to run it, in milliseconds.
    pub running_ms: u64,
    /// It was told to stop, and finishes what is under way.
    pub ending: bool,
    /// Who wants nothing to be read at all, if somebody does.
    pub paused: Option<By>,
    /// Of which partitions nothing is to be read besides, and who wants that.
    pub paused_partitions: Vec<PausedPartition>,
    /// Partitions of which every sink has all, since the process began.
    pub finished: u64,
    /// The partitions that this process has, and those that stopped, in their order.
    pub partitions: Vec<Partition>,
    /// What became of the records of this process.
    pub records: Records,
    /// In the pipeline's order.
    pub sinks: Vec<SinkStatus>,
    /// The bytes of records under way.
    pub budget: BudgetStatus,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// The file it stands for, if it does.
    pub input: Option<String>,
    /// What it does.
    pub state: State,
    /// What went wrong, if something did: why it waits, why it is claimed again, why it stopped.
    pub trouble: Option<TroubleStatus>,
    /// Up to where the source was heard.
    pub read: Option<Offset>,
    /// Where the partition ends, as far as that is known: of a topic, as last seen, at most a second or so ago.
    pub end: Option<Offset>,
    /// Per sink, what it has for certain; empty before all sinks were claimed.
    pub committed: BTreeMap<Arc<str>, Offset>,
    /// The newest plan that made an offset of it.
    pub plan: Option<u64>,
    /// Where a batch failed and it is being found out which of its records are to blame, how far that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judging: Option<Judging>,
}

/// A plan that was put while records flow, and may be taken back. All counts are of this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// Its number.
    pub plan: u64,
    /// Records that it made.
    pub records: u64,
    /// After so many it stays.
    pub of: u64,
    /// Records of them that were refused with a reason.
    pub rejected: u64,
    /// Records of them at which the transform failed.
    pub failed: u64,
    /// Records that it is compared with: those that the plan before made last.
    pub records_before: u64,
    /// Records of those that were refused with a reason.
    pub rejected_before: u64,
    /// Records of those at which the transform failed.
    pub failed_before: u64,
    /// Why it is being taken back, once that is decided.
    pub taken_back: Option<String>,
}

impl TrialStatus {
    /// In one line.
    pub fn told(&self) -> String {
        let plan = self.plan;
        if let Some(why) = &self.taken_back {
            return format!("plan {plan} is being taken back: {why}");
        }
        let part = |what: &str, n: u64, before: u64| {
            let before = match self.records_before {
                0 => "not known".to_owned(),
                of => percent(before, of),
            };
            format!("{} {what} (before: {before})", percent(n, self.records))
        };
        let (records, of) = (grouped(self.records), grouped(self.of));
        let rejected = part("rejected", self.rejected, self.rejected_before);
        let failed = part("failed", self.failed, self.failed_before);
        format!("plan {plan} on trial: {records} of {of} records, {rejected}, {failed}")
    }
}

/// What records took under one plan, in this process: to make them, once or again, and to find out which are to blame where
/// a batch fails, with the instances that are started for that. What it took to take the plan up, and to look at batches twice,
/// does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Its number.
    pub plan: u64,
    /// So many records.
    pub records: u64,
    /// So many nanoseconds of a processor.
    pub cpu_ns: u64,
}

impl Cost {
    /// Of one record, in microseconds.
    pub fn per_record_us(&self) -> f64 {
        self.cpu_ns as f64 / self.records.max(1) as f64 / 1e3
    }
}

/// A partition of which nothing is to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedPartition {
    /// The partition, as the plan log knows it.
    pub of: InputPartition,
    /// Who wants that, and since when.
    pub by: By,
}

/// What a partition does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The sinks are being claimed, one after the other.
    Claiming,
    /// The newest plan cannot run in this process, could not make the next records or is being taken back, or a sink has
    /// rows of one that this process has not read yet.
    NeedsPlan,
    /// Records flow.
    Running,
    /// A sink or the source did not do what it was asked; it is asked again after a while.
    Waiting,
    /// Somebody wants nothing more to be read of it; what is under way is being finished and committed.
    Pausing,
    /// Somebody wants nothing more to be read of it, and nothing is under way.
    Paused,
    /// What is under way is finished and committed; no more is taken in.
    Draining,
    /// It goes on only when somebody changed something and started it again.
    Stopped,
}

impl State {
    /// Every one there is, in this order.
    pub const ALL: [Self; 8] = [
        Self::Claiming,
        Self::NeedsPlan,
        Self::Running,
        Self::Waiting,
        Self::Pausing,
        Self::Paused,
        Self::Draining,
        Self::Stopped,
    ];

    /// As it is called wherever it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Claiming => "claiming",
            Self::NeedsPlan => "needs-plan",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// What went wrong with a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleStatus {
    /// With the code first where there is one.
    pub text: String,
    /// What a person can do.
    pub hint: Option<String>,
    /// The sink, if it is one that is asked again.
    pub sink: Option<Arc<str>>,
    /// How often it was tried without a commit in between.
    pub times: u32,
    /// Since the first of them, in milliseconds.
    pub for_ms: u64,
    /// Until the next, in milliseconds, while it waits.
    pub again_in_ms: Option<u64>,
}

/// What became of records. Every one that was taken in has exactly one fate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Taken in that at least one sink did not have.
    pub taken: u64,
    /// With a row on some route.
    pub routed: u64,
    /// Refused with a reason.
    pub rejected: u64,
    /// Left out on purpose.
    pub dropped: u64,
    /// At which the transform failed.
    pub failed: u64,
    /// Whether taken = routed + rejected + dropped + failed.
    pub conserved: bool,
    /// Per route, the records with a row on it.
    pub routes: BTreeMap<Arc<str>, u64>,
    /// Per reason, the records refused for it first.
    pub reasons: BTreeMap<Arc<str>, u64>,
    /// That a sink was not given because it had them.
    pub skipped: u64,
    /// Of which a sink was given nothing because they came again for a row in another one.
    #[serde(default)]
    pub elsewhere: u64,
    /// Batches made again for a sink that lags, with a plan older than the newest.
    pub replayed_older: u64,
    /// Partitions that were lost to another owner.
    pub lost: u64,
    /// Partitions that began again after a sink failed.
    pub restarted: u64,
}

/// One sink, as far as this process has to do with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name in the pipeline.
    pub name: Arc<str>,
    /// Per target, the rows that were committed.
    pub rows: BTreeMap<Arc<str>, u64>,
    /// The records of those commits that were left out on purpose.
    #[serde(default)]
    pub dropped: u64,
    /// What its writer counted.
    pub writer: WriterStats,
    /// What it counted itself.
    pub own: SinkCounts,
    /// How long it was busy with what it was asked, in milliseconds; the rest of the time it waited for rows.
    pub busy_ms: u64,
    /// For how long it has been busy with one call by now, in milliseconds.
    pub calling_ms: Option<u64>,
}

/// What a sink counts itself, since the process began; 0 where it has nothing of the kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkCounts {
    /// Rows that a database refused for what is in them; they are in its table of rejects.
    pub refused: u64,
    /// Rows of tables with keys behind which another one of the same commit had their key.
    pub superseded: u64,
    /// Files that a predecessor had committed and this process made visible.
    pub rolled_forward: u64,
}

/// The byte budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// Held now.
    pub used_bytes: u64,
    /// That may be held.
    pub limit_bytes: u64,
}

/// A call to a sink that takes longer than this is worth telling.
const LONG_CALL_MS: u64 = 30_000;

impl Status {
    /// How a pipeline stands that has not begun to run.
    pub fn before(settings: &Settings, history: &History, newest: &PlanRef) -> Self {
        Core::new(settings.clone(), history.clone(), newest.clone()).status(Duration::ZERO)
    }

    /// Why somebody should look at it; empty if it does what it is there for.
    pub fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.ending {
            found.push("it was told to stop".to_owned());
        }
        found.extend(self.paused.iter().map(|by| format!("it was paused by {}", by.who)));
        found.extend(self.partitions.iter().filter_map(Partition::complaint));
        for sink in &self.sinks {
            if let Some(ms) = sink.calling_ms.filter(|ms| *ms >= LONG_CALL_MS) {
                found.push(format!("sink {} has been busy with one call for {} s", sink.name, ms / 1000));
            }
        }
        found
    }
}

impl Status {
    /// What a record costs under the plan that made some last, and under the one before, in one line.
    pub fn cost_told(&self) -> Option<String> {
        let (newest, before) = self.costs.split_last()?;
        let before = before.last().map_or_else(String::new, |cost| {
            format!(" (plan {}: {:.2} µs)", cost.plan, cost.per_record_us())
        });
        let (plan, us) = (newest.plan, newest.per_record_us());
        Some(format!("processor time per record: {us:.2} µs under plan {plan}{before}"))
    }
}

impl Partition {
    fn new(at: &TopicPartition, state: State) -> Self {
        Self {
            topic: at.topic.clone(),
            partition: at.partition,
            input: None,
            state,
            trouble: None,
            read: None,
            end: None,
            committed: BTreeMap::new(),
            plan: None,
            judging: None,
        }
    }

    /// As it is written everywhere.
    pub fn at(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.partition)
    }

    /// How many offsets the sink that is furthest behind does not have, where the end is known.
    pub fn lag(&self) -> Option<u64> {
        let least = self.committed.values().min()?;
        Some(self.end?.since(*least))
    }

    /// What it does and why, in one line.
    pub fn told(&self) -> String {
        let word = self.state.word();
        match (self.state, &self.trouble) {
            (State::Waiting, Some(TroubleStatus { sink, text, for_ms, .. })) => {
                let whom =
                    sink.as_ref().map_or_else(|| "the source".to_owned(), |sink| format!("sink {sink}"));
                format!("waiting for {whom} for {} s: {text}", for_ms / 1000)
            }
            (_, Some(trouble)) => format!("{word}: {}", trouble.text),
            (_, None) => match self.judging {
                Some(Judging { records, failed }) => {
                    format!(
                        "{word}: the transform failed at {failed} of the first {records} records of a batch"
                    )
                }
                None => word.to_owned(),
            },
        }
    }

    fn complaint(&self) -> Option<String> {
        match self.state {
            State::Running | State::Draining => None,
            State::Pausing
            | State::Paused
            | State::Claiming
            | State::NeedsPlan
            | State::Waiting
            | State::Stopped => Some(format!("{}: {}", self.at(), self.told())),
        }
    }
}

impl Core {
    /// How it stands. Of the sinks it knows what they committed; the rest is for whoever runs them to fill in.
    pub fn status(&self, now: Duration) -> Status {
        let tracks = self.tracks.iter().map(|(at, track)| (at, self.flowing(at, track, now)));
        let waiting = self.waiting.keys().map(|at| (at, self.waiting(at, now)));
        let stopped = self.stopped.iter().map(|(at, stop)| (at, stopped(at, stop)));
        // A partition is in one of these at most, but for one that stopped on its way through the last two.
        let partitions: BTreeMap<_, _> = stopped.chain(waiting).chain(tracks).collect();
        Status {
            pipeline: self.settings.pipeline.clone(),
            plan: self.newest.clone(),
            trial: self.trials.status(self.judged_so_far(), now),
            shadow: None,
            costs: Vec::new(),
            not_ready: self.not_ready.as_ref().map(|not_ready| not_ready.plan),
            running_ms: milliseconds(now),
            ending: self.stopping,
            paused: self.history.paused.clone(),
            paused_partitions: self.history.paused_partitions.iter().map(PausedPartition::of).collect(),
            finished: self.finished,
            partitions: partitions.into_values().collect(),
            records: Records::of(&self.tally),
            sinks: self.settings.sinks.iter().zip(&self.counted).map(SinkStatus::of).collect(),
            budget: BudgetStatus::default(),
        }
    }

    fn flowing(&self, at: &TopicPartition, track: &Track, now: Duration) -> Partition {
        let state = match track.phase {
            Phase::Unclaimed => State::Paused,
            Phase::Claiming => State::Claiming,
            Phase::NeedsPlan(_) | Phase::NeedsCuts(_) => State::NeedsPlan,
            Phase::Running if !track.held => State::Running,
            Phase::Running if self.not_ready.is_some() || self.trials.is_taking_back() => State::NeedsPlan,
            Phase::Running if track.is_released() && track.is_committed() => State::Paused,
            Phase::Running => State::Pausing,
            Phase::Draining(_) => State::Draining,
        };
        let told = self.troubles.get(at).map(|trouble| trouble.status(now));
        let stopping = match &track.phase {
            Phase::Draining(stop) => stop.as_ref().map(TroubleStatus::of),
            Phase::NeedsCuts(asked) => Some(TroubleStatus::of(&asked.stop)),
            Phase::NeedsPlan(asked) => {
                let why = self.not_ready.as_ref().map_or(&asked.stop, |not_ready| &not_ready.stop);
                Some(TroubleStatus::of(why))
            }
            Phase::Running if track.held => {
                self.not_ready.as_ref().map(|not_ready| TroubleStatus::of(&not_ready.stop))
            }
            _ => None,
        };
        let committed =
            self.settings.sinks.iter().cloned().zip(track.position().into_iter().flatten().copied());
        Partition {
            input: track.assignment.input.as_ref().map(|input| input.path.clone()),
            trouble: stopping.or(told),
            read: track.heard(),
            end: track
                .end
                .map(|end| end.offset)
                .or(track.seen.map(|seen| track.heard().unwrap_or(seen).max(seen))),
            committed: committed.collect(),
            plan: track.newest_plan(),
            judging: Some(track.judged_so_far()).filter(|judging| judging.failed > 0),
            ..Partition::new(at, state)
        }
    }

    fn waiting(&self, at: &TopicPartition, now: Duration) -> Partition {
        let waiting = &self.waiting[at];
        if waiting.past.is_some() {
            let trouble = Some(TroubleStatus::of(&waiting.stop));
            return Partition { trouble, ..Partition::new(at, State::NeedsPlan) };
        }
        let again = milliseconds(waiting.until.saturating_sub(now));
        let told = self.troubles.get(at).map(|trouble| trouble.status(now));
        Partition {
            input: waiting.assignment.input.as_ref().map(|input| input.path.clone()),
            trouble: told.map(|told| TroubleStatus { again_in_ms: Some(again), ..told }),
            ..Partition::new(at, State::Waiting)
        }
    }
}

fn stopped(at: &TopicPartition, stop: &Stop) -> Partition {
    Partition { trouble: Some(TroubleStatus::of(stop)), ..Partition::new(at, State::Stopped) }
}

impl Trouble {
    fn status(&self, now: Duration) -> TroubleStatus {
        TroubleStatus {
            text: self.why.text.clone(),
            hint: self.why.hint.clone(),
            sink: self.why.sink.clone(),
            times: self.times,
            for_ms: milliseconds(now.saturating_sub(self.since)),
            again_in_ms: None,
        }
    }
}

impl TroubleStatus {
    fn of(stop: &Stop) -> Self {
        let (text, hint) = (stop.text.clone(), stop.hint.clone());
        Self { text, hint, sink: None, times: 0, for_ms: 0, again_in_ms: None }
    }
}

impl PausedPartition {
    fn of((of, by): (&InputPartition, &By)) -> Self {
        Self { of: of.clone(), by: by.clone() }
    }
}

impl Records {
    /// What is counted while records flow, for whoever looks.
    pub fn of(tally: &Tally) -> Self {
        Self {
            taken: tally.records,
            routed: tally.n_routed,
            rejected: tally.n_rejected,
            dropped: tally.dropped,
            failed: tally.failed,
            conserved: tally.conserved(),
            routes: tally.routed.clone(),
            reasons: tally.rejected.clone(),
            skipped: tally.skipped,
            elsewhere: tally.elsewhere,
            replayed_older: tally.replayed_older,
            lost: tally.lost,
            restarted: tally.restarted,
        }
    }

    /// Adds what another process counted.
    pub fn add(&mut self, other: &Self) {
        let counts = [
            (&mut self.taken, other.taken),
            (&mut self.routed, other.routed),
            (&mut self.rejected, other.rejected),
            (&mut self.dropped, other.dropped),
            (&mut self.failed, other.failed),
            (&mut self.skipped, other.skipped),
            (&mut self.elsewhere, other.elsewhere),
            (&mut self.replayed_older, other.replayed_older),
            (&mut self.lost, other.lost),
            (&mut self.restarted, other.restarted),
        ];
        counts.into_iter().for_each(|(count, more)| *count += more);
        for (ours, theirs) in [(&mut self.routes, &other.routes), (&mut self.reasons, &other.reasons)] {
            theirs.iter().for_each(|(name, n)| *ours.entry(name.clone()).or_default() += n);
        }
        self.conserved &= other.conserved;
    }
}

impl SinkStatus {
    fn of((name, counted): (&Arc<str>, &Counters)) -> Self {
        let (name, dropped) = (name.clone(), counted.dropped);
        let rows = counted.targets.iter().map(|(target, of)| (target.clone(), of.rows)).collect();
        let (writer, own) = (WriterStats::default(), SinkCounts::default());
        Self { name, rows, dropped, writer, own, busy_ms: 0, calling_ms: None }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Report;
    use crate::pipeline::Event;
    use crate::pipeline::rig::{Rig, at};
    use crate::sink::state::{Commit, Nonce, TargetCounters};
    use crate::sink::{Error, Problem};
    use crate::source::{RunId, SourceEvent};

    const NOW: Duration = Duration::from_secs(100);

    fn fail(rig: &mut Rig, sink: usize, run: RunId) {
        let error = Error::Transient(Problem::new("the disk is full"));
        rig.decide(Event::Sink { sink, report: Report::Broken { at: at(), run, error } });
    }

    fn only(rig: &Rig) -> Partition {
        let [partition] = &rig.core.status(rig.now).partitions[..] else { panic!("one partition") };
        partition.clone()
    }

    fn rig() -> Rig {
        let mut rig = Rig::new();
        rig.now = NOW;
        rig
    }

    #[test]
    fn a_partition_tells_what_it_does_and_where_each_sink_stands() {
        let mut rig = rig();
        let claims = rig.assign();
        let claiming = only(&rig);
        assert_eq!((claiming.state, claiming.read, claiming.committed.len()), (State::Claiming, None, 0));
        assert_eq!(claiming.input.as_deref(), Some("a.csv"));
        let run = rig.claim(claims);
        rig.batch(run, 0, 5);
        let running = only(&rig);
        assert_eq!((running.state, running.told().as_str()), (State::Running, "running"));
        assert_eq!((running.read, running.plan, running.lag()), (Some(Offset::new(5)), Some(3), None));
        let expected = BTreeMap::from([("lake".into(), Offset::ZERO), ("base".into(), Offset::ZERO)]);
        assert_eq!(running.committed, expected);
        rig.decide(Event::Source(SourceEvent::Seen(vec![(at(), Offset::new(9))])));
        assert_eq!((only(&rig).end, only(&rig).lag()), (Some(Offset::new(9)), Some(9)));
        assert!(rig.core.status(NOW).complaints().is_empty());
    }

    #[test]
    fn a_sink_that_fails_is_named_with_why_and_since_when_until_a_commit_goes_well() {
        let mut rig = rig();
        let claims = rig.assign();
        let run = rig.claim(claims);
        fail(&mut rig, 1, run);
        rig.now += Duration::from_secs(2);
        let waiting = only(&rig);
        assert_eq!(waiting.told(), "waiting for sink base for 2 s: the disk is full");
        assert_eq!(waiting.trouble.as_ref().and_then(|trouble| trouble.again_in_ms), Some(0));
        let complaints = rig.core.status(NOW).complaints();
        assert_eq!(complaints, ["t/7: waiting for sink base for 0 s: the disk is full"]);
        rig.now += Duration::from_secs(1);
        let claims = rig.decide(Event::Tick);
        let run = rig.claim(claims);
        let again = only(&rig);
        assert_eq!((again.state, again.trouble.map(|trouble| trouble.for_ms)), (State::Running, Some(3000)));
        let targets = BTreeMap::from([("ta".into(), TargetCounters { rows: 4, sum: 0 })]);
        let commit = Commit {
            id: Nonce::from_u128(5),
            range: crate::offset::OffsetRange::new(Offset::ZERO, Offset::new(5)),
            plan: PlanRef { plan: 3, digest: "sha256:ab".into() },
            counters: Counters { targets, dropped: 1, ..Counters::default() },
            last: None,
            told: 0,
        };
        rig.decide(Event::Sink { sink: 1, report: Report::Committed { at: at(), run, commit } });
        assert_eq!(only(&rig).trouble, None);
        let status = rig.core.status(NOW);
        assert_eq!(status.partitions[0].committed["base"], Offset::new(5));
        assert_eq!((&status.sinks[0].rows, status.sinks[1].rows["ta"]), (&BTreeMap::new(), 4));
        assert_eq!((status.sinks[0].dropped, status.sinks[1].dropped), (0, 1));
    }

    #[test]
    fn a_partition_that_stopped_is_told_until_it_is_somebody_elses() {
        let mut rig = rig();
        let claims = rig.assign();
        let run = rig.claim(claims);
        let error = Error::Permanent(Problem::new("E_SINK_SCHEMA: no column").hint("add it"));
        rig.decide(Event::Sink { sink: 0, report: Report::Broken { at: at(), run, error } });
        let stopped = only(&rig);
        assert_eq!(stopped.told(), "stopped: sink lake: E_SINK_SCHEMA: no column");
        assert_eq!(stopped.trouble.and_then(|trouble| trouble.hint).as_deref(), Some("add it"));
        rig.decide(Event::Source(SourceEvent::Lost(at())));
        assert_eq!(rig.core.status(NOW).partitions, []);
    }

    #[test]
    fn a_status_reads_as_it_was_written() {
        let mut rig = rig();
        let claims = rig.assign();
        let run = rig.claim(claims);
        fail(&mut rig, 0, run);
        let status = rig.core.status(NOW);
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains(r#""state":"waiting""#), "{text}");
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
    }

    #[test]
    fn what_a_record_costs_is_told_beside_what_it_cost_before() {
        let mut status = rig().core.status(NOW);
        assert_eq!(status.cost_told(), None);
        status.costs.push(Cost { plan: 0, records: 10, cpu_ns: 4_200 });
        assert_eq!(status.cost_told().unwrap(), "processor time per record: 0.42 µs under plan 0");
        status.costs.push(Cost { plan: 2, records: 3, cpu_ns: 150_000 });
        assert_eq!(
            status.cost_told().unwrap(),
            "processor time per record: 50.00 µs under plan 2 (plan 0: 0.42 µs)"
        );
    }

    #[test]
    fn a_call_that_takes_long_is_worth_a_complaint() {
        let mut status = rig().core.status(NOW);
        status.sinks[1].calling_ms = Some(29_999);
        assert!(status.complaints().is_empty());
        status.sinks[1].calling_ms = Some(31_000);
        assert_eq!(status.complaints(), ["sink base has been busy with one call for 31 s"]);
    }
}
