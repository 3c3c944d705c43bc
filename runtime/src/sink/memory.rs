//! A sink in memory, for tests and for the simulation. Its store outlives the processes that write to it, and it
//! fails only where it is told to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::{Claim, Commit, Epoch, Nonce, Refused, SinkState, Start};
use super::{Committed, Error, Part, Problem, Resolved, RoutedBatch, Sink, Staged};
use crate::offset::{Offset, OffsetRange, TopicPartition};

/// What survives every crash: states and rows. Several [`MemorySink`]s on one store are several processes.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Durable>>,
}

/// All partitions of a [`MemoryStore`] as they were at some moment.
pub type Durable = BTreeMap<TopicPartition, Stored>;

/// One partition in the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Where the sink stands.
    pub state: SinkState,
    /// Every commit since the beginning, oldest first; their ranges touch.
    pub commits: Vec<Delivered>,
}

/// What one commit made visible.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Under which epoch.
    pub epoch: Epoch,
    /// By which process.
    pub owner: Nonce,
    /// The request.
    pub commit: Commit,
    /// The rows, as they were written.
    pub batches: Vec<RoutedBatch>,
}

/// One visible row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MemoryRow {
    /// Where its record came from.
    pub at: TopicPartition,
    /// The record's offset.
    pub offset: Offset,
    /// Its number among the rows of its record.
    pub index: i32,
    /// Where it went.
    pub target: Arc<str>,
    /// By which route.
    pub route: Arc<str>,
    /// The plan that made it.
    pub plan: u64,
}

impl MemoryStore {
    /// Every visible row, by partition and in the order of the commits.
    pub fn rows(&self) -> Vec<MemoryRow> {
        let partitions = self.lock();
        let commits = partitions.values().flat_map(|stored| &stored.commits);
        commits.flat_map(|delivered| &delivered.batches).flat_map(rows_of).collect()
    }

    /// Where the sink stands in `at`.
    pub fn state(&self, at: &TopicPartition) -> Option<SinkState> {
        self.lock().get(at).map(|stored| stored.state.clone())
    }

    /// A copy of everything.
    pub fn backup(&self) -> Durable {
        self.lock().clone()
    }

    /// Goes back, or forth, to what a backup holds.
    pub fn restore(&self, backup: Durable) {
        *self.lock() = backup;
    }

    fn lock(&self) -> MutexGuard<'_, Durable> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rows_of(batch: &RoutedBatch) -> impl Iterator<Item = MemoryRow> {
    let row = |part: &Part, i: usize| MemoryRow {
        at: batch.at.clone(),
        offset: Offset::new(part.offsets[i]),
        index: part.index[i],
        target: part.target.clone(),
        route: part.route.clone(),
        plan: batch.plan.plan,
    };
    batch.parts.iter().flat_map(move |part| (0..part.offsets.len()).map(move |i| row(part, i)))
}

/// A step at which a sink can be made to fail.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// [`Sink::claim`].
    Claim(&'a Claim),
    /// [`Sink::write`].
    Write(&'a RoutedBatch),
    /// [`Sink::commit`].
    Commit(&'a TopicPartition, &'a Commit),
    /// [`Sink::resolve`].
    Resolve(&'a TopicPartition, &'a Commit),
}

/// What happens at a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// What was asked.
    None,
    /// Nothing: the answer is [`Error::Transient`].
    Transient,
    /// What was asked, but the answer is lost: [`Committed::Unknown`] from a commit, else [`Error::Transient`].
    AppliedThenLost,
    /// Nothing, and the answer is lost, in the same way.
    LostBefore,
}

/// Decides what happens at each step.
pub type Faults = Box<dyn FnMut(Step<'_>) -> Fault + Send>;

/// One process's access to a [`MemoryStore`].
pub struct MemorySink {
    store: MemoryStore,
    faults: Faults,
    together: bool,
    kept_cuts: usize,
    owned: BTreeMap<TopicPartition, Owned>,
}

/// What a process holds of a partition, lost when it dies.
#[derive(Debug)]
struct Owned {
    epoch: Epoch,
    owner: Nonce,
    next: Offset,
    batches: Vec<RoutedBatch>,
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySink").field("owned", &self.owned).finish_non_exhaustive()
    }
}

impl MemorySink {
    /// A process that nothing goes wrong for.
    pub fn new(store: &MemoryStore) -> Self {
        Self::with_faults(store, Box::new(|_| Fault::None))
    }

    /// A process whose every step is decided by `faults`.
    pub fn with_faults(store: &MemoryStore, faults: Faults) -> Self {
        Self { store: store.clone(), faults, together: false, kept_cuts: usize::MAX, owned: BTreeMap::new() }
    }

    /// Commits of several partitions become one step, which happens as a whole, or is lost as a whole.
    pub fn together(self, together: bool) -> Self {
        Self { together, ..self }
    }

    /// Keeps so many cuts of a partition, once those before are in the plan log.
    pub fn keeping_cuts(self, kept_cuts: usize) -> Self {
        Self { kept_cuts, ..self }
    }

    fn owned(&mut self, at: &TopicPartition) -> Result<&mut Owned, Error> {
        self.owned.get_mut(at).ok_or_else(|| not_claimed(at))
    }

    fn commit_under(
        &mut self,
        fault: Fault,
        at: &TopicPartition,
        commit: &Commit,
    ) -> Result<Committed, Error> {
        if fault == Fault::Transient {
            before(fault)?;
        }
        if fault == Fault::LostBefore {
            return Ok(Committed::Unknown("lost before it arrived".to_owned()));
        }
        let (store, kept_cuts) = (self.store.clone(), self.kept_cuts);
        let owned = self.owned(at)?;
        owned.check_range(commit)?;
        deliver(&mut store.lock(), at, owned, commit, kept_cuts)?;
        match fault {
            Fault::AppliedThenLost => Ok(Committed::Unknown("the answer was lost".to_owned())),
            _ => Ok(owned.move_on(commit)),
        }
    }
}

impl Sink for MemorySink {
    fn claim(&mut self, claim: &Claim) -> Result<SinkState, Error> {
        let fault = (self.faults)(Step::Claim(claim));
        before(fault)?;
        let state = claim_in(&mut self.store.lock(), claim)?;
        after(fault)?;
        let (epoch, owner, next) = (claim.epoch, claim.owner, state.next);
        self.owned.insert(claim.at.clone(), Owned { epoch, owner, next, batches: Vec::new() });
        Ok(state)
    }

    fn write(&mut self, rows: RoutedBatch) -> Result<Staged, Error> {
        before((self.faults)(Step::Write(&rows)))?;
        let owned = self.owned(&rows.at)?;
        if rows.range.start != owned.end() {
            return Err(Refused::NotNext { range: rows.range, next: owned.end() }.into());
        }
        owned.batches.push(rows);
        Ok(owned.staged())
    }

    fn commit(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Committed, Error> {
        let fault = (self.faults)(Step::Commit(at, commit));
        self.commit_under(fault, at, commit)
    }

    fn commit_together(&mut self, commits: &[(TopicPartition, Commit)]) -> Vec<Result<Committed, Error>> {
        if !self.together {
            return commits.iter().map(|(at, commit)| self.commit(at, commit)).collect();
        }
        let Some((at, commit)) = commits.first() else { return Vec::new() };
        let fault = (self.faults)(Step::Commit(at, commit));
        commits.iter().map(|(at, commit)| self.commit_under(fault, at, commit)).collect()
    }

    fn prefers_together(&self) -> bool {
        self.together
    }

    fn resolve(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Resolved, Error> {
        before((self.faults)(Step::Resolve(at, commit)))?;
        let store = self.store.clone();
        let owned = self.owned(at)?;
        let partitions = store.lock();
        let stored = partitions.get(at).ok_or_else(|| state_missing(at))?;
        if stored.commits.iter().any(|delivered| delivered.commit.id == commit.id) {
            owned.move_on(commit);
            return Ok(Resolved::Committed);
        }
        stored.state.check_commit(owned.epoch, owned.owner, commit)?;
        Ok(Resolved::NotCommitted)
    }

    fn release(&mut self, at: &TopicPartition) {
        self.owned.remove(at);
    }
}

impl Owned {
    /// Where the next batch starts.
    fn end(&self) -> Offset {
        self.batches.last().map_or(self.next, |batch| batch.range.end)
    }

    fn staged(&self) -> Staged {
        let parts = || self.batches.iter().flat_map(|batch| &batch.parts);
        let rows = parts().map(|part| part.offsets.len() as u64).sum();
        let bytes = parts().map(|part| part.rows.get_array_memory_size() as u64).sum();
        Staged { rows, bytes, full: false }
    }

    fn check_range(&self, commit: &Commit) -> Result<(), Error> {
        let written = OffsetRange::new(self.next, self.end());
        if written.is_empty() || written == commit.range {
            return Ok(());
        }
        Err(Error::Permanent(Problem::new(format!("{written} was written, {} is committed", commit.range))))
    }

    fn move_on(&mut self, commit: &Commit) -> Committed {
        self.batches.clear();
        self.next = commit.range.end;
        Committed::Done
    }
}

fn claim_in(partitions: &mut Durable, claim: &Claim) -> Result<SinkState, Error> {
    if let Some(stored) = partitions.get_mut(&claim.at) {
        stored.state.claim(claim)?;
        return Ok(stored.state.clone());
    }
    let Start::Init(start) = claim.start else { return Err(state_missing(&claim.at)) };
    let mut state = SinkState::init(claim, start);
    state.claim(claim)?;
    partitions.insert(claim.at.clone(), Stored { state: state.clone(), commits: Vec::new() });
    Ok(state)
}

fn deliver(
    partitions: &mut Durable,
    at: &TopicPartition,
    owned: &Owned,
    commit: &Commit,
    kept_cuts: usize,
) -> Result<(), Error> {
    let stored = partitions.get_mut(at).ok_or_else(|| state_missing(at))?;
    stored.state.commit(owned.epoch, owned.owner, commit)?;
    stored.state.forget_cuts(kept_cuts, commit.told);
    let (epoch, owner, commit, batches) = (owned.epoch, owned.owner, commit.clone(), owned.batches.clone());
    stored.commits.push(Delivered { epoch, owner, commit, batches });
    Ok(())
}

fn before(fault: Fault) -> Result<(), Error> {
    match fault {
        Fault::Transient | Fault::LostBefore => {
            Err(Error::Transient(Problem::new("the store does not answer")))
        }
        Fault::None | Fault::AppliedThenLost => Ok(()),
    }
}

fn after(fault: Fault) -> Result<(), Error> {
    match fault {
        Fault::AppliedThenLost => Err(Error::Transient(Problem::new("the answer was lost"))),
        _ => Ok(()),
    }
}

fn not_claimed(at: &TopicPartition) -> Error {
    Error::Permanent(Problem::new(format!("{at} is not claimed")))
}

fn state_missing(at: &TopicPartition) -> Error {
    Error::Permanent(Problem::new(format!(
        "E_STATE_MISSING: the store has no state of {at}, but had one once"
    )))
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, Owner, Seen, World, check_laws};
    use super::*;

    impl World for MemoryStore {
        fn process(&self) -> Box<dyn Sink> {
            Box::new(MemorySink::new(self))
        }

        fn visible(&self) -> Vec<Seen> {
            let partitions = self.lock();
            let commits = partitions.values().flat_map(|stored| &stored.commits);
            let parts = commits.flat_map(|delivered| &delivered.batches).flat_map(|batch| &batch.parts);
            let mut seen: Vec<_> = parts.flat_map(seen).collect();
            seen.sort();
            seen
        }
    }

    fn seen(part: &Part) -> Vec<Seen> {
        let rows = conformance::texts(&part.rows).into_iter().enumerate();
        rows.map(|(i, text)| (part.target.to_string(), part.offsets[i], part.index[i], text)).collect()
    }

    #[test]
    fn a_sink_in_memory_obeys_every_law() {
        check_laws(MemoryStore::default);
    }

    fn failing(store: &MemoryStore, at_commit: Fault) -> Owner {
        let faults = move |step: Step<'_>| match step {
            Step::Commit(..) => at_commit,
            _ => Fault::None,
        };
        let sink = Box::new(MemorySink::with_faults(store, Box::new(faults)));
        let mut owner = Owner { sink, claim: conformance::claim(1) };
        owner.claim().unwrap();
        owner
    }

    #[test]
    fn a_lost_answer_is_resolved_to_what_is_true_of_the_rows() {
        let cases =
            [(Fault::AppliedThenLost, Resolved::Committed), (Fault::LostBefore, Resolved::NotCommitted)];
        for (fault, expected) in cases {
            let store = MemoryStore::default();
            let mut owner = failing(&store, fault);
            owner.write(0, 3).unwrap();
            let request = conformance::commit(0, 3);
            let answer = owner.sink.commit(&conformance::at(), &request).unwrap();
            assert!(matches!(answer, Committed::Unknown(_)));
            assert_eq!(owner.sink.resolve(&conformance::at(), &request).unwrap(), expected);
            let rows = if expected == Resolved::Committed { 5 } else { 0 };
            assert_eq!(store.rows().len(), rows);
        }
    }

    #[test]
    fn a_store_restored_from_a_backup_refuses_the_owner_it_forgot() {
        let store = MemoryStore::default();
        Owner::claimed(&store, 1).deliver(0, 2);
        let backup = store.backup();
        let mut owner = Owner::claimed(&store, 2);
        owner.deliver(2, 4);
        store.restore(backup);
        owner.write(4, 5).unwrap();
        let refused = conformance::conflict(owner.commit(4, 5).unwrap_err());
        assert!(matches!(refused, Refused::WentBack { .. }), "{refused}");
        assert_eq!(owner.claim().unwrap().next, Offset::new(2));
        assert_eq!(store.state(&conformance::at()).unwrap().next, Offset::new(2));
        assert_eq!(store.rows().len(), 3);
    }
}
