//! Columns that the rows of a plan have and a table does not have yet. Only such are added as rows that are there can do
//! without; every other difference is for a person.

use sqlx::AssertSqlSafe;

use super::SqliteConfig;
use super::back::REJECTS;
use super::database::{Database, Ended, no_values};
use super::examine::{is_there, table_of, tried};
use super::rows::says_attempt;
use super::tables::Tables;

use crate::sink::table::{ATTEMPT, Wanted};
use crate::sink::{Error, Problem};

/// The statements that would add them, to the tables of a file that is there. Nothing is changed.
///
/// # Errors
/// If the file cannot be opened, or there can be no table for a route.
pub fn lacking(config: &SqliteConfig, wanted: &[Wanted]) -> Result<Vec<String>, Error> {
    let mut db = Database::open(&config.path, config.busy_timeout)?;
    let mut all = Vec::new();
    for want in wanted {
        let table = table_of(config, want)?;
        for statement in tried(&mut db, |db| table.lacking(db))? {
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
pub fn refused_with_them(config: &SqliteConfig, wanted: &[Wanted]) -> Result<Vec<Error>, Error> {
    let mut db = Database::open(&config.path, config.busy_timeout)?;
    let mut all = Vec::new();
    for want in wanted {
        let table = table_of(config, want)?;
        all.extend(tried(&mut db, |db| table.fits_with_them(db)).err());
    }
    Ok(all)
}

/// Adds them, in one transaction, and looks whether the tables fit then; the statements that did it.
///
/// # Errors
/// As for [`lacking`], or where a table does not fit for another reason: then nothing is changed.
pub fn add_columns(config: &SqliteConfig, wanted: &[Wanted]) -> Result<Vec<String>, Error> {
    let mut db = Database::open(&config.path, config.busy_timeout)?;
    let ended = db.transaction(|db| {
        let (mut done, mut tables) = (Vec::new(), Tables::default());
        for want in wanted {
            for statement in table_of(config, want)?.lacking(db)? {
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

/// The statement after which the table of refused rows says how often a record has come again, where a file that is there has one
/// that was made without. Nothing is changed.
///
/// # Errors
/// If the file cannot be opened.
pub fn rejects_lack(config: &SqliteConfig) -> Result<Option<String>, Error> {
    let mut db = Database::open(&config.path, config.busy_timeout)?;
    let lacks = is_there(&mut db, REJECTS)? && !says_attempt(&mut db)?;
    Ok(lacks.then(|| format!("ALTER TABLE {REJECTS} ADD COLUMN {ATTEMPT} INTEGER")))
}
