//! What a sink would find, before there is one: the server, what its user may do, and the tables. Everything that a sink
//! would do is tried in a transaction that is undone, so it changes nothing.

use std::collections::BTreeSet;
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
    let looks: Vec<Look<'_>> = OWN.iter().map(Look::Own).chain(wanted.iter().map(Look::Wanted)).collect();
    // Mostly all is well, which one transaction tells.
    examined.tables = match at_once(&mut db, config, &looks) {
        Ok(there) => {
            let found =
                |(look, there): (&Look<'_>, _)| ExaminedTable { name: look.shown(config), found: Ok(there) };
            looks.iter().zip(there).map(found).collect()
        }
        Err(_) => one_by_one(&mut db, config, &looks),
    };
    Ok(examined)
}

/// A table that the sink keeps for itself.
struct Own {
    name: &'static str,
    columns: &'static str,
    rights: &'static str,
}

const OWN: [Own; 2] = [
    Own { name: "weir_position", columns: position::COLUMNS, rights: "SELECT, INSERT, UPDATE" },
    Own { name: "weir_reject", columns: rows::REJECTS, rights: "INSERT" },
];

impl Own {
    fn create(&self, config: &PostgresConfig) -> String {
        format!("CREATE TABLE {}.{} ({})", quoted(&config.schema), quoted(self.name), self.columns)
    }
}

/// A table to look at.
#[derive(Clone, Copy)]
enum Look<'a> {
    Own(&'a Own),
    Wanted(&'a Wanted),
}

impl Look<'_> {
    fn name(&self, config: &PostgresConfig) -> String {
        match self {
            Self::Own(own) => own.name.to_owned(),
            Self::Wanted(want) => name_of(config, &want.target),
        }
    }

    fn shown(&self, config: &PostgresConfig) -> String {
        format!("{}.{}", quoted(&config.schema), quoted(&self.name(config)))
    }

    /// Does with it what the sink would do, with tables that were looked at before.
    fn at(&self, db: &mut Database, config: &PostgresConfig, tables: &mut Tables) -> Result<(), Error> {
        let rights = match self {
            Self::Own(own) => {
                tables::make_sure(db, config, own.name, &own.create(config))?;
                own.rights
            }
            Self::Wanted(want) => {
                let is_keyed = table_of(config, want)?.key.is_some();
                tables.find(db, config, &want.target, &want.schema, &want.route, false)?;
                if is_keyed { "SELECT, INSERT, UPDATE, DELETE" } else { "INSERT" }
            }
        };
        check_rights(db, &config.schema, &self.name(config), rights)
    }
}

/// All tables in one transaction. It holds the first of them while it waits for the next, so it waits for none for long: sooner than
/// the server looks for whom it would have to end where two wait for one another.
fn at_once(db: &mut Database, config: &PostgresConfig, looks: &[Look<'_>]) -> Result<Vec<bool>, Error> {
    tried(db, |db| {
        db.run("SET LOCAL lock_timeout = '200ms'", no_values())?;
        look_at(db, config, looks)
    })
}

/// Each table alone, for what is wrong with it; and together, since tables of one sink may not refer to one another. What passes
/// says nothing of that.
fn one_by_one(db: &mut Database, config: &PostgresConfig, looks: &[Look<'_>]) -> Vec<ExaminedTable> {
    let alone = |look: &Look<'_>| {
        let found = tried(db, |db| look_at(db, config, std::slice::from_ref(look)));
        ExaminedTable { name: look.shown(config), found: found.map(|there| there[0]) }
    };
    let mut examined: Vec<_> = looks.iter().map(alone).collect();
    if examined.iter().all(|table| table.found.is_ok())
        && let Err(error @ Error::Permanent(_)) = at_once(db, config, looks)
    {
        examined.push(ExaminedTable { name: "all tables together".to_owned(), found: Err(error) });
    }
    examined
}

/// Of each table, whether it was there before; what is not is made.
fn look_at(db: &mut Database, config: &PostgresConfig, looks: &[Look<'_>]) -> Result<Vec<bool>, Error> {
    const SQL: &str = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                       WHERE n.nspname = $1 AND c.relname = ANY($2)";
    let names: Vec<String> = looks.iter().map(|look| look.name(config)).collect();
    let mut values = no_values();
    bound(values.add(config.schema.as_str()));
    bound(values.add(&names));
    let there: BTreeSet<String> = db.query(SQL, values)?.iter().map(|row| row.get(0)).collect();
    let mut tables = Tables::default();
    looks.iter().try_for_each(|look| look.at(db, config, &mut tables))?;
    Ok(names.iter().map(|name| there.contains(name)).collect())
}

/// The statements that make what the sink needs, its own tables first. No server is asked.
///
/// # Errors
/// If there can be no table for a route.
pub fn statements(config: &PostgresConfig, wanted: &[Wanted]) -> Result<Vec<String>, Error> {
    let own = OWN.iter().map(|own| Ok(own.create(config)));
    own.chain(wanted.iter().map(|want| Ok(table_of(config, want)?.create()))).collect()
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
