//! What the sandbox costs per record: the customers rule natively and in the sandbox, the same crate over the same
//! records to the same Arrow arrays, in one process, taking turns. Never measures time on the wall: other work on the
//! machine is not the rule's.
//!
//! `cargo bench -p weir --bench boundary -- [ROUNDS] [NAME]` runs that many rounds of the contenders whose name has
//! NAME in it.
#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

mod common;

use std::hint::black_box;

use common::native::Native;
use common::{Customers, median, thread_cpu_ns};
use weir::batch::Batch;
use weir::route::Output;
use weir::rule::Rule;

const RECORDS: usize = 65_536;
const BATCHES: [usize; 4] = [256, 1024, 4096, 16384];
const ROUNDS: usize = 31;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Without this flag it is a test run: once, to see that all agree.
    let measured = args.iter().any(|arg| arg == "--bench");
    let rounds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(if measured { ROUNDS } else { 1 });
    let name = args.iter().find(|arg| !arg.starts_with('-') && arg.parse::<usize>().is_err());
    let values = common::customers(RECORDS);
    let mut contenders = contenders();
    contenders.retain(|contender| name.is_none_or(|name| contender.name.contains(name.as_str())));
    for size in BATCHES {
        let input = Input::new(&values, size);
        agree(&mut contenders, &input);
        let rounds = measure(&mut contenders, &input, rounds);
        report(size, &contenders, &rounds);
    }
}

/// One way to the output.
struct Contender {
    name: &'static str,
    rule: Box<dyn Rule>,
    begin: Begin,
}

/// Where the measured part begins.
#[derive(Clone, Copy)]
enum Begin {
    /// At the records of the source: building the batch counts.
    Records,
    /// At the batch.
    Batch,
}

/// The first of those that begin at the same place is what the others are compared with.
fn contenders() -> Vec<Contender> {
    let [interrupted, free] = [true, false].map(Customers::load);
    let mut all = Vec::new();
    for (begin, names) in [
        (
            Begin::Records,
            [
                "native, from records",
                "sandboxed, from records",
                "sandboxed without interruption, from records",
            ],
        ),
        (
            Begin::Batch,
            [
                "native, from the batch",
                "sandboxed, from the batch",
                "sandboxed without interruption, from the batch",
            ],
        ),
    ] {
        let rules: [Box<dyn Rule>; 3] =
            [Box::new(Native::new(&interrupted.init.tables)), sandboxed(&interrupted), sandboxed(&free)];
        all.extend(names.into_iter().zip(rules).map(|(name, rule)| Contender { name, rule, begin }));
    }
    all
}

fn sandboxed(customers: &Customers) -> Box<dyn Rule> {
    Box::new(customers.transform.instance(&customers.init).expect("it starts"))
}

/// The same records, as a source has them and as batches.
struct Input<'a> {
    records: Vec<&'a [Vec<u8>]>,
    batches: Vec<Batch>,
}

impl<'a> Input<'a> {
    fn new(values: &'a [Vec<u8>], size: usize) -> Self {
        let records: Vec<_> = values.chunks(size).collect();
        let batches = records.iter().map(|values| common::batch(values)).collect();
        Self { records, batches }
    }
}

/// Before anything is measured: all say the same of every record.
fn agree(contenders: &mut [Contender], input: &Input<'_>) {
    for batch in &input.batches {
        let mut outputs = contenders.iter_mut().map(|contender| process(contender.rule.as_mut(), batch));
        let Some(first) = outputs.next() else { return };
        for other in outputs {
            assert_eq!(first.rejects, other.rejects);
            assert_eq!(first.dropped, other.dropped);
            assert_eq!(first.routes.len(), other.routes.len());
            for (a, b) in first.routes.iter().zip(&other.routes) {
                assert_eq!((a.route, &a.rows, &a.columns), (b.route, &b.rows, &b.columns));
            }
        }
    }
}

fn process(rule: &mut dyn Rule, batch: &Batch) -> Output {
    rule.process(batch).expect("the rule gets through its sample")
}

/// Nanoseconds per record of each contender, round by round. Every other round goes backwards, so that none always
/// finds the caches as the same other one left them.
fn measure(contenders: &mut [Contender], input: &Input<'_>, rounds: usize) -> Vec<Vec<f64>> {
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let mut all = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let mut round = vec![0.0; contenders.len()];
        for &i in &order {
            round[i] = pass(&mut contenders[i], input);
        }
        all.push(round);
        order.reverse();
    }
    all
}

fn pass(contender: &mut Contender, input: &Input<'_>) -> f64 {
    let rule = contender.rule.as_mut();
    let start = thread_cpu_ns();
    match contender.begin {
        Begin::Records => {
            input.records.iter().for_each(|values| drop(black_box(process(rule, &common::batch(values)))))
        }
        Begin::Batch => input.batches.iter().for_each(|batch| drop(black_box(process(rule, batch)))),
    }
    (thread_cpu_ns() - start) as f64 / RECORDS as f64
}

fn report(size: usize, contenders: &[Contender], rounds: &[Vec<f64>]) {
    println!("\nbatches of {size}, {} rounds of {RECORDS} records; ns of CPU per record", rounds.len());
    println!("{:<46} {:>8} {:>8} {:>14}", "", "median", "least", "times native");
    let mut native = 0;
    for (i, contender) in contenders.iter().enumerate() {
        if contender.name.starts_with("native") {
            native = i;
        }
        let own = |round: &Vec<f64>| round[i];
        let least = rounds.iter().map(own).fold(f64::INFINITY, f64::min);
        let times = median(rounds.iter().map(|round| round[i] / round[native]).collect());
        println!(
            "{:<46} {:>8.1} {least:>8.1} {times:>14.2}",
            contender.name,
            median(rounds.iter().map(own).collect())
        );
    }
}
