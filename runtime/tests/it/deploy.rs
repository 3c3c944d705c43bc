//! The rule of a pipeline is replaced while it runs, or not: what is asked, refused, written down, and made by which plan.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use serde_json::{Value, json};
use weir::app::Options;
use weir::app::deploy::{Changes, Deployment};
use weir::config::PipelineConfig;

use crate::admin::{Running, status};
use crate::guests;
use crate::run::{FILE, Pipeline, ask, said, stderr, with_tables};
use crate::shadow::CUSTOMERS;
use crate::trial::{move_in, wait_for};

fn weir(pipeline: &Pipeline, command: &str, args: &[&str]) -> Output {
    pipeline.weir(command, args).output().expect("the program starts")
}

const ADMIN: &str = "\n[admin]\nlisten = \"none\"\n";

/// A pipeline with one record that runs, and has read it.
fn running(args: &[&str]) -> (Pipeline, Running) {
    let pipeline = Pipeline::of(guests::hostile(), &format!("{FILE}{ADMIN}"));
    pipeline.input(&["a".to_owned()]);
    let mut running = Running::with(&pipeline, args);
    until(&pipeline, &mut running, |process| process["status"]["finished"] == 1);
    (pipeline, running)
}

/// Asks until the process is as expected.
fn until(pipeline: &Pipeline, running: &mut Running, expected: impl Fn(&Value) -> bool) {
    while !expected(&status(pipeline).1["processes"][0]) {
        running.assert_alive();
    }
}

pub(crate) fn newest(pipeline: &Pipeline) -> (u64, Value) {
    let history = said(&weir(pipeline, "history", &["--json"]));
    let newest = history["plans"].as_array().expect("plans").last().expect("one").clone();
    (newest["plan"].as_u64().expect("a number"), newest["what"].clone())
}

#[test]
fn a_plan_that_is_deployed_makes_what_comes_next_and_is_what_a_later_start_goes_on_with() {
    let (pipeline, mut running) = running(&[]);
    let (first, _) = newest(&pipeline);
    let deployed =
        weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--yes", "--json", "--why", "slow disks"]);
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    let deployed = said(&deployed);
    assert_eq!(deployed["differences"][0]["what"], "limit deadline, ms");
    let (second, what) = newest(&pipeline);
    assert_eq!((&deployed["plan"], &what["replaces"]), (&second.into(), &first.into()));
    assert_eq!((&what["limits"]["deadline_ms"], &what["made"]["why"]), (&400.into(), &"slow disks".into()));

    until(&pipeline, &mut running, |process| process["status"]["plan"]["plan"] == second);
    fs::write(pipeline.path("input/b.jsonl"), "b").expect("writable");
    until(&pipeline, &mut running, |process| process["status"]["finished"] == 2);
    assert_eq!(running.end(), Some(0));
    let mut made: Vec<_> = pipeline
        .rows("ok")
        .iter()
        .map(|row| (row["weir_partition"].as_u64().expect("a number"), row["weir_plan"].as_u64()))
        .collect();
    made.sort_unstable();
    assert_eq!(made, [(0, Some(first)), (1, Some(second))]);
    let history = said(&weir(&pipeline, "history", &["--json"]));
    let change = json!({ "what": "limit deadline, ms", "was": "300", "is": "400" });
    assert_eq!(history["plans"][0]["changes"], json!([]));
    assert_eq!(history["plans"][1]["changes"], json!([change]));
    let told = String::from_utf8_lossy(&weir(&pipeline, "history", &[]).stdout).into_owned();
    assert!(told.contains("limit deadline, ms: 300 -> 400"), "{told}");
    let cuts = &history["cuts"];
    assert_eq!((&cuts[1]["partition"], &cuts[1]["plan"]), (&1.into(), &second.into()));

    // The file says what it said: it is not asked to be adopted, and does not undo what was deployed.
    fs::write(pipeline.path("input/c.jsonl"), "c").expect("writable");
    let again = pipeline.run(&[]);
    assert_eq!((again.status.code(), &said(&again)["plan"]), (Some(0), &second.into()), "{}", stderr(&again));
    assert_eq!(newest(&pipeline).0, second);

    // Nor is a file that says by now what was deployed.
    pipeline.write(&(FILE.replace("300 ms", "400 ms") + ADMIN));
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    assert_eq!(newest(&pipeline).0, second);
}

#[test]
fn what_is_refused_or_not_wanted_changes_nothing() {
    let (pipeline, running) = running(&[]);
    let (first, _) = newest(&pipeline);
    for (args, code, told) in [
        (&["--limit", "deadline=300 ms"][..], 0, "nothing to do: plan"),
        (&["--limit", "deadline=400 ms"], 1, "--yes does without"),
        (&["--limit", "workers=3", "--yes"], 2, "--limit workers=3: no limit `workers` can be changed"),
        (&["--limit", "memory=3 GiB", "--yes"], 1, "that running processes can give"),
        (&["--set", "colour=red", "--yes"], 2, "has no setting `colour`\n --> --set colour=red\n"),
        (&["--table", "cities=nowhere.csv", "--yes"], 2, "`nowhere.csv`\n --> --table cities=nowhere.csv\n"),
        (
            &["--table", "cities=input/a.jsonl", "--yes"],
            2,
            "no table `cities`\n --> --table cities=input/a.jsonl\n",
        ),
        (&["none.wasm", "--yes"], 2, "reading the component none.wasm"),
        (&["input/a.jsonl", "--yes"], 1, "this is text, not a WebAssembly component"),
    ] {
        let output = pipeline
            .weir("deploy", args)
            .current_dir(pipeline.path("."))
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the program starts");
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(told), "{args:?}: {said}");
    }
    assert_eq!(newest(&pipeline).0, first);
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_component_that_is_deployed_is_compiled_once_whether_it_can_be_or_not() {
    let pipeline = Pipeline::of(guests::hostile(), FILE);
    pipeline.input(&["one".to_owned()]);
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let (compiler, asked) = (pipeline.path("compiler"), pipeline.path("asked"));
    let (told, weir) = (asked.display(), env!("CARGO_BIN_EXE_weir"));
    fs::write(&compiler, format!("#!/bin/sh\necho >> '{told}'\nexec '{weir}' \"$@\"\n")).expect("writable");
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let options = Options {
        cache_dir: Some(pipeline.path("compiled")),
        compiler: Some(compiler),
        ..Options::default()
    };
    let config = PipelineConfig::load(&pipeline.path("pipeline.toml")).expect("it is right");
    let times = |changes: &Changes| {
        fs::write(&asked, "").expect("writable");
        let prepared = Deployment::prepare(&config, &options, changes);
        (prepared.map(drop).map_err(|e| format!("{e:#}")), fs::read(&asked).expect("it is there").len())
    };
    // What runs is compiled for this cache, so that only the other one is counted.
    let limits = vec![("deadline".to_owned(), "400 ms".to_owned())];
    assert_eq!(times(&Changes { limits, ..Changes::default() }), (Ok(()), 1));
    let component = |bytes: &[u8]| {
        let path = pipeline.path("other.wasm");
        fs::write(&path, bytes).expect("writable");
        times(&Changes { component: Some(path), ..Changes::default() })
    };
    let other = [guests::hostile(), &[0, 2, 1, b'x']].concat();
    assert_eq!(component(&other), (Ok(()), 1));
    assert_eq!(component(&other), (Ok(()), 0));
    let broken = wat::parse_str("(component (core module (func i32.const 0)))").expect("text");
    let (refused, times) = component(&broken);
    assert!(refused.as_ref().is_err_and(|e| e.contains("loading the component")), "{refused:?}");
    assert_eq!(times, 1);
}

#[test]
fn when_a_trial_beside_the_plan_ends_is_said_only_of_one_whatever_else_is_asked_for() {
    let pipeline = Pipeline::of(guests::hostile(), FILE);
    pipeline.input(&["one".to_owned()]);
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let (first, _) = newest(&pipeline);
    for how in [&[][..], &["--migrate"], &["--ddl"]] {
        for until in [&["--records", "3"][..], &["--for", "1 h"], &["--records", "3", "--promote-up-to", "0"]]
        {
            let change = &["--limit", "deadline=400 ms", "--yes"][..];
            let output = weir(&pipeline, "deploy", &[change, how, until].concat());
            assert_eq!(output.status.code(), Some(2), "{how:?} {until:?}: {}", stderr(&output));
            assert!(stderr(&output).contains("are for --shadow"), "{}", stderr(&output));
        }
    }
    assert_eq!(newest(&pipeline).0, first);
}

#[test]
fn the_statements_for_a_table_are_printed_with_what_the_plan_is_refused_for_all_the_same() {
    let pipeline = Pipeline::of(guests::hostile(), &with_tables(""));
    pipeline.input(&["one".to_owned()]);
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let ddl = || {
        let output = weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--ddl"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output))
    };
    assert_eq!(ddl(), (Some(0), String::new(), "no table lacks a column\n".to_owned()));
    let may_be_null = "-- sink base\nALTER TABLE \"dead\" ADD COLUMN \"trap\" TEXT;\n";
    ask(&pipeline, "ALTER TABLE dead DROP COLUMN trap");
    let then = "whether anything but columns is in the way, `weir deploy` says once they are there\n";
    assert_eq!(ddl(), (Some(0), may_be_null.to_owned(), then.to_owned()));
    for (statement, lacks) in [
        ("ALTER TABLE dead DROP COLUMN weir_plan", "table `dead` has no column `weir_plan`"),
        ("ALTER TABLE dead ADD COLUMN weir_plan TEXT", "column `weir_plan` of table `dead` is TEXT"),
    ] {
        ask(&pipeline, statement);
        let (code, statements, told) = ddl();
        assert_eq!((code, statements.as_str()), (Some(2), may_be_null), "{told}");
        assert!(told.contains("E_SINK_SCHEMA") && told.contains(lacks), "{told}");
        assert!(!told.contains("`trap`"), "the statement adds it: {told}");
    }
    ask(&pipeline, "ALTER TABLE dead ADD COLUMN trap TEXT");
    let (code, statements, told) = ddl();
    assert_eq!((code, statements.as_str()), (Some(2), ""), "{told}");
    assert!(told.contains("column `weir_plan` of table `dead` is TEXT"), "{told}");
}

#[test]
fn a_plan_is_taken_back_by_a_new_one_that_does_what_was_done_before() {
    let (pipeline, running) = running(&[]);
    let (first, before) = newest(&pipeline);
    let back = weir(&pipeline, "rollback", &["--yes"]);
    assert_eq!(back.status.code(), Some(2));
    assert!(stderr(&back).contains("but what was undone since"), "{}", stderr(&back));
    for deadline in ["400 ms", "500 ms"] {
        let limit = format!("deadline={deadline}");
        assert!(weir(&pipeline, "deploy", &["--limit", &limit, "--yes"]).status.success());
    }
    assert!(weir(&pipeline, "rollback", &["--yes"]).status.success());
    assert_eq!(newest(&pipeline).1["limits"]["deadline_ms"], 400);
    // What was undone is not gone back to: two who go back at once, one after the other, do not undo each other.
    assert!(weir(&pipeline, "rollback", &["--yes"]).status.success());
    assert_eq!(newest(&pipeline).1["limits"], before["limits"]);
    let stands = newest(&pipeline).0;
    assert_eq!(weir(&pipeline, "rollback", &["--yes"]).status.code(), Some(2));
    assert_eq!(newest(&pipeline).0, stands);
    assert!(weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--yes"]).status.success());
    assert!(weir(&pipeline, "rollback", &["--to", &first.to_string(), "--yes"]).status.success());
    let (_, now) = newest(&pipeline);
    assert_eq!((&now["limits"], &now["digest"]), (&before["limits"], &before["digest"]));
    assert_eq!(now["made"]["why"], format!("back to plan {first}"));
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_plan_log_that_is_older_than_the_sinks_stops_what_it_does_not_know_and_nothing_waits_for_it() {
    let (pipeline, mut running) = running(&[]);
    let (state, older) = (pipeline.path("state"), pipeline.path("older"));
    let copied = Command::new("cp").arg("-r").arg(&state).arg(&older).status().expect("cp starts");
    assert!(copied.success());
    let deployed = weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--yes", "--json"]);
    let plan = said(&deployed)["plan"].clone();
    until(&pipeline, &mut running, |process| process["status"]["plan"]["plan"] == plan);
    fs::write(pipeline.path("input/b.jsonl"), "b").expect("writable");
    until(&pipeline, &mut running, |process| process["status"]["finished"] == 2);
    assert_eq!(running.end(), Some(0));
    let rows = pipeline.rows("ok");

    fs::rename(&state, pipeline.path("newer")).expect("it is there");
    fs::rename(&older, &state).expect("it is there");
    let again = pipeline.run(&[]);
    assert_eq!(again.status.code(), Some(1));
    let expected =
        format!("E_PLAN_MISSING: a sink has rows of plan {plan}, and the plan log ends with plan ");
    assert!(stderr(&again).contains(&expected), "{}", stderr(&again));
    assert_eq!(pipeline.rows("ok"), rows);

    fs::rename(&state, &older).expect("it is there");
    fs::rename(pipeline.path("newer"), &state).expect("it is there");
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    assert_eq!(pipeline.rows("ok"), rows);
}

#[test]
fn nothing_is_deployed_before_the_first_run() {
    let pipeline = Pipeline::of(guests::hostile(), FILE);
    let refused = weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--yes"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("pipeline it has never run"), "{}", stderr(&refused));
}

#[test]
fn what_changes_in_a_watched_file_is_taken_over_as_soon_as_it_is_valid() {
    let (pipeline, mut running) = running(&["--watch"]);
    let (first, _) = newest(&pipeline);
    let plan = |process: &Value| process["status"]["plan"]["plan"].as_u64().expect("a number");
    let write = |deadline: &str| pipeline.write(&(FILE.replace("300 ms", deadline) + ADMIN));
    write("400 ms");
    until(&pipeline, &mut running, |process| plan(process) > first);
    let (second, what) = newest(&pipeline);
    assert_eq!((&what["limits"]["deadline_ms"], &what["replaces"]), (&400.into(), &first.into()));
    fs::write(pipeline.path("guest.wasm"), "no component").expect("writable");
    write("500 ms");
    let log = || fs::read_to_string(pipeline.path("log")).expect("it writes one");
    until(&pipeline, &mut running, |_| log().contains("not taken over: loading the component"));
    assert_eq!(newest(&pipeline).0, second);
    fs::write(pipeline.path("guest.wasm"), guests::hostile()).expect("writable");
    until(&pipeline, &mut running, |process| plan(process) > second);
    assert_eq!(newest(&pipeline).1["limits"]["deadline_ms"], 500);

    // What no plan says is told, once.
    let other = |deadline: &str| {
        pipeline.write(&(FILE.replace("300 ms", deadline) + "provenance = false\n" + ADMIN));
    };
    let told = "not taken over before the next start: what sinks.out.files.provenance says now";
    other("500 ms");
    until(&pipeline, &mut running, |_| log().contains(told));
    let (third, _) = newest(&pipeline);
    other("600 ms");
    until(&pipeline, &mut running, |process| plan(process) > third);
    assert_eq!(running.end(), Some(0));
    assert_eq!(log().matches(told).count(), 1, "{}", log());
}

/// A pipeline that has read these records, of which its plan makes rows whatever they say; another setting misbehaves as they ask.
fn harmless(records: &[&str], limits: &str) -> (Pipeline, Running) {
    let never = FILE.replace("[limits]\n", "[transform.settings]\nwhen = \"never\"\n\n[limits]\n");
    let limited = never
        .replace("deadline = \"300 ms\"\noutput_bytes = \"1 MiB\"\nfuel_per_record = 100_000_000", limits);
    let pipeline = Pipeline::of(guests::hostile(), &format!("{limited}{ADMIN}"));
    pipeline.input(&records.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut running = Running::start(&pipeline);
    until(&pipeline, &mut running, |process| process["status"]["finished"] == 1);
    (pipeline, running)
}

const MISBEHAVE: [&str; 5] = ["--set", "when=process", "--yes", "--json", "--wait"];

#[test]
fn a_plan_that_fails_at_all_of_the_last_records_is_refused_and_the_old_one_goes_on() {
    let (pipeline, mut running) = harmless(&["panic", "err", "panic"], "deadline = \"20 s\"");
    let (first, _) = newest(&pipeline);
    let refused = weir(&pipeline, "deploy", &[&MISBEHAVE[..], &["1 ms"]].concat());
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    let refused = said(&refused);
    assert_eq!((&refused["deployed"], &refused["refused"][0]["what"]), (&false.into(), &"sample".into()));
    let why = format!("it fails at all 3 records that it was tried on, and plan {first} does not");
    assert_eq!(refused["refused"][0]["found"], why);
    let sample = &refused["sample"];
    assert_eq!((&sample["was"]["failed"], &sample["is"]["failed"]), (&0.into(), &3.into()));
    assert_eq!((&sample["was"]["routed"]["ok"], &sample["is"]["routed"]["ok"]), (&3.into(), &0.into()));
    assert_eq!(newest(&pipeline).0, first);
    fs::write(pipeline.path("input/b.jsonl"), "panic").expect("writable");
    until(&pipeline, &mut running, |process| process["status"]["finished"] == 2);

    let told = weir(&pipeline, "deploy", &["--set", "when=process", "--yes"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("hint: `--sample 0` makes it the next plan all the same\nrefused:"), "{told}");
    let forced = weir(&pipeline, "deploy", &[&MISBEHAVE[..], &["1 ms", "--sample", "0"]].concat());
    assert_eq!(forced.status.code(), Some(0), "{}", stderr(&forced));
    let (second, _) = newest(&pipeline);
    assert_eq!((said(&forced)["plan"].as_u64(), &said(&forced)["sample"]), (Some(second), &Value::Null));
    assert_eq!(running.end(), Some(0));
    assert_eq!(pipeline.rows("ok").len(), 4);
}

#[test]
fn a_plan_that_would_stop_a_partition_is_refused_where_the_old_one_goes_on() {
    let stalls = "deadline = \"50 ms\"\nfuel_per_record = 1_000_000_000_000";
    for (record, code) in [("loop", "E_STALL"), ("count", "E_NONDETERMINISTIC")] {
        let (pipeline, running) = harmless(&["a", record, record, "a"], stalls);
        let (first, _) = newest(&pipeline);
        let refused = weir(&pipeline, "deploy", &[&MISBEHAVE[..], &["1 ms"]].concat());
        assert_eq!(refused.status.code(), Some(1), "{record}: {}", stderr(&refused));
        let found = said(&refused)["refused"][0]["found"].as_str().expect("a text").to_owned();
        let expected = format!("a partition would stop with it, and goes on under plan {first}: {code}: ");
        assert!(found.starts_with(&expected), "{record}: {found}");
        assert_eq!(newest(&pipeline).0, first);
        assert_eq!(running.end(), Some(0));
    }
}

/// What a second look at the first two batches of a plan does not see is found out on the last records, under both plans.
#[test]
fn a_plan_that_keeps_state_as_the_one_before_does_is_no_worse_and_is_deployed() {
    let (pipeline, mut running) = running(&[]);
    for (n, records) in [(2, "a"), (3, "count\ncount\ncount")] {
        fs::write(pipeline.path(&format!("input/{n}.jsonl")), records).expect("writable");
        until(&pipeline, &mut running, |process| process["status"]["finished"] == n);
    }
    let deployed = weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--yes", "--json"]);
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    let sample = &said(&deployed)["sample"];
    for side in ["was", "is"] {
        let stops = sample[side]["stops"].as_str().expect("it is told");
        assert!(stops.starts_with("E_NONDETERMINISTIC: "), "{side}: {stops}");
    }
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_plan_that_goes_on_where_the_old_one_stops_is_deployed_and_what_stops_is_told() {
    let stalls = "deadline = \"50 ms\"\nfuel_per_record = 1_000_000_000_000";
    let limits = "deadline = \"300 ms\"\noutput_bytes = \"1 MiB\"\nfuel_per_record = 100_000_000";
    let pipeline = Pipeline::of(guests::hostile(), &FILE.replace(limits, stalls));
    pipeline.input(&["a", "loop", "a"].map(str::to_owned));
    assert_eq!(pipeline.run(&[]).status.code(), Some(1));
    let deployed = weir(&pipeline, "deploy", &["--set", "when=never", "--yes", "--json"]);
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    let sample = &said(&deployed)["sample"];
    let stops = sample["was"]["stops"].as_str().expect("a text");
    assert!(stops.starts_with("E_STALL: ") && sample["is"]["stops"].is_null(), "{sample}");
    assert_eq!((&sample["read"], &sample["records"]), (&3.into(), &1.into()));
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    assert_eq!(pipeline.offsets("ok"), [0, 1, 2]);
}

#[test]
fn a_plan_that_rejects_more_is_shown_with_both_counts_and_deployed_if_that_is_wanted() {
    let (pipeline, running) = harmless(&["a", "reject", "drop", "a", "panic"], "deadline = \"20 s\"");
    let asked = pipeline
        .weir("deploy", &["--set", "when=process"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program starts");
    assert_eq!(asked.status.code(), Some(1));
    let told = String::from_utf8_lossy(&asked.stdout).into_owned();
    let lines: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
    for expected in [
        "tried on the last 5 records of the input",
        "on route ok 5 2",
        "rejected, refused 0 1",
        "dropped 0 1",
        "failed 0 1",
        "1 × route ok -> rejected (refused)",
        "records/0 offset 1",
    ] {
        let expected: Vec<&str> = expected.split(' ').collect();
        assert!(lines.contains(&expected), "{expected:?}: {told}");
    }
    let deployed = weir(&pipeline, "deploy", &[&MISBEHAVE[..], &["1 ms"]].concat());
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    let sample = &said(&deployed)["sample"];
    assert_eq!((&sample["read"], &sample["comparison"]["different"]), (&5.into(), &3.into()));
    assert_eq!(sample["is"]["rejected"], json!({ "refused": 1 }));
    assert!(sample["was"]["cpu_ns"].as_u64() > Some(0), "{sample}");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn the_records_that_a_plan_is_tried_on_are_the_last_of_the_files_that_were_begun_last() {
    for format in ["", "format = \"raw\"\n"] {
        let file = FILE.replace("topic = \"records\"\n", &format!("topic = \"records\"\n{format}"));
        let pipeline = Pipeline::of(guests::hostile(), &format!("{file}{ADMIN}"));
        let write = |name: &str, text: &str| fs::write(pipeline.path("input").join(name), text);
        let alone = !format.is_empty();
        write("a.jsonl", if alone { "drop" } else { "drop\ndrop\nreject" }).expect("writable");
        write("b.jsonl", if alone { "reject" } else { "a\na" }).expect("writable");
        write("c.jsonl", "a").expect("writable");
        write("d.jsonl", "a").expect("writable");
        assert_eq!(pipeline.run(&[]).status.code(), Some(0));
        fs::write(pipeline.path("input/d.jsonl"), "another").expect("writable");
        let mut deadline = 400;
        let mut was = |n: &str| {
            deadline += 1;
            let limit = format!("deadline={deadline} ms");
            let deployed = weir(&pipeline, "deploy", &["--limit", &limit, "--yes", "--json", "--sample", n]);
            let sample = said(&deployed)["sample"].clone();
            assert_eq!(sample["passed_over"], 1, "{sample}");
            let why = "file d.jsonl: it is not the one any more that was read";
            assert_eq!(sample["passed_over_because"], why, "{sample}");
            assert_eq!(sample["comparison"]["different"], 0, "{sample}");
            let was = &sample["was"];
            [&was["routed"]["ok"], &was["rejected"]["refused"], &was["dropped"]]
                .map(|n| n.as_u64().unwrap_or_default())
        };
        let expected = if alone { [[1, 1, 0], [1, 1, 1]] } else { [[3, 1, 0], [3, 1, 2]] };
        let some = if alone { "2" } else { "4" };
        assert_eq!([was(some), was("1000")], expected, "{format}");
    }
}

#[test]
fn where_the_input_has_no_record_a_plan_is_deployed_and_it_is_said_that_it_was_not_tried() {
    let pipeline = Pipeline::of(guests::hostile(), FILE);
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    let deployed = weir(&pipeline, "deploy", &["--limit", "deadline=400 ms", "--yes", "--json"]);
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    assert_eq!(said(&deployed)["sample"]["read"], 0);

    pipeline.input(&["a".to_owned()]);
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    fs::remove_file(pipeline.path("input/a.jsonl")).expect("it is there");
    let deployed = weir(&pipeline, "deploy", &["--limit", "deadline=500 ms", "--yes"]);
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    let told = String::from_utf8_lossy(&deployed.stdout).into_owned();
    assert!(told.contains("passed over: 1 file, such as file a.jsonl: opening "), "{told}");
    assert!(told.contains("not tried before: the input has no records now"), "{told}");
}

#[test]
fn a_watched_file_that_is_not_valid_is_told_and_what_ran_goes_on_until_it_is_mended() {
    let (pipeline, mut running) = running(&["--watch"]);
    let (first, _) = newest(&pipeline);
    let mended = FILE.replace("300 ms", "400 ms") + ADMIN;
    let log = || fs::read_to_string(pipeline.path("log")).expect("it writes one");
    // By a file that says nothing nobody can ask how the process stands: its log and its rows tell.
    for (n, (from, to)) in
        [("batch_records", "batch_recrods"), ("[limits]", "[limits")].into_iter().enumerate()
    {
        let told = || log().matches("not taken over: ").count() > n && log().contains(to);
        pipeline.write(&mended.replace(from, to));
        while !told() {
            running.assert_alive();
        }
        fs::write(pipeline.path(&format!("input/{to}.jsonl")), "b").expect("writable");
        while pipeline.rows("ok").len() < n + 2 {
            running.assert_alive();
        }
    }
    assert!(pipeline.rows("ok").iter().all(|row| row["weir_plan"] == first));
    pipeline.write(&(FILE.to_owned() + ADMIN));
    while !log().contains("asks for no other plan") {
        running.assert_alive();
    }
    pipeline.write(&mended);
    until(&pipeline, &mut running, |process| process["status"]["plan"]["plan"].as_u64() > Some(first));
    let (_, what) = newest(&pipeline);
    assert_eq!((&what["limits"]["deadline_ms"], &what["replaces"]), (&400.into(), &first.into()));
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_watched_table_that_changes_is_deployed_as_soon_as_it_is_one() {
    let component = fs::read(env!("WEIR_CUSTOMERS_WASM")).expect("it was built");
    let pipeline = Pipeline::of(&component, CUSTOMERS);
    let cities = |text: &str| fs::write(pipeline.path("cities.csv"), text).expect("writable");
    cities("city\nBoston\n");
    let mut running = Running::with(&pipeline, &["--watch"]);
    let of_riga = |n: u64| {
        move_in(&pipeline, &format!("{n}.jsonl"), &[r#"{"id":"1","age":"4","location":"Riga"}"#]);
    };
    of_riga(1);
    wait_for(&pipeline, &mut running, 1);
    let (first, _) = newest(&pipeline);
    let log = || fs::read_to_string(pipeline.path("log")).expect("it writes one");
    cities("town\nBoston\nRiga\n");
    until(&pipeline, &mut running, |_| log().contains("not taken over: ") && log().contains("us_cities"));
    of_riga(2);
    wait_for(&pipeline, &mut running, 2);
    assert_eq!((pipeline.rows("other").len(), newest(&pipeline).0), (2, first));
    cities("city\nBoston\nRiga\n");
    until(&pipeline, &mut running, |process| process["status"]["plan"]["plan"].as_u64() > Some(first));
    of_riga(3);
    wait_for(&pipeline, &mut running, 3);
    assert_eq!(running.end(), Some(0));
    let history = said(&weir(&pipeline, "history", &["--json"]));
    assert_eq!(history["plans"][1]["changes"][0]["what"], "table us_cities", "{history}");
    let americans = pipeline.rows("usa");
    assert_eq!((americans.len(), &americans[0]["weir_plan"]), (1, &newest(&pipeline).0.into()));
}

#[test]
fn routes_that_come_and_go_with_another_component_are_told_with_their_columns() {
    let (pipeline, running) = running(&[]);
    fs::write(pipeline.path("guest.wasm"), guests::strict()).expect("writable");
    let routes = "ok = \"out.ok\"\nraw = \"none\"\n";
    let file = FILE.replace(routes, "right = \"out.right\"\ntombstones = \"none\"\n");
    pipeline.write(&format!("{file}{ADMIN}"));
    let deployed = weir(&pipeline, "deploy", &["--yes", "--json", "--wait", "1 ms"]);
    assert_eq!(deployed.status.code(), Some(0), "{}", stderr(&deployed));
    let of = |deployed: &Value, what: &str| {
        let all = deployed["differences"].as_array().expect("a list");
        let found = all.iter().find(|found| found["what"] == what).unwrap_or_else(|| panic!("{deployed}"));
        (found["was"].clone(), found["is"].clone())
    };
    let deployed = said(&deployed);
    assert_eq!(of(&deployed, "columns of route ok"), ("[value utf8, offset int64]".into(), Value::Null));
    let (none, right) = of(&deployed, "columns of route right");
    let right = right.as_str().expect("a text");
    assert!(none.is_null() && right.starts_with("[id utf8, ") && right.contains(" or null"), "{right}");
    assert_eq!(of(&deployed, "columns of route tombstones"), (Value::Null, "records as they came".into()));

    // What cannot be loaded any more is not known, and in nobody's way.
    let digest = newest(&pipeline).1["digest"].as_str().expect("a text").to_owned();
    let stored: Vec<_> = walk(&pipeline.path("state"));
    let name = digest.trim_start_matches("sha256:");
    let kept = stored.iter().find(|file| file.to_string_lossy().contains(name));
    fs::remove_file(kept.unwrap_or_else(|| panic!("{stored:?}"))).expect("it is there");
    fs::write(pipeline.path("guest.wasm"), guests::hostile()).expect("writable");
    pipeline.write(&format!("{FILE}{ADMIN}"));
    let back = said(&weir(&pipeline, "deploy", &["--yes", "--json", "--wait", "1 ms"]));
    assert_eq!((&back["deployed"], &back["sample"]["was"]), (&true.into(), &Value::Null), "{back}");
    assert_eq!(back["sample"]["is"]["routed"]["ok"], 1);
    let (was, is) = of(&back, "columns of all routes");
    assert!(was.as_str().is_some_and(|was| was.starts_with("not known (loading plan ")), "{was}");
    assert_eq!(is, "ok [value utf8, offset int64], raw records as they came");
    drop(running);
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).expect("it is there");
    entries
        .flat_map(|entry| {
            let path = entry.expect("readable").path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}
