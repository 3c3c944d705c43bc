//! A component whose rows have other columns takes over while records flow: what files make of that, what a table takes, and
//! what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::admin::{Running, status};
use crate::deploy::newest;
use crate::guests;
use crate::run::{FILE, Pipeline, ask, said, with_tables};
use crate::trial::{move_in, wait_for, wait_for_plan};

/// So many that the slow plan is not through with them before another takes over.
const RECORDS: usize = 10_000;

const LAKE: &str = "\n[sinks.lake.files]\npath = \"lake\"\n";

/// A pipeline whose first plan takes its time for every record, and another component that does the same.
fn slow(file: &str) -> Pipeline {
    let slow = "[transform.settings]\nwhen = \"slow\"\n\n[limits]\nin_flight_bytes = \"16 KiB\"\nbatch_bytes = \"4 KiB\"\n";
    let file = file.replace("[limits]\n", slow).replace("batch_records = 4\n", "batch_records = 100\n");
    let pipeline = Pipeline::of(guests::hostile(), &file.replace("300 ms", "20 s"));
    fs::write(pipeline.path("another.wasm"), guests::another(guests::hostile())).expect("writable");
    pipeline
}

/// Deploys a component of the pipeline's directory, without a trial on records: the slow plan would take its time for them. The
/// exit code, and what is said.
fn deploy(pipeline: &Pipeline, component: &str, args: &[&str]) -> (Option<i32>, Value) {
    let component = pipeline.path(component);
    let component = component.to_str().expect("text");
    let with = [&[component, "--yes", "--json", "--wait", "100 s", "--sample", "0"], args].concat();
    let output = pipeline.weir("deploy", &with).output().expect("the program starts");
    (output.status.code(), said(&output))
}

/// The number of a plan that was put.
fn put((code, said): (Option<i32>, Value)) -> u64 {
    assert_eq!((code, &said["deployed"]), (Some(0), &Value::Bool(true)), "{said}");
    said["plan"].as_u64().expect("a number")
}

/// Waits until records were made by a plan.
fn wait_for_records_of(pipeline: &Pipeline, running: &mut Running, plan: u64) {
    let made =
        |costs: &Value| costs.as_array().is_some_and(|costs| costs.iter().any(|of| of["plan"] == plan));
    while !made(&status(pipeline).1["processes"][0]["status"]["costs"]) {
        running.assert_alive();
    }
}

/// Where the plans of a history begin in each partition.
fn cuts(pipeline: &Pipeline) -> BTreeMap<(u64, u64), u64> {
    let history = said(&pipeline.weir("history", &["--json"]).output().expect("the program starts"));
    let of = |cut: &Value, key: &str| cut[key].as_u64().expect("a number");
    let cuts = history["cuts"].as_array().expect("a list").iter();
    cuts.map(|cut| ((of(cut, "partition"), of(cut, "from")), of(cut, "plan"))).collect()
}

/// The columns of a row that are not ours.
fn columns(row: &Value) -> Vec<&str> {
    let all = row.as_object().expect("an object").keys().map(String::as_str);
    all.filter(|name| !name.starts_with("weir_")).collect()
}

fn rows_of_lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("readable");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The rows of a Parquet file, each with the columns of the file, and what those are.
fn rows_of_parquet(file: &Path) -> (Vec<Value>, Vec<String>) {
    let opened = fs::File::open(file).expect("readable");
    let reader = ParquetRecordBatchReaderBuilder::try_new(opened).expect("Parquet");
    let ours = |name: &str| name.starts_with("weir_");
    let fields = reader.schema().fields().iter().filter(|field| !ours(field.name()));
    let types = fields.map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    let mut json = LineDelimitedWriter::new(Vec::new());
    for rows in reader.build().expect("Parquet") {
        json.write(&rows.expect("readable")).expect("rows have a form in JSON");
    }
    let text = String::from_utf8(json.into_inner()).expect("JSON is UTF-8");
    (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), types)
}

fn files(directory: PathBuf) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).expect("there are files").map(|file| file.expect("readable").path())
}

/// Each record of so many files once, made by the plan that the cuts name for it.
fn assert_is_as_the_cuts_say(pipeline: &Pipeline, partitions: u64, mut made: Vec<(u64, u64, u64)>) {
    made.sort_unstable();
    let cuts = cuts(pipeline);
    let plan_at = |partition, offset| {
        let (_, plan) = cuts.range((partition, 0)..=(partition, offset)).next_back().expect("it begins");
        (partition, offset, *plan)
    };
    let offsets = |partition| (0..RECORDS as u64).map(move |offset| plan_at(partition, offset));
    let expected: Vec<_> = (0..partitions).flat_map(offsets).collect();
    assert!(made == expected, "{} of {}, cuts {cuts:?}", made.len(), expected.len());
}

fn place(row: &Value) -> (u64, u64, u64) {
    let of = |key: &str| row[key].as_u64().expect("a number");
    (of("weir_partition"), of("weir_offset"), of("weir_plan"))
}

#[test]
fn a_component_whose_rows_have_other_columns_begins_new_files_at_the_cut() {
    const SWAPS: [(&str, &[&str]); 3] = [
        ("wide", &["value Utf8", "offset Int64", "twice Int64"]),
        ("renamed", &["text Utf8", "offset Int64"]),
        ("retyped", &["value Utf8", "offset Float64"]),
    ];
    let routes = FILE.replace("ok = \"out.ok\"", "ok = [\"out.ok\", \"lake.ok\"]");
    let pipeline = slow(&(routes + LAKE));
    let mut running = Running::start(&pipeline);
    // Compiled by now, so that it is there while records flow.
    deploy(&pipeline, "another.wasm", &["--ddl"]);
    let mut expected = BTreeMap::new();
    for (n, (when, types)) in (0..).zip(SWAPS) {
        let slow = match n {
            0 => newest(&pipeline).0,
            _ => put(deploy(&pipeline, "guest.wasm", &["--set", "when=slow"])),
        };
        wait_for_plan(&pipeline, &mut running, slow);
        move_in(&pipeline, &format!("{n}.jsonl"), &["a"; RECORDS]);
        wait_for_records_of(&pipeline, &mut running, slow);
        let (code, told) = deploy(&pipeline, "another.wasm", &["--set", &format!("when={when}")]);
        let mut changed = told["differences"].as_array().expect("a list").iter();
        assert!(changed.any(|of| of["what"] == "transform"), "{told}");
        let new = put((code, told.clone()));
        let cut = told["cuts"][0]["from"].as_u64().expect("a cut");
        assert!((1..RECORDS as u64).contains(&cut), "{told}");
        expected.extend([(slow, &["value Utf8", "offset Int64"][..]), (new, types)]);
        wait_for(&pipeline, &mut running, n + 1);
    }
    assert_eq!(running.end(), Some(0));

    let of_one_plan = |rows: &[Value]| {
        let plans: BTreeSet<_> = rows.iter().map(|row| place(row).2).collect();
        assert_eq!(plans.len(), 1, "one file has rows of plans {plans:?}");
        expected[plans.first().expect("it has rows")]
    };
    let (mut lines, mut parquet) = (Vec::new(), Vec::new());
    for file in files(pipeline.path("out/ok")) {
        let rows = rows_of_lines(&file);
        let types = of_one_plan(&rows);
        let mut names: Vec<_> = types.iter().filter_map(|of| of.split(' ').next()).collect();
        names.sort_unstable();
        for row in &rows {
            assert_eq!(columns(row), names, "{row}");
        }
        lines.extend(rows.iter().map(place));
    }
    for file in files(pipeline.path("lake/ok")) {
        let (rows, types) = rows_of_parquet(&file);
        assert_eq!(types, of_one_plan(&rows));
        parquet.extend(rows.iter().map(place));
    }
    for made in [lines, parquet] {
        assert_is_as_the_cuts_say(&pipeline, SWAPS.len() as u64, made);
    }
}

#[test]
fn a_table_refuses_a_component_by_the_column_and_takes_one_more_once_it_is_added_while_records_flow() {
    let pipeline = slow(&with_tables(""));
    let mut running = Running::start(&pipeline);
    // Compiled by now, so that it is there while records flow.
    deploy(&pipeline, "another.wasm", &["--ddl"]);
    let (first, _) = newest(&pipeline);
    move_in(&pipeline, "a.jsonl", &["a"; RECORDS]);
    wait_for_records_of(&pipeline, &mut running, first);
    for (when, told) in [
        ("renamed", "table `ok` has no column `text`"),
        ("retyped", "column `offset` of table `ok` is INTEGER, it has to be REAL"),
        ("wide", "table `ok` has no column `twice`"),
    ] {
        let set = format!("when={when}");
        let (code, said) = deploy(&pipeline, "another.wasm", &["--set", &set]);
        assert_eq!((code, &said["deployed"]), (Some(2), &Value::Bool(false)), "{said}");
        assert!(said["refused"].to_string().contains(told), "{said}");
    }
    // What may not be null is added by nobody.
    let (code, said) = deploy(&pipeline, "another.wasm", &["--set", "when=renamed", "--migrate"]);
    assert_eq!((code, &said["deployed"]), (Some(2), &Value::Bool(false)), "{said}");
    let wide = ["--set", "when=wide"];
    let (code, said) = deploy(&pipeline, "another.wasm", &[&wide[..], &["--ddl"]].concat());
    let statements = json!(["ALTER TABLE \"ok\" ADD COLUMN \"twice\" INTEGER"]);
    assert_eq!((code, &said["statements"]), (Some(0), &statements));
    assert_eq!(ask(&pipeline, "SELECT name FROM pragma_table_info('ok') WHERE name = 'twice'"), [""; 0]);
    assert_eq!(newest(&pipeline).0, first, "what was refused is no plan");

    let (code, said) = deploy(&pipeline, "another.wasm", &[&wide[..], &["--migrate"]].concat());
    assert_eq!(said["statements"], statements);
    let cut = said["cuts"][0]["from"].as_u64().expect("a cut");
    assert!((1..RECORDS as u64).contains(&cut), "{said}");
    let second = put((code, said));
    wait_for(&pipeline, &mut running, 1);
    assert_eq!(running.end(), Some(0));
    let sql = "SELECT json_array(weir_partition, weir_offset, weir_plan, twice) FROM ok";
    let rows: Vec<(u64, u64, u64, Option<u64>)> =
        ask(&pipeline, sql).iter().map(|row| serde_json::from_str(row).expect("a row")).collect();
    for (_, offset, plan, twice) in &rows {
        assert_eq!(*twice, (*plan == second).then_some(2 * offset), "{offset} of plan {plan}");
    }
    let in_table = rows.iter().map(|(partition, offset, plan, _)| (*partition, *offset, *plan)).collect();
    assert_is_as_the_cuts_say(&pipeline, 1, in_table);
    assert_is_as_the_cuts_say(&pipeline, 1, pipeline.rows("ok").iter().map(place).collect());
}
