//! What the whole pipeline makes of a machine: customers from files of JSON lines through the sandboxed rule to
//! Parquet and JSON lines on disk, every route bound, every row with its provenance, committed exactly once.
//!
//! ```sh
//! cargo bench -p weir --bench pipeline -- [RECORDS] [ROUNDS]
//! cargo bench -p weir --bench pipeline -- vary WHAT [RECORDS] [ROUNDS]     # see `common::runs::VARIED`
//! ```
//!
//! Each run is a process of its own, so that its memory is that of one pipeline.
#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::median;
use common::runs::{self, Case, Measured};

/// The first argument of a process that is one run.
const ONE: &str = "one-run";

/// Bytes of input that a run with large values has, whatever their size.
const LARGE_INPUT: usize = 128 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [first, directory, case] = args.as_slice()
        && first == ONE
    {
        return println!("{}", runs::run(Path::new(directory), &Case::parse(case)));
    }
    let measured = std::env::args().any(|arg| arg == "--bench");
    let mut numbers = args.iter().filter_map(|arg| arg.parse::<usize>().ok());
    let records = numbers.next().unwrap_or(if measured { 1_000_000 } else { 2_000 });
    let rounds = numbers.next().unwrap_or(if measured { 5 } else { 1 });
    let like = Case { records, ..Case::default() };
    let (what, cases) = match args.iter().position(|arg| arg == "vary") {
        Some(i) => varied(args.get(i + 1).map_or("", String::as_str), &like),
        None => ("workers", [1, 2].map(|workers| Case { workers, ..like.clone() }).to_vec()),
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    runs::prepare(directory.path(), &cases);
    println!("{rounds} rounds, taking turns; {}", runs::machine());
    let mut results: Vec<Vec<Measured>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (case, results) in cases.iter().zip(&mut results) {
            results.push(one(directory.path(), case));
        }
    }
    print(what, &cases, &results);
}

/// The cases that differ from `like` in one thing.
fn varied(what: &str, like: &Case) -> (&'static str, Vec<Case>) {
    let found = runs::VARIED.iter().find(|(name, _)| *name == what);
    let (name, values) =
        found.unwrap_or_else(|| panic!("vary what? {:?}", runs::VARIED.map(|(name, _)| name)));
    let case = |value: &usize| {
        let mut case = like.with(name, *value);
        if *name == "value" {
            case.records = case.records.min(LARGE_INPUT / value).max(1_000);
        }
        case
    };
    (name, values.iter().map(case).collect())
}

/// Runs a case in a process of its own.
fn one(directory: &Path, case: &Case) -> Measured {
    let program: PathBuf = std::env::current_exe().expect("a process knows its program");
    let output = Command::new(program).arg(ONE).arg(directory).arg(case.to_string()).output();
    let output = output.expect("the program runs");
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    Measured::parse(&String::from_utf8_lossy(&output.stdout))
}

fn print(what: &str, cases: &[Case], results: &[Vec<Measured>]) {
    println!();
    println!(
        "| {what} | records | records/s, median (most) | MB/s, most | CPU s per million, median (least) | peak memory, MiB |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for (case, runs) in cases.iter().zip(results) {
        let of = |what: fn(&Measured) -> f64| runs.iter().map(what).collect::<Vec<_>>();
        let least = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
        let (wall, cpu, peak) = (of(|run| run.wall_s), of(|run| run.cpu_s), of(|run| run.peak_mib));
        let (records, megabytes) = (case.records as f64, runs[0].input_bytes / 1e6);
        println!(
            "| {} | {} | {:.0} ({:.0}) | {:.0} | {:.2} ({:.2}) | {:.0} |",
            case.get(what),
            case.records,
            records / median(wall.clone()),
            records / least(&wall),
            megabytes / least(&wall),
            median(cpu.clone()) / records * 1e6,
            least(&cpu) / records * 1e6,
            most(&peak)
        );
    }
}
