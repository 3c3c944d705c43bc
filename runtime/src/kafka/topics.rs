//! What topics a cluster has, and making one.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Cluster, Error, PATIENCE};
use crate::offset::Offset;

/// What is made where there is none.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Partitions; absent: what the cluster makes by default.
    pub partitions: Option<u16>,
    /// Copies of each record; absent: what the cluster makes by default.
    pub replication: Option<u16>,
}

impl Cluster {
    /// How many partitions a topic has.
    ///
    /// # Errors
    /// [`Error::NoTopic`], [`Error::Unreachable`], [`Error::Refused`].
    pub fn partitions(&self, topic: &str) -> Result<usize, Error> {
        self.partitions_by(&self.asker()?, topic)
    }

    /// A client that asks questions. It reads nothing and belongs to no group.
    pub(super) fn asker(&self) -> Result<BaseConsumer, Error> {
        let consumer = self.config().create();
        consumer.map_err(|error| self.failed("setting up a client of Kafka", &error))
    }

    pub(super) fn partitions_by(&self, asker: &BaseConsumer, topic: &str) -> Result<usize, Error> {
        let what = || format!("asking about topic {topic}");
        let metadata =
            asker.fetch_metadata(Some(topic), PATIENCE).map_err(|error| self.failed(what(), &error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
        match (found, error) {
            (Some(found), None) if !found.partitions().is_empty() => Ok(found.partitions().len()),
            (_, None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
                Err(Error::NoTopic { topic: topic.to_owned(), brokers: self.brokers.clone() })
            }
            (_, Some(code)) => Err(Error::Refused { what: what(), text: super::lower(&code.to_string()) }),
        }
    }

    /// From the first record of a partition that there is to behind the last one that is committed.
    pub(super) fn bounds(
        &self,
        asker: &BaseConsumer,
        topic: &str,
        partition: i32,
    ) -> Result<(Offset, Offset), Error> {
        let bounds = asker.fetch_watermarks(topic, partition, PATIENCE);
        let (low, high) = bounds.map_err(|error| {
            self.failed(format!("asking for the offsets of {topic} [{partition}]"), &error)
        })?;
        Ok((Offset::new(low), Offset::new(high)))
    }

    /// Makes a topic. Returns whether it was not there before.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`].
    pub fn create(&self, topic: &str, shape: Shape) -> Result<bool, Error> {
        let number = |n: Option<u16>| n.map_or(-1, i32::from);
        let replication = TopicReplication::Fixed(number(shape.replication));
        self.make(topic, &NewTopic::new(topic, number(shape.partitions), replication))
    }

    pub(super) fn make(&self, topic: &str, made: &NewTopic<'_>) -> Result<bool, Error> {
        let what = format!("making topic {topic}");
        let admin: AdminClient<DefaultClientContext> =
            self.config().create().map_err(|error| self.failed(what.as_str(), &error))?;
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("it takes nothing but memory");
        let ended = runtime.block_on(admin.create_topics([made], &options));
        let ended = ended.map_err(|error| self.failed(what.as_str(), &error))?;
        match ended.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(self.failed(what, &KafkaError::AdminOp(code))),
            Some(Ok(_)) | None => Ok(true),
        }
    }
}
