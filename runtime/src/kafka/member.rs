//! A member of a consumer group: which partitions it is given and asked to let go of, and their records. It commits
//! nothing, and reads a partition only from where it is told to.
//!
//! What the client library makes of this: a partition that the group gives us is answered with an empty assignment, and
//! added to the client's when it is to be read, from the offset that is told. Partitions that the group wants back stay
//! ours until all of them were let go of; then one answer gives them away together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset as Place, TopicPartitionList, bindings as sys};

use super::group::Membership;
use super::queue::{self, Queue};
pub use super::queue::{Broken, Taken};
use super::topics::Bounds;
use super::wake::Wake;
use super::{Cluster, Error, PATIENCE};
use crate::batch::BatchBuilder;
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::{Epoch, Fingerprint};

/// What the client is told where the pipeline file says nothing.
pub const DEFAULTS: &[(&str, &str)] = &[
    // A member that died is missed after so long; the client's 45 s are long to wait for.
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "1000"),
    ("max.poll.interval.ms", "300000"),
    // Partitions that are added to a topic are found after so long.
    ("topic.metadata.refresh.interval.ms", "30000"),
    // How long a broker waits for records; a partition that becomes ours meanwhile waits as long.
    ("fetch.wait.max.ms", "100"),
    // How long the client waits when its queue was full; its 1000 ms leave a fast reader with nothing to do.
    ("fetch.queue.backoff.ms", "10"),
    // What was changed on its way or on a disk stops the partition.
    ("check.crcs", "true"),
    // What waits in the client, of each partition, until there is room for it in the byte budget: a batch or two, and what one
    // answer brings besides. A small record takes some 350 bytes more there than it has.
    ("queued.max.messages.kbytes", "1024"),
    ("queued.min.messages", "5000"),
    ("fetch.message.max.bytes", "524288"),
];

/// What a group says to its member.
#[derive(Debug)]
pub enum Told {
    /// These partitions are ours now, besides those that we have.
    Assigned {
        /// The group's generation: higher than that of anybody who had them before.
        generation: u64,
        /// Which; perhaps none.
        partitions: Vec<TopicPartition>,
    },
    /// Others are to have these. They are ours until each was [let go](Member::let_go) of.
    Revoked(Vec<TopicPartition>),
    /// These are not ours any more: the group went on without us. It may give them to us anew.
    Lost(Vec<TopicPartition>),
    /// The client cannot go on for now, and tries by itself.
    Trouble(Error),
}

/// See the module.
pub struct Member {
    cluster: Cluster,
    /// What it joined the group for, without what may not be there.
    topics: Vec<String>,
    /// In the client's assignment, each with its queue. Dropped before the client.
    queues: BTreeMap<TopicPartition, Queue>,
    /// What the group wants back and was not let go of yet; `None` if it wants nothing.
    revoked: Option<Revoked>,
    consumer: Arc<BaseConsumer<Ear>>,
}

#[derive(Debug)]
struct Revoked {
    all: Vec<TopicPartition>,
    held: BTreeSet<TopicPartition>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("reads", &self.queues.keys())
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// One who will be a member of `group`, once it has [joined](Self::join).
    ///
    /// # Errors
    /// [`Error::Refused`] if the client cannot be set up.
    pub fn new(cluster: &Cluster, group: &str) -> Result<Self, Error> {
        let failed = |error: &KafkaError| cluster.failed(format!("joining group {group}"), error);
        let consumer = cluster
            .config_over(DEFAULTS)
            .set("group.id", group)
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create_with_context::<Ear, BaseConsumer<Ear>>(Ear::default())
            .map_err(|error| failed(&error))?;
        wake_when_told(&consumer);
        let (topics, queues, revoked) = (Vec::new(), BTreeMap::new(), None);
        Ok(Self { cluster: cluster.clone(), topics, queues, revoked, consumer: Arc::new(consumer) })
    }

    /// Joins the group, to be given partitions of `topics`. Whether they are there is not looked at. `later` need not be: its
    /// partitions are dealt out once it is found.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn join(&mut self, topics: &[&str], later: Option<&str>) -> Result<(), Error> {
        self.topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let joined = self.consumer.subscribe(&[topics, later.as_slice()].concat());
        joined.map_err(|error| self.cluster.failed("joining a consumer group", &error))
    }

    /// Leaves the group, as soon as it is not about to deal out its partitions. Those that are ours are wanted back first, as
    /// ever; whoever wants to join it anew waits until [nothing is ours](Self::has_nothing). Until then nobody hears from us
    /// that we live, so nothing should be under way any more.
    pub fn leave(&self) {
        self.consumer.unsubscribe();
    }

    /// Whether the group has nothing of ours, and nothing to say to us.
    pub fn has_nothing(&self) -> bool {
        let ear = self.consumer.context();
        self.revoked.is_none() && ear.ours().partitions.is_empty() && ear.told().is_empty()
    }

    /// What the group says next, if it has something to say. Has to be called all the time: a member that does not is
    /// taken for dead after five minutes.
    pub fn told(&mut self) -> Option<Told> {
        // No record comes this way: every partition has a queue of its own.
        if let Some(Err(error)) = self.consumer.poll(Duration::ZERO)
            && !is_connection(&error)
        {
            let what = "being a member of a consumer group";
            match error.rdkafka_error_code() {
                // The client says only that one is not there, and not which.
                Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                    if let Some(topic) = self.missing() {
                        let address = self.cluster.address.clone();
                        return Some(Told::Trouble(Error::NoTopic { topic, address }));
                    }
                }
                _ => return Some(Told::Trouble(self.cluster.failed(what, &error))),
            }
        }
        let told = self.consumer.context().told().pop_front()?;
        match &told {
            Told::Revoked(partitions) => {
                let held = partitions.iter().cloned().collect();
                self.revoked = Some(Revoked { all: partitions.clone(), held });
                self.give_away_what_was_let_go();
            }
            Told::Lost(partitions) => {
                partitions.iter().for_each(|at| drop(self.queues.remove(at)));
                self.revoked = None;
            }
            Told::Assigned { .. } | Told::Trouble(_) => {}
        }
        Some(told)
    }

    /// The topics that should be there and are not.
    fn missing(&self) -> Option<String> {
        let is_missing =
            |topic: &&String| matches!(self.cluster.partitions(topic), Err(Error::NoTopic { .. }));
        let missing: Vec<_> = self.topics.iter().filter(is_missing).cloned().collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// Waits until there may be something to take or to be told, at most `time`.
    pub fn wait(&self, time: Duration) {
        let ear = self.consumer.context();
        if ear.told().is_empty() {
            ear.wake.wait(time);
        }
    }

    /// Reads partitions, each from an offset on, also those that are read already or were [stopped](Self::stop). Returns those
    /// of which that failed, each with the reason.
    pub fn start(&mut self, places: &[(TopicPartition, Offset)]) -> Vec<(TopicPartition, Error)> {
        let (known, new): (Vec<_>, Vec<_>) =
            places.iter().cloned().partition(|(at, _)| self.queues.contains_key(at));
        let mut failed = self.seek(&known);
        let what = |at: &TopicPartition| format!("beginning to read {at}");
        if let Err(error) = self.assign(&new) {
            failed.extend(new.iter().map(|(at, _)| (at.clone(), self.cluster.failed(what(at), &error))));
        }
        failed
    }

    /// Those that the client reads go on elsewhere.
    fn seek(&self, places: &[(TopicPartition, Offset)]) -> Vec<(TopicPartition, Error)> {
        if places.is_empty() {
            return Vec::new();
        }
        let what = |at: &TopicPartition| format!("going on in {at}");
        let sought = list(places).and_then(|list| {
            self.consumer.resume(&list)?;
            self.consumer.seek_partitions(list, PATIENCE)
        });
        let sought = match sought {
            Ok(sought) => sought,
            Err(error) => {
                let failed = places.iter().map(|(at, _)| (at.clone(), self.cluster.failed(what(at), &error)));
                return failed.collect();
            }
        };
        let failed = sought.elements().into_iter().filter_map(|found| {
            let error = found.error().err()?;
            let at = TopicPartition::new(found.topic(), found.partition());
            let error = self.cluster.failed(what(&at), &error);
            Some((at, error))
        });
        failed.collect()
    }

    /// Those that the client does not read yet are fetched from now on.
    fn assign(&mut self, places: &[(TopicPartition, Offset)]) -> Result<(), KafkaError> {
        if places.is_empty() {
            return Ok(());
        }
        let wake = self.consumer.context().wake.raw();
        let open = |(at, _): &(TopicPartition, Offset)| {
            let queue = Queue::open(self.client(), at, wake).ok_or(KafkaError::Canceled)?;
            Ok((at.clone(), queue))
        };
        let queues: Vec<_> = places.iter().map(open).collect::<Result<_, KafkaError>>()?;
        let list = list(places)?;
        self.consumer.incremental_assign(&list)?;
        self.queues.extend(queues);
        // One that was stopped, given away and came back still is.
        self.consumer.resume(&list)
    }

    /// Fetches no more of a partition until it is [started](Self::start) again. A client that comes upon what it cannot read
    /// would ask for it without end. It stays in the client's assignment: to take it out would be the answer for whatever the
    /// group wants back at the moment.
    pub fn stop(&self, at: &TopicPartition) {
        if self.queues.contains_key(at)
            && let Err(error) =
                list(&[(at.clone(), Offset::ZERO)]).and_then(|list| self.consumer.pause(&list))
        {
            tracing::warn!(%error, partition = %at, "fetching no more of a partition");
        }
    }

    /// Whether a partition has something to take: records, its end, or an error.
    pub fn has_something(&self, at: &TopicPartition) -> bool {
        self.queues.get(at).is_some_and(|queue| !queue.is_empty())
    }

    /// Moves records of a partition into `builder` until that has `records` or `bytes`, or no more are there at the
    /// moment. Those in front of where `builder` begins are passed over; if `last` is among them, it has to be as it was.
    pub fn take(
        &self,
        at: &TopicPartition,
        builder: &mut BatchBuilder,
        last: Option<&Fingerprint>,
        records: usize,
        bytes: usize,
    ) -> Taken {
        let queue = self.queues.get(at);
        queue.map(|queue| queue.take(self.client(), builder, last, records, bytes)).unwrap_or_default()
    }

    /// Nothing of the partition is under way any more: if the group wants it back, it may have it.
    pub fn let_go(&mut self, at: &TopicPartition) {
        if let Some(revoked) = &mut self.revoked {
            revoked.held.remove(at);
        }
        self.give_away_what_was_let_go();
    }

    fn give_away_what_was_let_go(&mut self) {
        if let Some(revoked) = self.revoked.take_if(|revoked| revoked.held.is_empty()) {
            self.give_away(&revoked.all);
        }
    }

    fn give_away(&mut self, partitions: &[TopicPartition]) {
        self.consumer.context().not_ours(partitions);
        answer(self.consumer.incremental_unassign(&those_of(&self.consumer, partitions)));
        partitions.iter().for_each(|at| drop(self.queues.remove(at)));
    }

    /// Of each partition, from the first record that there is to behind the last one that is committed.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`], for all of them.
    pub fn bounds(&self, partitions: &[TopicPartition]) -> Result<Vec<Bounds>, Error> {
        // Not by the member: what it asks waits for the records that it asked for before.
        let asker = self.cluster.asker_knowing(partitions.iter().map(|at| &*at.topic))?;
        let found = self.cluster.bounds_of(&**asker, partitions);
        if found.as_ref().map_or(true, |found| found.iter().any(Result::is_err)) {
            self.cluster.forget(&asker);
        }
        found
    }

    /// Behind the last record of a partition, as the last answer to a fetch had it. Nobody is asked.
    #[expect(unsafe_code, reason = "the client's wrapper has no call for what it knows already")]
    pub fn end_seen(&self, at: &TopicPartition) -> Option<Offset> {
        let topic = CString::new(&*at.topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client lives, the name ends in a zero byte, and the numbers are ours.
        let error = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.client(),
                topic.as_ptr(),
                at.partition,
                &raw mut low,
                &raw mut high,
            )
        };
        let is_known = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        Offset::try_from(high).ok().filter(|_| is_known)
    }

    /// Who this process is in the group, for transactions that move its offsets.
    pub fn membership(&self) -> Arc<dyn Membership> {
        Arc::new(Us(Arc::downgrade(&self.consumer)))
    }

    fn client(&self) -> *mut sys::rd_kafka_t {
        self.consumer.client().native_ptr()
    }
}

impl Drop for Member {
    /// Leaves the group at once, so that others need not wait until it is missed.
    fn drop(&mut self) {
        // The client waits for the answer before it leaves, also to what was said and not heard.
        let unheard = std::mem::take(&mut *self.consumer.context().told());
        let unheard = unheard.into_iter().filter_map(|told| match told {
            Told::Revoked(partitions) => Some(partitions),
            Told::Assigned { .. } | Told::Lost(_) | Told::Trouble(_) => None,
        });
        for partitions in self.revoked.take().map(|revoked| revoked.all).into_iter().chain(unheard) {
            self.give_away(&partitions);
        }
        self.queues.clear();
        self.consumer.context().leaving.store(true, Ordering::Relaxed);
    }
}

/// This process in its group, as long as it is there: it leaves when the [`Member`] goes, whoever has this.
struct Us(Weak<BaseConsumer<Ear>>);

impl std::fmt::Debug for Us {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Us").finish_non_exhaustive()
    }
}

impl Membership for Us {
    fn metadata(&self, held: &[(TopicPartition, Epoch)]) -> Option<ConsumerGroupMetadata> {
        let consumer = self.0.upgrade()?;
        // While it is looked at nothing is given away.
        let ours = consumer.context().ours();
        let is_ours =
            |(at, epoch): &(TopicPartition, Epoch)| ours.partitions.get(at) == Some(&epoch.generation);
        let metadata = consumer.group_metadata().filter(|_| held.iter().all(is_ours));
        // Only then, for no name comes back: who still has it had it before.
        metadata.filter(|_| ours.is_still(&Standing::of(&consumer)))
    }
}

/// Hears what the group says, on the thread that polls.
#[derive(Default)]
struct Ear {
    told: Mutex<VecDeque<Told>>,
    ours: Mutex<Ours>,
    leaving: AtomicBool,
    /// Rung by the client's threads, which end before their context does.
    wake: Wake,
}

/// What the group gave us.
#[derive(Default)]
struct Ours {
    /// What it has not got back, and in which generation it came.
    partitions: BTreeMap<TopicPartition, u64>,
    /// The name that the group knew us by when it last gave us something.
    name: CString,
}

impl Ours {
    /// Whether the group still knows us as whom it gave something to: who comes back after its session was over gets another
    /// name, and goes by the old generation until it is given something.
    fn is_still(&self, standing: &Standing) -> bool {
        standing.generation > 0 && !standing.name.is_empty() && standing.name == self.name
    }

    /// The group gives us something under a name. If that is another one, what it gave us before: others may have had it since.
    /// A broker that gives out a name before anybody joins by it has the client tell of that as a loss; others do not.
    fn known_as(&mut self, name: CString) -> Vec<TopicPartition> {
        // Without a name its session is over right now: it will have another one.
        if name.is_empty() || self.name == name {
            return Vec::new();
        }
        self.name = name;
        self.partitions.keys().cloned().collect()
    }
}

impl Ear {
    fn ours(&self) -> MutexGuard<'_, Ours> {
        self.ours.lock().expect("nobody panics with it in hand")
    }

    /// See [`Ours::is_still`].
    fn is_still(&self, consumer: &BaseConsumer<Self>) -> bool {
        let standing = Standing::of(consumer);
        self.ours().is_still(&standing)
    }

    fn told(&self) -> MutexGuard<'_, VecDeque<Told>> {
        self.told.lock().expect("nobody panics with it in hand")
    }

    fn not_ours(&self, partitions: &[TopicPartition]) {
        let mut ours = self.ours();
        for at in partitions {
            ours.partitions.remove(at);
        }
    }
}

impl ClientContext for Ear {
    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Of each connection, again and again, until it is there.
            Some(RDKafkaErrorCode::BrokerTransportFailure) => tracing::debug!(reason, "a broker of Kafka"),
            Some(RDKafkaErrorCode::AllBrokersDown) if self.leaving.load(Ordering::Relaxed) => {}
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                tracing::warn!(reason, "no broker of Kafka answers: waiting for one");
            }
            // The input of records that come again is made for the first of them; any other topic was looked for before.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) if reason.contains(".replay: ") => {
                tracing::debug!(reason, "nothing was sent through again so far");
            }
            _ => tracing::warn!(%error, reason, "the client of Kafka"),
        }
    }
}

impl ConsumerContext for Ear {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let named = partitions.elements();
        let named = named.iter().map(|at| TopicPartition::new(at.topic(), at.partition()));
        let named: Vec<_> = named.collect();
        let told = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let Standing { generation, name } = Standing::of(consumer);
            let (mut given, kept) = (named, self.ours().known_as(name));
            if !kept.is_empty() {
                answer(consumer.incremental_unassign(&those_of(consumer, &kept)));
                given.extend(kept.iter().cloned());
                self.told().push_back(Told::Lost(kept));
            }
            self.ours().partitions.extend(given.iter().map(|at| (at.clone(), generation)));
            answer(consumer.incremental_assign(&TopicPartitionList::new()));
            Told::Assigned { generation, partitions: given }
        } else if self.leaving.load(Ordering::Relaxed)
            || consumer.assignment_lost()
            // The client forgets that it lost them when another is begun.
            || !self.is_still(consumer)
        {
            self.not_ours(&named);
            answer(consumer.incremental_unassign(&those_of(consumer, &named)));
            Told::Lost(named)
        } else {
            Told::Revoked(named)
        };
        self.told().push_back(told);
    }
}

/// Whether an error is one of connections, of which the client tells otherwise.
fn is_connection(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve))
}

/// As the client takes it.
fn list(places: &[(TopicPartition, Offset)]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (at, from) in places {
        list.add_partition_offset(&at.topic, at.partition, Place::Offset(from.get()))?;
    }
    Ok(list)
}

fn answer(result: Result<(), KafkaError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "answering the group");
    }
}

/// Those of `partitions` that the client reads: it refuses to be rid of others, and a group that gets no answer waits for
/// minutes.
fn those_of(consumer: &BaseConsumer<Ear>, partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut both = TopicPartitionList::new();
    let Ok(read) = consumer.assignment() else { return both };
    for at in partitions {
        if read.find_partition(&at.topic, at.partition).is_some() {
            both.add_partition(&at.topic, at.partition);
        }
    }
    both
}

/// Who this client is in its group, as far as it knows.
struct Standing {
    /// 0 where there is none.
    generation: u64,
    /// Empty where the group does not know it, as after its session is over.
    name: CString,
}

impl Standing {
    #[expect(unsafe_code, reason = "the client library has no safe call for it")]
    fn of(consumer: &BaseConsumer<Ear>) -> Self {
        // SAFETY: the client lives, what it returns is ours to destroy, and the name in it ends in a zero byte.
        let (generation, name) = unsafe {
            let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
            if metadata.is_null() {
                return Self { generation: 0, name: CString::default() };
            }
            let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
            let name = CStr::from_ptr(sys::rd_kafka_consumer_group_metadata_member_id(metadata)).to_owned();
            sys::rd_kafka_consumer_group_metadata_destroy(metadata);
            (generation, name)
        };
        // It is 1 or higher, and -1 where a broker knows a higher one.
        Self { generation: u64::try_from(generation).unwrap_or_default(), name }
    }
}

/// Wakes who waits when the group has something to say.
#[expect(unsafe_code, reason = "the client library has no safe call for it")]
fn wake_when_told(consumer: &BaseConsumer<Ear>) {
    // SAFETY: the client lives; its queue is another handle to one that lives as long as it does.
    unsafe {
        queue::wake_by_own(
            sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()),
            consumer.context().wake.raw(),
        )
    }
}

#[cfg(test)]
mod tests;
