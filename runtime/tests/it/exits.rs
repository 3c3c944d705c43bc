//! One rule for the exit codes of all commands: what was named and is not there is wrong (2); what does not answer, or may
//! not be looked at, is outside (3).

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::guests;
use crate::run::{FILE, Pipeline, ask, stderr, with_tables};

/// Nobody listens there: the port is for a protocol that has none any more.
const NOBODY: &str = "127.0.0.1:1";

fn start(dir: &Path, line: &str) -> Child {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(line.split(' ')).current_dir(dir).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    weir.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn end(started: Child) -> (Option<i32>, String) {
    let output = started.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output))
}

/// A directory with pipelines, of each of which one thing is wrong.
fn pipelines() -> Pipeline {
    let pipeline = Pipeline::of(guests::hostile(), FILE);
    pipeline.input(&["one".to_owned()]);
    let write = |name: &str, text: String| {
        // All of them may run at once.
        let text = text.replace("state = \"state\"", &format!("state = \"state of {name}\""));
        std::fs::write(pipeline.path(name), text).expect("writable");
    };
    let change = |name: &str, from: &str, to: &str| {
        assert!(FILE.contains(from), "{from}");
        write(name, FILE.replace(from, to));
    };
    change("no-component.toml", "guest.wasm", "guests.wasm");
    change("no-table.toml", "[limits]", "[transform.tables.cities]\nfile = \"cities.csv\"\n\n[limits]");
    change("no-input.toml", "path = \"input\"", "path = \"inputs\"");
    let files = "[source.files]\npath = \"input\"\ntopic = \"records\"\n";
    let from_topics = format!("[source.kafka]\nbrokers = \"{NOBODY}\"\ntopics = [\"records\"]\n");
    change("no-kafka.toml", files, &from_topics);
    let topics = |name: &str| format!("[sinks.{name}.kafka]\nbrokers = \"{NOBODY}\"\n");
    let to_topics = FILE.replace("ok = \"out.ok\"", "ok = [\"one.ok\", \"other.ok\"]");
    write("two-kafka.toml", to_topics.replace(files, &from_topics) + &topics("one") + &topics("other"));
    let base = "[sinks.base.postgres]\nhost = \"127.0.0.1\"\nport = 1\ndatabase = \"d\"\nuser = \"u\"\n";
    let to_base = FILE.replace("ok = \"out.ok\"", "ok = \"base.ok\"");
    write("no-postgres.toml", format!("{to_base}{base}"));
    write("no-password.toml", format!("{to_base}{base}password_file = \"secret\"\n"));
    pipeline
}

#[test]
fn what_was_named_and_is_not_there_is_2_and_what_does_not_answer_is_3_in_every_command() {
    let pipeline = pipelines();
    let cases = [
        ("run none.toml", 2, "none.toml"),
        ("doctor none.toml", 2, "none.toml"),
        ("status none.toml", 2, "none.toml"),
        ("history none.toml", 2, "none.toml"),
        ("pause none.toml", 2, "none.toml"),
        ("resume none.toml", 2, "none.toml"),
        ("run --once no-component.toml", 2, "there is no file"),
        ("doctor no-component.toml", 2, "there is no file"),
        ("doctor --ddl no-component.toml", 2, "there is no file"),
        ("run --once no-table.toml", 2, "there is no file"),
        ("doctor no-table.toml", 2, "there is no file"),
        ("run --once no-input.toml", 2, "there is no file and no directory"),
        ("doctor no-input.toml", 2, "there is no file and no directory"),
        ("run --once no-password.toml", 2, "there is no file"),
        ("doctor no-password.toml", 2, "there is no file"),
        ("validate none.wasm --sample input", 2, "none.wasm"),
        ("validate @customer --sample input", 2, "did you mean `@customers`?"),
        ("validate guest.wasm --sample none.csv", 2, "none.csv"),
        ("validate guest.wasm --expect none.jsonl", 2, "none.jsonl"),
        ("validate @customers --sample input --table us_cities=none.csv", 2, "none.csv"),
        ("build none", 2, "none"),
        ("produce none.csv --topic t", 2, "none.csv"),
        ("produce input/a.jsonl --topic t --brokers 127.0.0.1:1", 3, "(--brokers)"),
        ("peek t --brokers 127.0.0.1:1", 3, "(--brokers)"),
        ("status --address 127.0.0.1:1", 3, "nobody answers"),
        ("run --once no-kafka.toml", 3, "`brokers` in [source.kafka]"),
        ("doctor no-kafka.toml", 3, "`brokers` in [source.kafka]"),
        ("doctor two-kafka.toml", 2, "E_TWO_KAFKA_SINKS"),
        ("run --once no-postgres.toml", 3, "`host` and `port` say in [sinks.base.postgres]"),
        ("doctor no-postgres.toml", 3, "`host` and `port` say in [sinks.base.postgres]"),
    ];
    // All at once: a client waits ten seconds for a cluster that does not answer.
    let started: Vec<_> = cases.iter().map(|(line, ..)| start(&pipeline.path(""), line)).collect();
    for ((line, code, told), started) in cases.into_iter().zip(started) {
        let (ended, said) = end(started);
        assert!(ended == Some(code) && said.contains(told), "weir {line}: {ended:?}: {said}");
    }
}

#[test]
fn a_component_in_the_place_of_the_pipeline_file_is_told_for_what_it_is_in_every_command() {
    let pipeline = Pipeline::of(guests::hostile(), FILE);
    for line in [
        "deploy guest.wasm pipeline.toml",
        "run guest.wasm",
        "doctor guest.wasm",
        "dlq replay guest.wasm pipeline.toml --dry-run",
        "shadow status guest.wasm",
    ] {
        let (ended, said) = end(start(&pipeline.path(""), line));
        let told = "error: `guest.wasm` is a WebAssembly component, and no pipeline file\nhint: the pipeline file comes first";
        assert!(ended == Some(2) && said.starts_with(told), "weir {line}: {ended:?}: {said}");
    }
}

#[test]
fn all_files_that_are_not_there_are_shown_at_once_in_the_lines_that_name_them() {
    let pipeline = pipelines();
    let tables = "[transform.tables.cities]\nfile = \"cities.csv\"\n\n[limits]";
    let file = FILE.replace("guest.wasm", "rules/orders.wasm").replace("[limits]", tables);
    pipeline.write(&file.replace("path = \"input\"", "path = \"imput\""));
    let project = pipeline.path("rules");
    std::fs::create_dir(&project).expect("writable");
    std::fs::write(project.join("Cargo.toml"), "").expect("writable");
    let (code, said) = end(start(&pipeline.path(""), "run pipeline.toml"));
    assert_eq!(code, Some(2), "{said}");
    let dir = pipeline.path("").display().to_string();
    let said = said.replace(dir.trim_end_matches('/'), "DIR");
    expect_test::expect![[r#"
        error: there is no file and no directory `DIR/imput`
         --> pipeline.toml:7:8
          |
        7 | path = "imput"
          |        ^^^^^^^
          = help: did you mean `input`?

        error: there is no file `DIR/rules/orders.wasm`
          --> pipeline.toml:11:13
           |
        11 | component = "rules/orders.wasm"
           |             ^^^^^^^^^^^^^^^^^^^
           = help: `weir build DIR/rules` makes the component of the project there

        error: there is no file `DIR/cities.csv`
          --> pipeline.toml:14:8
           |
        14 | file = "cities.csv"
           |        ^^^^^^^^^^^^
    "#]]
    .assert_eq(&said);
    assert!(!pipeline.path("state").exists(), "nothing was made");
}

#[test]
fn a_table_that_does_not_fit_is_2_whoever_looks_at_it() {
    let pipeline = Pipeline::of(guests::hostile(), &with_tables(""));
    pipeline.input(&["one".to_owned()]);
    assert_eq!(pipeline.run(&[]).status.code(), Some(0));
    ask(&pipeline, "DROP TABLE ok");
    ask(&pipeline, "CREATE TABLE ok (its_own TEXT NOT NULL)");
    let slower = with_tables("").replace("300 ms", "400 ms");
    pipeline.write(&slower);
    for line in ["run --once --adopt", "doctor", "deploy --yes"] {
        let (command, args) = line.split_once(' ').unwrap_or((line, ""));
        let args: Vec<_> = args.split_whitespace().collect();
        let output = pipeline.weir(command, &args).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        assert!(output.status.code() == Some(2) && said.contains("E_SINK_SCHEMA"), "weir {line}: {said}");
    }
}
