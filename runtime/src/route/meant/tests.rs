//! What is left of records that come again for a row, over all sinks and targets.

use std::collections::BTreeMap;

use arrow::array::{Array as _, StringArray};

use super::*;
use crate::batch::{BatchBuilder, RecordRef};
use crate::budget::Permit;
use crate::description::{Needs, Reason, Route, RouteContent};
use crate::offset::TopicPartition;
use crate::origin::ENVELOPE;
use crate::route::{Failed, Pieces, Reject, RouteRows, Why, route};
use crate::sink::state::PlanRef;

/// A batch of the replay input with these envelopes.
fn batch(envelopes: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new("weir.p.replay", 0), Offset::ZERO);
    builder.open_envelopes();
    for (n, text) in envelopes.iter().enumerate() {
        let headers = [(ENVELOPE, Some(text.as_bytes()))];
        let (key, value) = (n.to_string(), text.as_bytes());
        let record = RecordRef {
            key: Some(key.as_bytes()),
            value: Some(value),
            headers: &headers,
            timestamp_ms: n as i64,
        };
        builder.push(Offset::new(n as i64), record);
    }
    builder.finish(Offset::new(envelopes.len() as i64), Permit::free()).expect("not empty")
}

/// Records 0 and on are routed by `a` with row 0 and by `b` with row 1, but for the last three: rejected, dropped, failed.
fn pieces(batch: &Batch) -> Pieces {
    let n = batch.len() as u32;
    let rows = |route, rows: std::ops::Range<u32>| RouteRows {
        route,
        rows: rows.collect(),
        columns: vec![],
        keys: None,
        headers: None,
        deletes: None,
    };
    let rejects = vec![Reject { row: n - 5, reasons: vec![Why { reason: 0, detail: None }] }];
    let output = |first: u32, routed: std::ops::Range<u32>| {
        let routes = vec![rows(1, routed.clone()), rows(0, routed)];
        (first, Output { routes, ..Output::default() })
    };
    let mut last = output(2, 0..n - 5);
    last.1.rejects = rejects;
    last.1.dropped = vec![n - 4];
    let failed = vec![Failed { row: n - 1, code: "trap", message: "boom".into(), log: String::new() }];
    Pieces { outputs: vec![output(0, 0..2), last], failed }
}

fn routed(envelopes: &[&str]) -> Routed {
    let batch = batch(envelopes);
    let of = |name: &str| Route { name: name.into(), content: RouteContent::Records, doc: String::new() };
    let description = Description {
        name: "t".into(),
        version: "1".into(),
        doc: String::new(),
        needs: Needs::default(),
        settings: Vec::new(),
        tables: Vec::new(),
        routes: vec![of("a"), of("b")],
        reasons: vec![Reason { code: "bad".into(), field: None, message: String::new() }],
    };
    let bind = |all: &[(&str, &str)]| all.iter().map(|(of, to)| ((*of).into(), (*to).into())).collect();
    let bindings = Bindings {
        names: vec!["lake".into(), "base".into()],
        sinks: vec![
            bind(&[("a", "ta"), ("b", "tb")]),
            bind(&[("a", "ta"), ("b", "tb"), ("b", "copy"), (DEAD_LETTERS, "dead")]),
        ],
    };
    let plan = PlanRef { plan: 0, digest: "sha256:00".into() };
    route(&batch, plan, &description, Arc::new(bindings), pieces(&batch)).expect("each has one fate")
}

/// Offset and number of each row that a sink gets, by target.
fn rows(routed: &Routed, sink: usize) -> BTreeMap<Arc<str>, Vec<(i64, i32)>> {
    let mut all: BTreeMap<Arc<str>, Vec<(i64, i32)>> = BTreeMap::new();
    for part in &routed.parts {
        for (_, target) in routed.bindings.sinks[sink].iter().filter(|(of, _)| *of == part.route) {
            let part = routed.rows_for(part, sink, target);
            let keys = part.keys.as_ref().expect("all records have one");
            for row in 0..part.offsets.len() {
                let offset = part.offsets[row];
                assert_eq!(keys.get(row), Some(offset.to_string().as_bytes()));
                assert_eq!(part.timestamps[row], offset);
                assert!(part.origins.as_ref().expect("it comes again")[row].offset.get() == 10 + offset);
                all.entry(target.clone()).or_default().push((offset, part.index[row]));
            }
            assert_eq!(part.rows.num_rows(), part.offsets.len());
        }
    }
    all
}

const ALL: [&str; 10] = [
    "t/0/10/1",
    "t/0/11/1 base.ta/0",
    "t/0/12/1 base.copy/1",
    "t/0/13/1 lake.tb/1",
    "t/0/14/1 base.tb/0",
    "t/0/15/1 base.ta/2",
    "t/0/16/1 gone.ta/0",
    "t/0/17/1 lake.ta/0",
    "t/0/18/1 lake.ta/0",
    "t/0/19/1 lake.ta/0",
];

#[test]
fn of_a_record_that_comes_again_for_a_row_that_row_goes_to_its_place_and_nothing_else_anywhere() {
    let routed = routed(&ALL);
    let expected = |all: &[(&str, &[(i64, i32)])]| -> BTreeMap<Arc<str>, Vec<(i64, i32)>> {
        all.iter().map(|(target, rows)| ((*target).into(), rows.to_vec())).collect()
    };
    assert_eq!(rows(&routed, 0), expected(&[("ta", &[(0, 0)]), ("tb", &[(0, 1), (3, 1)])]));
    let dead = [(4, 0), (5, 0), (6, 0), (7, 0), (9, 0)];
    let base =
        [("ta", &[(0, 0), (1, 0)][..]), ("tb", &[(0, 1)]), ("copy", &[(0, 1), (2, 1)]), ("dead", &dead)];
    assert_eq!(rows(&routed, 1), expected(&base));
    let to = |sink, target: &str| Some(Addressee { sink, target: target.into() });
    let addressed = [None, to(1, "ta"), to(1, "copy"), to(0, "tb"), None, None, None, None, None, None];
    let found: Vec<_> = (0..10).map(|offset| routed.addressee(Offset::new(offset)).cloned()).collect();
    assert_eq!(found, addressed);
}

#[test]
fn where_the_rule_makes_no_such_row_any_more_the_record_is_rejected_and_a_letter_says_so() {
    use Fate::{Dropped, Failed, Rejected, Routed};
    let routed = routed(&ALL);
    let fates: Vec<Fate> = routed.fates.iter().map(|(_, fate)| *fate).collect();
    let rejected = [Rejected; 4];
    assert_eq!(fates, [&[Routed; 4][..], &rejected, &[Dropped, Failed]].concat());
    let counts = |all: &[(&str, u64)]| all.iter().map(|(name, n)| ((*name).into(), *n)).collect();
    assert_eq!(routed.rejected, counts(&[("bad", 1), (ROW_NOT_MADE, 3)]));
    assert_eq!(routed.routes, counts(&[("a", 2), ("b", 3)]));
    let dead = routed.parts.iter().find(|part| *part.route == *DEAD_LETTERS).unwrap();
    let reasons = dead.rows.column_by_name("reasons").unwrap();
    let reasons = reasons.as_any().downcast_ref::<StringArray>().unwrap();
    let said: Vec<(String, String)> = (0..reasons.len())
        .map(|row| {
            let all: serde_json::Value = serde_json::from_str(reasons.value(row)).unwrap();
            let text = |name: &str| all[0][name].as_str().unwrap_or_default().to_owned();
            (text("code"), text("meant"))
        })
        .collect();
    let expected = [
        (ROW_NOT_MADE, "base.tb/0"),
        (ROW_NOT_MADE, "base.ta/2"),
        (ROW_NOT_MADE, "gone.ta/0"),
        ("bad", "lake.ta/0"),
        ("trap", "lake.ta/0"),
    ];
    assert_eq!(said, expected.map(|(code, meant)| (code.to_owned(), meant.to_owned())));
}
