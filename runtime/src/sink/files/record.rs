//! What a record of the commit log says, and its text. A record that cannot be read in full is never half believed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::offset::OffsetRange;
use crate::sink::state::{Claim, Commit, Epoch, Nonce, Refused, SinkState, Start, VERSION};

/// What is stored as a text of its own.
pub(super) trait Stored: Serialize {
    /// The version of the format that a reader has to know for it.
    fn version(&self) -> u32;
}

impl Stored for Record {
    fn version(&self) -> u32 {
        match self {
            Self::Init { state } => state.version(),
            Self::Commit(record) => record.commit.counters.version(),
            Self::Claim { .. } | Self::Gap { .. } => 1,
        }
    }
}

impl Stored for Snapshot {
    fn version(&self) -> u32 {
        self.state.version()
    }
}

/// One step of a partition's history.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Record {
    /// The first record: where the partition starts.
    Init { state: SinkState },
    /// Another owner.
    Claim { epoch: Epoch, owner: Nonce },
    /// Rows, and the position behind them.
    Commit(CommitRecord),
    /// Offsets that were lost before they were read, accepted by an operator.
    Gap { epoch: Epoch, owner: Nonce, range: OffsetRange },
}

/// What a commit makes visible.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct CommitRecord {
    /// Under which epoch.
    pub(super) epoch: Epoch,
    /// By which process.
    pub(super) owner: Nonce,
    /// The request.
    #[serde(flatten)]
    pub(super) commit: Commit,
    /// Where its rows are.
    pub(super) files: Vec<StoredFile>,
    /// All files of this record and those before have their visible names.
    pub(super) rolled: u64,
}

/// Where a partition stands after a record. It takes the place of that record and of all before it, whose files have
/// their visible names.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// The number of the record.
    pub(super) upto: u64,
    pub(super) state: SinkState,
}

/// A complete file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct StoredFile {
    pub(super) target: String,
    pub(super) route: String,
    /// Its path until the record is there.
    pub(super) staged: String,
    /// Its path from then on.
    pub(super) path: String,
    /// Bytes.
    pub(super) length: u64,
    /// CRC-32 of all bytes.
    pub(super) crc32: u32,
    pub(super) rows: u64,
}

/// A record as it is stored; the checksum is over the record's own text.
#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    nonce: Nonce,
    crc32: u32,
    record: Box<RawValue>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Why a record's text is no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("has version {0}, this program reads up to {VERSION}")]
    Newer(u32),
    #[error("is no record: {0}")]
    Garbled(#[from] serde_json::Error),
    #[error("has checksum {found} instead of {expected}")]
    Checksum { expected: u32, found: u32 },
}

/// The text of a record or snapshot, recognisable by `nonce`.
pub(super) fn to_text<T: Stored>(record: &T, nonce: Nonce) -> Vec<u8> {
    let version = record.version();
    let record = serde_json::value::to_raw_value(record).expect("a record has only text keys");
    let crc32 = crc32fast::hash(record.get().as_bytes());
    let envelope = Envelope { version, nonce, crc32, record };
    let mut text = serde_json::to_vec(&envelope).expect("a record has only text keys");
    text.push(b'\n');
    text
}

/// Reads what [`to_text`] wrote.
pub(super) fn from_text<T: DeserializeOwned>(text: &[u8]) -> Result<(Nonce, T), Unreadable> {
    let Versioned { version } = serde_json::from_slice(text)?;
    if version > VERSION {
        return Err(Unreadable::Newer(version));
    }
    let envelope: Envelope = serde_json::from_slice(text)?;
    let found = crc32fast::hash(envelope.record.get().as_bytes());
    if found != envelope.crc32 {
        return Err(Unreadable::Checksum { expected: envelope.crc32, found });
    }
    Ok((envelope.nonce, serde_json::from_str(envelope.record.get())?))
}

impl Record {
    /// Takes `state` over this record, by the laws of [`SinkState`].
    pub(super) fn apply(self, state: &mut Option<SinkState>) -> Result<(), BrokenLaw> {
        match (self, state) {
            (Self::Init { state: first }, state @ None) => *state = Some(first),
            (Self::Init { .. }, Some(_)) => return Err(BrokenLaw::SecondInit),
            (_, None) => return Err(BrokenLaw::NoInit),
            (Self::Claim { epoch, owner }, Some(state)) => state.claim(&claim_of(state, epoch, owner))?,
            (Self::Commit(record), Some(state)) => {
                state.commit(record.epoch, record.owner, &record.commit)?
            }
            (Self::Gap { epoch, owner, range }, Some(state)) => state.skip(epoch, owner, range)?,
        }
        Ok(())
    }
}

/// Why a record cannot stand where it stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenLaw {
    #[error("begins the log a second time")]
    SecondInit,
    #[error("comes before the log begins")]
    NoInit,
    #[error("{0}")]
    Refused(#[from] Refused),
}

fn claim_of(state: &SinkState, epoch: Epoch, owner: Nonce) -> Claim {
    Claim {
        pipeline: state.pipeline.clone(),
        group: state.group.clone(),
        topic_id: state.topic_id.clone(),
        at: crate::offset::TopicPartition::new(state.topic.clone(), state.partition),
        epoch,
        owner,
        start: Start::MustExist,
        input: state.input.clone(),
    }
}
