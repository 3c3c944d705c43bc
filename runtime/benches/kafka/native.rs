//! What Weir is measured against: the client alone, and the same job as one would write it by hand for this one rule. Both
//! have the settings of Weir's own clients. Neither remembers where it was: killed, it loses records, or doubles them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::{BaseProducer, Producer};
use serde::{Deserialize, Serialize};
use weir::kafka::member;

use crate::broker::{Broker, send};
use crate::job::ROUTES;

const PATIENCE: Duration = Duration::from_secs(30);

/// Records between two looks at what was confirmed: each look costs a call.
const LOOK_EVERY: u64 = 512;

/// Reads `n` records and does nothing with them.
pub(crate) fn floor(broker: &Broker, topic: &str, n: u64) {
    let reader = broker.reader(topic, member::DEFAULTS);
    let bytes: u64 = (0..n).map(|_| take(&reader, |_, value| value.len() as u64)).sum();
    assert!(bytes > n, "records have values");
}

/// Reads `n` records and writes them, by the rule, to the topics of its routes.
pub(crate) fn native(broker: &Broker, topic: &str, n: u64, cities: &Path, outputs: &str) {
    let cities = fs::read_to_string(cities).expect("it was just written");
    let cities: HashSet<&str> = cities.lines().skip(1).collect();
    let [usa, alerts, other] = ROUTES.map(|route| format!("{outputs}.{route}"));
    let reader = broker.reader(topic, member::DEFAULTS);
    let producer = producer(broker);
    let mut row = Vec::new();
    for i in 0..n {
        take(&reader, |partition, value| match fate(value, &cities, &mut row) {
            Some(true) => send(&producer, &usa, partition, &row),
            Some(false) => send(&producer, &other, partition, value),
            None => send(&producer, &alerts, partition, value),
        });
        if i % LOOK_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE).expect("the cluster takes the records");
}

/// As the Kafka sink has it, but for the transactions.
fn producer(broker: &Broker) -> BaseProducer {
    let mut config = broker.config();
    config.set("acks", "all").set("enable.idempotence", "true").set("compression.type", "lz4");
    config.set("linger.ms", "2").set("batch.size", "1000000");
    config.create().expect("a client")
}

fn take<T>(reader: &BaseConsumer, each: impl FnOnce(i32, &[u8]) -> T) -> T {
    let record = reader.poll(PATIENCE).expect("there are as many as were asked for").expect("it can be read");
    each(record.partition(), record.payload().expect("records have values"))
}

#[derive(Deserialize)]
struct Customer<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    first_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    last_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    email: Option<Cow<'a, str>>,
    #[serde(borrow)]
    age: Option<Cow<'a, str>>,
    #[serde(borrow)]
    location: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Usa<'a> {
    id: &'a str,
    first_name: Option<&'a str>,
    last_name: Option<&'a str>,
    age: Option<i64>,
    email: Option<&'a str>,
    country: &'a str,
}

/// Whether it is American, with the row if it is; `None`: it says of itself neither.
fn fate(value: &[u8], cities: &HashSet<&str>, row: &mut Vec<u8>) -> Option<bool> {
    let customer: Customer<'_> = serde_json::from_slice(value).ok()?;
    let place = customer.location.as_deref().filter(|place| !place.is_empty())?;
    let city = place.split(',').next().unwrap_or(place).trim().to_uppercase();
    let (Some(id), true) = (customer.id.as_deref(), cities.contains(&*city)) else { return Some(false) };
    row.clear();
    let usa = Usa {
        id,
        first_name: customer.first_name.as_deref(),
        last_name: customer.last_name.as_deref(),
        age: customer.age.as_deref().and_then(|age| age.parse().ok()),
        email: customer.email.as_deref(),
        country: "USA",
    };
    serde_json::to_writer(row, &usa).expect("memory takes a row");
    Some(true)
}
