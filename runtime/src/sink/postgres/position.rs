//! Where the sink stands: one row per pipeline, sink, topic and partition in `weir_position`, which holds a
//! [`SinkState`] as JSON. Whoever reads it locks it, and keeps it locked until its transaction ends: what was decided by
//! it stays true. It is never touched apart from the transaction of the rows, and knows none of them.

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, Row};

use super::database::Database;
use super::parameters::{bound, no_values};
use crate::offset::TopicPartition;
use crate::sink::Error;
use crate::sink::state::{Claim, SinkState};
use crate::sink::table::{Owner, VERSION, begin, read_state, unreadable, write_state};

/// What its table is made with.
pub(super) const COLUMNS: &str = "pipeline text NOT NULL, sink text NOT NULL, topic text NOT NULL, \
     partition integer NOT NULL, version bigint NOT NULL, state jsonb NOT NULL, \
     PRIMARY KEY (pipeline, sink, topic, partition)";

/// Positions of one sink, in a table whose name is ready for statements.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    pub(super) owner: Owner,
    pub(super) table: String,
}

impl Positions {
    /// Gives the partition to `claim`'s owner.
    pub(super) fn claim(&self, db: &mut Database, claim: &Claim) -> Result<SinkState, Error> {
        let mut state = match self.read(db, &claim.at)? {
            Some(state) => state,
            None => self.begin(db, claim)?,
        };
        state.claim(claim)?;
        self.write(db, &state)?;
        Ok(state)
    }

    /// A row that two claims make at once is made by one of them; the other waits for it, and finds it.
    fn begin(&self, db: &mut Database, claim: &Claim) -> Result<SinkState, Error> {
        let state = begin(claim, self.other_topic(db, claim)?, &db.show())?;
        let sql = format!(
            "INSERT INTO {} (pipeline, sink, topic, partition, version, state) \
             VALUES ($1, $2, $3, $4, $5, $6::jsonb) ON CONFLICT DO NOTHING",
            self.table
        );
        match db.run(AssertSqlSafe(sql), self.row(&state))? {
            1 => Ok(state),
            _ => Ok(self.read(db, &claim.at)?.unwrap_or(state)),
        }
    }

    fn other_topic(&self, db: &mut Database, claim: &Claim) -> Result<Option<String>, Error> {
        let sql = format!(
            "SELECT state ->> 'topic_id' FROM {} \
             WHERE pipeline = $1 AND sink = $2 AND topic = $3 AND state ->> 'topic_id' <> $4 LIMIT 1",
            self.table
        );
        let mut values = no_values();
        for text in [&self.owner.pipeline, &self.owner.sink, &claim.at.topic, &claim.topic_id] {
            bound(values.add(text.clone()));
        }
        let rows = db.query(AssertSqlSafe(sql), values)?;
        let topic = rows.first().map(|row| row.try_get(0)).transpose();
        topic.map_err(|e| unreadable(&e.to_string(), &db.show()))
    }

    /// The state, if there is one; nobody else changes it until the transaction ends.
    pub(super) fn read(&self, db: &mut Database, at: &TopicPartition) -> Result<Option<SinkState>, Error> {
        let sql = format!(
            "SELECT version, state::text FROM {} \
             WHERE pipeline = $1 AND sink = $2 AND topic = $3 AND partition = $4 FOR UPDATE",
            self.table
        );
        let rows = db.query(AssertSqlSafe(sql), self.key(at))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let columns = row.try_get(0).and_then(|version: i64| Ok((version, row.try_get::<String, _>(1)?)));
        let (version, text) = columns.map_err(|e| unreadable(&e.to_string(), &db.show()))?;
        read_state(version, &text, &db.show()).map(Some)
    }

    /// Changes the state that was read.
    pub(super) fn write(&self, db: &mut Database, state: &SinkState) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {} SET version = $5, state = $6::jsonb \
             WHERE pipeline = $1 AND sink = $2 AND topic = $3 AND partition = $4",
            self.table
        );
        match db.run(AssertSqlSafe(sql), self.row(state))? {
            1 => Ok(()),
            n => Err(unreadable(&format!("{n} rows were changed instead of one"), &db.show())),
        }
    }

    fn row(&self, state: &SinkState) -> PgArguments {
        let mut values = self.key(&TopicPartition::new(state.topic.clone(), state.partition));
        bound(values.add(VERSION));
        bound(values.add(write_state(state)));
        values
    }

    fn key(&self, at: &TopicPartition) -> PgArguments {
        let mut values = no_values();
        for text in [&self.owner.pipeline, &self.owner.sink, &at.topic] {
            bound(values.add(text.clone()));
        }
        bound(values.add(at.partition));
        values
    }
}
