//! Where records come from. A source cuts records into batches and says which partitions are ours; where to begin
//! is told to it, it remembers nothing.

pub mod files;
pub mod format;
pub mod kafka;

use std::sync::Arc;

use crate::batch::Batch;
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::{Epoch, Fingerprint, Input, Start};

/// What a source tells the pipeline, in order per partition.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per batch: a box would be an allocation more")]
pub enum SourceEvent {
    /// The partitions are ours. Nothing of them is delivered before [`Source::read`].
    Assigned(Vec<Assignment>),
    /// The next batch of a partition that was told to be read.
    Batch {
        /// Of which run it was told to be read.
        run: RunId,
        /// The batch.
        batch: Batch,
    },
    /// The partition ends here: a file that was read to its end.
    End {
        /// Of which run it was told to be read.
        run: RunId,
        /// The partition.
        at: TopicPartition,
        /// Behind its last record.
        end: Offset,
        /// Nothing will ever be added; else not by this process.
        for_good: bool,
    },
    /// Where partitions that are read end for now, as last seen: what is added later is behind that. For people only.
    Seen(Vec<(TopicPartition, Offset)>),
    /// The partition is wanted elsewhere. It is ours until [`Source::forget`]: what is under way may be brought to its
    /// end first.
    Revoked(TopicPartition),
    /// The partition is not ours any more; nothing more of it is delivered.
    Lost(TopicPartition),
    /// The partition cannot be read on.
    Failed {
        /// The partition.
        at: TopicPartition,
        /// Why.
        error: Error,
    },
    /// There will never be another partition, and none is being read.
    Exhausted,
}

/// Tells apart the times that a partition was claimed by this process, so that what belongs to an earlier one is
/// recognised and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// A partition that became ours.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The partition.
    pub at: TopicPartition,
    /// Which topic of that name.
    pub topic_id: Arc<str>,
    /// The consumer group, or the pipeline's name.
    pub group: Arc<str>,
    /// With which epoch to claim it.
    pub epoch: Epoch,
    /// What to do in a sink that has no state of it.
    pub start: Start,
    /// The file it stands for, if it does.
    pub input: Option<Input>,
}

/// What a source has for its caller.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per batch: a box would be an allocation more")]
pub enum Poll {
    /// Something to handle.
    Event(SourceEvent),
    /// Nothing, until it is told to read or forget a partition, or time has passed.
    Idle,
    /// Nothing at the moment; it has waited already, and is to be asked again.
    Again,
    /// Nothing any more: the byte budget was closed.
    Closed,
}

/// A source belongs to one thread, which polls it and passes on what it is told in between.
pub trait Source: Send {
    /// The next event. May block for as long as the byte budget is used up, and for a bounded time besides.
    fn poll(&mut self) -> Poll;

    /// Delivers the partition from `from` on, as run `run`; what was delivered before under another run ends. A source whose
    /// records might have been replaced looks whether `last` still is what it was, if that is there.
    fn read(&mut self, run: RunId, at: &TopicPartition, from: Offset, last: Option<Fingerprint>);

    /// Delivers nothing more of the partition until it is told to be read again. It stays ours.
    fn hold(&mut self, at: &TopicPartition);

    /// A sink refused a claim of the partition: it was claimed under `by`, which is not lower. A source that is given its
    /// epochs by somebody else finds out whether they are to be trusted; for others it means nothing.
    fn overtaken(&mut self, _at: &TopicPartition, _by: Epoch) {}

    /// Lets go of the partition: nothing of it is under way in this process any more, and none of its sinks will commit
    /// anything for it before it is claimed again. `finished` says that every sink has all of it.
    fn forget(&mut self, at: &TopicPartition, finished: bool);
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is there cannot be read as what it is said to be, or is not what it was.
    #[error("{text}")]
    Input {
        /// With the code, what was found where.
        text: String,
        /// What a person can do.
        hint: Option<String>,
    },
    /// What records come from does not answer or does not give them, which may pass by itself.
    #[error("{text}")]
    Unreachable {
        /// What was tried on what, and what came of it.
        text: String,
        /// What a person can do.
        hint: Option<String>,
    },
    /// The medium failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried on what.
        what: String,
        /// What lies below.
        source: std::io::Error,
    },
}

impl Error {
    /// What a person can do.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Input { hint, .. } | Self::Unreachable { hint, .. } => hint.as_deref(),
            Self::Io { .. } => None,
        }
    }
}
