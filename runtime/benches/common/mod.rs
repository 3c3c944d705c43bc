//! What the benches share: records as the CSV source makes them, the customers rule in the sandbox, and clocks that
//! count the time of a processor instead of that on the wall. Nothing here is measured.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod native;
pub(crate) mod runs;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use weir::batch::{Batch, BatchBuilder, RecordRef};
use weir::budget::Permit;
use weir::description::Description;
use weir::offset::{Offset, TopicPartition};
use weir::sandbox::{Init, InstanceLimits, Sandbox, SandboxOptions, Transform};
use weir::source::format::{Format, Options, RecordReader};
use weir::tables::Table;
use weir::tables::TableOptions;
use weir::tables::file::load;

/// Nanoseconds that this thread has had of a processor.
pub(crate) fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

/// Nanoseconds that all threads of this process have had of the processors.
pub(crate) fn process_cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The middle one.
pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Prints how many are below each bound, and not below the one before.
pub(crate) fn histogram(unit: &str, all: &[u64], bounds: &[u64]) {
    println!("\n| below, {unit} | times |\n|---:|---:|");
    let mut before = 0;
    for bound in bounds {
        println!("| {bound} | {} |", all.iter().filter(|one| (before..*bound).contains(*one)).count());
        before = *bound;
    }
    println!("| more | {} |", all.iter().filter(|one| **one >= before).count());
}

/// The one below which so many percent are.
pub(crate) fn percentile(all: &mut [u64], percent: usize) -> u64 {
    all.sort_unstable();
    all.get(all.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

/// The customers of the sample, over and over, as JSON objects: one value of its own per record, as a source has it.
pub(crate) fn customers(n: usize) -> Vec<Vec<u8>> {
    let file = File::open(data("customers.csv")).expect("the sample is there");
    let mut reader =
        RecordReader::open(Box::new(file), "customers.csv", &Options::new(Format::Csv)).expect("a header");
    let mut rows = BatchBuilder::new(partition(), Offset::ZERO);
    reader.fill(&mut rows, usize::MAX, usize::MAX).expect("the sample can be read");
    let end = rows.next();
    let rows = rows.finish(end, Permit::free()).expect("the sample has rows");
    let values = rows.values().iter().map(|value| value.expect("a row has a value").to_vec());
    values.collect::<Vec<_>>().into_iter().cycle().take(n).collect()
}

/// A batch of these values, built as a source builds it.
pub(crate) fn batch(values: &[Vec<u8>]) -> Batch {
    let mut builder = BatchBuilder::new(partition(), Offset::ZERO);
    for (value, offset) in values.iter().zip(0..) {
        builder.push(
            Offset::new(offset),
            RecordRef { value: Some(value), timestamp_ms: -1, ..RecordRef::default() },
        );
    }
    let end = builder.next();
    builder.finish(end, Permit::free()).expect("there are values")
}

fn partition() -> TopicPartition {
    TopicPartition::new("customers", 0)
}

/// The customers transform, compiled, and all that an instance of it starts with.
pub(crate) struct Customers {
    pub(crate) transform: Transform,
    pub(crate) init: Init,
}

impl Customers {
    pub(crate) fn load(interruptible: bool) -> Self {
        Self::load_in(SandboxOptions { interruptible, ..SandboxOptions::default() }, &cities_csv())
    }

    /// With a table of cities of one's own, and compiled code kept in `cache_dir`.
    pub(crate) fn load_with(cache_dir: Option<PathBuf>, cities: &[u8]) -> Self {
        Self::load_in(SandboxOptions { cache_dir, ..SandboxOptions::default() }, cities)
    }

    fn load_in(options: SandboxOptions, csv: &[u8]) -> Self {
        let sandbox = Sandbox::new(options).expect("the machine can run a sandbox");
        let component = std::fs::read(env!("WEIR_CUSTOMERS_WASM")).expect("the build made it");
        let transform = sandbox.load(&component).expect("it is a transform");
        let description =
            Arc::new(transform.describe(&[], &InstanceLimits::default()).expect("it describes itself"));
        let tables = vec![Arc::new(cities(&description, csv))];
        Self {
            transform,
            init: Init { settings: Vec::new(), tables, limits: InstanceLimits::default(), description },
        }
    }
}

fn cities(description: &Description, csv: &[u8]) -> Table {
    load(&description.tables[0], csv, &TableOptions::default()).expect("the sample is a table")
}

/// The reference table of the sample.
pub(crate) fn cities_csv() -> Vec<u8> {
    std::fs::read(data("us_cities.csv")).expect("the sample is there")
}

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(file)
}
