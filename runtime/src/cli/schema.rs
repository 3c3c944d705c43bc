//! `weir schema`.

use anyhow::Result;
use clap::Args;

use super::Ended;
use crate::config;

/// Print the JSON schema of the pipeline file, for editors
#[derive(Debug, Args)]
#[command(after_long_help = "\
Editors that know JSON schemas for TOML (Taplo, Even Better TOML and those built on them) then complete keys, explain
them and mark mistakes while you write:

    weir schema > weir.schema.json

and as the first line of the pipeline file beside it

    #:schema ./weir.schema.json

What the schema cannot say, such as what a transform declares, `weir run` says.")]
pub(super) struct SchemaArgs {}

pub(super) fn schema(_: &SchemaArgs) -> Result<Ended> {
    let schema = serde_json::to_string_pretty(&config::json_schema()).expect("a schema is plain JSON");
    println!("{schema}");
    Ok(Ended::Done)
}
