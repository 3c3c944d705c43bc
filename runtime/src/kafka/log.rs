//! A topic of one partition as a log that several processes append to and read from its first record on. What stands in
//! it is not known here.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset as Place, TopicPartitionList};

use super::lone::LoneConsumer;
use super::wake::Wake;
use super::{Cluster, Error, PATIENCE, queue};
use crate::offset::Offset;

/// How long a broker waits for records, in milliseconds: what a client asks besides waits as long. It reads only while somebody
/// waits for what it reads.
pub(super) const FETCH_MS: &str = "5";

/// How often it is looked whether a record is confirmed, if the client does not say that it has something to say.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    producer: BaseProducer<Answer>,
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

/// How the one record that is under way ended.
#[derive(Default)]
struct Answer {
    ended: Mutex<Option<Result<(), KafkaError>>>,
    wake: Wake,
}

impl ClientContext for Answer {}

impl ProducerContext for Answer {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let ended = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        *self.ended.lock().expect("nobody panics with the answer in hand") = Some(ended);
    }
}

impl TopicLog {
    /// Opens the log, and makes its topic if that is not there: one partition, as many copies as the cluster makes by
    /// default.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; [`Error::Refused`], also for a topic that is there and has more partitions than one.
    pub fn open(cluster: &Cluster, topic: &str, keep: Keep) -> Result<Self, Error> {
        make(cluster, topic, keep)?;
        let failed = |error: &KafkaError| cluster.failed(format!("opening topic {topic}"), error);
        let settings = [("isolation.level", "read_committed"), ("fetch.wait.max.ms", FETCH_MS)];
        let reader = cluster.lone_consumer("weir.log", &settings)?;
        let n = cluster.partitions_by(&reader, topic)?;
        if n != 1 {
            let text = format!("it has {n} partitions, and a log has one");
            return Err(Error::Refused { what: format!("opening topic {topic}"), text });
        }
        let producer: BaseProducer<Answer> = cluster
            .config()
            // A line that is there twice says what it said before, and a client that may not write one twice waits for half
            // a second before its first.
            .set("enable.idempotence", "false")
            .set("max.in.flight.requests.per.connection", "1")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .create_with_context(Answer::default())
            .map_err(|error| failed(&error))?;
        wake_when_told(&producer);
        Ok(Self {
            cluster: cluster.clone(),
            topic: topic.to_owned(),
            keep,
            reader,
            producer,
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
        let (low, high) = self.cluster.ask(|asker| self.cluster.bounds(asker, &self.topic, 0))?;
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
        let what = || self.what("writing to");
        let answer = || self.producer.context().ended.lock().expect("nobody panics with the answer in hand");
        *answer() = None;
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).partition(0).key(key);
        record.payload = value;
        self.producer.send(record).map_err(|(error, _)| self.cluster.failed(what(), &error))?;
        loop {
            // The client gives the record up after its time, and says so.
            self.producer.poll(Duration::ZERO);
            if let Some(ended) = answer().take() {
                return ended.map_err(|error| self.cluster.failed(what(), &error));
            }
            // Not in the client: it waits for whole milliseconds, and keeps a processor busy for what is left of the last.
            self.producer.context().wake.wait(LOOK_EVERY);
        }
    }

    fn what(&self, doing: &str) -> String {
        format!("{doing} topic {}", self.topic)
    }
}

/// Wakes who waits when the client has something to say.
#[expect(unsafe_code, reason = "the client library has no safe call for it")]
fn wake_when_told(producer: &BaseProducer<Answer>) {
    // SAFETY: the client lives; its queue is another handle to one that lives as long as it does.
    unsafe {
        queue::wake_by_own(
            sys::rd_kafka_queue_get_main(producer.client().native_ptr()),
            producer.context().wake.raw(),
        )
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
