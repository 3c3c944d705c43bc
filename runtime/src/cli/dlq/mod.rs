//! `weir dlq`: what went nowhere else, and why.

mod dry_run;
mod list;
mod replay;
mod show;

use std::path::Path;
use std::str::FromStr as _;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Ended;
use super::peek::entry;
use super::screen::counted;
use crate::app;
use crate::app::letters::Wanted;
use crate::app::replay::{Lacking, Sent, lacking};
use crate::config::PipelineConfig;
use crate::origin::{Envelope, Origin};
use crate::plan::History;
use crate::sandbox::escape;
use crate::sink::back::{Coordinates, Letter, Reason, Sought, Stage};

/// Dead letters: records that could not be read, were rejected or failed, and rows that a sink refused
///
/// Letters are read where the sinks have them, also while the pipeline runs: nothing is claimed or locked, and only
/// `replay` writes, to the second input of the pipeline.
#[derive(Debug, Args)]
pub(super) struct DlqArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(list::LsArgs),
    Show(show::ShowArgs),
    Replay(replay::ReplayArgs),
}

/// Which letters.
#[derive(Debug, Args)]
struct Filter {
    /// Only of this stage; may be given several times
    #[arg(long = "stage", value_name = "source|transform|sink", value_parser = Stage::from_str)]
    stages: Vec<Stage>,
    /// Only with this reason, by its code; may be given several times
    #[arg(long = "reason", value_name = "CODE")]
    reasons: Vec<String>,
    /// Only by this plan
    #[arg(long, value_name = "N")]
    plan: Option<u64>,
    /// Only of records of this time or later, such as 2026-11-01T00:00:00Z; those of files have no time, and are left out
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Only of records before this time; those of files have no time, and are left out
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    /// Only of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only of this partition
    #[arg(long, short, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Only of the offsets from A on and before B; A or B may be left out
    #[arg(long, value_name = "A..B", value_parser = offsets)]
    offsets: Option<(i64, i64)>,
    /// Only in this sink
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
}

impl Filter {
    fn wanted(&self) -> Wanted {
        Wanted {
            stages: self.stages.clone(),
            reasons: self.reasons.clone(),
            since_ms: self.since,
            until_ms: self.until,
            sink: self.sink.clone(),
            index: None,
            sought: Sought {
                topic: self.topic.as_deref().map(Into::into),
                partition: self.partition,
                offsets: self.offsets,
                plan: self.plan,
                ..Sought::default()
            },
        }
    }
}

fn time(text: &str) -> Result<i64, String> {
    let time = text.parse::<jiff::Timestamp>();
    time.map(jiff::Timestamp::as_millisecond)
        .map_err(|_| "it is no time such as 2026-11-01T00:00:00Z".to_owned())
}

fn offsets(text: &str) -> Result<(i64, i64), String> {
    let wrong = || "it is not A..B, such as 100..200, 100.. or ..200".to_owned();
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str, otherwise| match text {
        "" => Ok(otherwise),
        text => text.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(wrong),
    };
    Ok((number(from, 0)?, number(to, i64::MAX)?))
}

fn origin(text: &str) -> Result<Coordinates, String> {
    text.parse()
}

pub(super) fn dlq(args: &DlqArgs) -> Result<Ended> {
    match &args.command {
        Command::Ls(args) => list::ls(args),
        Command::Show(args) => show::show(args),
        Command::Replay(args) => replay::run(args),
    }
}

/// A pipeline that has run, and what its plan log says.
fn opened(pipeline: &Path) -> Result<(PipelineConfig, History)> {
    let config = PipelineConfig::load(pipeline)?.in_haste();
    let history = app::history(&config)?;
    let history = history.with_context(|| format!("pipeline {} has never run", config.name))?;
    Ok((config, history))
}

/// Tells that letters were left out since their records have no time, if any were.
fn tell_without_time(n: u64) {
    if n > 0 {
        eprintln!(
            "left out: {} of records without a time, which those of files are; --since and --until ask for one",
            counted(n, "letter")
        );
    }
}

/// What a reason says of the record, or of all such records.
fn told(reason: &Reason) -> &str {
    reason.detail.as_deref().unwrap_or(&reason.message)
}

/// All codes of a letter.
fn codes(letter: &Letter) -> String {
    letter.reasons.iter().map(|reason| &*reason.code).collect::<Vec<_>>().join(", ")
}

/// What names a letter: its record or row, and the attempt at which that became one.
fn named(letter: &Letter) -> Envelope {
    let Coordinates { at, offset } = letter.origin.clone();
    Envelope { origin: Origin { at, offset, attempt: letter.attempt }, meant: letter.meant.clone() }
}

/// Which letters were sent through the pipeline again, or else it is told why that is not known: where a table does not say which
/// attempt a letter is of, one that failed again looks like one that was sent.
fn look_for_sent(config: &PipelineConfig, history: &History) -> Option<Sent> {
    let sent = lacking(config, history, true).and_then(|Lacking { of_letters, of_refused }| {
        let lacks = [of_letters, of_refused].concat();
        ensure!(lacks.is_empty(), "a table cannot say which attempt a letter is of: {}", lacks.join("; "));
        Sent::look(config)
    });
    sent.inspect_err(|error| {
        eprintln!("which letters were sent again is not known: {}", escape(&format!("{error:#}")))
    })
    .ok()
}

/// Whether a letter was, if that is known.
fn is_sent(sent: Option<&Sent>, letter: &Letter) -> Option<bool> {
    sent.map(|sent| sent.has(&named(letter)))
}

/// A letter with all there is of it.
fn to_json(letter: &Letter, history: &History, sent: Option<&Sent>) -> Value {
    let plan = history.plans.get(&letter.plan);
    let header = |(name, value): &(String, Option<Vec<u8>>)| {
        let mut header = Map::from_iter([("name".to_owned(), json!(name))]);
        let (name, value) = entry("value", value.as_deref());
        header.insert(name, json!(value));
        Value::Object(header)
    };
    let mut all = Map::new();
    let mut say = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    say("origin", json!(letter.origin.to_string()));
    say("topic", json!(&*letter.origin.at.topic));
    say("partition", json!(letter.origin.at.partition));
    say("offset", json!(letter.origin.offset));
    say("attempt", json!(letter.attempt));
    say("sent", json!(is_sent(sent, letter)));
    say("index", json!(letter.index));
    say("stage", json!(letter.stage.name()));
    say("reasons", letter.reasons.iter().map(reason_to_json).collect());
    say("trap", json!(letter.trap));
    say("log", json!(letter.log));
    say(
        "plan",
        json!({
            "plan": letter.plan,
            "digest": plan.map(|plan| &*plan.digest),
            "name": plan.map(|plan| &plan.name),
            "version": plan.map(|plan| &plan.version),
        }),
    );
    say("sink", json!(&*letter.sink));
    say("place", json!(letter.place));
    say("timestamp", json!(letter.timestamp_ms.and_then(moment)));
    say("headers", letter.headers.iter().map(header).collect());
    if let Some(refused) = &letter.refused {
        say("target", json!(refused.target));
        say("route", json!(refused.route));
        say("row", json!(refused.row));
    }
    say("meant", json!(letter.meant.as_ref().map(ToString::to_string)));
    for (name, value) in [entry("key", letter.key.as_deref()), entry("value", letter.value.as_deref())] {
        all.insert(name, json!(value));
    }
    Value::Object(all)
}

fn reason_to_json(reason: &Reason) -> Value {
    json!({ "code": reason.code, "field": reason.field, "message": reason.message, "detail": reason.detail })
}

/// The record of a letter, as people name it.
fn record_of(Origin { at, offset, .. }: &Origin) -> Coordinates {
    Coordinates { at: at.clone(), offset: *offset }
}

/// A time as RFC 3339 has it.
fn moment(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_half_open_and_either_end_may_be_left_out() {
        assert_eq!(offsets("3..7"), Ok((3, 7)));
        assert_eq!(offsets("3.."), Ok((3, i64::MAX)));
        assert_eq!(offsets("..7"), Ok((0, 7)));
        for text in ["", "3", "a..b", "-1..2", "1...2"] {
            assert!(offsets(text).is_err(), "{text}");
        }
    }
}
