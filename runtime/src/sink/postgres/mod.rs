//! Rows as rows of a PostgreSQL database, exactly once: rows, rejects and position change in one transaction. A target
//! is a table.
//!
//! ```text
//! weir_position   per pipeline, sink, topic and partition: the SinkState
//! weir_reject     rows that the database refused for what is in them, with the reason
//! <table>         the declared columns, and where each row came from
//! ```
//!
//! What is staged waits in memory. A commit is one transaction over all partitions that have something staged: it locks
//! the rows of their positions and looks whether it still may, moves them, writes the rows, and ends; whoever claims one of
//! the partitions waits for its row. So a process that was overtaken finds out before it writes anything, and one that
//! stands still with the row locked is ended by the server, which was told how long to wait. An error that is not the fault
//! of a row undoes the transaction, and never makes a reject.
//!
//! Rows that are added go in by a binary COPY, rows with keys by one statement over an array per column; `order` says
//! which of them may share one. All partitions share a statement, and small statements are done together, as a whole or not at
//! all; where the database refuses that, they are halved. A row that a trigger leaves out without a word is a reject like one
//! that it refuses. Deferred constraints are checked at once.
//!
//! In upsert mode the rows of a key go in by partition, offset and index, so that the last one stays, and where it is refused
//! the one before. What stays does not depend on where commits begin and end. So foreign keys count, but a table whose
//! rows refer to rows of the same sink is refused.

mod back;
mod between;
mod database;
mod encode;
mod examine;
mod meaning;
mod migrate;
mod order;
mod parameters;
mod pieces;
mod position;
mod rows;
mod socket;
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
use super::table::{Owned, Owner, Stored, TableConfig, TableSink, Tally, missing, not_claimed};
use super::{Committed, Error, Repeated, Resolved, RoutedBatch, Sink, Staged};
use crate::offset::TopicPartition;
use database::{Database, Ended};
use position::Positions;
use table::quoted;
use tables::Tables;

pub use back::PostgresReader;
pub use examine::{examine, statements};
pub use migrate::{add_columns, lacking, refused_with_them, rejects_lack};

/// Every place at which a test can stop this sink, in the order in which a claim and a commit come by.
pub const FAILPOINTS: [&str; 9] = [
    "postgres.claim.after_begin",
    "postgres.claim.before_commit",
    "postgres.claim.after_commit",
    "postgres.after_begin",
    "postgres.after_position",
    "postgres.mid_rows",
    "postgres.after_reject",
    "postgres.before_commit",
    "postgres.after_commit",
];

/// How often a commit is tried that another transaction was in the way of.
const COLLISIONS: usize = 5;

/// What a PostgreSQL sink is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresConfig {
    /// Where the database is, and who asks.
    pub server: Server,
    /// Where all its tables are.
    pub schema: String,
    /// Whether tables are made that are not there.
    pub create: bool,
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The sink's name in the pipeline.
    pub sink: Arc<str>,
    /// Whether each row carries `weir_topic`, `weir_partition`, `weir_offset`, `weir_index` and `weir_plan`. Dead
    /// letters always do.
    pub provenance: bool,
    /// What is said of a target. One of which nothing is said appends to the table of its own name.
    pub targets: BTreeMap<Arc<str>, TableConfig>,
    /// How long the server waits.
    pub patience: Patience,
}

impl PostgresConfig {
    /// Append with provenance, in the schema `public`, to tables that are made where they are missing.
    pub fn new(server: Server, pipeline: impl Into<Arc<str>>, sink: impl Into<Arc<str>>) -> Self {
        Self {
            server,
            schema: "public".to_owned(),
            create: true,
            pipeline: pipeline.into(),
            sink: sink.into(),
            provenance: true,
            targets: BTreeMap::new(),
            patience: Patience::default(),
        }
    }
}

/// A database on a server, and who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// A name or an address; a directory with the server's socket, if it begins with `/`.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database's name.
    pub database: String,
    /// The user's name.
    pub user: String,
    /// The user's password, if the server asks for one.
    pub password: Option<Password>,
    /// How the server proves who it is.
    pub tls: Tls,
    /// Certificates of whom to believe, in PEM; without it those that the system believes.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// A password. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// How a connection is secured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// Not at all.
    Disable,
    /// Nobody reads along; but whoever answers is believed to be the server.
    Require,
    /// The server has a certificate that is believed.
    VerifyCa,
    /// The server has one for its own name.
    VerifyFull,
}

/// How long the server waits for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// For the next statement of a transaction: then it ends the session of a process that stands still.
    pub idle: Duration,
    /// For a lock; longer than `idle`, so that whoever takes over outlasts one that stands still.
    pub lock: Duration,
    /// For a statement to end.
    pub statement: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let [idle, lock, statement] = [30, 40, 300].map(Duration::from_secs);
        Self { idle, lock, statement }
    }
}

/// A sink that writes to a PostgreSQL database.
pub struct PostgresSink {
    config: PostgresConfig,
    positions: Positions,
    db: Database,
    tables: Tables,
    owned: BTreeMap<TopicPartition, Owned>,
    tally: Arc<Tally>,
}

impl fmt::Debug for PostgresSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owned: Vec<_> = self.owned.keys().collect();
        f.debug_struct("PostgresSink").field("config", &self.config).field("owned", &owned).finish()
    }
}

impl PostgresSink {
    /// Connects, and makes the tables for positions and rejects where they are missing.
    ///
    /// # Errors
    /// [`Error::Permanent`] where there is no such database or schema, or a table is missing and may not be made;
    /// [`Error::Transient`] where the server cannot be reached, or does not let the user in.
    pub fn open(config: PostgresConfig) -> Result<Self, Error> {
        let mut db = Database::open(config.server.clone(), config.patience)?;
        let schema = quoted(&config.schema);
        db.repeatable(|db| {
            for (name, columns) in [("weir_position", position::COLUMNS), ("weir_reject", rows::REJECTS)] {
                let create = format!("CREATE TABLE {schema}.{name} ({columns})");
                tables::make_sure(db, &config, name, &create)?;
            }
            Ok(())
        })?;
        let owner = Owner { pipeline: config.pipeline.clone(), sink: config.sink.clone() };
        let positions = Positions { owner, table: format!("{schema}.weir_position") };
        let (tables, owned, tally) = (Tables::default(), BTreeMap::new(), Arc::default());
        Ok(Self { config, positions, db, tables, owned, tally })
    }

    /// What stands between us and the server, for people, if it can be seen.
    pub fn between(&mut self) -> Option<String> {
        // Whoever does not answer now will be asked for more.
        between::between(&mut self.db, &self.config).ok().flatten()
    }

    /// Commits all of it in one transaction, or nothing; again where another transaction was in the way.
    fn commit_all(&mut self, commits: &[(TopicPartition, Commit)]) -> Result<Vec<Committed>, Error> {
        let mut ended = self.commit_once(commits);
        for _ in 1..COLLISIONS {
            if ended.is_ok() || !self.db.take_collided() {
                break;
            }
            ended = self.commit_once(commits);
        }
        let (stored, lost) = match ended? {
            Ended::Committed(stored) => {
                fail::fail_point!("postgres.after_commit");
                (stored, None)
            }
            Ended::Unknown(stored, lost) => (stored, Some(lost)),
        };
        let mut answers = Vec::with_capacity(commits.len());
        for ((at, commit), stored) in commits.iter().zip(stored) {
            let owned = self.owned.get_mut(at).ok_or_else(|| not_claimed(at))?;
            answers.push(match &lost {
                None => {
                    self.tally.add(stored);
                    owned.move_on(commit);
                    Committed::Done
                }
                Some(lost) => {
                    owned.in_doubt = stored;
                    Committed::Unknown(lost.clone())
                }
            });
        }
        Ok(answers)
    }

    fn commit_once(&mut self, commits: &[(TopicPartition, Commit)]) -> Result<Ended<Vec<Stored>>, Error> {
        let mut all = Vec::with_capacity(commits.len());
        for (at, commit) in commits {
            let owned = self.owned.get(at).ok_or_else(|| not_claimed(at))?;
            owned.check_range(commit)?;
            all.push((at, commit, owned));
        }
        let ats: Vec<_> = all.iter().map(|(at, ..)| *at).collect();
        let (config, positions, tables) = (&self.config, &self.positions, &mut self.tables);
        let ended = self.db.transaction(|db| {
            fail::fail_point!("postgres.after_begin");
            let mut states = positions.read(db, &ats)?;
            for (at, commit, owned) in &all {
                let state = states.get_mut(at).ok_or_else(|| missing(at, &db.show()))?;
                state.commit(owned.epoch, owned.owner, commit)?;
            }
            positions.write(db, &states.values().collect::<Vec<_>>())?;
            fail::fail_point!("postgres.after_position");
            tables.look(db)?;
            let staged: Vec<_> = all.iter().map(|(.., owned)| &*owned.batches).collect();
            let stored = rows::store(db, config, tables, &staged)?;
            fail::fail_point!("postgres.before_commit");
            Ok(stored)
        });
        if !matches!(ended, Ok(Ended::Committed(_))) {
            self.tables.forget();
        }
        ended
    }
}

impl TableSink for PostgresSink {
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

impl Sink for PostgresSink {
    fn claim(&mut self, claim: &Claim) -> Result<SinkState, Error> {
        let mut answers = self.claim_together(std::slice::from_ref(claim));
        answers.pop().expect("every claim has an answer")
    }

    fn claim_together(&mut self, claims: &[Claim]) -> Vec<Result<SinkState, Error>> {
        claims.iter().for_each(|claim| self.release(&claim.at));
        let positions = &self.positions;
        let claimed = self.db.repeatable(|db| {
            fail::fail_point!("postgres.claim.after_begin");
            let answers = positions.claim(db, claims)?;
            fail::fail_point!("postgres.claim.before_commit");
            Ok(answers)
        });
        let answers = match claimed {
            Ok(answers) => answers,
            // One whose row cannot be read must not keep the others, nor another transaction that is in the way of all.
            Err(error)
                if claims.len() > 1 && (self.db.take_collided() || matches!(error, Error::Permanent(_))) =>
            {
                return claims.iter().map(|claim| self.claim(claim)).collect();
            }
            Err(error) => {
                let mut error = Repeated::new(error);
                return claims.iter().map(|_| Err(error.next())).collect();
            }
        };
        fail::fail_point!("postgres.claim.after_commit");
        for (claim, answer) in claims.iter().zip(&answers) {
            if let Ok(state) = answer {
                self.owned.insert(claim.at.clone(), Owned::new(claim, state.next));
            }
        }
        answers
    }

    fn write(&mut self, rows: RoutedBatch) -> Result<Staged, Error> {
        self.owned.get_mut(&rows.at).ok_or_else(|| not_claimed(&rows.at))?.stage(rows)
    }

    fn commit(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Committed, Error> {
        let mut answers = self.commit_all(&[(at.clone(), commit.clone())])?;
        Ok(answers.pop().expect("every commit has an answer"))
    }

    /// Where one of them is refused, the others are committed all the same; and each by itself, where other transactions are in
    /// the way of all together.
    fn commit_together(&mut self, commits: &[(TopicPartition, Commit)]) -> Vec<Result<Committed, Error>> {
        match self.commit_all(commits) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(error) if commits.len() == 1 => vec![Err(error)],
            Err(error @ Error::Transient(_)) if !self.db.take_collided() => {
                let mut error = Repeated::new(error);
                commits.iter().map(|_| Err(error.next())).collect()
            }
            Err(_) => commits.iter().map(|(at, commit)| self.commit(at, commit)).collect(),
        }
    }

    fn prefers_together(&self) -> bool {
        true
    }

    /// The row of the position is free only once the server is through with the commit that was lost.
    fn resolve(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Resolved, Error> {
        let owned = self.owned.get_mut(at).ok_or_else(|| not_claimed(at))?;
        let positions = &self.positions;
        let resolved = self.db.repeatable(|db| {
            let state = positions.read(db, &[at])?.remove(at).ok_or_else(|| missing(at, &db.show()))?;
            if state.last_commit == Some(commit.id) {
                return Ok(Resolved::Committed);
            }
            state.check_commit(owned.epoch, owned.owner, commit)?;
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
