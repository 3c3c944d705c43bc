//! Where the sink stands: one row per pipeline, sink, topic and partition in `weir_position`, which holds a
//! [`SinkState`] as JSON. Whoever reads it locks it, and keeps it locked until its transaction ends: what was decided by
//! it stays true. It is never touched apart from the transaction of the rows, and knows none of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Row};

use super::database::Database;
use super::parameters::{bound, no_values};
use crate::offset::TopicPartition;
use crate::sink::Error;
use crate::sink::state::{Claim, SinkState};
use crate::sink::table::{Owner, begin, read_state, unreadable, write_state};

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
    /// Gives partitions to the owners of claims, each of another one, but where the claim is refused.
    pub(super) fn claim(
        &self,
        db: &mut Database,
        claims: &[Claim],
    ) -> Result<Vec<Result<SinkState, Error>>, Error> {
        let ats: Vec<_> = claims.iter().map(|claim| &claim.at).collect();
        let mut states = self.read(db, &ats)?;
        let new: Vec<_> = claims.iter().filter(|claim| !states.contains_key(&claim.at)).collect();
        let mut refused = self.begin(db, &new, &mut states)?;
        let mut claimed = |claim: &Claim| match refused.remove(&claim.at) {
            Some(error) => Err(error),
            None => {
                let mut state = states[&claim.at].clone();
                state.claim(claim)?;
                Ok(state)
            }
        };
        let answers: Vec<_> = claims.iter().map(&mut claimed).collect();
        let ours: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        self.write(db, &ours)?;
        Ok(answers)
    }

    /// Makes the rows of partitions that have none, and answers for which that is refused. A row that two claims make at once
    /// is made by one of them; the other waits for it, and finds it.
    fn begin(
        &self,
        db: &mut Database,
        claims: &[&Claim],
        states: &mut BTreeMap<TopicPartition, SinkState>,
    ) -> Result<BTreeMap<TopicPartition, Error>, Error> {
        let (mut new, mut refused, mut others) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for claim in claims {
            let other = match others.entry((&claim.at.topic, &claim.topic_id)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.other_topic(db, claim)?),
            };
            match begin(claim, other.clone(), &db.show()) {
                Ok(state) => drop(new.insert(claim.at.clone(), state)),
                Err(error) => drop(refused.insert(claim.at.clone(), error)),
            }
        }
        if self.insert(db, &new)? < new.len() as u64 {
            let ats: Vec<_> = new.keys().collect();
            let found = self.read(db, &ats)?;
            new.extend(found);
        }
        states.extend(new);
        Ok(refused)
    }

    /// Answers how many of them were not there. In the order in which everybody locks them.
    fn insert(&self, db: &mut Database, states: &BTreeMap<TopicPartition, SinkState>) -> Result<u64, Error> {
        if states.is_empty() {
            return Ok(0);
        }
        let sql = format!(
            "INSERT INTO {} (pipeline, sink, topic, partition, version, state) \
             SELECT $1, $2, k.topic, k.partition, $3, k.state::jsonb \
             FROM unnest($4::text[], $5::int[], $6::text[]) AS k (topic, partition, state) \
             ORDER BY k.topic COLLATE \"C\", k.partition ON CONFLICT DO NOTHING",
            self.table
        );
        db.run(AssertSqlSafe(sql), self.rows(states.values()))
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

    /// The state of a partition, for whoever only wants to know it.
    pub(super) fn look_at(&self, db: &mut Database, at: &TopicPartition) -> Result<Option<SinkState>, Error> {
        let sql = format!(
            "SELECT version, state::text FROM {} WHERE pipeline = $1 AND sink = $2 AND topic = $3 AND partition = $4",
            self.table
        );
        let mut values = self.owner();
        bound(values.add(at.topic.clone()));
        bound(values.add(at.partition));
        let rows = db.query(AssertSqlSafe(sql), values)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let columns = row.try_get(0).and_then(|version: i64| Ok((version, row.try_get::<String, _>(1)?)));
        let (version, text) = columns.map_err(|e| unreadable(&e.to_string(), &db.show()))?;
        read_state(version, &text, &db.show()).map(Some)
    }

    /// Changes states that were read.
    pub(super) fn write(&self, db: &mut Database, states: &[&SinkState]) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {} AS p SET version = $3, state = k.state::jsonb \
             FROM unnest($4::text[], $5::int[], $6::text[]) AS k (topic, partition, state) \
             WHERE p.pipeline = $1 AND p.sink = $2 AND p.topic = k.topic AND p.partition = k.partition",
            self.table
        );
        let (changed, all) = (db.run(AssertSqlSafe(sql), self.rows(states.iter().copied()))?, states.len());
        if changed == all as u64 {
            return Ok(());
        }
        Err(unreadable(&format!("{changed} rows were changed instead of {all}"), &db.show()))
    }

    /// Of a statement over states: whose they are, then the version, topics, partitions and the states themselves.
    fn rows<'a>(&self, states: impl Iterator<Item = &'a SinkState> + Clone) -> PgArguments {
        let mut values = self.owner();
        bound(values.add(states.clone().map(SinkState::version).max().map(i64::from)));
        bound(values.add(states.clone().map(|state| &*state.topic).collect::<Vec<_>>()));
        bound(values.add(states.clone().map(|state| state.partition).collect::<Vec<_>>()));
        bound(values.add(states.map(write_state).collect::<Vec<_>>()));
        values
    }

    fn owner(&self) -> PgArguments {
        let mut values = no_values();
        bound(values.add(self.owner.pipeline.clone()));
        bound(values.add(self.owner.sink.clone()));
        values
    }
}
