//! What topics a cluster has, and making one.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as Place, TopicPartitionList};

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

/// Where to begin in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first record that there is.
    Start,
    /// At this offset, or the first behind it that there is.
    At(Offset),
    /// At the first record that is not older, in milliseconds since 1970-01-01T00:00:00Z.
    Time(i64),
    /// So that this many offsets are left in each partition.
    Last(u64),
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
    pub(super) fn bounds<C: ConsumerContext>(
        &self,
        asker: &BaseConsumer<C>,
        topic: &str,
        partition: i32,
    ) -> Result<(Offset, Offset), Error> {
        let bounds = asker.fetch_watermarks(topic, partition, PATIENCE);
        let (low, high) = bounds.map_err(|error| {
            self.failed(format!("asking for the offsets of {topic} [{partition}]"), &error)
        })?;
        Ok((Offset::new(low), Offset::new(high)))
    }

    /// Where partitions of a topic begin, for who wants them from `from` on.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`].
    pub fn places(
        &self,
        topic: &str,
        partitions: &[i32],
        from: From,
    ) -> Result<BTreeMap<i32, Offset>, Error> {
        let asker = self.asker()?;
        let place = |partition: &i32| {
            let bounds = self.bounds(&asker, topic, *partition)?;
            Ok((*partition, self.place(&asker, topic, *partition, from, bounds)?))
        };
        partitions.iter().map(place).collect()
    }

    pub(super) fn place<C: ConsumerContext>(
        &self,
        asker: &BaseConsumer<C>,
        topic: &str,
        partition: i32,
        from: From,
        (low, high): (Offset, Offset),
    ) -> Result<Offset, Error> {
        Ok(match from {
            From::Start => low,
            From::At(at) => at.max(low),
            From::Last(n) => high.back(n).max(low),
            From::Time(ms) => {
                let mut asked = TopicPartitionList::new();
                let failed =
                    |error| self.failed(format!("looking for a time in {topic} [{partition}]"), &error);
                asked.add_partition_offset(topic, partition, Place::Offset(ms)).map_err(failed)?;
                let found = asker.offsets_for_times(asked, PATIENCE).map_err(failed)?;
                match found.elements().first().map(|found| found.offset()) {
                    Some(Place::Offset(at)) => Offset::new(at).max(low),
                    _ => high,
                }
            }
        })
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
