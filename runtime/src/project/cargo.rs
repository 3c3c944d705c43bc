//! How cargo is asked for a WebAssembly component: by `weir build`, by the tests, and by the build script, which
//! includes this file. It never knows what is built.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// What transforms are compiled for. It is part of every Rust since 1.82, but not installed with it.
pub const TARGET: &str = "wasm32-wasip2";

/// Flags for the machine's own compiler and linker: they replace those of the target, and most make no sense for
/// it. `CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS` is left alone.
pub const NOT_FOR_WASM: [&str; 3] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"];

/// `cargo build` for [`TARGET`] in `dir`, without the variables that are [`NOT_FOR_WASM`]. A cargo that started
/// this process is asked again.
pub fn build(dir: &Path) -> Command {
    let mut cargo = cargo(dir);
    cargo.args(["build", "--target", TARGET]);
    for name in NOT_FOR_WASM {
        cargo.env_remove(name);
    }
    cargo
}

fn cargo(dir: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(dir);
    cargo
}

/// Which cargo is used in `dir`, as it says itself.
///
/// # Errors
/// There is none, or it does not start.
pub fn version(dir: &Path) -> io::Result<String> {
    let told = cargo(dir).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

/// Whether the toolchain that is used in `dir` has the standard library for [`TARGET`].
pub fn has_target(dir: &Path) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    let printed = rustc.current_dir(dir).args(["--print", "target-libdir", "--target", TARGET]).output();
    printed.is_ok_and(|printed| Path::new(String::from_utf8_lossy(&printed.stdout).trim()).is_dir())
}

/// Adds [`TARGET`] to the toolchain that is used in `dir`; what rustup tells goes to stderr.
///
/// # Errors
/// That there is no rustup, or that it failed.
pub fn add_target(dir: &Path) -> io::Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.current_dir(dir).args(["target", "add", TARGET]).stdout(Stdio::null());
    let status = rustup.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("rustup ended with {status}"))) }
}
