//! What topics a cluster has, and making one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset as Place, TopicPartitionList};

use super::{Cluster, Error, PATIENCE};
use crate::offset::{Offset, TopicPartition};

/// How many tenths of a second a topic may take to be known where it is asked for: a busy broker makes thousands of partitions
/// before that of ours.
const KNOWN_AFTER: u32 = 1_200;

/// What is made where there is none.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Partitions; absent: what the cluster makes by default.
    pub partitions: Option<u16>,
    /// Copies of each record; absent: what the cluster makes by default.
    pub replication: Option<u16>,
}

/// Of a partition, the first record that there is, and behind the last one that is committed.
pub type Bounds = Result<(Offset, Offset), Error>;

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
        self.ask(|asker| self.partitions_by(asker, topic))
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
                Err(Error::NoTopic { topic: topic.to_owned(), address: self.address.clone() })
            }
            (_, Some(code)) => Err(self.failed(what(), &KafkaError::MetadataFetch(code))),
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

    /// The same of many partitions at once: a question to each broker, and not one for each partition. It fails as a whole
    /// where a single leader does not answer, or answers with an error.
    pub(super) fn bounds_of<C: ConsumerContext>(
        &self,
        asker: &BaseConsumer<C>,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Bounds>, Error> {
        let low = self.offsets(asker, partitions, Place::Beginning)?;
        let high = self.offsets(asker, partitions, Place::End)?;
        let nothing = || Error::Unreachable {
            what: "asking for the offsets of a partition".to_owned(),
            address: self.address.clone(),
            text: "there is no answer for it".to_owned(),
        };
        let both = |(low, high): (Result<Option<Offset>, Error>, Result<Option<Offset>, Error>)| {
            Ok((low?.ok_or_else(nothing)?, high?.ok_or_else(nothing)?))
        };
        Ok(low.into_iter().zip(high).map(both).collect())
    }

    /// Of each partition the first or the last offset, or the first that is not older than a time, if there is one.
    fn offsets<C: ConsumerContext>(
        &self,
        asker: &BaseConsumer<C>,
        partitions: &[TopicPartition],
        what: Place,
    ) -> Result<Vec<Result<Option<Offset>, Error>>, Error> {
        let of = |at: &TopicPartition| format!("asking for the offsets of {at}");
        let Some(first) = partitions.first() else { return Ok(Vec::new()) };
        let failed = |error: &KafkaError| match partitions.len() {
            1 => self.failed(of(first), error),
            n => self.failed(format!("{} and of {} others", of(first), n - 1), error),
        };
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            let added = asked.add_partition_offset(&at.topic, at.partition, what);
            added.map_err(|error| failed(&error))?;
        }
        let found = asker.offsets_for_times(asked, PATIENCE).map_err(|error| failed(&error))?;
        let found = found.elements();
        let named =
            |found: &TopicPartitionListElem<'_>| TopicPartition::new(found.topic(), found.partition());
        let found: BTreeMap<_, _> = found.iter().map(|found| (named(found), found)).collect();
        let answer = |at: &TopicPartition| {
            let Some(found) = found.get(at) else { return Ok(None) };
            found.error().map_err(|error| self.failed(of(at), &error))?;
            Ok(match found.offset() {
                Place::Offset(at) => Some(Offset::new(at)),
                _ => None,
            })
        };
        Ok(partitions.iter().map(answer).collect())
    }

    /// Of each partition of a topic, in their order, the first record that there is, and behind the last one that is committed.
    ///
    /// # Errors
    /// [`Error::NoTopic`], [`Error::Unreachable`], [`Error::Refused`].
    pub fn extents(&self, topic: &str) -> Result<Vec<(Offset, Offset)>, Error> {
        self.ask(|asker| {
            let n = i32::try_from(self.partitions_by(asker, topic)?).unwrap_or(i32::MAX);
            let topic: Arc<str> = topic.into();
            let all: Vec<_> = (0..n).map(|partition| TopicPartition::new(topic.clone(), partition)).collect();
            self.bounds_of(asker, &all)?.into_iter().collect()
        })
    }

    /// Where partitions of a topic begin, for who wants them from `from` on.
    ///
    /// # Errors
    /// [`Error::NoTopic`], [`Error::Unreachable`], [`Error::Refused`].
    pub fn places(
        &self,
        topic: &str,
        partitions: &[i32],
        from: From,
    ) -> Result<BTreeMap<i32, Offset>, Error> {
        let places = self.ask_about(topic, |asker| self.places_by(asker, topic, partitions, from))?;
        Ok(places.into_iter().map(|(partition, start, _)| (partition, start)).collect())
    }

    /// The same, each with where it ends.
    pub(super) fn places_by<C: ConsumerContext>(
        &self,
        asker: &BaseConsumer<C>,
        topic: &str,
        partitions: &[i32],
        from: From,
    ) -> Result<Vec<(i32, Offset, Offset)>, Error> {
        let topic: Arc<str> = topic.into();
        let all: Vec<_> = partitions.iter().map(|p| TopicPartition::new(topic.clone(), *p)).collect();
        let bounds = self.bounds_of(asker, &all)?;
        let times = match from {
            From::Time(ms) => self.offsets(asker, &all, Place::Offset(ms))?,
            From::Start | From::At(_) | From::Last(_) => all.iter().map(|_| Ok(None)).collect(),
        };
        let places = bounds.into_iter().zip(times).zip(partitions).map(|((bounds, time), partition)| {
            let (low, high) = bounds?;
            let start = match from {
                From::Start => low,
                From::At(at) => at.max(low),
                From::Last(n) => high.back(n).max(low),
                From::Time(_) => time?.map_or(high, |at| at.max(low)),
            };
            Ok((*partition, start, high))
        });
        places.collect()
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
        // Mostly it is there: to make one takes another client, and another right.
        match self.partitions(topic) {
            Err(Error::NoTopic { .. }) => {}
            told => return told.map(|_| false),
        }
        let what = format!("making topic {topic}");
        let ended = self.administer(&what, |admin, options| admin.create_topics([made], options))?;
        let is_new = match ended.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => false,
            Some(Err((_, code))) => return Err(self.failed(what, &KafkaError::AdminOp(code))),
            Some(Ok(_)) | None => true,
        };
        self.make_known(topic)?;
        Ok(is_new)
    }

    /// How many partitions a topic has, once `asker` is told of it: one that was made is not known everywhere at once, and another
    /// client may ask another broker.
    ///
    /// # Errors
    /// [`Error::NoTopic`] after two minutes, [`Error::Unreachable`], [`Error::Refused`].
    pub(super) fn until_known(&self, topic: &str, asker: &BaseConsumer) -> Result<usize, Error> {
        for _ in 0..KNOWN_AFTER {
            match self.partitions_by(asker, topic) {
                Err(Error::NoTopic { .. }) => drop(asker.poll(Duration::from_millis(100))),
                other => return other,
            }
        }
        self.partitions_by(asker, topic)
    }

    /// The most bytes that a topic takes at once: a record, with what it is packed in.
    ///
    /// # Errors
    /// [`Error::NoTopic`], [`Error::Unreachable`], [`Error::Refused`].
    pub fn most_bytes(&self, topic: &str) -> Result<usize, Error> {
        let (key, what) = ("max.message.bytes", format!("asking how topic {topic} is configured"));
        let told = self.configured(topic, key)?;
        told.parse()
            .map_err(|_| Error::Refused { what, text: format!("{key} is no number of bytes: {told}") })
    }

    /// Whether of the records with one key only the last may be kept.
    ///
    /// # Errors
    /// [`Error::NoTopic`], [`Error::Unreachable`], [`Error::Refused`].
    pub fn is_compacted(&self, topic: &str) -> Result<bool, Error> {
        Ok(self.configured(topic, "cleanup.policy")?.split(',').any(|policy| policy.trim() == "compact"))
    }

    /// What the configuration of a topic says.
    fn configured(&self, topic: &str, key: &str) -> Result<String, Error> {
        // One that is not there has a configuration without any entry.
        self.partitions(topic)?;
        let what = format!("asking how topic {topic} is configured");
        let resources = [ResourceSpecifier::Topic(topic)];
        let found = self.administer(&what, |admin, options| admin.describe_configs(&resources, options))?;
        let found = match found.into_iter().next() {
            Some(Ok(found)) => found,
            Some(Err(code)) => return Err(self.failed(what, &KafkaError::AdminOp(code))),
            None => return Err(Error::Refused { what, text: "there is no answer for it".to_owned() }),
        };
        let entry = found.get(key).and_then(|entry| entry.value.clone());
        entry.ok_or_else(|| Error::Refused { what, text: format!("{key} is not among it") })
    }

    /// How long the cluster lets a transaction last at most; `None` if whoever asks may not know, or nobody says. `topic` is one of
    /// its topics.
    pub fn longest_transaction(&self, topic: &str) -> Option<Duration> {
        let what = "asking how long a transaction may last";
        let metadata = self.asker().ok()?.fetch_metadata(Some(topic), PATIENCE).ok()?;
        let resources = [ResourceSpecifier::Broker(metadata.brokers().first()?.id())];
        let found =
            self.administer(what, |admin, options| admin.describe_configs(&resources, options)).ok()?;
        let found = found.into_iter().next()?.ok()?;
        let most = found.get("transaction.max.timeout.ms")?.value.as_ref()?.parse().ok()?;
        Some(Duration::from_millis(most))
    }

    fn administer<T, F: Future<Output = Result<T, KafkaError>>>(
        &self,
        what: &str,
        ask: impl FnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> F,
    ) -> Result<T, Error> {
        let admin = self.administrator()?;
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("it takes nothing but memory");
        runtime.block_on(ask(&admin, &options)).map_err(|error| self.failed(what, &error))
    }

    /// Makes, if it is not there, a topic of one partition that keeps the last record of each key: what whoever reads
    /// it from the first on has to read stays little.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`].
    pub fn make_table(&self, topic: &str) -> Result<(), Error> {
        let made = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
        let made = made
            .set("cleanup.policy", "compact")
            // Records are dropped from segments that are full or old, never from the one that is written to.
            .set("segment.bytes", "16777216")
            .set("segment.ms", "600000")
            .set("min.cleanable.dirty.ratio", "0.1")
            // The markers of transactions, of which there are many.
            .set("delete.retention.ms", "3600000");
        self.make(topic, &made).map(drop)
    }

    /// Makes, if it is not there, a topic whose records stay until somebody deletes them.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`].
    pub fn make_kept(&self, topic: &str) -> Result<(), Error> {
        self.make_kept_of(topic, -1)
    }

    /// The same, of one partition: its records have one order.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`].
    pub fn make_kept_in_order(&self, topic: &str) -> Result<(), Error> {
        self.make_kept_of(topic, 1)
    }

    fn make_kept_of(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let made = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let made =
            made.set("cleanup.policy", "delete").set("retention.ms", "-1").set("retention.bytes", "-1");
        // What comes again has the time that it had.
        let made = made.set("message.timestamp.type", "CreateTime");
        self.make(topic, &made).map(drop)
    }
}
