//! A transform that takes nothing but what is exactly right: every breach is a reject with a reason. It never mends a
//! value, and never fails.

use weir_sdk::json::{Code, Error, Object};
use weir_sdk::{
    Decimal, Description, Emitter, Envelope, Reason, Record, Records, Rows, Settings, Tables, Timestamp,
    Transform, clean,
};

weir_sdk::row! {
    /// A record in which all is right.
    pub struct Right<'a> {
        pub id: &'a str,
        pub count: Option<i64>,
        pub price: Option<Decimal<10, 2>>,
        pub at: Option<Timestamp>,
        pub note: Option<&'a str>,
        /// The record's.
        pub key: Option<&'a [u8]>,
        /// How many the record has, and how many of those are not UTF-8.
        pub headers: i64,
        pub odd_headers: i64,
        /// The record's.
        pub stamped: Option<Timestamp>,
    }
}

const RIGHT: Rows<Right> = Rows::route("right");
const TOMBSTONES: Records = Records::route("tombstones", "Records without a value.");

const NO_ID: Reason = Reason::of("id", "no-id", "there is no id");
const BAD_ID: Reason = Reason::of("id", "bad-id", "the id is neither text nor a whole number");
const BAD_COUNT: Reason = Reason::of("count", "bad-count", "not a whole number of 64 bits");
const BAD_PRICE: Reason =
    Reason::of("price", "bad-price", "not a number of 10 digits, 2 of them behind the point");
const BAD_TIME: Reason = Reason::of("at", "bad-time", "not a time of the years 1 to 9999");
const BAD_NOTE: Reason = Reason::of("note", "bad-note", "not a text");
const BAD_STAMP: Reason = Reason::new("bad-timestamp", "the record's time is not in the years 1 to 9999");

macro_rules! json_reasons {
    ($($code:ident)+) => {
        /// A reason per code of the JSON reader.
        const JSON: &[Reason] = &[$(Reason::new(Code::$code.as_str(), "the value is no JSON object")),+];

        fn json_reason(code: Code) -> &'static Reason {
            let at = [$(Code::$code),+].iter().position(|other| *other == code);
            at.map_or(&JSON[0], |at| &JSON[at])
        }
    };
}

json_reasons!(NotUtf8 Absent NotObject Unfinished Unexpected BadNumber BadEscape LoneSurrogate ControlByte TooDeep Trailing);

const WANTED: Object<5> = Object::with(["id", "count", "price", "at", "note"]);

#[derive(Debug)]
pub struct Strict;

weir_sdk::export!(Strict);

impl Transform for Strict {
    fn describe(_: &Settings) -> Result<Description, String> {
        let needs = Envelope { keys: true, headers: true, timestamps: true, ..Envelope::default() };
        let described = Description::new("strict", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .needs(needs)
            .routes(&[&RIGHT, &TOMBSTONES])
            .reasons(&[NO_ID, BAD_ID, BAD_COUNT, BAD_PRICE, BAD_TIME, BAD_NOTE, BAD_STAMP])
            .reasons(JSON);
        Ok(described)
    }

    fn init(_: &Settings, _: &Tables) -> Result<Self, String> {
        Ok(Self)
    }

    fn record(&self, record: &Record<'_>, out: &mut Emitter<'_>) {
        if record.value().is_none() {
            return out.record(&TOMBSTONES);
        }
        let [id, count, price, at, note] = match record.json(&WANTED) {
            Ok(values) => values,
            Err(Error { code, at }) => return out.reject_with(json_reason(code), format_args!("byte {at}")),
        };
        let id = out.clean(&id, clean::text_or_integer, &BAD_ID);
        let count = out.clean(&count, clean::integer, &BAD_COUNT);
        let price = out.clean(&price, clean::decimal::<10, 2>, &BAD_PRICE);
        let at = out.clean(&at, clean::timestamp, &BAD_TIME);
        let note = out.clean(&note, clean::text, &BAD_NOTE);
        let stamped = record.timestamp_ms().and_then(|ms| stamp(ms, out));
        let odd =
            record.headers().filter(|(_, value)| value.is_some_and(|v| std::str::from_utf8(v).is_err()));
        let (headers, odd_headers) = (record.headers().count() as i64, odd.count() as i64);
        match id {
            Some(id) if !out.is_rejected() => {
                let key = record.key();
                out.row(&RIGHT, Right { id, count, price, at, note, key, headers, odd_headers, stamped });
            }
            Some(_) => {}
            None if out.is_rejected() => {}
            None => out.reject(&NO_ID),
        }
    }
}

/// Milliseconds as a time, if there can be one.
fn stamp(ms: i64, out: &mut Emitter<'_>) -> Option<Timestamp> {
    const FIRST: i64 = -62_135_596_800_000;
    const LAST: i64 = 253_402_300_799_999;
    if !(FIRST..=LAST).contains(&ms) {
        out.reject_with(&BAD_STAMP, ms);
        return None;
    }
    Some(Timestamp(ms * 1_000))
}
