//! How a digest is written: `sha256:` and 64 hexadecimal digits. It never reads a file.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The digest of all that went into `hash`.
pub fn text(hash: Sha256) -> String {
    hash.finalize().iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// The digest of `bytes`.
pub fn of(bytes: &[u8]) -> String {
    text(Sha256::new_with_prefix(bytes))
}

/// Enough of a digest for people to tell two apart.
pub fn short(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_digest_names_its_kind() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(super::of(b""), empty);
    }
}
