//! Which column of a file is which column that a transform wants. It never looks at a row.

use std::collections::BTreeMap;

use super::problem::{Problem, nearest};
use crate::description::{Field, TableNeed};

/// For each wanted column the number of the file's column, from 0.
pub(super) fn find_columns(
    need: &TableNeed,
    header: &[String],
    mapped: &BTreeMap<String, String>,
) -> Result<Vec<usize>, Problem> {
    let wanted: Vec<&str> = need.columns.iter().map(|c| c.name.as_str()).collect();
    if let Some(unknown) = mapped.keys().find(|k| !wanted.contains(&k.as_str())) {
        return Err(Problem::NotWanted { column: unknown.clone(), nearest: nearest(unknown, &wanted) });
    }
    need.columns.iter().map(|field| find_column(field, header, mapped.get(&field.name))).collect()
}

fn find_column(field: &Field, header: &[String], mapped: Option<&String>) -> Result<usize, Problem> {
    let matches = |name: &String| match mapped {
        Some(mapped) => name == mapped,
        None => plain(name) == plain(&field.name),
    };
    let found: Vec<usize> = (0..header.len()).filter(|&i| matches(&header[i])).collect();
    let column = field.name.clone();
    match found[..] {
        [one] => Ok(one),
        [first, second, ..] => {
            Err(Problem::Twice { column, first: header[first].clone(), second: header[second].clone() })
        }
        [] => {
            let looked_for = mapped.unwrap_or(&field.name).clone();
            let names: Vec<&str> = header.iter().map(String::as_str).collect();
            let nearest = nearest(&looked_for, &names);
            Err(Problem::Missing { column, looked_for, header: header.join(", "), nearest })
        }
    }
}

/// A name without what people write differently.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).flat_map(char::to_lowercase).collect()
}
