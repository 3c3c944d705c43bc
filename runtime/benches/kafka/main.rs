//! Customers from a topic of Kafka, through the sandboxed rule, to wherever they may go, exactly once, by the real program;
//! against the client of Kafka alone (`floor`) and against the same job by hand, without any promise (`native`).
//!
//! ```sh
//! cargo run -p weir-services -- run -- cargo bench -p weir --bench kafka -- [CASE ...] [RECORDS] [ROUNDS] [--json] [--audit]
//! ```
//!
//! A case is `floor`, `native`, `kafka` (three topics), `bare` (these without the headers that say where a row comes from),
//! `parquet` (on the disk), `hdfs` (Parquet there), `postgres` or `all` (topics, HDFS and PostgreSQL together); without one,
//! each of them. They take turns, and ratios are taken within a round. `latency [SECONDS]` tells instead how long a record
//! takes at 1,000 of them a second, `swaps [RECORDS] [ROUNDS]` what it costs to replace the rule meanwhile, and `deploys
//! [RECORDS A SECOND] [PLANS]` how long that takes where the machine is not fully loaded. `--audit` holds what the
//! first round wrote against `tests/audit`, which takes Python with pyarrow (as `$PYTHON`, if not `python3`), and psql.
#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

#[path = "../common/mod.rs"]
mod common;

mod broker;
mod deploys;
mod job;
mod latency;
mod native;
mod outputs;
mod pipeline;
mod process;
mod report;
mod swaps;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use weir::sink::state::Nonce;

use broker::Broker;
use job::{Counts, Job, ROUTES};
use outputs::Kind;
use pipeline::{Ground, Pipeline};
use process::measure;
use report::{Run, print, print_json};

/// The first argument of a process that is one run of a case without Weir.
const ONE: &str = "one-run";

/// What Weir logs once the group has told it what to read.
const ASSIGNED: &str = "the group gave us partitions";

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Floor,
    Native,
    Weir(&'static str, &'static [Kind], &'static str),
}

const CASES: [Case; 8] = [
    Case::Floor,
    Case::Native,
    Case::Weir("kafka", &[Kind::Kafka], ""),
    Case::Weir("bare", &[Kind::Kafka], BARE),
    Case::Weir("parquet", &[Kind::Parquet], ""),
    Case::Weir("hdfs", &[Kind::Hdfs], ""),
    Case::Weir("postgres", &[Kind::Postgres], ""),
    Case::Weir("all", &[Kind::Kafka, Kind::Hdfs, Kind::Postgres], ""),
];

/// In the section of a sink: rows do not say where they come from, as those of `native` do not.
const BARE: &str = "provenance = false\n";

impl Case {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Native => "native",
            Self::Weir(name, ..) => name,
        }
    }
}

/// What the command line asks for.
struct Asked {
    cases: Vec<Case>,
    records: u64,
    rounds: usize,
    json: bool,
    audit: bool,
}

impl Asked {
    fn parse(args: &[String]) -> Self {
        let mut numbers = args.iter().filter_map(|arg| arg.parse::<u64>().ok());
        let is_named = |case: &&Case| args.iter().any(|arg| arg == case.name());
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        let named: Vec<_> = CASES.iter().filter(is_named).cloned().collect();
        let unknown = args.iter().find(|arg| {
            let known = CASES.iter().any(|case| *arg == case.name());
            !known && !["--json", "--audit"].contains(&arg.as_str()) && arg.parse::<u64>().is_err()
        });
        if let Some(unknown) = unknown {
            panic!(
                "what is {unknown}? a case is one of {:?}, or it is latency, swaps or deploys",
                CASES.each_ref().map(Case::name)
            );
        }
        Self {
            cases: if named.is_empty() { CASES.to_vec() } else { named },
            records: numbers.next().unwrap_or(2_000_000),
            rounds: numbers.next().map_or(5, |n| n as usize),
            json: has("--json"),
            audit: has("--audit"),
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [ONE, rest @ ..] => one(rest),
        ["latency", rest @ ..] => latency::measure(rest.first().map_or(30, |s| s.parse().expect("seconds"))),
        ["swaps", rest @ ..] => {
            let [records, rounds] = numbers(rest, [4_000_000, 5]);
            swaps::measure(records, rounds as usize);
        }
        ["deploys", rest @ ..] => {
            let [per_second, plans] = numbers(rest, [30_000, 100]);
            deploys::measure(per_second, plans);
        }
        _ => throughput(&Asked::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())),
    }
}

/// What stands there, or else is meant.
fn numbers<const N: usize>(there: &[&str], or: [u64; N]) -> [u64; N] {
    let mut there = there.iter().map(|number| number.parse().expect("a number"));
    or.map(|meant| there.next().unwrap_or(meant))
}

/// A run without Weir, in a process of its own.
fn one(args: &[&str]) {
    let [case, broker, topic, records, cities, outputs] = args else { panic!("no run: {args:?}") };
    let (broker, records) = (Broker((*broker).to_owned()), records.parse().expect("a number"));
    match *case {
        "floor" => native::floor(&broker, topic, records),
        "native" => native::native(&broker, topic, records, Path::new(cities), outputs),
        other => panic!("no run: {other}"),
    }
}

fn throughput(asked: &Asked) {
    let (directory, job) = (tempfile::tempdir().expect("a temporary directory"), Job::new());
    let ground = prepare(directory.path(), &job, asked.records);
    let expected = job.customers(asked.records, |_, _| {});
    let oracle = asked.audit.then(|| oracle(&ground, asked.records));
    if !asked.json {
        println!(
            "{} records, {} rounds, taking turns; {}",
            asked.records,
            asked.rounds,
            common::runs::machine()
        );
    }
    let mut runs: Vec<Vec<Run>> = asked.cases.iter().map(|_| Vec::new()).collect();
    for round in 0..asked.rounds {
        let oracle = oracle.as_deref().filter(|_| round == 0);
        for (case, runs) in asked.cases.iter().zip(&mut runs) {
            runs.push(run(case, &ground, asked.records, expected, oracle));
        }
    }
    match asked.json {
        true => print_json(asked.records, &asked.cases, &runs),
        false => print(asked.records, &asked.cases, &runs),
    }
}

/// The topic, the table and the compiled transform.
pub(crate) fn prepare<'a>(directory: &'a Path, job: &Job, records: u64) -> Ground<'a> {
    let broker = Broker(given("WEIR_TEST_KAFKA"));
    let topic = broker.fill(job, records);
    let ground = Ground { directory, broker, topic };
    fs::write(ground.cities(), job.cities_csv()).expect("the directory is ours");
    ground.warm_up(Path::new(env!("WEIR_CUSTOMERS_WASM")));
    ground
}

fn run(case: &Case, ground: &Ground<'_>, records: u64, expected: Counts, oracle: Option<&Path>) -> Run {
    let name = format!("bench-{}-{}", case.name(), Nonce::random().short());
    match case {
        Case::Weir(_, kinds, more) => {
            let pipeline = Pipeline::new(ground, &name, kinds, more);
            run_weir(pipeline, ground, records, expected, oracle.filter(|_| *more != BARE))
        }
        Case::Floor | Case::Native => run_native(ground, case.name(), &name, records, expected),
    }
}

fn run_native(ground: &Ground<'_>, case: &str, name: &str, records: u64, expected: Counts) -> Run {
    let outputs = ROUTES.map(|route| format!("{name}.{route}"));
    for topic in &outputs {
        ground.broker.create(topic);
    }
    let mut program = Command::new(std::env::current_exe().expect("a process knows its program"));
    program.args([ONE, case, &ground.broker.0, &ground.topic, &records.to_string()]);
    program.arg(ground.cities()).arg(name);
    let measured = measure(&mut program, ASSIGNED, |_| {});
    if case == "native" {
        let found = Counts::of(|route| ground.broker.records(&format!("{name}.{route}")));
        assert_eq!(found, expected, "{case}");
    }
    ground.broker.delete(&format!("{name}."));
    Run { measured, visible_s: Vec::new() }
}

fn run_weir(
    mut pipeline: Pipeline<'_>,
    ground: &Ground<'_>,
    records: u64,
    expected: Counts,
    oracle: Option<&Path>,
) -> Run {
    let mut program = pipeline.run();
    program.args(["--once", "--json"]);
    let mut visible_s: Vec<(Kind, f64)> = Vec::new();
    let measured = measure(&mut program, ASSIGNED, |elapsed| {
        for (kind, output) in &mut pipeline.outputs {
            if !visible_s.iter().any(|(seen, _)| seen == kind) && output.is_visible() {
                visible_s.push((*kind, elapsed.as_secs_f64()));
            }
        }
    });
    let said: serde_json::Value = serde_json::from_str(&measured.stdout).expect("one JSON object");
    assert_eq!(said["records"], records, "{said}");
    for (kind, output) in &mut pipeline.outputs {
        assert_eq!(output.counts(), expected, "{}", kind.name());
        if let Some(oracle) = oracle {
            audit(oracle, &output.export(ground.directory), kind.name());
        }
    }
    pipeline.clear();
    Run { measured, visible_s }
}

/// What the audit says that the routes must hold, in a file.
fn oracle(ground: &Ground<'_>, records: u64) -> PathBuf {
    let (input, expected) = (ground.directory.join("input.jsonl"), ground.directory.join("expected.json"));
    assert!(records > 0, "there is something to peek at");
    peek(&ground.broker, &ground.topic, File::create(&input).expect("the directory is ours"));
    let (input, out) = (File::open(&input), File::create(&expected));
    let mut program = python("oracle.py");
    program
        .arg(ground.cities())
        .stdin(input.expect("just written"))
        .stdout(out.expect("the directory is ours"));
    assert!(program.status().is_ok_and(|status| status.success()), "the oracle answers");
    expected
}

/// Panics, with what it found, if the rows are not those that they must be.
fn audit(oracle: &Path, rows: &[(String, PathBuf)], what: &str) {
    let mut program = python("audit.py");
    program.arg(oracle).args(rows.iter().map(|(route, path)| format!("{route}={}", path.display())));
    let output = program.output().expect("python starts");
    let (found, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}:\n{found}{error}");
    print!("audit of {what}:\n{found}");
}

fn python(script: &str) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit");
    let mut python = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(scripts.join(script));
    python
}

/// All records of a topic, as `weir peek --json` has them.
pub(crate) fn peek(broker: &Broker, topic: &str, to: File) {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(["peek", topic, "--from", "start", "-n", &u64::MAX.to_string(), "--json", "-b", &broker.0]);
    let status = weir.stdout(Stdio::from(to)).status().expect("the program starts");
    assert!(status.success(), "weir peek {topic}");
}

/// Where a server is, as `weir-services` says it.
pub(crate) fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: cargo run -p weir-services -- run -- cargo bench -p weir --bench kafka")
    })
}
