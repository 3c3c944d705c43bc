//! The records that stand last in a pipeline's input, read once more to see what becomes of them. They need not be those that were
//! read last: what counts is that they are like those that come next.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{inputs, is_raw, topics};
use crate::batch::{Batch, BatchBuilder};
use crate::budget::Permit;
use crate::config::{FilesSource, KafkaSource, PipelineConfig, SourceConfig};
use crate::kafka::peek::{Reader, Seen};
use crate::offset::{Offset, TopicPartition};
use crate::plan::{History, InputPartition};
use crate::source::files::{FileEntry, Found as Listed, Inputs};
use crate::source::format::{Filled, Options as Reading, RecordReader};

/// They hold no more bytes than this together.
const MOST_BYTES: usize = 16 << 20;

/// No more is read after this time. A cluster that does not answer may take longer.
const MOST_TIME: Duration = Duration::from_secs(5);

/// Records of a file that are read at once, and their bytes, about.
const AT_ONCE: (usize, usize) = (256, 1 << 20);

/// The records that stand last in the input, as far as they were found.
#[derive(Debug, Default)]
pub(in crate::app) struct Last {
    /// The records of each partition in their order.
    pub(in crate::app) batches: Vec<Batch>,
    /// How many files were not read, since they are not any more what was read.
    pub(in crate::app) passed_over: u64,
    /// Why the first of those was not.
    pub(in crate::app) why: Option<String>,
    /// A file that was not read to its end in the time: its records are not the last ones.
    pub(in crate::app) not_to_its_end: Option<String>,
}

/// The last `n` records over all partitions, or fewer where there are not so many, or they are large.
///
/// # Errors
/// If a cluster cannot be asked.
pub(in crate::app) fn last(config: &PipelineConfig, history: &History, n: usize) -> Result<Last> {
    match &config.source {
        SourceConfig::Kafka(kafka) => of_topics(kafka, n),
        SourceConfig::Files(files) if is_raw(history) => Ok(of_whole_files(files, history, n)),
        SourceConfig::Files(files) => Ok(of_files(files, history, n)),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a person waits is no decision about a record")]
pub(in crate::app) fn now() -> Instant {
    Instant::now()
}

fn of_topics(kafka: &KafkaSource, n: usize) -> Result<Last> {
    let cluster = topics::cluster(kafka)?;
    let topics = || kafka.topics.iter().map(|topic| topic.as_str());
    // Mostly there is one topic: who reads it connects while it is asked how many records there are.
    let mut ahead = topics().next().map(|first| Reader::new(&cluster, first)).transpose()?;
    let extents = topics().map(|topic| cluster.extents(topic)).collect::<Result<Vec<_>, _>>()?;
    let each = share(extents.iter().flatten().map(|(first, end)| end.since(*first)).collect(), n as u64);
    let (mut found, mut bytes, begun) = (Vec::new(), 0, now());
    for (topic, extents) in topics().zip(&extents) {
        let reader = ahead.take().map_or_else(|| Reader::new(&cluster, topic), Ok)?;
        let what = || format!("reading the last records of topic {topic}");
        let read = reader.last(extents, each, &mut |seen| {
            bytes += seen.key.as_ref().map_or(0, Vec::len) + seen.value.as_ref().map_or(0, Vec::len);
            found.push((topic, seen));
            bytes < MOST_BYTES && begun.elapsed() < MOST_TIME
        });
        read.with_context(what)?;
    }
    // Of each partition there may be one too many.
    found.sort_by_key(|(_, seen)| seen.timestamp_ms);
    let mut found = found.split_off(found.len().saturating_sub(n));
    found.sort_by_key(|(topic, seen)| (*topic, seen.partition, seen.offset));
    let of_one = found.chunk_by(|(a, seen), (b, other)| (a, seen.partition) == (b, other.partition));
    Ok(Last { batches: of_one.filter_map(batch).collect(), ..Last::default() })
}

/// How many records each partition gives, of those that are there, so that it comes to `n` together.
fn share(mut there: Vec<u64>, n: u64) -> u64 {
    there.sort_unstable();
    let mut left = n;
    for (i, has) in there.iter().enumerate() {
        let others = (there.len() - i) as u64;
        if has.saturating_mul(others) >= left {
            return left.div_ceil(others);
        }
        left -= has;
    }
    there.last().copied().unwrap_or_default()
}

/// Records of one partition, in their order.
fn batch(records: &[(&str, Seen)]) -> Option<Batch> {
    let (topic, first) = records.first()?;
    let mut builder = BatchBuilder::new(TopicPartition::new(*topic, first.partition), first.offset);
    for (_, seen) in records {
        builder.push(seen.offset, seen.record(&seen.header_refs()));
    }
    let end = builder.next();
    builder.finish(end, Permit::free())
}

/// Files are begun in the order of their numbers.
fn of_files(files: &FilesSource, history: &History, n: usize) -> Last {
    let (inputs, begun) = (Inputs::new(&files.path, files.format.map(inputs::format_of)), now());
    let is_begun = |entry: &&FileEntry| history.started.contains_key(&InputPartition::file(entry.partition));
    let (mut last, mut left, mut bytes) = (Last::default(), n, MOST_BYTES);
    for entry in history.inputs.iter().rev().filter(is_begun) {
        if left == 0 || bytes == 0 || begun.elapsed() >= MOST_TIME {
            break;
        }
        let at = TopicPartition::new(files.topic.as_str(), entry.partition);
        let tail = Tail { most: left, most_bytes: bytes, begun };
        match open(&inputs, entry).and_then(|reader| tail.of(reader, &at)) {
            Ok((batches, is_at_end)) => {
                if !is_at_end {
                    last.not_to_its_end.get_or_insert_with(|| entry.path.clone());
                }
                left -= batches.iter().map(Batch::n_records).sum::<usize>();
                bytes = bytes.saturating_sub(batches.iter().map(size).sum());
                last.batches.extend(batches);
            }
            Err(error) => last.pass_over(entry, &error),
        }
    }
    last
}

/// Where each file is a record, they are the offsets of one partition.
fn of_whole_files(files: &FilesSource, history: &History, n: usize) -> Last {
    let (inputs, begun) = (Inputs::new(&files.path, files.format.map(inputs::format_of)), now());
    let (mut last, mut bytes) = (Last::default(), 0);
    for entry in history.inputs.iter().rev() {
        let length = usize::try_from(entry.length).unwrap_or(usize::MAX);
        if last.batches.len() >= n || bytes >= MOST_BYTES || begun.elapsed() >= MOST_TIME {
            break;
        }
        // Others may be smaller.
        if length > MOST_BYTES - bytes {
            continue;
        }
        let at = TopicPartition::new(files.topic.as_str(), 0);
        let offset = Offset::ZERO.plus(usize::try_from(entry.partition).unwrap_or_default());
        let read = open(&inputs, entry).and_then(|reader| {
            let mut builder = BatchBuilder::new(at, offset);
            reader.starting_at(offset).fill(&mut builder, 1, usize::MAX)?;
            builder.finish(offset.next(), Permit::free()).context("it covers one offset")
        });
        match read {
            Ok(batch) => {
                bytes += length;
                last.batches.push(batch);
            }
            Err(error) => last.pass_over(entry, &error),
        }
    }
    last
}

impl Last {
    fn pass_over(&mut self, entry: &FileEntry, error: &anyhow::Error) {
        self.passed_over += 1;
        self.why.get_or_insert_with(|| format!("file {}: {error:#}", entry.path));
    }
}

/// What is wanted of a file.
struct Tail {
    most: usize,
    most_bytes: usize,
    /// When the reading of all files began.
    begun: Instant,
}

impl Tail {
    /// The last records of a file, or of what could be read of it in the time; and whether that was all of it.
    fn of(&self, mut reader: RecordReader, at: &TopicPartition) -> Result<(Vec<Batch>, bool)> {
        let (mut held, mut records, mut bytes) = (VecDeque::new(), 0, 0);
        let is_at_end = loop {
            let mut builder = BatchBuilder::new(at.clone(), reader.next());
            let filled = reader.fill(&mut builder, AT_ONCE.0, AT_ONCE.1)?;
            let end = builder.next();
            if let Some(batch) = builder.finish(end, Permit::free()) {
                records += batch.n_records();
                bytes += size(&batch);
                held.push_back(batch);
            }
            while let Some(first) = held.front()
                && (records - first.n_records() >= self.most || bytes > self.most_bytes && held.len() > 1)
            {
                records -= first.n_records();
                bytes -= size(first);
                held.pop_front();
            }
            let is_at_end = matches!(filled, Filled::End);
            if is_at_end || self.begun.elapsed() >= MOST_TIME {
                break is_at_end;
            }
        };
        let first = held.pop_front().and_then(|first| {
            // Every offset of a file is a record.
            let from = first.range().start.plus(records.saturating_sub(self.most));
            first.split(from).1
        });
        Ok((first.into_iter().chain(held).collect(), is_at_end))
    }
}

fn size(batch: &Batch) -> usize {
    batch.bytes(&(0..batch.len()))
}

/// A file that is what it was when it was first seen.
fn open(inputs: &Inputs, entry: &FileEntry) -> Result<RecordReader> {
    let file = inputs.open(&entry.path)?;
    ensure!(is_the_same(inputs, entry, &file)?, "it is not the one any more that was read");
    Ok(RecordReader::open(Box::new(file), entry.path.as_str(), &Reading::new(entry.format))?)
}

/// As for a run: what has the same length and the same time needs no second look.
fn is_the_same(inputs: &Inputs, entry: &FileEntry, file: &File) -> Result<bool> {
    let found = file.metadata().context("looking at it")?;
    let modified_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
    let FileEntry { path, length, format, .. } = entry.clone();
    if found.len() != length {
        return Ok(false);
    }
    let listed = Listed { path, length, modified_ns, format };
    Ok(modified_ns == entry.modified_ns || inputs.digest(&listed)? == entry.digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::format::Format;

    #[test]
    fn whoever_has_no_time_for_all_of_a_file_knows_that_these_are_not_its_last_records() {
        let lines = "{}\n".repeat(1_000).into_bytes();
        let of = |begun| {
            let input = Box::new(std::io::Cursor::new(lines.clone()));
            let reader = RecordReader::open(input, "a.jsonl", &Reading::new(Format::JsonLines)).unwrap();
            let tail = Tail { most: 10, most_bytes: MOST_BYTES, begun };
            let (batches, is_at_end) = tail.of(reader, &TopicPartition::new("a", 0)).unwrap();
            let offsets: Vec<_> = batches.iter().map(|batch| batch.range().end.get()).collect();
            (offsets.last().copied(), batches.iter().map(Batch::n_records).sum::<usize>(), is_at_end)
        };
        assert_eq!(of(now()), (Some(1_000), 10, true));
        let long_ago = now().checked_sub(MOST_TIME).unwrap();
        assert_eq!(of(long_ago), (Some(AT_ONCE.0 as i64), 10, false));
    }

    #[test]
    fn partitions_give_alike_and_those_that_have_little_give_what_they_have() {
        for (there, n, expected) in [
            (vec![], 10, 0),
            (vec![3, 4], 10, 4),
            (vec![100], 10, 10),
            (vec![100, 100, 100], 10, 4),
            (vec![0, 2, 100, 100], 10, 4),
            (vec![0, 0, 1_000_000], 1_000, 1_000),
        ] {
            let each = share(there.clone(), n);
            assert_eq!(each, expected, "{there:?}");
            let all: u64 = there.iter().map(|has| has.min(&each)).sum();
            assert!(all >= n || all == there.iter().sum::<u64>(), "{there:?}");
        }
    }
}
