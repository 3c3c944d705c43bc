//! `docs/config.md`, made from the comments of the file's types. Never knows a key by itself.

use std::fmt::Write as _;

use expect_test::expect_file;
use serde_json::Value as Json;

use super::schema::{SCHEMA, any_key, expected};

const INTRODUCTION: &str = "\
# The pipeline file

A pipeline is described by one TOML file. It is read once, at the start; what is wrong with it is
refused with the line and, where there is one, the name that was probably meant. Relative paths are
relative to the file. `${NAME}` stands for an environment variable only where this page says so.

A *size* is a whole number and a unit, `\"256 MiB\"` (B, kB, MB, GB, TB in thousands; KiB, MiB, GiB,
TiB in 1024s), or an integer number of bytes. A *time* is a whole number and a unit, `\"5 s\"` (ms,
s, min, h, d).

This page is made from the comments in `runtime/src/config/file.rs`: change those and run the tests
with `UPDATE_EXPECT=1`.
";

/// The tables in the order in which a person writes them.
const ORDER: [&str; 10] = [
    "pipeline",
    "source",
    "transform",
    "limits",
    "sandbox",
    "routes",
    "dead_letter",
    "sinks",
    "deploy",
    "admin",
];

#[test]
fn the_reference_says_what_the_comments_say() {
    let mut page = INTRODUCTION.to_owned();
    for name in ORDER {
        section(&mut page, name, &SCHEMA["properties"][name]);
    }
    expect_file!["../../docs/config.md"].assert_eq(&page);
}

#[test]
fn every_table_is_in_the_reference() {
    let mut tables: Vec<_> = SCHEMA["properties"].as_object().expect("the file is a table").keys().collect();
    let mut order = ORDER.to_vec();
    tables.sort();
    order.sort_unstable();
    assert_eq!(tables, order);
}

#[test]
fn every_key_is_explained() {
    fn walk(path: &str, schema: &Json) {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            let explained = schema["description"].is_string() || schema["properties"].is_object();
            assert!(explained, "{path} has no doc comment");
            walk(&path, any_key(schema).unwrap_or(schema));
        }
    }
    walk("", &SCHEMA);
}

/// A table: what it is, its keys, then the tables in it.
fn section(page: &mut String, name: &str, schema: &Json) {
    write!(page, "\n## [{name}]\n\n{}\n", description(schema)).expect("writing to a String does not fail");
    let free = any_key(schema).map(|value| ("NAME", value));
    let named =
        schema["properties"].as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value));
    let mut entries: Vec<_> = named.chain(free).collect();
    let required =
        |key: &str| schema["required"].as_array().is_some_and(|keys| keys.iter().any(|one| one == key));
    entries.sort_by_key(|(key, _)| (!required(key), *key));
    let (tables, keys): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(_, value)| is_table(value));
    if !keys.is_empty() {
        page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    }
    for (key, value) in keys {
        page.push_str(&row(key, value, required(key)));
    }
    for (key, value) in tables {
        section(page, &format!("{name}.{key}"), value);
    }
}

fn row(key: &str, schema: &Json, required: bool) -> String {
    let default = match &schema["default"] {
        _ if required => "required".to_owned(),
        Json::Null => "optional".to_owned(),
        Json::String(text) if text.contains("available") => text.clone(),
        value => format!("`{value}`"),
    };
    let kind = schema["title"].as_str().map_or_else(|| expected(schema), str::to_owned);
    let cells = [format!("`{key}`"), kind, default, description(schema)];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// A table of its own; one that only maps text to text fits into a row.
fn is_table(schema: &Json) -> bool {
    schema["properties"].is_object() || any_key(schema).is_some_and(|values| values["type"] != "string")
}

fn description(schema: &Json) -> String {
    schema["description"].as_str().unwrap_or("").replace('\n', " ")
}
