//! Rows as rows of a SQLite database, exactly once: rows, rejects and position change in one transaction. A target is
//! a table.
//!
//! ```text
//! weir_position   per pipeline, sink, topic and partition: the SinkState
//! weir_reject     rows that the database refused for what is in them, with the reason
//! <table>         the declared columns, and where each row came from
//! ```
//!
//! What is staged waits in memory; the commit takes the write lock, moves the position, writes the rows, and ends.
//! Two processes on one file are safe, since each holds that lock from the first look at the position on. An error
//! that is not the fault of a row undoes the transaction, and never makes a reject.
//!
//! A statement is done as a whole or not at all, whatever a trigger says; a row that a trigger ignores is a reject like
//! one that it refuses. Only where it ignores that a row is removed nobody is told: SQLite does not say whether the key
//! was there.
//!
//! In upsert mode the rows of a key go in by offset and index, so that the last one stays, and where it is refused
//! the one before. What stays does not depend on where commits begin and end. So foreign keys count, but a table whose rows
//! refer to rows of the same sink is refused.

mod back;
mod database;
mod examine;
mod migrate;
mod position;
mod rows;
mod table;
mod tables;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use super::state::{Claim, Commit, SinkState};
use super::table::{Owned, Owner, TableConfig, TableSink, Tally, missing, not_claimed};
use super::{Committed, Error, Resolved, RoutedBatch, Sink, Staged};
use crate::offset::TopicPartition;
use database::{Database, Ended};
use tables::Tables;

pub use back::SqliteReader;
pub use examine::{examine, statements};
use examine::{is_there, name_of};
pub use migrate::{add_columns, lacking, refused_with_them, rejects_lack};

/// Every place at which a test can stop this sink, in the order in which a claim and a commit come by.
pub const FAILPOINTS: [&str; 9] = [
    "sqlite.claim.after_begin",
    "sqlite.claim.before_commit",
    "sqlite.claim.after_commit",
    "sqlite.after_begin",
    "sqlite.after_position",
    "sqlite.mid_rows",
    "sqlite.after_reject",
    "sqlite.before_commit",
    "sqlite.after_commit",
];

/// What a SQLite sink is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqliteConfig {
    /// The database file; made if it is not there.
    pub path: PathBuf,
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The sink's name in the pipeline.
    pub sink: Arc<str>,
    /// Whether each row carries `weir_topic`, `weir_partition`, `weir_offset`, `weir_index` and `weir_plan`. Dead
    /// letters always do.
    pub provenance: bool,
    /// What is said of a target. One of which nothing is said appends to the table of its own name.
    pub targets: BTreeMap<Arc<str>, TableConfig>,
    /// How long to wait for another process that writes to the file.
    pub busy_timeout: Duration,
}

impl SqliteConfig {
    /// Append with provenance.
    pub fn new(path: impl Into<PathBuf>, pipeline: impl Into<Arc<str>>, sink: impl Into<Arc<str>>) -> Self {
        Self {
            path: path.into(),
            pipeline: pipeline.into(),
            sink: sink.into(),
            provenance: true,
            targets: BTreeMap::new(),
            busy_timeout: Duration::from_secs(10),
        }
    }
}

/// A sink that writes to a SQLite database.
pub struct SqliteSink {
    config: SqliteConfig,
    owner: Owner,
    db: Database,
    tables: Tables,
    owned: BTreeMap<TopicPartition, Owned>,
    tally: Arc<Tally>,
}

impl fmt::Debug for SqliteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owned: Vec<_> = self.owned.keys().collect();
        f.debug_struct("SqliteSink").field("config", &self.config).field("owned", &owned).finish()
    }
}

impl SqliteSink {
    /// Opens the database, and makes it and its tables for positions and rejects where they are missing.
    ///
    /// # Errors
    /// [`Error::Permanent`] where the file is no database or cannot have a write-ahead log; [`Error::Transient`]
    /// where it cannot be opened or written to now.
    pub fn open(config: SqliteConfig) -> Result<Self, Error> {
        let mut db = Database::open(&config.path, config.busy_timeout)?;
        db.repeatable(|db| {
            position::create(db)?;
            rows::create(db)
        })?;
        let owner = Owner { pipeline: config.pipeline.clone(), sink: config.sink.clone() };
        let (tables, owned, tally) = (Tables::default(), BTreeMap::new(), Arc::default());
        Ok(Self { config, owner, db, tables, owned, tally })
    }
}

impl TableSink for SqliteSink {
    fn prepare(&mut self, target: &Arc<str>, route: &str, schema: &SchemaRef) -> Result<(), Error> {
        let (config, tables) = (&self.config, &mut self.tables);
        let prepared = self.db.repeatable(|db| {
            tables.look(db)?;
            tables.find(db, config, target, schema, route, false).map(drop)
        });
        prepared.inspect_err(|_| self.tables.forget())
    }

    fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }
}

impl Sink for SqliteSink {
    fn claim(&mut self, claim: &Claim) -> Result<SinkState, Error> {
        self.release(&claim.at);
        let owner = &self.owner;
        let state = self.db.repeatable(|db| {
            fail::fail_point!("sqlite.claim.after_begin");
            let state = position::claim(db, owner, claim)?;
            fail::fail_point!("sqlite.claim.before_commit");
            Ok(state)
        })?;
        fail::fail_point!("sqlite.claim.after_commit");
        self.owned.insert(claim.at.clone(), Owned::new(claim, state.next));
        Ok(state)
    }

    fn write(&mut self, rows: RoutedBatch) -> Result<Staged, Error> {
        self.owned.get_mut(&rows.at).ok_or_else(|| not_claimed(&rows.at))?.stage(rows)
    }

    fn commit(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Committed, Error> {
        let owned = self.owned.get_mut(at).ok_or_else(|| not_claimed(at))?;
        owned.check_range(commit)?;
        let (config, owner, tables) = (&self.config, &self.owner, &mut self.tables);
        let ended = self.db.transaction(|db| {
            fail::fail_point!("sqlite.after_begin");
            let mut state = position::read(db, owner, at)?.ok_or_else(|| missing(at, &db.show()))?;
            state.commit(owned.epoch, owned.owner, commit)?;
            position::write(db, owner, &state)?;
            fail::fail_point!("sqlite.after_position");
            let stored = rows::store(db, config, owner, tables, &owned.batches)?;
            fail::fail_point!("sqlite.before_commit");
            Ok(stored)
        });
        match ended {
            Ok(Ended::Committed(stored)) => {
                fail::fail_point!("sqlite.after_commit");
                self.tally.add(stored);
                owned.move_on(commit);
                Ok(Committed::Done)
            }
            Ok(Ended::Unknown(stored, lost)) => {
                self.tables.forget();
                owned.in_doubt = stored;
                Ok(Committed::Unknown(lost))
            }
            Err(error) => {
                self.tables.forget();
                Err(error)
            }
        }
    }

    fn resolve(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Resolved, Error> {
        let owned = self.owned.get_mut(at).ok_or_else(|| not_claimed(at))?;
        let owner = &self.owner;
        let resolved = self.db.repeatable(|db| {
            let state = position::read(db, owner, at)?.ok_or_else(|| missing(at, &db.show()))?;
            if state.last_commit == Some(commit.id) {
                return Ok(Resolved::Committed);
            }
            state.check_commit(owned.epoch, owned.owner, commit)?;
            // Written over, what the failed commit left in the journal can never count any more.
            position::write(db, owner, &state)?;
            Ok(Resolved::NotCommitted)
        })?;
        if resolved == Resolved::Committed {
            self.tally.add(std::mem::take(&mut owned.in_doubt));
            owned.move_on(commit);
        }
        Ok(resolved)
    }

    fn release(&mut self, at: &TopicPartition) {
        self.owned.remove(at);
    }
}

#[cfg(test)]
mod tests;
