//! On a real Kafka, whose address `weir-services` gives.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::{Copied, TooLarge, select};
use super::*;
use crate::kafka::peek::Seen;
use crate::origin::ENVELOPE;
use crate::sink::state::Nonce;

/// What failpoints do is one table for all tests of this program.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

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

fn copy(pipeline: &str, letters: &[Letter]) -> Result<Copied> {
    let (mut topic, known) = Topic::open(cluster(), pipeline)?;
    select(letters.iter().cloned().map(Ok), 3, known, &mut topic)
}

fn copies(pipeline: &str) -> Vec<Seen> {
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
    let (mut first, known) = Topic::open(cluster(), &pipeline).unwrap();
    let (mut second, later_known) = Topic::open(cluster(), &pipeline).unwrap();
    let late = select([Ok(letter("t/0/5/0"))].into_iter(), 3, known, &mut first).unwrap_err();
    assert!(late.to_string().contains("somebody else began"), "{late:#}");
    let copied = select([Ok(letter("t/0/5/0"))].into_iter(), 3, later_known, &mut second).unwrap();
    assert_eq!(copied.copied, 1);
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
    let known = look(&cluster(), &pipeline).unwrap();
    assert_eq!(known.there, BTreeSet::from(["t/0/5/1".parse().unwrap()]));
    assert!(known.most_bytes.is_some());
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
