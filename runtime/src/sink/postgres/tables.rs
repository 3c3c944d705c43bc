//! The tables of a sink: which were looked at, and whether they still are what they were. What is looked at is locked
//! against changes of its columns until the transaction ends; rows of others come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use sqlx::{Arguments, AssertSqlSafe, Row};

use super::PostgresConfig;
use super::database::Database;
use super::parameters::{bound, no_values};
use super::table::{Found, FoundColumn, Table, nothing, quoted};
use crate::route::DEAD_LETTERS;
use crate::sink::Error;
use crate::sink::table::{TableConfig, wrong};

/// Makers of tables wait for one another: two that make the same would both find none. The number is `Weir` in ASCII.
const MAKING: &str = "SELECT pg_advisory_xact_lock(1466263922)";

/// The tables of a sink, as they were when the database was asked last.
#[derive(Default)]
pub(super) struct Tables {
    /// By target; more than one where routes with different columns go to the same.
    known: BTreeMap<Arc<str>, Vec<Table>>,
    /// Names of those that were there once, for certain: one that is gone had rows, and is not made anew in silence.
    seen: BTreeSet<String>,
}

impl Tables {
    /// To be called in a transaction, before anything else: locks what it knows, and forgets all of it if somebody
    /// changed a table.
    pub(super) fn look(&mut self, db: &mut Database) -> Result<(), Error> {
        let mut names: Vec<&str> = self.known.values().flatten().map(|table| &*table.quoted).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        // What is known here outlived the transaction in which it was found.
        self.seen.extend(names.iter().map(|name| (*name).to_owned()));
        let mut oids: Vec<i64> = self.known.values().flatten().map(|table| table.found.oid).collect();
        oids.sort_unstable();
        oids.dedup();
        let found = look_at(db, &names.join(", "), &oids)?;
        let same = |table: &Table| found.get(&table.found.oid) == Some(&table.found);
        if !self.known.values().flatten().all(same) {
            self.known.clear();
        }
        Ok(())
    }

    /// The tables are not known any more: what was made in the transaction was undone.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The place of the table for rows of `schema`, and of records that come `again` or not; the table is made, or compared,
    /// at the first time.
    pub(super) fn find(
        &mut self,
        db: &mut Database,
        config: &PostgresConfig,
        target: &Arc<str>,
        schema: &SchemaRef,
        route: &str,
        again: bool,
    ) -> Result<usize, Error> {
        let provenance = config.provenance || route == DEAD_LETTERS;
        let same =
            |table: &Table| table.provenance == provenance && table.again == again && table.schema == *schema;
        if let Some(place) = self.known.get(target).and_then(|known| known.iter().position(same)) {
            return Ok(place);
        }
        let default;
        let table = match config.targets.get(target) {
            Some(table) => table,
            None => {
                default = TableConfig::append(target.to_string());
                &default
            }
        };
        let mut table = Table::new(table, &config.schema, schema, provenance)?;
        table.again = again;
        if self.seen.contains(&*table.quoted) && find(db, &config.schema, &table.name)?.is_none() {
            let text = format!("table {} does not exist any more: somebody dropped it", table.quoted);
            let hint =
                "restore it with the rows that it had; a new run makes one that is missing, without them";
            return Err(wrong(text, Some(hint.to_owned())));
        }
        make_sure(db, config, &table.name, &table.create())?;
        db.run(AssertSqlSafe(locking(&table.quoted)), no_values())?;
        let oid = find(db, &config.schema, &table.name)?.unwrap_or_default();
        table.fit(look_at(db, &table.quoted, &[oid])?.remove(&oid).unwrap_or_default())?;
        try_out(db, &table)?;
        for other in self.known.values().flatten().chain([&table]) {
            table.check_reference(other)?;
            other.check_reference(&table)?;
        }
        let known = self.known.entry(target.clone()).or_default();
        known.push(table);
        Ok(known.len() - 1)
    }

    /// What [`Self::find`] found.
    pub(super) fn get(&self, target: &Arc<str>, place: usize) -> &Table {
        &self.known[target][place]
    }
}

/// Makes the table `name` by `create` if it is not there, and may be made.
pub(super) fn make_sure(
    db: &mut Database,
    config: &PostgresConfig,
    name: &str,
    create: &str,
) -> Result<(), Error> {
    if find(db, &config.schema, name)?.is_some() {
        return Ok(());
    }
    if !config.create {
        let text = format!("there is no table `{}.{name}` in `{}`", config.schema, db.show());
        return Err(wrong(text, Some(format!("{create}; or let the sink do it with `create = true`"))));
    }
    db.query(MAKING, no_values())?;
    if find(db, &config.schema, name)?.is_none() {
        db.run(AssertSqlSafe(create.to_owned()), no_values()).map_err(|e| with_schema(e, &config.schema))?;
    }
    Ok(())
}

fn with_schema(error: Error, schema: &str) -> Error {
    match error {
        Error::Permanent(problem) if problem.hint.is_none() => Error::Permanent(
            problem.hint(format!("CREATE SCHEMA {}, or name another one by `schema`", quoted(schema))),
        ),
        error => error,
    }
}

/// The number of a table, or of whatever else has that name.
pub(super) fn find(db: &mut Database, schema: &str, name: &str) -> Result<Option<i64>, Error> {
    const SQL: &str = "SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                       WHERE n.nspname = $1 AND c.relname = $2";
    let mut values = no_values();
    bound(values.add(schema));
    bound(values.add(name));
    Ok(db.query(SQL, values)?.first().map(|row| row.get(0)))
}

/// Nobody changes the columns of these tables until the transaction ends.
fn locking(tables: &str) -> String {
    format!("LOCK TABLE {tables} IN ROW EXCLUSIVE MODE")
}

/// What the database says of the tables with these numbers, once nobody changes the columns of `tables` any more. One
/// script, since every commit waits for the answer.
pub(super) fn look_at(db: &mut Database, tables: &str, oids: &[i64]) -> Result<BTreeMap<i64, Found>, Error> {
    let list = oids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    // Entangled: a second unique or exclusive index, a trigger of somebody's, a partition with either.
    let script = format!(
        "{}; WITH t AS MATERIALIZED (SELECT c.oid, c.relkind::text AS kind, c.relpersistence::text AS persistence, \
         ARRAY(SELECT confrelid::bigint FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f' ORDER BY 1) AS refers, \
         greatest(0, (SELECT count(*) FROM pg_index WHERE indrelid = c.oid AND (indisunique OR indisexclusion)) - 1) \
         + (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal) + (c.relkind = 'p')::int AS entangled \
         FROM pg_class c WHERE c.oid IN ({list})) \
         SELECT t.oid::bigint, kind, persistence, refers, entangled, \
         attname::text, atttypid::bigint, atttypmod, format_type(atttypid, atttypmod), \
         attnotnull, atthasdef OR attidentity <> '', attgenerated <> '' OR attidentity = 'a' \
         FROM t LEFT JOIN pg_attribute ON attrelid = t.oid AND attnum > 0 AND NOT attisdropped ORDER BY t.oid, attnum",
        locking(tables)
    );
    let mut found: BTreeMap<i64, Found> = BTreeMap::new();
    for row in db.ask(&script)? {
        let table = found.entry(row.get(0)).or_insert_with(|| Found {
            oid: row.get(0),
            kind: row.get(1),
            persistence: row.get(2),
            columns: Vec::new(),
            references: row.get(3),
            entangled: row.get(4),
        });
        // One without columns has a row too.
        let Some(name) = row.get(5) else { continue };
        table.columns.push(FoundColumn {
            name,
            oid: row.get(6),
            modifier: row.get(7),
            declared: row.get(8),
            not_null: row.get(9),
            has_default: row.get(10),
            generated: row.get(11),
        });
    }
    Ok(found)
}

/// Lets the database judge the statements before rows depend on them: only it knows which keys are unique, and what its
/// user may do.
fn try_out(db: &mut Database, table: &Table) -> Result<(), Error> {
    // One that waits for the commit does not count.
    const UNIQUE: &str = "SELECT 1 FROM pg_index WHERE indrelid = $1::oid AND indisunique AND indimmediate \
         AND indpred IS NULL AND indexprs IS NULL AND $2::text[] = ARRAY( \
             SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid \
             AND attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1]) ORDER BY attname::text COLLATE \"C\")";
    let Some(key) = &table.key else { return Ok(()) };
    let mut names: Vec<&str> = key.iter().map(|place| table.column(*place)).collect();
    names.sort_unstable();
    let mut values = no_values();
    bound(values.add(table.found.oid));
    bound(values.add(names));
    if db.query(UNIQUE, values)?.is_empty() {
        let (name, key) = (&table.name, table.names(key));
        let hint = format!("table `{name}` needs a PRIMARY KEY or UNIQUE ({key}) that is not deferrable");
        return Err(wrong(format!("table `{name}` may have rows with the same key"), Some(hint)));
    }
    for sql in [table.delete(key, nothing), table.upsert(key, nothing)] {
        db.query(AssertSqlSafe(format!("EXPLAIN {sql}")), no_values())?;
    }
    Ok(())
}
