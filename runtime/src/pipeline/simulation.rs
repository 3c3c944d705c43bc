//! Whole pipelines in one thread, over sinks and a plan log in memory, with a seed that decides everything: which
//! step comes next, where a process dies, which sink refuses or loses an answer, when partitions move to another
//! process while the old one goes on, when a plan changes. At the end every sink must hold exactly what the
//! recorded plans make of the input.
//!
//! More seeds, or one of them again: [`crate::seeds`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::*;
use crate::batch::{BatchBuilder, RecordRef};
use crate::budget::Permit;
use crate::commit::{Policy, Writer};
use crate::description::{Description, Needs, Reason, Route, RouteContent};
use crate::plan::memory::MemoryLog;
use crate::plan::{By, InputPartition, Made, Plan, PlanLimits};
use crate::route::{Bindings, DEAD_LETTERS, Failed, Output, Pieces, Reject, RouteRows, Why, route};
use crate::seeds::{self, Random};
use crate::sink::memory::{Fault, Faults, MemoryRow, MemorySink, MemoryStore, Step};
use crate::sink::state::{Epoch, Start};

const N_PARTITIONS: i32 = 2;
const N_RECORDS: i64 = 40;
const TOPIC: &str = "records";

/// Far less than in the product: what a sink has forgotten is looked up in the log.
const KEPT_CUTS: usize = 1;

/// The partition that stands for the replay input: its records come again, many of them for one of their rows alone.
const AGAIN: i32 = 1;

/// A plan is on trial for a good part of the records; what one rejects more than another decides only now and then.
const TRIAL: trial::Limits =
    trial::Limits { records: 20, time: Duration::from_secs(1), rejected: 0.0, failed: 0.0 };

#[test]
#[expect(clippy::print_stdout, reason = "tells what the seeds came upon")]
fn every_sink_gets_every_row_once_whatever_dies_moves_or_changes() {
    let (runs, many) = seeds::try_each(10_000, |seed| World::new(seed).run());
    let mut seen = Seen::default();
    runs.into_iter().for_each(|counted| seen.add(counted));
    println!("{seen:?}");
    let rare = [
        seen.fenced,
        seen.skipped,
        seen.unknown_resolved,
        seen.replayed_older,
        seen.deaths,
        seen.moves,
        seen.handed_over,
        seen.paused,
        seen.resumed,
        seen.taken_back,
        seen.given_up,
        seen.begun_anew,
        seen.recalled,
        seen.log_asked,
        seen.elsewhere,
        seen.row_not_made,
    ];
    assert!(!many || rare.iter().all(|n| *n >= 100), "the simulation no longer gets into trouble: {seen:?}");
}

/// The proof that what the test is about happened.
#[derive(Debug, Default)]
struct Seen {
    fenced: u64,
    skipped: u64,
    unknown_resolved: u64,
    replayed_older: u64,
    deaths: u64,
    moves: u64,
    handed_over: u64,
    restarts: u64,
    plans: u64,
    paused: u64,
    resumed: u64,
    taken_back: u64,
    given_up: u64,
    /// Partitions that went on with another plan than the one that could not.
    begun_anew: u64,
    /// Partitions that began where no sink knew any more which plan had made what.
    recalled: u64,
    /// Partitions that waited for what a sink knew and their process had not read yet.
    log_asked: u64,
    /// Partitions that nobody had after everything healed.
    left: u64,
    /// Records that came again for a row of another sink, as sinks counted them.
    elsewhere: u64,
    /// Records that came again for a row which the plan of that moment does not make.
    row_not_made: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.fenced += other.fenced;
        self.skipped += other.skipped;
        self.unknown_resolved += other.unknown_resolved;
        self.replayed_older += other.replayed_older;
        self.deaths += other.deaths;
        self.moves += other.moves;
        self.handed_over += other.handed_over;
        self.restarts += other.restarts;
        self.plans += other.plans;
        self.paused += other.paused;
        self.resumed += other.resumed;
        self.taken_back += other.taken_back;
        self.given_up += other.given_up;
        self.begun_anew += other.begun_anew;
        self.recalled += other.recalled;
        self.log_asked += other.log_asked;
        self.left += other.left;
        self.elsewhere += other.elsewhere;
        self.row_not_made += other.row_not_made;
    }
}

static DESCRIPTION: LazyLock<Description> = LazyLock::new(|| {
    let route = |name: &str| Route { name: name.into(), content: RouteContent::Records, doc: String::new() };
    Description {
        name: "simulated".into(),
        version: "1".into(),
        doc: String::new(),
        needs: Needs::default(),
        settings: Vec::new(),
        tables: Vec::new(),
        routes: vec![route("a"), route("b")],
        reasons: vec![Reason { code: "bad".into(), field: None, message: String::new() }],
    }
});

/// What becomes of a record under a plan.
enum Expected {
    /// How many rows on which route, in the order declared.
    Routed([usize; 2]),
    Rejected,
    Dropped,
    Failed,
}

fn expected(partition: i32, offset: i64, plan: u64) -> Expected {
    match crate::route::row_hash(plan, offset, partition) as u64 % 100 {
        0..5 => Expected::Dropped,
        5..12 => Expected::Rejected,
        12..15 => Expected::Failed,
        15..55 => Expected::Routed([1, 0]),
        55..85 => Expected::Routed([0, 1]),
        85..93 => Expected::Routed([1, 1]),
        _ => Expected::Routed([0, 3]),
    }
}

/// The row that a record comes again for: in which sink, where there, and its number.
fn meant(at: &TopicPartition, offset: i64) -> Option<(usize, &'static str, i32)> {
    let drawn = crate::route::row_hash(77, offset, at.partition) as u64;
    let (sink, target, index) = (drawn % 3, drawn / 3 % 3, drawn / 9 % 2);
    (at.partition == AGAIN && !(drawn / 18).is_multiple_of(4)).then(|| {
        let target = ["ta", "tb", "copy"][target as usize];
        (sink as usize, target, index as i32)
    })
}

fn envelope(at: &TopicPartition, offset: Offset) -> String {
    let origin = format!("first/0/{offset}/1");
    match meant(at, offset.get()) {
        Some((sink, target, index)) => format!("{origin} {}.{target}/{index}", SINKS[sink]),
        None => origin,
    }
}

const SINKS: [&str; 3] = ["one", "two", "three"];

/// Plans differ in where they send their rows, too.
fn bindings(plan: u64) -> Bindings {
    let bind = |routes: &[(&str, &str)]| {
        routes.iter().map(|(route, target)| ((*route).into(), (*target).into())).collect::<Vec<_>>()
    };
    let third: &[_] = if plan.is_multiple_of(2) { &[("b", "tb"), ("b", "copy")] } else { &[("a", "ta")] };
    Bindings {
        names: SINKS.iter().map(|name| (*name).into()).collect(),
        sinks: vec![
            bind(&[("a", "ta"), (DEAD_LETTERS, "dead")]),
            bind(&[("a", "ta"), ("b", "tb")]),
            bind(third),
        ],
    }
}

/// What a worker does with a job, in one piece or in several.
fn transform(job: &Job, random: &mut Random) -> Routed {
    let batch = &job.batch;
    let mut pieces = Pieces { outputs: Vec::new(), failed: Vec::new() };
    let mut first = 0;
    while first < batch.len() {
        let whole = expected_fates(batch, job.plan.plan).iter().all(|f| !matches!(f, Expected::Failed));
        let n = if whole && random.chance(70) { batch.len() - first } else { 1 };
        piece(batch, job.plan.plan, first, n, &mut pieces);
        first += n;
    }
    let bindings = Arc::new(bindings(job.plan.plan));
    route(batch, job.plan.clone(), &DESCRIPTION, bindings, pieces).expect("the simulated transform conserves")
}

fn expected_fates(batch: &crate::batch::Batch, plan: u64) -> Vec<Expected> {
    batch.offsets().iter().map(|offset| expected(batch.at().partition, *offset, plan)).collect()
}

fn piece(batch: &crate::batch::Batch, plan: u64, first: usize, n: usize, pieces: &mut Pieces) {
    let mut output = Output::default();
    let rows =
        |route| RouteRows { route, rows: vec![], columns: vec![], keys: None, headers: None, deletes: None };
    output.routes = vec![rows(0), rows(1)];
    for (row, offset) in batch.offsets()[first..first + n].iter().enumerate() {
        let row = row as u32;
        match expected(batch.at().partition, *offset, plan) {
            Expected::Routed(on) => {
                for (route, n) in on.into_iter().enumerate() {
                    output.routes[route].rows.extend(std::iter::repeat_n(row, n));
                }
            }
            Expected::Rejected => {
                output.rejects.push(Reject { row, reasons: vec![Why { reason: 0, detail: None }] });
            }
            Expected::Dropped => output.dropped.push(row),
            Expected::Failed => {
                let row = first as u32 + row;
                pieces.failed.push(Failed { row, code: "trap", message: "boom".into(), log: String::new() });
                return;
            }
        }
    }
    pieces.outputs.push((first as u32, output));
}

/// What a process does besides deciding.
struct Process {
    core: Core,
    writers: Vec<Writer>,
    /// Commands to the sinks, and what each has to say.
    commands: Vec<VecDeque<Action>>,
    reports: Vec<VecDeque<Report>>,
    jobs: Vec<Job>,
    /// Which of them may be given up.
    give_up: GiveUp,
    results: Vec<Event>,
    reading: BTreeMap<TopicPartition, (RunId, Offset)>,
    /// What it was asked to hand over and has not let go of yet.
    asked: BTreeSet<TopicPartition>,
    source: VecDeque<Event>,
    /// What is to be in the plan log when there is time.
    telling: VecDeque<Entry>,
    /// Cuts of the log that it has heard of.
    n_adopted: usize,
    /// The last question to the plan log that is not answered yet.
    log_asked: Option<u64>,
    /// It hears what others put into the log only where it asks.
    hears_late: bool,
    /// Set from inside a sink: the process dies there.
    dead: Arc<AtomicBool>,
}

struct World {
    seed: u64,
    random: Random,
    stores: Vec<MemoryStore>,
    log: MemoryLog,
    processes: Vec<Process>,
    generation: u64,
    /// Plans that are about to be put.
    to_come: u32,
    now: Duration,
    /// Nothing goes wrong any more.
    calm: Arc<AtomicBool>,
    /// To which process a partition was given last, by what only that one has.
    owners: BTreeMap<TopicPartition, Arc<AtomicBool>>,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let stores = SINKS.iter().map(|_| MemoryStore::default()).collect();
        let mut world = Self {
            seed,
            random: Random::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(1)),
            stores,
            log: MemoryLog::default(),
            processes: Vec::new(),
            generation: 0,
            to_come: 0,
            now: Duration::ZERO,
            calm: Arc::default(),
            owners: BTreeMap::new(),
            seen: Seen::default(),
        };
        world.new_plan();
        world
    }

    fn run(mut self) -> Result<Seen, String> {
        self.start_process();
        self.move_partitions();
        let steps = 100 + self.random.below(400);
        for _ in 0..steps {
            self.trouble();
            self.step();
        }
        self.recover()?;
        self.check()?;
        Ok(self.seen)
    }

    fn history(&mut self) -> History {
        let mut history = History::default();
        history.catch_up(&mut self.log).expect("memory does not fail");
        history
    }

    fn newest(&mut self) -> PlanRef {
        let history = self.history();
        let (plan, what) = history.newest().expect("the first plan");
        PlanRef { plan, digest: what.digest.clone() }
    }

    fn new_plan(&mut self) {
        let mut history = self.history();
        let digest: Arc<str> = format!("digest-{}", self.random.below(3)).into();
        let limits = PlanLimits { memory_bytes: 1, deadline_ms: 1, output_bytes: 1, fuel_per_record: 1 };
        let by = By { who: "somebody".into(), at_ms: 0 };
        let made = self.random.chance(50).then(|| Made { by, why: String::new(), on_trial: true });
        let plan = |history: &History| Plan {
            replaces: history.newest().map(|(n, _)| n),
            digest: digest.clone(),
            name: "simulated".into(),
            version: "1".into(),
            settings: BTreeMap::new(),
            tables: BTreeMap::new(),
            limits,
            routes: BTreeMap::new(),
            declared: String::new(),
            made: made.clone(),
        };
        history
            .append(&mut self.log, |history| Some(Entry::Plan(plan(history))))
            .expect("memory does not fail");
        self.seen.plans += 1;
    }

    fn start_process(&mut self) {
        let n = self.random.next();
        let dead = Arc::new(AtomicBool::new(false));
        let settings = Settings {
            pipeline: "simulated".into(),
            owner: Nonce::from_u128(u128::from(n) << 64 | 1),
            sinks: SINKS.iter().map(|name| (*name).into()).collect(),
            file_topic: None,
            stop_after_consecutive: u64::MAX,
            max_attempts: u32::MAX,
            rollback: Some(TRIAL),
            on_trial_after: self.history().on_trial_after(0, TRIAL.time),
        };
        let (history, newest) = (self.history(), self.newest());
        let n_adopted = history.adopted.len();
        let stores = self.stores.clone();
        let writers = stores.iter().map(|store| self.writer(store, &dead)).collect();
        let process = Process {
            core: Core::new(settings, history, newest),
            writers,
            commands: (0..self.stores.len()).map(|_| VecDeque::new()).collect(),
            reports: (0..self.stores.len()).map(|_| VecDeque::new()).collect(),
            jobs: Vec::new(),
            give_up: GiveUp::Below { plan: 0, taken_back: None },
            results: Vec::new(),
            reading: BTreeMap::new(),
            asked: BTreeSet::new(),
            source: VecDeque::new(),
            telling: VecDeque::new(),
            n_adopted,
            log_asked: None,
            hears_late: self.random.chance(30),
            dead,
        };
        self.processes.push(process);
    }

    fn writer(&mut self, store: &MemoryStore, dead: &Arc<AtomicBool>) -> Writer {
        let policy = Policy {
            bytes: u64::MAX,
            rows: 1 + self.random.below(30) as u64,
            age: Duration::from_millis(5 + self.random.below(60) as u64),
            idle: Duration::from_millis(5 + self.random.below(60) as u64),
            eager: self.random.chance(50),
            offsets: 5 + self.random.below(30) as u64,
        };
        let faults = faults(Random::new(self.random.next()), self.calm.clone(), dead.clone());
        let mut names = Random::new(self.random.next());
        let nonce = move || Nonce::from_u128(u128::from(names.next()) << 64 | u128::from(names.next()));
        let sink =
            MemorySink::with_faults(store, faults).together(self.random.chance(50)).keeping_cuts(KEPT_CUTS);
        Writer::new(Box::new(sink), policy, nonce)
    }

    /// Gives every partition to some process, under a new generation. Who had it before may hear of it, or not.
    fn move_partitions(&mut self) {
        self.generation += 1;
        self.seen.moves += 1;
        for partition in 0..N_PARTITIONS {
            let at = TopicPartition::new(TOPIC, partition);
            let new_owner = self.random.below(self.processes.len());
            self.assign(&at, new_owner);
            for i in 0..self.processes.len() {
                if i != new_owner && self.random.chance(50) {
                    self.processes[i].reading.remove(&at);
                    self.processes[i].source.push_back(Event::Source(SourceEvent::Lost(at.clone())));
                }
            }
        }
    }

    fn assign(&mut self, at: &TopicPartition, new_owner: usize) {
        let started = self.history().started.contains_key(&InputPartition::of(at));
        let assignment = Assignment {
            at: at.clone(),
            topic_id: "topic-id".into(),
            group: "group".into(),
            epoch: Epoch::new(self.generation),
            start: if started { Start::MustExist } else { Start::Init(Offset::ZERO) },
            input: None,
        };
        let event = SourceEvent::Assigned(vec![assignment]);
        self.processes[new_owner].source.push_back(Event::Source(event));
        self.owners.insert(at.clone(), self.processes[new_owner].dead.clone());
    }

    /// Asks a process to hand over a partition. Another one gets it once that has let go.
    fn ask_for_a_partition(&mut self) {
        let i = self.random.below(self.processes.len());
        let at = TopicPartition::new(TOPIC, self.random.below(N_PARTITIONS as usize) as i32);
        self.processes[i].asked.insert(at.clone());
        self.processes[i].source.push_back(Event::Source(SourceEvent::Revoked(at)));
    }

    /// Pauses or resumes a process, or one partition in it.
    fn order(&mut self) {
        let i = self.random.below(self.processes.len());
        let what = if self.random.chance(40) { What::Pause } else { What::Resume };
        let partition = self.random.below(N_PARTITIONS as usize) as i32;
        let of = self.random.chance(60).then(|| TopicPartition::new(TOPIC, partition));
        let by = By { who: "somebody".into(), at_ms: 0 };
        self.decide(i, Event::Order { ticket: 0, order: Order { what, of, by } });
    }

    /// I6: who lets go of a partition commits nothing for it any more.
    fn let_go(&mut self, i: usize, at: &TopicPartition) {
        let process = &mut self.processes[i];
        process.reading.remove(at);
        if !process.asked.remove(at) {
            return;
        }
        assert!(
            process.writers.iter().all(|writer| !writer.holds(at)),
            "I6: {at} is held, seed {}",
            self.seed
        );
        self.seen.handed_over += 1;
        self.generation += 1;
        let new_owner = self.random.below(self.processes.len());
        self.assign(at, new_owner);
    }

    fn trouble(&mut self) {
        match self.random.below(200) {
            0..3 if !self.processes.is_empty() => {
                let i = self.random.below(self.processes.len());
                // Who never dies has much to hear late.
                if !self.processes[i].hears_late {
                    self.bury(i);
                }
            }
            3..6 if self.processes.len() < 3 => self.start_process(),
            6..10 if !self.processes.is_empty() => self.move_partitions(),
            10..13 => self.new_plan(),
            25..29 if !self.processes.is_empty() => self.ask_for_a_partition(),
            29..35 if !self.processes.is_empty() => self.order(),
            35 => self.to_come += 3,
            36..56 if self.to_come > 0 => self.plan_for_all(),
            13..25 if !self.processes.is_empty() => {
                let i = self.random.below(self.processes.len());
                let on_trial = self.random.chance(80);
                let process = &self.processes[i];
                if !process.hears_late || process.log_asked.is_some() {
                    self.follow(i, on_trial);
                }
            }
            _ => {}
        }
        let dead =
            (0..self.processes.len()).rev().filter(|i| self.processes[*i].dead.load(Ordering::Relaxed));
        dead.collect::<Vec<_>>().into_iter().for_each(|i| self.bury(i));
        if self.processes.is_empty() {
            self.start_process();
            self.move_partitions();
        }
    }

    /// One of several that come in short order, and are heard of at once, but by those who hear late: a sink lags behind some of
    /// them.
    fn plan_for_all(&mut self) {
        self.to_come -= 1;
        self.new_plan();
        let newest = self.newest();
        for process in self.processes.iter_mut().filter(|process| !process.hears_late) {
            process.source.push_back(Event::Plan { plan: newest.clone(), on_trial: false });
        }
    }

    /// A process hears what the log says now.
    fn follow(&mut self, i: usize, on_trial: bool) {
        let (newest, history) = (self.newest(), self.history());
        let process = &mut self.processes[i];
        let adopted = history.adopted[process.n_adopted..].to_vec();
        process.n_adopted = history.adopted.len();
        process.source.push_back(Event::Adopted(adopted));
        self.processes[i].source.push_back(Event::Plan { plan: newest, on_trial });
        let (up_to, all) = (history.next(), history.paused);
        let paused = Event::Paused { up_to, all, partitions: history.paused_partitions };
        let process = &mut self.processes[i];
        process.source.push_back(paused);
        process.source.extend(process.log_asked.take().map(|asked| Event::LogRead { asked }));
    }

    fn bury(&mut self, i: usize) {
        let process = self.processes.remove(i);
        self.seen.deaths += 1;
        self.count(&process);
    }

    fn count(&mut self, process: &Process) {
        let tally = process.core.tally();
        self.seen.skipped += tally.skipped;
        self.seen.replayed_older += tally.replayed_older;
        self.seen.restarts += tally.restarted;
        self.seen.begun_anew += tally.replanned;
        for stats in process.writers.iter().map(Writer::stats) {
            self.seen.fenced += stats.fenced;
            self.seen.unknown_resolved += stats.unknown_resolved;
        }
    }

    /// One step of some process; `false` if that process had nothing to do.
    fn step(&mut self) -> bool {
        self.now += Duration::from_millis(1);
        let i = self.random.below(self.processes.len());
        let first = self.random.below(7);
        (0..7).any(|k| match (first + k) % 7 {
            0 => self.read(i),
            1 => self.work(i),
            2 => self.command(i),
            3 => self.report(i),
            4 => self.result(i),
            5 => self.tell(i),
            _ => self.told(i),
        }) || self.tick(i)
    }

    fn read(&mut self, i: usize) -> bool {
        let process = &mut self.processes[i];
        if process.reading.is_empty() {
            return false;
        }
        let n = self.random.below(process.reading.len());
        let (at, (run, from)) =
            process.reading.iter().nth(n).map(|(a, r)| (a.clone(), *r)).expect("in range");
        let end = Offset::new(N_RECORDS);
        if from >= end {
            process.reading.remove(&at);
            process.source.push_back(Event::Source(SourceEvent::End { run, at, end, for_good: true }));
            return true;
        }
        let mut builder = BatchBuilder::new(at.clone(), from);
        if at.partition == AGAIN {
            builder.open_envelopes();
        }
        for _ in 0..1 + self.random.below(9) {
            if builder.next() < end {
                let offset = builder.next();
                let envelope = envelope(&at, offset);
                let headers = [(crate::origin::ENVELOPE, Some(envelope.as_bytes()))];
                builder.push(
                    offset,
                    RecordRef { value: Some(b"x"), headers: &headers, timestamp_ms: -1, key: None },
                );
            }
        }
        let next = builder.next();
        let batch = builder.finish(next, Permit::free()).expect("at least one record");
        process.reading.insert(at, (run, next));
        process.source.push_back(Event::Source(SourceEvent::Batch { run, batch }));
        true
    }

    fn work(&mut self, i: usize) -> bool {
        let calm = self.is_calm();
        let process = &mut self.processes[i];
        if process.jobs.is_empty() {
            return false;
        }
        let job = process.jobs.swap_remove(self.random.below(process.jobs.len()));
        let (at, run, seq) = (job.batch.at().clone(), job.run, job.seq);
        if !calm && process.give_up.is_about(&job) && self.random.chance(30) {
            self.seen.given_up += 1;
            process.results.push(Event::GivenUp { at, run, seq });
            return true;
        }
        let trial = process.core.status(self.now).trial;
        let stops = if trial.is_some_and(|trial| trial.plan == job.plan.plan) { 15 } else { 1 };
        let result = match !calm && self.random.chance(stops) {
            true => Err(Stop::new("E_STALL: simulated")),
            false => Ok(transform(&job, &mut self.random)),
        };
        process.results.push(Event::Transformed { at, run, seq, result });
        true
    }

    fn command(&mut self, i: usize) -> bool {
        let (process, now) = (&mut self.processes[i], self.now);
        let ready: Vec<_> =
            (0..process.commands.len()).filter(|s| !process.commands[*s].is_empty()).collect();
        if ready.is_empty() {
            return false;
        }
        let sink = ready[self.random.below(ready.len())];
        let writer = &mut process.writers[sink];
        match process.commands[sink].pop_front().expect("not empty") {
            Action::Claim { claims, .. } => process.reports[sink].push_back(writer.claim(claims)),
            Action::Write { run, batch, .. } => process.reports[sink].extend(writer.write(run, batch, now)),
            Action::Flush { run, at, .. } => process.reports[sink].extend(writer.flush(run, &at)),
            Action::Release { run, at, .. } => process.reports[sink].push_back(writer.release(run, &at)),
            other => unreachable!("{other:?} is no command to a sink"),
        }
        true
    }

    fn report(&mut self, i: usize) -> bool {
        let process = &self.processes[i];
        let ready: Vec<_> = (0..process.reports.len()).filter(|s| !process.reports[*s].is_empty()).collect();
        if ready.is_empty() {
            return false;
        }
        let sink = ready[self.random.below(ready.len())];
        let report = self.processes[i].reports[sink].pop_front().expect("not empty");
        self.decide(i, Event::Sink { sink, report });
        true
    }

    fn result(&mut self, i: usize) -> bool {
        let n = self.processes[i].results.len();
        if n == 0 {
            return false;
        }
        let event = self.processes[i].results.swap_remove(self.random.below(n));
        self.decide(i, event);
        true
    }

    fn tell(&mut self, i: usize) -> bool {
        let Some(entry) = self.processes[i].telling.pop_front() else { return false };
        let mut history = self.history();
        let append =
            history.append(&mut self.log, |history| (!history.is_told(&entry)).then(|| entry.clone()));
        append.expect("memory does not fail");
        true
    }

    fn told(&mut self, i: usize) -> bool {
        match self.processes[i].source.pop_front() {
            Some(event) => {
                self.decide(i, event);
                true
            }
            None => false,
        }
    }

    fn tick(&mut self, i: usize) -> bool {
        self.now += Duration::from_millis(10);
        let now = self.now;
        let process = &mut self.processes[i];
        for (writer, reports) in process.writers.iter_mut().zip(&mut process.reports) {
            reports.extend(writer.tick(now));
        }
        self.decide(i, Event::Tick);
        false
    }

    fn decide(&mut self, i: usize, event: Event) {
        // What a sink said while the process died in it was never heard.
        if self.processes[i].dead.load(Ordering::Relaxed) {
            return;
        }
        let now = self.now;
        let actions: Vec<_> = self.processes[i].core.handle(event, now).collect();
        for action in actions {
            self.act(i, action);
        }
    }

    fn act(&mut self, i: usize, action: Action) {
        let process = &mut self.processes[i];
        match action {
            Action::Claim { sink, .. }
            | Action::Write { sink, .. }
            | Action::Flush { sink, .. }
            | Action::Release { sink, .. } => process.commands[sink].push_back(action),
            Action::Read { run, at, from, .. } => {
                let states = self.stores.iter().filter_map(|store| store.state(&at));
                let furthest = states.max_by_key(|state| state.next).expect("all were claimed");
                self.seen.recalled += u64::from(furthest.cuts.first().is_some_and(|cut| from < cut.from));
                process.reading.insert(at, (run, from));
            }
            Action::Hold { at } => {
                process.reading.remove(&at);
            }
            Action::Overtaken { .. } => {}
            Action::Forget { at, .. } => self.let_go(i, &at),
            Action::Transform(job) => process.jobs.push(job),
            Action::GiveUp(what) => process.give_up = what,
            Action::Tell(entry) => process.telling.push_back(entry),
            Action::ReadLog { asked } => {
                process.log_asked = Some(asked);
                self.seen.log_asked += 1;
            }
            Action::Log(entry) => {
                self.seen.paused += u64::from(matches!(entry, Entry::Paused { .. }));
                self.seen.resumed += u64::from(matches!(entry, Entry::Resumed { .. }));
                let mut history = self.history();
                let at =
                    history.append(&mut self.log, |_| Some(entry.clone())).expect("memory does not fail");
                self.processes[i].core.logged(&entry, at.expect("it wants something"));
            }
            Action::TakeBack { plan, to, why } => self.take_back(i, plan, to, why),
            Action::Stopped { stop, .. } => {
                assert!(!stop.text.contains("E_PLAN_MISSING"), "{stop}: nothing is, seed {}", self.seed);
            }
            Action::Answer { .. } => {}
        }
    }

    /// The log answers or it does not; one of both is heard of in the end.
    fn take_back(&mut self, i: usize, plan: u64, to: u64, why: String) {
        if self.random.chance(10) {
            let error = "simulated".to_owned();
            self.processes[i].source.push_back(Event::Kept { plan, error });
            return;
        }
        let by = By { who: "somebody".into(), at_ms: 0 };
        let made = Made { by, why, on_trial: false };
        let mut history = self.history();
        let put = history.append(&mut self.log, |history| history.taking_back(plan, to, made.clone()));
        self.seen.taken_back += u64::from(put.expect("memory does not fail").is_some());
        let newest = self.newest();
        self.processes[i].source.push_back(Event::Plan { plan: newest, on_trial: false });
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// From here on nothing goes wrong any more. Either all processes die, and another one brings everything to its end; or those
    /// that live do, from wherever they are.
    fn recover(&mut self) -> Result<(), String> {
        let all_die = self.random.chance(50);
        let dies = |process: &Process| all_die || process.dead.load(Ordering::Relaxed);
        let dead: Vec<_> = (0..self.processes.len()).rev().filter(|i| dies(&self.processes[*i])).collect();
        dead.into_iter().for_each(|i| self.bury(i));
        self.calm.store(true, Ordering::Relaxed);
        if self.processes.is_empty() {
            self.start_process();
            self.move_partitions();
        }
        for i in 0..self.processes.len() {
            // Who has not heard yet that all is paused has nothing to resume.
            self.follow(i, false);
            while self.told(i) {}
            let by = By { who: "somebody".into(), at_ms: 0 };
            self.decide(i, Event::Order { ticket: 0, order: Order { what: What::Resume, of: None, by } });
        }
        for n in 0..20_000 {
            self.step();
            let left: Vec<_> =
                (0..N_PARTITIONS).filter(|partition| !self.is_everywhere(*partition)).collect();
            if left.is_empty() {
                for process in std::mem::take(&mut self.processes) {
                    self.count(&process);
                }
                return Ok(());
            }
            if n % 100 == 0 {
                (0..self.processes.len()).for_each(|i| self.follow(i, false));
                left.into_iter().try_for_each(|partition| self.assign_if_nobody_has(partition))?;
            }
        }
        Err("I7: the sinks did not reach the end after everything healed".to_owned())
    }

    /// Whether every sink has all of a partition.
    fn is_everywhere(&self, partition: i32) -> bool {
        let at = TopicPartition::new(TOPIC, partition);
        let has_all =
            |store: &MemoryStore| store.state(&at).is_some_and(|s| s.next == Offset::new(N_RECORDS));
        self.stores.iter().all(has_all)
    }

    /// Gives a partition away anew of which nobody says any more that they bring it to its end: who had it died, or said that
    /// they stopped it. Whoever says nothing of it has forgotten it.
    fn assign_if_nobody_has(&mut self, partition: i32) -> Result<(), String> {
        let at = TopicPartition::new(TOPIC, partition);
        let owner = self.owners.get(&at);
        let owner =
            self.processes.iter().find(|process| owner.is_some_and(|o| Arc::ptr_eq(o, &process.dead)));
        if let Some(process) = owner {
            let to_come = process.source.iter().any(|event| match event {
                Event::Source(SourceEvent::Assigned(all)) => all.iter().any(|assignment| assignment.at == at),
                _ => false,
            });
            if to_come || process.asked.contains(&at) {
                return Ok(());
            }
            let partitions = process.core.status(self.now).partitions;
            match partitions.iter().find(|said| said.partition == partition) {
                None => return Err(format!("I7: {at} is brought to its end by nobody, and nobody says so")),
                Some(said) if said.state != status::State::Stopped => return Ok(()),
                Some(_) => {}
            }
        }
        self.seen.left += 1;
        self.generation += 1;
        let new_owner = self.random.below(self.processes.len());
        self.assign(&at, new_owner);
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        for partition in 0..N_PARTITIONS {
            let at = TopicPartition::new(TOPIC, partition);
            let plans = self.check_versions(&at)?;
            for (sink, store) in self.stores.iter().enumerate() {
                let name = SINKS[sink];
                check_chain(store, &at, &plans).map_err(|e| format!("{at} in {name}: {e}"))?;
                check_rows(store, &at, sink, &plans).map_err(|e| format!("{at} in {name}: {e}"))?;
                self.seen.elsewhere +=
                    check_elsewhere(store, &at, sink, &plans).map_err(|e| format!("{at} in {name}: {e}"))?;
            }
            let without = |(offset, plan): (usize, &u64)| {
                meant(&at, offset as i64).is_some() && goes_to(&at, offset as i64, *plan).is_none()
            };
            self.seen.row_not_made += plans.iter().enumerate().filter(|of| without(*of)).count() as u64;
        }
        Ok(())
    }

    /// I4: one plan per offset over all sinks, also in the log, and plans never go down along offsets.
    fn check_versions(&mut self, at: &TopicPartition) -> Result<Vec<u64>, String> {
        let mut plans: Vec<u64> = Vec::new();
        let (history, of) = (self.history(), InputPartition::of(at));
        let stored: Vec<_> = self.stores.iter().filter_map(|store| store.backup().remove(at)).collect();
        for offset in (0..N_RECORDS).map(Offset::new) {
            let said = stored.iter().flat_map(|stored| {
                let made = stored.commits.iter().find(|made| made.commit.range.contains(offset));
                let told = history.plan_at(&of, &stored.state, offset);
                [made.map(|made| made.commit.plan.clone()), told]
            });
            let said: Vec<_> = said.collect();
            let Some(first) = said[0].clone() else { return Err(format!("I4: no plan for {at} {offset}")) };
            if said.iter().any(|plan| plan.as_ref() != Some(&first)) {
                return Err(format!("I4: the sinks disagree on the plan of {at} {offset}: {said:?}"));
            }
            if plans.last().is_some_and(|last| *last > first.plan) {
                return Err(format!("I4: the plan goes down at {at} {offset}"));
            }
            plans.push(first.plan);
        }
        Ok(plans)
    }
}

/// I3: the commits of a sink touch, do not overlap, and their counters add up.
fn check_chain(store: &MemoryStore, at: &TopicPartition, plans: &[u64]) -> Result<(), String> {
    let backup = store.backup();
    let stored = &backup[at];
    let mut next = Offset::ZERO;
    let mut counters = Counters::default();
    for delivered in &stored.commits {
        let commit = &delivered.commit;
        if commit.range.start != next {
            return Err(format!("I3: {} does not follow {next}", commit.range));
        }
        if plans[next.get() as usize..commit.range.end.get() as usize].iter().any(|p| *p != commit.plan.plan)
        {
            return Err(format!("I4: the commit of {} holds other plans than it names", commit.range));
        }
        next = commit.range.end;
        counters.add(&commit.counters);
    }
    let complete = next == stored.state.next && counters == stored.state.counters;
    if !complete || !counters.conserved() || counters.records_in != N_RECORDS as u64 {
        return Err(format!("I3: {counters:?} up to {next} is not {:?}", stored.state));
    }
    Ok(())
}

/// I1, I2 and I5: exactly the rows that the recorded plan makes of each record, each on its targets, in order.
fn check_rows(store: &MemoryStore, at: &TopicPartition, sink: usize, plans: &[u64]) -> Result<(), String> {
    let rows: Vec<_> = store.rows().into_iter().filter(|row| row.at == *at).collect();
    let mut wanted = Vec::new();
    for (offset, plan) in plans.iter().enumerate() {
        wanted.extend(expected_rows(at, offset as i64, *plan, sink));
    }
    for target in ["ta", "tb", "copy", "dead"] {
        let of_target = |rows: &[MemoryRow]| -> Vec<(Offset, i32)> {
            rows.iter().filter(|row| *row.target == *target).map(|row| (row.offset, row.index)).collect()
        };
        if !of_target(&rows).is_sorted() {
            return Err(format!("I5: the rows of {target} are out of order"));
        }
    }
    let sorted = |mut rows: Vec<MemoryRow>| {
        rows.sort();
        rows
    };
    let (rows, wanted) = (sorted(rows), sorted(wanted));
    if rows != wanted {
        let extra: Vec<_> = rows.iter().filter(|row| !wanted.contains(row)).take(3).collect();
        let missing: Vec<_> = wanted.iter().filter(|row| !rows.contains(row)).take(3).collect();
        let (n, m) = (rows.len(), wanted.len());
        return Err(format!("I1: {n} rows instead of {m}; extra {extra:?}, missing {missing:?}"));
    }
    Ok(())
}

/// A record is counted as being elsewhere by all sinks but the one that has the row that it came again for.
fn check_elsewhere(
    store: &MemoryStore,
    at: &TopicPartition,
    sink: usize,
    plans: &[u64],
) -> Result<u64, String> {
    let to = plans.iter().enumerate().filter_map(|(offset, plan)| goes_to(at, offset as i64, *plan));
    let expected = to.filter(|(of, ..)| *of != sink).count() as u64;
    let counted = store.state(at).map_or(0, |state| state.counters.elsewhere);
    match counted == expected {
        true => Ok(counted),
        false => Err(format!("I3: {counted} records are elsewhere instead of {expected}")),
    }
}

/// By which route each row of a record goes, in the order of their numbers.
fn expected_routes(at: &TopicPartition, offset: i64, plan: u64) -> Vec<&'static str> {
    match expected(at.partition, offset, plan) {
        Expected::Routed([a, b]) => [vec!["a"; a], vec!["b"; b]].concat(),
        Expected::Rejected | Expected::Failed => vec![DEAD_LETTERS],
        Expected::Dropped => vec![],
    }
}

/// Where the row goes that a record comes again for, if the plan makes it: in which sink, where there, and its number.
fn goes_to(at: &TopicPartition, offset: i64, plan: u64) -> Option<(usize, &'static str, i32)> {
    let (sink, target, index) = meant(at, offset)?;
    let routes = expected_routes(at, offset, plan);
    let route = routes.get(index as usize).filter(|route| **route != DEAD_LETTERS)?;
    let bound = bindings(plan).sinks[sink].iter().any(|(r, t)| **r == **route && **t == *target);
    bound.then_some((sink, target, index))
}

fn expected_rows(at: &TopicPartition, offset: i64, plan: u64, sink: usize) -> Vec<MemoryRow> {
    let mut by_routes = expected_routes(at, offset, plan);
    let goes_to = goes_to(at, offset, plan);
    let is_routed = by_routes.first().is_some_and(|route| *route != DEAD_LETTERS);
    if meant(at, offset).is_some() && goes_to.is_none() && is_routed {
        by_routes = vec![DEAD_LETTERS];
    }
    let routes = &bindings(plan).sinks[sink];
    let mut rows = Vec::new();
    for (index, route) in (0..).zip(by_routes) {
        for (_, target) in routes.iter().filter(|(r, _)| **r == *route) {
            if goes_to.is_none_or(|to| to == (sink, &**target, index)) {
                let (at, route, target) = (at.clone(), route.into(), target.clone());
                rows.push(MemoryRow { at, offset: Offset::new(offset), index, target, route, plan });
            }
        }
    }
    rows
}

fn faults(mut random: Random, calm: Arc<AtomicBool>, dead: Arc<AtomicBool>) -> Faults {
    Box::new(move |step| {
        if calm.load(Ordering::Relaxed) {
            return Fault::None;
        }
        let (dies, lost, refused) = match step {
            Step::Commit(..) => (3, 8, 4),
            Step::Claim(_) => (2, 2, 2),
            Step::Write(_) => (1, 0, 1),
            Step::Resolve(..) => (1, 0, 5),
        };
        if random.chance(dies) {
            dead.store(true, Ordering::Relaxed);
            return if random.chance(50) { Fault::AppliedThenLost } else { Fault::LostBefore };
        }
        match random.below(100) as u64 {
            n if n < lost && random.chance(50) => Fault::AppliedThenLost,
            n if n < lost => Fault::LostBefore,
            n if n < lost + refused => Fault::Transient,
            _ => Fault::None,
        }
    })
}
