//! Looking at the records of a topic, without a group and without leaving a trace: what others have committed, up to
//! where the topic ended when it was asked.

use std::collections::BTreeMap;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message};
use rdkafka::{Offset as Place, TopicPartitionList};

use super::log::FETCH_MS;
use super::lone::LoneConsumer;
pub use super::topics::From;
use super::{Cluster, Error, PATIENCE};
use crate::batch::RecordRef;
use crate::offset::Offset;

/// A record as it stands in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its partition.
    pub partition: i32,
    /// Where it stands there.
    pub offset: Offset,
    /// Milliseconds since 1970-01-01T00:00:00Z; -1 where there is none.
    pub timestamp_ms: i64,
    /// Absent and empty differ.
    pub key: Option<Vec<u8>>,
    /// Absent: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Seen {
    /// Its headers, as a record refers to them.
    pub fn header_refs(&self) -> Vec<(&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect()
    }

    /// The record, with [its headers](Self::header_refs).
    pub fn record<'a>(&'a self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> RecordRef<'a> {
        RecordRef {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers,
            timestamp_ms: self.timestamp_ms,
        }
    }
}

/// Hands records of `topic` to `each`, until that says `false` or every partition (or the one that was asked for) is
/// read up to where it ended at the beginning. Each partition is in order; they take turns as they arrive.
///
/// # Errors
/// [`Error::NoTopic`], [`Error::Refused`] (also for a partition that there is not), [`Error::Unreachable`].
pub fn peek(
    cluster: &Cluster,
    topic: &str,
    partition: Option<i32>,
    from: From,
    each: &mut dyn FnMut(Seen) -> bool,
) -> Result<(), Error> {
    let reader = Reader::new(cluster, topic)?;
    let ends = reader.begin(partition, from)?;
    reader.read(ends, each)
}

/// Looks at the records of one topic. It connects at once, and whoever has something else to ask first need not wait for that.
pub struct Reader<'a> {
    pub(super) cluster: &'a Cluster,
    topic: &'a str,
    pub(super) consumer: LoneConsumer,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    /// It is not looked whether there is such a topic.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where no client can be set up.
    pub fn new(cluster: &'a Cluster, topic: &'a str) -> Result<Self, Error> {
        let settings = [
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("fetch.wait.max.ms", FETCH_MS),
        ];
        Ok(Self { cluster, topic, consumer: cluster.lone_consumer("weir.peek", &settings)? })
    }

    /// Like [`peek`], from so on that `n` offsets are left in each partition, by what [`Cluster::extents`] says of the topic.
    ///
    /// # Errors
    /// As of [`peek`].
    pub fn last(
        &self,
        extents: &[(Offset, Offset)],
        n: u64,
        each: &mut dyn FnMut(Seen) -> bool,
    ) -> Result<(), Error> {
        // A client that does not know a topic may look for it only after a second.
        self.partitions()?;
        let places = extents.iter().zip(0..).map(|((low, high), at)| (at, high.back(n).max(*low), *high));
        self.read(self.begin_at(places)?, each)
    }

    /// Hands on what comes up to the `ends` of the partitions, or until `each` says `false`.
    fn read(&self, mut ends: BTreeMap<i32, Offset>, each: &mut dyn FnMut(Seen) -> bool) -> Result<(), Error> {
        while !ends.is_empty() {
            let Some(polled) = self.consumer.poll(PATIENCE) else { return Err(self.silence()) };
            match polled {
                Ok(message) => {
                    let (partition, offset) = (message.partition(), Offset::new(message.offset()));
                    let end = ends.get(&partition).copied();
                    if end.is_some_and(|end| offset < end) && !each(seen(&message)) {
                        return Ok(());
                    }
                    if end.is_none_or(|end| offset.next() >= end) {
                        ends.remove(&partition);
                    }
                }
                // Markers of transactions may be all that is left in front of the end.
                Err(KafkaError::PartitionEOF(partition)) => {
                    ends.remove(&partition);
                }
                Err(error) => return Err(self.cluster.failed(self.what(), &error)),
            }
        }
        Ok(())
    }

    fn partitions(&self) -> Result<i32, Error> {
        let n = self.cluster.partitions_by(&self.consumer, self.topic)?;
        Ok(i32::try_from(n).unwrap_or(i32::MAX))
    }

    /// Tells the client where to read, and says where each partition that has something to read ends.
    pub(super) fn begin(&self, partition: Option<i32>, from: From) -> Result<BTreeMap<i32, Offset>, Error> {
        let n = self.partitions()?;
        let wanted = match partition {
            Some(one) if !(0..n).contains(&one) => {
                let text = format!("it has the partitions 0 to {}", n - 1);
                return Err(Error::Refused { what: format!("reading {} [{one}]", self.topic), text });
            }
            Some(one) => one..one + 1,
            None => 0..n,
        };
        let wanted: Vec<i32> = wanted.collect();
        self.begin_at(self.cluster.places_by(&self.consumer, self.topic, &wanted, from)?)
    }

    /// The same where it is known at which offset each partition begins, and where it ends.
    fn begin_at(
        &self,
        known: impl IntoIterator<Item = (i32, Offset, Offset)>,
    ) -> Result<BTreeMap<i32, Offset>, Error> {
        let mut ends = BTreeMap::new();
        let mut places = TopicPartitionList::new();
        for (partition, start, high) in known {
            if start < high {
                ends.insert(partition, high);
                let placed = places.add_partition_offset(self.topic, partition, Place::Offset(start.get()));
                placed.map_err(|error| self.cluster.failed(self.what(), &error))?;
            }
        }
        self.consumer.assign(&places).map_err(|error| self.cluster.failed(self.what(), &error))?;
        Ok(ends)
    }

    pub(super) fn what(&self) -> String {
        format!("reading topic {}", self.topic)
    }

    pub(super) fn silence(&self) -> Error {
        let text = format!("nothing came for {} s", PATIENCE.as_secs());
        Error::Unreachable { what: self.what(), address: self.cluster.address.clone(), text }
    }
}

pub(super) fn seen(message: &impl Message) -> Seen {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Seen {
        partition: message.partition(),
        offset: Offset::new(message.offset()),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect(),
    }
}
