//! Topics of Kafka as the source of a pipeline: where its partitions begin, which is written down before it is used. It
//! reads no record.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::Options;
use super::logs::{Inner, SharedLog};
use crate::budget::Budget;
use crate::config::{Absent, KafkaCluster, KafkaSource as Configured, PipelineConfig, Secret, StartAt};
use crate::kafka::{self, Cluster, topics::From};
use crate::offset::{Offset, TopicPartition};
use crate::origin::replay_topic;
use crate::plan::{self, Entry, History, InputPartition, PartitionStart};
use crate::sink::state::Start;
use crate::source::Error;
use crate::source::kafka::{Incarnation, KafkaSettings, KafkaSource, Starts};

/// The cluster that a source reads.
pub(super) fn cluster(source: &Configured) -> Result<Cluster> {
    cluster_of(&source.cluster, "source.kafka").context("[source.kafka]")
}

/// A cluster that the pipeline file names in `table`.
pub(super) fn cluster_of(written: &KafkaCluster, table: &str) -> Result<Cluster, kafka::Error> {
    let properties = written.properties.iter().map(|(name, Secret(value))| (name.clone(), value.clone()));
    Ok(Cluster::new(&written.brokers, properties.collect())?.in_table(table))
}

/// The source; it joins its group when it is first asked for records.
///
/// # Errors
/// If a topic is not there, or the cluster cannot be reached.
pub(super) fn kafka_source(
    config: &PipelineConfig,
    source: &Configured,
    cluster: &Cluster,
    options: &Options,
    log: &SharedLog,
    budget: &Budget,
) -> Result<KafkaSource> {
    are_there(config, source, cluster)?;
    let replay = replay_topic(config.name.as_str());
    let settings = KafkaSettings {
        group: group(config).into(),
        topics: source.topics.iter().map(|topic| topic.as_str().into()).collect(),
        replay: replay.as_str().into(),
        incarnation: log.lock().history.incarnation,
        batch_records: config.limits.batch_records.get() as usize,
        batch_bytes: config.limits.batch_bytes.bytes() as usize,
        once: options.once,
    };
    let starts = starts(cluster.clone(), source.start.clone(), replay, log.clone());
    Ok(KafkaSource::new(cluster, settings, budget.clone(), starts, incarnation(log.clone()))?)
}

/// All that are missing are told at once, and no other is begun then.
fn are_there(config: &PipelineConfig, source: &Configured, cluster: &Cluster) -> Result<()> {
    let mut missing = Vec::new();
    for topic in &source.topics {
        match cluster.topic_id(topic.as_str()) {
            Ok(_) => {}
            Err(error @ kafka::Error::NoTopic { .. }) => missing.push(absent(&error)),
            Err(other) => return Err(Error::from(other)).context("[source.kafka] topics"),
        }
    }
    Ok(config.refuse_absent(missing)?)
}

/// A topic that is to be read and is not there, for the line that names it.
pub(super) fn absent(error: &kafka::Error) -> Absent<'static> {
    let help = "make it, such as by `weir produce --create`, or mend `topics`".to_owned();
    Absent {
        path: vec!["source", "kafka", "topics"],
        message: format!("E_INPUT_TOPIC: {error}"),
        help: Some(help),
    }
}

/// Says which incarnation of the group the log has, and raises it there where it is lower: the first who does is followed by
/// all.
fn incarnation(log: SharedLog) -> Incarnation {
    Box::new(move |raise| {
        let mut inner = log.lock();
        let Inner { history, log, .. } = &mut *inner;
        history.catch_up(log.as_mut()).map_err(of_log)?;
        let entry = |history: &History| {
            raise.filter(|raise| *raise > history.incarnation).map(|incarnation| Entry::Bump { incarnation })
        };
        history.append(log.as_mut(), entry).map_err(of_log)?;
        Ok(history.incarnation)
    })
}

/// Why nothing of a topic can be read once more, if that is so: one that was made again has other records at the same offsets.
///
/// # Errors
/// If the cluster cannot be asked.
pub(super) fn why_gone(
    cluster: &Cluster,
    history: &History,
    topic: &str,
) -> Result<Option<String>, kafka::Error> {
    match cluster.topic_id(topic) {
        Ok(id) if history.topics.get(topic).is_some_and(|read| **read != *id) => {
            Ok(Some(format!("topic {topic} is not the one any more that was read: it was made again")))
        }
        Ok(_) => Ok(None),
        Err(error @ kafka::Error::NoTopic { .. }) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The consumer group of a pipeline.
pub(super) fn group(config: &PipelineConfig) -> String {
    format!("weir.{}", config.name)
}

/// Says where a partition begins, and writes it down first: for all partitions of a topic at once, as the file says, when the
/// topic is first seen; at the first record there is, for partitions that are added to it later, and for the replay input.
fn starts(cluster: Cluster, start: StartAt, replay: String, log: SharedLog) -> Starts {
    Box::new(move |partitions, id| {
        let mut inner = log.lock();
        let Inner { history, log, .. } = &mut *inner;
        history.catch_up(log.as_mut()).map_err(of_log)?;
        let all = || partitions.iter().map(|at| (at, InputPartition::of(at)));
        let is_new =
            |of: &InputPartition| !history.started.contains_key(of) && !history.starts.contains_key(of);
        let new: Vec<i32> = all().filter(|(_, of)| is_new(of)).map(|(at, _)| at.partition).collect();
        if let Some(first) = partitions.first().filter(|_| !new.is_empty()) {
            let topic = &first.topic;
            let start = if **topic == *replay { &StartAt::Earliest } else { &start };
            let starts = decide(&cluster, start, topic, &new, history)?;
            // Others may have said of some of them before us.
            let entry = |history: &History| {
                let is_unsaid = |p: i32| {
                    !history.starts.contains_key(&InputPartition::of(&TopicPartition::new(topic.clone(), p)))
                };
                let starts = starts.iter().filter(|(p, _)| is_unsaid(**p));
                let starts = starts.map(|(p, offset)| PartitionStart { partition: *p, offset: *offset });
                let starts: Vec<_> = starts.collect();
                (!starts.is_empty()).then(|| Entry::Init { topic: topic.clone(), id: id.clone(), starts })
            };
            history.append(log.as_mut(), entry).map_err(of_log)?;
        }
        let start = |(at, of): (&TopicPartition, InputPartition)| match history.starts.get(&of) {
            _ if history.started.contains_key(&of) => Ok(Start::MustExist),
            Some(start) => Ok(Start::Init(*start)),
            None => {
                // One that was added a moment ago.
                let text = format!("the cluster does not know yet where {at} begins");
                Err(Error::Unreachable { text, hint: None })
            }
        };
        all().map(start).collect()
    })
}

fn of_log(error: plan::Error) -> Error {
    let text = error.to_string();
    match error {
        plan::Error::Io { .. } => Error::Unreachable { text, hint: None },
        _ => Error::Input { text, hint: None },
    }
}

/// Where the partitions of a topic begin of which nobody has said it yet, `new` among them.
fn decide(
    cluster: &Cluster,
    start: &StartAt,
    topic: &Arc<str>,
    new: &[i32],
    history: &History,
) -> Result<BTreeMap<i32, Offset>, Error> {
    let is_known = history.starts.keys().any(|known| known.topic.as_ref() == Some(topic));
    if is_known {
        return Ok(cluster.places(topic, new, From::Start)?);
    }
    let n = cluster.partitions(topic)? as i32;
    let all: Vec<i32> = (0..n).collect();
    let from = match start {
        StartAt::Earliest => From::Start,
        StartAt::Latest => From::Last(0),
        StartAt::Time(time) => From::Time(*time),
        StartAt::Offsets(offsets) => {
            let of = offsets.iter().find(|(of_topic, _)| of_topic.as_str() == &**topic);
            let of = of.map(|(_, offsets)| offsets.as_slice()).unwrap_or_default();
            return given(topic, n, &of.iter().copied().zip(0..).map(|(offset, p)| (p, offset)).collect());
        }
        StartAt::Spark(directory) => {
            let of = spark_offsets(directory, topic).map_err(|error| Error::Input {
                text: format!("{error:#}"),
                hint: Some("spark_checkpoint is the `checkpointLocation` of the query".to_owned()),
            })?;
            return given(topic, n, &of);
        }
    };
    Ok(cluster.places(topic, &all, from)?)
}

/// Offsets that somebody gave for each partition. One that is left out would be a guess.
fn given(topic: &str, n: i32, offsets: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, Offset>, Error> {
    let partition = |p| {
        let offset = offsets.get(&p).and_then(|offset| Offset::try_from(*offset).ok());
        offset.map(|offset| (p, offset)).ok_or_else(|| Error::Input {
            text: format!(
                "topic {topic} has {n} partitions, and no offset is given at which partition {p} begins"
            ),
            hint: Some("give one for each partition in `start`".to_owned()),
        })
    };
    (0..n).map(partition).collect()
}

/// Where the last batch ended that a query of Spark Structured Streaming completed, by its checkpoint directory:
/// `commits/N` is there for each batch N that is complete, and the third line of `offsets/N` has its ends, as
/// `{"topic":{"0":12}}`.
fn spark_offsets(checkpoint: &Path, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let commits = checkpoint.join("commits");
    let names = fs::read_dir(&commits).with_context(|| format!("reading {}", commits.display()))?;
    let batches = names.filter_map(|name| name.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let batch = batches.max().with_context(|| format!("no batch is complete in {}", commits.display()))?;
    let file = checkpoint.join("offsets").join(batch.to_string());
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut found = BTreeMap::new();
    // The first line is the format's version, the second what Spark remembers; then comes one per source.
    for line in text.lines().skip(2) {
        let of: BTreeMap<String, BTreeMap<i32, i64>> = serde_json::from_str(line)
            .with_context(|| format!("{}: not the offsets of a Kafka source", file.display()))?;
        found.extend(of.into_iter().filter(|(name, _)| name == topic).flat_map(|(_, offsets)| offsets));
    }
    anyhow::ensure!(!found.is_empty(), "{} has no offsets of topic {topic}", file.display());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_jobs_position_is_where_its_last_complete_batch_ended() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["commits", "offsets"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let offsets =
            |end| format!("v1\n{{\"batchWatermarkMs\":0}}\n{{\"customers-raw\":{{\"0\":{end},\"1\":7}}}}\n");
        write("offsets/9", &offsets(100));
        write("commits/9", "v1\n{}");
        write("offsets/10", &offsets(200));
        write("commits/10", "v1\n{}");
        write("offsets/11", &offsets(300));
        write("commits/.10.crc", "");
        let found = spark_offsets(dir.path(), "customers-raw").unwrap();
        assert_eq!(found, BTreeMap::from([(0, 200), (1, 7)]));
        let missing = spark_offsets(dir.path(), "other").unwrap_err().to_string();
        assert!(missing.contains("no offsets of topic other"), "{missing}");
    }

    #[test]
    fn a_partition_without_a_given_offset_is_no_guess() {
        let error = given("t", 2, &BTreeMap::from([(0, 5)])).unwrap_err().to_string();
        assert!(error.contains("partition 1"), "{error}");
    }
}
