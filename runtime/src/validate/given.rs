//! Holds the settings and tables of a command line against what the transform declares. Whether their values make
//! sense is for the transform to say.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use crate::config::nearest;
use crate::description::{Description, Setting, TableNeed};
use crate::tables::{Table, TableError, TableOptions, file};

/// Every setting is declared, is given once, and has one of its choices; every required one is given.
///
/// # Errors
/// [`Error::Wrong`] with what may be meant.
pub(super) fn check_settings(description: &Description, given: &[(String, String)]) -> Result<(), Error> {
    for (i, (key, value)) in given.iter().enumerate() {
        if given[..i].iter().any(|(other, _)| other == key) {
            return Err(Error::wrong(format!("the setting `{key}` is given twice"), "give it once"));
        }
        let Some(setting) = description.settings.iter().find(|setting| setting.key == *key) else {
            let keys = description.settings.iter().map(|setting| setting.key.as_str());
            let text = format!("the transform {} has no setting `{key}`", description.name);
            return Err(Error::Wrong { text, hint: nearest::hint(key, keys) });
        };
        check_choice(setting, value)?;
    }
    let missing = |s: &&Setting| s.default.is_none() && given.iter().all(|(key, _)| *key != s.key);
    match description.settings.iter().find(missing) {
        None => Ok(()),
        Some(setting) => {
            let text = format!(
                "the transform {} needs the setting `{}`{}",
                description.name,
                setting.key,
                doc(&setting.doc)
            );
            Err(Error::wrong(text, &format!("give it with `--set {}=VALUE`", setting.key)))
        }
    }
}

fn check_choice(setting: &Setting, value: &str) -> Result<(), Error> {
    match &setting.choices {
        Some(choices) if choices.iter().all(|choice| choice != value) => {
            let text = format!("the setting `{}` cannot be `{value}`", setting.key);
            Err(Error::wrong(text, &format!("it is one of: {}", choices.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The tables that the transform declares, from the files given by name.
///
/// # Errors
/// [`Error::Wrong`] where a required table is not given, a given one not declared, or a file not such a table;
/// [`Error::Unreadable`].
pub(super) fn load_tables(
    description: &Description,
    given: &[(String, PathBuf)],
) -> Result<Vec<Arc<Table>>, Error> {
    let declared = || description.tables.iter().map(|need| need.name.as_str());
    if let Some((name, _)) = given.iter().find(|(name, _)| !declared().any(|other| other == name)) {
        let text = format!("the transform {} wants no table `{name}`", description.name);
        return Err(Error::Wrong { text, hint: nearest::hint(name, declared()) });
    }
    let mut tables = Vec::new();
    for need in &description.tables {
        match given.iter().rev().find(|(name, _)| *name == need.name) {
            Some((_, path)) => tables.push(Arc::new(load(need, path)?)),
            None if need.required => return Err(missing(description, need)),
            None => {}
        }
    }
    Ok(tables)
}

fn load(need: &TableNeed, path: &PathBuf) -> Result<Table, Error> {
    let bytes = fs::read(path)
        .map_err(|e| Error::of_file(format!("reading `{}` failed: {e}", path.display()), &e))?;
    let wrong = |e: TableError| Error::Wrong { text: format!("`{}`: {e}", path.display()), hint: None };
    file::load(need, &bytes, &TableOptions::default()).map_err(wrong)
}

fn missing(description: &Description, need: &TableNeed) -> Error {
    let columns: Vec<&str> = need.columns.iter().map(|column| column.name.as_str()).collect();
    let text =
        format!("the transform {} needs the table `{}`{}", description.name, need.name, doc(&need.doc));
    let with = if columns.len() == 1 { "the column" } else { "the columns" };
    let hint = format!(
        "give it with `--table {}=FILE`: a CSV or Parquet file with {with} {}",
        need.name,
        columns.join(", ")
    );
    Error::wrong(text, &hint)
}

fn doc(doc: &str) -> String {
    if doc.is_empty() { String::new() } else { format!(": {doc}") }
}
