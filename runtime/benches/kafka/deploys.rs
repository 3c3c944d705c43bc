//! `weir deploy` while records flow, again and again, and how long it takes until the new rule is at work.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use crossbeam_channel::tick;
use rdkafka::producer::Producer;
use serde_json::Value;
use weir::admin::now_ms;
use weir::sink::state::Nonce;

use crate::broker::{send, to, wait_until_due};
use crate::common::runs::machine;
use crate::common::{histogram, percentile};
use crate::job::Job;
use crate::outputs::Kind;
use crate::pipeline::{Ground, Pipeline};
use crate::prepare;
use crate::process::{now, read_all, spawn, stop};

/// Between two new plans here: longer than any takes, so that none is overtaken by the next.
const EVERY: Duration = Duration::from_secs(3);

/// Between two looks at whether one is due.
const LOOK: Duration = Duration::from_millis(5);

/// Of records before the first: the virtual machine of a broker that has just been started still compiles the broker.
const WARM_UP: Duration = Duration::from_secs(20);

/// For records to be sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// From here on a command is told by itself, in milliseconds.
const SLOW_MS: u64 = 500;

/// Of a histogram, in milliseconds.
const BOUNDS_MS: [u64; 7] = [100, 150, 200, 300, 400, 500, 1_000];

/// Prints tables of `plans` plans that are put while `per_second` records come in a second: what they leave of the machine is
/// for the commands. Every other plan has a component that nobody compiled before.
pub(crate) fn measure(per_second: u64, plans: u64) {
    let (directory, job) = (tempfile::tempdir().expect("a temporary directory"), Job::new());
    let mut ground = prepare(directory.path(), &job, 0);
    let name = format!("bench-deploys-{}", Nonce::random().short());
    ground.topic = format!("{name}.in");
    ground.broker.create(&ground.topic);
    println!("{plans} plans, at {per_second} records/s; {}", machine());
    let pipeline = Pipeline::new(&ground, &name, &[Kind::Kafka, Kind::Postgres], "");
    let mut commands = Commands::new(&ground, EVERY, plans, true);
    let mut weir = spawn(&mut pipeline.run_and_tell_of_plans());
    let log = weir.stderr.take().expect("piped");
    let (log, begun) = (std::thread::spawn(move || read_all(log)), now());
    let takes = WARM_UP + EVERY * (1 + u32::try_from(plans).expect("not so many"));
    std::thread::scope(|threads| {
        threads.spawn(|| feed(&ground, &job, per_second, takes));
        for _ in tick(LOOK) {
            let elapsed = begun.elapsed();
            if elapsed > takes {
                break;
            }
            commands.deploy_when_due(&pipeline, elapsed.saturating_sub(WARM_UP));
        }
    });
    stop(&mut weir);
    let ended = commands.ended(&log.join().expect("a reader does not panic"));
    pipeline.clear();
    ground.broker.delete(&format!("{name}."));
    let (new, known): (Vec<_>, Vec<_>) = ended.chunks(2).map(|two| (two.first(), two.get(1))).unzip();
    for (what, commands) in [("is compiled first", new), ("was compiled before", known)] {
        println!("\nwith a component that {what}:");
        print(&commands.into_iter().flatten().map(Option::as_ref).collect::<Vec<_>>());
    }
}

/// Sends so many customers a second, for so long.
fn feed(ground: &Ground<'_>, job: &Job, per_second: u64, takes: Duration) {
    let (producer, begun) = (ground.broker.producer("5"), now());
    job.customers(takes.as_secs() * per_second, |i, customer| {
        wait_until_due(begun, per_second, i);
        send(&producer, &ground.topic, to(i), customer.as_bytes());
    });
    producer.flush(PATIENCE).expect("the cluster takes the records");
}

/// Commands that put plans.
pub(crate) struct Commands {
    directory: PathBuf,
    /// Whether every other one has a component that nobody compiled before, the first among them.
    new: bool,
    every: Duration,
    at_most: u64,
    /// When each began.
    begun: Vec<(u64, Child)>,
}

/// A plan that was put.
pub(crate) struct Deployed {
    /// How long after the command began it was in the plan log.
    begun_ms: u64,
    /// How long after that a worker took it up for its first batch; absent if another one came before.
    made_ms: Option<u64>,
    /// How long after that the first commit with it was known; absent as above.
    committed_ms: Option<u64>,
}

impl Commands {
    /// With the rule under two digests in turn, both of which are compiled now; or under one, and a `new` one in turn.
    pub(crate) fn new(ground: &Ground<'_>, every: Duration, at_most: u64, new: bool) -> Self {
        let commands =
            Self { directory: ground.directory.to_owned(), new, every, at_most, begun: Vec::new() };
        (u64::from(new)..2).for_each(|n| ground.warm_up(&commands.rule(n)));
        commands
    }

    /// The rule for command `n`: it has a name more in a section that nobody reads. A file that is there may be being read.
    fn rule(&self, n: u64) -> PathBuf {
        let name =
            if self.new && n.is_multiple_of(2) { format!("new-{n}") } else { format!("known-{}", n % 2) };
        let path = self.directory.join(format!("{name}.wasm"));
        if path.exists() {
            return path;
        }
        let length = name.len() as u8;
        let section = [&[0, length + 1, length][..], name.as_bytes()].concat();
        let rule = fs::read(env!("WEIR_CUSTOMERS_WASM")).expect("the build made it");
        fs::write(&path, [rule, section].concat()).expect("the directory is ours");
        path
    }

    /// Begins another one, if it is time for it. What they take of the processors counts only once somebody waited for them.
    pub(crate) fn deploy_when_due(&mut self, pipeline: &Pipeline<'_>, elapsed: Duration) {
        let begun = self.begun.len() as u64;
        if begun == self.at_most || elapsed.as_millis() / self.every.as_millis() <= u128::from(begun) {
            return;
        }
        let mut weir = pipeline.weir("deploy");
        // Far longer than any takes.
        weir.arg(self.rule(begun)).args(["--yes", "--json", "--wait", "5 s"]);
        let weir = weir.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        self.begun.push((now_ms(), weir.spawn().expect("the program starts")));
    }

    /// What became of each, with what the running process logged.
    pub(crate) fn ended(self, log: &str) -> Vec<Option<Deployed>> {
        let taken_up = taken_up(log);
        self.begun.into_iter().map(|(at_ms, weir)| deployed(at_ms, weir, &taken_up)).collect()
    }
}

/// When a worker took each plan up first, in milliseconds since 1970.
fn taken_up(log: &str) -> BTreeMap<u64, u64> {
    let of = |line: &str| {
        let number = line.contains(" pause_us=").then(|| line.split_once(" plan="))??.1.split(' ').next()?;
        let at: jiff::Timestamp = line.split(' ').next()?.parse().ok()?;
        Some((number.parse().ok()?, u64::try_from(at.as_millisecond()).ok()?))
    };
    // Of several workers the first stays: it is put in last.
    log.lines().filter_map(of).collect::<Vec<_>>().into_iter().rev().collect()
}

/// What a command that began at `at_ms` put, if it did: two may have been in each other's way.
fn deployed(at_ms: u64, weir: Child, taken_up: &BTreeMap<u64, u64>) -> Option<Deployed> {
    let output = weir.wait_with_output().expect("it is ours");
    let said: Value = serde_json::from_slice(&output.stdout).ok()?;
    let plan = said["deployed"].as_bool()?.then(|| said["plan"].as_u64())??;
    let put_ms = said["logged_at_ms"].as_u64()?;
    let cuts = said["cuts"].as_array()?.iter();
    let committed_ms = cuts.filter_map(|cut| cut["after_ms"].as_u64()).min();
    let made_ms = taken_up.get(&plan).map(|at_ms| at_ms.saturating_sub(put_ms));
    Some(Deployed { begun_ms: put_ms.saturating_sub(at_ms), made_ms, committed_ms })
}

/// Prints how long each step took. The ones that are absent were refused.
pub(crate) fn print(commands: &[Option<&Deployed>]) {
    let deployed: Vec<_> = commands.iter().flatten().collect();
    let mut checked: Vec<_> = deployed.iter().map(|plan| plan.begun_ms).collect();
    let mut made: Vec<_> = deployed.iter().filter_map(|plan| plan.made_ms).collect();
    let mut whole: Vec<_> = deployed.iter().filter_map(|plan| Some(plan.begun_ms + plan.made_ms?)).collect();
    let mut committed: Vec<_> = deployed.iter().filter_map(|plan| plan.committed_ms).collect();
    let (begun, put) = (commands.len(), deployed.len());
    if put == 0 {
        println!("\n{begun} commands, no plan");
        return;
    }
    println!("\n{begun} commands, {put} plans, {} with a batch before the next plan came", made.len());
    assert!(!made.is_empty(), "the log tells when a plan is taken up");
    println!("\n| | plans | p50, ms | p90, ms | p99, ms | at most, ms |\n|---|---:|---:|---:|---:|---:|");
    for (what, took) in [
        ("`weir deploy` until the plan is in the log", &mut checked),
        ("from the log until its first batch is made", &mut made),
        ("both together", &mut whole),
        ("from the log until its first commit is known", &mut committed),
    ] {
        let [p50, p90, p99, most] = [50, 90, 99, 100].map(|percent| percentile(took, percent));
        println!("| {what} | {} | {p50} | {p90} | {p99} | {most} |", took.len());
    }
    histogram("ms", &whole, &BOUNDS_MS);
    println!("\nof these, {SLOW_MS} ms and more:");
    for (place, plan) in commands.iter().enumerate() {
        let Some(Deployed { begun_ms, made_ms, .. }) = plan else { continue };
        if begun_ms + made_ms.unwrap_or(0) >= SLOW_MS {
            let made = made_ms.map_or_else(|| "replaced".to_owned(), |ms| format!("{ms} ms from there"));
            println!("number {}: {begun_ms} ms until the log, {made}", place + 1);
        }
    }
}
