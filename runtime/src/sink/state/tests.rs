//! The laws of [`SinkState`] under random interleavings of several owners.

use proptest::prelude::*;

use super::*;
use crate::offset::TopicPartition;

/// One owner's attempt at something. Positions are mostly right, so that runs get somewhere.
#[derive(Clone, Debug)]
enum Op {
    Claim { owner: u128, generation: u64 },
    Commit { owner: u128, generation: u64, skew: i64, length: i64, plan: u64, lost: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let owner = || 1..4u128;
    let generation = || 1..6u64;
    let skew = prop_oneof![4 => Just(0i64), 1 => -2..3i64];
    let lost = prop_oneof![6 => Just(0u64), 1 => Just(1u64)];
    let commit = (owner(), generation(), skew, 0..4i64, 1..5u64, lost).prop_map(
        |(owner, generation, skew, length, plan, lost)| Op::Commit {
            owner,
            generation,
            skew,
            length,
            plan,
            lost,
        },
    );
    prop_oneof![
        1 => (owner(), generation()).prop_map(|(owner, generation)| Op::Claim { owner, generation }),
        3 => commit,
    ]
}

fn claim_by(owner: u128, generation: u64) -> Claim {
    Claim {
        pipeline: "p".into(),
        group: "g".into(),
        topic_id: "id".into(),
        at: TopicPartition::new("t", 0),
        epoch: Epoch::new(generation),
        owner: Nonce::from_u128(owner),
        start: Start::Init(Offset::new(10)),
        input: None,
    }
}

fn commit_of(id: u128, start: i64, end: i64, plan: u64, lost: u64) -> Commit {
    let records_in = (end - start) as u64;
    let target = TargetCounters { rows: records_in, sum: id };
    Commit {
        id: Nonce::from_u128(id),
        range: OffsetRange::new(Offset::new(start), Offset::new(end)),
        plan: PlanRef { plan, digest: format!("sha256:{plan}").into() },
        counters: Counters {
            records_in: records_in + lost,
            routed: records_in,
            targets: [("a".into(), target)].into(),
            ..Counters::default()
        },
        last: None,
        told: 0,
    }
}

fn attempt(state: &mut SinkState, id: usize, op: &Op) -> Result<Option<Commit>, Refused> {
    match *op {
        Op::Claim { owner, generation } => state.claim(&claim_by(owner, generation)).map(|()| None),
        Op::Commit { owner, generation, skew, length, plan, lost } => {
            let start = (state.next.get() + skew).max(0);
            let commit = commit_of(id as u128, start, start + length, plan, lost);
            state.commit(Epoch::new(generation), Nonce::from_u128(owner), &commit).map(|()| Some(commit))
        }
    }
}

/// Runs `ops` and hands every step to `law`: the state before, the state after, and what came of it.
fn run(
    ops: &[Op],
    mut law: impl FnMut(&SinkState, &SinkState, &Op, &Result<Option<Commit>, Refused>),
) -> (SinkState, Vec<Commit>) {
    let mut state = SinkState::init(&claim_by(1, 1), Offset::new(10));
    let mut commits = Vec::new();
    for (id, op) in ops.iter().enumerate() {
        let before = state.clone();
        let outcome = attempt(&mut state, id, op);
        law(&before, &state, op, &outcome);
        commits.extend(outcome.ok().flatten());
    }
    (state, commits)
}

proptest! {
    #[test]
    fn a_refusal_changes_nothing(ops in prop::collection::vec(op(), 1..60)) {
        run(&ops, |before, after, _, outcome| assert!(outcome.is_ok() || before == after));
    }

    #[test]
    fn what_is_checked_beforehand_is_what_happens(ops in prop::collection::vec(op(), 1..60)) {
        run(&ops, |before, _, op, outcome| {
            if let (Op::Commit { owner, generation, .. }, Ok(Some(commit))) = (op, outcome) {
                let checked = before.check_commit(Epoch::new(*generation), Nonce::from_u128(*owner), commit);
                assert_eq!(checked, Ok(()));
            }
        });
    }

    #[test]
    fn after_a_claim_only_its_owner_and_epoch_commit(ops in prop::collection::vec(op(), 1..60)) {
        run(&ops, |before, _, op, outcome| {
            if let (Op::Commit { owner, generation, .. }, Ok(_)) = (op, outcome) {
                assert_eq!(before.epoch, Epoch::new(*generation));
                assert_eq!(before.owner, Some(Nonce::from_u128(*owner)));
            }
        });
    }

    #[test]
    fn epochs_never_go_down_and_a_repeated_claim_succeeds(ops in prop::collection::vec(op(), 1..60)) {
        run(&ops, |before, after, op, outcome| {
            assert!(before.epoch <= after.epoch);
            if let (Op::Claim { owner, generation }, Ok(_)) = (op, outcome) {
                let mut again = after.clone();
                assert_eq!(again.claim(&claim_by(*owner, *generation)), Ok(()));
                assert_eq!(&again, after);
            }
        });
    }

    #[test]
    fn ranges_touch_and_next_never_goes_down(ops in prop::collection::vec(op(), 1..60)) {
        let (state, commits) = run(&ops, |before, after, _, _| assert!(before.next <= after.next));
        let mut next = Offset::new(10);
        for commit in &commits {
            assert_eq!(commit.range.start, next);
            assert!(!commit.range.is_empty());
            next = commit.range.end;
        }
        assert_eq!(state.next, next);
        assert_eq!(state.last_commit, commits.last().map(|commit| commit.id));
    }

    #[test]
    fn plans_never_go_down_and_every_offset_answers_with_its_own(ops in prop::collection::vec(op(), 1..60)) {
        let (state, commits) = run(&ops, |_, _, _, _| ());
        assert!(commits.is_sorted_by_key(|commit| commit.plan.plan));
        for commit in &commits {
            for offset in commit.range.start.get()..commit.range.end.get() {
                assert_eq!(state.plan_at(Offset::new(offset)), Some(&commit.plan));
            }
        }
        assert_eq!(state.plan_at(state.next), None);
        assert_eq!(state.plan_at(Offset::new(9)), None);
    }

    #[test]
    fn counters_add_up_and_stay_conserved(ops in prop::collection::vec(op(), 1..60)) {
        let (state, commits) = run(&ops, |_, _, _, _| ());
        let mut sum = Counters::default();
        commits.iter().for_each(|commit| sum.add(&commit.counters));
        assert_eq!(state.counters, sum);
        assert!(state.counters.conserved());
        assert_eq!(state.counters.records_in, state.next.since(Offset::new(10)));
    }

    #[test]
    fn a_state_survives_its_text(ops in prop::collection::vec(op(), 1..60)) {
        let (state, _) = run(&ops, |_, _, _, _| ());
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<SinkState>(&text).unwrap(), state);
    }
}

#[test]
fn of_very_many_cuts_the_newest_stay_and_the_others_are_known_again() {
    let mut state = SinkState::init(&claim_by(1, 1), Offset::new(10));
    state.claim(&claim_by(1, 1)).unwrap();
    let mut all = Vec::new();
    for n in 0..100 {
        // Of plan 50 it is not sure that it is in the log.
        let commit = Commit { told: 50, ..commit_of(1, 10 + n, 11 + n, n as u64, 0) };
        all.push(Cut { from: commit.range.start, plan: commit.plan.clone() });
        state.commit(Epoch::new(1), Nonce::from_u128(1), &commit).unwrap();
        // Who does not know of it would not keep what is forgotten.
        assert_eq!(state.version(), if state.forgotten.is_some() { 2 } else { 1 });
    }
    let (old, kept) = all.split_at(100 - KEPT_CUTS);
    assert_eq!(state.cuts, kept);
    let mut more = state.clone();
    more.forget_cuts(0, 50);
    assert_eq!((&*more.cuts, more.forgotten), (&all[50..], forgotten(None, &all[..50])));
    assert_eq!((state.plan_at(Offset::new(45)), state.plan_at(Offset::new(46))), (None, Some(&kept[0].plan)));
    assert_eq!(state.forgotten, forgotten(None, old));
    let without = |n: usize| [&old[..n], &old[n + 1..]].concat();
    for wrong in [without(0), without(20), without(35), kept.to_vec()] {
        assert_ne!(state.forgotten, forgotten(None, &wrong));
    }
}

#[test]
fn another_group_topic_or_input_is_refused_whatever_the_epoch() {
    let input = |digest: &str| Some(Input { path: "a.csv".into(), length: 3, digest: digest.into() });
    let first = Claim { input: input("sha256:1"), ..claim_by(1, 1) };
    let mut state = SinkState::init(&first, Offset::ZERO);
    state.claim(&first).unwrap();
    let before = state.clone();
    let higher = Claim { input: input("sha256:1"), ..claim_by(2, 9) };

    let refused = state.claim(&Claim { group: "other".into(), ..higher.clone() });
    assert!(matches!(refused, Err(Refused::OtherGroup { .. })), "{refused:?}");
    let refused = state.claim(&Claim { topic_id: "other".into(), ..higher.clone() });
    assert!(matches!(refused, Err(Refused::TopicReplaced { .. })), "{refused:?}");
    let refused = state.claim(&Claim { input: input("sha256:2"), ..higher.clone() });
    assert!(matches!(refused, Err(Refused::InputChanged { .. })), "{refused:?}");
    assert_eq!(state, before);
    assert_eq!(state.claim(&higher), Ok(()));
}

#[test]
fn an_owner_higher_than_the_state_is_told_that_the_sink_went_back() {
    let mut state = SinkState::init(&claim_by(1, 1), Offset::ZERO);
    state.claim(&claim_by(1, 3)).unwrap();
    let refused = state.commit(Epoch::new(4), Nonce::from_u128(1), &commit_of(1, 0, 1, 1, 0));
    assert_eq!(refused, Err(Refused::WentBack { held: Epoch::new(3), ours: Epoch::new(4) }));
}

#[test]
fn a_higher_incarnation_fences_every_generation_of_a_lower_one() {
    let mut state = SinkState::init(&claim_by(1, 1), Offset::ZERO);
    state.claim(&claim_by(1, 1_000)).unwrap();
    let raised = Claim { epoch: Epoch { incarnation: 1, generation: 1 }, ..claim_by(2, 0) };
    assert_eq!(state.claim(&raised), Ok(()));
    assert!(matches!(state.claim(&claim_by(1, 1_001)), Err(Refused::Fenced { .. })));
}

#[test]
fn a_partition_that_is_a_file_stays_one_and_another_never_becomes_one() {
    let file = Some(Input { path: "a.csv".into(), length: 3, digest: "sha256:1".into() });
    for (first, second, expected) in [
        (
            file.clone(),
            None,
            "E_INPUT_CHANGED: partition 0 was the file a.csv when it was read, and is no single",
        ),
        (
            None,
            file,
            "E_INPUT_CHANGED: partition 0 was no single file when it was read, and is the file a.csv",
        ),
    ] {
        let first = Claim { input: first, ..claim_by(1, 1) };
        let mut state = SinkState::init(&first, Offset::new(10));
        state.claim(&first).unwrap();
        let before = state.clone();
        let refused = state.claim(&Claim { input: second, ..claim_by(2, 9) }).unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{refused}");
        assert_eq!(state, before);
    }
}

#[test]
fn counts_that_no_number_holds_are_neither_conserved_nor_the_end_of_the_process() {
    let mut counters = Counters { records_in: 1, routed: u64::MAX, rejected: 2, ..Counters::default() };
    assert!(!counters.conserved(), "they are one modulo 2^64");
    counters.add(&counters.clone());
    assert_eq!((counters.records_in, counters.routed, counters.rejected), (2, u64::MAX, 4));
}
