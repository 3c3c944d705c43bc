//! From a failed batch to the guilty records: halved with fresh instances until each is alone, while all others
//! go their way. It knows rules, not how they are sandboxed.

use std::error::Error;
use std::ops::Range;

use crate::batch::Batch;
use crate::offset::{OffsetRange, TopicPartition};
use crate::route::{Failed, Output, Pieces};
use crate::rule::{CallError, Rule};

/// A rule that is kept from batch to batch, and how to make another after a failure.
pub struct Keeper<'a, E> {
    kept: Option<Box<dyn Rule>>,
    fresh: Fresh<'a, E>,
}

/// Makes a fresh rule.
pub type Fresh<'a, E> = Box<dyn FnMut() -> Result<Box<dyn Rule>, E> + Send + 'a>;

impl<E> std::fmt::Debug for Keeper<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("has_one", &self.kept.is_some()).finish_non_exhaustive()
    }
}

/// What came of a batch, and what it took.
#[derive(Debug)]
pub struct Judged {
    /// The outputs, and the records at which the transform failed.
    pub pieces: Pieces,
    /// How often the transform was called.
    pub calls: u32,
    /// How the whole batch failed, if it did. With no failed record in `pieces` it went through in parts.
    pub first_failure: Option<CallError>,
}

/// No verdict: this is not about a record.
#[derive(Debug, thiserror::Error)]
pub enum Stopped<E: Error + 'static> {
    /// The same records twice ran out of time, the second time on a fresh instance.
    #[error("E_STALL: the transform did not answer within {ms} ms, twice, for {at} offsets {range}")]
    Stall {
        /// Where they come from.
        at: TopicPartition,
        /// The narrowest range that is known.
        range: OffsetRange,
        /// How long it had each time.
        ms: u64,
        /// The last lines it wrote.
        log: String,
    },
    /// A fresh instance did not start; the next would not either.
    #[error("the transform does not start")]
    Start(#[source] E),
}

impl<'a, E: Error + 'static> Keeper<'a, E> {
    /// A keeper that has no rule yet and makes them with `fresh`.
    pub fn new(fresh: Fresh<'a, E>) -> Self {
        Self { kept: None, fresh }
    }

    /// Drops a kept rule that holds more than `mark` bytes; the next batch gets a fresh one.
    pub fn retire_past(&mut self, mark: usize) {
        self.kept.take_if(|rule| rule.memory_bytes() > mark);
    }

    /// Transforms a batch. On a trap, an error or a bad output it is halved until each guilty record is alone; all
    /// others go their normal way. Running out of time is no fact about a record: it is tried once more.
    ///
    /// # Errors
    /// [`Stopped`]: the batch has to be tried again later, or the pipeline stops.
    pub fn transform(&mut self, batch: &Batch) -> Result<Judged, Stopped<E>> {
        let pieces = Pieces { outputs: Vec::new(), failed: Vec::new() };
        let mut judged = Judged { pieces, calls: 0, first_failure: None };
        let mut todo = Vec::from_iter((!batch.is_empty()).then_some(0..batch.len()));
        while let Some(rows) = todo.pop() {
            let was_fresh = self.kept.is_none();
            let mut result = self.try_twice(batch, &rows, &mut judged)?;
            // Only a fresh instance convicts a record: one that others made grow may fail on an innocent one.
            if rows.len() == 1 && result.is_err() && !was_fresh {
                result = self.try_twice(batch, &rows, &mut judged)?;
            }
            match result {
                Ok(output) => judged.pieces.outputs.push((rows.start as u32, output)),
                Err(error) if rows.len() == 1 => judged.pieces.failed.push(guilty(rows.start, &error)),
                Err(_) => {
                    let middle = rows.start + rows.len() / 2;
                    todo.extend([middle..rows.end, rows.start..middle]);
                }
            }
        }
        Ok(judged)
    }

    fn try_twice(
        &mut self,
        batch: &Batch,
        rows: &Range<usize>,
        judged: &mut Judged,
    ) -> Result<Result<Output, CallError>, Stopped<E>> {
        let part = (rows.len() < batch.len()).then(|| batch.rows(rows.clone()));
        let part = part.as_ref().unwrap_or(batch);
        let first = self.call(part, judged)?;
        if !matches!(first, Err(CallError::Deadline { .. })) {
            return Ok(first);
        }
        match self.call(part, judged)? {
            Err(CallError::Deadline { ms, log }) => {
                Err(Stopped::Stall { at: part.at().clone(), range: part.range(), ms, log })
            }
            second => Ok(second),
        }
    }

    /// One call, on the kept rule or a fresh one. A rule that failed is not kept.
    fn call(&mut self, batch: &Batch, judged: &mut Judged) -> Result<Result<Output, CallError>, Stopped<E>> {
        let mut rule = match self.kept.take() {
            Some(rule) => rule,
            None => (self.fresh)().map_err(Stopped::Start)?,
        };
        judged.calls += 1;
        let result = rule.process(batch);
        match &result {
            Ok(_) => self.kept = Some(rule),
            Err(error) => _ = judged.first_failure.get_or_insert_with(|| error.clone()),
        }
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

    /// Traps on `t`, has too little memory for an `m` among more than two, and is too slow for `s` so many times.
    struct Simulated {
        used_up: bool,
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
            self.used_up = false;
            Ok(Output { dropped: (0..batch.len() as u32).collect(), ..Output::default() })
        }
    }

    fn judge(values: &[u8], slow: u32) -> Result<Judged, Stopped<Infallible>> {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::new(10));
        for (i, value) in values.iter().enumerate() {
            let value = Some(std::slice::from_ref(value));
            builder.push(Offset::new(10).plus(i), RecordRef { value, ..Default::default() });
        }
        let batch = builder.finish(Offset::new(100), Permit::free()).unwrap();
        let slow = Arc::new(AtomicU32::new(slow));
        let fresh = || -> Result<Box<dyn Rule>, Infallible> {
            Ok(Box::new(Simulated { used_up: false, slow: Arc::clone(&slow) }))
        };
        Keeper::new(Box::new(fresh)).transform(&batch)
    }

    fn rows(judged: &Judged) -> (Vec<u32>, Vec<u32>) {
        let outputs = judged.pieces.outputs.iter();
        let good = outputs.flat_map(|(first, output)| output.dropped.iter().map(move |row| first + row));
        (good.collect(), judged.pieces.failed.iter().map(|failed| failed.row).collect())
    }

    #[test]
    fn a_good_batch_takes_one_call() {
        let judged = judge(b"abc", 0).unwrap();
        assert_eq!((judged.calls, rows(&judged)), (1, (vec![0, 1, 2], vec![])));
        assert_eq!(judged.first_failure, None);
    }

    #[test]
    fn the_guilty_are_found_and_the_others_are_unharmed() {
        for values in [&b"t"[..], b"ta", b"at", b"aatatt", b"tttt", b"aaaaaaaat", b"aaataaaaataaa"] {
            let judged = judge(values, 0).unwrap();
            let expected = |guilty| {
                Vec::from_iter((0..values.len()).filter(|&i| (values[i] == b't') == guilty).map(|i| i as u32))
            };
            assert_eq!(rows(&judged), (expected(false), expected(true)), "{values:?}");
            assert!(judged.pieces.failed.iter().all(|f| f.code == "trap" && f.message.ends_with("boom")));
        }
    }

    #[test]
    fn a_batch_that_goes_through_in_parts_is_taken() {
        let judged = judge(b"amaa", 0).unwrap();
        assert_eq!((judged.calls, rows(&judged)), (3, (vec![0, 1, 2, 3], vec![])));
        assert!(matches!(judged.first_failure, Some(CallError::Memory { .. })));
    }

    #[test]
    fn one_slow_answer_is_forgiven_two_are_a_stall() {
        assert_eq!(judge(b"as", 1).unwrap().calls, 2);
        let stall = judge(b"as", 2).unwrap_err().to_string();
        assert_eq!(
            stall,
            "E_STALL: the transform did not answer within 5 ms, twice, for t/0 offsets [10, 100)"
        );
    }

    #[test]
    fn a_batch_without_readable_records_takes_no_call() {
        assert_eq!(judge(b"", 0).unwrap().calls, 0);
    }
}
