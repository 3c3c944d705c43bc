//! The cluster of the bench: topics made, filled, counted and deleted. It is no part of what is measured, but for the
//! settings of clients.

use std::time::{Duration, Instant};

use crossbeam_channel::after;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use weir::kafka::Cluster;
use weir::kafka::topics::Shape;

use crate::job::Job;

/// Of every topic that is read or written.
pub(crate) const PARTITIONS: u16 = 4;

/// For a cluster to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where it is.
#[derive(Clone, Debug)]
pub(crate) struct Broker(pub(crate) String);

impl Broker {
    /// What every client is told.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.0);
        config
    }

    /// Whether it was not there before.
    pub(crate) fn create(&self, topic: &str) -> bool {
        let cluster = Cluster::new(&self.0, Default::default()).expect("no properties are fine");
        let shape = Shape { partitions: Some(PARTITIONS), replication: Some(1) };
        cluster.create(topic, shape).expect("the cluster makes a topic")
    }

    /// Deletes those topics that begin so.
    pub(crate) fn delete(&self, prefix: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        let known = admin.inner().fetch_metadata(None, PATIENCE).expect("the cluster answers");
        let names: Vec<_> =
            known.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(prefix)).collect();
        if names.is_empty() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(admin.delete_topics(&names, &AdminOptions::new())).expect("the cluster answers");
    }

    /// A topic with the first `n` customers of the job, of which every fourth is in the same partition.
    pub(crate) fn fill(&self, job: &Job, n: u64) -> String {
        let topic = format!("bench-customers-{n}");
        if !self.create(&topic) {
            let there = self.records(&topic);
            assert!(there == n, "{topic} has {there} records of an earlier bench: delete it");
            return topic;
        }
        let producer = self.producer("20");
        job.customers(n, |i, customer| send(&producer, &topic, to(i), customer.as_bytes()));
        producer.flush(PATIENCE).expect("the cluster takes the records");
        assert!(self.records(&topic) == n, "{topic} has all records");
        topic
    }

    /// A producer by which no record is lost or doubled.
    pub(crate) fn producer(&self, linger_ms: &str) -> BaseProducer {
        let mut config = self.config();
        config.set("acks", "all").set("enable.idempotence", "true");
        config.set("linger.ms", linger_ms).set("batch.size", "1000000");
        config.create().expect("a client")
    }

    /// A reader of what is committed in all of a topic, from its first record on.
    pub(crate) fn reader(&self, topic: &str, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", "bench").set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let reader: BaseConsumer = config.create().expect("a client");
        let mut places = TopicPartitionList::new();
        for partition in 0..i32::from(PARTITIONS) {
            places.add_partition_offset(topic, partition, Offset::Beginning).expect("a place");
        }
        reader.assign(&places).expect("an assignment");
        reader
    }

    /// How many records of a topic are committed.
    pub(crate) fn records(&self, topic: &str) -> u64 {
        let reader = self.reader(topic, &[("enable.partition.eof", "true")]);
        let (mut records, mut ended) = (0, 0);
        while ended < PARTITIONS {
            match reader.poll(PATIENCE).expect("the cluster answers") {
                Ok(_) => records += 1,
                Err(KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => panic!("{topic}: {error}"),
            }
        }
        records
    }

    /// Looks for the first record of a topic, and fetches hardly more than that.
    pub(crate) fn peephole(&self, topic: &str) -> BaseConsumer {
        let least =
            [("fetch.wait.max.ms", "10"), ("fetch.message.max.bytes", "1000"), ("queued.min.messages", "1")];
        self.reader(topic, &least)
    }
}

/// Where the `i`th record goes.
pub(crate) fn to(i: u64) -> i32 {
    (i % u64::from(PARTITIONS)) as i32
}

/// Hands a record to the client; waits while too many are on their way.
pub(crate) fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &[u8]) {
    let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                record = again;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => panic!("{topic}: {error}"),
        }
    }
    producer.poll(Duration::ZERO);
}

/// Waits until record `i` is due, where so many are to go out in a second from `begun` on.
pub(crate) fn wait_until_due(begun: Instant, per_second: u64, i: u64) {
    let due = Duration::from_micros(i * 1_000_000 / per_second);
    let left = due.saturating_sub(begun.elapsed());
    if !left.is_zero() {
        // To poll the client for that long would keep a processor busy: it does not wait for less than a millisecond.
        after(left).recv().expect("it is sent once");
    }
}

/// Whether the peephole shows something.
pub(crate) fn shows(peephole: &BaseConsumer) -> bool {
    peephole.poll(Duration::ZERO).is_some_and(|polled| polled.is_ok_and(|record| record.payload().is_some()))
}
