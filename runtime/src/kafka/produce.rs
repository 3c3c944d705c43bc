//! Sending records to a topic, each confirmed. Order within a partition is kept, and a record that had to be sent again
//! is not there twice.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::{Cluster, Error};

/// How long the client gathers records before it sends them.
const LINGER_MS: &str = "20";

/// Each record without a key goes to a partition of its own choice. By default the client keeps to one of them for 10 ms, in
/// which a file may be over.
const SPREAD: (&str, &str) = ("sticky.partitioning.linger.ms", "0");

/// How long to wait at a time while the client's queue is full.
const ROOM: Duration = Duration::from_millis(10);

/// How records are packed on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip.
    Gzip,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// What became of what was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Records that all replicas in sync have.
    pub confirmed: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records of which that is not known.
    pub unconfirmed: u64,
    /// Why the first of those is not.
    pub first_error: Option<String>,
}

/// Sends records to one topic.
pub struct Sender {
    cluster: Cluster,
    topic: String,
    producer: BaseProducer<Counts>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Is told of every record how it ended.
#[derive(Default)]
struct Counts(Mutex<Sent>);

impl ClientContext for Counts {}

impl ProducerContext for Counts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut sent = self.0.lock().expect("nobody panics with the counts in hand");
        match result {
            Ok(message) => {
                sent.confirmed += 1;
                sent.bytes += message.payload_len() as u64;
            }
            Err((error, _)) => {
                sent.unconfirmed += 1;
                sent.first_error.get_or_insert_with(|| super::lower(&error.to_string()));
            }
        }
    }
}

impl Sender {
    /// A sender to `topic`. A record with a key goes to the partition that Java clients give it (murmur2); those without
    /// are spread over all.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`].
    pub fn new(cluster: &Cluster, topic: &str, compression: Compression) -> Result<Self, Error> {
        let producer = cluster
            .config_over(&[SPREAD])
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", LINGER_MS)
            .set("batch.size", "1000000")
            .set("partitioner", "murmur2_random")
            .set("compression.type", compression.name())
            .create_with_context(Counts::default());
        let producer = cluster.set_up(producer)?;
        Ok(Self { cluster: cluster.clone(), topic: topic.to_owned(), producer })
    }

    /// Hands a record to the client, which sends it in its own time. Waits while too many are on their way.
    ///
    /// # Errors
    /// [`Error::Refused`] for a record that can never be sent, such as a larger one than the client takes.
    pub fn send(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Error> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic);
        record.key = key;
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    // Else the reports of what is confirmed pile up, and fill the queue.
                    self.producer.poll(Duration::ZERO);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    self.producer.poll(ROOM);
                }
                Err((error, _)) => {
                    return Err(self
                        .cluster
                        .failed(format!("sending a record to topic {}", self.topic), &error));
                }
            }
        }
    }

    /// Lets time pass while reports come in.
    pub fn wait(&self, time: Duration) {
        self.producer.poll(time);
    }

    /// How many records are on their way, or wait for it.
    pub fn under_way(&self) -> u64 {
        u64::try_from(self.producer.in_flight_count()).unwrap_or_default()
    }

    /// What became of the records so far.
    pub fn sent(&self) -> Sent {
        self.producer.context().0.lock().expect("nobody panics with the counts in hand").clone()
    }
}
