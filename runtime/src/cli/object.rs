//! A JSON object whose members stay in their order, for commands that look into records.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Names and values; a name may be there twice.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    /// # Errors
    /// If the bytes are no JSON object.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// What a member says: a string without its quotes, all else as it is written. The last member of that name counts.
    /// `None` where there is none, or null.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.0.iter().rev().find(|(n, _)| n == name)?;
        match serde_json::from_str::<Option<String>>(value.get()) {
            Ok(text) => text,
            Err(_) => Some(value.get().to_owned()),
        }
    }

    /// The same object, in which a string that reads like a JSON number, `true`, `false` or `null` is that, and an empty
    /// one is null.
    pub(super) fn typed(&self) -> String {
        let members = self.0.iter().map(|(name, value)| {
            let name = serde_json::to_string(name).expect("text is JSON");
            let text = serde_json::from_str::<String>(value.get()).ok();
            format!("{name}:{}", text.as_deref().and_then(plain).unwrap_or(value.get()))
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

/// What a text is besides a text.
fn plain(text: &str) -> Option<&str> {
    match text {
        "" => Some("null"),
        "true" | "false" | "null" => Some(text),
        // JSON has neither leading zeros nor signs in front of them: a postal code stays what it is.
        _ if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            serde_json::from_str::<&RawValue>(text).ok().map(|_| text)
        }
        _ => None,
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_that_reads_like_another_value_is_one_and_nothing_else_changes() {
        let row = br#"{"id":"7","zip":"01234","age":"-1.5e3","ok":"true","no":"","name":"7 \"x\" \u00e9","n":1.0,"plus":"+1","dash":"-"}"#;
        let typed = r#"{"id":7,"zip":"01234","age":-1.5e3,"ok":true,"no":null,"name":"7 \"x\" \u00e9","n":1.0,"plus":"+1","dash":"-"}"#;
        assert_eq!(Object::read(row).unwrap().typed(), typed);
    }

    #[test]
    fn a_member_is_told_as_text_and_absent_or_null_as_nothing() {
        let row = br#"{"s":"a\nb","n":12,"o":{"x":1},"z":null,"s2":"","d":"1","d":"2"}"#;
        let object = Object::read(row).unwrap();
        let said = |name| object.text(name);
        assert_eq!(said("s").as_deref(), Some("a\nb"));
        assert_eq!(said("n").as_deref(), Some("12"));
        assert_eq!(said("o").as_deref(), Some(r#"{"x":1}"#));
        assert_eq!(said("s2").as_deref(), Some(""));
        assert_eq!(said("d").as_deref(), Some("2"));
        assert_eq!((said("z"), said("none")), (None, None));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[1]", "7", "", "{\"a\":1", "{\"a\":1} x"] {
            assert!(Object::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
