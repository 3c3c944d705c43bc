//! On a real Kafka, whose address `weir-services` gives.
#![cfg(feature = "servers")]

use super::*;
use crate::plan::History;

/// As another process has it: with clients of its own, for the sake of a property that nobody looks at.
fn cluster() -> Cluster {
    let brokers = std::env::var("WEIR_TEST_KAFKA").expect("weir-services says where Kafka is");
    let own = BTreeMap::from([("client.rack".to_owned(), Nonce::random().to_string())]);
    Cluster::new(brokers, own).unwrap()
}

/// A pipeline of this run alone.
fn own(name: &str) -> String {
    format!("{name}-{}", Nonce::random())
}

fn start(generation: u64) -> Entry {
    Entry::Start { generation, owner: Nonce::from_u128(7), runtime: "0.1.0".into() }
}

#[test]
fn the_first_to_write_at_a_place_wins() {
    let pipeline = own("first");
    let mut ours = KafkaLog::open(&cluster(), &pipeline).unwrap();
    let mut theirs = KafkaLog::open(&cluster(), &pipeline).unwrap();
    assert!(ours.put(0, &start(1)).unwrap());
    assert!(!theirs.put(0, &start(2)).unwrap());
    assert!(theirs.put(1, &start(3)).unwrap());
    let all = [(0, start(1)), (1, start(3))];
    for log in [&mut ours, &mut theirs, &mut KafkaLog::open(&cluster(), &pipeline).unwrap()] {
        assert_eq!(log.read(0).unwrap(), all);
        assert_eq!(log.read(1).unwrap(), all[1..]);
    }
}

#[test]
fn a_record_that_arrives_late_counts_nowhere() {
    let (cluster, pipeline) = (cluster(), own("late"));
    let mut log = KafkaLog::open(&cluster, &pipeline).unwrap();
    assert!(log.put(0, &start(1)).unwrap());
    for at in [0, 5] {
        let late = Meant { version: VERSION, at, nonce: Nonce::random(), entry: start(9) };
        log.log.append(b"", Some(&serde_json::to_vec(&late).unwrap())).unwrap();
    }
    assert!(log.put(1, &start(2)).unwrap());
    let mut other = KafkaLog::open(&cluster, &pipeline).unwrap();
    assert_eq!(other.read(0).unwrap(), [(0, start(1)), (1, start(2))]);
}

#[test]
fn whoever_writes_at_once_comes_to_one_order_in_which_each_entry_is_once() {
    let pipeline = own("order");
    drop(KafkaLog::open(&cluster(), &pipeline).unwrap());
    // Two in one process, which share the client that appends, and two in others.
    let ours = cluster();
    let write = |writer: u64| {
        let cluster = if writer < 2 { ours.clone() } else { cluster() };
        let mut log = KafkaLog::open(&cluster, &pipeline).unwrap();
        let mut history = History::default();
        for i in 0..10 {
            history.append(&mut log, |_| Some(start(writer * 100 + i))).unwrap();
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|writer| drop(scope.spawn(move || write(writer)))));
    let all = KafkaLog::open(&ours, &pipeline).unwrap().read(0).unwrap();
    let mut generations: Vec<u64> = Vec::new();
    for (_, entry) in &all {
        if let Entry::Start { generation, .. } = entry {
            generations.push(*generation);
        }
    }
    for writer in 0..4 {
        let own: Vec<u64> = generations.iter().copied().filter(|g| g / 100 == writer).collect();
        assert_eq!(own, (0..10).map(|i| writer * 100 + i).collect::<Vec<_>>());
    }
    assert_eq!(all.iter().map(|(at, _)| *at).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
}

#[test]
fn what_a_newer_program_wrote_is_refused_where_it_counts() {
    let (cluster, pipeline) = (cluster(), own("newer"));
    let mut log = KafkaLog::open(&cluster, &pipeline).unwrap();
    log.log.append(b"", Some(br#"{"version":4,"at":0,"more":1}"#)).unwrap();
    let error = log.read(0).unwrap_err().to_string();
    assert!(error.starts_with("E_LOG_NEWER: a record of topic weir.newer-"), "{error}");
    // And what comes behind it is not taken for what comes next.
    let behind = Meant { version: 1, at: 0, nonce: Nonce::random(), entry: start(9) };
    log.log.append(b"", Some(&serde_json::to_vec(&behind).unwrap())).unwrap();
    for _ in 0..2 {
        assert!(matches!(log.read(0), Err(Error::Newer { .. })));
        assert!(matches!(log.put(1, &start(1)), Err(Error::Newer { .. })));
    }
}

#[test]
fn bytes_are_found_by_their_digest_in_whatever_pieces_they_were_kept() {
    let (cluster, pipeline) = (cluster(), own("store"));
    let store = KafkaStore::new(&cluster, &pipeline);
    assert!(store.get("sha256:00").unwrap_err().to_string().starts_with("E_STORE"));
    let topic = format!("weir.{pipeline}.store");
    assert!(
        matches!(cluster.partitions(&topic), Err(kafka::Error::NoTopic { .. })),
        "who reads makes nothing"
    );
    let sizes = [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK];
    let bytes = |n: usize| (0..n).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
    for n in sizes {
        assert_eq!(&*store.put(&bytes(n)).unwrap(), crate::digest::of(&bytes(n)));
    }
    let other = KafkaStore::new(&self::cluster(), &pipeline);
    for n in sizes {
        assert!(other.get(&crate::digest::of(&bytes(n))).unwrap() == bytes(n), "{n}");
    }
    assert!(other.get("sha256:00").unwrap_err().to_string().starts_with("E_STORE"));
}
