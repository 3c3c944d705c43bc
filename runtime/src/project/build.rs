//! Builds a project to a component, and has the sandbox look at it before anyone else gets it. A build that fails
//! never touches the component of the last one.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};

use serde::Deserialize;

use super::cargo::{self, TARGET};
use super::manifest::{self, ManifestError};
use crate::description::Description;
use crate::sandbox::{
    EngineError, InstanceLimits, LoadError, Sandbox, SandboxOptions, StartError, Transform,
};

/// A component that was built, loaded and asked what it is.
#[derive(Debug)]
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: usize,
    /// As the sandbox has it.
    pub transform: Transform,
    /// What it says of itself while nothing is set.
    pub description: Description,
}

/// What a person may want to know while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// The toolchain gets the target from rustup.
    AddsTarget,
    /// This variable is set, and not passed on.
    Ignores(&'static str),
}

/// There is no new component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The directory has no project.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The toolchain lacks the target, and could not get it.
    #[error("the Rust toolchain lacks the target {TARGET} ({0}): run `rustup target add {TARGET}`")]
    NoTarget(io::Error),
    /// There is no cargo.
    #[error("cargo did not start ({0}): install Rust from https://rustup.rs, or put cargo on the PATH")]
    NoCargo(io::Error),
    /// Cargo has told why, on stderr.
    #[error("`{package}` did not compile: cargo tells above where ({status})")]
    Compile {
        /// Whose build it was.
        package: String,
        /// How cargo ended.
        status: String,
    },
    /// Cargo ended well, and made nothing that can be loaded.
    #[error("cargo made no .wasm file of `{package}`")]
    NoArtifact {
        /// Whose build it was.
        package: String,
    },
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] EngineError),
    /// The sandbox does not accept it.
    #[error("it compiled, but is no transform: {0}; {hint}", hint = hint(.0))]
    Load(#[from] LoadError),
    /// It does not say what it is.
    #[error("it compiled, but does not describe itself: {0}")]
    Describe(#[from] StartError),
    /// The file system refused.
    #[error("{what} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl BuildError {
    /// Whether the project is at fault, not the command, the toolchain or the machine.
    pub fn is_of_project(&self) -> bool {
        matches!(self, Self::Compile { .. } | Self::NoArtifact { .. } | Self::Load(_) | Self::Describe(_))
    }
}

/// What is missing most often has a shorter remedy in a project.
fn hint(error: &LoadError) -> &'static str {
    match error {
        LoadError::NoTransform { .. } => "does src/lib.rs say `weir_sdk::export!(..);` for your transform?",
        _ => error.hint(),
    }
}

/// Builds the project in `dir` with cargo, in the release profile, checks the component and puts it at `output`, or
/// at `NAME.wasm` in `dir`. What cargo says goes to stderr as it comes. The target is added where it is missing. Where the
/// sandbox keeps compiled code, that of the component is among it from then on.
///
/// # Errors
/// See [`BuildError`]; after any of them `output` is what it was before.
pub fn build(
    dir: &Path,
    output: Option<&Path>,
    sandbox: SandboxOptions,
    announce: &mut dyn FnMut(Announce),
) -> Result<Built, BuildError> {
    let package = manifest::package(dir)?;
    prepare(dir, announce)?;
    let made = compile(dir, package.clone())?;
    let bytes = std::fs::read(&made).map_err(|e| at("reading", &made, e))?;
    let transform = Sandbox::new(sandbox)?.load(&bytes)?;
    let description = transform.describe(&[], &InstanceLimits::default())?;
    let path = output.map_or_else(|| dir.join(format!("{package}.wasm")), Path::to_owned);
    put(&path, &bytes).map_err(|e| at("writing", &path, e))?;
    Ok(Built { path, bytes: bytes.len(), transform, description })
}

/// A toolchain that has the target.
fn prepare(dir: &Path, announce: &mut dyn FnMut(Announce)) -> Result<(), BuildError> {
    if !cargo::has_target(dir) {
        cargo::version(dir).map_err(BuildError::NoCargo)?;
        announce(Announce::AddsTarget);
        cargo::add_target(dir).map_err(BuildError::NoTarget)?;
    }
    for name in cargo::NOT_FOR_WASM.into_iter().filter(|name| std::env::var_os(name).is_some()) {
        announce(Announce::Ignores(name));
    }
    Ok(())
}

fn at(what: &'static str, path: &Path, source: io::Error) -> BuildError {
    BuildError::Io { what, path: path.to_owned(), source }
}

/// Whoever reads `path` meanwhile gets the old component or the new one, never a part.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("wasm.new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}

/// The file that cargo makes of the package in `dir`. Cargo itself tells which, because configuration and
/// variables decide where it is.
fn compile(dir: &Path, package: String) -> Result<PathBuf, BuildError> {
    let mut cargo = cargo::build(dir);
    cargo.args(["--lib", "--release", "--message-format", "json-render-diagnostics"]);
    let mut running = cargo.stdout(Stdio::piped()).spawn().map_err(BuildError::NoCargo)?;
    let made = artifact(running.stdout.take().expect("it is piped"), &manifest_path(dir));
    let status = running.wait().map_err(BuildError::NoCargo)?;
    if !status.success() {
        return Err(BuildError::Compile { package, status: status.to_string() });
    }
    made.ok_or(BuildError::NoArtifact { package })
}

/// As cargo writes it: absolute, with links followed no further than the directory it runs in.
fn manifest_path(dir: &Path) -> PathBuf {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    dir.join("Cargo.toml")
}

/// A line of what cargo tells programs.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

fn artifact(messages: ChildStdout, manifest: &Path) -> Option<PathBuf> {
    let mut made = None;
    for line in BufReader::new(messages).lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Message>(&line) else { continue };
        if message.manifest_path == manifest {
            made = message
                .filenames
                .into_iter()
                .find(|file| file.extension().is_some_and(|e| e == "wasm"))
                .or(made);
        }
    }
    made
}
