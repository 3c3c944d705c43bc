//! Whether a plan that somebody put stays. It is told what becomes of records, and says when a plan does
//! so much worse than the one before that it is taken back, and why. Pure; it takes nothing back itself.
//!
//! A plan is on trial for its first records. Only what it does *worse* counts, and more than chance explains: that a pipeline
//! has always rejected a fifth of its records says nothing of a new plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Stop;
use super::status::TrialStatus;
use crate::offset::{Offset, TopicPartition};
use crate::route::{Fate, Routed};
use crate::rule::Judging;
use crate::sink::state::Counters;

/// When a plan is taken back by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// A plan that made so many records in this process has passed.
    pub records: u64,
    /// So has one that made its first so long ago, and has made as many since as it takes to judge it.
    pub time: Duration,
    /// The part of records by which it may reject more than the plan before.
    pub rejected: f64,
    /// The part of records by which it may fail at more.
    pub failed: f64,
}

/// No plan is judged by less, so that one bad record does not decide. One that stops a partition need not be judged.
const MINIMUM: u64 = 100;

/// How many standard deviations chance may explain. A plan is looked at again with each batch, so it has many chances.
const CHANCE: f64 = 3.0;

/// What became of records of a plan, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    records: u64,
    rejected: u64,
    failed: u64,
}

/// A plan is to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TakenBack {
    pub(super) plan: u64,
    /// The plan that did what is to be done again.
    pub(super) to: u64,
    pub(super) why: String,
}

/// The plan that is on trial, if one is, and what it is compared with.
#[derive(Debug)]
pub(super) struct Trials {
    limits: Option<Limits>,
    /// The newest plan that was not on trial, or passed.
    trusted: u64,
    /// What became of its last records.
    before: Counts,
    /// What the sinks counted under all plans before this process began, where it begins with one on trial: of how many records,
    /// and at how many of them a transform failed. What was rejected is left out: it says nothing of what comes in now.
    ever: Counts,
    /// The partitions of which that is known.
    known_of: BTreeSet<TopicPartition>,
    trial: Option<Trial>,
    taken_back: Option<u64>,
}

#[derive(Debug)]
struct Trial {
    plan: u64,
    /// When it made its first records.
    since: Option<Duration>,
    counts: Counts,
    /// Up to where the records of each partition are counted: they may come again, after a sink failed.
    counted: BTreeMap<TopicPartition, Offset>,
    /// Why it is being taken back, once that is decided.
    taken_back: Option<String>,
}

impl Trials {
    /// Of a process that begins with `plan`, which may be on trial still: then `before` is the plan that it is taken back to.
    pub(super) fn new(limits: Option<Limits>, plan: u64, before: Option<u64>) -> Self {
        let trusted = before.unwrap_or(plan);
        let mut trials = Self {
            limits,
            trusted,
            before: Counts::default(),
            ever: Counts::default(),
            known_of: BTreeSet::new(),
            trial: None,
            taken_back: None,
        };
        if before.is_some() {
            trials.put(plan, true, Duration::ZERO);
        }
        trials
    }

    /// What a sink has counted of a partition by the time that this process begins with it.
    pub(super) fn counted_before(&mut self, at: &TopicPartition, counters: &Counters) {
        if self.known_of.insert(at.clone()) {
            self.ever.records += counters.records_in;
            self.ever.failed += counters.failed;
        }
    }

    /// A plan takes the place of the one that ran.
    pub(super) fn put(&mut self, plan: u64, on_trial: bool, now: Duration) {
        self.settle(now);
        let before = self.trial.take();
        if on_trial && self.limits.is_some() {
            let (since, counts, counted, taken_back) = (None, Counts::default(), BTreeMap::new(), None);
            self.trial = Some(Trial { plan, since, counts, counted, taken_back });
            return;
        }
        self.trusted = plan;
        // One that takes another back does what was done before that; of any other nothing is known yet.
        if before.is_none_or(|trial| trial.taken_back.is_none()) {
            self.before = Counts::default();
        }
    }

    /// Records became what `routed` says, for the first time: whether that is reason to take the plan back.
    pub(super) fn made(&mut self, routed: &Routed, now: Duration) -> Option<TakenBack> {
        let limits = self.limits?;
        self.settle(now);
        let plan = routed.plan.plan;
        if plan == self.trusted {
            self.before.add(routed, Offset::ZERO);
            self.before.forget_past(limits.records);
        }
        let trial = self.trial.as_mut().filter(|trial| trial.plan == plan && trial.taken_back.is_none())?;
        let counted = trial.counted.entry(routed.at.clone()).or_insert(Offset::ZERO);
        trial.counts.add(routed, *counted);
        *counted = routed.range.end.max(*counted);
        trial.since.get_or_insert(now);
        let why = worse(&limits, trial.plan, &trial.counts, &self.before, &self.ever)?;
        Some(self.take_back(why))
    }

    /// The plan that is on trial and not being taken back, if there is one.
    pub(super) fn plan(&self) -> Option<u64> {
        self.trial.as_ref().filter(|trial| trial.taken_back.is_none()).map(|trial| trial.plan)
    }

    /// Besides the records that it made, the plan on trial made or failed at so many of batches that are not through:
    /// whether that is reason to take it back.
    pub(super) fn judging(&mut self, so_far: Judging, now: Duration) -> Option<TakenBack> {
        let limits = self.limits?;
        self.settle(now);
        let trial = self.trial.as_mut().filter(|trial| trial.taken_back.is_none())?;
        trial.since.get_or_insert(now);
        let why = worse(&limits, trial.plan, &trial.counts.and(so_far), &self.before, &self.ever)?;
        Some(self.take_back(why))
    }

    /// A batch of `plan` could not be transformed: whether that is reason to take it back.
    pub(super) fn stopped(&mut self, plan: u64, stop: &Stop, now: Duration) -> Option<TakenBack> {
        self.settle(now);
        let trial = self.trial.as_ref().filter(|trial| trial.plan == plan && trial.taken_back.is_none())?;
        let why = format!("after {} records of plan {plan}: {stop}", grouped(trial.counts.records));
        Some(self.take_back(why))
    }

    fn take_back(&mut self, why: String) -> TakenBack {
        let trial = self.trial.as_mut().expect("it is on trial");
        trial.taken_back = Some(why.clone());
        self.taken_back = Some(trial.plan);
        TakenBack { plan: trial.plan, to: self.trusted, why }
    }

    /// Whether another plan may do what this one could not, or will: it is being taken back, or `newest` came since.
    pub(super) fn may_be_mended(&self, plan: u64, newest: u64) -> bool {
        self.limits.is_some() && (plan < newest || self.taken_back == Some(plan))
    }

    /// Whether nothing is to be read, since the plan that would make it is being taken back.
    pub(super) fn is_taking_back(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.taken_back.is_some())
    }

    /// The plan that was taken back last: what it has not made by then goes to another.
    pub(super) fn taken_back(&self) -> Option<u64> {
        self.taken_back
    }

    /// A plan could not be taken back: it stays, and is not on trial any more.
    pub(super) fn kept(&mut self, plan: u64) {
        self.trial.take_if(|trial| trial.plan == plan && trial.taken_back.is_some());
        self.taken_back.take_if(|taken_back| *taken_back == plan);
    }

    /// How the plan on trial stands, with what is known of batches that are not through.
    pub(super) fn status(&self, so_far: Judging, now: Duration) -> Option<TrialStatus> {
        let trial = self.trial.as_ref().filter(|trial| !self.has_passed(trial, now))?;
        let (counts, before) = (trial.counts.and(so_far), &self.before);
        Some(TrialStatus {
            plan: trial.plan,
            records: counts.records,
            of: self.limits?.records,
            rejected: counts.rejected,
            failed: counts.failed,
            records_before: before.records,
            rejected_before: before.rejected,
            failed_before: before.failed,
            taken_back: trial.taken_back.clone(),
        })
    }

    /// Ends the trial of a plan that has passed.
    fn settle(&mut self, now: Duration) {
        let passed = self.trial.as_ref().is_some_and(|trial| self.has_passed(trial, now));
        if let Some(trial) = self.trial.take_if(|_| passed) {
            tracing::info!(
                plan = trial.plan,
                records = trial.counts.records,
                "the plan stays: it passed its trial"
            );
            (self.trusted, self.before) = (trial.plan, trial.counts);
        }
    }

    fn has_passed(&self, trial: &Trial, now: Duration) -> bool {
        let (Some(limits), Some(since)) = (&self.limits, trial.since) else { return false };
        let (records, enough) = (trial.counts.records, minimum(limits));
        let late = now >= since.saturating_add(limits.time);
        trial.taken_back.is_none() && (records >= limits.records || late && records >= enough)
    }
}

impl Counts {
    /// Those of `routed` from `from` on.
    fn add(&mut self, routed: &Routed, from: Offset) {
        let first = routed.fates.partition_point(|(offset, _)| *offset < from);
        for (_, fate) in &routed.fates[first..] {
            self.records += 1;
            self.rejected += u64::from(matches!(fate, Fate::Rejected));
            self.failed += u64::from(matches!(fate, Fate::Failed));
        }
    }

    /// These, and what is known of batches that are not through.
    fn and(self, so_far: Judging) -> Self {
        Self { records: self.records + so_far.records, failed: self.failed + so_far.failed, ..self }
    }

    /// What was long ago weighs less: what comes in may have changed since.
    fn forget_past(&mut self, records: u64) {
        if self.records >= records.saturating_mul(2).max(2 * MINIMUM) {
            let Self { records, rejected, failed } = self;
            [records, rejected, failed].into_iter().for_each(|count| *count /= 2);
        }
    }
}

fn minimum(limits: &Limits) -> u64 {
    limits.records.min(MINIMUM)
}

/// In what a plan does worse than the one before, if it does; where nothing is known of that one, than all there were `ever`.
fn worse(limits: &Limits, plan: u64, now: &Counts, before: &Counts, ever: &Counts) -> Option<String> {
    let least = minimum(limits);
    if now.records < least {
        return None;
    }
    let known = before.records >= least;
    // What comes in changes with time, and what is rejected of it. That a transform fails is unusual at any time.
    let rejected =
        known && is_more(now.rejected, now.records, before.rejected, before.records, limits.rejected);
    let (failed_before, of) = match (known, ever.records >= least) {
        (true, _) => (before.failed, before.records),
        (false, true) => (ever.failed, ever.records),
        (false, false) => (0, u64::MAX),
    };
    let failed = is_more(now.failed, now.records, failed_before, of, limits.failed);
    let (what, is, was) = match (rejected, failed) {
        (_, true) => ("failed", now.failed, before.failed),
        (true, false) => ("rejected", now.rejected, before.rejected),
        (false, false) => return None,
    };
    let was = match known {
        true => format!("{} before", percent(was, before.records)),
        false if ever.records >= least => format!("{} ever before", percent(ever.failed, ever.records)),
        false => "nothing is known of before".to_owned(),
    };
    let (is, n) = (percent(is, now.records), grouped(now.records));
    Some(format!("{is} {what} in the first {n} records of plan {plan}, {was}"))
}

/// Whether `bad` of `n` are more than `bad_before` of `n_before` by more than the part `by` and what chance explains.
fn is_more(bad: u64, n: u64, bad_before: u64, n_before: u64, by: f64) -> bool {
    let (bad, n, bad_before, n_before) = (bad as f64, n as f64, bad_before as f64, n_before as f64);
    let expected = (bad_before / n_before + by) * n;
    // As of counts of rare things, with one more of each, so that none does not pass for certain.
    let variance = expected + 1.0 + (n / n_before).powi(2) * (bad_before + 1.0);
    bad > expected + CHANCE * variance.sqrt()
}

/// `12.0 %`
pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// `10,000`
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Report;
    use crate::offset::OffsetRange;
    use crate::pipeline::rig::{Rig, at, routed};
    use crate::pipeline::status::State;
    use crate::pipeline::{Action, Event, GiveUp};
    use crate::sink::state::{Commit, Nonce, PlanRef};
    use crate::source::{self, RunId, SourceEvent};

    const LIMITS: Limits =
        Limits { records: 10_000, time: Duration::from_secs(60), rejected: 0.05, failed: 0.001 };
    const BEGUN: Duration = Duration::from_secs(5);

    /// Records of which the first are rejected and the next failed at, as many as are not routed, behind `from`.
    fn fates(plan: u64, from: i64, n: u64, rejected: u64, failed: u64) -> Routed {
        let fate = |i| match i {
            i if i < rejected => Fate::Rejected,
            i if i < rejected + failed => Fate::Failed,
            _ => Fate::Routed,
        };
        routed(plan, from, (0..n).map(fate))
    }

    /// Plan 3 made `n` records, and plan 7 is put to take its place.
    fn trials(n: u64, rejected: u64, failed: u64) -> Trials {
        let mut trials = Trials::new(Some(LIMITS), 3, None);
        assert_eq!(trials.made(&fates(3, 0, n, rejected, failed), BEGUN), None);
        trials.put(7, true, BEGUN);
        trials
    }

    fn is_on_trial(trials: &Trials, now: Duration) -> bool {
        trials.status(Judging::default(), now).is_some()
    }

    #[test]
    fn only_what_a_plan_does_worse_than_the_one_before_counts() {
        assert_eq!(trials(1_000, 200, 0).made(&fates(7, 1_000, 1_000, 230, 0), BEGUN), None);
        let back = trials(1_000, 10, 0).made(&fates(7, 1_000, 1_000, 120, 0), BEGUN).unwrap();
        assert_eq!((back.plan, back.to), (7, 3));
        assert_eq!(back.why, "12.0 % rejected in the first 1,000 records of plan 7, 1.0 % before");
    }

    #[test]
    fn a_transform_that_fails_at_one_in_a_hundred_is_taken_back() {
        let back = trials(1_000, 10, 0).made(&fates(7, 1_000, 1_000, 10, 10), BEGUN).unwrap();
        assert_eq!(back.why, "1.0 % failed in the first 1,000 records of plan 7, 0.0 % before");
    }

    #[test]
    fn a_few_bad_records_decide_nothing_however_early_they_come() {
        assert_eq!(trials(1_000, 0, 0).made(&fates(7, 0, 99, 0, 99), BEGUN), None);
        assert_eq!(trials(1_000, 0, 0).made(&fates(7, 0, 100, 0, 1), BEGUN), None);
        assert_eq!(trials(1_000, 0, 0).made(&fates(7, 0, 200, 8, 0), BEGUN), None);
    }

    #[test]
    fn where_nothing_is_known_of_before_rejects_decide_nothing_and_failures_do() {
        assert_eq!(trials(99, 0, 0).made(&fates(7, 0, 1_000, 900, 0), BEGUN), None);
        let back = trials(0, 0, 0).made(&fates(7, 0, 1_000, 0, 20), BEGUN).unwrap();
        assert!(back.why.ends_with("nothing is known of before"), "{}", back.why);
    }

    #[test]
    fn a_plan_that_stops_a_partition_is_taken_back_at_its_first_record() {
        let back = trials(0, 0, 0).stopped(7, &Stop::new("E_STALL: no end"), BEGUN).unwrap();
        assert_eq!(back.why, "after 0 records of plan 7: E_STALL: no end");
        assert_eq!(trials(0, 0, 0).stopped(3, &Stop::new("E_STALL: no end"), BEGUN), None);
    }

    #[test]
    fn a_plan_is_taken_back_once() {
        let mut trials = trials(1_000, 0, 0);
        assert!(trials.stopped(7, &Stop::new("a"), BEGUN).is_some() && trials.is_taking_back());
        assert_eq!(trials.stopped(7, &Stop::new("b"), BEGUN), None);
        assert_eq!(trials.made(&fates(7, 0, 1_000, 1_000, 0), BEGUN), None);
    }

    #[test]
    fn a_plan_passes_after_so_many_records_and_is_what_the_next_is_compared_with() {
        let mut trials = trials(1_000, 0, 0);
        assert_eq!(trials.made(&fates(7, 0, 10_000, 400, 0), BEGUN), None);
        assert!(!is_on_trial(&trials, BEGUN));
        assert_eq!(trials.stopped(7, &Stop::new("too late"), BEGUN), None);
        trials.put(9, true, BEGUN);
        assert_eq!(trials.made(&fates(9, 0, 1_000, 80, 0), BEGUN), None);
        assert_eq!(trials.stopped(9, &Stop::new("E_STALL"), BEGUN).map(|back| back.to), Some(7));
    }

    #[test]
    fn a_plan_passes_after_so_long_if_there_is_enough_to_judge_it_by() {
        let mut trials = trials(1_000, 0, 0);
        let late = BEGUN + LIMITS.time;
        assert!(is_on_trial(&trials, late), "it has made nothing");
        trials.made(&fates(7, 0, 99, 0, 0), BEGUN);
        assert!(is_on_trial(&trials, late), "it has made little");
        trials.made(&fates(7, 99, 1, 0, 0), BEGUN);
        assert!(is_on_trial(&trials, late - Duration::from_millis(1)) && !is_on_trial(&trials, late));
    }

    #[test]
    fn the_same_record_counts_once() {
        let mut trials = trials(1_000, 0, 0);
        for _ in 0..200 {
            assert_eq!(trials.made(&fates(7, 0, 1, 1, 0), BEGUN), None);
        }
        assert_eq!(trials.status(Judging::default(), BEGUN).map(|trial| trial.records), Some(1));
    }

    #[test]
    fn what_takes_a_plan_back_is_not_on_trial_and_knows_what_was_before() {
        let mut trials = trials(1_000, 200, 0);
        let back = trials.made(&fates(7, 0, 1_000, 900, 0), BEGUN).unwrap();
        assert_eq!(back.to, 3);
        trials.put(8, false, BEGUN);
        assert!(!is_on_trial(&trials, BEGUN) && !trials.is_taking_back());
        assert_eq!(trials.stopped(8, &Stop::new("E_STALL"), BEGUN), None);
        // The same again, by a person, is on trial again.
        trials.put(9, true, BEGUN);
        let back = trials.made(&fates(9, 0, 1_000, 900, 0), BEGUN).unwrap();
        assert_eq!((back.to, back.why.ends_with("20.0 % before")), (8, true));
    }

    #[test]
    fn a_plan_that_never_passed_is_not_what_is_gone_back_to() {
        let mut trials = trials(1_000, 0, 0);
        trials.put(9, true, BEGUN);
        assert_eq!(trials.stopped(9, &Stop::new("E_STALL"), BEGUN).map(|back| back.to), Some(3));
    }

    #[test]
    fn without_limits_nothing_is_on_trial() {
        let mut trials = Trials::new(None, 3, None);
        trials.put(7, true, BEGUN);
        assert_eq!(trials.made(&fates(7, 0, 1_000, 0, 1_000), BEGUN), None);
        assert_eq!(trials.stopped(7, &Stop::new("E_STALL"), BEGUN), None);
        assert!(!is_on_trial(&trials, BEGUN) && !trials.may_be_mended(3, 7));
    }

    #[test]
    fn what_was_long_ago_weighs_less() {
        let mut trials = Trials::new(Some(LIMITS), 3, None);
        trials.made(&fates(3, 0, 1_000_000, 0, 0), BEGUN);
        (0..20).for_each(|_| drop(trials.made(&fates(3, 0, 20_000, 4_000, 0), BEGUN)));
        trials.put(7, true, BEGUN);
        assert_eq!(trials.made(&fates(7, 0, 9_000, 1_800, 0), BEGUN), None);
    }

    /// A partition that runs plan 3, of which 200 records were made, and then plan 7 on trial; `fates` of 200 more.
    fn decided(fates: Result<Routed, Stop>) -> (Rig, RunId) {
        let mut rig = Rig::new();
        let run = decided_in(&mut rig, fates);
        (rig, run)
    }

    fn decided_in(rig: &mut Rig, fates: Result<Routed, Stop>) -> RunId {
        let claims = rig.assign();
        let run = rig.claim(claims);
        rig.batch(run, 0, 200);
        made(rig, run, 0, Ok(routed(3, 0, (0..200).map(|_| Fate::Routed))));
        rig.decide(Event::Plan { plan: plan(7), on_trial: true });
        rig.batch(run, 200, 400);
        rig.batch(run, 400, 401);
        rig.done();
        made(rig, run, 1, fates);
        run
    }

    fn plan(plan: u64) -> PlanRef {
        PlanRef { plan, digest: "sha256:ab".into() }
    }

    fn made(rig: &mut Rig, run: RunId, seq: u64, result: Result<Routed, Stop>) {
        let claims = rig.decide(Event::Transformed { at: at(), run, seq, result });
        assert!(claims.is_empty(), "{claims:?}");
    }

    /// What was behind comes out, and everything that the sinks were given is committed.
    fn commit(rig: &mut Rig, run: RunId, end: i64) {
        made(rig, run, 2, Ok(fates(7, 400, 1, 0, 0)));
        for sink in 0..2 {
            let commit = Commit {
                id: Nonce::from_u128(5),
                range: OffsetRange::new(Offset::ZERO, Offset::new(end)),
                plan: plan(3),
                counters: Counters::default(),
                last: None,
                told: 0,
            };
            rig.decide(Event::Sink { sink, report: Report::Committed { at: at(), run, commit } });
        }
    }

    fn release(rig: &mut Rig, run: RunId) {
        for sink in 0..2 {
            rig.decide(Event::Sink { sink, report: Report::Released { at: at(), run } });
        }
    }

    fn stall() -> Stop {
        Stop::new("E_STALL: no end")
    }

    /// The plan that is taken back, and the one that is to be done again.
    fn taken_back(done: &[Action]) -> Option<(u64, u64)> {
        done.iter().find_map(|action| match action {
            Action::TakeBack { plan, to, .. } => Some((*plan, *to)),
            _ => None,
        })
    }

    #[test]
    fn what_comes_again_says_nothing_of_how_a_plan_does() {
        let mut rig = Rig::new();
        rig.core.replays = at().topic;
        decided_in(&mut rig, Ok(fates(7, 200, 200, 0, 50)));
        assert_eq!(taken_back(&rig.done()), None);
    }

    #[test]
    fn nothing_is_read_from_then_on_until_the_plan_is_taken_back() {
        let (mut rig, run) = decided(Ok(fates(7, 200, 200, 0, 50)));
        let done = rig.done();
        assert_eq!(taken_back(&done), Some((7, 3)));
        assert!(done.iter().any(|action| matches!(action, Action::Hold { .. })), "{done:?}");
        let told = rig.core.status(rig.now).trial.expect("it is on trial").told();
        assert_eq!(
            told,
            "plan 7 is being taken back: 25.0 % failed in the first 200 records of plan 7, 0.0 % before"
        );
        assert_eq!(rig.stands().0, State::NeedsPlan);
        commit(&mut rig, run, 400);
        release(&mut rig, run);
        rig.done();
        let claims = rig.decide(Event::Plan { plan: plan(8), on_trial: false });
        rig.claim_at(claims, &[Offset::new(400); 2]);
        let read = rig.done().into_iter().find_map(|action| match action {
            Action::Read { from, .. } => Some(from),
            _ => None,
        });
        assert_eq!(
            (read, rig.stands().0, rig.core.status(rig.now).trial),
            (Some(Offset::new(400)), State::Running, None)
        );
    }

    #[test]
    fn a_partition_that_a_plan_on_trial_stops_goes_on_with_the_next_plan_from_where_the_sinks_stand() {
        let (mut rig, run) = decided(Err(stall()));
        assert_eq!(taken_back(&rig.done()), Some((7, 3)));
        commit(&mut rig, run, 200);
        assert_eq!(rig.stands(), (State::NeedsPlan, "needs-plan: E_STALL: no end".to_owned()));
        release(&mut rig, run);
        rig.decide(Event::Source(SourceEvent::Exhausted));
        assert!(!rig.core.is_done(), "another plan is on its way");
        let claims = rig.decide(Event::Plan { plan: plan(8), on_trial: false });
        assert_eq!(claims.len(), 1);
        let again = rig.claim(claims);
        assert_ne!(again, run);
        assert_eq!(rig.stands().0, State::Running);
        assert!(rig.done().iter().all(|action| !matches!(action, Action::Stopped { .. })));
        // That one is not on trial: a partition that it stops stays so.
        rig.batch(again, 0, 1);
        made(&mut rig, again, 0, Err(stall()));
        assert_eq!((taken_back(&rig.done()), rig.stands().0), (None, State::Stopped));
    }

    /// A partition that runs plan 7 on trial; of its batch, so many records were looked at.
    fn judged(records: u64, failed: u64) -> (Rig, RunId) {
        let mut rig = Rig::new();
        let claims = rig.assign();
        let run = rig.claim(claims);
        rig.decide(Event::Plan { plan: plan(7), on_trial: true });
        rig.batch(run, 0, 4_000);
        rig.done();
        rig.decide(Event::Judging { at: at(), run, seq: 0, judging: Judging { records, failed } });
        (rig, run)
    }

    fn given_up(done: &[Action]) -> Option<GiveUp> {
        done.iter().find_map(|action| match action {
            Action::GiveUp(what) => Some(*what),
            _ => None,
        })
    }

    fn below(plan: u64, taken_back: Option<u64>) -> GiveUp {
        GiveUp::Below { plan, taken_back }
    }

    #[test]
    fn a_plan_that_fails_at_everything_is_taken_back_while_its_batch_is_judged() {
        let (mut rig, _) = judged(99, 99);
        let told = rig.core.status(rig.now).trial.expect("it is on trial").told();
        assert!(
            told.contains(": 99 of 1,000 records, 0.0 % rejected") && told.contains("100.0 % failed"),
            "{told}"
        );
        assert_eq!(rig.stands().1, "running: the transform failed at 99 of the first 99 records of a batch");
        assert_eq!(taken_back(&rig.done()), None);
        let (mut rig, run) = judged(100, 100);
        let done = rig.done();
        assert_eq!((taken_back(&done), given_up(&done)), (Some((7, 3)), Some(below(8, Some(7)))));
        // The same is not said twice.
        let judging = Judging { records: 101, failed: 101 };
        rig.decide(Event::Judging { at: at(), run, seq: 0, judging });
        assert_eq!(taken_back(&rig.done()), None);
    }

    #[test]
    fn what_was_given_up_is_made_by_the_next_plan() {
        let (mut rig, run) = judged(100, 100);
        rig.decide(Event::GivenUp { at: at(), run, seq: 0 });
        release(&mut rig, run);
        assert_eq!(rig.stands().0, State::NeedsPlan);
        let claims = rig.decide(Event::Plan { plan: plan(8), on_trial: false });
        assert_eq!(claims.len(), 1);
        assert_ne!(rig.claim(claims), run);
        assert_eq!(rig.stands().0, State::Running);
        assert!(rig.done().iter().all(|action| !matches!(action, Action::Stopped { .. })));
    }

    #[test]
    fn who_begins_with_a_plan_on_trial_knows_from_the_sinks_what_always_failed() {
        for (always, stays) in [(0, false), (1_000, true)] {
            let mut trials = Trials::new(Some(LIMITS), 7, Some(3));
            let counters = Counters { records_in: 100_000, failed: always, ..Counters::default() };
            // However often it is claimed.
            for _ in 0..2 {
                trials.counted_before(&at(), &counters);
            }
            let back = trials.made(&fates(7, 0, 2_000, 0, 20), BEGUN);
            assert_eq!(back.is_none(), stays, "{back:?}");
            if let Some(TakenBack { plan, to, why }) = back {
                assert_eq!((plan, to), (7, 3));
                assert_eq!(why, "1.0 % failed in the first 2,000 records of plan 7, 0.0 % ever before");
            }
        }
    }

    #[test]
    fn what_a_plan_that_is_taken_back_makes_afterwards_goes_nowhere_and_is_made_by_the_next() {
        for newer_is_there in [false, true] {
            let (mut rig, run) = judged(50, 0);
            rig.batch(run, 4_000, 4_100);
            rig.batch(run, 4_100, 4_200);
            let made = |from, fates| Ok(routed(7, from, fates));
            let failed = std::iter::repeat_n(Fate::Failed, 4_000);
            rig.decide(Event::Transformed { at: at(), run, seq: 0, result: made(0, failed) });
            assert_eq!(taken_back(&rig.done()), Some((7, 3)));
            if newer_is_there {
                rig.decide(Event::Plan { plan: plan(8), on_trial: false });
                assert_eq!(given_up(&rig.done()), Some(below(8, Some(7))));
            }
            let routed = std::iter::repeat_n(Fate::Routed, 100);
            rig.decide(Event::Transformed { at: at(), run, seq: 1, result: made(4_000, routed) });
            rig.decide(Event::GivenUp { at: at(), run, seq: 2 });
            let done = rig.done();
            assert!(done.iter().all(|action| !matches!(action, Action::Write { .. })), "{done:?}");
        }
    }

    #[test]
    fn a_partition_goes_on_with_the_next_plan_also_if_batches_come_out_together_with_the_one_that_is_to_blame()
     {
        for behind in [Ok(routed(7, 4_000, std::iter::repeat_n(Fate::Routed, 100))), Err(stall())] {
            let (mut rig, run) = judged(50, 0);
            rig.batch(run, 4_000, 4_100);
            rig.decide(Event::Transformed { at: at(), run, seq: 1, result: behind });
            let failed = Ok(routed(7, 0, std::iter::repeat_n(Fate::Failed, 4_000)));
            rig.decide(Event::Transformed { at: at(), run, seq: 0, result: failed });
            assert_eq!(taken_back(&rig.done()), Some((7, 3)));
            commit(&mut rig, run, 4_000);
            assert_eq!(rig.stands().0, State::NeedsPlan);
            release(&mut rig, run);
            let claims = rig.decide(Event::Plan { plan: plan(8), on_trial: false });
            assert_ne!(rig.claim(claims), run);
            assert_eq!(rig.stands().0, State::Running);
            assert!(rig.done().iter().all(|action| !matches!(action, Action::Stopped { .. })));
        }
    }

    #[test]
    fn what_waits_for_a_plan_that_cannot_run_here_stops_in_a_run_that_is_to_end() {
        let (mut rig, run) = judged(100, 100);
        rig.decide(Event::GivenUp { at: at(), run, seq: 0 });
        release(&mut rig, run);
        rig.decide(Event::Source(SourceEvent::Exhausted));
        for attempt in 1..=3 {
            assert!(!rig.core.is_done(), "attempt {attempt}");
            rig.decide(Event::NotReady { plan: 8, stop: Stop::new("E_STORE: not there") });
        }
        assert!(rig.core.is_done());
        assert_eq!(rig.stands(), (State::Stopped, "stopped: E_STORE: not there".to_owned()));
    }

    #[test]
    fn what_was_given_up_begins_again_where_the_plan_stays_after_all() {
        for late in [false, true] {
            let (mut rig, run) = judged(100, 100);
            let mut claims = Vec::new();
            rig.done();
            if late {
                rig.decide(Event::Kept { plan: 7, error: "no log".into() });
                assert_eq!(given_up(&rig.done()), Some(below(7, None)));
            }
            rig.decide(Event::GivenUp { at: at(), run, seq: 0 });
            release(&mut rig, run);
            if !late {
                claims = rig.decide(Event::Kept { plan: 7, error: "no log".into() });
            }
            if claims.is_empty() {
                claims = rig.decide(Event::Tick);
            }
            rig.claim(claims);
            assert_eq!(rig.stands().0, State::Running, "late: {late}");
            assert!(rig.done().iter().all(|action| !matches!(action, Action::Stopped { .. })));
        }
    }

    #[test]
    fn a_new_plan_does_not_wait_for_the_verdict_on_what_the_plan_before_fails_at() {
        let (mut rig, run) = judged(50, 50);
        rig.done();
        rig.decide(Event::Plan { plan: plan(9), on_trial: true });
        assert_eq!(given_up(&rig.done()), Some(below(9, None)));
        rig.decide(Event::GivenUp { at: at(), run, seq: 0 });
        release(&mut rig, run);
        let claims = rig.decide(Event::Tick);
        rig.claim(claims);
        assert_eq!(rig.stands().0, State::Running);
    }

    #[test]
    fn however_many_batches_of_a_partition_are_given_up_it_is_nobodys_fault() {
        for ends in [false, true] {
            let (mut rig, run) = judged(50, 50);
            rig.batch(run, 4_000, 8_000);
            rig.decide(if ends { Event::Stop } else { Event::Plan { plan: plan(9), on_trial: true } });
            rig.decide(Event::GivenUp { at: at(), run, seq: 0 });
            rig.decide(Event::GivenUp { at: at(), run, seq: 1 });
            release(&mut rig, run);
            let done = rig.done();
            assert!(done.iter().all(|action| !matches!(action, Action::Stopped { .. })), "{done:?}");
            let claims = rig.decide(Event::Tick);
            assert_eq!((claims.is_empty(), rig.core.is_done()), (ends, ends));
        }
    }

    #[test]
    fn a_plan_that_has_passed_is_not_taken_back_for_what_comes_later() {
        let mut trials = trials(1_000, 0, 0);
        trials.made(&fates(7, 0, 200, 0, 0), BEGUN);
        let later = BEGUN + LIMITS.time;
        assert_eq!(trials.judging(Judging { records: 500, failed: 500 }, later), None);
        assert!(!is_on_trial(&trials, later));
    }

    #[test]
    fn what_stops_a_partition_is_told_whatever_else_of_it_is_given_up() {
        let (mut rig, run) = judged(50, 50);
        let (text, hint) = ("gone".to_owned(), None);
        rig.decide(Event::Source(SourceEvent::Failed {
            at: at(),
            error: source::Error::Input { text, hint },
        }));
        rig.decide(Event::Plan { plan: plan(9), on_trial: true });
        rig.decide(Event::GivenUp { at: at(), run, seq: 0 });
        release(&mut rig, run);
        assert_eq!(rig.stands().0, State::Stopped);
    }

    #[test]
    fn what_was_given_up_at_the_end_is_nobodys_fault() {
        let (mut rig, run) = judged(50, 50);
        rig.done();
        rig.decide(Event::Stop);
        assert_eq!(given_up(&rig.done()), Some(GiveUp::All));
        rig.decide(Event::GivenUp { at: at(), run, seq: 0 });
        release(&mut rig, run);
        let done = rig.done();
        assert_eq!(taken_back(&done), None);
        assert!(done.iter().all(|action| !matches!(action, Action::Stopped { .. })), "{done:?}");
        assert!(rig.core.is_done());
    }

    #[test]
    fn a_plan_that_cannot_be_taken_back_stays_and_what_it_stopped_has_stopped() {
        let (mut rig, run) = decided(Err(stall()));
        commit(&mut rig, run, 200);
        release(&mut rig, run);
        rig.decide(Event::Source(SourceEvent::Exhausted));
        rig.decide(Event::Kept { plan: 7, error: "no log".into() });
        assert_eq!(rig.stands().0, State::Stopped);
        assert!(rig.done().iter().any(|action| matches!(action, Action::Stopped { .. })));
        assert!(rig.core.is_done());
    }

    #[test]
    fn a_partition_that_is_through_only_after_its_plan_was_kept_has_stopped_as_well() {
        let (mut rig, run) = decided(Err(stall()));
        rig.decide(Event::Kept { plan: 7, error: "no log".into() });
        commit(&mut rig, run, 200);
        release(&mut rig, run);
        assert_eq!(rig.stands().0, State::Stopped);
        rig.decide(Event::Source(SourceEvent::Exhausted));
        assert!(rig.core.is_done());
    }

    #[test]
    fn whoever_was_faster_is_gone_on_with() {
        let (mut rig, run) = decided(Err(stall()));
        // Somebody put plan 9 before anybody knew, and what plan 7 had begun comes out afterwards.
        let claims = rig.decide(Event::Plan { plan: plan(9), on_trial: true });
        assert!(claims.is_empty(), "it drains");
        commit(&mut rig, run, 200);
        let claims = rig.decide(Event::Tick);
        rig.claim(claims);
        assert_eq!(rig.stands().0, State::Running);
        assert_eq!(rig.core.status(rig.now).trial.map(|trial| trial.plan), Some(9));
    }

    #[test]
    fn what_a_sink_has_of_an_older_plan_stops_its_partition_if_that_cannot_make_it_again() {
        let mut rig = Rig::new();
        let claims = rig.assign();
        let run = rig.claim_at(claims, &[Offset::new(5), Offset::ZERO]);
        rig.decide(Event::Plan { plan: plan(7), on_trial: true });
        rig.batch(run, 0, 5);
        made(&mut rig, run, 0, Err(stall()));
        assert_eq!((taken_back(&rig.done()), rig.stands().0), (None, State::Stopped));
    }

    #[test]
    fn a_partition_that_somebody_else_is_to_have_is_left_to_them() {
        let (mut rig, run) = decided(Err(stall()));
        rig.decide(Event::Source(SourceEvent::Revoked(at())));
        commit(&mut rig, run, 200);
        release(&mut rig, run);
        assert_eq!(rig.core.status(rig.now).partitions, []);
        assert!(rig.decide(Event::Plan { plan: plan(8), on_trial: false }).is_empty());
    }

    #[test]
    fn numbers_are_written_for_people() {
        let of = [0, 7, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(of, ["0", "7", "999", "1,000", "1,234,567"]);
        assert_eq!((percent(3, 1_000), percent(0, 0)), ("0.3 %".to_owned(), "0.0 %".to_owned()));
    }
}
