//! From what a guest says of itself to a [`Description`] that nobody needs to check again.

use std::collections::HashSet;

use super::bindings::wit;
use crate::description::{
    DataType, Description, Field, Needs, Reason, Route, RouteContent, Setting, TableNeed,
};

/// Names that sinks add columns under.
const RESERVED: &str = "weir_";
const MAX_NAME: usize = 63;
/// Bytes of a text for people. A reason's message is written with each record that is rejected for it.
const MAX_TEXT: usize = 4 << 10;
/// Routes, reasons, or fields of one route.
const MAX_ENTRIES: usize = 1_000;

/// Takes over a description. The error names what is wrong, and where.
pub(super) fn check(said: wit::Description) -> Result<Description, String> {
    let needs = needs(said.needs);
    text("the name", &said.name)?;
    text("the version", &said.version)?;
    text("the description", &said.doc)?;
    few("routes", said.routes.len())?;
    few("reasons", said.reasons.len())?;
    unique("setting", said.settings.iter().map(|s| &s.key))?;
    unique("table", said.tables.iter().map(|t| &t.name))?;
    unique("route", said.routes.iter().map(|r| &r.name))?;
    unique("reason", said.reasons.iter().map(|r| &r.code))?;
    if let Some(route) = said.routes.iter().find(|r| reserved(&r.name)) {
        return Err(format!("route `{}`: names that begin with `{RESERVED}` are the runtime's", route.name));
    }
    Ok(Description {
        name: said.name,
        version: said.version,
        doc: said.doc,
        needs,
        settings: said.settings.into_iter().map(setting).collect::<Result<_, _>>()?,
        tables: said.tables.into_iter().map(table).collect::<Result<_, _>>()?,
        routes: said.routes.into_iter().map(route).collect::<Result<_, _>>()?,
        reasons: said.reasons.into_iter().map(reason).collect::<Result<_, _>>()?,
    })
}

fn needs(said: wit::Envelope) -> Needs {
    Needs {
        keys: said.contains(wit::Envelope::KEYS),
        headers: said.contains(wit::Envelope::HEADERS),
        timestamps: said.contains(wit::Envelope::TIMESTAMPS),
        partitions: said.contains(wit::Envelope::PARTITIONS),
        offsets: said.contains(wit::Envelope::OFFSETS),
    }
}

fn text(what: &str, said: &str) -> Result<(), String> {
    match said.len() > MAX_TEXT {
        true => Err(format!("{what} has {} bytes of text, more than {MAX_TEXT}", said.len())),
        false => Ok(()),
    }
}

fn few(what: &str, n: usize) -> Result<(), String> {
    if n > MAX_ENTRIES { Err(format!("{n} {what}, more than {MAX_ENTRIES}")) } else { Ok(()) }
}

/// Well-formed names, no two of which differ only in case.
fn unique<'a>(kind: &str, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if !well_formed(name) {
            let shown = super::log::escape(&name.chars().take(80).collect::<String>());
            return Err(format!(
                "{kind} `{shown}`: a name is a letter and up to {} of a-z, A-Z, 0-9, `_` and `-`",
                MAX_NAME - 1
            ));
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(format!("{kind} `{name}` is there twice, ignoring case"));
        }
    }
    Ok(())
}

fn well_formed(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn reserved(name: &str) -> bool {
    name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

fn setting(said: wit::Setting) -> Result<Setting, String> {
    let choices = said.annotations.iter().find(|(key, _)| key == "choices").map(|(_, value)| value);
    let choices: Option<Vec<String>> = choices.map(|value| value.split('|').map(str::to_owned).collect());
    if let (Some(choices), Some(default)) = (&choices, &said.default_value)
        && !choices.contains(default)
    {
        return Err(format!("setting `{}`: its default `{default}` is none of its choices", said.key));
    }
    Ok(Setting { key: said.key, default: said.default_value, doc: said.doc, choices })
}

fn table(said: wit::TableNeed) -> Result<TableNeed, String> {
    let at = |e| format!("table `{}`: {e}", said.name);
    let columns = fields(said.columns).map_err(at)?;
    Ok(TableNeed { columns, name: said.name, required: said.required, doc: said.doc })
}

fn route(said: wit::Route) -> Result<Route, String> {
    let content = match said.content {
        wit::RouteContent::Records => RouteContent::Records,
        wit::RouteContent::Rows(said_fields) => {
            let at = |e| format!("route `{}`: {e}", said.name);
            RouteContent::Rows(fields(said_fields).map_err(at)?)
        }
    };
    Ok(Route { name: said.name.into(), content, doc: said.doc })
}

fn reason(said: wit::Reason) -> Result<Reason, String> {
    text(&format!("reason `{}`: its message", said.code), &said.message)?;
    text(&format!("reason `{}`: its field", said.code), said.field.as_deref().unwrap_or_default())?;
    Ok(Reason { code: said.code.into(), field: said.field, message: said.message })
}

fn fields(said: Vec<wit::Field>) -> Result<Vec<Field>, String> {
    if said.is_empty() {
        return Err("it has no fields".to_owned());
    }
    few("fields", said.len())?;
    unique("field", said.iter().map(|f| &f.name))?;
    said.into_iter().map(field).collect()
}

fn field(said: wit::Field) -> Result<Field, String> {
    if reserved(&said.name) {
        return Err(format!("field `{}`: names that begin with `{RESERVED}` are the runtime's", said.name));
    }
    let data_type = match said.data_type {
        wit::DataType::Boolean => DataType::Boolean,
        wit::DataType::Int32 => DataType::Int32,
        wit::DataType::Int64 => DataType::Int64,
        wit::DataType::Double => DataType::Double,
        wit::DataType::Decimal(d) => decimal(d).map_err(|e| format!("field `{}`: {e}", said.name))?,
        wit::DataType::Utf8 => DataType::Utf8,
        wit::DataType::Binary => DataType::Binary,
        wit::DataType::Json => DataType::Json,
        wit::DataType::Date => DataType::Date,
        wit::DataType::Timestamp => DataType::Timestamp,
    };
    Ok(Field { name: said.name, data_type, nullable: said.nullable, doc: said.doc })
}

fn decimal(said: wit::DecimalType) -> Result<DataType, String> {
    let wit::DecimalType { precision, scale } = said;
    if !(1..=38).contains(&precision) || scale > precision {
        return Err(format!("decimal({precision}, {scale}): precision is 1 to 38, scale 0 to precision"));
    }
    Ok(DataType::Decimal { precision, scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, data_type: wit::DataType) -> wit::Field {
        wit::Field { name: name.into(), data_type, nullable: false, doc: String::new(), annotations: vec![] }
    }

    fn with_fields(fields: Vec<wit::Field>) -> wit::Description {
        let content = wit::RouteContent::Rows(fields);
        described(vec![wit::Route { name: "usa".into(), content, doc: String::new(), annotations: vec![] }])
    }

    fn described(routes: Vec<wit::Route>) -> wit::Description {
        wit::Description {
            name: "t".into(),
            version: "1".into(),
            doc: String::new(),
            needs: wit::Envelope::KEYS | wit::Envelope::OFFSETS,
            settings: vec![],
            tables: vec![],
            routes,
            reasons: vec![],
            annotations: vec![],
        }
    }

    fn refuses(fields: Vec<wit::Field>, expected: &str) {
        assert_eq!(check(with_fields(fields)).unwrap_err(), expected);
    }

    #[test]
    fn names_are_well_formed_and_unique() {
        use wit::DataType::Utf8;
        let form = "a name is a letter and up to 62 of a-z, A-Z, 0-9, `_` and `-`";
        for name in ["", "1a", "_a", "a b", "ä", "../x", &"a".repeat(64)] {
            refuses(vec![field(name, Utf8)], &format!("route `usa`: field `{name}`: {form}"));
        }
        refuses(vec![field("a\u{1b}", Utf8)], &format!("route `usa`: field `a\\u{{1b}}`: {form}"));
        let twice = vec![field("age", Utf8), field("Age", Utf8)];
        refuses(twice, "route `usa`: field `Age` is there twice, ignoring case");
        refuses(
            vec![field("weir_offset", Utf8)],
            "route `usa`: field `weir_offset`: names that begin with `weir_` are the runtime's",
        );
        refuses(vec![], "route `usa`: it has no fields");
        assert!(check(with_fields(vec![field(&"a".repeat(63), Utf8), field("A-1_", Utf8)])).is_ok());
    }

    #[test]
    fn what_is_written_with_every_reject_is_short_and_lists_are() {
        let reason =
            |message: String| wit::Reason { code: "bad".into(), field: None, message, annotations: vec![] };
        let said = |message| wit::Description { reasons: vec![reason(message)], ..described(vec![]) };
        assert!(check(said("x".repeat(4096))).is_ok());
        let text = "reason `bad`: its message has 4097 bytes of text, more than 4096";
        assert_eq!(check(said("x".repeat(4097))).unwrap_err(), text);
        let fields = (0..1001).map(|i| field(&format!("f{i}"), wit::DataType::Utf8)).collect();
        refuses(fields, "route `usa`: 1001 fields, more than 1000");
    }

    #[test]
    fn decimals_have_a_precision_and_a_scale_within_it() {
        for (precision, scale, ok) in
            [(1, 0, true), (38, 38, true), (0, 0, false), (39, 0, false), (5, 6, false)]
        {
            let decimal = wit::DataType::Decimal(wit::DecimalType { precision, scale });
            assert_eq!(check(with_fields(vec![field("d", decimal)])).is_ok(), ok, "{precision} {scale}");
        }
    }

    #[test]
    fn a_description_without_routes_is_fine() {
        let taken = check(described(vec![])).unwrap();
        assert_eq!(taken.needs, Needs { keys: true, offsets: true, ..Needs::default() });
    }

    #[test]
    fn choices_are_read_and_hold_for_the_default() {
        let mut said = described(vec![]);
        let choices = vec![("choices".to_owned(), "a|b".to_owned())];
        let default_value = Some("b".to_owned());
        said.settings =
            vec![wit::Setting { key: "k".into(), default_value, doc: String::new(), annotations: choices }];
        assert_eq!(
            check(said.clone()).unwrap().settings[0].choices,
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        said.settings[0].default_value = Some("c".into());
        assert_eq!(check(said).unwrap_err(), "setting `k`: its default `c` is none of its choices");
    }
}
