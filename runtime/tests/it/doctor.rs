//! What a pipeline needs is looked at before it runs, and what is wrong is told in the order in which to mend it.

use std::fs;

use serde_json::Value;

use crate::guests;
use crate::run::{FILE, Pipeline, ask, said, stderr, with_tables};

/// A pipeline with files and tables, and a record to read.
fn pipeline(file: &str) -> Pipeline {
    let pipeline = Pipeline::of(guests::hostile(), file);
    pipeline.input(&["one".to_owned()]);
    pipeline
}

/// The exit code, and all that was found: what, how it is, and what was said of it.
fn doctor(pipeline: &Pipeline, args: &[&str]) -> (Option<i32>, Vec<(String, String, String)>) {
    let output = pipeline.weir("doctor", &[&["--json"], args].concat()).output().expect("the program starts");
    let said = said(&output);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = said["findings"].as_array().expect("a list").iter().map(|finding| {
        let fix = finding["fix"].as_str().map_or_else(String::new, |fix| format!(" -> {fix}"));
        (text(&finding["what"]), text(&finding["grade"]), text(&finding["found"]) + &fix)
    });
    (output.status.code(), findings.collect())
}

/// What was not well, in its order.
fn fails(findings: &[(String, String, String)]) -> Vec<&str> {
    findings.iter().filter(|(_, grade, _)| grade == "fail").map(|(what, ..)| what.as_str()).collect()
}

fn found<'a>(findings: &'a [(String, String, String)], what: &str) -> &'a str {
    let finding = findings.iter().find(|(name, ..)| name == what);
    finding.map_or_else(|| panic!("nothing was said of {what}: {findings:#?}"), |(.., found)| found.as_str())
}

#[test]
fn a_pipeline_that_would_run_has_nothing_to_mend_and_nothing_but_directories_is_made() {
    let pipeline = pipeline(&with_tables("targets.ok = { mode = \"upsert\", key = [\"value\"] }"));
    let (code, findings) = doctor(&pipeline, &[]);
    assert_eq!((code, fails(&findings)), (Some(0), vec![]), "{findings:#?}");
    let asked: Vec<_> = findings.iter().map(|(what, ..)| what.as_str()).collect();
    let expected = [
        "file",
        "transform",
        "route ok",
        "route raw",
        "dead letters",
        "sink base, table ok",
        "state directory",
        "admin.socket",
        "admin.listen",
        "plan",
        "source.files",
        "sink base",
        "sink out",
    ];
    assert_eq!(asked, expected);
    assert_eq!(found(&findings, "route raw"), "none: its rows are left out");
    assert!(found(&findings, "source.files").contains("1 files"), "{findings:#?}");
    assert!(!pipeline.path("state").exists() && !pipeline.path("base.db").exists());

    assert!(pipeline.run(&[]).status.success());
    let (code, findings) = doctor(&pipeline, &[]);
    assert_eq!((code, fails(&findings)), (Some(0), vec![]), "{findings:#?}");
    assert!(found(&findings, "plan").contains("is what the file says"), "{findings:#?}");
    assert!(found(&findings, "sink base").contains("SQLite 3."), "{findings:#?}");
    assert_eq!(
        [found(&findings, "sink base, ok"), found(&findings, "sink base, dead")],
        ["it is there and fits"; 2]
    );
    assert_eq!(said(&pipeline.run(&[]))["records"], 0, "looking changed nothing");
}

#[test]
fn what_is_wrong_is_told_in_the_order_in_which_to_mend_it() {
    let pipeline = pipeline(&with_tables(""));
    ask(&pipeline, "CREATE TABLE ok (value TEXT)");
    fs::remove_dir_all(pipeline.path("input")).expect("it was made");
    fs::write(pipeline.path("state"), "no directory").expect("writable");
    let (code, findings) = doctor(&pipeline, &[]);
    assert_eq!(
        fails(&findings),
        ["state directory", "admin.socket", "source.files", "sink base, ok"],
        "{findings:#?}"
    );
    assert_eq!(code, Some(2), "one of them is more than something that cannot be reached");
    let told = found(&findings, "sink base, ok");
    assert!(told.contains("E_SINK_SCHEMA") && told.contains("-> ALTER TABLE \"ok\" ADD COLUMN"), "{told}");
    assert_eq!(ask(&pipeline, "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'weir%'"), ["0"]);
}

#[test]
fn a_file_that_is_wrong_is_told_with_all_its_lines() {
    let pipeline = pipeline(&FILE.replace("deadline", "dedline").replace("workers = 1", "workers = 0"));
    let output = pipeline.weir("doctor", &[]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    assert!(told.contains("did you mean `deadline`?") && told.contains("`workers`"), "{told}");
    let (code, findings) = doctor(&pipeline, &[]);
    assert_eq!((code, fails(&findings)), (Some(2), vec!["file"]));
}

#[test]
fn offline_it_reaches_nothing_and_still_knows_whether_the_routes_are_bound() {
    let pipeline = pipeline(&FILE.replace("raw = \"none\"", "row = \"none\""));
    fs::remove_dir_all(pipeline.path("input")).expect("it was made");
    let (code, findings) = doctor(&pipeline, &["--offline"]);
    assert_eq!((code, fails(&findings), findings.len()), (Some(2), vec!["transform"], 2), "{findings:#?}");
    let told = found(&findings, "transform");
    assert!(told.contains("route `raw` of the transform is bound nowhere"), "{told}");
    assert!(!pipeline.path("out").exists());
}

#[test]
fn a_component_that_is_none_is_a_no_and_the_rest_is_looked_at_all_the_same() {
    let pipeline = pipeline(FILE);
    fs::write(pipeline.path("guest.wasm"), "no component").expect("writable");
    let (code, findings) = doctor(&pipeline, &[]);
    assert_eq!((code, fails(&findings)), (Some(1), vec!["transform"]), "{findings:#?}");
    assert!(found(&findings, "sink out").contains("without overwriting"), "{findings:#?}");
}

#[test]
fn a_changed_file_is_a_warning_with_the_difference() {
    let pipeline = pipeline(FILE);
    assert!(pipeline.run(&[]).status.success());
    pipeline.write(&FILE.replace("300 ms", "400 ms"));
    let (code, findings) = doctor(&pipeline, &[]);
    let told = found(&findings, "plan");
    assert!(code == Some(0) && told.contains("300 -> 400") && told.contains("--adopt"), "{told}");
}

#[test]
fn the_statements_that_it_tells_make_tables_that_fit() {
    let pipeline = pipeline(&with_tables("targets.ok = { mode = \"upsert\", key = [\"value\"] }"));
    let output = pipeline.weir("doctor", &["--ddl"]).output().expect("the program starts");
    let statements = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        statements.contains("-- sink base\nCREATE TABLE \"ok\" (")
            && statements.contains("PRIMARY KEY (\"value\")")
    );
    for statement in statements.lines().filter(|line| line.starts_with("CREATE")) {
        ask(&pipeline, statement);
    }
    let (_, findings) = doctor(&pipeline, &[]);
    assert_eq!(
        [found(&findings, "sink base, ok"), found(&findings, "sink base, dead")],
        ["it is there and fits"; 2]
    );
}
