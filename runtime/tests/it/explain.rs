//! A record is explained: by which plan it went where, whether that is there, and what is wrong where somebody has been.

use std::fs;
use std::process::Command;

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tempfile::TempDir;

/// The customers pipeline on its sample data, run to its end: files to Parquet and SQLite.
fn demo() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = weir(&["demo", "--json", "--dir", &shown(&dir, "")]).1;
    assert!(output["conserved"].as_bool().unwrap_or_default(), "{output}");
    dir
}

fn shown(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn weir(args: &[&str]) -> (Option<i32>, Value) {
    let (code, out, error) = said(args);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?}: {error}")))
}

fn said(args: &[&str]) -> (Option<i32>, String, String) {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = weir.args(args).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).output();
    let output = output.expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn explain(dir: &TempDir, record: &str) -> (Option<i32>, Value) {
    weir(&["explain", &shown(dir, "pipeline.toml"), record, "--json"])
}

fn sink<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let sinks = answer["sinks"].as_array().expect("sinks");
    sinks.iter().find(|sink| sink["sink"] == name).expect("it is there")
}

/// What a statement answers in the table of the demo.
fn sql(dir: &TempDir, statement: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(dir.path().join("db/customers.db"));
        let mut connection = options.connect().await.expect("the database opens");
        let rows = sqlx::query(AssertSqlSafe(statement.to_owned())).fetch_all(&mut connection).await;
        let rows = rows.expect("the statement is sound");
        connection.close().await.expect("it closes");
        rows.iter().map(|row| row.get(0)).collect()
    })
}

/// A record of the demo that has a row in the table.
fn american(dir: &TempDir) -> String {
    let all = sql(dir, "SELECT weir_topic || '/' || weir_partition || '/' || weir_offset FROM customers_usa");
    all.first().expect("there is one").clone()
}

#[test]
fn every_fate_of_the_customers_is_as_it_should_be_in_parquet_lines_and_table() {
    let dir = demo();
    let record = american(&dir);
    let (code, answer) = explain(&dir, &record);
    assert_eq!((code, &answer["fate"]), (Some(0), &"routed".into()), "{answer}");
    assert_eq!(answer["plan"]["what"]["name"], "customers");
    for name in ["local", "out"] {
        let rows = sink(&answer, name)["rows"].as_array().expect("rows");
        assert_eq!((rows.len(), &rows[0]["row"]["country"]), (1, &"USA".into()), "{name}: {answer}");
    }
    // Of the hostile records a dead letter and some others: each goes through the plan once more.
    let letter = weir(&["dlq", "ls", &shown(&dir, "pipeline.toml"), "--list", "--json", "-n", "1"]).1;
    let letter = letter["origin"].as_str().expect("a letter").to_owned();
    let others = [0, 13, 26, 39].map(|offset| format!("customers-raw/1/{offset}"));
    let mut fates = std::collections::BTreeSet::new();
    for record in others.iter().chain([&letter]) {
        let (code, answer) = explain(&dir, record);
        assert_eq!(code, Some(0), "{record}: {answer}");
        fates.insert(answer["fate"].as_str().expect("it is known").to_owned());
    }
    assert!(fates.contains("routed") && fates.contains("rejected"), "{fates:?}");
}

#[test]
fn a_row_that_was_altered_is_named_with_what_it_is_and_what_it_should_be() {
    let dir = demo();
    let record = american(&dir);
    sql(&dir, "UPDATE customers_usa SET country = 'UK' WHERE rowid = (SELECT min(rowid) FROM customers_usa)");
    let (code, answer) = explain(&dir, &record);
    assert_eq!((code, &answer["as_it_should_be"]), (Some(1), &false.into()), "{answer}");
    let difference = sink(&answer, "local")["differences"][0].as_str().expect("one").to_owned();
    assert!(difference.contains(r#"column country is "UK" and should be "USA""#), "{difference}");
    assert_eq!(sink(&answer, "out")["differences"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_row_that_was_removed_or_is_there_twice_is_named() {
    let dir = demo();
    let record = american(&dir);
    let first = "(SELECT min(rowid) FROM customers_usa)";
    sql(&dir, &format!("INSERT INTO customers_usa SELECT * FROM customers_usa WHERE rowid = {first}"));
    let (code, answer) = explain(&dir, &record);
    assert_eq!(code, Some(1));
    assert!(answer.to_string().contains("is there 2 times"), "{answer}");
    let offset = record.rsplit('/').next().expect("an offset");
    sql(&dir, &format!("DELETE FROM customers_usa WHERE weir_offset = {offset}"));
    let (code, answer) = explain(&dir, &record);
    assert_eq!(code, Some(1));
    assert!(answer.to_string().contains("usa, row 0 (route usa) is missing"), "{answer}");
}

#[test]
fn what_a_file_that_was_read_to_its_end_does_not_have_is_no_record_and_one_whose_file_is_gone_is_not_guessed()
{
    let dir = demo();
    let history = weir(&["history", &shown(&dir, "pipeline.toml"), "--json"]).1;
    let done = history["done"].as_array().expect("partitions");
    let records = done.iter().find(|of| of["partition"] == 0).expect("it was read")["records"].clone();
    for offset in [records.to_string(), "999999".to_owned()] {
        let record = format!("customers-raw/0/{offset}");
        for args in [&[][..], &["--json"]] {
            let (code, out, error) =
                said(&[&["explain", &shown(&dir, "pipeline.toml"), &record], args].concat());
            assert_eq!((code, out.as_str()), (Some(2), ""), "{error}");
            let told = format!(
                "there is no record {record}: customers-raw/0 was read to its end, and has {records} records"
            );
            assert!(error.contains(&told), "{error}");
        }
    }
    let record = american(&dir);
    fs::remove_dir_all(dir.path().join("input")).expect("it is there");
    let (code, answer) = explain(&dir, &record);
    assert_eq!((code, &answer["fate"], &answer["read_from"]), (Some(0), &Value::Null, &Value::Null));
    assert_eq!(sink(&answer, "local")["rows"].as_array().map(Vec::len), Some(1), "{answer}");
    assert!(answer["not_known"].as_str().is_some_and(|why| why.contains("opening")), "{answer}");
}
