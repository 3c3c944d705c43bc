//! Partitions that are committed in one transaction.

use super::*;

fn ats(n: i32) -> Vec<TopicPartition> {
    (0..n).map(|partition| TopicPartition::new("customers", partition)).collect()
}

fn claimed(base: &Base, generation: u64, ats: &[TopicPartition]) -> PostgresSink {
    let (mut sink, claim) = (base.sink(), claim(generation));
    for at in ats {
        sink.claim(&Claim { at: at.clone(), ..claim.clone() }).unwrap();
    }
    sink
}

/// Stages offsets `start..end` of each, and asks for them to be committed.
fn stage(
    sink: &mut PostgresSink,
    ats: &[TopicPartition],
    start: i64,
    end: i64,
) -> Vec<(TopicPartition, Commit)> {
    let stage = |at: &TopicPartition| {
        sink.write(RoutedBatch { at: at.clone(), ..batch(start, end) }).unwrap();
        (at.clone(), commit(start, end))
    };
    ats.iter().map(stage).collect()
}

fn all_done(answers: Vec<Result<Committed, Error>>) {
    answers.into_iter().for_each(|answer| assert_eq!(answer.unwrap(), Committed::Done));
}

#[test]
fn positions_are_locked_in_their_order_whatever_that_of_the_commits() {
    let base = Base::new();
    let ats = ats(3);
    let mut sink = claimed(&base, 1, &ats);
    let mut commits = stage(&mut sink, &ats, 0, 2);
    commits.reverse();
    let mut other = Session::new(&base);
    other.ask("BEGIN; SELECT FROM weir_position WHERE partition = 0 FOR UPDATE");
    let answers = thread::scope(|scope| {
        let commits = scope.spawn(|| sink.commit_together(&commits));
        other.until_somebody_waits();
        let free = "SELECT partition FROM weir_position WHERE partition > 0 ORDER BY 1 FOR UPDATE NOWAIT";
        assert_eq!(other.ask(free), ["1", "2"]);
        other.ask("COMMIT");
        commits.join().unwrap()
    });
    all_done(answers);
    assert_eq!(base.visible().len(), 3 * delivered(0, 2).len());
}

#[test]
fn of_two_processes_with_the_same_partitions_in_another_order_neither_is_undone_by_a_deadlock() {
    let base = Base::new();
    let (ats, rounds) = (ats(4), 30);
    let mut zombie = claimed(&base, 1, &ats);
    let mut commits = stage(&mut zombie, &ats, 0, 1);
    commits.reverse();
    let mut owner = claimed(&base, 2, &ats);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..rounds {
                let refused = conflict(zombie.commit_all(&commits).unwrap_err());
                assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
            }
        });
        for n in 0..rounds {
            let commits = stage(&mut owner, &ats, n, n + 1);
            assert!(owner.commit_all(&commits).unwrap().iter().all(|done| *done == Committed::Done));
        }
    });
    assert_eq!(base.visible().len(), 4 * delivered(0, rounds).len());
}

/// It waits for the claim that is under way, and sees what that has made of the position.
#[test]
fn one_partition_that_was_overtaken_undoes_the_commit_of_all_and_the_others_are_committed_without_it() {
    let base = Base::new();
    let ats = ats(3);
    let mut sink = claimed(&base, 1, &ats);
    let commits = stage(&mut sink, &ats, 0, 2);
    let mut other = Session::new(&base);
    other.ask(
        "BEGIN; UPDATE weir_position SET state = jsonb_set(state, '{epoch,generation}', '2') WHERE partition = 1",
    );
    let refused = thread::scope(|scope| {
        let refused = scope.spawn(|| conflict(sink.commit_all(&commits).unwrap_err()));
        other.until_somebody_waits();
        other.ask("COMMIT");
        refused.join().unwrap()
    });
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    assert_eq!(base.visible(), []);
    let answers = sink.commit_together(&commits);
    assert!(
        matches!(answers[..], [Ok(Committed::Done), Err(Error::Conflict(_)), Ok(Committed::Done)]),
        "{answers:?}"
    );
    assert_eq!(base.ask("SELECT DISTINCT weir_partition FROM a ORDER BY 1"), ["0", "2"]);
}

#[test]
fn one_position_that_is_gone_undoes_the_commit_of_all() {
    let base = Base::new();
    let ats = ats(3);
    let mut sink = claimed(&base, 1, &ats);
    let commits = stage(&mut sink, &ats, 0, 2);
    base.ask("DELETE FROM weir_position WHERE partition = 1");
    let text = permanent(sink.commit_all(&commits).unwrap_err());
    assert!(text.starts_with("E_STATE_MISSING") && text.contains(&ats[1].to_string()), "{text}");
    assert_eq!(base.visible(), []);
}
