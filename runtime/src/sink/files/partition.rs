//! One partition in the hands of this process: claimed, written, committed. Everything it believes comes from the
//! log, and every step it takes is a record there first.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, PoisonError};

use super::Context;
use super::log::{History, Log, Put, StagedRecord};
use super::names::{self, Places};
use super::record::{CommitRecord, Record, StoredFile};
use super::staging::Staging;
use super::storage::failed;
use crate::sink::state::{Claim, Commit, Nonce, Refused, SinkState, Start};
use crate::sink::{Committed, Error, Problem, Resolved, RoutedBatch, Staged};

/// How many other claims a claim lets pass before it gives up for now.
const CLAIM_ATTEMPTS: usize = 8;

/// A claimed partition.
pub(super) struct Partition {
    context: Arc<Context>,
    claim: Claim,
    log: Log,
    state: SinkState,
    /// The newest record; all files up to it have their visible names.
    last: u64,
    /// How many records there are after the newest snapshot.
    records: u64,
    staging: Staging,
    /// The record of the commit under way, from the first attempt to put it until it is known to be out.
    put: Option<StagedRecord>,
}

/// What became of a file that was to get its visible name.
enum Revealed {
    Moved,
    Already,
    Gone,
}

impl Partition {
    /// Becomes the owner, and finishes what the one before left half visible.
    pub(super) fn claim(context: &Arc<Context>, claim: &Claim) -> Result<Self, Error> {
        let config = &context.config;
        let places = Places::new(&config.pipeline, &config.sink, &claim.topic_id, claim.at.partition);
        let staged = places.staged(claim.epoch, claim.owner);
        let log = Log::new(context.storage.clone(), places, staged.clone());
        let history = take_over(context, &log, claim)?;
        let staging = Staging::new(context.storage.clone(), staged);
        let (context, claim, put) = (context.clone(), claim.clone(), None);
        let History { state, last, records, pending } = history;
        let mut owned = Self { context, claim, log, state, last, records, staging, put };
        let named = owned.roll_forward(&pending)?;
        owned.clean_up(&named);
        owned.compact();
        Ok(owned)
    }

    pub(super) fn state(&self) -> &SinkState {
        &self.state
    }

    pub(super) fn write(&mut self, batch: &RoutedBatch) -> Result<Staged, Error> {
        let next = self.staging.range().map_or(self.state.next, |range| range.end);
        if batch.range.start != next {
            return Err(Refused::NotNext { range: batch.range, next }.into());
        }
        self.staging.write(&self.context.config, batch)
    }

    /// Bytes of memory that its open files hold, all and the one that holds most.
    pub(super) fn held(&self) -> (usize, usize) {
        self.staging.held()
    }

    /// Writes what the file holds that holds most.
    pub(super) fn let_go(&mut self) {
        self.staging.let_go();
    }

    pub(super) fn commit(&mut self, commit: &Commit) -> Result<Committed, Error> {
        self.state.check_commit(self.claim.epoch, self.claim.owner, commit)?;
        self.check_range(commit)?;
        let staged = self.prepare(commit).map_err(|error| self.fenced_or(commit, error))?;
        fail::fail_point!("file.after_temp_record");
        self.put = Some(staged.clone());
        let put = self.log.put(self.last + 1, &staged);
        self.conclude(commit, put)
    }

    /// Completes the files and writes the record that names them.
    fn prepare(&mut self, commit: &Commit) -> Result<StagedRecord, Error> {
        let files = self.staging.seal(&self.claim.at, commit)?;
        let (epoch, owner, rolled) = (self.claim.epoch, self.claim.owner, self.last);
        let record = CommitRecord { epoch, owner, commit: commit.clone(), files, rolled };
        fail::fail_point!("file.before_temp_record");
        self.log.stage(commit.id, &Record::Commit(record))
    }

    fn check_range(&self, commit: &Commit) -> Result<(), Error> {
        match self.staging.range() {
            Some(range) if range != commit.range => {
                let text = format!("{range} of {} was written, {} is committed", self.claim.at, commit.range);
                Err(Error::Permanent(Problem::new(text)))
            }
            _ => Ok(()),
        }
    }

    /// Does what follows from how the put of `commit`'s record ended.
    fn conclude(&mut self, commit: &Commit, put: Put) -> Result<Committed, Error> {
        match put {
            Put::Done { found_out } => {
                self.context.tally.unknown_resolved.add(u64::from(found_out));
                fail::fail_point!("file.after_put");
                let staged = self.put.as_ref().expect("it was kept before it was put");
                if self.log.overtaken(self.last + 1, staged)? {
                    self.context.tally.overtaken.add(1);
                    return Err(self.left_behind(commit));
                }
                fail::fail_point!("file.after_check");
                self.reveal_own(commit)?;
                fail::fail_point!("file.after_renames");
                self.move_on(commit)?;
                self.compact();
                Ok(Committed::Done)
            }
            Put::Unknown(why) => Ok(Committed::Unknown(why)),
            Put::Taken | Put::CleanedAway => Err(self.left_behind(commit)),
        }
    }

    /// The record of `commit` does not count and never will.
    fn left_behind(&mut self, commit: &Commit) -> Error {
        self.put = None;
        let text = format!("the log of {} moved on without us", self.claim.at);
        self.fenced_or(commit, Error::Transient(Problem::new(text)))
    }

    fn reveal_own(&mut self, commit: &Commit) -> Result<(), Error> {
        let files = self.staging.seal(&self.claim.at, commit)?;
        for file in &files {
            if let Revealed::Gone = self.reveal(file)? {
                self.unverified(file);
            }
            fail::fail_point!("file.between_renames");
        }
        self.sync_visible(files.iter())
    }

    fn move_on(&mut self, commit: &Commit) -> Result<(), Error> {
        self.state.commit(self.claim.epoch, self.claim.owner, commit)?;
        self.last += 1;
        self.records += 1;
        self.put = None;
        let directory = self.log.places.staged(self.claim.epoch, self.claim.owner);
        self.staging = Staging::new(self.context.storage.clone(), directory);
        Ok(())
    }

    pub(super) fn resolve(&mut self, commit: &Commit) -> Result<Resolved, Error> {
        if self.state.last_commit == Some(commit.id) {
            return Ok(Resolved::Committed);
        }
        let Some(staged) = self.put.clone() else { return Ok(Resolved::NotCommitted) };
        match self.log.withdraw(self.last + 1, &staged)? {
            // It may have been there, and deleted when others had gone past it.
            None if self.log.is_covered(self.last + 1)? => Err(self.left_behind(commit)),
            None => {
                self.put = None;
                Ok(Resolved::NotCommitted)
            }
            Some(put) => self.conclude(commit, put).map(|_| Resolved::Committed),
        }
    }

    /// Once enough records have come together, puts a snapshot in their place. Failing costs nothing but room, and the
    /// next commit tries again.
    fn compact(&mut self) {
        if self.records < self.context.config.compact_after {
            return;
        }
        let compacted = self.log.snapshot(self.last, &self.state).and_then(|()| {
            fail::fail_point!("file.compact.after_snapshot");
            self.records = 0;
            self.context.tally.snapshots.add(1);
            self.log.delete_covered(self.last)
        });
        if let Err(error) = compacted {
            tracing::debug!(at = %self.claim.at, %error, "the log is not compacted yet");
        }
    }

    /// Removes what was staged, unless a record that names it could still appear.
    pub(super) fn release(self) {
        if self.put.is_none() {
            self.staging.discard();
        }
    }

    /// What to say when a commit failed: a higher epoch removes what we staged and takes the number we put, so
    /// the log is asked before `error` is believed.
    fn fenced_or(&self, commit: &Commit, error: Error) -> Error {
        let held = match self.log.read() {
            Ok(history) => history.map(|history| history.state),
            Err(_) => return error,
        };
        let refused =
            held.and_then(|state| state.check_commit(self.claim.epoch, self.claim.owner, commit).err());
        match refused {
            Some(refused @ (Refused::Fenced { .. } | Refused::WentBack { .. })) => {
                self.context.tally.refused(&refused);
                Error::Conflict(refused)
            }
            _ => error,
        }
    }

    /// Gives the files of `pending` commits their visible names. Answers those that it could not find.
    fn roll_forward(&self, pending: &[(u64, Vec<StoredFile>)]) -> Result<BTreeSet<String>, Error> {
        let mut lost = BTreeSet::new();
        for file in pending.iter().flat_map(|(_, files)| files) {
            match self.reveal(file)? {
                Revealed::Moved => self.context.tally.rolled_forward.add(1),
                Revealed::Already => {}
                Revealed::Gone => {
                    self.unverified(file);
                    lost.insert(file.staged.clone());
                }
            }
            fail::fail_point!("file.roll.between");
        }
        let visible = pending.iter().flat_map(|(_, files)| files);
        self.sync_visible(visible.filter(|file| !lost.contains(&file.staged)))?;
        Ok(lost)
    }

    /// Gives a recorded file its visible name; done twice it changes nothing.
    fn reveal(&self, file: &StoredFile) -> Result<Revealed, Error> {
        let storage = &*self.context.storage;
        let length = |path: &str| storage.length(path).map_err(|e| failed(storage, "look at", path, e));
        if let Some(found) = length(&file.staged)?.filter(|found| *found != file.length) {
            let (path, expected) = (storage.show(&file.staged), file.length);
            let text = format!("E_LOG_CORRUPT: `{path}` has {found} bytes, its record says {expected}");
            return Err(Error::Permanent(Problem::new(text)));
        }
        match storage.rename(&file.staged, &file.path) {
            Ok(()) => Ok(Revealed::Moved),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match length(&file.path)? {
                Some(_) => Ok(Revealed::Already),
                None => Ok(Revealed::Gone),
            },
            Err(error) => Err(failed(storage, "make visible as", &file.path, error)),
        }
    }

    /// A file that is in neither place: whoever reads the files took it away already, or it is lost.
    fn unverified(&self, file: &StoredFile) {
        self.context.tally.roll_unverified.add(1);
        let path = self.context.storage.show(&file.path);
        tracing::warn!(path, "a committed file is gone; it was taken away by a reader, or lost");
    }

    fn sync_visible<'a>(&self, files: impl Iterator<Item = &'a StoredFile>) -> Result<(), Error> {
        let storage = &*self.context.storage;
        let directories: BTreeSet<_> = files.filter_map(|file| Some(file.path.rsplit_once('/')?.0)).collect();
        directories.iter().try_for_each(|dir| storage.sync(dir).map_err(|e| failed(storage, "sync", dir, e)))
    }

    /// Removes what lower epochs left in staging, without what `named` records still name. Higher and equal epochs
    /// are never touched: we may be the one who was overtaken. What cannot be removed is left to a later claim.
    fn clean_up(&self, named: &BTreeSet<String>) {
        let staging = self.log.places.staging();
        let storage = &*self.context.storage;
        let mut removed = 0;
        let mut clean = || -> io::Result<()> {
            for epoch in storage.list(&staging)? {
                if names::staged_epoch(&epoch).is_none_or(|epoch| epoch >= self.claim.epoch) {
                    continue;
                }
                let directory = format!("{staging}/{epoch}");
                let files = storage.list(&directory)?.into_iter().map(|name| format!("{directory}/{name}"));
                for file in files.filter(|file| !named.contains(file)) {
                    storage.delete(&file)?;
                    removed += 1;
                    fail::fail_point!("claim.cleanup.between");
                }
                storage.delete(&directory)?;
            }
            Ok(())
        };
        if let Err(error) = clean() {
            tracing::debug!(staging, %error, "files of earlier owners stay behind");
        }
        self.context.tally.cleaned.add(removed);
    }
}

/// Puts the CLAIM record, after which no lower epoch can put another.
fn take_over(context: &Context, log: &Log, claim: &Claim) -> Result<History, Error> {
    for _ in 0..CLAIM_ATTEMPTS {
        let Some(mut history) = log.read()? else {
            begin(context, log, claim)?;
            continue;
        };
        history.state.claim(claim).inspect_err(|refused| context.tally.refused(refused))?;
        let record = Record::Claim { epoch: claim.epoch, owner: claim.owner };
        fail::fail_point!("claim.before_temp_record");
        let staged = log.stage(Nonce::random(), &record)?;
        fail::fail_point!("claim.after_temp_record");
        match log.put(history.last + 1, &staged) {
            Put::Done { found_out } => {
                context.tally.unknown_resolved.add(u64::from(found_out));
                fail::fail_point!("claim.after_put");
                if log.overtaken(history.last + 1, &staged)? {
                    context.tally.overtaken.add(1);
                    continue;
                }
                fail::fail_point!("claim.after_check");
                history.last += 1;
                history.records += 1;
                return Ok(history);
            }
            Put::Taken | Put::CleanedAway => {}
            Put::Unknown(why) => return Err(Error::Transient(Problem::new(why))),
        }
    }
    Err(Error::Transient(Problem::new(format!("{CLAIM_ATTEMPTS} others were faster to claim {}", claim.at))))
}

/// Refuses a topic whose name another one had in this sink. Looked at once per topic: all its partitions, also
/// those that this one does not have, tell that a position would be lost.
fn refuse_siblings(context: &Context, log: &Log, claim: &Claim) -> Result<(), Error> {
    let topic = (claim.at.topic.clone(), claim.topic_id.clone());
    let mut known = context.without_siblings.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(&topic) {
        return Ok(());
    }
    if let Some(other) = log.sibling(&topic.0)? {
        let (topic, ours) = topic;
        return Err(Refused::TopicReplaced { topic, held: other.topic_id, ours }.into());
    }
    known.insert(topic);
    Ok(())
}

/// Puts the INIT record, if the plan log knows where to start and no other topic of this name was here.
fn begin(context: &Context, log: &Log, claim: &Claim) -> Result<(), Error> {
    refuse_siblings(context, log, claim)?;
    let Start::Init(start) = claim.start else {
        let path = context.storage.show(&log.places.log());
        let text = format!("E_STATE_MISSING: there is no log of {} at `{path}`, but there was one", claim.at);
        let hint = "restore the directory from a backup; or start over with a pipeline of another name";
        return Err(Error::Permanent(Problem::new(text).hint(hint)));
    };
    let staged = log.stage(Nonce::random(), &Record::Init { state: SinkState::init(claim, start) })?;
    match log.put(0, &staged) {
        Put::Unknown(why) => Err(Error::Transient(Problem::new(why))),
        Put::Done { .. } | Put::Taken | Put::CleanedAway => {
            fail::fail_point!("claim.after_init");
            Ok(())
        }
    }
}
