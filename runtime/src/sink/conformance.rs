//! The laws of [`Sink`] as tests that every sink has to pass. They know no sink; a [`World`] opens processes on one
//! durable store and reads back what is visible there.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema};

use super::state::{
    Claim, Commit, Counters, Cut, Epoch, Fingerprint, Input, Nonce, PlanRef, Refused, SinkState, Start,
    forgotten,
};
use super::{Committed, Error, Part, Resolved, RoutedBatch, Sink, Staged};
use crate::offset::{Offset, OffsetRange, TopicPartition};

/// A row as a reader finds it: target, offset, index, and what the transform made.
pub(crate) type Seen = (String, i64, i32, String);

/// A durable store and its readers.
pub(crate) trait World {
    /// Another process.
    fn process(&self) -> Box<dyn Sink>;

    /// All visible rows, sorted.
    fn visible(&self) -> Vec<Seen>;
}

/// A process with what it needs to claim, write and commit partition 0.
pub(crate) struct Owner {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) claim: Claim,
}

impl Owner {
    /// A process that claims as generation `generation`.
    pub(crate) fn new(world: &dyn World, generation: u64) -> Self {
        Self { sink: world.process(), claim: claim(generation) }
    }

    /// The same, already claimed.
    pub(crate) fn claimed(world: &dyn World, generation: u64) -> Self {
        let mut owner = Self::new(world, generation);
        owner.claim().unwrap();
        owner
    }

    pub(crate) fn claim(&mut self) -> Result<SinkState, Error> {
        self.sink.claim(&self.claim)
    }

    /// Writes one row per offset to target `a`, and for even offsets a second one to `b`.
    pub(crate) fn write(&mut self, start: i64, end: i64) -> Result<Staged, Error> {
        self.sink.write(batch(start, end))
    }

    pub(crate) fn commit(&mut self, start: i64, end: i64) -> Result<Committed, Error> {
        self.sink.commit(&at(), &commit(start, end))
    }

    /// Writes and commits.
    pub(crate) fn deliver(&mut self, start: i64, end: i64) {
        self.write(start, end).unwrap();
        assert_eq!(self.commit(start, end).unwrap(), Committed::Done);
    }
}

pub(crate) fn at() -> TopicPartition {
    TopicPartition::new("customers", 0)
}

pub(crate) fn claim(generation: u64) -> Claim {
    Claim {
        pipeline: "p".into(),
        group: "weir.p".into(),
        topic_id: "id-1".into(),
        at: at(),
        epoch: Epoch::new(generation),
        owner: Nonce::random(),
        start: Start::Init(Offset::ZERO),
        input: None,
    }
}

pub(crate) fn commit(start: i64, end: i64) -> Commit {
    let records_in = (end - start) as u64;
    Commit {
        id: Nonce::random(),
        range: range(start, end),
        plan: plan(),
        counters: Counters { records_in, routed: records_in, ..Counters::default() },
        last: last_before(end),
        told: 0,
    }
}

fn plan() -> PlanRef {
    PlanRef { plan: 7, digest: "sha256:00".into() }
}

fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(Offset::new(start), Offset::new(end))
}

/// The record in front of an offset.
fn last_before(end: i64) -> Option<Fingerprint> {
    Some(Fingerprint::of(Offset::new(end - 1), None, Some(format!("record {end}").as_bytes())))
}

pub(crate) fn batch(start: i64, end: i64) -> RoutedBatch {
    let all: Vec<i64> = (start..end).collect();
    let even = all.iter().copied().filter(|offset| offset % 2 == 0).collect();
    let parts = vec![part("a", all, 0), part("b", even, 1)];
    let counters = Counters::default();
    RoutedBatch {
        at: at(),
        range: range(start, end),
        plan: plan(),
        counters,
        last: last_before(end),
        told: 0,
        parts,
    }
}

pub(crate) fn part(target: &str, offsets: Vec<i64>, index: i32) -> Part {
    let texts: StringArray = offsets.iter().map(|offset| Some(format!("{target}{offset}"))).collect();
    let schema = Schema::new(vec![
        Field::new("text", DataType::Utf8, false),
        Field::new("number", DataType::Int64, true),
    ]);
    let numbers = Int64Array::from(offsets.clone());
    let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(texts), Arc::new(numbers)]).unwrap();
    Part {
        target: target.into(),
        route: format!("to-{target}").into(),
        rows,
        index: vec![index; offsets.len()].into(),
        timestamps: vec![-1; offsets.len()].into(),
        offsets: offsets.into(),
        origins: None,
        keys: None,
        headers: None,
        deletes: None,
    }
}

/// What is visible once offsets `start..end` are delivered.
pub(crate) fn delivered(start: i64, end: i64) -> Vec<Seen> {
    let a = (start..end).map(|o| ("a".to_owned(), o, 0, format!("a{o}")));
    let b = (start..end).filter(|o| o % 2 == 0).map(|o| ("b".to_owned(), o, 1, format!("b{o}")));
    a.chain(b).collect()
}

/// The texts of a part made by [`part`].
pub(crate) fn texts(rows: &RecordBatch) -> Vec<String> {
    let column = rows.column_by_name("text").unwrap();
    let column = column.as_any().downcast_ref::<StringArray>().unwrap();
    column.iter().map(|text| text.unwrap().to_owned()).collect()
}

/// A part whose records come again, and came first there.
pub(crate) fn again(part: Part, origins: &[&str]) -> Part {
    Part { origins: Some(origins.iter().map(|text| text.parse().unwrap()).collect()), ..part }
}

/// Which rows of a part delete.
pub(crate) fn deleting(part: Part, rows: &[bool]) -> Part {
    Part { deletes: Some(BooleanBuffer::from(rows)), ..part }
}

pub(crate) fn conflict(error: Error) -> Refused {
    match error {
        Error::Conflict(refused) => refused,
        other => panic!("not a conflict: {other}"),
    }
}

pub(crate) fn permanent(error: Error) -> String {
    match error {
        Error::Permanent(problem) => problem.to_string(),
        other => panic!("not permanent: {other}"),
    }
}

/// A law and its name.
type Law = (&'static str, fn(&dyn World));

/// What every sink must obey; each is tried on a fresh world.
pub(crate) const LAWS: &[Law] = &[
    ("nothing is visible before the commit and all of it once after", nothing_before_all_after),
    ("a first claim starts where it was told", first_claim),
    ("a claim tells where the sink stands", claim_tells_position),
    ("a claim tells which record is in front of the position", claim_tells_last),
    ("a claim tells it also to a process at work, of what another one began since", claim_while_at_work),
    ("a claim fences the commit of a lower epoch", claim_fences),
    ("a claim of a lower epoch is refused", lower_claim_refused),
    ("a claim of the same epoch by another process is refused", same_epoch_refused),
    ("a repeated claim of the same owner succeeds and forgets what was staged", repeated_claim),
    ("a crash after a write leaves nothing", crash_after_write),
    ("several writes become one commit", several_writes),
    ("a commit starts where the sink stands", commit_starts_at_next),
    ("a write starts where the one before ended", write_starts_at_end),
    ("a commit covers what was written", commit_covers_writes),
    ("a commit without rows moves the position", empty_commit),
    ("a partition that must have a state and has none is refused", must_exist),
    ("another topic of the same name is refused", other_topic),
    ("another group is refused", other_group),
    ("another input is refused", other_input),
    ("what was overtaken leaves the new owner alone", zombie_is_harmless),
    ("partitions do not disturb each other", partitions_are_apart),
    ("of partitions that are committed together each is there, but one that is refused", committed_together),
    ("of partitions that are claimed together each is ours, but one that is refused", claimed_together),
    ("who has not claimed cannot write or commit", not_claimed),
    ("a commit that is known is resolved as committed, another as not", resolve_tells),
    ("cuts and counters survive the process", state_survives),
    (
        "cuts that the plan log has are forgotten but for the newest, also by the next process",
        cuts_are_forgotten,
    ),
];

/// Tries every law on a world of its own.
pub(crate) fn check_laws<W: World>(mut world: impl FnMut() -> W) {
    for (law, check) in LAWS {
        let world = world();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&world)));
        assert!(outcome.is_ok(), "broken: {law}");
    }
}

fn nothing_before_all_after(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    let staged = owner.write(0, 5).unwrap();
    assert_eq!(staged.rows, 8);
    assert!(staged.bytes > 0);
    assert_eq!(world.visible(), []);
    assert_eq!(owner.commit(0, 5).unwrap(), Committed::Done);
    assert_eq!(world.visible(), delivered(0, 5));
}

fn first_claim(world: &dyn World) {
    let mut owner = Owner::new(world, 1);
    owner.claim.start = Start::Init(Offset::new(40));
    assert_eq!(owner.claim().unwrap().next, Offset::new(40));
    let mut second = Owner::new(world, 2);
    second.claim.start = Start::Init(Offset::new(99));
    assert_eq!(second.claim().unwrap().next, Offset::new(40));
}

fn claim_tells_position(world: &dyn World) {
    Owner::claimed(world, 1).deliver(0, 5);
    let mut second = Owner::new(world, 2);
    second.claim.start = Start::MustExist;
    assert_eq!(second.claim().unwrap().next, Offset::new(5));
    second.deliver(5, 7);
    let mut all = delivered(0, 7);
    all.sort();
    assert_eq!(world.visible(), all);
}

fn claim_tells_last(world: &dyn World) {
    Owner::claimed(world, 1).deliver(0, 5);
    let mut second = Owner::new(world, 2);
    assert_eq!(second.claim().unwrap().last, last_before(5));
    // A range of offsets without a record has none.
    let empty = Commit { last: None, counters: Counters::default(), ..commit(5, 7) };
    second.sink.write(RoutedBatch { last: None, parts: Vec::new(), ..batch(5, 7) }).unwrap();
    assert_eq!(second.sink.commit(&at(), &empty).unwrap(), Committed::Done);
    assert_eq!(Owner::new(world, 3).claim().unwrap().last, last_before(5));
}

fn claim_while_at_work(world: &dyn World) {
    let mut busy = Owner::new(world, 1);
    busy.sink.claim(&Claim { at: TopicPartition::new("customers", 1), ..busy.claim.clone() }).unwrap();
    Owner::claimed(world, 2).deliver(0, 5);
    busy.claim = Claim { owner: busy.claim.owner, start: Start::MustExist, ..claim(3) };
    assert_eq!(busy.claim().unwrap().next, Offset::new(5));
    busy.deliver(5, 7);
    let mut all = delivered(0, 7);
    all.sort();
    assert_eq!(world.visible(), all);
}

fn claim_fences(world: &dyn World) {
    let mut first = Owner::claimed(world, 1);
    first.write(0, 5).unwrap();
    let mut second = Owner::claimed(world, 2);
    let refused = conflict(first.commit(0, 5).unwrap_err());
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    assert_eq!(world.visible(), []);
    second.deliver(0, 3);
    assert_eq!(world.visible(), delivered(0, 3));
}

fn lower_claim_refused(world: &dyn World) {
    let _second = Owner::claimed(world, 2);
    let refused = conflict(Owner::new(world, 1).claim().unwrap_err());
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
}

fn same_epoch_refused(world: &dyn World) {
    let mut first = Owner::claimed(world, 1);
    assert!(Owner::new(world, 1).claim().is_err());
    first.deliver(0, 1);
}

fn repeated_claim(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    owner.write(0, 5).unwrap();
    assert_eq!(owner.claim().unwrap().next, Offset::ZERO);
    owner.deliver(0, 2);
    assert_eq!(owner.claim().unwrap().next, Offset::new(2));
    assert_eq!(world.visible(), delivered(0, 2));
}

fn crash_after_write(world: &dyn World) {
    let mut first = Owner::claimed(world, 1);
    first.write(0, 5).unwrap();
    drop(first);
    let mut second = Owner::new(world, 2);
    assert_eq!(second.claim().unwrap().next, Offset::ZERO);
    assert_eq!(world.visible(), []);
    second.deliver(0, 5);
    assert_eq!(world.visible(), delivered(0, 5));
}

fn several_writes(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    let first = owner.write(0, 3).unwrap();
    let second = owner.write(3, 4).unwrap();
    assert_eq!((first.rows, second.rows), (5, 6));
    assert_eq!(owner.commit(0, 4).unwrap(), Committed::Done);
    assert_eq!(world.visible(), delivered(0, 4));
    assert_eq!(owner.write(4, 5).unwrap().rows, 2);
}

fn commit_starts_at_next(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    assert!(owner.commit(1, 2).is_err());
    owner.deliver(0, 2);
    assert!(owner.commit(0, 2).is_err());
    assert!(owner.commit(3, 4).is_err());
    assert_eq!(world.visible(), delivered(0, 2));
}

fn write_starts_at_end(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    owner.write(0, 2).unwrap();
    assert!(owner.write(3, 4).is_err());
    assert!(owner.write(1, 4).is_err());
}

fn commit_covers_writes(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    owner.write(0, 2).unwrap();
    assert!(owner.commit(0, 1).is_err());
    assert!(owner.commit(0, 3).is_err());
    assert_eq!(world.visible(), []);
}

fn empty_commit(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    let nothing = RoutedBatch { parts: Vec::new(), ..batch(0, 10) };
    assert_eq!(owner.sink.write(nothing).unwrap(), Staged::default());
    assert_eq!(owner.commit(0, 10).unwrap(), Committed::Done);
    assert_eq!(owner.commit(10, 20).unwrap(), Committed::Done);
    assert_eq!(world.visible(), []);
    assert_eq!(Owner::new(world, 2).claim().unwrap().next, Offset::new(20));
}

fn must_exist(world: &dyn World) {
    let mut owner = Owner::new(world, 1);
    owner.claim.start = Start::MustExist;
    let text = permanent(owner.claim().unwrap_err());
    assert!(text.starts_with("E_STATE_MISSING"), "{text}");
}

fn other_topic(world: &dyn World) {
    Owner::claimed(world, 1).deliver(0, 1);
    for start in [Start::Init(Offset::ZERO), Start::MustExist] {
        let mut owner = Owner::new(world, 2);
        owner.claim.topic_id = "id-2".into();
        owner.claim.start = start;
        let text = permanent(owner.claim().unwrap_err());
        assert!(text.starts_with("E_TOPIC_REPLACED"), "{text}");
    }
    assert_eq!(Owner::new(world, 3).claim().unwrap().next, Offset::new(1));
}

fn other_group(world: &dyn World) {
    Owner::claimed(world, 1);
    let mut owner = Owner::new(world, 2);
    owner.claim.group = "other".into();
    let text = permanent(owner.claim().unwrap_err());
    assert!(text.starts_with("E_OTHER_GROUP"), "{text}");
}

fn other_input(world: &dyn World) {
    let input = |length| Some(Input { path: "a.csv".into(), length, digest: "sha256:00".into() });
    let mut first = Owner::new(world, 1);
    first.claim.input = input(3);
    first.claim().unwrap();
    let mut second = Owner::new(world, 2);
    second.claim.input = input(4);
    let text = permanent(second.claim().unwrap_err());
    assert!(text.starts_with("E_INPUT_CHANGED"), "{text}");
    let mut third = Owner::new(world, 2);
    third.claim.input = input(3);
    third.claim().unwrap();
}

fn zombie_is_harmless(world: &dyn World) {
    let mut zombie = Owner::claimed(world, 1);
    zombie.write(0, 5).unwrap();
    let mut owner = Owner::claimed(world, 2);
    owner.write(0, 3).unwrap();
    assert!(zombie.commit(0, 5).is_err());
    zombie.sink.release(&at());
    assert!(zombie.claim().is_err());
    assert_eq!(owner.commit(0, 3).unwrap(), Committed::Done);
    assert_eq!(world.visible(), delivered(0, 3));
}

fn partitions_are_apart(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    let other = Claim { at: TopicPartition::new("customers", 1), ..owner.claim.clone() };
    owner.sink.claim(&other).unwrap();
    owner.write(0, 2).unwrap();
    let rows = RoutedBatch { at: other.at.clone(), ..batch(0, 4) };
    owner.sink.write(rows).unwrap();
    assert_eq!(owner.sink.commit(&other.at, &commit(0, 4)).unwrap(), Committed::Done);
    assert_eq!(world.visible(), delivered(0, 4));
    owner.sink.release(&other.at);
    assert_eq!(owner.commit(0, 2).unwrap(), Committed::Done);
    assert_eq!(world.visible().len(), delivered(0, 4).len() + delivered(0, 2).len());
}

fn committed_together(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    let ats = [1, 2].map(|partition| TopicPartition::new("customers", partition));
    for at in &ats {
        let start = Start::Init(Offset::new(10));
        owner.sink.claim(&Claim { at: at.clone(), start, ..owner.claim.clone() }).unwrap();
    }
    owner.write(0, 2).unwrap();
    owner.sink.write(RoutedBatch { at: ats[0].clone(), ..batch(10, 14) }).unwrap();
    let [one, other] = ats;
    let commits = [(at(), commit(0, 2)), (other, commit(11, 12)), (one.clone(), commit(10, 14))];
    let answers = owner.sink.commit_together(&commits);
    assert!(matches!(answers[..], [Ok(Committed::Done), Err(_), Ok(Committed::Done)]), "{answers:?}");
    let mut all = [delivered(0, 2), delivered(10, 14)].concat();
    all.sort();
    assert_eq!(world.visible(), all);
    let claim = Claim { at: one, ..claim(2) };
    let state = world.process().claim(&claim).unwrap();
    assert_eq!((state.next, state.last_commit), (Offset::new(14), Some(commits[2].1.id)));
}

fn claimed_together(world: &dyn World) {
    Owner::claimed(world, 1).deliver(0, 2);
    let mut owner = Owner::new(world, 2);
    let new = |partition, start| Claim {
        at: TopicPartition::new("customers", partition),
        start,
        ..owner.claim.clone()
    };
    let from = |offset| Start::Init(Offset::new(offset));
    let replaced = Claim { topic_id: "id-2".into(), ..new(0, from(0)) };
    let claims = [new(1, from(10)), replaced, new(3, Start::MustExist), new(2, from(20))];
    let answers = owner.sink.claim_together(&claims);
    let [Ok(one), Err(Error::Permanent(_)), Err(Error::Permanent(_)), Ok(other)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!([(one.partition, one.next.get()), (other.partition, other.next.get())], [(1, 10), (2, 20)]);
    for (at, start) in [(&claims[0].at, 10), (&claims[3].at, 20)] {
        owner.sink.write(RoutedBatch { at: at.clone(), ..batch(start, start + 2) }).unwrap();
        assert_eq!(owner.sink.commit(at, &commit(start, start + 2)).unwrap(), Committed::Done);
    }
    let mut all = [delivered(0, 2), delivered(10, 12), delivered(20, 22)].concat();
    all.sort();
    assert_eq!(world.visible(), all);
    let again = [(2, 22), (0, 2), (1, 12)];
    let claims = again.map(|(partition, _)| new(partition, Start::MustExist));
    let states = owner.sink.claim_together(&claims).into_iter().map(Result::unwrap);
    let next: Vec<_> = states.map(|state| (state.partition, state.next.get())).collect();
    assert_eq!(next, again);
}

fn not_claimed(world: &dyn World) {
    let mut owner = Owner::new(world, 1);
    assert!(owner.write(0, 1).is_err());
    assert!(owner.commit(0, 1).is_err());
    owner.claim().unwrap();
    owner.sink.release(&at());
    assert!(owner.write(0, 1).is_err());
}

fn resolve_tells(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    owner.write(0, 2).unwrap();
    let request = commit(0, 2);
    assert_eq!(owner.sink.resolve(&at(), &request).unwrap(), Resolved::NotCommitted);
    assert_eq!(owner.sink.commit(&at(), &request).unwrap(), Committed::Done);
    assert_eq!(owner.sink.resolve(&at(), &request).unwrap(), Resolved::Committed);
    assert_eq!(world.visible(), delivered(0, 2));
}

fn state_survives(world: &dyn World) {
    let mut first = Owner::claimed(world, 1);
    first.deliver(0, 2);
    let newer = Commit { plan: PlanRef { plan: 9, digest: "sha256:09".into() }, ..commit(2, 5) };
    first.sink.write(RoutedBatch { plan: newer.plan.clone(), ..batch(2, 5) }).unwrap();
    assert_eq!(first.sink.commit(&at(), &newer).unwrap(), Committed::Done);
    let state = Owner::new(world, 2).claim().unwrap();
    assert_eq!(state.plan_at(Offset::new(1)), Some(&plan()));
    assert_eq!(state.plan_at(Offset::new(2)), Some(&newer.plan));
    assert_eq!(state.counters.records_in, 5);
    assert_eq!(state.last_commit, Some(newer.id));
}

fn cuts_are_forgotten(world: &dyn World) {
    let mut owner = Owner::claimed(world, 1);
    let mut all = Vec::new();
    for n in 0..70 {
        let plan = PlanRef { plan: n as u64, digest: "sha256:00".into() };
        all.push(Cut { from: Offset::new(n), plan: plan.clone() });
        let request = Commit { plan: plan.clone(), told: u64::MAX, ..commit(n, n + 1) };
        owner.sink.write(RoutedBatch { plan, ..batch(n, n + 1) }).unwrap();
        assert_eq!(owner.sink.commit(&at(), &request).unwrap(), Committed::Done);
    }
    let state = Owner::new(world, 2).claim().unwrap();
    let (old, kept) = all.split_at(70 - state.cuts.len());
    assert!(!old.is_empty(), "{} cuts are kept", kept.len());
    assert_eq!((&*state.cuts, state.forgotten), (kept, forgotten(None, old)));
    assert_eq!(world.visible(), delivered(0, 70));
}
