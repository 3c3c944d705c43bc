//! `weir status`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::{HumanBytes, HumanDuration};
use serde_json::json;

use super::Ended;
use super::fates;
use super::screen::{self, count, counted};
use crate::admin::Answer;
use crate::admin::ask::{self, Place};
use crate::app;
use crate::config::PipelineConfig;
use crate::digest;
use crate::pipeline::status::{Partition, State, Status};
use crate::plan::{By, History};
use crate::sandbox::escape;

/// Show how a running pipeline stands: its partitions, its sinks, and what became of the records
///
/// Asks every process on this machine that runs the pipeline, through its socket; only the user who runs it may. With
/// --address one process is asked where everybody may look, also on another machine. Exit codes: 0 it runs; 1 it runs and
/// a partition stopped; 3 nothing runs: then it tells what the plan log knows.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE", required_unless_present = "address")]
    pipeline: Option<PathBuf>,
    /// Ask there instead, such as 127.0.0.1:9640
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "pipeline")]
    address: Option<SocketAddr>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn status(args: &StatusArgs) -> Result<Ended> {
    if let Some(address) = args.address {
        let answer = ask::status(&Place::Address(address))?;
        return Ok(tell(&[answer], args.json));
    }
    let file = args.pipeline.as_ref().expect("asked for where there is no address");
    let config = PipelineConfig::load(file)?.in_haste();
    let found = ask::processes(&config.admin.socket, config.name.as_str())?;
    let answers: Vec<_> = found.into_iter().map(|(_, answer)| answer).collect();
    match &answers[..] {
        [] => Ok(tell_nothing_runs(&config, args.json)),
        answers => Ok(tell(answers, args.json)),
    }
}

fn tell(answers: &[Answer], in_json: bool) -> Ended {
    match in_json {
        true => println!("{}", json!({ "processes": answers })),
        false => print(answers),
    }
    let stopped = answers.iter().flat_map(|answer| &answer.status.partitions);
    match stopped.filter(|partition| partition.state == State::Stopped).count() {
        0 => Ended::Done,
        _ => Ended::No,
    }
}

fn print(answers: &[Answer]) {
    for answer in answers {
        println!("{}", headline(answer));
        print_trial(&answer.status);
        if let Some(cost) = answer.status.cost_told() {
            println!("  {cost}");
        }
        print_paused(&answer.status);
    }
    print_partitions(answers);
    let mut records = answers[0].status.records.clone();
    answers[1..].iter().for_each(|answer| records.add(&answer.status.records));
    println!("{}\n{}\n", fates::table(&records), fates::equation(&records));
    if records.elsewhere > 0 {
        let n = count(records.elsewhere);
        println!("left out, since the record came again for a row of another sink: {n}\n");
    }
    print_sinks(answers);
}

/// Who runs what since when, and where it can be looked at.
fn headline(answer: &Answer) -> String {
    let (process, status) = (&answer.process, &answer.status);
    let since = HumanDuration(Duration::from_millis(status.running_ms));
    let ends = if status.ending { ", told to stop" } else { "" };
    let at = process.listen.map_or_else(String::new, |address| format!(", http://{address}/"));
    let (name, pid, plan) = (&status.pipeline, process.pid, &status.plan);
    let digest = escape(digest::short(&plan.digest));
    format!("{name}: process {pid} for {since}{ends}, plan {} ({digest}){at}", plan.plan)
}

/// Whether the plan may be taken back yet, and which one is tried beside it.
fn print_trial(status: &Status) {
    if let Some(trial) = &status.trial {
        println!("  {}", escape(&trial.told()));
    }
    if let Some(shadow) = &status.shadow {
        println!("  {}", escape(&shadow.told()));
    }
}

fn print_paused(status: &Status) {
    let told = |what: String, by: &By| println!("  {what} by {} since {}", by.who, screen::time(by.at_ms));
    if let Some(by) = &status.paused {
        told("paused".to_owned(), by);
    }
    for partition in &status.paused_partitions {
        told(format!("partition {} paused", partition.of), &partition.by);
    }
}

fn print_partitions(answers: &[Answer]) {
    let partitions: Vec<_> = answers.iter().flat_map(|answer| &answer.status.partitions).collect();
    let finished: u64 = answers.iter().map(|answer| answer.status.finished).sum();
    if finished > 0 {
        println!("finished since the start: {}", counted(finished, "partition"));
    }
    if partitions.is_empty() {
        return println!("no partition at the moment\n");
    }
    let sinks: BTreeSet<&Arc<str>> =
        partitions.iter().flat_map(|partition| partition.committed.keys()).collect();
    let sinks: Vec<_> = sinks.into_iter().collect();
    let names = sinks.iter().map(|sink| format!("in {sink}"));
    let head: Vec<_> =
        ["partition", "state", "plan", "read", "lag"].map(str::to_owned).into_iter().chain(names).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = screen::table(&head, &(2..head.len()).collect::<Vec<_>>());
    for partition in &partitions {
        table.add_row(row(partition, &sinks));
    }
    println!("\n{table}");
    partitions.into_iter().for_each(print_trouble);
    println!();
}

fn row(partition: &Partition, sinks: &[&Arc<str>]) -> Vec<String> {
    let name = match &partition.input {
        Some(input) => format!("{} ({})", partition.at(), escape(input)),
        None => partition.at().to_string(),
    };
    let number = |n: Option<u64>| n.map_or_else(String::new, count);
    let offset = |offset: Option<crate::offset::Offset>| number(offset.map(|offset| offset.get() as u64));
    let plan = partition.plan.map_or_else(String::new, |plan| plan.to_string());
    let own =
        [name, partition.state.word().to_owned(), plan, offset(partition.read), number(partition.lag())];
    let committed = sinks.iter().map(|sink| offset(partition.committed.get(*sink).copied()));
    own.into_iter().chain(committed).collect()
}

fn print_trouble(partition: &Partition) {
    let Some(trouble) = &partition.trouble else { return };
    println!("{}: {}", partition.at(), escape(&partition.told()));
    if let Some(ms) = trouble.again_in_ms {
        println!("  tried {} times, again in {:.1} s", trouble.times, ms as f64 / 1e3);
    }
    if let Some(hint) = &trouble.hint {
        println!("  hint: {}", escape(hint));
    }
}

/// What each sink has for certain since its process began, and below it each of its targets.
fn print_sinks(answers: &[Answer]) {
    let several = answers.len() > 1;
    let mut table =
        screen::table(&["sink", "rows committed", "refused", "commits", "errors", "busy"], &[1, 2, 3, 4, 5]);
    for answer in answers {
        for sink in &answer.status.sinks {
            let name = match several {
                true => format!("{} (process {})", sink.name, answer.process.pid),
                false => sink.name.to_string(),
            };
            let busy = 100.0 * sink.busy_ms as f64 / (answer.status.running_ms.max(1)) as f64;
            let (rows, writer, refused) = (sink.rows.values().sum(), &sink.writer, sink.own.refused);
            table.add_row(vec![
                name,
                count(rows),
                count(refused),
                count(writer.commits),
                count(writer.errors),
                format!("{busy:.0} %"),
            ]);
            for (target, rows) in &sink.rows {
                table.add_row(vec![format!("  {target}"), count(*rows)]);
            }
        }
    }
    println!("{table}\n");
    for answer in answers {
        let budget = answer.status.budget;
        let (used, limit) = (HumanBytes(budget.used_bytes), HumanBytes(budget.limit_bytes));
        println!("under way: {used} of {limit}");
    }
}

fn tell_nothing_runs(config: &PipelineConfig, in_json: bool) -> Ended {
    let history = app::history(config);
    if in_json {
        let log = history.as_ref().ok().and_then(Option::as_ref).map(super::history::to_json);
        println!("{}", json!({ "processes": [], "history": log }));
        return Ended::Outside;
    }
    let (name, sockets) = (&config.name, config.admin.socket.display());
    println!("{name}: nothing runs on this machine (no process answers at a socket in {sockets})");
    match history {
        Ok(Some(history)) => print_history(&history),
        Ok(None) => println!("it has never run"),
        Err(error) => println!("no plan log: {}", screen::told(&error).0),
    }
    println!("start it: weir run {}", config.file.display());
    Ended::Outside
}

fn print_history(history: &History) {
    if let Some((number, plan)) = history.newest() {
        println!("newest plan: {number}: {} {} ({})", escape(&plan.name), escape(&plan.version), plan.digest);
    }
    if let Some(by) = &history.paused {
        println!("paused by {} since {}", by.who, screen::time(by.at_ms));
    }
    let (begun, done) = (history.started.len() as u64, history.done.len() as u64);
    println!("in the plan log: {} begun, {} of them done", counted(begun, "partition"), count(done));
}
