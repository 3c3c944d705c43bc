//! Talking to a Kafka cluster: how clients are set up, and what can be asked of it. What is read and written there for
//! a pipeline is not known here.

mod address;
mod append;
pub mod group;
mod kept;
pub mod log;
mod lone;
pub mod member;
pub mod peek;
pub mod pick;
pub mod produce;
mod queue;
pub mod tail;
mod topic_id;
pub mod topics;
pub mod transactions;
mod wake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub use address::Address;
use kept::Kept;

use crate::offset::{Offset, TopicPartition};

/// How long a cluster may take to answer a question, such as which partitions a topic has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a cluster is, and what its clients are told besides.
#[derive(Clone)]
pub struct Cluster {
    address: Address,
    properties: BTreeMap<String, String>,
    kept: Arc<Kept>,
}

impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        (self.brokers(), &self.properties) == (other.brokers(), &other.properties)
    }
}

impl Eq for Cluster {}

/// A property may be a password, so no value is shown.
impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let properties: Vec<_> = self.properties.keys().collect();
        f.debug_struct("Cluster").field("address", &self.address).field("properties", &properties).finish()
    }
}

/// Properties that are Weir's to set, since what it promises rests on them, each with the reason.
const OWNED: &[(&str, &str)] = &[
    ("acks", "nothing counts as written before all replicas in sync have it"),
    ("allow.auto.create.topics", "a topic is made by who knows how it has to be"),
    ("request.required.acks", "nothing counts as written before all replicas in sync have it"),
    (
        "auto.offset.reset",
        "a position that the cluster does not have stops the partition, and is never replaced",
    ),
    ("bootstrap.servers", "it is the key `brokers`"),
    ("metadata.broker.list", "it is the key `brokers`"),
    ("enable.auto.commit", "the sinks store how far they are"),
    ("enable.auto.offset.store", "the sinks store how far they are"),
    ("auto.commit.enable", "the sinks store how far they are"),
    ("enable.idempotence", "a record that is sent again must not be written again"),
    ("enable.partition.eof", "it tells where a partition ends at the moment"),
    ("group.id", "it is made from the pipeline's name"),
    ("group.instance.id", "a member that comes back has to be told from the one before"),
    ("group.protocol", "transactions need the classic protocol"),
    ("isolation.level", "records of a transaction that was given up do not exist"),
    ("partitioner", "a key has to be where other clients put it"),
    ("message.timeout.ms", "it has to be shorter than a transaction"),
    ("delivery.timeout.ms", "it has to be shorter than a transaction"),
    ("partition.assignment.strategy", "partitions move one by one"),
    ("transactional.id", "it is made from the pipeline's name"),
    ("transaction.timeout.ms", "it bounds how long a successor waits"),
];

/// Why a cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A property is not the caller's to set, or is none.
    #[error("{text}")]
    Property {
        /// Which, and why.
        text: String,
    },
    /// There is no such topic.
    #[error("there is no topic {topic} at {address}")]
    NoTopic {
        /// Its name.
        topic: String,
        /// Where it was looked for.
        address: Address,
    },
    /// The user may not do that.
    #[error("{what}: {text}")]
    Denied {
        /// What was tried.
        what: String,
        /// What it said.
        text: String,
    },
    /// The cluster cannot do what is needed of it.
    #[error(
        "E_TOO_OLD: the cluster at {address} gives topics no ids, by which one that was made again is known"
    )]
    TooOld {
        /// Who was asked.
        address: Address,
    },
    /// The cluster was reached and refused.
    #[error("{what}: {text}")]
    Refused {
        /// What was tried.
        what: String,
        /// What it said.
        text: String,
    },
    /// A transaction was not ended while it was waited for: nobody sees what is behind it.
    #[error(
        "E_TRANSACTION_OPEN: {what}: a transaction in partition {at} is open since offset {since}, and is not ended"
    )]
    TransactionOpen {
        /// What was tried.
        what: String,
        /// Where it is.
        at: TopicPartition,
        /// Of its first record.
        since: Offset,
    },
    /// No answer in time, or nobody there.
    #[error("{what}: no answer from {address} ({text})")]
    Unreachable {
        /// What was tried.
        what: String,
        /// Who was asked.
        address: Address,
        /// What the client says.
        text: String,
    },
}

impl Error {
    /// What a person can do.
    pub fn hint(&self) -> Option<String> {
        let what = match self {
            Self::Property { .. } | Self::Refused { .. } => return None,
            Self::NoTopic { address, .. } => return Some(address.if_no_topic()),
            Self::Unreachable { address, .. } => return Some(address.if_unreachable()),
            Self::Denied { .. } => {
                "give the user of the client the right by an ACL, such as by `kafka-acls.sh --add`: READ and DESCRIBE of a topic \
                 that is read, WRITE and DESCRIBE of one that is written, READ of the group"
            }
            Self::TooOld { .. } => "it takes brokers of Kafka 3.0 or newer",
            Self::TransactionOpen { at, .. } => {
                let of = format!("--topic {} --partition {}", at.topic, at.partition);
                return Some(format!(
                    "it ends by itself once its coordinator is there; if it does not, `kafka-transactions.sh \
                     describe-producers {of}` tells its producer's id, and `list` whose that is; see E_TRANSACTION_OPEN \
                     in the list of errors before you abort it"
                ));
            }
        };
        Some(what.to_owned())
    }
}

impl Cluster {
    /// A cluster by its bootstrap addresses (`host:port`, separated by commas), and what its clients are told, in the
    /// words of librdkafka, such as `security.protocol`.
    ///
    /// # Errors
    /// [`Error::Property`] for one that Weir sets itself or that there is not.
    pub fn new(brokers: impl Into<String>, properties: BTreeMap<String, String>) -> Result<Self, Error> {
        for name in properties.keys() {
            if let Some((_, why)) = OWNED.iter().find(|(owned, _)| owned == name) {
                return Err(Error::Property { text: format!("{name} is not for you to set: {why}") });
            }
        }
        let brokers: Arc<str> = brokers.into().into();
        let kept = Kept::of(&brokers, &properties);
        let cluster = Self { address: Address::new(brokers), properties, kept };
        // The client looks at names and values before it connects to anything.
        cluster.config().create_native_config().map_err(|error| match error {
            KafkaError::ClientConfig(_, why, name, value) => {
                Error::Property { text: format!("{name} = {value}: {}", lower(&why)) }
            }
            other => Error::Property { text: other.to_string() },
        })?;
        Ok(cluster)
    }

    /// The same, as a table of the pipeline file names it, such as `source.kafka`: hints then say so.
    pub fn in_table(self, table: impl Into<Arc<str>>) -> Self {
        Self { address: self.address.in_table(table), ..self }
    }

    /// Where it is.
    pub fn brokers(&self) -> &str {
        self.address.brokers()
    }

    /// What every client of it begins with.
    fn config(&self) -> ClientConfig {
        self.config_over(&[])
    }

    /// The same, with values that hold unless a property says otherwise.
    fn config_over(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers()).set("client.id", "weir");
        // A producer would have brokers make one that is missing, as they make topics by default.
        config.set("allow.auto.create.topics", "false");
        let properties = self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in defaults.iter().copied().chain(properties) {
            config.set(name, value);
        }
        config
    }

    /// A client, if it could be set up.
    fn set_up<T>(&self, made: Result<T, KafkaError>) -> Result<T, Error> {
        made.map_err(|error| self.failed("setting up a client of Kafka", &error))
    }

    fn failed(&self, what: impl Into<String>, error: &KafkaError) -> Error {
        // Of an answer to an administrator the client tells the code elsewhere.
        let (code, text) = match error {
            KafkaError::AdminOp(code) => (Some(*code), code.to_string()),
            other => (other.rdkafka_error_code(), other.to_string()),
        };
        let (what, text) = (what.into(), lower(&text));
        match code {
            None
            | Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::TimedOutQueue
                | RDKafkaErrorCode::MessageTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::WaitingForCoordinator
                | RDKafkaErrorCode::RequestTimedOut
                // While a partition gets another leader, whoever is asked knows less or more than who asks.
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                // What the client says of one that nobody leads.
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::FencedLeaderEpoch
                | RDKafkaErrorCode::UnknownLeaderEpoch,
            ) => Error::Unreachable { what, address: self.address.clone(), text },
            Some(code) if is_denial(code) => Error::Denied { what, text },
            Some(_) => Error::Refused { what, text },
        }
    }
}

/// Whether a cluster says by this code that the user may not do something.
fn is_denial(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// As the rest of a sentence.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Cluster, Error> {
        Cluster::new("127.0.0.1:9092", BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn a_property_that_is_not_the_callers_is_refused_with_the_reason() {
        let error = with("enable.auto.commit", "true").unwrap_err();
        assert_eq!(
            error.to_string(),
            "enable.auto.commit is not for you to set: the sinks store how far they are"
        );
    }

    #[test]
    fn a_property_that_there_is_not_is_refused_before_anything_is_asked() {
        let error = with("fetch.wait.max.msec", "1").unwrap_err().to_string();
        assert!(error.contains("fetch.wait.max.msec"), "{error}");
        let error = with("fetch.wait.max.ms", "soon").unwrap_err().to_string();
        assert!(error.contains("soon"), "{error}");
    }

    #[test]
    fn a_partition_that_gets_another_leader_is_asked_again_and_says_no_to_nothing() {
        use RDKafkaErrorCode as Code;
        let cluster = Cluster::new("127.0.0.1:9092", BTreeMap::new()).unwrap();
        for code in [Code::NotLeaderForPartition, Code::UnknownLeaderEpoch, Code::UnknownPartition] {
            let failed = cluster.failed("asking", &KafkaError::MetadataFetch(code));
            assert!(matches!(failed, Error::Unreachable { .. }), "{failed:?}");
        }
    }

    #[test]
    fn every_property_of_ours_is_one_that_there_is() {
        for (name, _) in OWNED {
            let known = ClientConfig::new().set(*name, "no value").create_native_config();
            let said = known.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!said.contains("No such configuration property"), "{name}: {said}");
        }
    }

    #[test]
    fn all_other_properties_reach_the_client() {
        let cluster = with("security.protocol", "SASL_SSL").unwrap();
        assert_eq!(cluster.config().get("security.protocol"), Some("SASL_SSL"));
    }

    #[test]
    fn no_client_has_a_broker_make_a_topic_by_itself() {
        let cluster = Cluster::new("127.0.0.1:9092", BTreeMap::new()).unwrap();
        assert_eq!(cluster.config().get("allow.auto.create.topics"), Some("false"));
    }
}
