//! What a sink would find, before there is one: the file and its tables. Everything that a sink would do is tried in a
//! transaction that is undone, so it changes no table.

use std::sync::Arc;

use sqlx::Row;

use super::database::{Database, no_values};
use super::table::Table;
use super::tables::Tables;
use super::{SqliteConfig, position, rows};
use crate::route::DEAD_LETTERS;
use crate::sink::Error;
use crate::sink::table::{Examined, ExaminedTable, TableConfig, Wanted, undone};

/// Looks at a file that is there, and at all tables that the sink would need.
///
/// # Errors
/// If it cannot be opened, is no database, or cannot have a write-ahead log.
pub fn examine(config: &SqliteConfig, wanted: &[Wanted]) -> Result<Examined, Error> {
    let mut db = Database::open(&config.path, config.busy_timeout)?;
    let version = db.query("SELECT sqlite_version()", no_values())?;
    let version = version.first().map_or_else(String::new, |row| row.get(0));
    let own = tried(&mut db, |db| {
        position::create(db)?;
        rows::create(db)
    });
    let mut tables = Vec::new();
    if let Err(error) = own {
        tables.push(ExaminedTable { name: "weir_position, weir_reject".to_owned(), found: Err(error) });
    }
    for want in wanted {
        let name = name_of(config, &want.target);
        let found = tried(&mut db, |db| {
            let there = is_there(db, &name)?;
            Tables::default().find(db, config, &want.target, &want.schema, &want.route, false)?;
            Ok(there)
        });
        tables.push(ExaminedTable { name, found });
    }
    if tables.iter().all(|table| table.found.is_ok()) {
        tables.extend(together(&mut db, config, wanted));
    }
    let (notes, warnings) = (Vec::new(), Vec::new());
    Ok(Examined { database: format!("SQLite {version}"), notes, warnings, clock_ms: None, tables })
}

/// The statements that make the tables of the targets. No file is opened.
///
/// # Errors
/// If there can be no table for a route.
pub fn statements(config: &SqliteConfig, wanted: &[Wanted]) -> Result<Vec<String>, Error> {
    wanted.iter().map(|want| Ok(table_of(config, want)?.statement())).collect()
}

pub(super) fn table_of(
    config: &SqliteConfig,
    Wanted { target, route, schema }: &Wanted,
) -> Result<Table, Error> {
    let default = TableConfig::append(target.to_string());
    let table = config.targets.get(target).unwrap_or(&default);
    Table::new(table, schema, config.provenance || **route == *DEAD_LETTERS)
}

/// The table of a target.
pub(super) fn name_of(config: &SqliteConfig, target: &Arc<str>) -> String {
    config.targets.get(target).map_or_else(|| target.to_string(), |table| table.table.clone())
}

/// Whether there is a table of that name.
pub(super) fn is_there(db: &mut Database, name: &str) -> Result<bool, Error> {
    use sqlx::Arguments;
    let mut values = no_values();
    rows::bound(values.add(name.to_owned()));
    Ok(!db.query("SELECT 1 FROM pragma_table_list(?) WHERE schema = 'main'", values)?.is_empty())
}

pub(super) fn tried<T>(
    db: &mut Database,
    work: impl FnOnce(&mut Database) -> Result<T, Error>,
) -> Result<T, Error> {
    undone(|done| db.transaction(|db| Err::<(), _>(done(work(db)?))).map(drop))
}

/// Tables of one sink may not refer to one another.
fn together(db: &mut Database, config: &SqliteConfig, wanted: &[Wanted]) -> Option<ExaminedTable> {
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
