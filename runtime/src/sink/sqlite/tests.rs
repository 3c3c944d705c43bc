//! The SQLite sink against the laws of all sinks, tables that do not fit, rows that the database refuses, lost answers
//! and failing disks.

use std::collections::HashMap;
use std::thread;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use sqlx::AssertSqlSafe;
use sqlx::Row;
use tempfile::TempDir;

use super::database::{Loss, no_values};
use super::*;
use crate::description::JSON_MARK;
use crate::offset::Offset;
use crate::sink::Part;
use crate::sink::conformance::{
    LAWS, Owner as Process, Seen, World, again, at, batch, check_laws, claim, commit, conflict, deleting,
    delivered, part, permanent,
};
use crate::sink::state::Refused;
use crate::sink::table::{Mode, Wanted};

/// A database that processes write to, and its readers.
struct File {
    dir: TempDir,
    targets: BTreeMap<Arc<str>, TableConfig>,
}

impl File {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), targets: BTreeMap::new() }
    }

    /// Rows of target `a` take the place of those with their key.
    fn upsert(key: &[&str]) -> Self {
        let mode = Mode::Upsert { key: key.iter().map(|name| (*name).to_owned()).collect() };
        Self {
            targets: BTreeMap::from([("a".into(), TableConfig { table: "a".to_owned(), mode })]),
            ..Self::new()
        }
    }

    fn config(&self) -> SqliteConfig {
        let path = self.dir.path().join("a directory/it's.db");
        let busy_timeout = Duration::from_millis(100);
        SqliteConfig { targets: self.targets.clone(), busy_timeout, ..SqliteConfig::new(path, "p", "base") }
    }

    fn sink(&self) -> SqliteSink {
        SqliteSink::open(self.config()).unwrap()
    }

    fn claimed(&self, generation: u64) -> SqliteSink {
        let mut sink = self.sink();
        sink.claim(&claim(generation)).unwrap();
        sink
    }

    fn database(&self) -> Database {
        let config = self.config();
        Database::open(&config.path, config.busy_timeout).unwrap()
    }

    fn run(&self, sql: &str) {
        self.database().run(AssertSqlSafe(sql.to_owned()), no_values()).unwrap();
    }

    /// The rows of a query, the columns of each as text with a bar between.
    fn rows(&self, sql: &str) -> Vec<String> {
        let rows = self.database().query(AssertSqlSafe(sql.to_owned()), no_values()).unwrap();
        let column = |row: &sqlx::sqlite::SqliteRow, i| {
            row.try_get_unchecked::<Option<String>, _>(i).unwrap().unwrap_or_else(|| "null".to_owned())
        };
        rows.iter().map(|row| (0..row.len()).map(|i| column(row, i)).collect::<Vec<_>>().join("|")).collect()
    }

    fn rejects(&self) -> Vec<String> {
        self.rows(r#"SELECT weir_offset, reason FROM weir_reject ORDER BY weir_offset, weir_index"#)
    }
}

impl World for File {
    fn process(&self) -> Box<dyn Sink> {
        Box::new(self.sink())
    }

    fn visible(&self) -> Vec<Seen> {
        let tables =
            self.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'weir%'");
        let mut seen = Vec::new();
        for table in tables {
            let sql = format!("SELECT weir_offset, weir_index, text FROM {table}");
            for row in self.database().query(AssertSqlSafe(sql), no_values()).unwrap() {
                seen.push((table.clone(), row.get(0), row.get(1), row.get(2)));
            }
        }
        seen.sort();
        seen
    }
}

/// Commits parts as offsets `0..n`.
fn deliver(sink: &mut SqliteSink, n: i64, parts: Vec<Part>) -> Result<Committed, Error> {
    sink.write(RoutedBatch { parts, ..batch(0, n) })?;
    sink.commit(&at(), &commit(0, n))
}

/// A part of target `a` with one row per value of its columns.
fn rows(columns: Vec<(&str, ArrayRef)>) -> Part {
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    of(Schema::new(fields), columns.into_iter().map(|(_, array)| array).collect())
}

fn of(schema: Schema, columns: Vec<ArrayRef>) -> Part {
    let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let n = rows.num_rows();
    Part { rows, ..part("a", (0..n as i64).collect(), 0) }
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

fn numbers(numbers: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(numbers.to_vec()))
}

#[test]
fn tables_obey_every_law() {
    check_laws(File::new);
}

/// But for the one that delivers the same keys by two partitions and wants to find both.
#[test]
fn tables_with_keys_obey_the_same_laws() {
    let laws = LAWS.iter().filter(|(law, _)| *law != "partitions do not disturb each other");
    assert_eq!(laws.clone().count(), LAWS.len() - 1);
    laws.for_each(|(_, check)| check(&File::upsert(&["text"])));
}

#[test]
fn every_type_is_stored_exactly() {
    let file = File::new();
    let utc = |n| Arc::new(TimestampMicrosecondArray::from(vec![n]).with_timezone("UTC")) as ArrayRef;
    let cents = Decimal128Array::from(vec![-5]).with_precision_and_scale(38, 2).unwrap();
    let columns = vec![
        ("boolean", Arc::new(BooleanArray::from(vec![true])) as ArrayRef),
        ("least", numbers(&[i64::MIN])),
        ("double", Arc::new(Float64Array::from(vec![0.1])) as _),
        ("zero", Arc::new(Float64Array::from(vec![-0.0])) as _),
        ("decimal", Arc::new(cents) as _),
        ("text", texts(&["Zoë's \"x\""])),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])) as _),
        ("date", Arc::new(Date32Array::from(vec![20_484])) as _),
        ("time", utc(1)),
        ("far", utc(i64::MAX)),
        ("absent", Arc::new(Int64Array::from(vec![None])) as _),
    ];
    assert_eq!(deliver(&mut file.claimed(1), 1, vec![rows(columns)]).unwrap(), Committed::Done);
    let stored =
        r#"SELECT boolean, least, double, zero, "decimal", text, hex(bytes), date, time, far, absent FROM a"#;
    let expected = "1|-9223372036854775808|0.1|0.0|-0.05|Zoë's \"x\"|00FF|2026-01-31|1970-01-01T00:00:00.000001Z|9223372036854775807|null";
    assert_eq!(file.rows(stored), [expected]);
    let types = "SELECT group_concat(type, ' ') FROM pragma_table_xinfo('a')";
    let expected = "INTEGER INTEGER REAL REAL TEXT TEXT BLOB TEXT TEXT TEXT INTEGER TEXT INTEGER INTEGER INTEGER INTEGER INTEGER";
    assert_eq!(file.rows(types), [expected]);
    assert_eq!(file.rows("SELECT strict FROM pragma_table_list('a')"), ["1"]);
    assert_eq!(
        file.rows("SELECT weir_topic, weir_partition, weir_offset, weir_index, weir_plan FROM a"),
        ["customers|0|0|0|7"]
    );
}

#[test]
fn a_json_text_is_text() {
    let file = File::new();
    let field = Field::new("doc", DataType::Utf8, true)
        .with_metadata(HashMap::from([(JSON_MARK.to_owned(), "1".to_owned())]));
    let part = of(Schema::new(vec![field]), vec![texts(&["{\"a\": [1]}"])]);
    deliver(&mut file.claimed(1), 1, vec![part]).unwrap();
    assert_eq!(file.rows("SELECT doc ->> '$.a[0]' FROM a"), ["1"]);
}

#[test]
fn without_provenance_there_are_only_the_declared_columns() {
    let file = File::new();
    let mut sink = SqliteSink::open(SqliteConfig { provenance: false, ..file.config() }).unwrap();
    sink.claim(&claim(1)).unwrap();
    deliver(&mut sink, 1, vec![rows(vec![("x", numbers(&[1]))])]).unwrap();
    assert_eq!(file.rows("SELECT name FROM pragma_table_info('a')"), ["x"]);
}

#[test]
fn the_last_row_of_a_key_stays_also_over_parts_and_the_others_are_counted() {
    let file = File::upsert(&["text"]);
    let mut sink = file.claimed(1);
    let part = |offsets: &[i64], index: i32, texts_: &[&str], numbers_: &[i64]| Part {
        offsets: offsets.to_vec().into(),
        index: vec![index; offsets.len()].into(),
        ..rows(vec![("text", texts(texts_)), ("number", numbers(numbers_))])
    };
    let parts = vec![
        part(&[0, 2, 4], 1, &["k", "k", "other"], &[1, 3, 5]),
        part(&[1, 2, 3], 0, &["k", "k", "l"], &[10, 20, 30]),
    ];
    deliver(&mut sink, 5, parts).unwrap();
    let all = "SELECT text, number, weir_offset, weir_index FROM a ORDER BY text";
    assert_eq!(file.rows(all), ["k|3|2|1", "l|30|3|0", "other|5|4|1"]);
    assert_eq!(sink.tally().superseded.get(), 3);
}

#[test]
fn where_the_last_row_of_a_key_is_refused_the_one_before_stays() {
    let file = File::upsert(&["k"]);
    file.run("CREATE TABLE a (k TEXT UNIQUE, n INTEGER CHECK (n < 10), weir_topic, weir_partition, weir_offset, weir_index, weir_plan)");
    let mut sink = file.claimed(1);
    let part = rows(vec![("k", texts(&["a", "a", "a"])), ("n", numbers(&[1, 2, 30]))]);
    deliver(&mut sink, 3, vec![part]).unwrap();
    assert_eq!(file.rows("SELECT k, n, weir_offset FROM a"), ["a|2|1"]);
    assert_eq!(file.rejects(), ["2|CHECK constraint failed: n < 10"]);
}

#[test]
fn a_row_that_deletes_removes_its_key_in_upsert_mode() {
    for key in [&["k"][..], &["l", "k"]] {
        let file = File::upsert(key);
        let part = rows(vec![("k", texts(&["a", "b", "a", "c", "a"])), ("l", numbers(&[1, 1, 1, 1, 1]))]);
        let part = deleting(part, &[false, false, true, true, false]);
        deliver(&mut file.claimed(1), 5, vec![part]).unwrap();
        assert_eq!(file.rows("SELECT k, l, weir_offset FROM a ORDER BY k"), ["a|1|4", "b|1|1"]);
        assert_eq!(file.rejects(), [""; 0]);
    }
}

#[test]
fn a_row_that_deletes_is_refused_in_append_mode() {
    let file = File::new();
    let part = deleting(rows(vec![("k", texts(&["a", "b"]))]), &[false, true]);
    deliver(&mut file.claimed(1), 2, vec![part]).unwrap();
    assert_eq!(file.rows("SELECT k FROM a"), ["a"]);
    assert_eq!(file.rejects(), ["1|a table in append mode cannot delete a row"]);
}

#[test]
fn a_key_that_is_null_is_refused_rather_than_added_again_and_again() {
    let file = File::upsert(&["k"]);
    let keys = Arc::new(Int64Array::from(vec![Some(1), None, None]));
    deliver(&mut file.claimed(1), 3, vec![rows(vec![("k", keys as _)])]).unwrap();
    assert_eq!(file.rows("SELECT k FROM a"), ["1"]);
    assert_eq!(file.rejects(), ["1|key column `k` is null", "2|key column `k` is null"]);
}

/// What a table has to be like, and what is said where it is not.
fn refused(create: &str, key: &[&str], expected: &str) {
    let file = if key.is_empty() { File::new() } else { File::upsert(key) };
    file.run(create);
    let mut sink = file.claimed(1);
    let part = || rows(vec![("k", texts(&["a"])), ("n", numbers(&[1]))]);
    let schema = part().rows.schema();
    for error in [
        sink.prepare(&"a".into(), "to-a", &schema).unwrap_err(),
        deliver(&mut sink, 1, vec![part()]).unwrap_err(),
    ] {
        let Error::Permanent(problem) = error else { panic!("not permanent: {error}") };
        let told = format!("{problem} / {}", problem.hint.clone().unwrap_or_default());
        assert!(told.starts_with("E_SINK_SCHEMA") && told.contains(expected), "{create}: {told}");
    }
    assert_eq!(file.rows("SELECT count(*) FROM weir_reject"), ["0"]);
    assert_eq!(Process::new(&file, 2).claim().unwrap().next, Offset::ZERO);
}

#[test]
fn a_table_that_does_not_fit_is_refused_with_the_column_named() {
    let ours = "weir_topic, weir_partition, weir_offset, weir_index, weir_plan";
    refused(
        &format!("CREATE TABLE a (k TEXT, {ours})"),
        &[],
        "no column `n` / ALTER TABLE \"a\" ADD COLUMN \"n\" INTEGER",
    );
    refused("CREATE TABLE a (k TEXT, n INTEGER)", &[], "no column `weir_topic`");
    refused(
        &format!("CREATE TABLE a (k TEXT, n TEXT, {ours})"),
        &[],
        "column `n` of table `a` is TEXT, it has to be INTEGER",
    );
    refused(&format!("CREATE TABLE a (k NUMERIC, n INT, {ours})"), &[], "column `k` of table `a` is NUMERIC");
    refused(
        &format!("CREATE TABLE a (k TEXT, n INT AS (1), {ours})"),
        &[],
        "column `n` of table `a` is generated",
    );
    refused(&format!("CREATE TABLE a (k TEXT, n INT, z INT NOT NULL, {ours})"), &[], "column `z`");
    refused("CREATE VIEW a AS SELECT 1 AS k, 2 AS n", &[], "`a` is a view");
    refused(&format!("CREATE TABLE a (k TEXT, n INT, {ours})"), &["k"], "PRIMARY KEY or UNIQUE (\"k\")");
    refused("CREATE TABLE b (x)", &["q"], "`q`");
}

/// It would store 2.0 as 2, and 1e15 as a whole number too.
#[test]
fn a_column_of_numbers_takes_whole_numbers_and_no_doubles() {
    let file = File::new();
    file.run("CREATE TABLE a (x NUMERIC, weir_topic, weir_partition, weir_offset, weir_index, weir_plan)");
    let mut sink = file.claimed(1);
    let prepare = |sink: &mut SqliteSink, array| {
        sink.prepare(&"a".into(), "to-a", &rows(vec![("x", array)]).rows.schema())
    };
    prepare(&mut sink, numbers(&[1])).unwrap();
    let text = permanent(prepare(&mut sink, Arc::new(Float64Array::from(vec![2.0]))).unwrap_err());
    assert!(text.contains("column `x` of table `a` is NUMERIC, it has to be REAL"), "{text}");
}

/// Which rows were refused would depend on the commits.
#[test]
fn a_table_that_refers_to_one_of_the_same_sink_is_refused_whichever_is_looked_at_first() {
    const OURS: &str =
        "k TEXT PRIMARY KEY, n INTEGER, weir_topic, weir_partition, weir_offset, weir_index, weir_plan";
    let schema = rows(vec![("k", texts(&[])), ("n", numbers(&[]))]).rows.schema();
    for (parent, targets) in [("B", ["a", "b"]), ("b", ["b", "a"]), ("a", ["b", "a"])] {
        let file = File::new();
        file.run(&format!("CREATE TABLE b ({OURS})"));
        file.run(&format!("CREATE TABLE a ({OURS}, FOREIGN KEY (k) REFERENCES {parent})"));
        let mut sink = file.claimed(1);
        let prepared = targets.map(|target| sink.prepare(&target.into(), "r", &schema));
        let [Ok(()), Err(Error::Permanent(problem))] = prepared else { panic!("{prepared:?}") };
        let expected = format!("E_SINK_SCHEMA: table `a` refers to `{}`", parent.to_lowercase());
        assert!(problem.to_string().starts_with(&expected), "{problem}");
    }
}

#[test]
fn a_table_of_somebody_else_that_fits_is_used_as_it_is() {
    let file = File::upsert(&["k"]);
    file.run(
        "CREATE TABLE A (id INTEGER PRIMARY KEY, K VARCHAR(10) NOT NULL UNIQUE, n BIGINT, seen TEXT NOT NULL DEFAULT 'no',
         weir_topic TEXT, weir_partition INT, weir_offset INT, weir_index INT, weir_plan INT)",
    );
    let part = rows(vec![("k", texts(&["a", "b"])), ("n", numbers(&[1, 2]))]);
    deliver(&mut file.claimed(1), 2, vec![part]).unwrap();
    assert_eq!(file.rows("SELECT id, k, n, seen FROM a"), ["1|a|1|no", "2|b|2|no"]);
}

#[test]
fn a_table_that_is_changed_while_rows_flow_stops_the_partition_and_rejects_nothing() {
    let file = File::new();
    let mut sink = file.claimed(1);
    let part = |n| rows(vec![("k", texts(&["a"])), ("n", numbers(&[n]))]);
    deliver(&mut sink, 1, vec![part(1)]).unwrap();
    file.run("ALTER TABLE a DROP COLUMN n");
    sink.write(RoutedBatch { parts: vec![part(2)], ..batch(1, 2) }).unwrap();
    let text = permanent(sink.commit(&at(), &commit(1, 2)).unwrap_err());
    assert!(text.starts_with("E_SINK_SCHEMA: table `a` has no column `n`"), "{text}");
    file.run("ALTER TABLE a ADD COLUMN n INTEGER");
    assert_eq!(sink.commit(&at(), &commit(1, 2)).unwrap(), Committed::Done);
    assert_eq!(file.rows("SELECT k, n FROM a"), ["a|null", "a|2"]);
}

#[test]
fn a_column_that_may_be_null_is_added_to_a_table_with_rows_and_no_other_is() {
    let file = File::new();
    let before = rows(vec![("k", texts(&["old"]))]);
    let mut sink = file.claimed(1);
    deliver(&mut sink, 1, vec![before.clone()]).unwrap();
    let after = rows(vec![("k", texts(&["new"])), ("n", numbers(&[7]))]);
    let wanted = |schema| [Wanted { target: "a".into(), route: "to-a".into(), schema }];
    let statements = ["ALTER TABLE \"a\" ADD COLUMN \"n\" INTEGER"];
    let want = wanted(after.rows.schema());
    assert_eq!(lacking(&file.config(), &want).unwrap(), statements);
    assert_eq!(file.rows("SELECT * FROM a").len(), 1, "it was only asked");
    assert_eq!(add_columns(&file.config(), &want).unwrap(), statements);
    assert_eq!(add_columns(&file.config(), &want).unwrap(), [""; 0], "it is there");
    // A process that goes on with what the table had, and one that knows the column.
    sink.write(RoutedBatch { parts: vec![before, after], ..batch(1, 2) }).unwrap();
    assert_eq!(sink.commit(&at(), &commit(1, 2)).unwrap(), Committed::Done);
    assert_eq!(file.rows("SELECT k, n FROM a"), ["old|null", "old|null", "new|7"]);
    let must = Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("m", DataType::Int64, true),
        Field::new("o", DataType::Int64, false),
    ]);
    let refused = permanent(add_columns(&file.config(), &wanted(Arc::new(must))).unwrap_err());
    assert!(refused.starts_with("E_SINK_SCHEMA: table `a` has no column `o`"), "{refused}");
    assert_eq!(file.rows("SELECT count(*) FROM pragma_table_info('a') WHERE name = 'm'"), ["0"]);
}

#[test]
fn a_prepared_table_is_there_before_the_first_row() {
    let file = File::new();
    let schema = rows(vec![("k", texts(&[]))]).rows.schema();
    file.sink().prepare(&"a".into(), "to-a", &schema).unwrap();
    assert_eq!(file.rows("SELECT count(*) FROM a"), ["0"]);
}

#[test]
fn a_trigger_that_rolls_the_transaction_back_stops_the_partition() {
    let file = File::new();
    let mut sink = file.claimed(1);
    deliver(&mut sink, 1, vec![part("a", vec![0], 0)]).unwrap();
    file.run(
        "CREATE TRIGGER t BEFORE INSERT ON a WHEN new.number = 2 BEGIN SELECT RAISE(ROLLBACK, 'x'); END",
    );
    sink.write(RoutedBatch { parts: vec![part("a", vec![1, 2, 3], 0)], ..batch(1, 4) }).unwrap();
    let text = permanent(sink.commit(&at(), &commit(1, 4)).unwrap_err());
    assert!(text.contains("rolls back transactions"), "{text}");
    assert_eq!(file.rows("SELECT count(*) FROM a"), ["1"]);
    assert_eq!(Process::new(&file, 2).claim().unwrap().next, Offset::new(1));
}

#[test]
fn a_deferred_constraint_that_breaks_at_the_commit_stops_the_partition() {
    let file = File::new();
    let mut sink = file.claimed(1);
    file.run("CREATE TABLE parent (id INTEGER PRIMARY KEY)");
    file.run(
        "CREATE TABLE a (text TEXT, number INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
         weir_topic, weir_partition, weir_offset, weir_index, weir_plan)",
    );
    let text = permanent(deliver(&mut sink, 1, vec![part("a", vec![0], 0)]).unwrap_err());
    assert!(text.contains("refuses the commit"), "{text}");
    assert_eq!(file.rows("SELECT count(*) FROM a"), ["0"]);
}

#[test]
fn a_lost_answer_is_resolved_to_what_is_true_of_the_rows() {
    for (loss, expected) in [(Loss::After, Resolved::Committed), (Loss::Before, Resolved::NotCommitted)] {
        let file = File::new();
        let mut sink = file.claimed(1);
        sink.write(batch(0, 3)).unwrap();
        sink.db.lose = Some(loss);
        let request = commit(0, 3);
        assert!(matches!(sink.commit(&at(), &request).unwrap(), Committed::Unknown(_)));
        assert_eq!(sink.resolve(&at(), &request).unwrap(), expected);
        if expected == Resolved::NotCommitted {
            assert_eq!(file.visible(), []);
            assert_eq!(sink.commit(&at(), &request).unwrap(), Committed::Done);
        }
        assert_eq!(file.visible(), delivered(0, 3));
        sink.write(batch(3, 4)).unwrap();
        assert_eq!(sink.commit(&at(), &commit(3, 4)).unwrap(), Committed::Done);
    }
}

#[test]
fn who_lost_the_answer_and_then_the_partition_is_told_so() {
    let file = File::new();
    let mut sink = file.claimed(1);
    sink.write(batch(0, 3)).unwrap();
    sink.db.lose = Some(Loss::Before);
    let request = commit(0, 3);
    sink.commit(&at(), &request).unwrap();
    Process::claimed(&file, 2).deliver(0, 2);
    let refused = conflict(sink.resolve(&at(), &request).unwrap_err());
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    assert_eq!(file.visible(), delivered(0, 2));
}

fn transient(error: Error) -> String {
    match error {
        Error::Transient(problem) => problem.to_string(),
        other => panic!("not transient: {other}"),
    }
}

#[test]
fn a_database_that_is_locked_full_or_read_only_is_no_fault_of_the_rows() {
    let cases = [
        ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000", "database or disk is full"),
        ("PRAGMA query_only = 1", "PRAGMA query_only = 0", "E_SINK_DENIED"),
    ];
    for (begin, end, expected) in cases {
        let file = File::new();
        let mut sink = file.claimed(1);
        sink.write(batch(0, 5)).unwrap();
        sink.db.query(begin, no_values()).unwrap();
        let text = transient(sink.commit(&at(), &commit(0, 5)).unwrap_err());
        assert!(text.contains(expected), "{text}");
        assert_eq!((file.visible(), file.rejects().len()), (Vec::new(), 0));
        sink.db.query(end, no_values()).unwrap();
        assert_eq!(sink.commit(&at(), &commit(0, 5)).unwrap(), Committed::Done);
        assert_eq!(file.visible(), delivered(0, 5));
    }
    let file = File::new();
    let mut sink = file.claimed(1);
    sink.write(batch(0, 5)).unwrap();
    let mut other = file.database();
    other.run("BEGIN IMMEDIATE", no_values()).unwrap();
    let text = transient(sink.commit(&at(), &commit(0, 5)).unwrap_err());
    assert!(text.contains("database is locked"), "{text}");
    drop(other);
    assert_eq!(sink.commit(&at(), &commit(0, 5)).unwrap(), Committed::Done);
    assert_eq!((file.visible(), file.rejects().len()), (delivered(0, 5), 0));
}

#[test]
fn what_is_no_database_is_refused() {
    let file = File::new();
    let path = file.config().path;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "customers;and;cities\n".repeat(1000)).unwrap();
    let text = permanent(SqliteSink::open(file.config()).unwrap_err());
    assert!(text.starts_with("E_LOG_CORRUPT") && text.contains("it's.db"), "{text}");
}

#[test]
fn a_state_of_a_newer_version_or_one_that_cannot_be_read_is_refused() {
    let cases =
        [("version = 3", "E_LOG_NEWER"), ("state = '{}'", "E_LOG_CORRUPT"), ("state = 'x'", "E_LOG_CORRUPT")];
    for (damage, expected) in cases {
        let file = File::new();
        Process::claimed(&file, 1).deliver(0, 2);
        file.run(&format!("UPDATE weir_position SET {damage}"));
        let text = permanent(Process::new(&file, 2).claim().unwrap_err());
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn pipelines_and_sinks_on_one_file_have_positions_of_their_own() {
    let file = File::new();
    Process::claimed(&file, 1).deliver(0, 2);
    let other = SqliteConfig { sink: "other".into(), ..file.config() };
    assert_eq!(SqliteSink::open(other).unwrap().claim(&claim(1)).unwrap().next, Offset::ZERO);
    let other = SqliteConfig { pipeline: "q".into(), ..file.config() };
    assert_eq!(SqliteSink::open(other).unwrap().claim(&claim(1)).unwrap().next, Offset::ZERO);
    let text =
        "SELECT pipeline, sink, topic, partition, version, state ->> 'next' FROM weir_position ORDER BY 1, 2";
    assert_eq!(
        file.rows(text),
        ["p|base|customers|0|1|2", "p|other|customers|0|1|0", "q|base|customers|0|1|0"]
    );
}

/// Any partition of the same name tells that the topic is another one.
#[test]
fn a_topic_that_was_replaced_is_seen_by_a_partition_that_was_never_here() {
    let file = File::new();
    Process::claimed(&file, 1);
    let mut other = claim(2);
    other.topic_id = "id-2".into();
    other.at = TopicPartition::new("customers", 5);
    let text = permanent(file.sink().claim(&other).unwrap_err());
    assert!(text.starts_with("E_TOPIC_REPLACED"), "{text}");
}

#[test]
fn two_processes_write_to_one_file_at_once() {
    let file = File::new();
    let config = SqliteConfig { busy_timeout: Duration::from_secs(60), ..file.config() };
    thread::scope(|scope| {
        for partition in 0..3 {
            let config = config.clone();
            scope.spawn(move || {
                let mut sink = SqliteSink::open(config).unwrap();
                let at = TopicPartition::new("customers", partition);
                sink.claim(&Claim { at: at.clone(), ..claim(1) }).unwrap();
                for n in 0..20 {
                    sink.write(RoutedBatch { at: at.clone(), ..batch(n, n + 1) }).unwrap();
                    assert_eq!(sink.commit(&at, &commit(n, n + 1)).unwrap(), Committed::Done);
                }
            });
        }
    });
    let all = "SELECT count(*), count(DISTINCT weir_partition * 100 + weir_offset) FROM a";
    assert_eq!(file.rows(all), ["60|60"]);
}

#[test]
fn the_journal_is_a_synced_write_ahead_log() {
    let file = File::new();
    let mut sink = file.sink();
    let mut ask = |sql: &'static str| sink.db.query(sql, no_values()).unwrap()[0].get::<i64, _>(0);
    assert_eq!((ask("PRAGMA synchronous"), ask("PRAGMA foreign_keys")), (2, 1));
    assert_eq!(file.rows("PRAGMA journal_mode"), ["wal"]);
}

mod again;
mod bad_rows;
#[cfg(feature = "failpoints")]
mod failpoints;
