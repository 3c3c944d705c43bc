//! What the pipeline knows of a transform at work: a batch goes in, an output or a failure comes out. Nothing
//! here knows that there is a sandbox.

use std::iter::Sum;

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::route::Output;

/// A transform at work: sandboxed, native or simulated.
///
/// What becomes of a record depends on that record alone, so the same records may be handed over again, in other
/// batches and to another instance.
pub trait Rule: Send {
    /// Transforms a batch. What comes out is checked: see [`Output`].
    ///
    /// # Errors
    /// After any error the rule is used up; the caller makes a fresh one.
    fn process(&mut self, batch: &Batch) -> Result<Output, CallError>;

    /// Bytes of memory the rule holds beyond what it started with, tables included; it never shrinks, so a caller
    /// replaces a rule that is past its mark.
    fn grown_bytes(&self) -> usize {
        0
    }

    /// Whether the last call took so long that one of its records may have used more fuel than a record has.
    fn is_suspect(&self) -> bool {
        false
    }
}

/// How a call into a transform failed. `log` has the last lines that the transform wrote during the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It broke off: a panic, a recursion too deep, an access out of bounds, a call it may not make.
    #[error("the transform trapped: {text}")]
    Trap {
        /// What the sandbox said.
        text: String,
        /// Its last lines.
        log: String,
    },
    /// It asked for more memory than it may have, and broke off.
    #[error("the transform wanted more than {limit_bytes} bytes of memory: {text}")]
    Memory {
        /// What it may have.
        limit_bytes: usize,
        /// What the sandbox said.
        text: String,
        /// Its last lines.
        log: String,
    },
    /// It answered with an error of its own.
    #[error("the transform returned an error: {text}")]
    Returned {
        /// What it said, cut at 4 KiB.
        text: String,
        /// Its last lines.
        log: String,
    },
    /// It answered with something that breaks the contract.
    #[error("{text}")]
    BadOutput {
        /// The function, route, field and row, and what is wrong there.
        text: String,
        /// Its last lines.
        log: String,
    },
    /// It used up its fuel: by itself, this is a fact about the record.
    #[error("the transform did not come to an end within {limit} units of fuel")]
    Fuel {
        /// What it had.
        limit: u64,
        /// Its last lines.
        log: String,
    },
    /// It did not answer in time. That depends on the machine, so it is no fact about a record.
    #[error("the transform did not answer within {ms} ms")]
    Deadline {
        /// How long it had.
        ms: u64,
        /// Its last lines.
        log: String,
    },
}

impl CallError {
    /// The last lines that the transform wrote during the call.
    pub fn log(&self) -> &str {
        match self {
            Self::Trap { log, .. }
            | Self::Memory { log, .. }
            | Self::Returned { log, .. }
            | Self::BadOutput { log, .. }
            | Self::Fuel { log, .. }
            | Self::Deadline { log, .. } => log,
        }
    }

    /// Stable and short, for metrics and dead letters: `trap`, `error`, `bad-output`, `fuel` or `deadline`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Trap { .. } | Self::Memory { .. } => "trap",
            Self::Returned { .. } => "error",
            Self::BadOutput { .. } => "bad-output",
            Self::Fuel { .. } => "fuel",
            Self::Deadline { .. } => "deadline",
        }
    }
}

/// How far the look for the guilty records of a batch has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judging {
    /// Records that were looked at, or need not be.
    pub records: u64,
    /// Those of them at which the transform failed.
    pub failed: u64,
}

impl Sum for Judging {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            records: sum.records + one.records,
            failed: sum.failed + one.failed,
        })
    }
}
