//! The real program, killed with SIGKILL at every failpoint. Started again, it must come to exactly the rows of a run
//! that nothing disturbed.
#![expect(clippy::print_stdout, reason = "says how often it killed what, which is half of the proof")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tempfile::TempDir;
use weir::sink::{files, sqlite};

/// How often each failpoint kills: the first time it is come by, the second, and so on.
const KILLS: u32 = 5;

/// The sinks that write files.
const FILE_SINKS: [&str; 3] = ["quick", "slow", "lake"];

/// Failpoints on the way of a plan: into the store, into the log, and what the log is told while records flow.
const PLAN_POINTS: [&str; 9] = [
    "store.before_temp",
    "store.after_temp",
    "plan.before_adopt",
    "plan.before_temp",
    "plan.after_temp",
    "plan.after_put",
    "plan.after_adopt",
    "plan.before_log",
    "plan.after_log",
];

/// A pipeline in a directory of its own: three files into four sinks, as JSON, Parquet and tables, in many small batches
/// and commits.
struct Pipeline {
    dir: TempDir,
}

const FILE: &str = r#"
[pipeline]
name = "faults"
state = "state"

[source.files]
path = "input"
topic = "customers-raw"

[transform]
component = "customers.wasm"
settings = { non_usa = "NON_USA" }
tables.us_cities = { file = "us_cities.csv" }

[limits]
batch_records = 40
workers = 2

[routes]
usa = ["quick.usa", "slow.usa", "lake.usa", "base.usa"]
alerts = ["quick.alerts", "slow.alerts", "base.alerts"]
other = ["quick.other", "slow.other", "base.other"]

[dead_letter]
to = "slow.dead_letters"

[sinks.quick.files]
path = "quick"
format = "jsonl"
roll = { rows = 60 }
compact_after = 2

[sinks.slow.files]
path = "slow"
format = "jsonl"
roll = { rows = 170 }
compact_after = 3

[sinks.lake.files]
path = "lake"
roll = { rows = 50 }

[sinks.base.sqlite]
path = "base.db"
commit = { rows = 45 }
targets.usa = { table = "customers", mode = "upsert", key = ["id"] }
"#;

/// Somebody else's table, which takes neither the very old nor those without an age.
const TABLE: &str = "CREATE TABLE customers (id TEXT PRIMARY KEY, first_name TEXT, last_name TEXT,
    age INTEGER NOT NULL CHECK (age < 60), email TEXT, country TEXT,
    weir_topic TEXT, weir_partition INTEGER, weir_offset INTEGER, weir_index INTEGER, weir_plan INTEGER)";

const CITIES: &str = "city\nBoston\nAustin\nSpringfield\n";

impl Pipeline {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pipeline = Self { dir };
        fs::create_dir(pipeline.path("input")).expect("writable");
        fs::copy(env!("WEIR_CUSTOMERS_WASM"), pipeline.path("customers.wasm")).expect("writable");
        fs::write(pipeline.path("us_cities.csv"), CITIES).expect("writable");
        for (n, records) in [(1, 260), (2, 3), (3, 150)] {
            fs::write(pipeline.path(&format!("input/{n}.csv")), customers(n, records)).expect("writable");
        }
        pipeline.set_non_usa("other");
        pipeline.ask(TABLE);
        pipeline
    }

    /// What the database answers, a text per row.
    fn ask(&self, sql: &str) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let file = SqliteConnectOptions::new().filename(self.path("base.db")).create_if_missing(true);
        let rows = runtime.block_on(async {
            let mut connection = file.connect().await?;
            let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(rows)
        });
        let row = |row: &SqliteRow| {
            let column = |i| row.try_get_unchecked::<Option<String>, _>(i).expect("text").unwrap_or_default();
            (0..row.len()).map(column).collect::<Vec<_>>().join("|")
        };
        rows.expect("the database answers").iter().map(row).collect()
    }

    /// Every row of every sink, by sink and target.
    fn all(&self) -> BTreeMap<String, Vec<String>> {
        let mut all = BTreeMap::new();
        for sink in FILE_SINKS {
            all.extend(self.rows(sink).into_iter().map(|(target, rows)| (format!("{sink}.{target}"), rows)));
        }
        for table in ["customers", "alerts", "other", "weir_reject"] {
            let mut rows = self.ask(&format!("SELECT * FROM {table}"));
            rows.sort_unstable();
            all.insert(format!("base.{table}"), rows);
        }
        all
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set_non_usa(&self, route: &str) {
        fs::write(self.path("pipeline.toml"), FILE.replace("NON_USA", route)).expect("writable");
    }

    /// From now on an age that is none is a dead letter, or no age.
    fn set_bad_age(&self, to: &str) {
        let settings = format!("non_usa = \"other\", on_bad_age = \"{to}\"");
        let file = FILE.replace("non_usa = \"NON_USA\"", &settings);
        fs::write(self.path("pipeline.toml"), file).expect("writable");
    }

    fn run(&self, kill_at: Option<(&str, u32)>) -> Output {
        self.weir(&["run", "--once", "--adopt", "--json"], kill_at)
    }

    fn weir(&self, args: &[&str], kill_at: Option<(&str, u32)>) -> Output {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(args).arg(self.path("pipeline.toml"));
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        if let Some((name, n)) = kill_at {
            weir.env("WEIR_KILL_AT", format!("{name}:{n}"));
        }
        weir.output().expect("the program starts")
    }

    /// Runs with a death; `true` if it happened.
    fn die(&self, name: &str, n: u32) -> bool {
        let output = self.run(Some((name, n)));
        let killed = output.status.signal() == Some(9);
        assert!(killed || output.status.success(), "{name}:{n} {}", stderr(&output));
        killed
    }

    /// Runs to the end of the input, and returns what the program says of it.
    fn finish(&self) -> Value {
        let output = self.run(None);
        assert!(output.status.success(), "{}", stderr(&output));
        let said: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(said["conserved"], true);
        said
    }

    /// Every visible row of a sink by its target, sorted.
    fn rows(&self, sink: &str) -> BTreeMap<String, Vec<String>> {
        let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for target in visible(&self.path(sink)) {
            let name = target.file_name().expect("it has a name").to_string_lossy().into_owned();
            let lines = rows.entry(name).or_default();
            for file in visible(&target) {
                match file.extension().is_some_and(|ending| ending == "parquet") {
                    true => lines.extend(parquet_rows(&file)),
                    false => {
                        lines.extend(fs::read_to_string(&file).expect("readable").lines().map(str::to_owned))
                    }
                }
            }
            lines.sort_unstable();
        }
        rows
    }

    /// Files that nobody will ever make visible.
    fn staged(&self, sink: &str) -> usize {
        fn count(dir: &Path, in_staging: bool) -> usize {
            let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
            entries
                .map(|path| match path.is_dir() {
                    true => count(&path, in_staging || path.ends_with("staging")),
                    false => usize::from(in_staging),
                })
                .sum()
        }
        count(&self.path(sink), false)
    }
}

fn parquet_rows(file: &Path) -> Vec<String> {
    let file = fs::File::open(file).expect("readable");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("Parquet");
    let mut json = LineDelimitedWriter::new(Vec::new());
    reader.for_each(|rows| json.write(&rows.expect("readable")).expect("rows have a form in JSON"));
    let text = String::from_utf8(json.into_inner()).expect("JSON is UTF-8");
    text.lines().map(str::to_owned).collect()
}

/// What a reader of a directory sees: not what begins with `_`.
fn visible(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
    entries.filter(|path| !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('_'))).collect()
}

fn stderr(output: &Output) -> String {
    format!("{:?} {}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// Customers of all fates: American, foreign, without a place, with a broken age.
fn customers(file: u32, records: u32) -> String {
    let place = |n: u32| ["Boston", "Lyon", "", "austin, Texas", "Springfield", "Kyoto"][n as usize % 6];
    let age = |n: u32| if n.is_multiple_of(17) { "old".to_owned() } else { (n % 90).to_string() };
    let row = |n| format!("{file}-{n},Ada,Lovelace,ada@example.com,{},\"{}\"\n", age(n), place(n));
    let rows: String = (0..records).map(row).collect();
    format!("id,first_name,last_name,email,age,location\n{rows}")
}

#[test]
fn killed_at_any_failpoint_it_comes_to_the_rows_of_an_undisturbed_run() {
    let undisturbed = Pipeline::new();
    undisturbed.finish();
    let expected = undisturbed.all();
    let of_usa = ["quick.usa", "slow.usa", "lake.usa"].map(|target| expected[target].len());
    let in_tables = [&expected["base.customers"], &expected["base.weir_reject"]].map(Vec::len);
    assert!(in_tables.iter().all(|rows| *rows > 5), "{in_tables:?}");
    assert_eq!(of_usa, [in_tables.iter().sum::<usize>(); 3], "every row is in every sink, or refused by it");

    let mut rolled_forward = 0;
    let mut deaths = BTreeMap::new();
    let sinks = files::FAILPOINTS.into_iter().chain(sqlite::FAILPOINTS);
    for point in sinks.chain(PLAN_POINTS) {
        for n in 1..=KILLS {
            let pipeline = dead_at(point, n);
            rolled_forward += check(&pipeline, &expected, &format!("{point}:{n}"));
            *deaths.entry(point).or_insert(0) += 1;
        }
    }
    println!("deaths: {deaths:?}; files rolled forward: {rolled_forward}");
    assert!(rolled_forward > 0);
    assert!(deaths.values().all(|n| *n == KILLS));
}

/// A pipeline that died at the `n`th time it came by `point`; where the way is too short for that, at the first.
fn dead_at(point: &str, n: u32) -> Pipeline {
    for nth in [n, 1] {
        let pipeline = Pipeline::new();
        // What a claim finishes or cleans up, a predecessor has to leave behind.
        match point {
            "file.roll.between" => assert!(pipeline.die("file.after_put", n)),
            "claim.cleanup.between" => assert!(pipeline.die("file.before_close", n)),
            _ => {}
        }
        if pipeline.die(point, nth) {
            return pipeline;
        }
    }
    panic!("nothing comes by {point}")
}

/// Runs to the end, compares, and returns how many files were rolled forward.
fn check(pipeline: &Pipeline, expected: &BTreeMap<String, Vec<String>>, death: &str) -> u64 {
    let said = pipeline.finish();
    assert_eq!(&pipeline.all(), expected, "after a death at {death}");
    for sink in FILE_SINKS {
        assert_eq!(pipeline.staged(sink), 0, "staged files of {sink} after a death at {death}");
    }
    assert_eq!(pipeline.finish()["records"], 0, "after a death at {death} everything is done");
    said["counters"]["rolled_forward"].as_u64().expect("a number")
}

/// Letters are copied, however often whoever copies them dies, and gone through however often the pipeline does.
#[test]
fn letters_that_are_replayed_arrive_once_wherever_copying_and_reading_them_was_killed() {
    // Rows that a table refused would be refused again.
    const REPLAY: [&str; 6] = ["dlq", "replay", "--yes", "--json", "--stage", "transform"];
    let rejected = || {
        let pipeline = Pipeline::new();
        pipeline.set_bad_age("reject");
        let said = pipeline.finish();
        let letters = said["rejected"]["age-not-integer"].as_u64().expect("there are some");
        (pipeline, letters)
    };
    let copied = |pipeline: &Pipeline| {
        let output = pipeline.weir(&REPLAY, None);
        assert!(output.status.success(), "{}", stderr(&output));
        let said: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        (said["copied"].as_u64().expect("a number"), said["there"].as_u64().expect("a number"))
    };
    let (undisturbed, letters) = rejected();
    assert_eq!(copied(&undisturbed), (letters, 0));
    undisturbed.set_bad_age("null");
    assert_eq!(undisturbed.finish()["records"], letters);
    let expected = undisturbed.all();
    assert!(letters > 5, "{letters}");

    for (point, death) in [
        ("replay.mid_letters", "file.mid_write"),
        ("replay.before_commit", "sqlite.before_commit"),
        ("replay.after_commit", "file.after_put"),
    ] {
        let (pipeline, letters) = rejected();
        let killed = pipeline.weir(&REPLAY, Some((point, if point == "replay.mid_letters" { 3 } else { 1 })));
        assert_eq!(killed.status.signal(), Some(9), "nothing comes by {point}");
        let (copied, there) = copied(&pipeline);
        let done = point == "replay.after_commit";
        assert_eq!((copied, there), if done { (0, letters) } else { (letters, 0) }, "{point}");
        pipeline.set_bad_age("null");
        assert!(pipeline.die(death, 1), "nothing comes by {death}");
        check(&pipeline, &expected, point);
    }
}

/// When a process comes by there for this time, a sink is ahead of another: the three that publish files may have come by for
/// the second file, which is short, and nothing else.
const AHEAD: u32 = 4;

/// The first sink was ahead when the process died. Whoever edits the rule then swaps it for what no sink has; what
/// one sink has, the other gets from the old rule.
#[test]
fn a_sink_that_lags_gets_the_rows_of_the_plan_that_the_other_sink_recorded() {
    let pipeline = Pipeline::new();
    assert!(pipeline.die("file.after_renames", AHEAD));
    pipeline.set_non_usa("alerts");
    let said = pipeline.finish();
    assert!(said["counters"]["replayed_older"].as_u64() > Some(0), "{said}");

    let history = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["history", "--json"])
        .arg(pipeline.path("pipeline.toml"))
        .output()
        .expect("the program starts");
    let history: Value = serde_json::from_slice(&history.stdout).expect("one JSON object");
    assert_eq!(history["plans"].as_array().map(Vec::len), Some(2), "{history}");

    let [quick, slow] = ["quick", "slow"].map(|sink| pipeline.rows(sink));
    for target in ["usa", "alerts", "other"] {
        assert_eq!(
            quick[target], slow[target],
            "both sinks have the same rows on {target}, made by the same plan"
        );
    }
    check_versions(&slow, &history);
}

/// Somebody cleaned up what a sink still needs: what one sink has by the old rule, the other cannot get by another.
#[test]
fn a_component_or_table_that_is_gone_while_a_sink_still_needs_it_stops_the_partition_until_it_is_back() {
    let component = fs::read(env!("WEIR_CUSTOMERS_WASM")).expect("it was built");
    // It does the same, by one section more, of which nobody reads anything: a name of one letter, and a byte.
    let another = [&component[..], &[0, 3, 1, b'x', 0]].concat();
    let more_cities = format!("{CITIES}Lyon\n").into_bytes();
    for (name, was, is) in
        [("customers.wasm", component, another), ("us_cities.csv", CITIES.into(), more_cities)]
    {
        let pipeline = Pipeline::new();
        assert!(pipeline.die("file.after_renames", AHEAD));
        fs::write(pipeline.path(name), is).expect("writable");
        let digest = weir::digest::of(&was);
        let kept = pipeline.path("state/store").join(digest.replace(':', "-"));
        let gone = pipeline.path("gone");
        fs::rename(&kept, &gone).expect("it is there");
        let stopped = pipeline.run(None);
        let told = stderr(&stopped);
        assert_eq!(stopped.status.code(), Some(1), "{told}");
        let named = ["customers-raw/0 offsets [", "hint=", "loading plan 0: E_STORE", &digest];
        assert!(named.iter().all(|what| told.contains(what)), "{name}: {told}");
        fs::rename(&gone, &kept).expect("it is there");
        assert!(pipeline.finish()["counters"]["replayed_older"].as_u64() > Some(0), "{name}");
        let [quick, slow] = ["quick", "slow"].map(|sink| pipeline.rows(sink));
        assert!(["usa", "alerts", "other"].iter().all(|target| quick[*target] == slow[*target]), "{name}");
    }
}

/// Every row was made by the plan that the cuts name for its offset, and by its rule.
fn check_versions(rows: &BTreeMap<String, Vec<String>>, history: &Value) {
    let cuts = history["cuts"].as_array().expect("a list");
    let plan_at = |partition: &Value, offset: i64| {
        let before = |cut: &&Value| cut["partition"] == *partition && cut["from"].as_i64() <= Some(offset);
        cuts.iter().rev().find(before).expect("the first cut is at the start")["plan"].clone()
    };
    let (old, new) = (&history["plans"][0]["plan"], &history["plans"][1]["plan"]);
    let (mut made_by_old, mut made_by_new) = (0, 0);
    for (target, line) in rows.iter().flat_map(|(target, lines)| lines.iter().map(move |line| (target, line)))
    {
        let row: Value = serde_json::from_str(line).expect("a row is a JSON object");
        let plan = plan_at(&row["weir_partition"], row["weir_offset"].as_i64().expect("a number"));
        assert_eq!(row["weir_plan"], plan, "{line}");
        assert!(target != "other" || plan == *old, "the new rule sends nobody to `other`: {line}");
        made_by_old += u64::from(plan == *old);
        made_by_new += u64::from(plan == *new);
        assert!(plan == *old || plan == *new);
    }
    assert!(
        made_by_old > 0 && made_by_new > 0,
        "{made_by_old} rows by the old rule, {made_by_new} by the new"
    );
}
