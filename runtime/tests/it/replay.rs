//! Dead letters of a pipeline that reads files go through it again: each arrives once in every sink, as the record that it is,
//! and whatever else was there stays as it was.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::admin::{Running, status};
use crate::dlq::{dlq, dry_run, lines, places, ran};
use crate::guests;
use crate::run::{FILE, Pipeline, ask, said, stderr, with_tables};

/// Sends letters through a pipeline again, and says what became of them.
fn replay(pipeline: &Pipeline, args: &[&str]) -> Value {
    let (code, text, error) = dlq(pipeline, "replay", &[&["--yes", "--json"], args].concat());
    assert_eq!(code, Some(0), "{error}");
    serde_json::from_str(&text).expect("JSON")
}

fn copied(copied: u64, there: u64, spent: u64) -> Value {
    json!({ "copied": copied, "there": there, "spent": spent, "too_large": [], "gone": [] })
}

/// From now on the transform takes everything.
fn mend(pipeline: &Pipeline) {
    let file = pipeline.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("readable");
    let mended = text.replace("[limits]", "settings = { when = \"never\" }\n\n[limits]");
    fs::write(file, mended).expect("writable");
}

/// Runs it to the end of its input; what it says of that.
fn finish(pipeline: &Pipeline, args: &[&str]) -> Value {
    let output = pipeline.run(args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = said(&output);
    assert_eq!(said["conserved"], true);
    said
}

/// The attempts of the rows of route `ok`, by the file and the offset of their records.
fn attempts(pipeline: &Pipeline) -> BTreeMap<(i64, i64), Vec<i64>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for row in pipeline.rows("ok") {
        assert_eq!(row["weir_topic"], "records");
        let number = |name: &str| row[name].as_i64().unwrap_or_default();
        let place = (number("weir_partition"), number("weir_offset"));
        // What the transform was told is what the row says.
        assert_eq!(number("offset"), place.1);
        all.entry(place).or_default().push(number("weir_attempt"));
    }
    all
}

/// All letters, each with its attempt.
fn letters(pipeline: &Pipeline) -> Vec<(String, u64)> {
    let letters = lines(pipeline, "ls", &["--list"]);
    let of = |letter: &Value| {
        let origin = letter["origin"].as_str().expect("text").to_owned();
        (origin, letter["attempt"].as_u64().expect("a number"))
    };
    let mut all: Vec<_> = letters.iter().map(of).collect();
    all.sort();
    all
}

/// Letters that say that they were sent again, one by one, whole, and counted.
fn sent(pipeline: &Pipeline) -> Vec<String> {
    let mut letters = lines(pipeline, "ls", &["--list"]);
    letters.retain(|letter| letter["sent"] == true);
    let sent: Vec<_> =
        letters.iter().map(|letter| letter["origin"].as_str().expect("text").to_owned()).collect();
    for origin in &sent {
        let whole = lines(pipeline, "show", &[origin]);
        let of_record = sent.iter().filter(|other| *other == origin).count();
        assert_eq!(whole.iter().filter(|letter| letter["sent"] == true).count(), of_record);
    }
    let groups = lines(pipeline, "ls", &[])[0]["groups"].as_array().expect("groups").clone();
    let counted: u64 = groups.iter().filter_map(|group| group["sent"].as_u64()).sum();
    assert_eq!(counted, sent.len() as u64);
    sent
}

#[test]
fn letters_that_are_replayed_arrive_once_as_the_records_that_they_are_wherever_letters_are_kept() {
    for (place, change) in places() {
        let pipeline = ran(&["a", "reject", "b", "panic", "reject"], change);
        let before = letters(&pipeline);
        assert_eq!(attempts(&pipeline), BTreeMap::from([((0, 0), vec![0]), ((0, 2), vec![0])]), "{place}");
        let (code, _, error) = dlq(&pipeline, "replay", &[]);
        assert_eq!(code, Some(1), "{place}: nobody said yes: {error}");
        assert!(error.contains("found 3 letters\n"), "{error}");
        assert_eq!(sent(&pipeline), [] as [String; 0], "{place}");
        assert_eq!(replay(&pipeline, &["--offsets", "3..4"]), copied(1, 0, 0), "{place}");
        let (_, _, error) = dlq(&pipeline, "replay", &[]);
        assert!(error.contains("found 3 letters\n  sent already, and left out: 1\n"), "{error}");
        assert_eq!(sent(&pipeline), ["records/0/3"], "{place}");
        assert_eq!(replay(&pipeline, &[]), copied(2, 1, 0), "{place}");
        let (code, _, error) = dlq(&pipeline, "replay", &[]);
        assert_eq!(code, Some(0), "{place}: there is nothing to ask: {error}");
        assert_eq!(replay(&pipeline, &[]), copied(0, 3, 0), "{place}");
        mend(&pipeline);
        assert_eq!(finish(&pipeline, &["--adopt"])["records"], 3, "{place}");
        assert_eq!(finish(&pipeline, &[])["records"], 0, "{place}: everything is done");

        let expected = [(0, vec![0]), (1, vec![1]), (2, vec![0]), (3, vec![1]), (4, vec![1])];
        let expected: BTreeMap<_, _> = expected.map(|(offset, of)| ((0, offset), of)).into();
        assert_eq!(attempts(&pipeline), expected, "{place}");
        assert_eq!(letters(&pipeline), before, "{place}: letters stay where they are");

        // What came of it the second time is no fault of the first.
        let explained = pipeline.weir("explain", &["records/0/1", "--json"]).output().expect("it starts");
        assert_eq!(explained.status.code(), Some(0), "{place}: {}", stderr(&explained));
        let explained = said(&explained);
        assert_eq!(explained["fate"], "rejected", "{place}");
        let later: Vec<_> = explained["later"].as_array().expect("attempts").iter().collect();
        let [later] = *later else { panic!("{place}: it came again once: {explained}") };
        assert_eq!((&later["attempt"], &later["fate"]), (&1.into(), &"routed".into()), "{place}");
        assert_ne!(later["plan"], explained["plan"]["plan"], "{place}");
        let rows = explained["sinks"].as_array().expect("sinks").iter();
        let rows = rows.flat_map(|sink| sink["rows"].as_array().expect("rows"));
        let of_ok: Vec<_> = rows.filter(|row| row["route"] == "ok").map(|row| &row["attempt"]).collect();
        assert_eq!(of_ok, [1], "{place}: {explained}");
        let history = said(&pipeline.weir("history", &["--json"]).output().expect("it starts"));
        let done = history["done"].as_array().expect("partitions").iter();
        let done: Vec<_> = done.map(|of| (&of["input"], &of["partition"], &of["records"])).collect();
        let again = json!("weir.it.replay");
        let number = |n: u64| json!(n);
        let (zero, one, two, five, input) = (number(0), number(1), number(2), number(5), json!("a.jsonl"));
        let expected = [(&input, &zero, &five), (&again, &zero, &one), (&again, &one, &two)];
        assert_eq!(done, expected, "{place}");
    }
}

#[test]
fn a_row_that_came_with_a_later_attempt_is_held_against_what_the_plan_of_that_attempt_makes() {
    let pipeline = ran(&["reject", "a"], |file| file);
    assert_eq!(replay(&pipeline, &[]), copied(1, 0, 0));
    mend(&pipeline);
    finish(&pipeline, &["--adopt"]);
    let explain = || {
        let output = pipeline.weir("explain", &["records/0/0"]).output().expect("it starts");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let (code, told) = explain();
    assert!(code == Some(0) && told.contains(", attempt 1 by plan ") && !told.contains("unknown"), "{told}");
    for file in fs::read_dir(pipeline.path("out/ok")).expect("readable") {
        let file = file.expect("readable").path();
        let text = fs::read_to_string(&file).expect("readable");
        fs::write(file, text.replace("\"reject\"", "\"else\"")).expect("writable");
    }
    let (code, told) = explain();
    assert_eq!(code, Some(1));
    let expected = r#"ok, row 0 (route ok), attempt 1: column value is "else" and should be "reject""#;
    assert!(told.contains(expected), "{told}");
}

#[test]
fn a_letter_that_fails_again_says_the_next_attempt_until_there_are_enough_and_a_dry_run_knows_it() {
    for (place, change) in places() {
        let often = |file: String| change(file).replace("[dead_letter]", "[dead_letter]\nmax_attempts = 2");
        let pipeline = ran(&["reject", "a"], often);
        let letter = |attempt| ("records/0/0".to_owned(), attempt);
        assert_eq!(replay(&pipeline, &[]), copied(1, 0, 0), "{place}");
        let foreseen = |expected: &[&str]| {
            let found = dry_run(&pipeline, &[]).0;
            assert_eq!(found.iter().map(|letter| &letter["fate"]).collect::<Vec<_>>(), expected, "{place}");
        };
        foreseen(&["sent before"]);
        finish(&pipeline, &[]);
        assert_eq!(letters(&pipeline), [letter(0), letter(1)], "{place}");
        foreseen(&["sent before", "rejected"]);
        assert_eq!(sent(&pipeline), ["records/0/0"], "{place}: the first of them");
        assert_eq!(replay(&pipeline, &[]), copied(1, 1, 0), "{place}");
        finish(&pipeline, &[]);
        assert_eq!(letters(&pipeline), [letter(0), letter(1), letter(2)], "{place}");
        foreseen(&["sent before", "sent before", "spent"]);
        assert_eq!(replay(&pipeline, &[]), copied(0, 2, 1), "{place}");
        let (code, text, error) = dlq(&pipeline, "replay", &["--json"]);
        assert_eq!(code, Some(0), "{place}: there is nothing to ask: {error}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), copied(0, 2, 1), "{place}");
    }
}

#[test]
fn where_a_table_cannot_say_which_attempt_a_letter_is_of_it_is_left_open_which_were_sent() {
    let pipeline = ran(&["reject"], |_| with_tables(""));
    assert_eq!(replay(&pipeline, &[]), copied(1, 0, 0));
    assert_eq!(sent(&pipeline), ["records/0/0"]);
    ask(&pipeline, "ALTER TABLE dead DROP COLUMN weir_attempt");
    let (code, text, error) = dlq(&pipeline, "ls", &["--list", "--json"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(error.contains("which letters were sent again is not known: a table cannot say"), "{error}");
    let letter: Value = serde_json::from_str(&text).expect("one letter");
    assert_eq!((&letter["origin"], &letter["sent"]), (&"records/0/0".into(), &Value::Null));
}

#[test]
fn where_a_table_of_refused_rows_cannot_say_their_attempts_those_are_left_out_and_the_other_letters_are_asked_about()
 {
    let pipeline = ran(&["reject"], |_| with_tables(""));
    ask(&pipeline, "ALTER TABLE weir_reject DROP COLUMN weir_attempt");
    let (code, _, error) = dlq(&pipeline, "replay", &[]);
    assert_eq!(code, Some(1), "nobody said yes: {error}");
    assert!(error.contains("rows that a sink refused are left out: "), "{error}");
    assert!(error.contains("found 1 letter\n"), "{error}");
}

#[test]
fn what_a_dry_run_says_is_what_comes_of_it() {
    let records = ["reject", "panic", "a", "err", "lose", "drop", "twice", "raw", "bad-offsets", "reject"];
    let pipeline = ran(&records, |file| file);
    for mended in [false, true] {
        let with: &[&str] = if mended { &["--set", "when=never"] } else { &[] };
        let newest = letters(&pipeline).iter().map(|(_, attempt)| *attempt).max().expect("there are letters");
        let foreseen = dry_run(&pipeline, with).0;
        let foreseen: BTreeMap<_, _> = foreseen
            .iter()
            .filter(|letter| letter["attempt"] == newest)
            .map(|letter| (letter["letter"].as_str().expect("text").to_owned(), letter))
            .collect();
        assert_eq!(foreseen.len(), 7);
        if mended {
            mend(&pipeline);
        }
        replay(&pipeline, &[]);
        finish(&pipeline, &["--adopt"]);
        let came = lines(&pipeline, "ls", &["--list"]);
        let rows = attempts(&pipeline);
        for (letter, foreseen) in foreseen {
            let is_of = |found: &&Value| found["origin"] == *letter && found["attempt"] == newest + 1;
            let offset = letter.rsplit('/').next().expect("an offset").parse().expect("a number");
            let again = rows.get(&(0, offset)).map_or(0, |of| of.iter().filter(|n| **n > 0).count());
            match foreseen["fate"].as_str().expect("text") {
                "routed" => assert_eq!((again, &foreseen["routes"][0]["rows"]), (1, &1.into()), "{letter}"),
                "rejected" | "failed" => {
                    let found =
                        came.iter().find(is_of).unwrap_or_else(|| panic!("{letter} is a letter again"));
                    assert_eq!(found["reasons"], foreseen["reasons"], "{letter}");
                    assert_eq!(found["trap"].is_null(), foreseen["fate"] == "rejected", "{letter}");
                }
                other => panic!("{letter}: {other}"),
            }
            assert_eq!(came.iter().any(|found| is_of(&found)), !mended, "{letter}");
        }
    }
}

#[test]
fn a_pipeline_that_runs_finds_what_is_replayed_by_itself() {
    let admin = "\n[admin]\nlisten = \"none\"\n";
    let pipeline = Pipeline::of(guests::hostile(), &(FILE.replace("300 ms", "20 s") + admin));
    pipeline.input(&["reject".to_owned(), "a".to_owned()]);
    let mut running = Running::start(&pipeline);
    let mut until = |expected: u64| {
        loop {
            let status = &status(&pipeline).1["processes"][0]["status"];
            let stopped =
                status["partitions"].as_array().into_iter().flatten().any(|at| at["state"] == "stopped");
            assert!(!stopped, "{status}");
            if status["finished"] == expected {
                break;
            }
            running.assert_alive();
        }
    };
    until(1);
    assert_eq!(replay(&pipeline, &[]), copied(1, 0, 0));
    until(2);
    assert_eq!(replay(&pipeline, &[]), copied(1, 1, 0), "it is a letter again");
    until(3);
    assert_eq!(running.end(), Some(0));
    let letter = |attempt| ("records/0/0".to_owned(), attempt);
    assert_eq!(letters(&pipeline), [letter(0), letter(1), letter(2)]);
}

#[test]
fn files_that_are_a_record_each_keep_their_numbers_whatever_is_replayed_in_between() {
    let raw = FILE.replace("topic = \"records\"", "topic = \"records\"\nformat = \"raw\"");
    let pipeline = Pipeline::of(guests::hostile(), &raw);
    for (name, record) in [("a", "one"), ("b", "reject")] {
        fs::write(pipeline.path("input").join(name), record).expect("writable");
    }
    finish(&pipeline, &[]);
    assert_eq!(replay(&pipeline, &[]), copied(1, 0, 0));
    mend(&pipeline);
    fs::write(pipeline.path("input/c"), "three").expect("writable");
    assert_eq!(finish(&pipeline, &["--adopt"])["records"], 2);
    let expected = [((0, 0), vec![0]), ((0, 1), vec![1]), ((0, 2), vec![0])];
    assert_eq!(attempts(&pipeline), expected.into());
}

#[test]
fn what_a_source_could_not_cut_goes_through_as_the_bytes_that_were_found() {
    let csv = FILE.replace("topic = \"records\"", "topic = \"records\"\nformat = \"csv\"");
    let pipeline = Pipeline::of(guests::hostile(), &csv);
    fs::write(pipeline.path("input/a.csv"), b"a,b\n1,2\n1,\xff,3\n").expect("writable");
    finish(&pipeline, &[]);
    assert_eq!(replay(&pipeline, &[]), copied(0, 0, 0), "it is not asked for");
    assert_eq!(replay(&pipeline, &["--stage", "source"]), copied(1, 0, 0));
    finish(&pipeline, &[]);
    let again = pipeline.rows("ok").into_iter().find(|row| row["weir_attempt"] == 1).expect("it comes again");
    assert_eq!((&again["weir_offset"], &again["value"]), (&1.into(), &"1,\u{fffd},3".into()));
}

#[test]
fn what_somebody_puts_among_the_replayed_is_left_out_and_a_line_that_holds_no_record_is_a_letter() {
    let pipeline = ran(&["reject", "a"], |file| file);
    replay(&pipeline, &[]);
    let dir = pipeline.path("state/replay");
    fs::write(dir.join("mine.jsonl"), "{}").expect("writable");
    fs::write(dir.join("0000000001.jsonl"), "{\"a\":1}\n").expect("writable");
    mend(&pipeline);
    let output = pipeline.run(&["--adopt"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("mine.jsonl"), "{}", stderr(&output));
    let found = lines(&pipeline, "ls", &["--list", "--stage", "source"]);
    let [letter] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (&letter["origin"], &letter["reasons"][0]["code"]),
        (&"weir.it.replay/1/0".into(), &"no-envelope".into())
    );
    assert_eq!(attempts(&pipeline), BTreeMap::from([((0, 0), vec![1]), ((0, 1), vec![0])]));
    let explained = pipeline.weir("explain", &["weir.it.replay/0/0"]).output().expect("it starts");
    assert_eq!(explained.status.code(), Some(2));
    assert!(stderr(&explained).contains("explain it by where it came first"), "{}", stderr(&explained));
}

#[test]
fn a_replayed_file_that_is_gone_before_it_was_read_to_its_end_is_told_or_its_letters_can_be_sent_again() {
    let pipeline = ran(&["reject"], |file| file);
    replay(&pipeline, &[]);
    fs::remove_file(pipeline.path("state/replay/0000000000.jsonl")).expect("it is there");
    // No sink has heard of it.
    assert_eq!(finish(&pipeline, &[])["records"], 0);
    assert_eq!(replay(&pipeline, &[]), copied(1, 0, 0));
    assert_eq!(finish(&pipeline, &[])["records"], 1);
    assert_eq!(letters(&pipeline).len(), 2);
    // By now all sinks have it: nobody misses it, and its name is not given again.
    fs::remove_file(pipeline.path("state/replay/0000000000.jsonl")).expect("it is there");
    assert_eq!(replay(&pipeline, &["--offsets", "0..1"]), copied(2, 0, 0));
    assert!(pipeline.path("state/replay/0000000001.jsonl").exists());
    finish(&pipeline, &[]);
}

#[test]
fn a_row_that_a_table_refused_arrives_there_once_it_takes_it_and_nothing_else_of_its_record_arrives_again() {
    let pipeline = Pipeline::of(guests::hostile(), &with_tables(""));
    pipeline.input(&["one".to_owned()]);
    finish(&pipeline, &[]);
    let refuses =
        "CREATE TRIGGER no BEFORE INSERT ON ok WHEN new.value <> 'two' BEGIN SELECT RAISE(ABORT, 'no'); END";
    ask(&pipeline, refuses);
    fs::write(pipeline.path("input/b.jsonl"), "two\nthree\nfour\n").expect("writable");
    finish(&pipeline, &[]);
    let in_files = attempts(&pipeline);
    assert_eq!(replay(&pipeline, &["--offsets", "1..2"]), copied(1, 0, 0));
    // As long as the table does not take it, it is refused again, and says which attempt that was.
    assert_eq!(finish(&pipeline, &[])["records"], 1);
    let explained = said(&pipeline.weir("explain", &["records/1/1", "--json"]).output().expect("it starts"));
    let sinks = explained["sinks"].as_array().expect("sinks").iter();
    let refused = sinks.flat_map(|sink| sink["refused"].as_array().expect("rows"));
    let refused: Vec<_> = refused.map(|row| row["attempt"].as_u64()).collect();
    assert_eq!(refused, [Some(0), Some(1)], "{explained}");
    assert_eq!(explained["later"][0]["attempt"], 1, "{explained}");
    ask(&pipeline, "DROP TRIGGER no");
    assert_eq!(replay(&pipeline, &[]), copied(2, 1, 0));
    assert_eq!(finish(&pipeline, &[])["records"], 2);
    let rows = ask(
        &pipeline,
        "SELECT value || ' ' || coalesce(weir_attempt, 0) FROM ok ORDER BY weir_partition, weir_offset",
    );
    assert_eq!(rows, ["one 0", "two 0", "three 2", "four 1"]);
    assert_eq!(attempts(&pipeline), in_files, "the other sink had them all the while");
    assert_eq!(sent(&pipeline).len(), 3);
    assert_eq!(replay(&pipeline, &[]), copied(0, 3, 0));
}
