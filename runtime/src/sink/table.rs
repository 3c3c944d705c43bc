//! What the sinks of tables have in common: what is said of a table, what waits for a commit, and a position as JSON.
//! It knows no database, and no statement.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use super::json::JsonRows;
use super::state::{Claim, Commit, Epoch, Nonce, Refused, SinkState, Start, VERSION};
use super::{Count, Error, Part, Problem, RoutedBatch, Sink, Staged};
use crate::offset::{Offset, OffsetRange, TopicPartition};

/// A sink whose targets are tables.
pub trait TableSink: Sink {
    /// Makes the table for the rows of a route, or compares the one that is there. Without it the first commit does.
    ///
    /// # Errors
    /// [`Error::Permanent`] with the column for which a table does not fit, or with what makes one that is missing.
    fn prepare(&mut self, target: &Arc<str>, route: &str, schema: &SchemaRef) -> Result<(), Error>;

    /// What happened so far; it goes on counting.
    fn tally(&self) -> Arc<Tally>;
}

/// The table of a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableConfig {
    /// Its name in the database.
    pub table: String,
    /// How rows get in.
    pub mode: Mode,
}

impl TableConfig {
    /// Rows are added to `table`.
    pub fn append(table: impl Into<String>) -> Self {
        Self { table: table.into(), mode: Mode::Append }
    }
}

/// How rows get into a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Each is added. One that deletes is refused.
    Append,
    /// Each takes the place of the row with its key, or of none; one that deletes removes it.
    Upsert {
        /// Names of columns, at least one.
        key: Vec<String>,
    },
}

/// A target whose table is asked for before there is a sink.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The target.
    pub target: Arc<str>,
    /// The route whose rows it gets.
    pub route: Arc<str>,
    /// Their columns, without provenance.
    pub schema: SchemaRef,
}

/// What a database is found to be, before there is a sink. Nothing in it was changed.
#[derive(Debug)]
pub struct Examined {
    /// What it is, with its version.
    pub database: String,
    /// What is between it and us, and how it keeps rows.
    pub notes: Vec<String>,
    /// What is allowed and may cost rows, or may not go well.
    pub warnings: Vec<String>,
    /// Its clock, in milliseconds since 1970-01-01T00:00:00Z, where it has one of its own.
    pub clock_ms: Option<i64>,
    /// The tables that the sink needs, its own first.
    pub tables: Vec<ExaminedTable>,
}

/// A table that a sink needs.
#[derive(Debug)]
pub struct ExaminedTable {
    /// As a statement names it.
    pub name: String,
    /// Whether it is there and fits; else it would be made. Or why the sink would refuse it.
    pub found: Result<bool, Error>,
}

/// Does `work` as far as it goes, and undoes it: `transaction` undoes all of its own where it ends with an error.
pub(super) fn undone<T>(
    transaction: impl FnOnce(&mut dyn FnMut(T) -> Error) -> Result<(), Error>,
) -> Result<T, Error> {
    let mut got = None;
    let ended = transaction(&mut |done| {
        got = Some(done);
        Error::Permanent(Problem::new("it was only tried"))
    });
    match (got, ended) {
        (Some(done), _) => Ok(done),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::Permanent(Problem::new("nothing was tried"))),
    }
}

/// What happened to a sink of tables since it was opened.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rows that went to `weir_reject`.
    pub rejected: Count,
    /// Rows in upsert mode behind which another one of their commit had their key.
    pub superseded: Count,
}

impl Tally {
    pub(super) fn add(&self, stored: Stored) {
        self.rejected.add(stored.rejected);
        self.superseded.add(stored.superseded);
    }
}

/// What became of the rows of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stored {
    /// Rows that went to `weir_reject`.
    pub(super) rejected: u64,
    /// Rows in upsert mode behind which another one of the commit had their key.
    pub(super) superseded: u64,
}

/// Whose position it is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) pipeline: Arc<str>,
    pub(super) sink: Arc<str>,
}

/// A claimed partition, with the batches that wait for its commit.
pub(super) struct Owned {
    pub(super) epoch: Epoch,
    pub(super) owner: Nonce,
    pub(super) batches: Vec<RoutedBatch>,
    /// What a commit did whose answer was lost.
    pub(super) in_doubt: Stored,
    next: Offset,
    staged: Staged,
}

impl Owned {
    pub(super) fn new(claim: &Claim, next: Offset) -> Self {
        let (epoch, owner) = (claim.epoch, claim.owner);
        let (batches, staged, in_doubt) = (Vec::new(), Staged::default(), Stored::default());
        Self { epoch, owner, next, batches, staged, in_doubt }
    }

    /// Where the next batch starts.
    fn end(&self) -> Offset {
        self.batches.last().map_or(self.next, |batch| batch.range.end)
    }

    pub(super) fn stage(&mut self, mut batch: RoutedBatch) -> Result<Staged, Error> {
        if batch.range.start != self.end() {
            return Err(Refused::NotNext { range: batch.range, next: self.end() }.into());
        }
        for part in &mut batch.parts {
            // A row of a table has neither.
            (part.keys, part.headers) = (None, None);
            self.staged.rows += part.rows.num_rows() as u64;
            self.staged.bytes += part.rows.get_array_memory_size() as u64;
        }
        self.batches.push(batch);
        Ok(self.staged)
    }

    pub(super) fn check_range(&self, commit: &Commit) -> Result<(), Error> {
        let written = OffsetRange::new(self.next, self.end());
        if written.is_empty() || written == commit.range {
            return Ok(());
        }
        Err(Error::Permanent(Problem::new(format!("{written} was written, {} is committed", commit.range))))
    }

    pub(super) fn move_on(&mut self, commit: &Commit) {
        self.batches.clear();
        self.staged = Staged::default();
        self.next = commit.range.end;
    }
}

pub(super) fn not_claimed(at: &TopicPartition) -> Error {
    Error::Permanent(Problem::new(format!("{at} is not claimed")))
}

/// The column for how often a record was sent through again. It is null in rows of records that never were, and never asked
/// for in a table that is there and has none: tables were made without it.
pub(super) const ATTEMPT: &str = "weir_attempt";

/// Whether the row `old` comes from the same partition as `new`, from a record behind: then it is not replaced by one that
/// comes again. Both are names of rows in SQL.
pub(super) fn is_older(new: impl Fn(&str) -> String, old: impl Fn(&str) -> String) -> String {
    let pair = |column: &str, operator: &str| format!("{} {operator} {}", old(column), new(column));
    let pairs = [pair("weir_topic", "="), pair("weir_partition", "="), pair("weir_offset", ">")];
    format!("({}) IS NOT TRUE", pairs.join(" AND "))
}

/// Why a row that is looked for in a table may be gone and nothing is wrong.
pub(super) fn overwritten(table: Option<&TableConfig>) -> Option<String> {
    let Mode::Upsert { key } = &table?.mode else { return None };
    Some(format!(
        "it keeps one row for each ({}): a later one may have taken the place of this record's, or removed it",
        key.join(", ")
    ))
}

/// The state of a partition that has none, if the plan log knows where to start. `other_topic` is the id of another
/// topic of this name that was here.
pub(super) fn begin(claim: &Claim, other_topic: Option<String>, database: &str) -> Result<SinkState, Error> {
    if let Some(held) = other_topic {
        let (topic, ours) = (claim.at.topic.clone(), claim.topic_id.clone());
        return Err(Refused::TopicReplaced { topic, held: held.into(), ours }.into());
    }
    match claim.start {
        Start::Init(start) => Ok(SinkState::init(claim, start)),
        Start::MustExist => Err(missing(&claim.at, database)),
    }
}

/// The state in a row of `weir_position`.
pub(super) fn read_state(version: i64, text: &str, database: &str) -> Result<SinkState, Error> {
    if version > i64::from(VERSION) {
        let text = format!(
            "E_LOG_NEWER: weir_position in `{database}` has version {version}, this program reads up to {VERSION}"
        );
        return Err(Error::Permanent(Problem::new(text)));
    }
    serde_json::from_str(text).map_err(|e| unreadable(&e.to_string(), database))
}

pub(super) fn write_state(state: &SinkState) -> String {
    serde_json::to_string(state).expect("a state has only text keys")
}

/// The state was there once.
pub(super) fn missing(at: &TopicPartition, database: &str) -> Error {
    let text = format!("E_STATE_MISSING: there is no position of {at} in `{database}`, but there was one");
    let hint = "restore the database from a backup; or start over with a pipeline of another name";
    Error::Permanent(Problem::new(text).hint(hint))
}

pub(super) fn unreadable(why: &str, database: &str) -> Error {
    let text = format!("E_LOG_CORRUPT: weir_position in `{database}` cannot be read: {why}");
    Error::Permanent(Problem::new(text).hint("restore the database from a backup"))
}

/// A row as JSON, for `weir_reject`; `None` if that is longer than `most` bytes.
pub(super) fn row_as_json(part: &Part, row: usize, most: usize) -> Result<Option<String>, Error> {
    let mut text = Vec::new();
    let rows = JsonRows::new(&part.rows).map_err(|e| Error::Permanent(Problem::new(e.to_string())))?;
    rows.write(row, &mut text);
    Ok(Some(String::from_utf8(text).expect("JSON is UTF-8")).filter(|text| text.len() <= most))
}

/// The table and its rows do not fit.
pub(super) fn wrong(text: impl AsRef<str>, hint: Option<String>) -> Error {
    let problem = Problem::new(format!("E_SINK_SCHEMA: {}", text.as_ref()));
    Error::Permanent(match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    })
}

/// The places of the columns of a key among those of a table's rows.
pub(super) fn key_columns(schema: &Schema, key: &[String], table: &str) -> Result<Vec<usize>, Error> {
    let place = |name: &String| {
        let fields = schema.fields();
        fields.iter().position(|field| field.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known = fields.iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>();
            let text = format!("no row of table `{table}` has a column `{name}`, which is in its key");
            wrong(text, Some(format!("known here: {}", known.join(", "))))
        })
    };
    key.iter().map(place).collect()
}
