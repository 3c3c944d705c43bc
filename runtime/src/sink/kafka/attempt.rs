//! One attempt at a commit, and what is done before the same is tried again: what was refused is left out, who was
//! overtaken is told so, and a member that has to join again is given time. It never tries another commit in its place.

use std::time::Duration;

use super::claim::missing;
use super::transaction::{self, With, Work};
use super::{KafkaSink, not_claimed, of_cluster};
use crate::kafka::transactions::{Ended, Undone};
use crate::offset::TopicPartition;
use crate::sink::state::{Commit, SinkState};
use crate::sink::{Committed, Error, Problem, Resolved};

/// How long to wait before what is the same is tried again by a member whose group has moved on without it: it learns of
/// that from another thread. Together they are more than it takes to join again, and less than the others wait for it.
const UNTIL_JOINED_MS: [u64; 7] = [20, 50, 100, 300, 800, 1_500, 3_000];

/// How often something is tried again for any one of the other reasons.
const TRIES: usize = 10;

/// How often what is the same was tried.
pub(super) struct Tries {
    n: usize,
    waits: std::slice::Iter<'static, u64>,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { n: 0, waits: UNTIL_JOINED_MS.iter() }
    }
}

impl KafkaSink {
    /// Tries once to commit what has no answer yet. Whether all have one now.
    pub(super) fn commit_once(
        &mut self,
        commits: &[(TopicPartition, Commit)],
        answers: &mut [Option<Result<Committed, Error>>],
        tries: &mut Tries,
    ) -> Result<bool, Error> {
        let is_fit = self.is_fit();
        if !is_fit {
            self.progress.read_on()?;
        }
        let mut ready = Vec::new();
        let mut places = Vec::new();
        for (i, (at, commit)) in
            commits.iter().enumerate().filter(|(i, _)| answers[*i].is_none()).collect::<Vec<_>>()
        {
            match self.committed(at, commit) {
                Ok(Some(state)) => {
                    ready.push((at, state));
                    places.push(i);
                }
                Ok(None) => {
                    self.done(at, commit);
                    answers[i] = Some(Ok(Committed::Done));
                }
                Err(error) => answers[i] = Some(Err(error)),
            }
        }
        if ready.is_empty() {
            return Ok(true);
        }
        if !is_fit {
            self.renew()?;
            return Ok(false);
        }
        match self.transact(&ready, true) {
            Ended::Committed => {
                fail::fail_point!("kafka.after_commit");
                for ((_, state), i) in ready.into_iter().zip(places) {
                    self.progress.keep(state);
                    self.done(&commits[i].0, &commits[i].1);
                    answers[i] = Some(Ok(Committed::Done));
                }
                Ok(true)
            }
            Ended::Unknown(text) => {
                places.into_iter().for_each(|i| answers[i] = Some(Ok(Committed::Unknown(text.clone()))));
                Ok(true)
            }
            // Nothing is on its way any more, so the next look tells.
            Ended::UnknownAndFenced(text) => self.again(Undone::Fenced(text), tries, &ready).map(|()| false),
            Ended::Undone(undone) => self.again(undone, tries, &ready).map(|()| false),
        }
    }

    /// What a commit would make of the partition's state; nothing, if it is there.
    fn committed(&self, at: &TopicPartition, commit: &Commit) -> Result<Option<SinkState>, Error> {
        let owned = self.owned.get(at).ok_or_else(|| not_claimed(at))?;
        owned.check_range(commit)?;
        let state = self.progress.get(at).ok_or_else(|| missing(at, self.progress.topic()))?;
        if state.last_commit == Some(commit.id) {
            return Ok(None);
        }
        let mut state = state.clone();
        state.commit(owned.epoch, owned.owner, commit)?;
        Ok(Some(state))
    }

    /// One transaction over `ready`.
    pub(super) fn transact(&mut self, ready: &[(&TopicPartition, SinkState)], staged: bool) -> Ended {
        let work: Vec<_> = ready
            .iter()
            .map(|(at, state)| {
                let staging = self.owned.get(*at).filter(|_| staged).map(|owned| &owned.staging);
                Work { at, state, staging }
            })
            .collect();
        let (topics, progress, group) = (&self.topics, &self.progress, self.group.as_ref());
        let with = With { sink: &self.config.sink, topics, progress, group };
        let (ended, rejected) = transaction::run(&mut self.transactions, &with, &work);
        drop(work);
        for ((at, _), n) in ready.iter().zip(rejected) {
            if let Some(owned) = self.owned.get_mut(*at) {
                owned.in_doubt = n;
            }
        }
        ended
    }

    /// What is to be done before the same is tried again, or why it is not.
    pub(super) fn again(
        &mut self,
        undone: Undone,
        tries: &mut Tries,
        ready: &[(&TopicPartition, SinkState)],
    ) -> Result<(), Error> {
        tries.n += 1;
        let transient = |text: String| Error::Transient(Problem::new(text));
        match undone {
            Undone::Failed(error) => Err(of_cluster(error)),
            Undone::Stale(text) => {
                self.progress.read_on()?;
                let ms = tries.waits.next().ok_or_else(|| transient(text))?;
                self.transactions.wait(Duration::from_millis(*ms));
                Ok(())
            }
            Undone::Fenced(text) | Undone::TooLarge(text) | Undone::GivenUp(text) if tries.n > TRIES => {
                Err(transient(text))
            }
            Undone::Fenced(_) | Undone::GivenUp(_) => Ok(()),
            Undone::TooLarge(_) => {
                self.begun_with = None;
                self.topics.look_again()
            }
            Undone::Refused { why, .. } if tries.n > TRIES => {
                Err(transient(format!("records are refused: {why}")))
            }
            Undone::Refused { tags, why } => {
                // Each that is found is one less.
                tries.n = if tags.len() == 1 { 0 } else { tries.n };
                self.blame(&tags, &why, ready)
            }
        }
    }

    /// Notes which rows are not sent any more, or among which to look for those.
    fn blame(
        &mut self,
        tags: &[usize],
        why: &str,
        ready: &[(&TopicPartition, SinkState)],
    ) -> Result<(), Error> {
        let mut first = 0;
        for (at, _) in ready {
            let Some(owned) = self.owned.get_mut(*at) else { continue };
            let end = first + owned.staging.n_rows() as usize;
            let places = tags.iter().filter(|tag| (first..end).contains(*tag)).map(|tag| tag - first);
            match tags {
                [_] => places.for_each(|place| owned.staging.refuse(place, why.to_owned())),
                _ => owned.staging.suspect(places.collect()),
            }
            first = end;
        }
        match tags.iter().any(|tag| *tag >= first) {
            // What is no row is ours: a position, or a row that was refused already.
            true => Err(Error::Transient(Problem::new(format!("a record of Weir's own is refused: {why}")))),
            false => Ok(()),
        }
    }

    pub(super) fn resolved(&self, at: &TopicPartition, commit: &Commit) -> Result<Resolved, Error> {
        let owned = self.owned.get(at).ok_or_else(|| not_claimed(at))?;
        let state = self.progress.get(at).ok_or_else(|| missing(at, self.progress.topic()))?;
        if state.last_commit == Some(commit.id) {
            return Ok(Resolved::Committed);
        }
        state.check_commit(owned.epoch, owned.owner, commit)?;
        Ok(Resolved::NotCommitted)
    }

    pub(super) fn done(&mut self, at: &TopicPartition, commit: &Commit) {
        if let Some(owned) = self.owned.get_mut(at) {
            self.tally.rejected.add(std::mem::take(&mut owned.in_doubt));
            owned.move_on(commit);
        }
    }
}
