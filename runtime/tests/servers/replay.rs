//! Dead letters that go through their pipeline again, on a real Kafka: each arrives once in every sink, as the record that it
//! is, and whatever else was there stays as it was.

#[cfg(feature = "failpoints")]
mod deaths;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use weir::app::replay::{Copied, Letter, Selected, replay};
use weir::config::PipelineConfig;
use weir::kafka::peek::Seen;
use weir::offset::{Offset, TopicPartition};
use weir::origin::{Origin, replay_topic};
use weir::plan::History;
use weir::sink::state::Nonce;

use crate::{given, records_of};

pub(crate) const FILE: &str = r#"
[pipeline]
name = "NAME"
state = "state"

[source.kafka]
brokers = "${WEIR_TEST_KAFKA}"
topics = ["raw-NAME"]

[transform]
component = "customers.wasm"
settings = { on_bad_age = "reject" }
tables.us_cities = { file = "us_cities.csv" }

[routes]
usa = ["lake.usa", "topics.usa"]
alerts = ["lake.alerts", "topics.alerts"]
other = ["lake.other", "topics.other"]

[dead_letter]
to = "topics.dead_letters"
max_attempts = 2

[sinks.lake.files]
path = "out"
format = "jsonl"

[sinks.topics.kafka]
brokers = "${WEIR_TEST_KAFKA}"
targets.usa.topic = "usa-NAME"
targets.alerts.topic = "alerts-NAME"
targets.other.topic = "other-NAME"
targets.dead_letters.topic = "dead-NAME"
"#;

pub(crate) const RECORDS: usize = 400;

/// Of so many records one has an age that is none.
pub(crate) const ONE_OF: usize = 10;

/// A pipeline with topics of its own, to which records were sent.
pub(crate) struct Pipeline {
    dir: TempDir,
    pub(crate) name: String,
}

/// What a row says of the record that it comes from: the attempt by its topic, partition and offset.
pub(crate) type Said = BTreeMap<(String, i64, i64), Vec<i64>>;

impl Pipeline {
    fn new() -> Self {
        Self::of(FILE)
    }

    /// Customers, American every other time, of 0 to 89 years.
    pub(crate) fn of(file: &str) -> Self {
        let age = |n: usize| if n.is_multiple_of(ONE_OF) { "old".to_owned() } else { (n % 90).to_string() };
        Self::with(file, (0..RECORDS).map(|n| (age(n), ["Boston", "Lyon"][n % 2])))
    }

    /// Customers, each of an age and from a place.
    fn with(file: &str, customers: impl Iterator<Item = (String, &'static str)>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pipeline = Self { dir, name: format!("again-{}", Nonce::random().short()) };
        fs::copy(env!("WEIR_CUSTOMERS_WASM"), pipeline.path("customers.wasm")).expect("writable");
        fs::write(pipeline.path("us_cities.csv"), "city\nBoston\nAustin\n").expect("writable");
        fs::write(pipeline.path("pipeline.toml"), file.replace("NAME", &pipeline.name)).expect("writable");
        let row = |(n, (age, place))| format!("c{n},Ada,Lovelace,{n}@example.com,{age},{place}\n");
        let rows: String = customers.enumerate().map(row).collect();
        let text = format!("id,first_name,last_name,email,age,location\n{rows}");
        pipeline.send("raw", "csv", &["--create", "--partitions", "3", "--key", "id"], &text);
        pipeline
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn weir(&self) -> Command {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).env("WEIR_BROKERS", given("WEIR_TEST_KAFKA"));
        weir
    }

    fn send(&self, topic: &str, format: &str, more: &[&str], text: &str) {
        let topic = if topic == "raw" { format!("raw-{}", self.name) } else { topic.to_owned() };
        let program = self
            .weir()
            .args(["produce", "-", "--format", format, "--topic", &topic])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut program = program.expect("the program starts");
        program.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
        assert!(program.wait().expect("it ends").success());
    }

    /// Runs it to the end of what is there, and returns what the program says of it.
    pub(crate) fn run(&self, more: &[&str]) -> Value {
        let mut weir = self.weir();
        weir.args(["run", "--once", "--json"]).args(more).arg(self.path("pipeline.toml"));
        let output = weir.output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    /// From now on an age that is none is no age.
    fn mend(&self) {
        let file = self.path("pipeline.toml");
        let text = fs::read_to_string(&file).expect("readable");
        fs::write(file, text.replace(r#"on_bad_age = "reject""#, r#"on_bad_age = "null""#))
            .expect("writable");
    }

    /// As people do it.
    pub(crate) fn replay(&self, more: &[&str]) -> (Option<i32>, Value) {
        let output = self.replaying(more).output().expect("the program starts");
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn replaying(&self, more: &[&str]) -> Command {
        let mut weir = self.weir();
        weir.args(["dlq", "replay", "--json"]).args(more).arg(self.path("pipeline.toml"));
        weir
    }

    /// How many letters say that they were sent again.
    fn sent(&self) -> u64 {
        let output = self.weir().args(["dlq", "ls", "--json"]).arg(self.path("pipeline.toml")).output();
        let output = output.expect("the program starts");
        let told: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let groups = told["groups"].as_array().expect("groups").iter();
        groups.map(|group| group["sent"].as_u64().expect("it is known")).sum()
    }

    fn copy(&self, letters: Vec<Letter>) -> Copied {
        let config = PipelineConfig::load(&self.path("pipeline.toml")).expect("it can be read");
        let letters = letters.into_iter().map(|letter| Ok(Selected::Letter(letter)));
        replay(&config, &History::default(), letters).expect("the cluster answers")
    }

    pub(crate) fn records(&self, target: &str) -> Vec<Seen> {
        records_of(&format!("{target}-{}", self.name))
    }

    /// In the order of the records: the partitions of a topic come as they arrive.
    pub(crate) fn letters(&self) -> Vec<Letter> {
        let mut letters: Vec<_> = self.records("dead").into_iter().map(letter).collect();
        letters.sort_by_key(|letter| letter.origin.clone());
        letters
    }

    /// What the rows say in the topics, or in the files.
    pub(crate) fn said(&self, sink: &str) -> Said {
        let mut said = Said::new();
        for target in ["usa", "alerts", "other"] {
            if sink == "topics" {
                for record in self.records(target) {
                    let Origin { at, offset, attempt } = letter(record).origin;
                    let place = (at.topic.to_string(), at.partition.into(), offset.get());
                    said.entry(place).or_default().push(attempt.into());
                }
                continue;
            }
            let files = fs::read_dir(self.path("out").join(target)).into_iter().flatten();
            for file in files {
                let text = fs::read_to_string(file.expect("readable").path()).expect("readable");
                for row in text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
                    let number = |name: &str| row[name].as_i64().unwrap_or_default();
                    let topic = row["weir_topic"].as_str().expect("a text").to_owned();
                    let place = (topic, number("weir_partition"), number("weir_offset"));
                    said.entry(place).or_default().push(number("weir_attempt"));
                }
            }
        }
        said
    }
}

/// A record that a Kafka sink wrote, as the record that it comes from.
fn letter(seen: Seen) -> Letter {
    let header = |name: &str| {
        let found = seen.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| String::from_utf8(value.clone().expect("it has one")).expect("text"))
    };
    let origin = header("weir-origin").expect("each has one");
    let parts: Vec<_> = origin.split('/').collect();
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let at = TopicPartition::new(parts[0], number(parts[1]) as i32);
    let attempt = header("weir-attempt").map_or(0, |text| number(&text) as u16);
    let own = seen.headers.into_iter().filter(|(name, _)| !name.starts_with("weir-"));
    Letter {
        origin: Origin { at, offset: Offset::new(number(parts[2])), attempt },
        meant: None,
        key: seen.key,
        value: seen.value,
        headers: own.collect(),
        timestamp_ms: seen.timestamp_ms,
    }
}

fn attempts(letters: &[Letter]) -> Vec<u16> {
    let mut attempts: Vec<_> = letters.iter().map(|letter| letter.origin.attempt).collect();
    attempts.sort_unstable();
    attempts
}

#[test]
fn letters_that_are_replayed_arrive_once_in_every_sink_as_the_records_that_they_are() {
    const BAD: usize = RECORDS / ONE_OF;
    let pipeline = Pipeline::new();
    pipeline.run(&[]);
    let letters = pipeline.letters();
    assert_eq!(attempts(&letters), [0; BAD]);
    let before = pipeline.said("topics");
    assert_eq!((before.len(), &pipeline.said("lake")), (RECORDS - BAD, &before));

    assert_eq!(pipeline.replay(&[]), (Some(1), Value::Null), "nobody said yes");
    let said = |copied: usize, there: usize| {
        (Some(0), json!({ "copied": copied, "there": there, "spent": 0, "too_large": [], "gone": [] }))
    };
    assert_eq!(pipeline.replay(&["--yes", "--reason", "none-of-these"]), said(0, 0));
    let one = letters[0].origin.offset.to_string();
    let (topic, partition) = (&*letters[0].origin.at.topic, letters[0].origin.at.partition.to_string());
    let only = [
        "--yes",
        "--topic",
        topic,
        "--partition",
        &partition,
        "--offsets",
        &format!("{one}..{}", letters[0].origin.offset.get() + 1),
    ];
    assert_eq!(pipeline.sent(), 0, "there is no replay input yet");
    assert_eq!(pipeline.replay(&only), said(1, 0));
    assert_eq!(pipeline.sent(), 1);
    assert_eq!(pipeline.replay(&["--yes"]), said(BAD - 1, 1));
    assert_eq!(pipeline.replay(&["--yes"]), said(0, BAD));
    assert_eq!(pipeline.sent(), BAD as u64);
    pipeline.mend();
    pipeline.run(&["--adopt"]);
    // Also whoever starts again finds nothing new.
    pipeline.run(&[]);

    let mut expected = before;
    for Letter { origin: Origin { at, offset, .. }, .. } in &letters {
        assert!(
            expected.insert((at.topic.to_string(), at.partition.into(), offset.get()), vec![1]).is_none()
        );
    }
    assert_eq!(expected.len(), RECORDS);
    assert_eq!(pipeline.said("topics"), expected);
    assert_eq!(pipeline.said("lake"), expected);
    assert_eq!(pipeline.letters(), letters);

    // What came of it the second time is no fault of the first.
    let record = format!("{topic}/{partition}/{one}");
    let mut weir = pipeline.weir();
    weir.args(["explain", "--json"]).arg(pipeline.path("pipeline.toml")).arg(&record);
    let output = weir.output().expect("the program starts");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &said["fate"]), (Some(0), &"rejected".into()), "{said}");
    let rows = said["sinks"].as_array().expect("sinks").iter().flat_map(|sink| {
        let rows = sink["rows"].as_array().expect("rows").iter();
        rows.map(move |row| (sink["sink"].clone(), row["target"].clone(), row["attempt"].clone()))
    });
    let routed = ["usa", "other"]
        [(letters[0].value.as_deref().expect("JSON").windows(4).any(|at| at == b"Lyon")) as usize];
    let expected = [("lake", routed, 1), ("topics", routed, 1), ("topics", "dead_letters", 0)];
    let expected = expected.map(|(sink, target, attempt)| (json!(sink), json!(target), json!(attempt)));
    assert_eq!(rows.collect::<Vec<_>>(), expected, "{said}");
}

#[test]
fn a_letter_that_fails_again_says_the_next_attempt_until_there_are_enough() {
    const BAD: usize = RECORDS / ONE_OF;
    let pipeline = Pipeline::new();
    pipeline.run(&[]);
    let said = |copied: usize, there: usize, spent: usize| {
        (Some(0), json!({ "copied": copied, "there": there, "spent": spent, "too_large": [], "gone": [] }))
    };
    assert_eq!(pipeline.replay(&["--yes"]), said(BAD, 0, 0));
    pipeline.run(&[]);
    assert_eq!(attempts(&pipeline.letters()), [[0; BAD], [1; BAD]].concat());
    assert_eq!(pipeline.replay(&["--yes"]), said(BAD, BAD, 0));
    pipeline.run(&[]);
    assert_eq!(pipeline.replay(&["--yes"]), said(0, 2 * BAD, BAD));
    let of: Vec<_> =
        pipeline.letters().into_iter().map(|letter| (letter.origin.at, letter.origin.offset)).collect();
    assert_eq!((of.len(), of.iter().collect::<std::collections::BTreeSet<_>>().len()), (3 * BAD, BAD));
}

#[test]
fn what_is_no_envelope_in_the_replay_input_is_a_dead_letter_of_the_source_and_stops_nothing() {
    let pipeline = Pipeline::new();
    pipeline.run(&[]);
    let (before, topic) = (pipeline.records("dead").len(), replay_topic(&pipeline.name));
    let letters = pipeline.letters();
    pipeline.copy(letters[..1].to_vec());
    pipeline.send(&topic, "jsonl", &[], "{\"id\":\"7\"}\n");
    pipeline.copy(letters[1..2].to_vec());
    pipeline.mend();
    pipeline.run(&["--adopt"]);
    let mut dead = pipeline.records("dead");
    dead.retain(|record| record.headers.contains(&("weir-stage".to_owned(), Some(b"source".to_vec()))));
    assert_eq!((dead.len(), pipeline.records("dead").len()), (1, before + 1));
    let why = dead[0].headers.iter().find(|(name, _)| name == "weir-reasons").expect("it has one");
    assert!(String::from_utf8_lossy(why.1.as_deref().expect("a text")).contains("no-envelope"));
    let letter = letter(dead.remove(0));
    assert_eq!((&*letter.origin.at.topic, letter.origin.attempt), (&*topic, 0));
    assert_eq!(letter.value.as_deref(), Some(&b"{\"id\":\"7\"}"[..]));
    assert_eq!(pipeline.said("topics").values().filter(|attempts| **attempts == [1]).count(), 2);
}
