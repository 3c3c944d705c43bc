//! A value of a column for people: on one line, safe to print, not too long. Nothing is ever read back from it.

use std::sync::Arc;

use arrow::array::{Array, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use serde_json::Value;

use crate::sandbox::escape;
use crate::sink::json::JsonRows;

/// Characters of a value that are kept.
const CELL: usize = 240;

/// A value as text on one line: text as it is, bytes escaped, all else as in JSON.
pub(crate) fn cell(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    let text = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => column.as_binary::<i32>().value(row).escape_ascii().to_string(),
        _ => return in_json(column, row),
    };
    line(&text)
}

/// The bytes of a key or a header, as text where they are.
pub(crate) fn bytes(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    match std::str::from_utf8(bytes) {
        Ok(text) => line(text),
        Err(_) => cut(&bytes.escape_ascii().to_string()),
    }
}

/// Any text, as a value is shown.
pub(crate) fn line(text: &str) -> String {
    cut(&escape(text))
}

fn in_json(column: &dyn Array, row: usize) -> String {
    let schema = Schema::new(vec![arrow::datatypes::Field::new("x", column.data_type().clone(), true)]);
    let rows =
        RecordBatch::try_new(Arc::new(schema), vec![column.slice(row, 1)]).expect("one row of one column");
    match row_as_json(&rows, 0) {
        Value::Object(fields) => match &fields["x"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

/// A row in the one form that rows have in JSON.
pub(crate) fn row_as_json(rows: &RecordBatch, row: usize) -> Value {
    JsonRows::new(rows).expect("every declared type has a form in JSON").value(row)
}

pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Int64Array, StringArray};

    use super::*;

    #[test]
    fn cells_are_safe_to_print() {
        let text = StringArray::from(vec![Some("a\u{1b}[31m\nb"), None, Some("")]);
        assert_eq!(cell(&text, 0), "a\\u{1b}[31m\\u{a}b");
        assert_eq!((cell(&text, 1), cell(&text, 2)), ("null".to_owned(), String::new()));
        assert_eq!(cell(&BinaryArray::from(vec![&b"\xffa"[..]]), 0), "\\xffa");
        assert_eq!(cell(&Int64Array::from(vec![-3]), 0), "-3");
        let long = StringArray::from(vec!["é".repeat(1_000)]);
        assert_eq!(cell(&long, 0).chars().count(), CELL + 1);
    }

    #[test]
    fn json_that_is_no_value_here_is_shown_as_it_is() {
        use crate::description::{DataType, Field, Route, RouteContent};
        let field =
            Field { name: "doc".into(), data_type: DataType::Json, nullable: false, doc: String::new() };
        let content = RouteContent::Rows(vec![field]);
        let schema = Route { name: "r".into(), content, doc: String::new() }.schema();
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for text in ["1e400", r#""\ud800""#, &deep] {
            let rows =
                RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(vec![text]))]).unwrap();
            assert!(row_as_json(&rows, 0).as_str().is_some_and(|raw| raw.contains(text)), "{text}");
        }
    }
}
