//! The first rows of each route as text, for people. A cell is safe to print and is never longer than it is useful.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use serde::Serialize;
use serde_json::Value;

use super::sample::Sample;
use crate::cell::{cell, cut};
use crate::route::{DEAD_LETTERS, RoutePart, Routed, records_schema};
use crate::sandbox::escape;

/// The first rows of a route.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The route's name, or [`DEAD_LETTERS`].
    pub route: Arc<str>,
    /// Names, `offset` first; columns in which no shown row has anything are left out.
    pub columns: Vec<String>,
    /// Cells as text.
    pub rows: Vec<Vec<String>>,
    /// Rows there are.
    pub total: u64,
    /// Whether its rows are records as they came.
    #[serde(skip)]
    of_records: bool,
}

/// Collects the first rows of each route.
#[derive(Debug)]
pub(super) struct Collected {
    limit: usize,
    routes: Vec<Shown>,
}

impl Collected {
    pub(super) fn new(limit: usize, routes: impl Iterator<Item = Arc<str>>) -> Self {
        let empty =
            |route| Shown { route, columns: Vec::new(), rows: Vec::new(), total: 0, of_records: false };
        Self { limit, routes: routes.chain([DEAD_LETTERS.into()]).map(empty).collect() }
    }

    pub(super) fn add(&mut self, routed: &Routed, sample: &Sample) {
        for part in &routed.parts {
            let shown = self.routes.iter_mut().find(|shown| shown.route == part.route);
            let shown = shown.expect("routes are declared");
            shown.total += part.rows.num_rows() as u64;
            let wanted = self.limit.saturating_sub(shown.rows.len()).min(part.rows.num_rows());
            if wanted > 0 {
                shown.add(part, wanted, routed.at.partition, sample);
            }
        }
    }

    pub(super) fn finish(self) -> Vec<Shown> {
        self.routes.into_iter().map(Shown::without_empty_columns).collect()
    }
}

impl Shown {
    fn add(&mut self, part: &RoutePart, rows: usize, partition: i32, sample: &Sample) {
        let dead = &*part.route == DEAD_LETTERS;
        if self.columns.is_empty() {
            self.columns = vec!["offset".to_owned()];
            self.of_records = dead || is_of_records(part);
            match dead {
                true => self.columns.extend(["stage", "reason", "record", "log"].map(str::to_owned)),
                false => {
                    self.columns.extend(columns(part).map(|i| part.rows.schema().field(i).name().clone()))
                }
            }
        }
        for row in 0..rows {
            let mut cells = vec![match sample.n_files() {
                1 => part.offsets[row].to_string(),
                _ => format!("{}:{}", escape(sample.name(partition)), part.offsets[row]),
            }];
            match dead {
                true => cells.extend(dead_letter(&part.rows, row)),
                false => cells.extend(columns(part).map(|i| text_or_bytes(&part.rows, i, row))),
            }
            self.rows.push(cells);
        }
    }

    fn without_empty_columns(mut self) -> Self {
        let of_records = self.of_records;
        let keep =
            |i: &usize| !of_records || self.rows.iter().any(|row| !matches!(row[*i].as_str(), "" | "null"));
        let keep: Vec<usize> = (0..self.columns.len()).filter(keep).collect();
        let only = |all: &[String]| keep.iter().map(|&i| all[i].clone()).collect();
        self.columns = only(&self.columns);
        self.rows = self.rows.iter().map(|row| only(row)).collect();
        self
    }
}

fn is_of_records(part: &RoutePart) -> bool {
    part.rows.schema() == records_schema()
}

/// Of a record's key and value, text and bytes are shown in one column.
fn columns(part: &RoutePart) -> impl Iterator<Item = usize> {
    let twice = if is_of_records(part) { &["key_bytes", "value_bytes"][..] } else { &[] };
    let schema = part.rows.schema();
    (0..part.rows.num_columns()).filter(move |&i| !twice.contains(&schema.field(i).name().as_str()))
}

/// The cell, or that of the column of bytes that stands for it.
fn text_or_bytes(rows: &RecordBatch, column: usize, row: usize) -> String {
    let schema = rows.schema();
    let bytes = rows.column_by_name(&format!("{}_bytes", schema.field(column).name()));
    match bytes.filter(|bytes| schema == records_schema() && bytes.is_valid(row)) {
        Some(bytes) => cell(bytes.as_ref(), row),
        None => cell(rows.column(column).as_ref(), row),
    }
}

/// Stage, reasons, the record and the guest's last words.
fn dead_letter(rows: &RecordBatch, row: usize) -> [String; 4] {
    let get = |name: &str| {
        let column = rows.column_by_name(name).filter(|column| column.is_valid(row));
        column.map(|column| cell(column.as_ref(), row)).unwrap_or_default()
    };
    let record = match get("value") {
        text if !text.is_empty() => text,
        _ => get("value_bytes"),
    };
    let reasons = rows.column_by_name("reasons").expect("dead letters have it").as_string::<i32>().value(row);
    [get("stage"), cut(&escape(&reasons_as_text(reasons))), record, get("log")]
}

/// `age-not-integer ("abc"), email-not-text`
fn reasons_as_text(reasons: &str) -> String {
    let reasons: Vec<Value> = serde_json::from_str(reasons).unwrap_or_default();
    let one = |reason: &Value| {
        let code = reason["code"].as_str().unwrap_or_default().to_owned();
        // A reject's message is the same for every record; that of a failure or of the source is not.
        let more = reason.get("detail").unwrap_or(&reason["message"]).as_str();
        more.map_or(code.clone(), |more| format!("{code} ({more})"))
    };
    reasons.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reject_tells_what_was_found_and_a_failure_what_was_said() {
        let reasons =
            r#"[{"code":"a","message":"same","detail":"x"},{"code":"b","message":"same","detail":null}]"#;
        assert_eq!(reasons_as_text(reasons), "a (x), b");
        assert_eq!(reasons_as_text(r#"[{"code":"trap","message":"boom"}]"#), "trap (boom)");
    }
}
