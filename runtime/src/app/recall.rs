//! Records of a pipeline's input that are read once more where they stand. Nothing is changed by it.

mod last;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

use anyhow::{Context, Result, ensure};

use super::{inputs, topics};
use crate::batch::{Batch, BatchBuilder, RecordRef};
use crate::budget::Permit;
use crate::config::{FilesSource, KafkaSource, PipelineConfig, SourceConfig};
use crate::kafka::pick::pick;
use crate::offset::{Offset, TopicPartition};
use crate::plan::History;
use crate::source::files::{Found as Listed, Inputs};
use crate::source::format::{Format, Options as Reading, RecordReader};

pub(super) use last::{Last, last, now};

/// Called with each record.
pub(super) type Each<'a> = &'a mut dyn FnMut(Offset, RecordRef<'_>) -> Result<()>;

/// Hands the records of a partition at `offsets` to `each`, in their order, as far as they are still there. Of each of the others,
/// why it is not, for people.
///
/// # Errors
/// If a cluster cannot be asked or a file that is there cannot be read, and those of `each`.
pub(super) fn records(
    config: &PipelineConfig,
    history: &History,
    at: &TopicPartition,
    offsets: &BTreeSet<Offset>,
    each: Each<'_>,
) -> Result<BTreeMap<Offset, String>> {
    let files = match &config.source {
        SourceConfig::Kafka(kafka) => return of_topic(kafka, history, at, offsets, each),
        SourceConfig::Files(files) if *at.topic != *files.topic.as_str() => {
            let why = format!("topic {} is not that of the files", at.topic);
            return Ok(offsets.iter().map(|offset| (*offset, why.clone())).collect());
        }
        SourceConfig::Files(files) => files,
    };
    // Where files are records, each is another file.
    let all: Vec<BTreeSet<Offset>> = match is_raw(history) {
        true => offsets.iter().map(|offset| BTreeSet::from([*offset])).collect(),
        false => vec![offsets.clone()],
    };
    let mut missing = BTreeMap::new();
    for offsets in &all {
        let (mut left, mut ended) = (offsets.clone(), Ok(()));
        let read = of_file(files, history, at, offsets, &mut |offset, batch| {
            if ended.is_ok() && !batch.is_empty() {
                left.remove(&offset);
                let headers: Vec<_> = batch.headers().get(0).collect();
                let (key, value) = (batch.keys().get(0), batch.values().get(0));
                let timestamp_ms = batch.timestamps()[0];
                ended = each(offset, RecordRef { key, value, headers: &headers, timestamp_ms });
            }
        });
        ended?;
        let why = match read {
            Ok(_) => "the file cannot be cut into such a record".to_owned(),
            Err(error) if cannot_be_read(&error) => return Err(error),
            Err(error) => format!("{error:#}"),
        };
        missing.extend(left.into_iter().map(|offset| (offset, why.clone())));
    }
    Ok(missing)
}

/// Whether a file may well be there: what is gone is another thing.
fn cannot_be_read(error: &anyhow::Error) -> bool {
    let of_medium = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    of_medium.is_some_and(|error| !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

fn of_topic(
    kafka: &KafkaSource,
    history: &History,
    at: &TopicPartition,
    offsets: &BTreeSet<Offset>,
    each: Each<'_>,
) -> Result<BTreeMap<Offset, String>> {
    let cluster = topics::cluster(kafka)?;
    if let Some(why) = topics::why_gone(&cluster, history, &at.topic)? {
        return Ok(offsets.iter().map(|offset| (*offset, why.clone())).collect());
    }
    let (mut left, mut ended) = (offsets.clone(), Ok(()));
    let picked = pick(&cluster, &at.topic, at.partition, offsets, &mut |seen| {
        left.remove(&seen.offset);
        ended = each(seen.offset, seen.record(&seen.header_refs()));
        ended.is_ok()
    });
    ended?;
    picked.with_context(|| format!("reading records of {at} once more"))?;
    let why = format!("topic {} does not have it any more", at.topic);
    Ok(left.into_iter().map(|offset| (offset, why.clone())).collect())
}

/// Whether files are records, and not made of them.
fn is_raw(history: &History) -> bool {
    history.inputs.first().is_some_and(|entry| entry.format == Format::Raw)
}

/// Hands what is in a file at `offsets` to `each`, in their order, each as a batch of its own: a record, or what is none. Returns
/// the path of the file. Where files are records, only one offset may be asked for.
///
/// # Errors
/// Also where the file is not the one any more that was read.
pub(super) fn of_file(
    files: &FilesSource,
    history: &History,
    at: &TopicPartition,
    offsets: &BTreeSet<Offset>,
    each: &mut dyn FnMut(Offset, Batch),
) -> Result<String> {
    let inputs = Inputs::new(&files.path, files.format.map(inputs::format_of));
    let raw = offsets.first().copied().filter(|_| is_raw(history));
    let number = raw.map_or(at.partition, |offset| i32::try_from(offset.get()).unwrap_or(-1));
    let entry = history.inputs.iter().find(|entry| entry.partition == number);
    let entry = entry.with_context(|| format!("the plan log knows no such file of {at}"))?;
    let listed = Listed {
        path: entry.path.clone(),
        length: entry.length,
        modified_ns: entry.modified_ns,
        format: entry.format,
    };
    let is_same = inputs.digest(&listed)? == entry.digest;
    ensure!(is_same, "file {} is not the one any more that was read", entry.path);
    let file = inputs.open(&entry.path)?;
    let mut reader = RecordReader::open(Box::new(file), entry.path.as_str(), &Reading::new(entry.format))?;
    if let Some(offset) = raw {
        reader = reader.starting_at(offset);
    }
    for offset in offsets {
        reader.skip_to(*offset)?;
        let mut builder = BatchBuilder::new(at.clone(), *offset);
        reader.fill(&mut builder, 1, usize::MAX)?;
        ensure!(builder.n_records() == 1, "file {} has no such record", entry.path);
        let batch = builder.finish(offset.next(), Permit::free()).expect("it covers one offset");
        each(*offset, batch);
    }
    Ok(entry.path.clone())
}
