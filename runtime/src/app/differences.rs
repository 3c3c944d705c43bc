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
        let delimiter = |plan: &Plan| Some(format!("{:?}", plan.tables.get(name)?.delimiter?));
        compare(format!("delimiter of table {name}"), delimiter(was), delimiter(is));
        compare(format!("columns of table {name}"), columns(was, name), columns(is, name));
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

/// Which header of a table stands for which column, where the file says so.
fn columns(plan: &Plan, table: &str) -> Option<String> {
    let columns = &plan.tables.get(table)?.columns;
    let all: Vec<_> = columns.iter().map(|(column, header)| format!("{column} = {header:?}")).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::TableRef;
    use crate::plan::tests::plan;

    #[test]
    fn a_table_says_what_it_is_and_how_it_is_read_only_where_the_file_says_so() {
        let table = |delimiter, columns: &[(&str, &str)]| TableRef {
            digest: "sha256:0123456789abcdef".into(),
            delimiter,
            columns: columns.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        };
        let with = |table: TableRef| {
            let mut with = plan(Some(0), "d");
            with.tables.insert("cities".to_owned(), table);
            with
        };
        let told = |was: &Plan, is: &Plan| {
            differences(was, is).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let (none, plain) = (plan(None, "d"), with(table(None, &[])));
        assert_eq!(told(&none, &plain), "table cities: none -> sha256:0123456789ab");
        assert_eq!(
            told(&plain, &with(table(Some(';'), &[("city", "town")]))),
            "delimiter of table cities: none -> ';'; columns of table cities: none -> city = \"town\""
        );
    }
}
