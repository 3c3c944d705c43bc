//! Customers into Kafka topics: the same bytes as into files of JSON lines, once, and after the program was killed too.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;
use weir::kafka::peek::Seen;
use weir::sink::state::Nonce;

use crate::records_of;

const FILE: &str = r#"
[pipeline]
name = "NAME"
state = "state"

[source.files]
path = "input"
topic = "customers-raw"

[transform]
component = "customers.wasm"
tables.us_cities = { file = "us_cities.csv" }

[limits]
batch_records = 100
workers = 2

[routes]
usa = ["topics.usa", "lake.usa"]
alerts = "topics.alerts"
other = "topics.other"

[dead_letter]
to = "topics.dead_letters"

[sinks.lake.files]
path = "out"
format = "jsonl"
provenance = false

[sinks.topics.kafka]
brokers = "${WEIR_TEST_KAFKA}"
commit = { rows = 300 }
targets.usa.topic = "usa-NAME"
targets.alerts.topic = "alerts-NAME"
targets.other.topic = "other-NAME"
targets.dead_letters.topic = "dead-NAME"
"#;

const RECORDS: usize = 3_000;

/// A pipeline in a directory of its own, with topics of its own.
struct Pipeline {
    dir: TempDir,
    name: String,
}

impl Pipeline {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pipeline = Self { dir, name: format!("topics-{}", Nonce::random().short()) };
        fs::create_dir(pipeline.path("input")).expect("writable");
        fs::copy(env!("WEIR_CUSTOMERS_WASM"), pipeline.path("customers.wasm")).expect("writable");
        fs::write(pipeline.path("us_cities.csv"), "city\nBoston\nAustin\n").expect("writable");
        fs::write(pipeline.path("pipeline.toml"), FILE.replace("NAME", &pipeline.name)).expect("writable");
        let rows: String = (0..RECORDS)
            .map(|n| {
                let place = ["Boston", "Lyon", "austin, Texas", ""][n % 4];
                let age = if n % 50 == 0 { "old".to_owned() } else { (n % 90).to_string() };
                format!("c{n},Ada,Lovelace,{n}@example.com,{age},\"{place}\"\n")
            })
            .collect();
        let text = format!("id,first_name,last_name,email,age,location\n{rows}");
        fs::write(pipeline.path("input/a.csv"), text).expect("writable");
        pipeline
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, kill_at: Option<&str>) -> Output {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(["run", "--once"]).arg(self.path("pipeline.toml"));
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        weir.envs(kill_at.map(|point| ("WEIR_KILL_AT", point)));
        weir.output().expect("the program starts")
    }

    fn finish(&self) {
        let output = self.run(None);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn records(&self, target: &str) -> Vec<Seen> {
        records_of(&format!("{target}-{}", self.name))
    }

    /// Every record is in one topic once, and in that of customers are the bytes of the files.
    fn check(&self) {
        let usa: Vec<_> = self.records("usa").into_iter().map(|r| r.value.expect("it has one")).collect();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for file in fs::read_dir(self.path("out/usa")).expect("it is there") {
            let text = fs::read(file.expect("readable").path()).expect("readable");
            lines.extend(text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
        }
        let set = |rows: &[Vec<u8>]| rows.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!((usa.len(), set(&usa)), (lines.len(), set(&lines)));
        let all = ["usa", "alerts", "other", "dead"].map(|target| self.records(target));
        let offsets: Vec<String> = all
            .iter()
            .flatten()
            .map(|record| {
                let value = record.headers.iter().find(|(name, _)| name == "weir-origin");
                String::from_utf8(value.and_then(|(_, v)| v.clone()).expect("it says so")).expect("text")
            })
            .collect();
        let distinct: BTreeSet<_> = offsets.iter().collect();
        assert_eq!((offsets.len(), distinct.len()), (RECORDS, RECORDS));
    }
}

#[test]
fn every_record_is_in_one_topic_once_and_as_in_a_file() {
    let pipeline = Pipeline::new();
    pipeline.finish();
    pipeline.check();
    // Again, and nothing is new.
    pipeline.finish();
    pipeline.check();
}

/// In a build with the places where it can be killed.
#[test]
fn a_program_that_is_killed_in_a_transaction_goes_on_where_it_stood() {
    // The first transaction is that of the claim.
    for point in ["kafka.after_rows:2", "kafka.before_commit:3", "kafka.after_commit:2"] {
        let pipeline = Pipeline::new();
        let killed = pipeline.run(Some(point));
        assert!(!cfg!(feature = "failpoints") || !killed.status.success(), "{point} was not hit");
        pipeline.finish();
        pipeline.check();
    }
}
