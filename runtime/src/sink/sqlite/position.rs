//! Where the sink stands: one row per pipeline, sink, topic and partition in `weir_position`, which holds a
//! [`SinkState`] as JSON. It is read and written inside the transaction of the rows, never apart from it, and knows
//! none of them.

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, Row};

use super::database::{Database, no_values};
use super::rows::bound;
use crate::offset::TopicPartition;
use crate::sink::Error;
use crate::sink::state::{Claim, SinkState};
use crate::sink::table::{Owner, begin, read_state, unreadable, write_state};

/// `writes` changes whenever the row is written. Otherwise SQLite would leave a row alone that stays the same, and
/// with it what a failed commit left behind in the journal.
const TABLE: &str = r#"
CREATE TABLE IF NOT EXISTS weir_position (
    pipeline TEXT NOT NULL,
    sink TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    writes INTEGER NOT NULL,
    PRIMARY KEY (pipeline, sink, topic, partition)
) STRICT"#;

/// Makes the table if it is not there.
pub(super) fn create(db: &mut Database) -> Result<(), Error> {
    db.run(TABLE, no_values()).map(drop)
}

/// Gives the partition to `claim`'s owner; to be called in a transaction.
pub(super) fn claim(db: &mut Database, owner: &Owner, claim: &Claim) -> Result<SinkState, Error> {
    let mut state = match read(db, owner, &claim.at)? {
        Some(state) => state,
        None => begin(claim, other_topic(db, owner, claim)?, &db.show())?,
    };
    state.claim(claim)?;
    write(db, owner, &state)?;
    Ok(state)
}

fn other_topic(db: &mut Database, owner: &Owner, claim: &Claim) -> Result<Option<String>, Error> {
    const SQL: &str = "SELECT state ->> 'topic_id' FROM weir_position \
                       WHERE pipeline = ? AND sink = ? AND topic = ? AND state ->> 'topic_id' <> ? LIMIT 1";
    let mut values = no_values();
    for text in [&owner.pipeline, &owner.sink, &claim.at.topic, &claim.topic_id] {
        bound(values.add(text.clone()));
    }
    let rows = db.query(SQL, values)?;
    rows.first().map(|row| row.try_get(0)).transpose().map_err(|e| unreadable(&e.to_string(), &db.show()))
}

/// The state, if there is one.
pub(super) fn read(
    db: &mut Database,
    owner: &Owner,
    at: &TopicPartition,
) -> Result<Option<SinkState>, Error> {
    const SQL: &str = "SELECT version, state FROM weir_position \
                       WHERE pipeline = ? AND sink = ? AND topic = ? AND partition = ?";
    let rows = db.query(SQL, key(owner, at))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let columns = row.try_get(0).and_then(|version: i64| Ok((version, row.try_get::<String, _>(1)?)));
    let (version, text) = columns.map_err(|e| unreadable(&e.to_string(), &db.show()))?;
    read_state(version, &text, &db.show()).map(Some)
}

/// Writes the state, whether or not there was one.
pub(super) fn write(db: &mut Database, owner: &Owner, state: &SinkState) -> Result<(), Error> {
    const SQL: &str = "INSERT INTO weir_position (pipeline, sink, topic, partition, version, state, writes) \
                       VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (pipeline, sink, topic, partition) DO UPDATE \
                       SET version = excluded.version, state = excluded.state, writes = writes + 1";
    let at = TopicPartition::new(state.topic.clone(), state.partition);
    let mut values = key(owner, &at);
    bound(values.add(i64::from(state.version())));
    bound(values.add(write_state(state)));
    db.run(SQL, values).map(drop)
}

fn key(owner: &Owner, at: &TopicPartition) -> SqliteArguments {
    let mut values = no_values();
    for text in [&owner.pipeline, &owner.sink, &at.topic] {
        bound(values.add(text.clone()));
    }
    bound(values.add(at.partition));
    values
}
