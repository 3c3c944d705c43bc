//! What it costs to replace the rule while records flow: runs of the same pipeline, with and without a hundred new plans a
//! minute, taking turns; how long a worker takes to take the new rule up, and how long it takes from `weir deploy` until its
//! first rows are committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir::admin::now_ms;
use weir::sink::state::Nonce;

use crate::common::{median, runs::machine};
use crate::job::{Counts, Job};
use crate::outputs::Kind;
use crate::pipeline::{Ground, Pipeline};
use crate::process::{Measured, measure as run};
use crate::{ASSIGNED, prepare};

/// Between two new plans: a hundred in a minute.
const EVERY: Duration = Duration::from_millis(600);

/// Of a histogram of pauses, in microseconds.
const BOUNDS: [u64; 9] = [0, 5, 10, 50, 100, 500, 1_000, 10_000, u64::MAX];

/// Prints tables.
pub(crate) fn measure(records: u64, rounds: usize) {
    let (directory, job) = (tempfile::tempdir().expect("a temporary directory"), Job::new());
    let ground = prepare(directory.path(), &job, records);
    let expected = job.customers(records, |_, _| {});
    let rules = rules(&ground);
    println!("{records} records, {rounds} rounds, taking turns; {}", machine());
    let (mut ratios, mut rates, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    let (mut deployed, mut pauses_us) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let quiet = one(&ground, records, expected, &[]);
        let swapping = one(&ground, records, expected, &rules);
        let million = records as f64 / 1e6;
        ratios.push(swapping.measured.cpu_s / quiet.measured.cpu_s);
        rates.push(quiet.measured.wall_s / swapping.measured.wall_s);
        cpu.push((quiet.measured.cpu_s / million, swapping.measured.cpu_s / million));
        pauses_us.extend(pauses(&swapping.measured.log));
        deployed.extend(swapping.deployed);
    }
    let mut checked: Vec<_> = deployed.iter().map(|plan| plan.begun_ms).collect();
    let mut made: Vec<_> = deployed.iter().filter_map(|plan| plan.made_ms).collect();
    let mut whole: Vec<_> = deployed.iter().filter_map(|plan| Some(plan.begun_ms + plan.made_ms?)).collect();
    let mut committed: Vec<_> = deployed.iter().filter_map(|plan| plan.committed_ms).collect();
    println!("\n| | without | with new plans |\n|---|---:|---:|");
    let (quiet, swapping): (Vec<_>, Vec<_>) = cpu.into_iter().unzip();
    println!("| CPU s per million, median | {:.2} | {:.2} |", median(quiet), median(swapping));
    println!("| CPU, times that without, median | 1 | {:.3} |", median(ratios));
    println!("| records/s, times that without, median | 1 | {:.3} |", median(rates));
    println!("\n| | plans | p50, ms | p99, ms | at most, ms |\n|---|---:|---:|---:|---:|");
    for (what, took) in [
        ("`weir deploy` until the plan is in the log", &mut checked),
        ("from the log until its first batch is made", &mut made),
        ("both together", &mut whole),
        ("from the log until its first commit is known", &mut committed),
    ] {
        let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(took, percent));
        println!("| {what} | {} | {p50} | {p99} | {most} |", took.len());
    }
    println!(
        "\n{} times a worker took a plan up: p50 {} us, p99 {} us",
        pauses_us.len(),
        percentile(&mut pauses_us, 50),
        percentile(&mut pauses_us, 99)
    );
    println!("\n| below, us | times |\n|---:|---:|");
    for (n, (from, to)) in BOUNDS.iter().zip(&BOUNDS[1..]).enumerate() {
        let times = pauses_us.iter().filter(|us| (*from..*to).contains(*us)).count();
        match n + 2 == BOUNDS.len() {
            true => println!("| more | {times} |"),
            false => println!("| {to} | {times} |"),
        }
    }
}

/// The one below which so many percent are.
fn percentile(all: &mut [u64], percent: usize) -> u64 {
    all.sort_unstable();
    all.get(all.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

/// How long workers took to take up another plan than the first.
fn pauses(log: &str) -> Vec<u64> {
    let number = |line: &str, name: &str| line.split_once(name)?.1.split(' ').next()?.parse::<u64>().ok();
    let taken = |line| Some((number(line, " plan=")?, number(line, " pause_us=")?));
    let taken: Vec<_> = log.lines().filter_map(taken).collect();
    let first = taken.iter().map(|(plan, _)| *plan).min();
    taken.into_iter().filter_map(|(plan, us)| (Some(plan) != first).then_some(us)).collect()
}

/// The rule twice, under two digests: one has a name more in a section that nobody reads.
fn rules(ground: &Ground<'_>) -> Vec<PathBuf> {
    let rule = fs::read(env!("WEIR_CUSTOMERS_WASM")).expect("the build made it");
    let same = |name: &str| {
        let path = ground.directory.join(format!("{name}.wasm"));
        let section = [&[0, name.len() as u8 + 1, name.len() as u8][..], name.as_bytes()].concat();
        fs::write(&path, [rule.as_slice(), &section].concat()).expect("the directory is ours");
        path
    };
    vec![same("one"), same("other")]
}

struct Swapped {
    measured: Measured,
    deployed: Vec<Deployed>,
}

/// A plan that was put.
struct Deployed {
    /// How long after the command began it was in the plan log.
    begun_ms: u64,
    /// How long after that a worker took it up for its first batch; absent if another one came before.
    made_ms: Option<u64>,
    /// How long after that the first commit with it was known; absent as above.
    committed_ms: Option<u64>,
}

fn one(ground: &Ground<'_>, records: u64, expected: Counts, rules: &[PathBuf]) -> Swapped {
    let name = format!("bench-swaps-{}", Nonce::random().short());
    let mut pipeline = Pipeline::new(ground, &name, &[Kind::Kafka, Kind::Postgres], "");
    let mut program = pipeline.run();
    program
        .args(["--once", "--json"])
        .env("WEIR_LOG", "warn,weir=info,weir::pipeline::threads::worker=debug");
    // What they take of the processors counts only once somebody waited for them: behind what is measured.
    let mut deploying: Vec<(u64, Child)> = Vec::new();
    let measured = run(&mut program, ASSIGNED, |elapsed| {
        let due = elapsed.as_millis() / EVERY.as_millis();
        if !rules.is_empty() && due > deploying.len() as u128 {
            let mut weir = pipeline.weir("deploy");
            // Far longer than any takes.
            weir.arg(&rules[deploying.len() % rules.len()]).args(["--yes", "--json", "--wait", "5 s"]);
            let weir = weir.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            deploying.push((now_ms(), weir.spawn().expect("the program starts")));
        }
    });
    let said: Value = serde_json::from_str(&measured.stdout).expect("one JSON object");
    assert_eq!(said["records"], records, "{said}");
    for (kind, output) in &mut pipeline.outputs {
        assert_eq!(output.counts(), expected, "{}", kind.name());
    }
    let taken_up = taken_up(&measured.log);
    let deployed = deploying.into_iter().filter_map(|(at, weir)| deployed(at, weir, &taken_up)).collect();
    pipeline.clear();
    Swapped { measured, deployed }
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
