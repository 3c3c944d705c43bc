//! The names in a pipeline file, checked. Never longer or stranger than a topic, a directory and a table can bear.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// Why a value cannot be used, and what could stand there instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Complaint {
    pub message: String,
    pub help: Option<String>,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

/// Makes a newtype over a checked string.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $longest:literal, $chars:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn parse(text: &str) -> Result<Self, Complaint> {
                let valid: fn(char) -> bool = $valid;
                let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
                if first && text.len() <= $longest && text.chars().all(valid) {
                    return Ok(Self(text.to_owned()));
                }
                let rule = concat!("a ", $what, " is 1 to ", $longest, " of ", $chars, " and begins with a letter or digit");
                Err(Complaint::new(format!("`{text}` is not a {}", $what), rule))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Complaint;

            fn try_from(text: String) -> Result<Self, Complaint> {
                Self::parse(&text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $what.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "title": $what, "type": "string" })
            }
        }
    };
}

name!(
    /// A pipeline's name: 1 to 63 of a-z, 0-9 and `-`.
    PipelineName, "pipeline name", 63, "a-z, 0-9, `-`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);

name!(
    /// A sink's name: 1 to 63 of a-z, 0-9, `-` and `_`.
    SinkName, "sink name", 63, "a-z, 0-9, `-`, `_`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')
);

name!(
    /// A topic's name, as Kafka allows it: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`.
    TopicName, "topic name", 249, "a-z, A-Z, 0-9, `.`, `_`, `-`",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
);

name!(
    /// What a sink calls the place that rows go to, such as a directory: 1 to 249 of a-z, A-Z, 0-9,
    /// `.`, `_` and `-`. It begins with a letter or digit, since readers skip directories that
    /// begin with `_` or `.`.
    TargetName, "target name", 249, "a-z, A-Z, 0-9, `.`, `_`, `-`",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
);

/// A target in a sink, written `"sink.target"`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TargetRef {
    pub sink: SinkName,
    pub target: TargetName,
}

impl TargetRef {
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        if text == "none" {
            return Err(Complaint::new("\"none\" is not a target", "only a route can be bound to \"none\""));
        }
        let Some((sink, target)) = text.split_once('.') else {
            let help =
                format!("write the sink, a dot and what it calls the place, such as \"{text}.customers\"");
            return Err(Complaint::new(format!("`{text}` names no target"), help));
        };
        Ok(Self { sink: SinkName::parse(sink)?, target: TargetName::parse(target)? })
    }
}

impl TryFrom<String> for TargetRef {
    type Error = Complaint;

    fn try_from(text: String) -> Result<Self, Complaint> {
        Self::parse(&text)
    }
}

impl fmt::Display for TargetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.sink, self.target)
    }
}

impl fmt::Debug for TargetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl JsonSchema for TargetRef {
    fn schema_name() -> Cow<'static, str> {
        "target".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "target", "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_name_fits_a_topic_a_group_and_a_directory() {
        let longest = "a".repeat(63);
        for good in ["customers", "a", "7-up", longest.as_str()] {
            assert!(PipelineName::parse(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-a", "Customers", "a_b", "a/b", "ä", "a b", too_long.as_str()] {
            assert!(PipelineName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_cannot_leave_its_sink() {
        for bad in ["lake", "lake.", "lake...", "lake.../x", "lake._weir", "lake.a/b", ".x", "lake.a\\b"] {
            assert!(TargetRef::parse(bad).is_err(), "{bad}");
        }
        let good = TargetRef::parse("topics.customers.usa").expect("a topic may have dots");
        assert_eq!((good.sink.as_str(), good.target.as_str()), ("topics", "customers.usa"));
    }
}
