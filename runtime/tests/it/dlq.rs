//! Dead letters are found where sinks have them: counted, named by their records, and shown as they came.

use serde_json::{Value, json};

use crate::guests;
use crate::run::{FILE, Pipeline, said, stderr};

/// Where dead letters go to besides, and a table that refuses one row.
const SQLITE: &str = "\n[sinks.db.sqlite]\npath = \"db/it.db\"\n";

/// A pipeline that has read `records`, with its dead letters in the sink that `change` says.
fn ran(records: &[&str], change: impl Fn(String) -> String) -> Pipeline {
    let pipeline = Pipeline::of(guests::hostile(), &change(FILE.replace("300 ms", "20 s")));
    pipeline.input(&records.iter().map(ToString::to_string).collect::<Vec<_>>());
    let output = pipeline.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    pipeline
}

fn dlq(pipeline: &Pipeline, command: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut weir = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = weir.args(["dlq", command]).arg(pipeline.path("pipeline.toml")).args(args).output();
    let output = output.expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output))
}

/// One JSON object per line.
fn lines(pipeline: &Pipeline, command: &str, args: &[&str]) -> Vec<Value> {
    let (code, text, error) = dlq(pipeline, command, &[&["--json"], args].concat());
    assert_eq!(code, Some(0), "{error}");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn origins(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["origin"].as_str().expect("text")).collect()
}

/// Another pipeline file.
type Change = fn(String) -> String;

/// The same letters, wherever they are.
fn places() -> [(&'static str, Change); 3] {
    [
        ("JSON lines", |file| file),
        ("Parquet", |file| file.replace("\"jsonl\"", "\"parquet\"")),
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
        // None of them has a time.
        assert!(listed(&["--since", "1970-01-01T00:00:00Z"]).is_empty(), "{place}");
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
