//! Copies dead letters to the replay input of their pipeline, by which they go through it again: each once, however often
//! that is asked for and wherever it was cut short. Of a record of which a sink refused a row, the sink has kept that row alone, so
//! the record is read from the input once more. Who reads letters from a sink, and who is asked first, is not known here.

mod directory;
pub mod dry_run;
mod topic;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::Origin as Source;
use super::columns::Columns;
use super::inputs::Replays;
use super::letters::{dead_targets, used};
use super::{columns, recall};
use crate::batch::RecordRef;
use crate::config::PipelineConfig;
use crate::kafka::transactions::wire_bytes;
use crate::offset::{Offset, TopicPartition};
use crate::origin::{ENVELOPE, Envelope, Meant, Origin};
use crate::plan::History;
use crate::route::{DEAD_LETTERS, dead_letters_schema};
use crate::sink::table::Wanted;

/// Letters that are handed over to be copied at once, and their bytes. A topic gets them in several transactions: what is there
/// already is left out, so it does not matter where that ends.
const AT_ONCE: (usize, usize) = (10_000, 16 << 20);

/// Records that are looked for in the input at once.
const SOUGHT: usize = 10_000;

/// A dead letter: a record, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Which record, and at which attempt it became a letter: 0 where it came by for the first time.
    pub origin: Origin,
    /// The row that alone is wanted of it; absent: all that becomes of it.
    pub meant: Option<Meant>,
    /// Absent and empty differ.
    pub key: Option<Vec<u8>>,
    /// Absent: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970-01-01T00:00:00Z; -1 where it has none.
    pub timestamp_ms: i64,
}

/// What is to go through the pipeline again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// A record, as its letter has it.
    Letter(Letter),
    /// A record that is in the input only, and at which attempt a row of it was refused.
    InInput(Envelope),
}

/// The letters that were sent through their pipeline again, as far as that is committed.
#[derive(Debug)]
pub struct Sent(BTreeSet<Envelope>);

impl Sent {
    /// Looks at the replay input, and makes nothing.
    ///
    /// # Errors
    /// What the replay input says.
    pub fn look(config: &PipelineConfig) -> Result<Self> {
        let there = match Source::of(config)? {
            Source::Files(_) => directory::look(&Replays::new(config)).map(|known| known.there),
            Source::Kafka(_, cluster) => {
                let sent = topic::sent(&cluster, config.name.as_str());
                sent.map(Option::unwrap_or_default).map_err(Into::into)
            }
        };
        Ok(Self(there.context("looking at the replay input")?))
    }

    /// Whether the letter is one of them: a record, or a row of it, and the attempt at which that became one. Of a letter in a table
    /// that is [`lacking`], that cannot be known.
    pub fn has(&self, letter: &Envelope) -> bool {
        self.0.contains(&letter.again())
    }
}

/// What became of letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// They are in the replay input now.
    pub copied: u64,
    /// They were before, or another sink has them too.
    pub there: u64,
    /// They went through as often as `dead_letter.max_attempts` says, and are left where they are.
    pub spent: u64,
    /// The replay input does not take them, and they are left where they are.
    pub too_large: Vec<TooLarge>,
    /// The input does not have their records any more.
    pub gone: Vec<Gone>,
}

/// A record that cannot be read once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Which, and at which attempt a row of it was refused.
    pub letter: Envelope,
    /// Why not, for people.
    pub why: String,
}

/// A letter that is larger than the replay input takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Which it would be there.
    pub origin: Origin,
    /// What it takes there.
    pub bytes: usize,
    /// What there is room for.
    pub most: usize,
}

/// What letters are copied to.
trait Input {
    /// Takes letters none of which is there: they are copied when this returns, or when [`Self::finish`] does. All that are
    /// copied in one step are, or none of them, wherever it is cut short.
    ///
    /// # Errors
    /// Then none of them was copied, or that is not known; in either case whoever asks again copies none twice.
    fn copy(&mut self, letters: &[Letter]) -> Result<()>;

    /// Copies what was taken and is not copied yet.
    ///
    /// # Errors
    /// As of [`Self::copy`].
    fn finish(self) -> Result<()>;
}

/// What is known of a replay input before anything is copied.
#[derive(Debug, Default)]
struct Known {
    /// What is in it, and what is about to be.
    there: BTreeSet<Envelope>,
    /// Bytes that it takes for a letter, if they are limited.
    most_bytes: Option<usize>,
}

/// What is to be done with a letter.
enum Choice {
    /// It is to be copied like this, and takes so many bytes.
    Copy(Letter, usize),
    There,
    Spent,
    TooLarge(TooLarge),
    Gone(Gone),
}

/// Called with each letter, as it is one, and what is to be done with it.
type EachChoice<'a> = &'a mut dyn FnMut(Envelope, Choice) -> Result<()>;

/// Letters whose records are to be looked for, by where those stand.
type Sought = BTreeMap<TopicPartition, BTreeMap<Offset, Vec<Envelope>>>;

/// Decides what is to be done with letters, and finds the records of those that are in the input only.
struct Choosing<'a> {
    config: &'a PipelineConfig,
    history: &'a History,
    known: Known,
}

impl Choosing<'_> {
    /// Letters come in their order, but for those whose records have to be found: they follow.
    fn all(mut self, selected: impl Iterator<Item = Result<Selected>>, each: EachChoice<'_>) -> Result<()> {
        let (mut sought, mut n) = (Sought::new(), 0);
        for selected in selected {
            let selected = selected?;
            let of = selected.id();
            if let Some(choice) = self.left_out(&of) {
                each(of, choice)?;
                continue;
            }
            match selected {
                Selected::Letter(letter) => {
                    let choice = self.copied(letter);
                    each(of, choice)?;
                }
                Selected::InInput(_) => {
                    let partition = sought.entry(of.origin.at.clone()).or_default();
                    partition.entry(of.origin.offset).or_default().push(of);
                    n += 1;
                }
            }
            if n == SOUGHT {
                n = 0;
                self.look_for(std::mem::take(&mut sought), each)?;
            }
        }
        self.look_for(sought, each)
    }

    /// Why a letter is not to be copied, as far as that can be said without it. Else nobody else copies it from now on.
    fn left_out(&mut self, of: &Envelope) -> Option<Choice> {
        if of.origin.attempt >= self.config.dead_letter.max_attempts.get() {
            return Some(Choice::Spent);
        }
        let is_new = self.known.there.insert(of.again());
        (!is_new).then_some(Choice::There)
    }

    fn copied(&mut self, letter: Letter) -> Choice {
        let letter = Letter { origin: letter.origin.again(), ..letter };
        let bytes = letter.bytes();
        match self.known.most_bytes.filter(|most| bytes > *most) {
            Some(most) => {
                self.known.there.remove(&letter.id());
                Choice::TooLarge(TooLarge { origin: letter.origin, bytes, most })
            }
            None => Choice::Copy(letter, bytes),
        }
    }

    fn look_for(&mut self, sought: Sought, each: EachChoice<'_>) -> Result<()> {
        let (config, history) = (self.config, self.history);
        for (at, mut sought) in sought {
            let offsets = sought.keys().copied().collect();
            let missing = recall::records(config, history, &at, &offsets, &mut |offset, record| {
                let found = sought.remove(&offset).unwrap_or_default();
                found.into_iter().try_for_each(|of| {
                    let choice = self.copied(Letter::of(&of, &record));
                    each(of, choice)
                })
            })?;
            for (offset, why) in missing {
                for letter in sought.remove(&offset).unwrap_or_default() {
                    let gone = Gone { letter: letter.clone(), why: why.clone() };
                    each(letter, Choice::Gone(gone))?;
                }
            }
        }
        Ok(())
    }
}

impl Selected {
    /// What it is, at the attempt at which it became a letter.
    fn id(&self) -> Envelope {
        match self {
            Self::Letter(letter) => letter.id(),
            Self::InInput(of) => of.clone(),
        }
    }
}

/// Statements after which tables say what they have to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Those of dead letters.
    pub of_letters: Vec<String>,
    /// Those of rows that a sink refused.
    pub of_refused: Vec<String>,
}

/// The statements after which tables of dead letters, and of rows that a sink `refused` where those are to be sent, say how often a
/// record has come again. Without that, one that fails again could not be told from one that failed for the first time, and would
/// never be copied again.
///
/// # Errors
/// If a sink cannot be asked.
pub fn lacking(config: &PipelineConfig, history: &History, refused: bool) -> Result<Lacking> {
    let mut lacking = Lacking::default();
    for (name, sink) in used(config, history) {
        let wanted = |target| Wanted { target, route: DEAD_LETTERS.into(), schema: dead_letters_schema() };
        let wanted: Vec<_> = dead_targets(config, history, name).into_iter().map(wanted).collect();
        // A server that has no letters is not asked.
        if !wanted.is_empty() {
            lacking.of_letters.extend(Columns::Tell.of(config, name, sink, &wanted)?);
        }
        if refused {
            lacking.of_refused.extend(columns::rejects_lack(config, name, sink)?);
        }
    }
    Ok(lacking)
}

/// Copies letters to the replay input of the pipeline of `config`, whether it runs or not. A letter that is too large keeps none
/// of the others.
///
/// # Errors
/// What reading a letter ends with, and what the replay input says. What was copied by then stays copied, and whoever asks again
/// copies the others.
pub fn replay(
    config: &PipelineConfig,
    history: &History,
    selected: impl Iterator<Item = Result<Selected>>,
) -> Result<Copied> {
    match Source::of(config)? {
        Source::Files(_) => {
            let opened = directory::Directory::open(config);
            let (directory, known) = opened.context("opening the replay input")?;
            copy(selected, Choosing { config, history, known }, directory)
        }
        Source::Kafka(_, cluster) => {
            let opened = topic::Topic::open(cluster, config.name.as_str());
            let (topic, known) = opened.context("opening the replay input")?;
            copy(selected, Choosing { config, history, known }, topic)
        }
    }
}

/// Leaves out what is not to be copied, and copies the others a few at a time.
fn copy<I: Input>(
    selected: impl Iterator<Item = Result<Selected>>,
    choosing: Choosing<'_>,
    mut input: I,
) -> Result<Copied> {
    let mut copied = Copied::default();
    let (mut letters, mut taken) = (Vec::new(), 0);
    choosing.all(selected, &mut |_, choice| {
        match choice {
            Choice::Spent => copied.spent += 1,
            Choice::There => copied.there += 1,
            Choice::TooLarge(letter) => copied.too_large.push(letter),
            Choice::Gone(letter) => copied.gone.push(letter),
            Choice::Copy(letter, bytes) => {
                taken += bytes;
                letters.push(letter);
            }
        }
        if letters.len() >= AT_ONCE.0 || taken >= AT_ONCE.1 {
            input.copy(&letters)?;
            copied.copied += letters.len() as u64;
            (letters, taken) = (Vec::new(), 0);
        }
        Ok(())
    })?;
    if !letters.is_empty() {
        input.copy(&letters)?;
        copied.copied += letters.len() as u64;
    }
    input.finish()?;
    Ok(copied)
}

impl Letter {
    /// A record as it stands in the input.
    fn of(Envelope { origin, meant }: &Envelope, record: &RecordRef<'_>) -> Self {
        let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
        Self {
            origin: origin.clone(),
            meant: meant.clone(),
            key: bytes(record.key),
            value: bytes(record.value),
            headers: record.headers.iter().map(|(name, value)| ((*name).to_owned(), bytes(*value))).collect(),
            timestamp_ms: record.timestamp_ms,
        }
    }

    /// What names its copy.
    fn id(&self) -> Envelope {
        Envelope { origin: self.origin.clone(), meant: self.meant.clone() }
    }

    /// What a topic has to take for its copy.
    fn bytes(&self) -> usize {
        let id = self.id().to_string();
        wire_bytes(self.key.as_deref(), self.value.as_deref(), self.envelope(&id))
    }

    /// Hands its copy to `take`, as a record of the replay input.
    fn enveloped<T>(&self, take: impl FnOnce(RecordRef<'_>) -> T) -> T {
        let id = self.id().to_string();
        let headers: Vec<_> = self.envelope(&id).collect();
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        take(RecordRef { key, value, headers: &headers, timestamp_ms: self.timestamp_ms })
    }

    /// The headers of its copy, whose first is `id`.
    fn envelope<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone {
        let own = self.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
        std::iter::once((ENVELOPE, Some(id.as_bytes()))).chain(own)
    }
}

#[cfg(test)]
mod tests;
