//! Names of projects: fit to be those of a crate, a file and a transform at once. It never makes a bad one good.

use std::fmt;
use std::str::FromStr;

/// As many characters as a transform's name may have.
const MAX_LEN: usize = 63;

/// Rust's own words, the crates that every program has, and the SDK.
const TAKEN: &str = "abstract alloc as async await become box break const continue core crate do dyn else enum extern \
    false final fn for gen if impl in let loop macro match mod move mut override priv proc_macro pub ref return self \
    static std struct super test trait true try type typeof unsafe unsized use virtual where while yield weir_sdk";

/// A letter, then letters, digits, `-` and `_`, all ASCII, 63 at most, and no word that Rust or the SDK has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// The name cannot be that of a project.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Characters, or too many of them.
    #[error("a project's name is a letter and up to {} of a-z, A-Z, 0-9, `-` and `_`", MAX_LEN - 1)]
    Form,
    /// It means something else already.
    #[error("`{0}` means something else to Rust: take another name, such as `{0}-rule`")]
    Taken(String),
}

impl Name {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let begins = name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        if !begins || name.len() > MAX_LEN || !name.bytes().all(allowed) {
            return Err(NameError::Form);
        }
        let krate = name.replace('-', "_").to_ascii_lowercase();
        if TAKEN.split_ascii_whitespace().any(|taken| taken == krate) {
            return Err(NameError::Taken(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_fit_for_a_crate_and_a_transform() {
        for name in ["a", "orders", "clean-orders_2", "Orders", &"a".repeat(63)] {
            assert_eq!(name.parse::<Name>().map(|n| n.to_string()).as_deref(), Ok(name));
        }
        for name in ["", "2fast", "-a", "_a", "a b", "a/b", "../a", "ä", "a.b", &"a".repeat(64)] {
            assert_eq!(name.parse::<Name>(), Err(NameError::Form), "{name}");
        }
    }

    #[test]
    fn a_name_is_no_word_of_rust_nor_of_the_sdk() {
        for name in ["match", "core", "test", "weir-sdk", "weir_sdk", "Self"] {
            assert_eq!(name.parse::<Name>(), Err(NameError::Taken(name.to_owned())));
        }
    }
}
