//! Which files a file source has, and that they are written down before they are read.

use anyhow::Result;

use super::SharedLog;
use crate::config::SourceFormat;
use crate::plan::{Entry, History};
use crate::source::files::{Discover, FileEntry, Found, Inputs, Known, reconcile};
use crate::source::format::Format;
use crate::source::{self};

/// The source's word for a format of the pipeline file.
pub(super) fn format_of(format: SourceFormat) -> Format {
    match format {
        SourceFormat::Csv => Format::Csv,
        SourceFormat::Jsonl => Format::JsonLines,
        SourceFormat::Raw => Format::Raw,
    }
}

/// Looks for files, checks those that are known, gives numbers to those that are not, and writes them down.
/// Returns the new ones.
pub(super) fn discover(log: &SharedLog, inputs: &Inputs) -> Result<Vec<FileEntry>, source::Error> {
    let listing = inputs.list().map_err(|e| source::Error::of(&e))?;
    for path in &listing.unknown {
        tracing::warn!(path, "left out: its name does not tell a format");
    }
    let mut held = log.lock().expect("nobody panics with the log in hand");
    let (history, log) = &mut *held;
    let reconciled = reconcile(&known(history), &listing.found).map_err(|e| source::Error::of(&e))?;
    let digest = |found: &Found| inputs.digest(found).map_err(|e| source::Error::of(&e));
    let mut touched = Vec::new();
    for recheck in reconciled.recheck {
        let digest = digest(&recheck.found)?;
        touched.push(recheck.confirm(&digest).map_err(|e| source::Error::of(&e))?);
    }
    let mut new = Vec::new();
    for file in reconciled.new {
        let digest = digest(&file.found)?;
        new.push(file.entry(digest));
    }
    let mut files = Some([touched, new.clone()].concat()).filter(|files| !files.is_empty());
    history
        .append(log, |_| files.take().map(|files| Entry::Inputs { files }))
        .map_err(|e| source::Error::of(&e))?;
    Ok(new)
}

/// The same, for a source to call now and then.
pub(super) fn discoverer(log: SharedLog, inputs: Inputs) -> Discover {
    Box::new(move || {
        // Another thread writes to the plan log, through a view of its own; this one has to catch up with it.
        {
            let mut held = log.lock().expect("nobody panics with the log in hand");
            let (history, log) = &mut *held;
            history.catch_up(log).map_err(|e| source::Error::of(&e))?;
        }
        discover(&log, &inputs)
    })
}

/// The files whose partitions are not finished. Files that are a record each are never finished.
pub(super) fn unfinished(history: &History) -> Vec<FileEntry> {
    let open =
        |entry: &&FileEntry| entry.format == Format::Raw || !history.done.contains_key(&entry.partition);
    history.inputs.iter().filter(open).cloned().collect()
}

fn known(history: &History) -> Vec<Known> {
    let known = |entry: &FileEntry| Known {
        entry: entry.clone(),
        done: entry.format != Format::Raw && history.done.contains_key(&entry.partition),
    };
    history.inputs.iter().map(known).collect()
}
