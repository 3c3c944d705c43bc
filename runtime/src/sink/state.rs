//! What a sink knows of one input partition, and the only laws by which that changes. Pure: no I/O, no clock.
//!
//! Every sink keeps one [`SinkState`] per partition, stored together with the data, so that position and rows
//! become durable in the same step:
//!
//! | operation | succeeds if | then |
//! |---|---|---|
//! | init | there is no state | `next` is the start position that the plan log decided |
//! | claim | its epoch is higher than the state's, or it is a retry by the same owner | no commit of a lower epoch can succeed any more |
//! | commit | epoch and owner are the claim's, and the range starts at `next` | `next` is the range's end, the cuts are recorded |
//!
//! A refusal changes nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::offset::{Offset, OffsetRange};

/// Who may commit. Ordered: the higher one fences the lower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// Raised when the generations of a consumer group began again.
    pub incarnation: u32,
    /// The generation of the consumer group, or the number of this start for sources without groups.
    pub generation: u64,
}

impl Epoch {
    /// Generation `generation` of the first incarnation.
    pub fn new(generation: u64) -> Self {
        Self { incarnation: 0, generation }
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.incarnation, self.generation)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A 128-bit number drawn at random, in hexadecimal: a process, or a commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(u128);

impl Nonce {
    /// Draws one from the operating system.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(u128::from_le_bytes(bytes))
    }

    /// A chosen one, for seeded tests.
    pub fn from_u128(n: u128) -> Self {
        Self(n)
    }

    /// The first eight digits, for names of files and log lines.
    pub fn short(&self) -> String {
        format!("{:08x}", self.0 >> 96)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Serialize for Nonce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A plan as a commit names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PlanRef {
    /// The plan's number: higher is newer.
    pub plan: u64,
    /// The digest of the transform that the plan runs.
    pub digest: Arc<str>,
}

/// From `from` on, up to the next cut, a plan made the rows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cut {
    /// The first offset of that plan.
    pub from: Offset,
    /// The plan.
    #[serde(flatten)]
    pub plan: PlanRef,
}

/// Which input a file source's partition stands for; a changed one is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Input {
    /// Path below the source.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// `sha256:` and the digest of all bytes.
    pub digest: String,
}

/// What became of records, and what was written. Adds up over commits.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Records that went in, readable or not.
    pub records_in: u64,
    /// Records with at least one row on a route.
    pub routed: u64,
    /// Records refused with a reason, by the source or the transform.
    pub rejected: u64,
    /// Records left out on purpose.
    pub dropped: u64,
    /// Records at which the transform itself failed.
    pub failed: u64,
    /// Records that came again for a row that another sink alone is to have.
    #[serde(default, skip_serializing_if = "is_none")]
    pub elsewhere: u64,
    /// Per target of this sink.
    pub targets: BTreeMap<Arc<str>, TargetCounters>,
}

impl Counters {
    /// See [`SinkState::version`].
    pub(super) fn version(&self) -> u32 {
        if self.elsewhere > 0 { VERSION } else { 1 }
    }

    /// Whether every record that went in has exactly one fate.
    pub fn conserved(&self) -> bool {
        u128::from(self.records_in) == self.accounted()
    }

    /// Wide enough for any five numbers, since they may have been read from a disk.
    fn accounted(&self) -> u128 {
        let all = [self.routed, self.rejected, self.dropped, self.failed, self.elsewhere];
        all.into_iter().map(u128::from).sum()
    }

    /// Adds what another commit counted. What is full stays so.
    pub fn add(&mut self, other: &Self) {
        let counts = [
            (&mut self.records_in, other.records_in),
            (&mut self.routed, other.routed),
            (&mut self.rejected, other.rejected),
            (&mut self.dropped, other.dropped),
            (&mut self.failed, other.failed),
            (&mut self.elsewhere, other.elsewhere),
        ];
        counts.into_iter().for_each(|(count, more)| *count = count.saturating_add(more));
        for (target, counted) in &other.targets {
            self.targets.entry(target.clone()).or_default().add(counted);
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(n: &u64) -> bool {
    *n == 0
}

/// What was written to one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TargetCounters {
    /// Rows.
    pub rows: u64,
    /// The sum, modulo 2^128, of [`crate::route::row_hash`] over all rows: two runs that wrote the same rows, in
    /// whatever order, have the same sum.
    #[serde(with = "hex")]
    pub sum: u128,
}

impl TargetCounters {
    fn add(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(n: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{n:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

/// A request to own a partition in one sink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The consumer group, or the pipeline's name for sources without groups.
    pub group: Arc<str>,
    /// Which topic of that name; a UUID.
    pub topic_id: Arc<str>,
    /// The partition.
    pub at: crate::offset::TopicPartition,
    /// Must be higher than any epoch the sink has seen.
    pub epoch: Epoch,
    /// This process.
    pub owner: Nonce,
    /// What to do where the sink has no state.
    pub start: Start,
    /// What the partition stands for, where the source is made of files.
    pub input: Option<Input>,
}

/// What a claim does where the sink has no state of the partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Begin at this offset: the plan log has it as the start position, and no sink has committed yet.
    Init(Offset),
    /// Refuse: every sink had a state once, so this one was lost.
    MustExist,
}

/// The record in front of a position, so that it is known again: a topic that lost records and got others has others at
/// their offsets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Where it is.
    pub offset: Offset,
    /// Of key and value: 16 hexadecimal digits.
    pub digest: Arc<str>,
}

impl Fingerprint {
    /// Of the record at `offset`.
    pub fn of(offset: Offset, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut bytes = Vec::new();
        for part in [key, value] {
            // Absent and empty differ, and what belongs to the key is no part of the value.
            let length = part.map_or(u64::MAX, |bytes| bytes.len() as u64);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(part.unwrap_or_default());
        }
        let digest = crate::digest::of(&bytes);
        let (_, digits) = digest.split_once(':').expect("it begins with the algorithm");
        Self { offset, digest: digits[..16].into() }
    }
}

/// A request to make a range durable, with the rows that were staged for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// Names this commit, so that it can be asked for when its answer was lost.
    pub id: Nonce,
    /// Starts where the sink stands.
    pub range: OffsetRange,
    /// The one plan that made all of the range.
    pub plan: PlanRef,
    /// What became of the range's records.
    pub counters: Counters,
    /// The last record of the range, if it has one and that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Fingerprint>,
    /// The plan log has all cuts of the partition by lower plans than this.
    #[serde(default)]
    pub told: u64,
}

/// The version of the format of states and commits. A newer one is refused.
pub(super) const VERSION: u32 = 2;

/// So many cuts stay in a state, as soon as those that went before are in the plan log: a state is written with every commit,
/// and rules may be replaced every hour for years.
const KEPT_CUTS: usize = 64;

/// What a sink knows of one input partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SinkState {
    /// The pipeline that owns it.
    pub pipeline: Arc<str>,
    /// Another group's claim is refused.
    pub group: Arc<str>,
    /// Another topic of the same name is refused.
    pub topic_id: Arc<str>,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Who may commit.
    pub epoch: Epoch,
    /// The process that claimed it last; `None` before the first claim.
    pub owner: Option<Nonce>,
    /// The first offset this sink does not have.
    pub next: Offset,
    /// Which plan made which offsets, oldest first: the newest of them.
    pub cuts: Vec<Cut>,
    /// What went before those, by which it is known again: see [`forgotten`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Arc<str>>,
    /// What the partition stands for, where the source is made of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Input>,
    /// The commit that brought it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<Nonce>,
    /// Everything committed so far.
    #[serde(default)]
    pub counters: Counters,
    /// The last record in front of `next` that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Fingerprint>,
}

/// Why a state would not change.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Somebody else owns the partition now. Step back: nothing of ours can be committed any more.
    #[error("fenced: epoch {held} of process {} holds the partition, not our epoch {ours}", owner.map_or("nobody".to_owned(), |o| o.short()))]
    Fenced {
        /// The state's epoch.
        held: Epoch,
        /// The state's owner.
        owner: Option<Nonce>,
        /// The epoch that was refused.
        ours: Epoch,
    },
    /// The state's epoch is *lower* than ours although we claimed it: the sink went back in time, restored from
    /// a backup or failed over. Claim again and read again.
    #[error(
        "the sink stands at epoch {held} although epoch {ours} claimed it: it was restored to an earlier state"
    )]
    WentBack {
        /// The state's epoch.
        held: Epoch,
        /// Ours.
        ours: Epoch,
    },
    /// The position belongs to another consumer group.
    #[error("E_OTHER_GROUP: the position belongs to group {held}, this pipeline runs as group {ours}")]
    OtherGroup {
        /// The state's group.
        held: Arc<str>,
        /// Ours.
        ours: Arc<str>,
    },
    /// The topic was deleted and made again, or the state directory was lost.
    #[error(
        "E_TOPIC_REPLACED: the position is that of topic {topic} with id {held}, but the topic of that name has id {ours} now"
    )]
    TopicReplaced {
        /// The topic's name.
        topic: Arc<str>,
        /// The state's topic id.
        held: Arc<str>,
        /// The claim's.
        ours: Arc<str>,
    },
    /// The file behind the partition is another one than before.
    #[error(
        "E_INPUT_CHANGED: {path} had {held_length} bytes with digest {held} when it was read, and has {length} bytes with digest {found} now"
    )]
    InputChanged {
        /// Path below the source.
        path: String,
        /// Bytes then.
        held_length: u64,
        /// Digest then.
        held: String,
        /// Bytes now.
        length: u64,
        /// Digest now.
        found: String,
    },
    /// The partition is a file and was none, or the other way round.
    #[error(
        "E_INPUT_CHANGED: partition {partition} was {} when it was read, and is {} now; set the source's format back, or give the pipeline another name",
        input_name(held),
        input_name(found)
    )]
    InputReplaced {
        /// The partition.
        partition: i32,
        /// The path of the file then, if it was one.
        held: Option<String>,
        /// The path of the file now, if it is one.
        found: Option<String>,
    },
    /// The commit does not start where the sink stands.
    #[error("the commit of {range} does not start at {next}, where the sink stands")]
    NotNext {
        /// What was to be committed.
        range: OffsetRange,
        /// Where the sink stands.
        next: Offset,
    },
    /// The commit covers no offset.
    #[error("the commit of {range} is empty")]
    Empty {
        /// What was to be committed.
        range: OffsetRange,
    },
    /// A lower plan than one already recorded: versions never go back along offsets.
    #[error("plan {plan} cannot follow plan {newest}, which made the rows before {from}")]
    OlderPlan {
        /// The commit's plan.
        plan: u64,
        /// The newest plan recorded.
        newest: u64,
        /// Where the commit starts.
        from: Offset,
    },
    /// More or fewer fates than records.
    #[error("E_NOT_CONSERVED: {records_in} records went into {range}, {accounted} are accounted for")]
    NotConserved {
        /// What was to be committed.
        range: OffsetRange,
        /// Records in.
        records_in: u64,
        /// All fates together.
        accounted: u128,
    },
}

impl Refused {
    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OtherGroup { .. } => Some("give one of the two pipelines another name"),
            Self::TopicReplaced { .. } => Some(
                "restore the state directory of a pipeline from files; read a topic that was made again with a pipeline of \
                 another name",
            ),
            Self::InputChanged { .. } => Some("put the file back as it was; new data comes in new files"),
            _ => None,
        }
    }
}

fn input_name(path: &Option<String>) -> String {
    path.as_ref().map_or_else(|| "no single file".to_owned(), |path| format!("the file {path}"))
}

impl SinkState {
    /// The state of a partition that starts at `start`; nobody owns it yet.
    pub fn init(claim: &Claim, start: Offset) -> Self {
        Self {
            pipeline: claim.pipeline.clone(),
            group: claim.group.clone(),
            topic_id: claim.topic_id.clone(),
            topic: claim.at.topic.clone(),
            partition: claim.at.partition,
            epoch: Epoch::default(),
            owner: None,
            next: start,
            cuts: Vec::new(),
            forgotten: None,
            input: claim.input.clone(),
            last_commit: None,
            counters: Counters::default(),
            last: None,
        }
    }

    /// Gives the partition to `claim`'s owner. A repeated claim of the same owner succeeds again.
    pub fn claim(&mut self, claim: &Claim) -> Result<(), Refused> {
        self.check_identity(claim)?;
        let retry = self.epoch == claim.epoch && self.owner == Some(claim.owner);
        if self.epoch >= claim.epoch && !retry {
            return Err(self.fenced(claim.epoch));
        }
        self.epoch = claim.epoch;
        self.owner = Some(claim.owner);
        Ok(())
    }

    fn check_identity(&self, claim: &Claim) -> Result<(), Refused> {
        if self.group != claim.group {
            return Err(Refused::OtherGroup { held: self.group.clone(), ours: claim.group.clone() });
        }
        if self.topic_id != claim.topic_id {
            let (held, ours) = (self.topic_id.clone(), claim.topic_id.clone());
            return Err(Refused::TopicReplaced { topic: self.topic.clone(), held, ours });
        }
        match (&self.input, &claim.input) {
            (Some(held), Some(found)) if held != found => Err(Refused::InputChanged {
                path: held.path.clone(),
                held_length: held.length,
                held: held.digest.clone(),
                length: found.length,
                found: found.digest.clone(),
            }),
            (Some(_), Some(_)) | (None, None) => Ok(()),
            (held, found) => {
                let path = |input: &Option<Input>| input.as_ref().map(|input| input.path.clone());
                let (partition, held, found) = (self.partition, path(held), path(found));
                Err(Refused::InputReplaced { partition, held, found })
            }
        }
    }

    /// Moves the position over `commit`'s range.
    pub fn commit(&mut self, epoch: Epoch, owner: Nonce, commit: &Commit) -> Result<(), Refused> {
        self.check_commit(epoch, owner, commit)?;
        if self.cuts.last().is_none_or(|cut| cut.plan != commit.plan) {
            self.cuts.push(Cut { from: commit.range.start, plan: commit.plan.clone() });
        }
        self.forget_cuts(KEPT_CUTS, commit.told);
        self.next = commit.range.end;
        self.last_commit = Some(commit.id);
        self.counters.add(&commit.counters);
        if commit.last.is_some() {
            self.last.clone_from(&commit.last);
        }
        Ok(())
    }

    /// The version of the format that a reader has to know for it: one that knows less would not keep what it does not know.
    pub(super) fn version(&self) -> u32 {
        if self.forgotten.is_some() { VERSION } else { self.counters.version() }
    }

    /// Forgets all cuts by lower plans than `told`, but for the newest `kept`.
    pub(super) fn forget_cuts(&mut self, kept: usize, told: u64) {
        let most = self.cuts.len().saturating_sub(kept);
        let n = self.cuts[..most].iter().take_while(|cut| cut.plan.plan < told).count();
        self.forgotten = forgotten(self.forgotten.take(), &self.cuts[..n]);
        self.cuts.drain(..n);
    }

    /// Whether [`Self::commit`] would succeed; changes nothing.
    pub fn check_commit(&self, epoch: Epoch, owner: Nonce, commit: &Commit) -> Result<(), Refused> {
        if self.epoch < epoch {
            return Err(Refused::WentBack { held: self.epoch, ours: epoch });
        }
        if self.epoch != epoch || self.owner != Some(owner) {
            return Err(self.fenced(epoch));
        }
        let range = commit.range;
        if range.start != self.next {
            return Err(Refused::NotNext { range, next: self.next });
        }
        if range.is_empty() {
            return Err(Refused::Empty { range });
        }
        if let Some(newest) = self.cuts.last().map(|cut| cut.plan.plan).filter(|&p| p > commit.plan.plan) {
            return Err(Refused::OlderPlan { plan: commit.plan.plan, newest, from: range.start });
        }
        let c = &commit.counters;
        if !c.conserved() {
            let (records_in, accounted) = (c.records_in, c.accounted());
            return Err(Refused::NotConserved { range, records_in, accounted });
        }
        Ok(())
    }

    /// Moves the position over offsets that were lost before they were read, which an operator accepted.
    pub fn skip(&mut self, epoch: Epoch, owner: Nonce, range: OffsetRange) -> Result<(), Refused> {
        if self.epoch != epoch || self.owner != Some(owner) {
            return Err(self.fenced(epoch));
        }
        if range.start != self.next {
            return Err(Refused::NotNext { range, next: self.next });
        }
        self.next = range.end;
        Ok(())
    }

    fn fenced(&self, ours: Epoch) -> Refused {
        Refused::Fenced { held: self.epoch, owner: self.owner, ours }
    }

    /// The plan that made `offset`, if this sink has it and still knows.
    pub fn plan_at(&self, offset: Offset) -> Option<&PlanRef> {
        if offset >= self.next {
            return None;
        }
        plan_at(&self.cuts, offset)
    }
}

/// What a state keeps of cuts that it forgets, oldest first, behind those that it has forgotten `before`: 16 hexadecimal digits
/// that depend on each of them. Whoever says that these were the cuts is believed only if it comes to the same.
pub fn forgotten(before: Option<Arc<str>>, cuts: &[Cut]) -> Option<Arc<str>> {
    cuts.iter().fold(before, |before, Cut { from, plan }| {
        let before = before.as_deref().unwrap_or_default();
        let digest = crate::digest::of(format!("{before} {from} {} {}", plan.plan, plan.digest).as_bytes());
        let (_, digits) = digest.split_once(':').expect("it begins with the algorithm");
        Some(digits[..16].into())
    })
}

/// The plan that made `offset`, by cuts that begin with the oldest; absent where they begin behind it.
pub fn plan_at(cuts: &[Cut], offset: Offset) -> Option<&PlanRef> {
    cuts.iter().rev().find(|cut| cut.from <= offset).map(|cut| &cut.plan)
}

#[cfg(test)]
mod tests;
