//! On a real Kafka, whose address `weir-services` gives.
#![cfg(feature = "servers")]

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset as Place, TopicPartitionList};

use super::*;
use crate::batch::Batch;
use crate::kafka::topics::Shape;
use crate::sink::state::Nonce;

const LONG: Duration = Duration::from_secs(60);

fn brokers() -> String {
    std::env::var("WEIR_TEST_KAFKA").expect("weir-services says where Kafka is")
}

/// A topic of this run alone, and a group to read it with.
struct Topic {
    name: String,
    cluster: Cluster,
    producer: BaseProducer,
}

impl Topic {
    fn new(partitions: u16) -> Self {
        let cluster = Cluster::new(brokers(), BTreeMap::new()).unwrap();
        let name = format!("source-{}", Nonce::random());
        cluster.create(&name, Shape { partitions: Some(partitions), replication: None }).unwrap();
        Self { name, cluster, producer: client().create().unwrap() }
    }

    fn at(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(&*self.name, partition)
    }

    fn send(&self, partition: i32, values: &[&str]) {
        for value in values {
            let record = BaseRecord::<str, str>::to(&self.name).partition(partition).payload(*value);
            self.producer.send(record).unwrap();
        }
        self.producer.flush(LONG).unwrap();
    }

    /// Has the cluster forget what stands before `first`.
    fn delete(&self, first: i64) {
        let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, 0, Place::Offset(first)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
    }

    fn replay(&self) -> String {
        crate::origin::replay_topic(&self.name)
    }

    fn source(&self, once: bool, budget: &Budget) -> KafkaSource {
        let settings = KafkaSettings {
            group: format!("weir.{}", self.name).into(),
            topics: vec![self.name.as_str().into()],
            replay: self.replay().into(),
            incarnation: 0,
            batch_records: 100,
            batch_bytes: 1 << 20,
            once,
        };
        let starts: Starts = Box::new(|all, _| Ok(all.iter().map(|_| Start::Init(Offset::ZERO)).collect()));
        let incarnation: Incarnation = Box::new(|raise| Ok(raise.unwrap_or_default()));
        KafkaSource::new(&self.cluster, settings, budget.clone(), starts, incarnation).unwrap()
    }
}

fn client() -> ClientConfig {
    ClientConfig::new().set("bootstrap.servers", brokers()).clone()
}

fn budget() -> Budget {
    Budget::new(1 << 20)
}

/// The next event, however long it takes: a minute is enough for anything.
fn event(source: &mut KafkaSource) -> SourceEvent {
    until(source, Some)
}

/// The first event of which `wanted` makes something; those before are not looked at. Where partitions end is left out.
fn until<T>(source: &mut KafkaSource, mut wanted: impl FnMut(SourceEvent) -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a bound, far behind what is expected")]
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        if let Poll::Event(event) = source.poll()
            && !matches!(event, SourceEvent::Seen(_))
            && let Some(found) = wanted(event)
        {
            return found;
        }
    }
    panic!("nothing of the kind came");
}

fn assigned(event: SourceEvent) -> Option<Vec<Assignment>> {
    match event {
        SourceEvent::Assigned(assignments) => Some(assignments),
        other => panic!("{other:?}"),
    }
}

/// The values of the next `n` records, and where the reader stands.
fn values(source: &mut KafkaSource, n: usize) -> (Vec<String>, Offset) {
    let mut all = Vec::new();
    loop {
        let batch = until(source, |event| match event {
            SourceEvent::Batch { batch, .. } => Some(batch),
            other => panic!("{other:?}"),
        });
        all.extend(text(&batch));
        if all.len() >= n {
            return (all, batch.range().end);
        }
    }
}

fn text(batch: &Batch) -> Vec<String> {
    batch.values().iter().map(|v| String::from_utf8(v.unwrap_or(b"none").to_vec()).unwrap()).collect()
}

#[test]
fn a_record_arrives_with_all_that_it_has() {
    let topic = Topic::new(1);
    let headers =
        OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some("1") })
            .insert(Header::<&str> { key: "none", value: None });
    let record = BaseRecord::<str, str>::to(&topic.name).key("k").payload("v").timestamp(77);
    topic.producer.send(record.headers(headers)).unwrap();
    topic.producer.send(BaseRecord::<str, str>::to(&topic.name).key("gone").timestamp(78)).unwrap();
    topic.producer.flush(LONG).unwrap();
    let mut source = topic.source(false, &budget());
    let assignment = until(&mut source, assigned).remove(0);
    assert_eq!((assignment.at.clone(), assignment.epoch.generation), (topic.at(0), 1));
    assert_eq!(&*assignment.topic_id, topic.cluster.topic_id(&topic.name).unwrap());
    source.read(RunId(1), &topic.at(0), Offset::ZERO, None);
    let SourceEvent::Batch { run, batch } = event(&mut source) else { panic!("a batch") };
    assert_eq!((run, batch.len(), batch.range().end), (RunId(1), 2, Offset::new(2)));
    assert_eq!(batch.keys().iter().collect::<Vec<_>>(), [Some(&b"k"[..]), Some(b"gone")]);
    assert_eq!(batch.values().iter().collect::<Vec<_>>(), [Some(&b"v"[..]), None]);
    assert_eq!(batch.timestamps(), [77, 78]);
    let headers: Vec<_> = batch.headers().get(0).collect();
    assert_eq!(headers, [("trace", Some(&b"1"[..])), ("none", None)]);
    assert_eq!(batch.headers().get(1).count(), 0);
}

#[test]
fn a_partition_is_read_from_where_it_is_told_again_and_again() {
    let topic = Topic::new(1);
    topic.send(0, &["a", "b", "c", "d"]);
    let mut source = topic.source(false, &budget());
    until(&mut source, assigned);
    source.read(RunId(1), &topic.at(0), Offset::new(2), None);
    assert_eq!(values(&mut source, 2), (vec!["c".into(), "d".into()], Offset::new(4)));
    source.read(RunId(2), &topic.at(0), Offset::new(1), None);
    topic.send(0, &["e"]);
    let (all, end) = values(&mut source, 4);
    assert_eq!((all.concat(), end), ("bcde".to_owned(), Offset::new(5)));
    source.hold(&topic.at(0));
    topic.send(0, &["f"]);
    source.read(RunId(3), &topic.at(0), Offset::new(5), None);
    assert_eq!(values(&mut source, 1), (vec!["f".into()], Offset::new(6)));
}

#[test]
fn a_record_in_front_that_is_not_what_it_was_stops_its_partition() {
    let topic = Topic::new(1);
    topic.send(0, &["a", "b", "c"]);
    let last = |offset, value: &str| Some(Fingerprint::of(Offset::new(offset), None, Some(value.as_bytes())));
    let mut source = topic.source(false, &budget());
    until(&mut source, assigned);
    source.read(RunId(1), &topic.at(0), Offset::new(2), last(1, "b"));
    assert_eq!(values(&mut source, 1), (vec!["c".into()], Offset::new(3)));
    // A place that has no record any more, as after a compaction, says nothing.
    source.read(RunId(2), &topic.at(0), Offset::new(3), last(3, "d"));
    topic.send(0, &["d"]);
    assert_eq!(values(&mut source, 1), (vec!["d".into()], Offset::new(4)));
    source.read(RunId(3), &topic.at(0), Offset::new(2), last(1, "B"));
    let text = until(&mut source, |event| match event {
        SourceEvent::Failed { error: Error::Input { text, .. }, .. } => Some(text),
        SourceEvent::Batch { batch, .. } => panic!("{:?}", text(&batch)),
        _ => None,
    });
    assert!(text.starts_with("E_TOPIC_REPLACED: the record of ") && text.contains(" at 1 is"), "{text}");
}

#[test]
fn it_is_told_where_a_partition_ends_again_whenever_it_goes_on() {
    let topic = Topic::new(1);
    topic.send(0, &["a", "b"]);
    let budget = budget();
    // So nothing is taken of it; what it has is told all the same.
    let _all = budget.acquire(1 << 20).unwrap();
    let mut source = topic.source(false, &budget);
    until(&mut source, assigned);
    source.read(RunId(1), &topic.at(0), Offset::ZERO, None);
    let mut told = || {
        #[expect(clippy::disallowed_methods, reason = "a bound, far behind what is expected")]
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            if let Poll::Event(SourceEvent::Seen(ends)) = source.poll() {
                return ends;
            }
        }
        panic!("nothing is told");
    };
    assert_eq!(told(), [(topic.at(0), Offset::new(2))]);
    topic.send(0, &["c"]);
    assert_eq!(told(), [(topic.at(0), Offset::new(3))]);
}

/// The replay input is found when there is one; what of it is no envelope is unreadable, and elsewhere an envelope is nothing.
#[test]
fn the_replay_input_is_read_from_when_it_is_there_and_holds_envelopes() {
    let mut topic = Topic::new(1);
    let soon = [("topic.metadata.refresh.interval.ms".to_owned(), "100".to_owned())];
    topic.cluster = Cluster::new(brokers(), soon.into()).unwrap();
    let send = |to: &str, envelope: Option<&str>| {
        let headers = OwnedHeaders::new_with_capacity(2);
        let headers = envelope.iter().fold(headers, |headers, text| {
            headers.insert(Header { key: crate::origin::ENVELOPE, value: Some(*text) })
        });
        let record = BaseRecord::<str, str>::to(to).payload("v").key("k").timestamp(7);
        let headers = headers.insert(Header { key: "trace", value: Some("1") });
        topic.producer.send(record.headers(headers)).unwrap();
        topic.producer.flush(LONG).unwrap();
    };
    let batch = |event| match event {
        SourceEvent::Batch { batch, .. } => Some(batch),
        _ => None,
    };
    send(&topic.name, Some("t/0/5/1"));
    let mut source = topic.source(false, &budget());
    assert_eq!(until(&mut source, assigned)[0].at, topic.at(0));
    source.read(RunId(1), &topic.at(0), Offset::ZERO, None);
    let ordinary = until(&mut source, batch);
    assert!(ordinary.origins().is_none() && ordinary.headers().get(0).count() == 2);

    let (replay, at) = (topic.replay(), TopicPartition::new(topic.replay(), 0));
    topic.cluster.make_kept_in_order(&replay).unwrap();
    ["t/0/5/1", "t/0/5/0", "u/3/9/2"].iter().for_each(|text| send(&replay, Some(text)));
    assert_eq!(until(&mut source, assigned)[0].at, at);
    source.read(RunId(2), &at, Offset::ZERO, None);
    let again = until(&mut source, batch);
    let origins: Vec<_> = again.origins().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!((origins, again.offsets()), (vec!["t/0/5/1".to_owned(), "u/3/9/2".to_owned()], &[0, 2][..]));
    assert_eq!(again.headers().get(0).collect::<Vec<_>>(), [("trace", Some(&b"1"[..]))]);
    assert_eq!((again.keys().get(0), again.timestamps()), (Some(&b"k"[..]), &[7, 7][..]));
    let unreadable: Vec<_> =
        again.unreadable().iter().map(|found| (found.offset.get(), found.code)).collect();
    assert_eq!(unreadable, [(1, "no-envelope")]);
}

#[test]
fn a_partition_is_given_to_another_only_once_it_was_let_go() {
    let topic = Topic::new(2);
    topic.send(0, &["a"]);
    topic.send(1, &["b"]);
    let mut one = topic.source(false, &budget());
    let mut ours = BTreeMap::new();
    while ours.len() < 2 {
        for assignment in until(&mut one, assigned) {
            one.read(RunId(1), &assignment.at, Offset::ZERO, None);
            ours.insert(assignment.at, assignment.epoch);
        }
    }
    // The other one only polls until it is given something.
    let (given, told) = crossbeam_channel::bounded(1);
    let other = std::thread::spawn({
        let mut two = topic.source(false, &budget());
        move || {
            let assignment = until(&mut two, assigned).remove(0);
            given.send(assignment.clone()).unwrap();
            assignment
        }
    });
    let revoked = until(&mut one, |event| match event {
        SourceEvent::Revoked(at) => Some(at),
        _ => None,
    });
    // As long as it is not let go it stays ours, however often the group is asked.
    (0..50).for_each(|_| drop(one.poll()));
    assert!(told.try_recv().is_err(), "given away before it was let go");
    one.forget(&revoked, false);
    while !other.is_finished() {
        one.poll();
    }
    let assignment = other.join().unwrap();
    assert_eq!(assignment.at, revoked);
    assert!(assignment.epoch > ours[&revoked], "{} after {}", assignment.epoch, ours[&revoked]);
}

#[test]
fn what_is_gone_or_was_never_there_stops_the_partition_and_is_named() {
    let topic = Topic::new(1);
    topic.send(0, &["a", "b", "c", "d"]);
    topic.delete(2);
    let mut source = topic.source(false, &budget());
    until(&mut source, assigned);
    let failure = |source: &mut KafkaSource| {
        until(source, |event| match event {
            SourceEvent::Failed { error: Error::Input { text, .. }, .. } => Some(text),
            other => panic!("{other:?}"),
        })
    };
    source.read(RunId(1), &topic.at(0), Offset::new(1), None);
    let text = failure(&mut source);
    assert!(text.starts_with("E_INPUT_GAP: the records [1, 2)"), "{text}");
    source.read(RunId(2), &topic.at(0), Offset::new(9), None);
    let text = failure(&mut source);
    assert!(text.starts_with("E_INPUT_TRUNCATED") && text.contains("ends at 4"), "{text}");
    source.read(RunId(3), &topic.at(0), Offset::new(2), None);
    assert_eq!(values(&mut source, 2).1, Offset::new(4));
}

#[test]
fn a_source_that_does_not_go_on_ends_behind_the_markers_of_transactions() {
    let topic = Topic::new(2);
    let id = format!("upstream-{}", topic.name);
    let upstream: BaseProducer = client().set("transactional.id", id).create().unwrap();
    upstream.init_transactions(LONG).unwrap();
    for commits in [true, false] {
        upstream.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to(&topic.name).partition(0);
        upstream.send(record.payload(if commits { "kept" } else { "given up" })).unwrap();
        upstream.flush(LONG).unwrap();
        match commits {
            true => upstream.commit_transaction(LONG).unwrap(),
            false => upstream.abort_transaction(LONG).unwrap(),
        }
    }
    let mut source = topic.source(true, &budget());
    let both = until(&mut source, assigned);
    both.iter().for_each(|ours| source.read(RunId(1), &ours.at, Offset::ZERO, None));
    assert_eq!(both.len(), 2, "what is given together is said together");
    let (mut all, mut ends) = (Vec::new(), BTreeMap::new());
    until(&mut source, |event| match event {
        SourceEvent::Batch { batch, .. } => {
            all.extend(text(&batch));
            None
        }
        SourceEvent::End { at, end, for_good: false, .. } => {
            ends.insert(at, end.get());
            None
        }
        SourceEvent::Exhausted => Some(()),
        other => panic!("{other:?}"),
    });
    assert_eq!(all, ["kept"]);
    // Two records, two markers; and a partition that never had anything.
    assert_eq!(ends, BTreeMap::from([(topic.at(0), 4), (topic.at(1), 0)]));
}

#[test]
fn a_budget_that_is_used_up_stops_records_and_nothing_else() {
    let topic = Topic::new(1);
    topic.send(0, &["a"]);
    let budget = budget();
    let all = budget.acquire(1 << 20).unwrap();
    let mut source = topic.source(false, &budget);
    until(&mut source, assigned);
    source.read(RunId(1), &topic.at(0), Offset::ZERO, None);
    (0..50).for_each(|_| assert!(matches!(source.poll(), Poll::Again)));
    drop(all);
    assert_eq!(values(&mut source, 1).0, ["a"]);
    budget.close();
    topic.send(0, &["b"]);
    while !matches!(source.poll(), Poll::Closed) {}
}
