//! What the program prints for other programs: the schema for editors, completions for shells.

use std::process::{Command, Output};

fn weir(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(args).output().expect("the program starts")
}

fn text(args: &[&str]) -> String {
    let output = weir(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_schema_is_json_that_explains_the_file() {
    let schema: serde_json::Value = serde_json::from_str(&text(&["schema"])).expect("JSON");
    let path = &schema["properties"]["source"]["properties"]["files"];
    assert!(path.to_string().contains("A file or a directory, relative to this file"), "{path}");
    assert!(text(&["schema", "--help"]).contains("#:schema ./weir.schema.json"));
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_program_without_a_word() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../transforms/customers/golden.jsonl");
    for args in [&["schema"][..], &["validate", "@customers", "--expect", golden]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut program = Command::new(env!("CARGO_BIN_EXE_weir"));
        let ended = program.args(args).stdout(writer).output().expect("the program starts");
        assert_eq!(
            (ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()),
            (Some(141), ""),
            "{args:?}"
        );
    }
}

#[test]
fn every_shell_can_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = text(&["completions", shell]);
        for command in ["demo", "new", "build", "validate", "run", "history", "schema", "completions"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(text(&["completions", "--help"]).contains(&format!("weir completions {shell} >")), "{shell}");
    }
    assert_eq!(weir(&["completions", "tcsh"]).status.code(), Some(2));
}
