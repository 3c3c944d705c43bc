//! When to commit which sink. A writer stages what it is given in offset order, commits when its policy says so,
//! and never takes a lost answer for a yes or a no. It takes the time as an argument and owns no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::sink::state::{Claim, Commit, Counters, Fingerprint, Nonce, PlanRef, SinkState};
use crate::sink::{Committed, Error, Problem, Resolved, RoutedBatch, Sink, Staged};
use crate::source::RunId;

/// When what is staged for a partition is committed: as soon as one of these is reached, or the sink is
/// [full](Staged::full).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes as stored.
    pub bytes: u64,
    /// Rows over all targets.
    pub rows: u64,
    /// Since the first of them was staged.
    pub age: Duration,
    /// Since the last of them was staged.
    pub idle: Duration,
    /// Whether the first rows after a claim are committed at once, however few: whoever began sees that they arrive.
    pub eager: bool,
    /// Offsets without any row, so that a sink that gets few rows does not hold back where a restart begins.
    pub offsets: u64,
}

/// What a writer tells the pipeline.
#[derive(Debug)]
pub enum Report {
    /// Claims ended.
    Claimed(Vec<Claimed>),
    /// A commit is durable.
    Committed {
        /// The partition.
        at: TopicPartition,
        /// Its run.
        run: RunId,
        /// What was committed.
        commit: Commit,
    },
    /// The sink cannot go on with this partition; what was staged is lost and must be read again.
    Broken {
        /// The partition.
        at: TopicPartition,
        /// Its run.
        run: RunId,
        /// Why.
        error: Error,
    },
    /// The sink has forgotten the partition, and commits nothing more of this run.
    Released {
        /// The partition.
        at: TopicPartition,
        /// The run that was released.
        run: RunId,
    },
}

/// How a claim ended.
#[derive(Debug)]
pub struct Claimed {
    /// The partition.
    pub at: TopicPartition,
    /// Its run.
    pub run: RunId,
    /// Where the sink stands.
    pub state: Result<SinkState, Error>,
}

/// What a writer counted; the proof that a fault a test injected really happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterStats {
    /// Commits that are durable.
    pub commits: u64,
    /// Claims, writes and commits that failed for another reason than an owner.
    pub errors: u64,
    /// Claims and commits refused because somebody else owned the partition.
    pub fenced: u64,
    /// Commits whose answer was lost and then found out.
    pub unknown_resolved: u64,
}

/// One sink and what is staged in it.
pub struct Writer {
    sink: Box<dyn Sink>,
    policy: Policy,
    nonce: Box<dyn FnMut() -> Nonce + Send>,
    open: BTreeMap<TopicPartition, Open>,
    stats: WriterStats,
}

/// A claimed partition.
struct Open {
    run: RunId,
    /// Where the sink stands.
    next: Offset,
    /// Nothing was committed since the claim.
    fresh: bool,
    pending: Option<Pending>,
}

/// What the next commit will cover.
struct Pending {
    end: Offset,
    plan: PlanRef,
    counters: Counters,
    last_record: Option<Fingerprint>,
    told: u64,
    staged: Staged,
    first: Duration,
    last: Duration,
}

/// How often a commit whose answer was lost is asked for and tried again before the partition starts over. A claim
/// then tells for certain.
const RESOLVE_ATTEMPTS: usize = 3;

impl Writer {
    /// A writer for `sink`. `nonce` names commits: at random in the product, seeded in a simulation.
    pub fn new(sink: Box<dyn Sink>, policy: Policy, nonce: impl FnMut() -> Nonce + Send + 'static) -> Self {
        let (open, stats) = (BTreeMap::new(), WriterStats::default());
        Self { sink, policy, nonce: Box::new(nonce), open, stats }
    }

    /// What was counted so far.
    pub fn stats(&self) -> WriterStats {
        self.stats
    }

    /// Takes partitions over, in one step where the sink can. What was staged for them under an earlier run is forgotten
    /// first.
    pub fn claim(&mut self, claims: Vec<(RunId, Claim)>) -> Report {
        let (runs, claims): (Vec<_>, Vec<_>) = claims.into_iter().unzip();
        for claim in &claims {
            self.sink.release(&claim.at);
            self.open.remove(&claim.at);
        }
        let states = self.sink.claim_together(&claims);
        assert_eq!(states.len(), claims.len(), "every claim has an answer");
        let claimed = runs.into_iter().zip(claims).zip(states);
        Report::Claimed(claimed.map(|((run, claim), state)| self.claimed(run, claim.at, state)).collect())
    }

    fn claimed(&mut self, run: RunId, at: TopicPartition, state: Result<SinkState, Error>) -> Claimed {
        match &state {
            Ok(state) => {
                let open = Open { run, next: state.next, fresh: true, pending: None };
                self.open.insert(at.clone(), open);
            }
            Err(error) => self.count_error(error),
        }
        Claimed { at, run, state }
    }

    /// Stages a batch; commits before it if another plan made it, and after it if that is due.
    pub fn write(&mut self, run: RunId, batch: RoutedBatch, now: Duration) -> Vec<Report> {
        let at = batch.at.clone();
        let Some(open) = self.open.get(&at).filter(|open| open.run == run) else { return Vec::new() };
        let mut reports = Vec::new();
        if open.pending.as_ref().is_some_and(|pending| pending.plan != batch.plan) {
            reports.extend(self.commit(&at));
        }
        if let Err(error) = self.stage(batch, now) {
            reports.push(self.broken(&at, error));
        } else if self.is_due(&at, now) {
            reports.extend(self.commit(&at));
        }
        reports
    }

    fn stage(&mut self, batch: RoutedBatch, now: Duration) -> Result<(), Error> {
        // A commit just before may have broken the partition; then there is nothing to stage for.
        let Some(open) = self.open.get_mut(&batch.at) else { return Ok(()) };
        let stands = open.pending.as_ref().map_or(open.next, |pending| pending.end);
        assert_eq!(batch.range.start, stands, "batches of a partition touch");
        let (range, plan, counters) = (batch.range, batch.plan.clone(), batch.counters.clone());
        let (last_record, told) = (batch.last.clone(), batch.told);
        let staged = self.sink.write(batch)?;
        let pending = open.pending.get_or_insert_with(|| Pending {
            end: range.start,
            plan,
            counters: Counters::default(),
            last_record: None,
            told,
            staged,
            first: now,
            last: now,
        });
        pending.end = range.end;
        pending.counters.add(&counters);
        pending.staged = staged;
        pending.told = told;
        pending.last = now;
        if last_record.is_some() {
            pending.last_record = last_record;
        }
        Ok(())
    }

    fn is_due(&self, at: &TopicPartition, now: Duration) -> bool {
        let Some(open) = self.open.get(at) else { return false };
        let Some(pending) = &open.pending else { return false };
        let (rows, bytes) = self.filled(pending);
        pending.staged.full
            || rows >= self.policy.rows
            || bytes >= self.policy.bytes
            || pending.end.since(open.next) >= self.policy.offsets && pending.staged.rows == 0
            || self.due_at(open.fresh, pending) <= now
    }

    /// Rows and bytes of what the commit would be.
    fn filled(&self, pending: &Pending) -> (u64, u64) {
        if !self.sink.prefers_together() {
            return (pending.staged.rows, pending.staged.bytes);
        }
        let all = self.open.values().filter_map(|open| open.pending.as_ref());
        all.fold((0, 0), |(rows, bytes), p| (rows + p.staged.rows, bytes + p.staged.bytes))
    }

    fn due_at(&self, fresh: bool, pending: &Pending) -> Duration {
        if fresh && self.policy.eager {
            return pending.first;
        }
        (pending.first + self.policy.age).min(pending.last + self.policy.idle)
    }

    /// When [`Self::tick`] has something to do next, if nothing more is written until then.
    pub fn deadline(&self) -> Option<Duration> {
        let due = |open: &Open| Some(self.due_at(open.fresh, open.pending.as_ref()?));
        self.open.values().filter_map(due).min()
    }

    /// Commits what has waited long enough.
    pub fn tick(&mut self, now: Duration) -> Vec<Report> {
        let due: Vec<_> = self.open.keys().filter(|at| self.is_due(at, now)).cloned().collect();
        due.iter().flat_map(|at| self.commit(at)).collect()
    }

    /// Commits what is staged for a partition, however little.
    pub fn flush(&mut self, run: RunId, at: &TopicPartition) -> Vec<Report> {
        match self.open.get(at).filter(|open| open.run == run) {
            Some(_) => self.commit(at),
            None => Vec::new(),
        }
    }

    /// Forgets a partition; what was staged for it is gone.
    pub fn release(&mut self, run: RunId, at: &TopicPartition) -> Report {
        if self.open.get(at).is_some_and(|open| open.run == run) {
            self.open.remove(at);
            self.sink.release(at);
        }
        Report::Released { at: at.clone(), run }
    }

    /// Whether something could still be committed for a partition.
    #[cfg(test)]
    pub(crate) fn holds(&self, at: &TopicPartition) -> bool {
        self.open.contains_key(at)
    }

    /// Commits what is staged for `at`, if anything is; with all the others, if the sink prefers that.
    fn commit(&mut self, at: &TopicPartition) -> Vec<Report> {
        if self.open.get(at).is_none_or(|open| open.pending.is_none()) {
            return Vec::new();
        }
        let together: Vec<_> = match self.sink.prefers_together() {
            true => self.open.keys().cloned().collect(),
            false => vec![at.clone()],
        };
        let commits: Vec<_> = together.into_iter().filter_map(|at| self.take(at)).collect();
        let ended = self.commit_for_certain(&commits);
        commits.into_iter().zip(ended).map(|((at, commit), ended)| self.ended(at, commit, ended)).collect()
    }

    /// What is staged for a partition, as a commit.
    fn take(&mut self, at: TopicPartition) -> Option<(TopicPartition, Commit)> {
        let open = self.open.get_mut(&at)?;
        let pending = open.pending.take()?;
        let range = OffsetRange::new(open.next, pending.end);
        let id = (self.nonce)();
        let Pending { plan, counters, last_record: last, told, .. } = pending;
        Some((at, Commit { id, range, plan, counters, last, told }))
    }

    fn ended(&mut self, at: TopicPartition, commit: Commit, ended: Result<(), Error>) -> Report {
        match ended {
            Ok(()) => {
                self.stats.commits += 1;
                let open = self.open.get_mut(&at).expect("still open");
                open.next = commit.range.end;
                open.fresh = false;
                Report::Committed { at, run: open.run, commit }
            }
            Err(error) => self.broken(&at, error),
        }
    }

    /// Commits, and where the answer is lost, asks until it is known; only the *same* commits are ever tried again.
    fn commit_for_certain(&mut self, commits: &[(TopicPartition, Commit)]) -> Vec<Result<(), Error>> {
        let mut ended: Vec<Option<Result<(), Error>>> = commits.iter().map(|_| None).collect();
        let mut lost = String::new();
        for _ in 0..RESOLVE_ATTEMPTS {
            let open: Vec<usize> = (0..commits.len()).filter(|i| ended[*i].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let again: Vec<_> = open.iter().map(|i| commits[*i].clone()).collect();
            let answers = self.sink.commit_together(&again);
            assert_eq!(answers.len(), again.len(), "every commit has an answer");
            for (i, answer) in open.into_iter().zip(answers) {
                ended[i] = match answer {
                    Ok(Committed::Done) => Some(Ok(())),
                    Ok(Committed::Unknown(text)) => {
                        lost = text;
                        self.find_out(&commits[i]).transpose()
                    }
                    Err(error) => Some(Err(error)),
                };
            }
        }
        let given_up = |(at, commit): &(TopicPartition, Commit)| {
            let text = format!(
                "committing {} of {at}: no answer after {RESOLVE_ATTEMPTS} attempts: {lost}",
                commit.range
            );
            Err(Error::Transient(Problem::new(text)))
        };
        commits.iter().zip(ended).map(|(commit, ended)| ended.unwrap_or_else(|| given_up(commit))).collect()
    }

    /// Whether a commit whose answer was lost is there: nothing, if it is not and may be tried again.
    fn find_out(&mut self, (at, commit): &(TopicPartition, Commit)) -> Result<Option<()>, Error> {
        let resolved = self.sink.resolve(at, commit)?;
        self.stats.unknown_resolved += 1;
        Ok((resolved == Resolved::Committed).then_some(()))
    }

    fn broken(&mut self, at: &TopicPartition, error: Error) -> Report {
        self.count_error(&error);
        let open = self.open.remove(at).expect("only an open partition breaks");
        self.sink.release(at);
        Report::Broken { at: at.clone(), run: open.run, error }
    }

    fn count_error(&mut self, error: &Error) {
        match error {
            Error::Conflict(_) => self.stats.fenced += 1,
            Error::Transient(_) | Error::Permanent(_) => self.stats.errors += 1,
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("policy", &self.policy)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance::{at, batch, claim};
    use crate::sink::memory::{Fault, MemorySink, MemoryStore, Step};

    const POLICY: Policy = Policy {
        bytes: u64::MAX,
        rows: 5,
        age: Duration::from_secs(10),
        idle: Duration::from_secs(10),
        eager: false,
        offsets: 100,
    };

    /// A writer with two partitions.
    fn writer(sink: MemorySink) -> (Writer, [TopicPartition; 2]) {
        writer_with(POLICY, sink)
    }

    fn writer_with(policy: Policy, sink: MemorySink) -> (Writer, [TopicPartition; 2]) {
        let mut writer = Writer::new(Box::new(sink), policy, Nonce::random);
        let ats = [at(), TopicPartition::new("customers", 1)];
        for at in &ats {
            let claim = Claim { at: at.clone(), ..claim(1) };
            let Report::Claimed(claimed) = writer.claim(vec![(RunId(1), claim)]) else { panic!() };
            assert!(claimed[0].state.is_ok());
        }
        (writer, ats)
    }

    fn committed(reports: &[Report]) -> Vec<&TopicPartition> {
        let mut all = Vec::new();
        for report in reports {
            let Report::Committed { at, .. } = report else { panic!("{report:?}") };
            all.push(at);
        }
        all
    }

    #[test]
    fn a_sink_that_prefers_it_gets_all_that_is_staged_in_one_step_once_the_sum_is_due() {
        let (mut writer, [one, other]) = writer(MemorySink::new(&MemoryStore::default()).together(true));
        assert!(writer.write(RunId(1), batch(0, 2), Duration::ZERO).is_empty());
        let rows = RoutedBatch { at: other.clone(), ..batch(0, 2) };
        assert_eq!(committed(&writer.write(RunId(1), rows, Duration::ZERO)), [&one, &other]);
        assert_eq!((writer.stats().commits, writer.deadline()), (2, None));
    }

    #[test]
    fn the_first_rows_after_a_claim_do_not_wait_for_others() {
        let policy = Policy { eager: true, ..POLICY };
        let (mut writer, [one, other]) = writer_with(policy, MemorySink::new(&MemoryStore::default()));
        assert_eq!(committed(&writer.write(RunId(1), batch(0, 1), Duration::ZERO)), [&one]);
        assert!(writer.write(RunId(1), batch(1, 3), Duration::ZERO).is_empty());
        let rows = RoutedBatch { at: other.clone(), ..batch(0, 1) };
        assert_eq!(committed(&writer.write(RunId(1), rows, Duration::ZERO)), [&other]);
    }

    #[test]
    fn another_sink_gets_the_one_partition_that_is_due() {
        let (mut writer, [one, other]) = writer(MemorySink::new(&MemoryStore::default()));
        let rows = RoutedBatch { at: other, ..batch(0, 2) };
        assert!(writer.write(RunId(1), rows, Duration::ZERO).is_empty());
        assert_eq!(committed(&writer.write(RunId(1), batch(0, 4), Duration::ZERO)), [&one]);
        assert!(writer.deadline().is_some());
    }

    #[test]
    fn a_lost_answer_of_one_step_is_found_out_for_each_partition() {
        let store = MemoryStore::default();
        let mut lost = 0;
        let faults = move |step: Step<'_>| match step {
            Step::Commit(..) if lost < 2 => {
                lost += 1;
                if lost == 1 { Fault::LostBefore } else { Fault::AppliedThenLost }
            }
            _ => Fault::None,
        };
        let sink = MemorySink::with_faults(&store, Box::new(faults)).together(true);
        let (mut writer, [one, other]) = writer(sink);
        writer.write(RunId(1), batch(0, 2), Duration::ZERO);
        let rows = RoutedBatch { at: other.clone(), ..batch(0, 2) };
        assert_eq!(committed(&writer.write(RunId(1), rows, Duration::ZERO)), [&one, &other]);
        assert_eq!((writer.stats().unknown_resolved, store.rows().len()), (4, 6));
    }
}
