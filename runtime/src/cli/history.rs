//! `weir history`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::Ended;
use super::screen;
use crate::app::{self, Difference, differences};
use crate::config::PipelineConfig;
use crate::digest;
use crate::plan::{Adopted, History, InputPartition, Plan, ShadowEnded};
use crate::sandbox::escape;

/// Show which plan made which offsets: plans and cuts, oldest first
///
/// Of each plan it says what it changed against the one before: component, settings, tables, routes and limits.
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
    let config = PipelineConfig::load(&args.pipeline)?.in_haste();
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
    let plans = history.plans.iter().map(|(number, plan)| {
        let (changes, shadow) = (changes(history, plan), tried_before(history, *number));
        json!({ "plan": number, "what": plan, "changes": changes, "shadow": shadow })
    });
    let cuts = cuts(history).into_iter().map(|Adopted { of, cut, .. }| {
        let input = input_of(history, of);
        json!({ "partition": of.partition, "input": input, "from": cut.from, "plan": cut.plan.plan, "digest": cut.plan.digest })
    });
    let done = history.done.iter().map(
        |(of, end)| json!({ "partition": of.partition, "input": input_of(history, of), "records": end }),
    );
    let shadows = history.shadows.iter().map(|(place, shadow)| {
        let (changes, ended) = (changes(history, &shadow.plan), history.shadows_ended.get(place));
        json!({ "shadow": place, "what": shadow, "changes": changes, "ended": ended, "promoted": promoted(history, *place) })
    });
    json!({
        "plans": plans.collect::<Vec<_>>(),
        "cuts": cuts.collect::<Vec<_>>(),
        "shadows": shadows.collect::<Vec<_>>(),
        "done": done.collect::<Vec<_>>(),
    })
}

/// From where on each partition has which plan, by plan.
fn cuts(history: &History) -> Vec<&Adopted> {
    let mut all: Vec<_> = history.adopted.iter().collect();
    all.sort_by_key(|Adopted { of, cut, .. }| (cut.plan.plan, of));
    all
}

/// What a plan changed against the one that it took the place of, or would; nothing for the first.
fn changes(history: &History, plan: &Plan) -> Vec<Difference> {
    let before = plan.replaces.and_then(|before| history.plans.get(&before));
    before.map(|before| differences(before, plan)).unwrap_or_default()
}

/// The plan that is what was tried at this place, if that was promoted; also after its end.
pub(super) fn promoted(history: &History, shadow: u64) -> Option<u64> {
    if matches!(history.shadows_ended.get(&shadow), Some(ShadowEnded::Dropped { .. })) {
        return None;
    }
    let tried = &history.shadows.get(&shadow)?.plan;
    let mut next = history.plans.range(shadow..).filter(|(_, plan)| plan.replaces == tried.replaces);
    next.find(|(_, plan)| plan.does_the_same(tried)).map(|(number, _)| *number)
}

/// The place at which a plan was tried that was promoted.
fn tried_before(history: &History, plan: u64) -> Option<u64> {
    let replaced = history.plans.get(&plan)?.replaces;
    let mut beside = history.shadows.iter().rev().filter(|(_, shadow)| shadow.plan.replaces == replaced);
    beside.find(|(shadow, _)| promoted(history, **shadow) == Some(plan)).map(|(shadow, _)| *shadow)
}

/// The file, or the topic, that a partition is of.
fn input_of<'a>(history: &'a History, of: &'a InputPartition) -> Option<&'a str> {
    let file =
        || history.inputs.iter().find(|entry| entry.partition == of.partition).map(|entry| &*entry.path);
    of.topic.as_deref().or_else(file)
}

fn print(history: &History) {
    let head = ["plan", "transform", "digest", "what changed", "when", "who", "why"];
    let mut plans = screen::table(&head, &[0]);
    for (number, plan) in &history.plans {
        let what = match plan.replaces {
            Some(_) => lines(&changes(history, plan)),
            None => settings(plan),
        };
        let promoted = tried_before(history, *number).map(|shadow| format!("as tried by shadow {shadow}"));
        plans.add_row(vec![
            number.to_string(),
            format!("{} {}", escape(&plan.name), escape(&plan.version)),
            digest::short(&plan.digest).to_owned(),
            [Some(what), promoted].into_iter().flatten().collect::<Vec<_>>().join("\n"),
            plan.made.as_ref().map_or_else(String::new, |made| screen::time(made.by.at_ms)),
            plan.made.as_ref().map_or_else(|| "the file".to_owned(), |made| escape(&made.by.who)),
            plan.made.as_ref().map_or_else(String::new, |made| escape(&made.why)),
        ]);
    }
    println!("{plans}\n");
    print_shadows(history);
    let mut cuts = screen::table(&["partition", "input", "from offset", "plan"], &[0, 2, 3]);
    for Adopted { of, cut, .. } in self::cuts(history) {
        let input = input_of(history, of).unwrap_or_default().to_owned();
        cuts.add_row(vec![of.partition.to_string(), input, cut.from.to_string(), cut.plan.plan.to_string()]);
    }
    println!("{cuts}");
}

/// One below the other.
fn lines(changes: &[Difference]) -> String {
    changes.iter().map(|change| escape(&change.to_string())).collect::<Vec<_>>().join("\n")
}

/// What the first plan begins with, against which the others change something.
fn settings(plan: &Plan) -> String {
    let all = plan.settings.iter().map(|(key, value)| escape(&format!("setting {key}: {value}")));
    all.collect::<Vec<_>>().join("\n")
}

/// Plans that were tried on live records, what they would have changed, and how that ended.
fn print_shadows(history: &History) {
    if history.shadows.is_empty() {
        return;
    }
    let head =
        ["shadow", "beside plan", "transform", "digest", "what would change", "when", "who", "how it ended"];
    let mut table = screen::table(&head, &[0, 1]);
    for (place, shadow) in &history.shadows {
        let (plan, made) = (&shadow.plan, shadow.plan.made.as_ref());
        let ended = history.shadows_ended.get(place);
        let done = matches!(ended, Some(ShadowEnded::Done { .. }));
        let since = promoted(history, *place).filter(|_| done);
        let since = since.map_or_else(String::new, |plan| format!("\nand promoted: plan {plan}"));
        table.add_row(vec![
            place.to_string(),
            plan.replaces.map_or_else(String::new, |beside| beside.to_string()),
            format!("{} {}", escape(&plan.name), escape(&plan.version)),
            digest::short(&plan.digest).to_owned(),
            lines(&changes(history, plan)),
            made.map_or_else(String::new, |made| screen::time(made.by.at_ms)),
            made.map_or_else(String::new, |made| escape(&made.by.who)),
            ended.map_or_else(|| "it runs".to_owned(), |ended| escape(&ended.to_string())) + &since,
        ]);
    }
    println!("{table}\n");
}
