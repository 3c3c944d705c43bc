//! The golden cases, natively: every one alone, and all together, in batches of any size. `README.md` tells the
//! format. Never the only check: the runtime validates the component against the same file.

use std::collections::BTreeMap;

use base64::Engine;
use customers::Customers;
use serde_json::{Value, json};
use weir_sdk::Instance;
use weir_sdk::column::{Column, ColumnData, VarBytes};
use weir_sdk::testing::{Fate, Routed, Scalar, fates};

const CASES: &str = include_str!("../golden.jsonl");
const CITIES: &str = include_str!("../golden_us_cities.csv");

struct Case {
    name: String,
    settings: Vec<(String, String)>,
    input: Option<Vec<u8>>,
    /// As the file has it: fate, route, reasons, row.
    expected: Value,
}

#[test]
fn every_golden_case_has_its_fate() {
    let cases = cases();
    assert!(cases.len() >= 60);
    for case in &cases {
        let fates = fates(&customers(&case.settings), [case.input.as_deref()]);
        assert_eq!(found(&fates.expect("every record is accounted for")[0]), case.expected, "{}", case.name);
    }
}

#[test]
fn a_fate_does_not_depend_on_the_batch() {
    let mut by_settings = BTreeMap::<_, Vec<_>>::new();
    for case in cases() {
        by_settings.entry(case.settings.clone()).or_default().push(case);
    }
    for (settings, cases) in by_settings {
        let instance = customers(&settings);
        for size in [2, 3, 8, cases.len()] {
            for batch in cases.chunks(size) {
                let fates = fates(&instance, batch.iter().map(|case| case.input.as_deref()));
                for (fate, case) in fates.expect("every record is accounted for").iter().zip(batch) {
                    assert_eq!(found(fate), case.expected, "{} in a batch of {size}", case.name);
                }
            }
        }
    }
}

#[test]
fn a_reject_tells_what_was_found() {
    let found = fates(&customers(&[]), [Some(br#"{"id":"7","location":"Boston","age":"abc"}"#.as_slice())]);
    let rejected = Fate::Rejected(vec![("age-not-integer".to_owned(), Some("\"abc\"".to_owned()))]);
    assert_eq!(found, Ok(vec![rejected]));
}

#[test]
fn a_wrong_setting_is_refused_with_its_choices() {
    let refused = |key: &str, value: &str| {
        let settings = vec![(key.to_owned(), value.to_owned())];
        Instance::<Customers>::init(settings, vec![cities()]).expect_err("the setting is wrong")
    };
    assert_eq!(
        refused("non_usa", "no"),
        "setting `non_usa` is `no`, which is not one of other, alerts, drop"
    );
    assert_eq!(refused("nonusa", "drop"), "there is no setting `nonusa`; there are: non_usa, on_bad_age");
}

#[test]
fn without_its_cities_the_rule_does_not_start() {
    let refused = Instance::<Customers>::init(Vec::new(), Vec::new()).expect_err("the table is missing");
    assert_eq!(refused, "table `us_cities` is missing");
}

fn customers(settings: &[(String, String)]) -> Instance<Customers> {
    Instance::init(settings.to_vec(), vec![cities()]).expect("settings and tables are right")
}

fn cities() -> weir_sdk::TableData {
    let names = CITIES.lines().skip(1).map(|line| Some(line.trim_matches('"').as_bytes()));
    let names = VarBytes::from_iter(names);
    let rows = u32::try_from(names.offsets.len() - 1).expect("a few cities");
    let column = Column { data: ColumnData::VarBytes(names), validity: Vec::new() };
    weir_sdk::TableData { name: "us_cities".to_owned(), rows, columns: vec![("city".to_owned(), column)] }
}

fn cases() -> Vec<Case> {
    CASES.lines().map(|line| case(serde_json::from_str(line).expect("a case is JSON"))).collect()
}

fn case(mut case: Value) -> Case {
    let name = case["name"].as_str().expect("a case has a name").to_owned();
    let settings = case["settings"].as_object().expect("a case has settings");
    let text = |value: &Value| value.as_str().expect("a setting is a text").to_owned();
    let settings = settings.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let input = match &case["input"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into_bytes()),
        other => {
            let encoded = other["base64"].as_str().expect("an input is a text, base64 or null");
            Some(base64::prelude::BASE64_STANDARD.decode(encoded).expect("base64"))
        }
    };
    for key in ["name", "settings", "input"] {
        case.as_object_mut().expect("a case is an object").remove(key);
    }
    Case { name, settings, input, expected: case }
}

/// A fate as the file would have it.
fn found(fate: &Fate) -> Value {
    match fate {
        Fate::Dropped => json!({ "fate": "dropped" }),
        Fate::Rejected(reasons) => {
            let codes: Vec<_> = reasons.iter().map(|(code, _)| code).collect();
            json!({ "fate": "rejected", "reasons": codes })
        }
        Fate::Routed(rows) => {
            let [Routed { route, fields }] = rows.as_slice() else { return json!("several rows") };
            if fields.is_empty() {
                return json!({ "fate": "routed", "route": route });
            }
            let fields = fields.iter().map(|(name, value)| (name.clone(), scalar(value))).collect();
            json!({ "fate": "routed", "route": route, "row": Value::Object(fields) })
        }
    }
}

fn scalar(value: &Scalar) -> Value {
    match value {
        Scalar::Null => Value::Null,
        Scalar::Integer(value) => json!(value),
        Scalar::Text(text) => json!(text),
        other => json!(format!("{other:?}")),
    }
}
