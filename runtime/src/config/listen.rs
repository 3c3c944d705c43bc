//! Where a process listens for those who look at it: an address, or nowhere. Never resolves a name.

use std::{borrow::Cow, fmt, net::SocketAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::names::Complaint;

/// `"127.0.0.1:9640"`, or `"none"`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(Option<SocketAddr>);

impl Listen {
    /// The address, if there is one.
    pub fn address(self) -> Option<SocketAddr> {
        self.0
    }

    pub fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "none" => Ok(Self(None)),
            _ => text.parse().map(|address| Self(Some(address))).map_err(|_| {
                let help =
                    "write an address and a port, such as \"127.0.0.1:9640\" or \"[::1]:9640\", or \"none\"";
                Complaint::new(format!("`{text}` is not an address with a port"), help)
            }),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self(Some(SocketAddr::from(([127, 0, 0, 1], 9640))))
    }
}

impl TryFrom<String> for Listen {
    type Error = Complaint;

    fn try_from(text: String) -> Result<Self, Complaint> {
        Self::parse(&text)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => fmt::Display::fmt(&address, f),
            None => f.write_str("none"),
        }
    }
}

impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        "address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "address", "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_is_no_name() {
        for good in ["127.0.0.1:9640", "0.0.0.0:0", "[::1]:9640", "none"] {
            assert_eq!(Listen::parse(good).map(|listen| listen.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "127.0.0.1", "9640", ":9640", "localhost:9640", "127.0.0.1:65536", "off"] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
    }
}
