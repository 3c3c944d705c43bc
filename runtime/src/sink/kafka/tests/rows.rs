//! What becomes of a row: its key, value, headers and time, and where it goes if its topic does not take it.

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;

use super::*;
use crate::batch::Headers;
use crate::kafka::transactions::wire_bytes;
use crate::route::{DEAD_LETTERS, dead_letters_schema, records_schema};
use crate::sink::back::{Asked, Reader as _};
use crate::sink::conformance::{again, part};

/// The administrator of the cluster.
fn administer<T, F: Future<Output = T>>(ask: impl FnOnce(AdminClient<DefaultClientContext>) -> F) -> T {
    let admin = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ask(admin))
}

/// Makes a topic of one partition that takes so many bytes at once.
pub(super) fn limit(topic: &str, bytes: usize) {
    let bytes = bytes.to_string();
    let made = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", &bytes);
    let made = administer(async |admin| admin.create_topics([&made], &AdminOptions::new()).await);
    made.unwrap().pop().unwrap().unwrap();
}

fn alter(topic: &str, name: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let changed = administer(async |admin| admin.alter_configs([&change], &AdminOptions::new()).await);
    changed.unwrap().pop().unwrap().unwrap();
}

/// One row with one column.
pub(super) fn text(target: &str, offset: i64, text: &str) -> Part {
    rows(target, &[offset], vec![("text", Arc::new(StringArray::from(vec![text])))])
}

fn rows(target: &str, offsets: &[i64], columns: Vec<(&str, ArrayRef)>) -> Part {
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, array)| array).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    Part { rows, ..part(target, offsets.to_vec(), 0) }
}

fn keys(keys: &[Option<&[u8]>]) -> Option<crate::batch::VarBytes> {
    Some(keys.iter().copied().collect())
}

/// Name and value.
type Header<'a> = (&'a str, Option<&'a [u8]>);

fn headers(of: &[&[Header<'_>]]) -> Option<Headers> {
    let mut headers = Headers::default();
    of.iter().for_each(|entry| headers.push(entry));
    Some(headers)
}

fn value(record: &peek::Seen) -> Option<String> {
    record.value.clone().map(|value| String::from_utf8(value).unwrap())
}

fn sorted(mut records: Vec<peek::Seen>) -> Vec<peek::Seen> {
    records.sort_by_key(|record| place(record)[0]);
    records
}

#[test]
fn a_row_is_a_record_with_its_key_value_time_and_headers_and_where_it_comes_from() {
    let base = Base::alone();
    let mut sink = base.claimed(1);
    let part = rows(
        "a",
        &[3, 4],
        vec![
            ("id", Arc::new(Int64Array::from(vec![Some(7), None]))),
            ("name", Arc::new(StringArray::from(vec!["a\"b", "ü"]))),
        ],
    );
    let part = Part {
        keys: keys(&[Some(b"seven"), None]),
        // That a record came from elsewhere before is true of another row.
        headers: headers(&[
            &[
                ("trace", Some(b"t1")),
                ("weir-origin", Some(b"a/0/1/0/1")),
                ("empty", None),
                ("trace", Some(b"t2")),
            ],
            &[],
        ]),
        timestamps: vec![1_700_000_000_123, -1].into(),
        ..part
    };
    sink.write(RoutedBatch { parts: vec![part], ..batch(0, 5) }).unwrap();
    sink.commit(&at(), &commit(0, 5)).unwrap();
    let records = sorted(base.records("a"));
    assert_eq!(value(&records[0]).unwrap(), r#"{"id":7,"name":"a\"b"}"#);
    assert_eq!(value(&records[1]).unwrap(), r#"{"id":null,"name":"ü"}"#);
    assert_eq!((records[0].key.as_deref(), records[1].key.as_deref()), (Some(&b"seven"[..]), None));
    assert_eq!(records[0].timestamp_ms, 1_700_000_000_123);
    assert!(records[1].timestamp_ms > 1_700_000_000_123);
    let shown = |value: &Option<Vec<u8>>| value.clone().map(|value| String::from_utf8(value).unwrap());
    let of: Vec<_> = records[0].headers.iter().map(|(name, value)| (name.as_str(), shown(value))).collect();
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        ("trace", some("t1")),
        ("empty", None),
        ("trace", some("t2")),
        ("weir-origin", some("customers/0/3/0/7")),
    ];
    assert_eq!(of, expected);
}

#[test]
fn a_row_of_a_record_that_comes_again_says_where_it_came_first_and_which_attempt_it_is() {
    let base = Base::alone();
    let mut sink = base.claimed(1);
    let texts = vec![("text", Arc::new(StringArray::from(vec!["x", "y"])) as ArrayRef)];
    let late = again(rows("a", &[1, 2], texts), &["orders/3/1042/12", "weir.p.replay/0/2/0"]);
    deliver(&mut sink, 3, vec![text("a", 0, "w"), late]).unwrap();
    let mut said = base
        .records("a")
        .iter()
        .map(|r| (header(r, "weir-origin"), header(r, "weir-attempt")))
        .collect::<Vec<_>>();
    said.sort_unstable();
    let expected =
        [("customers/0/0/0/7", None), ("orders/3/1042/0/7", Some("12")), ("weir.p.replay/0/2/0/7", None)];
    let owned =
        |(origin, attempt): (&str, Option<&str>)| (Some(origin.to_owned()), attempt.map(str::to_owned));
    assert_eq!(said, expected.map(owned));
}

#[test]
fn without_provenance_a_row_says_nothing_of_its_record() {
    let mut base = Base::alone();
    base.provenance = false;
    let mut sink = base.claimed(1);
    let part = Part { headers: headers(&[&[("a", None), ("weir-origin", Some(b"x"))]]), ..text("a", 0, "x") };
    deliver(&mut sink, 1, vec![part]).unwrap();
    assert_eq!(base.records("a")[0].headers, [("a".to_owned(), None)]);
}

#[test]
fn what_deletes_is_a_tombstone() {
    let base = Base::alone();
    let mut sink = base.claimed(1);
    let part = Part {
        keys: keys(&[Some(b"k"), Some(b"k")]),
        deletes: Some(BooleanBuffer::from(vec![false, true])),
        ..rows("a", &[0, 1], vec![("text", Arc::new(StringArray::from(vec!["x", "y"])))])
    };
    deliver(&mut sink, 2, vec![part]).unwrap();
    let records = sorted(base.records("a"));
    assert_eq!((value(&records[0]), value(&records[1])), (Some(r#"{"text":"x"}"#.to_owned()), None));
    assert_eq!(records[1].key.as_deref(), Some(&b"k"[..]));
}

fn record_columns(values: &[Option<&[u8]>]) -> Vec<ArrayRef> {
    let texts = values.iter().map(|value| value.and_then(|value| std::str::from_utf8(value).ok()));
    let bytes = values.iter().map(|value| value.filter(|value| std::str::from_utf8(value).is_err()));
    let none = arrow::array::new_null_array;
    vec![
        none(&DataType::Utf8, values.len()),
        none(&DataType::Binary, values.len()),
        Arc::new(texts.collect::<StringArray>()),
        Arc::new(bytes.collect::<BinaryArray>()),
        none(&DataType::Utf8, values.len()),
        none(records_schema().field(5).data_type(), values.len()),
    ]
}

#[test]
fn a_record_keeps_its_bytes_whatever_they_are() {
    let base = Base::alone();
    let mut sink = base.claimed(1);
    let values = [Some(&b"{ \"a\": 1 }"[..]), Some(b"\xff\x00"), None, Some(b"")];
    let rows = RecordBatch::try_new(records_schema(), record_columns(&values)).unwrap();
    deliver(&mut sink, 4, vec![Part { rows, ..part("a", vec![0, 1, 2, 3], 0) }]).unwrap();
    let found: Vec<_> = sorted(base.records("a")).into_iter().map(|record| record.value).collect();
    assert_eq!(found, values.map(|value| value.map(<[u8]>::to_vec)));
}

#[test]
fn a_dead_letter_is_the_record_with_the_reasons_in_its_headers() {
    let mut base = Base::alone();
    base.provenance = false;
    let mut sink = base.claimed(1);
    let texts = |texts: Vec<Option<&str>>| Arc::new(StringArray::from(texts)) as ArrayRef;
    let mut columns = record_columns(&[Some(b"\xfe")]);
    columns.push(texts(vec![Some("transform")]));
    columns.push(texts(vec![Some(r#"[{"code":"bad"}]"#)]));
    columns.push(texts(vec![None]));
    columns.push(texts(vec![Some("last words")]));
    columns.push(texts(vec![Some("sha256:00")]));
    let rows = RecordBatch::try_new(dead_letters_schema(), columns).unwrap();
    let part = Part { rows, route: DEAD_LETTERS.into(), keys: keys(&[Some(b"k")]), ..part("b", vec![0], 0) };
    deliver(&mut sink, 1, vec![part]).unwrap();
    let dead = &base.records("b")[0];
    assert_eq!((dead.key.as_deref(), dead.value.as_deref()), (Some(&b"k"[..]), Some(&b"\xfe"[..])));
    let expected = [
        ("weir-stage", Some("transform")),
        ("weir-reasons", Some(r#"[{"code":"bad"}]"#)),
        ("weir-trap", None),
        ("weir-log", Some("last words")),
        ("weir-origin", Some("customers/0/0/0/7")),
    ];
    expected.iter().for_each(|(name, value)| assert_eq!(header(dead, name).as_deref(), *value, "{name}"));
}

/// The values that Apache Kafka's own tests have for its hash, murmur2.
#[test]
fn a_key_goes_to_the_partition_that_java_clients_give_it() {
    let base = Base::alone();
    cluster().create(&base.topic("a"), Shape { partitions: Some(7), replication: None }).unwrap();
    let hashes =
        [("21", -973_932_308_i32), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)];
    let keyed = hashes.map(|(key, _)| Some(key.as_bytes()));
    let texts = StringArray::from(hashes.map(|(key, _)| key).to_vec());
    let part = Part { keys: keys(&keyed), ..rows("a", &[0, 1, 2], vec![("text", Arc::new(texts))]) };
    deliver(&mut base.claimed(1), 3, vec![part]).unwrap();
    for (record, (key, hash)) in sorted(base.records("a")).iter().zip(hashes) {
        assert_eq!(record.partition, (hash & i32::MAX) % 7, "{key}");
    }
}

/// The longest text that fits with all that is around it in a topic that takes `most` bytes at once.
fn longest(most: usize) -> usize {
    let bytes = |n: usize| {
        let value = format!(r#"{{"text":"{}"}}"#, "x".repeat(n));
        let origin = std::iter::once(("weir-origin", Some(&b"customers/0/0/0/7"[..])));
        wire_bytes(None, Some(value.as_bytes()), origin)
    };
    (0..most).take_while(|n| bytes(*n) <= most).last().unwrap()
}

#[test]
fn a_row_that_just_fits_is_sent_and_one_byte_more_is_refused_in_the_same_transaction() {
    const MOST: usize = 5_000;
    let mut base = Base::alone();
    // Else the cluster sees less than what was counted.
    base.compression = Compression::None;
    limit(&base.topic("a"), MOST);
    let mut sink = base.claimed(1);
    let n = longest(MOST);
    let fits = text("a", 0, &"x".repeat(n));
    let large = Part { keys: keys(&[Some(b"k")]), ..text("a", 1, &"y".repeat(2 * MOST)) };
    deliver(&mut sink, 2, vec![fits, large]).unwrap();
    let fit = base.records("a");
    assert_eq!((fit.len(), value(&fit[0]).unwrap().len()), (1, n + 11));
    let refused = &base.rejects()[0];
    assert_eq!(refused.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(value(refused).unwrap(), format!(r#"{{"text":"{}"}}"#, "y".repeat(2 * MOST)));
    let reason = header(refused, "weir-reason").unwrap();
    assert!(reason.ends_with(&format!("bytes, and topic {} takes 5000", base.topic("a"))), "{reason}");
    let expected = [
        ("weir-origin", "customers/0/1/0/7"),
        ("weir-sink", "base"),
        ("weir-target", "a"),
        ("weir-route", "to-a"),
    ];
    expected.iter().for_each(|(name, value)| assert_eq!(header(refused, name).unwrap(), *value));
    assert_eq!(sink.tally().rejected.get(), 1);
    let large = text("a", 2, &"x".repeat(n + 1));
    sink.write(RoutedBatch { parts: vec![large], ..batch(2, 3) }).unwrap();
    sink.commit(&at(), &commit(2, 3)).unwrap();
    assert_eq!((base.records("a").len(), base.rejects().len()), (1, 2));
}

#[test]
fn of_a_row_that_no_topic_takes_as_much_is_kept_as_fits() {
    let base = Base::alone();
    let rejects = format!("weir.{}.rejects", base.pipeline);
    limit(&rejects, 2_000);
    limit(&base.topic("a"), 1_500);
    let mut sink = base.claimed(1);
    let long_key = vec![b'k'; 3_000];
    let keyed = Part { keys: keys(&[Some(&long_key)]), ..text("a", 0, "small") };
    let large = text("a", 1, &"y".repeat(9_000));
    deliver(&mut sink, 2, vec![keyed, large]).unwrap();
    let refused = sorted(base.rejects());
    assert_eq!(
        (refused[0].key.as_deref(), value(&refused[0]).as_deref()),
        (None, Some(r#"{"text":"small"}"#))
    );
    assert_eq!(header(&refused[0], "weir-key-bytes").unwrap(), "3000");
    assert_eq!(header(&refused[1], "weir-value-bytes").unwrap(), "9011");
    let kept = value(&refused[1]).unwrap();
    assert!((1_000..2_000).contains(&kept.len()) && kept.starts_with(r#"{"text":"yyyy"#), "{kept}");
}

/// Brokers have refused such since version 3.6, some of them with all that is in their batch.
#[test]
fn rows_that_the_cluster_refuses_for_what_is_in_them_are_refused_alone() {
    const BAD: [i64; 3] = [3, 700, 701];
    const N: i64 = 1_000;
    for base in [Base::alone(), Base::in_a_group()] {
        let mut sink = base.claimed(1);
        let all: Vec<i64> = (0..N).collect();
        let column: StringArray = all.iter().map(|offset| Some(offset.to_string())).collect();
        let part = rows("a", &all, vec![("text", Arc::new(column))]);
        // In the year 5138.
        let times = all.iter().map(|offset| if BAD.contains(offset) { 99_999_999_999_999 } else { -1 });
        deliver(&mut sink, N, vec![Part { timestamps: times.collect(), ..part }]).unwrap();
        let offsets = |records: Vec<peek::Seen>| -> Vec<i64> {
            sorted(records).iter().map(|record| place(record)[0]).collect()
        };
        let good: Vec<i64> = all.into_iter().filter(|offset| !BAD.contains(offset)).collect();
        assert_eq!(offsets(base.records("a")), good);
        let refused = base.rejects();
        assert_eq!(sink.tally().rejected.get(), 3);
        assert_eq!(header(&refused[0], "weir-timestamp").unwrap(), "99999999999999");
        assert!(header(&refused[0], "weir-reason").unwrap().contains("timestamp"));
        assert_eq!(offsets(refused), BAD);
    }
}

/// A batch that is larger than its topic takes now is no fault of its rows.
#[test]
fn a_topic_that_takes_less_than_it_did_is_looked_at_again() {
    let mut base = Base::alone();
    base.compression = Compression::None;
    limit(&base.topic("a"), 100_000);
    let mut sink = base.claimed(1);
    let each = |start: i64| (start..start + 40).map(|o| text("a", o, &"x".repeat(1_000))).collect();
    sink.write(RoutedBatch { parts: each(0), ..batch(0, 40) }).unwrap();
    sink.commit(&at(), &commit(0, 40)).unwrap();
    alter(&base.topic("a"), "max.message.bytes", "4000");
    sink.write(RoutedBatch { parts: each(40), ..batch(40, 80) }).unwrap();
    sink.commit(&at(), &commit(40, 80)).unwrap();
    assert_eq!((base.records("a").len(), base.rejects().len()), (80, 0));
}

#[test]
fn a_topic_that_is_missing_and_may_not_be_made_is_told_with_what_makes_it() {
    let base = Base::alone();
    let mut sink = KafkaSink::open(KafkaConfig { create: false, ..base.config() }).unwrap();
    let problem = match sink.prepare(&"a".into()).unwrap_err() {
        Error::Permanent(problem) => problem,
        other => panic!("not permanent: {other}"),
    };
    let topic = base.topic("a");
    assert_eq!(problem.text, format!("E_SINK_TOPIC: there is no topic {topic} at {}", brokers()));
    let make = format!("kafka-topics.sh --bootstrap-server {} --create --topic {topic}", brokers());
    assert!(problem.hint.as_ref().unwrap().contains(&make), "{problem:?}");
    cluster().create(&topic, Shape { partitions: None, replication: None }).unwrap();
    sink.prepare(&"a".into()).unwrap();
}

#[test]
fn processes_that_make_a_topic_at_once_all_find_it() {
    let names: Vec<_> = (0..5).map(|_| format!("made-at-once-{}", Nonce::random().short())).collect();
    let make_all = || {
        // With clients of its own, for the sake of a property that nobody looks at.
        let own = BTreeMap::from([("client.rack".to_owned(), Nonce::random().to_string())]);
        let cluster = Cluster::new(brokers(), own).unwrap();
        for name in &names {
            cluster.create(name, Shape { partitions: None, replication: None }).unwrap();
            assert!(cluster.most_bytes(name).unwrap() > 0);
        }
    };
    std::thread::scope(|threads| (0..6).for_each(|_| drop(threads.spawn(make_all))));
}

#[test]
fn a_row_that_a_compacted_topic_may_have_lost_is_not_known_to_be_missing() {
    let base = Base::alone();
    limit(&base.topic("a"), 1 << 20);
    cluster().make_table(&base.topic("b")).unwrap();
    let mut reader = KafkaReader::new(base.config());
    let (origin, schema) = ("t/0/5".parse().unwrap(), records_schema());
    for (target, told) in [("a", None), ("b", Some("is compacted"))] {
        let asked = Asked { origin: &origin, target: &target.into(), route: "r", schema: &schema };
        let found = reader.rows(&asked).unwrap();
        assert_eq!(found.rows, []);
        assert_eq!(found.unknown.is_some(), told.is_some(), "{:?}", found.unknown);
        assert!(told.is_none_or(|told| found.unknown.unwrap().contains(told)));
    }
}
