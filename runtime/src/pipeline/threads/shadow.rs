//! Has a plan make the same live records beside the one that runs, in a thread that nobody waits for, and compares what
//! comes of them. It gives nothing back but a report.
//!
//! ```text
//!  worker ──a batch it is through with, and what became of it──▶ Lane ──▶ the shadow's thread ──▶ Report ◀── who looks
//!     │     only while a shadow runs, and never waiting: what                Keeper ▸ Instance
//!     ▼     there is no room for is left out and counted
//!    Core
//! ```

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::worker::{RETIRE_PAST, keeper};
use super::{Loaded, Rules};
use crate::batch::Batch;
use crate::budget::Budget;
use crate::comparison::Comparison;
use crate::cpu;
use crate::pipeline::Stop;
use crate::pipeline::shadow::{Report, Seen, ShadowState, Standing};
use crate::pipeline::trial::grouped;
use crate::plan::{History, Shadow};
use crate::route::{Pieces, Routed, route};
use crate::sandbox::verdict::{Keeper, Stopped};
use crate::sink::state::PlanRef;

/// So many batches may wait for a shadow, if the bytes of its budget allow.
const WAITING: usize = 64;

/// By how much its thread gives way to those that work: they get nine times as much of a processor that all want.
const NICE: i32 = 10;

/// The number of no plan.
const NONE: u64 = u64::MAX;

/// Where workers offer batches to a shadow, and where it puts up its report. Mostly there is none.
#[derive(Debug)]
pub(super) struct Lane {
    /// Of which plan batches are wanted.
    beside: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    way: Option<Arc<Way>>,
    report: Option<Report>,
    skipped: Arc<AtomicU64>,
}

/// The way to a shadow that runs.
#[derive(Debug)]
pub(super) struct Way {
    beside: u64,
    to: Sender<Offered>,
    /// What waits for the shadow, and what it works on, is held by this, and never by the budget of the pipeline.
    budget: Budget,
    skipped: Arc<AtomicU64>,
}

/// A batch that a worker is through with.
#[derive(Debug)]
struct Offered {
    batch: Batch,
    made: Routed,
    /// What it took to make it.
    cpu_ns: u64,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self { beside: AtomicU64::new(NONE), held: Mutex::default() }
    }

    /// Where to offer a batch that plan `plan` makes, if that is wanted. Otherwise it costs nothing to ask.
    pub(super) fn wants(&self, plan: u64) -> Option<Arc<Way>> {
        if self.beside.load(Ordering::Relaxed) != plan {
            return None;
        }
        self.lock().way.clone().filter(|way| way.beside == plan)
    }

    /// How the shadow stands that runs, or ran last.
    pub(super) fn standing(&self) -> Option<Standing> {
        let held = self.lock();
        let standing = held.report.as_ref()?.standing.clone();
        Some(Standing { skipped: held.skipped.load(Ordering::Relaxed), ..standing })
    }

    /// The same with what was found.
    pub(super) fn report(&self) -> Option<Report> {
        let held = self.lock();
        let mut report = held.report.clone()?;
        report.standing.skipped = held.skipped.load(Ordering::Relaxed);
        Some(report)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, report: Report) {
        *self.lock() = Held { way: None, report: Some(report), skipped: Arc::default() };
    }

    /// What is told of a shadow, while it is the one that runs here.
    fn tell(&self, shadow: u64, tell: impl FnOnce(&mut Report)) {
        let mut held = self.lock();
        let report = held.report.as_mut().filter(|report| report.standing.shadow == shadow);
        if let Some(report) = report.filter(|report| report.standing.is_running()) {
            tell(report);
        }
    }

    /// Lets workers offer batches from now on; `None` if the shadow has come to its end.
    fn open(&self, shadow: u64, beside: u64, bytes: usize) -> Option<Receiver<Offered>> {
        let mut held = self.lock();
        let report = held.report.as_mut().filter(|report| report.standing.shadow == shadow)?;
        if !report.standing.is_running() {
            return None;
        }
        report.standing.state = ShadowState::Running;
        let (to, from) = bounded(WAITING);
        let skipped = held.skipped.clone();
        held.way = Some(Arc::new(Way { beside, to, budget: Budget::new(bytes), skipped }));
        self.beside.store(beside, Ordering::Relaxed);
        Some(from)
    }

    /// No more batches are taken for a shadow.
    fn close(&self, shadow: u64, state: ShadowState) {
        let mut held = self.lock();
        let Some(report) = held.report.as_mut().filter(|report| report.standing.shadow == shadow) else {
            return;
        };
        // That it cannot be tried here stays true when its time is over.
        if !matches!(report.standing.state, ShadowState::Failed(_)) {
            report.standing.state = state;
        }
        held.way = None;
        self.beside.store(NONE, Ordering::Relaxed);
    }
}

impl Way {
    /// Hands a batch over that is not needed any more, with what became of it; or leaves it out. It never waits.
    pub(super) fn offer(&self, batch: Batch, made: &Routed, cpu_ns: u64) {
        let records = batch.n_records() as u64;
        let left_out = || _ = self.skipped.fetch_add(records, Ordering::Relaxed);
        let Ok(permit) = self.budget.try_acquire(bytes(&batch, made)) else { return left_out() };
        let made = Routed { permit: permit.clone(), ..made.clone() };
        let offered = Offered { batch: batch.held_by(permit), made, cpu_ns };
        if let Err(TrySendError::Full(_)) = self.to.try_send(offered) {
            left_out();
        }
    }
}

/// About what a batch and its rows take: the rows are shared with the sinks, for as long as those need them.
fn bytes(batch: &Batch, made: &Routed) -> usize {
    batch.bytes(&(0..batch.len())) + made.bytes()
}

/// Begins and ends shadows as the plan log says.
pub(super) struct Shadows {
    lane: Arc<Lane>,
    rules: Arc<dyn Rules>,
    /// What may wait for one, in bytes.
    bytes: usize,
    running: Option<Running>,
    /// The thread of the last one, which may be in a call yet.
    thread: Option<JoinHandle<()>>,
}

struct Running {
    place: u64,
    shadow: Shadow,
    ended: Arc<AtomicBool>,
}

/// A shadow is through.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Through {
    pub(super) place: u64,
    /// What it had, for people.
    pub(super) why: String,
    /// Whether it becomes the next plan.
    pub(super) promote: bool,
}

impl Shadows {
    /// What waits for one takes at most `bytes`.
    pub(super) fn new(lane: Arc<Lane>, rules: Arc<dyn Rules>, bytes: usize) -> Self {
        Self { lane, rules, bytes, running: None, thread: None }
    }

    /// Begins what is to be tried, and ends what is not any more.
    pub(super) fn follow(&mut self, history: &History) {
        let wanted = history.shadow();
        let gone = |running: &&Running| wanted.is_none_or(|(place, _)| place != running.place);
        if let Some(place) = self.running.as_ref().filter(gone).map(|running| running.place) {
            let how = history.shadows_ended.get(&place).map(ToString::to_string);
            self.end(how.unwrap_or_default());
        }
        if let Some((place, shadow)) = wanted.filter(|_| self.running.is_none()) {
            self.begin(place, shadow);
        }
    }

    /// The shadow that has had its records or its time, and takes no more.
    pub(super) fn through(&self, now_ms: u64) -> Option<Through> {
        let Running { place, shadow, .. } = self.running.as_ref()?;
        let standing = self.lane.standing()?;
        let enough = shadow.records.is_some_and(|records| standing.records >= records);
        let late = shadow.until_ms.is_some_and(|until| now_ms >= until);
        if !enough && !late {
            return None;
        }
        let Standing { records, different, unjudged, .. } = standing;
        let why = format!(
            "{} of {} records differ, in the process that was through first",
            grouped(different),
            grouped(records)
        );
        let fields = self.lane.report().is_some_and(|report| !report.comparison.fields.is_empty());
        // What it did not come to an end with would stop a partition.
        let few = shadow.promote_up_to.is_some_and(|most| different <= most && unjudged == 0 && !fields);
        self.lane.close(*place, ShadowState::Ended(format!("done: {why}")));
        Some(Through { place: *place, why, promote: enough && few })
    }

    fn begin(&mut self, place: u64, shadow: &Shadow) {
        tracing::info!(shadow = place, "a plan is tried on live records, beside the one that runs");
        self.lane.begin(Report::new(place, shadow));
        let ended = Arc::new(AtomicBool::new(false));
        let task = Task {
            place,
            shadow: shadow.clone(),
            rules: self.rules.clone(),
            lane: self.lane.clone(),
            ended: ended.clone(),
            bytes: self.bytes,
        };
        self.running = Some(Running { place, shadow: shadow.clone(), ended });
        let before = self.thread.take();
        let thread = std::thread::Builder::new().name("shadow".to_owned()).spawn(move || task.run(before));
        match thread {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => {
                self.lane.close(place, ShadowState::Failed(format!("there is no thread for it: {error}")))
            }
        }
    }

    fn end(&mut self, how: String) {
        let Some(running) = self.running.take() else { return };
        tracing::info!(shadow = running.place, how, "a plan is not tried any more");
        running.ended.store(true, Ordering::Relaxed);
        self.lane.close(running.place, ShadowState::Ended(how));
    }
}

/// A shadow ends with its pipeline. Its last call may last for as long as the plan's deadline allows: nobody waits.
impl Drop for Shadows {
    fn drop(&mut self) {
        self.end("the process ends".to_owned());
    }
}

/// What the thread of a shadow has to do.
struct Task {
    place: u64,
    shadow: Shadow,
    rules: Arc<dyn Rules>,
    lane: Arc<Lane>,
    ended: Arc<AtomicBool>,
    bytes: usize,
}

impl Task {
    /// Two at a time would take more instances than there are.
    fn run(self, before: Option<JoinHandle<()>>) {
        if let Some(before) = before {
            before.join().ok();
        }
        // Where the system does not let it, it works as the others do.
        rustix::process::setpriority_process(None, NICE).ok();
        let failed = match std::panic::catch_unwind(AssertUnwindSafe(|| self.work())) {
            Ok(worked) => worked.err().map(|stop| stop.to_string()),
            Err(_) => Some("it panicked: the log tells where".to_owned()),
        };
        if let Some(why) = failed.filter(|_| !self.is_ended()) {
            tracing::warn!(shadow = self.place, why, "a plan cannot be tried any more in this process");
            self.lane.close(self.place, ShadowState::Failed(why));
        }
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn work(&self) -> Result<(), Stop> {
        if self.is_ended() {
            return Ok(());
        }
        let loaded = self.rules.shadow(&self.shadow.plan)?;
        // One that does not start is known before any record.
        drop(loaded.instance()?);
        let mut keeper = keeper(&loaded);
        let beside = self.shadow.plan.replaces.unwrap_or(NONE);
        let Some(offers) = self.lane.open(self.place, beside, self.bytes) else { return Ok(()) };
        let mut seen = Seen::default();
        for Offered { batch, made, cpu_ns } in offers {
            if self.is_ended() {
                return Ok(());
            }
            // It is read again after a sink failed, and may be cut otherwise.
            if !seen.is_new(batch.at(), batch.range()) {
                let new = made.fates.iter().filter(|(offset, _)| !seen.has(batch.at(), *offset)).count();
                self.lane.lock().skipped.fetch_add(new as u64, Ordering::Relaxed);
                continue;
            }
            keeper.retire_past(RETIRE_PAST.min(loaded.memory_bytes() / 2));
            let begun = cpu::thread_ns();
            let ours = self.make(&mut keeper, loaded.as_ref(), &batch);
            let took = cpu::thread_ns() - begun;
            match ours {
                Ok(ours) => {
                    let found = Comparison::of(&made, &ours);
                    self.lane.tell(self.place, |report| report.compared(&found, took, cpu_ns));
                }
                Err(Stopped::Start(stop)) => return Err(stop),
                Err(stopped) => {
                    let why = stopped.to_string();
                    self.lane.tell(self.place, |report| report.unjudged(batch.n_records() as u64, why));
                }
            }
            if self.has_enough() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn make(
        &self,
        keeper: &mut Keeper<'_, Stop>,
        loaded: &dyn Loaded,
        batch: &Batch,
    ) -> Result<Routed, Stopped<Stop>> {
        let pieces = match batch.is_empty() {
            true => Pieces { outputs: Vec::new(), failed: Vec::new() },
            false => keeper.transform_while(batch, &mut |_| !self.is_ended())?.pieces,
        };
        let plan = PlanRef { plan: self.place, digest: self.shadow.plan.digest.clone() };
        route(batch, plan, loaded.description(), loaded.bindings(), pieces)
            .map_err(|breach| Stopped::Start(Stop::new(breach.to_string())))
    }

    /// Takes no more once there is enough: whoever follows the plan log writes that down.
    fn has_enough(&self) -> bool {
        let records = self.lane.standing().map_or(0, |standing| standing.records);
        let enough = self.shadow.records.is_some_and(|of| records >= of);
        if enough {
            self.lane.close(self.place, ShadowState::Ended(format!("done: {records} records were compared")));
        }
        enough
    }
}

#[cfg(test)]
pub(super) mod tests;
