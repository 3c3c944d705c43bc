//! Columns that the tables of a sink lack before it can have certain rows, and that rows that are there can do without.

use anyhow::{Context, Result};

use super::sinks::{if_unreachable, postgres_config, sqlite_config};
use crate::config::{PipelineConfig, SinkConfig, SinkName};
use crate::sink::table::Wanted;
use crate::sink::{Error, postgres, sqlite};

/// What is done about them.
#[derive(Clone, Copy)]
pub(super) enum Columns {
    /// The statements that would add them are told.
    Tell,
    /// They are added, all of a sink or none.
    Add,
}

impl Columns {
    /// The statements, for the tables that rows of `wanted` go to; none where nothing is lacking, or a sink has no tables.
    ///
    /// # Errors
    /// If the sink cannot be asked, or there can be no table for a route. Where columns are added, also if a table would not
    /// fit all the same: then the sink is as it was.
    pub(super) fn of(
        self,
        config: &PipelineConfig,
        name: &SinkName,
        sink: &SinkConfig,
        wanted: &[Wanted],
    ) -> Result<Vec<String>> {
        let statements = match sink {
            SinkConfig::Sqlite(tables) if tables.path.exists() => {
                let tables = sqlite_config(config, name, tables);
                match self {
                    Self::Tell => sqlite::lacking(&tables, wanted),
                    Self::Add => sqlite::add_columns(&tables, wanted),
                }
            }
            SinkConfig::Postgres(tables) => {
                let tables = postgres_config(config, name, tables)?;
                let statements = match self {
                    Self::Tell => postgres::lacking(&tables, wanted),
                    Self::Add => postgres::add_columns(&tables, wanted),
                };
                statements.map_err(|error| if_unreachable(config, name, error))
            }
            SinkConfig::Sqlite(_) | SinkConfig::Files(_) | SinkConfig::Kafka(_) => return Ok(Vec::new()),
        };
        statements.with_context(|| format!("sink {name}"))
    }
}

/// Why the tables of a sink would not do even with the columns that [`Columns`] adds; nothing where they would, or there are none.
///
/// # Errors
/// As for [`Columns::of`].
pub(super) fn refused_with_them(
    config: &PipelineConfig,
    name: &SinkName,
    sink: &SinkConfig,
    wanted: &[Wanted],
) -> Result<Vec<Error>> {
    let refused = match sink {
        SinkConfig::Sqlite(tables) if tables.path.exists() => {
            sqlite::refused_with_them(&sqlite_config(config, name, tables), wanted)
        }
        SinkConfig::Postgres(tables) => {
            postgres::refused_with_them(&postgres_config(config, name, tables)?, wanted)
                .map_err(|error| if_unreachable(config, name, error))
        }
        SinkConfig::Sqlite(_) | SinkConfig::Files(_) | SinkConfig::Kafka(_) => return Ok(Vec::new()),
    };
    refused.with_context(|| format!("sink {name}"))
}

/// The statement after which the table in which a sink keeps refused rows says how often a record has come again; nothing where it
/// says so, or is none.
///
/// # Errors
/// If the sink cannot be asked.
pub(super) fn rejects_lack(
    config: &PipelineConfig,
    name: &SinkName,
    sink: &SinkConfig,
) -> Result<Option<String>> {
    let statement = match sink {
        SinkConfig::Sqlite(tables) if tables.path.exists() => {
            sqlite::rejects_lack(&sqlite_config(config, name, tables))
        }
        SinkConfig::Postgres(tables) => postgres::rejects_lack(&postgres_config(config, name, tables)?)
            .map_err(|error| if_unreachable(config, name, error)),
        SinkConfig::Sqlite(_) | SinkConfig::Files(_) | SinkConfig::Kafka(_) => return Ok(None),
    };
    statement.with_context(|| format!("sink {name}"))
}
