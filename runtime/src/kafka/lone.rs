//! A consumer that takes part in no group: it reads where it is told to, and stores no offset.

use std::ops::Deref;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;

use super::{Cluster, Error};

/// One that is gone as soon as nobody has it.
pub(super) struct LoneConsumer(BaseConsumer);

impl Cluster {
    /// A consumer with these settings, besides those of the cluster. The client wants the name of a group: how far that is can
    /// be asked, and nothing is ever committed under it.
    pub(super) fn lone_consumer(
        &self,
        group: &str,
        settings: &[(&str, &str)],
    ) -> Result<LoneConsumer, Error> {
        let mut config = self.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        self.set_up(config.create()).map(LoneConsumer)
    }
}

impl Deref for LoneConsumer {
    type Target = BaseConsumer;

    fn deref(&self) -> &BaseConsumer {
        &self.0
    }
}

impl Drop for LoneConsumer {
    /// Closes it, which takes a millisecond or two. Left to the library, which looks every tenth of a second whether it is
    /// closed, each of them would hold up whoever looked at a topic for as long.
    fn drop(&mut self) {
        // One that cannot be closed is left to the library all the same.
        if self.0.close_queue().is_ok() {
            while !self.0.closed() {
                drop(self.0.poll(Duration::from_millis(1)));
            }
        }
    }
}
