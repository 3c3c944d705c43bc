//! The laws of the small JSON reader.

use proptest::prelude::*;

use super::*;

const WANTED: Object<4> = Object::with(["id", "name", "age", "a rather long key"]);

fn check(text: &str, expected: [Value<'_>; 4]) {
    assert_eq!(WANTED.read(text.as_bytes()), Ok(expected), "{text}");
}

fn check_error(bytes: impl AsRef<[u8]>, code: Code, at: usize) {
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    assert_eq!(WANTED.read(bytes.as_ref()), Err(Error { code, at }), "{text}");
}

#[test]
fn wanted_keys_come_in_the_order_in_which_they_are_wanted() {
    use Value::{Absent, Boolean, Nested, Null, Number};
    check("{}", [Absent, Absent, Absent, Absent]);
    check(" \t\r\n{ \"id\" : 1 , \"name\":\"a\"} ", [Number("1"), "a".into(), Absent, Absent]);
    check(r#"{"age":null,"name":true,"x":[],"id":false}"#, [Boolean(false), Boolean(true), Null, Absent]);
    check(r#"{"a rather long key":"v","id":"w"}"#, ["w".into(), Absent, Absent, "v".into()]);
    check(r#"{"id":{"a":[1,{}]},"age":[ ]}"#, [Nested(r#"{"a":[1,{}]}"#), Absent, Nested("[ ]"), Absent]);
}

#[test]
fn of_a_key_that_comes_twice_the_last_value_counts() {
    check(r#"{"id":1,"id":2,"id":3}"#, [Value::Number("3"), Value::Absent, Value::Absent, Value::Absent]);
}

/// Members as they mostly are take a way of their own.
#[test]
fn a_member_means_the_same_whatever_its_neighbours_are_like() {
    let texts =
        ["", "a", "a text of sixteen", "a text that is longer than two blocks of sixteen, and not short"];
    for (colon, comma) in [(":", ","), (": ", ", "), (" :", " ,"), (":  ", ",  "), (":\n", ",\t")] {
        for (id, name) in texts.iter().flat_map(|id| texts.map(|name| (*id, name))) {
            let text =
                format!(r#"{{"id"{colon}"{id}"{comma}"name"{colon}"{name}"{comma}"age"{colon}"\u0031"}}"#);
            check(&text, [id.into(), name.into(), "1".into(), Value::Absent]);
            let text =
                format!(r#"{{"name"{colon}"\u0031"{comma}"id"{colon}"{id}"{comma}"name"{colon}"{name}"}}"#);
            check(&text, [id.into(), name.into(), Value::Absent, Value::Absent]);
        }
    }
}

#[test]
fn an_object_that_is_cut_anywhere_is_unfinished() {
    let text =
        r#"{"id":"7","name": "a text that is longer than one block","age":"1","a rather long key":"v"}"#;
    for at in 0..text.len() {
        check_error(&text[..at], Code::Unfinished, at);
    }
}

#[test]
fn a_key_may_be_written_with_escapes() {
    check(r#"{"\u0069d":1,"i\u0064s":2}"#, [Value::Number("1"), Value::Absent, Value::Absent, Value::Absent]);
}

#[test]
fn a_key_is_not_its_beginning() {
    check(r#"{"ids":1,"i":2,"":3,"name ":4}"#, [Value::Absent, Value::Absent, Value::Absent, Value::Absent]);
}

#[test]
fn a_number_is_kept_as_it_was_written() {
    for number in ["0", "-0", "9223372036854775808", "1e999", "-0.10", "1E+2", "12345678901234567890.5"] {
        let text = format!(r#"{{"id":{number}}}"#);
        check(&text, [Value::Number(number), Value::Absent, Value::Absent, Value::Absent]);
    }
    for number in
        ["+1", "01", ".5", "1.", "-", "1e", "1e+", "0x1", "1_000", "NaN", "Infinity", "1.2.3", "--1"]
    {
        assert!(WANTED.read(format!(r#"{{"id":{number}}}"#).as_bytes()).is_err(), "{number}");
        assert!(WANTED.read(format!(r#"{{"no":{number}}}"#).as_bytes()).is_err(), "{number}");
    }
}

#[test]
fn escapes_are_decoded() {
    let text = r#"{"id":"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z"}"#;
    let decoded = "a\"\\/\u{8}\u{c}\n\r\té😀z";
    check(text, [decoded.into(), Value::Absent, Value::Absent, Value::Absent]);
}

#[test]
fn an_error_tells_where() {
    check_error("", Code::Unfinished, 0);
    check_error("[]", Code::NotObject, 0);
    check_error(" 1", Code::NotObject, 1);
    check_error("\u{feff}{}", Code::NotObject, 0);
    check_error("{} {}", Code::Trailing, 3);
    check_error("{}\0", Code::Trailing, 2);
    check_error(r#"{"id":1,}"#, Code::Unexpected, 8);
    check_error(r#"{"id":1"#, Code::Unfinished, 7);
    check_error(r#"{id:1}"#, Code::Unexpected, 1);
    check_error(r#"{"id":'a'}"#, Code::Unexpected, 6);
    check_error(r#"{"id":"a"#, Code::Unfinished, 8);
    check_error(r#"{"id":"\x"}"#, Code::BadEscape, 7);
    check_error(r#"{"id":"\ud800"}"#, Code::LoneSurrogate, 7);
    check_error(r#"{"id":"\udc00"}"#, Code::LoneSurrogate, 7);
    check_error(r#"{"no":"\ud800\u0041"}"#, Code::LoneSurrogate, 7);
    check_error("{\"id\":\"a\nb\"}", Code::ControlByte, 8);
    check_error(b"{\"id\":\"a\xff\"}", Code::NotUtf8, 8);
    check_error(r#"{"id":truf}"#, Code::Unexpected, 6);
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| format!("{{\"no\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(WANTED.read(nested(127).as_bytes()).is_ok());
    check_error(nested(128), Code::TooDeep, 6 + 127);
    check_error(nested(100_000), Code::TooDeep, 6 + 127);
}

/// The other reader's answer; `None` where the two differ by design, for numbers beyond any float.
fn other_reader(bytes: &[u8]) -> Option<Option<serde_json::Map<String, serde_json::Value>>> {
    match serde_json::from_slice(bytes) {
        Ok(serde_json::Value::Object(object)) => Some(Some(object)),
        Ok(_) => Some(None),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(_) => Some(None),
    }
}

fn same(ours: &Value<'_>, other: Option<&serde_json::Value>) -> bool {
    use serde_json::Value as Other;
    match (ours, other) {
        (Value::Absent, None) | (Value::Null, Some(Other::Null)) => true,
        (Value::Boolean(ours), Some(Other::Bool(other))) => ours == other,
        (Value::Text(ours), Some(Other::String(other))) => ours == other,
        (Value::Number(ours), Some(other @ Other::Number(_)))
        | (Value::Nested(ours), Some(other @ (Other::Array(_) | Other::Object(_)))) => {
            serde_json::from_str::<Other>(ours).is_ok_and(|ours| ours == *other)
        }
        _ => false,
    }
}

fn agrees(bytes: &[u8]) -> bool {
    match (WANTED.read(bytes), other_reader(bytes)) {
        (_, None) => true,
        (Err(_), Some(other)) => other.is_none(),
        (Ok(_), Some(None)) => false,
        (Ok(ours), Some(Some(other))) => {
            WANTED.keys.iter().zip(&ours).all(|(key, ours)| same(ours, other.get(key.name)))
        }
    }
}

fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z0-9 ,.@{}:]{0,20}",
        "[^\"\\\\\\x00-\\x1f]{0,5}",
        Just(r"\u00e9".to_owned()),
        Just(r"\ud83d\ude00".to_owned()),
        Just(r#"\""#.to_owned()),
        Just(r"\n\\".to_owned()),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn key() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 8] = ["id", "name", "age", "a rather long key", r"\u0069d", "nam", "ages", ""];
    prop_oneof![4 => prop::sample::select(&KNOWN[..]).prop_map(|key| format!("\"{key}\"")), 1 => string()]
}

fn object(values: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    prop::collection::vec((key(), "[ \\n\\t]{0,2}", values), 0..7).prop_map(|members| {
        let members: Vec<_> =
            members.iter().map(|(key, space, value)| format!("{space}{key}{space}:{value}{space}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn value() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        4 => string(),
        2 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
        1 => prop::sample::select(&["true", "false", "null"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let array =
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,")));
        prop_oneof![array, object(inner.boxed())]
    })
    .boxed()
}

/// Changes, cuts or repeats bytes.
fn mutate(bytes: &mut Vec<u8>, mutations: &[(u8, usize, u8)]) {
    for (kind, at, byte) in mutations {
        let at = at % (bytes.len() + 1);
        match kind % 4 {
            0 => bytes.insert(at, *byte),
            1 if at < bytes.len() => bytes[at] = *byte,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn both_readers_give_the_same_values(text in object(value())) {
        prop_assert!(agrees(text.as_bytes()));
        prop_assert!(other_reader(text.as_bytes()).is_none_or(|read| read.is_some()));
    }

    #[test]
    fn both_readers_refuse_the_same_bytes(
        text in object(value()),
        mutations in prop::collection::vec(
            (any::<u8>(), any::<usize>(), prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[],:.-+eEu01dD8 \n"[..])]),
            1..4,
        ),
    ) {
        let mut bytes = text.into_bytes();
        mutate(&mut bytes, &mutations);
        prop_assert!(agrees(&bytes), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(agrees(&bytes));
    }
}
