//! The tables of a sink: which were looked at, and whether they still are what they were. It judges none itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use sqlx::Row;

use super::SqliteConfig;
use super::database::{Database, no_values};
use super::table::Table;
use crate::route::DEAD_LETTERS;
use crate::sink::Error;
use crate::sink::table::TableConfig;

/// The tables of a sink, as they were when the schema of the database was looked at last.
#[derive(Default)]
pub(super) struct Tables {
    /// By target; more than one where routes with different columns go to the same.
    known: BTreeMap<Arc<str>, Vec<Table>>,
    /// SQLite's number of the schema; anybody who changes a table changes it.
    version: Option<i64>,
}

impl Tables {
    /// To be called in a transaction, before anything else: forgets what it knew if somebody changed a table.
    pub(super) fn look(&mut self, db: &mut Database) -> Result<(), Error> {
        let version = schema_version(db)?;
        if self.version != Some(version) {
            self.known.clear();
            self.version = Some(version);
        }
        Ok(())
    }

    /// The tables are not known any more: what was made in the transaction was undone.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The place of the table for rows of `schema`, and of records that come `again` or not; the table is made, or compared,
    /// at the first time.
    pub(super) fn find(
        &mut self,
        db: &mut Database,
        config: &SqliteConfig,
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
        let mut table = Table::new(table, schema, provenance)?;
        table.again = again;
        table.make_sure(db)?;
        for other in self.known.values().flatten().chain([&table]) {
            table.check_reference(other)?;
            other.check_reference(&table)?;
        }
        let known = self.known.entry(target.clone()).or_default();
        known.push(table);
        let place = known.len() - 1;
        self.version = Some(schema_version(db)?);
        Ok(place)
    }

    /// What [`Self::find`] found.
    pub(super) fn get(&mut self, target: &Arc<str>, place: usize) -> &mut Table {
        &mut self.known.get_mut(target).expect("it was found")[place]
    }
}

fn schema_version(db: &mut Database) -> Result<i64, Error> {
    let rows = db.query("PRAGMA schema_version", no_values())?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}
