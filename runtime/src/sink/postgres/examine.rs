//! What a sink would find, before there is one: the server, what its user may do, and the tables. Everything that a sink
//! would do is tried in a transaction that is undone, so it changes nothing.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use sqlx::{Arguments, AssertSqlSafe, Row};

use super::between::between;
use super::database::Database;
use super::parameters::{bound, no_values};
use super::table::{Table, quoted};
use super::tables::{self, Tables};
use super::{PostgresConfig, position, rows};
use crate::route::DEAD_LETTERS;
use crate::sink::table::{Examined, ExaminedTable, TableConfig, Wanted, undone, wrong};
use crate::sink::{Error, Problem};

/// Looks at the server and at all tables that the sink would need.
///
/// # Errors
/// If the server cannot be reached, or does not let the user in.
pub fn examine(config: &PostgresConfig, wanted: &[Wanted]) -> Result<Examined, Error> {
    let mut db = Database::open(config.server.clone(), config.patience)?;
    let mut examined = server(&mut db, config)?;
    let schema = quoted(&config.schema);
    for (name, columns, rights) in [
        ("weir_position", position::COLUMNS, "SELECT, INSERT, UPDATE"),
        ("weir_reject", rows::REJECTS, "INSERT"),
    ] {
        let create = format!("CREATE TABLE {schema}.{name} ({columns})");
        let found = tried(&mut db, |db| {
            let there = tables::find(db, &config.schema, name)?.is_some();
            tables::make_sure(db, config, name, &create)?;
            check_rights(db, &config.schema, name, rights)?;
            Ok(there)
        });
        examined.tables.push(ExaminedTable { name: format!("{schema}.{name}"), found });
    }
    for want in wanted {
        let table = table_of(config, want);
        let rights = match table.as_ref().is_ok_and(|table| table.key.is_some()) {
            true => "SELECT, INSERT, UPDATE, DELETE",
            false => "INSERT",
        };
        let name = name_of(config, &want.target);
        let found = table.and_then(|_| {
            tried(&mut db, |db| {
                let there = tables::find(db, &config.schema, &name)?.is_some();
                Tables::default().find(db, config, &want.target, &want.schema, &want.route, false)?;
                check_rights(db, &config.schema, &name, rights)?;
                Ok(there)
            })
        });
        examined.tables.push(ExaminedTable { name: format!("{schema}.{}", quoted(&name)), found });
    }
    if examined.tables.iter().all(|table| table.found.is_ok()) {
        examined.tables.extend(together(&mut db, config, wanted));
    }
    Ok(examined)
}

/// The statements that make what the sink needs, its own tables first. No server is asked.
///
/// # Errors
/// If there can be no table for a route.
pub fn statements(config: &PostgresConfig, wanted: &[Wanted]) -> Result<Vec<String>, Error> {
    let schema = quoted(&config.schema);
    let own = [("weir_position", position::COLUMNS), ("weir_reject", rows::REJECTS)];
    let own = own.map(|(name, columns)| format!("CREATE TABLE {schema}.{name} ({columns})"));
    let tables = wanted.iter().map(|want| Ok(table_of(config, want)?.create()));
    own.into_iter().map(Ok).chain(tables).collect()
}

fn name_of(config: &PostgresConfig, target: &Arc<str>) -> String {
    config.targets.get(target).map_or_else(|| target.to_string(), |table| table.table.clone())
}

pub(super) fn table_of(
    config: &PostgresConfig,
    Wanted { target, route, schema }: &Wanted,
) -> Result<Table, Error> {
    let default = TableConfig::append(target.to_string());
    let table = config.targets.get(target).unwrap_or(&default);
    let schema: &SchemaRef = schema;
    Table::new(table, &config.schema, schema, config.provenance || **route == *DEAD_LETTERS)
}

pub(super) fn tried<T>(
    db: &mut Database,
    work: impl FnOnce(&mut Database) -> Result<T, Error>,
) -> Result<T, Error> {
    undone(|done| db.transaction(|db| Err::<(), _>(done(work(db)?))).map(drop))
}

/// Tables of one sink may not refer to one another.
fn together(db: &mut Database, config: &PostgresConfig, wanted: &[Wanted]) -> Option<ExaminedTable> {
    let all = tried(db, |db| {
        let mut tables = Tables::default();
        for want in wanted {
            tables.find(db, config, &want.target, &want.schema, &want.route, false)?;
        }
        Ok(())
    });
    let error = all.err()?;
    Some(ExaminedTable { name: "all tables together".to_owned(), found: Err(error) })
}

/// Which of the rights the user lacks that the sink needs, if any.
fn check_rights(db: &mut Database, schema: &str, table: &str, rights: &str) -> Result<(), Error> {
    const SQL: &str = "SELECT r FROM unnest($1::text[]) r, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                       WHERE n.nspname = $2 AND c.relname = $3 AND NOT has_table_privilege(c.oid, r)";
    let mut values = no_values();
    bound(values.add(rights.split(", ").collect::<Vec<_>>()));
    bound(values.add(schema));
    bound(values.add(table));
    let lacking: Vec<String> = db.query(SQL, values)?.iter().map(|row| row.get(0)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let lacking = lacking.join(", ");
    let (schema, table) = (quoted(schema), quoted(table));
    let text = format!("E_SINK_DENIED: the user may not {lacking} in {schema}.{table}");
    Err(Error::Permanent(Problem::new(text).hint(format!("GRANT {rights} ON {schema}.{table} TO the user"))))
}

/// What the server says of itself.
fn server(db: &mut Database, config: &PostgresConfig) -> Result<Examined, Error> {
    const SQL: &str = "SELECT current_setting('server_version'), pg_is_in_recovery(), \
         current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', \
         (extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
         (SELECT CASE WHEN ssl THEN version || ', ' || cipher END FROM pg_stat_ssl WHERE pid = pg_backend_pid()), \
         EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    let row = tried(db, |db| {
        let mut values = no_values();
        bound(values.add(config.schema.as_str()));
        let rows = db.query(AssertSqlSafe(SQL.to_owned()), values)?;
        rows.into_iter().next().ok_or_else(|| wrong("the server does not say what it is", None))
    })?;
    let version: String = row.get(0);
    let tls: Option<String> = row.get(5);
    let mut examined = Examined {
        database: format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default()),
        notes: Vec::new(),
        warnings: Vec::new(),
        clock_ms: Some(row.get(4)),
        tables: Vec::new(),
    };
    examined.notes.push(tls.map_or_else(|| "no TLS".to_owned(), |tls| format!("TLS: {tls}")));
    examined.notes.extend(between(db, config)?);
    let mut warn = |when: bool, what: &str| {
        if when {
            examined.warnings.push(what.to_owned());
        }
    };
    warn(row.get(1), "the server is a standby, which takes no rows: name the primary");
    warn(!row.get::<bool, _>(2), "the server runs with fsync = off: a crash of its machine may lose rows");
    warn(!row.get::<bool, _>(3), "the server runs with full_page_writes = off: a crash may damage rows");
    let missing =
        format!("there is no schema {}: create it, or name another by `schema`", quoted(&config.schema));
    warn(!row.get::<bool, _>(6), &missing);
    Ok(examined)
}
