//! `weir doctor`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::Ended;
use super::screen;
use crate::app::Options;
use crate::app::doctor::{self, Finding, Verdict};
use crate::config::PipelineConfig;

/// Look at everything that a pipeline needs, and say what to mend, in the order to mend it
///
/// The file, the component, its settings, tables and routes; then the state directory, the source, and every sink: whether
/// it can be reached, which version it has, whether this user may do there what the pipeline will, whether tables are there
/// and fit. What a sink would do is tried and undone; only directories of file sinks are made. It may be asked while the
/// pipeline runs.
///
/// Exit codes: 0 nothing to mend; 1 something would stop a partition; 2 the file is wrong, or something does not fit it; 3
/// something could not be reached, and that is all.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Look at the file and what it names on this machine, and reach nothing
    #[arg(long)]
    offline: bool,
    /// Print the statements that make the tables of all SQLite and PostgreSQL sinks instead, and reach nothing
    #[arg(long)]
    ddl: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn doctor(args: &DoctorArgs) -> Result<Ended> {
    let config = match PipelineConfig::load(&args.pipeline) {
        Err(error) if args.json && !args.ddl => {
            let found = error.render(false);
            println!("{}", json!({ "ok": false, "findings": [one("file", "fail", &found, None)] }));
            return Ok(Ended::Wrong);
        }
        other => other?.in_haste(),
    };
    let options = super::options();
    match args.ddl {
        true => print_statements(&doctor::statements(&config, &options)?, args.json),
        false => return Ok(examine(&config, &options, args)),
    }
    Ok(Ended::Done)
}

fn print_statements(all: &[(String, Vec<String>)], in_json: bool) {
    if in_json {
        let sink =
            |(sink, statements): &(String, Vec<String>)| json!({ "sink": sink, "statements": statements });
        return println!("{}", json!({ "sinks": all.iter().map(sink).collect::<Vec<_>>() }));
    }
    for (sink, statements) in all {
        println!("-- {sink}");
        statements.iter().for_each(|statement| println!("{statement};"));
    }
}

fn examine(config: &PipelineConfig, options: &Options, args: &DoctorArgs) -> Ended {
    let mut told = Told { in_json: args.json, findings: Vec::new(), fails: Vec::new(), warns: 0 };
    let warnings = config.warnings();
    let file = config.file.display().to_string();
    told.tell(Finding {
        what: "file".to_owned(),
        verdict: match warnings.is_empty() {
            true => Verdict::Ok(file),
            false => Verdict::Warn { found: warnings.render(false), fix: None },
        },
    });
    doctor::examine(config, options, args.offline, &mut |finding| told.tell(finding));
    told.end()
}

/// What was told so far.
struct Told {
    in_json: bool,
    findings: Vec<Value>,
    /// What was not well, and how a run would end for it.
    fails: Vec<(String, Ended)>,
    /// How much was warned of.
    warns: usize,
}

impl Told {
    fn tell(&mut self, finding: Finding) {
        let (grade, found, fix) = match finding.verdict {
            Verdict::Ok(found) => ("ok", found, None),
            Verdict::Warn { found, fix } => {
                self.warns += 1;
                ("warn", found, fix)
            }
            Verdict::Fail(error) => {
                let (found, fix, ended) = screen::told(&error);
                self.fails.push((finding.what.clone(), ended));
                ("fail", found, fix)
            }
        };
        match self.in_json {
            true => self.findings.push(one(&finding.what, grade, &found, fix.as_deref())),
            false => print(&finding.what, grade, &found, fix.as_deref()),
        }
    }

    fn end(self) -> Ended {
        let ends: Vec<_> = self.fails.iter().map(|(_, ended)| *ended).collect();
        let ended = screen::of_all(&ends).unwrap_or(Ended::Done);
        match (self.in_json, &self.fails[..]) {
            (true, fails) => println!("{}", json!({ "ok": fails.is_empty(), "findings": self.findings })),
            (false, []) if self.warns > 0 => println!("\nnothing to mend, but see what is warned of"),
            (false, []) => println!("\nnothing to mend"),
            (false, fails) => {
                let what: Vec<_> = fails.iter().map(|(what, _)| what.as_str()).collect();
                println!("\nto mend, in this order: {}", what.join("; "));
            }
        }
        ended
    }
}

fn one(what: &str, grade: &str, found: &str, fix: Option<&str>) -> Value {
    json!({ "what": what, "grade": grade, "found": found, "fix": fix })
}

fn print(what: &str, grade: &str, found: &str, fix: Option<&str>) {
    let code = match grade {
        "ok" => "32",
        "warn" => "33",
        _ => "1;31",
    };
    let mark =
        if screen::colour() { format!("\u{1b}[{code}m{grade:<4}\u{1b}[0m") } else { format!("{grade:<4}") };
    println!("{mark}  {what}: {}", found.replace('\n', "\n        "));
    if let Some(fix) = fix {
        println!("        fix: {fix}");
    }
}
