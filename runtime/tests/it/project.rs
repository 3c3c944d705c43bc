//! A project as a new user makes it: it builds, its own tests pass, and its rule is right about its own sample.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use weir::batch::{Batch, BatchBuilder};
use weir::budget::Permit;
use weir::offset::TopicPartition;
use weir::rule::Rule as _;
use weir::sandbox::{Init, InstanceLimits, Sandbox, SandboxOptions};
use weir::source::format::{Format, Options, RecordReader};

use crate::sandbox::kept_code;

/// All projects of the tests are built in one place, so that the SDK is compiled once.
fn target_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("projects")
}

fn weir(args: &[&str], dir: &Path) -> Output {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(args).current_dir(dir).env("CARGO_TARGET_DIR", target_dir());
    weir.env("XDG_CACHE_HOME", dir.join(".cache"));
    weir.output().expect("the program starts")
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"))
}

/// Exit code and stderr.
fn refusal(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let output = weir(args, dir);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn sample(path: &Path) -> Batch {
    let file = Box::new(std::fs::File::open(path).unwrap());
    let mut reader = RecordReader::open(file, "sample.csv", &Options::new(Format::Csv)).unwrap();
    let mut builder = BatchBuilder::new(TopicPartition::new("sample", 0), reader.next());
    reader.fill(&mut builder, usize::MAX, usize::MAX).unwrap();
    builder.finish(reader.next(), Permit::free()).unwrap()
}

/// The rows of the sample on `orders` and on `rest`, and those rejected.
fn fates(component: &Path, sample: &Batch) -> [Vec<u32>; 3] {
    let sandbox = Sandbox::new(SandboxOptions::default()).unwrap();
    let transform = sandbox.load(&std::fs::read(component).unwrap()).unwrap();
    let description = Arc::new(transform.describe(&[], &InstanceLimits::default()).unwrap());
    let init = Init { settings: vec![], tables: vec![], limits: InstanceLimits::default(), description };
    let output = transform.instance(&init).unwrap().process(sample).unwrap();
    let [orders, rest] = &output.routes[..] else { panic!("two routes") };
    [orders.rows.to_vec(), rest.rows.to_vec(), output.rejects.iter().map(|reject| reject.row).collect()]
}

#[test]
fn a_new_project_builds_and_is_right_about_its_sample() {
    let parent = tempfile::tempdir().unwrap();
    let made = json(&weir(&["new", "my-orders", "--json"], parent.path()));
    assert_eq!(made["name"], "my-orders");
    let dir = parent.path().join("my-orders");

    let built = json(&weir(&["build", "--json"], &dir));
    assert_eq!((&built["name"], &built["version"]), (&"my-orders".into(), &"0.1.0".into()));
    let kept = || kept_code(&dir.join(".cache/weir"));
    let built_code = kept();
    assert_eq!(built_code.len(), 1, "what it compiled is kept");
    let validated = json(&weir(&["validate", "my-orders.wasm", "--sample", "sample.csv", "--json"], &dir));
    assert_eq!(
        (&validated["transform"]["name"], kept()),
        (&"my-orders".into(), built_code),
        "nothing is compiled again"
    );
    let component = dir.join("my-orders.wasm");
    let digest = weir::digest::of(&std::fs::read(&component).unwrap());
    assert_eq!(built["digest"], digest.as_str());
    assert_eq!(
        fates(&component, &sample(&dir.join("sample.csv"))),
        [vec![0, 1, 2], vec![3, 7], vec![4, 5, 6]]
    );

    let mut tests = Command::new(env!("CARGO"));
    let tested = tests.arg("test").current_dir(&dir).env("CARGO_TARGET_DIR", target_dir()).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));

    let source = std::fs::read_to_string(dir.join("src/lib.rs")).unwrap();
    let describe = "fn describe(_: &Settings) -> Result<Description, String> {";
    let panics = source.replace(describe, &format!("{describe} panic!(\"no words today\");"));
    assert_ne!(panics, source);
    std::fs::write(dir.join("src/lib.rs"), panics).unwrap();
    let (code, stderr) = refusal(&["build"], &dir);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("it compiled, but does not describe itself"), "{stderr}");
    assert!(stderr.contains("no words today"), "its last words: {stderr}");

    std::fs::write(dir.join("src/lib.rs"), "fn broken(").unwrap();
    let (code, stderr) = refusal(&["build"], &dir);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("src/lib.rs:1") && stderr.contains("`my-orders` did not compile"), "{stderr}");
    assert_eq!(weir::digest::of(&std::fs::read(&component).unwrap()), digest, "the last one is still there");
}

#[test]
fn what_cannot_be_made_or_built_is_refused_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let check = |args: &[&str], expected: &str| {
        let (code, stderr) = refusal(args, dir.path());
        assert!(code == Some(2) && stderr.contains(expected), "{code:?}: {stderr}");
    };
    check(&["build"], "there is no Cargo.toml in `.`");
    check(&["new", "match", "--lang", "rust"], "means something else to Rust");
    check(&["new", "orders", "--lang", "cobol"], "[possible values: rust]");
    std::fs::create_dir(dir.path().join("orders")).unwrap();
    std::fs::write(dir.path().join("orders/Cargo.toml"), "[package]\nname = 'orders'").unwrap();
    check(&["new", "orders", "--lang", "rust"], "orders` is there already and not empty");
    check(&["build", "orders"], "the package `orders` is no transform");
}
