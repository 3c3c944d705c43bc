//! `weir validate`.

mod print;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{Ended, pair};
use crate::app::meant_component;
use crate::config::nearest;
use crate::sandbox::Sandbox;
use crate::source::format::Format;
use crate::validate::{Error, Request, Sample, Validation, validate as look};

/// The name of the transform that the program carries.
const BUILTIN: &str = "@customers";
const CUSTOMERS: &[u8] = include_bytes!(env!("WEIR_CUSTOMERS_WASM"));

/// Run a sample through a transform in the sandbox and show where every record goes
///
/// The sample is read and cut into batches as a pipeline would, and run twice: the second time in other batches,
/// another order and another instance, with the same results. Nothing is written. Exit codes: 0 all checks are ok;
/// 1 some check is not, or the component is none that can run; 2 the command or a file is wrong, or not there; 3 a file
/// cannot be read.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// The component, a .wasm file; `@customers` is the one that the program carries
    component: String,
    /// The records: a file, a directory, or `-` for standard input
    #[arg(long, value_name = "FILE|DIR|-", required_unless_present = "expect")]
    sample: Option<PathBuf>,
    /// How to read the sample; without it, files are read by their names
    #[arg(long, value_name = "csv|jsonl|raw", value_parser = format)]
    format: Option<Format>,
    /// A reference table, from a CSV file with a header or a Parquet file
    #[arg(long = "table", value_name = "NAME=FILE", value_parser = pair)]
    tables: Vec<(String, String)>,
    /// A setting of the transform; those not given take their defaults
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// Golden cases, one JSON object per line: `name`, `settings`, `input`, `fate`, `route`, `row`, `reasons`
    ///
    /// Each case runs under its own settings, alone and with all others. A table that lies beside the cases is found
    /// by its name: `golden_us_cities.csv` is the table `us_cities` of `golden.jsonl`. Else it is that of --table.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// How many rows of each route to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    show: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn validate(args: &ValidateArgs) -> Result<Ended> {
    let found = component(&args.component).and_then(|component| {
        let sandbox = Sandbox::new(super::sandbox_options()).map_err(|e| Error::Unreadable(e.to_string()))?;
        let found = look(&sandbox, args.request(&component)?)?;
        Ok((component.len(), found))
    });
    let (bytes, found) = match found {
        Ok(found) => found,
        Err(error) => return Ok(refuse(&error, args.json)),
    };
    match args.json {
        true => println!("{}", to_json(&found)),
        false => print::print(&found, bytes),
    }
    Ok(if found.report.all_ok() { Ended::Done } else { Ended::No })
}

impl ValidateArgs {
    fn request<'a>(&self, component: &'a [u8]) -> Result<Request<'a>, Error> {
        let tables = self.tables.iter().map(|(name, file)| (name.clone(), file.into()));
        Ok(Request {
            component,
            settings: self.settings.clone(),
            tables: tables.collect(),
            sample: self.sample.as_deref().map(|path| sample(path, self.format)).transpose()?,
            expect: self.expect.clone(),
            limits: crate::validate::limits(),
            show: if self.json { 0 } else { self.show },
        })
    }
}

fn component(name: &str) -> Result<Vec<u8>, Error> {
    if name == BUILTIN {
        return Ok(CUSTOMERS.to_vec());
    }
    fs::read(name).map_err(|e| {
        match Error::of_file(format!("reading the component `{name}` failed: {e}"), &e) {
            Error::Wrong { .. } if name.starts_with('@') => Error::Wrong {
                text: format!("no transform `{name}` comes with the program, and there is no such file"),
                hint: nearest::hint(name, [BUILTIN]),
            },
            Error::Wrong { text, .. } => Error::Wrong { text, hint: meant_component(Path::new(name)) },
            other => other,
        }
    })
}

fn sample(path: &Path, format: Option<Format>) -> Result<Sample, Error> {
    match (path.to_str(), format) {
        (Some("-"), Some(format)) => Sample::stream(Box::new(std::io::stdin()), format),
        (Some("-"), None) => Err(Error::Wrong {
            text: "standard input does not tell how to read it".to_owned(),
            hint: Some("say it with `--format csv|jsonl|raw`".to_owned()),
        }),
        _ => Sample::files(path, format),
    }
}

fn to_json(found: &Validation) -> serde_json::Value {
    let mut all = serde_json::to_value(&found.report).expect("a report has a form in JSON");
    let import = |import: &crate::sandbox::wasi::Import| json!({ "interface": import.interface, "answer": import.answer });
    all["imports"] = found.imports.iter().map(import).collect();
    all["mismatches"] = json!(found.mismatches);
    all["left_out"] = json!(found.left_out);
    all
}

/// The request itself is at fault.
fn refuse(error: &Error, in_json: bool) -> Ended {
    let hint = match error {
        Error::Wrong { hint, .. } => hint.as_deref(),
        Error::Unreadable(_) => None,
    };
    eprintln!("error: {error}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    if in_json {
        println!("{}", json!({ "error": error.to_string(), "hint": hint }));
    }
    match error {
        Error::Wrong { .. } => Ended::Wrong,
        Error::Unreadable(_) => Ended::Outside,
    }
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "csv" => Ok(Format::Csv),
        "jsonl" => Ok(Format::JsonLines),
        "raw" => Ok(Format::Raw),
        _ => Err("it is one of csv, jsonl, raw".to_owned()),
    }
}
