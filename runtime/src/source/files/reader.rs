//! Files as a source: each file is a partition, read from its first byte or from the record where the sinks stand.
//! Which file is which partition is told to it. Files of records that come again are partitions of another topic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DirectoryReader, FileEntry, Inputs};
use crate::batch::BatchBuilder;
use crate::budget::Budget;
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::{Epoch, Fingerprint, Start};
use crate::source::format::{Filled, Format, Options, RecordReader};
use crate::source::{Assignment, Error, Poll, RunId, Source, SourceEvent};

/// How many files are begun before the first of them is finished: enough that the commit of one does not hold up
/// the reading of the next.
const OPEN_FILES: usize = 8;

/// How often a source that goes on looks for new files.
const RESCAN: Duration = Duration::from_secs(1);

/// How a [`FileSource`] reads.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// The name under which the records go.
    pub topic: Arc<str>,
    /// The same for files of envelopes, the replay input.
    pub replay: Arc<str>,
    /// Which topic of that name.
    pub topic_id: Arc<str>,
    /// Which replay input: sinks know a partition by this and its number.
    pub replay_id: Arc<str>,
    /// The pipeline's name.
    pub group: Arc<str>,
    /// With which epoch its partitions are claimed.
    pub epoch: Epoch,
    /// Records in a batch, at most.
    pub batch_records: usize,
    /// Bytes in a batch, about, at most; a single record may be larger.
    pub batch_bytes: usize,
    /// Whether it ends when all files are read, or goes on looking for new ones.
    pub once: bool,
}

/// Where files are.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Those of the input.
    pub inputs: Inputs,
    /// Those of records that come again.
    pub replays: Inputs,
}

impl Roots {
    fn of(&self, entry: &FileEntry) -> &Inputs {
        if entry.format == Format::Envelopes { &self.replays } else { &self.inputs }
    }
}

/// What says which files there are: those not seen before, each with its partition, written down. Called again
/// and again.
pub type Discover = Box<dyn FnMut() -> Result<Vec<FileEntry>, Error> + Send>;

/// See the module.
pub struct FileSource {
    settings: FileSettings,
    roots: Roots,
    budget: Budget,
    discover: Discover,
    /// Partitions of which every sink once had a state.
    started: BTreeSet<TopicPartition>,
    to_assign: VecDeque<What>,
    /// Ours, in the order in which they are read.
    assigned: BTreeMap<TopicPartition, Held>,
    /// Given up, perhaps to be read again.
    parked: BTreeMap<TopicPartition, Held>,
    next_scan: Option<Instant>,
    said_exhausted: bool,
    /// Records of the last batch, and bytes of their values: the next one is mostly like it.
    last: (usize, usize),
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

struct Held {
    what: What,
    run: RunId,
    state: State,
}

/// What a partition is made of.
enum What {
    File(FileEntry),
    /// Files that are a record each.
    Directory(Vec<FileEntry>),
}

enum State {
    /// Nobody has said yet from where.
    Assigned,
    /// From there, when it is its turn: a file that is open takes memory.
    ToRead(Offset),
    Reading(Reader),
    Failed(Option<Error>),
    Ended(Offset),
}

enum Reader {
    File(Box<Opened>),
    Directory(DirectoryReader),
}

impl FileSource {
    /// A source of `entries`, those whose partitions are not finished.
    pub fn new(
        settings: FileSettings,
        roots: Roots,
        budget: Budget,
        entries: Vec<FileEntry>,
        started: BTreeSet<TopicPartition>,
        discover: Discover,
    ) -> Self {
        let mut source = Self {
            settings,
            roots,
            budget,
            discover,
            started,
            to_assign: VecDeque::new(),
            assigned: BTreeMap::new(),
            parked: BTreeMap::new(),
            next_scan: None,
            said_exhausted: false,
            last: (0, 0),
        };
        source.take_up(entries);
        source
    }

    /// Files that are a record each are one partition together; every other is one of its own.
    fn take_up(&mut self, entries: Vec<FileEntry>) {
        let (records, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.format == Format::Raw);
        self.to_assign.extend(files.into_iter().map(What::File));
        if !records.is_empty() && !self.extend_directory(&records) {
            self.to_assign.push_back(What::Directory(records));
        }
    }

    /// Adds to the directory, wherever it is held. One that is given up stays so.
    fn extend_directory(&mut self, records: &[FileEntry]) -> bool {
        let at = self.partition(0);
        let held = self.assigned.get_mut(&at).or_else(|| self.parked.get_mut(&at));
        if let Some(held) = held.filter(|held| matches!(held.what, What::Directory(_))) {
            self.said_exhausted = false;
            held.extend(records, &self.roots);
            return true;
        }
        self.to_assign.iter_mut().any(|what| what.extend(records))
    }

    fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.settings.topic.clone(), partition }
    }

    fn assign_next(&mut self) -> Option<SourceEvent> {
        if self.assigned.len() >= OPEN_FILES {
            return None;
        }
        let what = self.to_assign.pop_front()?;
        let (partition, input) = match &what {
            What::File(entry) => (entry.partition, Some(entry.input())),
            What::Directory(_) => (0, None),
        };
        let FileSettings { topic, topic_id, replay, replay_id, group, epoch, .. } = self.settings.clone();
        let (topic, topic_id) = if what.comes_again() { (replay, replay_id) } else { (topic, topic_id) };
        let at = TopicPartition { topic, partition };
        let held = Held { what, run: RunId(0), state: State::Assigned };
        self.assigned.insert(at.clone(), held);
        let start = match self.started.contains(&at) {
            true => Start::MustExist,
            false => Start::Init(Offset::ZERO),
        };
        let assignment = Assignment { at, topic_id, group, epoch, start, input };
        Some(SourceEvent::Assigned(vec![assignment]))
    }

    /// What the first partition that is being read has next.
    fn read_on(&mut self) -> Option<Poll> {
        let busy =
            |held: &Held| matches!(held.state, State::ToRead(_) | State::Reading(_) | State::Failed(Some(_)));
        let (at, held) = self.assigned.iter_mut().find(|(_, held)| busy(held))?;
        let at = at.clone();
        if let State::ToRead(from) = held.state {
            held.state = open(&self.roots, &held.what, from);
        }
        let reader = match &mut held.state {
            State::Reading(reader) => reader,
            State::Failed(error) => {
                let error = error.take().expect("just matched");
                return Some(Poll::Event(SourceEvent::Failed { at, error }));
            }
            State::Assigned | State::ToRead(_) | State::Ended(_) => return None,
        };
        let mut builder = BatchBuilder::new(at.clone(), reader.next());
        if held.what.comes_again() {
            builder.open_envelopes();
        }
        let (records, bytes) = (self.settings.batch_records, self.settings.batch_bytes);
        builder.reserve(self.last.0, self.last.1.min(bytes));
        if let Err(error) = reader.fill(&mut builder, records, bytes) {
            held.state = State::Failed(None);
            return Some(Poll::Event(SourceEvent::Failed { at, error }));
        }
        if builder.n_records() == 0 {
            return Some(held.end(at, builder.next(), self.settings.once));
        }
        let Some(permit) = self.budget.acquire(builder.bytes()) else { return Some(Poll::Closed) };
        let (run, next) = (held.run, builder.next());
        let batch = builder.finish(next, permit).expect("it has a record");
        self.last = (batch.len(), batch.values().data.len());
        Some(Poll::Event(SourceEvent::Batch { run, batch }))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "files are looked for now and then; nothing depends on when"
    )]
    fn look_for_new(&mut self) {
        let now = Instant::now();
        if self.settings.once || self.next_scan.is_some_and(|at| now < at) {
            return;
        }
        self.next_scan = Some(now + RESCAN);
        match (self.discover)() {
            Ok(entries) => self.take_up(entries),
            Err(error) => tracing::error!(%error, "looking for new files"),
        }
    }

    fn is_exhausted(&self) -> bool {
        let ended = |held: &Held| matches!(held.state, State::Ended(_));
        self.settings.once && self.to_assign.is_empty() && self.assigned.values().all(ended)
    }
}

impl What {
    /// Whether its records are envelopes.
    fn comes_again(&self) -> bool {
        matches!(self, Self::File(entry) if entry.format == Format::Envelopes)
    }

    /// Whether it is a directory, and has `records` too.
    fn extend(&mut self, records: &[FileEntry]) -> bool {
        let Self::Directory(entries) = self else { return false };
        entries.extend(records.iter().cloned());
        true
    }
}

impl Held {
    /// More files in a directory; where it is being read, they are read too.
    fn extend(&mut self, records: &[FileEntry], roots: &Roots) {
        self.what.extend(records);
        let from = match &self.state {
            State::Reading(reader) => reader.next(),
            State::Ended(end) => *end,
            State::Assigned | State::ToRead(_) | State::Failed(_) => return,
        };
        self.state = open(roots, &self.what, from);
    }

    /// A directory may get more files in a later run, and in this one if it goes on looking.
    fn end(&mut self, at: TopicPartition, end: Offset, once: bool) -> Poll {
        self.state = State::Ended(end);
        let for_good = matches!(self.what, What::File(_));
        match for_good || once {
            true => Poll::Event(SourceEvent::End { run: self.run, at, end, for_good }),
            false => Poll::Idle,
        }
    }
}

fn open(roots: &Roots, what: &What, from: Offset) -> State {
    let opened = match what {
        What::File(entry) => open_file(roots.of(entry), entry, from),
        What::Directory(entries) => {
            let max_bytes = Options::new(Format::Raw).max_record_bytes;
            let reader = DirectoryReader::new(roots.inputs.clone(), entries.clone(), from, max_bytes);
            Ok(Reader::Directory(reader))
        }
    };
    opened.map_or_else(|error| State::Failed(Some(error)), State::Reading)
}

/// A file that is being read, and what it was when it was first seen.
struct Opened {
    file: File,
    entry: FileEntry,
    reader: RecordReader,
}

fn open_file(inputs: &Inputs, entry: &FileEntry, from: Offset) -> Result<Reader, Error> {
    let file = inputs.open(&entry.path)?;
    entry.check_length(&file)?;
    let again = |source| Error::Io { what: format!("opening {} again", entry.path), source };
    let input = Box::new(file.try_clone().map_err(again)?);
    let mut reader = RecordReader::open(input, &*entry.path, &Options::new(entry.format))?;
    reader.skip_to(from)?;
    Ok(Reader::File(Box::new(Opened { file, entry: entry.clone(), reader })))
}

impl Opened {
    /// As [`RecordReader::fill`]. A file that grew or shrank under the reader has no end that could be trusted, and
    /// is not believed to be broken.
    fn fill(&mut self, builder: &mut BatchBuilder, records: usize, bytes: usize) -> Result<(), Error> {
        if self.reader.fill(builder, records, bytes)? == Filled::End || self.reader.is_broken() {
            self.entry.check_length(&self.file)?;
        }
        Ok(())
    }
}

impl Reader {
    fn next(&self) -> Offset {
        match self {
            Self::File(opened) => opened.reader.next(),
            Self::Directory(reader) => reader.next(),
        }
    }

    fn fill(&mut self, builder: &mut BatchBuilder, records: usize, bytes: usize) -> Result<(), Error> {
        match self {
            Self::File(opened) => opened.fill(builder, records, bytes),
            Self::Directory(reader) => Ok(reader.fill(builder, records, bytes).map(drop)?),
        }
    }
}

impl Source for FileSource {
    fn poll(&mut self) -> Poll {
        if let Some(event) = self.assign_next() {
            return Poll::Event(event);
        }
        if let Some(poll) = self.read_on() {
            return poll;
        }
        if self.is_exhausted() && !self.said_exhausted {
            self.said_exhausted = true;
            return Poll::Event(SourceEvent::Exhausted);
        }
        self.look_for_new();
        Poll::Idle
    }

    /// A file is known by its digest, so `last` says nothing new.
    fn read(&mut self, run: RunId, at: &TopicPartition, from: Offset, _: Option<Fingerprint>) {
        let Some(mut held) = self.assigned.remove(at).or_else(|| self.parked.remove(at)) else { return };
        self.said_exhausted = false;
        held.run = run;
        held.state = State::ToRead(from);
        self.assigned.insert(at.clone(), held);
    }

    fn hold(&mut self, at: &TopicPartition) {
        self.forget(at, false);
    }

    fn forget(&mut self, at: &TopicPartition, finished: bool) {
        let held = self.assigned.remove(at).or_else(|| self.parked.remove(at));
        if let Some(held) = held.filter(|_| !finished) {
            self.parked.insert(at.clone(), held);
        }
    }
}

#[cfg(test)]
mod tests;
