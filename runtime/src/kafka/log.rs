//! A topic of one partition as a log that several processes append to and read from its first record on. What stands in
//! it is not known here.

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset as Place, TopicPartitionList};

use super::lone::LoneConsumer;
use super::{Cluster, Error, PATIENCE};
use crate::offset::Offset;

/// How long a broker waits for records, in milliseconds: what a client asks besides waits as long. It reads only while somebody
/// waits for what it reads.
pub(super) const FETCH_MS: &str = "5";

/// What of a log may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing, ever.
    All,
    /// Records that another one with their key follows.
    LastOfKey,
}

/// A record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Under which it is kept.
    pub key: Vec<u8>,
    /// Absent: what had its key is to go.
    pub value: Option<Vec<u8>>,
}

/// See the module.
pub struct TopicLog {
    cluster: Cluster,
    topic: String,
    keep: Keep,
    reader: LoneConsumer,
    /// Behind the last record that was read.
    next: i64,
    /// What was read and not handed on: what is behind it did not come.
    kept: Vec<Line>,
}

impl std::fmt::Debug for TopicLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicLog")
            .field("topic", &self.topic)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl TopicLog {
    /// Opens the log, and makes its topic if that is not there: one partition, as many copies as the cluster makes by
    /// default.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::NoTopic`] where it was made and is not known long after; [`Error::Refused`], also for a
    /// topic that is there and has more partitions than one.
    pub fn open(cluster: &Cluster, topic: &str, keep: Keep) -> Result<Self, Error> {
        let log = Self::of(cluster, topic, keep)?;
        make_unless_known(cluster, topic, keep, &log.reader)?;
        cluster.make_known(topic)?;
        Ok(log)
    }

    /// The same where there is a log; nothing is made.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn open_if_there(cluster: &Cluster, topic: &str, keep: Keep) -> Result<Option<Self>, Error> {
        let log = Self::of(cluster, topic, keep)?;
        Ok(is_there(cluster, topic, &log.reader)?.then_some(log))
    }

    /// With all clients that it takes: they connect at the same time.
    fn of(cluster: &Cluster, topic: &str, keep: Keep) -> Result<Self, Error> {
        let settings = [("isolation.level", "read_committed"), ("fetch.wait.max.ms", FETCH_MS)];
        let reader = cluster.lone_consumer("weir.log", &settings)?;
        cluster.asker()?;
        cluster.appender()?;
        Ok(Self {
            cluster: cluster.clone(),
            topic: topic.to_owned(),
            keep,
            reader,
            next: 0,
            kept: Vec::new(),
        })
    }

    /// All records that were not read yet, up to where the log ends now: whatever was confirmed before is among them.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; [`Error::Refused`] if records that were not read yet are gone.
    pub fn read_on(&mut self) -> Result<Vec<Line>, Error> {
        // Not by the reader: what it asks waits until a broker has no more patience with its last fetch.
        let (low, high) =
            self.cluster.ask_about(&self.topic, |asker| self.cluster.bounds(asker, &self.topic, 0))?;
        if self.keep == Keep::All && low.get() > self.next {
            let text = format!("its first records are gone: it begins at {low}, and {} is next", self.next);
            return Err(Error::Refused { what: self.what("reading"), text });
        }
        if high.get() <= self.next {
            return Ok(std::mem::take(&mut self.kept));
        }
        let failed = |error: &KafkaError| self.cluster.failed(self.what("reading"), error);
        let mut from = TopicPartitionList::new();
        let place = Place::Offset(self.next.max(low.get()));
        from.add_partition_offset(&self.topic, 0, place).map_err(|error| failed(&error))?;
        self.reader.assign(&from).map_err(|error| failed(&error))?;
        let read = self.read_to(high);
        self.reader.unassign().map_err(|error| self.cluster.failed(self.what("reading"), &error))?;
        read.map(|()| std::mem::take(&mut self.kept))
    }

    fn read_to(&mut self, high: Offset) -> Result<(), Error> {
        while self.next < high.get() {
            match self.reader.poll(PATIENCE) {
                Some(Ok(message)) => {
                    self.next = message.offset() + 1;
                    let key = message.key().unwrap_or_default().to_vec();
                    self.kept.push(Line { key, value: message.payload().map(<[u8]>::to_vec) });
                }
                // The library finds its way back by itself, or says nothing more.
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(self.cluster.failed(self.what("reading"), &error)),
                None => {
                    let text = format!("nothing came for {} s", PATIENCE.as_secs());
                    let address = self.cluster.address.clone();
                    return Err(Error::Unreachable { what: self.what("reading"), address, text });
                }
            }
        }
        Ok(())
    }

    /// Appends a record and waits until all replicas in sync have it.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: it may be there, or come there still; [`Error::Refused`]: it is not.
    pub fn append(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        self.cluster.append(&self.topic, key, value)
    }

    fn what(&self, doing: &str) -> String {
        format!("{doing} topic {}", self.topic)
    }
}

pub(super) fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
        )
    )
}

/// Makes the topic of a log where there is none: one partition, as many copies as the cluster makes by default.
///
/// # Errors
/// As of [`TopicLog::open`].
pub fn make_if_missing(cluster: &Cluster, topic: &str, keep: Keep) -> Result<(), Error> {
    cluster.ask(|asker| make_unless_known(cluster, topic, keep, asker))
}

/// The same where `asker` knows of none; then it does.
fn make_unless_known(cluster: &Cluster, topic: &str, keep: Keep, asker: &BaseConsumer) -> Result<(), Error> {
    if !is_there(cluster, topic, asker)? {
        make(cluster, topic, keep)?;
        has_one(topic, cluster.until_known(topic, asker)?)?;
    }
    Ok(())
}

/// As `asker` knows. Whoever reads has to ask itself: one that does not know the topic yet may look for it only after a second.
fn is_there(cluster: &Cluster, topic: &str, asker: &BaseConsumer) -> Result<bool, Error> {
    match cluster.partitions_by(asker, topic) {
        Err(Error::NoTopic { .. }) => Ok(false),
        told => has_one(topic, told?).map(|()| true),
    }
}

fn has_one(topic: &str, partitions: usize) -> Result<(), Error> {
    if partitions == 1 {
        return Ok(());
    }
    let text = format!("it has {partitions} partitions, and a log has one");
    Err(Error::Refused { what: format!("opening topic {topic}"), text })
}

fn make(cluster: &Cluster, topic: &str, keep: Keep) -> Result<(), Error> {
    let made = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
    let made = match keep {
        Keep::All => {
            made.set("retention.ms", "-1").set("retention.bytes", "-1").set("cleanup.policy", "delete")
        }
        Keep::LastOfKey => made.set("cleanup.policy", "compact"),
    };
    cluster.make(topic, &made).map(|_| ())
}
