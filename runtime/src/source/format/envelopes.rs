//! Records with all there is of them, a JSON object per line: how those are kept that come again. What a line holds is the
//! record byte for byte; text is there as text, and what is not UTF-8 in base64.

use std::borrow::Cow;
use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::{Cutter, Found, Window};
use crate::batch::{BatchBuilder, RecordRef, Unreadable};
use crate::offset::Offset;

/// A key, a value, or the value of a header; neither where it is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytes<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    value: Bytes<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    headers: Vec<Header<'a>>,
    timestamp_ms: i64,
    key: Bytes<'a>,
    value: Bytes<'a>,
}

impl<'a> Bytes<'a> {
    fn of(bytes: Option<&'a [u8]>) -> Self {
        match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
            None => Self::default(),
            Some((Ok(text), _)) => Self { text: Some(text.into()), base64: None },
            Some((Err(_), bytes)) => Self { text: None, base64: Some(BASE64_STANDARD.encode(bytes)) },
        }
    }

    fn get(&self) -> Result<Option<Cow<'_, [u8]>>, String> {
        match (&self.text, &self.base64) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(text.as_bytes().into())),
            (None, Some(base64)) => {
                let bytes = BASE64_STANDARD.decode(base64).map_err(|error| format!("its base64: {error}"))?;
                Ok(Some(bytes.into()))
            }
            (Some(_), Some(_)) => Err("it has a text and base64 for the same".to_owned()),
        }
    }
}

impl<'a> Header<'a> {
    fn of((name, value): &(&'a str, Option<&'a [u8]>)) -> Self {
        Self { name: (*name).into(), value: Bytes::of(*value) }
    }
}

/// The line of a record, its line feed included.
pub fn envelope(record: RecordRef<'_>) -> Vec<u8> {
    let line = Line {
        headers: record.headers.iter().map(Header::of).collect(),
        timestamp_ms: record.timestamp_ms,
        key: Bytes::of(record.key),
        value: Bytes::of(record.value),
    };
    let mut line = serde_json::to_vec(&line).expect("it is plain data");
    line.push(b'\n');
    line
}

#[derive(Debug)]
pub(super) struct Envelopes {
    lines: Lines,
}

impl Envelopes {
    pub(super) fn new(max: usize) -> Self {
        Self { lines: Lines::new(max) }
    }
}

impl Cutter for Envelopes {
    fn find(&mut self, window: &mut Window) -> io::Result<Option<Found>> {
        self.lines.find(window)
    }

    /// A line that holds no record says so, and the others go on.
    fn add(&mut self, bytes: &[u8], offset: Offset, builder: &mut BatchBuilder) {
        if let Err(why) = push(bytes, offset, builder) {
            builder.push_unreadable(Unreadable {
                offset,
                bytes: bytes.to_vec(),
                code: "no-envelope",
                message: format!("a line of the replay input that holds no record: {why}"),
            });
        }
    }
}

fn push(bytes: &[u8], offset: Offset, builder: &mut BatchBuilder) -> Result<(), String> {
    let line: Line<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let (key, value) = (line.key.get()?, line.value.get()?);
    let mut values = Vec::with_capacity(line.headers.len());
    for header in &line.headers {
        values.push(header.value.get()?);
    }
    let headers: Vec<_> =
        line.headers.iter().zip(&values).map(|(header, value)| (&*header.name, value.as_deref())).collect();
    let (key, value, timestamp_ms) = (key.as_deref(), value.as_deref(), line.timestamp_ms);
    builder.push(offset, RecordRef { key, value, headers: &headers, timestamp_ms });
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::budget::Permit;
    use crate::offset::TopicPartition;
    use crate::origin::ENVELOPE;
    use crate::source::format::{Format, Options, RecordReader};

    fn batch(lines: &[u8]) -> crate::batch::Batch {
        let options = Options::new(Format::Envelopes);
        let mut reader =
            RecordReader::open(Box::new(std::io::Cursor::new(lines.to_vec())), "r", &options).unwrap();
        let mut builder = BatchBuilder::new(TopicPartition::new("weir.p.replay", 0), Offset::ZERO);
        builder.open_envelopes();
        reader.fill(&mut builder, usize::MAX, usize::MAX).unwrap();
        builder.finish(reader.next(), Permit::free()).unwrap()
    }

    fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop_oneof![
            Just(None),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Some),
            ".{0,10}".prop_map(|text: String| Some(text.into_bytes())),
        ]
    }

    proptest! {
        #[test]
        fn a_record_comes_out_of_its_line_byte_for_byte_with_where_it_came_first(
            key in any_bytes(),
            value in any_bytes(),
            own in prop::collection::vec((".{0,5}", any_bytes()), 0..3),
            timestamp_ms in any::<i64>(),
        ) {
            let mut headers = vec![(ENVELOPE, Some(&b"t/3/7/2"[..]))];
            headers.extend(own.iter().map(|(name, value)| (&**name, value.as_deref())));
            let record = RecordRef { key: key.as_deref(), value: value.as_deref(), headers: &headers, timestamp_ms };
            let line = envelope(record);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let batch = batch(&line);
            prop_assert_eq!((batch.len(), batch.unreadable()), (1, &[][..]));
            prop_assert_eq!(batch.origins().unwrap()[0].to_string(), "t/3/7/2");
            prop_assert_eq!((batch.keys().get(0), batch.values().get(0)), (record.key, record.value));
            prop_assert_eq!(batch.headers().get(0).collect::<Vec<_>>(), &headers[1..]);
            prop_assert_eq!(batch.timestamps(), &[timestamp_ms]);
        }
    }

    #[test]
    fn a_line_that_is_no_envelope_says_why_and_the_others_go_on() {
        let good = envelope(RecordRef { headers: &[(ENVELOPE, Some(b"t/0/1/1"))], ..RecordRef::default() });
        for (line, why) in [
            ("{}", "missing field"),
            (
                r#"{"headers":[],"timestamp_ms":1,"key":{"text":"a","base64":"YQ=="},"value":{}}"#,
                "a text and base64",
            ),
            (r#"{"headers":[],"timestamp_ms":1,"key":{"base64":"?"},"value":{}}"#, "its base64"),
            (r#"{"headers":[],"timestamp_ms":1,"key":{},"value":{}}"#, "its first header is not"),
            ("\u{fffd}", "expected value"),
        ] {
            let batch = batch(&[line.as_bytes(), b"\n", &good].concat());
            let [found] = batch.unreadable() else { panic!("{line}") };
            assert_eq!((found.code, batch.offsets()), ("no-envelope", &[1][..]));
            assert!(found.message.contains(why), "{}", found.message);
        }
    }
}
