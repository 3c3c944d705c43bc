//! Builds the customers transform, which the program carries so that its demo runs from a clean clone, and lists
//! the Rust SDK's files, which `weir new` writes. It never touches the target directory of the build that it is
//! part of.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "src/project/cargo.rs"]
#[expect(unreachable_pub, reason = "in the library it is public")]
mod cargo;

use cargo::TARGET;

fn main() {
    // Asked for now and not when this was compiled: a target directory can serve several clones.
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest.parent().expect("the workspace is one up");
    let inputs = [
        "wit",
        "transforms/sdk/rust",
        "transforms/customers",
        "Cargo.toml",
        ".cargo/config.toml",
        "runtime/src/project/cargo.rs",
    ];
    for input in inputs {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("sdk_files.rs"), sdk_files(root)).expect("OUT_DIR takes files");
    let component = customers(root, &out.join("guests"));
    println!("cargo::rustc-env=WEIR_CUSTOMERS_WASM={}", component.display());
}

/// Where the component is.
fn customers(root: &Path, target_dir: &Path) -> PathBuf {
    if !cargo::has_target(root) {
        let cargo = cargo::version(root).expect("cargo runs");
        println!("cargo::warning=adding the target {TARGET} for {cargo}");
        let added = cargo::add_target(root);
        added.unwrap_or_else(|e| {
            panic!("the target {TARGET} is missing ({e}): run `rustup target add {TARGET}`")
        });
    }
    let mut cargo: Command = cargo::build(root);
    cargo.args(["--package", "customers", "--profile", "guest", "--target-dir"]).arg(target_dir);
    let built = cargo.env_remove("RUSTC_WRAPPER").status().expect("cargo runs");
    assert!(built.success(), "the customers transform did not build: see above");
    target_dir.join(TARGET).join("guest/customers.wasm")
}

/// The source of a constant with the path and text of each of the SDK's files, as a project carries them.
fn sdk_files(root: &Path) -> String {
    let sdk = root.join("transforms/sdk/rust");
    let mut files = BTreeMap::new();
    for folder in ["src", "wit"] {
        read_into(&mut files, &sdk, &sdk.join(folder));
    }
    files.insert("Cargo.toml".to_owned(), read(&sdk.join("Cargo.toml")));
    let mut source = "pub(super) const SDK: &[(&str, &str)] = &[\n".to_owned();
    for (path, text) in files {
        writeln!(source, "    ({path:?}, {text:?}),").expect("a string takes everything");
    }
    source + "];\n"
}

fn read_into(files: &mut BTreeMap<String, String>, sdk: &Path, folder: &Path) {
    for entry in fs::read_dir(folder).expect("the SDK is part of the workspace") {
        let path = entry.expect("a folder can be read to its end").path();
        if path.is_dir() {
            read_into(files, sdk, &path);
        } else {
            let name = path.strip_prefix(sdk).expect("it was found in there").to_str();
            files.insert(name.expect("our names are ASCII").replace('\\', "/"), read(&path));
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("reading `{}`: {e}", path.display()))
}
