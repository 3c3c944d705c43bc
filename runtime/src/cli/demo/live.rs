//! `weir demo --live`: a stream of records that ends only once the rule was replaced twice and taken back once, and then the
//! proof, from the rows in the sinks alone.

mod proof;
mod stream;

use std::path::Path;
use std::sync::Arc;
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
use crate::pipeline::status::{State, Status};
use crate::pipeline::threads::Handle;

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

/// The targets of its sink, below `out`.
const TARGETS: [&str; 4] = ["usa", "alerts", "other", "dead_letters"];

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
        let mut conductor = Conductor { config, options, handle, stream, asked, ended };
        let plans = conductor.conduct();
        // Full or gone: it ends in any case.
        stop.try_send(()).ok();
        plans.map(|plans| (plans, conductor.stream.sent))
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
    let Some((replaced, sent)) = conducted.map(|(plans, sent)| plans.map(|plans| (plans, sent)))? else {
        eprintln!("stopped before the rule was replaced: nothing is lost, and nothing is proven");
        return Ok(Ended::No);
    };
    let proof = Proof::read(&dir.join("out"), &TARGETS, &sent)?;
    let plans = [Replaced { plan: first, what: "as the file says".to_owned() }].into_iter().chain(replaced);
    let plans: Vec<_> = plans.collect();
    if in_json {
        println!("{}", to_json(&proof, &plans));
    } else {
        print(dir, &proof, &plans);
    }
    Ok(if proof.holds() { Ended::Done } else { Ended::No })
}

/// A plan that took over, and what it changed.
struct Replaced {
    plan: u64,
    what: String,
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
        Ok(through.then_some(replaced))
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
        let plan = deployment.put(why, changes.is_some())?;
        let begun = clock();
        progress::tell(&format!("{command}: {what} ({why})"));
        let mut cuts = Vec::new();
        let through = self.wait_until(|_| {
            let adopted = deployment.adopted(plan)?;
            cuts = adopted.into_iter().filter_map(|(of, cut)| Some((of, cut?.from))).collect();
            Ok(!cuts.is_empty())
        })?;
        if !through {
            return Ok(None);
        }
        let told =
            cuts.iter().map(|(of, from)| format!("{} from record {from} on", stream::name(of.partition)));
        let told: Vec<_> = told.collect();
        let took = begun.elapsed().as_millis();
        progress::tell(&format!("  plan {plan} after {took} ms: {}", screen::some_of(&told, 3)));
        Ok(Some(Replaced { plan, what }))
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
        let stopped = |status: Arc<Status>| status.partitions.iter().any(|at| at.state == State::Stopped);
        self.handle.status().is_some_and(stopped)
    }

    fn taken(&self) -> u64 {
        self.handle.status().map_or(0, |status| status.records.taken)
    }

    /// Files of which the sink has all.
    fn finished(&self) -> u64 {
        self.handle.status().map_or(0, |status| status.finished)
    }
}

fn print(dir: &Path, proof: &Proof, plans: &[Replaced]) {
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
    println!("{}", if proof.holds() { "That holds." } else { "THAT IS WRONG: please tell us." });
    println!(
        "Which plan made which offsets, who put it and why:  weir history {}/pipeline.toml",
        dir.display()
    );
}

fn to_json(proof: &Proof, plans: &[Replaced]) -> Value {
    let plans = plans.iter().map(|Replaced { plan, what }| {
        let rows: serde_json::Map<_, _> = TARGETS
            .iter()
            .map(|target| ((*target).to_owned(), proof.rows_of(*plan, target).into()))
            .collect();
        json!({ "plan": plan, "what": what, "rows": rows })
    });
    json!({
        "plans": plans.collect::<Vec<_>>(), "sent": proof.sent, "found": proof.found(),
        "lost": proof.lost, "twice": proof.twice, "went_back": proof.went_back, "holds": proof.holds(),
    })
}
