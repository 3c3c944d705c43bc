//! One run of a whole pipeline: what it is given, and what it took. Nothing here compares runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir::budget::Budget;
use weir::commit::Policy;
use weir::description::Description;
use weir::pipeline::status::Status;
use weir::pipeline::threads::{self, Loaded, Parts, Rules};
use weir::pipeline::{Settings, Stop};
use weir::plan::memory::MemoryLog;
use weir::plan::{History, Plan};
use weir::route::{Bindings, DEAD_LETTERS};
use weir::rule::Rule;
use weir::sink::Sink;
use weir::sink::files::{FilesConfig, FilesSink, Format};
use weir::sink::state::{Epoch, Nonce, PlanRef};
use weir::source::files::{FileEntry, FileSettings, FileSource, Inputs, Roots, replays};

use super::{Customers, customers, process_cpu_ns};

const PIPELINE: &str = "bench";
const SAMPLE: usize = 1_000;

/// What can be varied, and over which values.
pub(crate) const VARIED: [(&str, &[usize]); 7] = [
    ("workers", &[1, 2, 3, 4]),
    ("partitions", &[1, 4, 16, 64]),
    ("batch", &[64, 256, 1_024, 4_096, 16_384]),
    ("value", &[100, 1_000, 10_000, 100_000]),
    ("table", &[10, 1_000, 21_600, 100_000, 1_000_000]),
    ("budget", &[4, 8, 16, 32, 64, 128]),
    ("distinct", &[0, 1]),
];

/// What a run is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) records: usize,
    pub(crate) workers: usize,
    /// Files, each a partition.
    pub(crate) partitions: usize,
    /// Records in a batch, at most.
    pub(crate) batch: usize,
    /// Bytes of a value, at least: those of the sample have 131, and an id and an address of their own some 14 more.
    pub(crate) value: usize,
    /// Rows of the reference table.
    pub(crate) table: usize,
    /// MiB of records under way.
    pub(crate) budget: usize,
    /// 1: each record has an id and an address of its own. 0: the thousand of the sample, over and over.
    pub(crate) distinct: usize,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            records: 0,
            workers: 2,
            partitions: 1,
            batch: 4_096,
            value: 100,
            table: 21_600,
            budget: BUDGET,
            distinct: 1,
        }
    }
}

/// As the pipeline file has it when it says nothing.
const BUDGET: usize = 32;

impl Case {
    /// The same, but for one thing of [`VARIED`].
    pub(crate) fn with(&self, what: &str, value: usize) -> Self {
        let mut case = self.clone();
        *case.of(what) = value;
        case
    }

    pub(crate) fn get(&self, what: &str) -> usize {
        *self.clone().of(what)
    }

    fn of(&mut self, what: &str) -> &mut usize {
        match what {
            "records" => &mut self.records,
            "workers" => &mut self.workers,
            "partitions" => &mut self.partitions,
            "batch" => &mut self.batch,
            "value" => &mut self.value,
            "table" => &mut self.table,
            "budget" => &mut self.budget,
            "distinct" => &mut self.distinct,
            other => panic!("there is no {other}"),
        }
    }

    /// What [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Self {
        text.split(',').fold(Self::default(), |case, part| {
            let (what, value) = part.split_once('=').expect("name=number");
            case.with(what, value.parse().expect("a number"))
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, workers, partitions, batch, value, table, budget, distinct } = self;
        write!(
            f,
            "records={records},workers={workers},partitions={partitions},batch={batch},value={value},"
        )?;
        write!(f, "table={table},budget={budget},distinct={distinct}")
    }
}

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    /// The most memory that the process held, the program and all that it started with included.
    pub(crate) peak_mib: f64,
    pub(crate) input_bytes: f64,
}

impl Measured {
    /// What [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Self {
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [wall_s, cpu_s, peak_mib, input_bytes] = numbers[..] else { panic!("no run: {text}") };
        Self { wall_s, cpu_s, peak_mib, input_bytes }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wall_s, cpu_s, peak_mib, input_bytes } = self;
        write!(f, "{wall_s} {cpu_s} {peak_mib} {input_bytes}")
    }
}

/// The cores there are, and how busy they were of late.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{cores} cores, load {}", load.split(' ').next().unwrap_or("unknown"))
}

/// Makes what the runs of `cases` need in `directory`: the files, and the compiled code.
pub(crate) fn prepare(directory: &Path, cases: &[Case]) {
    cases.iter().for_each(|case| write_input(&input(directory, case), case));
    load(directory, 10);
}

fn load(directory: &Path, cities: usize) -> Customers {
    Customers::load_with(Some(directory.join("cache")), &table(cities))
}

/// Runs `case` on what was prepared in `directory`.
pub(crate) fn run(directory: &Path, case: &Case) -> Measured {
    let input = input(directory, case);
    let rule = Arc::new(load(directory, case.table));
    let entries = entries(&input);
    let input_bytes = entries.iter().map(|entry| entry.length as f64).sum();
    let output = directory.join("out");
    let parts = parts(case, &input, entries, &rule, &output);
    let (start, cpu) = (now(), process_cpu_ns());
    let (_keep_open, stop) = crossbeam_channel::bounded(1);
    let outcome = threads::run(parts, &stop).expect("the plan log is in memory");
    let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), (process_cpu_ns() - cpu) as f64 / 1e9);
    assert!(outcome.stopped.is_empty(), "{:?}", outcome.stopped);
    let tally = outcome.tally;
    assert!(tally.conserved() && tally.records == case.records as u64, "{tally:?}");
    fs::remove_dir_all(output).expect("the output is ours");
    Measured { wall_s, cpu_s, peak_mib: peak_mib(), input_bytes }
}

/// The directory with the files of a case.
fn input(directory: &Path, case: &Case) -> PathBuf {
    let Case { records, partitions, value, distinct, .. } = case;
    directory.join(format!("input-{records}-{partitions}-{value}-{distinct}"))
}

fn write_input(input: &Path, case: &Case) {
    if input.is_dir() {
        return;
    }
    fs::create_dir_all(input).expect("the directory is ours");
    let sample: Vec<_> = customers(SAMPLE).iter().map(|value| padded(value, case.value)).collect();
    let mut values = sample.iter().cycle().zip(0..);
    for partition in 0..case.partitions {
        let path = input.join(format!("{partition:03}.jsonl"));
        let mut file = BufWriter::new(File::create(path).expect("the directory is ours"));
        let until = case.records * (partition + 1) / case.partitions;
        for (value, n) in values.by_ref().take(until - case.records * partition / case.partitions) {
            let own = (case.distinct == 1).then(|| with_own_id(value, n));
            let value = own.as_ref().unwrap_or(value);
            file.write_all(value).and_then(|()| file.write_all(b"\n")).expect("there is room");
        }
        file.flush().expect("there is room");
    }
}

/// The record with `n` in its id and its address, where it has them.
fn with_own_id(value: &[u8], n: usize) -> Vec<u8> {
    let text = String::from_utf8_lossy(value);
    let text = text.replacen("\"id\":\"", &format!("\"id\":\"{n}-"), 1);
    text.replacen('@', &format!("-{n}@"), 1).into_bytes()
}

/// A record of some `bytes`, by a member that the rule does not look at.
fn padded(value: &[u8], bytes: usize) -> Vec<u8> {
    let missing = bytes.saturating_sub(value.len());
    match value.strip_suffix(b"}") {
        Some(open) if missing > 0 => [open, b",\"note\":\"", &vec![b'x'; missing], b"\"}"].concat(),
        _ => value.to_vec(),
    }
}

/// A reference table of so many rows: the cities, as many as there are, and then such as nobody lives in.
fn table(rows: usize) -> Vec<u8> {
    let all = super::cities_csv();
    let mut lines: Vec<&[u8]> = all.split_inclusive(|&byte| byte == b'\n').take(rows + 1).collect();
    let made: Vec<String> = (lines.len()..=rows).map(|n| format!("Nowhere {n},XX,Nowhere,0\n")).collect();
    lines.extend(made.iter().map(String::as_bytes));
    lines.concat()
}

fn entries(input: &Path) -> Vec<FileEntry> {
    let inputs = Inputs::new(input, None);
    let mut entries = Vec::new();
    for (found, partition) in inputs.list().expect("they were just written").found.into_iter().zip(0..) {
        let digest = inputs.digest(&found).expect("it was just written");
        let (path, length, modified_ns, format) = (found.path, found.length, found.modified_ns, found.format);
        entries.push(FileEntry { partition, path, length, modified_ns, digest, format });
    }
    entries
}

fn parts(case: &Case, input: &Path, entries: Vec<FileEntry>, rule: &Arc<Customers>, output: &Path) -> Parts {
    let (budget, log) = (Budget::new(case.budget << 20), MemoryLog::default());
    let settings = Settings {
        pipeline: PIPELINE.into(),
        owner: Nonce::random(),
        sinks: vec!["lake".into(), "notes".into()],
        file_topic: Some("customers".into()),
        stop_after_consecutive: 100,
        max_attempts: 1,
        rollback: None,
        on_trial_after: None,
    };
    let (history, newest) =
        (History::default(), PlanRef { plan: 0, digest: rule.transform.digest().clone() });
    let (_, desk) = threads::handle(Status::before(&settings, &history, &newest));
    Parts {
        settings,
        history,
        newest,
        log: Box::new(log.clone()),
        followed: Box::new(log),
        now_ms: || 0,
        source: Box::new(source(case, input, entries, &budget)),
        budget,
        sinks: vec![sink(output, "lake", Format::Parquet), sink(output, "notes", Format::JsonLines)],
        counts: Vec::new(),
        rules: Arc::new(OneRule(rule.clone())),
        workers: case.workers,
        verify_fraction: 0.001,
        desk,
    }
}

fn source(case: &Case, input: &Path, entries: Vec<FileEntry>, budget: &Budget) -> FileSource {
    let settings = FileSettings {
        topic: "customers".into(),
        topic_id: "00000000-0000-0000-0000-000000000001".into(),
        replay: "weir.bench.replay".into(),
        replay_id: "00000000-0000-0000-0000-000000000001-replay".into(),
        group: PIPELINE.into(),
        epoch: Epoch::new(1),
        batch_records: case.batch,
        batch_bytes: 1 << 20,
        once: true,
    };
    let nothing_new = Box::new(|| Ok(Vec::new()));
    let roots = Roots { inputs: Inputs::new(input, None), replays: replays::inputs(input.join(".replay")) };
    FileSource::new(settings, roots, budget.clone(), entries, BTreeSet::new(), nothing_new)
}

/// The routes of the sinks `lake` and `notes`.
fn bindings() -> Bindings {
    let sink = |routes: &[(&str, &str)]| {
        routes.iter().map(|(route, target)| ((*route).into(), (*target).into())).collect()
    };
    Bindings {
        names: vec!["lake".into(), "notes".into()],
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
        eager: false,
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

    fn make_ready(&self, _: &BTreeMap<u64, Plan>) -> Result<(), Stop> {
        Ok(())
    }

    fn shadow(&self, _: &Plan) -> Result<Arc<dyn Loaded>, Stop> {
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

fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
