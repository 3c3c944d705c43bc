//! Exactly what differs is told, each kind once for a record.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;

use super::*;
use crate::batch::{Headers, VarBytes};
use crate::budget::Permit;
use crate::offset::{OffsetRange, TopicPartition};
use crate::route::Bindings;
use crate::sink::state::PlanRef;

use Fate::{Dropped, Failed, Rejected, Routed as On};

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn part(route: &str, offsets: &[i64], fields: &[(&str, ArrayRef)]) -> RoutePart {
    RoutePart {
        origins: None,
        route: route.into(),
        rows: RecordBatch::try_from_iter(fields.to_vec()).unwrap(),
        offsets: offsets.to_vec().into(),
        index: vec![0; offsets.len()].into(),
        timestamps: vec![-1; offsets.len()].into(),
        keys: None,
        headers: None,
        deletes: None,
    }
}

/// Dead letters of records with these reasons, as a plan of that digest writes them.
fn dead(offsets: &[i64], reasons: &[&str], digest: &str) -> RoutePart {
    let same = |text| texts(&vec![text; offsets.len()]);
    let fields = [("stage", same("transform")), ("reasons", texts(reasons)), ("digest", same(digest))];
    part(DEAD_LETTERS, offsets, &fields)
}

/// What became of the records 0, 1, 2 and so on.
fn made(fates: &[Fate], parts: Vec<RoutePart>) -> Routed {
    let fates: Vec<_> = (0..).map(Offset::new).zip(fates.iter().copied()).collect();
    let n_records = fates.len() as u64;
    Routed {
        at: TopicPartition::new("t", 7),
        range: OffsetRange::new(Offset::ZERO, Offset::new(n_records as i64)),
        plan: PlanRef { plan: 0, digest: "sha256:ab".into() },
        bindings: Arc::new(Bindings::default()),
        n_records,
        last: None,
        fates,
        parts,
        addressed: Vec::new(),
        rejected: BTreeMap::new(),
        routes: BTreeMap::new(),
        permit: Permit::free(),
    }
}

/// A kind in words, of how many records, and the offset, what was and what is of those that are shown.
type Told<'a> = (String, u64, Vec<(i64, &'a str, &'a str)>);

fn told(found: &Comparison) -> Vec<Told<'_>> {
    let each = found.found.iter().map(|found| {
        let samples = found.samples.iter().map(|s| (s.offset.get(), s.was.as_str(), s.is.as_str()));
        (found.what.to_string(), found.records, samples.collect())
    });
    each.collect()
}

#[test]
fn nothing_is_told_of_what_is_the_same_whatever_pieces_it_came_in_and_whatever_a_trap_says() {
    let fates = [On, On, Rejected, Failed, Dropped];
    let reasons = [r#"[{"code":"bad"}]"#, r#"[{"code":"trap","message":"at 7"}]"#];
    let was =
        made(&fates, vec![part("a", &[0, 1], &[("n", numbers(&[5, 6]))]), dead(&[2, 3], &reasons, "x")]);
    let others = [reasons[0], r#"[{"code":"trap","message":"at 8"}]"#];
    let pieces = [part("a", &[0], &[("n", numbers(&[5]))]), part("a", &[1], &[("n", numbers(&[6]))])];
    let is = made(&fates, pieces.into_iter().chain([dead(&[2, 3], &others, "y")]).collect());
    for (was, is) in [(&was, &is), (&is, &was), (&was, &was)] {
        let found = Comparison::of(was, is);
        assert_eq!(found, Comparison { records: 5, ..Comparison::default() });
        assert!(found.is_same());
    }
}

#[test]
fn where_a_record_goes_is_told_with_its_reasons_and_then_no_field_of_it() {
    let row = |route| part(route, &[0], &[("n", numbers(&[1]))]);
    let was = made(
        &[On, On, Rejected, On],
        vec![
            part("a", &[0, 1, 3], &[("n", numbers(&[5, 6, 7]))]),
            dead(&[2], &[r#"[{"code":"bad","detail":"1"}]"#], "x"),
        ],
    );
    let is = made(
        &[On, Rejected, Rejected, Dropped],
        vec![
            part("b", &[0], &[("n", numbers(&[9]))]),
            dead(&[1, 2], &[r#"[{"code":"bad"},{"code":"worse"}]"#, r#"[{"code":"bad","detail":"2"}]"#], "y"),
        ],
    );
    let found = Comparison::of(&was, &is);
    assert_eq!((found.records, found.different, found.others), (4, 4, 0));
    let expected = [
        ("route a -> route b", 0, r#"{"n":5}"#, r#"{"n":9}"#),
        ("route a -> rejected (bad, worse)", 1, r#"{"n":6}"#, r#"[{"code":"bad"},{"code":"worse"}]"#),
        (
            "dead letters: field reasons",
            2,
            r#"[{"code":"bad","detail":"1"}]"#,
            r#"[{"code":"bad","detail":"2"}]"#,
        ),
        ("route a -> dropped", 3, r#"{"n":7}"#, "nothing"),
    ];
    let expected = expected.map(|(what, at, was, is)| (what.to_owned(), 1, vec![(at, was, is)]));
    assert_eq!(told(&found), expected);
    let both = Comparison::of(&made(&[On], vec![row("a")]), &made(&[On], vec![row("a"), row("b")]));
    assert_eq!(both.found[0].what.to_string(), "route a -> route a + route b");
}

#[test]
fn a_field_a_key_a_header_and_a_delete_are_told_of_the_record_that_has_another_one() {
    let rows =
        || part("a", &[0, 1, 2, 3], &[("n", numbers(&[1, 2, 3, 4])), ("s", texts(&["a", "b", "c", "d"]))]);
    let keys =
        |last: &'static [u8]| [None, Some(&b"k"[..]), None, Some(last)].into_iter().collect::<VarBytes>();
    let headers = |value: &'static [u8]| {
        let mut headers = Headers::default();
        [None, None, Some(("h", Some(value))), None].iter().for_each(|h| headers.push(h.as_slice()));
        headers
    };
    let mut was = rows();
    (was.keys, was.headers) = (Some(keys(b"k")), Some(headers(b"1")));
    let mut is =
        part("a", &[0, 1, 2, 3], &[("n", numbers(&[1, 2, 3, 4])), ("s", texts(&["a", "B", "c", "d"]))]);
    (is.keys, is.headers) = (Some(keys(b"\xff")), Some(headers(b"2")));
    is.deletes = Some(BooleanBuffer::from(vec![true, false, false, false]));
    let found = Comparison::of(&made(&[On; 4], vec![was]), &made(&[On; 4], vec![is]));
    assert_eq!((found.records, found.different), (4, 4));
    let expected = [
        ("route a: whether it deletes", 0, "false", "true"),
        ("route a: field s", 1, "b", "B"),
        ("route a: the headers", 2, "h=1", "h=2"),
        ("route a: the key", 3, "k", "\\xff"),
    ];
    let expected = expected.map(|(what, at, was, is)| (what.to_owned(), 1, vec![(at, was, is)]));
    assert_eq!(told(&found), expected);
}

#[test]
fn rows_of_a_record_are_compared_in_their_order_and_another_number_of_them_is_told_alone() {
    let was = part("a", &[0, 0, 1, 1], &[("n", numbers(&[1, 2, 3, 4]))]);
    let is = part("a", &[0, 0, 1], &[("n", numbers(&[8, 9, 3]))]);
    let found = Comparison::of(&made(&[On; 2], vec![was]), &made(&[On; 2], vec![is]));
    let expected =
        [("route a: field n", 0, "1", "8"), ("route a: the number of rows", 1, "2 rows", "1 rows")];
    let expected = expected.map(|(what, at, was, is)| (what.to_owned(), 1, vec![(at, was, is)]));
    assert_eq!((found.different, told(&found)), (2, Vec::from(expected)));
}

#[test]
fn a_field_that_only_one_plan_has_or_of_another_type_is_told_once_and_makes_no_record_different() {
    let was =
        part("a", &[0, 1], &[("old", numbers(&[1, 2])), ("n", numbers(&[1, 2])), ("s", texts(&["a", "b"]))]);
    let is = part(
        "a",
        &[0, 1],
        &[("s", texts(&["a", "b"])), ("n", texts(&["1", "2"])), ("new", numbers(&[1, 2]))],
    );
    let mut found = Comparison::of(&made(&[On; 2], vec![was.clone()]), &made(&[On; 2], vec![is.clone()]));
    found.add(&Comparison::of(&made(&[On; 2], vec![was]), &made(&[On; 2], vec![is])));
    assert_eq!((found.records, found.different, found.found.len()), (4, 0, 0));
    assert!(!found.is_same());
    let fields: Vec<_> = found.fields.iter().map(ToString::to_string).collect();
    assert_eq!(
        fields,
        [
            "route a: field n is Utf8, and was Int64",
            "route a: field new (Int64) is new",
            "route a: field old (Int64) is not there any more",
        ]
    );
}

#[test]
fn however_many_differ_a_few_are_shown_and_all_are_counted() {
    let mut all = Comparison::default();
    for kind in 0..KINDS as i64 + 5 {
        for _ in 0..2 {
            let was =
                made(&[On; 4], vec![part(&format!("r{kind:03}"), &[0, 1, 2, 3], &[("n", numbers(&[1; 4]))])]);
            all.add(&Comparison::of(&was, &made(&[Dropped; 4], Vec::new())));
        }
    }
    assert_eq!((all.different, all.found.len(), all.others), (8 * (KINDS as u64 + 5), KINDS, 8 * 5));
    assert!(all.found.iter().all(|found| found.records == 8 && found.samples.len() == SAMPLES));
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), all);
}
