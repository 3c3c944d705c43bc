//! A file that is one record, whatever is in it.

use std::io;
use std::sync::Arc;

use super::{Cutter, Found, Window, too_large};
use crate::batch::{BatchBuilder, RecordRef};
use crate::offset::Offset;

/// The header that tells which file a record is.
const PATH_HEADER: &str = "weir-path";

#[derive(Debug)]
pub(super) struct Whole {
    path: Arc<str>,
    max: usize,
    done: bool,
}

impl Whole {
    pub(super) fn new(path: Arc<str>, max: usize) -> Self {
        Self { path, max, done: false }
    }
}

impl Cutter for Whole {
    fn find(&mut self, window: &mut Window) -> io::Result<Option<Found>> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        while !window.ended() && window.bytes().len() <= self.max {
            window.extend()?;
        }
        let len = window.bytes().len();
        if len > self.max {
            return too_large(window, self.max, |_| None).map(Some);
        }
        Ok(Some(Found::Record { len, taken: len }))
    }

    fn add(&mut self, bytes: &[u8], offset: Offset, builder: &mut BatchBuilder) {
        let headers = [(PATH_HEADER, Some(self.path.as_bytes()))];
        let record =
            RecordRef { value: Some(bytes), headers: &headers, timestamp_ms: -1, ..RecordRef::default() };
        builder.push(offset, record);
    }
}
