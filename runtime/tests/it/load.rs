//! Files that are no transforms: what is wrong with each is said in words, with what to do.

use std::sync::Arc;

use weir::sandbox::{Init, InstanceLimits, LoadError, Sandbox, SandboxOptions};

use crate::guests;
use crate::sandbox::kept_code;

fn load(bytes: &[u8]) -> LoadError {
    let options = SandboxOptions { max_instances: 1, ..SandboxOptions::default() };
    Sandbox::new(options).unwrap().load(bytes).map(drop).unwrap_err()
}

fn says(bytes: &[u8], expected: &str) {
    let error = load(bytes);
    assert!(error.to_string().starts_with(expected), "expected {expected}, got {error}");
    assert!(!error.hint().is_empty());
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {text})")).unwrap()
}

fn module(text: &str) -> Vec<u8> {
    component(&format!("(core module {text})"))
}

#[test]
fn row_33_what_is_not_wasm_is_told_by_its_look() {
    says(b"", "the file is empty");
    says(b"(module)", "this is WebAssembly text, not a WebAssembly component");
    says(b"<!DOCTYPE html>", "this is HTML or XML");
    says(b"hello", "this is text");
    says(b"\x1f\x8b\x08\x00", "this is a gzip file");
    says(b"\x7fELF\x02\x01\x01\x00\x00\x00", "this is an ELF file");
    says(b"PK\x03\x04", "this is a zip file");
    says(b"\x00\x01\x02\x03\xff", "this is something else");
    says(&vec![0; (32 << 20) + 1], "the file has 33554433 bytes, more than the 33554432");
}

#[test]
fn row_34_other_kinds_of_wasm_are_told_and_how_to_make_a_component() {
    says(&wat::parse_str("(module)").unwrap(), "this is a core WebAssembly module, not a component");
    says(b"\0asm\x0c\x00\x01\x00", "the component is in binary format 0x1000c");
    says(b"\0asm\x0d", "the component is cut off after 5 bytes");
    let hostile = guests::hostile();
    says(&hostile[..hostile.len() / 2], "the component is cut off after");
    assert!(load(&wat::parse_str("(module)").unwrap()).hint().contains("--target wasm32-wasip2"));
}

#[test]
fn damaged_bytes_never_panic() {
    let hostile = guests::hostile();
    for i in 0..40 {
        let mut damaged = hostile[..hostile.len().min(20_000)].to_vec();
        let at = 8 + i * (damaged.len() - 8) / 40;
        damaged[at] ^= 0x55;
        load(&damaged);
    }
}

#[test]
fn row_35_precompiled_code_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("c");
    let options = SandboxOptions { cache_dir: Some(cache.clone()), ..SandboxOptions::default() };
    Sandbox::new(options).unwrap().load(guests::hostile()).unwrap();
    let (code, _) = &kept_code(&cache)[0];
    says(&std::fs::read(code).unwrap(), "precompiled code is not accepted");
}

/// With the real program to compile in a process of its own.
fn with_child() -> Sandbox {
    let compiler = Some(env!("CARGO_BIN_EXE_weir").into());
    Sandbox::new(SandboxOptions { compiler, ..SandboxOptions::default() }).unwrap()
}

#[test]
fn a_child_compiles_what_this_process_would_have() {
    let transform = with_child().load(guests::hostile()).unwrap();
    assert_eq!(transform.describe(&[], &InstanceLimits::default()).unwrap().name.as_str(), "hostile");
    let told = |bytes: &[u8]| (load(bytes).to_string(), with_child().load(bytes).unwrap_err().to_string());
    for bytes in [module("(memory 1 1 shared)"), module("(func i32.const 0)"), component("")] {
        let (here, there) = told(&bytes);
        assert_eq!(here, there);
    }
}

#[test]
fn a_judge_that_is_too_much_for_the_compiler_is_tried_once_by_one_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let (program, asked) = (dir.path().join("compiler"), dir.path().join("asked"));
    let weir = env!("CARGO_BIN_EXE_weir");
    let script = format!(
        "#!/bin/sh\n[ $2 = judge ] || exec '{weir}' \"$@\"\necho $$ >> '{}'\nkill -XCPU $$\n",
        asked.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let options = SandboxOptions { compiler: Some(program), ..SandboxOptions::default() };
    let transform = Sandbox::new(options).unwrap().load(guests::hostile()).unwrap();
    let description = Arc::new(transform.describe(&[], &InstanceLimits::default()).unwrap());
    let limits = InstanceLimits::default();
    let init = Init { settings: Vec::new(), tables: Vec::new(), limits, description };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let error = transform.judge(&init).unwrap_err();
                assert!(
                    std::error::Error::source(&error).is_some() || error.to_string().contains("60 s"),
                    "{error}"
                );
            });
        }
    });
    assert_eq!(std::fs::read_to_string(asked).unwrap().lines().count(), 1);
}

/// A component with `n` times the same function.
fn of_functions(n: usize, function: &wasm_encoder::Function) -> Vec<u8> {
    let mut functions = wasm_encoder::FunctionSection::new();
    let mut code = wasm_encoder::CodeSection::new();
    let mut types = wasm_encoder::TypeSection::new();
    types.ty().function([], []);
    for _ in 0..n {
        functions.function(0);
        code.function(function);
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&functions).section(&code);
    let mut component = wasm_encoder::Component::new();
    component.section(&wasm_encoder::ModuleSection(&module));
    component.finish()
}

#[test]
fn row_42_compile_bombs_are_refused_before_they_are_compiled() {
    let mut empty = wasm_encoder::Function::new([]);
    empty.instruction(&wasm_encoder::Instruction::End);
    says(&of_functions(1_000_000, &empty), "the component has 1000000 functions, more than the 200000");
    says(
        &module(&format!("(func {})", "(local i32 i64 f64 v128)".repeat(12_500))),
        "the component has 50000 local",
    );
    says(&module("(memory 65536)"), "the component wants more than any transform may have");
}

#[test]
fn row_41_features_that_are_off_are_named() {
    says(&module("(memory 1 1 shared)"), "the component uses threads");
    says(&module("(memory i64 1)"), "the component uses 64-bit memories");
    says(&module("(tag)"), "the component uses exceptions");
    says(&module("(type (struct))"), "the component uses garbage collection");
}

#[test]
fn row_43_a_memory_that_nobody_gets_is_refused() {
    says(&module("(memory 5000)"), "the component wants more than any transform may have");
}

#[test]
fn rows_38_and_39_imports_from_elsewhere_are_refused_by_name() {
    let import = |name: &str| component(&format!(r#"(import "{name}" (instance (export "f" (func))))"#));
    let refused = |name: &str, hint: &str| {
        let error = load(&import(name));
        assert_eq!(
            error.to_string(),
            format!("the component imports `{name}`, which a transform may not use")
        );
        assert!(error.hint().contains(hint), "{}", error.hint());
    };
    refused("wasi:http/types@0.2.6", "--disable http --disable fetch-event");
    refused("wasi:random/random@0.3.0", "WASI 0.2");
    refused("acme:lookup/table@1.0.0", "leave the import out");
    says(&component(r#"(import "lookup" (func))"#), "the component imports `lookup`");
    says(&import("wasi:cli/environment@0.2.6"), "the component does not export");
    let form = r#"(import "wasi:cli/environment@0.2.6" (instance (export "get-arguments" (func (result u8)))))
        (instance $i) (export "weir:transform/transform@0.1.0" (instance $i))"#;
    says(&component(form), "the component imports `wasi:cli/environment@0.2.6` in a form");
}

#[test]
fn row_42_what_makes_the_compiler_grow_without_end_ends_the_child_alone() {
    use wasm_encoder::{BlockType, Instruction};
    let n = 300_000;
    let mut function = wasm_encoder::Function::new([]);
    for _ in 0..n {
        function.instruction(&Instruction::Loop(BlockType::Empty));
    }
    for _ in 0..=n {
        function.instruction(&Instruction::End);
    }
    let refused = with_child().load(&of_functions(1, &function)).map(drop).unwrap_err().to_string();
    assert!(refused.starts_with("compiling the component took more than "), "{refused}");
}

#[test]
fn row_40_what_is_not_valid_is_refused_with_the_place() {
    let error = load(&module("(func (result i32) i64.const 0)"));
    assert!(error.to_string().starts_with("the component is not valid: "), "{error}");
    assert!(error.to_string().contains("at offset "), "{error}");
}

#[test]
fn row_63_names_with_control_characters_are_escaped_and_long_ones_cut() {
    let mut component = wasm_encoder::Component::new();
    let name = format!("\u{1b}[31m\n{}", "x".repeat(1 << 20));
    component
        .section(&wasm_encoder::CustomSection { name: name.clone().into(), data: name.as_bytes().into() });
    let mut names = wasm_encoder::ComponentNameSection::new();
    names.component(&name);
    component.section(&names);
    let import = wat::parse_str(format!(r#"(component (import "{}" (func)))"#, "a".repeat(100_000))).unwrap();
    for bytes in [component.finish(), import] {
        let told = load(&bytes).to_string();
        assert!(told.len() < 1_000 && !told.chars().any(char::is_control), "{told}");
    }
}

#[test]
fn row_36_another_world_or_version_is_named() {
    let export = |name: &str| component(&format!(r#"(instance $i) (export "{name}" (instance $i))"#));
    let none = "the component does not export `weir:transform/transform@0.1.0`; it exports";
    says(&component(""), &format!("{none} nothing"));
    says(&export("weir:transform/transform@0.2.0"), &format!("{none} `weir:transform/transform@0.2.0`"));
    says(&export("weir:transform/transform@1.0.0"), &format!("{none} `weir:transform/transform@1.0.0`"));
    says(&export("acme:t/t@0.1.0"), &format!("{none} `acme:t/t@0.1.0`"));
    for version in ["0.1.0", "0.1.7"] {
        let name = format!("weir:transform/transform@{version}");
        says(&export(&name), "the component's `weir:transform/transform@0.1.0` is not that of the contract");
    }
}

#[test]
fn row_37_another_signature_is_refused_at_load() {
    let text = r#"
        (core module $m (func (export "f")))
        (core instance $c (instantiate $m))
        (func $f (canon lift (core func $c "f")))
        (instance $i (export "describe" (func $f)) (export "init" (func $f)) (export "process" (func $f)))
        (export "weir:transform/transform@0.1.0" (instance $i))"#;
    let other =
        "the component's `weir:transform/transform@0.1.0` is not that of the contract: `describe`: expected";
    says(&component(text), other);
}
