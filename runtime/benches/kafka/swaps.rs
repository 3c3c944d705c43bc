//! What it costs to replace the rule while records flow: runs of the same pipeline, with and without a hundred new plans a
//! minute, taking turns; and how long a worker takes to take the new rule up.

use std::time::Duration;

use serde_json::Value;
use weir::sink::state::Nonce;

use crate::common::{histogram, median, percentile, runs::machine};
use crate::deploys::{Commands, Deployed, print};
use crate::job::{Counts, Job};
use crate::outputs::Kind;
use crate::pipeline::{Ground, Pipeline};
use crate::process::{Measured, measure as run};
use crate::{ASSIGNED, prepare};

/// Between two new plans: a hundred in a minute.
const EVERY: Duration = Duration::from_millis(600);

/// Of a histogram of pauses, in microseconds.
const BOUNDS_US: [u64; 7] = [5, 10, 50, 100, 500, 1_000, 10_000];

/// Prints tables.
pub(crate) fn measure(records: u64, rounds: usize) {
    let (directory, job) = (tempfile::tempdir().expect("a temporary directory"), Job::new());
    let ground = prepare(directory.path(), &job, records);
    let expected = job.customers(records, |_, _| {});
    println!("{records} records, {rounds} rounds, taking turns; {}", machine());
    let (mut ratios, mut rates, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    let (mut deployed, mut pauses_us) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let quiet = one(&ground, records, expected, None);
        let swapping = one(&ground, records, expected, Some(Commands::new(&ground, EVERY, u64::MAX, false)));
        let million = records as f64 / 1e6;
        ratios.push(swapping.measured.cpu_s / quiet.measured.cpu_s);
        rates.push(quiet.measured.wall_s / swapping.measured.wall_s);
        cpu.push((quiet.measured.cpu_s / million, swapping.measured.cpu_s / million));
        pauses_us.extend(pauses(&swapping.measured.log));
        deployed.extend(swapping.deployed);
    }
    println!("\n| | without | with new plans |\n|---|---:|---:|");
    let (quiet, swapping): (Vec<_>, Vec<_>) = cpu.into_iter().unzip();
    println!("| CPU s per million, median | {:.2} | {:.2} |", median(quiet), median(swapping));
    println!("| CPU, times that without, median | 1 | {:.3} |", median(ratios));
    println!("| records/s, times that without, median | 1 | {:.3} |", median(rates));
    print(&deployed.iter().map(Option::as_ref).collect::<Vec<_>>());
    println!(
        "\n{} times a worker took a plan up: p50 {} us, p99 {} us",
        pauses_us.len(),
        percentile(&mut pauses_us, 50),
        percentile(&mut pauses_us, 99)
    );
    histogram("us", &pauses_us, &BOUNDS_US);
}

/// How long workers took to take up another plan than the first.
fn pauses(log: &str) -> Vec<u64> {
    let number = |line: &str, name: &str| line.split_once(name)?.1.split(' ').next()?.parse::<u64>().ok();
    let taken = |line| Some((number(line, " plan=")?, number(line, " pause_us=")?));
    let taken: Vec<_> = log.lines().filter_map(taken).collect();
    let first = taken.iter().map(|(plan, _)| *plan).min();
    taken.into_iter().filter_map(|(plan, us)| (Some(plan) != first).then_some(us)).collect()
}

struct Swapped {
    measured: Measured,
    deployed: Vec<Option<Deployed>>,
}

fn one(ground: &Ground<'_>, records: u64, expected: Counts, mut commands: Option<Commands>) -> Swapped {
    let name = format!("bench-swaps-{}", Nonce::random().short());
    let mut pipeline = Pipeline::new(ground, &name, &[Kind::Kafka, Kind::Postgres], "");
    let mut program = pipeline.run_and_tell_of_plans();
    program.args(["--once", "--json"]);
    let measured = run(&mut program, ASSIGNED, |elapsed| {
        commands.iter_mut().for_each(|commands| commands.deploy_when_due(&pipeline, elapsed));
    });
    let said: Value = serde_json::from_str(&measured.stdout).expect("one JSON object");
    assert_eq!(said["records"], records, "{said}");
    for (kind, output) in &mut pipeline.outputs {
        assert_eq!(output.counts(), expected, "{}", kind.name());
    }
    let deployed = commands.map(|commands| commands.ended(&measured.log)).unwrap_or_default();
    pipeline.clear();
    Swapped { measured, deployed }
}
