//! `weir dlq replay` is killed, as people and machines do it, while it copies letters to the replay input in several
//! transactions.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;

use serde_json::json;
use weir::origin::{Origin, replay_topic};
use weir_services::{Interrupt, until};

use super::{FILE, Letter, Pipeline};
use crate::{LONG, records_of};

/// Where `weir dlq replay` dies when it comes by there the nth time, one after the other, and how many letters are in the replay
/// input then. It copies 10,000 in each transaction.
const DEATHS: [(&str, u32, usize); 6] = [
    ("replay.after_renewal", 1, 0),
    ("replay.mid_letters", 5_000, 0),
    ("replay.before_commit", 1, 0),
    ("replay.after_commit", 1, HALF_WAY),
    // In its second transaction: 11,000 are left for it.
    ("replay.mid_letters", 10_500, 2 * HALF_WAY),
    ("replay.before_commit", 1, 2 * HALF_WAY),
];

const HALF_WAY: usize = 10_000;

impl Pipeline {
    /// How many letters are in the replay input, none of them twice.
    fn copies(&self) -> usize {
        let copies = records_of(&replay_topic(&self.name));
        let ids: BTreeSet<_> = copies.iter().map(|seen| &seen.headers[0]).collect();
        assert_eq!(ids.len(), copies.len(), "a letter was copied twice");
        copies.len()
    }
}

#[test]
fn killed_at_any_failpoint_and_asked_again_a_replay_brings_each_letter_once_to_every_sink() {
    const BAD: usize = 21_000;
    let customer = |n| match n % 107 {
        0 | 1 => ("42".to_owned(), "Lyon"),
        _ => ("old".to_owned(), "Boston"),
    };
    let pipeline = Pipeline::with(FILE, (0..BAD + 400).map(customer));
    pipeline.run(&[]);
    let (letters, mut expected) = (pipeline.letters(), pipeline.said("topics"));
    assert_eq!((letters.len(), expected.len(), &pipeline.said("lake")), (BAD, 400, &expected));
    pipeline.mend();

    for (point, n, there) in DEATHS {
        let died = pipeline.replaying(&["--yes"]).env("WEIR_KILL_AT", format!("{point}:{n}")).output();
        let died = died.expect("the program starts");
        let said = [&*died.stdout, &*died.stderr].map(String::from_utf8_lossy).concat();
        assert_eq!(died.status.signal(), Some(9), "{point}:{n}: {said}");
        // What was committed a moment ago may not be seen yet.
        let mut copies = 0;
        let look = || {
            copies = pipeline.copies();
            Ok((copies == there).then_some(()))
        };
        let seen = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        assert!(seen.is_some(), "{point}:{n}: {copies} of {there} are there");
        if point == "replay.after_commit" {
            // Those that are there go through while the others are none yet.
            pipeline.run(&["--adopt"]);
            let said = pipeline.said("topics");
            assert_eq!(said.values().filter(|attempts| **attempts == [1]).count(), there);
            assert_eq!((said.len(), &pipeline.said("lake")), (400 + there, &said));
        }
    }
    let (copied, there) = (BAD - 2 * HALF_WAY, 2 * HALF_WAY);
    let said = json!({ "copied": copied, "there": there, "spent": 0, "too_large": [], "gone": [] });
    assert_eq!(pipeline.replay(&["--yes"]), (Some(0), said));
    pipeline.run(&[]);

    for Letter { origin: Origin { at, offset, .. }, .. } in &letters {
        let place = (at.topic.to_string(), at.partition.into(), offset.get());
        assert!(expected.insert(place, vec![1]).is_none());
    }
    // No assert_eq: thousands of them would be shown.
    for sink in ["topics", "lake"] {
        let said = pipeline.said(sink);
        let differ = expected.iter().find(|(place, attempts)| said.get(place) != Some(attempts));
        assert_eq!((said.len(), differ), (expected.len(), None), "in {sink}");
    }
    assert!(pipeline.letters() == letters, "there are other letters");
    assert_eq!(pipeline.copies(), BAD);
}
