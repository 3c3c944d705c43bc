//! Copies dead letters to the replay input of their pipeline, by which they go through it again: each once, however often
//! that is asked for and wherever it was cut short. Who reads letters from a sink, and who is asked first, is not known here.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Origin as Source;
use super::columns::Columns;
use super::letters::{dead_targets, used};
use crate::config::PipelineConfig;
use crate::kafka::Cluster;
use crate::kafka::peek::{From, peek};
use crate::kafka::produce::Compression;
use crate::kafka::transactions::{Ended, Outgoing, Settings, Transactions, Undone, wire_bytes};
use crate::origin::{ENVELOPE, Origin, replay_topic};
use crate::plan::History;
use crate::route::{DEAD_LETTERS, dead_letters_schema};
use crate::sink::table::Wanted;

/// Letters that become visible in one transaction, and their bytes. More of them are copied in several: what is there already is
/// left out, so it does not matter where that ends.
const AT_ONCE: (usize, usize) = (10_000, 16 << 20);

/// Of such a transaction, after which the cluster gives it up.
const TIMEOUT: Duration = Duration::from_secs(60);

const NOT_OF_FILES: &str = "the dead letters of a pipeline that reads files cannot be sent through it again yet: put the records \
                            into a file of its input";

/// A dead letter: a record, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Which record, and at which attempt it became a letter: 0 where it came by for the first time.
    pub origin: Origin,
    /// Absent and empty differ.
    pub key: Option<Vec<u8>>,
    /// Absent: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970-01-01T00:00:00Z; -1 where it has none.
    pub timestamp_ms: i64,
}

/// What became of letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// They are in the replay input now.
    pub copied: u64,
    /// They were before, or another sink has them too.
    pub there: u64,
    /// They went through as often as `dead_letter.max_attempts` says, and are left where they are.
    pub spent: u64,
}

/// Whether a pipeline has a replay input.
///
/// # Errors
/// It has none: it reads files.
pub fn is_possible(config: &PipelineConfig) -> Result<()> {
    match Source::of(config)? {
        Source::Files(_) => bail!(NOT_OF_FILES),
        Source::Kafka(..) => Ok(()),
    }
}

/// The statements after which tables of dead letters say how often a record has come again. Without that, one that fails again
/// could not be told from one that failed for the first time, and would never be copied again.
///
/// # Errors
/// If a sink cannot be asked.
pub fn lacking(config: &PipelineConfig, history: &History) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (name, sink) in used(config, history) {
        let wanted = |target| Wanted { target, route: DEAD_LETTERS.into(), schema: dead_letters_schema() };
        let wanted: Vec<_> = dead_targets(config, history, name).into_iter().map(wanted).collect();
        // A server that has no letters is not asked.
        if !wanted.is_empty() {
            all.extend(Columns::Tell.of(config, name, sink, &wanted)?);
        }
    }
    Ok(all)
}

/// Copies letters to the replay input of the pipeline of `config`, whether it runs or not.
///
/// # Errors
/// What reading a letter ends with, and what the cluster says. What was copied by then stays copied, and whoever asks again
/// copies the others.
pub fn replay(config: &PipelineConfig, letters: impl Iterator<Item = Result<Letter>>) -> Result<Copied> {
    let most_attempts = config.dead_letter.max_attempts.get();
    match Source::of(config)? {
        Source::Files(_) => bail!(NOT_OF_FILES),
        Source::Kafka(_, cluster) => {
            let mut input = Input::open(cluster, config.name.as_str()).context("opening the replay input")?;
            select(letters, most_attempts, &mut input)
        }
    }
}

/// Leaves out what is not to be copied, and copies the others a few at a time.
fn select(
    letters: impl Iterator<Item = Result<Letter>>,
    most_attempts: u16,
    input: &mut Input,
) -> Result<Copied> {
    let mut copied = Copied::default();
    let (mut selected, mut bytes) = (Vec::new(), 0);
    for letter in letters {
        let mut letter = letter?;
        if letter.origin.attempt >= most_attempts {
            copied.spent += 1;
            continue;
        }
        letter.origin = letter.origin.again();
        if !input.there.insert(letter.origin.clone()) {
            copied.there += 1;
            continue;
        }
        bytes += input.bytes_of(&letter)?;
        selected.push(letter);
        if selected.len() >= AT_ONCE.0 || bytes >= AT_ONCE.1 {
            copied.copied += input.copy(&selected)?;
            (selected, bytes) = (Vec::new(), 0);
        }
    }
    if !selected.is_empty() {
        copied.copied += input.copy(&selected)?;
    }
    Ok(copied)
}

/// The topic that letters are copied to.
struct Input {
    topic: String,
    most_bytes: usize,
    transactions: Transactions,
    /// What is in it.
    there: BTreeSet<Origin>,
}

impl Input {
    /// Makes the topic if it is not there. Whoever else copies to it is fenced, and what they had begun is ended; so what
    /// is there then is all that is.
    fn open(cluster: Cluster, pipeline: &str) -> Result<Self> {
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
        let mut there = BTreeSet::new();
        peek(&cluster, &topic, None, From::Start, &mut |seen| {
            let headers: Vec<_> =
                seen.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
            // What is no envelope becomes a dead letter itself, and is no copy of any.
            there.extend(Origin::open(&headers).map(|(origin, _)| origin));
            true
        })?;
        Ok(Self { topic, most_bytes, transactions, there })
    }

    /// What the topic has to take for a letter.
    fn bytes_of(&self, letter: &Letter) -> Result<usize> {
        let id = letter.origin.to_string();
        let (key, value) = (letter.key.as_deref(), letter.value.as_deref());
        let bytes = wire_bytes(key, value, letter.envelope(&id));
        if bytes > self.most_bytes {
            let (topic, most) = (&self.topic, self.most_bytes);
            bail!(
                "the dead letter {id} takes {bytes} bytes, and topic {topic} takes {most} at once: raise its \
                 max.message.bytes, and ask again"
            );
        }
        Ok(bytes)
    }

    /// One transaction.
    fn copy(&mut self, letters: &[Letter]) -> Result<u64> {
        match self.send(letters) {
            Ok(Ended::Committed) => {}
            Ok(Ended::Undone(undone)) | Err(undone) => return Err(why(undone)),
            Ok(Ended::Unknown(text) | Ended::UnknownAndFenced(text)) => bail!(
                "whether the last {} dead letters were copied is not known ({text}): ask again, none is copied twice",
                letters.len()
            ),
        }
        fail::fail_point!("replay.after_commit");
        Ok(letters.len() as u64)
    }

    fn send(&mut self, letters: &[Letter]) -> Result<Ended, Undone> {
        self.transactions.begin()?;
        for (tag, letter) in letters.iter().enumerate() {
            let id = letter.origin.to_string();
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

impl Letter {
    /// The headers of its copy, whose first is `id`.
    fn envelope<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone {
        let own = self.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
        std::iter::once((ENVELOPE, Some(id.as_bytes()))).chain(own)
    }
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
