//! From what a file says of a Kafka cluster to what it means. The value of a property may be a password, and is never
//! shown. No connection is made; which properties a client has is for the client to say.

use std::collections::BTreeMap;

use super::file::{self, TopicTarget};
use super::names::TopicName;
use super::resolve::Resolver;
use super::{Complaint, KafkaSink, Secret, TargetName};

/// Where a cluster is, and what its clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaCluster {
    /// Addresses with ports, separated by commas.
    pub brokers: String,
    pub properties: BTreeMap<String, Secret>,
}

/// Properties whose values nobody should read in a file.
const SECRET: [&str; 4] =
    ["sasl.password", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.client.secret"];

/// How long a client waits before it connects once more, in milliseconds. For half as long it waits in any case: it connects to
/// who was named, is told who has that address, and connects to that one again.
const AGAIN_MS: (&str, &str) = ("reconnect.backoff.ms", "20");

impl KafkaCluster {
    /// See [`super::PipelineConfig::in_haste`].
    pub fn in_haste(&mut self) {
        let (key, value) = AGAIN_MS;
        self.properties.entry(key.to_owned()).or_insert_with(|| Secret(value.to_owned()));
    }
}

impl Resolver<'_> {
    pub(super) fn kafka_sink(&mut self, name: &str, sink: file::KafkaSink) -> KafkaSink {
        let cluster = self.kafka_cluster(&["sinks", name, "kafka"], &sink.brokers, &sink.properties);
        KafkaSink {
            cluster,
            commit: sink.commit,
            create: sink.create,
            provenance: sink.provenance,
            compression: sink.compression,
            topics: self.topics(name, sink.targets),
        }
    }

    /// The cluster that the table at `place` names.
    pub(super) fn kafka_cluster(
        &mut self,
        place: &[&str],
        brokers: &str,
        properties: &BTreeMap<String, String>,
    ) -> KafkaCluster {
        let brokers = self.expand(&[place, &["brokers"]].concat(), brokers);
        let mut expanded = BTreeMap::new();
        for (key, value) in properties {
            if SECRET.contains(&key.as_str()) && !value.contains("${") {
                let message = format!("the password `{key}` stands in the file, where everybody reads it");
                let help = "let an environment variable hold it: \"${KAFKA_PASSWORD}\"".to_owned();
                // Not where it stands: that would show the line.
                self.report(place, message, Some(help));
            }
            let value = self.expand(&[place, &["properties", key]].concat(), value);
            expanded.insert(key.clone(), Secret(value));
        }
        KafkaCluster { brokers, properties: expanded }
    }

    fn topics(
        &mut self,
        name: &str,
        targets: BTreeMap<String, TopicTarget>,
    ) -> BTreeMap<TargetName, TopicName> {
        let mut topics: BTreeMap<TargetName, TopicName> = BTreeMap::new();
        for (target, TopicTarget { topic }) in targets {
            let place = ["sinks", name, "kafka", "targets", &target];
            let parsed = TargetName::parse(&target).and_then(|parsed| {
                let topic = topic.map_or_else(|| TopicName::parse(&target), Ok)?;
                Ok((parsed, topic))
            });
            match parsed {
                Err(complaint) => self.complain(&place, complaint),
                Ok((parsed, topic)) => {
                    if let Some(complaint) = topic_name(topic.as_str()) {
                        self.complain(&[&place[..], &["topic"]].concat(), complaint);
                    }
                    if let Some((twin, _)) = topics.iter().find(|(_, other)| **other == topic) {
                        let message =
                            format!("targets `{twin}` and `{target}` have the same topic `{topic}`");
                        let help = Some("let both routes go to one target".to_owned());
                        self.report(&place, message, help);
                    }
                    topics.insert(parsed, topic);
                }
            }
        }
        topics
    }
}

/// What is wrong with the name of a topic for rows or records, if anything is.
pub(super) fn topic_name(name: &str) -> Option<Complaint> {
    let message = || format!("`{name}` is not a name for a topic: what begins with `weir.` is taken");
    name.starts_with("weir.").then(|| Complaint { message: message(), help: None })
}
