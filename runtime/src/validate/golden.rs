//! Golden cases: records with the fate they must have. They run in the sandbox, each alone and all together. They
//! are never written here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::AsArray;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::trial::keeper;
use super::{Error, given, told};
use crate::batch::{Batch, BatchBuilder, RecordRef};
use crate::budget::Permit;
use crate::description::{Description, RouteContent};
use crate::offset::{Offset, TopicPartition};
use crate::route::{self, DEAD_LETTERS, Fate, RoutePart, Routed};
use crate::sandbox::{Init, InstanceLimits, Transform};
use crate::sink::state::PlanRef;

/// A case that came out otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mismatch {
    /// Its name.
    pub case: String,
    /// Its line in the file, from 1.
    pub line: usize,
    /// As the file has it.
    pub expected: Value,
    /// What came out, in the same form.
    pub found: Value,
    /// Whether it was alone in its batch; it may come out otherwise with others.
    pub alone: bool,
}

impl Mismatch {
    /// What differs: its place, what was expected there and what was found. Absent is `nothing`.
    pub fn differences(&self) -> Vec<(String, String, String)> {
        let mut all = Vec::new();
        collect("", &self.expected, &self.found, &mut all);
        all
    }
}

fn collect(place: &str, expected: &Value, found: &Value, all: &mut Vec<(String, String, String)>) {
    let text = |value: &Value| {
        if value == &Value::Null && !place.contains('.') { "nothing".to_owned() } else { value.to_string() }
    };
    match (expected, found) {
        _ if same(expected, found) => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                collect(&inner, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), all);
            }
        }
        _ => all.push((place.to_owned(), text(expected), text(found))),
    }
}

/// Equal, `1` and `1.0` too.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() != b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The cases of a file.
#[derive(Debug)]
pub(super) struct Cases {
    path: PathBuf,
    cases: Vec<Case>,
}

#[derive(Debug)]
struct Case {
    line: usize,
    name: String,
    settings: Vec<(String, String)>,
    input: Option<Vec<u8>>,
    expected: Value,
}

impl Cases {
    /// # Errors
    /// [`Error::Unreadable`]; [`Error::Wrong`] with the line that is no case.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|e| Error::of_file(format!("reading `{}` failed: {e}", path.display()), &e))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let case = |(i, line): (usize, &str)| {
            Case::parse(i + 1, line).map_err(|problem| {
                let text = format!("line {} of `{}` is no case: {problem}", i + 1, path.display());
                Error::wrong(text, "a case is like {\"name\": .., \"settings\": {}, \"input\": .., \"fate\": \"routed\", \"route\": ..}")
            })
        };
        let cases: Vec<Case> = lines.map(case).collect::<Result<_, _>>()?;
        if cases.is_empty() {
            return Err(Error::wrong(
                format!("`{}` has no cases", path.display()),
                "write one case per line, as JSON",
            ));
        }
        Ok(Self { path: path.to_owned(), cases })
    }

    pub(super) fn len(&self) -> usize {
        self.cases.len()
    }

    /// The tables of the cases: what lies beside them as `CASES_TABLE.csv` (`golden_us_cities.csv` beside
    /// `golden.jsonl`), else what is given.
    pub(super) fn tables(
        &self,
        description: &Description,
        given: &[(String, PathBuf)],
    ) -> Vec<(String, PathBuf)> {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let beside = description.tables.iter().map(|need| {
            let file = format!("{stem}_{}.csv", need.name);
            (need.name.clone(), self.path.with_file_name(file))
        });
        given.iter().cloned().chain(beside.filter(|(_, path)| path.exists())).collect()
    }

    /// Runs all cases and returns those that come out otherwise, in the order of the file, and the tables used.
    ///
    /// # Errors
    /// What is wrong with the tables: see [`given::load_tables`].
    pub(super) fn run(
        &self,
        transform: &Transform,
        tables: &[(String, PathBuf)],
        limits: &InstanceLimits,
    ) -> Result<Vec<Mismatch>, Error> {
        let mut by_settings: BTreeMap<&[(String, String)], Vec<&Case>> = BTreeMap::new();
        for case in &self.cases {
            by_settings.entry(&case.settings).or_default().push(case);
        }
        let mut mismatches = Vec::new();
        for (settings, cases) in by_settings {
            let description = transform.describe(settings, limits).map(Arc::new);
            let init = match description {
                Ok(description) => {
                    let tables = given::load_tables(&description, &self.tables(&description, tables))?;
                    Ok(Init { settings: settings.to_vec(), tables, limits: limits.clone(), description })
                }
                Err(e) => Err(told(&e)),
            };
            mismatches.extend(run_group(transform, init.as_ref(), &cases));
        }
        mismatches.sort_by_key(|mismatch| mismatch.line);
        Ok(mismatches)
    }
}

/// All together, then each alone; a case is told once.
fn run_group(transform: &Transform, init: Result<&Init, &String>, cases: &[&Case]) -> Vec<Mismatch> {
    let failed = |error: &str| vec![json!({ "error": error }); cases.len()];
    let init = match init {
        Ok(init) => init,
        Err(error) => return compare(cases, failed(error), false),
    };
    let mut keeper = keeper(transform, init, None);
    let mut run = |cases: &[&Case]| -> Result<Vec<Value>, String> {
        let batch = batch(cases);
        let pieces = keeper.transform(&batch).map_err(|e| told(&e))?.pieces;
        let plan = PlanRef { plan: 1, digest: Arc::clone(transform.digest()) };
        let routed = route::route(&batch, plan, &init.description, Arc::default(), pieces)
            .map_err(|e| e.to_string())?;
        Ok(found(&routed, &init.description))
    };
    let together = run(cases).unwrap_or_else(|error| failed(&error));
    let mut mismatches = compare(cases, together, false);
    for case in cases {
        let alone = run(&[case]).unwrap_or_else(|error| vec![json!({ "error": error })]);
        let told = mismatches.iter().any(|mismatch| mismatch.line == case.line);
        mismatches.extend(compare(&[case], alone, true).into_iter().filter(|_| !told));
    }
    mismatches
}

fn compare(cases: &[&Case], found: Vec<Value>, alone: bool) -> Vec<Mismatch> {
    let pairs = cases.iter().zip(found).filter(|(case, found)| !same(&case.expected, found));
    let mismatch = |(case, found): (&&Case, Value)| Mismatch {
        case: case.name.clone(),
        line: case.line,
        expected: case.expected.clone(),
        found,
        alone,
    };
    pairs.map(mismatch).collect()
}

fn batch(cases: &[&Case]) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new("golden", 0), Offset::ZERO);
    for (i, case) in cases.iter().enumerate() {
        let record = RecordRef { value: case.input.as_deref(), timestamp_ms: -1, ..RecordRef::default() };
        builder.push(Offset::ZERO.plus(i), record);
    }
    let end = builder.next();
    builder.finish(end, Permit::free()).expect("there is a case")
}

/// What became of each record, in the form of the file.
fn found(routed: &Routed, description: &Description) -> Vec<Value> {
    let mut rows: BTreeMap<i64, Vec<(i32, Value)>> = BTreeMap::new();
    let mut dead: BTreeMap<i64, Value> = BTreeMap::new();
    for part in &routed.parts {
        for row in 0..part.rows.num_rows() {
            match *part.route == *DEAD_LETTERS {
                true => _ = dead.insert(part.offsets[row], reasons(part, row)),
                false => rows
                    .entry(part.offsets[row])
                    .or_default()
                    .push((part.index[row], row_of(part, row, description))),
            }
        }
    }
    let mut fate = |(offset, fate): &(Offset, Fate)| match fate {
        Fate::Dropped => json!({ "fate": "dropped" }),
        Fate::Rejected => rejected(&dead[&offset.get()]),
        Fate::Failed => {
            let why = &dead[&offset.get()][0];
            json!({ "fate": "failed", "code": why["code"], "message": why["message"] })
        }
        Fate::Routed => on_routes(rows.remove(&offset.get()).unwrap_or_default()),
    };
    routed.fates.iter().map(&mut fate).collect()
}

fn reasons(part: &RoutePart, row: usize) -> Value {
    let column = part.rows.column_by_name("reasons").expect("dead letters have it");
    serde_json::from_str(column.as_string::<i32>().value(row)).expect("it was just written")
}

fn rejected(reasons: &Value) -> Value {
    let codes: Vec<_> = reasons.as_array().into_iter().flatten().map(|reason| &reason["code"]).collect();
    json!({ "fate": "rejected", "reasons": codes })
}

fn row_of(part: &RoutePart, row: usize, description: &Description) -> Value {
    let typed = |route: &&crate::description::Route| {
        route.name == part.route && matches!(route.content, RouteContent::Rows(_))
    };
    match description.routes.iter().find(typed) {
        Some(_) => json!({ "route": &*part.route, "row": crate::cell::row_as_json(&part.rows, row) }),
        None => json!({ "route": &*part.route }),
    }
}

/// One row stands in the case itself, several are a list.
fn on_routes(mut rows: Vec<(i32, Value)>) -> Value {
    rows.sort_by_key(|(index, _)| *index);
    let mut rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
    if rows.len() != 1 {
        return json!({ "fate": "routed", "rows": rows });
    }
    let mut one = rows.remove(0);
    one["fate"] = "routed".into();
    one
}

impl Case {
    fn parse(line: usize, text: &str) -> Result<Self, String> {
        let mut fields: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let name = fields.remove("name").and_then(|name| Some(name.as_str()?.to_owned()));
        let settings = settings(fields.remove("settings"))?;
        let input = input(&fields.remove("input").ok_or("it has no `input`")?)?;
        if !fields.contains_key("fate") {
            return Err("it has no `fate`".to_owned());
        }
        if let Some(unknown) = fields.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("it has a `{unknown}`, which no case has"));
        }
        let name = name.unwrap_or_else(|| format!("line {line}"));
        Ok(Self { line, name, settings, input, expected: Value::Object(fields) })
    }
}

/// What a case says of its fate.
const KEYS: [&str; 5] = ["fate", "route", "row", "rows", "reasons"];

fn settings(value: Option<Value>) -> Result<Vec<(String, String)>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let pairs = value.as_object().ok_or("`settings` is no object")?;
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let pairs: Option<Vec<_>> = pairs.iter().map(text).collect();
    pairs.ok_or_else(|| "a setting is not a text".to_owned())
}

fn input(value: &Value) -> Result<Option<Vec<u8>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone().into_bytes())),
        other => {
            let encoded = other["base64"].as_str().ok_or("`input` is a text, {\"base64\": ..} or null")?;
            let bytes = BASE64_STANDARD.decode(encoded).map_err(|e| format!("`input` is not base64: {e}"))?;
            Ok(Some(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_case_is_told() {
        for (line, problem) in [
            ("[]", "invalid type"),
            (r#"{"fate":"dropped"}"#, "no `input`"),
            (r#"{"input":"x"}"#, "no `fate`"),
            (r#"{"input":"x","fate":"routed","rout":"usa"}"#, "has a `rout`"),
            (r#"{"input":7,"fate":"dropped"}"#, "is a text"),
            (r#"{"input":{"base64":"?"},"fate":"dropped"}"#, "not base64"),
            (r#"{"input":"x","fate":"dropped","settings":{"a":1}}"#, "not a text"),
        ] {
            let told = Case::parse(1, line).unwrap_err();
            assert!(told.contains(problem), "{line}: {told}");
        }
    }

    #[test]
    fn only_what_differs_is_told() {
        let expected = json!({ "fate": "routed", "route": "usa", "row": { "id": "7", "age": 36 } });
        let found = json!({ "fate": "routed", "route": "usa", "row": { "id": "7", "age": null } });
        let mismatch = Mismatch { case: "x".into(), line: 1, expected, found, alone: true };
        assert_eq!(mismatch.differences(), [("row.age".to_owned(), "36".to_owned(), "null".to_owned())]);
    }

    #[test]
    fn a_whole_number_is_the_same_with_a_point() {
        assert!(same(&json!({"a": [1, "x"]}), &json!({"a": [1.0, "x"]})));
        assert!(!same(&json!(1), &json!("1")) && !same(&json!([1]), &json!([1, 2])));
    }
}
