//! The transforms that only tests run, built when a test first asks for one.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The bytes of the hostile transform.
pub(crate) fn hostile() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build("hostile"))
}

/// The bytes of the strict transform.
pub(crate) fn strict() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build("strict"))
}

/// Another component that does the same: it has a section more, of which nobody reads anything.
pub(crate) fn another(component: &[u8]) -> Vec<u8> {
    // Its kind, its length, a name of one letter, and a byte.
    [component, &[0, 3, 1, b'x', 0]].concat()
}

fn build(package: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is one up");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guests");
    let mut cargo = weir::project::cargo::build(root);
    cargo.args(["--quiet", "--profile", "guest", "--package", package, "--target-dir"]).arg(&out);
    assert!(cargo.status().expect("cargo runs").success(), "{package} did not build");
    let file = out.join("wasm32-wasip2/guest").join(format!("{package}.wasm"));
    std::fs::read(&file).expect("the build made it")
}
