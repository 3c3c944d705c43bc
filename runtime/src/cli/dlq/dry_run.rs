//! `weir dlq replay --dry-run`.

use std::collections::BTreeMap;
use std::io::{BufWriter, ErrorKind, IsTerminal as _, Stdout, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use comfy_table::Table;
use serde_json::{Value, json};

use super::{reason_to_json, record_of, told};
use crate::app::deploy::Changes;
use crate::app::replay::Selected;
use crate::app::replay::dry_run::{Becomes, DryRun, Foreseen, Rows};
use crate::cli::screen::{self, count};
use crate::cli::{Ended, options, pair};
use crate::config::PipelineConfig;
use crate::sandbox::escape;
use crate::sink::back::Reason;

/// Letters that a terminal shows; in a pipe, each has its line.
const SHOWN: u64 = 100;

/// What letters go through where nothing is copied.
#[derive(Debug, Args)]
pub(super) struct By {
    /// With --dry-run: by this component, a .wasm file, with the settings and tables that run
    #[arg(value_name = "COMPONENT")]
    component: Option<PathBuf>,
    /// With --dry-run: by another setting
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// With --dry-run: by another reference table
    #[arg(long = "table", value_name = "NAME=FILE", value_parser = pair)]
    tables: Vec<(String, String)>,
}

impl By {
    /// Whether it is the rule that runs.
    pub(super) fn is_what_runs(&self) -> bool {
        self.component.is_none() && self.settings.is_empty() && self.tables.is_empty()
    }

    pub(super) fn open(&self, config: &PipelineConfig) -> Result<DryRun> {
        let changes = Changes {
            component: self.component.clone(),
            settings: self.settings.clone(),
            tables: self.tables.iter().map(|(name, file)| (name.clone(), file.into())).collect(),
            limits: Vec::new(),
        };
        DryRun::open(config, &options(), &changes)
    }
}

/// How many letters have what in common: the fate, and the routes or the reasons.
type Counts = BTreeMap<(&'static str, String), u64>;

pub(super) fn show(
    config: &PipelineConfig,
    dry_run: DryRun,
    letters: &mut dyn Iterator<Item = Result<Selected>>,
    in_json: bool,
) -> Result<Ended> {
    let mut page = Page {
        out: BufWriter::new(std::io::stdout()),
        table: (!in_json && std::io::stdout().is_terminal())
            .then(|| screen::table(&["letter", "attempt", "fate", ""], &[1])),
        in_json,
        counts: Counts::new(),
        n: 0,
        written: Ok(()),
    };
    dry_run.run(config, letters, &mut |foreseen| page.add(&foreseen))?;
    if page.n == 0 && !in_json {
        eprintln!("no dead letters there");
        return Ok(Ended::Done);
    }
    match page.end() {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Ended::Done),
        other => Ok(other.map(|()| Ended::Done)?),
    }
}

struct Page {
    out: BufWriter<Stdout>,
    /// On a terminal.
    table: Option<Table>,
    in_json: bool,
    counts: Counts,
    n: u64,
    written: std::io::Result<()>,
}

impl Page {
    fn add(&mut self, foreseen: &Foreseen) {
        self.n += 1;
        *self.counts.entry((fate(&foreseen.becomes), kind(&foreseen.becomes))).or_default() += 1;
        if self.written.is_err() {
            return;
        }
        let line = row(foreseen);
        match &mut self.table {
            _ if self.in_json => self.written = writeln!(self.out, "{}", to_json(foreseen)),
            None => self.written = writeln!(self.out, "{}", line.join("\t")),
            Some(table) if self.n <= SHOWN => drop(table.add_row(line.to_vec())),
            Some(_) => {}
        }
    }

    fn end(mut self) -> std::io::Result<()> {
        self.written?;
        let out = &mut self.out;
        if self.in_json {
            writeln!(out, "{}", counts_to_json(&self.counts, self.n))?;
            return out.flush();
        }
        let head = ["fate", "", "letters"];
        match &self.table {
            None => {
                writeln!(out)?;
                for ((fate, kind), n) in &self.counts {
                    writeln!(out, "{fate}\t{kind}\t{n}")?;
                }
            }
            Some(letters) => {
                writeln!(out, "{letters}")?;
                if self.n > SHOWN {
                    writeln!(out, "and {} more: in a pipe, each has its line", count(self.n - SHOWN))?;
                }
                let mut table = screen::table(&head, &[2]);
                for ((fate, kind), n) in &self.counts {
                    table.add_row(vec![(*fate).to_owned(), kind.clone(), count(*n)]);
                }
                writeln!(out, "\n{table}")?;
            }
        }
        out.flush()
    }
}

/// In one word or two.
fn fate(becomes: &Becomes) -> &'static str {
    match becomes {
        Becomes::Routed(_) => "routed",
        Becomes::Dropped => "dropped",
        Becomes::Rejected(_) => "rejected",
        Becomes::Failed(_) => "failed",
        Becomes::Stops(_) => "stops",
        Becomes::There => "sent before",
        Becomes::Spent => "spent",
        Becomes::TooLarge(_) => "too large",
        Becomes::Gone(_) => "gone",
    }
}

/// What letters of one fate may differ by: their routes, or their reasons.
fn kind(becomes: &Becomes) -> String {
    let kind = match becomes {
        Becomes::Routed(rows) => rows.iter().map(|rows| &*rows.route).collect::<Vec<_>>().join(", "),
        Becomes::Rejected(reasons) | Becomes::Failed(reasons) => {
            reasons.iter().map(|reason| &*reason.code).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    };
    escape(&kind)
}

/// The letter, its attempt, its fate, and more of that.
fn row(Foreseen { letter, becomes }: &Foreseen) -> [String; 4] {
    let rows = |rows: &Rows| {
        let to = if rows.to.is_empty() { "nowhere".to_owned() } else { rows.to.join(" and ") };
        format!("{}: {} to {to}", rows.route, rows.rows)
    };
    let reason = |reason: &Reason| format!("{} ({})", reason.code, told(reason));
    let more = match becomes {
        Becomes::Routed(all) => all.iter().map(rows).collect::<Vec<_>>().join(", "),
        Becomes::Rejected(all) | Becomes::Failed(all) => {
            all.iter().map(reason).collect::<Vec<_>>().join(", ")
        }
        Becomes::Stops(why) => why.clone(),
        Becomes::TooLarge(large) => format!("{} bytes, and the topic takes {}", large.bytes, large.most),
        Becomes::Gone(gone) => gone.why.clone(),
        Becomes::Dropped | Becomes::There | Becomes::Spent => String::new(),
    };
    let origin = &letter.origin;
    [record_of(origin).to_string(), origin.attempt.to_string(), fate(becomes).to_owned(), escape(&more)]
}

fn to_json(Foreseen { letter, becomes }: &Foreseen) -> Value {
    let rows = |rows: &Rows| json!({ "route": &*rows.route, "rows": rows.rows, "to": rows.to });
    let mut all = json!({
        "letter": record_of(&letter.origin).to_string(),
        "attempt": letter.origin.attempt,
        "fate": fate(becomes),
    });
    if let Some(meant) = &letter.meant {
        all["row"] = json!(meant.to_string());
    }
    match becomes {
        Becomes::Routed(of) => all["routes"] = of.iter().map(rows).collect(),
        Becomes::Rejected(of) | Becomes::Failed(of) => {
            all["reasons"] = of.iter().map(reason_to_json).collect()
        }
        Becomes::Stops(why) => all["why"] = json!(why),
        Becomes::TooLarge(large) => {
            all["bytes"] = json!(large.bytes);
            all["most"] = json!(large.most);
        }
        Becomes::Gone(gone) => all["why"] = json!(gone.why),
        Becomes::Dropped | Becomes::There | Becomes::Spent => {}
    }
    all
}

fn counts_to_json(counts: &Counts, n: u64) -> Value {
    let count = |((fate, kind), n): (&(&str, String), &u64)| {
        let of: Vec<_> = kind.split(", ").filter(|name| !name.is_empty()).collect();
        json!({ "fate": fate, "of": of, "letters": n })
    };
    json!({ "letters": n, "fates": counts.iter().map(count).collect::<Vec<_>>() })
}
