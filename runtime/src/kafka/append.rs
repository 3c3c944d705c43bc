//! Appending records to logs, one after the other: the next is sent when all replicas in sync have the one before.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::wake::Wake;
use super::{Cluster, Error, PATIENCE, queue};

/// How often it is looked whether a record is confirmed, if the client does not say that it has something to say.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Appender(BaseProducer<Answer>);

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

impl Cluster {
    /// Appends a record to a topic of one partition and waits until all replicas in sync have it.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: it may be there, or come there still; [`Error::Refused`], [`Error::Denied`]: it is not.
    pub fn append(&self, topic: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        let appender = self.appender()?;
        let appender = appender.lock().expect("nobody panics with a client in hand");
        appender
            .append(topic, key, value)
            .map_err(|error| self.failed(format!("writing to topic {topic}"), &error))
    }
}

impl Appender {
    pub(super) fn new(cluster: &Cluster) -> Result<Self, Error> {
        let mut config = cluster.config();
        // A record that is there twice says what it said before, and a client that may not write one twice waits for half
        // a second before its first.
        config
            .set("enable.idempotence", "false")
            .set("max.in.flight.requests.per.connection", "1")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string());
        let producer = cluster.set_up(config.create_with_context(Answer::default()))?;
        wake_when_told(&producer);
        Ok(Self(producer))
    }

    fn append(&self, topic: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), KafkaError> {
        let answer = || self.0.context().ended.lock().expect("nobody panics with the answer in hand");
        *answer() = None;
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).key(key);
        record.payload = value;
        self.0.send(record).map_err(|(error, _)| error)?;
        loop {
            // The client gives the record up after its time, and says so.
            self.0.poll(Duration::ZERO);
            if let Some(ended) = answer().take() {
                return ended;
            }
            // Not in the client: it waits for whole milliseconds, and keeps a processor busy for what is left of the last.
            self.0.context().wake.wait(LOOK_EVERY);
        }
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
