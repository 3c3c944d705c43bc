//! Reading back what sinks have: dead letters, rows that a sink refused, the rows of one record, and where a sink
//! stands. Whoever reads claims nothing, locks nothing that a pipeline waits for, and writes nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::json::{JsonRows, milliseconds};
use super::state::SinkState;
use super::{Error, Problem};
use crate::offset::{Offset, TopicPartition};
use crate::origin::Meant;
use crate::route::{DEAD_LETTERS, RoutePart};

/// A sink from which can be read back.
pub trait Reader {
    /// Where the sink stands in a partition; `None` if it was never claimed there.
    ///
    /// # Errors
    /// If the sink cannot be reached, or what it says of itself cannot be read.
    fn state(&mut self, at: &TopicPartition) -> Result<Option<SinkState>, Error>;

    /// Hands the letters that are sought to `each`, until that says `false`: those of a partition and place in the order in
    /// which they were written. More may be handed over than is sought, and never less; only a few are in memory at a time.
    ///
    /// # Errors
    /// As of [`Self::state`], and for what is no letter where letters should be.
    fn letters(&mut self, sought: &Sought, each: Each<'_>) -> Result<(), Error>;

    /// The rows that a target has of one record and route, as far as they say where they come from.
    ///
    /// # Errors
    /// As of [`Self::state`].
    fn rows(&mut self, asked: &Asked<'_>) -> Result<Found, Error>;
}

/// Of which rows is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The record.
    pub origin: &'a Coordinates,
    /// Where in the sink.
    pub target: &'a Arc<str>,
    /// By which route they came; a table does not keep that.
    pub route: &'a str,
    /// Their columns, without provenance.
    pub schema: &'a SchemaRef,
}

/// What a target has of a record.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The rows that say that they come from it.
    pub rows: Vec<Stood>,
    /// Why there may be more, or others than these, that cannot be told: for people.
    pub unknown: Option<String>,
}

/// A row as it stands in a sink.
#[derive(Clone, PartialEq, Debug)]
pub struct Stood {
    /// Its number among the rows of its record.
    pub index: i32,
    /// The plan that made it, as it says.
    pub plan: u64,
    /// How often its record had come again by then; 0 where it came for the first time.
    pub attempt: u16,
    /// In the one JSON form; nothing where it is a tombstone.
    pub row: Option<Map<String, Value>>,
    /// Whether the sink keeps fewer columns than it got.
    pub is_partial: bool,
    /// Where it stands, for people.
    pub place: String,
}

impl Stood {
    /// A row of a table or file with the columns of `schema`; nothing where it does not say where it comes from.
    pub(super) fn of(mut row: Map<String, Value>, schema: &Schema, place: &str) -> Option<Self> {
        let number = |row: &Map<String, Value>, name: &str| row.get(name).and_then(Value::as_i64);
        let index = number(&row, "weir_index").and_then(|index| i32::try_from(index).ok())?;
        let plan = number(&row, "weir_plan").and_then(|plan| u64::try_from(plan).ok())?;
        let attempt = attempt(&row);
        row.retain(|name, _| schema.column_with_name(name).is_some());
        Some(Self { index, plan, attempt, row: Some(row), is_partial: false, place: place.to_owned() })
    }
}

/// A row as a plan makes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Made {
    /// By which route.
    pub route: Arc<str>,
    /// Its number among the rows of its record.
    pub index: i32,
    /// In the one JSON form.
    pub row: Map<String, Value>,
    /// Whether it deletes what has its key.
    pub deletes: bool,
}

impl Made {
    /// The rows of a route.
    ///
    /// # Errors
    /// [`Error::Permanent`] for a column of a type that no transform can declare.
    pub fn of(part: &RoutePart) -> Result<Vec<Self>, Error> {
        let json = JsonRows::new(&part.rows).map_err(|e| Error::Permanent(Problem::new(e.to_string())))?;
        let row = |i: usize| {
            let row = match json.value(i) {
                Value::Object(row) => row,
                other => Map::from_iter([("row".to_owned(), other)]),
            };
            let deletes = part.deletes.as_ref().is_some_and(|deletes| deletes.value(i));
            Self { route: part.route.clone(), index: part.index[i], row, deletes }
        };
        Ok((0..part.rows.num_rows()).map(row).collect())
    }

    /// How the row that stands there differs from it: each column with what is there and what should be. What a transform
    /// says when it fails may be another thing each time.
    pub fn differences(&self, stood: &Stood) -> Vec<String> {
        let Some(there) = &stood.row else {
            return if self.deletes { Vec::new() } else { vec!["it is a tombstone".to_owned()] };
        };
        let failed = *self.route == *DEAD_LETTERS && self.row.get("trap").is_some_and(Value::is_string);
        let varies = |name: &str| {
            // Where it came again for one row alone, the reasons say which.
            let reasons_vary = failed || stood.attempt > 0;
            *self.route == *DEAD_LETTERS
                && (matches!(name, "trap" | "log") || reasons_vary && name == "reasons")
        };
        let mut all = Vec::new();
        for (name, should) in self.row.iter().filter(|(name, _)| !varies(name)) {
            match there.get(name) {
                Some(is) if same(is, should) => {}
                Some(is) => all.push(format!("column {name} is {is} and should be {should}")),
                None if stood.is_partial => {}
                None => all.push(format!("column {name} is not there and should be {should}")),
            }
        }
        all
    }
}

/// Whether two values are the same to whoever reads JSON: a database may write a number in another way.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || !(x.is_i64() && y.is_i64()) && x.as_f64() == y.as_f64()
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(name, a)| y.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Why nothing can be told of rows that do not say where they come from.
pub(super) const WITHOUT_PROVENANCE: &str =
    "its rows do not say which record they come from (`provenance = false`), so they cannot be told apart";

/// Called with each letter; says whether it wants more.
pub type Each<'a> = &'a mut dyn FnMut(Letter) -> bool;

/// What letters are sought in one sink.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sought {
    /// The targets in which dead letters are: of the pipeline file, and of plans of the past.
    pub dead: Vec<Arc<str>>,
    /// Whether rows that the sink refused are sought.
    pub refused: bool,
    /// Only of this topic.
    pub topic: Option<Arc<str>>,
    /// Only of this partition.
    pub partition: Option<i32>,
    /// Only of these offsets, from the first up to and without the second.
    pub offsets: Option<(i64, i64)>,
    /// Only by this plan.
    pub plan: Option<u64>,
}

impl Sought {
    /// All of one record.
    pub fn of(origin: &Coordinates) -> Self {
        let Coordinates { at, offset } = origin;
        Self {
            topic: Some(at.topic.clone()),
            partition: Some(at.partition),
            offsets: Some((offset.get(), offset.next().get())),
            ..Self::default()
        }
    }

    /// Whether a letter of this record and plan is sought.
    pub fn takes(&self, origin: &Coordinates, plan: u64) -> bool {
        self.topic.as_ref().is_none_or(|topic| *topic == origin.at.topic)
            && self.partition.is_none_or(|partition| partition == origin.at.partition)
            && self.offsets.is_none_or(|(from, to)| (from..to).contains(&origin.offset.get()))
            && self.plan.is_none_or(|wanted| wanted == plan)
    }

    /// Whether it may be among the offsets of a partition from `start` up to and without `end`.
    pub fn may_take(&self, partition: i32, start: i64, end: i64) -> bool {
        self.partition.is_none_or(|wanted| wanted == partition)
            && self.offsets.is_none_or(|(from, to)| from < end && start < to)
    }
}

/// A record by where it stands in the input; written as `TOPIC/PARTITION/OFFSET`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Coordinates {
    /// Its partition.
    pub at: TopicPartition,
    /// Its offset there.
    pub offset: Offset,
}

impl Coordinates {
    /// A record at an offset; `None` where one of the numbers is negative.
    pub fn new(topic: &str, partition: i64, offset: i64) -> Option<Self> {
        let partition = i32::try_from(partition).ok().filter(|partition| *partition >= 0)?;
        Some(Self { at: TopicPartition::new(topic, partition), offset: Offset::try_from(offset).ok()? })
    }
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.at.topic, self.at.partition, self.offset)
    }
}

impl FromStr for Coordinates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.rsplitn(3, '/');
        let mut number = || parts.next().and_then(|part| part.parse::<i64>().ok());
        let (offset, partition) = (number(), number());
        let origin = match (parts.next(), partition, offset) {
            (Some(topic), Some(partition), Some(offset)) if !topic.is_empty() => {
                Self::new(topic, partition, offset)
            }
            _ => None,
        };
        origin.ok_or_else(|| "it is not TOPIC/PARTITION/OFFSET, such as customers-raw/3/1042".to_owned())
    }
}

/// Who could do nothing with a record, or with a row of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// The source could not cut it into a record.
    Source,
    /// The transform rejected it or failed on it.
    Transform,
    /// The sink refused a row for what is in it.
    Sink,
}

impl Stage {
    /// As it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Transform => "transform",
            Self::Sink => "sink",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Source, Self::Transform, Self::Sink];
        let found = all.into_iter().find(|stage| stage.name() == text);
        found.ok_or_else(|| "it is one of source, transform, sink".to_owned())
    }
}

/// Why a letter is one. What a sink says of a row has no code but that of its database, if any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reason {
    /// Stable and short.
    pub code: String,
    /// Which field of the record, if one is to blame.
    pub field: Option<String>,
    /// The same for every record, where a transform declares it.
    pub message: String,
    /// What was found in this one.
    pub detail: Option<String>,
}

/// A record that went nowhere else, or a row that a sink refused, with all that was kept of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Letter {
    /// The record it is, or that its row was made of.
    pub origin: Coordinates,
    /// How often its record had come again by then; 0 where it came for the first time.
    pub attempt: u16,
    /// Of a row, its number among those of its record; of a record, 0.
    pub index: i32,
    /// Who could do nothing with it.
    pub stage: Stage,
    /// The plan that had it.
    pub plan: u64,
    /// Why; at least one.
    pub reasons: Vec<Reason>,
    /// How the transform failed, if it did.
    pub trap: Option<String>,
    /// The last lines that it wrote then.
    pub log: Option<String>,
    /// The sink that has it.
    pub sink: Arc<str>,
    /// Where there, for people.
    pub place: String,
    /// Of the record; absent and empty differ. Of a row in Kafka, that of the row.
    pub key: Option<Vec<u8>>,
    /// Likewise.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The time of the record, in milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp_ms: Option<i64>,
    /// What only a refused row has.
    pub refused: Option<Refused>,
    /// The row for which alone the record is to come again: of a record that did so, and of a refused row. Absent: all that
    /// becomes of the record is missing.
    pub meant: Option<Meant>,
}

/// A row that a sink refused.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Refused {
    /// Where it was to go.
    pub target: String,
    /// By which route.
    pub route: String,
    /// The row in the one JSON form, where the sink keeps it so.
    pub row: Option<Value>,
}

/// The one row of a table, or of a file, that a dead letter is; nothing where it is the row of another route.
pub(super) fn dead_letter(
    row: &Map<String, Value>,
    sink: &Arc<str>,
    place: &str,
) -> Result<Option<Letter>, Error> {
    let Some(stage) = row.get("stage").and_then(Value::as_str) else { return Ok(None) };
    let stage = stage.parse().map_err(|_| no_letter(place, "its stage is unknown"))?;
    let letter = Letter {
        stage,
        reasons: reasons(row.get("reasons").unwrap_or(&Value::Null)),
        trap: text(row, "trap"),
        log: text(row, "log"),
        key: bytes(row, "key"),
        value: bytes(row, "value"),
        headers: headers(row.get("headers").unwrap_or(&Value::Null)),
        timestamp_ms: row.get("timestamp").and_then(milliseconds),
        meant: row.get("reasons").and_then(meant),
        ..letter(row, sink, place)?
    };
    Ok(Some(letter))
}

/// A row that tells of one which the sink refused, and why.
pub(super) fn refused_row(
    row: &Map<String, Value>,
    code: Option<String>,
    reason: &str,
    sink: &Arc<str>,
    place: &str,
) -> Result<Letter, Error> {
    let refused = Refused {
        target: text(row, "target").unwrap_or_default(),
        route: text(row, "route").unwrap_or_default(),
        row: row.get("row").filter(|row| !row.is_null()).cloned(),
    };
    let reason = Reason {
        code: code.unwrap_or_else(|| REFUSED.to_owned()),
        message: reason.to_owned(),
        ..Reason::default()
    };
    let letter = letter(row, sink, place)?;
    Ok(Letter { reasons: vec![reason], meant: missing(&letter, &refused), refused: Some(refused), ..letter })
}

/// What is missing of a record since a sink refused a row of it. Where that was its dead letter, it went nowhere else, unless it
/// had come again for a row.
pub(super) fn missing(letter: &Letter, refused: &Refused) -> Option<Meant> {
    let target = refused.target.as_str().into();
    let itself = Meant { sink: letter.sink.clone(), target, index: letter.index };
    if *refused.route != *DEAD_LETTERS {
        return Some(itself);
    }
    let reasons = refused.row.as_ref().and_then(|row| row.get("reasons"));
    match reasons {
        _ if letter.attempt == 0 => None,
        Some(reasons) => meant(reasons),
        None => Some(itself),
    }
}

/// The code of a row that a sink refused without one.
pub(super) const REFUSED: &str = "refused";

/// What provenance says, and nothing else.
fn letter(row: &Map<String, Value>, sink: &Arc<str>, place: &str) -> Result<Letter, Error> {
    let number = |name: &str| row.get(name).and_then(Value::as_i64);
    let origin = match (text(row, "weir_topic"), number("weir_partition"), number("weir_offset")) {
        (Some(topic), Some(partition), Some(offset)) => Coordinates::new(&topic, partition, offset),
        _ => None,
    };
    let plan = number("weir_plan").and_then(|plan| u64::try_from(plan).ok());
    let (Some(origin), Some(plan)) = (origin, plan) else {
        return Err(no_letter(place, "it does not say where it comes from"));
    };
    let index = number("weir_index").and_then(|index| i32::try_from(index).ok()).unwrap_or_default();
    Ok(Letter { attempt: attempt(row), ..bare(origin, index, plan, sink, place) })
}

/// Absent, or null, where the record came for the first time.
fn attempt(row: &Map<String, Value>) -> u16 {
    row.get("weir_attempt").and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).unwrap_or_default()
}

/// A letter of which nothing is known but this.
pub(super) fn bare(origin: Coordinates, index: i32, plan: u64, sink: &Arc<str>, place: &str) -> Letter {
    Letter {
        origin,
        attempt: 0,
        index,
        stage: Stage::Sink,
        plan,
        reasons: Vec::new(),
        trap: None,
        log: None,
        sink: sink.clone(),
        place: place.to_owned(),
        key: None,
        value: None,
        headers: Vec::new(),
        timestamp_ms: None,
        refused: None,
        meant: None,
    }
}

/// There is something that is no letter where letters are.
pub(super) fn no_letter(place: &str, why: &str) -> Error {
    Error::Permanent(Problem::new(format!("what is in {place} is no dead letter of Weir: {why}")))
}

/// Reasons as dead letters have them in JSON.
pub fn reasons(all: &Value) -> Vec<Reason> {
    let text = |reason: &Value, name: &str| reason.get(name).and_then(Value::as_str).map(str::to_owned);
    let one = |reason: &Value| Reason {
        code: text(reason, "code").unwrap_or_default(),
        field: text(reason, "field"),
        message: text(reason, "message").unwrap_or_default(),
        detail: text(reason, "detail"),
    };
    all.as_array().into_iter().flatten().map(one).collect()
}

/// The row that a record with these reasons came again for, if it did.
pub(super) fn meant(reasons: &Value) -> Option<Meant> {
    reasons.get(0)?.get("meant")?.as_str()?.parse().ok()
}

fn headers(all: &Value) -> Vec<(String, Option<Vec<u8>>)> {
    let one = |header: &Value| {
        let header = header.as_object()?;
        Some((text(header, "name")?, bytes_of(header, "value", "value_base64")))
    };
    all.as_array().into_iter().flatten().filter_map(one).collect()
}

fn text(row: &Map<String, Value>, name: &str) -> Option<String> {
    row.get(name)?.as_str().map(str::to_owned)
}

/// Of a key or value, which is text or bytes.
fn bytes(row: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    bytes_of(row, name, &format!("{name}_bytes"))
}

fn bytes_of(row: &Map<String, Value>, text: &str, base64: &str) -> Option<Vec<u8>> {
    let plain = row.get(text).and_then(Value::as_str).map(|text| text.as_bytes().to_vec());
    plain.or_else(|| BASE64_STANDARD.decode(row.get(base64)?.as_str()?).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> Map<String, Value> {
        let Value::Object(row) = value else { panic!("an object") };
        row
    }

    #[test]
    fn an_origin_is_read_as_it_is_written_and_nothing_else_is_one() {
        let origin: Coordinates = "a.b-c/3/1042".parse().unwrap();
        assert_eq!((origin.to_string().as_str(), origin.at.partition), ("a.b-c/3/1042", 3));
        for text in ["", "a", "a/3", "/3/4", "a/-1/4", "a/3/-4", "a/b/4", "a/3/4x", "a/3000000000/4"] {
            assert!(text.parse::<Coordinates>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_row_of_dead_letters_is_the_record_byte_for_byte_with_every_reason() {
        let row = row(json!({
            "key": null, "key_bytes": "AP8=", "value": "v", "value_bytes": null,
            "headers": [{ "name": "a", "value": null }, { "name": "b", "value_base64": "/w==" }],
            "timestamp": "2026-01-31T12:00:00.001000Z", "stage": "transform",
            "reasons": [{ "code": "x", "field": "f", "message": "m", "detail": "d" }, { "code": "y", "message": "n" }],
            "trap": null, "log": "last\n", "weir_topic": "t", "weir_partition": 1, "weir_offset": 2,
            "weir_index": 0, "weir_plan": 7, "weir_attempt": 2,
        }));
        let letter = dead_letter(&row, &"s".into(), "here").unwrap().unwrap();
        assert_eq!(
            (letter.key.as_deref(), letter.value.as_deref()),
            (Some(&b"\x00\xff"[..]), Some(&b"v"[..]))
        );
        assert_eq!(letter.headers, [("a".to_owned(), None), ("b".to_owned(), Some(vec![0xff]))]);
        assert_eq!((letter.timestamp_ms, letter.plan, letter.attempt), (Some(1_769_860_800_001), 7, 2));
        assert_eq!(letter.reasons[0].detail.as_deref(), Some("d"));
        assert_eq!((letter.reasons.len(), letter.reasons[1].code.as_str()), (2, "y"));
        assert_eq!((letter.origin.to_string().as_str(), letter.log.as_deref()), ("t/1/2", Some("last\n")));
    }

    #[test]
    fn what_is_missing_of_a_record_is_the_row_that_was_refused_or_that_it_came_again_for() {
        let missing = |attempt: u16, route: &str, row_: Value| {
            let row = row(json!({
                "weir_topic": "t", "weir_partition": 1, "weir_offset": 2, "weir_index": 3, "weir_plan": 7,
                "weir_attempt": attempt, "target": "ta", "route": route, "row": row_,
            }));
            let letter = refused_row(&row, None, "no", &"s".into(), "here").unwrap();
            letter.meant.map(|meant| meant.to_string())
        };
        let ours = Some("s.ta/3".to_owned());
        assert_eq!(missing(0, "a", json!({ "x": 1 })), ours);
        assert_eq!(missing(2, "a", Value::Null), ours);
        assert_eq!(missing(0, DEAD_LETTERS, json!({ "reasons": [{ "code": "x" }] })), None);
        assert_eq!(missing(1, DEAD_LETTERS, json!({ "reasons": [{ "code": "x" }] })), None);
        let other = json!({ "reasons": [{ "code": "x", "meant": "o.tb/1" }] });
        assert_eq!(missing(1, DEAD_LETTERS, other), Some("o.tb/1".to_owned()));
        // Where that is not kept, too little is better than a row that is there already.
        assert_eq!(missing(1, DEAD_LETTERS, Value::Null), ours);
    }

    #[test]
    fn a_row_of_another_route_is_no_letter_and_one_that_says_no_origin_is_an_error() {
        let here: Arc<str> = "s".into();
        assert_eq!(dead_letter(&row(json!({ "value": "v" })), &here, "p").unwrap(), None);
        let error = dead_letter(&row(json!({ "stage": "source" })), &here, "p").unwrap_err().to_string();
        assert!(error.contains("does not say where it comes from"), "{error}");
        assert!(dead_letter(&row(json!({ "stage": "else" })), &here, "p").is_err());
    }
}
