//! Records that become visible together, or never. One producer, whose name outlives it: whoever begins under the name
//! ends what its predecessor had open and fences it. What is in the records is not known here.
//!
//! A step that fails undoes the transaction at once. Only the last one can end so that nobody knows how: then the
//! producer is gone, and once another has begun under the name ([`Transactions::renew`]) whoever looks finds out.
//!
//! The producer is made anew, under its name, after everything that may have left a request of it on the way: the
//! client asks again by itself to end a transaction, and an answer says nothing of how often it asked. A request that is
//! late would end a later transaction.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::{Offset as Place, TopicPartitionList};

use super::group::{Membership, is_stale};
use super::produce::Compression;
use super::{Cluster, Error};
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::Epoch;

/// How long the client gathers records before it sends them, unless the file says otherwise: the last of a transaction
/// wait so long.
const LINGER_MS: &str = "2";

/// How soon the client asks again, at first, unless the file says otherwise: a transaction that follows another at once is
/// told to wait until the markers of that one stand.
const BACKOFF_MS: &str = "10";

/// How long to wait at a time for all records to arrive, before looking at those that did not.
const MOMENT: Duration = Duration::from_millis(20);

/// Records between two looks at the reports: each look costs a call.
const LOOK_EVERY: u32 = 512;

/// For a coordinator to answer. One that still waits for the markers of a predecessor says so, and is asked again.
const ANSWER: Duration = Duration::from_secs(30);

/// Records that are on their way while all is well arrive within this time.
const SOON: Duration = Duration::from_millis(200);

/// An end that took longer may have been asked for twice.
const SLOW: Duration = Duration::from_secs(5);

/// How a producer of transactions is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub id: String,
    /// After so long the cluster gives up a transaction whose process does not end it.
    pub timeout: Duration,
    /// How records are packed.
    pub compression: Compression,
    /// The most bytes that records are sent in together: what the strictest of their topics takes.
    pub batch_bytes: usize,
    /// The most bytes of a record: what the most generous of their topics takes.
    pub record_bytes: usize,
}

/// A record on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Absent and empty differ. A key goes to the partition that Java clients give it (murmur2); without one, any.
    pub key: Option<&'a [u8]>,
    /// Absent: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970-01-01T00:00:00Z; -1: when it is sent.
    pub timestamp_ms: i64,
}

/// Why a transaction was undone. Nothing of it is visible, or ever will be.
#[derive(Debug)]
pub enum Undone {
    /// This process is no member of the group any more, or not under that generation.
    Stale(String),
    /// Another producer has the name, or the cluster gave the transaction up: they look the same.
    Fenced(String),
    /// The cluster refuses records for what is in them.
    Refused {
        /// Which it is among; a single one is to blame. A cluster may refuse a whole batch for one of its records.
        tags: Vec<usize>,
        /// Why.
        why: String,
    },
    /// A topic takes less at once than it did.
    TooLarge(String),
    /// The client gave it up half-way; another time it may go well.
    GivenUp(String),
    /// Anything else.
    Failed(Error),
}

/// How a transaction ended that was to be committed.
#[derive(Debug)]
pub enum Ended {
    /// It is visible.
    Committed,
    /// It is not, and will not be.
    Undone(Undone),
    /// Either. The text says why.
    Unknown(String),
    /// Either, and somebody else may have the name.
    UnknownAndFenced(String),
}

/// See the module.
pub struct Transactions {
    cluster: Cluster,
    producer: Option<BaseProducer<Reports>>,
    since_look: u32,
    /// Answers of commits are lost on purpose.
    #[cfg(all(test, feature = "servers"))]
    pub(crate) lose: Option<Loss>,
}

/// What the last commit is made to look like.
#[cfg(all(test, feature = "servers"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// The word to commit never arrives.
    Before,
    /// It was done.
    After,
}

/// What the client says while it works.
#[derive(Default)]
struct Reports {
    /// Records that did not arrive, by the numbers they were sent with.
    failed: Mutex<Vec<(usize, KafkaError)>>,
    /// A connection broke, or an answer did not come in time.
    shaken: AtomicBool,
    /// The last complaint: what makes the client drop all records of a transaction is told nowhere else.
    complaint: Mutex<String>,
}

impl Reports {
    fn take(&self) -> Vec<(usize, KafkaError)> {
        std::mem::take(&mut *self.failed.lock().expect("nobody panics with the reports in hand"))
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(?level, facility, text, "the client of Kafka");
        if level as i32 <= RDKafkaLogLevel::Error as i32 {
            text.clone_into(&mut self.complaint.lock().expect("nobody panics with the complaint in hand"));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the client of Kafka complains");
        self.shaken.store(true, Ordering::Relaxed);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        if let Err((error, _)) = result {
            let mut failed = self.failed.lock().expect("nobody panics with the reports in hand");
            failed.push((tag, error.clone()));
        }
    }
}

impl std::fmt::Debug for Transactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactions").field("fit", &self.producer.is_some()).finish_non_exhaustive()
    }
}

impl Transactions {
    /// Nothing is begun before [`Self::renew`].
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            producer: None,
            since_look: 0,
            #[cfg(all(test, feature = "servers"))]
            lose: None,
        }
    }

    /// Whether a transaction may begin: there is a producer, and nothing hangs over it.
    pub fn is_fit(&mut self) -> bool {
        if let Some(producer) = &self.producer {
            producer.poll(Duration::ZERO);
            if producer.context().shaken.load(Ordering::Relaxed) || producer.client().fatal_error().is_some()
            {
                self.producer = None;
            }
        }
        self.producer.is_some()
    }

    /// Begins under the name anew: what was open under it is ended, one way or the other, and who still is at work
    /// under it is fenced.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`].
    pub fn renew(&mut self, settings: &Settings) -> Result<(), Error> {
        self.producer = None;
        let what = || format!("beginning as {}", settings.id);
        let failed = |error: &KafkaError| self.cluster.failed(what(), error);
        let producer = self.client(settings).map_err(|error| failed(&error))?;
        producer.init_transactions(ANSWER).map_err(|error| failed(&error))?;
        producer.poll(Duration::ZERO);
        producer.context().shaken.store(false, Ordering::Relaxed);
        self.producer = Some(producer);
        Ok(())
    }

    fn client(&self, settings: &Settings) -> Result<BaseProducer<Reports>, KafkaError> {
        let timeout = settings.timeout.as_millis();
        let mut config =
            self.cluster.config_over(&[("linger.ms", LINGER_MS), ("retry.backoff.ms", BACKOFF_MS)]);
        config
            .set("transactional.id", &settings.id)
            .set("transaction.timeout.ms", timeout.to_string())
            // A record is given up while its transaction still stands.
            .set("message.timeout.ms", (timeout * 4 / 5).to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.type", settings.compression.name())
            .set("batch.size", settings.batch_bytes.to_string())
            .set("message.max.bytes", settings.record_bytes.to_string())
            // A report of each would cost as much again as sending it.
            .set("delivery.report.only.error", "true");
        config.create_with_context(Reports::default())
    }

    /// Lets time pass.
    pub fn wait(&self, time: Duration) {
        if let Some(producer) = &self.producer {
            producer.poll(time);
        }
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// Without a producer that is fit, too.
    pub fn begin(&mut self) -> Result<(), Undone> {
        let Some(producer) = &self.producer else {
            let (what, text) = ("beginning a transaction".to_owned(), "there is no producer".to_owned());
            return Err(Undone::Failed(Error::Refused { what, text }));
        };
        drop(producer.context().take());
        self.since_look = 0;
        match producer.begin_transaction() {
            Ok(()) => Ok(()),
            Err(error) => Err(self.undo("beginning a transaction", &error)),
        }
    }

    /// Hands a record to the client, which sends it in its own time. `tag` is what it is called where it is refused.
    ///
    /// # Errors
    /// The transaction was undone.
    pub fn send<'h>(
        &mut self,
        tag: usize,
        record: &Outgoing<'_>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Result<(), Undone> {
        let producer = self.producer.as_ref().expect("a transaction has begun");
        let mut out = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, tag);
        (out.key, out.payload) = (record.key, record.value);
        out.timestamp = Some(record.timestamp_ms).filter(|ms| *ms >= 0);
        out.headers = headers_of(headers);
        self.since_look += 1;
        if self.since_look >= LOOK_EVERY {
            self.since_look = 0;
            producer.poll(Duration::ZERO);
        }
        loop {
            match producer.send(out) {
                Ok(()) => return Ok(()),
                // The client gives a record up after its time, so there is room some time.
                Err((KafkaError::MessageProduction(Code::QueueFull), again)) => {
                    out = again;
                    arrive(producer, MOMENT);
                }
                Err((KafkaError::MessageProduction(Code::MessageSizeTooLarge), _)) => {
                    self.abort();
                    let why = "it is larger than the client sends".to_owned();
                    return Err(Undone::Refused { tags: vec![tag], why });
                }
                Err((error, _)) => return Err(self.undo("sending records", &error)),
            }
        }
    }

    /// Moves the group of `member` with the transaction: to where, and under which epoch each partition was given to it.
    ///
    /// # Errors
    /// The transaction was undone: [`Undone::Stale`] where one of them is not this process's any more.
    pub fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, Epoch, Offset)],
        member: &dyn Membership,
    ) -> Result<(), Undone> {
        let producer = self.producer.as_ref().expect("a transaction has begun");
        let held: Vec<_> = offsets.iter().map(|(at, epoch, _)| (at.clone(), *epoch)).collect();
        let Some(metadata) = member.metadata(&held) else {
            self.abort();
            let text = "moving the group: this process is no member any more that has these partitions";
            return Err(Undone::Stale(text.to_owned()));
        };
        let mut list = TopicPartitionList::new();
        for (at, _, next) in offsets {
            let added = list.add_partition_offset(&at.topic, at.partition, Place::Offset(next.get()));
            added.expect("every offset of a record has a place in the list");
        }
        match producer.send_offsets_to_transaction(&list, &metadata, ANSWER) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.undo("moving the group", &error)),
        }
    }

    /// Waits until all replicas in sync have every record.
    ///
    /// # Errors
    /// The transaction was undone.
    pub fn settle(&mut self) -> Result<(), Undone> {
        let failed = self.undelivered(None);
        match failed.is_empty() {
            true => Ok(()),
            false => Err(self.undo_undelivered(failed)),
        }
    }

    /// Records that did not arrive, once it is known of all, or so long has passed.
    fn undelivered(&self, most: Option<Duration>) -> Vec<(usize, KafkaError)> {
        let Some(producer) = &self.producer else { return Vec::new() };
        let begun = now();
        while producer.in_flight_count() > 0 && most.is_none_or(|most| begun.elapsed() < most) {
            arrive(producer, MOMENT);
        }
        producer.context().take()
    }

    /// Makes the transaction visible, once it is settled.
    pub fn commit(&mut self) -> Ended {
        let producer = self.producer.as_ref().expect("a transaction has begun");
        #[cfg(all(test, feature = "servers"))]
        if self.lose == Some(Loss::Before) {
            (self.lose, self.producer) = (None, None);
            return Ended::Unknown("lost on purpose".to_owned());
        }
        let begun = now();
        let ended = producer.commit_transaction(ANSWER);
        let slow = begun.elapsed() > SLOW;
        #[cfg(all(test, feature = "servers"))]
        if self.lose == Some(Loss::After) {
            (self.lose, self.producer) = (None, None);
            return Ended::Unknown("lost on purpose".to_owned());
        }
        let Err(error) = ended else {
            if slow {
                self.producer = None;
            }
            return Ended::Committed;
        };
        if let KafkaError::Transaction(transaction) = &error
            && transaction.txn_requires_abort()
            && self.abort()
        {
            return Ended::Undone(self.meaning("committing", &error));
        }
        self.producer = None;
        let text = format!("committing: {}", super::lower(&error.to_string()));
        match is_fenced(&error) {
            true => Ended::UnknownAndFenced(text),
            false => Ended::Unknown(text),
        }
    }

    /// Nothing of it is told to the cluster to be committed yet, so it never will be: what cannot be undone now is when
    /// another producer begins under the name.
    fn undo(&mut self, what: &str, error: &KafkaError) -> Undone {
        let failed = self.undelivered(Some(SLOW));
        let is_stale = error.rdkafka_error_code().is_some_and(is_stale);
        // Whatever is asked after a record did not arrive fails, and does not say why.
        if !failed.is_empty() && !is_stale || is_state(error) {
            return self.undo_undelivered(failed);
        }
        let meaning = self.meaning(what, error);
        self.abort();
        meaning
    }

    fn meaning(&self, what: &str, error: &KafkaError) -> Undone {
        let text = || format!("{what}: {}", super::lower(&error.to_string()));
        match error.rdkafka_error_code() {
            Some(code) if is_stale(code) => Undone::Stale(text()),
            _ if is_fenced(error) => Undone::Fenced(text()),
            _ => Undone::Failed(self.cluster.failed(what, error)),
        }
    }

    fn undo_undelivered(&mut self, failed: Vec<(usize, KafkaError)>) -> Undone {
        let mut complaint = String::new();
        if let Some(producer) = &self.producer {
            if let Some((_, text)) = producer.client().fatal_error() {
                self.producer = None;
                return Undone::Fenced(format!("sending records: {}", super::lower(&text)));
            }
            complaint = producer
                .context()
                .complaint
                .lock()
                .expect("nobody panics with the complaint in hand")
                .clone();
        }
        self.abort();
        // There is a gap in what arrived: see `abort`.
        self.producer = None;
        let code = |error: &KafkaError| error.rdkafka_error_code();
        let innocent = |error: &KafkaError| matches!(code(error), Some(Code::InvalidDifferentRecord));
        let guilty =
            |error: &KafkaError| matches!(code(error), Some(Code::InvalidTimestamp | Code::InvalidRecord));
        if let Some((_, error)) = failed.iter().find(|(_, e)| code(e) == Some(Code::MessageSizeTooLarge)) {
            return Undone::TooLarge(super::lower(&error.to_string()));
        }
        // What comes behind a refused batch fails for other reasons.
        if failed.iter().any(|(_, error)| guilty(error)) {
            let mut refused: Vec<_> = failed.into_iter().filter(|(_, error)| guilty(error)).collect();
            refused.sort_unstable_by_key(|(tag, _)| *tag);
            let why = refused.first().and_then(|(_, error)| code(error)).map(|code| code.to_string());
            let tags: Vec<_> = refused.into_iter().map(|(tag, _)| tag).collect();
            return Undone::Refused { tags, why: super::lower(&why.unwrap_or_default()) };
        }
        match failed.iter().find(|(_, error)| !is_dropped(error) && !innocent(error)) {
            Some((_, error)) => self.meaning("sending records", error),
            None => Undone::GivenUp(format!("sending records: {}", super::lower(&complaint))),
        }
    }

    /// Undoes what is under way; whether that is known to be done.
    ///
    /// What was sent and not confirmed is waited for: it must not arrive behind the end. What is not sent any more has a
    /// number already, and the cluster would refuse what comes next for the gap; then the producer is gone, as it is when
    /// nobody knows.
    fn abort(&mut self) -> bool {
        let Some(producer) = &self.producer else { return false };
        let begun = now();
        let settle = |most| {
            while producer.in_flight_count() > 0 && begun.elapsed() < most {
                arrive(producer, MOMENT);
            }
            producer.in_flight_count() == 0
        };
        let all_sent = settle(SOON);
        if !all_sent {
            producer.purge(PurgeConfig::default().queue());
        }
        let done = settle(SLOW) && producer.abort_transaction(ANSWER).is_ok() && begun.elapsed() < SLOW;
        drop(producer.context().take());
        if !done || !all_sent {
            self.producer = None;
        }
        done
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a cluster takes to end a transaction is measured")]
fn now() -> Instant {
    Instant::now()
}

/// Waits until all records have arrived, so long at most, and takes in the reports of those that will not.
///
/// Neither of the two ways that the client's wrapper has for this will do: to wait for reports, of which there are none
/// when all goes well, keeps a processor busy below a millisecond; to flush waits for 100 ms whatever happens.
#[expect(unsafe_code, reason = "it is a function of the client library, on the client that is borrowed")]
fn arrive(producer: &BaseProducer<Reports>, most: Duration) {
    let ms = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is to a live client, and the function may be called from any thread.
    unsafe { rdkafka::bindings::rd_kafka_flush(producer.client().native_ptr(), ms) };
    producer.poll(Duration::ZERO);
}

fn is_fenced(error: &KafkaError) -> bool {
    let fatal = matches!(error, KafkaError::Transaction(error) if error.is_fatal());
    let codes = [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch, Code::Fatal];
    fatal || error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

/// Whether the client only says that something went wrong before.
fn is_state(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(Code::State)
}

/// Whether a record did not arrive because the transaction had failed before.
fn is_dropped(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight))
}

fn headers_of<'h>(headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>) -> Option<OwnedHeaders> {
    let mut headers = headers.peekable();
    headers.peek()?;
    let out = OwnedHeaders::new_with_capacity(8);
    Some(headers.fold(out, |out, (key, value)| out.insert(Header { key, value })))
}

/// What a record takes at most, by itself in a batch that is not compressed: this is what the limit of its topic is for.
pub fn wire_bytes<'h>(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
) -> usize {
    let string = |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varint(bytes.len()) + bytes.len());
    let (mut n, mut headers_bytes) = (0, 0);
    for (name, value) in headers {
        n += 1;
        headers_bytes += string(Some(name.as_bytes())) + string(value);
    }
    let record = RECORD_OVERHEAD + string(key) + string(value) + varint(n) + headers_bytes;
    BATCH_OVERHEAD + varint(record) + record
}

/// In front of the records of a batch.
const BATCH_OVERHEAD: usize = 61;

/// Attributes, and what the only record of a batch differs by in time and offset.
const RECORD_OVERHEAD: usize = 3;

/// How long a length is: seven bits of it to a byte, and one for the sign.
fn varint(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_a_byte_for_every_seven_bits_and_the_sign() {
        let cases = [(0, 1), (63, 1), (64, 2), (8_191, 2), (8_192, 3), (1_048_575, 3), (1_048_576, 4)];
        cases.into_iter().for_each(|(length, bytes)| assert_eq!(varint(length), bytes, "{length}"));
    }

    #[test]
    fn a_record_without_anything_takes_what_is_around_it() {
        assert_eq!(wire_bytes(None, None, std::iter::empty()), 61 + 1 + 6);
        assert_eq!(
            wire_bytes(Some(b"k"), Some(b"vv"), [("h", None)].into_iter()),
            61 + 1 + 3 + 2 + 3 + 1 + 3
        );
    }
}
