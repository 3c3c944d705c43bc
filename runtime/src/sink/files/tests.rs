//! The file sink against the laws of all sinks, crashes at every failpoint, and lost answers.

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use ground::{Ground, On, laws};

use super::storage::tests::{Faulty, Loss};
use super::*;
use crate::offset::Offset;
use crate::sink::Part;
use crate::sink::conformance::{self, Owner, Seen, World, at, batch, check_laws, delivered, part, permanent};

/// A directory that processes write to, and its readers.
struct Place {
    ground: Box<dyn Ground>,
    format: Format,
    directories: Vec<Directory>,
    compact_after: u64,
}

impl Place {
    fn new(on: On, format: Format) -> Self {
        Self { ground: on.ground(), format, directories: Vec::new(), compact_after: 100 }
    }

    /// Every row goes to a directory of its own, and two files are too many to have open.
    fn scattered(on: On) -> Self {
        let directories = vec![Directory::Date(Span::Day, None), Directory::Column("text".into())];
        Self { directories, ..Self::new(on, Format::JsonLines) }
    }

    /// JSON lines, and a snapshot after every `n` records of the log.
    fn compacting(on: On, n: u64) -> Self {
        Self { compact_after: n, ..Self::new(on, Format::JsonLines) }
    }

    fn config(&self) -> FilesConfig {
        FilesConfig {
            format: self.format,
            directories: self.directories.clone(),
            open_files: if self.directories.is_empty() { 64 } else { 2 },
            compact_after: self.compact_after,
            ..FilesConfig::new(self.ground.root(), "p", "lake")
        }
    }

    fn open(&self) -> FilesSink {
        FilesSink::open(self.config()).unwrap()
    }

    /// The files that a reader finds: those below no directory that begins with `_`.
    fn files(&self) -> Vec<String> {
        let mut files = self.ground.files();
        files.retain(|path| !path.split('/').any(|part| part.starts_with('_')));
        files
    }

    fn staged(&self) -> Vec<String> {
        let mut files = self.ground.files();
        files.retain(|path| path.starts_with("_weir/p/lake/id-1/0/staging/"));
        files
    }

    fn read(&self, path: &str) -> Vec<Seen> {
        let (target, _) = path.split_once('/').unwrap();
        match path.ends_with(".parquet") {
            true => self.read_parquet(path).iter().flat_map(|rows| seen(target, rows)).collect(),
            false => self.read_json(path).iter().map(|row| seen_json(target, row)).collect(),
        }
    }

    fn read_parquet(&self, path: &str) -> Vec<RecordBatch> {
        let bytes = Bytes::from(self.ground.read(path));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        reader.map(Result::unwrap).collect()
    }

    fn read_json(&self, path: &str) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.ground.read(path)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Changes a file of the log.
    fn edit(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = in_log(name);
        self.ground.write(&path, &change(self.ground.read(&path)));
    }
}

/// The path of a file of the log.
fn in_log(name: &str) -> String {
    format!("_weir/p/lake/id-1/0/log/{name}")
}

/// The text `from` becomes `to`.
fn replaced(from: &str, to: &str) -> impl FnOnce(Vec<u8>) -> Vec<u8> {
    move |text| {
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(from), "{text}");
        text.replace(from, to).into_bytes()
    }
}

impl World for Place {
    fn process(&self) -> Box<dyn Sink> {
        Box::new(self.open())
    }

    fn visible(&self) -> Vec<Seen> {
        let mut rows: Vec<_> = self.files().iter().flat_map(|path| self.read(path)).collect();
        rows.sort();
        rows
    }
}

fn seen(target: &str, rows: &RecordBatch) -> Vec<Seen> {
    let offsets = rows.column_by_name("weir_offset").unwrap().as_primitive::<Int64Type>();
    let index = rows.column_by_name("weir_index").unwrap().as_primitive::<Int32Type>();
    let texts = conformance::texts(rows).into_iter().enumerate();
    texts.map(|(i, text)| (target.to_owned(), offsets.value(i), index.value(i), text)).collect()
}

fn seen_json(target: &str, row: &serde_json::Value) -> Seen {
    let number = |key: &str| row[key].as_i64().unwrap();
    let text = row["text"].as_str().unwrap_or_default().to_owned();
    (target.to_owned(), number("weir_offset"), number("weir_index") as i32, text)
}

laws![
    parquet_files_obey_every_law,
    json_files_obey_every_law,
    rows_in_directories_obey_every_law_with_few_files_open,
    rows_are_found_in_their_directories_and_a_commit_names_all_of_them,
    a_row_whose_time_is_no_date_is_rejected_in_the_same_commit,
    files_obey_every_law_with_a_snapshot_after_every_record,
    a_claimed_file_is_claimed_again,
    a_lost_answer_is_found_out_from_the_log,
    a_commit_that_nobody_answers_for_is_unknown_then_resolved_and_tried_again,
    a_commit_of_unknown_outcome_that_was_overtaken_is_a_conflict,
    a_record_that_arrives_after_its_owner_gave_up_still_finds_its_files,
    a_record_that_was_resolved_as_not_committed_cannot_arrive_any_more,
    what_lower_epochs_left_in_staging_is_removed_and_what_higher_ones_have_is_not,
    a_released_partition_leaves_nothing_in_staging,
    a_topic_is_refused_if_another_of_its_name_had_any_partition,
    a_log_that_cannot_be_read_in_full_is_never_continued,
    files_that_a_reader_took_away_raise_no_alarm,
    rows_that_delete_are_rejected_in_the_same_commit,
    without_provenance_only_dead_letters_tell_where_they_came_from,
    a_row_of_a_record_that_comes_again_says_where_it_came_first,
    a_target_can_have_a_format_of_its_own,
    a_parquet_file_holds_its_row_groups_plan_and_provenance,
    row_groups_end_sooner_where_all_of_them_take_too_much_memory,
    a_file_is_found_at_the_name_and_with_the_length_its_record_says,
];

fn parquet_files_obey_every_law(on: On) {
    check_laws(|| Place::new(on, Format::Parquet));
}

fn json_files_obey_every_law(on: On) {
    check_laws(|| Place::new(on, Format::JsonLines));
}

fn rows_in_directories_obey_every_law_with_few_files_open(on: On) {
    check_laws(|| Place::scattered(on));
}

fn rows_are_found_in_their_directories_and_a_commit_names_all_of_them(on: On) {
    let directory = Place::scattered(on);
    let mut owner = Owner::claimed(&directory, 1);
    let staged = owner.sink.write(batch(0, 3)).unwrap();
    assert!(staged.full && staged.rows == 5 && staged.bytes > 0, "{staged:?}");
    assert_eq!(owner.commit(0, 3).unwrap(), Committed::Done);
    let files = directory.files();
    let found: Vec<_> = files.iter().map(|path| path.rsplit_once('/').unwrap().0).collect();
    let expected = ["a", "a", "a", "b", "b"].iter().zip(["a0", "a1", "a2", "b0", "b2"]);
    let expected: Vec<_> =
        expected.map(|(target, text)| format!("{target}/dt={NOTHING}/text={text}")).collect();
    assert_eq!(found, expected);
    let text = directory.ground.read(&in_log("00000000000000000002.json"));
    let (_, record::Record::Commit(record)) = record::from_text(&text).unwrap() else { panic!("a commit") };
    let mut named: Vec<_> = record.files.iter().map(|file| file.path.clone()).collect();
    named.sort();
    assert_eq!(named, directory.files());
    assert!(!owner.sink.write(batch(3, 4)).unwrap().full, "the commit made room");
}

fn a_row_whose_time_is_no_date_is_rejected_in_the_same_commit(on: On) {
    let directory =
        Place { directories: vec![Directory::Date(Span::Day, None)], ..Place::new(on, Format::JsonLines) };
    let mut owner = Owner::claimed(&directory, 1);
    let times = vec![1_795_413_600_000, 1_000_000_000_000_000_000, -1].into();
    let rows = Part { timestamps: times, ..part("a", vec![0, 1, 2], 0) };
    let staged = owner.sink.write(RoutedBatch { parts: vec![rows], ..batch(0, 3) }).unwrap();
    assert_eq!(staged.rows, 3);
    assert_eq!(owner.commit(0, 3).unwrap(), Committed::Done);
    let row = |o: i64| ("a".to_owned(), o, 0, format!("a{o}"));
    assert_eq!(directory.visible(), [row(0), row(2), (REJECTS.to_owned(), 1, 0, String::new())]);
    let files = directory.files();
    let places: Vec<_> = files.iter().map(|path| path.rsplit('/').nth(1).unwrap()).collect();
    assert_eq!(places, ["dt=2026-11-23", &*format!("dt={NOTHING}"), REJECTS]);
    let rejected = &directory.read_json(&files[2])[0];
    assert_eq!(rejected["error"], "the timestamp 1000000000000000000 ms is not in the years 1 to 9999");
}

fn files_obey_every_law_with_a_snapshot_after_every_record(on: On) {
    check_laws(|| Place::compacting(on, 1));
}

/// An owner on a disk whose puts can be made to fail.
fn on_faulty_disk(directory: &Place) -> (Owner, Arc<Faulty>, Arc<Tally>) {
    let disk = Arc::new(Faulty::new(directory.ground.storage()));
    let sink = FilesSink::with_storage(directory.config(), disk.clone()).unwrap();
    let tally = sink.tally();
    let mut owner = Owner { sink: Box::new(sink), claim: conformance::claim(1) };
    owner.claim().unwrap();
    (owner, disk, tally)
}

fn a_claimed_file_is_claimed_again(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let input = Some(crate::sink::state::Input { path: "a".into(), length: 1, digest: "d".into() });
    for generation in [1, 2, 3] {
        let mut owner = Owner::new(&directory, generation);
        owner.claim.input = input.clone();
        assert_eq!(owner.claim().unwrap().input, input);
    }
    let text = permanent(Owner::new(&directory, 4).claim().unwrap_err());
    assert!(text.starts_with("E_INPUT_CHANGED"), "{text}");
}

fn a_lost_answer_is_found_out_from_the_log(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let (mut owner, disk, tally) = on_faulty_disk(&directory);
    disk.lose(Loss::Answer);
    owner.deliver(0, 3);
    assert_eq!(tally.unknown_resolved.get(), 1);
    disk.lose(Loss::Request);
    owner.deliver(3, 5);
    assert_eq!(tally.unknown_resolved.get(), 1);
    assert_eq!(directory.visible().len(), delivered(0, 5).len());
    disk.lose(Loss::Answer);
    owner.claim.epoch = crate::sink::state::Epoch::new(2);
    assert_eq!(owner.claim().unwrap().next, Offset::new(5));
}

fn a_commit_that_nobody_answers_for_is_unknown_then_resolved_and_tried_again(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let (mut owner, disk, _) = on_faulty_disk(&directory);
    owner.write(0, 3).unwrap();
    let request = conformance::commit(0, 3);
    disk.lose(Loss::Outage(1));
    let answer = owner.sink.commit(&at(), &request).unwrap();
    assert!(matches!(answer, Committed::Unknown(_)), "{answer:?}");
    assert_eq!(owner.sink.resolve(&at(), &request).unwrap(), Resolved::NotCommitted);
    assert_eq!(directory.visible(), []);
    assert_eq!(owner.sink.commit(&at(), &request).unwrap(), Committed::Done);
    assert_eq!(directory.visible(), delivered(0, 3));
}

fn a_commit_of_unknown_outcome_that_was_overtaken_is_a_conflict(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let (mut owner, disk, _) = on_faulty_disk(&directory);
    owner.write(0, 3).unwrap();
    let request = conformance::commit(0, 3);
    disk.lose(Loss::Outage(1));
    assert!(matches!(owner.sink.commit(&at(), &request).unwrap(), Committed::Unknown(_)));
    let mut other = Owner::claimed(&directory, 2);
    let refused = conformance::conflict(owner.sink.resolve(&at(), &request).unwrap_err());
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    owner.sink.release(&at());
    other.deliver(0, 2);
    assert_eq!(directory.visible(), delivered(0, 2));
}

fn a_record_that_arrives_after_its_owner_gave_up_still_finds_its_files(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let (mut owner, disk, _) = on_faulty_disk(&directory);
    owner.write(0, 3).unwrap();
    disk.lose(Loss::Late);
    assert!(matches!(owner.commit(0, 3).unwrap(), Committed::Unknown(_)));
    owner.sink.release(&at());
    disk.arrive().unwrap();
    assert_eq!(Owner::new(&directory, 2).claim().unwrap().next, Offset::new(3));
    assert_eq!(directory.visible(), delivered(0, 3));
}

fn a_record_that_was_resolved_as_not_committed_cannot_arrive_any_more(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let (mut owner, disk, _) = on_faulty_disk(&directory);
    owner.write(0, 3).unwrap();
    let request = conformance::commit(0, 3);
    disk.lose(Loss::Late);
    assert!(matches!(owner.sink.commit(&at(), &request).unwrap(), Committed::Unknown(_)));
    assert_eq!(owner.sink.resolve(&at(), &request).unwrap(), Resolved::NotCommitted);
    assert!(disk.arrive().is_err());
    assert_eq!(Owner::new(&directory, 2).claim().unwrap().next, Offset::ZERO);
}

fn what_lower_epochs_left_in_staging_is_removed_and_what_higher_ones_have_is_not(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let mut first = Owner::claimed(&directory, 1);
    first.write(0, 3).unwrap();
    let left = format!("_weir/p/lake/id-1/0/staging/0-1-{}/left", first.claim.owner.short());
    directory.ground.write(&left, b"half a file");
    std::mem::forget(first);
    assert!(directory.staged().contains(&left));
    let mut second = Owner::claimed(&directory, 2);
    assert_eq!(directory.staged(), [""; 0]);
    second.write(0, 3).unwrap();
    assert!(Owner::new(&directory, 1).claim().is_err());
    assert_eq!(second.commit(0, 3).unwrap(), Committed::Done);
    assert_eq!(directory.visible(), delivered(0, 3));
}

fn a_released_partition_leaves_nothing_in_staging(on: On) {
    let directory = Place::new(on, Format::Parquet);
    let mut owner = Owner::claimed(&directory, 1);
    owner.write(0, 3).unwrap();
    owner.sink.release(&at());
    assert_eq!(directory.staged(), [""; 0]);
}

#[test]
fn files_that_could_not_be_completed_are_not_committed_in_part_and_leave_nothing_in_staging() {
    for lost in [0, 1] {
        let directory = Place::new(On::Disk, Format::JsonLines);
        let mut owner = Owner::claimed(&directory, 1);
        owner.write(0, 3).unwrap();
        directory.ground.remove(&directory.staged()[lost]);
        for _ in 0..2 {
            let error = owner.commit(0, 3).unwrap_err();
            assert!(matches!(error, Error::Transient(_)), "{error}");
        }
        owner.sink.release(&at());
        assert_eq!(directory.staged(), [""; 0]);
        assert_eq!(directory.visible(), []);
    }
}

fn a_topic_is_refused_if_another_of_its_name_had_any_partition(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let mut first = Owner::new(&directory, 1);
    first.claim.at.partition = 3;
    first.claim().unwrap();
    let mut second = Owner::new(&directory, 2);
    second.claim.topic_id = "id-2".into();
    for partition in [7, 0] {
        second.claim.at.partition = partition;
        let text = permanent(second.claim().unwrap_err());
        assert!(text.starts_with("E_TOPIC_REPLACED"), "{text}");
    }
    second.claim.at.topic = "orders".into();
    second.claim().unwrap();
}

/// What a claim says to a log that `damage` was done to.
fn check_damage(on: On, damage: impl FnOnce(&Place), code: &str, names: &str) {
    let directory = Place::new(on, Format::JsonLines);
    Owner::claimed(&directory, 1).deliver(0, 3);
    damage(&directory);
    let text = permanent(Owner::new(&directory, 2).claim().unwrap_err());
    assert!(text.starts_with(code) && text.contains(names), "{text}");
    assert_eq!(directory.visible(), delivered(0, 3));
}

fn a_log_that_cannot_be_read_in_full_is_never_continued(on: On) {
    const FIRST: &str = "00000000000000000000.json";
    const SECOND: &str = "00000000000000000001.json";
    const THIRD: &str = "00000000000000000002.json";
    let edit = |name: &'static str, from: &'static str, to: &'static str| {
        move |place: &Place| place.edit(name, replaced(from, to))
    };
    let remove = |name: &'static str| move |place: &Place| place.ground.remove(&in_log(name));
    let write = |name: &'static str, text: &'static str| {
        move |place: &Place| place.ground.write(&in_log(name), text.as_bytes())
    };
    check_damage(on, remove(SECOND), "E_LOG_CORRUPT", SECOND);
    check_damage(on, remove(FIRST), "E_LOG_CORRUPT", FIRST);
    check_damage(on, write(THIRD, ""), "E_LOG_CORRUPT", THIRD);
    check_damage(on, write(THIRD, "{\"version\":1}"), "E_LOG_CORRUPT", THIRD);
    check_damage(on, edit(THIRD, "\"end\":3", "\"end\":4"), "E_LOG_CORRUPT", THIRD);
    check_damage(on, edit(THIRD, "{\"version\":1", "{\"version\":3"), "E_LOG_NEWER", THIRD);
    let unknown = "00000000000000000001.sum.json";
    check_damage(on, write(unknown, "{}"), "E_LOG_NEWER", unknown);
    let fourth = "00000000000000000003.json";
    let twice = |place: &Place| place.ground.write(&in_log(fourth), &place.ground.read(&in_log(THIRD)));
    check_damage(on, twice, "E_LOG_CORRUPT", fourth);
}

fn files_that_a_reader_took_away_raise_no_alarm(on: On) {
    let directory = Place::new(on, Format::JsonLines);
    let mut first = Owner::claimed(&directory, 1);
    first.deliver(0, 3);
    directory.files().iter().for_each(|path| directory.ground.remove(path));
    first.deliver(3, 4);
    let sink = directory.open();
    let tally = sink.tally();
    let mut second = Owner { sink: Box::new(sink), claim: conformance::claim(2) };
    assert_eq!(second.claim().unwrap().next, Offset::new(4));
    assert_eq!((tally.roll_unverified.get(), tally.rolled_forward.get()), (0, 0));
}

fn rows_that_delete_are_rejected_in_the_same_commit(on: On) {
    let directory = Place::new(on, Format::Parquet);
    let mut owner = Owner::claimed(&directory, 1);
    let rows = conformance::deleting(part("a", vec![0, 1, 2], 0), &[false, true, false]);
    let staged = owner.sink.write(RoutedBatch { parts: vec![rows], ..batch(0, 3) }).unwrap();
    assert_eq!(staged.rows, 3);
    assert_eq!(owner.commit(0, 3).unwrap(), Committed::Done);

    let row = |o: i64| ("a".to_owned(), o, 0, format!("a{o}"));
    let rejected = (REJECTS.to_owned(), 1, 0, String::new());
    assert_eq!(directory.visible(), [row(0), row(2), rejected]);
    let path = directory.files().into_iter().find(|path| path.ends_with(".jsonl")).unwrap();
    let expected = serde_json::json!({
        "target": "a", "route": "to-a", "error": "a file cannot delete a row", "row": {"text": "a1", "number": 1},
        "weir_topic": "customers", "weir_partition": 0, "weir_offset": 1, "weir_index": 0, "weir_plan": 7,
    });
    assert_eq!(directory.read_json(&path), [expected]);
}

fn without_provenance_only_dead_letters_tell_where_they_came_from(on: On) {
    let directory = Place::new(on, Format::Parquet);
    let config = FilesConfig { provenance: false, ..directory.config() };
    let mut owner = Owner { sink: Box::new(FilesSink::open(config).unwrap()), claim: conformance::claim(1) };
    owner.claim().unwrap();
    let dead = Part { route: crate::route::DEAD_LETTERS.into(), ..part("dead", vec![1], 0) };
    owner.sink.write(RoutedBatch { parts: vec![part("a", vec![0], 0), dead], ..batch(0, 2) }).unwrap();
    assert_eq!(owner.commit(0, 2).unwrap(), Committed::Done);
    let columns = |i: usize| directory.read_parquet(&directory.files()[i])[0].num_columns();
    assert_eq!((columns(0), columns(1)), (2, 7));
}

fn a_row_of_a_record_that_comes_again_says_where_it_came_first(on: On) {
    for format in [Format::Parquet, Format::JsonLines] {
        let directory = Place::new(on, format);
        let mut owner = Owner::claimed(&directory, 1);
        let origins = ["orders/3/1042/1", "a.b/0/7/2", "weir.p.replay/0/2/0"];
        let rows = conformance::again(part("a", vec![0, 1, 2], 0), &origins);
        let rows = conformance::deleting(rows, &[false, true, false]);
        owner.sink.write(RoutedBatch { parts: vec![rows], ..batch(0, 3) }).unwrap();
        assert_eq!(owner.commit(0, 3).unwrap(), Committed::Done);
        let mut said = Vec::new();
        for path in directory.files() {
            let rows = match path.ends_with(".parquet") {
                true => as_json(&directory.read_parquet(&path)),
                false => directory.read_json(&path),
            };
            let names = ["weir_topic", "weir_partition", "weir_offset", "weir_attempt"];
            said.extend(rows.iter().map(|row| names.map(|name| row[name].to_string()).join("/")));
        }
        said.sort_unstable();
        assert_eq!(said, [r#""a.b"/0/7/2"#, r#""orders"/3/1042/1"#, r#""weir.p.replay"/0/2/0"#]);
    }
}

fn as_json(batches: &[RecordBatch]) -> Vec<serde_json::Value> {
    let mut out = Vec::new();
    for rows in batches {
        let json = crate::sink::json::JsonRows::new(rows).unwrap();
        for row in 0..rows.num_rows() {
            let mut text = Vec::new();
            json.write(row, &mut text);
            out.push(serde_json::from_slice(&text).unwrap());
        }
    }
    out
}

fn a_target_can_have_a_format_of_its_own(on: On) {
    let directory = Place::new(on, Format::Parquet);
    let config = FilesConfig { formats: [("b".into(), Format::JsonLines)].into(), ..directory.config() };
    let mut owner = Owner { sink: Box::new(FilesSink::open(config).unwrap()), claim: conformance::claim(1) };
    owner.claim().unwrap();
    owner.deliver(0, 3);
    assert_eq!(directory.visible(), delivered(0, 3));
    let files = directory.files();
    let endings: Vec<_> = files.iter().map(|path| path.rsplit_once('.').unwrap().1).collect();
    assert_eq!(endings, ["parquet", "jsonl"]);
}

fn a_parquet_file_holds_its_row_groups_plan_and_provenance(on: On) {
    let directory = Place::new(on, Format::Parquet);
    let config = FilesConfig { row_group_rows: 10, ..directory.config() };
    let mut owner = Owner { sink: Box::new(FilesSink::open(config).unwrap()), claim: conformance::claim(1) };
    owner.claim().unwrap();
    owner.deliver(0, 25);
    let bytes = Bytes::from(directory.ground.read(&directory.files()[0]));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let notes = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let note = |key: &str| notes.iter().find(|note| note.key == key).and_then(|note| note.value.clone());
    assert_eq!(note("weir.plan").as_deref(), Some("7"));
    assert_eq!(note("weir.digest").as_deref(), Some("sha256:00"));
    assert_eq!(reader.metadata().num_row_groups(), 3);
    let names: Vec<_> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
    let own = ["weir_topic", "weir_partition", "weir_offset", "weir_index", "weir_plan"];
    assert_eq!(names, [&["text", "number"][..], &own].concat());
}

fn row_groups_end_sooner_where_all_of_them_take_too_much_memory(on: On) {
    let directory = Place::new(on, Format::Parquet);
    let config = FilesConfig { row_groups_bytes: 1, ..directory.config() };
    let mut owner = Owner { sink: Box::new(FilesSink::open(config).unwrap()), claim: conformance::claim(1) };
    owner.claim().unwrap();
    owner.write(0, 5).unwrap();
    owner.write(5, 25).unwrap();
    owner.commit(0, 25).unwrap();
    assert_eq!(directory.visible(), delivered(0, 25));
    let bytes = Bytes::from(directory.ground.read(&directory.files()[0]));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 2);
}

fn a_file_is_found_at_the_name_and_with_the_length_its_record_says(on: On) {
    let directory = Place::new(on, Format::Parquet);
    Owner::claimed(&directory, 1).deliver(0, 5);
    let text = directory.ground.read(&in_log("00000000000000000002.json"));
    let (_, record) = record::from_text::<record::Record>(&text).unwrap();
    let record::Record::Commit(record) = record else { panic!("{record:?}") };
    let mut paths = Vec::new();
    for file in &record.files {
        let bytes = directory.ground.read(&file.path);
        assert_eq!((bytes.len() as u64, crc32fast::hash(&bytes)), (file.length, file.crc32));
        paths.push(file.path.clone());
    }
    assert_eq!(paths, directory.files());
    assert_eq!(record.files.iter().map(|file| file.rows).sum::<u64>(), 8);
}

#[cfg(feature = "failpoints")]
mod failpoints;
pub(crate) mod ground;
mod interleavings;
mod protocol;
mod snapshots;
