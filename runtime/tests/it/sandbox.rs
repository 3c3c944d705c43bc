//! A transform that does its worst, in the sandbox: each misdeed has its own clear error, and harms no other
//! record.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use weir::batch::{Batch, BatchBuilder, RecordRef};
use weir::budget::Permit;
use weir::offset::{Offset, TopicPartition};
use weir::rule::{CallError, Rule};
use weir::sandbox::verdict::{Judged, Keeper, Stopped};
use weir::sandbox::{
    Imports, Init, Instance, InstanceLimits, Sandbox, SandboxOptions, StartError, Transform, compile_ahead,
};

use crate::guests;

/// Compiled once: that is what takes time.
fn hostile() -> Transform {
    static LOADED: OnceLock<Transform> = OnceLock::new();
    let load = || Sandbox::new(SandboxOptions::default()).unwrap().load(guests::hostile()).unwrap();
    LOADED.get_or_init(load).clone()
}

fn limits() -> InstanceLimits {
    InstanceLimits {
        memory_bytes: 64 << 20,
        deadline: Duration::from_millis(500),
        output_bytes: 8 << 20,
        fuel_per_record: 200_000_000,
        ..InstanceLimits::default()
    }
}

fn init(transform: &Transform, limits: InstanceLimits) -> Init {
    let description = Arc::new(transform.describe(&[], &self::limits()).unwrap());
    Init { settings: Vec::new(), tables: Vec::new(), limits, description }
}

fn batch(values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::new(100));
    for (i, value) in values.iter().enumerate() {
        let value = Some(value.as_bytes());
        builder.push(Offset::new(100).plus(i), RecordRef { value, ..RecordRef::default() });
    }
    let end = builder.next();
    builder.finish(end, Permit::free()).unwrap()
}

fn judge(transform: &Transform, values: &[&str]) -> Result<Judged, Stopped<StartError>> {
    keeper(transform, &init(transform, limits())).transform(&batch(values))
}

fn keeper<'a>(transform: &'a Transform, init: &'a Init) -> Keeper<'a, StartError> {
    let fresh = || transform.instance(init).map(|rule| Box::new(rule) as Box<dyn Rule>);
    let judge = || transform.judge(init).map(|rule| Box::new(rule) as Box<dyn Rule>);
    Keeper::new(Box::new(fresh), Box::new(judge))
}

fn process(instance: &mut Instance, values: &[&str]) -> Result<Vec<u32>, CallError> {
    instance.process(&batch(values)).map(|output| output.routes[0].rows.clone())
}

#[test]
fn what_is_good_comes_out_as_columns() {
    use arrow::array::AsArray as _;
    use arrow::datatypes::Int64Type;
    let transform = hostile();
    let mut instance = transform.instance(&init(&transform, limits())).unwrap();
    let output = instance.process(&batch(&["a", "reject", "drop", "raw", "ü"])).unwrap();
    let [ok, raw] = &output.routes[..] else { panic!("two routes") };
    assert_eq!((&ok.rows[..], &raw.rows[..]), (&[0, 4][..], &[3][..]));
    assert_eq!(ok.columns[0].as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a"), Some("ü")]);
    assert_eq!(ok.columns[1].as_primitive::<Int64Type>().values(), &[100, 104]);
    assert_eq!((output.rejects[0].row, output.rejects[0].reasons[0].reason), (1, 0));
    assert_eq!(output.dropped, [2]);
    assert!(!instance.is_dead());
}

/// `misdeed` in the middle of a batch is a dead letter that says so, and its neighbours are unharmed.
fn guilty(misdeed: &str, code: &str, message: &str) {
    let judged = judge(&hostile(), &["a", "b", misdeed, "c", "drop"]).unwrap();
    let [failed] = &judged.pieces.failed[..] else { panic!("{misdeed}: {:?}", judged.pieces.failed) };
    assert_eq!((failed.row, failed.code), (2, code), "{misdeed}");
    assert!(failed.message.contains(message), "{misdeed}: {}", failed.message);
    assert!(failed.message.len() < 5_000, "{misdeed}: {} bytes of message", failed.message.len());
    let outputs = judged.pieces.outputs.iter();
    let good: Vec<u32> = outputs
        .flat_map(|(first, o)| o.routes[0].rows.iter().chain(&o.dropped).map(move |row| first + row))
        .collect();
    assert_eq!(good, [0, 1, 3, 4], "{misdeed}");
}

#[test]
fn row_38_calls_to_files_sockets_and_exit_trap_by_name() {
    guilty("socket", "trap", "which a transform cannot do");
    guilty("exit", "trap", "wasi:cli/exit");
    guilty("file", "trap", "the transform trapped: wasm `unreachable` instruction executed");
}

#[test]
fn row_45_a_loop_runs_out_of_fuel_also_if_its_instructions_are_few() {
    guilty("loop", "fuel", "the transform did not come to an end within 200000000 units of fuel");
    guilty("churn", "fuel", "the transform did not come to an end within 200000000 units of fuel");
}

#[test]
fn row_46_recursion_without_end_traps() {
    guilty("recurse", "trap", "the transform trapped: out of bounds memory access");
}

#[test]
fn row_47_memory_beyond_the_limit_is_not_given() {
    guilty("eat", "trap", "the transform wanted more than 67108864 bytes of memory: wasm `unreachable`");
}

#[test]
fn row_48_a_panic_is_that_records_alone() {
    guilty("panic", "trap", "the transform trapped: wasm `unreachable` instruction executed");
}

#[test]
fn row_50_an_error_is_told_and_a_long_one_cut() {
    guilty("err", "error", "the transform returned an error: failed on request");
    guilty("err-long", "error", "xxx (cut)");
}

#[test]
fn row_51_more_output_than_allowed_is_refused() {
    guilty("many", "bad-output", "process: more than 8388608 bytes");
}

#[test]
fn row_52_a_route_that_is_not_declared_is_refused() {
    guilty("route", "bad-output", "process: route 77: there are 2");
}

#[test]
fn row_53_what_breaks_the_contract_is_told_with_its_place() {
    guilty("lose", "bad-output", "process: record 0 of 1 is lost: not on a route, rejected or dropped");
    guilty("twice", "bad-output", "process: dropped: row 0: record 0 is also on a route");
    guilty("short-column", "bad-output", "process: route `ok`, field `offset`: 0 values for 1 rows");
    let place = "process: route `ok`, field `value`: row 0 is not UTF-8 from its byte 0 on";
    guilty("bad-utf8", "bad-output", place);
    guilty("bad-offsets", "bad-output", "process: route `ok`, field `value`: the first offset is 9, not 0");
}

#[test]
fn row_56_nan_is_always_the_same_one() {
    use arrow::array::AsArray as _;
    let transform = hostile();
    let mut instance = transform.instance(&init(&transform, limits())).unwrap();
    let output = instance.process(&batch(&["nan"])).unwrap();
    assert_eq!(output.routes[0].columns[0].as_string::<i32>().value(0), "7ff8000000000000");
}

#[test]
fn row_64_handles_are_not_given_without_end() {
    guilty("handles", "trap", "it keeps 1000 handles and asked for one more");
}

#[test]
fn a_panic_is_told_in_the_guests_own_words() {
    let judged = judge(&hostile(), &["panic"]).unwrap();
    assert!(judged.pieces.failed[0].log.contains("panicked on request"), "{:?}", judged.pieces.failed[0]);
}

#[test]
fn a_record_that_takes_too_much_fuel_is_found_even_if_nothing_failed() {
    let transform = hostile();
    let limits =
        InstanceLimits { deadline: Duration::from_secs(60), fuel_per_record: 20_000_000, ..limits() };
    // Long enough to be suspected, and it comes to an end.
    let judged =
        keeper(&transform, &init(&transform, limits)).transform(&batch(&["a", "long", "b"])).unwrap();
    assert_eq!(judged.first_failure, None);
    let [failed] = &judged.pieces.failed[..] else { panic!("{:?}", judged.pieces.failed) };
    assert_eq!((failed.row, failed.code), (1, "fuel"));
}

#[test]
fn what_takes_long_together_and_not_alone_goes_through() {
    let transform = hostile();
    let limits =
        InstanceLimits { deadline: Duration::from_secs(60), fuel_per_record: 1_000_000_000, ..limits() };
    let judged = keeper(&transform, &init(&transform, limits))
        .transform(&batch(&["long", "long", "long", "a"]))
        .unwrap();
    assert_eq!(judged.pieces.failed.len(), 0);
    assert_eq!(judged.pieces.outputs.len(), 1, "and its output is the one that was made at first");
    assert!(judged.lowered.is_some());
}

#[test]
fn time_without_the_fuel_to_convict_is_a_stall_of_the_record_after_one_retry() {
    let transform = hostile();
    let limits =
        InstanceLimits { deadline: Duration::from_millis(50), fuel_per_record: u64::MAX, ..limits() };
    let stopped =
        keeper(&transform, &init(&transform, limits)).transform(&batch(&["a", "loop", "b"])).unwrap_err();
    let text = "E_STALL: the transform did not answer within 200 ms, twice, for t/0 offsets [101, 102)";
    assert_eq!(stopped.to_string(), text);
}

#[test]
fn a_judge_makes_what_a_worker_makes() {
    let transform = hostile();
    let init = init(&transform, limits());
    let values = batch(&["a", "reject", "drop", "raw", "ü"]);
    let made = |mut rule: Instance| format!("{:?}", rule.process(&values).unwrap());
    assert_eq!(made(transform.instance(&init).unwrap()), made(transform.judge(&init).unwrap()));
}

#[test]
fn a_failed_instance_is_dead() {
    let transform = hostile();
    let mut instance = transform.instance(&init(&transform, limits())).unwrap();
    assert!(matches!(process(&mut instance, &["err"]), Err(CallError::Returned { .. })));
    assert!(instance.is_dead());
    assert!(matches!(process(&mut instance, &["a"]), Err(CallError::Trap { .. })));
}

#[test]
fn row_57_a_flood_of_log_is_bounded_and_harmless() {
    let transform = hostile();
    let limits = InstanceLimits { deadline: Duration::from_secs(60), ..limits() };
    let mut instance = transform.instance(&init(&transform, limits)).unwrap();
    assert_eq!(process(&mut instance, &["flood", "a"]).unwrap(), [0, 1]);
    let Err(CallError::Returned { log, .. }) = process(&mut instance, &["flood", "err"]) else {
        panic!("an error")
    };
    assert!(log.len() <= 8 << 10 && log.ends_with("flood 4999 \\u{1b}[31m"), "{}", log.len());
}

#[test]
fn the_clock_stands_still() {
    use arrow::array::AsArray as _;
    let transform = hostile();
    let mut instance = transform.instance(&init(&transform, limits())).unwrap();
    let output = instance.process(&batch(&["clock"])).unwrap();
    let told = output.routes[0].columns[0].as_string::<i32>().value(0).to_owned();
    assert!(told.contains("tv_sec: 0") || told.contains("0ns") || told.contains("(0"), "{told}");
}

#[test]
fn row_44_a_bad_start_is_told_and_a_loop_in_it_ends() {
    let transform = hostile();
    let start = |when: &str| {
        let mut init = init(&transform, limits());
        init.limits.start_deadline = Duration::from_millis(50);
        init.settings = vec![("when".to_owned(), when.to_owned())];
        transform.instance(&init).map(drop).unwrap_err()
    };
    assert_eq!(
        start("init-err").to_string(),
        "the transform refuses its settings or tables: started badly on request"
    );
    let StartError::Call { function: "init", source } = start("init-trap") else { panic!("a trap") };
    assert!(source.log().contains("started badly on request"));
    let StartError::Call { function: "init", source } = start("init-loop") else { panic!("a deadline") };
    assert_eq!(source.code(), "deadline");
    let describe = |when: &str| {
        transform.describe(&[("when".to_owned(), when.to_owned())], &self::limits()).unwrap_err().to_string()
    };
    assert_eq!(
        describe("describe-err"),
        "the transform refuses its settings or tables: described badly on request"
    );
    assert!(describe("bad-name").starts_with("describe: route `ok`: field `../x`: a name is"));
}

#[test]
fn settings_are_complete_and_known() {
    let transform = hostile();
    let mut init = init(&transform, limits());
    init.settings = vec![("nope".to_owned(), "1".to_owned())];
    assert_eq!(transform.instance(&init).unwrap_err().to_string(), "the transform has no setting `nope`");
}

#[test]
fn imports_are_listed_or_refused() {
    let transform = hostile();
    let imports = transform.imports();
    assert!(
        imports
            .iter()
            .any(|i| i.interface.starts_with("wasi:cli/stderr@0.2.") && i.answer == "goes to the guest log")
    );
    let sandbox =
        Sandbox::new(SandboxOptions { imports: Imports::None, ..SandboxOptions::default() }).unwrap();
    let refused = sandbox.load(guests::hostile()).unwrap_err();
    assert!(refused.to_string().starts_with("the component imports `wasi:"), "{refused}");
    assert!(refused.hint().starts_with("`sandbox.imports = \"none\"`"));
}

#[test]
fn compiled_code_is_kept_and_a_changed_file_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = SandboxOptions { cache_dir: Some(dir.path().join("cache")), ..SandboxOptions::default() };
    let sandbox = Sandbox::new(options).unwrap();
    let load = || sandbox.load(guests::hostile()).unwrap().describe(&[], &self::limits()).unwrap();
    let described = load();
    let [(file, _)] = &kept_code(&dir.path().join("cache"))[..] else { panic!("one file") };
    let good = std::fs::read(file).unwrap();
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    std::fs::write(file, &changed).unwrap();
    assert_eq!(load(), described);
    assert!(std::fs::read(file).unwrap() != changed, "it was compiled and written again");
    assert_eq!(load(), described);
}

#[test]
fn what_was_compiled_ahead_is_what_a_sandbox_loads() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let ahead = || compile_ahead(&cache, None, guests::hostile()).unwrap();
    ahead();
    let kept = kept_code(&cache);
    assert_eq!(kept.len(), 1);
    let options = SandboxOptions { cache_dir: Some(cache.clone()), ..SandboxOptions::default() };
    Sandbox::new(options).unwrap().load(guests::hostile()).unwrap();
    ahead();
    assert_eq!(kept_code(&cache), kept, "nobody compiled again");
}

#[test]
fn what_nobody_could_load_is_told_when_it_is_compiled_ahead_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let too_much = format!("(component (core module {}))", "(memory 0)".repeat(65));
    let asked =
        |bytes: &[u8]| compile_ahead(&cache, Some("/bin/false".as_ref()), bytes).unwrap_err().to_string();
    assert_eq!(asked(b"no component"), "this is text, not a WebAssembly component");
    assert!(asked(&wat::parse_str(too_much).unwrap()).contains("65 memories"), "no compiler is asked");
    let refused =
        compile_ahead(&cache, None, &wat::parse_str("(component (core module (func i32.const 0)))").unwrap());
    assert!(refused.is_err());
    assert!(kept_code(&cache).is_empty());
}

/// The files of code in a cache, each with what changes when it is made again.
pub(crate) fn kept_code(cache: &Path) -> Vec<(PathBuf, u64)> {
    let files = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let code = files.filter(|path| path.extension().is_some_and(|e| e == "cwasm"));
    code.map(|path| (path.clone(), std::fs::metadata(&path).unwrap().ino())).collect()
}
