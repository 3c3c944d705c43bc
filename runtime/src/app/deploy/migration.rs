//! What tables lack before a plan can have its rows there.

use anyhow::Result;

use super::super::columns::Columns;
use super::super::sinks::{sinks_of, wanted};
use super::Deployment;

/// Statements, by the sink whose tables they change.
pub type Statements = Vec<(String, Vec<String>)>;

impl Deployment {
    /// The statements, by sink, that add the columns which tables lack and rows that are there can do without.
    ///
    /// # Errors
    /// If a sink cannot be asked, or there can be no table for a route.
    pub fn lacking_columns(&self) -> Result<Statements> {
        self.columns(Columns::Tell)
    }

    /// Adds them, all of a sink or none; what was done. The plan that runs goes on with its own columns.
    ///
    /// # Errors
    /// As for [`Self::lacking_columns`], or where a table would not fit all the same: then that sink is as it was.
    pub fn add_columns(&self) -> Result<Statements> {
        self.columns(Columns::Add)
    }

    fn columns(&self, columns: Columns) -> Result<Statements> {
        let mut all = Vec::new();
        for (name, sink) in sinks_of(&self.config, &self.history)? {
            let wanted = wanted(&self.config, self.candidate.description(), name);
            let statements = columns.of(&self.config, name, sink, &wanted)?;
            if !statements.is_empty() {
                all.push((format!("sink {name}"), statements));
            }
        }
        Ok(all)
    }
}
