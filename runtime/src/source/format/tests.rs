//! The laws of cutting bytes into records: the same records however the bytes arrive.

mod packed;

use std::io::Cursor;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::batch::Batch;
use crate::budget::Permit;
use crate::offset::TopicPartition;

/// Gives its bytes in pieces of the given sizes, over and over.
struct Pieces {
    bytes: Cursor<Vec<u8>>,
    sizes: Vec<usize>,
    turn: usize,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        let size = self.sizes[self.turn % self.sizes.len()].min(buf.len());
        self.bytes.read(&mut buf[..size])
    }
}

fn open(bytes: &[u8], options: &Options) -> Result<RecordReader, Error> {
    RecordReader::open(Box::new(Cursor::new(bytes.to_vec())), "in/file", options)
}

fn reader(bytes: &[u8], options: &Options) -> RecordReader {
    open(bytes, options).expect("the test's file has a good header")
}

/// All that is left, `max_records` at a time; `None` when there is nothing.
fn batches(mut reader: RecordReader, max_records: usize) -> Vec<Batch> {
    let mut all = Vec::new();
    loop {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), reader.next());
        let filled = reader.fill(&mut builder, max_records, usize::MAX).expect("memory can be read");
        all.extend(builder.finish(reader.next(), Permit::free()));
        if filled == Filled::End {
            return all;
        }
    }
}

/// One entry per offset: the value, or the code and the bytes.
fn entries(reader: RecordReader, max_records: usize) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    for batch in batches(reader, max_records) {
        let values = batch
            .values()
            .iter()
            .map(|v| String::from_utf8_lossy(v.expect("files have values")).into_owned());
        all.extend(batch.offsets().iter().copied().zip(values));
        all.extend(
            batch
                .unreadable()
                .iter()
                .map(|u| (u.offset.get(), format!("{}: {}", u.code, String::from_utf8_lossy(&u.bytes)))),
        );
    }
    all.sort();
    all
}

/// The mark in front of a file is left out, and another one behind it is a name.
#[test]
fn a_header_that_is_nothing_but_a_mark_has_the_delimiter_of_its_own_line() {
    let bytes = "\u{feff}\r\u{feff}\rid;nan\n".as_bytes();
    for chunk in [1, 1 << 20] {
        let input = Box::new(Cursor::new(bytes.to_vec()));
        let reader =
            RecordReader::open_in_chunks(input, "in/file", &Options::new(Format::Csv), chunk).unwrap();
        assert_eq!(entries(reader, 1), [(0, "{\"\u{feff}\":\"id;nan\"}".to_owned())], "{chunk}");
    }
}

fn options(format: Format, max_record_bytes: usize) -> Options {
    Options { max_record_bytes, ..Options::new(format) }
}

fn check(format: Format, bytes: &[u8], expected: &[&str]) {
    let found = entries(reader(bytes, &options(format, 60)), 2);
    let (offsets, texts): (Vec<i64>, Vec<String>) = found.into_iter().unzip();
    assert_eq!(texts, expected, "{}", bytes.escape_ascii());
    assert!(offsets.iter().copied().eq(0..expected.len() as i64), "{offsets:?}");
}

fn check_csv(bytes: &str, expected: &[&str]) {
    check(Format::Csv, bytes.as_bytes(), expected);
}

fn check_header(bytes: &[u8], expected: &str) {
    let error = open(bytes, &options(Format::Csv, 60)).expect_err("the header is bad");
    assert_eq!(error.to_string(), format!("E_INPUT_HEADER: the header of in/file {expected}"));
}

#[test]
fn a_line_is_a_record_byte_for_byte_whatever_its_line_end() {
    check(
        Format::JsonLines,
        b"{\"a\":1}\r\n\n  \n\r\nx\xff\ry\n{}",
        &["{\"a\":1}", "  ", "x\u{fffd}\ry", "{}"],
    );
    check(Format::JsonLines, b"\xef\xbb\xbf1\n\xef\xbb\xbf2\n", &["1", "\u{feff}2"]);
    check(Format::JsonLines, b"", &[]);
}

#[test]
fn a_line_longer_than_a_record_may_be_is_unreadable_and_the_next_one_is_read() {
    let long = "x".repeat(61);
    check(
        Format::JsonLines,
        format!("{long}\n{}\r\n", &long[1..]).as_bytes(),
        &[&format!("record-too-large: {long}"), &long[1..]],
    );
}

#[test]
fn of_a_huge_record_only_the_beginning_is_kept() {
    let bytes = [vec![b'x'; 3 << 20], b"\n1\n".to_vec()].concat();
    let all = batches(reader(&bytes, &options(Format::JsonLines, 1 << 20)), 10);
    let huge = &all[0].unreadable()[0];
    assert_eq!(
        (huge.bytes.len(), huge.message.as_str()),
        (KEPT_BYTES, "3145728 bytes, and a record may have 1048576")
    );
    assert_eq!(all[0].values().get(0), Some(&b"1"[..]));
}

#[test]
fn as_much_is_kept_of_a_record_that_is_too_large_however_it_arrives() {
    let bytes = [vec![b'x'; 100_000], b"\n1\n".to_vec()].concat();
    for format in [Format::Csv, Format::JsonLines, Format::Raw] {
        let bytes = [b"a\n".as_slice(), &bytes].concat();
        for chunk in [1, 100, CHUNK] {
            let input = Box::new(Cursor::new(bytes.clone()));
            let reader = RecordReader::open_in_chunks(input, "in/file", &options(format, 60), chunk);
            let all = batches(reader.expect("the header is good"), 10);
            assert_eq!(all[0].unreadable()[0].bytes.len(), KEPT_BYTES, "{format} in chunks of {chunk}");
        }
    }
}

#[test]
fn a_header_is_read_or_refused_alike_however_its_bytes_arrive() {
    let told = |bytes: &'static [u8], chunk| {
        let input = Box::new(Cursor::new(bytes));
        let reader = RecordReader::open_in_chunks(input, "in/file", &options(Format::Csv, 10), chunk);
        reader.map(|reader| entries(reader, 1)).map_err(|e| e.to_string())
    };
    let longer = "E_INPUT_HEADER: the header of in/file is longer than a record may be; is this a CSV file?";
    for chunk in [1, 2, 11, CHUNK] {
        assert_eq!(told(b"a,\"b, and some more\"c\n", chunk), Err(longer.to_owned()), "in chunks of {chunk}");
        assert_eq!(told(b"a,b,c and more ;;;;;;\n", chunk), Err(longer.to_owned()), "in chunks of {chunk}");
        let marked = told(b"\xef\xbb\xbfa\n1\n", chunk);
        assert_eq!(marked, Ok(vec![(0, r#"{"a":"1"}"#.to_owned())]), "in chunks of {chunk}");
    }
}

#[test]
fn a_row_is_a_json_object_of_strings_in_the_order_of_the_header() {
    check_csv(
        "id,first_name\n1,Zoë\n\n2,\n",
        &[r#"{"id":"1","first_name":"Zoë"}"#, r#"{"id":"2","first_name":""}"#],
    );
    check_csv(
        "\u{feff}\"a\"\"b\";c\r\n\"x\r\n\"\"y\"\"\";\\\t\u{1}",
        &["{\"a\\\"b\":\"x\\r\\n\\\"y\\\"\",\"c\":\"\\\\\\t\\u0001\"}"],
    );
    check_csv("a|b\n1,5|5\" pipe\n", &[r#"{"a":"1,5","b":"5\" pipe"}"#]);
}

#[test]
fn a_file_without_rows_has_no_records() {
    for bytes in ["", "\u{feff}", "\n\r\n", "a,b", "a,b\n\n"] {
        check_csv(bytes, &[]);
    }
}

#[test]
fn a_ragged_row_takes_one_offset_and_keeps_its_bytes() {
    check_csv(
        "a,b\n1\n2,\"x\",z\n3,4\n",
        &["ragged-row: 1", "ragged-row: 2,\"x\",z", r#"{"a":"3","b":"4"}"#],
    );
    let all = batches(reader(b"a,b\n1,2,3\n", &Options::new(Format::Csv)), 10);
    assert_eq!(all[0].unreadable()[0].message, "row has 3 fields, the header has 2");
}

#[test]
fn text_that_is_not_utf8_is_unreadable_and_told_where_it_stands() {
    let all = batches(reader(b"id,name\n1,Zo\xeb\n2,x\n", &Options::new(Format::Csv)), 10);
    let found = &all[0].unreadable()[0];
    assert_eq!((found.code, &found.bytes[..]), ("not-utf8", &b"1,Zo\xeb"[..]));
    assert_eq!(
        found.message,
        "byte 0xEB at position 4 of the row, in field name, is not UTF-8; save the file as UTF-8"
    );
    assert_eq!(all[0].offsets(), [1]);
}

#[test]
fn an_unclosed_quote_costs_its_line_and_no_other() {
    let ok = |a: u8, b: &str| format!(r#"{{"a":"{a}","b":"{b}"}}"#);
    // Never closed.
    check_csv("a,b\n1,\"x\n2,y\n3,z\n", &["unclosed-quote: 1,\"x", &ok(2, "y"), &ok(3, "z")]);
    // Seemingly closed where the next quoted field begins.
    check_csv("a,b\n1,\"x\n2,\"y\nz\"\n3,z\n", &["unclosed-quote: 1,\"x", &ok(2, "y\\nz"), &ok(3, "z")]);
    // Closed, but in a row of another width.
    check_csv("a,b\n1,\"x\n2,y\",\n3,z\n", &["unclosed-quote: 1,\"x", "ragged-row: 2,y\",", &ok(3, "z")]);
    // Closed only behind what a record may have.
    let far = format!("a,b\n1,\"x\n{}\",\n", "2,y\n".repeat(40));
    let found = entries(reader(far.as_bytes(), &options(Format::Csv, 60)), 7);
    assert_eq!(found.len(), 42);
    assert_eq!((found[0].1.as_str(), &found[40].1), ("unclosed-quote: 1,\"x", &ok(2, "y")));
}

#[test]
fn text_behind_a_closing_quote_makes_its_line_unreadable() {
    check_csv("a,b\n1,\"x\"y\n2,y\n", &["stray-quote: 1,\"x\"y", r#"{"a":"2","b":"y"}"#]);
}

#[test]
fn a_row_longer_than_a_record_may_be_is_unreadable_and_the_next_one_is_read() {
    let long = "x".repeat(60);
    check_csv(
        &format!("a,b\n1,{long}\n2,\"{long}\"\n3,\r\n"),
        &[
            &format!("record-too-large: 1,{long}"),
            &format!("record-too-large: 2,\"{long}\""),
            r#"{"a":"3","b":""}"#,
        ],
    );
}

/// Every line leaves a quote open, seen from its beginning and from any line before.
#[test]
fn open_quotes_on_every_line_do_not_make_reading_slow() {
    let bytes = format!("a,b,c\n{}", "x\",\"y\n".repeat(200_000));
    let mut reader = reader(bytes.as_bytes(), &Options::new(Format::Csv));
    reader.skip_to(Offset::new(200_000)).expect("one record per line");
}

#[test]
fn a_header_that_cannot_name_the_fields_is_refused_and_says_what_to_do() {
    check_header(b"id,name,id\n", "names columns 1 and 3 both \"id\"; rename one of them");
    check_header(b"id,,x\n", "has no name for column 2 of 3; give it one");
    check_header(b"\xff\xfei\0d\0\n\0", "is not UTF-8 in column 1; save the file as UTF-8");
    check_header(b"id,\"x\n1,2\n", "opens a quote and never closes it");
    check_header("id,".repeat(100).as_bytes(), "is longer than a record may be; is this a CSV file?");
}

#[test]
fn a_raw_file_is_one_record_that_knows_its_path() {
    let all =
        batches(reader(b"\xef\xbb\xbfa\n\xff", &Options::new(Format::Raw)).starting_at(Offset::new(7)), 10);
    assert_eq!(all[0].offsets(), [7]);
    assert_eq!(all[0].values().get(0), Some(&b"\xef\xbb\xbfa\n\xff"[..]));
    assert_eq!(all[0].headers().get(0).collect::<Vec<_>>(), [("weir-path", Some(&b"in/file"[..]))]);
    assert_eq!((all[0].timestamps(), all[0].keys().get(0)), (&[-1_i64][..], None));
    check(Format::Raw, b"", &[""]);
    check(Format::Raw, &[b'x'; 61], &[&format!("record-too-large: {}", "x".repeat(61))]);
}

#[test]
fn going_on_behind_the_end_says_that_the_file_is_another() {
    let error =
        reader(b"1\n2\n", &Options::new(Format::JsonLines)).skip_to(Offset::new(3)).expect_err("two records");
    assert_eq!(
        error.to_string(),
        "E_INPUT_CHANGED: in/file has 2 records, and reading is to go on at record 3: it was cut off or replaced"
    );
}

#[test]
fn a_name_tells_its_format_by_its_ending() {
    assert_eq!(Format::of_path("a/b.CSV"), Some(Format::Csv));
    assert_eq!(Format::of_path("b.ndjson"), Some(Format::JsonLines));
    assert_eq!(Format::of_path("b.csv.GZ"), Some(Format::Csv));
    assert_eq!(Format::of_path("b.json.zst"), Some(Format::JsonLines));
    assert_eq!(Format::of_path("b.csv.gz.zst"), None);
    assert_eq!(Format::of_path("b.gz"), None);
    assert_eq!(Format::of_path("csv"), None);
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z\",\r\n ;é]{0,8}"]
}

fn write_row(row: &[String]) -> String {
    row.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Bytes in which line ends, quotes and delimiters are frequent.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&b"ab\",\"\n\r\n,\xff \x00"[..]), 0..120)
        .prop_map(|body| [b"a,b\n".to_vec(), body].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The law of the fuzzer, for bytes that look like files.
    #[test]
    fn any_file_is_cut_alike_however_its_bytes_arrive_and_wherever_reading_begins(
        kind in 0..3_u8,
        delimiter in prop::sample::select(&b"\0,;"[..]),
        max in 0..40_u8,
        piece in 0..20_u8,
        file in "\u{feff}?([ab,;\"é]|\"\"|,\"|\",|\n|\r\n|\r|x{15}){0,30}",
    ) {
        fuzzing::any_file(&[&[kind, delimiter, max, piece], file.as_bytes()].concat());
    }
}

proptest! {
    #[test]
    fn rows_come_back_as_the_json_of_what_was_written(
        (names, rows) in (1_usize..5).prop_flat_map(|n| (
            prop::collection::btree_set("[a-z\"\\\\é ]{1,6}", n..=n),
            prop::collection::vec(prop::collection::vec(field(), n..=n), 0..8),
        ))
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let text = write_row(&names) + &rows.iter().map(|r| write_row(r)).collect::<String>();
        let options = Options { delimiter: Some(b','), ..Options::new(Format::Csv) };
        let found: Vec<Value> = entries(reader(text.as_bytes(), &options), 3)
            .into_iter().map(|(_, v)| serde_json::from_str(&v).expect("a row is JSON")).collect();
        let object = |row: &Vec<String>| names.iter().cloned().zip(row.iter().cloned().map(Value::String)).collect::<Map<_, _>>();
        prop_assert_eq!(found, rows.iter().map(|r| Value::Object(object(r))).collect::<Vec<_>>());
    }

    #[test]
    fn a_value_is_escaped_as_serde_json_does_it(value in any::<String>()) {
        let text = write_row(&["k".to_owned()]) + &write_row(std::slice::from_ref(&value));
        let found = entries(reader(text.as_bytes(), &Options::new(Format::Csv)), 3);
        prop_assert_eq!(&found[0].1, &serde_json::json!({ "k": value }).to_string());
    }

    #[test]
    fn how_the_bytes_arrive_makes_no_difference(bytes in hostile(), sizes in prop::collection::vec(1_usize..9, 1..4), csv: bool) {
        let options = options(if csv { Format::Csv } else { Format::JsonLines }, 20);
        let pieces = Pieces { bytes: Cursor::new(bytes.clone()), sizes, turn: 0 };
        let slow = RecordReader::open(Box::new(pieces), "in/file", &options).expect("the header is good");
        prop_assert_eq!(entries(slow, 1), entries(reader(&bytes, &options), 1000));
    }

    #[test]
    fn going_on_at_a_record_gives_the_rest(bytes in hostile(), at in 0_usize..20, csv: bool) {
        let options = options(if csv { Format::Csv } else { Format::JsonLines }, 20);
        let all = entries(reader(&bytes, &options), 1000);
        let at = at.min(all.len());
        let mut tail = reader(&bytes, &options);
        tail.skip_to(Offset::new(at as i64)).expect("there are as many");
        prop_assert_eq!(entries(tail, 2), &all[at..]);
    }

    #[test]
    fn no_byte_of_a_csv_file_is_lost_but_line_ends(bytes in hostile()) {
        let options = Options { delimiter: Some(0), ..options(Format::Csv, 1000) };
        let bytes: Vec<u8> = bytes.into_iter().filter(|b| !matches!(b, b'"' | 0 | 0xff)).collect();
        let text = String::from_utf8(bytes).expect("ASCII is left");
        let lines = text.split(['\n', '\r']).filter(|l| !l.is_empty()).skip(1);
        let found = entries(reader(text.as_bytes(), &options), 1000);
        let expected: Vec<String> = lines.map(|l| serde_json::json!({ "a,b": l }).to_string()).collect();
        prop_assert_eq!(found.into_iter().map(|(_, v)| v).collect::<Vec<_>>(), expected);
    }
}
