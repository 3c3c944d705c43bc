//! `weir history`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::Ended;
use super::screen;
use crate::app;
use crate::config::PipelineConfig;
use crate::digest;
use crate::plan::{History, InputPartition};
use crate::sandbox::escape;

/// Show which plan made which offsets: plans and cuts, oldest first
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn history(args: &HistoryArgs) -> Result<Ended> {
    let config = PipelineConfig::load(&args.pipeline)?;
    let history = app::history(&config)?;
    let history = history.with_context(|| format!("pipeline {} has never run", config.name))?;
    if args.json {
        println!("{}", to_json(&history));
    } else {
        print(&history);
    }
    Ok(Ended::Done)
}

/// Plans, cuts and what is done.
pub(super) fn to_json(history: &History) -> serde_json::Value {
    let plans = history.plans.iter().map(|(number, plan)| json!({ "plan": number, "what": plan }));
    let cuts = history.adopted.iter().map(|(of, cut)| {
        let input = input_of(history, of);
        json!({ "partition": of.partition, "input": input, "from": cut.from, "plan": cut.plan.plan, "digest": cut.plan.digest })
    });
    let done = history.done.iter().map(|(of, end)| json!({ "partition": of.partition, "records": end }));
    let shadows = history.shadows.iter().map(|(place, shadow)| {
        json!({ "shadow": place, "what": shadow, "ended": history.shadows_ended.get(place) })
    });
    json!({
        "plans": plans.collect::<Vec<_>>(),
        "cuts": cuts.collect::<Vec<_>>(),
        "shadows": shadows.collect::<Vec<_>>(),
        "done": done.collect::<Vec<_>>(),
    })
}

/// The file, or the topic, that a partition is of.
fn input_of<'a>(history: &'a History, of: &'a InputPartition) -> Option<&'a str> {
    let file =
        || history.inputs.iter().find(|entry| entry.partition == of.partition).map(|entry| &*entry.path);
    of.topic.as_deref().or_else(file)
}

fn print(history: &History) {
    let mut plans = screen::table(&["plan", "transform", "digest", "settings", "when", "who", "why"], &[0]);
    for (number, plan) in &history.plans {
        let settings: Vec<_> = plan.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        plans.add_row(vec![
            number.to_string(),
            format!("{} {}", plan.name, plan.version),
            digest::short(&plan.digest).to_owned(),
            settings.join(" "),
            plan.made.as_ref().map_or_else(String::new, |made| screen::time(made.by.at_ms)),
            plan.made.as_ref().map_or_else(|| "the file".to_owned(), |made| escape(&made.by.who)),
            plan.made.as_ref().map_or_else(String::new, |made| escape(&made.why)),
        ]);
    }
    println!("{plans}\n");
    print_shadows(history);
    let mut cuts = screen::table(&["partition", "input", "from offset", "plan"], &[0, 2, 3]);
    for (of, cut) in &history.adopted {
        let input = input_of(history, of).unwrap_or_default().to_owned();
        cuts.add_row(vec![of.partition.to_string(), input, cut.from.to_string(), cut.plan.plan.to_string()]);
    }
    println!("{cuts}");
}

/// Plans that were tried on live records, and how that ended.
fn print_shadows(history: &History) {
    if history.shadows.is_empty() {
        return;
    }
    let head = ["shadow", "beside plan", "transform", "digest", "when", "who", "how it ended"];
    let mut table = screen::table(&head, &[0, 1]);
    for (place, shadow) in &history.shadows {
        let (plan, made) = (&shadow.plan, shadow.plan.made.as_ref());
        let ended = history.shadows_ended.get(place);
        table.add_row(vec![
            place.to_string(),
            plan.replaces.map_or_else(String::new, |beside| beside.to_string()),
            format!("{} {}", escape(&plan.name), escape(&plan.version)),
            digest::short(&plan.digest).to_owned(),
            made.map_or_else(String::new, |made| screen::time(made.by.at_ms)),
            made.map_or_else(String::new, |made| escape(&made.by.who)),
            ended.map_or_else(|| "it runs".to_owned(), |ended| escape(&ended.to_string())),
        ]);
    }
    println!("{table}\n");
}
