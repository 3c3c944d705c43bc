//! Which file is which partition, for good, and what may become of a file. It finds no file by itself.

use std::collections::BTreeMap;
use std::fs::File;

use serde::{Deserialize, Serialize};

use super::{Error, Found};
use crate::sink::state::Input;
use crate::source::format::Format;

/// A file as it was first seen; what the plan log keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its number by first sight, from 0. Under [`Format::Raw`] all files are one partition, and this is the
    /// offset of the file's record in it.
    pub partition: i32,
    /// Below the source.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// Nanoseconds since 1970-01-01T00:00:00Z. Only a hint that the bytes need no second look.
    pub modified_ns: i64,
    /// `sha256:` and the digest of all bytes.
    pub digest: String,
    /// How it is read.
    pub format: Format,
}

impl FileEntry {
    /// What the sinks keep of it.
    pub fn input(&self) -> Input {
        Input { path: self.path.clone(), length: self.length, digest: self.digest.clone() }
    }

    /// Whether `file`, opened, is as long as it was.
    ///
    /// # Errors
    /// [`Error::Length`] if not; [`Error::Io`].
    pub(super) fn check_length(&self, file: &File) -> Result<(), Error> {
        let path = || self.path.clone();
        let metadata = file.metadata();
        let length = metadata.map_err(|source| Error::Io { tried: "reading", path: path(), source })?.len();
        match length == self.length {
            true => Ok(()),
            false => Err(Error::Length { path: path(), was: self.length, is: length }),
        }
    }
}

/// A file of the plan log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// As it was first seen.
    pub entry: FileEntry,
    /// Whether every sink has its end.
    pub done: bool,
}

/// What is to be done before reading begins: hash these, write the entries down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Never seen before, by partition.
    pub new: Vec<NewFile>,
    /// Seen before, of the same length, but written since: perhaps only copied.
    pub recheck: Vec<Recheck>,
}

/// A file that gets a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// See [`FileEntry::partition`].
    pub partition: i32,
    /// As it was listed.
    pub found: Found,
}

impl NewFile {
    /// What to write down, given what [`super::Inputs::digest`] says of the file.
    pub fn entry(self, digest: String) -> FileEntry {
        let Found { path, length, modified_ns, format } = self.found;
        FileEntry { partition: self.partition, path, length, modified_ns, digest, format }
    }
}

/// A file whose digest has to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// As it was first seen.
    pub entry: FileEntry,
    /// As it was listed now.
    pub found: Found,
}

impl Recheck {
    /// The entry with its new time, so that it need not be looked at again.
    ///
    /// # Errors
    /// [`Error::Digest`] if it is another file.
    pub fn confirm(self, digest: &str) -> Result<FileEntry, Error> {
        let Self { entry, found } = self;
        if entry.digest != digest {
            return Err(Error::Digest { path: entry.path, was: entry.digest, is: digest.to_owned() });
        }
        Ok(FileEntry { modified_ns: found.modified_ns, ..entry })
    }
}

/// Compares what was known with what is there.
///
/// New files are numbered on from the highest known number, in the order of their paths. Nothing renumbers a
/// known file, and the order of the arguments makes no difference.
///
/// # Errors
/// [`Error::Gap`] for a file that is gone and not done; [`Error::Length`] and [`Error::Format`] for one that is
/// another now, done or not, since somebody expects the change to be read; of several, the one with the lowest
/// partition. Before these, [`Error::Mixed`] if only one of a known file and one that is there, whichever they are,
/// is read as [`Format::Raw`]. [`Error::TooMany`].
pub fn reconcile(known: &[Known], found: &[Found]) -> Result<Reconciled, Error> {
    let known: BTreeMap<i32, &Known> = known.iter().map(|k| (k.entry.partition, k)).collect();
    let mut found: BTreeMap<&str, &Found> = found.iter().map(|f| (f.path.as_str(), f)).collect();
    check_mix(&known, &found)?;
    let mut reconciled = Reconciled::default();
    for known in known.values() {
        let entry = &known.entry;
        match found.remove(entry.path.as_str()) {
            Some(found) => reconciled.recheck.extend(compare(entry, found)?),
            None if known.done => {}
            None => return Err(Error::Gap { path: entry.path.clone(), partition: entry.partition }),
        }
    }
    let mut last = known.last_key_value().map(|(&partition, _)| partition);
    for found in found.into_values() {
        let partition = last.map_or(Some(0), |n| n.checked_add(1));
        let partition = partition.ok_or_else(|| Error::TooMany { path: found.path.clone() })?;
        reconciled.new.push(NewFile { partition, found: found.clone() });
        last = Some(partition);
    }
    Ok(reconciled)
}

fn check_mix(known: &BTreeMap<i32, &Known>, found: &BTreeMap<&str, &Found>) -> Result<(), Error> {
    for raw in [true, false] {
        let known = known.values().find(|known| (known.entry.format == Format::Raw) == raw);
        let found = found.values().find(|found| (found.format == Format::Raw) != raw);
        if let (Some(Known { entry, .. }), Some(found)) = (known, found) {
            let (known, path) = (entry.path.clone(), found.path.clone());
            return Err(Error::Mixed { known, was: entry.format, path, is: found.format });
        }
    }
    Ok(())
}

fn compare(entry: &FileEntry, found: &Found) -> Result<Option<Recheck>, Error> {
    let path = || entry.path.clone();
    if entry.length != found.length {
        return Err(Error::Length { path: path(), was: entry.length, is: found.length });
    }
    if entry.format != found.format {
        return Err(Error::Format { path: path(), was: entry.format, is: found.format });
    }
    let same_time = entry.modified_ns == found.modified_ns;
    Ok((!same_time).then(|| Recheck { entry: entry.clone(), found: found.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(path: &str) -> Found {
        Found { path: path.to_owned(), length: 10, modified_ns: 1, format: Format::Csv }
    }

    fn known(partition: i32, path: &str, done: bool) -> Known {
        let new = NewFile { partition, found: found(path) };
        Known { entry: new.entry("sha256:0".to_owned()), done }
    }

    fn numbers(reconciled: &Reconciled) -> Vec<(i32, &str)> {
        reconciled.new.iter().map(|n| (n.partition, n.found.path.as_str())).collect()
    }

    fn check_error(known: &[Known], found: &[Found], expected: &str) {
        let error = reconcile(known, found).expect_err("it is refused").to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn new_files_are_numbered_on_in_the_order_of_their_paths() {
        let old = [known(3, "b", false), known(0, "gone", true)];
        let reconciled = reconcile(&old, &[found("c"), found("b"), found("a")]).unwrap();
        assert_eq!(numbers(&reconciled), [(4, "a"), (5, "c")]);
        assert_eq!(reconciled.recheck, []);
    }

    #[test]
    fn a_file_may_go_only_when_all_sinks_have_its_end() {
        assert_eq!(reconcile(&[known(0, "a", true)], &[]).unwrap(), Reconciled::default());
        check_error(&[known(0, "a", false)], &[], "E_INPUT_GAP: a (partition 0) is gone");
    }

    #[test]
    fn a_changed_file_is_refused_with_both_lengths_even_if_it_is_done() {
        let longer = Found { length: 12, ..found("a") };
        for done in [false, true] {
            let text = "E_INPUT_CHANGED: a had 10 bytes when it was first seen and has 12 bytes now";
            check_error(&[known(0, "a", done)], std::slice::from_ref(&longer), text);
        }
        let other = Found { format: Format::JsonLines, ..found("a") };
        check_error(
            &[known(0, "a", false)],
            &[other],
            "E_INPUT_CHANGED: a was begun as csv and cannot go on as jsonl",
        );
    }

    #[test]
    fn files_that_are_a_record_each_are_never_mixed_with_others_even_if_those_are_done() {
        let raw = Found { format: Format::Raw, ..found("b") };
        for done in [false, true] {
            let text = "E_INPUT_CHANGED: a was read as csv, and b is to be read as raw";
            check_error(&[known(0, "a", done)], std::slice::from_ref(&raw), text);
        }
        let new = NewFile { partition: 0, found: raw };
        let old = Known { entry: new.entry("sha256:0".to_owned()), done: false };
        check_error(&[old], &[found("a")], "E_INPUT_CHANGED: b was read as raw, and a is to be read as csv");
    }

    #[test]
    fn a_file_written_since_is_the_same_if_its_digest_is() {
        let touched = Found { modified_ns: 2, ..found("a") };
        let reconciled = reconcile(&[known(0, "a", false)], &[touched]).unwrap();
        let recheck = reconciled.recheck[0].clone();
        assert_eq!(recheck.clone().confirm("sha256:0").unwrap().modified_ns, 2);
        let error = recheck.confirm("sha256:1").unwrap_err().to_string();
        assert!(error.starts_with("E_INPUT_CHANGED: a had digest sha256:0 when"), "{error}");
    }

    #[test]
    fn the_last_partition_number_is_not_wrapped_around() {
        check_error(&[known(i32::MAX, "a", true)], &[found("b")], "there is no partition number left for b");
    }

    #[test]
    fn an_entry_comes_back_from_the_plan_log_as_it_was() {
        let entry = known(2, "d/ä.csv", false).entry;
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            r#"{"partition":2,"path":"d/ä.csv","length":10,"modified_ns":1,"digest":"sha256:0","format":"csv"}"#
        );
        assert_eq!(serde_json::from_str::<FileEntry>(&text).unwrap(), entry);
    }

    proptest! {
        #[test]
        fn every_file_gets_one_partition_and_keeps_it(days in prop::collection::vec(prop::collection::btree_set("[a-d]{1,2}", 0..6), 1..6)) {
            let mut log: Vec<Known> = Vec::new();
            for day in &days {
                log.iter_mut().for_each(|k| k.done = true);
                let listed: Vec<Found> = day.iter().rev().map(|p| found(p)).collect();
                let before = log.clone();
                let reconciled = reconcile(&log, &listed).unwrap();
                log.extend(reconciled.new.into_iter().map(|n| Known { entry: n.entry("sha256:0".to_owned()), done: false }));
                prop_assert!(log.iter().zip(&before).all(|(now, then)| now.entry == then.entry));
                prop_assert!(log.iter().map(|k| k.entry.partition).eq(0..log.len() as i32));
                prop_assert!(day.iter().all(|p| log.iter().filter(|k| k.entry.path == *p).count() == 1));
                prop_assert_eq!(reconcile(&log, &listed).unwrap(), Reconciled::default());
            }
        }
    }
}
