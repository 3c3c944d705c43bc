//! The text of a pipeline file as a TOML tree in which every key and value knows where it stands. Never knows
//! which keys there should be.

use std::ops::Range;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::diagnostic::Diagnostic;

/// A well-formed TOML document.
pub(super) struct Document<'a> {
    root: Spanned<DeValue<'a>>,
}

impl<'a> Document<'a> {
    /// Refuses text that is not TOML, with all that is wrong in it.
    pub(super) fn parse(text: &'a str) -> Result<Self, Vec<Diagnostic>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { root: Spanned::new(root.span(), DeValue::Table(root.into_inner())) });
        }
        let mut found: Vec<Diagnostic> = Vec::new();
        for error in errors {
            let consequence = found.last().is_some_and(|last| is_consequence(text, last, &error));
            found.extend((!consequence).then(|| syntax_error(text, &error)));
        }
        Err(found)
    }

    pub(super) fn root(&self) -> &DeTable<'a> {
        self.root.get_ref().as_table().expect("the root of a document is a table")
    }

    pub(super) fn deserialize<T: Deserialize<'a>>(&self) -> Result<T, Diagnostic> {
        T::deserialize(ValueDeserializer::from(self.root.clone()))
            .map_err(|error| Diagnostic::error(error.span(), error.message()))
    }

    /// Where the last key of `path` stands, such as `lake` in `[sinks.lake.files]`.
    pub(super) fn key(&self, path: &[&str]) -> Option<Range<usize>> {
        let (last, tables) = path.split_last()?;
        let (key, _) = self.value(tables)?.as_table()?.get_key_value(*last)?;
        Some(key.span())
    }

    /// Where the value at `path` stands; for a table with a header of its own that is the header. A
    /// list is entered by the index in digits.
    pub(super) fn place(&self, path: &[&str]) -> Option<Range<usize>> {
        let (last, before) = path.split_last()?;
        Some(entry(self.value(before)?, last)?.span())
    }

    fn value(&self, path: &[&str]) -> Option<&DeValue<'a>> {
        path.iter().try_fold(self.root.get_ref(), |value, key| Some(entry(value, key)?.get_ref()))
    }
}

fn entry<'v, 'a>(value: &'v DeValue<'a>, key: &str) -> Option<&'v Spanned<DeValue<'a>>> {
    match value {
        DeValue::Table(table) => table.get(key),
        DeValue::Array(list) => list.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The parser's own words.
const DUPLICATE: &str = "duplicate key";

fn syntax_error(text: &str, error: &toml::de::Error) -> Diagnostic {
    let Some(place) = error.span() else { return Diagnostic::error(None, error.message()) };
    if error.message() != DUPLICATE {
        return Diagnostic::error(Some(place), error.message());
    }
    let found = Diagnostic::error(Some(place.clone()), format!("duplicate key `{}`", &text[place.clone()]));
    let start = text[..place.start].rfind('\n').map_or(0, |newline| newline + 1);
    let head = defines(text[start..].lines().next().unwrap_or(""));
    let before: Vec<_> = text[..start].lines().map(defines).collect();
    match before.iter().rposition(|line| *line == head) {
        Some(i) if head.starts_with('[') => found.help(format!("{head} is already on line {}", i + 1)),
        Some(i) => found.help(format!("`{head}` is already on line {}", i + 1)),
        None => found,
    }
}

/// A table given twice has its keys twice.
fn is_consequence(text: &str, last: &Diagnostic, error: &toml::de::Error) -> bool {
    let (Some(last), Some(place)) = (&last.place, error.span()) else { return false };
    let line = text[..last.start].rfind('\n').map_or(0, |newline| newline + 1);
    let between = text.get(last.start..place.start).unwrap_or("");
    error.message() == DUPLICATE && text[line..].starts_with('[') && !between.contains("\n[")
}

/// What a line gives a value to: the key, or the table in its brackets.
fn defines(line: &str) -> &str {
    let line = line.trim();
    match line.rfind(']') {
        Some(end) if line.starts_with('[') => &line[..=end],
        _ => line.split('=').next().unwrap_or("").trim(),
    }
}
