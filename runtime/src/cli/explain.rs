//! `weir explain`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::Ended;
use super::progress::Line;
use crate::app::explain::{AtSink, Attempt, Explained, explain as look};
use crate::config::PipelineConfig;
use crate::digest;
use crate::plan::Plan;
use crate::sandbox::escape;
use crate::sink::back::{Coordinates, Stood};
use crate::sink::state::PlanRef;

/// Explain one record: which plan had it, what each sink has of it, and whether that is what it should have
///
/// The plan is the one that the sinks themselves recorded. The record is read at its source once more, or else from its
/// dead letter, and goes through that plan in the sandbox; what comes out is held against what is there. Nothing is
/// written.
///
/// Topics that sinks write to are read from their first record to their end, and a table from its first row where no index has
/// the origin of its rows: that takes as long as they are long. Of files only those are read that may have the record.
///
/// Exit codes: 0 nothing is wrong, as far as it can be known; 1 something is not as it should be; 2 the pipeline has
/// no such record.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
    weir explain pipeline.toml customers-raw/3/1042
    weir explain pipeline.toml --topic customers-raw --partition 3 --offset 1042 --json")]
pub(super) struct ExplainArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// The record, as TOPIC/PARTITION/OFFSET
    #[arg(
        value_name = "RECORD",
        value_parser = origin,
        required_unless_present_all = ["topic", "partition", "offset"],
        conflicts_with_all = ["topic", "partition", "offset"]
    )]
    record: Option<Coordinates>,
    /// Its topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Its partition
    #[arg(long, short, value_name = "P", value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    partition: Option<i64>,
    /// Its offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn origin(text: &str) -> Result<Coordinates, String> {
    text.parse()
}

impl ExplainArgs {
    fn origin(&self) -> Result<Coordinates> {
        let told = || Coordinates::new(self.topic.as_deref()?, self.partition?, self.offset?);
        self.record.clone().or_else(told).context("no record is named")
    }
}

pub(super) fn explain(args: &ExplainArgs) -> Result<Ended> {
    let config = PipelineConfig::load(&args.pipeline)?.in_haste();
    let (origin, line) = (args.origin()?, Line::new(args.json));
    line.say(&format!("looking for {origin} in the sinks and at the source"));
    let explained = look(&config, &super::options(), &origin)?;
    drop(line);
    match args.json {
        true => println!("{}", to_json(&explained)),
        false => print(&explained),
    }
    Ok(if explained.is_as_it_should_be() { Ended::Done } else { Ended::No })
}

fn to_json(explained: &Explained) -> Value {
    let row = |(target, route, stood): &(std::sync::Arc<str>, std::sync::Arc<str>, Stood)| {
        json!({
            "target": &**target,
            "route": &**route,
            "index": stood.index,
            "plan": stood.plan,
            "attempt": stood.attempt,
            "place": stood.place,
            "row": stood.row,
        })
    };
    let sink = |sink: &AtSink| {
        let refused = sink.refused.iter().map(|letter| {
            let reasons: Vec<_> = letter.reasons.iter().map(|reason| &reason.message).collect();
            json!({
                "index": letter.index,
                "plan": letter.plan,
                "attempt": letter.attempt,
                "place": letter.place,
                "reasons": reasons,
            })
        });
        json!({
            "sink": &*sink.sink,
            "next": sink.next,
            "plan": sink.plan,
            "rows": sink.rows.iter().map(row).collect::<Vec<_>>(),
            "refused": refused.collect::<Vec<_>>(),
            "differences": sink.differences,
            "unknown": sink.unknown,
        })
    };
    let attempt = |Attempt { attempt, plan, fate }: &Attempt| {
        json!({
            "attempt": attempt,
            "plan": plan,
            "fate": fate.as_ref().ok(),
            "not_known": fate.as_ref().err(),
        })
    };
    let plan = explained.plan.as_ref();
    json!({
        "record": explained.origin.to_string(),
        "plan": plan.map(|(plan, what)| json!({ "plan": plan.plan, "digest": plan.digest, "what": what })),
        "read_from": explained.read_from.as_ref().ok(),
        "fate": explained.fate.as_ref().ok(),
        "not_known": explained.read_from.as_ref().err().or(explained.fate.as_ref().err()),
        "later": explained.later.iter().map(attempt).collect::<Vec<_>>(),
        "sinks": explained.sinks.iter().map(sink).collect::<Vec<_>>(),
        "differences": explained.differences,
        "as_it_should_be": explained.is_as_it_should_be(),
    })
}

fn print(explained: &Explained) {
    say("record", &explained.origin.to_string());
    match &explained.plan {
        Some((plan, what)) => print_plan(plan, what.as_ref()),
        None => say("plan", "none: no sink has the record"),
    }
    match (&explained.read_from, &explained.fate) {
        (Ok(from), Ok(fate)) => {
            say("read from", from);
            say("fate", fate);
        }
        (Ok(from), Err(why)) => {
            say("read from", from);
            say("fate", &format!("not known: {why}"));
        }
        (Err(why), _) => say("fate", &format!("not known: {why}")),
    }
    for Attempt { attempt, plan, fate } in &explained.later {
        let fate = fate.as_ref().map_or_else(|why| format!("not known: {why}"), |fate| (*fate).to_owned());
        say("again", &format!("attempt {attempt}, plan {plan}: {fate}"));
    }
    explained.differences.iter().for_each(|what| say("WRONG", what));
    explained.sinks.iter().for_each(print_sink);
    println!();
    match (explained.is_as_it_should_be(), &explained.fate, &explained.plan) {
        (false, ..) => println!("What is there is not what should be there."),
        (true, _, None) => println!("Nothing is there, and nothing should be."),
        (true, Ok(_), _) => println!("As far as it can be known, all is as it should be."),
        (true, Err(_), _) => println!("Whether it is as it should be cannot be known."),
    }
}

fn print_plan(plan: &PlanRef, what: Option<&Plan>) {
    let Some(what) = what else {
        return say("plan", &format!("{}, which is not in the plan log ({})", plan.plan, plan.digest));
    };
    say("plan", &format!("{}: {} {}, {}", plan.plan, what.name, what.version, plan.digest));
    what.settings.iter().for_each(|(key, value)| say("setting", &format!("{key} = {value}")));
    what.tables.iter().for_each(|(name, table)| {
        say("table", &format!("{name}, {}", digest::short(&table.digest)));
    });
    let limits = &what.limits;
    say(
        "limits",
        &format!(
            "memory {} B, deadline {} ms, output {} B, fuel per record {}",
            limits.memory_bytes, limits.deadline_ms, limits.output_bytes, limits.fuel_per_record
        ),
    );
}

fn print_sink(sink: &AtSink) {
    println!();
    let has = match (sink.next, sink.plan) {
        (None, _) => "it was never given anything of this partition".to_owned(),
        (Some(next), None) => format!("it does not have the record; it stands at {next}"),
        (Some(next), Some(plan)) => format!("it has the record, by plan {plan}; it stands at {next}"),
    };
    say(&format!("sink {}", sink.sink), &has);
    for (target, _, stood) in &sink.rows {
        let row = match &stood.row {
            Some(row) => Value::Object(row.clone()).to_string(),
            None => "a tombstone".to_owned(),
        };
        let again = again(stood.attempt, stood.plan);
        say("  row", &format!("{} in {target} ({}{again}): {row}", stood.index, stood.place));
    }
    for letter in &sink.refused {
        let why = letter.reasons.iter().map(|reason| &*reason.message).collect::<Vec<_>>().join("; ");
        let again = again(letter.attempt, letter.plan);
        say("  refused", &format!("row {} ({}{again}): {why}", letter.index, letter.place));
    }
    if sink.plan.is_some() && sink.rows.is_empty() && sink.refused.is_empty() && sink.unknown.is_empty() {
        say("  rows", "none");
    }
    sink.unknown.iter().for_each(|what| say("  unknown", what));
    sink.differences.iter().for_each(|what| say("  WRONG", what));
}

/// Of what came again, when that was.
fn again(attempt: u16, plan: u64) -> String {
    match attempt {
        0 => String::new(),
        attempt => format!(", attempt {attempt} by plan {plan}"),
    }
}

fn say(name: &str, what: &str) {
    println!("{name:<12} {}", escape(what));
}
