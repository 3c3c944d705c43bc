//! In which things two plans differ, for people.

use std::fmt;

use crate::digest;
use crate::plan::Plan;

/// One thing in which two plans differ.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What, in the words of the pipeline file.
    pub what: String,
    /// What it was, if it was there.
    pub was: Option<String>,
    /// What it is, if it is there.
    pub is: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        write!(f, "{}: {} -> {}", self.what, or_none(&self.was), or_none(&self.is))
    }
}

/// What a person sees of two plans that differ.
pub fn differences(was: &Plan, is: &Plan) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |what: String, was: Option<String>, is: Option<String>| {
        if was != is {
            found.push(Difference { what, was, is });
        }
    };
    let transform =
        |plan: &Plan| Some(format!("{} {} ({})", plan.name, plan.version, digest::short(&plan.digest)));
    compare("transform".into(), transform(was), transform(is));
    let mut keys: Vec<_> = was.settings.keys().chain(is.settings.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        compare(format!("setting {key}"), was.settings.get(key).cloned(), is.settings.get(key).cloned());
    }
    let mut names: Vec<_> = was.tables.keys().chain(is.tables.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let table = |plan: &Plan| plan.tables.get(name).map(|table| digest::short(&table.digest).to_owned());
        compare(format!("table {name}"), table(was), table(is));
        let mapping =
            |plan: &Plan| plan.tables.get(name).map(|t| format!("{:?} {:?}", t.delimiter, t.columns));
        compare(format!("columns of table {name}"), mapping(was), mapping(is));
    }
    let mut routes: Vec<_> = was.routes.keys().chain(is.routes.keys()).collect();
    routes.sort_unstable();
    routes.dedup();
    for route in routes {
        let targets = |plan: &Plan| plan.routes.get(route).map(|to| format!("[{}]", to.join(", ")));
        compare(format!("route {route}"), targets(was), targets(is));
    }
    let limit = |n: u64| Some(n.to_string());
    let (a, b) = (was.limits, is.limits);
    compare("limit memory, bytes".into(), limit(a.memory_bytes), limit(b.memory_bytes));
    compare("limit deadline, ms".into(), limit(a.deadline_ms), limit(b.deadline_ms));
    compare("limit output_bytes".into(), limit(a.output_bytes), limit(b.output_bytes));
    compare("limit fuel_per_record".into(), limit(a.fuel_per_record), limit(b.fuel_per_record));
    found
}
