//! Which files a file source has, and that they are written down before they are read.

mod replays;

use std::sync::Arc;

use anyhow::{Context, Result};

use super::Options;
use super::logs::{Inner, SharedLog};
use crate::budget::Budget;
use crate::config::{FilesSource, PipelineConfig, SourceFormat};
use crate::offset::TopicPartition;
use crate::plan::{self, Entry, History, InputPartition, PlanLog};
use crate::sink::state::{Epoch, Nonce};
use crate::source;
use crate::source::files::{Discover, FileEntry, FileSettings, FileSource, Inputs, Known, Roots, reconcile};
use crate::source::format::Format;
pub(super) use replays::Replays;

/// The source's word for a format of the pipeline file.
pub(super) fn format_of(format: SourceFormat) -> Format {
    match format {
        SourceFormat::Csv => Format::Csv,
        SourceFormat::Jsonl => Format::JsonLines,
        SourceFormat::Raw => Format::Raw,
    }
}

/// The source, with its files written down and an epoch that no process had before.
pub(super) fn file_source(
    config: &PipelineConfig,
    source: &FilesSource,
    options: &Options,
    log: &SharedLog,
    budget: &Budget,
    owner: Nonce,
) -> Result<FileSource> {
    let inputs = Inputs::new(&source.path, source.format.map(format_of));
    discover(log, &inputs).context("looking for input files")?;
    let mut replays = Replays::new(config);
    let again = replays.discover(log).context("looking for records that come again")?;
    let (generation, topic_id) = begin(log, owner)?;
    let settings = FileSettings {
        topic: source.topic.as_str().into(),
        replay: replays.topic().clone(),
        replay_id: format!("{topic_id}-replay").into(),
        topic_id,
        group: config.name.as_str().into(),
        epoch: Epoch::new(generation),
        batch_records: config.limits.batch_records.get() as usize,
        batch_bytes: config.limits.batch_bytes.bytes() as usize,
        once: options.once,
    };
    let (entries, started) = {
        let history = &log.lock().history;
        let at = |of: &InputPartition| {
            let topic = of.topic.clone().unwrap_or_else(|| settings.topic.clone());
            TopicPartition { topic, partition: of.partition }
        };
        let started = history.started.keys().map(at).collect();
        (unfinished(history).into_iter().chain(again).collect(), started)
    };
    let roots = Roots { inputs: inputs.clone(), replays: replays.inputs().clone() };
    let discover = discoverer(log.clone(), inputs, replays);
    Ok(FileSource::new(settings, roots, budget.clone(), entries, started, discover))
}

/// Writes down that this process begins: every claim of it carries the number it gets.
fn begin(log: &SharedLog, owner: Nonce) -> Result<(u64, Arc<str>)> {
    let mut inner = log.lock();
    let Inner { history, log, .. } = &mut *inner;
    history.append(log.as_mut(), |history| {
        history.topic_id.is_none().then(|| Entry::Topic { id: Nonce::random().to_string().into() })
    })?;
    history.append(log.as_mut(), |history| {
        let runtime = env!("CARGO_PKG_VERSION").to_owned();
        Some(Entry::Start { generation: history.generation + 1, owner, runtime })
    })?;
    let topic_id = history.topic_id.clone().expect("just written");
    Ok((history.generation, topic_id))
}

/// Looks for files, checks those that are known, gives numbers to those that are not, and writes them down.
/// Returns the new ones.
fn discover(log: &SharedLog, inputs: &Inputs) -> Result<Vec<FileEntry>, source::Error> {
    let mut inner = log.lock();
    let Inner { history, log, .. } = &mut *inner;
    // The deciding thread writes to the plan log as well, without this history.
    history.catch_up(log.as_mut()).map_err(of_log)?;
    take_in(history, log.as_mut(), inputs)
}

fn take_in(
    history: &mut History,
    log: &mut dyn PlanLog,
    inputs: &Inputs,
) -> Result<Vec<FileEntry>, source::Error> {
    let listing = inputs.list()?;
    for path in &listing.unknown {
        tracing::warn!(path, "left out: its name does not tell a format");
    }
    let reconciled = reconcile(&known(history), &listing.found)?;
    let mut touched = Vec::new();
    for recheck in reconciled.recheck {
        let digest = inputs.digest(&recheck.found)?;
        touched.push(recheck.confirm(&digest)?);
    }
    let mut new = Vec::new();
    for file in reconciled.new {
        let digest = inputs.digest(&file.found)?;
        new.push(file.entry(digest));
    }
    let files = [touched, new.clone()].concat();
    // Asked again whenever another entry took the place: the files are still to be written down.
    let entry = |_: &History| (!files.is_empty()).then(|| Entry::Inputs { files: files.clone() });
    history.append(log, entry).map_err(of_log)?;
    Ok(new)
}

fn of_log(error: plan::Error) -> source::Error {
    match error {
        plan::Error::Io { what, source } => source::Error::Io { what, source },
        other => source::Error::Input { text: other.to_string(), hint: None },
    }
}

/// The same, for a source to call now and then.
fn discoverer(log: SharedLog, inputs: Inputs, mut replays: Replays) -> Discover {
    Box::new(move || {
        // Those of the input are written down by now: an error must not lose them.
        let (new, again) = (discover(&log, &inputs), replays.discover(&log));
        match (new, again) {
            (Ok(new), Ok(again)) => Ok([new, again].concat()),
            (Ok(found), Err(error)) | (Err(error), Ok(found)) => {
                tracing::error!(%error, "looking for new files");
                Ok(found)
            }
            (Err(error), Err(_)) => Err(error),
        }
    })
}

/// The files whose partitions are not finished. Files that are a record each are never finished.
fn unfinished(history: &History) -> Vec<FileEntry> {
    let open = |entry: &&FileEntry| entry.format == Format::Raw || !is_done(history, entry);
    history.inputs.iter().filter(open).cloned().collect()
}

fn is_done(history: &History, entry: &FileEntry) -> bool {
    history.done.contains_key(&InputPartition::file(entry.partition))
}

fn known(history: &History) -> Vec<Known> {
    let known = |entry: &FileEntry| Known {
        entry: entry.clone(),
        done: entry.format != Format::Raw && is_done(history, entry),
    };
    history.inputs.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::memory::MemoryLog;

    /// A log in which somebody else is faster once.
    struct Overtaken {
        log: MemoryLog,
        other: Option<Entry>,
    }

    impl PlanLog for Overtaken {
        fn read(&mut self, from: u64) -> Result<Vec<(u64, Entry)>, plan::Error> {
            self.log.read(from)
        }

        fn put(&mut self, at: u64, entry: &Entry) -> Result<bool, plan::Error> {
            match self.other.take() {
                Some(other) => self.log.put(at, &other).map(|_| false),
                None => self.log.put(at, entry),
            }
        }
    }

    #[test]
    fn new_files_are_written_down_also_when_another_entry_slips_in() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.csv"), "id\n1\n").unwrap();
        let inputs = Inputs::new(root.path(), None);
        let other = Entry::Started { topic: None, partitions: vec![7], sinks: Vec::new() };
        let mut log = Overtaken { log: MemoryLog::default(), other: Some(other) };
        let mut history = History::default();
        let new = take_in(&mut history, &mut log, &inputs).unwrap();
        let mut reread = History::default();
        reread.catch_up(&mut log).unwrap();
        assert_eq!((new.len(), &reread.inputs), (1, &new));
        assert!(reread.started.contains_key(&InputPartition::file(7)));
        assert_eq!(take_in(&mut reread, &mut log, &inputs).unwrap(), []);
    }

    #[test]
    fn a_medium_that_fails_is_told_from_an_input_that_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let (mut history, mut log) = (History::default(), MemoryLog::default());
        let gone = Inputs::new(root.path().join("none"), None);
        let error = take_in(&mut history, &mut log, &gone).unwrap_err();
        assert!(matches!(error, source::Error::Io { .. }), "{error}");
        std::fs::write(root.path().join("a.dat"), "").unwrap();
        let unknown = Inputs::new(root.path().join("a.dat"), None);
        let error = take_in(&mut history, &mut log, &unknown).unwrap_err();
        assert!(matches!(error, source::Error::Input { .. }), "{error}");
    }
}
