//! The replay input of a source of files: a directory of files of envelopes, each of them a partition whose number is its name.
//! A file is there whole or not at all, and never changes.

use std::fs;
use std::path::PathBuf;

use super::{Error, Found, Inputs, failed};
use crate::source::format::Format;

/// Of the files' names.
const ENDING: &str = ".jsonl";

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The files, in the order of their numbers.
    pub ours: Vec<(i32, Found)>,
    /// Paths of those that are none of ours.
    pub others: Vec<String>,
}

/// The files in the directory at `path`, which need not be there.
pub fn inputs(path: impl Into<PathBuf>) -> Inputs {
    Inputs::new(path, Some(Format::Envelopes))
}

/// The name of the file that is partition `number`.
pub fn name(number: i32) -> String {
    format!("{number:010}{ENDING}")
}

/// What is in the directory, if there is one.
///
/// # Errors
/// [`Error::Io`], [`Error::PathNotUtf8`].
pub fn list(inputs: &Inputs) -> Result<Listed, Error> {
    let is_there = fs::exists(&inputs.path).map_err(|error| failed("listing", &inputs.path, error))?;
    let found = if is_there { inputs.list()?.found } else { Vec::new() };
    let mut listed = Listed::default();
    for found in found {
        match number_of(&found.path) {
            Some(number) => listed.ours.push((number, found)),
            None => listed.others.push(found.path),
        }
    }
    Ok(listed)
}

fn number_of(path: &str) -> Option<i32> {
    let number = path.strip_suffix(ENDING)?.parse().ok()?;
    // No other name says the same number, nor one below zero.
    (number >= 0 && name(number) == path).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_partitions_by_their_names_and_any_other_is_none() {
        let root = tempfile::tempdir().unwrap();
        let inputs = inputs(root.path().join("replay"));
        assert_eq!(list(&inputs).unwrap(), Listed::default());
        fs::create_dir(root.path().join("replay")).unwrap();
        let others = ["1.jsonl", "-000000001.jsonl", "0000000003.json", "a.jsonl", "9999999999.jsonl"];
        let names = ["0000000010.jsonl", "0000000002.jsonl", ".0000000004.tmp"];
        for name in others.iter().chain(&names) {
            fs::write(root.path().join("replay").join(name), "").unwrap();
        }
        let Listed { ours, others: left_out } = list(&inputs).unwrap();
        let ours: Vec<_> = ours.iter().map(|(number, found)| (*number, found.path.as_str())).collect();
        assert_eq!(ours, [(2, "0000000002.jsonl"), (10, "0000000010.jsonl")]);
        assert_eq!(left_out.len(), others.len(), "{left_out:?}");
        assert_eq!(name(i32::MAX), "2147483647.jsonl");
    }
}
