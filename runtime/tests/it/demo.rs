//! What `weir demo` shows.

use std::process::Command;

use crate::run::said;

#[test]
fn the_live_demo_replaces_the_rule_three_times_and_proves_that_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output =
        weir.args(["demo", "--live", "--json"]).current_dir(&dir).output().expect("the program starts");
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
    // What a demo did not make stays.
    std::fs::remove_file(dir.path().join("weir-demo-live/.weir-demo")).expect("it is there");
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let refused = weir.args(["demo", "--live"]).current_dir(&dir).output().expect("the program starts");
    assert_eq!((refused.status.code(), refused.stdout), (Some(2), Vec::new()));
    assert!(dir.path().join("weir-demo-live/stream/customers-0000.jsonl").exists());
}
