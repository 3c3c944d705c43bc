//! Batches are transformed here: a thread and an instance of the transform each. What fails is judged, and some batches are
//! looked at twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::costs::Costs;
use super::shadow::Lane;
use super::{Clock, Loaded, Outbox, Rules, spawn};
use crate::cpu;
use crate::pipeline::{Event, GiveUp, Job, Stop};
use crate::purity;
use crate::route::{Pieces, Routed, route};
use crate::sandbox::verdict::{GoOn, Keeper, Stopped};
use crate::sink::state::PlanRef;

/// Of so many plans a worker keeps an instance.
const KEPT_PLANS: usize = 2;

/// So many batches of a plan are looked at twice in any case, by the first worker that gets one: one on a fresh instance, and
/// one on a used one.
pub const ALWAYS_VERIFIED: u32 = 2;

/// Of so many plans it is known who looks twice at their first batches: far more than are at work at a time.
const KEPT_LOOKERS: usize = 64;

/// So many guilty records of a batch are found though nobody wants to know any more: sooner than its partition begins again.
const FOUND_IN_ANY_CASE: u64 = 64;

/// An instance that has grown by more than this since it started, or by more than half of what it may have, is replaced
/// before its next batch: linear memory never shrinks, and one large batch must not be paid for ever after.
pub(super) const RETIRE_PAST: usize = 64 << 20;

pub(super) struct Workers {
    pub(super) outbox: Outbox<Job>,
    /// What they need not come to the end of.
    give_up: Arc<Mutex<GiveUp>>,
    /// What it took to make the records.
    pub(super) costs: Arc<Costs>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(
        n: usize,
        verify_fraction: f64,
        clock: Clock,
        rules: &Arc<dyn Rules>,
        lane: &Arc<Lane>,
        events: &Sender<Event>,
    ) -> Self {
        let (to, from) = bounded(n * 2);
        let give_up = Arc::new(Mutex::new(GiveUp::Below { plan: 0, taken_back: None }));
        let (lookers, costs) = (Arc::new(Lookers::default()), Arc::new(Costs::default()));
        let worker = |i| {
            let jobs = Receiver::clone(&from);
            let (rules, lookers) = (rules.clone(), lookers.clone());
            let plans = Plans { rules, worker: i, lookers, clock, ready: BTreeMap::new() };
            let (lane, costs) = (lane.clone(), costs.clone());
            let (events, give_up) = (events.clone(), give_up.clone());
            let mut worker = Worker { plans, lane, costs, verify_fraction, events, give_up };
            spawn(&format!("worker-{i}"), move || worker.work(&jobs))
        };
        Self { outbox: Outbox::new(to), threads: (0..n).map(worker).collect(), give_up, costs }
    }

    pub(super) fn give_up(&self, what: GiveUp) {
        *self.give_up.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What still waits to be transformed is not: nobody would take it.
    pub(super) fn join(self) {
        drop(self.outbox);
        for thread in self.threads {
            thread.join().expect("a panic ends the process");
        }
    }
}

struct Worker {
    plans: Plans,
    lane: Arc<Lane>,
    costs: Arc<Costs>,
    verify_fraction: f64,
    events: Sender<Event>,
    give_up: Arc<Mutex<GiveUp>>,
}

/// Which worker looks twice at the first batches of which plan: all of them would find the same.
#[derive(Default)]
struct Lookers(Mutex<BTreeMap<u64, usize>>);

impl Lookers {
    fn is_looked_at_by(&self, plan: u64, worker: usize) -> bool {
        let mut lookers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = *lookers.entry(plan).or_insert(worker) == worker;
        while lookers.len() > KEPT_LOOKERS {
            lookers.pop_first();
        }
        ours
    }
}

/// The plans that a worker has an instance of.
struct Plans {
    rules: Arc<dyn Rules>,
    worker: usize,
    lookers: Arc<Lookers>,
    clock: Clock,
    ready: BTreeMap<u64, Ready>,
}

/// A plan's transform in a worker, with the instance that it keeps.
struct Ready {
    loaded: Arc<dyn Loaded>,
    keeper: Keeper<'static, Stop>,
    /// How many batches more are looked at twice in any case.
    to_verify: u32,
    /// How many batches failed and were judged.
    judged: u64,
}

/// No rows of a batch.
enum Unmade {
    Stopped(Stop),
    GivenUp,
}

impl From<Stop> for Unmade {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

impl Worker {
    fn work(&mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            let (at, run, seq) = (job.batch.at().clone(), job.run, job.seq);
            let shadow = self.lane.wants(job.plan.plan);
            let made = match given_up(&self.give_up).is_left_out(&job) {
                true => Err(Unmade::GivenUp),
                false => self.make(&job),
            };
            let mut cpu_ns = 0;
            let result = made.and_then(|(routed, took)| {
                cpu_ns = took;
                self.verified(&job, routed)
            });
            // The job's share of the budget lives on in the result alone.
            match (shadow, &result) {
                (Some(shadow), Ok(routed)) => shadow.offer(job.batch, routed, cpu_ns),
                _ => drop(job),
            }
            let event = match result {
                Ok(routed) => Event::Transformed { at, run, seq, result: Ok(routed) },
                Err(Unmade::Stopped(stop)) => Event::Transformed { at, run, seq, result: Err(stop) },
                Err(Unmade::GivenUp) => Event::GivenUp { at, run, seq },
            };
            if self.events.send(event).is_err() {
                return;
            }
        }
    }

    /// What becomes of a batch, and what that took of a processor.
    fn make(&mut self, job: &Job) -> Result<(Routed, u64), Unmade> {
        let Self { plans, events, give_up, costs, .. } = self;
        let ready = plans.ready(&job.plan).map_err(|stop| {
            let (at, range) = (job.batch.at(), job.batch.range());
            Stop { text: format!("{at} offsets {range}: {}", stop.text), ..stop }
        })?;
        let begun = cpu::thread_ns();
        let pieces = match job.batch.is_empty() {
            true => Pieces { outputs: Vec::new(), failed: Vec::new() },
            false => ready.process(job, &mut |judging| {
                let (at, run, seq) = (job.batch.at().clone(), job.run, job.seq);
                let heard = events.send(Event::Judging { at, run, seq, judging }).is_ok();
                heard && (judging.failed < FOUND_IN_ANY_CASE || !given_up(give_up).is_about(job))
            })?,
        };
        let routed = ready.route(job, pieces)?;
        let took = cpu::thread_ns() - begun;
        costs.add(job.plan.plan, job.batch.len(), took);
        Ok((routed, took))
    }

    /// Looks again at some of the batches.
    fn verified(&mut self, job: &Job, routed: Routed) -> Result<Routed, Unmade> {
        let (fraction, give_up) = (self.verify_fraction, &self.give_up);
        let ready = self.plans.ready(&job.plan)?;
        if fraction > 0.0
            && !job.batch.is_empty()
            && (ready.to_verify > 0 || purity::is_sampled(job.batch.range(), fraction))
        {
            ready.verify(job, &routed, &mut || !given_up(give_up).is_about(job))?;
        }
        Ok(routed)
    }
}

/// What need not be come to the end of now.
fn given_up(give_up: &Mutex<GiveUp>) -> GiveUp {
    *give_up.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plans {
    fn ready(&mut self, plan: &PlanRef) -> Result<&mut Ready, Stop> {
        if !self.ready.contains_key(&plan.plan) {
            // The newest, and one that is replayed: an instance of every plan there ever was would fill the pool.
            while self.ready.len() >= KEPT_PLANS {
                self.ready.pop_first();
            }
            let begun = self.clock.now();
            let loaded = self.rules.load(plan)?;
            let keeper = keeper(&loaded).holding(loaded.instance()?);
            // All that a partition waits for where its plan changes.
            let pause_us = (self.clock.now() - begun).as_micros();
            tracing::debug!(plan = plan.plan, worker = self.worker, pause_us, "a worker takes up a plan");
            let looks = self.lookers.is_looked_at_by(plan.plan, self.worker);
            let to_verify = if looks { ALWAYS_VERIFIED } else { 0 };
            self.ready.insert(plan.plan, Ready { loaded, keeper, to_verify, judged: 0 });
        }
        Ok(self.ready.get_mut(&plan.plan).expect("just put there"))
    }
}

/// Transforms batches with instances of a plan, each of which is started when it is needed.
pub(crate) fn keeper(of: &Arc<dyn Loaded>) -> Keeper<'static, Stop> {
    let (fresh, judge) = (of.clone(), of.clone());
    Keeper::new(Box::new(move || fresh.instance()), Box::new(move || judge.judge()))
}

impl Ready {
    fn process(&mut self, job: &Job, go_on: GoOn<'_>) -> Result<Pieces, Unmade> {
        self.keeper.retire_past(RETIRE_PAST.min(self.loaded.memory_bytes() / 2));
        let judged = self.keeper.transform_while(&job.batch, go_on).map_err(|stopped| match stopped {
            Stopped::Start(stop) => Unmade::Stopped(stop),
            Stopped::GivenUp => Unmade::GivenUp,
            Stopped::TooMuch { .. } => Stop::new(stopped.to_string())
                .hint("lower limits.batch_records and limits.batch_bytes")
                .into(),
            Stopped::Stall { .. } => Stop::new(stopped.to_string())
                .hint("raise limits.deadline, or find the record with `weir validate`")
                .into(),
        })?;
        if let Some(failure) = &judged.first_failure {
            self.judged += 1;
            let (failed, batches) = (judged.pieces.failed.len(), self.judged);
            // The others are like them: the log has a few lines of a rule that fails all the time.
            match batches.is_power_of_two() {
                true => tracing::warn!(partition = %job.batch.at(), offsets = %job.batch.range(), failed,
                    calls = judged.calls, plan = job.plan.plan, batches, %failure,
                    "a batch failed, and was judged in pieces; told of at twice as many again"),
                false => tracing::debug!(partition = %job.batch.at(), offsets = %job.batch.range(), failed,
                    calls = judged.calls, plan = job.plan.plan, batches, %failure,
                    "a batch failed, and was judged in pieces"),
            }
        }
        if let Some(bytes) = judged.lowered {
            tracing::info!(partition = %job.batch.at(), offsets = %job.batch.range(), bytes,
                "a batch failed or took long, and no record is to blame: smaller ones for a while");
        }
        Ok(judged.pieces)
    }

    fn route(&self, job: &Job, pieces: Pieces) -> Result<Routed, Stop> {
        let (description, bindings) = (self.loaded.description(), self.loaded.bindings());
        let routed = route(&job.batch, job.plan.clone(), description, bindings, pieces);
        routed.map_err(|breach| Stop::new(breach.to_string()))
    }

    /// The same records once more, cut otherwise, through a fresh instance: the same has to come of them.
    fn verify(&mut self, job: &Job, first: &Routed, go_on: &mut dyn FnMut() -> bool) -> Result<(), Unmade> {
        self.to_verify = self.to_verify.saturating_sub(1);
        let second = match purity::in_other_cuts(&mut keeper(&self.loaded), &job.batch, go_on) {
            Ok(pieces) => self.route(job, pieces)?,
            // The first look stands.
            Err(Stopped::GivenUp) => return Ok(()),
            Err(stopped) => {
                tracing::warn!(partition = %job.batch.at(), offsets = %job.batch.range(), %stopped,
                    "a second look at a batch did not come to its end");
                return Ok(());
            }
        };
        match purity::difference(first, &second) {
            Some(found) => Err(Stop::new(format!("E_NONDETERMINISTIC: {found}")).hint(purity::HINT).into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::batch::{BatchBuilder, RecordRef};
    use crate::budget::Permit;
    use crate::offset::{Offset, TopicPartition};
    use crate::pipeline::threads::shadow::tests::{One, drops_all};
    use crate::source::RunId;

    #[test]
    fn a_batch_of_a_plan_that_is_taken_back_is_not_begun_unless_some_sink_has_it_already() {
        let begun = Arc::new(AtomicU32::new(0));
        let counted = begun.clone();
        let rules: Arc<dyn Rules> = Arc::new(One::that(move |batch| {
            counted.fetch_add(1, Ordering::Relaxed);
            drops_all(batch)
        }));
        let (events, heard) = bounded(3);
        let mut workers = Workers::start(1, 0.0, Clock::start(), &rules, &Arc::new(Lane::new()), &events);
        workers.give_up(GiveUp::Below { plan: 8, taken_back: Some(7) });
        for (seq, plan, again) in [(0, 7, false), (1, 7, true), (2, 8, false)] {
            let mut batch = BatchBuilder::new(TopicPartition::new("t", 0), Offset::ZERO);
            batch.push(Offset::ZERO, RecordRef::default());
            let batch = batch.finish(Offset::new(1), Permit::free()).expect("it has a record");
            let plan = PlanRef { plan, digest: "d".into() };
            workers.outbox.send(Job { run: RunId(1), seq, plan, again, batch });
        }
        let is_made = |event: Event| match event {
            Event::Transformed { seq, result, .. } => (seq, result.is_ok()),
            Event::GivenUp { seq, .. } => (seq, false),
            other => panic!("{other:?}"),
        };
        let next = |_| {
            workers.outbox.flush();
            is_made(heard.recv().expect("it works"))
        };
        let told: Vec<_> = (0..3).map(next).collect();
        assert_eq!(told, [(0, false), (1, true), (2, true)]);
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        let counted: Vec<_> = workers.costs.all().iter().map(|cost| (cost.plan, cost.records)).collect();
        assert_eq!(counted, [(7, 1), (8, 1)]);
        workers.join();
    }
}
