//! Does what [`Core`] decides: a thread for the source, one per worker, one per sink, and the caller's own for the
//! decisions. Nothing in here decides.
//!
//! Every channel is bounded, but that of what is written down for people, and the deciding thread never waits to send: what
//! a thread cannot take yet stays in an outbox. So nobody waits in a circle, and memory is bounded by the byte budget that
//! every batch holds a share of.

mod costs;
mod follower;
mod handle;
mod shadow;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError, TrySendError, bounded};

use super::status::{BudgetStatus, SinkCounts, SinkStatus, Status};
use super::{Action, Core, Event, Settings, Stop, Tally};
use crate::budget::{Budget, Permit};
use crate::commit::{Policy, Report, Writer, WriterStats};
use crate::description::Description;
use crate::offset::{Offset, TopicPartition};
use crate::plan::{self, History, Plan, PlanLog};
use crate::route::Bindings;
use crate::rule::Rule;
use crate::sink::state::{Claim, Epoch, Fingerprint, Nonce, PlanRef};
use crate::sink::{RoutedBatch, Sink};
use crate::source::{Poll, RunId, Source};

use costs::Costs;
use follower::{Begin, Follower};
pub use handle::{Desk, Handle, Reply, handle};
use shadow::{Lane, Shadows};
pub use worker::ALWAYS_VERIFIED;
use worker::Workers;
pub(crate) use worker::keeper;

/// How many messages a thread may have waiting. Batches are large: a few keep it busy.
const QUEUE: usize = 16;

/// How many events may wait to be decided, and are before orders and time are looked at again.
const EVENTS: usize = QUEUE * 4;

/// So many partitions are claimed in a step.
const CLAIMS: usize = 64;

/// How long a thread with nothing to do waits before it looks again whether time has passed.
const PATIENCE: Duration = Duration::from_millis(100);

/// Gives workers what plans run.
pub trait Rules: Send + Sync {
    /// What plan `plan` runs, loaded and checked. Called once per worker and plan.
    fn load(&self, plan: &PlanRef) -> Result<Arc<dyn Loaded>, Stop>;

    /// Loads the newest of all plans that there are, and starts instances of it, so that who takes it over waits for
    /// nothing. The others may be asked for afterwards: another process may have made rows with one that came and went
    /// between two looks of this one.
    fn make_ready(&self, plans: &BTreeMap<u64, Plan>) -> Result<(), Stop>;

    /// Loads a plan that is tried beside the one that runs. It is kept by nobody else.
    fn shadow(&self, plan: &Plan) -> Result<Arc<dyn Loaded>, Stop>;
}

/// The transform of a plan with its settings and tables.
pub trait Loaded: Send + Sync {
    /// What it says of itself under the plan's settings.
    fn description(&self) -> &Description;

    /// Where the plan sends the rows, for the sinks of [`Parts::sinks`] in their order.
    fn bindings(&self) -> Arc<Bindings>;

    /// The most memory that an instance may have, in bytes.
    fn memory_bytes(&self) -> usize;

    /// A fresh instance.
    fn instance(&self) -> Result<Box<dyn Rule>, Stop>;

    /// A fresh instance that also counts fuel, to find the guilty records of a batch.
    fn judge(&self) -> Result<Box<dyn Rule>, Stop>;
}

/// Asks a sink what it counted so far; it never waits for the sink.
pub type Counting = Box<dyn Fn() -> SinkCounts>;

/// All that a pipeline runs on.
pub struct Parts {
    /// What it is told once.
    pub settings: Settings,
    /// What the plan log says.
    pub history: History,
    /// The plan that runs.
    pub newest: PlanRef,
    /// Where decisions are written down.
    pub log: Box<dyn PlanLog>,
    /// The same, for who follows it: it does not wait for one that does not answer.
    pub followed: Box<dyn PlanLog>,
    /// Where records come from.
    pub source: Box<dyn Source>,
    /// The budget that the source takes its permits from.
    pub budget: Budget,
    /// The sinks in the order of `settings.sinks`, and when each commits.
    pub sinks: Vec<(Box<dyn Sink>, Policy)>,
    /// What each of them counts itself.
    pub counts: Vec<Counting>,
    /// What plans run.
    pub rules: Arc<dyn Rules>,
    /// How many batches are transformed at the same time.
    pub workers: usize,
    /// Which part of the batches is transformed twice and compared, besides the first two of a plan. 0: none.
    pub verify_fraction: f64,
    /// What time it is, for people: in milliseconds since 1970-01-01T00:00:00Z.
    pub now_ms: fn() -> u64,
    /// Where it shows how it stands.
    pub desk: Desk,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How a pipeline ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What became of the records.
    pub tally: Tally,
    /// Partitions that stopped, and why.
    pub stopped: Vec<(TopicPartition, Stop)>,
    /// What each sink's writer counted.
    pub writers: Vec<WriterStats>,
    /// The plan that ran last.
    pub plan: Option<PlanRef>,
}

/// Runs until the source is exhausted and everything is committed, or `stop` gets a message or is closed: then
/// what is under way is finished and committed.
///
/// # Errors
/// If the plan log cannot be written: decisions must not be taken that nobody can find again.
pub fn run(parts: Parts, stop: &Receiver<()>) -> Result<Outcome, plan::Error> {
    let (events, inbox) = bounded(EVENTS);
    let mut log = parts.log;
    let mut history = parts.history.clone();
    // What waits for a shadow is held besides: what is live must not wait for it to be given back.
    let lane = parts.desk.lane().clone();
    let shadows = Shadows::new(lane.clone(), parts.rules.clone(), parts.budget.limit() / 2);
    let begin = Begin {
        log: parts.followed,
        history: parts.history.clone(),
        newest: parts.newest.plan,
        rules: parts.rules.clone(),
        shadows,
        now_ms: parts.now_ms,
        max_attempts: parts.settings.max_attempts,
    };
    let follower = Follower::start(begin, events.clone());
    let core = Core::new(parts.settings, parts.history, parts.newest);
    let source = SourceThread::start(parts.source, parts.budget.clone(), events.clone());
    let clock = Clock::start();
    let workers = Workers::start(parts.workers, parts.verify_fraction, clock, &parts.rules, &lane, &events);
    let sinks = parts.sinks.into_iter().enumerate();
    let sinks = sinks.map(|(n, (sink, policy))| SinkThread::start(n, sink, policy, events.clone())).collect();
    let (budget, counts, desk) = (parts.budget.clone(), parts.counts, parts.desk);
    let outcome = Outcome::default();
    let mut threads =
        Threads { core, source, workers, sinks, follower, budget, counts, desk, outcome, clock };
    let decided = threads.decide_all(&inbox, stop, &mut |entry| {
        let at = history.append(log.as_mut(), |_| Some(entry.clone()))?;
        Ok(at.expect("it wants something"))
    });
    parts.budget.close();
    drop(inbox);
    let outcome = threads.join();
    decided.map(|()| outcome)
}

/// Time since the process began to run the pipeline; the only clock in the pipeline.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the pipeline takes its time from")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn now(self) -> Duration {
        self.0.elapsed()
    }
}

struct Threads {
    core: Core,
    source: SourceThread,
    workers: Workers,
    sinks: Vec<SinkThread>,
    follower: Follower,
    budget: Budget,
    counts: Vec<Counting>,
    desk: Desk,
    outcome: Outcome,
    clock: Clock,
}

/// Answers at which place it is.
type Append<'a> = &'a mut dyn FnMut(&plan::Entry) -> Result<u64, plan::Error>;

impl Threads {
    fn decide_all(
        &mut self,
        inbox: &Receiver<Event>,
        stop: &Receiver<()>,
        append: Append<'_>,
    ) -> Result<(), plan::Error> {
        let mut told_to_stop = false;
        while !self.core.is_done() {
            self.show();
            let asked = !matches!(stop.try_recv(), Err(TryRecvError::Empty));
            if asked && !told_to_stop {
                told_to_stop = true;
                self.decide(Event::Stop, append)?;
            }
            self.send_what_can_be_taken();
            self.wait(inbox, (!told_to_stop).then_some(stop));
            // Not until there are none: where they come as fast as they are decided, nobody else would be heard.
            for event in inbox.try_iter().take(EVENTS) {
                self.decide(event, append)?;
            }
            while let Some((ticket, order)) = self.desk.take_order() {
                self.decide(Event::Order { ticket, order }, append)?;
            }
            if self.core.deadline().is_some_and(|at| at <= self.clock.now()) {
                self.decide(Event::Tick, append)?;
            }
        }
        // The last actions let the source forget its partitions; they are delivered when the threads end.
        self.desk.put_up(self.status());
        Ok(())
    }

    fn show(&mut self) {
        let Self { core, workers, sinks, budget, counts, desk, clock, .. } = self;
        let lane = desk.lane().clone();
        desk.turn(|| status(core, sinks, budget, counts, &lane, &workers.costs, clock.now()));
    }

    fn status(&self) -> Status {
        let (lane, costs) = (self.desk.lane(), &self.workers.costs);
        status(&self.core, &self.sinks, &self.budget, &self.counts, lane, costs, self.clock.now())
    }

    fn decide(&mut self, event: Event, append: Append<'_>) -> Result<(), plan::Error> {
        let actions: Vec<_> = self.core.handle(event, self.clock.now()).collect();
        actions.into_iter().try_for_each(|action| self.act(action, append))
    }

    fn act(&mut self, action: Action, append: Append<'_>) -> Result<(), plan::Error> {
        match action {
            Action::Claim { sink, claims } => self.claim(sink, claims),
            Action::Write { sink, run, batch, permit } => {
                self.sinks[sink].send(ToSink::Write(run, Box::new(batch), permit));
            }
            Action::Flush { sink, run, at } => self.sinks[sink].send(ToSink::Flush(run, at)),
            Action::Release { sink, run, at } => self.sinks[sink].send(ToSink::Release(run, at)),
            Action::Read { run, at, from, last } => {
                self.source.outbox.send(ToSource::Read(run, at, from, last));
            }
            Action::Hold { at } => self.source.outbox.send(ToSource::Hold(at)),
            Action::Overtaken { at, by } => self.source.outbox.send(ToSource::Overtaken(at, by)),
            Action::Forget { at, finished } => self.source.outbox.send(ToSource::Forget(at, finished)),
            Action::Transform(job) => self.workers.outbox.send(job),
            Action::GiveUp(what) => self.workers.give_up(what),
            Action::Log(entry) => {
                fail::fail_point!("plan.before_log");
                let at = append(&entry)?;
                fail::fail_point!("plan.after_log");
                self.core.logged(&entry, at);
            }
            Action::Tell(entry) => self.follower.tell(entry),
            Action::ReadLog { asked } => self.follower.read_log(asked),
            Action::TakeBack { plan, to, why } => self.follower.take_back(plan, to, why),
            Action::Answer { ticket, answer } => {
                let status = self.status();
                // Whoever looks sees what was answered.
                self.desk.put_up(status.clone());
                self.desk.answer(ticket, answer.map(|changed| (changed, status)));
            }
            Action::Stopped { at, stop } => {
                tracing::error!(partition = %at, hint = stop.hint, "{stop}");
                self.outcome.stopped.push((at, stop));
            }
        }
        Ok(())
    }

    /// Not all at once, so that the first need not wait for the last.
    fn claim(&mut self, sink: usize, claims: Vec<(RunId, Claim)>) {
        let mut claims = claims.into_iter().peekable();
        while claims.peek().is_some() {
            self.sinks[sink].send(ToSink::Claim(claims.by_ref().take(CLAIMS).collect()));
        }
    }

    fn send_what_can_be_taken(&mut self) {
        self.source.outbox.flush();
        self.workers.outbox.flush();
        self.sinks.iter_mut().for_each(|sink| sink.outbox.flush());
    }

    /// Waits for an event, for room in a queue that has been full, or for the next moment at which something is due.
    fn wait(&self, inbox: &Receiver<Event>, stop: Option<&Receiver<()>>) {
        let due = self.core.deadline().map(|at| at.saturating_sub(self.clock.now()));
        let mut select = Select::new();
        select.recv(inbox);
        select.recv(self.desk.orders());
        if let Some(stop) = stop {
            select.recv(stop);
        }
        self.source.outbox.wait_in(&mut select);
        self.workers.outbox.wait_in(&mut select);
        self.sinks.iter().for_each(|sink| sink.outbox.wait_in(&mut select));
        // Whatever it says, a timeout included: the caller looks at everything again.
        select.ready_timeout(due.unwrap_or(PATIENCE).min(PATIENCE)).ok();
    }

    fn join(self) -> Outcome {
        let Self { core, source, workers, sinks, follower, mut outcome, .. } = self;
        outcome.tally = core.tally().clone();
        outcome.plan = Some(core.newest().clone());
        source.join();
        workers.join();
        outcome.writers = sinks.into_iter().map(SinkThread::join).collect();
        follower.join();
        outcome
    }
}

/// What the core says of itself, and what the threads and sinks know besides.
fn status(
    core: &Core,
    sinks: &[SinkThread],
    budget: &Budget,
    counts: &[Counting],
    lane: &Lane,
    costs: &Costs,
    now: Duration,
) -> Status {
    let mut status = core.status(now);
    status.shadow = lane.standing();
    status.costs = costs.all();
    status.budget = BudgetStatus { used_bytes: budget.used() as u64, limit_bytes: budget.limit() as u64 };
    status.sinks.iter_mut().zip(sinks).for_each(|(status, sink)| sink.meter.lock().tell(status));
    status.sinks.iter_mut().zip(counts).for_each(|(status, count)| status.own = count());
    status
}

/// Messages to a thread, those that it cannot take yet included.
struct Outbox<T> {
    to: Sender<T>,
    waiting: VecDeque<T>,
}

impl<T> Outbox<T> {
    fn new(to: Sender<T>) -> Self {
        Self { to, waiting: VecDeque::new() }
    }

    fn send(&mut self, message: T) {
        self.waiting.push_back(message);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(message) = self.waiting.pop_front() {
            match self.to.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => return self.waiting.push_front(message),
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    fn wait_in<'a>(&'a self, select: &mut Select<'a>) {
        if !self.waiting.is_empty() {
            select.send(&self.to);
        }
    }

    /// Delivers what still waits, in order, and hangs up. The receiver goes on taking until then.
    fn finish(self) {
        for message in self.waiting {
            if self.to.send(message).is_err() {
                return;
            }
        }
    }
}

/// A thread that ends the process if it panics: it holds rows that would never arrive, and a restart goes on from
/// what is durable.
fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let guarded = move || match std::panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(_) => std::process::abort(),
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(guarded).expect("the system gives threads")
}

enum ToSource {
    Read(RunId, TopicPartition, Offset, Option<Fingerprint>),
    Hold(TopicPartition),
    Overtaken(TopicPartition, Epoch),
    Forget(TopicPartition, bool),
}

struct SourceThread {
    outbox: Outbox<ToSource>,
    thread: JoinHandle<()>,
}

impl SourceThread {
    fn start(mut source: Box<dyn Source>, budget: Budget, events: Sender<Event>) -> Self {
        let (to, from) = bounded(QUEUE);
        let thread = spawn("source", move || {
            pump(source.as_mut(), &from, &events);
            budget.close();
        });
        Self { outbox: Outbox::new(to), thread }
    }

    fn join(self) {
        self.outbox.finish();
        self.thread.join().expect("a panic ends the process");
    }
}

/// Polls a source and passes on what it is told, until nobody listens.
fn pump(source: &mut dyn Source, commands: &Receiver<ToSource>, events: &Sender<Event>) {
    let obey = |source: &mut dyn Source, command| match command {
        ToSource::Read(run, at, from, last) => source.read(run, &at, from, last),
        ToSource::Hold(at) => source.hold(&at),
        ToSource::Overtaken(at, by) => source.overtaken(&at, by),
        ToSource::Forget(at, finished) => source.forget(&at, finished),
    };
    loop {
        loop {
            match commands.try_recv() {
                Ok(command) => obey(source, command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        match source.poll() {
            Poll::Event(event) => {
                if events.send(Event::Source(event)).is_err() {
                    return;
                }
            }
            Poll::Idle => match commands.recv_timeout(PATIENCE) {
                Ok(command) => obey(source, command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            },
            Poll::Again => {}
            Poll::Closed => return,
        }
    }
}

enum ToSink {
    Claim(Vec<(RunId, Claim)>),
    Write(RunId, Box<RoutedBatch>, Permit),
    Flush(RunId, TopicPartition),
    Release(RunId, TopicPartition),
}

struct SinkThread {
    outbox: Outbox<ToSink>,
    meter: Arc<Meter>,
    thread: JoinHandle<WriterStats>,
}

impl SinkThread {
    fn start(n: usize, sink: Box<dyn Sink>, policy: Policy, events: Sender<Event>) -> Self {
        let (to, from) = bounded(QUEUE);
        let writer = Writer::new(sink, policy, Nonce::random);
        let meter = Arc::new(Meter::default());
        let shown = meter.clone();
        let thread = spawn(&format!("sink-{n}"), move || write(n, writer, &from, &events, &shown));
        Self { outbox: Outbox::new(to), meter, thread }
    }

    fn send(&mut self, message: ToSink) {
        self.outbox.send(message);
    }

    fn join(self) -> WriterStats {
        self.outbox.finish();
        self.thread.join().expect("a panic ends the process")
    }
}

/// How busy a sink is, for others to look at.
#[derive(Default)]
struct Meter(Mutex<Measured>);

#[derive(Clone, Copy, Default)]
struct Measured {
    stats: WriterStats,
    busy: Duration,
    /// When the call began that is going on.
    calling: Option<(Clock, Duration)>,
}

impl Meter {
    fn lock(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, clock: Clock) {
        self.lock().calling = Some((clock, clock.now()));
    }

    fn end(&self, stats: WriterStats) {
        let mut measured = self.lock();
        let took = measured.calling.take().map(|(clock, begun)| clock.now().saturating_sub(begun));
        measured.busy += took.unwrap_or_default();
        measured.stats = stats;
    }
}

impl Measured {
    fn tell(self, status: &mut SinkStatus) {
        let calling = self.calling.map(|(clock, begun)| clock.now().saturating_sub(begun));
        status.writer = self.stats;
        status.busy_ms = (self.busy + calling.unwrap_or_default()).as_millis() as u64;
        status.calling_ms = calling.map(|calling| calling.as_millis() as u64);
    }
}

/// Serves one sink until nobody sends any more.
fn write(
    n: usize,
    mut writer: Writer,
    messages: &Receiver<ToSink>,
    events: &Sender<Event>,
    meter: &Meter,
) -> WriterStats {
    let clock = Clock::start();
    loop {
        let patience = writer.deadline().map_or(PATIENCE, |at| at.saturating_sub(clock.now()));
        let message = match messages.recv_timeout(patience) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return writer.stats(),
        };
        meter.begin(clock);
        let reports = message.map_or_else(Vec::new, |message| obey(&mut writer, message, clock.now()));
        let reports: Vec<_> = reports.into_iter().chain(writer.tick(clock.now())).collect();
        meter.end(writer.stats());
        for report in reports {
            // Nobody listens any more once the pipeline ended; what is durable stays so.
            drop(events.send(Event::Sink { sink: n, report }));
        }
    }
}

fn obey(writer: &mut Writer, message: ToSink, now: Duration) -> Vec<Report> {
    match message {
        ToSink::Claim(claims) => vec![writer.claim(claims)],
        ToSink::Write(run, batch, permit) => {
            let reports = writer.write(run, *batch, now);
            drop(permit);
            reports
        }
        ToSink::Flush(run, at) => writer.flush(run, &at),
        ToSink::Release(run, at) => vec![writer.release(run, &at)],
    }
}
