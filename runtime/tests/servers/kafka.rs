//! `weir produce` and `weir peek` on a real Kafka: what went in is there, once, and what is there is shown.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use crate::{LONG, fetch_topics, given};

/// A topic of this run alone: the server may stand for longer.
fn own(topic: &str) -> String {
    format!("{topic}-{}", std::process::id())
}

fn weir(args: &[&str], input: &str) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(args)
        .env("WEIR_BROKERS", given("WEIR_TEST_KAFKA"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut program = program.expect("the program starts");
    let mut to = program.stdin.take().expect("piped");
    // One that says no before it reads has closed its end.
    to.write_all(input.as_bytes()).ok();
    drop(to);
    program.wait_with_output().expect("the program ends")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it says text")
}

fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("it says text")
}

/// Sends `input` to a new topic of as many partitions; the other arguments come behind.
fn produce(topic: &str, partitions: &str, format: &str, more: &[&str], input: &str) -> Output {
    let args =
        ["produce", "-", "--format", format, "-t", &own(topic), "--create", "--partitions", partitions];
    weir(&[&args[..], more].concat(), input)
}

fn peek(topic: &str, args: &[&str]) -> Vec<Value> {
    let shown = weir(&[&["peek", "--json", &own(topic)], args].concat(), "");
    assert_eq!(code(&shown), 0, "{}", complained(&shown));
    said(&shown).lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn every_row_is_there_once_and_in_order() {
    let rows: String = (0..5_000).map(|i| format!("{i},\"é, {i}\"\n")).collect();
    let sent = produce("in-order", "1", "csv", &["--json"], &format!("id,name\n{rows}"));
    let told: Value = serde_json::from_str(&said(&sent)).unwrap();
    assert_eq!((code(&sent), &told["confirmed"], &told["unconfirmed"]), (0, &5_000.into(), &0.into()));
    let shown = said(&weir(&["peek", &own("in-order"), "-n", "10000"], ""));
    let wanted: String = (0..5_000).map(|i| format!("{{\"id\":\"{i}\",\"name\":\"é, {i}\"}}\n")).collect();
    assert!(shown == wanted, "{}", &shown[..shown.len().min(500)]);
}

/// The values that Apache Kafka's own tests have for its hash, murmur2.
#[test]
fn a_key_goes_to_the_partition_that_java_clients_give_it() {
    let hashes =
        [("21", -973_932_308_i32), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)];
    let lines: String = hashes.iter().map(|(key, _)| format!("{{\"k\":\"{key}\"}}\n")).collect();
    assert_eq!(code(&produce("keys", "7", "jsonl", &["--key", "k"], &lines)), 0);
    let records = peek("keys", &[]);
    for (key, hash) in hashes {
        let record = records.iter().find(|record| record["key"] == key).unwrap();
        assert_eq!(record["partition"], (hash & i32::MAX) % 7, "{key}");
    }
}

#[test]
fn records_without_a_key_are_spread_over_all_partitions() {
    let lines: String = (0..1_000).map(|i| format!("{i}\n")).collect();
    assert_eq!(code(&produce("spread", "4", "jsonl", &[], &lines)), 0);
    let mut of_partition = [0; 4];
    for record in peek("spread", &["--from", "start", "-n", "1000"]) {
        of_partition[record["partition"].as_u64().unwrap() as usize] += 1;
    }
    // What is sent in one go stays together, so that a busy machine has some with more.
    assert!(of_partition.iter().all(|n| *n > 0), "{of_partition:?}");
}

#[test]
fn values_are_text_as_they_were_or_typed_on_request() {
    let rows = "id,zip,ok,age\n7,01234,true,\n";
    produce("untyped", "1", "csv", &[], rows);
    produce("typed", "1", "csv", &["--typed", "--key", "id"], rows);
    assert_eq!(peek("untyped", &[])[0]["value"], r#"{"id":"7","zip":"01234","ok":"true","age":""}"#);
    let typed = &peek("typed", &[])[0];
    assert_eq!(
        (&typed["value"], &typed["key"]),
        (&r#"{"id":7,"zip":"01234","ok":true,"age":null}"#.into(), &"7".into())
    );
}

#[test]
fn what_cannot_be_cut_into_a_record_is_told_and_the_others_are_sent() {
    let sent = produce("ragged", "1", "csv", &[], "a,b\n1,2\n3\n4,5\n");
    assert_eq!(code(&sent), 1);
    assert!(complained(&sent).contains("not sent: record 1: ragged-row"), "{}", complained(&sent));
    assert!(
        said(&sent).contains(&format!("2 records in topic {}, confirmed", own("ragged"))),
        "{}",
        said(&sent)
    );
    assert_eq!(peek("ragged", &[]).len(), 2);
}

#[test]
fn a_topic_that_is_not_there_is_not_made_by_itself() {
    for args in [&["produce", "-", "--format", "jsonl", "-t", "nowhere"][..], &["peek", "nowhere"]] {
        let refused = weir(args, "{}\n");
        assert_eq!(code(&refused), 2);
        assert!(complained(&refused).contains("there is no topic nowhere"), "{}", complained(&refused));
        assert!(complained(&refused).contains("hint: `weir produce --create` makes it"));
    }
}

#[test]
fn records_are_found_from_the_start_an_offset_a_time_and_the_end() {
    let lines: String = (0..50).map(|i| format!("{i}\n")).collect();
    produce("places", "2", "jsonl", &[], &lines);
    let start = peek("places", &["--from", "start", "-n", "100"]);
    assert_eq!(start.len(), 50);
    let mut values: Vec<i64> = start.iter().map(|r| r["value"].as_str().unwrap().parse().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, (0..50).collect::<Vec<_>>());
    // The newest of all partitions together, oldest first.
    let times = |records: &[Value]| records.iter().map(|r| r["timestamp"].to_string()).collect::<Vec<_>>();
    let last = peek("places", &["-n", "3"]);
    assert_eq!(last.len(), 3);
    assert!(times(&last).is_sorted() && times(&start).iter().max() == times(&last).last());
    let first = &start[0];
    let (partition, offset) = (first["partition"].to_string(), first["offset"].to_string());
    assert_eq!(
        peek("places", &["-p", &partition, "--from", &offset, "-n", "1"]),
        std::slice::from_ref(first)
    );
    let begun = first["timestamp"].as_str().unwrap();
    assert!(!peek("places", &["--from", begun, "-n", "100"]).is_empty());
    assert!(peek("places", &["--from", "2999-01-01T00:00:00Z"]).is_empty());
    assert_eq!(code(&weir(&["peek", &own("places"), "-p", "2"], "")), 2);
}

/// A producer in a transaction that has begun, and that the brokers end after so many milliseconds.
fn in_transaction(id: &str, most_ms: &str) -> BaseProducer {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", given("WEIR_TEST_KAFKA"))
        .set("transactional.id", own(id))
        .set("transaction.timeout.ms", most_ms)
        .set("message.timeout.ms", most_ms)
        .create::<BaseProducer>();
    let producer = producer.expect("a client");
    producer.init_transactions(LONG).expect("the cluster answers");
    producer.begin_transaction().expect("it can");
    producer
}

#[test]
fn what_is_shown_is_what_kafkas_own_client_reads_also_behind_transactions_that_were_not_committed() {
    let topic = own("committed");
    assert_eq!(code(&produce("committed", "1", "jsonl", &[], "")), 0);
    let send = |to: &BaseProducer, value: Option<&[u8]>| {
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic).key(b"k\xff").timestamp(1_000);
        record.payload = value;
        let headers = OwnedHeaders::new().insert(Header { key: "none", value: None::<&[u8]> });
        let headers = headers.insert(Header { key: "bytes", value: Some(&b"\xff"[..]) });
        to.send(record.headers(headers)).expect("there is room");
        to.flush(LONG).expect("the cluster answers");
    };
    let [first, undone, last] = ["first", "undone", "last"].map(|id| in_transaction(id, "60000"));
    let left = in_transaction("left", "20000");
    send(&first, Some("\u{e9}\n\u{1f600}\"\\\0".as_bytes()));
    send(&first, Some(b"\xfe"));
    first.commit_transaction(LONG).expect("the cluster answers");
    send(&undone, Some(b"undone"));
    undone.abort_transaction(LONG).expect("the cluster answers");
    send(&left, Some(b"left"));
    send(&last, Some(b""));
    send(&last, None);
    last.commit_transaction(LONG).expect("the cluster answers");

    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("fetched.jsonl");
    fetch_topics([(topic.clone(), file.clone())]);
    let fetched = fs::read_to_string(file).expect("readable");
    let mut fetched: Vec<Value> =
        fetched.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(fetched, peek("committed", &["--from", "start"]));
    // Between them are markers, what was undone, and what nobody ended.
    let offsets: Vec<_> = fetched.iter_mut().map(|record| record["offset"].take().as_u64()).collect();
    assert!(offsets[..2] == [Some(0), Some(1)] && offsets[2] > Some(4), "{offsets:?}");
    let is = |name: &str, value: Value| {
        let headers = json!([{ "name": "none", "value": null }, { "name": "bytes", "value_base64": "/w==" }]);
        let time = "1970-01-01T00:00:01Z";
        json!({ "partition": 0, "offset": null, "timestamp": time, "key_base64": "a/8=", name: value, "headers": headers })
    };
    let expected = [
        is("value", "\u{e9}\n\u{1f600}\"\\\0".into()),
        is("value_base64", "/g==".into()),
        is("value", "".into()),
        is("value", Value::Null),
    ];
    assert_eq!(fetched, expected);
}

/// A wrong address is told with what to look at, and not waited for without end.
#[test]
fn a_cluster_that_nobody_is_at_is_told() {
    let refused = weir(&["peek", "x", "--brokers", "127.0.0.1:1"], "");
    assert_eq!(code(&refused), 3);
    assert!(complained(&refused).contains("no answer from 127.0.0.1:1"), "{}", complained(&refused));
    assert!(complained(&refused).contains("hint: see that the address is right"));
    assert_eq!(complained(&refused).lines().count(), 2, "{}", complained(&refused));
}
