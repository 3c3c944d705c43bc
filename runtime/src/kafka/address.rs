//! Where a cluster is, and where a person said so: that is where a wrong address is mended. It reaches nothing.

use std::fmt;
use std::sync::Arc;

/// Bootstrap addresses, with who named them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host:port`, separated by commas.
    brokers: Arc<str>,
    /// The table of the pipeline file in which they stand; if absent, the command line has them.
    table: Option<Arc<str>>,
}

impl Address {
    pub(super) fn new(brokers: impl Into<Arc<str>>) -> Self {
        Self { brokers: brokers.into(), table: None }
    }

    pub(super) fn in_table(self, table: impl Into<Arc<str>>) -> Self {
        Self { table: Some(table.into()), ..self }
    }

    /// The addresses alone.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// What to look at where nobody answers.
    pub(super) fn if_unreachable(&self) -> String {
        let (key, told) = match &self.table {
            Some(table) => (
                format!("`brokers` in [{table}]"),
                format!("such as `security.protocol` in [{table}.properties]"),
            ),
            None => ("--brokers".to_owned(), "such as -X security.protocol=SASL_SSL".to_owned()),
        };
        format!(
            "see that the address is right ({key}), that a broker runs there, and that it asks for no TLS or password \
             that the client was not told of, {told}"
        )
    }

    /// What to do where a topic is not there.
    pub(super) fn if_no_topic(&self) -> String {
        match &self.table {
            Some(table) => format!("make it, or mend its name in [{table}]"),
            None => "`weir produce --create` makes it, if that is its name".to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brokers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_the_place_where_the_address_stands() {
        let typed = Address::new("localhost:9092");
        let written = typed.clone().in_table("sinks.topics.kafka");
        for (address, words) in [
            (&typed, ["(--brokers)", "-X security.protocol"]),
            (
                &written,
                [
                    "`brokers` in [sinks.topics.kafka]",
                    "`security.protocol` in [sinks.topics.kafka.properties]",
                ],
            ),
        ] {
            let hint = address.if_unreachable();
            assert!(words.iter().all(|word| hint.contains(word)), "{hint}");
        }
        assert!(!written.if_unreachable().contains("--brokers"));
        assert!(written.if_no_topic().contains("[sinks.topics.kafka]"));
    }
}
