//! From what a transform returned to rows per route, each still carrying the offset it came from. Every record of
//! a batch gets exactly one fate here; nothing is written or dropped.

mod meant;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, GenericByteBuilder, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, BinaryType, ByteArrayType, Schema, SchemaRef, Utf8Type};
use serde_json::json;

use crate::batch::{Batch, Headers, VarBytes};
use crate::budget::Permit;
use crate::description::{DataType, Description, Field, RouteContent};
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::origin::{Meant, Origin};
use crate::sink::state::{Fingerprint, PlanRef};
use meant::Narrowing;
pub use meant::{Addressee, ROW_NOT_MADE};

/// The name that dead letters go by among the routes; no transform can declare it.
pub const DEAD_LETTERS: &str = "weir_dead_letters";

/// What a transform returned for a batch, checked: every index is in range, every column has the declared type
/// and as many entries as there are rows, and every record is on a route, rejected or dropped, in no two of them.
#[derive(Debug, Default)]
pub struct Output {
    /// At most one entry per route.
    pub routes: Vec<RouteRows>,
    /// Ascending by row.
    pub rejects: Vec<Reject>,
    /// Ascending.
    pub dropped: Vec<u32>,
    /// About what becomes of it in memory, in bytes, without the batch itself.
    pub bytes: usize,
}

/// The rows of one route.
#[derive(Debug)]
pub struct RouteRows {
    /// Index into [`Description::routes`].
    pub route: usize,
    /// From which record of the batch each row comes; never decreasing.
    pub rows: Vec<u32>,
    /// One per declared field; none for a route of records.
    pub columns: Vec<ArrayRef>,
    /// Keys of the rows, if the transform sets them.
    pub keys: Option<VarBytes>,
    /// Headers of the rows, if the transform sets them.
    pub headers: Option<Headers>,
    /// Which rows delete what has their key, if any.
    pub deletes: Option<BooleanBuffer>,
}

/// A record that the transform refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Reject {
    /// Which record of the batch.
    pub row: u32,
    /// Why; at least one.
    pub reasons: Vec<Why>,
}

/// One reason for one record.
#[derive(Debug, PartialEq, Eq)]
pub struct Why {
    /// Index into [`Description::reasons`].
    pub reason: usize,
    /// What was found instead, for people.
    pub detail: Option<String>,
}

/// A record that the transform could not get through, found by judging its batch in parts.
#[derive(Debug)]
pub struct Failed {
    /// Which record of the batch.
    pub row: u32,
    /// Stable and short: see [`crate::rule::CallError::code`].
    pub code: &'static str,
    /// What the sandbox or the transform said.
    pub message: String,
    /// The last lines the guest wrote to its log.
    pub log: String,
}

/// A transformed batch: the outputs of its pieces in offset order (one piece, unless it had to be judged), and
/// the records in between at which the transform failed.
#[derive(Debug)]
pub struct Pieces {
    /// The first row of each piece, and what came out of it.
    pub outputs: Vec<(u32, Output)>,
    /// Ascending by row.
    pub failed: Vec<Failed>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// It has at least one row on a route.
    Routed,
    /// The source or the transform refused it, with a reason.
    Rejected,
    /// It is left out on purpose.
    Dropped,
    /// The transform failed on it.
    Failed,
}

/// Where the rows of the routes go, as a plan has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// The sinks of the pipeline, in their order.
    pub names: Vec<Arc<str>>,
    /// Per sink, in the same order: which route goes to which target. [`DEAD_LETTERS`] is a route here.
    pub sinks: Vec<Vec<(Arc<str>, Arc<str>)>>,
}

/// A batch on its way to the sinks.
#[derive(Clone, Debug)]
pub struct Routed {
    /// Where it came from.
    pub at: TopicPartition,
    /// What it covers.
    pub range: OffsetRange,
    /// The plan that made it.
    pub plan: PlanRef,
    /// Where that plan sends the rows.
    pub bindings: Arc<Bindings>,
    /// How many records the batch had, readable or not.
    pub n_records: u64,
    /// The last of them that can be read.
    pub last: Option<Fingerprint>,
    /// The offset and fate of every record, ascending by offset.
    pub fates: Vec<(Offset, Fate)>,
    /// The rows per route, dead letters last.
    pub parts: Vec<RoutePart>,
    /// Records of which one row alone goes to one place alone, ascending. All other sinks count them as being elsewhere.
    pub addressed: Vec<(Offset, Addressee)>,
    /// How many records were rejected for which reason, each counted under its first.
    pub rejected: BTreeMap<Arc<str>, u64>,
    /// How many records went to which route.
    pub routes: BTreeMap<Arc<str>, u64>,
    /// Held until every sink has its rows.
    pub permit: Permit,
}

impl Routed {
    /// About what it takes in memory, in bytes, without its batch.
    pub fn bytes(&self) -> usize {
        let held = |bytes: &VarBytes| bytes.data.len() + size_of_val(&*bytes.offsets);
        let parts = self.parts.iter().map(|part| {
            let headers = part.headers.as_ref();
            part.rows.get_array_memory_size()
                + size_of_val(&*part.offsets)
                + part.keys.as_ref().map_or(0, held)
                + headers.map_or(0, |headers| held(&headers.names) + held(&headers.values))
        });
        size_of_val(&*self.fates) + parts.sum::<usize>()
    }
}

/// The rows of one route of a batch.
#[derive(Clone, Debug)]
pub struct RoutePart {
    /// The route's name, or [`DEAD_LETTERS`].
    pub route: Arc<str>,
    /// Its declared columns.
    pub rows: RecordBatch,
    /// Per row, the offset of its record; never decreasing.
    pub offsets: ScalarBuffer<i64>,
    /// Per row, where its record came first, in a batch of the replay input; absent in all others.
    pub origins: Option<Vec<Origin>>,
    /// Per row, its number among all rows of its record.
    pub index: ScalarBuffer<i32>,
    /// Per row, the time of its record in milliseconds since 1970-01-01T00:00:00Z; -1 where it has none.
    pub timestamps: ScalarBuffer<i64>,
    /// Per row, the key that the transform set, else that of its record; absent: no row has one.
    pub keys: Option<VarBytes>,
    /// Per row, the headers that the transform set, else those of its record; absent: no row has any.
    pub headers: Option<Headers>,
    /// See [`RouteRows::deletes`].
    pub deletes: Option<BooleanBuffer>,
}

/// A record without a fate, or with two. The pipeline stops: this is the one thing that must never happen.
#[derive(Debug, thiserror::Error)]
#[error("E_NOT_CONSERVED: the record at {at} offset {offset} {what}")]
pub struct NotConserved {
    at: TopicPartition,
    offset: i64,
    what: &'static str,
}

/// Joins what came out of the pieces of `batch` into rows per route and dead letters.
///
/// # Errors
/// [`NotConserved`] where a record has no fate or two. The sandbox has checked the same for what a guest said;
/// this checks the host, judging in parts included.
pub fn route(
    batch: &Batch,
    plan: PlanRef,
    description: &Description,
    bindings: Arc<Bindings>,
    pieces: Pieces,
) -> Result<Routed, NotConserved> {
    let mut fates = Fates::new(batch.len());
    for (first, output) in &pieces.outputs {
        fates.read(*first, output);
    }
    for failed in &pieces.failed {
        fates.set(failed.row, Fate::Failed);
    }
    let mut fates = fates.finish(batch)?;
    let narrowing = Narrowing::find(batch, description, &bindings, &pieces.outputs);
    let (dead, rejected) = dead_letters(batch, &plan, description, &pieces, &narrowing);
    let mut parts = route_parts(batch, description, pieces.outputs);
    let addressed = narrowing.narrow(&mut fates, &mut parts);
    let routes = count_routes(description, &parts);
    parts.extend(dead);
    let (at, range, permit) = (batch.at().clone(), batch.range(), batch.permit());
    let (n_records, last) = (batch.n_records() as u64, batch.last());
    Ok(Routed {
        at,
        range,
        plan,
        bindings,
        n_records,
        last,
        fates,
        parts,
        addressed,
        rejected,
        routes,
        permit,
    })
}

/// One fate per record; a second, different one is remembered as a breach.
struct Fates {
    of: Vec<Option<Fate>>,
    twice: Option<u32>,
}

impl Fates {
    fn new(records: usize) -> Self {
        Self { of: vec![None; records], twice: None }
    }

    fn read(&mut self, first: u32, output: &Output) {
        for rows in &output.routes {
            rows.rows.iter().for_each(|row| self.set(first + row, Fate::Routed));
        }
        output.rejects.iter().for_each(|reject| self.set(first + reject.row, Fate::Rejected));
        output.dropped.iter().for_each(|row| self.set(first + row, Fate::Dropped));
    }

    fn set(&mut self, row: u32, fate: Fate) {
        match &mut self.of[row as usize] {
            held @ None => *held = Some(fate),
            Some(Fate::Routed) if fate == Fate::Routed => {}
            Some(_) => self.twice = Some(row),
        }
    }

    /// The offset and fate of every record, what is unreadable among them.
    fn finish(self, batch: &Batch) -> Result<Vec<(Offset, Fate)>, NotConserved> {
        let breach = |row: usize, what| {
            Err(NotConserved { at: batch.at().clone(), offset: batch.offsets()[row], what })
        };
        if let Some(row) = self.twice {
            return breach(row as usize, "has two fates");
        }
        if let Some(row) = self.of.iter().position(Option::is_none) {
            return breach(row, "has no fate");
        }
        let readable = batch.offsets().iter().zip(self.of).filter_map(|(&o, f)| Some((Offset::new(o), f?)));
        let unreadable = batch.unreadable().iter().map(|u| (u.offset, Fate::Rejected));
        let mut all: Vec<_> = readable.chain(unreadable).collect();
        if !batch.unreadable().is_empty() {
            all.sort_by_key(|(offset, _)| *offset);
        }
        Ok(all)
    }
}

fn count_routes(description: &Description, parts: &[RoutePart]) -> BTreeMap<Arc<str>, u64> {
    let mut counts: BTreeMap<Arc<str>, u64> =
        description.routes.iter().map(|route| (route.name.clone(), 0)).collect();
    for part in parts {
        let distinct = part.offsets.chunk_by(|a, b| a == b).count() as u64;
        *counts.entry(part.route.clone()).or_default() += distinct;
    }
    counts
}

/// The rows of all routes, one part per route and piece.
fn route_parts(batch: &Batch, description: &Description, outputs: Vec<(u32, Output)>) -> Vec<RoutePart> {
    let mut parts = Vec::new();
    for (first, mut output) in outputs {
        output.routes.sort_by_key(|rows| rows.route);
        let mut numbers = Numbers::new(&output.routes);
        for mut rows in output.routes.into_iter().filter(|rows| !rows.rows.is_empty()) {
            let index = numbers.number(&rows.rows);
            rows.rows.iter_mut().for_each(|row| *row += first);
            let route = &description.routes[rows.route];
            let content = match route.content {
                RouteContent::Rows(_) => typed_rows(route.schema(), rows.columns, rows.rows.len()),
                RouteContent::Records => record_rows(batch, &rows.rows),
            };
            parts.push(RoutePart {
                route: route.name.clone(),
                rows: content,
                offsets: picked(batch.offsets(), &rows.rows),
                origins: batch
                    .origins()
                    .map(|all| rows.rows.iter().map(|row| all[*row as usize].clone()).collect()),
                index,
                timestamps: picked(batch.timestamps(), &rows.rows),
                keys: rows.keys.or_else(|| keys_of(batch, rows.rows.iter().map(|row| Some(*row)))),
                headers: rows.headers.or_else(|| headers_of(batch, rows.rows.iter().map(|row| Some(*row)))),
                deletes: rows.deletes,
            });
        }
    }
    parts
}

fn typed_rows(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .expect("the sandbox checked type, length and nullability of every column")
}

/// The keys of the records that rows come from; absent, if no record has one.
fn keys_of(batch: &Batch, rows: impl Iterator<Item = Option<u32>>) -> Option<VarBytes> {
    let keys = batch.keys();
    keys.has_any().then(|| rows.map(|row| keys.get(row? as usize)).collect())
}

/// The same for headers.
fn headers_of(batch: &Batch, rows: impl Iterator<Item = Option<u32>>) -> Option<Headers> {
    let all = batch.headers();
    all.has_any().then(|| picked_headers(all, rows))
}

fn picked_headers(all: &Headers, rows: impl Iterator<Item = Option<u32>>) -> Headers {
    let mut picked = Headers::default();
    for row in rows {
        picked.push(&row.map_or_else(Vec::new, |row| all.get(row as usize).collect()));
    }
    picked
}

fn picked<T: ArrowNativeType>(values: &[T], rows: &[u32]) -> ScalarBuffer<T> {
    rows.iter().map(|&row| values[row as usize]).collect()
}

/// Numbers the rows of each record over the routes, in the order declared.
struct Numbers {
    /// Rows so far per record; empty where only one route has rows, so that a record's rows stand together.
    so_far: Vec<i32>,
}

impl Numbers {
    fn new(routes: &[RouteRows]) -> Self {
        let used = routes.iter().filter(|rows| !rows.rows.is_empty()).count();
        let last = routes.iter().filter_map(|rows| rows.rows.last()).max();
        let records = last.map_or(0, |row| *row as usize + 1);
        Self { so_far: if used > 1 { vec![0; records] } else { Vec::new() } }
    }

    fn number(&mut self, rows: &[u32]) -> ScalarBuffer<i32> {
        if self.so_far.is_empty() {
            return rows.chunk_by(|a, b| a == b).flat_map(|same| 0..same.len() as i32).collect();
        }
        let next = |row: &u32| {
            let so_far = &mut self.so_far[*row as usize];
            *so_far += 1;
            *so_far - 1
        };
        rows.iter().map(next).collect()
    }
}

/// The columns of a route of records.
///
/// Bytes are kept exactly: `value` holds them where they are UTF-8, `value_bytes` where they are not, and at most
/// one of the two is set; neither means a tombstone. So for `key`.
pub fn records_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema_of(&record_fields()));
    SCHEMA.clone()
}

/// The columns of a dead letter: the record as it came, the stage it stopped at, and why.
pub fn dead_letters_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields = record_fields();
        fields.extend([
            field("stage", DataType::Utf8, false),
            field("reasons", DataType::Json, false),
            field("trap", DataType::Utf8, true),
            field("log", DataType::Utf8, true),
            field("digest", DataType::Utf8, false),
        ]);
        schema_of(&fields)
    });
    SCHEMA.clone()
}

/// The columns of the rows of a route, dead letters among them; `None` where no such route is declared.
pub fn schema_of_route(description: &Description, route: &str) -> Option<SchemaRef> {
    match route {
        DEAD_LETTERS => Some(dead_letters_schema()),
        _ => description.routes.iter().find(|of| *of.name == *route).map(|of| of.schema()),
    }
}

fn schema_of(fields: &[Field]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(Field::to_arrow).collect::<Vec<_>>()))
}

fn record_fields() -> Vec<Field> {
    vec![
        field("key", DataType::Utf8, true),
        field("key_bytes", DataType::Binary, true),
        field("value", DataType::Utf8, true),
        field("value_bytes", DataType::Binary, true),
        field("headers", DataType::Json, true),
        field("timestamp", DataType::Timestamp, true),
    ]
}

fn field(name: &str, data_type: DataType, nullable: bool) -> Field {
    Field { name: name.to_owned(), data_type, nullable, doc: String::new() }
}

fn record_rows(batch: &Batch, rows: &[u32]) -> RecordBatch {
    let bytes = rows.iter().map(|&row| batch.values().bytes(&(row as usize..row as usize + 1))).sum();
    let mut columns = RecordColumns::with_room(rows.len(), bytes);
    rows.iter().for_each(|&row| columns.push(batch, row as usize));
    RecordBatch::try_new(records_schema(), columns.finish()).expect("all columns have one entry per row")
}

/// Records as rows of [`records_schema`].
struct RecordColumns {
    key: TextOrBytes,
    value: TextOrBytes,
    headers: Sparse<Utf8Type>,
    timestamps: Vec<Option<i64>>,
}

impl RecordColumns {
    fn with_room(rows: usize, value_bytes: usize) -> Self {
        Self {
            key: TextOrBytes::with_room(rows, 0),
            value: TextOrBytes::with_room(rows, value_bytes),
            headers: Sparse::with_room(rows, 0),
            timestamps: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, batch: &Batch, row: usize) {
        self.key.push(batch.keys().get(row));
        self.value.push(batch.values().get(row));
        self.headers.push(headers_json(batch.headers(), row).as_deref());
        // Kafka has milliseconds, and -1 for none; a number too large for microseconds is no time anybody means.
        let micros = |ms: i64| ms.checked_mul(1000).filter(|_| ms != -1);
        self.timestamps.push(micros(batch.timestamps()[row]));
    }

    fn push_unreadable(&mut self, bytes: &[u8]) {
        self.key.push(None);
        self.value.push(Some(bytes));
        self.headers.push(None);
        self.timestamps.push(None);
    }

    fn finish(self) -> Vec<ArrayRef> {
        let timestamps = TimestampMicrosecondArray::from(self.timestamps).with_timezone("UTC");
        let (key, key_bytes) = self.key.finish();
        let (value, value_bytes) = self.value.finish();
        vec![key, key_bytes, value, value_bytes, self.headers.finish(), Arc::new(timestamps)]
    }
}

/// Byte strings split into those that are text and those that are not.
struct TextOrBytes {
    text: Sparse<Utf8Type>,
    bytes: Sparse<BinaryType>,
}

impl TextOrBytes {
    fn with_room(rows: usize, bytes: usize) -> Self {
        Self { text: Sparse::with_room(rows, bytes), bytes: Sparse::with_room(rows, 0) }
    }

    fn push(&mut self, entry: Option<&[u8]>) {
        let text = entry.and_then(|bytes| std::str::from_utf8(bytes).ok());
        self.text.push(text);
        self.bytes.push(entry.filter(|_| text.is_none()));
    }

    fn finish(self) -> (ArrayRef, ArrayRef) {
        (self.text.finish(), self.bytes.finish())
    }
}

/// A column that often stays without a value; it takes no room before its first.
struct Sparse<T: ByteArrayType> {
    rows: usize,
    room: (usize, usize),
    made: Option<GenericByteBuilder<T>>,
}

impl<T: ByteArrayType> Sparse<T> {
    fn with_room(rows: usize, bytes: usize) -> Self {
        Self { rows: 0, room: (rows, bytes), made: None }
    }

    fn push(&mut self, entry: Option<&T::Native>) {
        if entry.is_some() && self.made.is_none() {
            let mut made = GenericByteBuilder::with_capacity(self.room.0, self.room.1);
            made.append_nulls(self.rows);
            self.made = Some(made);
        }
        self.rows += 1;
        if let Some(made) = &mut self.made {
            made.append_option(entry);
        }
    }

    fn finish(self) -> ArrayRef {
        match self.made {
            Some(mut made) => Arc::new(made.finish()),
            None => new_null_array(&T::DATA_TYPE, self.rows),
        }
    }
}

/// A record's headers as a JSON array of `{"name", "value"}`, or `"value_base64"` where a value is not UTF-8;
/// nothing where it has none.
fn headers_json(headers: &Headers, row: usize) -> Option<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    if headers.starts[row] == headers.starts[row + 1] {
        return None;
    }
    let each = headers.get(row).map(|(name, value)| match value.map(|v| (v, std::str::from_utf8(v))) {
        None => json!({ "name": name, "value": null }),
        Some((_, Ok(text))) => json!({ "name": name, "value": text }),
        Some((bytes, Err(_))) => json!({ "name": name, "value_base64": STANDARD.encode(bytes) }),
    });
    Some(serde_json::Value::Array(each.collect()).to_string())
}

/// One record that goes nowhere else, with the reasons.
struct DeadLetter<'a> {
    offset: i64,
    row: Option<u32>,
    bytes: &'a [u8],
    stage: &'static str,
    code: Arc<str>,
    reasons: serde_json::Value,
    trap: Option<&'a str>,
    log: Option<&'a str>,
}

/// The dead letters of a batch in offset order, and how many records were rejected for which reason first.
fn dead_letters(
    batch: &Batch,
    plan: &PlanRef,
    description: &Description,
    pieces: &Pieces,
    narrowing: &Narrowing,
) -> (Option<RoutePart>, BTreeMap<Arc<str>, u64>) {
    let rejects = pieces.outputs.iter().flat_map(|(first, output)| {
        output.rejects.iter().map(move |reject| rejected(batch, description, first + reject.row, reject))
    });
    let failed = pieces.failed.iter().map(|failed| trapped(batch, failed));
    let unreadable = batch.unreadable().iter().map(|found| DeadLetter {
        offset: found.offset.get(),
        row: None,
        bytes: &found.bytes,
        stage: "source",
        code: found.code.into(),
        reasons: json!([{ "code": found.code, "message": found.message }]),
        trap: None,
        log: None,
    });
    let unmade = narrowing.unmade().map(|row| unmade(batch, row));
    let mut all: Vec<_> = rejects.chain(failed).chain(unreadable).chain(unmade).collect();
    all.sort_by_key(|dead| dead.offset);
    all.iter_mut().for_each(|dead| dead.say_what_is_meant(batch.meant()));
    let mut rejected = BTreeMap::new();
    for dead in all.iter().filter(|dead| dead.trap.is_none()) {
        *rejected.entry(dead.code.clone()).or_default() += 1;
    }
    let part = (!all.is_empty()).then(|| dead_letter_rows(batch, plan, &all));
    (part, rejected)
}

fn rejected<'a>(batch: &'a Batch, description: &Description, row: u32, reject: &Reject) -> DeadLetter<'a> {
    let each = reject.reasons.iter().map(|why| {
        let reason = &description.reasons[why.reason];
        json!({ "code": &*reason.code, "field": reason.field, "message": reason.message, "detail": why.detail })
    });
    DeadLetter {
        offset: batch.offsets()[row as usize],
        row: Some(row),
        bytes: &[],
        stage: "transform",
        code: description.reasons[reject.reasons[0].reason].code.clone(),
        reasons: each.collect(),
        trap: None,
        log: None,
    }
}

fn trapped<'a>(batch: &Batch, failed: &'a Failed) -> DeadLetter<'a> {
    DeadLetter {
        offset: batch.offsets()[failed.row as usize],
        row: Some(failed.row),
        bytes: &[],
        stage: "transform",
        code: failed.code.into(),
        reasons: json!([{ "code": failed.code, "message": failed.message }]),
        trap: Some(&failed.message),
        log: Some(&failed.log).filter(|log| !log.is_empty()).map(String::as_str),
    }
}

/// It would be on a route, but not as the row that it comes again for.
fn unmade<'a>(batch: &Batch, row: u32) -> DeadLetter<'a> {
    let message = "the rule does not make the row that the record comes again for, or sends it elsewhere";
    DeadLetter {
        offset: batch.offsets()[row as usize],
        row: Some(row),
        bytes: &[],
        stage: "transform",
        code: ROW_NOT_MADE.into(),
        reasons: json!([{ "code": ROW_NOT_MADE, "message": message }]),
        trap: None,
        log: None,
    }
}

impl DeadLetter<'_> {
    /// Otherwise all rows of a record would be sent where it comes again once more, and not the one that is missing.
    fn say_what_is_meant(&mut self, all: &[(Offset, Meant)]) {
        let Ok(place) = all.binary_search_by_key(&self.offset, |(offset, _)| offset.get()) else { return };
        let text = all[place].1.to_string();
        let reasons = self.reasons.as_array_mut().into_iter().flatten();
        reasons.for_each(|reason| reason["meant"] = json!(text));
    }
}

fn dead_letter_rows(batch: &Batch, plan: &PlanRef, all: &[DeadLetter<'_>]) -> RoutePart {
    let mut records = RecordColumns::with_room(all.len(), 0);
    for dead in all {
        match dead.row {
            Some(row) => records.push(batch, row as usize),
            None => records.push_unreadable(dead.bytes),
        }
    }
    let mut columns = records.finish();
    let text = |values: Vec<Option<String>>| Arc::new(StringArray::from(values)) as ArrayRef;
    columns.extend([
        text(all.iter().map(|dead| Some(dead.stage.to_owned())).collect()),
        text(all.iter().map(|dead| Some(dead.reasons.to_string())).collect()),
        text(all.iter().map(|dead| dead.trap.map(str::to_owned)).collect()),
        text(all.iter().map(|dead| dead.log.map(str::to_owned)).collect()),
        text(all.iter().map(|_| Some(plan.digest.to_string())).collect()),
    ]);
    RoutePart {
        route: DEAD_LETTERS.into(),
        rows: RecordBatch::try_new(dead_letters_schema(), columns).expect("one entry per dead letter"),
        offsets: all.iter().map(|dead| dead.offset).collect(),
        origins: batch
            .origins()
            .map(|origins| all.iter().map(|dead| origin_of(batch, origins, dead)).collect()),
        index: all.iter().map(|_| 0).collect(),
        timestamps: all
            .iter()
            .map(|dead| dead.row.map_or(-1, |row| batch.timestamps()[row as usize]))
            .collect(),
        keys: keys_of(batch, all.iter().map(|dead| dead.row)),
        headers: headers_of(batch, all.iter().map(|dead| dead.row)),
        deletes: None,
    }
}

/// What cannot be read in the replay input came nowhere else.
fn origin_of(batch: &Batch, origins: &[Origin], dead: &DeadLetter<'_>) -> Origin {
    match dead.row {
        Some(row) => origins[row as usize].clone(),
        None => Origin::itself(batch.at(), Offset::new(dead.offset)),
    }
}

/// A 128-bit hash of the record and row that something was made from; equal for equal coordinates in every
/// process and version, so that sums of it can be compared by an audit.
///
/// It is the finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
/// 2014), run over the coordinates with two different seeds. `seed` is [`partition_seed`].
pub fn row_hash(seed: u64, offset: i64, index: i32) -> u128 {
    let low = mix(mix(seed ^ offset as u64).wrapping_add(index as u64));
    let high = mix(mix(!seed ^ offset as u64).wrapping_add(!(index as u64)));
    u128::from(high) << 64 | u128::from(low)
}

/// What [`row_hash`] takes for a partition: its topic id and number, folded eight bytes at a time.
pub fn partition_seed(topic_id: &str, partition: i32) -> u64 {
    let fold = |seed: u64, bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        mix(seed ^ u64::from_le_bytes(word))
    };
    topic_id.as_bytes().chunks(8).fold(mix(partition as u64), fold)
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use arrow::array::Array as _;

    use super::*;
    use crate::batch::RecordRef;

    #[test]
    fn a_column_whose_first_value_comes_late_has_it_in_its_place() {
        let mut column = Sparse::<Utf8Type>::with_room(3, 0);
        [None, None, Some("a"), None].into_iter().for_each(|entry| column.push(entry));
        let expected: ArrayRef = Arc::new(StringArray::from(vec![None, None, Some("a"), None]));
        assert_eq!(&column.finish(), &expected);
    }

    /// Records 0 and 1, of which the first has neither key nor header, and what is routed of the second.
    fn routed(with: impl FnOnce(&mut RouteRows)) -> Vec<RoutePart> {
        let mut builder = crate::batch::BatchBuilder::new(TopicPartition::new("t", 0), Offset::ZERO);
        let headers = [("trace", Some(&b"7"[..]))];
        let keyed = RecordRef { key: Some(b"k"), headers: &headers, ..Default::default() };
        builder.push(Offset::ZERO, RecordRef::default());
        builder.push(Offset::new(1), keyed);
        let batch = builder.finish(Offset::new(2), Permit::free()).expect("two records");
        let route = crate::description::Route {
            name: "a".into(),
            content: RouteContent::Records,
            doc: String::new(),
        };
        let description = Description {
            name: "t".into(),
            version: "1".into(),
            doc: String::new(),
            needs: Default::default(),
            settings: Vec::new(),
            tables: Vec::new(),
            routes: vec![route],
            reasons: Vec::new(),
        };
        let mut rows = RouteRows {
            route: 0,
            rows: vec![1],
            columns: Vec::new(),
            keys: None,
            headers: None,
            deletes: None,
        };
        with(&mut rows);
        let failed = Failed { row: 0, code: "trap", message: String::new(), log: String::new() };
        let outputs = vec![(0, Output { routes: vec![rows], ..Output::default() })];
        let pieces = Pieces { outputs, failed: vec![failed] };
        let plan = PlanRef { plan: 0, digest: "sha256:00".into() };
        super::route(&batch, plan, &description, Arc::default(), pieces).expect("each has one fate").parts
    }

    fn keys(part: &RoutePart) -> Vec<Option<Vec<u8>>> {
        part.keys.iter().flat_map(VarBytes::iter).map(|key| key.map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn a_row_has_the_key_and_the_headers_of_its_record_unless_the_transform_sets_others() {
        let parts = routed(|_| ());
        assert_eq!((keys(&parts[0]), keys(&parts[1])), (vec![Some(b"k".to_vec())], vec![None]));
        let of = |part: &RoutePart| part.headers.as_ref().map(|headers| headers.get(0).count());
        assert_eq!((of(&parts[0]), of(&parts[1])), (Some(1), Some(0)));
        let parts = routed(|rows| {
            rows.keys = Some([None].into_iter().collect());
            let mut headers = Headers::default();
            headers.push(&[("a", None), ("b", None)]);
            rows.headers = Some(headers);
        });
        assert_eq!((keys(&parts[0]), of(&parts[0])), (vec![None], Some(2)));
    }

    #[test]
    fn a_column_without_any_value_has_its_rows() {
        let mut column = Sparse::<BinaryType>::with_room(2, 0);
        [None, None].into_iter().for_each(|entry| column.push(entry));
        let column = column.finish();
        assert_eq!((column.len(), column.null_count()), (2, 2));
    }
}
