//! Reading back what a SQLite sink has, over a connection that cannot write. Each look is a short one of its own, so nobody
//! who writes, or tidies up the journal, waits for it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row as _, TypeInfo as _, ValueRef as _};

use super::database::{Database, no_values};
use super::position;
use super::rows::bound;
use super::table::quoted;
use super::{SqliteConfig, is_there, name_of};
use crate::description::JSON_MARK;
use crate::offset::TopicPartition;
use crate::route::{DEAD_LETTERS, dead_letters_schema};
use crate::sink::Error;
use crate::sink::back::{
    Asked, Each, Found, Reader, Sought, Stood, WITHOUT_PROVENANCE, dead_letter, refused_row,
};
use crate::sink::json;
use crate::sink::state::SinkState;
use crate::sink::table::{Owner, overwritten};

/// Rows that are in memory at once.
const ROWS: usize = 64;

/// The table of rows that were refused.
pub(super) const REJECTS: &str = "weir_reject";

/// Reads back what a SQLite sink has.
pub struct SqliteReader {
    config: SqliteConfig,
    owner: Owner,
    /// Absent where there is no such file: then the sink has nothing.
    db: Option<Database>,
}

impl std::fmt::Debug for SqliteReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteReader").field("config", &self.config).finish_non_exhaustive()
    }
}

impl SqliteReader {
    /// A reader of the sink so configured.
    ///
    /// # Errors
    /// [`Error::Permanent`] where the file is no database; [`Error::Transient`] where it cannot be opened now.
    pub fn open(config: SqliteConfig) -> Result<Self, Error> {
        let owner = Owner { pipeline: config.pipeline.clone(), sink: config.sink.clone() };
        let db = match config.path.exists() {
            true => Some(Database::to_read(&config.path, config.busy_timeout)?),
            false => None,
        };
        Ok(Self { config, owner, db })
    }

    /// Rows of a table for which `only` holds, in the order in which they were written, until `each` says `false`.
    fn read(
        &mut self,
        table: &str,
        only: &Only,
        each: &mut dyn FnMut(Map<String, Value>) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let Some(db) = &mut self.db else { return Ok(true) };
        if !is_there(db, table)? {
            return Ok(true);
        }
        let sql = format!(
            "SELECT rowid AS weir_rowid, * FROM {} WHERE rowid > ?{} ORDER BY rowid LIMIT {ROWS}",
            quoted(table),
            only.sql
        );
        let mut last = i64::MIN;
        loop {
            let mut values = no_values();
            bound(values.add(last));
            only.bind(&mut values);
            let rows = db.query(AssertSqlSafe(sql.clone()), values)?;
            for row in &rows {
                last = row.get(0);
                if !each(value(row))? {
                    return Ok(false);
                }
            }
            if rows.len() < ROWS {
                return Ok(true);
            }
        }
    }
}

/// Which rows of a table are looked at.
#[derive(Default)]
struct Only {
    sql: String,
    texts: Vec<Arc<str>>,
    numbers: Vec<i64>,
}

impl Only {
    /// The rows of a letter that is sought, by what their provenance says.
    fn sought(sought: &Sought) -> Self {
        let mut only = Self::default();
        if let Some(topic) = &sought.topic {
            only.text("weir_topic", topic);
        }
        let offsets = sought.offsets.map(|(from, to)| [(">=", from), ("<", to)]);
        let equal = [
            ("weir_partition", sought.partition.map(i64::from)),
            ("weir_plan", sought.plan.and_then(|plan| i64::try_from(plan).ok())),
        ];
        for (column, number) in equal.into_iter().filter_map(|(column, number)| Some((column, number?))) {
            only.number(column, "=", number);
        }
        for (is, offset) in offsets.into_iter().flatten() {
            only.number("weir_offset", is, offset);
        }
        only
    }

    /// Texts come before numbers.
    fn text(&mut self, column: &str, text: &Arc<str>) {
        self.sql += &format!(" AND {column} = ?");
        self.texts.push(text.clone());
    }

    fn number(&mut self, column: &str, is: &str, number: i64) {
        self.sql += &format!(" AND {column} {is} ?");
        self.numbers.push(number);
    }

    fn bind(&self, values: &mut SqliteArguments) {
        self.texts.iter().for_each(|text| bound(values.add(text.clone())));
        self.numbers.iter().for_each(|number| bound(values.add(*number)));
    }
}

/// A row as it stands in the file: numbers, texts, and bytes as base64.
fn value(row: &SqliteRow) -> Map<String, Value> {
    use sqlx::Column as _;
    let column = |i: usize| {
        let Ok(raw) = row.try_get_raw(i) else { return Value::Null };
        let kind = raw.type_info().name().to_owned();
        match &*kind {
            _ if raw.is_null() => Value::Null,
            "INTEGER" => row.try_get::<i64, _>(i).map_or(Value::Null, Value::from),
            "REAL" => row.try_get::<f64, _>(i).map_or(Value::Null, json::of_double),
            "BLOB" => row.try_get::<Vec<u8>, _>(i).map_or(Value::Null, |bytes| json::of_bytes(&bytes)),
            _ => row.try_get_unchecked::<String, _>(i).map_or(Value::Null, Value::String),
        }
    };
    row.columns().iter().map(|of| (of.name().to_owned(), column(of.ordinal()))).collect()
}

impl Reader for SqliteReader {
    fn state(&mut self, at: &TopicPartition) -> Result<Option<SinkState>, Error> {
        let Some(db) = &mut self.db else { return Ok(None) };
        match is_there(db, "weir_position")? {
            true => position::read(db, &self.owner, at),
            false => Ok(None),
        }
    }

    fn letters(&mut self, sought: &Sought, each: Each<'_>) -> Result<(), Error> {
        let (sink, only, schema) = (self.config.sink.clone(), Only::sought(sought), dead_letters_schema());
        for target in &sought.dead {
            let table = name_of(&self.config, target);
            let place = format!("{}, table {table}", self.config.path.display());
            let goes_on = self.read(&table, &only, &mut |mut row| {
                typed(&mut row, &schema);
                Ok(dead_letter(&row, &sink, &place)?.is_none_or(&mut *each))
            })?;
            if !goes_on {
                return Ok(());
            }
        }
        if sought.refused {
            let mut ours = Only::default();
            ours.text("pipeline", &self.config.pipeline);
            ours.text("sink", &self.config.sink);
            ours.texts.extend(only.texts.iter().cloned());
            ours.numbers.extend(&only.numbers);
            ours.sql += &only.sql;
            let place = format!("{}, table {REJECTS}", self.config.path.display());
            self.read(REJECTS, &ours, &mut |mut row| {
                if let Some(value) = row.get_mut("row")
                    && let Some(text) = value.as_str()
                {
                    *value = json::of_json(text);
                }
                let reason = row.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
                Ok(each(refused_row(&row, None, &reason, &sink, &place)?))
            })?;
        }
        Ok(())
    }

    fn rows(&mut self, asked: &Asked<'_>) -> Result<Found, Error> {
        if !self.config.provenance && *asked.route != *DEAD_LETTERS {
            return Ok(Found { unknown: Some(WITHOUT_PROVENANCE.to_owned()), ..Found::default() });
        }
        let table = name_of(&self.config, asked.target);
        let place = format!("{}, table {table}", self.config.path.display());
        let mut found =
            Found { unknown: overwritten(self.config.targets.get(asked.target)), ..Found::default() };
        self.read(&table, &Only::sought(&Sought::of(asked.origin)), &mut |mut row| {
            typed(&mut row, asked.schema);
            found.rows.extend(Stood::of(row, asked.schema, &place));
            Ok(true)
        })?;
        Ok(found)
    }
}

/// What SQLite has no type for, as it is in the one JSON form.
fn typed(row: &mut Map<String, Value>, schema: &Schema) {
    for field in schema.fields() {
        let Some(value) = row.get_mut(field.name()) else { continue };
        match (field.data_type(), &*value) {
            (DataType::Boolean, Value::Number(number)) => *value = Value::Bool(number.as_i64() != Some(0)),
            (DataType::Utf8, Value::String(text)) if field.metadata().contains_key(JSON_MARK) => {
                *value = json::of_json(text);
            }
            _ => {}
        }
    }
}
