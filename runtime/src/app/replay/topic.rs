//! The replay input of a pipeline that reads topics: a topic of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{Input, Known, Letter};
use crate::kafka::peek::{From, peek};
use crate::kafka::produce::Compression;
use crate::kafka::transactions::{Ended, Outgoing, Settings, Transactions, Undone};
use crate::kafka::{Cluster, Error};
use crate::origin::{Envelope, replay_topic};

/// Of a transaction, after which the cluster gives it up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The topic that letters are copied to, in transactions.
pub(super) struct Topic {
    topic: String,
    transactions: Transactions,
}

impl Topic {
    /// Makes the topic if it is not there. Whoever else copies to it is fenced, and what they had begun is ended; so what
    /// is there then is all that is.
    pub(super) fn open(cluster: Cluster, pipeline: &str) -> Result<(Self, Known)> {
        let topic = replay_topic(pipeline);
        cluster.make_kept_in_order(&topic)?;
        let most_bytes = cluster.most_bytes(&topic)?;
        let mut transactions = Transactions::new(&cluster);
        transactions.renew(&Settings {
            id: topic.clone(),
            timeout: TIMEOUT,
            compression: Compression::Lz4,
            batch_bytes: most_bytes.clamp(1, 1_000_000),
            record_bytes: most_bytes.clamp(1_000, 1_000_000_000),
        })?;
        fail::fail_point!("replay.after_renewal");
        let known = Known { there: there(&cluster, &topic)?, most_bytes: Some(most_bytes) };
        Ok((Self { topic, transactions }, known))
    }

    fn send(&mut self, letters: &[Letter]) -> Result<Ended, Undone> {
        self.transactions.begin()?;
        for (tag, letter) in letters.iter().enumerate() {
            let id = letter.id().to_string();
            let (key, value, timestamp_ms) =
                (letter.key.as_deref(), letter.value.as_deref(), letter.timestamp_ms);
            let record = Outgoing { topic: &self.topic, key, value, timestamp_ms };
            self.transactions.send(tag, &record, letter.envelope(&id))?;
            fail::fail_point!("replay.mid_letters");
        }
        self.transactions.settle()?;
        fail::fail_point!("replay.before_commit");
        Ok(self.transactions.commit())
    }
}

impl Input for Topic {
    /// One transaction.
    fn copy(&mut self, letters: &[Letter]) -> Result<()> {
        match self.send(letters) {
            Ok(Ended::Committed) => {}
            Ok(Ended::Undone(undone)) | Err(undone) => return Err(why(undone)),
            Ok(Ended::Unknown(text) | Ended::UnknownAndFenced(text)) => bail!(
                "whether the last {} dead letters were copied is not known ({text}): ask again, none is copied twice",
                letters.len()
            ),
        }
        fail::fail_point!("replay.after_commit");
        Ok(())
    }

    fn finish(self) -> Result<()> {
        Ok(())
    }
}

/// What is known of the topic without making it. Somebody else may be copying to it; and what was committed a moment ago may not
/// be seen yet.
pub(super) fn look(cluster: &Cluster, pipeline: &str) -> Result<Known> {
    let Some(there) = sent(cluster, pipeline)? else { return Ok(Known::default()) };
    Ok(Known { there, most_bytes: Some(cluster.most_bytes(&replay_topic(pipeline))?) })
}

/// Which letters are in the topic, as [`look`] would see it; absent where there is no topic.
pub(super) fn sent(cluster: &Cluster, pipeline: &str) -> Result<Option<BTreeSet<Envelope>>, Error> {
    match there(cluster, &replay_topic(pipeline)) {
        Err(Error::NoTopic { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// Which letters are in the topic, as far as it is committed.
fn there(cluster: &Cluster, topic: &str) -> Result<BTreeSet<Envelope>, Error> {
    let mut there = BTreeSet::new();
    peek(cluster, topic, None, From::Start, &mut |seen| {
        // What is no envelope becomes a dead letter itself, and is no copy of any.
        there.extend(Envelope::open(&seen.header_refs()).map(|(envelope, _)| envelope));
        true
    })?;
    Ok(there)
}

/// None of the letters of the transaction was copied.
fn why(undone: Undone) -> anyhow::Error {
    match undone {
        Undone::Failed(error) => error.into(),
        Undone::Fenced(text) => {
            anyhow::anyhow!("somebody else began to replay dead letters of this pipeline ({text}): ask again")
        }
        Undone::Refused { why, .. } => anyhow::anyhow!("the cluster refuses a dead letter: {why}"),
        Undone::Stale(text) | Undone::TooLarge(text) | Undone::GivenUp(text) => {
            anyhow::anyhow!("copying dead letters: {text}")
        }
    }
}

#[cfg(all(test, feature = "servers"))]
mod tests;
