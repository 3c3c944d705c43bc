//! Where a file says that a source of Kafka begins, and what it means. It asks no cluster.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    KafkaSource, StartAt,
    file::{self, Start},
    names::TopicName,
    resolve::Resolver,
};

impl Resolver<'_> {
    pub(super) fn kafka_source(&mut self, source: file::Topics) -> KafkaSource {
        let cluster = self.kafka_cluster(&["source", "kafka"], &source.brokers, &source.properties);
        let topics: BTreeSet<_> = source.topics.iter().collect();
        if topics.len() != source.topics.len() || topics.is_empty() {
            let message = if topics.is_empty() { "`topics` names none" } else { "`topics` names one twice" };
            self.report(&["source", "kafka", "topics"], message.to_owned(), None);
        }
        let start = self.start(source.start, source.spark_checkpoint, &source.topics);
        KafkaSource { cluster, topics: source.topics, start }
    }

    fn start(&mut self, start: Option<Start>, spark: Option<String>, topics: &[TopicName]) -> StartAt {
        let place = ["source", "kafka", "start"];
        match (start, spark) {
            (Some(_), Some(_)) => {
                let help = "`spark_checkpoint` says where it begins".to_owned();
                self.report(&place, "both `start` and `spark_checkpoint` are given".to_owned(), Some(help));
                StartAt::Earliest
            }
            (None, Some(directory)) => {
                let directory = self.expand(&["source", "kafka", "spark_checkpoint"], &directory);
                StartAt::Spark(self.base.join(directory))
            }
            (None, None) => StartAt::Earliest,
            (Some(Start::Named(name)), None) => self.named_start(&place, &name),
            (Some(Start::Offsets(offsets)), None) => self.offsets(&place, offsets, topics),
        }
    }

    fn named_start(&mut self, place: &[&str], name: &str) -> StartAt {
        let time = name.parse::<jiff::Timestamp>().map(|time| time.as_millisecond());
        match (name, time) {
            ("earliest", _) => StartAt::Earliest,
            ("latest", _) => StartAt::Latest,
            (_, Ok(time)) if time >= 0 => StartAt::Time(time),
            _ => {
                let help = "\"earliest\", \"latest\", a time such as \"2026-11-01T00:00:00Z\", or offsets such as \
                            { customers-raw = [12, 40] }";
                self.report(place, format!("`start`: `{name}` is no place to begin"), Some(help.to_owned()));
                StartAt::Earliest
            }
        }
    }

    fn offsets(
        &mut self,
        place: &[&str],
        written: BTreeMap<String, Vec<i64>>,
        topics: &[TopicName],
    ) -> StartAt {
        let mut offsets = BTreeMap::new();
        for topic in topics {
            match written.get(topic.as_str()) {
                Some(of) if of.iter().all(|offset| *offset >= 0) => {
                    offsets.insert(topic.clone(), of.clone());
                }
                Some(_) => {
                    self.report(place, format!("`start`: an offset of `{topic}` is less than 0"), None);
                }
                None => self.report(place, format!("`start` has no offsets of topic `{topic}`"), None),
            }
        }
        for other in written.keys().filter(|name| topics.iter().all(|topic| topic.as_str() != *name)) {
            self.report(place, format!("`start` has offsets of `{other}`, which is not read"), None);
        }
        StartAt::Offsets(offsets)
    }
}
