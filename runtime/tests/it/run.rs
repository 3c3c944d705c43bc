//! The real program runs pipelines: what it refuses, what it says, and what it leaves behind.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tempfile::TempDir;

use crate::guests;

/// A pipeline in a directory of its own, with the guest that misbehaves on request.
pub(crate) struct Pipeline {
    dir: TempDir,
}

pub(crate) const FILE: &str = r#"
[pipeline]
name = "it"
state = "state"

[source.files]
path = "input"
topic = "records"

[transform]
component = "guest.wasm"

[limits]
deadline = "300 ms"
output_bytes = "1 MiB"
fuel_per_record = 100_000_000
batch_records = 4
workers = 1

[routes]
ok = "out.ok"
raw = "none"

[dead_letter]
to = "out.dead"

[sinks.out.files]
path = "out"
format = "jsonl"
"#;

impl Pipeline {
    fn new(records: &[&str]) -> Self {
        let pipeline = Self::of(guests::hostile(), FILE);
        pipeline.input(&records.iter().map(ToString::to_string).collect::<Vec<_>>());
        pipeline
    }

    /// Any guest and pipeline file, without input.
    pub(crate) fn of(guest: &[u8], file: &str) -> Self {
        let pipeline = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        fs::create_dir(pipeline.path("input")).expect("writable");
        fs::write(pipeline.path("guest.wasm"), guest).expect("writable");
        pipeline.write(file);
        pipeline
    }

    /// Its input: a file with these lines.
    pub(crate) fn input(&self, lines: &[String]) {
        fs::write(self.path("input/a.jsonl"), lines.join("\n")).expect("writable");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, file: &str) {
        fs::write(self.path("pipeline.toml"), file).expect("writable");
    }

    fn change(&self, from: &str, to: &str) {
        assert!(FILE.contains(from));
        self.write(&FILE.replace(from, to));
    }

    pub(crate) fn weir(&self, command: &str, args: &[&str]) -> Command {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.arg(command).arg(self.path("pipeline.toml")).args(args);
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        weir
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.weir("run", &[&["--once", "--json"], args].concat()).output().expect("the program starts")
    }

    pub(crate) fn rows(&self, target: &str) -> Vec<Value> {
        let Ok(files) = fs::read_dir(self.path("out").join(target)) else { return Vec::new() };
        let texts = files.map(|file| fs::read_to_string(file.expect("readable").path()).expect("readable"));
        let mut rows: Vec<Value> = texts
            .flat_map(|text| {
                text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<_>>()
            })
            .collect();
        rows.sort_by_key(|row| row["weir_offset"].as_i64());
        rows
    }

    pub(crate) fn offsets(&self, target: &str) -> Vec<i64> {
        self.rows(target).iter().map(|row| row["weir_offset"].as_i64().expect("a number")).collect()
    }
}

pub(crate) fn said(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(output)))
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_run_finds_nothing_new_and_a_new_file_goes_on() {
    let pipeline = Pipeline::new(&["one", "two", "drop", "reject"]);
    let first = said(&pipeline.run(&[]));
    assert_eq!(
        (&first["records"], &first["dropped"], &first["conserved"]),
        (&4.into(), &1.into(), &true.into())
    );
    assert_eq!(said(&pipeline.run(&[]))["records"], 0);
    fs::write(pipeline.path("input/b.jsonl"), "three\n").expect("writable");
    assert_eq!(said(&pipeline.run(&[]))["routed"]["ok"], 1);
    assert_eq!(pipeline.rows("ok").len(), 3);
}

#[test]
fn a_compressed_file_that_breaks_off_ends_in_a_dead_letter_and_is_not_read_again() {
    let pipeline = Pipeline::new(&["one"]);
    let whole = gzip("two\nthree\nfour\n");
    fs::write(pipeline.path("input/b.jsonl.gz"), &whole).expect("writable");
    fs::write(pipeline.path("input/c.jsonl.gz"), &whole[..whole.len() - 8]).expect("writable");
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("the gzip data is broken"), "{}", stderr(&output));
    let said = said(&output);
    assert_eq!(
        (&said["routed"]["ok"], &said["rejected"]),
        (&7.into(), &serde_json::json!({ "broken-compression": 1 }))
    );
    let [dead] = &pipeline.rows("dead")[..] else { panic!("one dead letter") };
    let found = (&dead["stage"], &dead["weir_partition"], &dead["weir_offset"]);
    assert_eq!(found, (&"source".into(), &2.into(), &3.into()), "{dead}");
    assert_eq!(self::said(&pipeline.run(&[]))["records"], 0);
}

#[test]
fn rows_and_dead_letters_are_found_in_the_directories_that_the_file_asks_for() {
    let pipeline = Pipeline::new(&["a/b", "reject", "", "a/b"]);
    let targets = "[sinks.out.files.targets.ok]\ndirectories = [{ column = \"value\" }]\n";
    let all = "format = \"jsonl\"\ndirectories = [{ date = \"month\" }]\n\n";
    pipeline.change("format = \"jsonl\"\n", &format!("{all}{targets}"));
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(pipeline.offsets("ok/value=a%2Fb"), [0, 2]);
    assert_eq!(pipeline.offsets("dead/dt=__HIVE_DEFAULT_PARTITION__"), [1]);
    pipeline.change("format = \"jsonl\"\n", "format = \"jsonl\"\ndirectories = [{ column = \"vale\" }]\n");
    let refused = pipeline.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    assert!(
        told.contains("`ok`, which goes to `out.ok`, has no column `vale`")
            && told.contains("did you mean `value`?"),
        "{told}"
    );
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("memory takes bytes");
    gzip.finish().expect("memory takes bytes")
}

#[test]
fn each_misdeed_is_a_dead_letter_and_the_records_around_it_are_unharmed() {
    let misdeeds =
        ["recurse", "eat", "panic", "err", "lose", "twice", "route", "short-column", "bad-offsets", "many"];
    for misdeed in misdeeds {
        let pipeline = Pipeline::new(&["a", "b", misdeed, "c", "d"]);
        pipeline.change("300 ms", "20 s");
        let output = pipeline.run(&[]);
        assert_eq!(output.status.code(), Some(0), "{misdeed}: {}", stderr(&output));
        assert_eq!(
            (said(&output)["failed"].as_u64(), pipeline.offsets("ok")),
            (Some(1), vec![0, 1, 3, 4]),
            "{misdeed}"
        );
        let dead = pipeline.rows("dead");
        assert_eq!((dead.len(), dead[0]["weir_offset"].as_i64()), (1, Some(2)), "{misdeed}");
        assert_eq!(
            (dead[0]["value"].as_str(), dead[0]["stage"].as_str()),
            (Some(misdeed), Some("transform"))
        );
        assert!(dead[0]["trap"].as_str().is_some_and(|text| !text.is_empty()), "{misdeed}: {dead:?}");
        assert!(dead[0]["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));
    }
}

#[test]
fn batches_that_fail_all_the_time_are_told_of_at_the_first_and_at_twice_as_many_each_time() {
    const TOLD: &str = "a batch failed, and was judged in pieces";
    let pipeline = Pipeline::new(&["a", "panic", "b", "c"].repeat(11));
    pipeline.change("300 ms", "20 s");
    let output = pipeline.run(&[]);
    assert_eq!(said(&output)["failed"], 11, "{}", stderr(&output));
    let log = stderr(&output);
    let counts: Vec<_> = log
        .lines()
        .filter(|line| line.contains(TOLD))
        .map(|line| line.split("batches=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a count"))
        .collect();
    assert_eq!(counts, ["1", "2", "4", "8"], "{log}");
}

#[test]
fn a_stall_stops_its_partition_and_names_the_record_and_what_came_before_is_committed() {
    let pipeline = Pipeline::new(&["a", "b", "c", "d", "e", "loop", "f", "g", "h"]);
    pipeline.change(
        "deadline = \"300 ms\"\noutput_bytes = \"1 MiB\"\nfuel_per_record = 100_000_000",
        "deadline = \"50 ms\"\nfuel_per_record = 1_000_000_000_000",
    );
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let error = said(&output)["stopped"][0]["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("E_STALL") && error.contains("records/0") && error.contains("[5, 6)"), "{error}");
    assert_eq!(pipeline.offsets("ok"), [0, 1, 2, 3]);
}

#[test]
fn row_48_one_trap_in_a_thousand_records_is_one_dead_letter_in_a_thousand() {
    let records: Vec<&str> = (0..3_000).map(|i| if i % 1_000 == 500 { "panic" } else { "a" }).collect();
    let pipeline = Pipeline::new(&records);
    pipeline.change("batch_records = 4\n", "");
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!((&said(&output)["failed"], &said(&output)["routed"]["ok"]), (&3.into(), &2_997.into()));
    let dead: Vec<_> = pipeline.rows("dead").iter().map(|row| row["weir_offset"].as_i64()).collect();
    assert_eq!(dead, [Some(500), Some(1_500), Some(2_500)]);
}

#[test]
fn row_49_a_transform_that_fails_on_everything_stops_after_so_many_in_a_row() {
    let pipeline = Pipeline::new(&vec!["panic"; 50]);
    pipeline.change("to = \"out.dead\"", "to = \"out.dead\"\nstop_after_consecutive = 10");
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let dead = pipeline.rows("dead").len();
    assert!((8..=10).contains(&dead), "{dead} dead letters");
}

#[test]
fn a_record_that_never_ends_is_a_dead_letter_and_the_others_go_on() {
    let pipeline = Pipeline::new(&["a", "b", "c", "d", "e", "loop", "f", "g", "h"]);
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(pipeline.offsets("ok"), [0, 1, 2, 3, 4, 6, 7, 8]);
    let dead = pipeline.rows("dead");
    assert!(dead[0]["trap"].as_str().is_some_and(|text| text.contains("units of fuel")), "{dead:?}");
}

#[test]
fn row_55_a_transform_that_keeps_count_is_found_out_and_nothing_of_it_is_kept() {
    let pipeline = Pipeline::new(&["count", "a", "count", "b"]);
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let error = said(&output)["stopped"][0]["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("E_NONDETERMINISTIC") && error.contains("route `ok`, row"), "{error}");
    assert!(error.contains("field `value`") && error.contains("offset 0"), "{error}");
    assert_eq!(pipeline.offsets("ok"), [0_i64; 0]);
}

#[test]
fn a_changed_file_is_refused_with_the_difference_until_it_is_adopted() {
    let pipeline = Pipeline::new(&["a"]);
    assert!(pipeline.run(&[]).status.success());
    pipeline.change("300 ms", "400 ms");
    let refused = pipeline.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    assert!(told.contains("limit deadline, ms: 300 -> 400") && told.contains("--adopt"), "{told}");
    assert_eq!(said(&pipeline.run(&["--adopt"]))["records"], 0);
    assert!(pipeline.run(&[]).status.success(), "adopted once, it is not asked for again");
}

#[test]
fn a_sink_that_comes_later_is_refused_rather_than_left_without_the_past() {
    let pipeline = Pipeline::new(&["a"]);
    assert!(pipeline.run(&[]).status.success());
    let later = FILE.replace("raw = \"none\"", "raw = \"late.raw\"");
    pipeline.write(&(later + "\n[sinks.late.files]\npath = \"late\"\nformat = \"jsonl\"\n"));
    let refused = pipeline.run(&["--adopt"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("E_NEW_SINK"), "{}", stderr(&refused));
}

#[test]
fn a_lost_state_directory_is_no_first_start() {
    let pipeline = Pipeline::new(&["a"]);
    assert!(pipeline.run(&[]).status.success());
    fs::remove_dir_all(pipeline.path("state")).expect("writable");
    let refused = pipeline.run(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(said(&refused)["stopped"][0]["error"].as_str().is_some_and(|e| e.contains("E_TOPIC_REPLACED")));
    assert_eq!(pipeline.offsets("ok"), [0]);
}

#[test]
fn a_file_that_changed_is_refused_by_name() {
    let pipeline = Pipeline::new(&["a"]);
    assert!(pipeline.run(&[]).status.success());
    fs::write(pipeline.path("input/a.jsonl"), "a\nb\n").expect("writable");
    let refused = pipeline.run(&[]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(stderr(&refused).contains("E_INPUT_CHANGED: a.jsonl"), "{}", stderr(&refused));
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
    let pipeline = Pipeline::new(&["a"]);
    pipeline.change("deadline", "dedline");
    let refused = pipeline.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    assert!(told.contains("pipeline.toml:14:1") && told.contains("did you mean `deadline`?"), "{told}");
    assert!(!pipeline.path("state").exists(), "nothing was made");
}

#[test]
fn sigterm_finishes_commits_and_exits_with_0_and_a_second_process_is_refused_meanwhile() {
    let pipeline = Pipeline::new(&["a", "b"]);
    let mut running = pipeline.weir("run", &[]);
    running.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = running.spawn().expect("the program starts");
    let holds = |pid: u32| {
        let held = fs::read_to_string(pipeline.path("state/lock")).unwrap_or_default();
        held.trim() == pid.to_string()
    };
    while !holds(running.id()) {
        assert!(running.try_wait().expect("it is ours").is_none(), "it runs until it is told to stop");
        std::thread::yield_now();
    }
    let second = pipeline.run(&[]);
    assert_eq!(second.status.code(), Some(2));
    assert!(stderr(&second).contains(&format!("process {}", running.id())), "{}", stderr(&second));
    let pid = i32::try_from(running.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let ended = running.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0));
    assert!(stderr(&ended).contains("it runs until Ctrl-C or SIGTERM"), "{}", stderr(&ended));
    // What it had not taken in by then, the next run does.
    assert!(pipeline.run(&[]).status.success());
    assert_eq!(pipeline.offsets("ok"), [0, 1]);
}

/// The pipeline file with a database beside the files; `keys` are those of the sink.
pub(crate) fn with_tables(keys: &str) -> String {
    let routes =
        FILE.replace("ok = \"out.ok\"", "ok = [\"out.ok\", \"base.ok\"]").replace("out.dead", "base.dead");
    format!("{routes}\n[sinks.base.sqlite]\npath = \"base.db\"\n{keys}\n")
}

/// What the database of a pipeline answers, the first column as text.
pub(crate) fn ask(pipeline: &Pipeline, sql: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let file = SqliteConnectOptions::new().filename(pipeline.path("base.db")).create_if_missing(true);
    let rows = runtime.block_on(async {
        let mut connection = file.connect().await?;
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(rows)
    });
    rows.expect("the database answers").iter().map(|row| row.get_unchecked(0)).collect()
}

#[test]
fn tables_get_the_rows_and_dead_letters_that_files_get_and_a_second_run_adds_none() {
    let pipeline = Pipeline::new(&["one", "two", "drop", "reject"]);
    pipeline.write(&with_tables(""));
    assert_eq!(said(&pipeline.run(&[]))["records"], 4);
    assert_eq!(said(&pipeline.run(&[]))["records"], 0);
    assert_eq!(ask(&pipeline, "SELECT weir_offset FROM ok ORDER BY 1"), ["0", "1"]);
    assert_eq!(pipeline.offsets("ok"), [0, 1]);
    assert_eq!(ask(&pipeline, "SELECT value FROM dead WHERE stage = 'transform'"), ["reject"]);
}

#[test]
fn rows_that_a_database_refuses_are_counted_and_stand_in_its_rejects() {
    let pipeline = Pipeline::new(&["one", "two", "three"]);
    pipeline.write(&with_tables(""));
    assert!(pipeline.run(&[]).status.success());
    ask(
        &pipeline,
        "CREATE TRIGGER no_four BEFORE INSERT ON ok WHEN new.weir_partition = 1 BEGIN SELECT RAISE(ABORT, 'enough'); END",
    );
    fs::write(pipeline.path("input/b.jsonl"), "four\nfive\n").expect("writable");
    assert_eq!(said(&pipeline.run(&[]))["counters"]["refused"], 2);
    assert_eq!(ask(&pipeline, "SELECT reason FROM weir_reject"), ["enough", "enough"]);
    assert_eq!(ask(&pipeline, "SELECT count(*) FROM ok"), ["3"]);
}

#[test]
fn a_table_that_does_not_fit_is_refused_before_a_record_is_read() {
    let pipeline = Pipeline::new(&["one"]);
    pipeline.write(&with_tables("targets.ok = { mode = \"upsert\", key = [\"nobody\"] }"));
    let refused = pipeline.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    assert!(
        told.contains("E_SINK_SCHEMA") && told.contains("`nobody`") && told.contains("hint: known here:"),
        "{told}"
    );
    assert!(!pipeline.path("out/ok").exists());
}

#[test]
fn a_plan_that_a_table_does_not_take_is_never_in_the_plan_log() {
    let pipeline = Pipeline::new(&["one"]);
    ask(&pipeline, "CREATE TABLE other (its_own TEXT NOT NULL)");
    let refused = with_tables("").replace("base.ok", "base.other");
    let history = || pipeline.weir("history", &["--json"]).output().expect("the program starts");
    let is_refused = |args: &[&str]| {
        pipeline.write(&refused);
        let output = pipeline.run(args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let told = stderr(&output);
        assert!(told.contains("E_SINK_SCHEMA") && told.contains("sink base, other"), "{told}");
    };
    is_refused(&[]);
    assert!(stderr(&history()).contains("has never run"), "{}", stderr(&history()));
    pipeline.write(&with_tables(""));
    assert_eq!(said(&pipeline.run(&[]))["records"], 1);
    is_refused(&["--adopt"]);
    assert_eq!(said(&history())["plans"].as_array().map(Vec::len), Some(1));
    // Nothing is left of it: the file that ran goes on without a word.
    pipeline.write(&with_tables(""));
    let again = pipeline.run(&[]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
}

#[test]
fn a_run_says_first_what_it_reads_and_where_it_writes() {
    let pipeline = Pipeline::new(&["one"]);
    let output = pipeline.run(&[]);
    let [input, out] = ["input", "out"].map(|name| pipeline.path(name).display().to_string());
    let first = format!("it, plan 0: from {input} to out ({out})\n");
    assert!(stderr(&output).starts_with(&first), "{}", stderr(&output));
    assert!(!stderr(&output).contains("Ctrl-C"), "it ends by itself: {}", stderr(&output));
}
