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
