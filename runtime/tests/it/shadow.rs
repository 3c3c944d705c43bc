//! A plan is tried on live records beside the one that runs: what differs is told, and what is live knows nothing of it.

use std::fs;
use std::process::{Child, Output, Stdio};

use serde_json::{Value, json};

use crate::admin::{Running, status};
use crate::guests;
use crate::run::{FILE, Pipeline, ask, said, stderr, with_tables};

pub(crate) const CUSTOMERS: &str = r#"
[pipeline]
name = "it"
state = "state"

[source.files]
path = "input"
topic = "customers"

[transform]
component = "guest.wasm"
tables.us_cities.file = "cities.csv"

[routes]
usa = "out.usa"
alerts = "out.alerts"
other = "out.other"

[dead_letter]
to = "out.dead"

[sinks.out.files]
path = "out"
format = "jsonl"

[admin]
listen = "none"
"#;

/// What misbehaves on request does so under another plan: the first makes a row of every record.
fn hostile() -> Pipeline {
    let never = "[transform.settings]\nwhen = \"never\"\n\n[limits]\n";
    Pipeline::of(guests::hostile(), &(FILE.replace("[limits]\n", never) + "\n[admin]\nlisten = \"none\"\n"))
}

fn weir(pipeline: &Pipeline, command: &str, args: &[&str]) -> Output {
    pipeline.weir(command, args).output().expect("the program starts")
}

/// `weir shadow`, which has its own commands in front of the file.
fn shadow(pipeline: &Pipeline, command: &str, args: &[&str]) -> Output {
    let mut weir = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(["shadow", command]).arg(pipeline.path("pipeline.toml")).args(args);
    weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    weir.output().expect("the program starts")
}

/// Has it tried, and goes on waiting for its end.
fn try_out(pipeline: &Pipeline, args: &[&str]) -> Child {
    let mut weir = pipeline.weir("deploy", &[&["--shadow", "--json"], args].concat());
    weir.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn ends(child: Child) -> (Option<i32>, Value) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), said(&output))
}

/// Asks until what is tried stands as expected; how it stands.
fn until(pipeline: &Pipeline, running: &mut Running, expected: impl Fn(&Value) -> bool) -> Value {
    loop {
        let standing = status(pipeline).1["processes"][0]["status"]["shadow"].clone();
        if expected(&standing) {
            return standing;
        }
        running.assert_alive();
    }
}

fn until_it_runs(pipeline: &Pipeline, running: &mut Running) {
    until(pipeline, running, |standing| standing["state"] == "running");
}

/// A file is moved in complete.
fn move_in(pipeline: &Pipeline, name: &str, records: &[String]) {
    let aside = pipeline.path(name);
    fs::write(&aside, records.join("\n")).expect("writable");
    fs::rename(aside, pipeline.path("input").join(name)).expect("it is there");
}

fn same(record: &str, n: usize) -> Vec<String> {
    vec![record.to_owned(); n]
}

/// What people are told of the last that was tried.
fn status_text(pipeline: &Pipeline) -> String {
    String::from_utf8_lossy(&shadow(pipeline, "status", &[]).stdout).into_owned()
}

/// The last that was tried, from the log.
fn last(pipeline: &Pipeline) -> Value {
    let history = said(&weir(pipeline, "history", &["--json"]));
    history["shadows"].as_array().expect("a list").last().expect("one was tried").clone()
}

fn newest(pipeline: &Pipeline) -> Value {
    let history = said(&weir(pipeline, "history", &["--json"]));
    history["plans"].as_array().expect("a list").last().expect("one runs").clone()
}

#[test]
fn of_a_hundred_thousand_records_exactly_the_three_that_would_differ_are_shown() {
    let component = fs::read(env!("WEIR_CUSTOMERS_WASM")).expect("it was built");
    let pipeline = Pipeline::of(&component, CUSTOMERS);
    let cities: String = (0..100).map(|n| format!("City {n}\n")).collect();
    fs::write(pipeline.path("cities.csv"), format!("city\n{cities}Rareville\n")).expect("writable");
    fs::write(pipeline.path("fewer.csv"), format!("city\n{cities}")).expect("writable");
    let mut running = Running::start(&pipeline);
    let fewer = format!("us_cities={}", pipeline.path("fewer.csv").display());
    let args = ["--table", &fewer, "--set", "on_bad_age=null", "--records", "100000", "--why", "a try"];
    let tried = try_out(&pipeline, &args);
    until_it_runs(&pipeline, &mut running);
    let record = |at: usize, city: &str, age: &str| {
        format!(
            r#"{{"id":"{at}","first_name":"A","last_name":"B","email":"a@b.c","age":"{age}","location":"{city}"}}"#
        )
    };
    for file in 0..10_usize {
        let records: Vec<_> = (0..10_000)
            .map(|at| match (file, at) {
                (3, 1_234) => record(at, "rareville", "40"),
                (5, 0) => record(at, "City 7", "old"),
                (9, 9_999) => record(at, "City 8", "999"),
                (_, at) if at % 10 == 0 => record(at, "Riga", "40"),
                _ => record(at, &format!("City {}", at % 100), "40"),
            })
            .collect();
        move_in(&pipeline, &format!("{file}.jsonl"), &records);
        until(&pipeline, &mut running, |standing| {
            assert_eq!(
                (&standing["skipped"], &standing["unjudged"]),
                (&0.into(), &0.into()),
                "there is time"
            );
            standing["records"] == 10_000 * (file + 1)
        });
    }
    let (code, told) = ends(tried);
    assert_eq!(code, Some(1), "{told}");
    let tried = &told["tried"];
    let report = &tried["report"];
    assert_eq!((&tried["ended"]["how"], &report["standing"]["state"]), (&"done".into(), &"ended".into()));
    let comparison = &report["comparison"];
    assert_eq!((&comparison["records"], &comparison["different"]), (&100_000.into(), &3.into()));
    assert_eq!((&comparison["fields"], &comparison["others"]), (&json!([]), &0.into()));
    let mut found: Vec<_> = comparison["found"].as_array().expect("a list").iter().map(shown).collect();
    found.sort_unstable();
    let expected = [
        ("rejected (age-not-integer) -> route usa", 5, 0),
        ("rejected (age-out-of-range) -> route usa", 9, 9_999),
        ("route usa -> route other", 3, 1_234),
    ];
    let found_at: Vec<_> = found.iter().map(|(what, at, offset, ..)| (what.as_str(), *at, *offset)).collect();
    assert_eq!(found_at, expected);
    assert!(
        found[0].3.contains(r#""detail":"\"old\"""#) && found[0].4.contains(r#""age":null"#),
        "{found:?}"
    );
    assert!(found[2].3.contains(r#""id":"1234""#) && found[2].4.contains("rareville"), "{found:?}");
    assert!(
        report["standing"]["cpu_ns"].as_u64() > Some(0)
            && report["standing"]["cpu_ns_beside"].as_u64() > Some(0)
    );

    // It is told later, too, and to people.
    let later = shadow(&pipeline, "status", &[]);
    let text = String::from_utf8_lossy(&later.stdout).into_owned();
    assert_eq!(later.status.code(), Some(1), "{text}");
    for line in [
        "100,000 records compared: 99,997 the same, 3 different; 0 left out",
        "1 × route usa -> route other",
        "customers/3 offset 1234",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(running.end(), Some(0));
    let rows = |target| pipeline.rows(target).len();
    assert_eq!((rows("usa"), rows("other"), rows("dead")), (89_999, 9_999, 2), "what is live made them");
}

/// A kind that has one record: what, where, and what it was and is.
fn shown(found: &Value) -> (String, i64, i64, String, String) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    assert_eq!(found["records"], 1, "{found}");
    let [sample] = &found["samples"].as_array().expect("a list")[..] else { panic!("{found}") };
    let number = |key: &str| sample[key].as_i64().expect("a number");
    let what = format!("{} -> {}", text(&found["was"]), text(&found["is"]));
    (what, number("partition"), number("offset"), text(&sample["was"]), text(&sample["is"]))
}

#[test]
fn one_that_always_traps_disturbs_nothing_and_when_it_is_dropped_nothing_is_left() {
    let pipeline = hostile();
    let mut running = Running::start(&pipeline);
    let tried = try_out(&pipeline, &["--set", "when=process"]);
    until_it_runs(&pipeline, &mut running);
    move_in(&pipeline, "a.jsonl", &same("panic", 400));
    while status(&pipeline).1["processes"][0]["status"]["finished"] != 1 {
        running.assert_alive();
    }
    let seen = until(&pipeline, &mut running, |standing| standing["records"].as_u64() > Some(0));
    assert_eq!((&seen["state"], &seen["unjudged"]), (&"running".into(), &0.into()));
    let dropped = shadow(&pipeline, "drop", &["--why", "it traps"]);
    assert_eq!(dropped.status.code(), Some(0), "{}", stderr(&dropped));
    let (code, told) = ends(tried);
    let report = &told["tried"]["report"];
    let ended = &last(&pipeline)["ended"];
    assert_eq!((code, &ended["how"], &ended["why"]), (Some(1), &"dropped".into(), &"it traps".into()));
    let how = format!("dropped by {}: it traps", ended["who"].as_str().expect("somebody"));
    assert_eq!(report["standing"]["why"], how);
    let comparison = &report["comparison"];
    assert_eq!(comparison["records"], comparison["different"]);
    assert_eq!(
        (&comparison["found"][0]["was"], &comparison["found"][0]["is"]),
        (&"route ok".into(), &"failed (trap)".into())
    );
    let again = shadow(&pipeline, "drop", &[]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("is dropped by"), "{}", stderr(&again));

    // What comes now is for nobody but the plan that runs.
    let seen = until(&pipeline, &mut running, |standing| standing["state"] == "ended");
    move_in(&pipeline, "b.jsonl", &same("panic", 400));
    while status(&pipeline).1["processes"][0]["status"]["finished"] != 2 {
        running.assert_alive();
    }
    assert_eq!(until(&pipeline, &mut running, |_| true), seen);
    assert_eq!(running.end(), Some(0));
    assert_eq!((pipeline.rows("ok").len(), pipeline.rows("dead").len()), (800, 0));
}

#[test]
fn a_process_that_begins_later_takes_part_until_another_plan_is_put() {
    let pipeline = hostile();
    pipeline.input(&same("a", 1));
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let put = weir(&pipeline, "deploy", &["--shadow", "--set", "when=process", "--for", "1 h", "--json"]);
    assert_eq!(put.status.code(), Some(3), "nobody runs it: {}", stderr(&put));
    let second = weir(&pipeline, "deploy", &["--shadow", "--limit", "deadline=400 ms"]);
    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    let told = stderr(&second);
    let file = pipeline.path("pipeline.toml").display().to_string();
    let ends = format!("`weir shadow promote {file}` or `weir shadow drop {file}` ends it");
    assert!(
        told.contains("is being tried already, beside plan 0") && told.contains(" began it at "),
        "{told}"
    );
    assert!(told.contains(&ends), "{told}");
    let mut running = Running::start(&pipeline);
    until_it_runs(&pipeline, &mut running);
    move_in(&pipeline, "b.jsonl", &["a".to_owned(), "drop".to_owned()]);
    let seen = until(&pipeline, &mut running, |standing| standing["records"] == 2);
    assert_eq!(seen["different"], 1);
    let other =
        weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--yes", "--json", "--wait", "1 ms"]);
    let number = &said(&other)["plan"];
    until(&pipeline, &mut running, |standing| standing["state"] == "ended");
    assert_eq!(last(&pipeline)["ended"], json!({ "how": "replaced", "plan": number }));
    let late = shadow(&pipeline, "promote", &["--yes"]);
    assert_eq!(late.status.code(), Some(2));
    assert!(stderr(&late).contains("took the place of the one it was compared with"), "{}", stderr(&late));
    assert_eq!(running.end(), Some(0));
}

#[test]
fn what_was_tried_becomes_the_next_plan_when_somebody_says_so() {
    let pipeline = hostile();
    let mut running = Running::start(&pipeline);
    let tried = try_out(&pipeline, &["--set", "when=process", "--records", "3", "--why", "it drops more"]);
    until_it_runs(&pipeline, &mut running);
    move_in(&pipeline, "a.jsonl", &same("a", 3));
    let (code, told) = ends(tried);
    assert_eq!((code, &told["tried"]["ended"]["how"]), (Some(0), &"done".into()), "{told}");
    assert_eq!((&told["tried"]["can_be_promoted"], &told["tried"]["plan"]), (&true.into(), &Value::Null));
    assert!(status_text(&pipeline).contains("have it take over: weir shadow promote"));
    let promoted = shadow(&pipeline, "promote", &["--yes", "--json", "--wait", "1 ms"]);
    assert_eq!(promoted.status.code(), Some(0), "{}", stderr(&promoted));
    let newest = newest(&pipeline);
    assert_eq!(
        (&said(&promoted)["plan"], &newest["what"]["settings"]["when"]),
        (&newest["plan"], &"process".into())
    );
    assert_eq!(newest["what"]["made"]["why"], format!("shadow {}: it drops more", last(&pipeline)["shadow"]));
    let (plan, tried) = (&newest["plan"], &last(&pipeline)["shadow"]);
    assert_eq!((&newest["shadow"], &last(&pipeline)["promoted"]), (tried, plan));
    let history = String::from_utf8_lossy(&weir(&pipeline, "history", &[]).stdout).into_owned();
    assert!(history.contains(&format!("as tried by shadow {tried}")), "{history}");
    assert!(history.contains("setting when: never -> process"), "{history}");
    let told = status_text(&pipeline);
    assert!(told.contains(&format!("it was promoted since then: it is plan {plan}")), "{told}");
    let again = shadow(&pipeline, "promote", &["--yes"]);
    assert_eq!(again.status.code(), Some(2), "{}", stderr(&again));
    assert_eq!(running.end(), Some(0));
}

#[test]
fn what_was_tried_becomes_the_next_plan_by_itself_if_that_was_wanted_and_few_differ() {
    for (most, promoted) in [("0", false), ("1", true)] {
        let pipeline = hostile();
        let mut running = Running::start(&pipeline);
        let args = ["--set", "when=process", "--records", "3", "--promote-up-to", most];
        let tried = try_out(&pipeline, &args);
        until_it_runs(&pipeline, &mut running);
        move_in(&pipeline, "a.jsonl", &["a", "drop", "a"].map(str::to_owned));
        let (_, told) = ends(tried);
        let how = if promoted { "promoted" } else { "done" };
        assert_eq!(told["tried"]["ended"]["how"], how, "{told}");
        let newest = newest(&pipeline);
        assert_eq!(newest["what"]["settings"]["when"], if promoted { "process" } else { "never" });
        let who = newest["what"]["made"]["who"].as_str().unwrap_or("the file");
        assert_eq!(who, if promoted { "weir (automatic)" } else { "the file" });
        assert!(
            weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--yes", "--wait", "1 ms"])
                .status
                .success()
        );
        let told = status_text(&pipeline);
        assert_eq!(told.contains("it cannot be promoted any more"), !promoted, "{told}");
        assert!(!told.contains("have it take over"), "{told}");
        assert_eq!(running.end(), Some(0));
    }
}

#[test]
fn what_a_sink_does_not_take_can_be_tried_but_not_with_the_wish_that_it_takes_over_by_itself() {
    let pipeline = Pipeline::of(guests::hostile(), &with_tables(""));
    pipeline.input(&same("a", 1));
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    ask(&pipeline, "DROP TABLE ok");
    ask(&pipeline, "CREATE TABLE ok (its_own TEXT NOT NULL)");
    let tried = |more: &[&str]| {
        let args = [&["--shadow", "--limit", "deadline=400 ms", "--records", "3"], more].concat();
        let output = weir(&pipeline, "deploy", &args);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, told) = tried(&["--promote-up-to", "0"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("E_SINK_SCHEMA") && told.contains("it could not take over by itself"), "{told}");
    assert!(!told.contains("all the same"), "{told}");
    assert_eq!(said(&weir(&pipeline, "history", &["--json"]))["shadows"], json!([]));
    let (code, told) = tried(&[]);
    assert_eq!(code, Some(3), "nobody runs it: {told}");
    assert!(told.contains("it can be tried all the same"), "{told}");
    assert_eq!(last(&pipeline)["ended"], Value::Null);
}

#[test]
fn one_whose_time_is_over_while_nothing_runs_is_told_and_stands_in_nobodys_way() {
    let pipeline = hostile();
    pipeline.input(&same("a", 1));
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let try_it =
        |deadline: &str| weir(&pipeline, "deploy", &["--shadow", "--limit", deadline, "--for", "1 h"]);
    assert_eq!(try_it("deadline=400 ms").status.code(), Some(3));
    assert!(status_text(&pipeline).contains("no process on this machine tries it"));
    make_old(&pipeline);
    assert!(status_text(&pipeline).contains("its time is over"));
    let second = try_it("deadline=500 ms");
    assert_eq!(second.status.code(), Some(3), "{}", stderr(&second));
    let history = said(&weir(&pipeline, "history", &["--json"]));
    let shadows = history["shadows"].as_array().expect("a list");
    assert_eq!(shadows.len(), 2);
    assert_eq!((&shadows[0]["ended"]["how"], &shadows[1]["ended"]), (&"done".into(), &Value::Null));
}

#[test]
fn while_no_process_has_heard_of_what_is_tried_yet_that_is_told_and_not_that_nobody_knows() {
    let pipeline = hostile();
    pipeline.input(&same("a", 1));
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let put = weir(&pipeline, "deploy", &["--shadow", "--set", "when=process", "--for", "1 h"]);
    assert_eq!(put.status.code(), Some(3), "nobody runs it: {}", stderr(&put));
    assert!(status_text(&pipeline).contains("no process on this machine knows what it found"));
    // One that never hears of it: it reads another plan log.
    let deaf = hostile();
    let file = fs::read_to_string(deaf.path("pipeline.toml")).expect("readable");
    let socket = format!("[admin]\nsocket = \"{}\"", pipeline.path("state/admin").display());
    deaf.write(&file.replace("[admin]", &socket));
    let running = Running::start(&deaf);
    let told = status_text(&pipeline);
    assert!(told.contains("it was begun at 2"), "{told}");
    assert!(told.contains("of 1 process on this machine none has heard of it yet"), "{told}");
    assert_eq!(running.end(), Some(0));
}

/// As if what is tried had been begun long ago.
fn make_old(pipeline: &Pipeline) {
    let entries = fs::read_dir(pipeline.path("state/plans")).expect("it ran");
    for path in entries.map(|entry| entry.expect("readable").path()) {
        let mut entry: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
        if entry["entry"]["kind"] == "shadow" {
            entry["entry"]["until_ms"] = 1.into();
            fs::write(&path, entry.to_string()).expect("writable");
        }
    }
}
