//! A row that its topic refuses for what is in it, as a record that the topic for such rows takes: as much of the row as
//! fits, with where it was to go and why it did not. It is never larger than that topic takes.

use crate::kafka::transactions::wire_bytes;

use super::staging::{Provenance, Staged};

/// As much of a reason as is kept.
const MOST_REASON: usize = 512;

/// Bytes by which the lengths in front of key and value may grow.
const LENGTHS: usize = 10;

/// See the module.
pub(super) struct Letter<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    headers: Vec<(&'static str, String)>,
}

impl Letter<'_> {
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
        self.headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())))
    }
}

/// The record for a row. A key that does not fit is left out, a value is cut; their lengths are then told.
pub(super) fn letter<'a>(
    sink: &str,
    row: &Staged<'a>,
    provenance: &Provenance<'_>,
    reason: &str,
    most_bytes: usize,
) -> Letter<'a> {
    let origin = row.origin();
    let reason = &reason[..reason.floor_char_boundary(MOST_REASON)];
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len).to_string();
    let mut letter = Letter {
        key: row.key(),
        value: row.value(),
        headers: vec![
            ("weir-sink", sink.to_owned()),
            ("weir-target", origin.target.to_string()),
            ("weir-route", origin.route.to_string()),
            ("weir-reason", reason.to_owned()),
            ("weir-key-bytes", length(row.key())),
            ("weir-value-bytes", length(row.value())),
            ("weir-timestamp", row.timestamp_ms().to_string()),
        ],
    };
    let headers = provenance.headers().chain(letter.headers());
    let room = most_bytes.saturating_sub(wire_bytes(None, None, headers) + LENGTHS);
    letter.key = row.key().filter(|key| key.len() <= room / 2);
    let room = room - letter.key.map_or(0, <[u8]>::len);
    letter.value = row.value().map(|value| &value[..value.len().min(room)]);
    letter
}
