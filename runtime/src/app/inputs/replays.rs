//! The files of records that come again, which a command puts into the state directory of a pipeline that reads files. Their
//! numbers are in their names, so nothing has to be written down of them before they are read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::logs::{Inner, SharedLog};
use super::super::state_dir::replays_in;
use super::of_log;
use crate::config::PipelineConfig;
use crate::origin::replay_topic;
use crate::plan::files::sync_dir;
use crate::plan::{History, InputPartition};
use crate::source;
use crate::source::files::replays::{self, Listed};
use crate::source::files::{Error, FileEntry, Inputs, NewFile};

/// What a pipeline has in its replay input, as far as it was looked at.
pub(in crate::app) struct Replays {
    topic: Arc<str>,
    dir: PathBuf,
    inputs: Inputs,
    /// Those that were found, or are finished.
    seen: BTreeSet<i32>,
    /// That are none of ours, and were told.
    others: BTreeSet<String>,
}

impl Replays {
    pub(in crate::app) fn new(config: &PipelineConfig) -> Self {
        let (dir, topic) = (replays_in(&config.state), replay_topic(config.name.as_str()).into());
        let inputs = replays::inputs(&dir);
        Self { topic, dir, inputs, seen: BTreeSet::new(), others: BTreeSet::new() }
    }

    pub(in crate::app) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub(in crate::app) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(in crate::app) fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The number behind all that there are, or that the log has heard of: one whose file is gone is not given again.
    pub(in crate::app) fn next(&self, history: &History) -> Result<i32, Error> {
        let found = replays::list(&self.inputs)?.ours;
        let heard = history.started.keys().chain(history.done.keys());
        let heard = heard.filter(|of| of.topic.as_ref() == Some(&self.topic)).map(|of| of.partition);
        match found.iter().map(|(number, _)| *number).chain(heard).max() {
            None => Ok(0),
            Some(last) => {
                let path = || self.dir.display().to_string();
                last.checked_add(1).ok_or_else(|| Error::TooMany { path: path() })
            }
        }
    }

    /// Files that it has not found before, and that some sink may not have all of.
    pub(super) fn discover(&mut self, log: &SharedLog) -> Result<Vec<FileEntry>, source::Error> {
        let mut inner = log.lock();
        let Inner { history, log, .. } = &mut *inner;
        history.catch_up(log.as_mut()).map_err(of_log)?;
        self.look(history)
    }

    fn look(&mut self, history: &History) -> Result<Vec<FileEntry>, source::Error> {
        let Listed { ours: found, others } = replays::list(&self.inputs)?;
        for path in others.into_iter().filter(|path| self.others.insert(path.clone())) {
            tracing::warn!(dir = %self.dir.display(), path, "left out: it is no file of the replay input");
        }
        let of = |number| InputPartition { topic: Some(self.topic.clone()), partition: number };
        let there: BTreeSet<i32> = found.iter().map(|(number, _)| *number).collect();
        let begun = history.started.keys().filter(|begun| begun.topic.as_ref() == Some(&self.topic));
        let mut left = begun.filter(|begun| !history.done.contains_key(begun));
        if let Some(gone) = left.find(|begun| !there.contains(&begun.partition)) {
            let partition = gone.partition;
            let path = self.dir.join(replays::name(partition)).display().to_string();
            return Err(Error::Gap { path, partition }.into());
        }
        let is_new = |number: &i32| !self.seen.contains(number) && !history.done.contains_key(&of(*number));
        let found: Vec<_> = found.into_iter().filter(|(number, _)| is_new(number)).collect();
        if !found.is_empty() {
            // What is read has to be there still after the machine lost its power: else it would be put there once more.
            let what = || format!("syncing {}", self.dir.display());
            sync_dir(&self.dir).map_err(|source| source::Error::Io { what: what(), source })?;
        }
        let mut new = Vec::new();
        for (partition, found) in found {
            let digest = self.inputs.digest(&found)?;
            new.push(NewFile { partition, found }.entry(digest));
        }
        self.seen.extend(new.iter().map(|entry| entry.partition));
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::offset::Offset;

    fn replays(dir: &Path) -> Replays {
        let topic: Arc<str> = "weir.p.replay".into();
        let (dir, others) = (dir.to_owned(), BTreeSet::new());
        Replays { inputs: replays::inputs(&dir), dir, topic, seen: BTreeSet::new(), others }
    }

    fn of(partition: i32) -> InputPartition {
        InputPartition { topic: Some("weir.p.replay".into()), partition }
    }

    fn numbers(found: Vec<FileEntry>) -> Vec<i32> {
        found.iter().map(|entry| entry.partition).collect()
    }

    #[test]
    fn a_file_is_found_once_and_not_at_all_when_every_sink_has_it() {
        let root = tempfile::tempdir().unwrap();
        let mut ours = replays(root.path());
        let mut history = History::default();
        history.done.insert(of(0), Offset::new(1));
        for number in 0..3 {
            fs::write(root.path().join(replays::name(number)), "{}\n").unwrap();
        }
        assert_eq!(numbers(ours.look(&history).unwrap()), [1, 2]);
        assert!(ours.look(&history).unwrap().is_empty());
        fs::write(root.path().join(replays::name(3)), "{}\n").unwrap();
        assert_eq!(numbers(ours.look(&history).unwrap()), [3]);
    }

    #[test]
    fn a_file_that_is_gone_before_every_sink_has_it_is_told_and_its_number_is_never_given_again() {
        let root = tempfile::tempdir().unwrap();
        let mut ours = replays(&root.path().join("none"));
        let mut history = History::default();
        assert_eq!(ours.next(&history).unwrap(), 0);
        history.started.insert(of(4), BTreeSet::new());
        // A partition of the input is another one.
        history.started.insert(InputPartition::file(9), BTreeSet::new());
        let error = ours.look(&history).unwrap_err().to_string();
        assert!(error.contains("E_INPUT_GAP") && error.contains("0000000004.jsonl"), "{error}");
        history.done.insert(of(4), Offset::new(1));
        assert!(ours.look(&history).unwrap().is_empty());
        assert_eq!(ours.next(&history).unwrap(), 5);
    }
}
