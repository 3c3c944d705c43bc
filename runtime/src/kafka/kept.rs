//! The clients of a cluster that are made when they are first needed, and kept: each has to connect, and one that administers
//! takes a tenth of a second to go. Whoever in this process names the same addresses, with the same properties, has the same ones:
//! mostly the source and a sink.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;

use super::append::Appender;
use super::{Cluster, Error};

/// Those of all clusters that somebody has at the moment, by the digest of addresses and properties: these may be passwords.
static ALL: Mutex<BTreeMap<String, Weak<Kept>>> = Mutex::new(BTreeMap::new());

/// See the module.
#[derive(Default)]
pub(super) struct Kept {
    asker: Place<Asker>,
    administrator: Place<AdminClient<DefaultClientContext>>,
    appender: Place<Mutex<Appender>>,
}

type Place<T> = Mutex<Option<Arc<T>>>;

/// A client that asks questions. It reads nothing and belongs to no group.
pub(super) struct Asker {
    client: BaseConsumer,
    /// Topics that it was told of.
    known: Mutex<BTreeSet<String>>,
}

impl Asker {
    fn knows(&self, topic: &str) -> bool {
        self.topics().contains(topic)
    }

    fn learn(&self, topic: &str) {
        self.topics().insert(topic.to_owned());
    }

    fn topics(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.known.lock().expect("nobody panics while it is looked up")
    }
}

impl Deref for Asker {
    type Target = BaseConsumer;

    fn deref(&self) -> &BaseConsumer {
        &self.client
    }
}

impl Kept {
    /// Those of a cluster.
    pub(super) fn of(brokers: &str, properties: &BTreeMap<String, String>) -> Arc<Self> {
        let named = serde_json::to_vec(&(brokers, properties)).expect("texts are plain data");
        let mut all = ALL.lock().expect("nobody panics while it is looked for");
        all.retain(|_, kept| kept.strong_count() > 0);
        let place = all.entry(crate::digest::of(&named)).or_default();
        place.upgrade().unwrap_or_else(|| {
            let kept = Arc::default();
            *place = Arc::downgrade(&kept);
            kept
        })
    }
}

impl Cluster {
    pub(super) fn asker(&self) -> Result<Arc<Asker>, Error> {
        kept(&self.kept.asker, || {
            Ok(Asker { client: self.set_up(self.config().create())?, known: Mutex::default() })
        })
    }

    /// The same, once it knows these topics: one that is asked for the offsets of another may look for it only after a second. That a
    /// broker does not know one is no word on whether it is there, since one that has just come back knows none for a moment.
    pub(super) fn asker_knowing<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t str>,
    ) -> Result<Arc<Asker>, Error> {
        let asker = self.asker()?;
        for topic in topics {
            if asker.knows(topic) {
                continue;
            }
            match self.judged(&asker, self.partitions_by(&asker, topic)) {
                Ok(_) => asker.learn(topic),
                Err(Error::NoTopic { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(asker)
    }

    /// Waits until it knows a topic that was just made: it may ask a broker that does not know it yet.
    pub(super) fn make_known(&self, topic: &str) -> Result<(), Error> {
        let asker = self.asker()?;
        self.judged(&asker, self.until_known(topic, &asker))?;
        asker.learn(topic);
        Ok(())
    }

    /// Asks it something about the offsets of a topic. Behind an error as of [`Self::ask`].
    pub(super) fn ask_about<T>(
        &self,
        topic: &str,
        ask: impl FnOnce(&BaseConsumer) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let asker = self.asker_knowing([topic])?;
        self.judged(&asker, ask(&asker))
    }

    /// Asks it something. Behind an error the next question is asked by a new one: a client that reads nothing believes for a
    /// quarter of an hour who leads a partition. That there is no topic is no such error.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&BaseConsumer) -> Result<T, Error>) -> Result<T, Error> {
        let asker = self.asker()?;
        self.judged(&asker, ask(&asker))
    }

    /// What it answered.
    fn judged<T>(&self, asker: &Arc<Asker>, answer: Result<T, Error>) -> Result<T, Error> {
        answer.inspect_err(|error| {
            if !matches!(error, Error::NoTopic { .. }) {
                self.forget(asker);
            }
        })
    }

    /// Somebody else may have forgotten it before, and have another one by now.
    pub(super) fn forget(&self, asker: &Arc<Asker>) {
        let forgotten = held(&self.kept.asker).take_if(|held| Arc::ptr_eq(held, asker));
        // Nobody waits until it is gone but who had it.
        drop(forgotten);
    }

    pub(super) fn administrator(&self) -> Result<Arc<AdminClient<DefaultClientContext>>, Error> {
        kept(&self.kept.administrator, || self.set_up(self.config().create()))
    }

    /// One that appends records to logs, whichever they are.
    pub(super) fn appender(&self) -> Result<Arc<Mutex<Appender>>, Error> {
        kept(&self.kept.appender, || Ok(Mutex::new(Appender::new(self)?)))
    }
}

fn kept<T>(place: &Place<T>, make: impl FnOnce() -> Result<T, Error>) -> Result<Arc<T>, Error> {
    let mut place = held(place);
    match &*place {
        Some(client) => Ok(client.clone()),
        None => Ok(place.insert(Arc::new(make()?)).clone()),
    }
}

fn held<T>(place: &Place<T>) -> MutexGuard<'_, Option<Arc<T>>> {
    place.lock().expect("nobody panics with a client in hand")
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::offset::Offset;

    #[test]
    fn who_names_the_same_cluster_has_the_same_clients_and_who_tells_them_something_else_has_others() {
        let cluster = |id: &str| {
            let told = BTreeMap::from([("client.rack".to_owned(), id.to_owned())]);
            Cluster::new("127.0.0.1:9", told).unwrap().in_table(id)
        };
        let (one, same, other) = (cluster("a"), cluster("a").in_table("b"), cluster("b"));
        assert!(Arc::ptr_eq(&one.asker().unwrap(), &same.asker().unwrap()));
        assert!(!Arc::ptr_eq(&one.asker().unwrap(), &other.asker().unwrap()));
        // Nobody has them any more: they are gone, and not kept for whoever may come.
        let gone = Arc::downgrade(&one.kept);
        drop((one, same));
        assert_eq!(gone.strong_count(), 0);
        assert!(cluster("a").asker().is_ok());
    }

    #[test]
    fn that_a_client_does_not_know_a_topic_is_no_word_on_whether_it_is_there() {
        let mock = MockCluster::new(1).unwrap();
        let cluster = Cluster::new(mock.bootstrap_servers(), BTreeMap::new()).unwrap();
        assert!(matches!(cluster.partitions("late"), Err(Error::NoTopic { .. })));
        let ask = || cluster.ask_about("late", |asker| cluster.bounds(asker, "late", 0));
        let early = ask();
        assert!(matches!(early, Err(Error::Unreachable { .. })), "{early:?}");
        mock.create_topic("late", 1, 1).unwrap();
        assert_eq!(ask().unwrap(), (Offset::ZERO, Offset::ZERO));
    }

    #[test]
    fn behind_an_error_another_client_asks_and_not_where_there_is_no_topic() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("customers", 2, 1).unwrap();
        let cluster = Cluster::new(mock.bootstrap_servers(), BTreeMap::new()).unwrap();
        let first = cluster.asker().unwrap();
        assert_eq!(cluster.extents("customers").unwrap().len(), 2);
        assert!(matches!(cluster.partitions("nobody"), Err(Error::NoTopic { .. })));
        assert!(Arc::ptr_eq(&first, &cluster.asker().unwrap()));
        let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
        mock.request_errors(RDKafkaApiKey::ListOffsets, &denied);
        assert!(matches!(cluster.extents("customers"), Err(Error::Denied { .. })));
        let second = cluster.asker().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        // Who had the first one does not take the second from others.
        cluster.forget(&first);
        assert_eq!(cluster.extents("customers").unwrap().len(), 2);
        assert!(Arc::ptr_eq(&second, &cluster.asker().unwrap()));
    }
}
