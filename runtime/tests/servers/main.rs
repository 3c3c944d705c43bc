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

use weir::kafka::Cluster;
use weir::kafka::peek::{From, Seen, peek};

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
    let mut records = Vec::new();
    let each = &mut |record| {
        records.push(record);
        true
    };
    peek(&cluster, topic, None, From::Start, each).expect("it is there");
    records
}
