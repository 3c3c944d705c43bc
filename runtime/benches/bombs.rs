//! Components that are made to keep a compiler busy: each is refused or compiled by a process of its own, and the one that
//! asked neither works nor grows meanwhile. It runs no guest.
//!
//! `cargo bench -p weir --bench bombs -- [NAME]`
#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

mod common;

use std::fs;

use common::process_cpu_ns;
use wasm_encoder::{
    BlockType, CodeSection, Component, Function, FunctionSection, Instruction, Module, ModuleSection,
    TypeSection, ValType,
};
use weir::sandbox::{Sandbox, SandboxOptions};

type Bomb = (&'static str, fn() -> Vec<u8>);

const BOMBS: [Bomb; 8] = [
    ("a million functions", || functions(1_000_000, &nothing())),
    ("200,000 functions", || functions(200_000, &nothing())),
    ("50,000 locals", || functions(1, &locals(50_000))),
    ("2,000 functions of 10,000 locals", || functions(2_000, &locals(10_000))),
    ("tables of 4 million branches", || functions(2, &branches(2_000_000))),
    ("300,000 nested blocks", || functions(1, &nested(300_000))),
    ("one function of 7 MB", || functions(1, &arithmetic(1_000_000))),
    ("31 MiB of code", || functions(320, &arithmetic(14_000))),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Without this flag it is a test run: the two that are refused at once.
    let measured = args.iter().any(|arg| arg == "--bench");
    let name = args.iter().find(|arg| !arg.starts_with('-'));
    let options =
        SandboxOptions { compiler: Some(env!("CARGO_BIN_EXE_weir").into()), ..SandboxOptions::default() };
    let sandbox = Sandbox::new(options).expect("the machine can run a sandbox");
    println!("{:<34} {:>7} {:>9} {:>9} {:>9}  how it ended", "", "MiB", "own CPU s", "own MiB", "child s");
    for (n, (what, make)) in BOMBS.iter().enumerate() {
        if name.is_some_and(|name| !what.contains(name.as_str())) || (!measured && n != 0 && n != 2) {
            continue;
        }
        let bytes = make();
        let (cpu, memory, children) = (process_cpu_ns(), resident_mib(), children_s());
        let refused = sandbox.load(&bytes).map(drop).expect_err("none of them is a transform");
        println!(
            "{what:<34} {:>7.1} {:>9.2} {:>9.1} {:>9.1}  {}",
            bytes.len() as f64 / (1 << 20) as f64,
            (process_cpu_ns() - cpu) as f64 / 1e9,
            resident_mib() - memory,
            children_s() - children,
            refused.to_string().chars().take(120).collect::<String>(),
        );
    }
}

fn nothing() -> Function {
    let mut function = Function::new([]);
    function.instruction(&Instruction::End);
    function
}

fn locals(n: u32) -> Function {
    let mut function = Function::new([(n, ValType::I64)]);
    function.instruction(&Instruction::End);
    function
}

fn branches(n: u32) -> Function {
    let mut function = Function::new([]);
    for _ in 0..100 {
        function.instruction(&Instruction::Block(BlockType::Empty));
    }
    let targets: Vec<u32> = (0..n).map(|i| i % 100).collect();
    function.instruction(&Instruction::I32Const(7)).instruction(&Instruction::BrTable(targets.into(), 0));
    for _ in 0..=100 {
        function.instruction(&Instruction::End);
    }
    function
}

fn nested(n: u32) -> Function {
    let mut function = Function::new([]);
    for _ in 0..n {
        function.instruction(&Instruction::Loop(BlockType::Empty));
    }
    for _ in 0..=n {
        function.instruction(&Instruction::End);
    }
    function
}

/// Values that live from one end of the function to the other.
fn arithmetic(n: u32) -> Function {
    let mut function = Function::new([(50, ValType::I64)]);
    for i in 0..n {
        function.instruction(&Instruction::LocalGet(i % 50)).instruction(&Instruction::LocalGet(i * 7 % 50));
        function.instruction(&Instruction::I64Mul).instruction(&Instruction::LocalSet(i * 3 % 50));
    }
    function.instruction(&Instruction::End);
    function
}

fn functions(n: u32, function: &Function) -> Vec<u8> {
    let (mut types, mut functions, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([], []);
    for _ in 0..n {
        functions.function(0);
        code.function(function);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    let mut component = Component::new();
    component.section(&ModuleSection(&module));
    component.finish()
}

fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

/// What ended children took of the processors: fields 16 and 17 of the system's account, in hundredths.
fn children_s() -> f64 {
    let account = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = account.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |n: usize| fields.get(n - 3).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (field(16) + field(17)) / 100.0
}
