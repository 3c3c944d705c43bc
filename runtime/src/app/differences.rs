//! In which things two plans differ, for people.

use std::fmt;

use crate::description::{DataType, Description, Field, RouteContent};
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

/// What a person sees of the columns of two plans' routes, in the order in which the transforms name them; of the first of the
/// two it may not be known, and why.
pub(super) fn of_routes(was: Result<&Description, &str>, is: &Description) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |what: String, was: Option<String>, is: Option<String>| {
        if was != is {
            found.push(Difference { what, was, is });
        }
    };
    let was = match was {
        Ok(was) => was,
        Err(why) => {
            let all = is.routes.iter().map(|route| format!("{} {}", route.name, content(&route.content)));
            let all = all.collect::<Vec<_>>().join(", ");
            compare("columns of all routes".to_owned(), Some(format!("not known ({why})")), Some(all));
            return found;
        }
    };
    let of = |description: &Description, name: &str| {
        description.routes.iter().find(|route| *route.name == *name).map(|route| route.content.clone())
    };
    let gone = was.routes.iter().filter(|route| of(is, &route.name).is_none());
    for route in is.routes.iter().chain(gone) {
        match (of(was, &route.name), of(is, &route.name)) {
            (Some(RouteContent::Rows(before)), Some(RouteContent::Rows(then))) => {
                let known = |fields: &[Field], name: &str| fields.iter().find(|f| f.name == name).map(kind);
                let gone = before.iter().filter(|field| known(&then, &field.name).is_none());
                for Field { name, .. } in then.iter().chain(gone) {
                    let what = format!("route {}, column {name}", route.name);
                    compare(what, known(&before, name), known(&then, name));
                }
            }
            (before, then) => {
                let what = format!("columns of route {}", route.name);
                compare(what, before.as_ref().map(content), then.as_ref().map(content));
            }
        }
    }
    found
}

/// What goes out on a route.
fn content(content: &RouteContent) -> String {
    match content {
        RouteContent::Records => "records as they came".to_owned(),
        RouteContent::Rows(fields) => {
            let all: Vec<_> = fields.iter().map(|field| format!("{} {}", field.name, kind(field))).collect();
            format!("[{}]", all.join(", "))
        }
    }
}

/// The type of a column in the words of the contract, and whether it may be null.
fn kind(field: &Field) -> String {
    let name = match field.data_type {
        DataType::Boolean => "boolean",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Double => "double",
        DataType::Decimal { precision, scale } => &format!("decimal({precision}, {scale})"),
        DataType::Utf8 => "utf8",
        DataType::Binary => "binary",
        DataType::Json => "json",
        DataType::Date => "date",
        DataType::Timestamp => "timestamp",
    };
    if field.nullable { format!("{name} or null") } else { name.to_owned() }
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
    use crate::description::{Needs, Route};
    use crate::plan::TableRef;
    use crate::plan::tests::plan;

    fn told(differences: &[Difference]) -> String {
        differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn described(routes: &[(&str, RouteContent)]) -> Description {
        let route = |(name, content): &(&str, RouteContent)| Route {
            name: (*name).into(),
            content: content.clone(),
            doc: String::new(),
        };
        Description {
            name: "t".to_owned(),
            version: "1".to_owned(),
            doc: String::new(),
            needs: Needs::default(),
            settings: Vec::new(),
            tables: Vec::new(),
            routes: routes.iter().map(route).collect(),
            reasons: Vec::new(),
        }
    }

    #[test]
    fn columns_that_come_go_or_change_are_told_by_route_and_all_others_are_not() {
        let field = |name: &str, data_type, nullable| Field {
            name: name.to_owned(),
            data_type,
            nullable,
            doc: String::new(),
        };
        let rows = |fields: &[(&str, DataType, bool)]| {
            RouteContent::Rows(fields.iter().map(|(name, of, null)| field(name, *of, *null)).collect())
        };
        let (text, amount) = (DataType::Utf8, DataType::Decimal { precision: 10, scale: 2 });
        let was = described(&[
            ("usa", rows(&[("id", text, false), ("age", DataType::Int32, false), ("country", text, false)])),
            ("other", rows(&[("id", text, false)])),
            ("raw", RouteContent::Records),
        ]);
        let is = described(&[
            ("usa", rows(&[("amount", amount, true), ("age", DataType::Int32, true), ("id", text, false)])),
            ("raw", rows(&[("value", text, true)])),
        ]);
        let found = of_routes(Ok(&was), &is);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "route usa, column amount: none -> decimal(10, 2) or null",
                "route usa, column age: int32 -> int32 or null",
                "route usa, column country: utf8 -> none",
                "columns of route raw: records as they came -> [value utf8 or null]",
                "columns of route other: [id utf8] -> none",
            ]
        );
        assert!(of_routes(Ok(&was), &was).is_empty());
        let unknown = told(&of_routes(Err("it is gone"), &described(&[("raw", RouteContent::Records)])));
        assert_eq!(unknown, "columns of all routes: not known (it is gone) -> raw records as they came");
    }

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
        let told = |was: &Plan, is: &Plan| told(&differences(was, is));
        let (none, plain) = (plan(None, "d"), with(table(None, &[])));
        assert_eq!(told(&none, &plain), "table cities: none -> sha256:0123456789ab");
        assert_eq!(
            told(&plain, &with(table(Some(';'), &[("city", "town")]))),
            "delimiter of table cities: none -> ';'; columns of table cities: none -> city = \"town\""
        );
    }
}
