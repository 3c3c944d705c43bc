//! Partitions that are committed in one transaction.

use super::*;
use crate::sink::conformance::deleting;

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

/// Offsets 0 to 3 of each of three partitions go in by one COPY, or by one statement: of partition 1 the database refuses a
/// row, of partition 2 a trigger leaves two out.
#[test]
fn a_refused_row_is_that_of_its_partition_and_leaves_the_rows_of_all_others_alone() {
    for base in [Base::new(), Base::upsert(&["k"])] {
        base.ask(&format!(
            "CREATE TABLE a (k bigint PRIMARY KEY CHECK (k <> 11), {OURS});
             CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN IF NEW.k IN (20, 22) THEN RETURN NULL; END IF; RETURN NEW; END$$;
             CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION leave_out()"
        ));
        let ats = ats(3);
        let mut sink = claimed(&base, 1, &ats);
        let of = |at: &TopicPartition| {
            let keys = [0, 1, 2, 3].map(|n| i64::from(at.partition) * 10 + n);
            let parts = vec![rows(vec![("k", numbers(&keys))]), part("b", vec![1, 3], 1)];
            RoutedBatch { at: at.clone(), parts, ..batch(0, 4) }
        };
        let stage = |at: &TopicPartition| {
            sink.write(of(at)).unwrap();
            (at.clone(), commit(0, 4))
        };
        let commits: Vec<_> = ats.iter().map(stage).collect();
        sink.db.lose = Some(Loss::After);
        for answer in sink.commit_together(&commits) {
            assert!(matches!(answer, Ok(Committed::Unknown(_))));
        }
        let keys = base.ask("SELECT k, weir_partition, weir_offset FROM a ORDER BY 1");
        let expected = ["0|0|0", "1|0|1", "2|0|2", "3|0|3", "10|1|0", "12|1|2", "13|1|3", "21|2|1", "23|2|3"];
        assert_eq!(keys, expected);
        assert_eq!(
            base.ask("SELECT count(*), count(DISTINCT (weir_partition, weir_offset)) FROM b"),
            ["6|6"]
        );
        let rejects = "SELECT weir_partition, weir_offset, weir_index, target, route, sqlstate, \"row\"
                       FROM weir_reject ORDER BY 1, 2";
        let expected =
            ["1|1|0|a|to-a|23514|{\"k\":11}", "2|0|0|a|to-a|null|{\"k\":20}", "2|2|0|a|to-a|null|{\"k\":22}"];
        assert_eq!(base.ask(rejects), expected);
        // Each partition counts its own, once it is told that they are there.
        for ((at, request), rejected) in commits.iter().zip([0, 1, 3]) {
            assert_eq!(sink.resolve(at, request).unwrap(), Resolved::Committed);
            assert_eq!(sink.tally().rejected.get(), rejected);
        }
    }
}

/// As if each partition were committed after the one before it; also where another column is unique.
#[test]
fn of_partitions_with_the_same_key_the_last_one_stays_or_the_one_before_where_that_is_refused() {
    for unique in ["", "UNIQUE"] {
        let base = Base::upsert(&["k"]);
        base.ask(&format!(
            "CREATE TABLE a (k bigint PRIMARY KEY, n bigint {unique} CHECK (n NOT IN (21, 30)), {OURS})"
        ));
        let ats = ats(4);
        let mut sink = claimed(&base, 1, &ats);
        for at in &ats {
            let n = i64::from(at.partition) * 10;
            let part = rows(vec![("k", numbers(&[1, 1, 2])), ("n", numbers(&[n, n + 1, n + 2]))]);
            let part = match at.partition {
                3 => deleting(part, &[false, false, true]),
                _ => part,
            };
            sink.write(RoutedBatch { at: at.clone(), parts: vec![part], ..batch(0, 3) }).unwrap();
        }
        let commits = |n: usize| ats[..n].iter().map(|at| (at.clone(), commit(0, 3))).collect::<Vec<_>>();
        all_done(sink.commit_together(&commits(3)));
        let stored = "SELECT k, n, weir_partition, weir_offset FROM a ORDER BY k";
        assert_eq!(base.ask(stored), ["1|20|2|0", "2|22|2|2"]);
        let rejects = "SELECT weir_partition, weir_offset, sqlstate FROM weir_reject ORDER BY 1, 2";
        assert_eq!(base.ask(rejects), ["2|1|23514"]);
        // None follows a row of another partition.
        assert_eq!(sink.tally().superseded.get(), 3);
        all_done(sink.commit_together(&commits(4)[3..]));
        assert_eq!(base.ask(stored), ["1|31|3|1"]);
        assert_eq!(base.ask(rejects), ["2|1|23514", "3|0|23514"]);
    }
}

/// BEGIN, positions read and written, tables, SAVEPOINT, a COPY for each table, RELEASE, COMMIT.
#[test]
fn a_commit_of_many_partitions_sends_as_many_statements_as_that_of_one() {
    for n in [1, 4, 16] {
        let base = Base::new();
        let ats = ats(n);
        let mut sink = claimed(&base, 1, &ats);
        // This one makes the tables.
        let commits = stage(&mut sink, &ats, 0, 2);
        all_done(sink.commit_together(&commits));
        let commits = stage(&mut sink, &ats, 2, 4);
        let before = sink.db.sent;
        all_done(sink.commit_together(&commits));
        assert_eq!(sink.db.sent - before, 9, "{n} partitions");
    }
}
