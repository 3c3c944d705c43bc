//! What `weir demo` shows.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::run::{said, stderr};

#[test]
fn the_live_demo_replaces_the_rule_three_times_and_proves_that_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output =
        weir.args(["demo", "--live", "--json"]).current_dir(&dir).output().expect("the program starts");
    let history = history_of(dir.path());
    let said = said(&output);
    assert_eq!((output.status.code(), &said["holds"]), (Some(0), &true.into()), "{said}");
    let plans = said["plans"].as_array().expect("a list");
    let rows: Vec<_> = plans
        .iter()
        .map(|plan| ["alerts", "other", "dead_letters"].map(|to| plan["rows"][to] != 0))
        .collect();
    let with_alerts_and_dead_letters = [true, false, true];
    assert_eq!(
        rows,
        [
            [false, true, true],
            with_alerts_and_dead_letters,
            [true, false, false],
            with_alerts_and_dead_letters
        ]
    );
    let all = plans.iter().flat_map(|plan| plan["rows"].as_object().expect("an object").values());
    assert_eq!(all.map(|n| n.as_u64().expect("a number")).sum::<u64>(), said["sent"], "{said}");
    let told = stderr(&output);
    the_accounts_hold_and_end_with_what_is_in_the_files(&told, &said);
    each_plan_is_told_to_take_over_where_it_did(&told, &plans[1..], &history);
    // What a demo did not make stays.
    std::fs::remove_file(dir.path().join("weir-demo-live/.weir-demo")).expect("it is there");
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let refused = weir.args(["demo", "--live"]).current_dir(&dir).output().expect("the program starts");
    assert_eq!((refused.status.code(), refused.stdout), (Some(2), Vec::new()));
    assert!(dir.path().join("weir-demo-live/stream/customers-0000.jsonl").exists());
}

/// What the plan log has of the demo in a directory.
fn history_of(dir: &Path) -> Value {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(["history", "--json", "weir-demo-live/pipeline.toml"]).current_dir(dir);
    said(&weir.output().expect("the program starts"))
}

/// What was told while it ran, after each plan and at the end, against what was read back.
fn the_accounts_hold_and_end_with_what_is_in_the_files(told: &str, said: &Value) {
    let number = |word: &str| word.replace(',', "").parse::<u64>().ok();
    let accounts = told.lines().filter(|line| line.ends_with(" lost"));
    let accounts: Vec<Vec<u64>> = accounts.map(|line| line.split(' ').filter_map(number).collect()).collect();
    assert_eq!(accounts.len(), 4, "{told}");
    for account in &accounts {
        let [read, written, dead_letters, under_way, lost] = account[..] else { panic!("{told}") };
        assert_eq!((written + dead_letters + under_way, lost), (read, 0), "{told}");
    }
    let plans = said["plans"].as_array().expect("a list");
    let dead_letters: u64 = plans.iter().filter_map(|plan| plan["rows"]["dead_letters"].as_u64()).sum();
    let sent = said["sent"].as_u64().expect("a number");
    assert_eq!(accounts[3], [sent, sent - dead_letters, dead_letters, 0, 0], "{told}");
}

/// Each file in which one of these plans is told to have taken over has that cut in the plan log.
fn each_plan_is_told_to_take_over_where_it_did(told: &str, plans: &[Value], history: &Value) {
    let cuts = history["cuts"].as_array().expect("a list");
    for plan in plans.iter().map(|plan| &plan["plan"]) {
        let lines = told.lines().filter_map(|line| line.trim_start().split_once(": "));
        let lines: Vec<_> =
            lines.filter(|(_, plans)| plans.contains(&format!("plan {plan} (after "))).collect();
        assert!(!lines.is_empty(), "plan {plan}: {told}");
        for (file, plans) in lines {
            let from = plans.split_once("from record ").map_or("0", |(_, record)| record);
            let from = from.split(' ').next().map(|record| record.replace(',', "").parse::<u64>());
            let from = from.expect("a word").expect("a number");
            let is_it = |cut: &&Value| {
                (&cut["plan"], &cut["from"], &cut["input"]) == (plan, &json!(from), &json!(file))
            };
            assert_eq!(cuts.iter().filter(is_it).count(), 1, "{plan}, {file}: {told}{history}");
        }
    }
}

#[test]
fn a_directory_with_files_of_others_is_left_as_it_is_and_an_empty_one_is_taken() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let demo = |args: &[&str]| {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(["demo", "--json", "--dir"]).arg(dir.path()).args(args);
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).output().expect("the program starts")
    };
    std::fs::write(dir.path().join("notes"), "mine").expect("writable");
    for args in [&[][..], &["--fresh"], &["--live"]] {
        let refused = demo(args);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{args:?}");
        assert!(stderr(&refused).contains("and no demo made it"), "{}", stderr(&refused));
        assert_eq!(std::fs::read_dir(&dir).expect("readable").count(), 1, "{args:?}");
    }
    std::fs::remove_file(dir.path().join("notes")).expect("it is there");
    let records = |args: &[&str]| said(&demo(args))["records"].as_u64().expect("a number");
    let all = records(&[]);
    // What somebody adds to a demo is no reason to leave it, or to remove it.
    std::fs::write(dir.path().join("notes"), "mine").expect("writable");
    assert_eq!((records(&[]), records(&["--fresh"])), (0, all));
    assert!(dir.path().join("notes").exists());
}
