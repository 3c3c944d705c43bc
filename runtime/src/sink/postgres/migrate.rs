//! Columns that the rows of a plan have and a table does not have yet. Only such are added as rows that are there can do
//! without; every other difference is for a person.

use sqlx::AssertSqlSafe;

use super::PostgresConfig;
use super::back::REJECTS;
use super::database::{Database, Ended};
use super::examine::{table_of, tried};
use super::parameters::no_values;
use super::rows::says_attempt;
use super::table::{Found, Table, quoted};
use super::tables::{Tables, find, look_at};
use crate::sink::table::{ATTEMPT, Wanted};
use crate::sink::{Error, Problem};

/// The statements that would add them. Nothing is changed.
///
/// # Errors
/// If the server cannot be reached, or there can be no table for a route.
pub fn lacking(config: &PostgresConfig, wanted: &[Wanted]) -> Result<Vec<String>, Error> {
    let mut db = Database::open(config.server.clone(), config.patience)?;
    let mut all = Vec::new();
    for want in wanted {
        for statement in tried(&mut db, |db| lacks(db, config, want))? {
            if !all.contains(&statement) {
                all.push(statement);
            }
        }
    }
    Ok(all)
}

/// Why tables would not do even with those columns: a column that may not be null is not there, or one is of another type. Nothing
/// is changed.
///
/// # Errors
/// As for [`lacking`].
pub fn refused_with_them(config: &PostgresConfig, wanted: &[Wanted]) -> Result<Vec<Error>, Error> {
    let mut db = Database::open(config.server.clone(), config.patience)?;
    let mut all = Vec::new();
    for want in wanted {
        let table = table_of(config, want)?;
        let fits = tried(&mut db, |db| match found(db, config, &table)? {
            Some(found) => table.fits_with_them(found),
            None => Ok(()),
        });
        all.extend(fits.err());
    }
    Ok(all)
}

/// Adds them, in one transaction, and looks whether the tables fit then; the statements that did it. Processes that write
/// to a table wait for the moment that it takes, and look at it again.
///
/// # Errors
/// As for [`lacking`], or where a table does not fit for another reason: then nothing is changed.
pub fn add_columns(config: &PostgresConfig, wanted: &[Wanted]) -> Result<Vec<String>, Error> {
    let mut db = Database::open(config.server.clone(), config.patience)?;
    let ended = db.transaction(|db| {
        let (mut done, mut tables) = (Vec::new(), Tables::default());
        for want in wanted {
            for statement in lacks(db, config, want)? {
                db.run(AssertSqlSafe(statement.clone()), no_values())?;
                done.push(statement);
            }
        }
        for want in wanted {
            tables.find(db, config, &want.target, &want.schema, &want.route, false)?;
        }
        Ok(done)
    })?;
    match ended {
        Ended::Committed(done) => Ok(done),
        Ended::Unknown(_, lost) => Err(Error::Transient(
            Problem::new(lost).hint("run it again: a column that is there is not added twice"),
        )),
    }
}

/// The statement after which the table of refused rows says how often a record has come again, where it was made without. Nothing
/// is changed.
///
/// # Errors
/// If the server cannot be reached.
pub fn rejects_lack(config: &PostgresConfig) -> Result<Option<String>, Error> {
    let mut db = Database::open(config.server.clone(), config.patience)?;
    let lacks =
        tried(&mut db, |db| Ok(find(db, &config.schema, REJECTS)?.is_some() && !says_attempt(db, config)?))?;
    let table = quoted(&config.schema);
    Ok(lacks.then(|| format!("ALTER TABLE {table}.{REJECTS} ADD COLUMN {ATTEMPT} integer")))
}

fn lacks(db: &mut Database, config: &PostgresConfig, want: &Wanted) -> Result<Vec<String>, Error> {
    let table = table_of(config, want)?;
    Ok(found(db, config, &table)?.map_or_else(Vec::new, |found| table.lacking(&found)))
}

/// The table as it is, if it is there.
fn found(db: &mut Database, config: &PostgresConfig, table: &Table) -> Result<Option<Found>, Error> {
    let Some(oid) = find(db, &config.schema, &table.name)? else { return Ok(None) };
    Ok(look_at(db, &table.quoted, &[oid])?.remove(&oid))
}
