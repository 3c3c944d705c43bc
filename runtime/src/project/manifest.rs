//! What the manifest of a Rust project says of it. It is only read.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The parts of a `Cargo.toml` that decide whether a component can come of it.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    package: Option<Package>,
    lib: Option<Library>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Library {
    #[serde(default, rename = "crate-type", alias = "crate_type")]
    kinds: Vec<String>,
}

/// The directory has no project that becomes a component.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// No `Cargo.toml`.
    #[error("there is no Cargo.toml in `{}`: name a project's directory, or make one with `weir new`", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("reading `{}`: {source}", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// It is not a manifest.
    #[error("`{}` is not a manifest: {text}", path.display())]
    Form {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, and where.
        text: String,
    },
    /// A workspace without a package of its own.
    #[error("`{}` is a workspace without a package: name the directory of one of its members", .0.display())]
    Workspace(PathBuf),
    /// No component can come of it.
    #[error(
        "the package `{name}` is no transform: its Cargo.toml lacks `crate-type = [\"cdylib\"]` under `[lib]`"
    )]
    NoComponent {
        /// As the manifest has it.
        name: String,
    },
}

/// The name of the package in `dir`, which becomes a component.
pub(super) fn package(dir: &Path) -> Result<String, ManifestError> {
    let path = dir.join("Cargo.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ManifestError::Missing(dir.to_owned())),
        Err(source) => return Err(ManifestError::Read { path, source }),
    };
    let manifest: Manifest = toml::from_str(&text)
        .map_err(|e| ManifestError::Form { path: path.clone(), text: e.to_string().trim_end().to_owned() })?;
    let Some(Package { name }) = manifest.package else { return Err(ManifestError::Workspace(path)) };
    let kinds = manifest.lib.unwrap_or_default().kinds;
    if kinds.iter().any(|kind| kind == "cdylib") {
        Ok(name)
    } else {
        Err(ManifestError::NoComponent { name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manifest: &str, expected: Result<&str, &str>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
        let found = package(dir.path()).map_err(|e| e.to_string());
        match expected {
            Ok(name) => assert_eq!(found.as_deref(), Ok(name)),
            Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{found:?}"),
        }
    }

    #[test]
    fn only_a_cdylib_becomes_a_component() {
        check("[package]\nname = 'a'\n[lib]\ncrate-type = ['rlib', 'cdylib']", Ok("a"));
        check("[package]\nname = 'a'", Err("the package `a` is no transform"));
        check("[package]\nname = 'a'\n[lib]\npath = 'x.rs'", Err("the package `a` is no transform"));
        check("[workspace]\nmembers = ['a']", Err("a workspace without a package"));
        check("[package", Err("is not a manifest: TOML parse error at line 1"));
    }

    #[test]
    fn a_directory_without_a_manifest_is_no_project() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(package(dir.path()), Err(ManifestError::Missing(_))));
    }
}
