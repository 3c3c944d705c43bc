//! Dead letters are found where sinks have them: counted, named by their records, and shown as they came.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::guests;
use crate::run::{FILE, Pipeline, ask, said, stderr, with_tables};

/// Where dead letters go to instead.
const LAKE: &str = "\n[sinks.lake.files]\npath = \"lake\"\nformat = \"parquet\"\n";

/// Where dead letters go to besides, and a table that refuses one row.
const SQLITE: &str = "\n[sinks.db.sqlite]\npath = \"db/it.db\"\n";

/// A pipeline that has read `records`, with its dead letters in the sink that `change` says.
pub(crate) fn ran(records: &[&str], change: impl Fn(String) -> String) -> Pipeline {
    let pipeline = Pipeline::of(guests::hostile(), &change(FILE.replace("300 ms", "20 s")));
    pipeline.input(&records.iter().map(ToString::to_string).collect::<Vec<_>>());
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    pipeline
}

pub(crate) fn dlq(pipeline: &Pipeline, command: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut weir = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let output = weir.args(["dlq", command]).arg(pipeline.path("pipeline.toml")).args(args).output();
    let output = output.expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output))
}

/// One JSON object per line.
pub(crate) fn lines(pipeline: &Pipeline, command: &str, args: &[&str]) -> Vec<Value> {
    let (code, text, error) = dlq(pipeline, command, &[&["--json"], args].concat());
    assert_eq!(code, Some(0), "{error}");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn origins(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["origin"].as_str().expect("text")).collect()
}

/// Another pipeline file.
pub(crate) type Change = fn(String) -> String;

/// The same letters, wherever they are.
pub(crate) fn places() -> [(&'static str, Change); 3] {
    [
        ("JSON lines", |file| file),
        ("Parquet", |file| file.replace("to = \"out.dead\"", "to = \"lake.dead\"") + LAKE),
        ("SQLite", |file| file.replace("to = \"out.dead\"", "to = \"db.dead\"") + SQLITE),
    ]
}

#[test]
fn letters_are_counted_by_stage_reason_and_plan_and_listed_by_their_records_in_every_sink() {
    for (place, change) in places() {
        let pipeline = ran(&["a", "reject", "b", "panic", "reject", "c"], change);
        let counted = &lines(&pipeline, "ls", &[])[0];
        assert_eq!(counted["letters"], 3, "{place}: {counted}");
        let groups = counted["groups"].as_array().expect("groups");
        let group = |code: &str| groups.iter().find(|g| g["reasons"][0] == code).expect(code).clone();
        let trap = group("trap");
        assert_eq!((&trap["letters"], &trap["stage"]), (&1.into(), &"transform".into()), "{place}");
        let rejected = groups.iter().find(|group| group["letters"] == 2).expect("two are alike");
        let ends = (&rejected["first"], &rejected["last"]);
        assert_eq!(ends, (&"records/0/1".into(), &"records/0/4".into()), "{place}");
        let code = rejected["reasons"][0].as_str().expect("a code");

        let listed = |args: &[&str]| lines(&pipeline, "ls", &[&["--list"], args].concat());
        assert_eq!(origins(&listed(&[])), ["records/0/1", "records/0/3", "records/0/4"], "{place}");
        assert_eq!(origins(&listed(&["--reason", code])), ["records/0/1", "records/0/4"], "{place}");
        assert_eq!(origins(&listed(&["--offsets", "2..4"])), ["records/0/3"], "{place}");
        assert_eq!(origins(&listed(&["--offsets", "2..", "-n", "1"])), ["records/0/3"], "{place}");
        for none in [
            &["--stage", "source"][..],
            &["--offsets", "5.."],
            &["--sink", "out", "-p", "0", "--offsets", "9.."],
        ] {
            assert!(listed(none).is_empty(), "{place} {none:?}");
        }
    }
}

#[test]
fn letters_of_files_have_no_time_and_whoever_asks_for_one_is_told_how_many_are_left_out_for_that() {
    for (place, change) in places() {
        let pipeline = ran(&["a", "reject", "panic"], change);
        for time in [["--since", "1970-01-01T00:00:00Z"], ["--until", "2100-01-01T00:00:00Z"]] {
            for (command, args) in
                [("ls", &["--list"][..]), ("replay", &[]), ("replay", &["--yes"]), ("replay", &["--dry-run"])]
            {
                let (code, out, error) = dlq(&pipeline, command, &[&time, args].concat());
                assert_eq!(code, Some(0), "{place} {command} {args:?}: {error}");
                let none = if args == ["--yes"] { "to go through it again: 0 letters\n" } else { "" };
                assert_eq!(out, none, "{place} {command} {args:?}");
                assert!(error.contains("left out: 2 letters of records without a time"), "{place}: {error}");
            }
            let (_, out, error) =
                dlq(&pipeline, "ls", &[&time, &["--list", "--stage", "source"][..]].concat());
            assert_eq!(
                (out.as_str(), error.as_str()),
                ("", "no dead letters of that time there\n"),
                "{place}"
            );
        }
        let (_, _, error) = dlq(&pipeline, "ls", &["--list"]);
        assert_eq!(error, "", "{place}");
    }
}

#[test]
fn a_letter_is_shown_whole_with_the_plan_that_had_it_and_the_last_words_of_the_transform() {
    for (place, change) in places() {
        let pipeline = ran(&["a", "panic"], change);
        let letters = lines(&pipeline, "show", &["records/0/1"]);
        let [letter] = &letters[..] else { panic!("{place}: {letters:?}") };
        assert_eq!((&letter["value"], &letter["key"]), (&"panic".into(), &Value::Null), "{place}");
        assert_eq!(letter["stage"], "transform", "{place}");
        assert_eq!(letter["reasons"][0]["code"], "trap", "{place}");
        assert!(letter["trap"].as_str().is_some_and(|trap| !trap.is_empty()), "{place}: {letter}");
        let history = said(&pipeline.weir("history", &["--json"]).output().expect("the program starts"));
        let plan = &history["plans"][0];
        assert_eq!(letter["plan"]["plan"], plan["plan"], "{place}");
        assert_eq!(letter["plan"]["digest"], plan["what"]["digest"], "{place}");

        let (code, text, _) = dlq(&pipeline, "show", &["records/0/1"]);
        assert_eq!(code, Some(0));
        assert!(text.contains("letter     records/0/1\n") && text.contains("value      panic\n"), "{text}");
        let (code, _, error) = dlq(&pipeline, "show", &["records/0/0"]);
        assert_eq!(code, Some(1), "{place}");
        assert!(error.contains("no dead letter of records/0/0"), "{error}");
    }
}

#[test]
fn what_the_source_could_not_cut_is_a_letter_of_its_own_stage_with_its_bytes() {
    let csv = FILE.replace("topic = \"records\"", "topic = \"records\"\nformat = \"csv\"");
    let pipeline = Pipeline::of(guests::hostile(), &csv);
    std::fs::write(pipeline.path("input/a.csv"), b"a,b\n1,2\n1,\xff,3\n").expect("writable");
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let letters = lines(&pipeline, "show", &["records/0/1"]);
    assert_eq!((letters.len(), &letters[0]["stage"]), (1, &json!("source")), "{letters:?}");
    assert_eq!(letters[0]["value_base64"], "MSz/LDM=", "{}", letters[0]);
}

#[test]
fn looking_at_letters_makes_nothing_and_a_pipeline_that_never_ran_has_none() {
    let pipeline = Pipeline::of(guests::hostile(), FILE);
    let (code, _, error) = dlq(&pipeline, "ls", &[]);
    assert_eq!(code, Some(2));
    assert!(error.contains("has never run"), "{error}");
    assert!(!pipeline.path("out").exists() && !pipeline.path("state").exists());
}

#[test]
fn what_the_pipeline_does_not_have_is_an_error_and_a_reason_that_no_letter_has_is_told_with_those_that_there_are()
 {
    let pipeline = ran(&["a", "reject", "panic"], |file| file);
    for (named, told, hint) in [
        (["--sink", "oot"], "pipeline it has no sink `oot`", "did you mean `out`?"),
        (["--plan", "999"], "pipeline it has no plan 999", "weir history"),
        (
            ["--topic", "recordz"],
            "pipeline it has read nothing of topic `recordz`",
            "did you mean `records`?",
        ),
        (["-p", "1"], "pipeline it has read nothing of partition 1", "weir history"),
    ] {
        for more in [&[][..], &["--json"], &["--list"]] {
            let (code, out, error) = dlq(&pipeline, "ls", &[&named[..], more].concat());
            assert_eq!((code, out.as_str()), (Some(2), ""), "{named:?}: {error}");
            assert!(error.contains(told) && error.contains(hint), "{named:?}: {error}");
        }
    }
    let (code, _, error) = dlq(&pipeline, "show", &["recordz/0/1"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("read nothing of topic `recordz`"), "{error}");
    let (code, out, error) = dlq(&pipeline, "ls", &["--reason", "trapp"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{error}");
    let codes: Vec<_> = lines(&pipeline, "ls", &[])[0]["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .map(|group| group["reasons"][0].as_str().expect("a code").to_owned())
        .collect();
    assert_eq!(codes.len(), 2);
    assert!(error.starts_with("no dead letters there with reason trapp; there are some with: "), "{error}");
    assert!(codes.iter().all(|code| error.contains(code)), "{codes:?}: {error}");
}

/// What letters would become, and the summary.
pub(crate) fn dry_run(pipeline: &Pipeline, args: &[&str]) -> (Vec<Value>, Value) {
    let mut all = lines(pipeline, "replay", &[&["--dry-run"], args].concat());
    let summary = all.pop().expect("a summary");
    (all, summary)
}

/// Letters by their records, each with its fate.
fn fates(foreseen: &[Value]) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    for letter in foreseen {
        all.push((letter["letter"].as_str().expect("text"), letter["fate"].as_str().expect("text")));
    }
    all
}

/// All files below a directory, with what is in them; but for those that SQLite has while a database is open.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_none_or(|ending| ending != "db-wal" && ending != "db-shm") {
            all.insert(path.clone(), std::fs::read(&path).expect("readable"));
        }
    }
    all
}

#[test]
fn a_dry_run_shows_what_would_become_of_each_letter_and_changes_nothing() {
    for (place, change) in places() {
        let pipeline = ran(&["a", "reject", "b", "panic", "drop", "reject"], change);
        let input = pipeline.path("pipeline.toml");
        let dir = input.parent().expect("a directory");
        let before = files(dir);
        let (letters, summary) = dry_run(&pipeline, &[]);
        let expected = [("records/0/1", "rejected"), ("records/0/3", "failed"), ("records/0/5", "rejected")];
        assert_eq!(fates(&letters), expected, "{place}");
        assert_eq!(
            (&letters[0]["attempt"], &letters[0]["reasons"][0]["code"]),
            (&0.into(), &"refused".into())
        );
        assert_eq!(letters[1]["reasons"][0]["code"], "trap", "{place}");
        let fates = json!([
            { "fate": "failed", "of": ["trap"], "letters": 1 },
            { "fate": "rejected", "of": ["refused"], "letters": 2 },
        ]);
        assert_eq!(summary, json!({ "letters": 3, "fates": fates }), "{place}");
        assert!(before == files(dir), "{place}: something was written");
    }
}

#[test]
fn letters_can_be_tried_with_another_setting_or_component_before_that_is_deployed() {
    let pipeline = ran(&["a", "reject", "panic"], |file| file);
    std::fs::write(pipeline.path("rule-2.wasm"), guests::hostile()).expect("writable");
    let other = pipeline.path("rule-2.wasm").display().to_string();
    for with in [&["--set", "when=never"][..], &[&other, "--set", "when=never"]] {
        let (letters, summary) = dry_run(&pipeline, with);
        let routed = json!([{ "route": "ok", "rows": 1, "to": ["out.ok"] }]);
        let found: Vec<_> = letters.iter().map(|letter| (&letter["fate"], &letter["routes"])).collect();
        assert_eq!(found, [(&json!("routed"), &routed), (&json!("routed"), &routed)], "{letters:?}");
        assert_eq!(summary["fates"], json!([{ "fate": "routed", "of": ["ok"], "letters": 2 }]));
    }
    let only = dry_run(&pipeline, &[&other, "--reason", "refused"]).0;
    assert_eq!(fates(&only), [("records/0/1", "rejected")]);
    // What could not be deployed is refused in the same way.
    std::fs::write(pipeline.path("rule-3.wasm"), guests::strict()).expect("writable");
    let unfit = pipeline.path("rule-3.wasm").display().to_string();
    for (with, why) in [(&[unfit.as_str()][..], "right"), (&["--set", "whem=never"], "did you mean `when`?")]
    {
        let (code, _, error) = dlq(&pipeline, "replay", &[&["--dry-run"], with].concat());
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn another_rule_is_for_a_dry_run_and_nothing_is_sent_where_one_is_named_without() {
    let pipeline = ran(&["a", "reject"], |file| file);
    let other = pipeline.path("guest.wasm").display().to_string();
    for with in [&[other.as_str()][..], &["--set", "when=never"], &["--table", "cities=input/a.jsonl"]] {
        for more in [&[][..], &["--yes"], &["--yes", "--json"]] {
            let (code, out, error) = dlq(&pipeline, "replay", &[with, more].concat());
            assert_eq!((code, out.as_str()), (Some(2), ""), "{with:?} {more:?}: {error}");
            assert!(error.contains("are for --dry-run") && error.contains("`weir deploy`"), "{error}");
        }
    }
    assert!(!pipeline.path("state/replay").exists(), "nothing was sent");
}

#[test]
fn a_letter_at_which_the_pipeline_would_stop_is_named_and_the_others_are_judged() {
    let pipeline = ran(&["reject", "loop", "panic"], |file| file.replace("20 s", "300 ms"));
    let short = FILE.replace("100_000_000", "1_000_000_000_000").replace("300 ms", "50 ms");
    pipeline.write(&short);
    assert_eq!(pipeline.run(&["--adopt"]).status.code(), Some(0));
    let (letters, _) = dry_run(&pipeline, &[]);
    let expected = [("records/0/0", "rejected"), ("records/0/1", "stops"), ("records/0/2", "failed")];
    assert_eq!(fates(&letters), expected);
    assert!(letters[1]["why"].as_str().is_some_and(|why| why.contains("E_STALL")), "{letters:?}");
}

#[test]
fn a_dry_run_in_a_pipe_is_a_line_per_letter_and_then_one_per_fate() {
    let pipeline = ran(&["reject", "a", "reject"], |file| file);
    let (code, text, error) = dlq(&pipeline, "replay", &["--dry-run"]);
    let letter = |n| format!("records/0/{n}\t0\trejected\trefused (refused on request)\n");
    assert_eq!(
        (code, text),
        (Some(0), format!("{}{}\nrejected\trefused\t2\n", letter(0), letter(2))),
        "{error}"
    );
    let (code, text, error) = dlq(&pipeline, "replay", &["--dry-run", "--reason", "none-of-these"]);
    assert_eq!((code, text.as_str()), (Some(0), ""));
    assert!(error.contains("no dead letters there"), "{error}");
}

#[test]
fn what_a_source_could_not_cut_is_tried_only_where_that_is_asked_for() {
    let csv = FILE.replace("topic = \"records\"", "topic = \"records\"\nformat = \"csv\"");
    let pipeline = Pipeline::of(guests::hostile(), &csv);
    std::fs::write(pipeline.path("input/a.csv"), b"a,b\n1,2\n1,2,3\n").expect("writable");
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    assert!(dry_run(&pipeline, &[]).0.is_empty());
    assert_eq!(fates(&dry_run(&pipeline, &["--stage", "source"]).0), [("records/0/1", "routed")]);
}

#[test]
fn a_dry_run_of_a_row_that_a_table_refused_shows_where_that_row_alone_would_go() {
    let pipeline = Pipeline::of(guests::hostile(), &with_tables(""));
    pipeline.input(&["one".to_owned()]);
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let refuses =
        "CREATE TRIGGER no BEFORE INSERT ON ok WHEN new.value <> 'two' BEGIN SELECT RAISE(ABORT, 'no'); END";
    ask(&pipeline, refuses);
    let added = pipeline.path("input/b.jsonl");
    std::fs::write(&added, "two\nthree\nfour\n").expect("writable");
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let (letters, _) = dry_run(&pipeline, &[]);
    assert_eq!(fates(&letters), [("records/1/1", "routed"), ("records/1/2", "routed")]);
    let routes = json!([{ "route": "ok", "rows": 1, "to": ["base.ok"] }]);
    assert_eq!((&letters[0]["row"], &letters[0]["routes"]), (&"base.ok/0".into(), &routes), "{letters:?}");
    // A file that is another one has other records.
    std::fs::write(&added, "two\nthree\nfive\n").expect("writable");
    let (letters, summary) = dry_run(&pipeline, &["--stage", "sink"]);
    assert_eq!(fates(&letters), [("records/1/1", "gone"), ("records/1/2", "gone")]);
    assert!(
        letters[0]["why"].as_str().is_some_and(|why| why.contains("not the one any more")),
        "{letters:?}"
    );
    assert_eq!(summary["fates"], json!([{ "fate": "gone", "of": [], "letters": 2 }]));
    // One that cannot be read is not gone.
    std::fs::remove_file(&added).expect("it is there");
    assert_eq!(fates(&dry_run(&pipeline, &[]).0), [("records/1/1", "gone"), ("records/1/2", "gone")]);
    std::fs::create_dir(&added).expect("writable");
    let (code, text, error) = dlq(&pipeline, "replay", &["--dry-run"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("reading") && error.contains("b.jsonl") && !text.contains("gone"),
        "{text}{error}"
    );
}
