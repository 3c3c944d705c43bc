//! What takes real servers, through the program as it is. `runtime/check` brings them up; by hand:
//!
//! `cargo run -p weir-services -- run kafka pgbouncer hdfs --datanodes 3 -- cargo test -p weir --features servers --test servers`

#[cfg(target_os = "linux")]
mod customers;
mod damage;
mod group;
#[cfg(target_os = "linux")]
mod hdfs;
mod kafka;
mod letters;
#[cfg(target_os = "linux")]
mod network;
mod postgres;
mod refused;
mod replay;
mod swap;
mod topics;
mod trouble;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir::kafka::peek::{From, Seen, peek};
use weir::kafka::{Cluster, Error};
use weir_services::{Interrupt, kafka_client, until};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(300);

/// Where a server is, as `weir-services` says it.
fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: cargo run -p weir-services -- run kafka pgbouncer hdfs --datanodes 3 -- \
             cargo test -p weir --features servers --test servers"
        )
    })
}

/// All records of a topic, as the program reads them.
fn records_of(topic: &str) -> Vec<Seen> {
    let cluster = Cluster::new(given("WEIR_TEST_KAFKA"), BTreeMap::new()).expect("an address");
    // A topic that was made a moment ago may be on its way to who leads it: then nobody can say what is in it.
    let look = || {
        let mut records = Vec::new();
        let each = &mut |record| {
            records.push(record);
            true
        };
        match peek(&cluster, topic, None, From::Start, each) {
            Ok(()) => Ok(Some(records)),
            Err(Error::Unreachable { .. }) => Ok(None),
            Err(error) => panic!("{error}"),
        }
    };
    let records = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
    records.expect("the cluster answers")
}

/// Writes all records of topics to a file each, as lines of JSON. It shares nothing with the program: Kafka's own client reads
/// them, one topic after the other.
fn fetch_topics(topics: impl IntoIterator<Item = (String, PathBuf)>) {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit/Topics.java");
    let mut reader = kafka_client(&reader).expect("Kafka's jars are there");
    reader.arg(given("WEIR_TEST_KAFKA"));
    reader.args(topics.into_iter().map(|(topic, file)| format!("{topic}={}", file.display())));
    let output = reader.output().expect("Java is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
