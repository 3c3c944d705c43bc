//! `weir dlq ls`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{Filter, codes, is_sent, look_for_sent, opened, tell_without_time, to_json, told};
use crate::app::letters::{Wanted, letters};
use crate::app::replay::Sent;
use crate::cli::Ended;
use crate::cli::screen::{self, count, counted};
use crate::config::PipelineConfig;
use crate::plan::History;
use crate::sandbox::escape;
use crate::sink::back::{Coordinates, Letter, Stage};

/// Characters of an example that are shown.
const EXAMPLE: usize = 60;

/// Count dead letters by stage, reason and plan; or list them
///
/// Letters are named by their records, as TOPIC/PARTITION/OFFSET: `weir dlq show` shows one whole, `weir explain` what else
/// became of its record. Counts are a table on a terminal; else, and with --list, it is lines with tabs in between. Those that
/// `weir dlq replay` sent through the pipeline again stay where they are, and are marked as sent.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
    weir dlq ls pipeline.toml
    weir dlq ls pipeline.toml --stage transform --reason age-not-integer --list -n 20
    weir dlq ls pipeline.toml --since 2026-11-01T00:00:00Z --json

With --list a line is a letter: its record, its stage, of a refused row its number and sink, the plan, how often the record had come \
again by then, `sent` if it was sent through the pipeline again since, and the reasons. With --json it has all there is of it. \
In a pipe a line of counts is: stage, reasons, plan, letters, how many of them were sent again, first, last, and an example.")]
pub(super) struct LsArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// Look at no more than so many letters
    #[arg(short, value_name = "N")]
    n: Option<u64>,
    /// One line per letter
    #[arg(long)]
    list: bool,
    /// Print one JSON object; with --list, one per letter
    #[arg(long)]
    json: bool,
}

/// Letters that have all of this in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    stage: Stage,
    codes: String,
    plan: u64,
}

struct Group {
    n: u64,
    /// How many of them were sent through the pipeline again, if that is known.
    sent: Option<u64>,
    first: Coordinates,
    last: Coordinates,
    example: String,
}

pub(super) fn ls(args: &LsArgs) -> Result<Ended> {
    let (config, history) = opened(&args.pipeline)?;
    let wanted = args.filter.wanted();
    let most = args.n.unwrap_or(u64::MAX);
    let sent = look_for_sent(&config, &history);
    let sent = sent.as_ref();
    let (mut groups, mut n, mut without_time, mut written) = (BTreeMap::new(), 0, 0, Ok(()));
    let mut out = BufWriter::new(std::io::stdout().lock());
    if most > 0 {
        without_time = letters(&config, &history, &wanted, &mut |letter| {
            n += 1;
            if args.list {
                let line = match args.json {
                    true => to_json(&letter, &history, sent).to_string(),
                    false => line(&letter, sent),
                };
                written = writeln!(out, "{line}");
            } else {
                add(&mut groups, letter, sent);
            }
            written.is_ok() && n < most
        })?;
    }
    match written.and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Ended::Done),
        other => other?,
    }
    drop(out);
    match (args.list, args.json) {
        (true, _) => {}
        (false, true) => println!("{}", groups_to_json(&groups, n)),
        (false, false) => print(&groups),
    }
    if n == most && n > 0 && !args.list {
        eprintln!("the first {} are counted; there may be more", counted(n, "letter"));
    }
    if n == 0 && most > 0 {
        eprintln!("{}", none(&config, &history, &wanted)?);
    }
    // Where there are more letters than are looked at, it is not known of how many that is true.
    if n < most {
        tell_without_time(without_time);
    }
    Ok(Ended::Done)
}

/// That there are none; and where reasons were named, which others there are.
pub(super) fn none(config: &PipelineConfig, history: &History, wanted: &Wanted) -> Result<String> {
    if wanted.reasons.is_empty() {
        let of = if wanted.asks_for_time() { " of that time" } else { "" };
        return Ok(format!("no dead letters{of} there"));
    }
    let named = wanted.reasons.join(" or ");
    let mut there = BTreeSet::new();
    letters(config, history, &Wanted { reasons: Vec::new(), ..wanted.clone() }, &mut |letter| {
        there.extend(letter.reasons.into_iter().map(|reason| reason.code));
        true
    })?;
    Ok(escape(&match there.is_empty() {
        true => "no dead letters there, with whatever reason".to_owned(),
        false => {
            let there = there.into_iter().collect::<Vec<_>>().join(", ");
            format!("no dead letters there with reason {named}; there are some with: {there}")
        }
    }))
}

fn add(groups: &mut BTreeMap<Kind, Group>, letter: Letter, sent: Option<&Sent>) {
    let sent = is_sent(sent, &letter).map(u64::from);
    let kind = Kind { stage: letter.stage, codes: codes(&letter), plan: letter.plan };
    match groups.get_mut(&kind) {
        Some(group) => {
            group.n += 1;
            group.sent = group.sent.zip(sent).map(|(all, one)| all + one);
            if letter.origin < group.first {
                group.first = letter.origin;
            } else if letter.origin > group.last {
                group.last = letter.origin;
            }
        }
        None => {
            let example = letter.reasons.first().map(|reason| told(reason).to_owned()).unwrap_or_default();
            let (first, last) = (letter.origin.clone(), letter.origin);
            groups.insert(kind, Group { n: 1, sent, first, last, example });
        }
    }
}

fn line(letter: &Letter, sent: Option<&Sent>) -> String {
    let reasons = letter.reasons.iter().map(|reason| format!("{} ({})", reason.code, told(reason)));
    let reasons = escape(&reasons.collect::<Vec<_>>().join(", "));
    let place = match &letter.refused {
        Some(_) => format!("{} of {}", letter.index, letter.sink),
        None => String::new(),
    };
    let sent = if is_sent(sent, letter) == Some(true) { "sent" } else { "" };
    let Letter { origin, stage, plan, attempt, .. } = letter;
    format!("{origin}\t{stage}\t{place}\t{plan}\t{attempt}\t{sent}\t{reasons}")
}

fn groups_to_json(groups: &BTreeMap<Kind, Group>, n: u64) -> serde_json::Value {
    let group = |(kind, group): (&Kind, &Group)| {
        json!({
            "stage": kind.stage.name(),
            "reasons": kind.codes.split(", ").collect::<Vec<_>>(),
            "plan": kind.plan,
            "letters": group.n,
            "sent": group.sent,
            "first": group.first.to_string(),
            "last": group.last.to_string(),
            "example": group.example,
        })
    };
    json!({ "letters": n, "groups": groups.iter().map(group).collect::<Vec<_>>() })
}

fn print(groups: &BTreeMap<Kind, Group>) {
    let is_terminal = std::io::stdout().is_terminal();
    let row = |(kind, group): (&Kind, &Group)| {
        let number = |n: u64| if is_terminal { count(n) } else { n.to_string() };
        let example = escape(&group.example.chars().take(EXAMPLE).collect::<String>());
        let (first, last) = (group.first.to_string(), group.last.to_string());
        let (n, sent) = (number(group.n), group.sent.map_or_else(String::new, number));
        [kind.stage.to_string(), escape(&kind.codes), kind.plan.to_string(), n, sent, first, last, example]
    };
    if !is_terminal {
        groups.iter().for_each(|group| println!("{}", row(group).join("\t")));
        return;
    }
    let head = ["stage", "reason", "plan", "letters", "sent", "first", "last", "such as"];
    let mut table = screen::table(&head, &[2, 3, 4]);
    for group in groups {
        table.add_row(row(group).to_vec());
    }
    if !groups.is_empty() {
        println!("{table}");
    }
}
