//! The Kafka sink on a real cluster: the laws of all sinks, with a group and without; lost answers, members whose group
//! moved on, and rows that a topic does not take.
#![cfg(feature = "servers")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};

use super::*;
use crate::kafka::peek::{self, From, peek};
use crate::kafka::topics::Shape;
use crate::kafka::transactions::{Loss, Outgoing};
use crate::sink::Part;
use crate::sink::conformance::{
    LAWS, Owner as Process, Seen, World, at, batch, claim, commit, conflict, delivered, permanent,
};
use crate::sink::state::Start;

mod failpoints;
mod group;
mod rows;

/// Where the cluster is.
const BROKERS: &str = "WEIR_TEST_KAFKA";

/// The topic that records are said to come from.
const INPUT: &str = "customers";

fn brokers() -> String {
    std::env::var(BROKERS).unwrap_or_else(|_| {
        panic!(
            "{BROKERS} does not say where a Kafka cluster is: cargo run -p weir-services -- run kafka -- \
             cargo test -p weir --features servers,failpoints --lib sink::kafka"
        )
    })
}

fn cluster() -> Cluster {
    let cluster = Cluster::new(brokers(), BTreeMap::new()).unwrap();
    static INPUT_IS_THERE: OnceLock<()> = OnceLock::new();
    INPUT_IS_THERE.get_or_init(|| {
        cluster.create(INPUT, Shape { partitions: Some(3), replication: Some(1) }).unwrap();
    });
    cluster
}

/// Topics of a pipeline of its own that processes write to, and their readers.
struct Base {
    pipeline: String,
    members: Option<Arc<Members>>,
    provenance: bool,
    compression: Compression,
    /// Whether processes are made whose transactions the cluster soon gives up.
    hasty: AtomicBool,
}

impl Base {
    fn of(members: bool) -> Self {
        let pipeline = format!("p-{}", Nonce::random());
        let members = members.then(|| Arc::new(Members::of(&pipeline)));
        let (provenance, compression) = (true, Compression::Lz4);
        Self { pipeline, members, provenance, compression, hasty: AtomicBool::new(false) }
    }

    /// Records come from files.
    fn alone() -> Self {
        Self::of(false)
    }

    /// Records come from Kafka.
    fn in_a_group() -> Self {
        Self::of(true)
    }

    fn topic(&self, target: &str) -> String {
        format!("{target}-{}", self.pipeline)
    }

    fn config(&self) -> KafkaConfig {
        let topics = ["a", "b"].map(|target| (Arc::from(target), self.topic(target)));
        let member = self.members.as_ref().map(|members| members.member());
        let seconds = if self.hasty.load(Ordering::Relaxed) { 4 } else { 10 };
        KafkaConfig {
            member: member.map(|member| Arc::new(member) as Arc<dyn Membership>),
            topics: topics.into(),
            provenance: self.provenance,
            compression: self.compression,
            transaction_timeout: Duration::from_secs(seconds),
            ..KafkaConfig::new(cluster(), &*self.pipeline, "base")
        }
    }

    fn sink(&self) -> KafkaSink {
        KafkaSink::open(self.config()).unwrap()
    }

    fn claimed(&self, generation: u64) -> KafkaSink {
        let mut sink = self.sink();
        sink.claim(&claim(generation)).unwrap();
        sink
    }

    /// All records of a target that are committed.
    fn records(&self, target: &str) -> Vec<peek::Seen> {
        read(&self.topic(target))
    }

    fn rejects(&self) -> Vec<peek::Seen> {
        read(&format!("weir.{}.rejects", self.pipeline))
    }

    /// Where the group stands.
    fn stands(&self) -> Option<i64> {
        let offsets = GroupOffsets::new(&cluster(), &format!("weir.{}", self.pipeline)).unwrap();
        offsets.committed(&[&at()]).unwrap()[0].map(Offset::get)
    }
}

/// All records of a topic that are committed, once no transaction is open there.
fn read(topic: &str) -> Vec<peek::Seen> {
    let ends = ["read_committed", "read_uncommitted"].map(|isolation| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers()).set("group.id", "tests").set("isolation.level", isolation);
        let consumer: BaseConsumer = config.create().unwrap();
        move |partition| consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap().1
    });
    let partitions = cluster().partitions(topic).unwrap_or_default();
    for partition in 0..i32::try_from(partitions).unwrap() {
        while ends[0](partition) < ends[1](partition) {}
    }
    let mut records = Vec::new();
    let each = &mut |record| {
        records.push(record);
        true
    };
    match peek(&cluster(), topic, None, From::Start, each) {
        Ok(()) | Err(kafka::Error::NoTopic { .. }) => records,
        Err(error) => panic!("{error}"),
    }
}

/// A header's value as text.
fn header(record: &peek::Seen, name: &str) -> Option<String> {
    let found: Vec<_> = record.headers.iter().filter(|(found, _)| found == name).collect();
    assert!(found.len() <= 1, "{name} is there {} times", found.len());
    found.first().map(|(_, value)| String::from_utf8(value.clone().unwrap()).unwrap())
}

/// The offset of the record that a row comes from, and its number among the rows of that.
fn place(row: &peek::Seen) -> [i64; 2] {
    let origin = header(row, "weir-origin").expect("it says so");
    let parts: Vec<_> = origin.split('/').collect();
    [parts[2], parts[3]].map(|number| number.parse().expect("a number"))
}

impl World for Base {
    fn process(&self) -> Box<dyn Sink> {
        Box::new(self.sink())
    }

    fn visible(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for target in ["a", "b"] {
            for record in self.records(target) {
                let [offset, index] = place(&record);
                let value: serde_json::Value =
                    serde_json::from_slice(&record.value.clone().unwrap()).unwrap();
                let text = value["text"].as_str().unwrap().to_owned();
                seen.push((target.to_owned(), offset, index as i32, text));
            }
        }
        seen.sort();
        seen
    }
}

/// The group of a pipeline, whose only member is the process that was asked for the highest epoch.
struct Members {
    group: String,
    present: Mutex<(Epoch, Option<BaseConsumer>)>,
}

impl Members {
    fn of(pipeline: &str) -> Self {
        Self { group: format!("weir.{pipeline}"), present: Mutex::default() }
    }

    /// A process that joins when it is first asked, and knows nothing of those who joined later.
    fn member(self: &Arc<Self>) -> Member {
        Member { members: self.clone(), known: Mutex::default() }
    }

    /// Joins in the place of whoever is a member; what a member of this generation may show, often enough. Nothing, if
    /// the partitions were given to somebody else by then.
    fn join(&self, epoch: Epoch) -> Vec<ConsumerGroupMetadata> {
        let mut present = self.present.lock().unwrap();
        if present.0 > epoch {
            return Vec::new();
        }
        drop(present.1.take());
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&[INPUT]).unwrap();
        while consumer.assignment().unwrap().count() == 0 {
            consumer.poll(Duration::from_millis(10));
        }
        let known = (0..100).map(|_| consumer.group_metadata().unwrap()).collect();
        *present = (epoch, Some(consumer));
        known
    }
}

/// What one process knows of the group.
struct Member {
    members: Arc<Members>,
    known: Mutex<BTreeMap<Epoch, Vec<ConsumerGroupMetadata>>>,
}

impl Membership for Member {
    fn metadata(&self, held: &[(TopicPartition, Epoch)]) -> Option<ConsumerGroupMetadata> {
        let epoch = held[0].1;
        assert!(held.iter().all(|(_, of)| *of == epoch));
        self.known.lock().unwrap().entry(epoch).or_insert_with(|| self.members.join(epoch)).pop()
    }
}

fn transient(error: Error) -> String {
    match error {
        Error::Transient(problem) => problem.to_string(),
        other => panic!("not transient: {other}"),
    }
}

/// Commits parts as offsets `0..n`.
fn deliver(sink: &mut KafkaSink, n: i64, parts: Vec<Part>) -> Result<Committed, Error> {
    sink.write(RoutedBatch { parts, ..batch(0, n) })?;
    sink.commit(&at(), &commit(0, n))
}

/// Tries every law, each on a world of its own and several at once: most of the time is spent waiting.
fn check_laws(world: fn() -> Base) {
    let next = AtomicUsize::new(0);
    let broken = Mutex::new(Vec::new());
    let work = || {
        while let Some((law, check)) = LAWS.get(next.fetch_add(1, Ordering::Relaxed)) {
            if catch_unwind(AssertUnwindSafe(|| check(&world()))).is_err() {
                broken.lock().unwrap().push(*law);
            }
        }
    };
    thread::scope(|scope| (0..6).for_each(|_| drop(scope.spawn(work))));
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "broken: {broken:#?}");
}

#[test]
fn topics_obey_every_law_where_the_name_fences() {
    check_laws(Base::alone);
}

#[test]
fn topics_obey_every_law_where_the_group_fences() {
    check_laws(Base::in_a_group);
}

#[test]
fn a_lost_answer_is_resolved_to_what_is_true_of_the_rows() {
    for base in [Base::alone(), Base::in_a_group()] {
        let mut sink = base.claimed(1);
        let mut next = 0;
        for (loss, expected) in [(Loss::After, Resolved::Committed), (Loss::Before, Resolved::NotCommitted)] {
            let end = next + 3;
            sink.write(batch(next, end)).unwrap();
            sink.transactions.lose = Some(loss);
            let request = commit(next, end);
            let Committed::Unknown(_) = sink.commit(&at(), &request).unwrap() else { panic!("it was lost") };
            assert_eq!(sink.resolve(&at(), &request).unwrap(), expected);
            if expected == Resolved::NotCommitted {
                assert_eq!(sink.commit(&at(), &request).unwrap(), Committed::Done);
            }
            next = end;
        }
        sink.write(batch(next, next + 1)).unwrap();
        assert_eq!(sink.commit(&at(), &commit(next, next + 1)).unwrap(), Committed::Done);
        let mut all = delivered(0, next + 1);
        all.sort();
        assert_eq!(base.visible(), all);
    }
}

#[test]
fn nothing_is_concluded_from_a_look_at_the_progress_that_broke_off() {
    for base in [Base::alone(), Base::in_a_group()] {
        let mut sink = base.claimed(1);
        sink.write(batch(0, 3)).unwrap();
        assert_eq!(sink.commit(&at(), &commit(0, 3)).unwrap(), Committed::Done);
        // What it comes upon first is older than what is known.
        sink.progress.break_off();
        transient(sink.progress.read_on().unwrap_err());
        sink.write(batch(3, 6)).unwrap();
        assert_eq!(sink.commit(&at(), &commit(3, 6)).unwrap(), Committed::Done);
        // Nor does it say what became of a commit whose answer was lost.
        sink.write(batch(6, 9)).unwrap();
        sink.transactions.lose = Some(Loss::After);
        let request = commit(6, 9);
        let Committed::Unknown(_) = sink.commit(&at(), &request).unwrap() else { panic!("it was lost") };
        sink.progress.break_off();
        transient(sink.resolve(&at(), &request).unwrap_err());
        assert_eq!(sink.resolve(&at(), &request).unwrap(), Resolved::Committed);
        let mut all = delivered(0, 9);
        all.sort();
        assert_eq!(base.visible(), all);
    }
}

#[test]
fn a_transaction_that_nobody_ends_is_told_by_where_it_is_and_once_it_is_ended_it_goes_on() {
    let base = Base::alone();
    let mut sink = base.claimed(1);
    sink.write(batch(0, 3)).unwrap();
    assert_eq!(sink.commit(&at(), &commit(0, 3)).unwrap(), Committed::Done);
    let topic = sink.progress.topic().to_owned();
    // Waits for the marker of that commit.
    let before = read(&topic).len();
    let (_, since) = cluster().extents(&topic).unwrap()[0];
    let mut stranger = Transactions::new(&cluster());
    let settings = Settings { id: format!("{topic}.stranger"), ..sink.settings() };
    stranger.renew(&settings).unwrap();
    stranger.begin().unwrap();
    let record = Outgoing { topic: &topic, key: Some(b"its own"), value: None, timestamp_ms: -1 };
    stranger.send(0, &record, std::iter::empty()).unwrap();
    stranger.settle().unwrap();
    let mut look = base.sink().progress;
    // As if it had waited for as long as it does.
    look.break_off();
    let told = transient(look.read_on().unwrap_err());
    let open = format!(
        "E_TRANSACTION_OPEN: reading topic {topic}: a transaction in partition {topic}/0 is open since offset {since},"
    );
    assert!(before > 0 && told.starts_with(&open), "{told}");
    stranger.renew(&settings).unwrap();
    look.read_on().unwrap();
    assert_eq!(look.get(&at()).unwrap().next, Offset::new(3));
}

#[test]
fn who_lost_the_answer_and_then_the_partition_is_told_so() {
    for base in [Base::alone(), Base::in_a_group()] {
        base.hasty.store(true, Ordering::Relaxed);
        let mut sink = base.claimed(1);
        sink.write(batch(0, 3)).unwrap();
        sink.transactions.lose = Some(Loss::Before);
        let request = commit(0, 3);
        sink.commit(&at(), &request).unwrap();
        let mut owner = Process::claimed(&base, 2);
        let refused = conflict(sink.resolve(&at(), &request).unwrap_err());
        assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
        owner.deliver(0, 2);
        assert_eq!(base.visible(), delivered(0, 2));
    }
}

#[test]
fn the_group_moves_in_all_partitions_that_are_committed_together() {
    let base = Base::in_a_group();
    let mut sink = base.claimed(1);
    let other = TopicPartition::new(INPUT, 1);
    sink.claim(&Claim { at: other.clone(), ..claim(1) }).unwrap();
    sink.write(batch(0, 3)).unwrap();
    sink.write(RoutedBatch { at: other.clone(), ..batch(0, 4) }).unwrap();
    let answers = sink.commit_together(&[(at(), commit(0, 3)), (other.clone(), commit(0, 4))]);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Committed::Done))), "{answers:?}");
    let offsets = &sink.group.as_ref().unwrap().offsets;
    let stands = offsets.committed(&[&at(), &other]).unwrap();
    assert_eq!(stands, [3, 4].map(|next| Some(Offset::new(next))));
}

/// It takes the name, and then finds that it may not: who may goes on.
#[test]
fn an_owner_whose_name_was_taken_by_somebody_who_may_not_goes_on() {
    let base = Base::alone();
    let mut owner = base.claimed(2);
    let mut intruder = base.sink();
    intruder.renew().unwrap();
    assert!(intruder.claim(&claim(1)).is_err());
    owner.write(batch(0, 3)).unwrap();
    assert_eq!(owner.commit(&at(), &commit(0, 3)).unwrap(), Committed::Done);
    assert_eq!(base.visible(), delivered(0, 3));
}

#[test]
fn what_a_newer_program_wrote_is_refused_and_what_others_wrote_is_left_alone() {
    let base = Base::alone();
    let topic = base.claimed(1).progress.topic().to_owned();
    let mut log = kafka::log::TopicLog::open(&cluster(), &topic, kafka::log::Keep::LastOfKey).unwrap();
    log.append(b"other/id/0", Some(b"no JSON")).unwrap();
    log.append(b"basement/id/0", Some(br#"{"version":9}"#)).unwrap();
    Process::claimed(&base, 2);
    log.append(b"base/id-1/0", Some(br#"{"version":3,"more":1}"#)).unwrap();
    let text = permanent(base.sink().claim(&claim(3)).unwrap_err());
    assert!(text.starts_with("E_LOG_NEWER: the record of base/id-1/0 in topic weir."), "{text}");
}
