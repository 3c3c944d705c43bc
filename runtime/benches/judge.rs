//! What it costs to find the guilty records of a batch: the customers rule in the sandbox, on a batch of 4,096 with none,
//! one, some or only records at which it traps, in time of the processor. The traps are put in by a wrapper around the
//! real instances, since the rule has none: after a whole call it says that it failed, and is not asked again.
//!
//! Each is followed by a batch without guilty records, which pays for the fresh instance that the worker needs then;
//! a normal batch, which is taken off again, is one that follows another.
//!
//! `cargo bench -p weir --bench judge -- [ROUNDS]`
#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

mod common;

use common::{Customers, median, thread_cpu_ns};
use weir::batch::Batch;
use weir::route::Output;
use weir::rule::{CallError, Rule};
use weir::sandbox::verdict::{Fresh, Keeper};
use weir::sandbox::{Instance, StartError};

const RECORDS: usize = 4_096;
const ROUNDS: usize = 5;
/// A record with this in it is guilty.
const GUILTY: &[u8] = b"guilty";

struct Trapping(Instance);

impl Rule for Trapping {
    fn process(&mut self, batch: &Batch) -> Result<Output, CallError> {
        let output = self.0.process(batch)?;
        match batch.values().iter().flatten().any(|value| value.starts_with(GUILTY)) {
            true => Err(CallError::Trap { text: "guilty".to_owned(), log: String::new() }),
            false => Ok(output),
        }
    }

    fn is_suspect(&self) -> bool {
        self.0.is_suspect()
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let measured = args.iter().any(|arg| arg == "--bench");
    let rounds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(if measured { ROUNDS } else { 1 });
    let customers = Customers::load(true);
    let good = common::customers(RECORDS);
    let guilty = |is_guilty: &dyn Fn(usize) -> bool| {
        let mut values = good.clone();
        values.iter_mut().enumerate().filter(|(i, _)| is_guilty(*i)).for_each(|(_, v)| *v = GUILTY.to_vec());
        common::batch(&values)
    };
    let batches: [(&str, Batch, usize); 5] = [
        ("none", common::batch(&good), 0),
        ("one", guilty(&|i| i == 2_500), 1),
        ("one in 100", guilty(&|i| i % 100 == 50), 41),
        ("one in 10", guilty(&|i| i % 10 == 5), 410),
        ("all", guilty(&|_| true), RECORDS),
    ];
    let mut keeper = keeper(&customers);
    let mut took = |batch: &Batch, n_guilty: usize| {
        let begun = thread_cpu_ns();
        let judged = keeper.transform(batch).expect("it comes to an end");
        let took = (thread_cpu_ns() - begun) as f64;
        assert_eq!(judged.pieces.failed.len(), n_guilty);
        took
    };
    let [(_, none, _), others @ ..] = &batches;
    let mut normal = Vec::new();
    let mut times = vec![Vec::new(); others.len()];
    // Once without counting, so that the judge is compiled.
    for round in 0..=rounds {
        let mut whole = Vec::new();
        for (_, batch, n_guilty) in others {
            let guilty = took(batch, *n_guilty);
            whole.push(guilty + took(none, 0));
            if round > 0 {
                normal.push(took(none, 0));
            }
        }
        if round > 0 {
            times.iter_mut().zip(whole).for_each(|(times, time)| times.push(time));
        }
    }
    let normal = median(normal);
    println!("guilty of {RECORDS}   ms of processor   normal batches   records/s");
    let others = others.iter().zip(times).map(|((name, ..), times)| (*name, median(times) - normal));
    for (name, time) in [("none", normal)].into_iter().chain(others) {
        let per_second = RECORDS as f64 / time * 1e9;
        println!("{name:<16} {:>15.2} {:>16.1} {per_second:>11.0}", time / 1e6, time / normal);
    }
}

fn keeper(customers: &Customers) -> Keeper<'_, StartError> {
    let wrapped = |made: Result<Instance, StartError>| made.map(|i| Box::new(Trapping(i)) as Box<dyn Rule>);
    let fresh: Fresh<'_, _> = Box::new(move || wrapped(customers.transform.instance(&customers.init)));
    let judge: Fresh<'_, _> = Box::new(move || wrapped(customers.transform.judge(&customers.init)));
    Keeper::new(fresh, judge)
}
