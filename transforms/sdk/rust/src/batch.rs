//! The records that come in, borrowed from the batch. Never copies a value.

use std::cell::OnceCell;

use crate::column::{VarBytes, is_present};
use crate::json;

/// Records of one topic, column by column, as the runtime hands them over.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub topic: &'a str,
    pub count: u32,
    /// An absent value is a tombstone.
    pub values: VarBytesRef<'a>,
    /// `Some` if the description's `needs` has it; so for the rest.
    pub keys: Option<VarBytesRef<'a>>,
    pub headers: Option<HeadersRef<'a>>,
    /// Milliseconds since 1970-01-01T00:00:00Z; -1 where a record has none.
    pub timestamps: Option<&'a [i64]>,
    pub partitions: Option<&'a [i32]>,
    pub offsets: Option<&'a [i64]>,
}

/// Byte strings in one buffer, borrowed; see [`VarBytes`].
#[derive(Debug, Clone, Copy)]
pub struct VarBytesRef<'a> {
    pub offsets: &'a [u32],
    pub data: &'a [u8],
    pub validity: &'a [u8],
}

/// The headers of all records: record i has those from `starts[i]` to `starts[i + 1]`.
#[derive(Debug, Clone, Copy)]
pub struct HeadersRef<'a> {
    pub starts: &'a [u32],
    pub names: VarBytesRef<'a>,
    pub values: VarBytesRef<'a>,
}

/// One record of a batch. What it gives out lives as long as the batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    input: &'a Input<'a>,
    index: usize,
}

/// A batch, and the text that all its values make together, once somebody asks for text.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) batch: Batch<'a>,
    text: OnceCell<Option<&'a str>>,
}

impl<'a> Batch<'a> {
    /// A batch of values alone, as it comes to a transform that needs nothing else.
    #[must_use]
    pub fn of_values(topic: &'a str, values: &'a VarBytes) -> Self {
        let count = u32::try_from(values.offsets.len() - 1).expect("offsets are at most 2^31");
        let values = VarBytesRef::from(values);
        Self {
            topic,
            count,
            values,
            keys: None,
            headers: None,
            timestamps: None,
            partitions: None,
            offsets: None,
        }
    }
}

impl<'a> From<&'a VarBytes> for VarBytesRef<'a> {
    fn from(owned: &'a VarBytes) -> Self {
        Self { offsets: &owned.offsets, data: &owned.data, validity: &owned.validity }
    }
}

impl<'a> VarBytesRef<'a> {
    /// Entry `at`, `None` if it is absent.
    ///
    /// # Panics
    /// If there is no such entry.
    #[inline]
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&'a [u8]> {
        is_present(self.validity, at)
            .then(|| &self.data[self.offsets[at] as usize..self.offsets[at + 1] as usize])
    }
}

impl<'a> Record<'a> {
    #[inline]
    pub(crate) fn new(input: &'a Input<'a>, index: usize) -> Self {
        Self { input, index }
    }

    /// The value as it came; `None` is a tombstone.
    #[inline]
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.input.batch.values.get(self.index)
    }

    /// The value as text; `None` is a tombstone.
    ///
    /// # Errors
    /// [`json::Code::NotUtf8`] with the position of the first byte that is not UTF-8.
    #[inline]
    pub fn text(&self) -> Result<Option<&'a str>, json::Error> {
        let Some(value) = self.value() else { return Ok(None) };
        let start = self.input.batch.values.offsets[self.index] as usize;
        match self.input.text() {
            Some(all) if let Some(text) = all.get(start..start + value.len()) => Ok(Some(text)),
            _ => json::text(value).map(Some),
        }
    }

    /// The value read as a JSON object: what the wanted keys have, in their order.
    ///
    /// # Errors
    /// [`json::Code::Absent`] for a tombstone, else why it is no JSON object, with the position.
    #[inline]
    pub fn json<const N: usize>(
        &self,
        wanted: &json::Object<N>,
    ) -> Result<[json::Value<'a>; N], json::Error> {
        match self.text()? {
            Some(text) => wanted.read_text(text),
            None => Err(json::Error { code: json::Code::Absent, at: 0 }),
        }
    }

    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.input.batch.topic
    }

    /// The key; `None` if there is none, or if the description's `needs` does not ask for keys.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.input.batch.keys?.get(self.index)
    }

    /// Names and values of the headers, in their order; nothing without `needs.headers`. A name that is not
    /// UTF-8 is left out; the contract has none.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let index = self.index;
        self.input.batch.headers.into_iter().flat_map(move |headers| headers.of(index))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.input.batch.timestamps.map(|all| all[self.index]).filter(|ms| *ms != -1)
    }

    #[must_use]
    pub fn partition(&self) -> Option<i32> {
        self.input.batch.partitions.map(|all| all[self.index])
    }

    #[must_use]
    pub fn offset(&self) -> Option<i64> {
        self.input.batch.offsets.map(|all| all[self.index])
    }
}

impl<'a> HeadersRef<'a> {
    pub(crate) fn of(self, record: usize) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        (self.starts[record] as usize..self.starts[record + 1] as usize).filter_map(move |at| {
            let name = std::str::from_utf8(self.names.get(at)?).ok()?;
            Some((name, self.values.get(at)))
        })
    }
}

impl<'a> Input<'a> {
    pub(crate) fn new(batch: Batch<'a>) -> Self {
        Self { batch, text: OnceCell::new() }
    }

    /// All values as one text. Looking through them at once is several times cheaper than one by one; a value
    /// that begins or ends inside a character is none of its slices.
    #[inline]
    fn text(&self) -> Option<&'a str> {
        *self.text.get_or_init(|| simdutf8::basic::from_utf8(self.batch.values.data).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&[u8]], expected: &[Option<&str>]) {
        let values: VarBytes = values.iter().map(|value| Some(*value)).collect();
        let input = Input::new(Batch::of_values("t", &values));
        let texts: Vec<_> = (0..expected.len())
            .map(|index| Record::new(&input, index).text().ok().flatten().map(str::to_owned))
            .collect();
        assert_eq!(texts.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_value_is_text_or_not_whatever_its_neighbours_are() {
        check(&[b"a", "ü".as_bytes(), b""], &[Some("a"), Some("ü"), Some("")]);
        check(&[b"a", b"\xff", b"b"], &[Some("a"), None, Some("b")]);
        check(&[b"a\xc3", b"\xbcb", b"c"], &[None, None, Some("c")]);
    }
}
