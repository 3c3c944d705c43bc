//! A plan that does worse than the one before is taken back by itself, and nothing is lost.

use std::fs;

use serde_json::Value;

use crate::admin::{Running, status};
use crate::guests;
use crate::run::{FILE, Pipeline, stderr};

/// With these a record that never ends stalls, instead of being a dead letter.
const STALLS: &str = "deadline = \"50 ms\"\nfuel_per_record = 1_000_000_000_000";

/// What the first plan makes of every record is a row, whatever it says.
fn pipeline(limits: &str) -> Pipeline {
    let file = FILE
        .replace("[limits]\n", "[transform.settings]\nwhen = \"never\"\n\n[limits]\nin_flight_bytes = \"4 KiB\"\nbatch_bytes = \"1 KiB\"\n")
        .replace("deadline = \"300 ms\"\noutput_bytes = \"1 MiB\"\nfuel_per_record = 100_000_000", limits);
    Pipeline::of(guests::hostile(), &file)
}

/// The same, where a batch has as many records as there are.
fn in_large_batches() -> String {
    FILE.replace("[limits]\n", "[transform.settings]\nwhen = \"never\"\n\n[limits]\n")
        .replace("batch_records = 4\n", "")
}

/// A file is moved in complete.
pub(crate) fn move_in(pipeline: &Pipeline, name: &str, records: &[&str]) {
    let aside = pipeline.path(name);
    fs::write(&aside, records.join("\n")).expect("writable");
    fs::rename(aside, pipeline.path("input").join(name)).expect("it is there");
}

/// Waits until so many files are finished.
pub(crate) fn wait_for(pipeline: &Pipeline, running: &mut Running, finished: u64) -> Value {
    loop {
        let (_, said) = status(pipeline);
        let process = &said["processes"][0]["status"];
        if process["finished"] == finished {
            return process.clone();
        }
        running.assert_alive();
    }
}

/// Has the next plan misbehave as records ask for it; its number.
fn deploy(pipeline: &Pipeline) -> u64 {
    deploy_with(pipeline, "when=process")
}

fn deploy_with(pipeline: &Pipeline, setting: &str) -> u64 {
    let args = ["--set", setting, "--why", "a trial", "--yes", "--wait", "1 ms", "--json"];
    let output = pipeline.weir("deploy", &args).output().expect("the program starts");
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(said["deployed"], true, "{said}");
    said["plan"].as_u64().expect("a number")
}

/// Waits until the process runs this plan.
pub(crate) fn wait_for_plan(pipeline: &Pipeline, running: &mut Running, plan: u64) {
    while status(pipeline).1["processes"][0]["status"]["plan"]["plan"] != plan {
        running.assert_alive();
    }
}

/// What a record costs under a plan, in nanoseconds.
fn cost(cost: &Value) -> f64 {
    cost["cpu_ns"].as_f64().expect("a number") / cost["records"].as_f64().expect("a number")
}

fn tell(pipeline: &Pipeline, command: &str) {
    assert!(pipeline.weir(command, &[]).output().expect("the program starts").status.success(), "{command}");
}

/// All plans but the first, from the log: the number, what it replaces, who made it and why.
fn plans(pipeline: &Pipeline) -> Vec<(u64, u64, String, String)> {
    let output = pipeline.weir("history", &["--json"]).output().expect("the program starts");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let made = said["plans"].as_array().expect("a list")[1..].iter().map(|plan| {
        let (number, what) = (plan["plan"].as_u64().expect("a number"), &plan["what"]);
        let replaces = what["replaces"].as_u64().expect("it replaced one");
        (number, replaces, text(&what["made"]["who"]), text(&what["made"]["why"]))
    });
    made.collect()
}

/// The files and offsets of a target's rows, and which plan made them.
fn rows(pipeline: &Pipeline, target: &str) -> Vec<(i64, i64, u64)> {
    let of = |row: &Value, key: &str| row[key].as_i64().expect("a number");
    let rows = pipeline.rows(target);
    let mut rows: Vec<_> = rows
        .iter()
        .map(|row| (of(row, "weir_partition"), of(row, "weir_offset"), of(row, "weir_plan") as u64))
        .collect();
    rows.sort_unstable();
    rows
}

/// Every record of the files of these lengths is there once, as a row or as a dead letter.
fn assert_nothing_is_lost(pipeline: &Pipeline, files: &[usize]) {
    let mut all: Vec<_> = ["ok", "dead"].iter().flat_map(|target| rows(pipeline, target)).collect();
    all.sort_unstable();
    let found: Vec<_> = all.into_iter().map(|(partition, offset, _)| (partition, offset)).collect();
    let files = files.iter().enumerate();
    let expected: Vec<_> =
        files.flat_map(|(partition, n)| (0..*n as i64).map(move |at| (partition as i64, at))).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_plan_that_fails_at_one_record_in_a_hundred_is_taken_back_and_nothing_is_lost() {
    let pipeline = pipeline("output_bytes = \"1 MiB\"");
    move_in(&pipeline, "a.jsonl", &["a"; 400]);
    let mut running = Running::start(&pipeline);
    wait_for(&pipeline, &mut running, 1);
    let put = deploy(&pipeline);
    let records: Vec<&str> = (0..4_000).map(|i| if i % 100 == 50 { "panic" } else { "a" }).collect();
    move_in(&pipeline, "b.jsonl", &records);
    let stands = wait_for(&pipeline, &mut running, 2);
    let plans = plans(&pipeline);
    let (back, replaces, who, why) = &plans[1];
    assert_eq!((plans.len(), *replaces, who.as_str()), (2, put, "weir (automatic)"));
    let expected = format!("records of plan {put}, 0.0 % before");
    assert!(why.contains(" % failed in the first ") && why.ends_with(&expected), "{why}");
    assert_eq!((&stands["plan"]["plan"], &stands["trial"]), (&Value::from(*back), &Value::Null));
    // Whoever goes back now, too, does not go back to it.
    let again = pipeline.weir("rollback", &["--yes"]).output().expect("the program starts");
    assert!(stderr(&again).contains("but what was undone since"), "{}", stderr(&again));
    assert_eq!(running.end(), Some(0));
    assert_nothing_is_lost(&pipeline, &[400, 4_000]);
    let dead = rows(&pipeline, "dead");
    assert!((4..40).contains(&dead.len()), "{dead:?}");
    assert!(dead.iter().all(|(_, _, plan)| *plan == put), "{dead:?}");
    let last = rows(&pipeline, "ok").pop().expect("there are rows");
    assert_eq!(last, (1, 3_999, *back));
}

#[test]
fn a_plan_that_is_taken_back_makes_nothing_but_what_it_was_judged_by() {
    let file =
        in_large_batches().replace("300 ms", "20 s").replace("[limits]\n", "[limits]\nbatch_records = 100\n");
    let pipeline = Pipeline::of(guests::hostile(), &file);
    move_in(&pipeline, "a.jsonl", &["a"; 400]);
    let mut running = Running::start(&pipeline);
    wait_for(&pipeline, &mut running, 1);
    let put = deploy(&pipeline);
    wait_for_plan(&pipeline, &mut running, put);
    // All of it fits into what may be under way at once.
    let records: Vec<&str> = (0..20_000).map(|i| if i % 100 == 50 { "panic" } else { "a" }).collect();
    move_in(&pipeline, "b.jsonl", &records);
    wait_for(&pipeline, &mut running, 2);
    assert_eq!(running.end(), Some(0));
    assert_nothing_is_lost(&pipeline, &[400, 20_000]);
    let made = ["ok", "dead"].iter().flat_map(|target| rows(&pipeline, target));
    let made = made.filter(|(_, _, plan)| *plan == put).count();
    let (.., why) = &plans(&pipeline)[1];
    let judged = why.split_once(" in the first ").and_then(|(_, rest)| rest.split_once(" records of plan "));
    let judged: usize = judged.expect("it says so").0.replace(',', "").parse().expect("a number");
    // It may have been judged by a batch that was not through, too.
    assert!(made > 0 && made <= judged, "{made}: {why}");
}

#[test]
fn a_plan_that_was_put_while_nothing_ran_or_by_a_process_that_died_is_on_trial_when_one_starts() {
    for dies in [false, true] {
        let pipeline = pipeline("output_bytes = \"1 MiB\"");
        let file = fs::read_to_string(pipeline.path("pipeline.toml")).expect("readable");
        pipeline.write(&(file + "\n[deploy]\nrollback = { time = \"1 h\" }\n"));
        move_in(&pipeline, "a.jsonl", &["a"; 400]);
        let mut running = Running::start(&pipeline);
        wait_for(&pipeline, &mut running, 1);
        let put = match dies {
            true => {
                let put = deploy(&pipeline);
                move_in(&pipeline, "b.jsonl", &["a"; 50]);
                wait_for(&pipeline, &mut running, 2);
                drop(running);
                put
            }
            false => {
                assert_eq!(running.end(), Some(0));
                move_in(&pipeline, "b.jsonl", &["a"; 50]);
                deploy(&pipeline)
            }
        };
        let records: Vec<&str> = (0..4_000).map(|i| if i % 100 == 50 { "panic" } else { "a" }).collect();
        move_in(&pipeline, "c.jsonl", &records);
        let ended = pipeline.run(&[]);
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
        let plans = plans(&pipeline);
        let (back, replaces, who, why) = &plans[1];
        assert_eq!((plans.len(), *replaces, who.as_str()), (2, put, "weir (automatic)"), "dies: {dies}");
        assert!(why.contains(" % failed in the first "), "{why}");
        assert_nothing_is_lost(&pipeline, &[400, 50, 4_000]);
        assert_eq!(rows(&pipeline, "ok").pop(), Some((2, 3_999, *back)));
    }
}

#[test]
fn a_plan_that_fails_at_everything_is_taken_back_before_its_first_batch_is_through() {
    let pipeline = Pipeline::of(guests::hostile(), &in_large_batches());
    move_in(&pipeline, "a.jsonl", &["a"; 400]);
    let mut running = Running::start(&pipeline);
    wait_for(&pipeline, &mut running, 1);
    let put = deploy(&pipeline);
    wait_for_plan(&pipeline, &mut running, put);
    move_in(&pipeline, "b.jsonl", &["panic"; 4_000]);
    wait_for(&pipeline, &mut running, 2);
    let (back, _, _, why) = plans(&pipeline).pop().expect("it was taken back");
    let records = why.strip_prefix("100.0 % failed in the first ").and_then(|rest| rest.split_once(' '));
    let records: u64 = records.expect("records").0.parse().expect("less than 1,000");
    assert!(
        (100..1_000).contains(&records) && why.contains(&format!("of plan {put}, 0.0 % before")),
        "{why}"
    );
    assert_eq!(running.end(), Some(0));
    assert_nothing_is_lost(&pipeline, &[400, 4_000]);
    assert!(rows(&pipeline, "dead").is_empty());
    assert_eq!(rows(&pipeline, "ok").pop(), Some((1, 3_999, back)));
}

#[test]
fn a_process_that_is_told_to_stop_does_not_look_for_all_records_that_are_to_blame() {
    let file = in_large_batches().replace("when = \"never\"", "when = \"process\"");
    let file = file.replace("[dead_letter]\n", "[dead_letter]\nstop_after_consecutive = 1_000_000\n");
    let pipeline = Pipeline::of(guests::hostile(), &file);
    move_in(&pipeline, "a.jsonl", &["panic"; 2_000]);
    let mut running = Running::start(&pipeline);
    let judging = loop {
        let (_, said) = status(&pipeline);
        match &said["processes"][0]["status"]["partitions"][0]["judging"] {
            Value::Null => running.assert_alive(),
            judging => break judging.clone(),
        }
    };
    assert_eq!(judging["records"], judging["failed"], "{judging}");
    assert_eq!(running.end(), Some(0));
    assert!(rows(&pipeline, "dead").is_empty(), "nothing of a batch counts that is not through");
    assert_eq!(Running::with(&pipeline, &["--once"]).ends(), Some(0));
    assert_nothing_is_lost(&pipeline, &[2_000]);
    assert_eq!(rows(&pipeline, "dead").len(), 2_000);
}

#[test]
fn a_partition_that_a_new_plan_stops_goes_on_by_itself_with_the_old_one() {
    let pipeline = pipeline(STALLS);
    move_in(&pipeline, "a.jsonl", &["a"]);
    let mut running = Running::start(&pipeline);
    wait_for(&pipeline, &mut running, 1);
    let put = deploy(&pipeline);
    move_in(&pipeline, "b.jsonl", &["a", "a", "a", "a", "a", "loop", "a"]);
    wait_for(&pipeline, &mut running, 2);
    let plans = plans(&pipeline);
    let (back, _, who, why) = &plans[1];
    assert_eq!(who, "weir (automatic)");
    assert!(why.contains(&format!("records of plan {put}: E_STALL")), "{why}");
    assert_eq!(running.end(), Some(0));
    assert_nothing_is_lost(&pipeline, &[1, 7]);
    assert!(rows(&pipeline, "dead").is_empty());
    assert_eq!(rows(&pipeline, "ok").pop(), Some((1, 6, *back)));
}

#[test]
fn a_plan_that_keeps_state_is_found_out_by_its_second_batch_and_taken_back_and_one_that_asks_for_the_time_is_not()
 {
    let pipeline = pipeline("output_bytes = \"1 MiB\"");
    move_in(&pipeline, "a.jsonl", &["a"]);
    let mut running = Running::start(&pipeline);
    wait_for(&pipeline, &mut running, 1);
    let told_the_time = deploy(&pipeline);
    move_in(&pipeline, "b.jsonl", &["clock"; 40]);
    wait_for(&pipeline, &mut running, 2);
    let back = pipeline.weir("rollback", &["--yes"]).output().expect("the program starts");
    assert!(back.status.success(), "{}", stderr(&back));
    let put = deploy(&pipeline);
    move_in(&pipeline, "c.jsonl", &["count"; 40]);
    wait_for(&pipeline, &mut running, 3);
    let plans = plans(&pipeline);
    assert_eq!((plans.len(), plans[0].0, plans[2].0), (4, told_the_time, put), "{plans:?}");
    let (back, replaces, who, why) = &plans[3];
    assert_eq!((*replaces, who.as_str()), (put, "weir (automatic)"));
    assert!(why.contains(&format!("records of plan {put}: E_NONDETERMINISTIC")), "{why}");
    assert_eq!(running.end(), Some(0));
    assert_nothing_is_lost(&pipeline, &[1, 40, 40]);
    let of = |partition| rows(&pipeline, "ok").into_iter().filter(move |row| row.0 == partition);
    assert!(of(1).all(|(_, _, plan)| plan == told_the_time), "the time is the same for whoever asks");
    // A batch has four records, and the first is made alike by all that begin.
    assert!(of(2).all(|(_, offset, plan)| plan == *back || plan == put && offset < 4));
    assert!(of(2).any(|(_, _, plan)| plan == *back));
}

#[test]
fn a_plan_that_keeps_state_is_found_out_also_where_each_batch_is_of_one_record() {
    let file = in_large_batches().replace("[limits]\n", "[limits]\nbatch_records = 1\n");
    let pipeline = Pipeline::of(guests::hostile(), &file);
    move_in(&pipeline, "a.jsonl", &["a"]);
    let mut running = Running::start(&pipeline);
    wait_for(&pipeline, &mut running, 1);
    let put = deploy(&pipeline);
    move_in(&pipeline, "b.jsonl", &["count"; 2]);
    wait_for(&pipeline, &mut running, 2);
    let plans = plans(&pipeline);
    assert_eq!((plans.len(), plans[0].0, plans[1].1), (2, put, put), "{plans:?}");
    assert!(plans[1].3.contains("E_NONDETERMINISTIC"), "{plans:?}");
    assert_eq!(running.end(), Some(0));
    assert_nothing_is_lost(&pipeline, &[1, 2]);
}

#[test]
fn a_plan_that_is_a_hundred_times_slower_runs_within_its_budget_is_told_and_goes_when_somebody_says_so() {
    let never = "[transform.settings]\nwhen = \"never\"\n\n[limits]\nin_flight_bytes = \"16 KiB\"\nbatch_bytes = \"4 KiB\"\n";
    let file = FILE.replace("[limits]\n", never).replace("batch_records = 4\n", "batch_records = 100\n");
    let pipeline = Pipeline::of(guests::hostile(), &file.replace("300 ms", "20 s"));
    move_in(&pipeline, "a.jsonl", &["a"; 4_000]);
    let mut running = Running::start(&pipeline);
    wait_for(&pipeline, &mut running, 1);
    let slow = deploy_with(&pipeline, "when=slow");
    wait_for_plan(&pipeline, &mut running, slow);
    move_in(&pipeline, "b.jsonl", &["a"; 40_000]);
    let mut seen = status(&pipeline).1["processes"][0]["status"].clone();
    while seen["costs"][1]["records"].as_u64() < Some(200) {
        running.assert_alive();
        let budget = &seen["budget"];
        assert!(budget["used_bytes"].as_u64() <= budget["limit_bytes"].as_u64(), "{budget}");
        assert_eq!(seen["plan"]["plan"], slow, "it is not taken back by itself");
        seen = status(&pipeline).1["processes"][0]["status"].clone();
    }
    let costs = &seen["costs"];
    assert_eq!((&costs[0]["plan"], &costs[1]["plan"]), (&Value::from(0), &Value::from(slow)));
    assert!(cost(&costs[1]) > 100.0 * cost(&costs[0]), "{costs}");
    let told = pipeline.weir("status", &[]).output().expect("the program starts");
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    assert!(told.contains(&format!("µs under plan {slow} (plan 0: ")), "{told}");
    let back = pipeline.weir("rollback", &["--yes"]).output().expect("the program starts");
    assert!(back.status.success(), "{}", stderr(&back));
    wait_for(&pipeline, &mut running, 2);
    assert_eq!(running.end(), Some(0));
    assert_nothing_is_lost(&pipeline, &[4_000, 40_000]);
    let rows = rows(&pipeline, "ok");
    assert!(rows.iter().any(|(_, _, plan)| *plan == slow), "it made some");
    assert!(rows.last().is_some_and(|(_, _, plan)| *plan > slow), "and no more, once it was taken back");
}

#[test]
fn a_run_that_ends_with_its_input_waits_for_the_plan_that_it_goes_back_to() {
    let pipeline = pipeline(STALLS);
    let running = Running::start(&pipeline);
    tell(&pipeline, "pause");
    assert_eq!(running.end(), Some(0));
    move_in(&pipeline, "a.jsonl", &["a", "loop", "a"]);
    let mut running = Running::with(&pipeline, &["--once"]);
    let put = deploy(&pipeline);
    wait_for_plan(&pipeline, &mut running, put);
    let shown = pipeline.weir("status", &[]).output().expect("the program starts");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&format!("plan {put} on trial: 0 of 10,000 records, 0.0 % rejected")), "{shown}");
    tell(&pipeline, "resume");
    assert_eq!(running.ends(), Some(0));
    assert_nothing_is_lost(&pipeline, &[3]);
    let back = plans(&pipeline)[1].0;
    let made: Vec<_> = rows(&pipeline, "ok").into_iter().map(|(_, _, plan)| plan).collect();
    assert_eq!(made, [back; 3], "the three are one batch");
}
