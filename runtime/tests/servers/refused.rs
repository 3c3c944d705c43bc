//! Rows that a table refused, and that go through their pipeline again once it takes them, on real servers: each arrives once
//! there, and nothing else changes anywhere.

use std::fs;

use serde_json::{Value, json};

use crate::postgres::ask;
use crate::replay::{FILE, ONE_OF, Pipeline as OnKafka, RECORDS, Said};

const BASE: &str = r#"
[sinks.base.postgres]
url = "${WEIR_TEST_POSTGRES}"
schema = "NAME"
"#;

/// The pipeline whose letters come again, with tables in front of its other sinks.
fn file() -> String {
    let usa = r#"usa = ["lake.usa", "topics.usa"]"#;
    let with_tables = r#"usa = ["base.usa", "base.copy", "topics.usa", "lake.usa"]"#;
    FILE.replace(usa, with_tables) + BASE
}

/// A table that takes nobody who is so old.
const OLD: usize = 60;

struct Pipeline {
    on_kafka: OnKafka,
    schema: String,
}

/// All that sinks have.
#[derive(Debug, PartialEq)]
struct All {
    table: Vec<String>,
    copy: Vec<String>,
    topics: Said,
    files: Said,
    dead: usize,
}

impl Pipeline {
    fn new() -> Self {
        let on_kafka = OnKafka::of(&file());
        let schema = format!("\"{}\"", on_kafka.name);
        let pipeline = Self { on_kafka, schema };
        let columns = "id text, first_name text, last_name text, age bigint, email text, country text, weir_topic text, \
                       weir_partition integer, weir_offset bigint, weir_index integer, weir_plan bigint, weir_attempt integer";
        let schema = &pipeline.schema;
        ask("public", &format!("CREATE SCHEMA {schema}"));
        pipeline.ask(&format!("CREATE TABLE usa ({columns}, CONSTRAINT young CHECK (age < {OLD}))"));
        pipeline
    }

    fn ask(&self, sql: &str) -> Vec<String> {
        ask(&self.schema, sql)
    }

    fn loosen(&self) {
        self.ask("ALTER TABLE usa DROP CONSTRAINT young");
    }

    fn replay(&self, stage: &str) -> Value {
        let (code, said) = self.on_kafka.replay(&["--yes", "--stage", stage]);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// What `weir explain` says of the record of a refused row.
    fn explain(&self, reject: &str) -> (Option<i32>, Value) {
        let record = reject.split('|').take(3).collect::<Vec<_>>().join("/");
        let mut weir = self.on_kafka.weir();
        weir.args(["explain", "--json"]).arg(self.on_kafka.path("pipeline.toml")).arg(record);
        let output = weir.output().expect("the program starts");
        (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    fn rejects(&self) -> Vec<String> {
        self.ask(
            "SELECT weir_topic, weir_partition, weir_offset, weir_index, target, sqlstate, weir_attempt FROM weir_reject \
             WHERE target = 'usa' ORDER BY weir_attempt NULLS FIRST, weir_topic, weir_partition, weir_offset",
        )
    }

    fn all(&self) -> All {
        let rows = |table: &str| {
            self.ask(&format!(
                "SELECT weir_topic, weir_partition, weir_offset, weir_index, id, age, weir_attempt FROM {table} \
                 ORDER BY weir_partition, weir_offset"
            ))
        };
        All {
            table: rows("usa"),
            copy: rows("copy"),
            topics: self.on_kafka.said("topics"),
            files: self.on_kafka.said("lake"),
            dead: self.on_kafka.letters().len(),
        }
    }

    /// Puts another text in the place of a part of the pipeline file.
    fn change(&self, from: &str, to: &str) {
        let file = self.on_kafka.path("pipeline.toml");
        let text = fs::read_to_string(&file).expect("readable");
        assert!(text.contains(from));
        fs::write(file, text.replace(from, to)).expect("writable");
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        ask("public", &format!("DROP SCHEMA {} CASCADE", self.schema));
    }
}

/// How many rows the table refuses: of customers that are American, and of a number of years.
fn n_refused() -> usize {
    (0..RECORDS).filter(|n| n % 2 == 0 && n % ONE_OF != 0 && n % 90 >= OLD).count()
}

fn copied(copied: usize, there: usize, spent: usize) -> Value {
    json!({ "copied": copied, "there": there, "spent": spent, "too_large": [], "gone": [] })
}

/// The rows of a table with what the others of the same records have besides: where a row came first, and at which attempt.
fn completed(all: All, attempt: u16) -> All {
    let of = |row: &String| row.rsplit_once('|').expect("columns").0.to_owned();
    let had: Vec<String> = all.table.iter().map(of).collect();
    let rows = all.copy.iter().map(|row| match had.contains(&of(row)) {
        true => row.clone(),
        false => format!("{}|{attempt}", of(row)),
    });
    All { table: rows.collect(), ..all }
}

#[test]
fn a_row_that_was_refused_arrives_once_in_its_table_and_nothing_else_changes_anywhere() {
    let pipeline = Pipeline::new();
    pipeline.on_kafka.run(&[]);
    let n = n_refused();
    let (before, rejects) = (pipeline.all(), pipeline.rejects());
    assert_eq!((rejects.len(), before.copy.len() - before.table.len()), (n, n));
    assert!(n > 20 && before.dead == RECORDS / ONE_OF, "{n}, {}", before.dead);
    assert!(rejects.iter().all(|reject| reject.ends_with("|0|usa|23514|")), "{rejects:?}");

    pipeline.loosen();
    assert_eq!(pipeline.replay("sink"), copied(n, 0, 0));
    assert_eq!(pipeline.replay("sink"), copied(0, n, 0));
    let said = pipeline.on_kafka.run(&[]);
    assert_eq!((&said["records"], &said["conserved"]), (&n.into(), &true.into()), "{said}");
    assert_eq!(
        (&said["routed"]["usa"], &said["counters"]["elsewhere"]),
        (&n.into(), &(2 * n).into()),
        "{said}"
    );
    let expected = completed(before, 1);
    assert_eq!(pipeline.all(), expected);
    assert_eq!(pipeline.rejects(), rejects);

    assert_eq!(pipeline.replay("sink"), copied(0, n, 0));
    assert_eq!(pipeline.on_kafka.run(&[])["records"], 0);
    assert_eq!(pipeline.all(), expected);

    // The record is as it should be: one row is there since it came again.
    let (code, said) = pipeline.explain(&rejects[0]);
    assert_eq!((code, &said["fate"]), (Some(0), &"routed".into()), "{said}");
    assert_eq!(
        (&said["later"][0]["attempt"], &said["later"][0]["fate"]),
        (&1.into(), &"routed".into()),
        "{said}"
    );
}

#[test]
fn a_row_that_is_refused_again_says_the_next_attempt_until_there_are_enough() {
    let pipeline = Pipeline::new();
    pipeline.on_kafka.run(&[]);
    let (n, before) = (n_refused(), pipeline.all());
    for attempt in 1..=2 {
        let there = (attempt - 1) * n;
        assert_eq!(pipeline.replay("sink"), copied(n, there, 0));
        pipeline.on_kafka.run(&[]);
        let rejects = pipeline.rejects();
        assert_eq!(rejects.len(), (attempt + 1) * n);
        let last = rejects.iter().filter(|reject| reject.ends_with(&format!("|0|usa|23514|{attempt}")));
        assert_eq!(last.count(), n, "{rejects:?}");
    }
    assert_eq!(pipeline.all(), before);
    assert_eq!(pipeline.replay("sink"), copied(0, 2 * n, n));
}

#[test]
fn where_the_rule_makes_no_such_row_any_more_its_record_is_a_letter_that_is_still_meant_for_that_row_alone() {
    const BOUND: &str = r#"usa = ["base.usa", "base.copy","#;
    let pipeline = Pipeline::new();
    pipeline.on_kafka.run(&[]);
    let (n, before) = (n_refused(), pipeline.all());
    pipeline.loosen();
    assert_eq!(pipeline.replay("sink"), copied(n, 0, 0));
    pipeline.change(BOUND, r#"usa = ["base.copy","#);
    let said = pipeline.on_kafka.run(&["--adopt"]);
    assert_eq!(
        (&said["rejected"]["row-not-made"], &said["counters"]["elsewhere"]),
        (&n.into(), &0.into()),
        "{said}"
    );
    let dead = before.dead + n;
    let without = All { dead, ..before };
    assert_eq!(pipeline.all(), without);
    let (_, said) = pipeline.explain(&pipeline.rejects()[0]);
    assert_eq!(
        (&said["later"][0]["attempt"], &said["later"][0]["fate"]),
        (&1.into(), &"rejected".into()),
        "{said}"
    );

    pipeline.change(r#"usa = ["base.copy","#, BOUND);
    let (code, said) = pipeline.on_kafka.replay(&["--yes", "--reason", "row-not-made"]);
    assert_eq!((code, said), (Some(0), copied(n, 0, 0)));
    pipeline.on_kafka.run(&["--adopt"]);
    assert_eq!(pipeline.all(), completed(without, 2));
}
