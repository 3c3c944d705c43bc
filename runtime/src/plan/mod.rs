//! What runs from which offset. A plan log is the one place where a pipeline writes down its decisions; it holds
//! no rows and no positions, those are the sinks'.

pub mod files;
pub mod kafka;
pub mod memory;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::offset::{Offset, TopicPartition};
use crate::sink::state::{Cut, Epoch, Nonce, PlanRef, SinkState, forgotten, plan_at};
use crate::source::files::FileEntry;

/// A numbered statement of what runs: it never changes, a newer one takes its place. Its number is its place in
/// the plan log.
///
/// Everything that can change what becomes of a record is in here, so that a sink that lags gets the rows that
/// the others got.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The plan that this one takes the place of. A plan whose predecessor is no longer the newest is skipped by
    /// all readers: somebody else was faster.
    pub replaces: Option<u64>,
    /// The digest of the transform's bytes.
    pub digest: Arc<str>,
    /// What the transform calls itself, for people.
    pub name: String,
    /// What it says its version is, for people.
    pub version: String,
    /// Every declared setting.
    pub settings: BTreeMap<String, String>,
    /// The reference tables by name.
    pub tables: BTreeMap<String, TableRef>,
    /// The limits that can change what becomes of a record.
    pub limits: PlanLimits,
    /// Which route goes to which `sink.target`s; none: its rows are left out on purpose. Dead letters are a route
    /// here. A sink that lags gets its rows where the plan that made them sent them.
    pub routes: BTreeMap<String, Vec<String>>,
    /// The digest of what the pipeline file said when this plan was taken from it. A plan that came another way
    /// keeps the one of the plan before, so that an unchanged file is seen to be unchanged.
    pub declared: String,
    /// Who made it while the pipeline ran, and why; absent where a run took it from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

impl Plan {
    /// Whether it makes the same of every record, wherever it came from.
    pub fn does_the_same(&self, other: &Self) -> bool {
        let what = |plan: &Self| Self { replaces: None, declared: String::new(), made: None, ..plan.clone() };
        what(self) == what(other)
    }

    /// Whether it is taken back by itself where it does worse than the one that it replaces.
    pub fn is_on_trial(&self) -> bool {
        self.replaces.is_some() && self.made.as_ref().is_some_and(|made| made.on_trial)
    }
}

/// Who made a plan, and why; for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Made {
    /// Who, and when.
    #[serde(flatten)]
    pub by: By,
    /// Why, as they say.
    pub why: String,
    /// Whether it is taken back by itself, where it does worse than the plan before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_trial: bool,
}

/// A reference table as a plan names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableRef {
    /// The digest of the file's bytes.
    pub digest: Arc<str>,
    /// The delimiter, where the pipeline file gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Which header stands for which column, where the pipeline file says so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
}

/// The limits that are part of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanLimits {
    /// Of one instance.
    pub memory_bytes: u64,
    /// Of one batch.
    pub deadline_ms: u64,
    /// Of what one batch returns.
    pub output_bytes: u64,
    /// For judging a suspect record.
    pub fuel_per_record: u64,
}

/// A plan that gets the records of the plan that runs, and of which nothing is written anywhere: what it makes of them is
/// compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shadow {
    /// What would run. It names the plan that it would replace, with which it is compared, and who wants it.
    pub plan: Plan,
    /// It ends everywhere once one process has compared so many records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// It ends at this time, in milliseconds since 1970-01-01T00:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// It becomes the next plan by itself when `records` are compared, if no more than so many of them differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote_up_to: Option<u64>,
}

/// What somebody wrote of the end of a shadow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShadowEnd {
    /// It has had its records, or its time.
    Done,
    /// Nobody wants it any more.
    Dropped,
}

/// How a shadow ended, as the log has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum ShadowEnded {
    /// It has had its records, or its time.
    Done {
        /// Who says so, and when.
        #[serde(flatten)]
        by: By,
        /// What it had, for people.
        why: String,
    },
    /// Nobody wants it any more.
    Dropped {
        /// Who does not, and since when.
        #[serde(flatten)]
        by: By,
        /// Why, as they say.
        why: String,
    },
    /// What it tried is the plan that runs.
    Promoted {
        /// Under this number.
        plan: u64,
    },
    /// Another plan took the place of the one that it was compared with.
    Replaced {
        /// Its number.
        plan: u64,
    },
}

impl fmt::Display for ShadowEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { why, .. } => write!(f, "done: {why}"),
            Self::Dropped { by, why } if why.is_empty() => write!(f, "dropped by {}", by.who),
            Self::Dropped { by, why } => write!(f, "dropped by {}: {why}", by.who),
            Self::Promoted { plan } => write!(f, "promoted: it runs as plan {plan}"),
            Self::Replaced { plan } => {
                write!(f, "plan {plan} took the place of the one it was compared with")
            }
        }
    }
}

/// A partition of the input as the log knows it.
///
/// A file source has one topic, and its partitions go by their numbers alone: that a pipeline's file calls the topic
/// another name does not make its partitions new.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct InputPartition {
    /// The topic, where the source has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Arc<str>>,
    /// The partition's number.
    pub partition: i32,
}

impl InputPartition {
    /// A file of a file source.
    pub fn file(partition: i32) -> Self {
        Self { topic: None, partition }
    }

    /// A partition of a topic.
    pub fn of(at: &TopicPartition) -> Self {
        Self { topic: Some(at.topic.clone()), partition: at.partition }
    }
}

impl fmt::Display for InputPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topic {
            Some(topic) => write!(f, "{topic}/{}", self.partition),
            None => self.partition.fmt(f),
        }
    }
}

/// Where a partition of a topic begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionStart {
    /// The partition.
    pub partition: i32,
    /// Its first offset.
    pub offset: Offset,
}

/// One line of the plan log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// What the topic of a file source is known by; written once.
    Topic {
        /// A UUID.
        id: Arc<str>,
    },
    /// A process began; its generation is the epoch of all its claims.
    Start {
        /// One more than any seen in the log or in a sink.
        generation: u64,
        /// The process.
        owner: Nonce,
        /// The runtime's version.
        runtime: String,
    },
    /// A plan.
    Plan(Plan),
    /// Files of a file source got their partition numbers, for good. Each starts at offset 0.
    Inputs {
        /// Partition numbers and files.
        files: Vec<FileEntry>,
    },
    /// Where partitions of a topic begin, for good: the first that says so of a partition counts, so that every sink
    /// begins there whatever happens meanwhile.
    Init {
        /// The topic.
        topic: Arc<str>,
        /// Which topic of that name.
        id: Arc<str>,
        /// Partitions, and the first offset of each.
        starts: Vec<PartitionStart>,
    },
    /// The generations of the consumer group began again below those that sinks have seen: from now on epochs have this
    /// incarnation, which goes before them.
    Bump {
        /// One more than before; a lower one says nothing.
        incarnation: u32,
    },
    /// Every sink has its state of these partitions; from now on a missing one was lost.
    Started {
        /// Their topic, where the source has several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<Arc<str>>,
        /// The partitions.
        #[serde(rename = "partition", serialize_with = "number_if_one", deserialize_with = "one_or_several")]
        partitions: Vec<i32>,
        /// The sinks, by name.
        sinks: Vec<String>,
    },
    /// A plan took over a partition; told once the first commit with it is durable. The cuts that count stand in the sinks'
    /// states, which keep the newest: of what went before, this does.
    Adopted {
        /// The partition.
        #[serde(flatten)]
        of: InputPartition,
        /// From where on, and which plan.
        #[serde(flatten)]
        cut: Cut,
        /// Under which it was committed: of two that differ, that of the higher one is true.
        #[serde(default)]
        epoch: Epoch,
        /// The runtime's version.
        runtime: String,
    },
    /// Somebody wants nothing more to be read: of one partition, or at all.
    Paused {
        /// The partition; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<InputPartition>,
        /// Who, and when.
        #[serde(flatten)]
        by: By,
    },
    /// Somebody wants it to go on: one partition, or all that was paused.
    Resumed {
        /// The partition; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<InputPartition>,
        /// Who, and when.
        #[serde(flatten)]
        by: By,
    },
    /// A plan is tried on live records, beside the one that runs.
    Shadow(Box<Shadow>),
    /// Somebody, or a process, ends that. Another plan that is put ends it without a word.
    ShadowEnded {
        /// Its place in the log.
        of: u64,
        /// What came of it.
        how: ShadowEnd,
        /// Who, and when.
        #[serde(flatten)]
        by: By,
        /// Why, for people.
        why: String,
    },
    /// Every sink has the end of this partition; it is not claimed again.
    Done {
        /// The partition.
        #[serde(flatten)]
        of: InputPartition,
        /// Records in it.
        end: Offset,
    },
}

impl Entry {
    /// The version of the format that a reader has to know for it.
    pub(super) fn version(&self) -> u64 {
        match self {
            Self::Started { partitions, .. } if partitions.len() > 1 => 2,
            Self::Shadow(_) | Self::ShadowEnded { .. } => 3,
            _ => 1,
        }
    }
}

/// The newest version of the format that this program reads.
const VERSION: u64 = 3;

/// One is written as a number by itself, as before several were written together.
fn number_if_one<S: serde::Serializer>(partitions: &[i32], to: S) -> Result<S::Ok, S::Error> {
    match partitions {
        [one] => one.serialize(to),
        several => several.serialize(to),
    }
}

/// One was a number by itself before several were written together.
fn one_or_several<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<i32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Partitions {
        One(i32),
        Several(Vec<i32>),
    }
    Ok(match Partitions::deserialize(from)? {
        Partitions::One(one) => vec![one],
        Partitions::Several(several) => several,
    })
}

/// Who decided something while a pipeline ran, and when; for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct By {
    /// As the system knows them.
    pub who: String,
    /// In milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: u64,
}

/// Why the plan log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The medium failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried on what.
        what: String,
        /// What lies below.
        source: std::io::Error,
    },
    /// An entry is there and cannot be understood.
    #[error("E_LOG_CORRUPT: {what}")]
    Corrupt {
        /// Which entry, and what is wrong with it.
        what: String,
    },
    /// An entry was written by a newer version of this program.
    #[error("E_LOG_NEWER: {what} has format version {found}, this program reads up to {known}")]
    Newer {
        /// Which entry.
        what: String,
        /// Its version.
        found: u64,
        /// The newest known.
        known: u64,
    },
    /// Bytes that a plan names are not in the store, or are others.
    #[error("E_STORE: {what}")]
    Store {
        /// Which digest, and what is wrong.
        what: String,
    },
}

/// An append-only log with a total order, shared by every process of a pipeline.
pub trait PlanLog: Send {
    /// All entries from place `from` on, in order, without holes.
    fn read(&mut self, from: u64) -> Result<Vec<(u64, Entry)>, Error>;

    /// Writes `entry` at place `at`, durably and as a whole, if nobody has written there; `false` if somebody has.
    ///
    /// After a crash the entry is there or it is not; it is never there in part.
    fn put(&mut self, at: u64, entry: &Entry) -> Result<bool, Error>;
}

/// What a plan log adds up to.
#[derive(Clone, Debug, Default)]
pub struct History {
    next: u64,
    /// All plans that count, by number.
    pub plans: BTreeMap<u64, Plan>,
    /// Plans that came too late and by which plan they were overtaken.
    pub overtaken: BTreeMap<u64, u64>,
    /// Plans that were tried on live records, by their places.
    pub shadows: BTreeMap<u64, Shadow>,
    /// How those ended that did: all but the last at most.
    pub shadows_ended: BTreeMap<u64, ShadowEnded>,
    /// The topic id of a file source.
    pub topic_id: Option<Arc<str>>,
    /// The highest generation that began.
    pub generation: u64,
    /// The files of a file source.
    pub inputs: Vec<FileEntry>,
    /// Partitions of which every sink has a state, and which sinks those are.
    pub started: BTreeMap<InputPartition, BTreeSet<String>>,
    /// How often the generations of the consumer group began again.
    pub incarnation: u32,
    /// Where partitions of topics begin.
    pub starts: BTreeMap<InputPartition, Offset>,
    /// Which topic of a name it was that they were begun of.
    pub topics: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether nothing is to be read at all, and who wants that.
    pub paused: Option<By>,
    /// Partitions of which nothing is to be read.
    pub paused_partitions: BTreeMap<InputPartition, By>,
    /// Partitions that are finished, and how many records they had.
    pub done: BTreeMap<InputPartition, Offset>,
    /// Cuts as they were told, in the order of the log.
    pub adopted: Vec<Adopted>,
    /// Which of those are true, by partition and plan.
    told: BTreeMap<InputPartition, BTreeMap<u64, usize>>,
}

/// A cut as the log tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adopted {
    /// The partition.
    pub of: InputPartition,
    /// From where on, and which plan.
    pub cut: Cut,
    /// Under which it was committed.
    pub epoch: Epoch,
}

impl History {
    /// Behind the last entry that it knows.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Reads on from where it stands.
    pub fn catch_up(&mut self, log: &mut dyn PlanLog) -> Result<(), Error> {
        for (at, entry) in log.read(self.next)? {
            self.apply(at, entry);
        }
        Ok(())
    }

    /// Appends what `decide` wants in view of the newest state; if somebody else appends first, `decide` is asked
    /// again. Returns the entry's place, or `None` once `decide` wants nothing.
    pub fn append(
        &mut self,
        log: &mut dyn PlanLog,
        mut decide: impl FnMut(&Self) -> Option<Entry>,
    ) -> Result<Option<u64>, Error> {
        loop {
            let Some(entry) = decide(self) else { return Ok(None) };
            let at = self.next;
            if log.put(at, &entry)? {
                self.apply(at, entry);
                return Ok(Some(at));
            }
            self.catch_up(log)?;
        }
    }

    /// Appends a plan, whatever else comes in between; its number, or `None` if the one that it replaces is not the newest
    /// any more.
    pub fn put_plan(&mut self, log: &mut dyn PlanLog, plan: &Plan) -> Result<Option<u64>, Error> {
        self.append(log, |history| {
            let newest = history.newest().map(|(newest, _)| newest);
            (newest == plan.replaces).then(|| Entry::Plan(plan.clone()))
        })
    }

    /// Has a plan tried on live records; its place, or `None` if the plan that it is compared with is not the newest any
    /// more, or another one is being tried.
    pub fn put_shadow(&mut self, log: &mut dyn PlanLog, shadow: &Shadow) -> Result<Option<u64>, Error> {
        self.append(log, |history| {
            history.takes_shadow(shadow).then(|| Entry::Shadow(Box::new(shadow.clone())))
        })
    }

    fn takes_shadow(&self, shadow: &Shadow) -> bool {
        let newest = self.newest().map(|(newest, _)| newest);
        newest.is_some() && shadow.plan.replaces == newest && self.shadow().is_none()
    }

    /// Ends a shadow, unless it has ended.
    pub fn end_shadow(
        &mut self,
        log: &mut dyn PlanLog,
        of: u64,
        how: ShadowEnd,
        by: &By,
        why: &str,
    ) -> Result<(), Error> {
        self.append(log, |history| {
            let runs = history.shadow().is_some_and(|(running, _)| running == of);
            runs.then(|| Entry::ShadowEnded { of, how, by: by.clone(), why: why.to_owned() })
        })?;
        Ok(())
    }

    fn apply(&mut self, at: u64, entry: Entry) {
        self.next = at + 1;
        match entry {
            Entry::Topic { id } => self.topic_id = self.topic_id.take().or(Some(id)),
            Entry::Start { generation, .. } => self.generation = self.generation.max(generation),
            Entry::Plan(plan) => match self.newest() {
                newest if plan.replaces == newest.map(|(n, _)| n) => {
                    if let Some((of, shadow)) = self.shadow() {
                        let ended = match shadow.plan.does_the_same(&plan) {
                            true => ShadowEnded::Promoted { plan: at },
                            false => ShadowEnded::Replaced { plan: at },
                        };
                        self.shadows_ended.insert(of, ended);
                    }
                    self.plans.insert(at, plan);
                }
                newest => {
                    self.overtaken.insert(at, newest.map_or(at, |(n, _)| n));
                }
            },
            Entry::Inputs { files } => self.add_inputs(files),
            Entry::Init { topic, id, starts } => {
                self.topics.entry(topic.clone()).or_insert(id);
                for PartitionStart { partition, offset } in starts {
                    let of = InputPartition { topic: Some(topic.clone()), partition };
                    self.starts.entry(of).or_insert(offset);
                }
            }
            Entry::Bump { incarnation } => self.incarnation = self.incarnation.max(incarnation),
            Entry::Started { topic, partitions, sinks } => {
                let sinks: BTreeSet<_> = sinks.into_iter().collect();
                let of = |partition| InputPartition { topic: topic.clone(), partition };
                self.started.extend(partitions.into_iter().map(|partition| (of(partition), sinks.clone())));
            }
            Entry::Adopted { of, cut, epoch, .. } => self.adopt(Adopted { of, cut, epoch }),
            Entry::Paused { of, by } => self.pause(of, by),
            Entry::Resumed { of, .. } => self.resume(of.as_ref()),
            Entry::Shadow(shadow) => {
                if self.takes_shadow(&shadow) {
                    self.shadows.insert(at, *shadow);
                }
            }
            Entry::ShadowEnded { of, how, by, why } => {
                if self.shadow().is_some_and(|(running, _)| running == of) {
                    let ended = match how {
                        ShadowEnd::Done => ShadowEnded::Done { by, why },
                        ShadowEnd::Dropped => ShadowEnded::Dropped { by, why },
                    };
                    self.shadows_ended.insert(of, ended);
                }
            }
            Entry::Done { of, end } => {
                self.done.insert(of, end);
            }
        }
    }

    /// Who wanted it first stays who wanted it.
    pub(crate) fn pause(&mut self, of: Option<InputPartition>, by: By) {
        match of {
            None => drop(self.paused.get_or_insert(by)),
            Some(of) => drop(self.paused_partitions.entry(of).or_insert(by)),
        }
    }

    /// That all is to go on goes for every partition.
    pub(crate) fn resume(&mut self, of: Option<&InputPartition>) {
        match of {
            None => {
                self.paused = None;
                self.paused_partitions.clear();
            }
            Some(of) => drop(self.paused_partitions.remove(of)),
        }
    }

    /// Whether nothing is to be read of a partition.
    pub fn is_paused(&self, of: &InputPartition) -> bool {
        self.paused.is_some() || self.paused_partitions.contains_key(of)
    }

    /// A file keeps the number it was given first, also if two processes gave it one. Only its time may be written
    /// anew, for the same bytes.
    fn add_inputs(&mut self, files: Vec<FileEntry>) {
        for file in files {
            let mut held = self.inputs.iter_mut();
            match held.find(|held| held.partition == file.partition || held.path == file.path) {
                None => self.inputs.push(file),
                Some(held) if held.path == file.path && held.digest == file.digest => {
                    held.modified_ns = file.modified_ns;
                }
                Some(_) => {}
            }
        }
    }

    /// The plan that runs, and its number.
    pub fn newest(&self) -> Option<(u64, &Plan)> {
        self.plans.last_key_value().map(|(n, plan)| (*n, plan))
    }

    /// The plan that the newest is taken back to, where that one is on trial still for whoever begins now: nobody has made
    /// anything with it, or it was put less than `time` before `now_ms`, milliseconds since 1970.
    pub fn on_trial_after(&self, now_ms: u64, time: Duration) -> Option<u64> {
        let is_new = |number| self.adopted.iter().all(|told| told.cut.plan.plan != number);
        let (newest, plan) = self.newest().filter(|(_, plan)| plan.is_on_trial())?;
        let at_ms = plan.made.as_ref().map_or(0, |made| made.by.at_ms);
        let ends_ms = at_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        if !is_new(newest) && now_ms >= ends_ms {
            return None;
        }
        // One that was put and replaced before it made anything is none to go back to.
        let mut before = plan.replaces?;
        while let Some(plan) = self.plans.get(&before).filter(|plan| plan.is_on_trial() && is_new(before)) {
            before = plan.replaces?;
        }
        Some(before)
    }

    /// The plan that ran before what runs now, leaving out what was undone: a plan that does what an earlier one did undoes all
    /// that came in between, whether somebody went back, or it went back by itself.
    pub fn before(&self) -> Option<u64> {
        let mut stands: Vec<(u64, &Plan)> = Vec::new();
        for (number, plan) in &self.plans {
            match stands.iter().position(|(_, earlier)| earlier.does_the_same(plan)) {
                Some(undone_to) => stands.truncate(undone_to + 1),
                None => stands.push((*number, plan)),
            }
        }
        stands.pop();
        stands.last().map(|(number, _)| *number)
    }

    /// The plan that is being tried on live records, and its place.
    pub fn shadow(&self) -> Option<(u64, &Shadow)> {
        let (of, shadow) = self.shadows.last_key_value()?;
        (!self.shadows_ended.contains_key(of)).then_some((*of, shadow))
    }

    /// The plan that may be promoted: one that is being tried, or was to its end, beside the plan that still runs.
    pub fn promotable(&self) -> Option<(u64, &Shadow)> {
        let (of, shadow) = self.shadows.last_key_value()?;
        let stands = matches!(self.shadows_ended.get(of), None | Some(ShadowEnded::Done { .. }));
        let newest = self.newest().map(|(newest, _)| newest);
        (stands && shadow.plan.replaces == newest).then_some((*of, shadow))
    }

    /// What takes plan `plan` back, if it still is the newest: what plan `to` does.
    pub fn taking_back(&self, plan: u64, to: u64, made: Made) -> Option<Entry> {
        let (_, newest) = self.newest().filter(|(newest, _)| *newest == plan)?;
        let (replaces, declared) = (Some(plan), newest.declared.clone());
        Some(Entry::Plan(Plan { replaces, declared, made: Some(made), ..self.plans.get(&to)?.clone() }))
    }

    /// Whether the log tells of this cut, or of another one of that plan which is as sure.
    pub fn knows_cut(&self, of: &InputPartition, cut: &Cut, epoch: Epoch) -> bool {
        let told = self.told.get(of).and_then(|told| told.get(&cut.plan.plan));
        told.map(|at| &self.adopted[*at]).is_some_and(|told| told.epoch > epoch || told.cut == *cut)
    }

    /// Whether an entry would tell of a cut and nothing new: another process may have told the same.
    pub fn is_told(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Adopted { of, cut, epoch, .. } if self.knows_cut(of, cut, *epoch))
    }

    /// A cut is told of.
    pub(crate) fn adopt(&mut self, adopted: Adopted) {
        let at = self.adopted.len();
        let told = self.told.entry(adopted.of.clone()).or_default();
        let told = told.entry(adopted.cut.plan.plan).or_insert(at);
        if *told == at || self.adopted[*told].epoch <= adopted.epoch {
            *told = at;
        }
        self.adopted.push(adopted);
    }

    /// The plan that made an offset of a partition, if the sink with `state` has it: as that says, or the log of what it has
    /// forgotten.
    pub fn plan_at(&self, of: &InputPartition, state: &SinkState, offset: Offset) -> Option<PlanRef> {
        if offset >= state.next {
            return None;
        }
        match state.plan_at(offset) {
            Some(plan) => Some(plan.clone()),
            None => plan_at(&self.forgotten(of, state)?, offset).cloned(),
        }
    }

    /// The cuts that the sink with `state` has forgotten, oldest first; `None` where the log does not have exactly those.
    pub fn forgotten(&self, of: &InputPartition, state: &SinkState) -> Option<Vec<Cut>> {
        let cuts = state.cuts.first().map_or_else(Vec::new, |oldest| self.cuts_before(of, oldest));
        (forgotten(None, &cuts) == state.forgotten).then_some(cuts)
    }

    /// What was told of the cuts of a partition that came before `oldest`, oldest first.
    ///
    /// A plan that made nothing after all, since every sink was restored to an earlier state, is overruled by those that came
    /// after it.
    fn cuts_before(&self, of: &InputPartition, oldest: &Cut) -> Vec<Cut> {
        let told = self.told.get(of).into_iter().flat_map(|told| told.range(..oldest.plan.plan));
        let mut cuts = Vec::new();
        let mut from = oldest.from;
        for cut in told.rev().map(|(_, at)| &self.adopted[*at].cut) {
            if cut.from < from {
                from = cut.from;
                cuts.push(cut.clone());
            }
        }
        cuts.reverse();
        cuts
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan(replaces: Option<u64>, digest: &str) -> Plan {
        Plan {
            replaces,
            digest: digest.into(),
            name: "rule".into(),
            version: "1".into(),
            settings: BTreeMap::new(),
            tables: BTreeMap::new(),
            limits: PlanLimits { memory_bytes: 1, deadline_ms: 1, output_bytes: 1, fuel_per_record: 1 },
            routes: BTreeMap::new(),
            declared: String::new(),
            made: None,
        }
    }

    fn next_plan(history: &History, digest: &str) -> Entry {
        Entry::Plan(plan(history.newest().map(|(n, _)| n), digest))
    }

    #[test]
    fn a_plan_that_names_an_old_predecessor_is_skipped_by_every_reader() {
        let mut log = memory::MemoryLog::default();
        let mut ours = History::default();
        ours.append(&mut log, |h| Some(next_plan(h, "a"))).unwrap();
        let mut theirs = ours.clone();
        theirs.append(&mut log, |h| Some(next_plan(h, "b"))).unwrap();
        log.put(2, &Entry::Plan(plan(Some(0), "late"))).unwrap();
        ours.catch_up(&mut log).unwrap();
        assert_eq!(&*ours.newest().unwrap().1.digest, "b");
        assert_eq!(ours.overtaken, BTreeMap::from([(2, 1)]));
    }

    #[test]
    fn who_is_overtaken_decides_again_on_what_is_there_now() {
        let mut log = memory::MemoryLog::default();
        let (mut ours, mut theirs) = (History::default(), History::default());
        theirs.append(&mut log, |h| Some(next_plan(h, "a"))).unwrap();
        let at = ours.append(&mut log, |h| Some(next_plan(h, "b"))).unwrap();
        assert_eq!(at, Some(1));
        assert_eq!(ours.newest().unwrap().1.replaces, Some(0));
        let nothing = ours.append(&mut log, |h| h.plans.is_empty().then(|| next_plan(h, "c")));
        assert_eq!(nothing.unwrap(), None);
    }

    #[test]
    fn a_plan_is_put_behind_whatever_was_told_meanwhile_unless_that_is_another_plan() {
        let mut log = memory::MemoryLog::default();
        let mut ours = History::default();
        ours.put_plan(&mut log, &plan(None, "a")).unwrap();
        let mut theirs = ours.clone();
        let cut = Cut { from: Offset::ZERO, plan: PlanRef { plan: 0, digest: "a".into() } };
        let (of, epoch, runtime) = (InputPartition::file(0), Epoch::new(1), String::new());
        let adopted = Entry::Adopted { of, cut, epoch, runtime };
        theirs.append(&mut log, |_| Some(adopted.clone())).unwrap();
        assert_eq!(ours.put_plan(&mut log, &plan(Some(0), "b")).unwrap(), Some(2));
        assert_eq!(theirs.put_plan(&mut log, &plan(Some(0), "c")).unwrap(), None);
        assert_eq!(theirs.newest().unwrap().1, &plan(Some(0), "b"));
    }

    #[test]
    fn who_begins_has_a_plan_on_trial_that_is_new_or_made_nothing_yet_and_knows_what_ran_before() {
        const TIME: Duration = Duration::from_secs(60);
        let (mut log, mut history) = (memory::MemoryLog::default(), History::default());
        history.put_plan(&mut log, &plan(None, "a")).unwrap();
        assert_eq!(history.on_trial_after(0, TIME), None);
        let mut put = |replaces, digest: &str, on_trial| {
            let made = Made { by: By { who: "a".into(), at_ms: 1_000 }, why: String::new(), on_trial };
            let made = Plan { made: Some(made), ..plan(Some(replaces), digest) };
            history.put_plan(&mut log, &made).unwrap();
            history.clone()
        };
        let later = 1_000 + 60_000;
        assert_eq!(put(0, "b", true).on_trial_after(later, TIME), Some(0), "it made nothing yet");
        let mut history = put(1, "c", true);
        assert_eq!(history.on_trial_after(later, TIME), Some(0), "nor did the one before");
        let cut = Cut { from: Offset::ZERO, plan: PlanRef { plan: 2, digest: "c".into() } };
        history.adopt(Adopted { of: InputPartition::file(0), cut, epoch: Epoch::new(1) });
        assert_eq!(history.on_trial_after(later - 1, TIME), Some(0), "it is new");
        assert_eq!(history.on_trial_after(later, TIME), None);
        assert_eq!(put(2, "d", false).on_trial_after(later, TIME), None, "it is not on trial");
    }

    #[test]
    fn what_was_undone_is_not_gone_back_to() {
        let before = |digests: &[&str]| {
            let (mut log, mut history) = (memory::MemoryLog::default(), History::default());
            for digest in digests {
                let replaces = history.newest().map(|(newest, _)| newest);
                history.put_plan(&mut log, &plan(replaces, digest)).unwrap();
            }
            history.before()
        };
        assert_eq!(before(&["a"]), None);
        assert_eq!(before(&["a", "b"]), Some(0));
        assert_eq!(before(&["a", "b", "a"]), None);
        assert_eq!(before(&["a", "b", "a", "c"]), Some(0));
        assert_eq!(before(&["a", "b", "c", "b"]), Some(0));
        assert_eq!(before(&["a", "b", "c", "a", "d", "e"]), Some(4));
    }

    #[test]
    fn a_plan_is_taken_back_by_the_first_who_does_so_and_only_while_it_is_the_newest() {
        let made =
            || Made { by: By { who: "weir".into(), at_ms: 7 }, why: "it traps".into(), on_trial: false };
        let mut log = memory::MemoryLog::default();
        let mut ours = History::default();
        for digest in ["a", "b"] {
            ours.append(&mut log, |h| Some(next_plan(h, digest))).unwrap();
        }
        let (mut theirs, mut late) = (ours.clone(), ours.clone());
        assert_eq!(ours.append(&mut log, |h| h.taking_back(1, 0, made())).unwrap(), Some(2));
        assert_eq!(theirs.append(&mut log, |h| h.taking_back(1, 0, made())).unwrap(), None);
        let (number, plan) = ours.newest().unwrap();
        assert_eq!((number, plan.replaces, &*plan.digest), (2, Some(1), "a"));
        assert!(!plan.is_on_trial() && plan.does_the_same(&ours.plans[&0]));
        late.append(&mut log, |h| Some(next_plan(h, "c"))).unwrap();
        assert_eq!(ours.append(&mut log, |h| h.taking_back(2, 0, made())).unwrap(), None);
    }

    /// Of plan `n`.
    fn cut(n: u64, from: i64) -> Cut {
        Cut { from: Offset::new(from), plan: PlanRef { plan: n, digest: format!("sha256:{n}").into() } }
    }

    #[test]
    fn what_a_sink_has_forgotten_is_found_in_the_log_only_if_that_has_all_of_it() {
        let of = InputPartition::file(0);
        let state = state(&[cut(0, 0), cut(2, 5), cut(3, 9)], &[cut(4, 20)]);
        let mut history = History::default();
        let adopted = |cut: Cut| Adopted { of: of.clone(), cut, epoch: Epoch::new(1) };
        history.adopt(adopted(cut(0, 0)));
        history.adopt(adopted(cut(3, 9)));
        assert_eq!(history.plan_at(&of, &state, Offset::new(20)).unwrap().plan, 4);
        assert_eq!(history.plan_at(&of, &state, Offset::new(6)), None, "nobody told of plan 2");
        history.adopt(adopted(cut(2, 5)));
        let at = |offset| history.plan_at(&of, &state, Offset::new(offset)).map(|plan| plan.plan);
        assert_eq!([0, 4, 5, 8, 9, 19, 20].map(at), [0, 0, 2, 2, 3, 3, 4].map(Some));
        assert_eq!(at(30), None, "it does not have that");
        assert_eq!(history.plan_at(&InputPartition::file(1), &state, Offset::ZERO), None);
    }

    #[test]
    fn of_two_cuts_of_a_plan_that_of_the_higher_epoch_is_true_and_one_that_made_nothing_is_overruled() {
        let of = InputPartition::file(0);
        let mut history = History::default();
        // All sinks were restored to offset 4, where plan 3 went on.
        for (n, from, generation) in [(0, 0, 1), (1, 8, 1), (2, 12, 1), (3, 4, 3), (3, 15, 2)] {
            history.adopt(Adopted { of: of.clone(), cut: cut(n, from), epoch: Epoch::new(generation) });
        }
        assert!(history.knows_cut(&of, &cut(3, 4), Epoch::new(3)));
        assert!(history.knows_cut(&of, &cut(3, 15), Epoch::new(2)), "a lower epoch is no news");
        assert!(!history.knows_cut(&of, &cut(3, 15), Epoch::new(4)));
        let state = state(&[cut(0, 0), cut(3, 4)], &[cut(4, 20)]);
        assert_eq!(history.forgotten(&of, &state), Some(vec![cut(0, 0), cut(3, 4)]));
    }

    /// Of a sink at offset 30 that has forgotten `old`.
    fn state(old: &[Cut], cuts: &[Cut]) -> SinkState {
        let claim = crate::sink::conformance::claim(1);
        let (next, cuts) = (Offset::new(30), cuts.to_vec());
        SinkState { next, cuts, forgotten: forgotten(None, old), ..SinkState::init(&claim, Offset::ZERO) }
    }

    pub(crate) fn shadow(beside: u64, digest: &str) -> Shadow {
        Shadow { plan: plan(Some(beside), digest), records: None, until_ms: None, promote_up_to: None }
    }

    #[test]
    fn one_plan_is_tried_at_a_time_and_only_beside_the_one_that_runs() {
        let mut log = memory::MemoryLog::default();
        let mut ours = History::default();
        assert_eq!(ours.put_shadow(&mut log, &shadow(0, "b")).unwrap(), None, "nothing runs");
        ours.put_plan(&mut log, &plan(None, "a")).unwrap();
        let mut theirs = ours.clone();
        assert_eq!(ours.put_shadow(&mut log, &shadow(0, "b")).unwrap(), Some(1));
        assert_eq!(theirs.put_shadow(&mut log, &shadow(0, "c")).unwrap(), None);
        assert_eq!(theirs.shadow(), Some((1, &shadow(0, "b"))));
        // One that is in the log all the same counts for nobody.
        log.put(2, &Entry::Shadow(shadow(0, "c").into())).unwrap();
        theirs.catch_up(&mut log).unwrap();
        assert_eq!(theirs.shadows.len(), 1);
        let by = By { who: "a".into(), at_ms: 7 };
        theirs.end_shadow(&mut log, 1, ShadowEnd::Dropped, &by, "").unwrap();
        theirs.end_shadow(&mut log, 1, ShadowEnd::Done, &by, "").unwrap();
        assert_eq!((theirs.next(), theirs.shadow(), theirs.promotable()), (4, None, None));
        assert_eq!(theirs.shadows_ended[&1].to_string(), "dropped by a");
        assert_eq!(theirs.put_shadow(&mut log, &shadow(0, "c")).unwrap(), Some(4));
        theirs.end_shadow(&mut log, 4, ShadowEnd::Done, &by, "enough").unwrap();
        assert_eq!(theirs.promotable(), Some((4, &shadow(0, "c"))));
    }

    #[test]
    fn a_plan_that_is_put_ends_what_is_being_tried_beside_the_one_before() {
        for (put, ended) in
            [("b", ShadowEnded::Promoted { plan: 2 }), ("c", ShadowEnded::Replaced { plan: 2 })]
        {
            let mut log = memory::MemoryLog::default();
            let mut history = History::default();
            history.put_plan(&mut log, &plan(None, "a")).unwrap();
            history.put_shadow(&mut log, &shadow(0, "b")).unwrap();
            log.put(2, &Entry::Plan(plan(Some(0), put))).unwrap();
            log.put(3, &Entry::Plan(plan(Some(0), "overtaken"))).unwrap();
            history.catch_up(&mut log).unwrap();
            assert_eq!((history.shadow(), history.promotable()), (None, None));
            assert_eq!(history.shadows_ended, BTreeMap::from([(1, ended)]));
        }
    }

    #[test]
    fn what_is_said_of_shadows_is_refused_by_a_program_that_does_not_know_them() {
        let by = By { who: "a".into(), at_ms: 7 };
        let ended = Entry::ShadowEnded { of: 1, how: ShadowEnd::Done, by, why: "enough".into() };
        for entry in [Entry::Shadow(shadow(0, "b").into()), ended] {
            assert_eq!(entry.version(), 3);
            let written = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<Entry>(&written).unwrap(), entry);
        }
    }

    #[test]
    fn a_plan_of_an_older_program_is_on_trial_for_nobody() {
        let old = r#"{"who":"a","at_ms":7,"why":""}"#;
        let made: Made = serde_json::from_str(old).unwrap();
        assert!(!made.on_trial);
        assert_eq!(serde_json::to_string(&made).unwrap(), old);
        let mut put = plan(Some(0), "b");
        put.made = Some(Made { on_trial: true, ..made });
        assert!(put.is_on_trial() && !plan(Some(0), "b").is_on_trial());
    }

    #[test]
    fn a_partition_begins_where_it_was_said_first_and_apart_from_those_of_other_topics() {
        let init = |topic: &str, starts: &[(i32, i64)]| Entry::Init {
            topic: topic.into(),
            id: "id".into(),
            starts: starts
                .iter()
                .map(|(partition, start)| PartitionStart {
                    partition: *partition,
                    offset: Offset::new(*start),
                })
                .collect(),
        };
        let mut history = History::default();
        history.apply(0, init("a", &[(0, 5)]));
        history.apply(1, init("a", &[(0, 7), (1, 8)]));
        history.apply(2, init("b", &[(0, 9)]));
        let start = |topic, partition| {
            history.starts[&InputPartition::of(&TopicPartition::new(topic, partition))].get()
        };
        assert_eq!([start("a", 0), start("a", 1), start("b", 0)], [5, 8, 9]);
    }

    #[test]
    fn what_is_paused_stays_so_until_it_or_all_is_resumed() {
        let by = |who: &str| By { who: who.into(), at_ms: 7 };
        let (one, other) = (InputPartition::file(1), InputPartition::file(2));
        let mut history = History::default();
        history.apply(0, Entry::Paused { of: Some(one.clone()), by: by("a") });
        history.apply(1, Entry::Paused { of: Some(one.clone()), by: by("b") });
        assert_eq!((history.is_paused(&one), history.is_paused(&other)), (true, false));
        assert_eq!(history.paused_partitions[&one], by("a"));
        history.apply(2, Entry::Paused { of: None, by: by("c") });
        history.apply(3, Entry::Resumed { of: Some(one.clone()), by: by("d") });
        assert_eq!((history.is_paused(&one), history.is_paused(&other)), (true, true));
        history.apply(4, Entry::Paused { of: Some(other.clone()), by: by("e") });
        history.apply(5, Entry::Resumed { of: None, by: by("f") });
        assert_eq!((history.is_paused(&one), history.is_paused(&other)), (false, false));
    }

    #[test]
    fn an_entry_that_is_written_can_be_read() {
        let starts = vec![PartitionStart { partition: 3, offset: Offset::new(7) }];
        let init = Entry::Init { topic: "t".into(), id: "id".into(), starts };
        let (topic, sinks) = (Some("t".into()), vec!["lake".into()]);
        let started = Entry::Started { topic, partitions: vec![3, 4], sinks };
        for entry in [init, started] {
            let written = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<Entry>(&written).unwrap(), entry);
        }
    }

    #[test]
    fn what_was_written_of_one_partition_is_read_as_if_it_were_of_several() {
        let (topic, sinks) = (Some("t".into()), vec!["lake".into()]);
        let started = Entry::Started { topic, partitions: vec![3], sinks };
        let old = r#"{"kind":"started","topic":"t","partition":3,"sinks":["lake"]}"#;
        assert_eq!(serde_json::from_str::<Entry>(old).unwrap(), started);
        assert_eq!((serde_json::to_string(&started).unwrap(), started.version()), (old.to_owned(), 1));
    }

    #[test]
    fn what_was_written_of_files_before_there_were_topics_is_read() {
        let old = r#"{"kind":"done","partition":2,"end":9}"#;
        let done = Entry::Done { of: InputPartition::file(2), end: Offset::new(9) };
        assert_eq!(serde_json::from_str::<Entry>(old).unwrap(), done);
        assert_eq!(serde_json::to_string(&done).unwrap(), old);
    }

    #[test]
    fn a_file_keeps_the_partition_number_it_was_given_first() {
        let file = |partition, path: &str| FileEntry {
            partition,
            path: path.into(),
            length: 1,
            modified_ns: 0,
            digest: String::new(),
            format: crate::source::format::Format::Csv,
        };
        let mut history = History::default();
        history.apply(0, Entry::Inputs { files: vec![file(0, "a"), file(1, "b")] });
        history.apply(1, Entry::Inputs { files: vec![file(1, "c"), file(2, "b"), file(2, "d")] });
        let numbers: Vec<_> = history.inputs.iter().map(|f| (f.partition, &*f.path)).collect();
        assert_eq!(numbers, [(0, "a"), (1, "b"), (2, "d")]);
    }
}
