//! One test per check, and outputs that lie at random: none may panic, and what is taken must be true.

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::Decimal128Type;
use proptest::prelude::*;

use super::fuzzing::{batch, description, holds};
use super::*;
use wit::ColumnDataResult as Data;

const COUNT: usize = 4;

fn var(entries: &[&[u8]]) -> wit::VarBytesResult {
    let mut offsets = vec![0];
    let mut data = Vec::new();
    for entry in entries {
        data.extend_from_slice(entry);
        offsets.push(data.len() as u32);
    }
    wit::VarBytesResult { offsets, data, validity: vec![] }
}

fn none() -> wit::VarBytesResult {
    wit::VarBytesResult { offsets: vec![], data: vec![], validity: vec![] }
}

fn column(data: Data) -> wit::ColumnResult {
    wit::ColumnResult { data, validity: vec![] }
}

/// Records 0 and 1 on `usa`, 2 rejected for two reasons, 3 dropped.
fn good() -> wit::Output {
    let decimals: Vec<u8> = [999_i128, -999].iter().flat_map(|v| v.to_le_bytes()).collect();
    let columns = vec![
        column(Data::VarBytes(var(&[b"a", "ü".as_bytes()]))),
        column(Data::S64s(vec![1, 2])),
        column(Data::Booleans(vec![0b10])),
        column(Data::S128s(decimals)),
        column(Data::VarBytes(var(&[b"{}", b"[1]"]))),
        column(Data::S32s(vec![i32::MIN, i32::MAX])),
        column(Data::S64s(vec![i64::MIN, i64::MAX])),
        column(Data::F64s(vec![f64::NAN, -0.0])),
        column(Data::S32s(vec![1, 2])),
        column(Data::VarBytes(var(&[b"\xff", b""]))),
    ];
    let headers = wit::HeadersResult { starts: vec![0, 1, 1], names: var(&[b"h"]), values: var(&[b"\xff"]) };
    let (rows, keys) = (vec![0, 1], Some(var(&[b"k", b""])));
    let usa = wit::RouteBatch { route: 0, rows, columns, keys, headers: Some(headers), deletes: vec![0b01] };
    let rejects = wit::Rejects { rows: vec![2, 2], reasons: vec![1, 0], details: var(&[b"why", b""]) };
    wit::Output { routes: vec![usa], rejects, dropped: vec![3] }
}

fn checked(said: wit::Output) -> Result<Output, String> {
    check(said, &description(), &batch(COUNT), 4 << 20)
}

/// What is said of the good output once `lie` changed it.
fn refused(lie: impl FnOnce(&mut wit::Output), expected: &str) {
    let mut said = good();
    lie(&mut said);
    assert_eq!(checked(said).unwrap_err(), format!("process: {expected}"));
}

fn taken(change: impl FnOnce(&mut wit::Output)) -> Output {
    let mut said = good();
    change(&mut said);
    checked(said).unwrap()
}

fn bytes_of(said: &mut wit::Output, i: usize) -> &mut wit::VarBytesResult {
    match &mut said.routes[0].columns[i].data {
        Data::VarBytes(all) => all,
        other => panic!("{other:?} are not bytes"),
    }
}

#[test]
fn a_true_output_is_adopted() {
    let output = taken(|_| {});
    let usa = &output.routes[0];
    assert_eq!((usa.route, &usa.rows[..]), (0, &[0, 1][..]));
    assert_eq!(usa.columns[0].as_string::<i32>().value(1), "ü");
    assert_eq!(usa.columns[2].as_boolean().iter().collect::<Vec<_>>(), [Some(false), Some(true)]);
    assert_eq!(usa.columns[3].as_primitive::<Decimal128Type>().values(), &[999, -999]);
    let schema = description().routes[0].schema();
    assert!(schema.fields().iter().zip(&usa.columns).all(|(field, c)| field.data_type() == c.data_type()));
    assert_eq!(usa.keys.as_ref().unwrap().get(1), Some(&b""[..]));
    assert_eq!(usa.headers.as_ref().unwrap().get(0).next(), Some(("h", Some(&b"\xff"[..]))));
    assert_eq!(usa.deletes.as_ref().unwrap().iter().collect::<Vec<_>>(), [true, false]);
    let why = |reason, detail: &str| Why { reason, detail: Some(detail.to_owned()) };
    assert_eq!(output.rejects, [Reject { row: 2, reasons: vec![why(1, "why"), why(0, "")] }]);
    assert_eq!(output.dropped, [3]);
}

#[test]
fn absent_cells_are_null_and_bits_behind_the_end_do_not_count() {
    let output = taken(|o| {
        o.routes[0].columns[1].validity = vec![0b1111_1101];
        o.routes[0].columns[2].data = Data::Booleans(vec![0xff]);
        o.routes[0].columns[3].data =
            Data::S128s([7_i128, i128::MAX].iter().flat_map(|v| v.to_le_bytes()).collect());
        o.routes[0].columns[3].validity = vec![0b01];
        let keys = o.routes[0].keys.as_mut().unwrap();
        keys.validity = vec![0xfd];
    });
    let usa = &output.routes[0];
    assert_eq!((usa.columns[1].null_count(), usa.columns[3].null_count()), (1, 1));
    assert_eq!(usa.keys.as_ref().unwrap().validity, [0b01]);
}

#[test]
fn every_record_has_one_fate() {
    refused(|o| o.dropped.clear(), "record 3 of 4 is lost: not on a route, rejected or dropped");
    refused(|o| o.dropped = vec![0, 3], "dropped: row 0: record 0 is also on a route");
    refused(|o| o.dropped = vec![2, 3], "dropped: row 0: record 2 is also rejected");
    refused(|o| o.dropped = vec![3, 3], "dropped: row 1: record 3 is there twice");
    refused(|o| o.dropped = vec![4], "dropped: row 0: record 4 of a batch of 4");
    refused(|o| o.rejects.rows = vec![1, 2], "rejects: row 0: record 1 is also on a route");
    refused(|o| o.rejects.rows = vec![2, 1], "rejects: row 1: record 1 comes after record 2");
    refused(|o| o.routes[0].rows = vec![1, 0], "route `usa`, row 1: record 0 comes after record 1");
    refused(|o| o.routes[0].rows = vec![0, 9], "route `usa`, row 1: record 9 of a batch of 4");
    taken(|o| (o.routes[0].rows, o.dropped) = (vec![0, 0], vec![1, 3]));
}

#[test]
fn routes_exist_and_come_once() {
    let raw = || wit::RouteBatch {
        route: 1,
        rows: vec![0],
        columns: vec![],
        keys: None,
        headers: None,
        deletes: vec![],
    };
    taken(|o| o.routes.push(raw()));
    refused(|o| o.routes[0].route = 2, "route 2: there are 2");
    refused(|o| o.routes[0].route = u32::MAX, "route 4294967295: there are 2");
    refused(|o| o.routes.extend([raw(), raw()]), "route `raw`: there are two entries for it");
    refused(|o| o.routes[0].route = 1, "route `raw`, 10 columns for 0 fields");
}

#[test]
fn columns_have_the_declared_type_and_length() {
    refused(|o| drop(o.routes[0].columns.pop()), "route `usa`, 9 columns for 10 fields");
    let set = |i: usize, data: Data| move |o: &mut wit::Output| o.routes[0].columns[i].data = data;
    refused(set(1, Data::S64s(vec![1, 2, 3])), "route `usa`, field `age`: 3 values for 2 rows");
    refused(set(1, Data::S32s(vec![1, 2])), "route `usa`, field `age`: `s32s` do not carry Int64");
    refused(set(2, Data::Booleans(vec![])), "route `usa`, field `ok`: booleans: 0 bytes for 2 rows, not 1");
    refused(set(3, Data::S128s(vec![0; 31])), "route `usa`, field `sum`: 31 bytes for 2 rows, not 16 each");
    let big = [0_i128, 1000].iter().flat_map(|v| v.to_le_bytes()).collect();
    refused(set(3, Data::S128s(big)), "route `usa`, field `sum`: row 1: 1000 has more than 3 digits");
    let least = [0, i128::MIN].iter().flat_map(|v| v.to_le_bytes()).collect();
    refused(
        set(3, Data::S128s(least)),
        &format!("route `usa`, field `sum`: row 1: {} has more than 3 digits", i128::MIN),
    );
}

#[test]
fn what_is_not_nullable_has_a_value_in_every_row() {
    refused(
        |o| o.routes[0].columns[0].validity = vec![0b01],
        "route `usa`, field `name`: row 1 has no value, and the field is not nullable",
    );
    let length = |o: &mut wit::Output| o.routes[0].columns[1].validity = vec![3, 0];
    refused(length, "route `usa`, field `age`: validity: 2 bytes for 2 rows, not 1");
}

#[test]
fn byte_strings_have_true_offsets() {
    let offsets = |offsets: &[u32]| {
        let offsets = offsets.to_vec();
        move |o: &mut wit::Output| bytes_of(o, 9).offsets = offsets
    };
    let at = "route `usa`, field `bytes`:";
    refused(offsets(&[]), &format!("{at} 0 offsets for 2 rows, not 3"));
    refused(offsets(&[0, 1]), &format!("{at} 2 offsets for 2 rows, not 3"));
    refused(offsets(&[1, 1, 1]), &format!("{at} the first offset is 1, not 0"));
    refused(offsets(&[0, 1, 2]), &format!("{at} the last offset is 2, where there are 1"));
    refused(offsets(&[0, 2, 1]), &format!("{at} row 1: its end, 1, lies before its start, 2"));
    refused(
        offsets(&[0, u32::MAX, 1]),
        &format!("{at} row 1: its end, 1, lies before its start, 4294967295"),
    );
    refused(
        |o| o.routes[0].columns[9].validity = vec![0b10],
        &format!("{at} row 0 is absent and has bytes all the same"),
    );
    let inner = "the validity inside `var-bytes` is not empty; that of the column counts";
    refused(|o| bytes_of(o, 9).validity = vec![3], &format!("{at} {inner}"));
}

#[test]
fn text_is_utf8_and_json_is_json() {
    let at = "route `usa`, field `name`:";
    refused(
        |o| *bytes_of(o, 0) = var(&[b"a", b"b\xff"]),
        &format!("{at} row 1 is not UTF-8 from its byte 1 on"),
    );
    refused(|o| bytes_of(o, 0).offsets[1] = 2, &format!("{at} row 0 is not UTF-8 from its byte 1 on"));
    for (cell, why) in [
        (&b"{"[..], "EOF while parsing an object at line 1 column 1"),
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"1 2", "trailing characters at line 1 column 3"),
        (b"NaN", "expected value at line 1 column 1"),
    ] {
        let expected = format!("route `usa`, field `more`: row 1 is not JSON: {why}");
        refused(|o| *bytes_of(o, 4) = var(&[b"{}", cell]), &expected);
    }
    let deep = "[".repeat(1_000_000);
    refused(
        |o| *bytes_of(o, 4) = var(&[b"{}", deep.as_bytes()]),
        "route `usa`, field `more`: row 1 is not JSON: EOF while parsing a list at line 1 column 1000000",
    );
}

#[test]
fn keys_headers_and_deletes_fit_their_rows() {
    let head = |o: &mut wit::Output| o.routes[0].headers.take().unwrap();
    refused(|o| o.routes[0].keys = Some(var(&[b"k"])), "route `usa`, keys: 2 offsets for 2 entries, not 3");
    refused(|o| o.routes[0].deletes = vec![1, 0], "route `usa`, deletes: 2 bytes for 2 rows, not 1");
    let headers = |change: fn(&mut wit::HeadersResult), expected: &str| {
        let change = |o: &mut wit::Output| {
            let mut h = head(o);
            change(&mut h);
            o.routes[0].headers = Some(h);
        };
        refused(change, &format!("route `usa`, headers: {expected}"));
    };
    headers(|h| h.starts = vec![0, 1], "2 offsets for 2 rows, not 3");
    headers(|h| h.starts = vec![0, 1, 2], "the last offset is 2, where there are 1");
    headers(|h| h.starts = vec![0, 2, 1], "row 1: its end, 1, lies before its start, 2");
    headers(|h| h.values = var(&[]), "values: 1 offsets for 1 entries, not 2");
    headers(|h| h.names.validity = vec![0], "names: row 0 is absent and has bytes all the same");
    headers(|h| h.names = wit::VarBytesResult { validity: vec![0], ..var(&[b""]) }, "header 0 has no name");
    headers(
        |h| h.names = var(&[b"\xff"]),
        "the name of header 0 is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0",
    );
}

#[test]
fn rejects_have_known_reasons_each_once() {
    refused(|o| o.rejects.reasons = vec![1], "rejects: 1 reasons for 2 rows");
    refused(|o| o.rejects.reasons = vec![0, 2], "rejects: row 1: reason 2, where there are 2");
    refused(|o| o.rejects.reasons = vec![1, 1], "rejects: row 1: record 2 has reason 1 twice");
    refused(|o| o.rejects.details = var(&[b"x"]), "rejects: details: 2 offsets for 2 entries, not 3");
    let utf8 = "rejects: details: row 1 is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0";
    refused(|o| o.rejects.details = var(&[b"x", b"\xff"]), utf8);
    let output = taken(|o| o.rejects.details = none());
    assert!(output.rejects[0].reasons.iter().all(|why| why.detail.is_none()));
}

#[test]
fn size_is_limited() {
    let size = size(&good(), &description().reasons);
    assert!(check(good(), &description(), &batch(COUNT), size).is_ok());
    let text = check(good(), &description(), &batch(COUNT), size - 1).unwrap_err();
    assert_eq!(text, format!("process: {size} bytes of output, more than the {} allowed", size - 1));
}

#[test]
fn what_takes_few_bytes_to_say_counts_as_what_becomes_of_it() {
    let often = |n: usize, row: u32| {
        let rest = (0..COUNT as u32).filter(|other| *other != row).collect();
        let columns = vec![];
        let raw = wit::RouteBatch {
            route: 1,
            rows: vec![row; n],
            columns,
            keys: None,
            headers: None,
            deletes: vec![],
        };
        let rejects = wit::Rejects { rows: vec![], reasons: vec![], details: none() };
        checked(wit::Output { routes: vec![raw], rejects, dropped: rest })
    };
    // Record 0 is empty: each row has only where it came from. Record 3 has 21,000 bytes, once for nothing.
    assert!(often(60_000, 0).is_ok());
    assert!(often(70_000, 0).unwrap_err().contains("bytes of output, more than the 4194304 allowed"));
    assert!(often(199, 3).is_ok());
    assert!(often(201, 3).unwrap_err().contains("bytes of output, more than the 4194304 allowed"));
}

fn any_u32() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..6_u32, 1 => any::<u32>()]
}

fn any_var() -> impl Strategy<Value = wit::VarBytesResult> {
    let honest =
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3), 0..5).prop_map(|entries| {
            let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
            var(&entries)
        });
    let lists = (proptest::collection::vec(any_u32(), 0..5), proptest::collection::vec(any::<u8>(), 0..6));
    let lying = (lists, proptest::collection::vec(any::<u8>(), 0..2));
    let lying = lying.prop_map(|((offsets, data), validity)| wit::VarBytesResult { offsets, data, validity });
    prop_oneof![2 => honest, 1 => lying]
}

fn any_column() -> impl Strategy<Value = wit::ColumnResult> {
    use proptest::collection::vec;
    let data = prop_oneof![
        vec(any::<u8>(), 0..3).prop_map(Data::Booleans),
        vec(any::<i32>(), 0..5).prop_map(Data::S32s),
        vec(any::<i64>(), 0..5).prop_map(Data::S64s),
        vec(any::<f64>(), 0..5).prop_map(Data::F64s),
        vec(any::<u8>(), 0..65).prop_map(Data::S128s),
        any_var().prop_map(Data::VarBytes),
    ];
    (data, vec(any::<u8>(), 0..2)).prop_map(|(data, validity)| wit::ColumnResult { data, validity })
}

/// The good output with one part after another replaced by anything.
fn any_output() -> impl Strategy<Value = wit::Output> {
    use proptest::collection::vec;
    let columns = vec((0..12_usize, any_column()), 0..3);
    let rows = proptest::option::of(vec(any_u32(), 0..5));
    let headers = (vec(any_u32(), 0..5), any_var(), any_var());
    let headers = headers.prop_map(|(starts, names, values)| wit::HeadersResult { starts, names, values });
    let (keys, headers) = (proptest::option::of(any_var()), proptest::option::of(headers));
    let route = (any_u32(), columns, rows, keys, headers, vec(any::<u8>(), 0..2));
    let rejects = (vec(any_u32(), 0..4), vec(any_u32(), 0..4), any_var());
    let rejects = proptest::option::of(rejects);
    (vec(route, 0..3), rejects, proptest::option::of(vec(any_u32(), 0..4))).prop_map(
        |(routes, rejects, dropped)| {
            let mut said = good();
            for (i, (route, columns, rows, keys, headers, deletes)) in routes.into_iter().enumerate() {
                if i > 0 {
                    said.routes.push(wit::RouteBatch { route, columns: vec![], ..good().routes.remove(0) });
                }
                let part = said.routes.last_mut().expect("there is one");
                for (at, column) in columns {
                    match part.columns.get_mut(at) {
                        Some(old) => *old = column,
                        None => part.columns.push(column),
                    }
                }
                (part.keys, part.headers, part.deletes) = (keys, headers, deletes);
                part.rows = rows.unwrap_or_else(|| std::mem::take(&mut part.rows));
            }
            if let Some((rows, reasons, details)) = rejects {
                said.rejects = wit::Rejects { rows, reasons, details };
            }
            said.dropped = dropped.unwrap_or(said.dropped);
            said
        },
    )
}

/// `WEIR_LIES=100000` tells so many.
fn n_lies() -> u32 {
    std::env::var("WEIR_LIES").map_or(20_000, |n| n.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: n_lies(), ..ProptestConfig::default() })]

    #[test]
    fn no_lie_panics_and_what_is_taken_is_true(said in any_output()) {
        holds(said, COUNT);
    }
}
