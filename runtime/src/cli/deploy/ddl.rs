//! `weir deploy --ddl`.

use anyhow::Result;
use serde_json::json;

use super::{flat, refused};
use crate::app::deploy::Deployment;
use crate::cli::Ended;

/// Prints the statements that add the columns which tables lack. On standard error, for which other columns the plan would be refused
/// even then.
pub(super) fn print(deployment: &Deployment, in_json: bool) -> Result<Ended> {
    let statements = deployment.lacking_columns()?;
    let (refused, ended) = refused(deployment.refused_with(&statements)?, |line| eprintln!("{line}"));
    if in_json {
        println!("{}", json!({ "statements": flat(&statements), "refused": refused }));
    } else {
        for (sink, statements) in &statements {
            println!("-- {sink}");
            statements.iter().for_each(|statement| println!("{statement};"));
        }
    }
    match (statements.is_empty(), refused.is_empty()) {
        (true, true) => eprintln!("no table lacks a column"),
        (true, false) => {
            eprintln!("the plan is refused as it is, and there is no column that could be added for it")
        }
        (false, true) => {
            eprintln!("whether anything but columns is in the way, `weir deploy` says once they are there")
        }
        (false, false) => eprintln!("the plan is refused even with these columns"),
    }
    Ok(ended.unwrap_or(Ended::Done))
}
