//! Laws of the emitter, through a transform that does what its records tell it. Never tests one transform's rule.

use weir_sdk::batch::{HeadersRef, VarBytesRef};
use weir_sdk::column::{ColumnData, VarBytes};
use weir_sdk::testing::{Fate, Scalar, fates};
use weir_sdk::{
    Batch, DETAIL_LIMIT_BYTES, Date, Decimal, Description, Emitter, Envelope, Instance, Json, Reason, Record,
    Records, Rows, Settings, Tables, Timestamp, Transform,
};

weir_sdk::row! {
    /// A row with
    /// every type.
    struct All<'a> {
        /// Yes or no.
        boolean: bool,
        int32: i32,
        #[annotate("unit", "EUR")]
        #[annotate("pii", "no")]
        decimal: Decimal<10, 2>,
        double: f64,
        date: Option<Date>,
        timestamp: Timestamp,
        binary: &'a [u8],
        json: Json<'a>,
        text: Option<&'a str>,
    }
}

weir_sdk::row! { struct Small<'a> { text: &'a str } }

const ALL: Rows<All> = Rows::route("all");
const SMALL: Rows<Small> = Rows::route("small");
const AS_IT_CAME: Records = Records::route("as_it_came", "The record.");
const UNKNOWN: Records = Records::route("unknown", "Not described.");
const OTHER_FIELDS: Rows<All> = Rows::route("small");
const FIRST: Reason = Reason::of("text", "first", "the first reason");
const SECOND: Reason = Reason::new("second", "the second reason");
const THIRD: Reason = Reason::new("third", "not described");

/// Does for each letter of a value one thing.
#[derive(Debug)]
struct Obedient;

impl Transform for Obedient {
    fn describe(_: &Settings) -> Result<Description, String> {
        Ok(Description::new("obedient", "1", "Does as it is told.")
            .needs(Envelope { keys: true, headers: true, ..Envelope::default() })
            .routes(&[&ALL, &SMALL, &AS_IT_CAME])
            .reasons(&[FIRST, SECOND]))
    }

    fn init(_: &Settings, _: &Tables) -> Result<Self, String> {
        Ok(Self)
    }

    fn record(&self, record: &Record<'_>, out: &mut Emitter<'_>) {
        let text = record.text().ok().flatten().unwrap_or_default();
        for letter in text.chars() {
            match letter {
                'a' => out.row(&ALL, all(text)),
                's' => out.row(&SMALL, Small { text }),
                'r' => out.record(&AS_IT_CAME),
                '1' => out.reject(&FIRST),
                '2' => out.reject_with(&SECOND, "what was found"),
                '3' => out.reject(&THIRD),
                'l' => out.reject_with(&FIRST, "ü".repeat(DETAIL_LIMIT_BYTES)),
                'd' => out.drop_record(),
                'u' => out.record(&UNKNOWN),
                'o' => out.row(&OTHER_FIELDS, all(text)),
                'k' => out.set_key(b"own"),
                'h' => out.set_header("own", Some(b"value")),
                'x' => out.set_delete(),
                _ => {}
            }
        }
    }
}

fn all(text: &str) -> All<'_> {
    All {
        boolean: true,
        int32: -1,
        decimal: Decimal::new(-1250).expect("four digits"),
        double: 0.5,
        date: None,
        timestamp: Timestamp(7),
        binary: b"\xff",
        json: Json("{}"),
        text: Some(text),
    }
}

fn obedient() -> Instance<Obedient> {
    Instance::init(Vec::new(), Vec::new()).expect("nothing is needed")
}

fn run(values: &[&str]) -> Result<Vec<Fate>, String> {
    fates(&obedient(), values.iter().map(|value| Some(value.as_bytes())))
}

#[test]
fn a_record_without_a_fate_fails_the_batch_and_is_named() {
    assert_eq!(run(&["d", "r", ""]), Err("record 2: neither routed, rejected nor dropped".to_owned()));
}

#[test]
fn a_record_with_two_fates_fails_the_batch_and_is_named() {
    let check = |value, fault: &str| assert_eq!(run(&["d", value]), Err(format!("record 1: {fault}")));
    check("r1", "both routed and rejected");
    check("2s", "both rejected and routed");
    check("dr", "both dropped and routed");
    check("1d", "both rejected and dropped");
    check("u", "route `unknown` is not in the description");
    check("3", "reason `third` is not in the description");
    check("o", "route `small` is described with other fields than its row has");
    check("k", "there is no row yet to set a key, a header or a delete on");
    check("skk", "the key of one row is set twice");
}

#[test]
fn a_record_may_give_several_rows_on_several_routes() {
    let fates = run(&["d", "ssra", "dd"]).expect("every record has its fate");
    let Fate::Routed(rows) = &fates[1] else { panic!("{fates:?}") };
    assert_eq!(
        rows.iter().map(|row| row.route.as_str()).collect::<Vec<_>>(),
        ["all", "small", "small", "as_it_came"]
    );
    assert_eq!((&fates[0], &fates[2]), (&Fate::Dropped, &Fate::Dropped));
}

#[test]
fn every_type_comes_out_as_it_went_in() {
    let fates = run(&["a"]).expect("it has its fate");
    let Fate::Routed(rows) = &fates[0] else { panic!("{fates:?}") };
    let values: Vec<_> = rows[0].fields.iter().map(|(_, value)| value.clone()).collect();
    let text = |text: &str| Scalar::Text(text.to_owned());
    let expected = [
        Scalar::Boolean(true),
        Scalar::Integer(-1),
        Scalar::Decimal(-1250),
        Scalar::Double(0.5),
        Scalar::Null,
        Scalar::Integer(7),
        Scalar::Binary(vec![0xff]),
        text("{}"),
        text("a"),
    ];
    assert_eq!(values, expected);
}

#[test]
fn a_row_tells_its_fields_with_docs_and_annotations() {
    let described = Instance::<Obedient>::describe(Vec::new()).expect("no settings");
    let route = &described.routes[0];
    assert_eq!((route.name.as_str(), route.doc.as_str()), ("all", "A row with\nevery type."));
    let weir_sdk::description::RouteContent::Rows(fields) = &route.content else { panic!("{route:?}") };
    assert_eq!(fields[0].doc, "Yes or no.");
    assert_eq!(fields[2].annotations[1], ("pii".to_owned(), "no".to_owned()));
    let nullable: Vec<_> = fields.iter().filter(|field| field.nullable).map(|field| &field.name).collect();
    assert_eq!(nullable, ["date", "text"]);
}

#[test]
fn a_record_is_rejected_once_for_each_reason() {
    let found = Some("what was found".to_owned());
    let expected = vec![("second".to_owned(), found), ("first".to_owned(), None)];
    assert_eq!(run(&["2121", "d"]), Ok(vec![Fate::Rejected(expected), Fate::Dropped]));
}

#[test]
fn a_detail_is_cut_between_characters() {
    let expected = vec![("first".to_owned(), Some("ü".repeat(DETAIL_LIMIT_BYTES / 2)))];
    assert_eq!(run(&["l"]), Ok(vec![Fate::Rejected(expected)]));
}

#[test]
fn without_any_detail_there_are_no_details() {
    let values = [Some(b"1".as_slice()), Some(b"1")].into_iter().collect();
    let output = obedient().process(&Batch::of_values("t", &values)).expect("both are rejected");
    assert_eq!(output.rejects.rows, [0, 1]);
    assert!(output.rejects.details.offsets.is_empty());
}

#[test]
fn a_row_without_a_key_or_headers_of_its_own_keeps_those_of_its_record() {
    let values: VarBytes = ["s", "skx", "ssh", "s"].map(|value| Some(value.as_bytes())).into_iter().collect();
    let keys: VarBytes = [Some(b"0".as_slice()), Some(b"1"), None, Some(b"3")].into_iter().collect();
    let (names, contents) = ([Some(b"n".as_slice())].into_iter().collect(), [None].into_iter().collect());
    let headers = HeadersRef {
        starts: &[0, 0, 0, 0, 1],
        names: VarBytesRef::from(&names),
        values: VarBytesRef::from(&contents),
    };
    let batch =
        Batch { keys: Some((&keys).into()), headers: Some(headers), ..Batch::of_values("t", &values) };
    let output = obedient().process(&batch).expect("all are routed");
    let route = &output.routes[0];
    assert_eq!(route.rows, [0, 1, 2, 2, 3]);
    let expected = [Some(b"0".as_slice()), Some(b"own"), None, None, Some(b"3")].into_iter().collect();
    assert_eq!(route.keys, Some(expected));
    let headers = route.headers.as_ref().expect("one row has its own");
    assert_eq!(headers.starts, [0, 0, 0, 0, 1, 2]);
    assert_eq!(headers.names.data, b"ownn");
    assert_eq!(route.deletes, [0b10]);
}

#[test]
fn keys_are_the_records_where_no_row_sets_one() {
    let values = [Some(b"s".as_slice())].into_iter().collect();
    let output = obedient().process(&Batch::of_values("t", &values)).expect("it is routed");
    assert_eq!((&output.routes[0].keys, &output.routes[0].headers), (&None, &None));
    assert!(matches!(&output.routes[0].columns[0].data, ColumnData::VarBytes(texts) if texts.data == b"s"));
}

#[test]
fn some_rows_with_keys_and_others_without_need_the_records_keys() {
    let fault = "route `small`: some rows set their key and others do not; let `needs` ask for keys, so that these \
                 keep theirs";
    assert_eq!(run(&["sk", "s"]), Err(fault.to_owned()));
    assert!(run(&["s", "sk"]).is_err());
    assert!(run(&["sk", "sk"]).is_ok());
}
