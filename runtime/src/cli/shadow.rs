//! `weir shadow`, and what `weir deploy --shadow` shows: a plan that is tried on live records before it takes over.

use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use super::Ended;
use super::deploy::{self, How, period, stopped};
use super::history;
use super::progress::Line;
use super::run::clock;
use super::screen::{count, counted, time};
use crate::admin;
use crate::admin::ask::{self, Error};
use crate::app;
use crate::app::deploy::{Deployment, Until, drop_shadow, is_overdue};
use crate::comparison::Comparison;
use crate::config::{Period, PipelineConfig, SourceConfig};
use crate::pipeline::shadow::{Report, ShadowState, Standing};
use crate::plan::{History, ShadowEnded};
use crate::sandbox::escape;

/// If nothing is said.
const TIME: Period = Period::seconds(600);

/// So often it is looked again, once the end is in the plan log, whether every process has heard of it.
const LOOKS_AT_THE_END: u32 = 100;

/// When a plan that is tried ends by itself; for `weir deploy --shadow`.
#[derive(Debug, Args)]
pub(super) struct UntilArgs {
    /// With --shadow: it ends once one process has compared so many records
    #[arg(long, value_name = "N")]
    records: Option<NonZeroU64>,
    /// With --shadow: it ends after this time, such as "30 min"; after 10 min where neither is said
    #[arg(long = "for", value_name = "TIME", value_parser = period)]
    time: Option<Period>,
    /// With --shadow and --records: it becomes the next plan by itself, if no more than so many of them differ in the
    /// process that has enough first, and no field
    #[arg(long, value_name = "N", requires = "records")]
    promote_up_to: Option<u64>,
}

impl UntilArgs {
    fn time(&self) -> Option<Period> {
        self.time.or(self.records.is_none().then_some(TIME))
    }

    /// Whether an end is named.
    pub(super) fn is_said(&self) -> bool {
        self.records.is_some() || self.time.is_some()
    }

    pub(super) fn promotes(&self) -> bool {
        self.promote_up_to.is_some()
    }

    pub(super) fn meant(&self) -> Until {
        let ends = |time: Period| admin::now_ms().saturating_add(time.duration().as_millis() as u64);
        Until {
            records: self.records.map(NonZeroU64::get),
            at_ms: self.time().map(ends),
            promote_up_to: self.promote_up_to,
        }
    }

    pub(super) fn told(&self) -> String {
        let records = self.records.map(|n| format!("until {} are compared", count(n.get())));
        let time = self.time().map(|time| format!("for {time}"));
        records.into_iter().chain(time).collect::<Vec<_>>().join(", at most ")
    }
}

/// Look at a plan that is tried on live records, promote it or drop it
///
/// `weir deploy --shadow` begins it. It ends by itself once it has had its records or its time, or when another plan takes the
/// place of the one that it is compared with.
#[derive(Debug, Args)]
pub(super) struct ShadowArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(StatusArgs),
    Promote(PromoteArgs),
    Drop(DropArgs),
}

/// Show what differs, with some of the records, and what either plan costs
///
/// Rows are compared in the fields that both plans have with the same type. A field that only one of them has, or with another type,
/// is named once, and for it alone no record counts as different.
///
/// Asks every process on this machine that runs the pipeline, through its socket, also after the end; only the user who runs it
/// may. Those on other machines are not asked. Exit codes: 0 nothing differs; 1 something does, it ended before
/// a record was compared, or a process cannot try it; 3 nobody knows anything of it.
#[derive(Debug, Args)]
struct StatusArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Make exactly what is tried the next plan
///
/// As `weir deploy` does: it is checked, asked for, and taken over between two batches. It is refused where another plan was put
/// meanwhile, or a sink does not take its columns.
#[derive(Debug, Args)]
struct PromoteArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Keep it whatever it does: it is not taken back by itself
    #[arg(long)]
    no_trial: bool,
    #[command(flatten)]
    how: How,
}

/// End it; nothing of it is left but what `weir history` tells
#[derive(Debug, Args)]
struct DropArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Why, for `weir history`
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn shadow(args: &ShadowArgs) -> Result<Ended> {
    match &args.command {
        Command::Status(args) => status(args),
        Command::Promote(args) => deploy::promote(&args.pipeline, &args.how, args.no_trial),
        Command::Drop(args) => {
            let config = PipelineConfig::load(&args.pipeline)?.in_haste();
            let place = drop_shadow(&config, &args.why)?;
            match args.json {
                true => println!("{}", json!({ "shadow": place, "dropped": true })),
                false => println!("shadow {place} is dropped"),
            }
            Ok(Ended::Done)
        }
    }
}

fn status(args: &StatusArgs) -> Result<Ended> {
    let config = PipelineConfig::load(&args.pipeline)?.in_haste();
    let log = app::history(&config)?.unwrap_or_default();
    let Some((&place, shadow)) = log.shadows.last_key_value() else {
        match args.json {
            true => println!("{}", json!({ "shadow": null })),
            false => println!("{}: no plan was ever tried on live records", config.name),
        }
        return Ok(Ended::Outside);
    };
    let mut tried = Tried::new(place, shadow.plan.replaces.unwrap_or_default());
    tried.begun_ms = shadow.plan.made.as_ref().map(|made| made.by.at_ms);
    tried.read(&log);
    tried.ask(&config)?;
    match args.json {
        true => println!("{}", tried.to_json()),
        false => tried.print(&config),
    }
    Ok(tried.verdict())
}

/// A plan that is tried, and what the processes of this machine say of it.
pub(super) struct Tried {
    pub(super) place: u64,
    pub(super) beside: u64,
    /// As the plan log has it.
    ended: Option<ShadowEnded>,
    /// Whether its time is over, and no process was there to say so.
    overdue: bool,
    /// What it may be, by the plan log.
    next: Next,
    /// What all of them found together.
    report: Option<Report>,
    /// How many know of it.
    processes: usize,
    /// How many run the pipeline.
    running: usize,
    /// When it was begun, in milliseconds since 1970-01-01T00:00:00Z.
    begun_ms: Option<u64>,
}

/// Whether it may become the next plan.
enum Next {
    /// If somebody wants that.
    May,
    /// It is the plan with this number.
    Is(u64),
    /// It may not any more: this plan runs by now, and not the one that it was compared with.
    MayNot(u64),
    /// Nobody wants it any more.
    Dropped,
}

impl Tried {
    pub(super) fn new(place: u64, beside: u64) -> Self {
        let (next, report, ended, begun_ms) = (Next::May, None, None, None);
        Self { place, beside, ended, overdue: false, next, report, processes: 0, running: 0, begun_ms }
    }

    /// What the plan log says of it.
    fn read(&mut self, log: &History) {
        self.ended = log.shadows_ended.get(&self.place).cloned();
        self.overdue = log.shadow().is_some_and(|(place, shadow)| place == self.place && is_overdue(shadow));
        let newest = log.newest().map_or(self.beside, |(newest, _)| newest);
        let after = history::promoted(log, self.place);
        self.next = match (&self.ended, after) {
            (Some(ShadowEnded::Dropped { .. }), _) => Next::Dropped,
            (_, Some(plan)) => Next::Is(plan),
            _ if newest == self.beside => Next::May,
            _ => Next::MayNot(newest),
        };
    }

    /// Asks all processes anew.
    fn ask(&mut self, config: &PipelineConfig) -> Result<()> {
        let (mut all, mut processes) = (None::<Report>, 0);
        let running = ask::processes(&config.admin.socket, config.name.as_str())?;
        self.running = running.len();
        for (place, _) in running {
            let report = match ask::shadow(&place) {
                Ok(answer) => answer.report,
                Err(Error::Nobody { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            let Some(report) = report.filter(|report| report.standing.shadow == self.place) else { continue };
            processes += 1;
            match &mut all {
                None => all = Some(report),
                Some(all) => all.add(&report),
            }
        }
        // A process that is gone has told what it had to tell.
        if all.is_some() {
            (self.report, self.processes) = (all, processes);
        }
        Ok(())
    }

    /// It goes on, and those that run know nothing of it.
    fn unheard(&self) -> String {
        let begun =
            self.begun_ms.map_or_else(String::new, |at| format!("it was begun at {}, and ", time(at)));
        let running = processes(self.running);
        format!("{begun}of {running} on this machine none has heard of it yet: look again in a moment")
    }

    fn standing(&self) -> Option<&Standing> {
        self.report.as_ref().map(|report| &report.standing)
    }

    /// Waits until it has ended and all have said so, or for as long as somebody wants.
    pub(super) fn follow(
        &mut self,
        config: &PipelineConfig,
        deployment: &mut Deployment,
        wait: Option<Period>,
        stop: &Receiver<()>,
        quiet: bool,
    ) -> Result<()> {
        let (begun, mut looks) = (clock(), 0);
        let line = Line::new(quiet);
        loop {
            let over = wait.is_some_and(|wait| begun.elapsed() >= wait.duration());
            self.read(deployment.read_on()?);
            self.ask(config)?;
            if let Some(standing) = self.standing() {
                line.say(&standing.told());
            }
            looks += u32::from(self.ended.is_some());
            let running = self.standing().is_some_and(Standing::is_running);
            let through = self.ended.is_some() && (!running || looks == LOOKS_AT_THE_END);
            let failed =
                self.standing().is_some_and(|standing| matches!(standing.state, ShadowState::Failed(_)));
            if through || failed || over || stopped(stop) {
                return Ok(());
            }
        }
    }

    pub(super) fn verdict(&self) -> Ended {
        let Some(report) = &self.report else { return Ended::Outside };
        let cannot = matches!(report.standing.state, ShadowState::Failed(_));
        let unjudged = report.standing.unjudged > 0;
        // That nothing differs says nothing where nothing was compared.
        let untried = self.ended.is_some() && report.standing.records == 0;
        if cannot || unjudged || untried || !report.comparison.is_same() { Ended::No } else { Ended::Done }
    }

    pub(super) fn to_json(&self) -> Value {
        let Self { place, beside, ended, overdue, next, report, processes, running, .. } = self;
        let plan = if let Next::Is(plan) = next { Some(plan) } else { None };
        json!({
            "shadow": place, "beside": beside, "ended": ended, "overdue": overdue, "can_be_promoted": matches!(next, Next::May), "plan": plan,
            "processes": processes, "running": running, "report": report,
        })
    }

    pub(super) fn print(&self, config: &PipelineConfig) {
        let (place, beside, file) = (self.place, self.beside, config.file.display());
        match &self.ended {
            Some(ended) => println!("shadow {place} beside plan {beside}: {}", escape(&ended.to_string())),
            None if self.overdue => println!(
                "shadow {place} beside plan {beside}: its time is over, and no process runs that would have ended it"
            ),
            None if self.processes == 0 => {
                println!("shadow {place} beside plan {beside}: no process on this machine tries it")
            }
            None => println!("shadow {place} beside plan {beside}: it goes on"),
        }
        match &self.report {
            None if self.running > 0 && self.ended.is_none() => println!("{}", self.unheard()),
            None => println!("no process on this machine knows what it found"),
            Some(report) => print(report, beside),
        }
        if matches!(config.source, SourceConfig::Kafka(_)) {
            println!("asked: {} on this machine; others may have found more", processes(self.processes));
        }
        match (&self.ended, &self.next) {
            (None, _) => println!("look again: weir shadow status {file}; end it: weir shadow drop {file}"),
            (_, Next::May) => println!("have it take over: weir shadow promote {file}"),
            // That is how it ended.
            (Some(ShadowEnded::Promoted { .. } | ShadowEnded::Replaced { .. }), _) | (_, Next::Dropped) => {}
            (_, Next::Is(plan)) => println!("it was promoted since then: it is plan {plan}"),
            (_, Next::MayNot(plan)) => println!(
                "plan {plan} was put since then, and it was compared with plan {beside}: it cannot be promoted any more, \
                 only tried again"
            ),
        }
    }
}

fn processes(n: usize) -> String {
    if n == 1 { "1 process".to_owned() } else { format!("{n} processes") }
}

fn print(report: &Report, beside: u64) {
    let (standing, comparison) = (&report.standing, &report.comparison);
    if let ShadowState::Failed(why) = &standing.state {
        println!("a process cannot try it: {}", escape(why));
    }
    println!("{}", compared(report));
    if let Some(trouble) = &standing.trouble {
        println!("{} came to no comparison: {}", count(standing.unjudged), escape(trouble));
    }
    let records = standing.records;
    if records > 0 {
        println!("{}", costs(records, (standing.cpu_ns_beside, beside), standing.cpu_ns));
    }
    print_differences(comparison);
}

fn compared(Report { standing, comparison }: &Report) -> String {
    let (records, different) = (standing.records, standing.different);
    // Rows are compared in the fields that both have alike.
    let but = if comparison.fields.is_empty() { "" } else { " but for the fields below" };
    format!(
        "{} records compared: {} the same{but}, {} different; {} left out while it was busy with others",
        count(records),
        count(records - different),
        count(different),
        count(standing.skipped)
    )
}

/// What so many records took of a processor, each in nanoseconds: under the plan of that number, and under this one.
pub(super) fn costs(records: u64, (before, beside): (u64, u64), then: u64) -> String {
    let each = |ns: u64| ns as f64 / records as f64 / 1e3;
    let (before, then) = (each(before), each(then));
    format!("processor time per record: {before:.2} µs under plan {beside}, {then:.2} µs under this one")
}

fn print_differences(comparison: &Comparison) {
    for field in &comparison.fields {
        println!("\n  {}", escape(&field.to_string()));
    }
    print_found(comparison, comparison.found.len());
}

/// The kinds of differences, with some records of each; at most so many kinds, those of the most records first.
pub(super) fn print_found(comparison: &Comparison, most: usize) {
    let mut kinds: Vec<_> = comparison.found.iter().collect();
    if kinds.len() > most {
        kinds.sort_by_key(|found| std::cmp::Reverse(found.records));
    }
    for found in kinds.iter().take(most) {
        println!("\n  {} × {}", count(found.records), escape(&found.what.to_string()));
        for sample in &found.samples {
            println!("    {}/{} offset {}", escape(&sample.topic), sample.partition, sample.offset);
            // On another route it may well look the same.
            match sample.was == sample.is {
                true => println!("      was and is {}", sample.is),
                false => println!("      was {}\n      is  {}", sample.was, sample.is),
            }
        }
    }
    if kinds.len() > most {
        println!("\n  {} more: --json has all", counted((kinds.len() - most) as u64, "kind"));
    }
    if comparison.others > 0 {
        println!("\n  {} × something else: there are too many kinds to tell apart", count(comparison.others));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_field_is_another_no_record_is_said_to_be_the_same_without_saying_but_for_what() {
        let standing = json!({
            "shadow": 1, "beside": 0, "digest": "sha256:0", "state": "running", "records": 36_864, "different": 2,
            "of": null, "skipped": 0, "unjudged": 0, "trouble": null, "cpu_ns": 0, "cpu_ns_beside": 0,
        });
        let field = json!({ "route": "route usa", "field": "country", "was": null, "is": "Utf8" });
        for (fields, told) in [
            (json!([]), "36,864 records compared: 36,862 the same, 2 different; "),
            (
                json!([field]),
                "36,864 records compared: 36,862 the same but for the fields below, 2 different; ",
            ),
        ] {
            let comparison =
                json!({ "records": 36_864, "different": 2, "fields": fields, "found": [], "others": 0 });
            let report = json!({ "standing": standing, "comparison": comparison });
            let report: Report = serde_json::from_value(report).unwrap();
            assert!(compared(&report).starts_with(told), "{}", compared(&report));
        }
    }
}
