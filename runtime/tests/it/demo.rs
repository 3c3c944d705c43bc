//! What `weir demo` shows.

use std::process::Command;

use crate::run::{said, stderr};

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
