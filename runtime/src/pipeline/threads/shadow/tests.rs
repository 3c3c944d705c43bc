//! What is live never waits for a shadow, whatever that does, and nothing of it is left after its end.

use std::collections::BTreeMap;

use crossbeam_channel::bounded;

use super::*;
use crate::batch::{BatchBuilder, RecordRef};
use crate::description::Description;
use crate::offset::{Offset, TopicPartition};
use crate::plan::memory::MemoryLog;
use crate::plan::tests::{plan, shadow};
use crate::plan::{By, Plan, ShadowEnd};
use crate::route::{Bindings, Output};
use crate::rule::{CallError, Rule};

type Does = dyn Fn(&Batch) -> Result<Output, CallError> + Send + Sync;

/// A plan that does one thing with every batch; or cannot be loaded.
#[derive(Clone)]
pub(in crate::pipeline::threads) struct One {
    does: Option<Arc<Does>>,
    description: Arc<Description>,
}

impl One {
    pub(in crate::pipeline::threads) fn that(
        does: impl Fn(&Batch) -> Result<Output, CallError> + Send + Sync + 'static,
    ) -> Self {
        Self { does: Some(Arc::new(does)), description: Arc::new(nothing()) }
    }
}

/// It has no routes and no reasons.
fn nothing() -> Description {
    Description {
        name: "t".into(),
        version: "1".into(),
        doc: String::new(),
        needs: Default::default(),
        settings: Vec::new(),
        tables: Vec::new(),
        routes: Vec::new(),
        reasons: Vec::new(),
    }
}

impl Rules for One {
    fn load(&self, _: &PlanRef) -> Result<Arc<dyn Loaded>, Stop> {
        match self.does {
            Some(_) => Ok(Arc::new(self.clone())),
            None => Err(Stop::new("its bytes are gone")),
        }
    }

    fn make_ready(&self, _: &BTreeMap<u64, Plan>) -> Result<(), Stop> {
        Ok(())
    }

    fn shadow(&self, plan: &Plan) -> Result<Arc<dyn Loaded>, Stop> {
        self.load(&PlanRef { plan: 1, digest: plan.digest.clone() })
    }
}

impl Loaded for One {
    fn description(&self) -> &Description {
        &self.description
    }

    fn bindings(&self) -> Arc<Bindings> {
        Arc::default()
    }

    fn memory_bytes(&self) -> usize {
        1 << 20
    }

    fn instance(&self) -> Result<Box<dyn Rule>, Stop> {
        Ok(Box::new(self.clone()))
    }

    fn judge(&self) -> Result<Box<dyn Rule>, Stop> {
        self.instance()
    }
}

impl Rule for One {
    fn process(&mut self, batch: &Batch) -> Result<Output, CallError> {
        (self.does.as_ref().expect("it was loaded"))(batch)
    }
}

pub(in crate::pipeline::threads) fn drops_all(batch: &Batch) -> Result<Output, CallError> {
    Ok(Output { dropped: (0..batch.len() as u32).collect(), ..Output::default() })
}

fn traps(_: &Batch) -> Result<Output, CallError> {
    Err(CallError::Trap { text: "unreachable".to_owned(), log: String::new() })
}

/// A plan that runs, a shadow beside it that does as `rules` say, and who begins it.
struct Rig {
    log: MemoryLog,
    history: History,
    lane: Arc<Lane>,
    shadows: Shadows,
    /// Of the pipeline.
    budget: Budget,
    at: i64,
}

const BYTES: usize = 10_000;
const RECORDS: i64 = 5;

impl Rig {
    fn new(rules: One, ends: Shadow) -> Self {
        let (mut log, mut history) = (MemoryLog::default(), History::default());
        history.put_plan(&mut log, &plan(None, "a")).unwrap();
        history.put_shadow(&mut log, &ends).unwrap().expect("nothing else is tried");
        let lane = Arc::new(Lane::new());
        let mut shadows = Shadows::new(lane.clone(), Arc::new(rules), BYTES);
        shadows.follow(&history);
        Self { log, history, lane, shadows, budget: Budget::new(1 << 20), at: 0 }
    }

    fn with(rules: One) -> Self {
        Self::new(rules, shadow(0, "b"))
    }

    /// Waits until it is as expected.
    fn until(&self, expected: impl Fn(&Standing) -> bool) -> Standing {
        loop {
            let standing = self.lane.standing().expect("it has begun");
            if expected(&standing) {
                return standing;
            }
            std::thread::yield_now();
        }
    }

    fn until_it_runs(&self) {
        self.until(|standing| standing.state == ShadowState::Running);
    }

    /// A worker is through with a batch, of which the plan that runs dropped all.
    fn work(&mut self) {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::new(self.at));
        for at in self.at..self.at + RECORDS {
            builder.push(Offset::new(at), RecordRef { value: Some(&[b'x'; 100]), ..Default::default() });
        }
        self.at += RECORDS;
        let permit = self.budget.try_acquire(500).expect("nobody else holds it");
        let batch = builder.finish(Offset::new(self.at), permit).expect("it has records");
        let way = self.lane.wants(0);
        let pieces = Pieces { outputs: vec![(0, drops_all(&batch).unwrap())], failed: Vec::new() };
        let of = PlanRef { plan: 0, digest: "a".into() };
        let made = route(&batch, of, &nothing(), Arc::default(), pieces).unwrap();
        match way {
            Some(way) => way.offer(batch, &made, 7),
            None => drop(batch),
        }
        drop(made);
        assert_eq!(self.budget.used(), 0, "a shadow holds nothing of what is live");
    }

    fn put(&mut self, digest: &str) {
        self.history.put_plan(&mut self.log, &plan(Some(0), digest)).unwrap().expect("it is the newest");
        self.shadows.follow(&self.history);
    }

    fn drop_it(&mut self) {
        let by = By { who: "a".into(), at_ms: 7 };
        self.history.end_shadow(&mut self.log, 1, ShadowEnd::Dropped, &by, "enough").unwrap();
        self.shadows.follow(&self.history);
    }

    /// Its thread is gone, and nobody offers anything any more.
    fn assert_nothing_is_left(&mut self) {
        self.shadows.thread.take().expect("it had one").join().expect("it does not panic");
        assert!(self.lane.wants(0).is_none());
        let held = self.lane.lock();
        assert!(held.way.is_none());
    }
}

#[test]
fn what_both_make_alike_is_the_same_and_all_else_is_counted_and_shown() {
    let traps_at_3 =
        |batch: &Batch| if batch.offsets().contains(&3) { traps(batch) } else { drops_all(batch) };
    let mut rig = Rig::with(One::that(traps_at_3));
    rig.until_it_runs();
    assert!(rig.lane.wants(1).is_none(), "of another plan than it is compared with");
    for _ in 0..4 {
        rig.work();
    }
    let standing = rig.until(|standing| standing.records == 20);
    assert_eq!((standing.different, standing.skipped, standing.unjudged), (1, 0, 0));
    // After a sink failed the last records are read again, in other batches.
    rig.at = 17;
    for _ in 0..2 {
        rig.work();
    }
    let standing = rig.until(|standing| standing.records == 25);
    assert_eq!(standing.skipped, 2, "20 and 21");
    assert_eq!(standing.cpu_ns_beside, 5 * 7);
    let found = rig.lane.report().expect("it runs").comparison.found;
    assert_eq!(found[0].what.to_string(), "dropped -> failed (trap)");
    assert_eq!(found[0].samples[0].offset, Offset::new(3));
    rig.drop_it();
    rig.assert_nothing_is_left();
    assert_eq!(rig.until(|_| true).state, ShadowState::Ended("dropped by a: enough".to_owned()));
}

#[test]
fn what_is_live_goes_on_while_a_shadow_stands_still_and_no_more_waits_than_may() {
    let (go_on, stands) = bounded::<()>(0);
    let mut rig = Rig::with(One::that(move |batch| {
        stands.recv().ok();
        drops_all(batch)
    }));
    rig.until_it_runs();
    for _ in 0..100 {
        rig.work();
    }
    let waits = rig.lane.wants(0).expect("it runs").budget.used();
    assert!((1..=BYTES).contains(&waits), "{waits}");
    let standing = rig.until(|_| true);
    let skipped = standing.skipped;
    assert!(skipped > 0 && skipped < 500 && skipped.is_multiple_of(RECORDS as u64), "{skipped}");
    // It is over at once, and not when it answers.
    rig.drop_it();
    assert_eq!(
        rig.until(|_| true),
        Standing { state: ShadowState::Ended("dropped by a: enough".to_owned()), ..standing.clone() }
    );
    rig.work();
    drop(go_on);
    rig.assert_nothing_is_left();
    assert_eq!(rig.until(|_| true).records, 0, "what it says after its end counts for nobody");
}

#[test]
fn one_that_fails_at_everything_ends_after_the_call_it_is_in() {
    let (told, calls) = bounded(100);
    let mut rig = Rig::with(One::that(move |batch| {
        told.try_send(batch.len()).expect("few calls");
        traps(batch)
    }));
    rig.until_it_runs();
    rig.work();
    let standing = rig.until(|standing| standing.records == 5);
    assert_eq!((standing.different, standing.unjudged), (5, 0));
    rig.put("c");
    rig.assert_nothing_is_left();
    assert_eq!(calls.len(), 1 + 1 + 5, "whole, in a piece, and one by one");
    let how = "plan 2 took the place of the one it was compared with";
    assert_eq!(rig.until(|_| true).state, ShadowState::Ended(how.to_owned()));
}

#[test]
fn one_that_panics_or_cannot_be_loaded_fails_alone_and_says_why() {
    let panics = One::that(|_: &Batch| -> Result<Output, CallError> { panic!("on request") });
    let gone = One { does: None, ..panics.clone() };
    for (rules, works, expected) in
        [(panics, true, "it panicked: the log tells where"), (gone, false, "its bytes are gone")]
    {
        let mut rig = Rig::with(rules);
        if works {
            rig.until_it_runs();
            rig.work();
        }
        let failed = |standing: &Standing| matches!(standing.state, ShadowState::Failed(_));
        assert_eq!(rig.until(failed).state, ShadowState::Failed(expected.to_owned()));
        rig.assert_nothing_is_left();
    }
}

#[test]
fn it_takes_no_more_once_it_has_had_its_records_and_may_then_take_over() {
    for (most, promote) in [(None, false), (Some(4), false), (Some(5), true)] {
        let ends = Shadow { records: Some(12), promote_up_to: most, ..shadow(0, "b") };
        let first_traps =
            |batch: &Batch| if batch.offsets()[0] < 5 { traps(batch) } else { drops_all(batch) };
        let mut rig = Rig::new(One::that(first_traps), ends);
        rig.until_it_runs();
        for _ in 0..2 {
            rig.work();
        }
        rig.until(|standing| standing.records == 10);
        assert_eq!(rig.shadows.through(u64::MAX), None);
        for _ in 0..2 {
            rig.work();
        }
        rig.until(|standing| !standing.is_running());
        rig.work();
        rig.assert_nothing_is_left();
        assert_eq!(rig.until(|_| true).records, 15, "batches are not cut");
        let why = "5 of 15 records differ, in the process that was through first".to_owned();
        assert_eq!(rig.shadows.through(0), Some(Through { place: 1, why, promote }));
    }
}

#[test]
fn it_ends_at_its_time_and_the_next_one_begins_anew() {
    let ends = Shadow { until_ms: Some(1_000), promote_up_to: Some(0), ..shadow(0, "b") };
    let mut rig = Rig::new(One::that(drops_all), ends);
    rig.until_it_runs();
    rig.work();
    rig.until(|standing| standing.records == 5);
    assert_eq!(rig.shadows.through(999), None);
    let through = rig.shadows.through(1_000).expect("it is late");
    assert!(!through.promote, "nobody said how many records are enough");
    assert!(rig.lane.wants(0).is_none());
    let by = By { who: "a".into(), at_ms: 7 };
    rig.history.end_shadow(&mut rig.log, through.place, ShadowEnd::Done, &by, &through.why).unwrap();
    rig.history.put_shadow(&mut rig.log, &shadow(0, "c")).unwrap().expect("the first has ended");
    rig.shadows.follow(&rig.history);
    rig.until_it_runs();
    assert_eq!(rig.until(|_| true).shadow, 3);
    rig.work();
    rig.until(|standing| standing.records == 5);
    let Rig { shadows, lane, .. } = rig;
    drop(shadows);
    assert_eq!(lane.standing().expect("it ran").state, ShadowState::Ended("the process ends".to_owned()));
}
