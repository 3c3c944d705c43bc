//! The law of the JSON reader of the Rust SDK: it takes what `serde_json` takes, and reads the same there. Its two
//! differences stand in its documentation: it takes a number of any size, as text, and a nesting of 128, where
//! `serde_json` ends at 127.

use serde_json::{Map, Value as Theirs};
use weir_sdk::json::{DEPTH_LIMIT, Object, Value as Ours};

const KEYS: [&str; 5] = ["id", "name", "age", "a rather long key", ""];
const WANTED: Object<5> = Object::with(KEYS);

/// Any bytes are read alike by both, or refused by both.
///
/// # Panics
/// If not.
pub fn any_json(bytes: &[u8]) {
    let ours = WANTED.read(bytes);
    match theirs(bytes) {
        Reading::NumberOutOfRange => {}
        Reading::TooDeep => assert!(ours.is_err() || depth(bytes) == DEPTH_LIMIT, "it is too deep"),
        Reading::Refused(why) => assert!(ours.is_err(), "only `serde_json` refuses it: {why}"),
        Reading::Object(theirs) => {
            let ours = ours.unwrap_or_else(|e| panic!("only the SDK refuses it: {e}"));
            for (key, ours) in KEYS.iter().zip(&ours) {
                assert!(same(ours, theirs.get(*key)), "`{key}`: {ours:?} and {:?}", theirs.get(*key));
            }
        }
    }
    if let Err(error) = WANTED.read(bytes) {
        assert!(error.at <= bytes.len(), "{error} of {}", bytes.len());
    }
}

enum Reading {
    Object(Map<String, Theirs>),
    Refused(String),
    /// What differs, told apart only in the text of the error.
    NumberOutOfRange,
    TooDeep,
}

fn theirs(bytes: &[u8]) -> Reading {
    match serde_json::from_slice(bytes) {
        Ok(Theirs::Object(object)) => Reading::Object(object),
        Ok(_) => Reading::Refused("no object".to_owned()),
        Err(error) if error.to_string().starts_with("number out of range") => Reading::NumberOutOfRange,
        Err(error) if error.to_string().starts_with("recursion limit exceeded") => Reading::TooDeep,
        Err(error) => Reading::Refused(error.to_string()),
    }
}

/// Of objects and arrays in what is JSON.
fn depth(json: &[u8]) -> u32 {
    let (mut depth, mut most, mut quoted, mut escaped) = (0_u32, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
        most = depth.max(most);
    }
    most
}

fn same(ours: &Ours<'_>, theirs: Option<&Theirs>) -> bool {
    match (ours, theirs) {
        (Ours::Absent, None) | (Ours::Null, Some(Theirs::Null)) => true,
        (Ours::Boolean(ours), Some(Theirs::Bool(theirs))) => ours == theirs,
        (Ours::Text(ours), Some(Theirs::String(theirs))) => ours == theirs,
        (Ours::Number(ours), Some(theirs @ Theirs::Number(_)))
        | (Ours::Nested(ours), Some(theirs @ (Theirs::Array(_) | Theirs::Object(_)))) => {
            serde_json::from_str::<Theirs>(ours).is_ok_and(|ours| ours == *theirs)
        }
        _ => false,
    }
}
