//! One partition on its way through the pipeline: where to resume, which plan made or makes which offsets, what a
//! sink that is ahead must not get again. Pure; it starts nothing itself.

use std::collections::{BTreeMap, VecDeque};

use crate::batch::Batch;
use crate::offset::Offset;
use crate::route::Routed;
use crate::rule::Judging;
use crate::sink::state::{Cut, Fingerprint, PlanRef, SinkState};
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
    /// Which plan made what some sink already has, oldest first.
    recorded: Vec<Cut>,
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
    NeedsPlan,
    /// Records flow.
    Running,
    /// No more records are taken in; what is under way is brought to an end. Then it stops for the reason given,
    /// or ends well.
    Draining(Option<Stop>),
}

/// Two sinks that say different things of the same offset.
#[derive(Debug, thiserror::Error)]
#[error("E_PLANS_DIFFER: offset {offset} was made by plan {one} in one sink and by plan {other} in another")]
pub(super) struct PlansDiffer {
    offset: Offset,
    one: u64,
    other: u64,
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
            recorded: Vec::new(),
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

    /// Finds out where to go on, once all sinks have spoken.
    pub(super) fn all_claimed(&mut self) -> Result<(), PlansDiffer> {
        let next = || self.states.iter().map(|state| state.next);
        self.ahead = next().max().expect("there is a sink");
        self.read = next().min().expect("there is a sink");
        self.committed = next().collect();
        self.handed = next().collect();
        self.recorded = merge_cuts(&self.states, self.read)?;
        let plans = self.states.iter().flat_map(|state| &state.cuts);
        self.floor = plans.map(|cut| cut.plan.plan).max().unwrap_or(0);
        Ok(())
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
        (!self.recorded.is_empty() || self.next_job > 0).then_some(self.floor)
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

    /// The newest cut that the sinks told of.
    pub(super) fn newest_cut(&self) -> Option<&Cut> {
        self.recorded.last()
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
            return (newest.clone(), None);
        }
        let here = self.recorded.partition_point(|cut| cut.from <= offset) - 1;
        let until = self.recorded.get(here + 1).map_or(self.ahead, |cut| cut.from.min(self.ahead));
        (self.recorded[here].plan.clone(), Some(until))
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

/// The plans of all offsets that some sink has, as far back as `from`, as the sink that is furthest says; what the
/// others say must agree.
fn merge_cuts(states: &[SinkState], from: Offset) -> Result<Vec<Cut>, PlansDiffer> {
    let leader = states.iter().max_by_key(|state| state.next).expect("there is a sink");
    for state in states {
        let points = state.cuts.iter().chain(&leader.cuts).map(|cut| cut.from.max(from));
        for offset in points {
            let (Some(one), Some(other)) = (leader.plan_at(offset), state.plan_at(offset)) else { continue };
            if one != other {
                return Err(PlansDiffer { offset, one: one.plan, other: other.plan });
            }
        }
    }
    Ok(leader.cuts.clone())
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
        let (epoch, start) = (Epoch::new(1), Start::Init(Offset::ZERO));
        let (topic_id, group) = ("id".into(), "weir.p".into());
        let assignment = Assignment { at, topic_id, group, epoch, start, input: None };
        let mut track = Track::new(RunId(1), assignment);
        let jobs = track.accept(batch, &PlanRef { plan: 0, digest: "sha256:00".into() });
        let told: Vec<_> = jobs.iter().map(|job| (job.seq, job.batch.topic(), job.batch.offsets())).collect();
        assert_eq!(told, [(0, "a", &[0, 1][..]), (1, "b", &[2])]);
    }
}
