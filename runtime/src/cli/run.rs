//! `weir run`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use crossbeam_channel::{Receiver, bounded};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Ended;
use super::fates;
use super::progress::{self, Progress};
use super::screen::{self, count};
use super::start;
use super::watch::Watch;
use crate::app::{Options, Pipeline, Ran};
use crate::config::PipelineConfig;
use crate::pipeline::Tally;
use crate::pipeline::status::{Records, Status};
use crate::plan::Plan;
use crate::report::{self, Report, Timing, TransformId};

/// Run a pipeline until it is told to stop, or with --once to the end of its input
///
/// While it runs, standard error has a line with records, rate, plan and lag: on a terminal it is written anew, in a pipe it comes
/// after 10 s and then ever more rarely, and not where nothing changed.
///
/// Ctrl-C and SIGTERM: what is under way is finished and committed, then it exits with 0. Started again, it goes on
/// where the sinks stand.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The pipeline file
    pipeline: PathBuf,
    /// Make what the file says the next plan, where it changed since it was last taken over
    #[arg(long)]
    adopt: bool,
    /// Stop at the end of the input instead of waiting for more
    #[arg(long)]
    once: bool,
    /// Take over what changes in the file, the component or a table, whenever it is valid: for whoever writes a rule. What is
    /// no part of a plan, such as a sink, takes another start; then it says so
    #[arg(long, conflicts_with = "once")]
    watch: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RunArgs) -> Result<Ended> {
    let config = PipelineConfig::load(&args.pipeline)?;
    let warnings = config.warnings();
    if !warnings.is_empty() {
        eprintln!("{warnings}");
    }
    let options = Options {
        adopt: args.adopt,
        once: args.once,
        cache_dir: super::cache_dir(),
        compiler: super::this_program(),
        admin: true,
    };
    let done = run_pipeline(&config, &options, args.watch)?;
    if args.json {
        println!("{}", done.to_json());
    } else {
        done.print();
    }
    Ok(done.ended())
}

/// A run and what is to be said of it.
pub(super) struct Done {
    pub(super) plan_number: u64,
    pub(super) plan: Plan,
    pub(super) ran: Ran,
    /// How it stood at the end.
    pub(super) last: Arc<Status>,
    /// From the pipeline file to the first record.
    pub(super) opening: Duration,
    /// From there to the end.
    pub(super) running: Duration,
}

/// Opens and runs a pipeline: says what and where, shows how far it is, and ends on Ctrl-C. Where it is `watched`, what
/// changes in the file and in what it names is taken over.
pub(super) fn run_pipeline(config: &PipelineConfig, options: &Options, watched: bool) -> Result<Done> {
    let stop = stop_on_signals("finishing and committing what is under way")?;
    let begun = clock();
    let pipeline = Pipeline::open(config, options)?;
    let opened = clock();
    let (plan_number, plan) = (pipeline.plan().0, pipeline.plan().1.clone());
    eprintln!("{}", start::what(config, plan_number, pipeline.sinks()));
    let look = pipeline.admin().and_then(|server| start::where_to_look(server, &config.file, options.once));
    look.iter().for_each(|line| eprintln!("{line}"));
    if !options.once {
        eprintln!("it runs until Ctrl-C or SIGTERM, which finish and commit what is under way");
    }
    for note in pipeline.notes() {
        eprintln!("{note}");
    }
    if let Some(by) = pipeline.paused() {
        let (since, file) = (screen::time(by.at_ms), config.file.display());
        eprintln!("paused by {} since {since}: nothing is read until `weir resume {file}`", by.who);
    }
    let progress = Progress::start(pipeline.handle().clone()).context("starting what shows the progress")?;
    let watch = watched.then(|| Watch::start(config.clone(), options.clone())).transpose();
    let watch = watch.context("starting what looks at the files")?;
    let handle = pipeline.handle().clone();
    let ran = pipeline.run(&stop);
    drop(watch);
    progress.end();
    let last = handle.status();
    Ok(Done { plan_number, plan, ran: ran?, last, opening: opened - begun, running: opened.elapsed() })
}

#[expect(clippy::disallowed_methods, reason = "tells a person how long it took")]
pub(super) fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

/// A message for the first SIGTERM or Ctrl-C; the second ends the process at once, which loses nothing either.
pub(super) fn stop_on_signals(doing: &'static str) -> Result<Receiver<()>> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let (tell, stop) = bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("listening for signals")?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if ASKED.swap(true, Ordering::Relaxed) {
                std::process::exit(128 + signal);
            }
            progress::tell(&format!("stopping: {doing} (once more: stop at once)"));
            // Full: it was told already.
            tell.try_send(()).ok();
        }
    })?;
    Ok(stop)
}

impl Done {
    fn tally(&self) -> &Tally {
        &self.ran.outcome.tally
    }

    /// A partition that stopped is a no, or something outside.
    pub(super) fn ended(&self) -> Ended {
        let stopped = &self.ran.outcome.stopped;
        match stopped.iter().map(|(_, stop)| stop.outside).reduce(|a, b| a && b) {
            None => Ended::Done,
            Some(true) => Ended::Outside,
            Some(false) => Ended::No,
        }
    }

    /// What every command that runs records says, and what only a pipeline has.
    pub(super) fn to_json(&self) -> Value {
        let mut said = serde_json::to_value(self.report()).expect("a report is plain data");
        let stopped =
            self.ran.outcome.stopped.iter().map(
                |(at, stop)| json!({ "partition": at.to_string(), "error": stop.text, "hint": stop.hint }),
            );
        let tally = self.tally();
        said["plan"] = self.plan_number.into();
        said["stopped"] = stopped.collect();
        said["counters"] = json!({
            "commits": self.ran.outcome.writers.iter().map(|writer| writer.commits).sum::<u64>(),
            "skipped": tally.skipped,
            "elsewhere": tally.elsewhere,
            "replayed_older": tally.replayed_older,
            "rolled_forward": self.ran.rolled_forward,
            "refused": self.ran.refused,
            "superseded": self.ran.superseded,
            "restarted": tally.restarted,
        });
        said
    }

    fn report(&self) -> Report {
        let (name, version) = (self.plan.name.clone(), self.plan.version.clone());
        let transform = Some(TransformId { name, version, digest: self.plan.digest.clone() });
        let timing = Timing { load_ms: report::milliseconds(self.opening), ..Timing::default() };
        let mut report = Report { transform, timing, ..Report::default() };
        let tally = self.tally();
        report.count(tally, self.running);
        match tally.conserved() {
            true => report.ok("conserved", tally.accounts()),
            false => report.not_ok("conserved", tally.accounts(), None),
        }
        report
    }

    /// Why nothing was read.
    fn why_nothing(&self) -> String {
        match &self.last.paused {
            Some(by) => format!("nothing was read: paused by {} since {}", by.who, screen::time(by.at_ms)),
            None if self.last.ending => "nothing was read until it was told to stop".to_owned(),
            None => "nothing new: every sink has all there is".to_owned(),
        }
    }

    pub(super) fn print(&self) {
        let records = Records::of(self.tally());
        println!("{}", fates::table(&records));
        match records.taken {
            0 if !self.ran.outcome.stopped.is_empty() => {}
            0 => println!("{}", self.why_nothing()),
            _ => println!("{}", fates::equation(&records)),
        }
        if self.ran.refused > 0 {
            let refused = count(self.ran.refused);
            println!("refused by a database or a topic, among its rejects with the reason: {refused}");
        }
        let plan = &self.plan;
        println!("plan {}: {} {} ({})", self.plan_number, plan.name, plan.version, plan.digest);
        if let Some(last) = self.ran.outcome.plan.as_ref().filter(|last| last.plan != self.plan_number) {
            println!("and since then others, last plan {} ({})", last.plan, last.digest);
        }
        for (at, stop) in &self.ran.outcome.stopped {
            println!("stopped {at}: {stop}");
            if let Some(hint) = &stop.hint {
                println!("  hint: {hint}");
            }
        }
    }
}
