//! What becomes of the records of a batch: the contract's `output` in plain Rust. Only an emitter makes one.

use crate::column::{Column, VarBytes};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    pub routes: Vec<RouteOutput>,
    pub rejects: Rejects,
    /// Records left out on purpose, ascending.
    pub dropped: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RouteOutput {
    /// Index into the description's routes.
    pub route: u32,
    /// From which record of the batch each row comes, never decreasing.
    pub rows: Vec<u32>,
    /// One per field; none for a route of records.
    pub columns: Vec<Column>,
    /// `None`: the keys of the records.
    pub keys: Option<VarBytes>,
    /// `None`: the headers of the records.
    pub headers: Option<Headers>,
    /// Bit i: row i deletes what has its key. Empty: none does.
    pub deletes: Vec<u8>,
}

/// Row i has the headers from `starts[i]` to `starts[i + 1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    pub starts: Vec<u32>,
    pub names: VarBytes,
    pub values: VarBytes,
}

/// One entry per record and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejects {
    pub rows: Vec<u32>,
    /// Indexes into the description's reasons.
    pub reasons: Vec<u32>,
    /// What was found instead; without offsets if no entry has any.
    pub details: VarBytes,
}

impl Default for Rejects {
    fn default() -> Self {
        let details = VarBytes { offsets: Vec::new(), data: Vec::new(), validity: Vec::new() };
        Self { rows: Vec::new(), reasons: Vec::new(), details }
    }
}
