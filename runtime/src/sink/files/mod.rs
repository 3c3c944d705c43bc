//! Rows as files on a local disk or in HDFS, exactly once, by a commit log beside them. The log is the only memory: nothing is
//! ever concluded from which files are visible, or from a clock.
//!
//! ```text
//! <root>/_weir/<pipeline>/<sink>/<topic id>/<partition>/log/<number>.json      one record per claim and commit
//!                                                       log/<number>.snap.json what they add up to
//!                                                       staging/<epoch>-<owner>/  files that nobody reads yet
//! <root>/<target>/[dt=<date>/][<column>=<value>/]
//!                 <topic>+<partition>+<start>+<end>+<commit>+<route>+<n>.parquet   visible, never overwritten
//! ```
//!
//! A commit writes its files in full, then puts one record that names them where no record was, then gives each
//! file its visible name. The record decides: before it nothing happened; after it everything did, and the next
//! owner does the renaming that is left. Readers skip what begins with `_`; they see each file whole, though not
//! all files of a commit in the same instant.

mod back;
mod compact;
mod directories;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hdfs;
mod json;
mod local;
mod log;
mod names;
mod parquet;
mod partition;
mod record;
mod staging;
pub mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub use back::FilesReader;
pub use directories::{Directory, NOTHING, Span};
use hdfs::Hdfs;
pub use hdfs::HdfsConfig;
pub use local::LocalStorage;
use partition::Partition;
use storage::Storage;

use super::state::{Claim, Commit, Refused, SinkState};
use super::{Committed, Count, Error, Problem, Resolved, RoutedBatch, Sink, Staged};
use crate::offset::TopicPartition;

/// The target, below the root, of rows that this sink refuses: those that delete, and those whose time names no
/// directory. JSON lines with the row, its target and route, where it came from, and why.
pub const REJECTS: &str = "weir_rejects";

/// Every place at which a test can stop this sink, in the order in which a claim and a commit come by.
pub const FAILPOINTS: [&str; 20] = [
    "claim.after_init",
    "claim.before_temp_record",
    "claim.after_temp_record",
    "claim.after_put",
    "claim.after_check",
    "file.roll.between",
    "claim.cleanup.between",
    "file.after_open",
    "file.mid_write",
    "file.before_close",
    "file.after_close",
    "file.before_temp_record",
    "file.after_temp_record",
    "file.after_put",
    "file.after_check",
    "file.between_renames",
    "file.after_renames",
    "file.compact.after_temp_snapshot",
    "file.compact.after_snapshot",
    "file.compact.between",
];

/// What a file sink is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilesConfig {
    /// Everything is below this directory.
    pub root: Root,
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The sink's name in the pipeline.
    pub sink: Arc<str>,
    /// How rows are written.
    pub format: Format,
    /// Targets whose rows are written otherwise.
    pub formats: BTreeMap<Arc<str>, Format>,
    /// The directories below a target's, from the outer to the inner.
    pub directories: Vec<Directory>,
    /// Targets whose directories are others.
    pub directories_of: BTreeMap<Arc<str>, Vec<Directory>>,
    /// Files that a partition has open at once, at most; a further one makes it complete the longest, and commit soon.
    pub open_files: usize,
    /// Whether each row carries `weir_topic`, `weir_partition`, `weir_offset`, `weir_index` and `weir_plan`. Dead
    /// letters always do.
    pub provenance: bool,
    /// The most rows of a Parquet row group.
    pub row_group_rows: usize,
    /// The most encoded bytes of a Parquet row group: what an open file holds in memory.
    pub row_group_bytes: usize,
    /// What the row groups under way take of memory, those of all files of all partitions: past it the largest is ended.
    pub row_groups_bytes: usize,
    /// After how many records of a partition's log, one per claim and commit, a snapshot takes their place; at least 1.
    /// Fewer: shorter claims and fewer files. More: fewer snapshots to write.
    pub compact_after: u64,
}

impl FilesConfig {
    /// Parquet with provenance, in row groups of at most 128 Ki rows and 8 MiB and 24 MiB in all, without directories, in at
    /// most 64 open files per partition; a snapshot every 100 records.
    pub fn new(root: impl Into<Root>, pipeline: impl Into<Arc<str>>, sink: impl Into<Arc<str>>) -> Self {
        Self {
            root: root.into(),
            pipeline: pipeline.into(),
            sink: sink.into(),
            format: Format::Parquet,
            formats: BTreeMap::new(),
            directories: Vec::new(),
            directories_of: BTreeMap::new(),
            open_files: 64,
            provenance: true,
            row_group_rows: 128 << 10,
            row_group_bytes: 8 << 20,
            row_groups_bytes: 24 << 20,
            compact_after: 100,
        }
    }

    fn format_of(&self, target: &str) -> Format {
        self.formats.get(target).copied().unwrap_or(self.format)
    }

    fn directories_of(&self, target: &str) -> &[Directory] {
        self.directories_of.get(target).unwrap_or(&self.directories)
    }
}

/// A directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// On the local disk.
    Disk(PathBuf),
    /// In HDFS.
    Hdfs(HdfsConfig),
}

impl<T: Into<PathBuf>> From<T> for Root {
    fn from(path: T) -> Self {
        Self::Disk(path.into())
    }
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Columns, compressed with zstd.
    Parquet,
    /// One JSON object per line, as in [`super::json`].
    JsonLines,
}

impl Format {
    /// What the name of such a file ends with, without the point.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::JsonLines => "jsonl",
        }
    }
}

/// What happened to a file sink since it was opened.
#[derive(Debug, Default)]
pub struct Tally {
    /// Files that a predecessor had committed and this process made visible.
    pub rolled_forward: Count,
    /// Committed files found in neither place: taken away by a reader, or lost.
    pub roll_unverified: Count,
    /// Claims and commits refused because a higher epoch owns the partition.
    pub fenced: Count,
    /// Puts whose answer was lost and that turned out to have happened.
    pub unknown_resolved: Count,
    /// Files of earlier owners removed from staging.
    pub cleaned: Count,
    /// Records of this process that came too late, at a number whose record was deleted already; they do not count.
    pub overtaken: Count,
    /// Snapshots that took the place of records.
    pub snapshots: Count,
}

impl Tally {
    fn refused(&self, refused: &Refused) {
        self.fenced.add(u64::from(matches!(refused, Refused::Fenced { .. })));
    }
}

/// Shared by all partitions of a sink.
#[derive(Debug)]
struct Context {
    config: FilesConfig,
    storage: Arc<dyn Storage>,
    tally: Arc<Tally>,
    /// Topics by name and id of which it is known that no other had their name here.
    without_siblings: Mutex<BTreeSet<(Arc<str>, Arc<str>)>>,
}

/// A sink that writes files.
pub struct FilesSink {
    context: Arc<Context>,
    owned: BTreeMap<TopicPartition, Partition>,
}

impl fmt::Debug for FilesSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owned: Vec<_> = self.owned.keys().collect();
        f.debug_struct("FilesSink").field("config", &self.context.config).field("owned", &owned).finish()
    }
}

impl FilesSink {
    /// Opens a sink, makes its root, and tries out what its guarantee stands on.
    ///
    /// # Errors
    /// [`Error::Permanent`] where the file system has no hard links or overwrites by renaming;
    /// [`Error::Transient`] where the root cannot be reached, made or written to now.
    pub fn open(config: FilesConfig) -> Result<Self, Error> {
        let storage: Arc<dyn Storage> = match &config.root {
            Root::Disk(root) => {
                let failed = |e| Problem::new(format!("cannot make `{}`", root.display())).source(e);
                Arc::new(LocalStorage::open(root).map_err(|e| Error::Transient(failed(e)))?)
            }
            Root::Hdfs(hdfs) => Arc::new(Hdfs::open(hdfs)?),
        };
        Self::with_storage(config, storage)
    }

    /// Opens a sink on any storage whose root is `config.root`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_storage(config: FilesConfig, storage: Arc<dyn Storage>) -> Result<Self, Error> {
        storage::self_test(&*storage)?;
        storage.trust();
        let context = Context { config, storage, tally: Arc::default(), without_siblings: Mutex::default() };
        Ok(Self { context: Arc::new(context), owned: BTreeMap::new() })
    }

    /// What happened so far; it goes on counting.
    pub fn tally(&self) -> Arc<Tally> {
        self.context.tally.clone()
    }

    /// However many partitions there are, and files of each.
    fn hold_less(&mut self) {
        let most = self.context.config.row_groups_bytes;
        loop {
            let held = self.owned.values_mut().map(|partition| (partition.held(), partition));
            let (mut all, mut largest) = (0, None);
            for ((of_all, of_one), partition) in held {
                all += of_all;
                if largest.as_ref().is_none_or(|(held, _)| *held < of_one) {
                    largest = Some((of_one, partition));
                }
            }
            match largest {
                Some((1.., partition)) if all > most => partition.let_go(),
                _ => return,
            }
        }
    }

    fn owned(&mut self, at: &TopicPartition) -> Result<&mut Partition, Error> {
        let missing = || Error::Permanent(Problem::new(format!("{at} is not claimed")));
        self.owned.get_mut(at).ok_or_else(missing)
    }
}

impl Sink for FilesSink {
    fn claim(&mut self, claim: &Claim) -> Result<SinkState, Error> {
        self.release(&claim.at);
        let partition = Partition::claim(&self.context, claim)?;
        let state = partition.state().clone();
        self.owned.insert(claim.at.clone(), partition);
        Ok(state)
    }

    fn write(&mut self, rows: RoutedBatch) -> Result<Staged, Error> {
        let staged = self.owned(&rows.at)?.write(&rows)?;
        self.hold_less();
        Ok(staged)
    }

    fn commit(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Committed, Error> {
        self.owned(at)?.commit(commit)
    }

    fn resolve(&mut self, at: &TopicPartition, commit: &Commit) -> Result<Resolved, Error> {
        self.owned(at)?.resolve(commit)
    }

    fn release(&mut self, at: &TopicPartition) {
        if let Some(partition) = self.owned.remove(at) {
            partition.release();
        }
    }
}

#[cfg(test)]
mod tests;
