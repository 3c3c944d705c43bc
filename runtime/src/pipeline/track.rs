//! One partition on its way through the pipeline: where to resume, which plan made or makes which offsets, what a
//! sink that is ahead must not get again. Pure; it starts nothing itself.

use std::collections::{BTreeMap, VecDeque};

use crate::batch::Batch;
use crate::offset::Offset;
use crate::route::Routed;
use crate::rule::Judging;
use crate::sink::state::{Cut, Fingerprint, PlanRef, SinkState, plan_at};
use crate::source::{Assignment, RunId};

use super::Stop;

/// See the module.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) run: RunId,
    /// Under which the source reads it: another one each time that it goes on after a pause.
    pub(super) reading: RunId,
    pub(super) assignment: Assignment,
    pub(super) phase: Phase,
    /// What the sinks said when they were claimed, in their order; complete once the phase is not `Claiming`.
    pub(super) states: Vec<SinkState>,
    /// Per sink, what it has for certain.
    committed: Vec<Offset>,
    /// Per sink, up to where it was given rows.
    handed: Vec<Offset>,
    /// Which plan made what some sink already has, and makes what comes behind that, oldest first.
    cuts: Vec<Cut>,
    /// So many of them are in the plan log, from the first on.
    n_told: usize,
    /// The first offset that no sink has: from here on plans are chosen, before it they are recorded.
    ahead: Offset,
    /// Up to where the source was heard.
    read: Offset,
    /// The lowest plan that may make the next new offset.
    floor: u64,
    /// Batches under way get numbers, and come out in their order.
    next_job: u64,
    next_out: u64,
    /// What those that did not come out yet are made by, in their order.
    under_way: VecDeque<Maker>,
    reorder: BTreeMap<u64, Result<Routed, Stop>>,
    /// How far the look for the guilty records of batches that failed has come.
    judging: BTreeMap<u64, Judging>,
    /// Records in a row at which the transform failed.
    failed_in_row: u64,
    /// A batch could not be transformed: nothing behind it may go on.
    pub(super) halted: bool,
    /// The plan that is to blame for that, where another one may do better.
    pub(super) blamed: Option<u64>,
    /// What is under way is not waited for: it would take long to find the records that are to blame, and something
    /// else is to be done. It begins again where the sinks stand.
    pub(super) given_up: bool,
    /// Somebody wants nothing more to be read of it for now.
    pub(super) held: bool,
    /// The end of the partition, once the source said so.
    pub(super) end: Option<End>,
    /// Where it ended when the source last looked.
    pub(super) seen: Option<Offset>,
    /// When it is left, whatever is under way: somebody else is to have it.
    pub(super) leaves_by: Option<std::time::Duration>,
}

/// Where a partition ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) offset: Offset,
    /// Or only for this process.
    pub(super) for_good: bool,
}

/// How far a partition is.
#[derive(Debug)]
pub(super) enum Phase {
    /// It became ours while nothing is to be read.
    Unclaimed,
    /// The sinks are being claimed, one after the other.
    Claiming,
    /// The plan that made what a sink has is not known here yet.
    NeedsPlan(Asked),
    /// Nor is which plan that was.
    NeedsCuts(Asked),
    /// Records flow.
    Running,
    /// No more records are taken in; what is under way is brought to an end. Then it stops for the reason given,
    /// or ends well.
    Draining(Option<Stop>),
}

/// The plan log is asked for what a sink knows. It was written down there first, so a log that does not have it is another one.
#[derive(Debug)]
pub(super) struct Asked {
    /// Under which number.
    pub(super) n: u64,
    /// Why the partition stops if it is not there.
    pub(super) stop: Stop,
}

/// Why it is not known which plan made what some sink already has.
#[derive(Debug)]
pub(super) enum NotKnown {
    /// Two sinks say different things of the same offset.
    Differ(Stop),
    /// It is so many plans ago that the sink does not keep it, and the plan log does not have what the sink had.
    Forgotten(Stop),
}

pub(super) const OTHER_LOG: &str =
    "the plan log is older than the sinks, or not the one that they were filled with: restore the newer one";

impl NotKnown {
    fn differ(offset: Offset, one: u64, other: u64) -> Self {
        Self::Differ(Stop::new(format!(
            "E_PLANS_DIFFER: offset {offset} was made by plan {one} in one sink and by plan {other} in another"
        )))
    }

    fn forgotten(offset: Offset) -> Self {
        let text = format!(
            "E_PLAN_MISSING: neither the sinks nor the plan log know which plan made offset {offset}"
        );
        Self::Forgotten(Stop::new(text).hint(OTHER_LOG))
    }
}

/// What a batch is made by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maker {
    pub(super) plan: u64,
    /// Whether some sink has it already, by the same plan.
    pub(super) again: bool,
}

/// A batch and the plan that is to transform it.
#[derive(Debug)]
pub struct Job {
    /// Its run.
    pub run: RunId,
    /// Its place among the batches of its run.
    pub seq: u64,
    /// What transforms it.
    pub plan: PlanRef,
    /// Whether some sink has it already, by the same plan.
    pub again: bool,
    /// The records.
    pub batch: Batch,
}

impl Track {
    pub(super) fn new(run: RunId, assignment: Assignment) -> Self {
        Self {
            run,
            reading: run,
            assignment,
            phase: Phase::Claiming,
            states: Vec::new(),
            committed: Vec::new(),
            handed: Vec::new(),
            cuts: Vec::new(),
            n_told: 0,
            ahead: Offset::ZERO,
            read: Offset::ZERO,
            floor: 0,
            next_job: 0,
            next_out: 0,
            under_way: VecDeque::new(),
            reorder: BTreeMap::new(),
            judging: BTreeMap::new(),
            failed_in_row: 0,
            halted: false,
            blamed: None,
            given_up: false,
            held: false,
            end: None,
            seen: None,
            leaves_by: None,
        }
    }

    /// Finds out where to go on, once all sinks have spoken. `told` says which cuts a sink has
    /// forgotten, by the plan log.
    pub(super) fn all_claimed(
        &mut self,
        told: impl FnOnce(&SinkState) -> Option<Vec<Cut>>,
    ) -> Result<(), NotKnown> {
        let next = || self.states.iter().map(|state| state.next);
        self.ahead = next().max().expect("there is a sink");
        self.read = next().min().expect("there is a sink");
        self.cuts = merge_cuts(&self.states, self.read, told)?;
        self.committed = next().collect();
        self.handed = next().collect();
        let plans = self.states.iter().flat_map(|state| &state.cuts);
        self.floor = plans.map(|cut| cut.plan.plan).max().unwrap_or(0);
        Ok(())
    }

    /// A batch is left to the next plan. What ends the partition already is told all the same.
    pub(super) fn give_up(&mut self) {
        self.given_up |= !matches!(self.phase, Phase::Draining(Some(_)));
    }

    /// Up to where the source was heard; `None` while sinks are being claimed.
    pub(super) fn heard(&self) -> Option<Offset> {
        self.position().map(|_| self.read)
    }

    /// Per sink, what it has for certain; `None` while sinks are being claimed.
    pub(super) fn position(&self) -> Option<&[Offset]> {
        (!self.committed.is_empty()).then_some(&self.committed)
    }

    /// The newest plan that made an offset of this partition, here or before.
    pub(super) fn newest_plan(&self) -> Option<u64> {
        (!self.cuts.is_empty()).then_some(self.floor)
    }

    /// Where the source is to begin: at the first offset that some sink does not have.
    pub(super) fn resume(&self) -> Offset {
        self.read
    }

    /// The last record in front of `from`, if a sink stands there and knows it.
    pub(super) fn last_before(&self, from: Offset) -> Option<Fingerprint> {
        self.states.iter().filter(|state| state.next == from).find_map(|state| state.last.clone())
    }

    /// The lowest plan number that may make new offsets.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Which plan made what some sink already has, and makes what comes behind that, oldest first.
    pub(super) fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// The lowest plan whose cut `is_told` does not find in the plan log yet.
    pub(super) fn told(&mut self, is_told: impl Fn(&Cut) -> bool) -> u64 {
        self.n_told += self.cuts[self.n_told..].iter().take_while(|cut| is_told(cut)).count();
        self.cuts.get(self.n_told).map_or(u64::MAX, |cut| cut.plan.plan)
    }

    /// Cuts a batch of the source where the plan changes, or the topic that a transform is told, and names the plan of each piece: what some sink already
    /// has is made again by the plan recorded for it, everything else by `newest`.
    pub(super) fn accept(&mut self, batch: Batch, newest: &PlanRef) -> Vec<Job> {
        assert_eq!(batch.range().start, self.read, "batches of a partition touch");
        self.read = batch.range().end;
        let mut jobs = Vec::new();
        let mut rest = Some(batch);
        while let Some(batch) = rest.take() {
            let from = batch.range().start;
            let (plan, until) = self.plan_for(from, newest);
            let until = until.into_iter().chain(batch.topic_ends()).min();
            let (front, back) = match until {
                Some(until) => batch.split(until),
                None => (Some(batch), None),
            };
            rest = back;
            let seq = self.next_job;
            self.next_job += 1;
            let again = self.is_replay(from);
            self.under_way.push_back(Maker { plan: plan.plan, again });
            jobs.extend(front.map(|batch| Job { run: self.run, seq, plan, again, batch }));
        }
        jobs
    }

    /// The plan of an offset, and where another may begin.
    fn plan_for(&mut self, offset: Offset, newest: &PlanRef) -> (PlanRef, Option<Offset>) {
        if offset >= self.ahead {
            self.floor = self.floor.max(newest.plan);
            if self.cuts.last().is_none_or(|cut| cut.plan != *newest) {
                self.cuts.push(Cut { from: offset, plan: newest.clone() });
            }
            return (newest.clone(), None);
        }
        let here = self.cuts.partition_point(|cut| cut.from <= offset) - 1;
        let until = self.cuts.get(here + 1).map_or(self.ahead, |cut| cut.from.min(self.ahead));
        (self.cuts[here].plan.clone(), Some(until))
    }

    /// Whether `plan` at `range_start` repeats what some sink already had when it was claimed.
    pub(super) fn is_replay(&self, offset: Offset) -> bool {
        offset < self.ahead
    }

    /// Takes a transformed batch in whatever order it comes.
    pub(super) fn transformed(&mut self, seq: u64, result: Result<Routed, Stop>) {
        self.judging.remove(&seq);
        self.reorder.insert(seq, result);
    }

    /// Hears how far a batch is that failed.
    pub(super) fn judging(&mut self, seq: u64, judging: Judging) {
        self.judging.insert(seq, judging);
    }

    /// Records looked at, and those at which the transform failed, in batches of which more is to be found out.
    pub(super) fn judged_so_far(&self) -> Judging {
        self.judging.values().copied().sum()
    }

    /// The same, of what `plan` makes for the first time.
    pub(super) fn judged_so_far_of(&self, plan: u64) -> Judging {
        let made_by = |seq: u64| self.under_way.get((seq - self.next_out) as usize);
        let by = |seq: u64| made_by(seq).is_some_and(|by| by.plan == plan && !by.again);
        self.judging.iter().filter(|(seq, _)| by(**seq)).map(|(_, judging)| *judging).sum()
    }

    /// The next transformed batch in offset order, once it is there.
    pub(super) fn next_in_order(&mut self) -> Option<(Maker, Result<Routed, Stop>)> {
        let result = self.reorder.remove(&self.next_out)?;
        self.next_out += 1;
        Some((self.under_way.pop_front().expect("as many as there are jobs"), result))
    }

    /// Counts failed records in a row; `Some` once there are `limit`.
    pub(super) fn count_failed(&mut self, routed: &Routed, limit: u64) -> Option<u64> {
        for (_, fate) in &routed.fates {
            let failed = *fate == crate::route::Fate::Failed;
            self.failed_in_row = if failed { self.failed_in_row + 1 } else { 0 };
            if self.failed_in_row >= limit {
                return Some(self.failed_in_row);
            }
        }
        None
    }

    /// From where on sink `sink` still needs rows; whoever asks gives it everything up to `end`.
    pub(super) fn hand(&mut self, sink: usize, end: Offset) -> Offset {
        let from = self.handed[sink];
        self.handed[sink] = from.max(end);
        from
    }

    pub(super) fn committed(&mut self, sink: usize, end: Offset) {
        self.committed[sink] = end;
    }

    /// Whether nothing is under way any more: all that was read came out of the transform.
    pub(super) fn is_released(&self) -> bool {
        self.next_out == self.next_job
    }

    /// Whether every sink has all that it was given.
    pub(super) fn is_committed(&self) -> bool {
        self.committed == self.handed
    }

    /// Whether every sink has the whole partition.
    pub(super) fn is_finished(&self) -> bool {
        self.end
            .is_some_and(|end| self.is_released() && self.committed.iter().all(|next| *next >= end.offset))
    }
}

/// The plans of all offsets that some sink has, as far back as `from`, as the sink that is furthest says, and the plan log of
/// what that has forgotten; what the others say must agree.
fn merge_cuts(
    states: &[SinkState],
    from: Offset,
    told: impl FnOnce(&SinkState) -> Option<Vec<Cut>>,
) -> Result<Vec<Cut>, NotKnown> {
    let leader = states.iter().max_by_key(|state| state.next).expect("there is a sink");
    let mut cuts = Vec::new();
    if from < leader.next && leader.plan_at(from).is_none() {
        cuts = told(leader).ok_or_else(|| NotKnown::forgotten(from))?;
    }
    cuts.extend_from_slice(&leader.cuts);
    if from < leader.next && plan_at(&cuts, from).is_none() {
        return Err(NotKnown::forgotten(from));
    }
    for state in states {
        let points = state.cuts.iter().chain(&cuts).map(|cut| cut.from.max(from));
        for offset in points.filter(|offset| *offset < leader.next) {
            let (Some(one), Some(other)) = (plan_at(&cuts, offset), state.plan_at(offset)) else { continue };
            if one != other {
                return Err(NotKnown::differ(offset, one.plan, other.plan));
            }
        }
    }
    Ok(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, RecordRef};
    use crate::budget::Permit;
    use crate::offset::TopicPartition;
    use crate::origin::ENVELOPE;
    use crate::sink::state::{Epoch, Start};

    #[test]
    fn what_no_sink_keeps_is_made_again_by_the_plan_that_the_log_knows_or_not_at_all() {
        let plan = |n: u64| PlanRef { plan: n, digest: format!("sha256:{n}").into() };
        let old = [Cut { from: Offset::ZERO, plan: plan(1) }, Cut { from: Offset::new(4), plan: plan(2) }];
        let claim = crate::sink::conformance::claim(1);
        let behind = SinkState { next: Offset::new(2), ..SinkState::init(&claim, Offset::ZERO) };
        let ahead = SinkState {
            next: Offset::new(9),
            cuts: vec![Cut { from: Offset::new(6), plan: plan(3) }],
            forgotten: crate::sink::state::forgotten(None, &old),
            ..behind.clone()
        };
        let claimed = || {
            let mut track = Track::new(RunId(1), assignment(claim.at.clone()));
            track.states = vec![behind.clone(), ahead.clone()];
            track
        };
        let Err(NotKnown::Forgotten(stop)) = claimed().all_claimed(|_| None) else { panic!("it is known") };
        assert!(stop.text.starts_with("E_PLAN_MISSING") && stop.text.contains("offset 2"), "{stop}");

        let mut track = claimed();
        track.all_claimed(|_| Some(old.to_vec())).unwrap();
        let mut builder = BatchBuilder::new(claim.at.clone(), track.resume());
        (2..12)
            .for_each(|n| builder.push(Offset::new(n), RecordRef { timestamp_ms: -1, ..Default::default() }));
        let batch = builder.finish(Offset::new(12), Permit::free()).expect("not empty");
        let made: Vec<_> =
            track.accept(batch, &plan(5)).iter().map(|job| (job.plan.plan, job.batch.len())).collect();
        assert_eq!(made, [(1, 2), (2, 2), (3, 3), (5, 3)]);
        assert_eq!(track.cuts().last(), Some(&Cut { from: Offset::new(9), plan: plan(5) }));
    }

    fn assignment(at: TopicPartition) -> Assignment {
        let (epoch, start) = (Epoch::new(1), Start::Init(Offset::ZERO));
        Assignment { at, topic_id: "id".into(), group: "weir.p".into(), epoch, start, input: None }
    }

    #[test]
    fn records_of_two_topics_that_come_again_are_not_transformed_together() {
        let at = TopicPartition::new("weir.p.replay", 0);
        let mut builder = BatchBuilder::new(at.clone(), Offset::ZERO);
        builder.open_envelopes();
        for (n, text) in ["a/0/5/1", "a/1/0/1", "b/0/5/1"].iter().enumerate() {
            let headers = [(ENVELOPE, Some(text.as_bytes()))];
            builder.push(
                Offset::new(n as i64),
                RecordRef { headers: &headers, timestamp_ms: -1, ..Default::default() },
            );
        }
        let batch = builder.finish(Offset::new(3), Permit::free()).expect("not empty");
        let mut track = Track::new(RunId(1), assignment(at));
        let jobs = track.accept(batch, &PlanRef { plan: 0, digest: "sha256:00".into() });
        let told: Vec<_> = jobs.iter().map(|job| (job.seq, job.batch.topic(), job.batch.offsets())).collect();
        assert_eq!(told, [(0, "a", &[0, 1][..]), (1, "b", &[2])]);
    }
}
