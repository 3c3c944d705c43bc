//! `weir dlq show`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{is_sent, look_for_sent, moment, opened, origin, to_json};
use crate::app::letters::{Wanted, letters};
use crate::app::replay::Sent;
use crate::cli::Ended;
use crate::plan::History;
use crate::sandbox::escape;
use crate::sink::back::{Coordinates, Letter, Sought};

/// Show a dead letter whole: the record as it came, every reason, and what the transform said
///
/// Where several sinks refused rows of the record, each is shown, unless --sink and --index say which. Exit codes: 0 it is
/// shown; 1 there is none of that record.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Its record, as TOPIC/PARTITION/OFFSET
    #[arg(value_name = "LETTER", value_parser = origin)]
    letter: Coordinates,
    /// Only in this sink
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
    /// Only of the row with this number among those of the record
    #[arg(long, value_name = "N")]
    index: Option<i32>,
    /// Print one JSON object per letter
    #[arg(long)]
    json: bool,
}

pub(super) fn show(args: &ShowArgs) -> Result<Ended> {
    let (config, history) = opened(&args.pipeline)?;
    let wanted = Wanted {
        sink: args.sink.clone(),
        index: args.index,
        sought: Sought::of(&args.letter),
        ..Wanted::default()
    };
    let (sent, mut n) = (look_for_sent(&config, &history), 0);
    let sent = sent.as_ref();
    letters(&config, &history, &wanted, &mut |letter| {
        n += 1;
        match args.json {
            true => println!("{}", to_json(&letter, &history, sent)),
            false => print(&letter, &history, sent, n > 1),
        }
        true
    })?;
    if n > 0 {
        return Ok(Ended::Done);
    }
    eprintln!("no dead letter of {}", args.letter);
    Ok(Ended::No)
}

fn print(letter: &Letter, history: &History, sent: Option<&Sent>, is_next: bool) {
    if is_next {
        println!();
    }
    let plan = match history.plans.get(&letter.plan) {
        Some(plan) => format!("{}: {} {}, {}", letter.plan, plan.name, plan.version, plan.digest),
        None => format!("{}, which is not in the plan log", letter.plan),
    };
    say("letter", &letter.origin.to_string());
    say("stage", letter.stage.name());
    for reason in &letter.reasons {
        let field = reason.field.as_ref().map_or_else(String::new, |field| format!(", field {field}"));
        let detail = reason.detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
        say("reason", &format!("{}{field}: {}{detail}", reason.code, reason.message));
    }
    say("plan", &plan);
    if letter.attempt > 0 {
        say("attempt", &format!("{}: its record had come again so often", letter.attempt));
    }
    if is_sent(sent, letter) == Some(true) {
        say("sent", "through the pipeline again; what it left, `weir explain` shows");
    }
    say("sink", &format!("{}, {}", letter.sink, letter.place));
    if let Some(refused) = &letter.refused {
        say(
            "row",
            &format!("{} of the record, by route {} to {}", letter.index, refused.route, refused.target),
        );
        if let Some(row) = &refused.row {
            say("content", &row.to_string());
        }
    }
    if let Some(meant) = letter.meant.as_ref().filter(|_| letter.refused.is_none()) {
        say("meant", &format!("row {meant} alone: that is what the record came again for"));
    }
    if let Some(time) = letter.timestamp_ms.and_then(moment) {
        say("timestamp", &time);
    }
    for (name, value) in &letter.headers {
        let value = value.as_deref().map_or_else(|| "without a value".to_owned(), shown);
        say("header", &format!("{name}: {value}"));
    }
    if let Some(key) = &letter.key {
        say("key", &shown(key));
    }
    match &letter.value {
        Some(value) => say("value", &shown(value)),
        None if letter.refused.is_none() => say("value", "none: a tombstone"),
        None => {}
    }
    if let Some(trap) = &letter.trap {
        say("trap", trap);
    }
    for line in letter.log.iter().flat_map(|log| log.lines()) {
        say("log", line);
    }
}

fn say(name: &str, what: &str) {
    println!("{name:<10} {}", escape(what));
}

/// Text as it is, other bytes escaped.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}
