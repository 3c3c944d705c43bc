//! From a failed batch to the guilty records: judged in small pieces and, where one of those fails, record by record,
//! while all others go their normal way. It knows rules, not how they are sandboxed.
//!
//! What becomes of a record depends on that record alone. So a record is convicted only by itself, by a fresh judge,
//! for a trap, an error, a bad output or the fuel it used; never by the clock, and never for its neighbours. A judge
//! looks at the other records of its batch too, and at batches that came through but took suspiciously long: a record
//! that uses too much fuel is found whatever it travels with.

use std::error::Error;
use std::ops::Range;

use crate::batch::Batch;
use crate::offset::{OffsetRange, TopicPartition};
use crate::route::{Failed, Output, Pieces};
use crate::rule::{CallError, Judging, Rule};

/// A rule that is kept from batch to batch, a judge for when it fails, and how to make others of both.
pub struct Keeper<'a, E> {
    worker: Seat<'a, E>,
    judge: Seat<'a, E>,
    most_bytes: usize,
    /// What the outputs of the batch at hand take so far.
    taken: usize,
    /// How many parts of batches have gone through at once since the last that did not.
    calm: u32,
}

/// Makes a fresh rule.
pub type Fresh<'a, E> = Box<dyn FnMut() -> Result<Box<dyn Rule>, E> + Send + 'a>;

impl<E> std::fmt::Debug for Keeper<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("most_bytes", &self.most_bytes).finish_non_exhaustive()
    }
}

/// What came of a batch, and what it took.
#[derive(Debug)]
pub struct Judged {
    /// The outputs, and the records at which the transform failed.
    pub pieces: Pieces,
    /// How often the transform was called.
    pub calls: u32,
    /// How the batch failed, if it did. With no failed record in `pieces` it went through in parts.
    pub first_failure: Option<CallError>,
    /// The batch was too much at once, though no record is to blame: for a while none with more bytes than this is
    /// handed over whole.
    pub lowered: Option<usize>,
}

/// Hears of each record that is found guilty, and says whether the look goes on.
pub type GoOn<'a> = &'a mut dyn FnMut(Judging) -> bool;

/// No verdict: this is not about a record.
#[derive(Debug, thiserror::Error)]
pub enum Stopped<E: Error + 'static> {
    /// A record by itself ran out of time twice, the second time on a fresh judge, and did not use up its fuel.
    #[error("E_STALL: the transform did not answer within {ms} ms, twice, for {at} offsets {range}")]
    Stall {
        /// Where it comes from.
        at: TopicPartition,
        /// Where it stands.
        range: OffsetRange,
        /// How long it had each time.
        ms: u64,
        /// The last lines it wrote.
        log: String,
    },
    /// The outputs for its parts, each of them allowed, are too much together.
    #[error("E_OUTPUT: {at} offsets {range} come to more than {} MiB of rows", MOST_OUTPUT >> 20)]
    TooMuch {
        /// Where it comes from.
        at: TopicPartition,
        /// Where it stands.
        range: OffsetRange,
    },
    /// Nobody wants to know any more which records are to blame.
    #[error("given up")]
    GivenUp,
    /// A fresh instance did not start; the next would not either.
    #[error("the transform does not start")]
    Start(#[source] E),
}

/// The records that a judge gets at once. Pieces cost as much per record as whole batches from some dozens of records
/// on, and a few fresh judges and so many short calls when a piece fails; halving would take a fresh one at each step.
const PIECE: usize = 64;

/// What the outputs for the parts of one batch may take together, in bytes. The text of their rejects, with all that JSON
/// escapes, then still fits into one column.
const MOST_OUTPUT: usize = 256 << 20;

/// Batches of this size or less are not cut any smaller.
const LEAST_BYTES: usize = 1 << 10;

/// After so many parts that went through at once, parts may be twice as large again.
const CALM: u32 = 1_000;

impl<'a, E: Error + 'static> Keeper<'a, E> {
    /// A keeper that has no rule yet. It makes those that work with `fresh`, and those that judge, which also count
    /// fuel, with `judge`.
    pub fn new(fresh: Fresh<'a, E>, judge: Fresh<'a, E>) -> Self {
        Self { worker: Seat::new(fresh), judge: Seat::new(judge), most_bytes: usize::MAX, taken: 0, calm: 0 }
    }

    /// Works with `rule` until that fails or is retired.
    #[must_use]
    pub fn holding(mut self, rule: Box<dyn Rule>) -> Self {
        self.worker.kept = Some(rule);
        self
    }

    /// Drops kept rules that have grown by more than `mark` bytes; the next batch gets a fresh one.
    pub fn retire_past(&mut self, mark: usize) {
        for seat in [&mut self.worker, &mut self.judge] {
            seat.kept.take_if(|rule| rule.grown_bytes() > mark);
        }
    }

    /// Transforms a batch. If it fails, or takes suspiciously long, each record that is to blame is found, and all
    /// others go their normal way. If none is, batches are handed over in smaller parts for a while.
    ///
    /// # Errors
    /// [`Stopped`]: the batch has to be tried again later, or the pipeline stops.
    pub fn transform(&mut self, batch: &Batch) -> Result<Judged, Stopped<E>> {
        self.transform_while(batch, &mut |_| true)
    }

    /// The same, until nobody wants to know any more: where most records are guilty, a fresh judge for each takes long.
    ///
    /// # Errors
    /// As [`Keeper::transform`], and [`Stopped::GivenUp`].
    pub fn transform_while(&mut self, batch: &Batch, go_on: GoOn<'_>) -> Result<Judged, Stopped<E>> {
        let pieces = Pieces { outputs: Vec::new(), failed: Vec::new() };
        let mut judged = Judged { pieces, calls: 0, first_failure: None, lowered: None };
        self.taken = 0;
        for rows in batch.cuts(self.most_bytes) {
            self.part(batch, &rows, &mut judged, go_on)?;
        }
        Ok(judged)
    }

    fn part(
        &mut self,
        batch: &Batch,
        rows: &Range<usize>,
        judged: &mut Judged,
        go_on: GoOn<'_>,
    ) -> Result<(), Stopped<E>> {
        judged.calls += 1;
        let output = match self.worker.call(batch, rows)? {
            Ok(output) if !self.worker.is_suspect() => {
                take(&mut self.taken, &output, batch)?;
                judged.pieces.outputs.push((rows.start as u32, output));
                self.went_well();
                return Ok(());
            }
            Ok(output) => Some(output),
            Err(error) => {
                judged.first_failure.get_or_insert(error);
                None
            }
        };
        let failed = judged.pieces.failed.len() as u64;
        let go_on: GoOn<'_> = &mut |judging| go_on(Judging { failed: judging.failed + failed, ..judging });
        let found = self.judge_all(batch, rows, &mut judged.calls, go_on)?;
        if found.failed.is_empty() {
            let bytes = batch.bytes(rows);
            self.most_bytes = self.most_bytes.min((bytes / 2).max(LEAST_BYTES));
            self.calm = 0;
            judged.lowered = Some(self.most_bytes);
        }
        match output {
            Some(output) if found.failed.is_empty() => {
                take(&mut self.taken, &output, batch)?;
                judged.pieces.outputs.push((rows.start as u32, output))
            }
            _ => {
                found.outputs.iter().try_for_each(|(_, output)| take(&mut self.taken, output, batch))?;
                judged.pieces.outputs.extend(found.outputs);
                judged.pieces.failed.extend(found.failed);
            }
        }
        Ok(())
    }

    fn went_well(&mut self) {
        self.calm += 1;
        if self.calm == CALM {
            self.calm = 0;
            self.most_bytes = self.most_bytes.saturating_mul(2);
        }
    }

    fn judge_all(
        &mut self,
        batch: &Batch,
        rows: &Range<usize>,
        calls: &mut u32,
        go_on: GoOn<'_>,
    ) -> Result<Pieces, Stopped<E>> {
        let mut found = Pieces { outputs: Vec::new(), failed: Vec::new() };
        let mut taken = self.taken;
        for start in rows.clone().step_by(PIECE) {
            let piece = start..rows.end.min(start + PIECE);
            *calls += 1;
            if let Ok(output) = self.judge.call(batch, &piece)? {
                take(&mut taken, &output, batch)?;
                found.outputs.push((start as u32, output));
                continue;
            }
            for row in piece {
                match self.judge_one(batch, row, calls)? {
                    Ok(output) => {
                        take(&mut taken, &output, batch)?;
                        found.outputs.push((row as u32, output));
                    }
                    Err(error) => {
                        found.failed.push(guilty(row, &error));
                        let (records, failed) = (row as u64 + 1, found.failed.len() as u64);
                        if !go_on(Judging { records, failed }) {
                            return Err(Stopped::GivenUp);
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Only a fresh judge convicts: one that others made grow may fail on an innocent record. Running out of time is no
    /// fact about a record: once is forgiven.
    fn judge_one(
        &mut self,
        batch: &Batch,
        row: usize,
        calls: &mut u32,
    ) -> Result<Result<Output, CallError>, Stopped<E>> {
        let rows = row..row + 1;
        let mut late = false;
        loop {
            let was_fresh = self.judge.kept.is_none();
            *calls += 1;
            match self.judge.call(batch, &rows)? {
                Ok(output) => return Ok(Ok(output)),
                Err(CallError::Deadline { ms, log }) if late => {
                    let range = batch.rows(rows).range();
                    return Err(Stopped::Stall { at: batch.at().clone(), range, ms, log });
                }
                Err(CallError::Deadline { .. }) => late = true,
                Err(error) if was_fresh => return Ok(Err(error)),
                Err(_) => {}
            }
        }
    }
}

/// Counts what an output of a part of `batch` takes.
fn take<E: Error + 'static>(taken: &mut usize, output: &Output, batch: &Batch) -> Result<(), Stopped<E>> {
    *taken = taken.saturating_add(output.bytes);
    match *taken > MOST_OUTPUT {
        true => Err(Stopped::TooMuch { at: batch.at().clone(), range: batch.range() }),
        false => Ok(()),
    }
}

/// A place for one rule. One that failed does not keep it.
struct Seat<'a, E> {
    kept: Option<Box<dyn Rule>>,
    fresh: Fresh<'a, E>,
}

impl<'a, E: Error + 'static> Seat<'a, E> {
    fn new(fresh: Fresh<'a, E>) -> Self {
        Self { kept: None, fresh }
    }

    fn is_suspect(&self) -> bool {
        self.kept.as_ref().is_some_and(|rule| rule.is_suspect())
    }

    fn call(&mut self, batch: &Batch, rows: &Range<usize>) -> Result<Result<Output, CallError>, Stopped<E>> {
        let part = (rows.len() < batch.len()).then(|| batch.rows(rows.clone()));
        let part = part.as_ref().unwrap_or(batch);
        let mut rule = match self.kept.take() {
            Some(rule) => rule,
            None => (self.fresh)().map_err(Stopped::Start)?,
        };
        let result = rule.process(part);
        self.kept = result.is_ok().then_some(rule);
        Ok(result)
    }
}

fn guilty(row: usize, error: &CallError) -> Failed {
    Failed { row: row as u32, code: error.code(), message: error.to_string(), log: error.log().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::batch::{BatchBuilder, RecordRef};
    use crate::budget::Permit;
    use crate::offset::Offset;

    /// Takes 16 MiB of output for an `L`, and only from a judge. Traps on `t`, has too little memory for an `m` among more than two, and is too slow for `s` so many times. Takes
    /// suspiciously long for an `l`, which a judge finds to take too much fuel, and for an `i`, which is innocent.
    struct Simulated {
        used_up: bool,
        judge: bool,
        suspect: bool,
        slow: Arc<AtomicU32>,
    }

    impl Rule for Simulated {
        fn process(&mut self, batch: &Batch) -> Result<Output, CallError> {
            assert!(!self.used_up, "a rule is not asked again after it failed");
            self.used_up = true;
            let log = String::new();
            let has = |what: &[u8]| batch.values().iter().any(|value| value == Some(what));
            if has(b"t") {
                return Err(CallError::Trap { text: "boom".into(), log });
            }
            if has(b"m") && batch.len() > 2 {
                return Err(CallError::Memory { limit_bytes: 1, text: "full".into(), log });
            }
            if has(b"s")
                && self.slow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
            {
                return Err(CallError::Deadline { ms: 5, log });
            }
            if has(b"L") && !self.judge {
                return Err(CallError::Fuel { limit: 9, log });
            }
            if has(b"l") && self.judge {
                return Err(CallError::Fuel { limit: 9, log });
            }
            self.suspect = has(b"l") || has(b"i");
            self.used_up = false;
            let large = batch.values().iter().filter(|value| *value == Some(b"L")).count();
            let dropped = (0..batch.len() as u32).collect();
            Ok(Output { dropped, bytes: large << 24, ..Output::default() })
        }

        fn is_suspect(&self) -> bool {
            self.suspect
        }
    }

    fn simulated(slow: &Arc<AtomicU32>, judge: bool) -> Fresh<'static, Infallible> {
        let slow = Arc::clone(slow);
        Box::new(move || {
            Ok(Box::new(Simulated { used_up: false, judge, suspect: false, slow: Arc::clone(&slow) }))
        })
    }

    fn keeper(slow: u32) -> Keeper<'static, Infallible> {
        let slow = Arc::new(AtomicU32::new(slow));
        Keeper::new(simulated(&slow, false), simulated(&slow, true))
    }

    fn batch(values: &[u8]) -> Batch {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::new(10));
        for (i, value) in values.iter().enumerate() {
            let value = Some(std::slice::from_ref(value));
            builder.push(Offset::new(10).plus(i), RecordRef { value, ..Default::default() });
        }
        builder.finish(Offset::new(10_000), Permit::free()).unwrap()
    }

    fn judge(values: &[u8], slow: u32) -> Result<Judged, Stopped<Infallible>> {
        keeper(slow).transform(&batch(values))
    }

    fn rows(judged: &Judged) -> (Vec<u32>, Vec<u32>) {
        let outputs = judged.pieces.outputs.iter();
        let good = outputs.flat_map(|(first, output)| output.dropped.iter().map(move |row| first + row));
        (good.collect(), judged.pieces.failed.iter().map(|failed| failed.row).collect())
    }

    /// As many good records as it takes to have several pieces, and these at some places among them.
    fn among_many(guilty: u8, places: &[usize]) -> Vec<u8> {
        let mut values = vec![b'a'; 4 * PIECE + 7];
        places.iter().for_each(|&place| values[place] = guilty);
        values
    }

    #[test]
    fn the_look_for_guilty_records_ends_when_nobody_wants_to_know_any_more() {
        let mut heard = Vec::new();
        let values = *b"ttattt";
        let judged = keeper(0).transform_while(&batch(&values), &mut |judging| {
            heard.push((judging.records, judging.failed));
            heard.len() < 3
        });
        assert!(matches!(judged, Err(Stopped::GivenUp)), "{judged:?}");
        assert_eq!(heard, [(1, 1), (2, 2), (4, 3)]);
    }

    #[test]
    fn a_good_batch_takes_one_call() {
        let judged = judge(b"abc", 0).unwrap();
        assert_eq!((judged.calls, rows(&judged)), (1, (vec![0, 1, 2], vec![])));
        assert_eq!((judged.first_failure, judged.lowered), (None, None));
    }

    #[test]
    fn parts_that_are_too_much_together_stop_instead_of_filling_the_memory() {
        assert!(judge(&among_many(b'L', &[0, 1, 70, 140, 200]), 0).is_ok());
        let places: Vec<usize> = (0..17).map(|i| i * 15).collect();
        let stopped = judge(&among_many(b'L', &places), 0).unwrap_err();
        assert_eq!(
            stopped.to_string(),
            "E_OUTPUT: t/0 offsets [10, 10000) come to more than 256 MiB of rows"
        );
    }

    #[test]
    fn the_guilty_are_found_and_the_others_are_unharmed() {
        for guilty in *b"tl" {
            for places in [&[0][..], &[1, 2], &[PIECE - 1, PIECE], &[4 * PIECE + 6], &[5, 70, 71, 200]] {
                let judged = judge(&among_many(guilty, places), 0).unwrap();
                let all = Vec::from_iter(0..4 * PIECE + 7);
                let good = all.into_iter().filter(|i| !places.contains(i)).map(|i| i as u32).collect();
                let bad = places.iter().map(|&i| i as u32).collect();
                assert_eq!(rows(&judged), (good, bad), "{places:?}");
                let codes = judged.pieces.failed.iter().map(|f| f.code);
                assert!(codes.eq(places.iter().map(|_| if guilty == b't' { "trap" } else { "fuel" })));
                assert_eq!(judged.lowered, None, "the records are to blame, not the size of the batch");
            }
        }
    }

    #[test]
    fn one_guilty_record_costs_a_few_fresh_judges_however_large_the_batch() {
        let fresh = Arc::new(AtomicU32::new(0));
        let (counter, slow) = (Arc::clone(&fresh), Arc::new(AtomicU32::new(0)));
        let mut judges = simulated(&slow, true);
        let counted: Fresh<'_, Infallible> = Box::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            judges()
        });
        let mut values = vec![b'a'; 4_096];
        values[1_000] = b't';
        Keeper::new(simulated(&slow, false), counted).transform(&batch(&values)).unwrap();
        assert!((2..=4).contains(&fresh.load(Ordering::SeqCst)), "{fresh:?}");
    }

    #[test]
    fn a_batch_that_goes_through_in_parts_is_taken_and_smaller_ones_follow() {
        let mut keeper = keeper(0);
        // Values of one byte each; so many of them are more than the least to which a batch is cut.
        let values = [vec![b'a'; 3 * LEAST_BYTES - 1], vec![b'm']].concat();
        let judged = keeper.transform(&batch(&values)).unwrap();
        assert_eq!((rows(&judged).0.len(), rows(&judged).1.len()), (values.len(), 0));
        assert!(matches!(judged.first_failure, Some(CallError::Memory { .. })));
        assert_eq!(judged.lowered, Some(3 * LEAST_BYTES / 2));
        let mut parts = || keeper.transform(&batch(&vec![b'a'; 3 * LEAST_BYTES])).unwrap().calls;
        assert_eq!(parts(), 2);
        assert_eq!((0..CALM).map(|_| parts()).last(), Some(1), "after a while it is tried again");
    }

    #[test]
    fn a_suspect_that_is_innocent_keeps_its_output() {
        let judged = judge(b"aia", 0).unwrap();
        assert_eq!((rows(&judged), judged.pieces.outputs.len()), ((vec![0, 1, 2], vec![]), 1));
        assert_eq!(judged.first_failure, None);
    }

    #[test]
    fn slow_answers_are_forgiven_but_for_two_of_a_record_by_itself() {
        // The worker's, that of the piece, and the first of the record alone.
        assert_eq!(rows(&judge(b"as", 3).unwrap()), (vec![0, 1], vec![]));
        let stall = judge(b"as", 4).unwrap_err().to_string();
        assert_eq!(
            stall,
            "E_STALL: the transform did not answer within 5 ms, twice, for t/0 offsets [11, 10000)"
        );
    }

    #[test]
    fn a_batch_without_readable_records_takes_no_call() {
        assert_eq!(judge(b"", 0).unwrap().calls, 0);
    }
}
