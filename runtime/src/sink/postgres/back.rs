//! Reading back what a PostgreSQL sink has, in transactions that cannot write. They take no lock but the one that every look
//! at a table takes, which stands in the way of nobody who writes rows.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Schema;
use serde_json::{Map, Value};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Row as _};

use super::PostgresConfig;
use super::database::Database;
use super::parameters::{bound, no_values};
use super::position::Positions;
use super::table::quoted;
use super::values::Kind;
use crate::offset::TopicPartition;
use crate::route::{DEAD_LETTERS, dead_letters_schema};
use crate::sink::Error;
use crate::sink::back::{
    Asked, Each, Found, Reader, Sought, Stood, WITHOUT_PROVENANCE, dead_letter, refused_row,
};
use crate::sink::json;
use crate::sink::state::SinkState;
use crate::sink::table::{ATTEMPT, Owner, overwritten, unreadable};

/// Rows that are in memory at once.
const ROWS: usize = 64;

/// For as long whoever reads may look at what they have got before they want more: then the server ends the session.
const IDLE: &str = "SET TRANSACTION READ ONLY; SET LOCAL idle_in_transaction_session_timeout = '10min'";

/// The table of rows that were refused.
pub(super) const REJECTS: &str = "weir_reject";

/// Its columns, but for those of provenance.
const OF_REJECTS: [&str; 5] = ["target", "route", "reason", "sqlstate", "row"];

/// Reads back what a PostgreSQL sink has.
pub struct PostgresReader {
    config: PostgresConfig,
    positions: Positions,
    db: Database,
}

impl fmt::Debug for PostgresReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresReader").field("config", &self.config).finish_non_exhaustive()
    }
}

impl PostgresReader {
    /// Connects.
    ///
    /// # Errors
    /// As of [`super::PostgresSink::open`].
    pub fn open(config: PostgresConfig) -> Result<Self, Error> {
        let db = Database::open(config.server.clone(), config.patience)?;
        let owner = Owner { pipeline: config.pipeline.clone(), sink: config.sink.clone() };
        let positions = Positions { owner, table: format!("{}.weir_position", quoted(&config.schema)) };
        Ok(Self { config, positions, db })
    }

    fn table(&self, target: &Arc<str>) -> String {
        self.config.targets.get(target).map_or_else(|| target.to_string(), |table| table.table.clone())
    }

    /// Rows of a table for which `only` holds, until `each` says `false`; whether it never did.
    fn read(
        &mut self,
        table: &str,
        columns: &[Column],
        only: &Only,
        each: &mut dyn FnMut(Map<String, Value>) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let config = &self.config;
        self.db.repeatable(|db| {
            db.ask(IDLE)?;
            if !is_there(db, &config.schema, table)? {
                return Ok(true);
            }
            let wanted: Vec<&str> = columns.iter().map(|column| &*column.sql).collect();
            let sql = format!(
                "DECLARE weir_rows NO SCROLL CURSOR FOR SELECT {} FROM {}.{} AS weir_table WHERE true{}",
                wanted.join(", "),
                quoted(&config.schema),
                quoted(table),
                only.sql
            );
            db.run(AssertSqlSafe(sql), only.values())?;
            loop {
                let rows = db.query(AssertSqlSafe(format!("FETCH {ROWS} FROM weir_rows")), no_values())?;
                for row in &rows {
                    let row = value(row, columns).map_err(|e| unreadable(&e.to_string(), &db.show()))?;
                    if !each(row)? {
                        return Ok(false);
                    }
                }
                if rows.len() < ROWS {
                    return Ok(true);
                }
            }
        })
    }
}

fn is_there(db: &mut Database, schema: &str, table: &str) -> Result<bool, Error> {
    let mut values = no_values();
    bound(values.add(format!("{}.{}", quoted(schema), quoted(table))));
    let rows = db.query(AssertSqlSafe("SELECT to_regclass($1) IS NOT NULL".to_owned()), values)?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// How a column is asked for, whatever type it has that takes such values, and how the answer is read.
struct Column {
    name: String,
    sql: String,
    kind: Kind,
}

impl Column {
    fn new(name: &str, kind: Kind) -> Self {
        let column = quoted(name);
        let sql = match kind {
            Kind::Boolean | Kind::Binary => column,
            Kind::Int32 | Kind::Int64 => format!("{column}::bigint"),
            Kind::Double => format!("{column}::double precision"),
            Kind::Decimal { precision, scale } => format!("{column}::numeric({precision}, {scale})::text"),
            Kind::Text | Kind::Json => format!("{column}::text"),
            Kind::Date => format!("{column}::date - DATE '1970-01-01'"),
            Kind::Timestamp => format!("(extract(epoch FROM {column}) * 1000000)::bigint"),
        };
        Self { name: name.to_owned(), sql, kind }
    }

    /// Those of rows of `schema`.
    fn of(schema: &Schema) -> Vec<Self> {
        let column = |field: &Arc<arrow::datatypes::Field>| Some(Self::new(field.name(), Kind::of(field)?));
        schema.fields().iter().filter_map(column).chain(Self::provenance()).chain([Self::attempt()]).collect()
    }

    /// Which a table may have or not.
    fn attempt() -> Self {
        let sql = format!("(to_jsonb(weir_table) ->> '{ATTEMPT}')::bigint");
        Self { name: ATTEMPT.to_owned(), sql, kind: Kind::Int64 }
    }

    fn provenance() -> impl Iterator<Item = Self> {
        let numbers = ["weir_partition", "weir_offset", "weir_index", "weir_plan"];
        let numbers = numbers.map(|name| Self::new(name, Kind::Int64));
        std::iter::once(Self::new("weir_topic", Kind::Text)).chain(numbers)
    }
}

/// A row in the one JSON form.
fn value(row: &PgRow, columns: &[Column]) -> Result<Map<String, Value>, sqlx::Error> {
    let mut all = Map::new();
    for (i, Column { name, kind, .. }) in columns.iter().enumerate() {
        let value = match kind {
            Kind::Boolean => row.try_get::<Option<bool>, _>(i)?.map(Value::from),
            Kind::Int32 | Kind::Int64 => row.try_get::<Option<i64>, _>(i)?.map(Value::from),
            Kind::Double => row.try_get::<Option<f64>, _>(i)?.map(json::of_double),
            Kind::Decimal { .. } | Kind::Text => row.try_get::<Option<String>, _>(i)?.map(Value::from),
            Kind::Json => row.try_get::<Option<String>, _>(i)?.map(|text| json::of_json(&text)),
            Kind::Binary => row.try_get::<Option<Vec<u8>>, _>(i)?.map(|bytes| json::of_bytes(&bytes)),
            Kind::Date => row.try_get::<Option<i32>, _>(i)?.map(json::of_date),
            Kind::Timestamp => row.try_get::<Option<i64>, _>(i)?.map(json::of_timestamp),
        };
        all.insert(name.clone(), value.unwrap_or(Value::Null));
    }
    Ok(all)
}

/// Which rows of a table are looked at.
#[derive(Default)]
struct Only {
    sql: String,
    values: Vec<Bound>,
}

enum Bound {
    Text(Arc<str>),
    Number(i64),
}

impl Only {
    fn and(&mut self, column: &str, is: &str, value: Bound) {
        self.values.push(value);
        self.sql += &format!(" AND {column} {is} ${}", self.values.len());
    }

    /// The rows of a letter that is sought, by what their provenance says.
    fn sought(mut self, sought: &Sought) -> Self {
        if let Some(topic) = &sought.topic {
            self.and("weir_topic", "=", Bound::Text(topic.clone()));
        }
        if let Some(partition) = sought.partition {
            self.and("weir_partition::bigint", "=", Bound::Number(partition.into()));
        }
        if let Some(plan) = sought.plan.and_then(|plan| i64::try_from(plan).ok()) {
            self.and("weir_plan::bigint", "=", Bound::Number(plan));
        }
        for (is, offset) in sought.offsets.map(|(from, to)| [(">=", from), ("<", to)]).into_iter().flatten() {
            self.and("weir_offset::bigint", is, Bound::Number(offset));
        }
        self
    }

    fn values(&self) -> PgArguments {
        let mut values = no_values();
        for value in &self.values {
            match value {
                Bound::Text(text) => bound(values.add(text.clone())),
                Bound::Number(number) => bound(values.add(*number)),
            }
        }
        values
    }
}

impl Reader for PostgresReader {
    fn state(&mut self, at: &TopicPartition) -> Result<Option<SinkState>, Error> {
        let (schema, positions) = (&self.config.schema, &self.positions);
        self.db.repeatable(|db| {
            db.ask(IDLE)?;
            match is_there(db, schema, "weir_position")? {
                true => positions.look_at(db, at),
                false => Ok(None),
            }
        })
    }

    fn letters(&mut self, sought: &Sought, each: Each<'_>) -> Result<(), Error> {
        let (sink, server) = (self.config.sink.clone(), self.config.server.to_string());
        let columns: Vec<_> =
            Column::of(&dead_letters_schema()).into_iter().chain([Column::attempt()]).collect();
        for target in &sought.dead {
            let table = self.table(target);
            let place = format!("{server}, table {table}");
            let only = Only::default().sought(sought);
            let goes_on = self.read(&table, &columns, &only, &mut |row| {
                Ok(dead_letter(&row, &sink, &place)?.is_none_or(&mut *each))
            })?;
            if !goes_on {
                return Ok(());
            }
        }
        if sought.refused {
            let mut ours = Only::default();
            ours.and("pipeline", "=", Bound::Text(self.config.pipeline.clone()));
            ours.and("sink", "=", Bound::Text(sink.clone()));
            let kind = |name: &str| if name == "row" { Kind::Json } else { Kind::Text };
            let columns = OF_REJECTS.iter().map(|name| Column::new(name, kind(name)));
            let columns: Vec<_> = columns.chain(Column::provenance()).chain([Column::attempt()]).collect();
            let place = format!("{server}, table {REJECTS}");
            self.read(REJECTS, &columns, &ours.sought(sought), &mut |row| {
                let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
                let reason = text("reason").unwrap_or_default();
                Ok(each(refused_row(&row, text("sqlstate"), &reason, &sink, &place)?))
            })?;
        }
        Ok(())
    }

    fn rows(&mut self, asked: &Asked<'_>) -> Result<Found, Error> {
        if !self.config.provenance && *asked.route != *DEAD_LETTERS {
            return Ok(Found { unknown: Some(WITHOUT_PROVENANCE.to_owned()), ..Found::default() });
        }
        let table = self.table(asked.target);
        let place = format!("{}, table {table}", self.config.server);
        let mut found =
            Found { unknown: overwritten(self.config.targets.get(asked.target)), ..Found::default() };
        let only = Only::default().sought(&Sought::of(asked.origin));
        self.read(&table, &Column::of(asked.schema), &only, &mut |row| {
            found.rows.extend(Stood::of(row, asked.schema, &place));
            Ok(true)
        })?;
        Ok(found)
    }
}
