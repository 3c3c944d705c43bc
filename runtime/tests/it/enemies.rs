//! Components made by machines, through all of `validate`: our own with bytes changed, cut off or moved, modules from
//! wasm-smith behind the contract and without it, and guests for other worlds. Each is refused in words or runs to the
//! end; none takes the host down or keeps it busy.
//!
//! `WEIR_ENEMIES=10000` tries so many; every one is told apart by its seed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use arbitrary::Unstructured;
use weir::sandbox::{InstanceLimits, Sandbox, SandboxOptions};
use weir::source::format::Format;
use weir::validate::{Error, Request, Sample, Validation, validate};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

use crate::guests;

const WIT: &str = include_str!("../../../wit/transform.wit");
const ABI: ManglingAndAbi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);

fn n_enemies() -> u64 {
    std::env::var("WEIR_ENEMIES").map_or(200, |n| n.parse().expect("a number"))
}

/// SplitMix64: the same seed makes the same enemy everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Little of everything, so that an enemy that runs does not run for long.
fn limits() -> InstanceLimits {
    InstanceLimits {
        memory_bytes: 16 << 20,
        deadline: Duration::from_millis(50),
        fuel_per_record: 100_000_000,
        start_deadline: Duration::from_millis(50),
        output_bytes: 1 << 20,
        log_bytes_per_second: 1 << 10,
    }
}

fn sandbox() -> Sandbox {
    let options =
        SandboxOptions { max_instances: 4, max_memory_bytes: 64 << 20, ..SandboxOptions::default() };
    Sandbox::new(options).expect("the machine can run a sandbox")
}

fn tried(sandbox: &Sandbox, component: &[u8]) -> Result<Validation, Error> {
    let records = "{\"id\":\"1\"}\nnot json\n\n";
    let sample = Sample::stream(Box::new(records.as_bytes()), Format::JsonLines).expect("three records");
    let request = Request {
        component,
        settings: Vec::new(),
        tables: Vec::new(),
        sample: Some(sample),
        expect: None,
        limits: limits(),
        show: 1,
    };
    validate(sandbox, request)
}

/// How far it came: the last of its checks, and whether that was passed.
fn end(found: &Result<Validation, Error>) -> String {
    let Ok(found) = found else { return "asks for tables or settings".to_owned() };
    let last = found.report.checks.last().expect("loading is checked");
    format!("{} {}", last.name, if last.ok { "ok" } else { "refused" })
}

/// Tries `n` of a kind and tells how they ended.
#[expect(clippy::print_stdout, reason = "a long run tells what became of its enemies")]
fn try_all(kind: &str, n: u64, make: impl Fn(&mut Random) -> Option<Vec<u8>>) -> BTreeMap<String, u64> {
    let sandbox = sandbox();
    let mut ends = BTreeMap::new();
    for seed in 0..n {
        let Some(component) = make(&mut Random(seed)) else { continue };
        let tried = catch_unwind(AssertUnwindSafe(|| end(&tried(&sandbox, &component))));
        let Ok(end) = tried else { panic!("{kind} {seed} panicked") };
        *ends.entry(end).or_default() += 1;
    }
    println!("{kind}: {ends:?}");
    ends
}

/// Mostly of the smallest component that has the contract, where a changed byte more often changes its structure.
fn damaged(random: &mut Random) -> Vec<u8> {
    let mut bytes = match random.below(4) {
        0 => guests::hostile().to_vec(),
        _ => {
            let (resolve, world) = world(WIT).expect("our own contract");
            component_of(dummy_module(&resolve, world, ABI), &resolve, world).expect("a component")
        }
    };
    match random.below(10) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let (at, n) = (random.below(bytes.len()), random.below(64));
            drop(bytes.drain(at..bytes.len().min(at + n)));
        }
        2 => {
            let (at, n) = (random.below(bytes.len()), random.below(64));
            let more = random.bytes(n);
            drop(bytes.splice(at..at, more));
        }
        n => {
            for _ in 0..1 + n / 5 {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
        }
    }
    bytes
}

fn world(text: &str) -> Option<(Resolve, wit_parser::WorldId)> {
    let mut resolve = Resolve::new();
    let package = resolve.push_str("transform.wit", text).ok()?;
    let world = resolve.select_world(&[package], Some("transform-component")).ok()?;
    Some((resolve, world))
}

/// A component of `text`'s world around `module`.
fn component_of(mut module: Vec<u8>, resolve: &Resolve, world: wit_parser::WorldId) -> Option<Vec<u8>> {
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).ok()?;
    ComponentEncoder::default().validate(false).module(&module).ok()?.encode().ok()
}

/// A module of wasm-smith that exports what the contract asks for.
fn behind_the_contract(random: &mut Random) -> Option<Vec<u8>> {
    let (resolve, world) = world(WIT).expect("our own contract");
    let exports = dummy_module(&resolve, world, ABI);
    let config = wasm_smith::Config { exports: Some(exports), ..smith() };
    component_of(smithed(config, random)?, &resolve, world)
}

/// A module of wasm-smith in a component that exports nothing.
fn without_the_contract(random: &mut Random) -> Option<Vec<u8>> {
    let module = smithed(smith(), random)?;
    let mut component = wasm_encoder::Component::new();
    component.section(&wasm_encoder::RawSection { id: 1, data: &module });
    Some(component.finish())
}

fn smith() -> wasm_smith::Config {
    wasm_smith::Config {
        max_imports: 0,
        min_funcs: 1,
        max_memories: 1,
        max_memory32_bytes: 4 << 20,
        custom_page_sizes_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        reference_types_enabled: false,
        relaxed_simd_enabled: false,
        wide_arithmetic_enabled: false,
        threads_enabled: false,
        memory64_enabled: false,
        shared_everything_threads_enabled: false,
        ..wasm_smith::Config::default()
    }
}

fn smithed(config: wasm_smith::Config, random: &mut Random) -> Option<Vec<u8>> {
    let n = 200 + random.below(4_000);
    let dna = random.bytes(n);
    Some(wasm_smith::Module::new(config, &mut Unstructured::new(&dna)).ok()?.to_bytes())
}

#[test]
fn a_damaged_component_is_refused_or_runs_to_the_end() {
    let ends = try_all("damaged", n_enemies() * 6 / 10, |random| Some(damaged(random)));
    assert!(ends["loads refused"] > 0, "{ends:?}");
    assert!(ends.keys().any(|end| !end.starts_with("loads")), "some are still components: {ends:?}");
}

#[test]
fn a_generated_module_behind_the_contract_is_refused_or_runs_to_the_end() {
    let ends = try_all("behind the contract", n_enemies() * 3 / 10, behind_the_contract);
    assert!(ends.keys().any(|end| !end.starts_with("loads")), "some are asked what they are: {ends:?}");
}

#[test]
fn a_generated_module_without_the_contract_is_refused() {
    let ends = try_all("without the contract", n_enemies() / 10, without_the_contract);
    assert_eq!(ends.keys().collect::<Vec<_>>(), ["loads refused"]);
}

#[test]
fn a_guest_for_another_world_is_refused_with_the_place_where_they_part() {
    let sandbox = sandbox();
    for (from, to) in [
        ("weir:transform@0.1.0", "weir:transform@0.2.0"),
        ("weir:transform@0.1.0", "weir:transform@1.0.0"),
        ("weir:transform@0.1.0", "acme:transform@0.1.0"),
        ("interface transform", "interface transformer"),
        ("s32s(", "s32-values("),
        ("offsets: list<u32>", "offsets: list<u64>"),
        ("rows: list<u32>", "rows: list<s32>"),
        ("dropped: list<u32>", "dropped: list<u16>"),
        ("topic: string", "topic: list<u8>"),
        ("route: u32", "route: string"),
        ("count: u32", "count: u64"),
        ("process: func(", "handle: func("),
        ("init: func(", "start: func("),
        ("describe: func(", "explain: func("),
    ] {
        assert!(WIT.contains(from), "`{from}` is in the contract");
        let other = WIT.replace(from, to);
        let other = match from.starts_with("interface") {
            true => other.replace("export transform;", "export transformer;"),
            false => other,
        };
        let (resolve, world) = world(&other).unwrap_or_else(|| panic!("`{to}` is no world"));
        let component =
            component_of(dummy_module(&resolve, world, ABI), &resolve, world).expect("a component");
        let found = tried(&sandbox, &component);
        assert_eq!(end(&found), "loads refused", "{to}");
        let found = found.expect("it did not come to tables");
        let check = found.report.checks.last().expect("loading is checked");
        assert!(check.detail.contains("weir:transform/transform@0.1.0"), "{to}: {}", check.detail);
    }
}

/// A transform whose `describe` is `body`, in 64 KiB of memory, with an allocator that always says `place`.
fn by_hand(body: &str, place: u32) -> Vec<u8> {
    let (resolve, world) = world(WIT).expect("our own contract");
    let name = |function: &str| format!("weir:transform/transform@0.1.0#{function}");
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const {place})
            (func (export "{}") (param i32 i32) (result i32) {body} i32.const 16)
            (func (export "{}") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "{}") (param i32) (result i32) unreachable))"#,
        name("describe"),
        name("init"),
        name("process"),
    );
    let module = wat::parse_str(&text).expect("a module");
    component_of(module, &resolve, world).expect("a component")
}

fn described(component: &[u8], settings: &[(String, String)]) -> String {
    let transform = sandbox().load(component).expect("it has the contract");
    let error = transform.describe(settings, &limits()).expect_err("it describes nothing");
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", cause.unwrap_or_default())
}

#[test]
fn row_53_what_breaks_the_canonical_abi_is_a_trap() {
    // A result at address 16: its case in the first byte, then an error's text: where, and how long.
    let error = |case: u32, at: u32, len: u32| {
        format!(
            "(i32.store8 (i32.const 16) (i32.const {case})) (i32.store (i32.const 20) (i32.const {at}))
             (i32.store (i32.const 24) (i32.const {len}))"
        )
    };
    for (body, expected) in [
        (error(9, 0, 0), "invalid expected discriminant"),
        (error(1, 0xffff_fff0, 4), "out of bounds"),
        (error(1, 100, 0x7fff_ffff), "out of bounds"),
        ("(i32.store8 (i32.const 100) (i32.const 0xff))".to_owned() + &error(1, 100, 1), "invalid utf-8"),
    ] {
        let told = described(&by_hand(&body, 64), &[]);
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn row_54_an_allocator_that_lies_hurts_only_its_guest() {
    let settings: Vec<_> = (0..50).map(|i| (format!("key{i}"), "value".repeat(9))).collect();
    // Everything in one place, not aligned, and outside.
    for (place, expected) in [(64, "unreachable"), (65, "not aligned"), (0xffff_fff0, "beyond end of memory")]
    {
        let told = described(&by_hand("unreachable", place), &settings);
        assert!(told.contains(expected), "{expected}: {told}");
    }
}
