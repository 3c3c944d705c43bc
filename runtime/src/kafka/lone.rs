//! A consumer that takes part in no group: it reads where it is told to, and stores no offset.

use std::ops::Deref;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::{Cluster, Error};

/// One that is gone as soon as nobody has it.
pub(super) struct LoneConsumer(BaseConsumer);

impl Cluster {
    /// A consumer with these settings, besides those of the cluster. The client wants the name of a group; nothing is ever
    /// committed under it unless it is done by name.
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
        let made = config.create().map_err(|error| self.failed("setting up a client of Kafka", &error));
        made.map(LoneConsumer)
    }
}

impl Deref for LoneConsumer {
    type Target = BaseConsumer;

    fn deref(&self) -> &BaseConsumer {
        &self.0
    }
}

impl Drop for LoneConsumer {
    /// Closes it, which takes a millisecond. Left to the library's wrapper, which looks every tenth of a second whether it is
    /// closed, each of them would hold up whoever looked at a topic for as long.
    #[expect(unsafe_code, reason = "the client's wrapper has no call for it")]
    fn drop(&mut self) {
        // SAFETY: the client lives until this returns. That it cannot be closed is nobody's concern: it is tried once more.
        unsafe { sys::rd_kafka_consumer_close(self.0.client().native_ptr()) };
    }
}
