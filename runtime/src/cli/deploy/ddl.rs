//! `weir deploy --ddl`.

use anyhow::Result;
use serde_json::json;

use super::{flat, options};
use crate::app::deploy::Deployment;
use crate::cli::{Ended, screen};

/// Prints the statements that add the columns which tables lack. On standard error, for which other columns the plan would be refused
/// even then.
pub(super) fn print(deployment: &Deployment, in_json: bool) -> Result<Ended> {
    let statements = deployment.lacking_columns()?;
    let (mut refused, mut ends) = (Vec::new(), Vec::new());
    for (what, error) in deployment.refused_with(&options(), &statements)? {
        let (found, fix, ended) = screen::told(&error);
        eprintln!("{what}: {found}");
        if let Some(fix) = &fix {
            eprintln!("  hint: {fix}");
        }
        ends.push(ended);
        refused.push(json!({ "what": what, "found": found, "fix": fix }));
    }
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
    Ok(screen::of_all(&ends).unwrap_or(Ended::Done))
}
