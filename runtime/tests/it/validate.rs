//! `weir validate`, as a person or a script runs it: what it counts, what it refuses, and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::guests;

/// A place for files and the cache of one test.
struct Place {
    dir: tempfile::TempDir,
}

/// How the program ended, and what it wrote.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Ended {
        // One cache for all tests: the component is compiled once.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        let stdin = self.file("stdin", input);
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("validate").args(args).env("XDG_CACHE_HOME", cache);
        let ended = command.stdin(Stdio::from(std::fs::File::open(stdin).unwrap())).output().unwrap();
        Ended {
            code: ended.status.code().expect("it ends by itself"),
            out: String::from_utf8(ended.stdout).unwrap(),
            err: String::from_utf8(ended.stderr).unwrap(),
        }
    }
}

fn weir(args: &[&str]) -> Ended {
    Place::new().run(args, b"")
}

fn data(name: &str) -> String {
    below("data", name)
}

fn below(dir: &str, name: &str) -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into();
    root.join(dir).join(name).to_str().unwrap().to_owned()
}

fn cities() -> String {
    format!("us_cities={}", data("us_cities.csv"))
}

/// The fields `names` of a report.
fn only(report: &Value, names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| ((*name).to_owned(), report[name].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

const COUNTS: [&str; 6] = ["records", "routed", "rejected", "dropped", "failed", "conserved"];

fn checks(report: &Value) -> Vec<(&str, bool)> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks.map(|check| (check["name"].as_str().unwrap(), check["ok"].as_bool().unwrap())).collect()
}

const ALL_OK: [(&str, bool); 6] = [
    ("loads", true),
    ("describes", true),
    ("starts", true),
    ("conserved", true),
    ("no-failures", true),
    ("deterministic", true),
];

/// Runs the hostile transform on records by those names.
fn hostile(records: &[&str]) -> Ended {
    let place = Place::new();
    let component = place.file("hostile.wasm", guests::hostile());
    let lines = records.join("\n");
    place.run(&[&component, "--sample", "-", "--format", "jsonl", "--json"], lines.as_bytes())
}

#[test]
fn every_customer_has_a_fate() {
    let ended = weir(&["@customers", "--sample", &data("customers.csv"), "--table", &cities(), "--json"]);
    let report = ended.json();
    let expected = json!({
        "records": 1000,
        "routed": { "usa": 572, "alerts": 20, "other": 402 },
        "rejected": { "age-not-integer": 4, "age-out-of-range": 2 },
        "dropped": 0,
        "failed": 0,
        "conserved": true,
    });
    assert_eq!((only(&report, &COUNTS), ended.code), (expected, 0));
    assert_eq!(checks(&report), ALL_OK);
    assert_eq!(report["transform"]["name"], "customers");
    assert!(report["timing"]["ns_per_record"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_hostile_line_has_a_fate() {
    let ended = weir(&["@customers", "--sample", &data("hostile.jsonl"), "--table", &cities(), "--json"]);
    let report = ended.json();
    let expected = json!({
        "records": 45,
        "routed": { "usa": 12, "alerts": 20, "other": 3 },
        "rejected": { "age-not-integer": 3, "age-out-of-range": 4, "id-not-text": 1, "location-not-text": 2 },
        "dropped": 0,
        "failed": 0,
        "conserved": true,
    });
    assert_eq!((only(&report, &COUNTS), ended.code), (expected, 0));
    assert_eq!(checks(&report), ALL_OK);
}

#[test]
fn a_directory_is_all_its_files_and_a_stream_is_the_same_as_a_file() {
    let place = Place::new();
    let csv = std::fs::read(data("customers.csv")).unwrap();
    std::fs::create_dir(place.dir.path().join("in")).unwrap();
    place.file("in/a.csv", &csv);
    place.file("in/b.jsonl", std::fs::read(data("hostile.jsonl")).unwrap());
    place.file("in/notes.txt", "not a sample");
    let dir = place.dir.path().join("in");
    let both =
        place.run(&["@customers", "--sample", dir.to_str().unwrap(), "--table", &cities(), "--json"], b"");
    assert_eq!((both.json()["records"].as_u64(), both.code), (Some(1_045), 0));
    assert_eq!(both.json()["left_out"], json!(["notes.txt"]));
    let stream = ["@customers", "--sample", "-", "--format", "csv", "--table", &cities(), "--json"];
    let stream = place.run(&stream, &csv).json();
    let file =
        weir(&["@customers", "--sample", &data("customers.csv"), "--table", &cities(), "--json"]).json();
    assert_eq!(only(&stream, &COUNTS), only(&file, &COUNTS));
}

#[test]
fn a_compressed_sample_is_read_as_what_is_in_it() {
    use std::io::Write as _;
    let place = Place::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&std::fs::read(data("customers.csv")).unwrap()).unwrap();
    let sample = place.file("customers.csv.gz", gzip.finish().unwrap());
    let args =
        |sample: &str| weir(&["@customers", "--sample", sample, "--table", &cities(), "--json"]).json();
    assert_eq!(only(&args(&sample), &COUNTS), only(&args(&data("customers.csv")), &COUNTS));
}

#[test]
fn a_table_can_be_a_parquet_file() {
    use std::sync::Arc;
    let place = Place::new();
    let text = std::fs::read_to_string(data("us_cities.csv")).unwrap();
    let cities: Vec<&str> = text.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    let columns = [("City", Arc::new(arrow::array::StringArray::from(cities)) as arrow::array::ArrayRef)];
    let rows = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
    let mut file = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let table = format!("us_cities={}", place.file("us_cities.parquet", &file));
    let run =
        |table: &str| weir(&["@customers", "--sample", &data("customers.csv"), "--table", table, "--json"]);
    assert_eq!(only(&run(&table).json(), &COUNTS), only(&run(&self::cities()).json(), &COUNTS));
    let cut = format!("us_cities={}", place.file("cut.parquet", &file[..file.len() / 2]));
    let refused = run(&cut);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("table us_cities: the Parquet file cannot be read"), "{}", refused.err);
}

#[test]
fn a_row_that_the_source_cannot_cut_is_counted() {
    let place = Place::new();
    let rows = b"id,location\n1,Boston\n2,Boston,x\n3,Riga\n";
    let args = ["@customers", "--sample", "-", "--format", "csv", "--table", &cities(), "--json"];
    let report = place.run(&args, rows).json();
    assert_eq!((&report["records"], &report["rejected"]), (&json!(3), &json!({ "ragged-row": 1 })));
    assert_eq!(checks(&report), ALL_OK);
}

#[test]
fn the_golden_cases_pass_in_the_sandbox() {
    let golden = below("transforms/customers", "golden.jsonl");
    let ended = weir(&["@customers", "--expect", &golden, "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.out);
    assert_eq!(checks(&ended.json()), [("loads", true), ("describes", true), ("expect", true)]);
    assert_eq!(ended.json()["mismatches"], json!([]));
}

#[test]
fn a_golden_case_that_comes_out_otherwise_is_told() {
    let place = Place::new();
    let case = json!({
        "name": "a foreigner", "input": "{\"id\":\"7\",\"location\":\"Riga\"}", "settings": { "non_usa": "drop" },
        "fate": "routed", "route": "other",
    });
    let cases = place.file("cases.jsonl", case.to_string());
    let args = ["@customers", "--expect", &cases, "--table", &cities()];
    let ended = place.run(&[&args[..], &["--json"]].concat(), b"");
    assert_eq!((ended.code, checks(&ended.json()).pop()), (1, Some(("expect", false))));
    assert_eq!(ended.json()["mismatches"][0]["found"], json!({ "fate": "dropped" }));
    let told = place.run(&args, b"").out;
    assert!(
        told.contains("- fate expected \"routed\"") && told.contains("+ fate found    \"dropped\""),
        "{told}"
    );
}

#[test]
fn a_transform_that_lies_or_breaks_fails_the_right_check() {
    for (misdeed, word) in [
        ("lose", "record 0 of 1 is lost"),
        ("twice", "is also on a route"),
        ("route", "route 77"),
        ("bad-utf8", "is not UTF-8"),
        ("panic", "panicked on request"),
        ("err", "failed on request"),
    ] {
        let ended = hostile(&["a", "b", misdeed, "c", "drop", "reject"]);
        let report = ended.json();
        let expected = json!({
            "records": 6, "routed": { "ok": 3, "raw": 0 }, "rejected": { "refused": 1 }, "dropped": 1, "failed": 1,
            "conserved": true,
        });
        assert_eq!((only(&report, &COUNTS), ended.code), (expected, 1), "{misdeed}");
        let bad: Vec<_> = checks(&report).into_iter().filter(|(_, ok)| !ok).map(|(name, _)| name).collect();
        assert_eq!(bad, ["no-failures"], "{misdeed}");
        let detail = report["checks"][4]["detail"].as_str().unwrap();
        assert!(detail.contains("offset 2") && detail.contains(word), "{misdeed}: {detail}");
    }
}

#[test]
fn output_that_depends_on_other_records_is_found() {
    let ended = hostile(&["count", "a", "count"]);
    let report = ended.json();
    assert_eq!((ended.code, checks(&report).pop()), (1, Some(("deterministic", false))));
    let detail = report["checks"][5]["detail"].as_str().unwrap();
    let place =
        "E_NONDETERMINISTIC: the record at offset 0: route `ok`, row 0, field `value`: first 0, then 1";
    assert_eq!(detail, place);
}

#[test]
fn what_the_transform_logs_is_shown_and_cannot_steer_the_terminal() {
    let place = Place::new();
    let component = place.file("hostile.wasm", guests::hostile());
    let ended = place.run(&[&component, "--sample", "-", "--format", "jsonl"], b"flood\n\x1b[31mred\n");
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert!(
        ended.out.contains("What the transform wrote to its log")
            && ended.out.contains("flood 0 \\u{1b}[31m")
    );
    assert!(!ended.out.contains('\u{1b}') && !ended.err.contains("flood"), "{}{}", ended.out, ended.err);
}

#[test]
fn what_cannot_start_says_so_in_its_own_words() {
    let place = Place::new();
    let component = place.file("hostile.wasm", guests::hostile());
    for (when, last) in [
        ("init-err", ("starts", false)),
        ("init-trap", ("starts", false)),
        ("bad-name", ("describes", false)),
    ] {
        let set = format!("when={when}");
        let ended =
            place.run(&[&component, "--sample", "-", "--format", "raw", "--set", &set, "--json"], b"a");
        assert_eq!((ended.code, checks(&ended.json()).pop()), (1, Some(last)), "{when}");
    }
}

#[test]
fn what_is_no_transform_is_refused_with_a_hint() {
    let place = Place::new();
    let none = wat::parse_str("(component)").unwrap();
    for (name, bytes, problem, hint) in [
        ("text.wasm", b"hello".to_vec(), "this is text", "give the .wasm file"),
        ("page.wasm", b"<html>".to_vec(), "this is HTML or XML", "give the .wasm file"),
        ("core.wasm", b"\0asm\x01\0\0\0".to_vec(), "core WebAssembly module", "wasm32-wasip2"),
        ("empty.wasm", Vec::new(), "the file is empty", "build the transform again"),
        ("other.wasm", none, "does not export `weir:transform/transform@0.1.0`", "transform-component"),
    ] {
        let file = place.file(name, bytes);
        let args = [&file, "--sample", &data("customers.csv")];
        let ended = place.run(&[&args[..], &["--json"]].concat(), b"");
        let check = &ended.json()["checks"][0];
        assert_eq!((ended.code, &check["name"], &check["ok"]), (1, &json!("loads"), &json!(false)), "{name}");
        let (detail, advice) = (check["detail"].as_str().unwrap(), check["hint"].as_str().unwrap());
        assert!(detail.contains(problem) && advice.contains(hint), "{name}: {detail}; {advice}");
        let told = place.run(&args, b"").out;
        assert!(told.contains("not ok") && told.contains("hint: "), "{told}");
    }
}

#[test]
fn a_wrong_command_is_told_with_what_is_wrong_and_what_may_be_meant() {
    let (sample, cities) = (data("customers.csv"), cities());
    let with =
        |more: &[&str]| weir(&[&["@customers", "--sample", &sample, "--table", &cities], more].concat());
    for (ended, code, words) in [
        (with(&["--set", "non_us=drop"]), 2, "did you mean `non_usa`?"),
        (with(&["--set", "non_usa=maybe"]), 2, "it is one of: other, alerts, drop"),
        (with(&["--set", "non_usa"]), 2, "there is no `=` in it"),
        (with(&["--table", "us_citys=x.csv"]), 2, "did you mean `us_cities`?"),
        (weir(&["@customers", "--sample", &sample]), 2, "--table us_cities=FILE"),
        (weir(&["@customers"]), 2, "--sample"),
        (weir(&["@customers", "--sample", "-"]), 2, "--format"),
        (weir(&["none.wasm", "--sample", &sample]), 2, "reading the component `none.wasm` failed"),
        (weir(&["@customers", "--sample", "none.csv", "--table", &cities]), 2, "none.csv"),
        (
            weir(&["@customers", "--sample", &sample, "--table", "us_cities=none.csv"]),
            2,
            "reading `none.csv` failed",
        ),
    ] {
        assert_eq!(ended.code, code, "{}", ended.err);
        assert!(ended.err.contains(words) && ended.out.is_empty(), "{}{}", ended.out, ended.err);
    }
}
