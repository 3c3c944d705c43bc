//! From what a transform returned to rows per route, each still carrying the offset it came from. Every record of
//! a batch gets exactly one fate here; nothing is written or dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryBuilder, RecordBatch, RecordBatchOptions, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::{Schema, SchemaRef};
use serde_json::json;

use crate::batch::{Batch, Headers, VarBytes};
use crate::budget::Permit;
use crate::description::{DataType, Description, Field, RouteContent};
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::sink::state::PlanRef;

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

/// A record that the transform could not get through, found by halving its batch.
#[derive(Debug)]
pub struct Failed {
    /// Which record of the batch.
    pub row: u32,
    /// Stable and short: `trap` or `error`.
    pub code: &'static str,
    /// What the sandbox or the transform said.
    pub message: String,
    /// The last lines the guest wrote to its log.
    pub log: String,
}

/// A transformed batch: the outputs of its pieces in offset order (one piece, unless it had to be halved), and
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

/// A batch on its way to the sinks.
#[derive(Debug)]
pub struct Routed {
    /// Where it came from.
    pub at: TopicPartition,
    /// What it covers.
    pub range: OffsetRange,
    /// The plan that made it.
    pub plan: PlanRef,
    /// The offset and fate of every record, ascending by offset.
    pub fates: Vec<(Offset, Fate)>,
    /// The rows per route, dead letters last.
    pub parts: Vec<RoutePart>,
    /// How many records were rejected or failed for which reason, each counted under its first.
    pub reasons: BTreeMap<Arc<str>, u64>,
    /// How many records went to which route.
    pub routes: BTreeMap<Arc<str>, u64>,
    /// Held until every sink has its rows.
    pub permit: Permit,
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
    /// Per row, its number among all rows of its record.
    pub index: ScalarBuffer<i32>,
    /// See [`RouteRows::keys`].
    pub keys: Option<VarBytes>,
    /// See [`RouteRows::headers`].
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
