//! The clients of a cluster that are made when they are first needed, and kept: each has to connect, and one that administers
//! takes a tenth of a second to go.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use backon::{BlockingRetryable as _, ConstantBuilder};
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;

use super::append::Appender;
use super::{Cluster, Error, PATIENCE};

/// Between two questions, of which nobody could answer the first.
const MOMENT: Duration = Duration::from_millis(100);

/// See the module. Whoever has the same cluster has the same ones.
#[derive(Default)]
pub(super) struct Kept {
    asker: Place<BaseConsumer>,
    administrator: Place<AdminClient<DefaultClientContext>>,
    appender: Place<Mutex<Appender>>,
}

type Place<T> = Mutex<Option<Arc<T>>>;

impl Cluster {
    /// A client that asks questions. It reads nothing and belongs to no group.
    pub(super) fn asker(&self) -> Result<Arc<BaseConsumer>, Error> {
        kept(&self.kept.asker, || self.set_up(self.config().create()))
    }

    /// Asks it something, [patiently]. Behind an error the next question is asked by a new one: a client that reads nothing
    /// believes for a quarter of an hour who leads a partition.
    pub(super) fn ask<T>(&self, ask: impl Fn(&BaseConsumer) -> Result<T, Error>) -> Result<T, Error> {
        patiently(|| {
            let answer = ask(&*self.asker()?);
            answer.inspect_err(|error| {
                // That there is no topic is just said by the cluster.
                if !matches!(error, Error::NoTopic { .. }) {
                    self.forget_asker();
                }
            })
        })
    }

    pub(super) fn forget_asker(&self) {
        *held(&self.kept.asker) = None;
    }

    pub(super) fn administrator(&self) -> Result<Arc<AdminClient<DefaultClientContext>>, Error> {
        kept(&self.kept.administrator, || self.set_up(self.config().create()))
    }

    /// One that appends records to logs, whichever they are.
    pub(super) fn appender(&self) -> Result<Arc<Mutex<Appender>>, Error> {
        kept(&self.kept.appender, || Ok(Mutex::new(Appender::new(self)?)))
    }
}

/// Asks again while nobody knows: a broker that has just come back leads nothing for a moment.
pub(super) fn patiently<T>(ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let (begun, again) = (now(), ConstantBuilder::default().with_delay(MOMENT).without_max_times());
    let nobody_knows = |error: &Error| matches!(error, Error::Unreachable { .. });
    ask.retry(again).when(|error| nobody_knows(error) && begun.elapsed() < PATIENCE).call()
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

#[expect(clippy::disallowed_methods, reason = "how long an answer takes is no decision about a record")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    #[test]
    fn what_a_broker_does_not_know_for_a_moment_is_asked_again() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("customers", 2, 1).unwrap();
        let cluster = Cluster::new(mock.bootstrap_servers(), BTreeMap::new()).unwrap();
        let nobody_leads = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 3];
        mock.request_errors(RDKafkaApiKey::ListOffsets, &nobody_leads);
        assert_eq!(cluster.extents("customers").unwrap().len(), 2);
    }

    #[test]
    fn what_a_cluster_refuses_is_not_asked_again() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("customers", 2, 1).unwrap();
        let cluster = Cluster::new(mock.bootstrap_servers(), BTreeMap::new()).unwrap();
        let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
        mock.request_errors(RDKafkaApiKey::ListOffsets, &denied);
        assert!(matches!(cluster.extents("customers"), Err(Error::Denied { .. })));
        assert_eq!(cluster.extents("customers").unwrap().len(), 2);
    }
}
