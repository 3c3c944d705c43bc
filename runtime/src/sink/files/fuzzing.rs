//! The laws of what the file sink reads back and of the names it makes: a log is read or refused and only ever moves
//! on; a name is a name, and two values never share one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::directories::{self, Directory, NOTHING, Span};
use super::names;
use super::record::{Record, Snapshot, Stored, from_text, to_text};
use crate::sink::Part;
use crate::sink::state::{Nonce, SinkState};

/// Any bytes as the text of a record or a snapshot; and each line as the inner part of one, behind a checksum that is
/// good, so that all lines are a log.
pub(crate) fn any_log(bytes: &[u8]) {
    read_back::<Record>(bytes);
    read_back::<Snapshot>(bytes);
    let mut state = None;
    for line in String::from_utf8_lossy(bytes).lines() {
        let crc32 = crc32fast::hash(line.trim().as_bytes());
        let text = format!("{{\"version\":1,\"nonce\":\"7\",\"crc32\":{crc32},\"record\":{line}}}");
        if let Some(record) = read_back(text.as_bytes()) {
            apply(record, &mut state);
        }
        if let Some(Snapshot { state: from, .. }) = read_back(text.as_bytes()) {
            state = Some(from);
        }
    }
}

/// What is there, if it is that: it is the same when it was written and read again.
fn read_back<T: Stored + DeserializeOwned + Clone + PartialEq + Debug>(text: &[u8]) -> Option<T> {
    let (nonce, record): (Nonce, T) = from_text(text).ok()?;
    let again = from_text(&to_text(&record, nonce)).expect("what was written can be read");
    assert_eq!(again, (nonce, record.clone()));
    Some(record)
}

fn apply(record: Record, state: &mut Option<SinkState>) {
    let before = state.clone();
    match (record.apply(state), before, state) {
        (Err(_), before, state) => assert_eq!(before, *state, "a refusal changes nothing"),
        (Ok(()), Some(before), Some(state)) => {
            assert!(
                before.next <= state.next,
                "the position went back from {} to {}",
                before.next,
                state.next
            );
            assert!(before.epoch <= state.epoch, "the epoch went back");
        }
        (Ok(()), _, state) => assert!(state.is_some()),
    }
}

/// Lines as the values of two columns, by turns, and as names of targets; and the first sixteen bytes as two times.
pub(crate) fn any_directories(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let values: Vec<Option<&str>> = text.split('\n').map(Some).chain([None]).collect();
    one_level(&values);
    two_levels(&values);
    values.iter().flatten().for_each(|target| check_target(target));
    if let Some((a, b)) = bytes.get(..16).map(|bytes| bytes.split_at(8)) {
        let time = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight of sixteen"));
        let (a, b) = (time(a), time(b));
        // All of an i64 is hardly ever a time.
        for (a, b) in [(a, b), (a % (1 << 58), b % (1 << 58)), (a % (1 << 48), a % (1 << 48) + b % (1 << 32))]
        {
            [Span::Month, Span::Day, Span::Hour].into_iter().for_each(|span| times(span, a, b));
        }
    }
}

fn part(columns: Vec<(&str, ArrayRef)>, timestamps: Vec<i64>) -> Part {
    let n = timestamps.len();
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    Part {
        target: "t".into(),
        route: "r".into(),
        rows: RecordBatch::try_from_iter_with_nullable(columns).expect("the columns are of one length"),
        offsets: (0..n as i64).collect(),
        origins: None,
        index: vec![0; n].into(),
        timestamps: timestamps.into(),
        keys: None,
        headers: None,
        deletes: None,
    }
}

/// The place of each row, or why there is none.
fn places(directories: &[Directory], part: &Part) -> Vec<Result<String, String>> {
    let sorted = directories::sort(directories, part).expect("the columns will do");
    let mut places = BTreeMap::new();
    let good = sorted.places.into_iter().map(|(place, rows)| (Ok(place), rows));
    for (place, rows) in good.chain(sorted.refused.into_iter().map(|(why, rows)| (Err(why), rows))) {
        for row in rows {
            assert!(places.insert(row, place.clone()).is_none(), "row {row} has two places");
        }
    }
    assert!(places.keys().copied().eq(0..part.rows.num_rows() as u32));
    places.into_values().collect()
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn one_level(values: &[Option<&str>]) {
    let part = part(vec![("x", texts(values))], vec![-1; values.len()]);
    let places = places(&[Directory::Column("x".into())], &part);
    let places: Vec<String> =
        places.into_iter().map(|place| place.expect("every text has a place")).collect();
    for (value, place) in values.iter().zip(&places) {
        let name = check_part(place, "x=");
        match value {
            None => assert_eq!(name, NOTHING),
            Some(text) if !name.contains('~') => assert_eq!(decoded(name), text.as_bytes()),
            Some(text) => assert!(text.len() > 40, "{text:?} was cut to {name}"),
        }
    }
    let distinct = |of: BTreeSet<_>| of.len();
    assert_eq!(distinct(places.into_iter().collect()), values.iter().collect::<BTreeSet<_>>().len());
}

fn two_levels(values: &[Option<&str>]) {
    let pairs: Vec<(Option<&str>, Option<&str>)> = values.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let (outer, inner): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    let part = part(vec![("x", texts(&outer)), ("y", texts(&inner))], vec![-1; pairs.len()]);
    let directories = [Directory::Column("x".into()), Directory::Column("y".into())];
    let places: Vec<Result<String, String>> = places(&directories, &part);
    for place in &places {
        let parts: Vec<&str> = place.as_ref().expect("every text has a place").split('/').collect();
        let [outer, inner] = parts[..] else { panic!("{parts:?} are not two levels") };
        check_part(outer, "x=");
        check_part(inner, "y=");
    }
    let (places, pairs): (BTreeSet<_>, BTreeSet<_>) =
        (places.into_iter().collect(), pairs.into_iter().collect());
    assert_eq!(places.len(), pairs.len());
}

/// One part of a path that no file system and no reader takes for anything else.
fn check_part<'a>(place: &'a str, begin: &str) -> &'a str {
    let name = place.strip_prefix(begin).expect("it begins with the column");
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.%~".contains(&b);
    assert!(!name.is_empty() && name.bytes().all(plain), "{place}");
    assert!(name.len() <= 190, "{} bytes and a name of 63 are too many", name.len());
    name
}

fn decoded(name: &str) -> Vec<u8> {
    // An empty part is a `%` by itself.
    if name == "%" {
        return Vec::new();
    }
    let mut parts = name.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, plain) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
        bytes.extend_from_slice(plain.as_bytes());
    }
    bytes
}

fn check_target(target: &str) {
    let path = names::target(target);
    assert_eq!(path.split('/').count(), target.split('/').count(), "{path}");
    for (part, text) in path.split('/').zip(target.split('/')) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.%=".contains(&b);
        assert!(!part.starts_with(['.', '_']) && !part.is_empty() && part.bytes().all(plain), "{part}");
        assert_eq!(decoded(part), text.as_bytes());
    }
}

/// Two times share a directory if and only if they are of the same hour, day or month; and the earlier one comes first.
fn times(span: Span, a: i64, b: i64) {
    let of_records = part(vec![("x", Arc::new(Int64Array::from(vec![0, 0])))], vec![a, b]);
    let by_record = places(&[Directory::Date(span, None)], &of_records);
    compare(span, a, b, 3_600_000, by_record, Some(-1));
    let column = TimestampMicrosecondArray::from(vec![a, b]).with_timezone("UTC");
    let of_column = part(vec![("x", Arc::new(column))], vec![-1; 2]);
    let by_column = places(&[Directory::Date(span, Some("x".into()))], &of_column);
    compare(span, a, b, 3_600_000_000, by_column, None);
}

fn compare(
    span: Span,
    a: i64,
    b: i64,
    per_hour: i64,
    places: Vec<Result<String, String>>,
    nothing: Option<i64>,
) {
    if nothing.is_some_and(|nothing| nothing == a || nothing == b) {
        return;
    }
    let [Ok(at), Ok(bt)] = &places[..] else { return };
    assert!(at.starts_with("dt=") && bt.starts_with("dt="));
    assert_eq!(a <= b || at == bt, at <= bt, "{a} is {at}, {b} is {bt}");
    let unit = match span {
        Span::Hour => per_hour,
        Span::Day => per_hour * 24,
        Span::Month => return,
    };
    assert_eq!(a.div_euclid(unit) == b.div_euclid(unit), at == bt, "{a} is {at}, {b} is {bt}");
}
