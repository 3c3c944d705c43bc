//! JSON lines: a record is a line, as it stands. It never checks that a line is JSON; that is for the transform.

use std::io;

use memchr::memchr;

use super::{Cutter, Found, Window, too_large};
use crate::batch::{BatchBuilder, RecordRef};
use crate::offset::Offset;

#[derive(Debug)]
pub(super) struct Lines {
    max: usize,
}

impl Lines {
    pub(super) fn new(max: usize) -> Self {
        Self { max }
    }
}

impl Cutter for Lines {
    /// A line without any byte takes no offset: editors and `echo` leave such lines behind. One of spaces is a
    /// record, and for the transform to refuse.
    fn find(&mut self, window: &mut Window) -> io::Result<Option<Found>> {
        loop {
            let bytes = window.bytes();
            let (line, taken) = match memchr(b'\n', bytes) {
                Some(end) => (&bytes[..end], end + 1),
                None if window.ended() => (bytes, bytes.len()),
                // One more than `max`: the last byte may be the CR of a line end.
                None if bytes.len() > self.max + 1 => return self.too_large(window).map(Some),
                None => {
                    window.extend()?;
                    continue;
                }
            };
            let len = line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len);
            if len > self.max {
                return self.too_large(window).map(Some);
            }
            if len > 0 {
                return Ok(Some(Found::Record { len, taken }));
            }
            if taken == 0 {
                return Ok(None);
            }
            window.consume(taken);
        }
    }

    fn add(&mut self, bytes: &[u8], offset: Offset, builder: &mut BatchBuilder) {
        builder.push(offset, RecordRef { value: Some(bytes), timestamp_ms: -1, ..RecordRef::default() });
    }
}

impl Lines {
    fn too_large(&self, window: &mut Window) -> io::Result<Found> {
        too_large(window, self.max, |bytes| memchr(b'\n', bytes))
    }
}
