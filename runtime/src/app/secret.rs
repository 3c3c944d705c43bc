//! A secret that the pipeline file keeps in a file of its own. It is never shown.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What is in a file that should hold a secret.
///
/// # Errors
/// [`Unfit`], and whatever comes of reading it.
pub(super) fn secret(file: &Path) -> Result<String> {
    let what = || format!("reading `{}`", file.display());
    if is_open_to_all(&fs::metadata(file).with_context(what)?) {
        return Err(Unfit::Open { file: file.to_owned() }.into());
    }
    let text = fs::read_to_string(file).with_context(what)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(Unfit::Empty { file: file.to_owned() }.into());
    }
    Ok(secret.to_owned())
}

#[cfg(unix)]
fn is_open_to_all(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o007 != 0
}

#[cfg(not(unix))]
fn is_open_to_all(_: &Metadata) -> bool {
    false
}

/// A file is there and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Everybody on this machine may read or change it.
    #[error("`{}` holds a secret, and everybody may read it or change it", file.display())]
    Open {
        /// Which.
        file: PathBuf,
    },
    /// Nothing is in it.
    #[error("`{}` should hold a secret, and is empty", file.display())]
    Empty {
        /// Which.
        file: PathBuf,
    },
}

impl Unfit {
    /// What a person can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Open { file } => format!(
                "chmod o= {}; for a secret in Kubernetes `defaultMode: 0440`, in Compose `mode: 0440`",
                file.display()
            ),
            Self::Empty { .. } => {
                "write the secret into it, or leave the key out if there is none".to_owned()
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        secret(&file).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_secret_is_what_its_file_holds_without_the_line_break_at_its_end() {
        for mode in [0o400, 0o600, 0o640] {
            assert_eq!(read(" pass word\r\n", mode).unwrap(), " pass word", "{mode:o}");
        }
    }

    #[test]
    fn a_secret_that_is_missing_empty_or_open_to_all_is_refused_with_its_file() {
        let missing = format!("{:#}", secret(Path::new("/nowhere/password")).unwrap_err());
        assert!(missing.starts_with("reading `/nowhere/password`: "), "{missing}");
        for text in ["", "\n"] {
            let empty = read(text, 0o600).unwrap_err();
            assert!(empty.contains("/password` should hold a secret, and is empty"), "{empty}");
        }
        for mode in [0o604, 0o602, 0o644] {
            let open = read("secret", mode).unwrap_err();
            assert!(open.contains("/password` holds a secret, and everybody may"), "{open}");
        }
    }
}
