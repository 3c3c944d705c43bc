//! What tables lack before a plan can have its rows there.

use anyhow::{Context, Result};

use super::super::sinks::{if_unreachable, postgres_config, sinks_of, sqlite_config, wanted};
use super::Deployment;
use crate::config::SinkConfig;
use crate::sink::postgres::{self, PostgresConfig};
use crate::sink::sqlite::{self, SqliteConfig};
use crate::sink::{self, table::Wanted};

/// Statements, by the sink whose tables they change.
pub type Statements = Vec<(String, Vec<String>)>;

impl Deployment {
    /// The statements, by sink, that add the columns which tables lack and rows that are there can do without.
    ///
    /// # Errors
    /// If a sink cannot be asked, or there can be no table for a route.
    pub fn lacking_columns(&self) -> Result<Statements> {
        self.migration(sqlite::lacking, postgres::lacking)
    }

    /// Adds them, all of a sink or none; what was done. The plan that runs goes on with its own columns.
    ///
    /// # Errors
    /// As for [`Self::lacking_columns`], or where a table would not fit all the same: then that sink is as it was.
    pub fn add_columns(&self) -> Result<Statements> {
        self.migration(sqlite::add_columns, postgres::add_columns)
    }

    fn migration(
        &self,
        in_sqlite: fn(&SqliteConfig, &[Wanted]) -> Result<Vec<String>, sink::Error>,
        in_postgres: fn(&PostgresConfig, &[Wanted]) -> Result<Vec<String>, sink::Error>,
    ) -> Result<Statements> {
        let mut all = Vec::new();
        for (name, sink) in sinks_of(&self.config, &self.history)? {
            let wanted = wanted(&self.config, self.candidate.description(), name);
            let statements = match sink {
                SinkConfig::Sqlite(tables) if tables.path.exists() => {
                    in_sqlite(&sqlite_config(&self.config, name, tables), &wanted)
                }
                SinkConfig::Postgres(tables) => {
                    in_postgres(&postgres_config(&self.config, name, tables)?, &wanted)
                        .map_err(|error| if_unreachable(&self.config, name, error))
                }
                SinkConfig::Sqlite(_) | SinkConfig::Files(_) | SinkConfig::Kafka(_) => continue,
            };
            let statements = statements.with_context(|| format!("sink {name}"))?;
            if !statements.is_empty() {
                all.push((format!("sink {name}"), statements));
            }
        }
        Ok(all)
    }
}
