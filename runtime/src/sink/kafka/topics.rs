//! The topics of the targets, each with how much it takes. It writes to none.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kafka::topics::Shape;
use crate::kafka::{self, Cluster};
use crate::sink::{Error, Problem};

/// See the module.
#[derive(Debug)]
pub(super) struct Topics {
    cluster: Cluster,
    create: bool,
    /// Those of targets that have another name.
    names: BTreeMap<Arc<str>, String>,
    known: Vec<Topic>,
    by_target: BTreeMap<Arc<str>, usize>,
}

/// A topic that is there.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    /// The most bytes that it takes at once.
    pub(super) most_bytes: usize,
}

/// The place of the topic for what others refuse.
pub(super) const REJECTS: usize = 0;

impl Topics {
    /// With the topic for what others refuse, which is made if it is not there.
    pub(super) fn open(
        cluster: &Cluster,
        create: bool,
        names: BTreeMap<Arc<str>, String>,
        rejects: &str,
    ) -> Result<Self, Error> {
        cluster.make_kept(rejects).map_err(super::of_cluster)?;
        let most_bytes = cluster.most_bytes(rejects).map_err(super::of_cluster)?;
        let known = vec![Topic { name: rejects.to_owned(), most_bytes }];
        Ok(Self { cluster: cluster.clone(), create, names, known, by_target: BTreeMap::new() })
    }

    pub(super) fn get(&self, place: usize) -> &Topic {
        &self.known[place]
    }

    /// The place of a target's topic, which is made or looked at the first time.
    ///
    /// # Errors
    /// [`Error::Permanent`] where it is not there and may not be made.
    pub(super) fn find(&mut self, target: &Arc<str>) -> Result<usize, Error> {
        if let Some(place) = self.by_target.get(target) {
            return Ok(*place);
        }
        let name = self.names.get(target).cloned().unwrap_or_else(|| target.to_string());
        if self.create {
            let shape = Shape { partitions: None, replication: None };
            self.cluster.create(&name, shape).map_err(super::of_cluster)?;
        }
        let most_bytes = self.cluster.most_bytes(&name).map_err(|error| match error {
            kafka::Error::NoTopic { topic, address } => missing(&topic, address.brokers()),
            other => super::of_cluster(other),
        })?;
        self.known.push(Topic { name, most_bytes });
        self.by_target.insert(target.clone(), self.known.len() - 1);
        Ok(self.known.len() - 1)
    }

    /// Asks again how much each takes.
    pub(super) fn look_again(&mut self) -> Result<(), Error> {
        for topic in &mut self.known {
            topic.most_bytes = self.cluster.most_bytes(&topic.name).map_err(super::of_cluster)?;
        }
        Ok(())
    }

    /// What the strictest and the most generous of them takes.
    pub(super) fn extremes(&self) -> (usize, usize) {
        let all = || self.known.iter().map(|topic| topic.most_bytes);
        (all().min().unwrap_or_default(), all().max().unwrap_or_default())
    }
}

fn missing(topic: &str, brokers: &str) -> Error {
    let text = format!("E_SINK_TOPIC: there is no topic {topic} at {brokers}");
    let hint = format!(
        "make it, such as by `kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} --partitions 6`; or \
         say `create = true`"
    );
    Error::Permanent(Problem::new(text).hint(hint))
}
