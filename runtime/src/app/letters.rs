//! The dead letters of a pipeline, wherever its sinks have them. It reads, and changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::sinks::{files_config, if_unreachable, kafka_config, postgres_config, sinks_of, sqlite_config};
use crate::config::{PipelineConfig, SinkConfig, SinkName, SourceConfig, nearest};
use crate::origin::replay_topic;
use crate::plan::{History, InputPartition};
use crate::route::DEAD_LETTERS;
use crate::sink::back::{Each, Letter, Reader, Sought, Stage};
use crate::sink::files::FilesReader;
use crate::sink::kafka::KafkaReader;
use crate::sink::postgres::PostgresReader;
use crate::sink::sqlite::SqliteReader;

/// Which letters are wanted. What is not said does not count.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of these stages.
    pub stages: Vec<Stage>,
    /// With a reason of one of these codes.
    pub reasons: Vec<String>,
    /// Of records that are not older than this, in milliseconds since 1970-01-01T00:00:00Z. One without a time, as all of files, is
    /// not wanted then.
    pub since_ms: Option<i64>,
    /// Of records that are older than this.
    pub until_ms: Option<i64>,
    /// Only of this sink.
    pub sink: Option<String>,
    /// Only of the row with this number among those of its record.
    pub index: Option<i32>,
    /// By where they come from, and which plan had them.
    pub sought: Sought,
}

impl Wanted {
    /// Whether a time counts.
    pub fn asks_for_time(&self) -> bool {
        self.since_ms.is_some() || self.until_ms.is_some()
    }

    fn takes_time(&self, at: Option<i64>) -> bool {
        let within = |at| {
            self.since_ms.is_none_or(|since| since <= at) && self.until_ms.is_none_or(|until| at < until)
        };
        at.map_or(!self.asks_for_time(), within)
    }

    /// Whether the letter is one of them, whatever its time.
    fn takes_at_any_time(&self, letter: &Letter) -> bool {
        let has = |code: &String| letter.reasons.iter().any(|reason| reason.code == *code);
        self.wants(letter.stage)
            && (self.reasons.is_empty() || self.reasons.iter().any(has))
            && self.sink.as_ref().is_none_or(|sink| **sink == *letter.sink)
            && self.index.is_none_or(|index| index == letter.index)
            && self.sought.takes(&letter.origin, letter.plan)
    }

    fn wants(&self, stage: Stage) -> bool {
        self.stages.is_empty() || self.stages.contains(&stage)
    }

    /// That the pipeline has the sink, the plan and the partitions that are named: otherwise there can be no letter.
    fn can_be_there(&self, config: &PipelineConfig, history: &History) -> Result<(), NotThere> {
        let not_there =
            |what: String, hint: Option<String>| NotThere { pipeline: config.name.to_string(), what, hint };
        if let Some(sink) = &self.sink
            && !config.sinks.keys().any(|known| known.as_str() == sink)
        {
            let known = config.sinks.keys().map(SinkName::as_str);
            return Err(not_there(format!("no sink `{sink}`"), nearest::hint(sink, known)));
        }
        let see = || Some("`weir history` shows which there are".to_owned());
        if let Some(plan) = self.sought.plan.filter(|plan| !history.plans.contains_key(plan)) {
            return Err(not_there(format!("no plan {plan}"), see()));
        }
        // A file of the pipeline may have been read under another name of its topic.
        let is_of = |of: &&InputPartition, topic: &Arc<str>| of.topic.as_ref().is_none_or(|of| of == topic);
        let mut read: Vec<&InputPartition> = history.started.keys().collect();
        if let Some(topic) = &self.sought.topic {
            let topics: BTreeSet<&str> = read.iter().filter_map(|of| of.topic.as_deref()).collect();
            read.retain(|of| is_of(of, topic));
            if read.is_empty() {
                return Err(not_there(
                    format!("read nothing of topic `{topic}`"),
                    nearest::hint(topic, topics),
                ));
            }
        }
        match self.sought.partition.filter(|partition| !read.iter().any(|of| of.partition == *partition)) {
            Some(partition) => Err(not_there(format!("read nothing of partition {partition}"), see())),
            None => Ok(()),
        }
    }
}

/// Letters of something are asked for that the pipeline does not have.
#[derive(Debug, thiserror::Error)]
#[error("pipeline {pipeline} has {what}")]
pub struct NotThere {
    pipeline: String,
    what: String,
    hint: Option<String>,
}

impl NotThere {
    /// What may be meant.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Hands all letters that are wanted to `each`, sink after sink, until that says `false`. How many others were seen until then that
/// are not wanted only because their records have no time.
///
/// # Errors
/// [`NotThere`]; if a sink that may have one cannot be read.
pub fn letters(config: &PipelineConfig, history: &History, wanted: &Wanted, each: Each<'_>) -> Result<u64> {
    wanted.can_be_there(config, history)?;
    let (mut goes_on, mut n, mut without_time) = (true, 0_u64, 0);
    for (name, sink) in used(config, history) {
        let asked = wanted.sink.as_ref().is_none_or(|sink| *sink == name.as_str());
        let rejected = wanted.wants(Stage::Source) || wanted.wants(Stage::Transform);
        let sought = Sought {
            dead: if rejected { dead_targets(config, history, name) } else { Vec::new() },
            refused: wanted.wants(Stage::Sink),
            ..wanted.sought.clone()
        };
        if !asked || !goes_on || sought.dead.is_empty() && !sought.refused {
            continue;
        }
        let reading = || format!("reading sink {name}");
        let mut reader = reader(config, name, sink).with_context(reading)?;
        // What comes from files has no time, and gets that of its way there in a topic.
        let timeless = matches!((&config.source, sink), (SourceConfig::Files(_), SinkConfig::Kafka(_)));
        let read = reader.letters(&sought, &mut |mut letter| {
            letter.timestamp_ms.take_if(|_| timeless);
            if wanted.takes_at_any_time(&letter) && is_of(history, &letter) {
                match (wanted.takes_time(letter.timestamp_ms), letter.timestamp_ms) {
                    (true, _) => {
                        n += 1;
                        goes_on = each(letter);
                    }
                    (false, None) => without_time += 1,
                    (false, Some(_)) => {}
                }
            }
            goes_on
        });
        read.map_err(|error| if_unreachable(config, name, error)).with_context(reading)?;
    }
    match (&config.source, &wanted.sought.topic) {
        (SourceConfig::Files(files), Some(topic))
            if n + without_time == 0
                && **topic != *files.topic.as_str()
                && **topic != *replay_topic(config.name.as_str()) =>
        {
            let (pipeline, what) = (config.name.to_string(), format!("read nothing of topic `{topic}`"));
            Err(NotThere { pipeline, what, hint: nearest::hint(topic, [files.topic.as_str()]) }.into())
        }
        _ => Ok(without_time),
    }
}

/// Whether a letter is of the pipeline with that plan log: others may keep theirs in the same place.
fn is_of(history: &History, letter: &Letter) -> bool {
    let at = &letter.origin.at;
    let read = |of| history.started.contains_key(&of);
    history.plans.contains_key(&letter.plan)
        && (read(InputPartition::of(at)) || read(InputPartition::file(at.partition)))
}

/// The sinks that have something, or may have: also where the file says of one that it cannot be run with.
pub(super) fn used<'a>(config: &'a PipelineConfig, history: &History) -> Vec<(&'a SinkName, &'a SinkConfig)> {
    let bound = || sinks_of(config, &History::default()).unwrap_or_default();
    sinks_of(config, history).unwrap_or_else(|_| bound())
}

/// The targets of a sink in which dead letters are, as the file says and as plans said.
pub(super) fn dead_targets(config: &PipelineConfig, history: &History, name: &SinkName) -> Vec<Arc<str>> {
    let now = config.dead_letter.to.to_string();
    let past = history.plans.values().filter_map(|plan| plan.routes.get(DEAD_LETTERS)).flatten();
    let all: BTreeSet<&str> = past
        .chain([&now])
        .filter_map(|to| to.split_once('.'))
        .filter_map(|(sink, target)| (sink == name.as_str()).then_some(target))
        .collect();
    all.into_iter().map(Into::into).collect()
}

/// Reads back what a sink has.
pub(super) fn reader(config: &PipelineConfig, name: &SinkName, sink: &SinkConfig) -> Result<Box<dyn Reader>> {
    Ok(match sink {
        SinkConfig::Files(files) => {
            let opened = FilesReader::open(&files_config(config, name, files));
            Box::new(opened.map_err(|error| if_unreachable(config, name, error))?)
        }
        SinkConfig::Sqlite(tables) => Box::new(SqliteReader::open(sqlite_config(config, name, tables))?),
        SinkConfig::Postgres(tables) => {
            let opened = PostgresReader::open(postgres_config(config, name, tables)?);
            Box::new(opened.map_err(|error| if_unreachable(config, name, error))?)
        }
        SinkConfig::Kafka(written) => Box::new(KafkaReader::new(kafka_config(config, name, written, None)?)),
    })
}
