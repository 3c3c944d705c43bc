//! The clients of a cluster that are made when they are first needed, and kept: each has to connect, and one that administers
//! takes a tenth of a second to go.

use std::sync::{Arc, Mutex, MutexGuard};

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;

use super::append::Appender;
use super::{Cluster, Error};

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

    /// Asks it something. After an error the next question is asked by a new one: a client that reads nothing believes for a
    /// quarter of an hour who leads a partition.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&BaseConsumer) -> Result<T, Error>) -> Result<T, Error> {
        ask(&*self.asker()?).inspect_err(|_| self.forget_asker())
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
