//! A plan that is about to be put goes over the records that stand last in the input, beside the plan that runs: what becomes of
//! them under either is counted and compared. Nothing of it is written, and no sink hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::Deployment;
use crate::app::again::Again;
use crate::app::recall::{self, Last};
use crate::batch::Batch;
use crate::comparison::Comparison;
use crate::cpu;
use crate::offset::Offset;
use crate::pipeline::threads::keeper;
use crate::pipeline::{Stop, Tally};
use crate::purity;
use crate::route::{Pieces, Routed};
use crate::sandbox::verdict::{Keeper, Stopped};
use crate::sink::state::PlanRef;

/// No more records are tried after this time.
const MOST_TIME: Duration = Duration::from_secs(3);

/// And none for the second time after this, beginning then.
const MOST_TIME_AGAIN: Duration = Duration::from_secs(2);

/// No more is held of them and of what was made of them, in bytes, until it is made for the second time. What comes behind that is
/// made once.
const MOST_HELD: usize = 64 << 20;

/// So many records go through at once, at most.
const AT_ONCE: usize = 256;

/// What becomes of the last records of the input under the plan that runs, and under the one that is to be.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// How many were read.
    pub read: u64,
    /// How many were compared: the others took too long, or one of the plans would stop at them.
    pub records: u64,
    /// How many files were passed over, since they are not any more what was read.
    pub passed_over: u64,
    /// Why the first of them was.
    pub passed_over_because: Option<String>,
    /// A file that is so large that its end was not reached in time: its records are not the last ones.
    pub not_to_the_end_of: Option<String>,
    /// Under the plan that runs; absent where that cannot be loaded here.
    pub was: Option<Fates>,
    /// Why it cannot be.
    pub unknown: Option<String>,
    /// Under the one that is to be.
    pub is: Fates,
    /// What differs, with some of the records.
    pub comparison: Comparison,
    /// Why it cannot be right, if that is so.
    pub refused: Option<String>,
}

/// What becomes of records under a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fates {
    /// Per route, the records with a row on it.
    pub routed: BTreeMap<Arc<str>, u64>,
    /// Per reason, the records refused for it first.
    pub rejected: BTreeMap<Arc<str>, u64>,
    /// Records left out on purpose.
    pub dropped: u64,
    /// Records at which the transform fails.
    pub failed: u64,
    /// What they take of a processor, in nanoseconds.
    pub cpu_ns: u64,
    /// Why a partition would stop, if one would.
    pub stops: Option<String>,
}

impl Deployment {
    /// Has these records go through both plans, or as many of them as come through in some seconds and as long as it is `wanted`.
    ///
    /// # Errors
    /// If the plan that is to be cannot be started.
    pub(super) fn sample(&self, last: Last, wanted: &dyn Fn() -> bool) -> Result<Sample> {
        let (number, running) = self.replaces();
        let (plan, digest) = (self.history.next(), self.candidate.plan().digest.clone());
        let again = Again::of(&self.candidate, &self.names());
        let is = Side::new(&again, PlanRef { plan, digest })?;
        let was = self.running().as_ref().map_err(Clone::clone).and_then(|again| {
            let plan = PlanRef { plan: number, digest: running.digest.clone() };
            Side::new(again, plan).map_err(|stop| stop.to_string())
        });
        let (was, unknown) = match was {
            Ok(was) => (Some(was), None),
            Err(why) => (None, Some(why)),
        };
        let read = last.batches.iter().map(|batch| batch.n_records() as u64).sum();
        let looks_twice = self.config.sandbox.verify_fraction.get() > 0.0;
        let (begun, comparison) = (recall::now(), Comparison::default());
        let mut trial = Trial { was, is, wanted, begun, seen: 0, through: Vec::new(), held: 0, comparison };
        trial.all(last.batches);
        if looks_twice && trial.is.stops.is_none() && wanted() {
            trial.look_again();
        }
        Ok(Sample {
            read,
            passed_over: last.passed_over,
            passed_over_because: last.why,
            not_to_the_end_of: last.not_to_its_end,
            unknown,
            records: trial.comparison.records,
            refused: trial.refused(number),
            was: trial.was.map(Side::fates),
            is: trial.is.fates(),
            comparison: trial.comparison,
        })
    }
}

/// Both plans, and what was found so far.
struct Trial<'a> {
    was: Option<Side<'a>>,
    is: Side<'a>,
    wanted: &'a dyn Fn() -> bool,
    begun: Instant,
    /// Records that transforms saw, and that came through.
    seen: u64,
    /// Those, with what was made of them, up to so many bytes.
    through: Vec<Through>,
    held: usize,
    comparison: Comparison,
}

/// A plan at work.
struct Side<'a> {
    again: &'a Again,
    plan: PlanRef,
    keeper: Keeper<'static, Stop>,
    tally: Tally,
    cpu_ns: u64,
    stops: Option<String>,
}

/// A batch that came through.
struct Through {
    batch: Batch,
    /// What the plan that runs made of it, if that can be loaded here.
    was: Option<Box<Routed>>,
    is: Box<Routed>,
}

/// What came of a batch.
enum Came {
    /// Rows, and what they took of a processor.
    Made(Box<Routed>, u64),
    /// A partition would stop there.
    Stops(String),
    /// It took too long.
    GivenUp,
}

impl Trial<'_> {
    /// First one record, and then more and more at once: a few are through in any case, however long each of them takes.
    fn all(&mut self, batches: Vec<Batch>) {
        let mut most = 1;
        for batch in batches {
            let mut left = Some(batch);
            while let Some(batch) = left.take() {
                if self.is_over() {
                    return;
                }
                let (next, behind) = cut(batch, most);
                left = behind;
                most = AT_ONCE.min(most * 2);
                self.take(next);
            }
        }
    }

    /// Whether there is nothing more to find out, or no time left for it.
    fn is_over(&self) -> bool {
        self.is.stops.is_some() || self.has_no_time() || !(self.wanted)()
    }

    /// Something is seen in any case, if the plan that runs does not stop at it.
    fn has_no_time(&self) -> bool {
        let was_stopped = self.was.as_ref().is_some_and(|was| was.stops.is_some());
        (self.seen > 0 || was_stopped) && self.begun.elapsed() >= MOST_TIME
    }

    fn take(&mut self, batch: Batch) {
        let (seen, begun) = (self.seen, self.begun);
        let mut goes_on = || seen == 0 || begun.elapsed() < MOST_TIME;
        let was = self.was.as_mut().map(|was| was.run(&batch, &mut goes_on));
        if let Some(Came::GivenUp) = was {
            return;
        }
        match (was, self.is.run(&batch, &mut goes_on)) {
            (_, Came::GivenUp) => {}
            (Some(Came::Made(before, took)), Came::Made(then, takes)) => {
                self.seen += batch.len() as u64;
                self.comparison.add(&Comparison::of(&before, &then));
                self.is.count(&then, takes);
                self.was.iter_mut().for_each(|was| was.count(&before, took));
                self.hold(Through { batch, was: Some(before), is: then });
            }
            (None, Came::Made(then, takes)) => {
                self.seen += batch.len() as u64;
                self.comparison.records += then.n_records;
                self.is.count(&then, takes);
                self.hold(Through { batch, was: None, is: then });
            }
            (was, is) => {
                if let Came::Stops(why) = is {
                    self.is.stops.get_or_insert(why);
                }
                if let (Some(Came::Stops(why)), Some(side)) = (was, &mut self.was) {
                    side.stops.get_or_insert(why);
                }
            }
        }
    }

    /// The first in any case.
    fn hold(&mut self, through: Through) {
        let made = through.was.iter().chain([&through.is]).map(|made| made.bytes());
        self.held += through.batch.bytes(&(0..through.batch.len())) + made.sum::<usize>();
        if self.through.is_empty() || self.held <= MOST_HELD {
            self.through.push(through);
        }
    }

    /// Has what came through go through another instance, the last first: one that remembers something remembers something else
    /// then. Where that makes something else, so may the plan that runs, if it is asked for the same in the same order.
    fn look_again(&mut self) {
        let (wanted, begun) = (self.wanted, recall::now());
        let is = self.through.iter().rev().map(|through| (&through.batch, &*through.is));
        let Some((n, found)) = self.is.differs(is, &mut || begun.elapsed() < MOST_TIME_AGAIN && wanted())
        else {
            return;
        };
        self.is.stops = Some(found);
        let Some(side) = &mut self.was else { return };
        let was = self.through.iter().rev().take(n + 1);
        let was = was.filter_map(|through| Some((&through.batch, through.was.as_deref()?)));
        // As long as for the first time, in which it came through.
        let begun = recall::now();
        if let Some((_, found)) = side.differs(was, &mut || begun.elapsed() < MOST_TIME && wanted()) {
            side.stops.get_or_insert(found);
        }
    }

    /// Why the plan cannot be right: whoever knows better can put it without a sample.
    fn refused(&self, number: u64) -> Option<String> {
        let was = self.was.as_ref()?;
        if let (Some(why), None) = (&self.is.stops, &was.stops) {
            return Some(format!("a partition would stop with it, and goes on under plan {number}: {why}"));
        }
        let fails = self.seen > 0 && self.is.tally.failed == self.seen && was.tally.failed < self.seen;
        fails.then(|| match self.seen {
            1 => format!("it fails at the one record that it was tried on, and plan {number} does not"),
            n => format!("it fails at all {n} records that it was tried on, and plan {number} does not"),
        })
    }
}

impl<'a> Side<'a> {
    fn new(again: &'a Again, plan: PlanRef) -> Result<Self, Stop> {
        let keeper = keeper(&again.loaded).holding(again.loaded.instance()?);
        Ok(Self { again, plan, keeper, tally: Tally::default(), cpu_ns: 0, stops: None })
    }

    fn run(&mut self, batch: &Batch, goes_on: &mut dyn FnMut() -> bool) -> Came {
        let begun = cpu::thread_ns();
        if batch.is_empty() {
            return self.made(batch, Pieces { outputs: Vec::new(), failed: Vec::new() }, begun);
        }
        match self.keeper.transform_while(batch, &mut |_| goes_on()) {
            Ok(judged) => self.made(batch, judged.pieces, begun),
            Err(Stopped::GivenUp) => Came::GivenUp,
            Err(stopped) => Came::Stops(stopped.to_string()),
        }
    }

    fn made(&self, batch: &Batch, pieces: Pieces, begun: u64) -> Came {
        match self.again.route(batch, &self.plan, pieces) {
            Ok(routed) => Came::Made(Box::new(routed), cpu::thread_ns() - begun),
            Err(why) => Came::Stops(why),
        }
    }

    /// The first of these batches of which another instance, which gets them in this order, makes something else, and what. Without a
    /// second answer, the first answer stands.
    fn differs<'b>(
        &self,
        batches: impl Iterator<Item = (&'b Batch, &'b Routed)>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Option<(usize, String)> {
        let mut other = keeper(&self.again.loaded);
        for (n, (batch, first)) in batches.enumerate() {
            if !goes_on() {
                return None;
            }
            let pieces = purity::in_other_cuts(&mut other, batch, goes_on);
            let second = pieces.ok().and_then(|pieces| self.again.route(batch, &self.plan, pieces).ok());
            if let Some(found) = second.and_then(|second| purity::difference(first, &second)) {
                return Some((n, format!("E_NONDETERMINISTIC: {found}")));
            }
        }
        None
    }

    fn count(&mut self, routed: &Routed, cpu_ns: u64) {
        self.tally.count(routed);
        self.cpu_ns += cpu_ns;
    }

    fn fates(self) -> Fates {
        let Self { tally, cpu_ns, stops, .. } = self;
        let Tally { routed, rejected, dropped, failed, .. } = tally;
        Fates { routed, rejected, dropped, failed, cpu_ns, stops }
    }
}

/// A batch of at most so many records for a transform, and what is behind it.
fn cut(batch: Batch, most: usize) -> (Batch, Option<Batch>) {
    let Some(end) = batch.offsets().get(most).copied() else { return (batch, None) };
    match batch.split(Offset::new(end)) {
        (Some(front), behind) => (front, behind),
        // Not of what has more offsets than one.
        (None, behind) => (behind.expect("one of the two is there"), None),
    }
}
