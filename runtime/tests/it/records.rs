//! Records that nobody meant, through a transform that takes only what is exactly right. Each is a row, a tombstone or
//! a reject with its reason; none is a crash, and none is mended in silence. The numbers are those of the catalogue of
//! bad inputs.

use std::fs;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use weir::batch::{BatchBuilder, RecordRef};
use weir::budget::Permit;
use weir::offset::{Offset, TopicPartition};
use weir::rule::Rule;
use weir::sandbox::{Init, InstanceLimits, Sandbox, SandboxOptions, Transform};
use weir::sink::json::JsonRows;

use crate::guests;
use crate::run::{Pipeline, said, stderr};

fn strict() -> Transform {
    static LOADED: OnceLock<Transform> = OnceLock::new();
    let load = || Sandbox::new(SandboxOptions::default()).unwrap().load(guests::strict()).unwrap();
    LOADED.get_or_init(load).clone()
}

/// What becomes of each record: `{"row": ..}`, `"tombstone"`, or `{"code": "field: detail"}` with every reason.
fn fates(records: &[RecordRef<'_>]) -> Vec<Value> {
    let transform = strict();
    let description = Arc::new(transform.describe(&[], &InstanceLimits::default()).unwrap());
    let limits = InstanceLimits { deadline: std::time::Duration::from_secs(60), ..InstanceLimits::default() };
    let init = Init { settings: Vec::new(), tables: Vec::new(), limits, description: description.clone() };
    let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::ZERO);
    for (i, record) in records.iter().enumerate() {
        builder.push(Offset::ZERO.plus(i), *record);
    }
    let end = builder.next();
    let batch = builder.finish(end, Permit::free()).unwrap();
    let output = transform.instance(&init).unwrap().process(&batch).unwrap();
    let mut fates = vec![Value::Null; records.len()];
    for rows in output.routes {
        let route = &description.routes[rows.route];
        if &*route.name == "tombstones" {
            rows.rows.iter().for_each(|row| fates[*row as usize] = json!("tombstone"));
            continue;
        }
        let columns = arrow::array::RecordBatch::try_new(route.schema(), rows.columns).unwrap();
        let shown = JsonRows::new(&columns).unwrap();
        for (i, row) in rows.rows.iter().enumerate() {
            let mut text = Vec::new();
            shown.write(i, &mut text);
            fates[*row as usize] = json!({ "row": serde_json::from_slice::<Value>(&text).unwrap() });
        }
    }
    for reject in output.rejects {
        let reason = |why: &weir::route::Why| {
            let reason = &description.reasons[why.reason];
            let detail = why.detail.clone().unwrap_or_default();
            (reason.code.to_string(), Value::from(detail))
        };
        fates[reject.row as usize] =
            reject.reasons.iter().map(reason).collect::<serde_json::Map<_, _>>().into();
    }
    fates
}

fn with_value(value: &[u8]) -> RecordRef<'_> {
    RecordRef { value: Some(value), timestamp_ms: -1, ..RecordRef::default() }
}

fn fate(value: impl AsRef<[u8]>) -> Value {
    fates(&[with_value(value.as_ref())]).remove(0)
}

fn row(value: impl AsRef<[u8]>) -> Value {
    fate(value)["row"].clone()
}

const GOOD: &str = r#"{"id":"a","count":12}"#;

fn good() -> RecordRef<'static> {
    with_value(GOOD.as_bytes())
}

#[test]
fn row_01_a_tombstone_is_a_record_without_a_value_for_the_transform_to_decide() {
    assert_eq!(fates(&[RecordRef { timestamp_ms: -1, ..RecordRef::default() }]), ["tombstone"]);
}

#[test]
fn row_02_an_empty_value_is_no_tombstone() {
    assert_eq!(fate(""), json!({ "unfinished": "byte 0" }));
}

#[test]
fn row_03_a_key_is_absent_empty_or_long_and_never_one_for_the_other() {
    let long = vec![b'k'; 1 << 20];
    let keys = [None, Some(&b""[..]), Some(&long)];
    let found = fates(&keys.map(|key| RecordRef { key, ..good() }));
    assert_eq!((&found[0]["row"]["key"], &found[1]["row"]["key"]), (&Value::Null, &json!("")));
    assert_eq!(found[2]["row"]["key"].as_str().unwrap().len(), (1_usize << 20).div_ceil(3) * 4);
}

#[test]
fn row_04_what_is_not_utf8_is_rejected_with_the_byte() {
    assert_eq!(fate(b"{\"id\":\"a\xff\"}"), json!({ "not-utf8": "byte 8" }));
    assert_eq!(fate(b"{\"id\":\"\xed\xa0\x80\"}"), json!({ "not-utf8": "byte 7" }));
}

#[test]
fn row_05_a_byte_order_mark_is_left_out_in_front_of_a_file_and_refused_in_a_record_and_utf16_is_rejected() {
    let pipeline = strict_pipeline("");
    fs::write(pipeline.path("input/a.jsonl"), format!("\u{feff}{GOOD}\n\u{feff}{GOOD}\n")).unwrap();
    assert_eq!(said(&pipeline.run(&[]))["routed"]["right"], 1);
    assert_eq!(reasons(&pipeline, "dead"), [["not-an-object".to_owned()]]);
    let utf16 =
        |mark: &[u8]| [mark, &GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat();
    assert_eq!(fate(utf16(&[0xff, 0xfe])), json!({ "not-utf8": "byte 0" }));
    assert_eq!(fate(utf16(&[])), json!({ "unexpected-byte": "byte 1" }));
}

#[test]
fn row_07_truncated_json_is_rejected_with_its_position() {
    for end in 0..GOOD.len() {
        assert_eq!(fate(&GOOD[..end]), json!({ "unfinished": format!("byte {end}") }), "{}", &GOOD[..end]);
    }
}

#[test]
fn row_08_json_nested_without_end_is_rejected_and_overflows_nothing() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let text = format!("{{\"x\":{}0{}}}", open.repeat(100_000), close.repeat(100_000));
        assert!(fate(text)["too-deep"].is_string(), "{open}");
    }
}

#[test]
fn row_09_of_a_key_that_comes_twice_the_last_value_counts_however_it_is_written() {
    assert_eq!(row(r#"{"id":"a","count":1,"count":2}"#)["count"], 2);
    assert_eq!(row(r#"{"id":"a","count":1,"\u0063ount":3}"#)["count"], 3);
    let null_last = row(r#"{"id":"a","count":1,"count":null}"#);
    assert_eq!((&null_last["id"], &null_last["count"]), (&json!("a"), &Value::Null));
}

#[test]
fn row_10_a_number_is_exact_or_rejected_with_its_field() {
    let with = |key: &str, number: &str| format!("{{\"id\":\"a\",\"{key}\":{number}}}");
    let huge = "9".repeat(400);
    for (number, count) in
        [("9007199254740993", 9_007_199_254_740_993_i64), ("-0", 0), ("-9223372036854775808", i64::MIN)]
    {
        assert_eq!(row(with("count", number))["count"], count, "{number}");
    }
    for number in ["1e400", "9223372036854775808", &huge, "1.0", "1e2"] {
        assert!(fate(with("count", number))["bad-count"].is_string(), "{number}");
    }
    for (number, price) in [
        ("0.1", "0.10"),
        ("-0", "0.00"),
        ("12345678.90", "12345678.90"),
        ("1e3", "1000.00"),
        ("1.500e0", "1.50"),
    ] {
        assert_eq!(row(with("price", number))["price"], price, "{number}");
    }
    for number in ["1e400", "1e-400", "0.001", "123456789", &huge] {
        assert!(fate(with("price", number))["bad-price"].is_string(), "{number}");
    }
}

#[test]
fn row_11_words_for_no_number_are_not_json() {
    for (word, code) in
        [("NaN", "unexpected-byte"), ("Infinity", "unexpected-byte"), ("-Infinity", "bad-number")]
    {
        assert!(fate(format!("{{\"id\":\"a\",\"x\":{word}}}"))[code].is_string(), "{word}");
    }
}

#[test]
fn row_12_half_a_character_is_rejected_where_it_stands() {
    assert_eq!(fate(r#"{"id":"\ud800"}"#), json!({ "lone-surrogate": "byte 7" }));
    assert_eq!(fate(r#"{"\udc00":1,"id":"a"}"#), json!({ "lone-surrogate": "byte 2" }));
}

#[test]
fn row_13_what_stands_behind_the_object_is_rejected() {
    for behind in ["{}", " x", "\0", ",", "\u{a0}"] {
        let found = fate(format!("{GOOD}{behind}"));
        assert!(found["trailing-bytes"].is_string(), "{behind:?}: {found}");
    }
    assert_eq!(row(format!("{GOOD} \r\n\t"))["id"], "a");
}

#[test]
fn row_14_what_is_no_object_is_rejected_as_that() {
    for value in ["1", "\"a\"", "[]", "[{\"id\":\"a\"}]", "null", "true", " -1"] {
        let at = value.len() - value.trim_start().len();
        assert_eq!(fate(value), json!({ "not-an-object": format!("byte {at}") }), "{value}");
    }
}

#[test]
fn row_18_a_time_is_itself_or_rejected_and_never_wraps_around() {
    let stamped = |timestamp_ms| fates(&[RecordRef { timestamp_ms, ..good() }]).remove(0);
    for (ms, shown) in [
        (0, json!("1970-01-01T00:00:00.000000Z")),
        (-1, Value::Null),
        (-11_644_473_600_000, json!("1601-01-01T00:00:00.000000Z")),
        (253_402_214_400_000, json!("9999-12-31T00:00:00.000000Z")),
    ] {
        assert_eq!(stamped(ms)["row"]["stamped"], shown, "{ms}");
    }
    for ms in [1_000_000_000_000_000_000, i64::MIN, i64::MAX, 253_402_300_800_000] {
        assert_eq!(stamped(ms), json!({ "bad-timestamp": ms.to_string() }));
    }
    for at in ["10000-01-01T00:00:00Z", "0000-12-31T00:00:00Z", "1000000000000000000", "2026-02-30T00:00:00Z"]
    {
        assert!(fate(format!("{{\"id\":\"a\",\"at\":\"{at}\"}}"))["bad-time"].is_string(), "{at}");
    }
}

#[test]
fn row_18_a_row_lies_in_the_directory_of_its_own_time_and_without_one_in_none_of_1970() {
    let pipeline = strict_pipeline(
        "[sinks.out.files.targets.right]\ndirectories = [{ date = \"day\", column = \"at\" }]",
    );
    let times = [
        "1601-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "2026-11-23T23:30:00-01:00",
    ];
    let lines = times.map(|at| format!("{{\"id\":\"a\",\"at\":\"{at}\"}}"));
    pipeline.input(&[&lines[..], &[GOOD.to_owned()]].concat());
    assert!(pipeline.run(&[]).status.success());
    for (offset, day) in
        ["1601-01-01", "1970-01-01", "9999-12-31", "2026-11-24", "__HIVE_DEFAULT_PARTITION__"]
            .iter()
            .enumerate()
    {
        assert_eq!(pipeline.offsets(&format!("right/dt={day}")), [offset as i64], "{day}");
    }
}

/// Strings that have broken programs before.
const NAUGHTY: [&str; 12] = [
    "'); DROP TABLE x;--",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "$(reboot)",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "%s%n%d",
    "\u{202e}txt.exe",
    "Z\u{334}a\u{334}lgo",
    "🏳\u{fe0f}\u{200d}🌈",
    "NULL",
    "\u{feff}x",
];

#[test]
fn row_20_text_that_means_something_elsewhere_is_text() {
    for text in NAUGHTY {
        assert_eq!(row(json!({ "id": "a", "note": text }).to_string())["note"], text);
    }
}

#[test]
fn row_21_a_parquet_table_has_its_columns_in_their_types_or_is_refused_by_name() {
    use weir::description::{DataType, Field, TableNeed};
    use weir::tables::{TableOptions, file};
    let file_of = |columns: Vec<(&str, arrow::array::ArrayRef)>| {
        let rows = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        bytes
    };
    let field = Field { name: "n".into(), data_type: DataType::Int64, nullable: false, doc: String::new() };
    let need = TableNeed { name: "t".into(), columns: vec![field], required: true, doc: String::new() };
    let load = |bytes: &[u8]| file::load(&need, bytes, &TableOptions::default()).map_err(|e| e.to_string());
    let text = Arc::new(arrow::array::StringArray::from(vec!["1"])) as arrow::array::ArrayRef;
    let number = Arc::new(arrow::array::Int64Array::from(vec![1])) as arrow::array::ArrayRef;
    assert!(load(&file_of(vec![("n", text.clone())])).unwrap_err().contains("column n is of type Utf8"));
    assert!(load(&file_of(vec![("m", number.clone())])).unwrap_err().contains("no column for n"));
    assert_eq!(load(&file_of(vec![("new", text), ("n", number)])).unwrap().rows, 1);
}

#[test]
fn row_22_distinct_values_have_distinct_directories_below_their_target() {
    let pipeline = strict_pipeline("[sinks.out.files.targets.right]\ndirectories = [{ column = \"note\" }]");
    let (long, longer) = ("x".repeat(300), "x".repeat(301));
    let values =
        ["..", "/", "a:b", "=", "🦀", ".", "a/b", "%2E%2E", "__HIVE_DEFAULT_PARTITION__", &long, &longer];
    let lines = values.map(|note| json!({ "id": "a", "note": note }).to_string());
    // A blank note is no note.
    pipeline.input(&[&lines[..], &[json!({ "id": "a", "note": "" }).to_string()]].concat());
    let output = pipeline.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let directories = fs::read_dir(pipeline.path("out/right")).unwrap();
    let names: Vec<_> = directories.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), values.len() + 1, "{names:?}");
    for (offset, name) in [
        (0, "note=%2E."),
        (1, "note=%2F"),
        (2, "note=a%3Ab"),
        (3, "note=%3D"),
        (11, "note=__HIVE_DEFAULT_PARTITION__"),
    ] {
        assert_eq!(pipeline.offsets(&format!("right/{name}")), [offset], "{name}");
    }
}

#[test]
fn row_23_csv_gives_its_sound_rows_and_a_dead_letter_for_each_other() {
    let pipeline = strict_pipeline("");
    let csv = "\u{feff}id,note\r\n1,\"say \"\"hi\"\"\"\n2,\"two\nlines\"\r\n3\n4,a,b\n5,ok\r\n6,\"stray\"x\n7,\"open\n8,ok\n";
    fs::write(pipeline.path("input/a.csv"), csv).unwrap();
    for (name, text) in [("b.csv", "id,id\n1,2\n"), ("c.csv", "")] {
        fs::write(pipeline.path(&format!("input/{name}")), text).unwrap();
    }
    let output = pipeline.run(&[]);
    let stopped = said(&output)["stopped"].clone();
    assert_eq!((output.status.code(), stopped.as_array().unwrap().len()), (Some(1), 1), "{stopped}");
    assert!(
        stopped[0]["error"]
            .as_str()
            .unwrap()
            .contains("E_INPUT_HEADER: the header of b.csv names columns 1 and 2 both")
    );
    let rows: Vec<_> =
        pipeline.rows("right").iter().map(|row| (row["id"].clone(), row["note"].clone())).collect();
    let expected = [("1", "say \"hi\""), ("2", "two\nlines"), ("5", "ok"), ("8", "ok")];
    assert_eq!(rows, expected.map(|(id, note)| (json!(id), json!(note))));
    let codes: Vec<_> = reasons(&pipeline, "dead").concat();
    assert_eq!(codes, ["ragged-row", "ragged-row", "stray-quote", "unclosed-quote"]);
    assert!(pipeline.rows("dead").iter().all(|dead| dead["stage"] == "source"));
}

#[test]
fn row_25_headers_are_passed_on_however_many_alike_or_odd() {
    let many: Vec<_> = (0..10_000).map(|_| ("same", Some(&b"v"[..]))).collect();
    let odd = [("a", Some(&b"\xff"[..])), ("a", None), ("", Some(b""))];
    let found =
        fates(&[RecordRef { headers: &many, ..good() }, RecordRef { headers: &odd, ..good() }, good()]);
    let counts = |fate: &Value| (fate["row"]["headers"].clone(), fate["row"]["odd_headers"].clone());
    let counts: Vec<_> = found.iter().map(counts).collect();
    assert_eq!(counts, [(json!(10_000), json!(0)), (json!(3), json!(1)), (json!(0), json!(0))]);
}

#[test]
fn row_30_a_single_record_is_committed_when_its_time_has_come_without_another() {
    let pipeline = strict_pipeline("roll = { idle = \"100 ms\" }");
    pipeline.input(&[GOOD.to_owned()]);
    let mut running = pipeline.weir("run", &[]).stdout(std::process::Stdio::null()).spawn().unwrap();
    while pipeline.rows("right").is_empty() {
        assert!(running.try_wait().unwrap().is_none(), "it runs until it is told to stop");
        std::thread::yield_now();
    }
    let pid = i32::try_from(running.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_eq!(pipeline.offsets("right"), [0]);
}

#[test]
fn row_31_the_same_bytes_twice_are_two_records() {
    let pipeline = strict_pipeline("");
    pipeline.input(&[GOOD.to_owned(), GOOD.to_owned()]);
    assert_eq!(said(&pipeline.run(&[]))["routed"]["right"], 2);
    assert_eq!(pipeline.offsets("right"), [0, 1]);
}

#[test]
fn row_32_a_time_in_the_future_is_a_time_like_any_other() {
    let far = RecordRef { timestamp_ms: 4_102_444_800_000, ..good() };
    assert_eq!(fates(&[far])[0]["row"]["stamped"], "2100-01-01T00:00:00.000000Z");
    assert!(row(r#"{"id":"a","at":"9998-01-01T00:00:00Z"}"#)["at"].is_string());
}

/// The strict transform between files; `more` goes on where the table of the sink ends.
fn strict_pipeline(more: &str) -> Pipeline {
    let file = format!(
        r#"
[pipeline]
name = "it"
state = "state"

[source.files]
path = "input"
topic = "records"

[transform]
component = "guest.wasm"

[routes]
right = "out.right"
tombstones = "none"

[dead_letter]
to = "out.dead"

[sinks.out.files]
path = "out"
format = "jsonl"
{more}
"#
    );
    Pipeline::of(guests::strict(), &file)
}

/// The codes of each dead letter.
fn reasons(pipeline: &Pipeline, target: &str) -> Vec<Vec<String>> {
    let codes = |dead: Value| {
        let reasons = dead["reasons"].as_array().expect("a list").clone();
        reasons.iter().map(|reason| reason["code"].as_str().expect("a code").to_owned()).collect()
    };
    pipeline.rows(target).into_iter().map(codes).collect()
}
