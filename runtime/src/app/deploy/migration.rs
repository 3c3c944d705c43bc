//! What tables lack before a plan can have its rows there.

use anyhow::Result;

use super::super::columns::{Columns, refused_with_them};
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

    /// What sinks would refuse even if their tables had the columns that these statements add, and why. Of a sink that lacks some
    /// only columns are looked at: rights, keys and its other tables are once it has them.
    ///
    /// # Errors
    /// As for [`Self::lacking_columns`].
    pub fn refused_with(&self, statements: &Statements) -> Result<Vec<(String, anyhow::Error)>> {
        // What lacks a column is refused for that as it is.
        let is_of = |what: &str, sink: &str| what.strip_prefix(sink).is_some_and(|of| of.starts_with(", "));
        let mut refused = self.refused_by_sinks();
        refused.retain(|(what, _)| !statements.iter().any(|(sink, _)| is_of(what, sink)));
        for (name, sink) in sinks_of(&self.config, &self.history)? {
            let called = format!("sink {name}");
            if statements.iter().any(|(sink, _)| *sink == called) {
                let wanted = wanted(&self.config, self.candidate.description(), name);
                let of_sink = refused_with_them(&self.config, name, sink, &wanted)?;
                refused.extend(of_sink.into_iter().map(|error| (called.clone(), error.into())));
            }
        }
        Ok(refused)
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
