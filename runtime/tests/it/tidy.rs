//! Holds the dependency rule of `ARCHITECTURE.md` and a few habits over the text of the sources. What is compiled
//! only for tests may know everything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Of modules, or of items in them.
type Names = &'static [&'static str];

/// Modules that only decide or hold data: no file, no clock, no thread of their own.
const MODEL: Names = &[
    "offset",
    "origin",
    "budget",
    "batch",
    "description",
    "tables",
    "route",
    "rule",
    "csv",
    "digest",
    "sink::state",
];

/// What the pipeline knows the outside by.
const PORTS: Names = &["source", "sink", "plan"];

/// What is behind the ports.
const ADAPTERS: Names = &[
    "source::files",
    "source::format",
    "source::kafka",
    "sink::back",
    "sink::files",
    "sink::json",
    "sink::kafka",
    "sink::memory",
    "sink::postgres",
    "sink::sqlite",
    "sink::table",
    "plan::files",
    "plan::kafka",
    "plan::memory",
    "plan::store",
];

/// What stands between the ports.
const CENTRE: Names = &["commit", "pipeline", "pipeline::threads", "sandbox", "sandbox::verdict"];

/// Modules, what they may know besides themselves, and why no more. A name stands for the module without those
/// below it that are in the table by themselves; the longest name that fits a file or a path is the one that
/// counts.
const RULE: &[(Names, &[Names], &str)] = &[
    (MODEL, &[MODEL], "the model knows no source, sink, sandbox or pipeline"),
    (&["source"], &[MODEL], "a port is what adapters implement: it knows none of them, and no other port"),
    (&["source::format"], &[MODEL], "cutting bytes into records knows nothing of where the bytes come from"),
    (&["source::kafka"], &[MODEL, &["source", "kafka"]], "adapters do not know one another"),
    (&["source::files"], &[MODEL, &["source", "source::format"]], "adapters do not know one another"),
    (&["sink"], &[MODEL], "a port is what adapters implement: it knows none of them, and no other port"),
    (&["sink::json"], &[MODEL], "a row's form knows nothing of where it is written to"),
    (
        &["sink::back"],
        &[MODEL, &["sink", "sink::json"]],
        "what is read back has one form, whichever sink has it",
    ),
    (&["sink::files"], &[MODEL, &["sink", "sink::back", "sink::json"]], "adapters do not know one another"),
    (&["sink::memory"], &[MODEL, &["sink"]], "adapters do not know one another"),
    (
        &["sink::kafka"],
        &[MODEL, &["sink", "sink::back", "sink::json", "kafka"]],
        "adapters do not know one another; what a cluster is asked and told, `kafka` knows",
    ),
    (
        &["sink::table"],
        &[MODEL, &["sink", "sink::json"]],
        "what sinks of tables have in common knows none of them",
    ),
    (
        &["sink::postgres", "sink::sqlite"],
        &[MODEL, &["sink", "sink::back", "sink::json", "sink::table"]],
        "adapters do not know one another",
    ),
    // The log says which file is which partition, in the words of the source of files.
    (
        &["plan"],
        &[MODEL, &["source::files::FileEntry"]],
        "the plan log knows what was decided, not who acts on it",
    ),
    (&["plan::files", "plan::memory"], &[MODEL, &["plan"]], "adapters do not know one another"),
    (&["plan::kafka"], &[MODEL, &["plan", "kafka"]], "adapters do not know one another"),
    // The store and the log of files make names and bytes durable in the same way.
    (
        &["plan::store"],
        &[MODEL, &["plan", "plan::files::write_synced", "plan::files::sync_dir"]],
        "the store knows bytes and digests, not what they are for",
    ),
    (&["commit"], &[MODEL, PORTS], "when to commit is decided for every sink alike"),
    (
        &["pipeline"],
        &[MODEL, PORTS, &["commit", "comparison"]],
        "decisions know sources, sinks and transforms by what they say, never by what they are",
    ),
    (
        &["pipeline::threads"],
        &[MODEL, PORTS, &["commit", "comparison", "cpu", "pipeline", "purity", "sandbox::verdict"]],
        "the pipeline knows sources, sinks and transforms by their traits alone",
    ),
    (&["kafka"], &[MODEL], "a cluster is asked and told without knowing for which pipeline"),
    (
        &["sandbox"],
        &[MODEL, &["cpu"]],
        "the sandbox knows batches and outputs, not where they come from or go to",
    ),
    (&["sandbox::verdict"], &[MODEL], "a verdict knows rules, not how they are sandboxed"),
    (&["cell"], &[MODEL, &["sandbox", "sink::json"]], "a value is shown alike wherever it is shown"),
    (
        &["purity"],
        &[MODEL, &["cell", "sandbox::verdict"]],
        "two answers are compared without knowing who gave them",
    ),
    (&["comparison"], &[MODEL, &["cell"]], "two answers are compared without knowing who gave them"),
    (&["cpu"], &[], "what a thread took of a processor is a number"),
    (&["errors"], &[], "what a code means is data for people"),
    (&["config"], &[], "the pipeline file is read without knowing what will act on it"),
    (
        &["report"],
        &[MODEL, &["pipeline::Tally"]],
        "a report is data: who found it out, and who shows it, is not its business",
    ),
    (
        &["validate"],
        &[MODEL, PORTS, ADAPTERS, CENTRE, &["cell", "config", "purity", "report"]],
        "a component is judged whoever asks for it",
    ),
    (&["project"], &[MODEL, &["sandbox"]], "a transform is made and built without running a record"),
    (
        &["admin"],
        &[
            MODEL,
            &[
                "pipeline::shadow",
                "pipeline::status",
                "pipeline::threads::Handle",
                "pipeline::Order",
                "pipeline::What",
                "plan::By",
            ],
        ],
        "who looks at a pipeline knows what it shows of itself, and nothing that it does",
    ),
    (
        &["app"],
        &[MODEL, PORTS, ADAPTERS, CENTRE, &["kafka", "config", "admin", "app::deploy::sample"]],
        "what is wired does not know who asks for it",
    ),
    // It tells what a shadow tells, before there is one.
    (
        &["app::deploy::sample"],
        &[
            MODEL,
            &["app", "comparison", "cpu", "pipeline", "pipeline::threads", "purity", "sandbox::verdict"],
        ],
        "what is tried is run and compared as workers and shadows do it",
    ),
    (
        &["cli"],
        &[
            MODEL,
            PORTS,
            ADAPTERS,
            CENTRE,
            &["comparison", "kafka", "config", "report", "validate", "project", "admin", "app"],
        ],
        "the program's start is above it",
    ),
    (&["main"], &[&["cli", "app", "config"]], "it parses, runs and chooses the exit code"),
];

/// Libraries, the modules and all below them that may use them, and why no other.
const LIBRARIES: &[(&str, Names, &str)] = &[
    ("wasmtime", &["sandbox"], "only the sandbox knows how transforms are run"),
    ("wasmparser", &["sandbox::precheck"], "what a component may be made of is counted in one place"),
    (
        "arrow",
        &[
            "cell",
            "comparison",
            "description",
            "purity",
            "route",
            "sandbox",
            "sink",
            "tables::parquet",
            "validate",
            "cli",
        ],
        "columns begin behind the transform, but for tables that come in columns",
    ),
    (
        "parquet",
        &["sink::files::parquet", "sink::files::back::parquet", "tables::parquet"],
        "one file writes the format, one reads it back, and one reads that of others",
    ),
    (
        "bytes",
        &["tables::parquet", "sink::files::back::parquet", "sink::files::hdfs::upload"],
        "it is how the reader of Parquet and the client of HDFS want the bytes of a file",
    ),
    ("sqlx", &["sink::postgres", "sink::sqlite"], "only the sinks of tables speak SQL"),
    ("rdkafka", &["kafka"], "only what talks to a cluster knows its client"),
    ("hdfs_native", &["sink::files::hdfs"], "only one storage of files knows that there is HDFS"),
    (
        "backon",
        &["sink::files::hdfs", "app::logs"],
        "what is tried again by itself is so where it does no harm",
    ),
    (
        "tokio",
        &[
            "sink::files::hdfs",
            "sink::postgres::database",
            "sink::sqlite::database",
            "kafka::topics",
            "admin",
        ],
        "what is asynchronous is waited for where it is called",
    ),
    ("axum", &["admin"], "only who answers requests knows how they come"),
    ("clap", &["cli", "main"], "only the command line knows that there is one"),
    ("clap_complete", &["cli"], "only the command line knows that there is one"),
    ("comfy_table", &["cli"], "only the command line knows that there is a terminal"),
    ("indicatif", &["cli"], "only the command line knows that there is a terminal"),
    ("signal_hook", &["app", "cli", "main"], "signals are for the process, not for what runs in it"),
    ("tracing_subscriber", &["app", "cli", "main"], "where the log goes is for the process to say"),
    ("anyhow", &["app", "cli", "main"], "a module that others call has an error type of its own"),
    ("toml", &["config", "project"], "only the pipeline file and manifests are TOML"),
    ("schemars", &["config"], "only the pipeline file has a schema"),
    (
        "crossbeam_channel",
        &["pipeline::threads", "sandbox::child", "sandbox::engine", "app", "cli"],
        "threads are few, and all in these places",
    ),
    // The pipeline file's default for the number of workers is that of the processors.
    (
        "std::thread",
        &["config::file", "pipeline::threads", "sandbox::child", "sandbox::engine", "admin", "app", "cli"],
        "threads are few, and all in these places",
    ),
    (
        "std::time::Instant",
        &[
            "pipeline::threads",
            "sandbox::instance",
            "source::files",
            "source::kafka",
            // How long a cluster took to end a transaction tells whether to trust the connection.
            "kafka::transactions",
            "app",
            "cli",
            "validate",
        ],
        "decisions take the time as an argument",
    ),
    (
        "std::fs",
        &[
            "config",
            "plan",
            "source::files",
            "sink::files::hdfs::spool",
            "sink::files::local",
            "sink::postgres::socket",
            "sink::sqlite::database",
            "sandbox::cache",
            "validate",
            "project",
            "admin::socket",
            "app",
            "cli",
        ],
        "what decides or transforms touches no file",
    ),
    // Addresses, of servers: a driver makes the connections.
    (
        "std::net",
        &["config", "sink::postgres::socket", "admin", "cli"],
        "only sinks speak to a network, and who answers those who look",
    ),
    ("std::os::unix::net", &["admin"], "only who answers those who look has a socket of its own"),
    (
        "std::env",
        &["config", "project", "app", "cli", "main"],
        "nothing depends on the environment behind anyone's back",
    ),
    (
        "std::process",
        &["pipeline::threads", "sandbox::child", "project", "app", "cli", "main"],
        "what does not own the process neither ends it nor starts others",
    ),
    (
        "rustix",
        &[
            "sink::files::local",
            "sink::files::storage",
            "sink::postgres::socket",
            "kafka::wake",
            "sandbox::cache",
            "sandbox::child",
            "cpu",
            // Who tries a plan gives way to those that work.
            "pipeline::threads::shadow",
            "app",
            "main",
        ],
        "the operating system is asked where files are locked or renamed, how a connection behaves, when it \
         has something to say, how much a call took or may take of the machine, and to kill the program in tests",
    ),
    ("sha2", &["digest", "source::files", "sandbox"], "how a digest is written is for `digest` to say"),
    ("hmac", &["sandbox::cache"], "only the cache signs what it wrote"),
    ("getrandom", &["sink::state", "sandbox::cache", "app"], "nothing else may differ from run to run"),
    (
        "jiff",
        &["tables", "sink::json", "sink::files::directories", "config", "cli", "validate"],
        "times are numbers, but where people write or read them",
    ),
    ("crc32fast", &["sink::files"], "only the commit log guards its records so"),
    ("flate2", &["source::format::packed"], "what is compressed is unpacked in one place"),
    ("zstd", &["source::format::packed"], "what is compressed is unpacked in one place"),
    ("memchr", &["csv", "source::format"], "bytes are searched where records are cut"),
];

#[test]
fn what_a_module_may_know_is_in_the_table() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|source| &*source.module).collect();
    let broken: Vec<String> = sources.iter().flat_map(|source| broken_rules(source, &modules)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_file_says_what_it_is_for_and_leaves_nothing_for_later() {
    const NEVER: [&str; 4] = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
        concat!("thread::", "sleep"),
    ];
    let mut broken = Vec::new();
    for file in ["runtime", "transforms"].iter().flat_map(|dir| rust_files(&root().join(dir))) {
        let (name, text) = (shown(&file), fs::read_to_string(&file).unwrap());
        if !text.starts_with("//!") {
            broken.push(format!("{name}:1: a file opens with `//!`: what it is for, and what it never does"));
        }
        for (n, line) in text.lines().enumerate() {
            let found = NEVER.iter().filter(|never| line.contains(**never));
            broken
                .extend(found.map(|never| format!("{name}:{}: `{never}` is not for this repository", n + 1)));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A file of the library or the program, without what is compiled only for tests.
struct Source {
    file: String,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = root().join("runtime/src");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Source { file: shown(&path), module: module_of(path.strip_prefix(&root).unwrap()), text }
    };
    let mut sources: Vec<Source> = rust_files(&root).into_iter().map(read).collect();
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    sources.retain(|source| !tests.iter().any(|test| is_below(&source.module, test)));
    for source in &mut sources {
        source.text = without_tests(&source.text);
    }
    sources
}

/// `sink::files` for `sink/files/mod.rs` and `sink/files.rs`; the library's root is nameless.
fn module_of(path: &Path) -> String {
    let path = path.with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    match &parts[..] {
        ["lib"] => String::new(),
        [above @ .., "mod"] => above.join("::"),
        all => all.join("::"),
    }
}

/// What stands before a module that is not in the program: those of tests, and the laws for a fuzzer.
const ONLY_FOR_TESTS: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test, feature = \"fuzzing\"))]"];

/// The modules in files of their own that `source` declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let lines = source.text.lines().map(str::trim);
    let declared = lines.clone().zip(lines.skip(1)).filter(|(line, _)| ONLY_FOR_TESTS.contains(line));
    let named = declared.filter_map(|(_, next)| next.rsplit_once("mod ")?.1.strip_suffix(';'));
    // The root has no name.
    named.map(|name| format!("{}::{name}", source.module).trim_start_matches("::").to_owned()).collect()
}

/// Without comments, and up to the tests, which come last in a file.
fn without_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let begins =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(begins).unwrap_or(lines.len());
    let code = lines[..end].iter().map(|line| line.split("//").next().expect("there is a first part"));
    code.collect::<Vec<_>>().join("\n")
}

fn broken_rules(source: &Source, modules: &BTreeSet<&str>) -> Vec<String> {
    let Some(own) = row_of(&source.module) else {
        let nameless = source.module.is_empty();
        let text = format!("{}:1: `{}` is not in the table of {}", source.file, source.module, file!());
        return if nameless { Vec::new() } else { vec![text] };
    };
    let uses = paths(&source.text).into_iter();
    let broken = uses.filter_map(|(line, path)| {
        let why = match ours(&source.module, &path, modules) {
            Some(path) => breach(own, &path),
            None => misplaced(&source.module, &path.join("::")),
        };
        why.map(|why| format!("{}:{line}: {} uses `{}`: {why}", source.file, source.module, path.join("::")))
    });
    broken.collect()
}

/// The row's name for a module, and what it says.
type Row = (&'static str, &'static [Names], &'static str);

fn row_of(path: &str) -> Option<Row> {
    let named =
        RULE.iter().flat_map(|(names, may_know, why)| names.iter().map(move |name| (*name, *may_know, *why)));
    named.filter(|(name, ..)| is_below(path, name)).max_by_key(|(name, ..)| name.len())
}

fn breach((own, may_know, why): Row, path: &str) -> Option<&'static str> {
    let used = row_of(path).map_or(path, |(name, ..)| name);
    let known = may_know.iter().copied().flatten();
    let mut known =
        known.filter(|known| **known == used || known.len() > used.len() && is_below(path, known));
    (used != own && !path.is_empty() && known.next().is_none()).then_some(why)
}

fn misplaced(module: &str, path: &str) -> Option<&'static str> {
    let (_, places, why) = LIBRARIES.iter().find(|(library, ..)| is_below(path, library))?;
    (!places.iter().any(|place| is_below(module, place))).then_some(*why)
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A path of this crate from its root on; `None` for one of a library.
fn ours(module: &str, path: &[&str], modules: &BTreeSet<&str>) -> Option<String> {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut rest = path;
    match path[0] {
        "crate" | "weir" => (base, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while let ["super", behind @ ..] = rest {
                base.pop();
                rest = behind;
            }
        }
        child if modules.contains(&*format!("{module}::{child}")) => {}
        _ => return None,
    }
    base.extend(rest);
    Some(base.join("::"))
}

/// Every path of two names and more, with its line; of a list in braces each.
fn paths(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(skipped) = text[at..].find(is_name) {
        let start = at + skipped;
        let mut rest = &text[start..];
        let mut tree = Vec::new();
        if !text[..start].ends_with("::") {
            read_tree(&mut rest, &mut Vec::new(), &mut tree);
        }
        tree.retain(|path| path.len() > 1);
        if !tree.is_empty() {
            let line = text[..start].matches('\n').count() + 1;
            found.extend(tree.into_iter().map(|path| (line, path)));
        }
        at = text.len() - rest.trim_start_matches(is_name).len();
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Reads `a::b`, `a::{b, c::d}` and the like off the front of `rest`.
fn read_tree<'a>(rest: &mut &'a str, above: &mut Vec<&'a str>, found: &mut Vec<Vec<&'a str>>) {
    let depth = above.len();
    loop {
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        *rest = &rest[name.len()..];
        if !name.is_empty() && (name != "self" || above.is_empty()) {
            above.push(name);
        }
        match rest.strip_prefix("::") {
            Some(behind) if !name.is_empty() => *rest = behind,
            _ => break,
        }
        if let Some(list) = rest.strip_prefix('{') {
            *rest = list;
            return read_list(rest, above, found, depth);
        }
    }
    found.push(above.clone());
    above.truncate(depth);
}

fn read_list<'a>(rest: &mut &'a str, above: &mut Vec<&'a str>, found: &mut Vec<Vec<&'a str>>, depth: usize) {
    loop {
        *rest = rest.trim_start();
        read_tree(rest, above, found);
        let Some(end) = rest.find([',', '}']) else { break };
        let (separator, behind) = rest[end..].split_at(1);
        *rest = behind.trim_start();
        if separator == "}" {
            break;
        }
        if let Some(behind) = rest.strip_prefix('}') {
            *rest = behind;
            break;
        }
    }
    above.truncate(depth);
}

#[test]
fn every_path_is_found_with_its_line() {
    let text = "use crate::{\n    a::{\n        B as C,\n        d::{self, E},\n    },\n    f::*,\n};\nlet g = h::<i>(super::j::K::new(l));";
    let found: Vec<_> = paths(text).into_iter().map(|(line, path)| (line, path.join("::"))).collect();
    let expected = [
        (1, "crate::a::B"),
        (1, "crate::a::d"),
        (1, "crate::a::d::E"),
        (1, "crate::f"),
        (8, "super::j::K::new"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn a_breach_is_told_with_its_line_and_the_rule() {
    let text = "use state::Cut;\nuse wasmtime::Engine;\nuse files::FilesSink;\nuse crate::source::Source;"
        .to_owned();
    let source = Source { file: "src/sink/mod.rs".to_owned(), module: "sink".to_owned(), text };
    let modules = BTreeSet::from(["sink", "sink::state", "sink::files", "source"]);
    let port = "a port is what adapters implement: it knows none of them, and no other port";
    let expected = [
        "src/sink/mod.rs:2: sink uses `wasmtime::Engine`: only the sandbox knows how transforms are run"
            .to_owned(),
        format!("src/sink/mod.rs:3: sink uses `files::FilesSink`: {port}"),
        format!("src/sink/mod.rs:4: sink uses `crate::source::Source`: {port}"),
    ];
    assert_eq!(broken_rules(&source, &modules), expected);
}

/// Of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is one up")
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let found = paths.into_iter().flat_map(|path| match path.is_dir() {
        true if path.ends_with("target") => Vec::new(),
        true => rust_files(&path),
        false => vec![path],
    });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}
