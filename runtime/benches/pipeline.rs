//! What the whole pipeline makes of a machine: customers from a file of JSON lines through the sandboxed rule to
//! Parquet and JSON lines on disk, every route bound, every row with its provenance, committed exactly once.
//!
//! `cargo bench -p weir --bench pipeline -- [RECORDS] [ROUNDS]`
#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Customers, median, process_cpu_ns};
use weir::budget::Budget;
use weir::commit::Policy;
use weir::description::Description;
use weir::pipeline::threads::{self, Loaded, Parts, Rules};
use weir::pipeline::{Settings, Stop};
use weir::plan::History;
use weir::plan::memory::MemoryLog;
use weir::route::{Bindings, DEAD_LETTERS};
use weir::rule::Rule;
use weir::sink::Sink;
use weir::sink::files::{FilesConfig, FilesSink, Format};
use weir::sink::state::{Epoch, Nonce, PlanRef};
use weir::source::files::{FileEntry, FileSettings, FileSource, Inputs};

const PIPELINE: &str = "bench";
const SAMPLE: usize = 1_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let measured = args.iter().any(|arg| arg == "--bench");
    let mut numbers = args.iter().filter_map(|arg| arg.parse::<usize>().ok());
    let records = numbers.next().unwrap_or(if measured { 1_000_000 } else { 2 * SAMPLE });
    let rounds = numbers.next().unwrap_or(if measured { 5 } else { 1 });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let input = directory.path().join("customers.jsonl");
    write_input(&input, records);
    let entry = entry(&input);
    let megabytes = entry.length as f64 / 1e6;
    println!("{records} records, {megabytes:.0} MB of JSON lines, {rounds} rounds, taking turns");
    let bench = Bench { input, entry, records, rule: Arc::new(Customers::load(true)) };
    let mut runs = [1, 2].map(|workers| (workers, Vec::new()));
    for round in 0..rounds {
        for (workers, results) in &mut runs {
            results.push(bench.run(*workers, &directory.path().join(format!("out-{round}-{workers}"))));
        }
    }
    runs.iter().for_each(|(workers, results)| report(*workers, results, records));
}

fn write_input(path: &Path, records: usize) {
    let mut file = BufWriter::new(File::create(path).expect("the directory is ours"));
    let sample = common::customers(SAMPLE);
    for value in sample.iter().cycle().take(records) {
        file.write_all(value).and_then(|()| file.write_all(b"\n")).expect("there is room");
    }
    file.flush().expect("there is room");
}

fn entry(input: &Path) -> FileEntry {
    let inputs = Inputs::new(input, None);
    let found = inputs.list().expect("it was just written").found.remove(0);
    let start = process_cpu_ns();
    let digest = inputs.digest(&found).expect("it was just written");
    let seconds = (process_cpu_ns() - start) as f64 / 1e9;
    println!("its digest, taken before it is read: {seconds:.2} s of CPU");
    FileEntry {
        partition: 0,
        path: found.path,
        length: found.length,
        modified_ns: found.modified_ns,
        digest,
        format: found.format,
    }
}

struct Bench {
    input: PathBuf,
    entry: FileEntry,
    records: usize,
    rule: Arc<Customers>,
}

/// One run.
struct Measured {
    wall_s: f64,
    cpu_s: f64,
    /// The most memory the process held, in MiB.
    peak_mib: f64,
}

impl Bench {
    fn run(&self, workers: usize, output: &Path) -> Measured {
        let parts = self.parts(workers, output);
        reset_peak();
        let (start, cpu) = (now(), process_cpu_ns());
        let (_keep_open, stop) = crossbeam_channel::bounded(1);
        let outcome = threads::run(parts, &stop, &mut |_| {}).expect("the plan log is in memory");
        let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), (process_cpu_ns() - cpu) as f64 / 1e9);
        assert!(outcome.stopped.is_empty(), "{:?}", outcome.stopped);
        assert!(
            outcome.tally.conserved() && outcome.tally.records == self.records as u64,
            "{:?}",
            outcome.tally
        );
        std::fs::remove_dir_all(output).expect("the output is ours");
        Measured { wall_s, cpu_s, peak_mib: peak_mib() }
    }

    fn parts(&self, workers: usize, output: &Path) -> Parts {
        let budget = Budget::new(64 << 20);
        Parts {
            settings: Settings {
                pipeline: PIPELINE.into(),
                owner: Nonce::random(),
                sinks: vec!["lake".into(), "notes".into()],
                plans_can_come: false,
                stop_after_consecutive: 100,
                max_attempts: 1,
            },
            history: History::default(),
            newest: PlanRef { plan: 0, digest: self.rule.transform.digest().clone() },
            log: Box::new(MemoryLog::default()),
            source: Box::new(self.source(&budget)),
            budget,
            sinks: vec![sink(output, "lake", Format::Parquet), sink(output, "notes", Format::JsonLines)],
            rules: Arc::new(OneRule(self.rule.clone())),
            workers,
            verify_fraction: 0.001,
        }
    }

    fn source(&self, budget: &Budget) -> FileSource {
        let settings = FileSettings {
            topic: "customers".into(),
            topic_id: "00000000-0000-0000-0000-000000000001".into(),
            group: PIPELINE.into(),
            epoch: Epoch::new(1),
            batch_records: 4096,
            batch_bytes: 1 << 20,
            once: true,
        };
        let inputs = Inputs::new(&self.input, None);
        let nothing_new = Box::new(|| Ok(Vec::new()));
        FileSource::new(
            settings,
            inputs,
            budget.clone(),
            vec![self.entry.clone()],
            BTreeSet::new(),
            nothing_new,
        )
    }
}

/// The routes of the sinks `lake` and `notes`.
fn bindings() -> Bindings {
    let sink = |routes: &[(&str, &str)]| {
        routes.iter().map(|(route, target)| ((*route).into(), (*target).into())).collect()
    };
    Bindings {
        sinks: vec![
            sink(&[("usa", "usa"), ("other", "other")]),
            sink(&[("alerts", "alerts"), (DEAD_LETTERS, "dead_letters")]),
        ],
    }
}

fn sink(output: &Path, name: &str, format: Format) -> (Box<dyn Sink>, Policy) {
    let mut config = FilesConfig::new(output.join(name), PIPELINE, name);
    config.format = format;
    let sink = FilesSink::open(config).expect("the directory is ours");
    let policy = Policy {
        bytes: 128 << 20,
        rows: 1_000_000,
        age: Duration::from_secs(60),
        idle: Duration::from_secs(10),
        offsets: 1_000_000,
    };
    (Box::new(sink), policy)
}

/// Every plan runs the same.
struct OneRule(Arc<Customers>);

impl Rules for OneRule {
    fn load(&self, _: &PlanRef) -> Result<Arc<dyn Loaded>, Stop> {
        Ok(Arc::new(Self(self.0.clone())))
    }
}

impl Loaded for OneRule {
    fn description(&self) -> &Description {
        &self.0.init.description
    }

    fn bindings(&self) -> Arc<Bindings> {
        Arc::new(bindings())
    }

    fn memory_bytes(&self) -> usize {
        self.0.init.limits.memory_bytes
    }

    fn instance(&self) -> Result<Box<dyn Rule>, Stop> {
        let started = self.0.transform.instance(&self.0.init);
        started.map(|instance| Box::new(instance) as Box<dyn Rule>).map_err(|e| Stop::new(e.to_string()))
    }

    fn judge(&self) -> Result<Box<dyn Rule>, Stop> {
        let started = self.0.transform.judge(&self.0.init);
        started.map(|instance| Box::new(instance) as Box<dyn Rule>).map_err(|e| Stop::new(e.to_string()))
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it takes on the wall is what people feel")]
fn now() -> Instant {
    Instant::now()
}

/// From here on the peak counts anew, where the system lets us.
fn reset_peak() {
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn report(workers: usize, runs: &[Measured], records: usize) {
    let of = |what: fn(&Measured) -> f64| runs.iter().map(what).collect::<Vec<_>>();
    let least = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    let (wall, cpu, peak) = (of(|run| run.wall_s), of(|run| run.cpu_s), of(|run| run.peak_mib));
    let (records, per_million) = (records as f64, 1e6 / records as f64);
    println!("\n{workers} worker(s)");
    println!(
        "  records per second      median {:>9.0}, most {:>9.0}",
        records / median(wall.clone()),
        records / least(&wall)
    );
    println!(
        "  CPU seconds per million median {:>9.2}, least {:>8.2}",
        median(cpu.clone()) * per_million,
        least(&cpu) * per_million
    );
    println!("  peak memory             {:.0} MiB", most(&peak));
}
