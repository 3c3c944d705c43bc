//! What servers lose or refuse while the program runs, or before: it is told by name with what to do, it is not asked for in
//! a hurry, and every record arrives once when it is mended.

use std::ffi::CString;
use std::fs;
use std::ptr;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::bindings as sys;
use rdkafka::client::DefaultClientContext;
use weir_services::{Service, Services};

use crate::given;
use crate::group::{Pipeline, errors};

#[test]
fn a_table_that_is_dropped_stops_its_partitions_by_name_and_costs_no_record_once_it_is_back() {
    let mut pipeline = Pipeline::new(2);
    pipeline.send(4_000, &[]);
    let mut process = pipeline.start();
    pipeline.wait_for(4_000);
    pipeline.ask("CREATE TABLE kept AS TABLE alerts; DROP TABLE alerts");
    pipeline.send(4_000, &[]);
    // The first partition may come upon it, and then the other finds it gone.
    (0..2).for_each(|p| process.wait_for_word(&format!("partition={}/{p} hint=\"", pipeline.topic)));
    let (status, log) = process.stop();
    assert!(!status.success(), "{log}");
    assert!(log.contains("somebody dropped it") && log.contains("restore it with the rows"), "{log}");
    assert_eq!(errors(&log, "E_SINK_SCHEMA"), 2, "once for each partition: {log}");
    pipeline.ask("ALTER TABLE kept RENAME TO alerts");
    let process = pipeline.start();
    pipeline.wait_for(8_000);
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    pipeline.check();
}

#[test]
fn a_wrong_password_is_told_at_the_start_and_waited_out_while_records_flow() {
    let services = Services::temporary().expect("a directory");
    let postgres = services.postgres().expect("PostgreSQL");
    let start = || postgres.start().and_then(|()| postgres.wait_ready()).expect("it starts");
    start();
    postgres.stop().expect("it stops");
    let rules = "host all flow 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    fs::write(services.dir().join("postgres/server/data/pg_hba.conf"), rules).expect("writable");
    start();
    let mut pipeline = Pipeline::on(given("WEIR_TEST_KAFKA"), postgres.address(), 2);
    pipeline.ask("CREATE ROLE flow LOGIN PASSWORD 'right'");
    pipeline.ask(&format!("GRANT ALL ON SCHEMA {} TO flow", pipeline.schema));
    pipeline.send(2_000, &[]);
    let by = |password| postgres.address().replace("postgres@", &format!("flow:{password}@"));

    let (status, log) = pipeline.start_on(&by("wrong")).end();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("E_SINK_DENIED") && log.contains("or the right password"), "{log}");
    assert!(!log.contains("wrong"), "{log}");

    let mut process = pipeline.start_on(&by("right"));
    pipeline.wait_for(2_000);
    pipeline.ask("ALTER ROLE flow PASSWORD 'another'");
    pipeline
        .ask("SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity WHERE usename = 'flow'");
    pipeline.send(2_000, &[]);
    process.wait_for_word("E_SINK_DENIED");
    pipeline.ask("ALTER ROLE flow PASSWORD 'right'");
    pipeline.wait_for(4_000);
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    pipeline.check();
}

#[test]
fn a_topic_that_is_not_there_or_was_deleted_is_named_and_one_made_again_is_not_taken_for_it() {
    let mut pipeline = Pipeline::new(2);
    pipeline.send(1_000, &[]);
    let rename = |pipeline: &Pipeline, from: &str, to: &str| {
        pipeline
            .edit(|text| text.replace(&format!("topics = [\"{from}\"]"), &format!("topics = [\"{to}\"]")));
    };
    let (topic, none) = (pipeline.topic.clone(), format!("no-{}", pipeline.topic));
    rename(&pipeline, &topic, &none);
    let (status, log) = pipeline.start().end();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains(&format!("E_INPUT_TOPIC: there is no topic {none} at ")), "{log}");
    assert!(log.contains(&format!("topics = [\"{none}\"]")) && log.contains("help: make it"), "{log}");
    rename(&pipeline, &none, &topic);

    let mut process = pipeline.start();
    pipeline.wait_for(1_000);
    let admin = administrator(&given("WEIR_TEST_KAFKA"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let deleted = runtime.block_on(admin.delete_topics(&[&topic], &AdminOptions::new()));
    assert!(deleted.expect("it answers")[0].is_ok());
    process.wait_for_word(&format!("E_INPUT_TOPIC: there is no topic {topic} at "));
    pipeline.send(500, &["--create", "--partitions", "2"]);
    process.wait_for_word("E_TOPIC_REPLACED");
    let (status, log) = process.stop();
    assert!(!status.success(), "{log}");
    assert!(log.contains("a pipeline of another name"), "{log}");
    assert_eq!(pipeline.delivered(), (1_000, 1_000));
}

#[test]
fn a_topic_that_may_not_be_read_is_told_with_the_missing_right_and_read_once_there_is_one() {
    let services = Services::temporary().expect("a directory");
    let kafka = services.kafka().expect("Kafka");
    let broker = kafka.broker(1).expect("the only one");
    let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    broker.set("authorizer.class.name", authorizer).expect("writable");
    broker.set("allow.everyone.if.no.acl.found", "true").expect("writable");
    kafka.start().and_then(|()| kafka.wait_ready()).expect("it starts");
    let mut pipeline = Pipeline::on(kafka.address(), given("WEIR_TEST_POSTGRES"), 2);
    pipeline.send(1_000, &[]);

    forbid(&kafka.address(), &pipeline.topic, true);
    let (status, log) = pipeline.start().end();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("E_INPUT_DENIED") && log.contains("READ and DESCRIBE of a topic"), "{log}");
    forbid(&kafka.address(), &pipeline.topic, false);

    let mut process = pipeline.start();
    pipeline.wait_for(1_000);
    forbid(&kafka.address(), &pipeline.topic, true);
    process.wait_for_word("E_INPUT_DENIED");
    forbid(&kafka.address(), &pipeline.topic, false);
    pipeline.send(1_000, &[]);
    pipeline.wait_for(2_000);
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    pipeline.check();
}

#[test]
fn two_pipelines_of_one_name_are_refused_with_who_has_it() {
    let mut pipeline = Pipeline::new(1);
    pipeline.send(100, &[]);
    let process = pipeline.start();
    pipeline.wait_for(100);
    assert!(process.stop().0.success());
    // The same sinks under the same name, for the records of a file.
    fs::create_dir(pipeline.path("input")).expect("writable");
    let row = "id,first_name,last_name,email,age,location\nc1,Ada,Lovelace,ada@example.com,36,Boston\n";
    fs::write(pipeline.path("input/a.csv"), row).expect("writable");
    let topic = pipeline.topic.clone();
    pipeline.edit(|text| {
        let (before, behind) = text.split_once("[source.kafka]").expect("it has one");
        let (_, behind) = behind.split_once("[transform]").expect("it has one");
        let source = format!("[source.files]\npath = \"input\"\ntopic = \"{topic}\"\n\n[transform]");
        before.replace("state = \"state\"", "state = \"other\"") + &source + behind
    });
    let mut process = pipeline.start();
    let name = topic.replace("customers", "group");
    process.wait_for_word(&format!(
        "E_OTHER_GROUP: the position belongs to group weir.{name}, this pipeline runs as group {name}"
    ));
    let (status, log) = process.stop();
    assert!(!status.success() && log.contains("give one of the two pipelines another name"), "{log}");
    pipeline.check();
}

#[test]
fn a_cluster_whose_transactions_end_too_soon_is_refused_with_both_times() {
    let services = Services::temporary().expect("a directory");
    let kafka = services.kafka().expect("Kafka");
    kafka.broker(1).and_then(|broker| broker.set("transaction.max.timeout.ms", "5000")).expect("writable");
    kafka.start().and_then(|()| kafka.wait_ready()).expect("it starts");
    let mut pipeline = Pipeline::on(kafka.address(), given("WEIR_TEST_POSTGRES"), 1);
    let (status, log) = pipeline.start().end();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("transactions may last 10000 ms, and the cluster allows 5000 ms"), "{log}");
    assert!(log.contains("raise it there to at least 10000"), "{log}");
}

/// Half of them: a broker makes no more than 10,000 things at once.
const HALF: u16 = 5_000;

#[test]
fn a_topic_of_many_partitions_without_a_record_is_begun_and_ended_in_little_memory() {
    let services = Services::temporary().expect("a directory");
    let kafka = services.kafka().expect("Kafka");
    kafka.start().and_then(|()| kafka.wait_ready()).expect("it starts");
    let mut pipeline = Pipeline::on(kafka.address(), given("WEIR_TEST_POSTGRES"), HALF);
    grow(&kafka.address(), &pipeline.topic, 2 * HALF);
    pipeline.leave_only_files();
    let (status, log, memory) = pipeline.start_once().end_with_memory();
    assert!(status.success(), "{log}");
    assert!(log.contains(&format!("n={}", 2 * HALF)), "{log}");
    assert!(memory < 400, "{memory} MiB");
}

/// Gives a topic so many partitions.
fn grow(brokers: &str, topic: &str, partitions: u16) {
    let admin = administrator(brokers);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let more = NewPartitions::new(topic, usize::from(partitions));
    let grown = runtime.block_on(admin.create_partitions(&[more], &AdminOptions::new()));
    assert!(grown.expect("it answers")[0].is_ok());
}

fn administrator(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client")
}

/// Forbids everybody to read a topic, or no longer does.
#[expect(unsafe_code, reason = "the client library has no safe call for it")]
fn forbid(brokers: &str, topic: &str, forbidden: bool) {
    let client = administrator(brokers);
    let text = |text: &str| CString::new(text).expect("no zero byte");
    let (topic, everybody, anywhere) = (text(topic), text("User:*"), text("*"));
    let (kind, pattern) = (
        sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
        sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
    );
    let (read, deny) = (
        sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ,
        sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_DENY,
    );
    let (topic, everybody, anywhere) = (topic.as_ptr(), everybody.as_ptr(), anywhere.as_ptr());
    let client = client.inner().native_ptr();
    // SAFETY: the client and the names outlive the calls; what is made here is destroyed here.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let nothing = ptr::null_mut();
        if forbidden {
            let mut acl = sys::rd_kafka_AclBinding_new(
                kind, topic, pattern, everybody, anywhere, read, deny, nothing, 0,
            );
            sys::rd_kafka_CreateAcls(client, &raw mut acl, 1, ptr::null(), queue);
            sys::rd_kafka_AclBinding_destroy(acl);
        } else {
            let mut acl = sys::rd_kafka_AclBindingFilter_new(
                kind, topic, pattern, everybody, anywhere, read, deny, nothing, 0,
            );
            sys::rd_kafka_DeleteAcls(client, &raw mut acl, 1, ptr::null(), queue);
            sys::rd_kafka_AclBinding_destroy(acl);
        }
        let answer = sys::rd_kafka_queue_poll(queue, 60_000);
        assert!(!answer.is_null(), "no answer");
        assert_eq!(sys::rd_kafka_event_error(answer), sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
        sys::rd_kafka_event_destroy(answer);
        sys::rd_kafka_queue_destroy(queue);
    }
}
