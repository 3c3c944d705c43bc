//! Holds a document against the schema of the file, key by key, so that all that is wrong is found at once and at
//! its place. Never looks at what a value refers to.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;
use toml::de::{DeArray, DeTable, DeValue};

use super::{
    diagnostic::Diagnostic,
    document::Document,
    file::File,
    listen::Listen,
    names::{Complaint, PipelineName, TargetRef, TopicName},
    nearest,
    quantity::{ByteSize, Fraction, Period},
};

/// The schema of the whole file, with every part in its place instead of a reference to it.
pub(super) static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<File>().to_value()
});

/// Unknown keys, missing keys and values that cannot be what they should be.
pub(super) fn check(document: &Document<'_>) -> Vec<Diagnostic> {
    let mut checker = Checker { document, path: Vec::new(), found: Vec::new() };
    checker.table(&SCHEMA, document.root());
    checker.found
}

struct Checker<'a> {
    document: &'a Document<'a>,
    /// Where the checker is: keys, and indexes of lists in digits.
    path: Vec<String>,
    found: Vec<Diagnostic>,
}

impl Checker<'_> {
    fn table(&mut self, schema: &Json, table: &DeTable<'_>) {
        let mut meant = Vec::new();
        for (key, value) in table {
            let key = key.get_ref().as_ref();
            self.path.push(key.to_owned());
            match schema["properties"].get(key).or_else(|| any_key(schema)) {
                Some(schema) => self.value(schema, value.get_ref()),
                None => meant.extend(self.unknown(schema, value.get_ref().is_table())),
            }
            self.path.pop();
        }
        for key in
            strings(&schema["required"]).filter(|key| !table.contains_key(*key) && !meant.contains(key))
        {
            self.missing(key, &schema["properties"][key]);
        }
        self.one_kind(schema, table);
    }

    /// A key that the schema does not have; returns the one that was meant, if it is plain.
    fn unknown<'s>(&mut self, schema: &'s Json, is_table: bool) -> Option<&'s str> {
        let (key, parent) = self.path.split_last().expect("an unknown key has a name");
        let valid = || {
            keys(schema).filter(|name| {
                !parent.is_empty() || has_type(&schema["properties"][name], "object") == is_table
            })
        };
        let message = match parent {
            [] if is_table => format!("unknown table [{key}]"),
            [] => format!("unknown key `{key}` before the first table"),
            _ => format!("unknown key `{key}` in [{}]", parent.join(".")),
        };
        let near = nearest::nearest(key, valid());
        let help = nearest::hint(key, valid());
        self.report_key(message, help);
        near
    }

    fn missing(&mut self, key: &str, schema: &Json) {
        let message = match &self.path[..] {
            [] => format!("the table [{key}] is missing"),
            path => format!("`{key}` is missing in [{}]", path.join(".")),
        };
        let help = first_sentence(schema).map(|sentence| format!("`{key}`: {sentence}"));
        let place = self.document.place(&self.borrowed());
        self.found.push(Diagnostic::error(place, message).maybe_help(help));
    }

    /// A source or sink is of one kind.
    fn one_kind(&mut self, schema: &Json, table: &DeTable<'_>) {
        if schema.get("minProperties").is_none() || table.len() == 1 {
            return;
        }
        let name = self.path.join(".");
        let kinds = table.keys().map(|key| key.get_ref().as_ref()).collect::<Vec<_>>();
        let known: Vec<_> = keys(schema).map(|kind| format!("[{name}.{kind}]")).collect();
        let (message, what) = match &kinds[..] {
            [] => (format!("[{name}] has no kind"), "add"),
            several => (format!("[{name}] has {} kinds: {}", several.len(), nearest::list(several)), "keep"),
        };
        self.report_key(message, Some(format!("{what} one of {}", known.join(", "))));
    }

    fn value(&mut self, schema: &Json, value: &DeValue<'_>) {
        let kind = if value.is_table() { "object" } else { value.type_str() };
        let Some(schema) = alternatives(schema).find(|schema| has_type(schema, kind)) else {
            let message = format!("{} must be {}, not {}", self.name(), expected(schema), with_article(kind));
            return self.report_value(message, None);
        };
        match value {
            DeValue::Table(table) => self.table(schema, table),
            DeValue::Array(list) => self.list(&schema["items"], list),
            _ => {
                if let Err(complaint) = scalar(schema, value) {
                    let message = format!("{}: {}", self.name(), complaint.message);
                    self.report_value(message, complaint.help);
                }
            }
        }
    }

    fn list(&mut self, schema: &Json, list: &DeArray<'_>) {
        for (i, item) in list.iter().enumerate() {
            self.path.push(i.to_string());
            self.value(schema, item.get_ref());
            self.path.pop();
        }
    }

    /// "`memory` in [limits]", "an entry of `usa` in [routes]"
    fn name(&self) -> String {
        match &self.path[..] {
            [table] => format!("[{table}]"),
            [tables @ .., list, i] if i.parse::<usize>().is_ok() => {
                format!("an entry of `{list}` in [{}]", tables.join("."))
            }
            [tables @ .., key] => format!("`{key}` in [{}]", tables.join(".")),
            [] => "the file".to_owned(),
        }
    }

    fn borrowed(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    fn report_key(&mut self, message: String, help: Option<String>) {
        let place = self.document.key(&self.borrowed());
        self.found.push(Diagnostic::error(place, message).maybe_help(help));
    }

    fn report_value(&mut self, message: String, help: Option<String>) {
        let place = self.document.place(&self.borrowed());
        self.found.push(Diagnostic::error(place, message).maybe_help(help));
    }
}

/// A value of the right type that still may not be right: a choice, a bound, a name, a quantity.
fn scalar(schema: &Json, value: &DeValue<'_>) -> Result<(), Complaint> {
    if schema["title"] == "fraction" {
        return as_float(value).map_or(Ok(()), |number| Fraction::parse(number).map(drop));
    }
    if let DeValue::Integer(integer) = value {
        return number(schema, i64::from_str_radix(integer.as_str(), integer.radix()).ok());
    }
    let Some(text) = value.as_str() else { return Ok(()) };
    let choices = choices(schema);
    if !choices.is_empty() && !choices.contains(&text) {
        return Err(Complaint {
            message: format!("unknown value `{text}`"),
            help: nearest::hint(text, choices),
        });
    }
    match schema["title"].as_str() {
        Some("size") => ByteSize::parse(text).map(drop),
        Some("time") => Period::parse(text).map(drop),
        Some("pipeline name") => PipelineName::parse(text).map(drop),
        Some("topic name") => TopicName::parse(text).map(drop),
        Some("address") => Listen::parse(text).map(drop),
        Some("target") => TargetRef::parse(text).map(drop),
        _ if schema["minLength"] == 1 && text.is_empty() => {
            Err(Complaint { message: "nothing is written here".to_owned(), help: None })
        }
        _ if schema["maxLength"] == 1 && text.chars().count() != 1 => {
            Err(Complaint { message: format!("`{text}` is not one character"), help: None })
        }
        _ => Ok(()),
    }
}

fn as_float(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64)
        }
        _ => None,
    }
}

fn number(schema: &Json, value: Option<i64>) -> Result<(), Complaint> {
    let at_least = if schema["title"] == "size" { 1 } else { schema["minimum"].as_i64().unwrap_or(i64::MIN) };
    let at_most = match schema["format"].as_str() {
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        _ => i64::MAX,
    };
    match value {
        Some(value) if value < at_least => {
            Err(Complaint { message: format!("{value} is less than {at_least}"), help: None })
        }
        Some(value) if value <= at_most => Ok(()),
        _ => Err(Complaint { message: format!("more than {at_most}"), help: None }),
    }
}

/// What a value may be: several if the schema leaves a choice of types.
fn alternatives(schema: &Json) -> impl Iterator<Item = &Json> {
    let several = schema["anyOf"].as_array().into_iter().flatten();
    let only = schema.get("anyOf").is_none().then_some(schema);
    several.chain(only).filter(|schema| schema["type"] != "null")
}

/// Whether a value of this TOML type (`object` for a table) has a chance.
fn has_type(schema: &Json, kind: &str) -> bool {
    match &schema["type"] {
        Json::String(only) => only == kind,
        Json::Array(several) => several.iter().any(|one| one == kind || one == "number" && kind == "float"),
        _ => kind == "string" && schema["oneOf"].is_array(),
    }
}

/// "a string or a list"
pub(super) fn expected(schema: &Json) -> String {
    alternatives(schema).map(expected_one).collect::<Vec<_>>().join(" or ")
}

fn expected_one(schema: &Json) -> String {
    let choices = choices(schema);
    if !choices.is_empty() {
        return choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(" or ");
    }
    match schema["title"].as_str() {
        Some("size") => "a size such as \"256 MiB\"".to_owned(),
        Some("address") => "an address such as \"127.0.0.1:9640\"".to_owned(),
        Some("time") => "a time such as \"5 s\"".to_owned(),
        Some(title) => with_article(title),
        None => {
            let types = schema["type"].as_str().into_iter().chain(strings(&schema["type"]));
            types.filter(|kind| *kind != "null").map(with_article).collect::<Vec<_>>().join(" or ")
        }
    }
}

fn with_article(kind: &str) -> String {
    match kind {
        "object" => "a table".to_owned(),
        "array" => "a list".to_owned(),
        "integer" => "an integer".to_owned(),
        other => format!("a {other}"),
    }
}

/// The words that a value is one of; none if it is free.
pub(super) fn choices(schema: &Json) -> Vec<&str> {
    schema["oneOf"].as_array().into_iter().flatten().filter_map(|one| one["const"].as_str()).collect()
}

fn first_sentence(schema: &Json) -> Option<String> {
    let text = schema["description"].as_str()?.replace('\n', " ");
    let sentence = text.split(". ").next()?.trim_end_matches('.');
    let (first, rest) = sentence.split_at_checked(1)?;
    Some(first.to_lowercase() + rest)
}

/// The schema for the values of a table whose keys are names.
pub(super) fn any_key(schema: &Json) -> Option<&Json> {
    schema.get("additionalProperties").filter(|schema| schema.is_object())
}

fn keys(schema: &Json) -> impl Iterator<Item = &str> {
    schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}

fn strings(list: &Json) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str)
}
