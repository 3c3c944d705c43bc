//! Writes a project: the template with its name filled in, and the SDK, so that nothing has to be published for
//! it to build. It never writes over a file.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::name::Name;

include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));

/// What stands for the project's name in a template.
const NAME: &str = "{{name}}";

const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("rust/Cargo.toml.in")),
    // Ours: the versions that the SDK is tested with. The first build takes out what the project does not need.
    ("Cargo.lock", include_str!("../../../Cargo.lock")),
    (".cargo/config.toml", include_str!("rust/config.toml")),
    (".gitignore", include_str!("rust/gitignore")),
    ("README.md", include_str!("rust/README.md")),
    ("sample.csv", include_str!("rust/sample.csv")),
    ("src/lib.rs", include_str!("rust/lib.rs")),
];

/// A project that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its directory.
    pub dir: PathBuf,
    /// What was written there, the SDK's own files left out.
    pub files: Vec<&'static str>,
}

/// The project could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Something is there.
    #[error("`{}` is there already and not empty", .0.display())]
    Occupied(PathBuf),
    /// The file system refused.
    #[error("writing `{}`: {source}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Writes the Rust project `name` into a directory of that name below `parent`; both are made if they are missing.
/// The project is complete: it builds with cargo alone, wherever it is moved.
///
/// # Errors
/// See [`CreateError`]; after one of [`CreateError::Write`] a part of the project may be there.
pub fn create(name: &Name, parent: &Path) -> Result<Created, CreateError> {
    let dir = parent.join(name.as_str());
    if !is_free(&dir) {
        return Err(CreateError::Occupied(dir));
    }
    for (path, text) in RUST {
        write(&dir.join(path), &text.replace(NAME, name.as_str()))?;
    }
    for (path, text) in SDK {
        write(&dir.join("sdk").join(path), text)?;
    }
    let files = RUST.iter().map(|(path, _)| *path).collect();
    Ok(Created { dir, files })
}

/// Whether nothing is there, or an empty directory.
pub fn is_free(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

fn write(path: &Path, text: &str) -> Result<(), CreateError> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = written.and_then(|()| fs::File::create_new(path)?.write_all(text.as_bytes()));
    written.map_err(|source| CreateError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        "clean-orders".parse().unwrap()
    }

    #[test]
    fn a_project_has_its_name_its_files_and_the_sdk() {
        let parent = tempfile::tempdir().unwrap();
        let created = create(&name(), &parent.path().join("deep/er")).unwrap();
        assert_eq!(created.dir, parent.path().join("deep/er/clean-orders"));
        let read = |path: &str| fs::read_to_string(created.dir.join(path)).unwrap();
        assert!(read("Cargo.toml").contains("name = \"clean-orders\"\n"));
        assert!(created.files.iter().all(|file| !read(file).contains(NAME)));
        assert!(read("sdk/wit/transform.wit").contains("package weir:transform@0.1.0;"));
    }

    #[test]
    fn the_sdk_needs_nothing_of_our_workspace() {
        let (_, manifest) = SDK.iter().find(|(path, _)| *path == "Cargo.toml").unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let version = manifest["package"]["version"].as_str().unwrap();
        assert_eq!(version, env!("CARGO_PKG_VERSION"), "all of the workspace have one version");
        assert!(!manifest.to_string().contains("workspace"), "{manifest}");
    }

    #[test]
    fn what_is_there_is_never_written_over() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("clean-orders");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("notes"), "mine").unwrap();
        let refused = create(&name(), parent.path()).unwrap_err().to_string();
        assert_eq!(refused, format!("`{}` is there already and not empty", dir.display()));
        fs::remove_file(dir.join("notes")).unwrap();
        create(&name(), parent.path()).unwrap();
        fs::write(parent.path().join("file"), "").unwrap();
        assert!(matches!(create(&"file".parse().unwrap(), parent.path()), Err(CreateError::Occupied(_))));
    }
}
