//! Copies dead letters to the replay input of their pipeline, by which they go through it again: each once, however often
//! that is asked for and wherever it was cut short. Who reads letters from a sink, and who is asked first, is not known here.

pub mod dry_run;
mod topic;

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use super::Origin as Source;
use super::columns::Columns;
use super::letters::{dead_targets, used};
use crate::config::PipelineConfig;
use crate::kafka::transactions::wire_bytes;
use crate::origin::{ENVELOPE, Envelope, Meant, Origin};
use crate::plan::History;
use crate::route::{DEAD_LETTERS, dead_letters_schema};
use crate::sink::table::Wanted;

/// Letters that are copied at once, and their bytes. More of them are copied in several steps: what is there already is
/// left out, so it does not matter where that ends.
const AT_ONCE: (usize, usize) = (10_000, 16 << 20);

const NOT_OF_FILES: &str = "the dead letters of a pipeline that reads files cannot be sent through it again yet: put the records \
                            into a file of its input";

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
    /// Copies letters, none of which is there: all or none of them, wherever it is cut short.
    ///
    /// # Errors
    /// Then none was copied, or that is not known; in either case whoever asks again copies none twice.
    fn copy(&mut self, letters: &[Letter]) -> Result<()>;
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
}

impl Known {
    fn choose(&mut self, letter: Letter, most_attempts: u16) -> Choice {
        if letter.origin.attempt >= most_attempts {
            return Choice::Spent;
        }
        let letter = Letter { origin: letter.origin.again(), ..letter };
        if self.there.contains(&letter.id()) {
            return Choice::There;
        }
        let bytes = letter.bytes();
        match self.most_bytes.filter(|most| bytes > *most) {
            Some(most) => Choice::TooLarge(TooLarge { origin: letter.origin, bytes, most }),
            None => {
                self.there.insert(letter.id());
                Choice::Copy(letter, bytes)
            }
        }
    }
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

/// Copies letters to the replay input of the pipeline of `config`, whether it runs or not. A letter that is too large keeps none
/// of the others.
///
/// # Errors
/// What reading a letter ends with, and what the replay input says. What was copied by then stays copied, and whoever asks again
/// copies the others.
pub fn replay(config: &PipelineConfig, letters: impl Iterator<Item = Result<Letter>>) -> Result<Copied> {
    let most_attempts = config.dead_letter.max_attempts.get();
    match Source::of(config)? {
        Source::Files(_) => bail!(NOT_OF_FILES),
        Source::Kafka(_, cluster) => {
            let opened = topic::Topic::open(cluster, config.name.as_str());
            let (mut topic, known) = opened.context("opening the replay input")?;
            select(letters, most_attempts, known, &mut topic)
        }
    }
}

/// Leaves out what is not to be copied, and copies the others a few at a time.
fn select(
    letters: impl Iterator<Item = Result<Letter>>,
    most_attempts: u16,
    mut known: Known,
    input: &mut dyn Input,
) -> Result<Copied> {
    let mut copied = Copied::default();
    let (mut selected, mut taken) = (Vec::new(), 0);
    for letter in letters {
        match known.choose(letter?, most_attempts) {
            Choice::Spent => copied.spent += 1,
            Choice::There => copied.there += 1,
            Choice::TooLarge(letter) => copied.too_large.push(letter),
            Choice::Copy(letter, bytes) => {
                taken += bytes;
                selected.push(letter);
            }
        }
        if selected.len() >= AT_ONCE.0 || taken >= AT_ONCE.1 {
            input.copy(&selected)?;
            copied.copied += selected.len() as u64;
            (selected, taken) = (Vec::new(), 0);
        }
    }
    if !selected.is_empty() {
        input.copy(&selected)?;
        copied.copied += selected.len() as u64;
    }
    Ok(copied)
}

impl Letter {
    /// What names its copy.
    fn id(&self) -> Envelope {
        Envelope { origin: self.origin.clone(), meant: self.meant.clone() }
    }

    /// What a topic has to take for its copy.
    fn bytes(&self) -> usize {
        let id = self.id().to_string();
        wire_bytes(self.key.as_deref(), self.value.as_deref(), self.envelope(&id))
    }

    /// The headers of its copy, whose first is `id`.
    fn envelope<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone {
        let own = self.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
        std::iter::once((ENVELOPE, Some(id.as_bytes()))).chain(own)
    }
}
