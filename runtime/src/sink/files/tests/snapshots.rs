//! Snapshots, what they cover, and who puts records where they have covered everything.

use super::*;
use crate::sink::state::Epoch;

laws![
    a_log_is_as_long_as_two_snapshots_and_the_records_since_the_newest,
    a_claim_reads_the_same_from_a_snapshot_as_from_every_record,
    claims_alone_make_a_log_no_longer_than_commits_do,
    another_topic_of_the_name_is_refused_after_its_first_record_is_gone,
    a_snapshot_that_cannot_be_read_in_full_is_refused_and_no_older_one_taken_for_it,
    a_record_put_where_a_snapshot_covers_everything_does_not_count_and_is_taken_back,
    a_record_left_where_a_snapshot_covers_everything_is_never_rolled_forward,
    a_commit_of_unknown_outcome_whose_number_was_deleted_is_a_conflict,
    a_snapshot_that_could_not_be_put_deletes_nothing_and_fails_no_commit,
];

/// The names in the log, sorted.
fn log(directory: &Place) -> Vec<String> {
    let files = directory.ground.files();
    files.iter().filter_map(|path| path.strip_prefix(&in_log("")).map(str::to_owned)).collect()
}

fn record(n: u64) -> String {
    format!("{n:020}.json")
}

fn snapshot(n: u64) -> String {
    format!("{n:020}.snap.json")
}

/// An owner in `directory` and what happens to it.
fn counted(directory: &Place, generation: u64) -> (Owner, Arc<Tally>) {
    let sink = directory.open();
    let tally = sink.tally();
    (Owner { sink: Box::new(sink), claim: conformance::claim(generation) }, tally)
}

/// Commits of one offset each, from `start` up to, and without, `end`.
fn deliver_each(owner: &mut Owner, start: i64, end: i64) {
    (start..end).for_each(|offset| owner.deliver(offset, offset + 1));
}

fn a_log_is_as_long_as_two_snapshots_and_the_records_since_the_newest(on: On) {
    let directory = Place::compacting(on, 4);
    let (mut owner, tally) = counted(&directory, 1);
    owner.claim().unwrap();
    // The first records are the beginning and the claim.
    deliver_each(&mut owner, 0, 2);
    assert_eq!(log(&directory), [record(3), snapshot(3)]);
    deliver_each(&mut owner, 2, 5);
    assert_eq!(log(&directory), [record(3), snapshot(3), record(4), record(5), record(6)]);
    deliver_each(&mut owner, 5, 11);
    assert_eq!(log(&directory), [snapshot(7), record(11), snapshot(11), record(12)]);
    assert_eq!(tally.snapshots.get(), 3);
    assert_eq!(directory.visible().len(), delivered(0, 11).len());
}

fn a_claim_reads_the_same_from_a_snapshot_as_from_every_record(on: On) {
    let all = Place::new(on, Format::JsonLines);
    let compacted = Place::compacting(on, 3);
    let [mut kept, mut short] = [&all, &compacted].map(|directory| Owner::new(directory, 1));
    short.claim = kept.claim.clone();
    let mut commits = Vec::new();
    for owner in [&mut kept, &mut short] {
        owner.claim().unwrap();
        for n in 0..8 {
            owner.write(n, n + 1).unwrap();
            commits.resize_with(commits.len().max(n as usize + 1), || conformance::commit(n, n + 1));
            assert_eq!(owner.sink.commit(&at(), &commits[n as usize]).unwrap(), Committed::Done);
        }
    }
    let claim = conformance::claim(2);
    let [kept, short] = [&all, &compacted]
        .map(|directory| Owner { claim: claim.clone(), ..Owner::new(directory, 2) }.claim().unwrap());
    assert_eq!(kept, short);
    assert_eq!(short.counters.records_in, 8);
}

fn claims_alone_make_a_log_no_longer_than_commits_do(on: On) {
    let directory = Place::compacting(on, 5);
    for generation in 1..40 {
        Owner::claimed(&directory, generation);
        assert!(log(&directory).len() <= 7, "{:?}", log(&directory));
    }
}

fn another_topic_of_the_name_is_refused_after_its_first_record_is_gone(on: On) {
    let directory = Place::compacting(on, 1);
    deliver_each(&mut Owner::claimed(&directory, 1), 0, 3);
    assert!(!log(&directory).contains(&record(0)));
    let mut other = Owner::new(&directory, 2);
    other.claim.topic_id = "id-2".into();
    let text = permanent(other.claim().unwrap_err());
    assert!(text.starts_with("E_TOPIC_REPLACED"), "{text}");
}

/// What a claim says to a log of two snapshots and a record that `damage` was done to.
fn check_damage(on: On, damage: impl FnOnce(&Place), code: &str, names: &str) {
    let directory = Place::compacting(on, 3);
    deliver_each(&mut Owner::claimed(&directory, 1), 0, 5);
    assert_eq!(log(&directory), [snapshot(2), record(5), snapshot(5), record(6)]);
    damage(&directory);
    let text = permanent(Owner::new(&directory, 2).claim().unwrap_err());
    assert!(text.starts_with(code) && text.contains(names), "{text}");
    assert_eq!(directory.visible().len(), delivered(0, 5).len());
}

fn a_snapshot_that_cannot_be_read_in_full_is_refused_and_no_older_one_taken_for_it(on: On) {
    let newest = snapshot(5);
    let edit = |from: &'static str, to: &'static str| {
        move |place: &Place| place.edit(&snapshot(5), replaced(from, to))
    };
    let cut_to = |length: usize| {
        move |place: &Place| {
            place.edit(&snapshot(5), |mut text| {
                text.truncate(length);
                text
            });
        }
    };
    let copy = |from: String, to: String| {
        move |place: &Place| place.ground.write(&in_log(&to), &place.ground.read(&in_log(&from)))
    };
    for length in [0, 1, 40, 200] {
        check_damage(on, cut_to(length), "E_LOG_CORRUPT", &newest);
    }
    check_damage(on, edit("\"next\":4", "\"next\":3"), "E_LOG_CORRUPT", &newest);
    check_damage(on, edit("{\"version\":1", "{\"version\":3"), "E_LOG_NEWER", &newest);
    check_damage(on, copy(snapshot(2), snapshot(5)), "E_LOG_CORRUPT", &newest);
    check_damage(on, copy(record(5), snapshot(5)), "E_LOG_CORRUPT", &newest);
    let remove = |name: String| move |place: &Place| place.ground.remove(&in_log(&name));
    check_damage(on, remove(snapshot(5)), "E_LOG_CORRUPT", &record(3));
    let moved = |place: &Place| {
        copy(record(6), record(7))(place);
        remove(record(6))(place);
    };
    check_damage(on, moved, "E_LOG_CORRUPT", &record(6));
}

fn a_record_put_where_a_snapshot_covers_everything_does_not_count_and_is_taken_back(on: On) {
    let directory = Place::compacting(on, 1);
    let (mut first, tally) = counted(&directory, 1);
    first.claim().unwrap();
    // The number at which the first owner is to put its commit is taken, and deleted again.
    let mut second = Owner::claimed(&directory, 2);
    deliver_each(&mut second, 0, 2);
    assert!(!log(&directory).contains(&record(2)));
    first.write(0, 3).unwrap();

    let refused = conformance::conflict(first.commit(0, 3).unwrap_err());
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    assert_eq!((tally.overtaken.get(), tally.fenced.get()), (1, 1));
    assert!(!log(&directory).contains(&record(2)));
    assert_eq!(directory.visible().len(), delivered(0, 2).len());
    first.sink.release(&at());
    deliver_each(&mut second, 2, 4);
    assert_eq!(Owner::new(&directory, 3).claim().unwrap().next, Offset::new(4));
    assert_eq!(directory.visible().len(), delivered(0, 4).len());
}

/// The owner before the third puts a record where everything is covered, and dies before it can take it back.
fn a_record_left_where_a_snapshot_covers_everything_is_never_rolled_forward(on: On) {
    let directory = Place::compacting(on, 1);
    let mut second = Owner::claimed(&directory, 1);
    deliver_each(&mut second, 0, 2);
    let staged = "_weir/p/lake/id-1/0/staging/0-1-00000000/left";
    let path = "a/left.jsonl";
    directory.ground.write(staged, b"{}\n");
    let file = record::StoredFile {
        target: "a".into(),
        route: "to-a".into(),
        staged: staged.into(),
        path: path.into(),
        length: 3,
        crc32: 0,
        rows: 1,
    };
    let left = record::Record::Commit(record::CommitRecord {
        epoch: Epoch::new(1),
        owner: second.claim.owner,
        commit: conformance::commit(0, 1),
        files: vec![file],
        rolled: 0,
    });
    let text = record::to_text(&left, crate::sink::state::Nonce::random());
    directory.ground.write(&in_log(&record(2)), &text);

    let (mut third, tally) = counted(&directory, 2);
    assert_eq!(third.claim().unwrap().next, Offset::new(2));
    assert_eq!(tally.rolled_forward.get(), 0);
    assert!(!directory.ground.files().contains(&path.to_owned()));
    assert!(!log(&directory).contains(&record(2)));
    assert_eq!(directory.staged(), [""; 0]);
}

fn a_commit_of_unknown_outcome_whose_number_was_deleted_is_a_conflict(on: On) {
    let directory = Place::compacting(on, 1);
    let (mut owner, disk, _) = on_faulty_disk(&directory);
    owner.write(0, 3).unwrap();
    let request = conformance::commit(0, 3);
    disk.lose(Loss::Outage(1));
    assert!(matches!(owner.sink.commit(&at(), &request).unwrap(), Committed::Unknown(_)));
    let mut other = Owner::claimed(&directory, 2);
    deliver_each(&mut other, 0, 2);
    let refused = conformance::conflict(owner.sink.resolve(&at(), &request).unwrap_err());
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    assert_eq!(directory.visible().len(), delivered(0, 2).len());
}

fn a_snapshot_that_could_not_be_put_deletes_nothing_and_fails_no_commit(on: On) {
    let directory = Place::compacting(on, 2);
    let (mut owner, disk, tally) = on_faulty_disk(&directory);
    assert_eq!(tally.snapshots.get(), 1);
    owner.deliver(0, 1);
    owner.write(1, 2).unwrap();
    disk.lose(Loss::Snapshot);
    assert_eq!(owner.commit(1, 2).unwrap(), Committed::Done);
    assert_eq!(tally.snapshots.get(), 1);
    assert_eq!(log(&directory), [record(1), snapshot(1), record(2), record(3)]);
    owner.deliver(2, 3);
    assert_eq!(log(&directory), [snapshot(1), record(4), snapshot(4)]);
    assert_eq!(directory.staged(), [""; 0]);
}

/// A log of `n` records that was never compacted: the beginning, a claim, commits without rows.
fn long_log(directory: &Place, n: u64) {
    let claim = conformance::claim(1);
    let (epoch, owner) = (claim.epoch, claim.owner);
    for at in 0..n {
        let written = match at {
            0 => record::Record::Init { state: SinkState::init(&claim, Offset::ZERO) },
            1 => record::Record::Claim { epoch, owner },
            _ => record::Record::Commit(record::CommitRecord {
                epoch,
                owner,
                commit: conformance::commit(at as i64 - 2, at as i64 - 1),
                files: Vec::new(),
                rolled: at - 1,
            }),
        };
        let text = record::to_text(&written, crate::sink::state::Nonce::random());
        directory.ground.write(&in_log(&record(at)), &text);
    }
}

#[test]
fn a_log_of_ten_thousand_records_is_read_in_full_and_then_compacted() {
    const RECORDS: u64 = 10_000;
    let directory = Place::compacting(On::Disk, 100);
    long_log(&directory, RECORDS);
    let state = Owner::new(&directory, 2).claim().unwrap();
    assert_eq!(state.next, Offset::new(RECORDS as i64 - 2));
    assert_eq!(state.counters.records_in, RECORDS - 2);
    assert_eq!(log(&directory), [record(RECORDS), snapshot(RECORDS)]);
    assert_eq!(Owner::new(&directory, 3).claim().unwrap().next, state.next);
}
