//! Builds the customers transform, which the program carries so that its demo runs from a clean clone. It never
//! touches the target directory of the build that it is part of.

use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-wasip2";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is one up");
    for input in ["wit", "transforms/sdk/rust", "transforms/customers", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("guests");
    ensure_target();
    let built = cargo(root, &out).status().expect("cargo runs");
    assert!(built.success(), "the customers transform did not build: see above");
    let component = out.join(TARGET).join("guest/customers.wasm");
    println!("cargo::rustc-env=WEIR_CUSTOMERS_WASM={}", component.display());
}

/// What the outer build says of compiler, flags and places is not for the guest.
fn cargo(root: &Path, out: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").expect("cargo sets it"));
    cargo.args(["build", "--package", "customers", "--target", TARGET, "--profile", "guest"]);
    cargo.current_dir(root).arg("--target-dir").arg(out);
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_ARGS",
    ] {
        cargo.env_remove(name);
    }
    cargo
}

/// Adds the target where the toolchain does not have it yet.
fn ensure_target() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let there = libraries.is_ok_and(|o| Path::new(String::from_utf8_lossy(&o.stdout).trim()).exists());
    if there {
        return;
    }
    println!("cargo::warning=adding the target {TARGET} to the toolchain");
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    let added = added.is_ok_and(|status| status.success());
    assert!(added, "the target {TARGET} is missing: run `rustup target add {TARGET}`");
}
