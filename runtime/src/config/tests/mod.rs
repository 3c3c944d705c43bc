//! The laws of the pipeline file, each with the message that a person sees.

mod declared;
mod meaning;
mod structure;

use expect_test::{Expect, expect};

use super::*;

/// A file that uses all there is.
const FULL: &str = r#"
[pipeline]
name = "customers"
state = "state/customers"

[source.files]
path = "${DATA}/customers.csv"
topic = "customers-raw"

[transform]
component = "customers.wasm"

[transform.settings]
non_usa = "other"
oldest = 130
strict = true

[transform.tables.us_cities]
file = "data/us_cities.csv"
delimiter = ";"
columns = { city = "City" }

[limits]
memory = "128 MiB"
deadline = "500 ms"
output_bytes = "32 MiB"
fuel_per_record = 1_000_000
batch_records = 1000
batch_bytes = 65536
log_bytes_per_second = "8 KiB"
workers = 3
in_flight_bytes = "16 MB"

[sandbox]
imports = "none"
verify_fraction = 0.25

[routes]
usa = ["lake.customers_usa", "copy.customers.usa", "base.usa"]
alerts = ["lake.customers_alerts", "base.other"]
other = "none"

[dead_letter]
to = "lake.dead_letters"
stop_after_consecutive = 50
max_attempts = 7

[sinks.lake.files]
path = "out"
format = "parquet"
roll = { bytes = "64 MiB", rows = 10_000, age = "30 s", idle = "5 s" }
provenance = false
compact_after = 20
targets.dead_letters = { format = "jsonl" }

[sinks.copy.files]
url = "file://${COPY}/lake"
format = "jsonl"

[sinks.base.sqlite]
path = "${DATA}/customers.db"
commit = { bytes = "4 MiB", rows = 5_000, age = "2 s", idle = "250 ms" }
provenance = false
targets.usa = { table = "customers", mode = "upsert", key = ["id"] }
targets.other = { mode = "append" }

[deploy]
rollback = { records = 500, time = "2 min", failed = 0.25 }

[admin]
listen = "[::1]:0"
socket = "${DATA}/sockets"
"#;

/// A file with what must be there and nothing else.
const SMALL: &str = r#"[pipeline]
name = "customers"
state = "state"

[source.files]
path = "customers.csv"
topic = "customers-raw"

[transform]
component = "customers.wasm"

[limits]
memory = "256 MiB"

[routes]
usa = "lake.customers_usa"

[dead_letter]
to = "lake.dead_letters"

[sinks.lake.files]
path = "out"
"#;

fn parse(text: &str) -> Result<PipelineConfig, Error> {
    let env = |name: &str| match name {
        "DATA" => Some("in".to_owned()),
        "COPY" => Some("/srv/copy".to_owned()),
        _ => None,
    };
    PipelineConfig::parse(text, Path::new("conf/customers.toml"), &env)
}

fn small() -> PipelineConfig {
    parse(SMALL).expect("the small file is right")
}

/// What a person sees when `from` is replaced by `to` in the small file.
fn check(from: &str, to: &str, expected: Expect) {
    assert!(SMALL.contains(from), "{from} is not in the file");
    refused(parse(&SMALL.replacen(from, to, 1)), expected);
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, expected: Expect) {
    expected.assert_eq(&result.expect_err("the file is refused").to_string());
}

#[test]
fn a_full_file_says_what_it_says() {
    let config = parse(FULL).expect("the full file is right");
    assert!(config.warnings().is_empty(), "{}", config.warnings());
    expect![[r#"
        PipelineConfig {
            name: "customers",
            state: "conf/state/customers",
            source: Files(
                FilesSource {
                    path: "conf/in/customers.csv",
                    format: None,
                    topic: "customers-raw",
                },
            ),
            transform: TransformConfig {
                component: "conf/customers.wasm",
                settings: {
                    "non_usa": "other",
                    "oldest": "130",
                    "strict": "true",
                },
                tables: {
                    "us_cities": TableConfig {
                        file: "conf/data/us_cities.csv",
                        delimiter: Some(
                            59,
                        ),
                        columns: {
                            "city": "City",
                        },
                    },
                },
            },
            limits: Limits {
                memory: 128 MiB,
                deadline: 500 ms,
                output_bytes: 32 MiB,
                fuel_per_record: 1000000,
                batch_records: 1000,
                batch_bytes: 64 KiB,
                log_bytes_per_second: 8 KiB,
                workers: 3,
                in_flight_bytes: 16 MB,
            },
            sandbox: Sandbox {
                imports: None,
                verify_fraction: 0.25,
            },
            routes: {
                "alerts": [
                    "lake.customers_alerts",
                    "base.other",
                ],
                "other": [],
                "usa": [
                    "lake.customers_usa",
                    "copy.customers.usa",
                    "base.usa",
                ],
            },
            dead_letter: DeadLetter {
                to: "lake.dead_letters",
                stop_after_consecutive: 50,
                max_attempts: 7,
            },
            sinks: {
                "base": Sqlite(
                    SqliteSink {
                        path: "conf/in/customers.db",
                        commit: CommitWhen {
                            bytes: 4 MiB,
                            rows: 5000,
                            age: 2 s,
                            idle: 250 ms,
                        },
                        provenance: false,
                        tables: {
                            "other": TargetTable {
                                table: "other",
                                key: None,
                            },
                            "usa": TargetTable {
                                table: "customers",
                                key: Some(
                                    [
                                        "id",
                                    ],
                                ),
                            },
                        },
                    },
                ),
                "copy": Files(
                    FilesSink {
                        root: Disk(
                            "/srv/copy/lake",
                        ),
                        format: Jsonl,
                        roll: Roll {
                            bytes: 128 MiB,
                            rows: 1000000,
                            age: 1 min,
                            idle: 10 s,
                        },
                        provenance: true,
                        compact_after: 100,
                        directories: [],
                        targets: {},
                    },
                ),
                "lake": Files(
                    FilesSink {
                        root: Disk(
                            "conf/out",
                        ),
                        format: Parquet,
                        roll: Roll {
                            bytes: 64 MiB,
                            rows: 10000,
                            age: 30 s,
                            idle: 5 s,
                        },
                        provenance: false,
                        compact_after: 20,
                        directories: [],
                        targets: {
                            "dead_letters": FilesTarget {
                                format: Some(
                                    Jsonl,
                                ),
                                directories: None,
                            },
                        },
                    },
                ),
            },
            deploy: Deploy {
                rollback: Worse(
                    Rollback {
                        records: 500,
                        time: 2 min,
                        rejected: 0.05,
                        failed: 0.25,
                    },
                ),
            },
            admin: AdminConfig {
                listen: Some(
                    [::1]:0,
                ),
                socket: "conf/in/sockets",
            },
            file: "conf/customers.toml",
            text: "",
            warnings: [],
            given: None,
        }
    "#]]
    .assert_debug_eq(&PipelineConfig { text: String::new(), ..config });
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = small();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.sandbox.imports, Imports::Inert);
    assert_eq!(config.dead_letter.stop_after_consecutive.get(), 1000);
    assert_eq!(config.dead_letter.max_attempts.get(), 5);
    let SinkConfig::Files(sink) = config.sinks.values().next().expect("there is a sink") else {
        panic!("it is a sink of files")
    };
    assert_eq!((sink.format, sink.provenance, &sink.roll), (FileFormat::Parquet, true, &Roll::default()));
    assert_eq!(sink.compact_after.get(), 100);
}

#[test]
fn a_plan_is_taken_back_by_itself_unless_the_file_says_that_none_is() {
    assert_eq!(small().deploy.limits(), Some(&Rollback::default()));
    let text = |value: &str| format!("{SMALL}\n[deploy]\nrollback = {value}\n");
    assert_eq!(parse(&text("\"none\"")).expect("a word").deploy.limits(), None);
    let some = parse(&text("{ rejected = 0.5 }")).expect("a table");
    let expected = Rollback { rejected: Fraction::parse(0.5).expect("a half"), ..Rollback::default() };
    assert_eq!(some.deploy.limits(), Some(&expected));
    refused(
        parse(&text("\"never\"")),
        expect![[r#"
        error: `rollback` in [deploy]: unknown value `never`
          --> conf/customers.toml:25:12
           |
        25 | rollback = "never"
           |            ^^^^^^^
           = help: known here: `none`"#]],
    );
    refused(
        parse(&text("{ failed = 2, rejects = 0.1 }")),
        expect![[r#"
        error: `failed` in [deploy.rollback]: 2 is not a fraction
          --> conf/customers.toml:25:23
           |
        25 | rollback = { failed = 2, rejects = 0.1 }
           |                       ^
           = help: write a number from 0 to 1, such as 0.001

        error: unknown key `rejects` in [deploy.rollback]
          --> conf/customers.toml:25:26
           |
        25 | rollback = { failed = 2, rejects = 0.1 }
           |                          ^^^^^^^
           = help: did you mean `rejected`?"#]],
    );
}

#[test]
fn a_table_of_which_nothing_is_said_is_appended_to_in_small_commits() {
    let text = SMALL.replace("[sinks.lake.files]\npath = \"out\"", "[sinks.lake.sqlite]\npath = \"lake.db\"");
    let config = parse(&text).expect("a path is enough");
    let SinkConfig::Sqlite(sink) = config.sinks.values().next().expect("there is a sink") else {
        panic!("it is a sink of tables")
    };
    assert_eq!((sink.path.to_str(), sink.provenance), (Some("conf/lake.db"), true));
    assert_eq!((&sink.commit, sink.tables.len()), (&CommitWhen::default(), 0));
}

#[test]
fn a_target_has_the_format_of_its_sink_or_its_own() {
    let config = parse(FULL).expect("the full file is right");
    let SinkConfig::Files(lake) = &config.sinks[&SinkName::parse("lake").expect("valid")] else {
        panic!("it is a sink of files")
    };
    let format = |target| lake.format_of(&TargetName::parse(target).expect("valid"));
    assert_eq!((format("dead_letters"), format("customers_usa")), (FileFormat::Jsonl, FileFormat::Parquet));
}

#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = SMALL
        .replace("memory", "memroy")
        .replace("lake.customers", "leak.customers")
        .replace("state =", "sate =");
    refused(
        parse(&text),
        expect![[r#"
        error: unknown key `sate` in [pipeline]
         --> conf/customers.toml:3:1
          |
        3 | sate = "state"
          | ^^^^
          = help: did you mean `state`?

        error: unknown key `memroy` in [limits]
          --> conf/customers.toml:13:1
           |
        13 | memroy = "256 MiB"
           | ^^^^^^
           = help: did you mean `memory`?"#]],
    );
    let text = SMALL.replace("memory", "memroy").replace("lake.customers", "leak.customers");
    refused(
        parse(&text),
        expect![[r#"
        error: unknown key `memroy` in [limits]
          --> conf/customers.toml:13:1
           |
        13 | memroy = "256 MiB"
           | ^^^^^^
           = help: did you mean `memory`?

        error: unknown sink `leak` in `leak.customers_usa`
          --> conf/customers.toml:16:7
           |
        16 | usa = "leak.customers_usa"
           |       ^^^^^^^^^^^^^^^^^^^^
           = help: known here: `lake`"#]],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = PipelineConfig::load(Path::new("no/such/file.toml")).expect_err("there is no such file");
    assert_eq!(error.to_string(), "cannot read the pipeline file `no/such/file.toml`");
}

#[test]
fn a_loaded_file_has_absolute_paths() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let file = directory.path().join("customers.toml");
    fs::write(&file, SMALL).expect("the directory is writable");
    let config = PipelineConfig::load(&file).expect("the small file is right");
    assert_eq!(config.state, directory.path().join("state"));
    assert_eq!(config.transform.component, directory.path().join("customers.wasm"));
}

#[test]
fn colours_change_nothing_but_the_colour() {
    let error = parse(&SMALL.replace("memory", "memroy")).expect_err("the file is refused");
    let coloured = error.render(true);
    assert!(coloured.contains("\u{1b}[1;31merror\u{1b}[0m"), "{coloured:?}");
    let plain: String = coloured
        .split('\u{1b}')
        .map(|part| {
            part.split_once('m').map_or(part, |(code, rest)| if code.starts_with('[') { rest } else { part })
        })
        .collect();
    assert_eq!(plain, error.to_string());
}

#[test]
fn no_cut_of_a_file_makes_the_host_panic() {
    for end in (0..FULL.len()).filter(|end| FULL.is_char_boundary(*end)) {
        if let Err(error) = parse(&FULL[..end]) {
            assert!(!error.to_string().is_empty(), "cut at {end}");
        }
    }
}
