//! What waits for a commit, encoded as it will be sent: the rows of one input partition behind one another in one piece
//! of memory. It knows no cluster.
//!
//! | rows of | value |
//! |---|---|
//! | a typed route | one JSON object, byte for byte a line of the JSON-lines sink |
//! | a route of records | the record's value as it came |
//! | dead letters | the record's value as it came; why it is one stands in the headers `weir-stage`, `weir-reasons`, `weir-trap` and `weir-log` |
//!
//! A row that deletes, and a record without a value, has none: a tombstone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};

use crate::offset::TopicPartition;
use crate::origin;
use crate::route::{DEAD_LETTERS, records_schema};
use crate::sink::json::JsonRows;
use crate::sink::state::PlanRef;
use crate::sink::{Error, Part, Problem};

/// What headers of ours begin with. Inherited ones are left out: they are true of another row.
const OURS: &str = "weir-";

/// Of a dead letter, which column stands in which header.
const OF_DEAD_LETTERS: [(&str, &str); 4] =
    [("stage", "weir-stage"), ("reasons", "weir-reasons"), ("trap", "weir-trap"), ("log", "weir-log")];

/// Into how many parts suspects are cut: each costs a round trip, and the one that is refused is cut again.
const PARTS: usize = 64;

/// Rows on their way.
#[derive(Debug, Default)]
pub(super) struct Staging {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// Bytes and rows that are expected: to grow by doubling takes twice the memory.
    room: (usize, usize),
    /// Names and values of headers; a row has a range of them.
    headers: Vec<(Span, Option<Span>)>,
    origins: Vec<Origin>,
    /// Rows that the cluster refused for what is in them, and why.
    refused: BTreeMap<usize, String>,
    /// Rows among which some are to be refused, and nobody knows which.
    suspects: BTreeSet<usize>,
}

/// A place in the bytes.
type Span = Range<usize>;

#[derive(Debug)]
struct Row {
    origin: usize,
    key: Option<Span>,
    value: Option<Span>,
    headers: Range<usize>,
    timestamp_ms: i64,
    offset: i64,
    index: i32,
}

/// What the rows of a part have in common.
#[derive(Debug)]
pub(super) struct Origin {
    /// A place among the topics.
    pub(super) topic: usize,
    pub(super) target: Arc<str>,
    pub(super) route: Arc<str>,
    pub(super) plan: PlanRef,
    /// Whether the rows say where they come from.
    pub(super) provenance: bool,
    /// Where the record of each row came first, if it comes again.
    again: Option<Vec<origin::Origin>>,
    /// The place of its first row.
    first: usize,
}

/// A row as it stands in the memory.
#[derive(Clone, Copy)]
pub(super) struct Staged<'a> {
    of: &'a Staging,
    row: &'a Row,
    /// Its place among the rows.
    pub(super) place: usize,
}

impl Staging {
    pub(super) fn n_rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// In memory, about.
    pub(super) fn n_bytes(&self) -> u64 {
        (self.bytes.len() + self.rows.len() * size_of::<Row>()) as u64
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Staged<'_>> {
        self.rows.iter().enumerate().map(|(place, row)| Staged { of: self, row, place })
    }

    /// The row is not sent any more.
    pub(super) fn refuse(&mut self, place: usize, why: String) {
        self.suspects.clear();
        self.refused.insert(place, why);
    }

    /// Some of these rows are to be refused: they are sent apart from others, and in small parts.
    pub(super) fn suspect(&mut self, places: BTreeSet<usize>) {
        self.suspects = places;
    }

    /// How many suspects are sent at once.
    pub(super) fn suspects_at_once(&self) -> usize {
        self.suspects.len().div_ceil(PARTS).max(1)
    }

    /// An empty one, for what comes next: probably as much as was here.
    pub(super) fn next(&self) -> Self {
        Self { room: (self.bytes.len(), self.rows.len()), ..Self::default() }
    }

    /// Adds the rows of a part.
    ///
    /// # Errors
    /// [`Error::Permanent`] for a column of a type that no transform can declare.
    pub(super) fn add(
        &mut self,
        part: &Part,
        topic: usize,
        plan: &PlanRef,
        provenance: bool,
    ) -> Result<(), Error> {
        let dead = *part.route == *DEAD_LETTERS;
        let content = Content::of(part, dead)?;
        let (target, route) = (part.target.clone(), part.route.clone());
        self.origins.push(Origin {
            topic,
            target,
            route,
            plan: plan.clone(),
            provenance: provenance || dead,
            again: part.origins.clone(),
            first: self.rows.len(),
        });
        if self.rows.is_empty() {
            self.bytes.reserve(self.room.0);
            self.rows.reserve(self.room.1);
        }
        self.rows.reserve(part.rows.num_rows());
        for i in 0..part.rows.num_rows() {
            let deletes = part.deletes.as_ref().is_some_and(|deletes| deletes.value(i));
            let value = if deletes { None } else { content.write(i, &mut self.bytes) };
            let key = part.keys.as_ref().and_then(|keys| keys.get(i)).map(|key| self.keep(key));
            let headers = self.headers.len()..self.keep_headers(part, &content, i);
            let (timestamp_ms, offset, index) = (part.timestamps[i], part.offsets[i], part.index[i]);
            let origin = self.origins.len() - 1;
            self.rows.push(Row { origin, key, value, headers, timestamp_ms, offset, index });
        }
        Ok(())
    }

    fn keep_headers(&mut self, part: &Part, content: &Content<'_>, i: usize) -> usize {
        for (name, value) in part.headers.iter().flat_map(|headers| headers.get(i)) {
            if !name.starts_with(OURS) {
                self.keep_header(name, value);
            }
        }
        if let Content::DeadLetters(_, columns) = content {
            let there = columns.iter().filter(|(_, column)| !column.is_null(i));
            there.for_each(|(name, column)| self.keep_header(name, Some(column.value(i).as_bytes())));
        }
        self.headers.len()
    }

    fn keep_header(&mut self, name: &str, value: Option<&[u8]>) {
        let name = self.keep(name.as_bytes());
        let value = value.map(|value| self.keep(value));
        self.headers.push((name, value));
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}

impl<'a> Staged<'a> {
    pub(super) fn origin(self) -> &'a Origin {
        &self.of.origins[self.row.origin]
    }

    pub(super) fn key(self) -> Option<&'a [u8]> {
        self.row.key.clone().map(|span| &self.of.bytes[span])
    }

    pub(super) fn value(self) -> Option<&'a [u8]> {
        self.row.value.clone().map(|span| &self.of.bytes[span])
    }

    pub(super) fn timestamp_ms(self) -> i64 {
        self.row.timestamp_ms
    }

    /// Those that it was given, without those of ours.
    pub(super) fn headers(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone {
        let of = self.of;
        of.headers[self.row.headers.clone()].iter().map(move |(name, value)| {
            let name = std::str::from_utf8(&of.bytes[name.clone()]).expect("it was kept from text");
            (name, value.clone().map(|span| &of.bytes[span]))
        })
    }

    /// Whether it is to be sent apart from others.
    pub(super) fn is_suspect(self) -> bool {
        self.of.suspects.contains(&self.place)
    }

    /// Why it may not be sent, if it was refused before.
    pub(super) fn refused(self) -> Option<&'a str> {
        self.of.refused.get(&self.place).map(String::as_str)
    }

    /// From which record, and by which plan. `text` is overwritten.
    pub(super) fn provenance<'t>(self, at: &TopicPartition, text: &'t mut String) -> Provenance<'t> {
        let mut number = itoa::Buffer::new();
        let origin = self.origin();
        let again = origin.again.as_ref().map(|again| &again[self.place - origin.first]);
        let (at, offset) = again.map_or((at, self.row.offset), |again| (&again.at, again.offset.get()));
        text.clear();
        text.push_str(&at.topic);
        for part in [i64::from(at.partition), offset, i64::from(self.row.index)] {
            text.push('/');
            text.push_str(number.format(part));
        }
        text.push('/');
        text.push_str(number.format(origin.plan.plan));
        let end = text.len();
        if let Some(again) = again.filter(|again| again.attempt > 0) {
            text.push_str(number.format(again.attempt));
        }
        let (origin, attempt) = text.split_at(end);
        Provenance { origin, attempt }
    }
}

/// Where a row comes from, as a header: topic, partition, offset, number among the rows of its record, and plan, with a slash
/// in between, which no topic has in its name. A single one, since each costs the client as much as the row itself; a record
/// that comes again has another one for the attempt.
pub(super) struct Provenance<'a> {
    origin: &'a str,
    /// Empty where there is none.
    attempt: &'a str,
}

impl Provenance<'_> {
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
        let attempt = (!self.attempt.is_empty()).then_some(("weir-attempt", Some(self.attempt.as_bytes())));
        std::iter::once(("weir-origin", Some(self.origin.as_bytes()))).chain(attempt)
    }
}

/// What the rows of a part have as values.
enum Content<'a> {
    Json(JsonRows<'a>),
    Records(Values<'a>),
    DeadLetters(Values<'a>, Vec<(&'static str, &'a StringArray)>),
}

/// The values of records: text, or bytes that are none.
struct Values<'a> {
    text: &'a StringArray,
    bytes: &'a BinaryArray,
}

impl<'a> Content<'a> {
    fn of(part: &'a Part, dead: bool) -> Result<Self, Error> {
        let rows = &part.rows;
        if dead {
            let columns = OF_DEAD_LETTERS.map(|(column, header)| (header, text(rows, column)));
            return Ok(Self::DeadLetters(Values::of(rows), columns.to_vec()));
        }
        if *rows.schema_ref() == records_schema() {
            return Ok(Self::Records(Values::of(rows)));
        }
        let json = JsonRows::new(rows).map_err(|e| Error::Permanent(Problem::new(e.to_string())))?;
        Ok(Self::Json(json))
    }

    fn write(&self, i: usize, out: &mut Vec<u8>) -> Option<Span> {
        let start = out.len();
        match self {
            Self::Json(json) => json.write(i, out),
            Self::Records(values) | Self::DeadLetters(values, _) => out.extend_from_slice(values.get(i)?),
        }
        Some(start..out.len())
    }
}

impl<'a> Values<'a> {
    fn of(rows: &'a RecordBatch) -> Self {
        let bytes = rows.column_by_name("value_bytes").expect("records have it").as_binary();
        Self { text: text(rows, "value"), bytes }
    }

    fn get(&self, i: usize) -> Option<&'a [u8]> {
        match (self.text.is_null(i), self.bytes.is_null(i)) {
            (false, _) => Some(self.text.value(i).as_bytes()),
            (true, false) => Some(self.bytes.value(i)),
            (true, true) => None,
        }
    }
}

fn text<'a>(rows: &'a RecordBatch, column: &str) -> &'a StringArray {
    rows.column_by_name(column).expect("records and dead letters have it").as_string()
}
