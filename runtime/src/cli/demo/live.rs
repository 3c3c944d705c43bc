//! `weir demo --live`: a stream of records that ends only once the rule was replaced twice and taken back once, with an account
//! of the records each time; and then the proof, from the rows in the sinks alone.

mod account;
mod proof;
mod stream;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, bounded, select};
use serde_json::{Value, json};

use super::super::progress::{self, Progress};
use super::super::run::{clock, stop_on_signals};
use super::super::screen::{self, count};
use super::super::{Ended, cache_dir, start, this_program};
use crate::app::deploy::{Changes, Deployment};
use crate::app::{Options, Pipeline};
use crate::config::PipelineConfig;
use crate::offset::Offset;
use crate::pipeline::status::State;
use crate::pipeline::threads::Handle;

use account::Account;
use proof::Proof;
use stream::Stream;

/// The pipeline of the stream: lines are read back more easily than Parquet.
pub(super) const PIPELINE: &str = r#"# The stream of `weir demo --live`: customers, with lines of JSON as their rows.

[pipeline]
name = "customers-live"
state = "state"

[source.files]
path = "stream"
topic = "customers-raw"

[transform]
component = "customers.wasm"

[transform.settings]
non_usa = "other"
on_bad_age = "reject"

[transform.tables.us_cities]
file = "us_cities.csv"

# Small, so that there are many places between two batches at which a plan can take over.
[limits]
batch_records = 1024
batch_bytes = "256 KiB"
in_flight_bytes = "1 MiB"
workers = 1

[routes]
usa = "out.usa"
alerts = "out.alerts"
other = "out.other"

[dead_letter]
to = "out.dead_letters"

[sinks.out.files]
path = "out"
format = "jsonl"
roll = { rows = 20000 }
"#;

/// The target of its sink that gets no route.
const DEAD_LETTERS: &str = "dead_letters";

/// The targets of its sink, below `out`.
const TARGETS: [&str; 4] = ["usa", "alerts", "other", DEAD_LETTERS];

/// Each plan makes about so many records.
const EACH: u64 = 60_000;

/// How often it is looked how far the pipeline is.
const EVERY: Duration = Duration::from_millis(50);

/// Runs the stream in a directory that has the component and the table, and shows what became of it.
pub(super) fn live(dir: &Path, in_json: bool) -> Result<Ended> {
    let config = PipelineConfig::load(&dir.join("pipeline.toml"))?;
    let options =
        Options { adopt: true, once: false, cache_dir: cache_dir(), compiler: this_program(), admin: true };
    let asked = stop_on_signals("finishing and committing what is under way")?;
    let pipeline = Pipeline::open(&config, &options)?;
    let (first, _) = pipeline.plan();
    eprintln!("{}", start::what(&config, first, pipeline.sinks()));
    let look = pipeline.admin().and_then(|server| start::where_to_look(server, &config.file, false));
    look.iter().for_each(|line| eprintln!("{line}"));
    let handle = pipeline.handle().clone();
    let progress = Progress::start(handle.clone()).context("starting what shows the progress")?;
    let (stop, stopped) = bounded(1);
    let (runs, ended) = bounded::<()>(0);
    let stream = Stream::new(dir.join("stream"));
    let conductor = thread::Builder::new().name("conductor".to_owned()).spawn(move || {
        let mut conductor = Conductor { config, options, handle, stream, asked, ended, conserved: true };
        let replaced = conductor.conduct();
        // Full or gone: it ends in any case.
        stop.try_send(()).ok();
        let Conductor { stream, conserved, .. } = conductor;
        replaced.map(|replaced| Some(Conducted { replaced: replaced?, sent: stream.sent, conserved }))
    });
    let conductor = conductor.context("starting what replaces the rule")?;
    let ran = pipeline.run(&stopped);
    drop(runs);
    progress.end();
    let conducted = conductor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let ran = ran?;
    if let Some((at, stop)) = ran.outcome.stopped.first() {
        bail!("partition {at} stopped: {stop}");
    }
    let Some(Conducted { replaced, sent, conserved }) = conducted? else {
        eprintln!("stopped before the rule was replaced: nothing is lost, and nothing is proven");
        return Ok(Ended::No);
    };
    let proof = Proof::read(&dir.join("out"), &TARGETS, &sent)?;
    let plans = [Replaced { plan: first, what: "as the file says".to_owned() }].into_iter().chain(replaced);
    let plans: Vec<_> = plans.collect();
    let holds = proof.holds() && conserved;
    if in_json {
        println!("{}", to_json(&proof, &plans, holds));
    } else {
        print(dir, &proof, &plans, conserved);
    }
    Ok(if holds { Ended::Done } else { Ended::No })
}

/// A plan that took over, and what it changed.
struct Replaced {
    plan: u64,
    what: String,
}

/// What was done while the pipeline ran, to the end of the stream.
struct Conducted {
    replaced: Vec<Replaced>,
    /// How many records each file had.
    sent: Vec<u64>,
    /// See [`Conductor::conserved`].
    conserved: bool,
}

/// Feeds the stream and replaces the rule, while the pipeline runs.
struct Conductor {
    config: PipelineConfig,
    options: Options,
    handle: Handle,
    stream: Stream,
    /// Somebody wants it to stop.
    asked: Receiver<()>,
    /// Closed when the pipeline has ended.
    ended: Receiver<()>,
    /// Whether no record was missing, nor one too many, in any account.
    conserved: bool,
}

impl Conductor {
    /// The plans that took over; `None` if it was stopped before.
    fn conduct(&mut self) -> Result<Option<Vec<Replaced>>> {
        let set = |key: &str, value: &str| Changes {
            settings: vec![(key.to_owned(), value.to_owned())],
            ..Changes::default()
        };
        let steps = [
            (Some(set("non_usa", "alerts")), "not American: an alert"),
            (Some(set("on_bad_age", "null")), "a bad age is let through"),
            (None, "that was wrong"),
        ];
        let mut replaced = Vec::new();
        for (changes, why) in steps {
            if !self.flow(EACH)? {
                return Ok(None);
            }
            match self.replace(changes, why)? {
                Some(plan) => replaced.push(plan),
                None => return Ok(None),
            }
        }
        if !self.flow(EACH)? {
            return Ok(None);
        }
        progress::tell("the stream ends");
        self.stream.end();
        let all = self.stream.sent.len() as u64;
        let through = self.wait_until(|conductor| Ok(conductor.finished() == all))?;
        Ok((through && self.account()?).then_some(replaced))
    }

    /// Puts the next plan, and waits until a partition was taken over; `None` if it was stopped before.
    fn replace(&mut self, changes: Option<Changes>, why: &str) -> Result<Option<Replaced>> {
        let command = if changes.is_some() { "weir deploy" } else { "weir rollback" };
        let mut deployment = match &changes {
            Some(changes) => Deployment::prepare(&self.config, &self.options, changes)?,
            None => Deployment::back(&self.config, &self.options, None)?,
        };
        let differences = deployment.differences();
        let what = differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (before, _) = deployment.replaces();
        let plan = deployment.put(why, changes.is_some())?;
        let begun = clock();
        progress::tell(&format!("{command}: {what} ({why})"));
        let mut cuts = BTreeMap::new();
        let through = self.wait_until(|_| {
            let adopted = deployment.adopted(plan)?;
            cuts = adopted.into_iter().filter_map(|(of, cut)| Some((of, cut?.from))).collect();
            Ok(!cuts.is_empty())
        })?;
        if !through {
            return Ok(None);
        }
        let took = begun.elapsed().as_millis();
        let was = deployment.adopted(before)?;
        let mut files = self.plans();
        files.extend(cuts.into_iter().map(|(of, from)| {
            let before = was.get(&of).and_then(Option::as_ref).map(|_| before);
            (of.partition, format!("{} (after {took} ms)", taken_over(before, from, plan)))
        }));
        for (partition, plans) in files {
            progress::tell(&format!("  {}: {plans}", stream::name(partition)));
        }
        Ok(self.account()?.then_some(Replaced { plan, what }))
    }

    /// The newest plan of each file that is under way, by its partition.
    fn plans(&self) -> BTreeMap<i32, String> {
        let status = self.handle.status();
        let partitions = status.partitions.iter();
        partitions.filter_map(|at| Some((at.partition, format!("plan {}", at.plan?)))).collect()
    }

    /// Tells where the records are, as soon as that is known; `false` if it was stopped before.
    fn account(&mut self) -> Result<bool> {
        let mut account = None;
        let through = self.wait_until(|conductor| {
            account = Account::of(&conductor.handle.status(), stream::RECORDS);
            Ok(account.is_some())
        })?;
        if let Some(account) = account {
            self.conserved &= account.holds();
            progress::tell(&format!("  {account}"));
        }
        Ok(through)
    }

    /// Lets so many records more come through; whether it was not stopped meanwhile.
    fn flow(&mut self, records: u64) -> Result<bool> {
        let before = self.taken();
        self.wait_until(|conductor| Ok(conductor.taken() >= before + records))
    }

    /// Feeds the stream until something holds; `false` if it is told to stop, or the pipeline ended.
    fn wait_until(&mut self, mut holds: impl FnMut(&Self) -> Result<bool>) -> Result<bool> {
        loop {
            if holds(self)? {
                return Ok(true);
            }
            if self.has_stopped() {
                return Ok(false);
            }
            self.stream.feed(self.finished())?;
            select! {
                recv(self.asked) -> _ => return Ok(false),
                recv(self.ended) -> _ => return Ok(false),
                default(EVERY) => {}
            }
        }
    }

    /// Whether a partition does not go on by itself: the run tells why.
    fn has_stopped(&self) -> bool {
        self.handle.status().partitions.iter().any(|at| at.state == State::Stopped)
    }

    fn taken(&self) -> u64 {
        self.handle.status().records.taken
    }

    /// Files of which the sink has all.
    fn finished(&self) -> u64 {
        self.handle.status().finished
    }
}

/// Where a plan took over, and from which, if that had made something there.
fn taken_over(before: Option<u64>, from: Offset, plan: u64) -> String {
    let record = count(from.get() as u64);
    match before {
        _ if from == Offset::ZERO => format!("plan {plan}"),
        Some(before) => format!("plan {before}, from record {record} on plan {plan}"),
        None => format!("from record {record} on plan {plan}"),
    }
}

fn print(dir: &Path, proof: &Proof, plans: &[Replaced], conserved: bool) {
    let mut head = vec!["plan", "records"];
    head.extend(TARGETS);
    head.push("what changed");
    let mut table = screen::table(&head, &[0, 1, 2, 3, 4, 5]);
    for Replaced { plan, what } in plans {
        let rows = TARGETS.map(|target| proof.rows_of(*plan, target));
        let mut row = vec![plan.to_string(), count(rows.iter().sum())];
        row.extend(rows.map(count));
        row.push(what.clone());
        table.add_row(row);
    }
    println!();
    println!("What is in the files of the sink, read back line by line:");
    println!();
    println!("{table}");
    println!();
    println!("{} records were sent, and {} are there:", count(proof.sent), count(proof.found()));
    println!("  {:>6} lost", count(proof.lost));
    println!("  {:>6} there twice", count(proof.twice));
    println!("  {:>6} made by an older plan than the record before them", count(proof.went_back));
    println!();
    println!("{}", verdict(proof.holds(), conserved));
    println!(
        "Which plan made which offsets, who put it and why:  weir history {}/pipeline.toml",
        dir.display()
    );
}

/// Of the rows that were read back, and of the accounts that were told while the pipeline ran.
fn verdict(holds: bool, conserved: bool) -> &'static str {
    match (holds, conserved) {
        (true, true) => "That holds.",
        (true, false) => "That holds, but AN ACCOUNT ABOVE IS WRONG: please tell us.",
        (false, _) => "THAT IS WRONG: please tell us.",
    }
}

fn to_json(proof: &Proof, plans: &[Replaced], holds: bool) -> Value {
    let plans = plans.iter().map(|Replaced { plan, what }| {
        let rows: serde_json::Map<_, _> = TARGETS
            .iter()
            .map(|target| ((*target).to_owned(), proof.rows_of(*plan, target).into()))
            .collect();
        json!({ "plan": plan, "what": what, "rows": rows })
    });
    json!({
        "plans": plans.collect::<Vec<_>>(), "sent": proof.sent, "found": proof.found(),
        "lost": proof.lost, "twice": proof.twice, "went_back": proof.went_back, "holds": holds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_before_is_told_only_where_it_made_something() {
        let from = Offset::new(14_336);
        assert_eq!(taken_over(Some(0), from, 12), "plan 0, from record 14,336 on plan 12");
        assert_eq!(taken_over(None, from, 12), "from record 14,336 on plan 12");
        assert_eq!(taken_over(None, Offset::ZERO, 12), "plan 12");
    }

    #[test]
    fn rows_that_are_all_there_do_not_hide_an_account_that_was_wrong() {
        assert_eq!(verdict(true, true), "That holds.");
        for (holds, conserved) in [(true, false), (false, true), (false, false)] {
            assert!(verdict(holds, conserved).contains("WRONG"));
        }
    }
}
