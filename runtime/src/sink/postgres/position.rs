//! Where the sink stands: one row per pipeline, sink, topic and partition in `weir_position`, which holds a
//! [`SinkState`] as JSON. Whoever reads it locks it, and keeps it locked until its transaction ends: what was decided by
//! it stays true. It is never touched apart from the transaction of the rows, and knows none of them.

use std::collections::BTreeMap;

use sqlx::postgres::{PgArguments, PgRow};
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
        let mut state = match self.read(db, &[&claim.at])?.remove(&claim.at) {
            Some(state) => state,
            None => self.begin(db, claim)?,
        };
        state.claim(claim)?;
        self.write(db, &[&state])?;
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
        let mut values = self.owner();
        bound(values.add(state.topic.clone()));
        bound(values.add(state.partition));
        bound(values.add(VERSION));
        bound(values.add(write_state(&state)));
        match db.run(AssertSqlSafe(sql), values)? {
            1 => Ok(state),
            _ => Ok(self.read(db, &[&claim.at])?.remove(&claim.at).unwrap_or(state)),
        }
    }

    fn other_topic(&self, db: &mut Database, claim: &Claim) -> Result<Option<String>, Error> {
        let sql = format!(
            "SELECT state ->> 'topic_id' FROM {} \
             WHERE pipeline = $1 AND sink = $2 AND topic = $3 AND state ->> 'topic_id' <> $4 LIMIT 1",
            self.table
        );
        let mut values = self.owner();
        bound(values.add(claim.at.topic.clone()));
        bound(values.add(claim.topic_id.clone()));
        let rows = db.query(AssertSqlSafe(sql), values)?;
        let topic = rows.first().map(|row| row.try_get(0)).transpose();
        topic.map_err(|e| unreadable(&e.to_string(), &db.show()))
    }

    /// The states of those of these partitions that have one; nobody else changes them until the transaction ends. Everybody
    /// locks them in the order of topics and partitions, so that nobody waits in a circle.
    pub(super) fn read(
        &self,
        db: &mut Database,
        ats: &[&TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, SinkState>, Error> {
        let sql = format!(
            "SELECT p.topic, p.partition, p.version, p.state::text FROM {} AS p \
             JOIN unnest($3::text[], $4::int[]) AS k (topic, partition) USING (topic, partition) \
             WHERE p.pipeline = $1 AND p.sink = $2 ORDER BY p.topic COLLATE \"C\", p.partition FOR UPDATE OF p",
            self.table
        );
        let mut values = self.owner();
        bound(values.add(ats.iter().map(|at| &*at.topic).collect::<Vec<_>>()));
        bound(values.add(ats.iter().map(|at| at.partition).collect::<Vec<_>>()));
        let rows = db.query(AssertSqlSafe(sql), values)?;
        let columns = |row: &PgRow| {
            let at = TopicPartition::new(row.try_get::<String, _>(0)?, row.try_get(1)?);
            Ok((at, row.try_get(2)?, row.try_get::<String, _>(3)?))
        };
        let state = |row| {
            let (at, version, text) =
                columns(row).map_err(|e: sqlx::Error| unreadable(&e.to_string(), &db.show()))?;
            Ok((at, read_state(version, &text, &db.show())?))
        };
        rows.iter().map(state).collect()
    }

    /// Changes states that were read.
    pub(super) fn write(&self, db: &mut Database, states: &[&SinkState]) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {} AS p SET version = $3, state = k.state::jsonb \
             FROM unnest($4::text[], $5::int[], $6::text[]) AS k (topic, partition, state) \
             WHERE p.pipeline = $1 AND p.sink = $2 AND p.topic = k.topic AND p.partition = k.partition",
            self.table
        );
        let mut values = self.owner();
        bound(values.add(VERSION));
        bound(values.add(states.iter().map(|state| &*state.topic).collect::<Vec<_>>()));
        bound(values.add(states.iter().map(|state| state.partition).collect::<Vec<_>>()));
        bound(values.add(states.iter().map(|state| write_state(state)).collect::<Vec<_>>()));
        let (changed, all) = (db.run(AssertSqlSafe(sql), values)?, states.len());
        if changed == all as u64 {
            return Ok(());
        }
        Err(unreadable(&format!("{changed} rows were changed instead of {all}"), &db.show()))
    }

    fn owner(&self) -> PgArguments {
        let mut values = no_values();
        bound(values.add(self.owner.pipeline.clone()));
        bound(values.add(self.owner.sink.clone()));
        values
    }
}
