//! Where the sink stands, as a topic says it: one record per input partition, in the transaction of its rows. What is in
//! memory here is true as long as nobody else has begun under the sink's name, or been given the partition; after that it
//! is read on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kafka::Cluster;
use crate::kafka::log::Line;
use crate::kafka::tail::Tail;
use crate::offset::TopicPartition;
use crate::sink::state::SinkState;
use crate::sink::{Error, Problem};

/// The newest format this program writes and reads.
const VERSION: u64 = crate::sink::state::VERSION as u64;

/// See the module.
#[derive(Debug)]
pub(super) struct Progress {
    topic: String,
    sink: Arc<str>,
    tail: Tail,
    /// Whether the last look came to the end of the topic. One that broke off may have left what is older than what was kept.
    whole: bool,
    /// Each with the key of its record.
    states: BTreeMap<TopicPartition, (String, SinkState)>,
}

#[derive(Serialize, Deserialize)]
struct Kept<S> {
    version: u64,
    state: S,
}

impl Progress {
    pub(super) fn open(cluster: &Cluster, topic: &str, sink: &Arc<str>) -> Result<Self, Error> {
        cluster.make_table(topic).map_err(super::of_cluster)?;
        let tail = Tail::open(cluster, topic).map_err(super::of_cluster)?;
        Ok(Self { topic: topic.to_owned(), sink: sink.clone(), tail, whole: false, states: BTreeMap::new() })
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn get(&self, at: &TopicPartition) -> Option<&SinkState> {
        self.states.get(at).map(|(_, state)| state)
    }

    /// The id of another topic of that name, of which there is a state.
    pub(super) fn other_topic(&self, topic: &str, id: &str) -> Option<&Arc<str>> {
        let states = self.states.values().map(|(_, state)| state);
        states.filter(|state| *state.topic == *topic && *state.topic_id != *id).map(|s| &s.topic_id).next()
    }

    /// What was committed stands in memory too.
    pub(super) fn keep(&mut self, state: SinkState) {
        let at = TopicPartition::new(state.topic.clone(), state.partition);
        self.states.insert(at, (self.key(&state), state));
    }

    /// Whether what is here is all that the topic had at the last look, and what was kept since.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Everything up to the end of the topic.
    pub(super) fn read_on(&mut self) -> Result<(), Error> {
        self.whole = false;
        let mut lines = Vec::new();
        let ended = self.tail.read_on(&mut |line| lines.push(line));
        for line in lines {
            self.take(line)?;
        }
        ended.map_err(super::of_cluster)?;
        self.whole = true;
        Ok(())
    }

    /// Has the next look break off behind its first record.
    #[cfg(all(test, feature = "servers"))]
    pub(super) fn break_off(&mut self) {
        self.tail.breaks_off = true;
    }

    /// The record of a state.
    pub(super) fn record(&self, state: &SinkState) -> (String, Vec<u8>) {
        let kept = Kept { version: state.version().into(), state };
        (self.key(state), serde_json::to_vec(&kept).expect("a state has only text keys"))
    }

    fn key(&self, state: &SinkState) -> String {
        format!("{}/{}/{}", self.sink, state.topic_id, state.partition)
    }

    fn take(&mut self, line: Line) -> Result<(), Error> {
        let key = String::from_utf8(line.key).unwrap_or_default();
        if key.split_once('/').is_none_or(|(sink, _)| *sink != *self.sink) {
            return Ok(());
        }
        let Some(value) = line.value else {
            self.states.retain(|_, (known, _)| *known != key);
            return Ok(());
        };
        let state = read(&self.topic, &key, &value)?;
        self.states.insert(TopicPartition::new(state.topic.clone(), state.partition), (key, state));
        Ok(())
    }
}

/// The state that a record of the topic tells.
pub(super) fn read(topic: &str, key: &str, value: &[u8]) -> Result<SinkState, Error> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let what = || format!("the record of {key} in topic {topic}");
    let corrupt = |e: serde_json::Error| {
        let text = format!("E_LOG_CORRUPT: {} cannot be read: {e}", what());
        Error::Permanent(Problem::new(text))
    };
    let Version { version } = serde_json::from_slice(value).map_err(corrupt)?;
    if version > VERSION {
        let text =
            format!("E_LOG_NEWER: {} has version {version}, this program reads up to {VERSION}", what());
        return Err(Error::Permanent(Problem::new(text)));
    }
    let Kept { state, .. } = serde_json::from_slice(value).map_err(corrupt)?;
    Ok(state)
}
