//! Dead letters and rows are read back from a real Kafka and a real PostgreSQL, and what somebody changed there is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use tempfile::TempDir;
use weir::sink::state::Nonce;

use crate::given;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The customers pipeline from files to topics and tables of its own.
struct Pipeline {
    dir: TempDir,
    own: String,
}

impl Pipeline {
    fn run() -> Self {
        let own = format!("letters-{}", Nonce::random().short());
        let pipeline = Self { dir: tempfile::tempdir().unwrap(), own };
        fs::create_dir(pipeline.path("input")).unwrap();
        for file in ["us_cities.csv", "hostile.jsonl"] {
            let to = if file == "hostile.jsonl" { "input/hostile.jsonl" } else { file };
            fs::copy(Path::new(REPOSITORY).join("data").join(file), pipeline.path(to)).unwrap();
        }
        fs::write(
            pipeline.path("input/usa.jsonl"),
            "{\"id\":\"1\",\"first_name\":\"A\",\"age\":\"7\",\"location\":\"Chicago\"}\n",
        )
        .unwrap();
        fs::copy(env!("WEIR_CUSTOMERS_WASM"), pipeline.path("customers.wasm")).unwrap();
        fs::write(pipeline.path("pipeline.toml"), pipeline.file()).unwrap();
        let output = pipeline.weir(&["run", "--once", "--json"]);
        assert_eq!(output.0, Some(0), "{}", output.1);
        pipeline
    }

    fn file(&self) -> String {
        let (own, brokers) = (&self.own, given("WEIR_TEST_KAFKA"));
        let url = given("WEIR_TEST_POSTGRES");
        format!(
            r#"
[pipeline]
name = "{own}"
state = "state"

[source.files]
path = "input"
topic = "raw"

[transform]
component = "customers.wasm"
tables.us_cities = {{ file = "us_cities.csv" }}

[routes]
usa = ["topics.{own}-usa", "tables.usa"]
alerts = "topics.{own}-alerts"
other = "none"

[dead_letter]
to = "topics.{own}-dead"

[sinks.topics.kafka]
brokers = "{brokers}"
create = true

[sinks.tables.postgres]
url = "{url}"
targets.usa.table = "{own}"

[admin]
listen = "none"
"#
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn weir(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        let at = if arguments[0] == "dlq" { 2 } else { 1 };
        let (command, rest) = arguments.split_at(at);
        weir.args(command).arg("pipeline.toml").args(rest).current_dir(self.dir.path());
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        let output = weir.output().unwrap();
        let (out, error) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), format!("{out}{error}"))
    }

    fn explain(&self, record: &str) -> (Option<i32>, Value) {
        let (code, text) = self.weir(&["explain", record, "--json"]);
        (code, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
    }

    fn sql(&self, statement: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options: sqlx::postgres::PgConnectOptions = given("WEIR_TEST_POSTGRES").parse().unwrap();
        let statement = statement.replace("OURS", &format!("\"{}\"", self.own));
        runtime.block_on(async {
            let mut connection = options.connect().await.unwrap();
            connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
        });
    }
}

#[test]
fn letters_and_rows_come_back_from_topics_and_tables_and_a_changed_row_is_named() {
    let pipeline = Pipeline::run();
    let (code, text) = pipeline.weir(&["dlq", "ls", "--list", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let letters: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // What the table refuses is there, and what the transform does not take, in its topic.
    let of = |stage: &str| letters.iter().filter(|letter| letter["stage"] == stage).count();
    assert!(of("sink") > 0 && of("transform") > 0, "{text}");
    for letter in &letters {
        let sink = if letter["stage"] == "sink" { "tables" } else { "topics" };
        // Records of files have no time, whatever their topic says.
        assert_eq!((&letter["sink"], &letter["timestamp"]), (&sink.into(), &Value::Null), "{letter}");
    }
    for stage in ["sink", "transform"] {
        let letter = letters.iter().find(|letter| letter["stage"] == stage).unwrap();
        let (code, answer) = pipeline.explain(letter["origin"].as_str().unwrap());
        assert_eq!(code, Some(0), "{answer}");
    }
    let american = "raw/1/0";
    let (code, answer) = pipeline.explain(american);
    assert_eq!((code, &answer["fate"]), (Some(0), &"routed".into()), "{answer}");
    let rows = |answer: &Value| {
        let sinks = answer["sinks"].as_array().unwrap();
        sinks.iter().map(|sink| sink["rows"].as_array().unwrap().len()).collect::<Vec<_>>()
    };
    assert_eq!(rows(&answer), [1, 1], "{answer}");

    pipeline.sql("UPDATE OURS SET age = 8 WHERE id = '1' AND weir_partition = 1");
    let (code, answer) = pipeline.explain(american);
    assert_eq!(code, Some(1));
    assert!(answer.to_string().contains("column age is 8 and should be 7"), "{answer}");
    pipeline.sql("DELETE FROM OURS WHERE weir_partition = 1");
    let (code, answer) = pipeline.explain(american);
    assert_eq!((code, rows(&answer)), (Some(1), vec![0, 1]), "{answer}");
    pipeline.sql("DROP TABLE IF EXISTS OURS");
}
