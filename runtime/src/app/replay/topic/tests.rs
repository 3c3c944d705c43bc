//! On a real Kafka, whose address `weir-services` gives.

use std::collections::BTreeMap;

use super::super::tests::alone;
use super::super::{Choosing, Copied, Selected, TooLarge, copy as select};
use super::*;
use crate::config::PipelineConfig;
use crate::kafka::peek::Seen;
use crate::origin::ENVELOPE;
use crate::plan::History;
use crate::sink::state::Nonce;

fn cluster() -> Cluster {
    Cluster::new(
        std::env::var("WEIR_TEST_KAFKA").expect("weir-services says where Kafka is"),
        BTreeMap::new(),
    )
    .unwrap()
}

/// A name that no other pipeline has.
fn pipeline() -> String {
    format!("replay-{}", Nonce::random().short())
}

fn letter(origin: &str) -> Letter {
    let Envelope { origin: of, meant } = origin.parse().unwrap();
    Letter {
        origin: of,
        meant,
        key: Some(b"k".to_vec()),
        value: Some(origin.as_bytes().to_vec()),
        headers: vec![("trace".to_owned(), None), (ENVELOPE.to_owned(), Some(b"of another".to_vec()))],
        timestamp_ms: 77,
    }
}

/// A pipeline of which nothing is read, whose letters are sent three times.
fn config() -> PipelineConfig {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipeline.toml");
    std::fs::write(&file, FILE).unwrap();
    PipelineConfig::load(&file).unwrap()
}

const FILE: &str = r#"
[pipeline]
name = "p"
state = "state"

[source.kafka]
brokers = "${WEIR_TEST_KAFKA}"
topics = ["t"]

[transform]
component = "t.wasm"

[routes]
a = "s.a"

[dead_letter]
to = "s.dead"
max_attempts = 3

[sinks.s.files]
path = "out"
"#;

fn copy(pipeline: &str, letters: &[Letter]) -> Result<Copied> {
    copy_all(Topic::open(cluster(), pipeline)?, letters.iter().cloned().map(Selected::Letter))
}

fn copy_all((topic, known): (Topic, Known), all: impl Iterator<Item = Selected>) -> Result<Copied> {
    let mut history = History::default();
    history.topics.insert("weir.made-again.replay".into(), "of another id".into());
    select(all.map(Ok), Choosing { config: &config(), history: &history, known }, topic)
}

/// What was committed is seen a moment later. Whoever begins to copy waits for that.
fn until_seen(pipeline: &str) {
    drop(Topic::open(cluster(), pipeline).unwrap());
}

fn copies(pipeline: &str) -> Vec<Seen> {
    until_seen(pipeline);
    let mut seen = Vec::new();
    peek(&cluster(), &replay_topic(pipeline), None, From::Start, &mut |one| {
        seen.push(one);
        true
    })
    .unwrap();
    seen
}

fn ids(pipeline: &str) -> Vec<String> {
    let id = |seen: &Seen| String::from_utf8(seen.headers[0].1.clone().unwrap()).unwrap();
    copies(pipeline).iter().map(id).collect()
}

#[test]
fn a_copy_is_the_record_in_an_envelope_that_says_the_next_attempt() {
    let _alone = alone();
    let pipeline = pipeline();
    let tombstone =
        Letter { key: None, value: None, headers: Vec::new(), timestamp_ms: 1, ..letter("t/1/6/2") };
    let copied = copy(&pipeline, &[letter("t/0/5/0"), tombstone]).unwrap();
    assert_eq!(copied, Copied { copied: 2, ..Copied::default() });
    let copies = copies(&pipeline);
    let (first, second) = (&copies[0], &copies[1]);
    assert_eq!((first.key.as_deref(), first.value.as_deref()), (Some(&b"k"[..]), Some(&b"t/0/5/0"[..])));
    assert_eq!((first.timestamp_ms, second.timestamp_ms), (77, 1));
    let headers: Vec<_> = first.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
    let expected = [(ENVELOPE, Some(&b"t/0/5/1"[..])), ("trace", None), (ENVELOPE, Some(b"of another"))];
    assert_eq!(headers, expected);
    assert_eq!((&second.key, &second.value), (&None, &None));
    assert_eq!(ids(&pipeline), ["t/0/5/1", "t/1/6/3"]);
}

#[test]
fn a_letter_is_copied_once_for_each_attempt_and_no_more_often_than_is_allowed() {
    let _alone = alone();
    let pipeline = pipeline();
    let letters = ["t/0/5/0", "t/0/6/0", "t/0/5/0", "t/0/7/3", "t/0/8/65535"].map(letter);
    assert_eq!(
        copy(&pipeline, &letters).unwrap(),
        Copied { copied: 2, there: 1, spent: 2, ..Copied::default() }
    );
    assert_eq!(
        copy(&pipeline, &letters).unwrap(),
        Copied { copied: 0, there: 3, spent: 2, ..Copied::default() }
    );
    assert_eq!(copy(&pipeline, &[letter("t/0/5/1")]).unwrap().copied, 1);
    assert_eq!(ids(&pipeline), ["t/0/5/1", "t/0/6/1", "t/0/5/2"]);
}

#[test]
fn whoever_began_before_somebody_else_did_copies_nothing() {
    let _alone = alone();
    let pipeline = pipeline();
    let first = Topic::open(cluster(), &pipeline).unwrap();
    let second = Topic::open(cluster(), &pipeline).unwrap();
    let one = || [Selected::Letter(letter("t/0/5/0"))].into_iter();
    let late = copy_all(first, one()).unwrap_err();
    assert!(late.to_string().contains("somebody else began"), "{late:#}");
    assert_eq!(copy_all(second, one()).unwrap().copied, 1);
    assert_eq!(ids(&pipeline), ["t/0/5/1"]);
}

#[test]
fn a_letter_that_the_topic_does_not_take_is_named_and_all_behind_it_are_copied() {
    let _alone = alone();
    let pipeline = pipeline();
    let large = Letter { value: Some(vec![b'x'; 2 << 20]), ..letter("t/0/6/0") };
    let letters = [letter("t/0/5/0"), large, letter("t/0/7/0")];
    let copied = copy(&pipeline, &letters).unwrap();
    let [TooLarge { origin, bytes, most }] = &copied.too_large[..] else { panic!("{copied:?}") };
    assert_eq!((origin.to_string().as_str(), copied.copied), ("t/0/6/1", 2));
    assert!(*bytes > 2 << 20 && most < bytes, "{copied:?}");
    assert_eq!(ids(&pipeline), ["t/0/5/1", "t/0/7/1"]);
    // It stays so, and is named each time.
    let again = copy(&pipeline, &letters).unwrap();
    assert_eq!((again.copied, again.there, again.too_large), (0, 2, copied.too_large));
}

#[test]
fn who_only_looks_knows_what_is_there_and_makes_no_topic() {
    let _alone = alone();
    let pipeline = pipeline();
    let known = look(&cluster(), &pipeline).unwrap();
    assert_eq!((known.there.len(), known.most_bytes), (0, None));
    assert!(matches!(there(&cluster(), &replay_topic(&pipeline)), Err(Error::NoTopic { .. })));
    copy(&pipeline, &[letter("t/0/5/0")]).unwrap();
    until_seen(&pipeline);
    let known = look(&cluster(), &pipeline).unwrap();
    assert_eq!(known.there, BTreeSet::from(["t/0/5/1".parse().unwrap()]));
    assert!(known.most_bytes.is_some());
}

/// And those whose records are gone, with why.
fn copy_rows(pipeline: &str, rows: &[String]) -> (Copied, Vec<String>) {
    let rows = rows.iter().map(|text| Selected::InInput(text.parse().unwrap()));
    let mut copied = copy_all(Topic::open(cluster(), pipeline).unwrap(), rows).unwrap();
    let gone = std::mem::take(&mut copied.gone);
    (copied, gone.into_iter().map(|gone| format!("{}: {}", gone.letter, gone.why)).collect())
}

#[test]
fn of_a_record_of_which_a_row_was_refused_what_stands_in_the_input_is_copied_and_what_is_gone_is_named() {
    let _alone = alone();
    // Another pipeline's topic is as good an input as any.
    let input = pipeline();
    let records: Vec<_> = (0..2_500).map(|n| letter(&format!("t/0/{n}/0"))).collect();
    assert_eq!(copy(&input, &records[..2_000]).unwrap().copied, 2_000);
    assert_eq!(copy(&input, &records).unwrap().copied, 500);
    let (topic, pipeline) = (replay_topic(&input), pipeline());
    let row = |offset: u64, attempt: u16, row: &str| format!("{topic}/0/{offset}/{attempt} {row}");
    // Behind the first 2,000 is the mark of their transaction.
    let rows = [
        row(2_400, 0, "base.ta/0"),
        row(3, 0, "base.ta/0"),
        row(3, 0, "base.ta/1"),
        row(3, 0, "base.ta/1"),
        row(2_000, 0, "base.ta/0"),
        row(1_900, 2, "lake.ta/0"),
        row(4, 3, "base.ta/0"),
        row(9_999, 0, "base.ta/0"),
        format!("nowhere-{input}/0/1/0 base.ta/0"),
    ];
    let (copied, gone) = copy_rows(&pipeline, &rows);
    assert_eq!(copied, Copied { copied: 4, there: 1, spent: 1, ..Copied::default() });
    let expected = [
        row(3, 1, "base.ta/0"),
        row(3, 1, "base.ta/1"),
        row(1_900, 3, "lake.ta/0"),
        row(2_400, 1, "base.ta/0"),
    ];
    assert_eq!(ids(&pipeline), expected);
    let told = |row: String, why: &str| gone.iter().any(|told| told.starts_with(&row) && told.contains(why));
    assert!(told(row(2_000, 0, "base.ta/0"), "not have it any more"), "{gone:?}");
    assert!(told(row(9_999, 0, "base.ta/0"), "not have it any more"), "{gone:?}");
    assert!(told(format!("nowhere-{input}/0/1/0"), "nowhere") && gone.len() == 3, "{gone:?}");
    for (copy, offset) in copies(&pipeline).iter().zip([3, 3, 1_900, 2_399]) {
        let (value, first) = (format!("t/0/{offset}/0"), &copy.headers[1]);
        assert_eq!((copy.value.as_deref(), copy.timestamp_ms), (Some(value.as_bytes()), 77));
        assert_eq!((&*first.0, first.1.as_deref()), (ENVELOPE, Some(format!("t/0/{offset}/1").as_bytes())));
    }
    let (copied, gone) = copy_rows(&pipeline, &rows);
    assert_eq!((copied, gone.len()), (Copied { there: 5, spent: 1, ..Copied::default() }, 3));
    // It has records at these offsets, and they are others.
    copy("made-again", &[letter("t/0/5/0")]).unwrap();
    let (copied, gone) = copy_rows(&pipeline, &["weir.made-again.replay/0/0/0 base.ta/0".to_owned()]);
    assert_eq!((copied, gone[0].contains("it was made again")), (Copied::default(), true), "{gone:?}");
    // The whole record is another matter, and so is a row that was refused once more.
    assert_eq!(copy(&pipeline, &[letter(&format!("{topic}/0/3/0"))]).unwrap().copied, 1);
    assert_eq!(copy_rows(&pipeline, &[row(3, 1, "base.ta/1")]).0.copied, 1);
}

#[cfg(feature = "failpoints")]
#[test]
fn one_who_dies_anywhere_copied_all_or_nothing_and_whoever_asks_again_copies_the_rest_once() {
    let _alone = alone();
    let letters: Vec<_> = (0..5).map(|n| letter(&format!("t/0/{n}/0"))).collect();
    let all: Vec<_> = (0..5).map(|n| format!("t/0/{n}/1")).collect();
    for point in ["replay.after_renewal", "replay.mid_letters", "replay.before_commit", "replay.after_commit"]
    {
        let pipeline = pipeline();
        assert_eq!(copy(&pipeline, &letters[..2]).unwrap().copied, 2, "{point}");
        fail::cfg(point, "1*panic(the process dies)").unwrap();
        let (of, more) = (pipeline.clone(), letters.clone());
        let died = std::thread::spawn(move || copy(&of, &more)).join();
        fail::remove(point);
        assert!(died.is_err(), "{point} was not reached");
        let done = point == "replay.after_commit";
        assert_eq!(ids(&pipeline), if done { &all[..] } else { &all[..2] }, "{point}");
        let copied = copy(&pipeline, &letters).unwrap();
        assert_eq!(copied.copied, if done { 0 } else { 3 }, "{point}");
        assert_eq!(ids(&pipeline), all, "{point}");
    }
}
