//! `weir new`: writes a project and says how to go on. It never builds anything.

use std::path::PathBuf;

use super::Ended;
use crate::project::{self, Created, Name};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;

/// Make a transform project that builds
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// Of the project, its directory and its component: a letter, then letters, digits, `-` and `_`
    name: Name,
    /// The language to write the rule in
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// Where the project's directory is made
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    Rust,
}

pub(super) fn new(args: &NewArgs) -> Result<Ended> {
    let created = match args.lang {
        Language::Rust => project::create(&args.name, &args.dir)?,
    };
    if args.json {
        let dir = created.dir.display().to_string();
        println!("{}", json!({ "name": args.name.as_str(), "dir": dir, "files": created.files }));
    } else {
        print!("{}", told(args, &created));
    }
    Ok(Ended::Done)
}

fn told(args: &NewArgs, created: &Created) -> String {
    let dir = created.dir.strip_prefix(".").unwrap_or(&created.dir).display();
    let name = &args.name;
    format!(
        "Made the transform `{name}` in {dir}/: the rule is src/lib.rs, sample.csv fits it.\n\n\
         Next:\n  \
           cd {dir}\n  \
           cargo test\n  \
           weir build\n  \
           weir validate {name}.wasm --sample sample.csv\n"
    )
}
