//! A run of records of one partition, as flat columns that a guest receives without further copying.
//! A value is never parsed here.

use std::ops::Range;

use crate::budget::Permit;
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::origin::{Envelope, Meant, Origin};
use crate::sink::state::Fingerprint;

/// `n` byte strings in one buffer, in Arrow's layout: entry `i` is `data[offsets[i]..offsets[i + 1]]`, and bit
/// `i` of `validity`, least significant first, says whether it is present. An empty `validity` says all are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VarBytes {
    /// `n + 1` positions in `data`.
    pub offsets: Vec<u32>,
    /// The entries, one behind the other.
    pub data: Vec<u8>,
    /// One bit per entry, or nothing.
    pub validity: Vec<u8>,
}

impl Default for VarBytes {
    fn default() -> Self {
        Self { offsets: vec![0], data: Vec::new(), validity: Vec::new() }
    }
}

impl VarBytes {
    /// How many entries there are, absent ones included.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entry `i`, or `None` where it is absent.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let present = self.validity.is_empty() || self.validity[i / 8] >> (i % 8) & 1 == 1;
        present.then(|| &self.data[self.offsets[i] as usize..self.offsets[i + 1] as usize])
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Whether any entry is present.
    pub fn has_any(&self) -> bool {
        (0..self.len()).any(|i| self.get(i).is_some())
    }

    /// Bytes of the entries `rows` together.
    pub fn bytes(&self, rows: &Range<usize>) -> usize {
        (self.offsets[rows.end] - self.offsets[rows.start]) as usize
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: Option<&[u8]>) {
        let i = self.len();
        if entry.is_none() && self.validity.is_empty() {
            self.validity = all_present(i);
        }
        if let Some(bytes) = entry {
            self.data.extend_from_slice(bytes);
        }
        self.offsets.push(u32::try_from(self.data.len()).expect("a batch is cut long before 4 GiB"));
        // The first entry of all finds no bits there yet.
        if entry.is_none() || !self.validity.is_empty() {
            push_bit(&mut self.validity, i, entry.is_some());
        }
    }

    /// The entries `rows` alone.
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let mut part = Self::default();
        rows.for_each(|i| part.push(self.get(i)));
        part
    }
}

impl<'a> FromIterator<Option<&'a [u8]>> for VarBytes {
    fn from_iter<I: IntoIterator<Item = Option<&'a [u8]>>>(entries: I) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|entry| all.push(entry));
        all
    }
}

fn all_present(n: usize) -> Vec<u8> {
    let mut bits = vec![0xff; n / 8];
    if !n.is_multiple_of(8) {
        bits.push((1 << (n % 8)) - 1);
    }
    bits
}

fn push_bit(bits: &mut Vec<u8>, i: usize, set: bool) {
    if i.is_multiple_of(8) {
        bits.push(0);
    }
    let last = bits.len() - 1;
    bits[last] |= u8::from(set) << (i % 8);
}

/// The headers of `n` entries: entry `i` has the headers `starts[i]..starts[i + 1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// `n + 1` positions in `names` and `values`.
    pub starts: Vec<u32>,
    /// UTF-8.
    pub names: VarBytes,
    /// A value may be absent.
    pub values: VarBytes,
}

impl Default for Headers {
    fn default() -> Self {
        Self { starts: vec![0], names: VarBytes::default(), values: VarBytes::default() }
    }
}

impl Headers {
    /// The headers of entry `i`, in order. A name that is not UTF-8 never gets here.
    pub fn get(&self, i: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let rows = self.starts[i] as usize..self.starts[i + 1] as usize;
        rows.map(|h| {
            let name = self.names.get(h).unwrap_or_default();
            (std::str::from_utf8(name).unwrap_or_default(), self.values.get(h))
        })
    }

    /// Whether any entry has a header.
    pub fn has_any(&self) -> bool {
        !self.names.is_empty()
    }

    /// Adds an entry with its headers.
    pub fn push(&mut self, headers: &[(&str, Option<&[u8]>)]) {
        for (name, value) in headers {
            self.names.push(Some(name.as_bytes()));
            self.values.push(*value);
        }
        self.starts.push(self.names.len() as u32);
    }

    /// The headers of the entries `rows` alone.
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let mut part = Self::default();
        for i in rows {
            let headers: Vec<_> = self.get(i).collect();
            part.push(&headers);
        }
        part
    }
}

/// One record as a source hands it over; bytes only.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordRef<'a> {
    /// Absent and empty differ.
    pub key: Option<&'a [u8]>,
    /// Absent: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since 1970-01-01T00:00:00Z; -1 where the source has none.
    pub timestamp_ms: i64,
}

/// What a source found at an offset and could not cut into a record: a ragged CSV row, a broken block. It never
/// reaches a transform; it becomes a dead letter of stage `source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The offset it takes up.
    pub offset: Offset,
    /// The bytes as they were found.
    pub bytes: Vec<u8>,
    /// Stable and short, such as `ragged-row`.
    pub code: &'static str,
    /// What is wrong, for people.
    pub message: String,
}

/// A non-empty run of one partition, in order.
///
/// `range` goes from where the batch before ended to the position behind this one, so that the ranges of
/// successive batches touch, holes included. Per readable record there is one entry in each column.
#[derive(Debug)]
pub struct Batch {
    at: TopicPartition,
    range: OffsetRange,
    offsets: Vec<i64>,
    values: VarBytes,
    keys: VarBytes,
    headers: Headers,
    timestamps: Vec<i64>,
    unreadable: Vec<Unreadable>,
    /// Where each record came first, in a batch of the replay input; absent in all others.
    origins: Option<Vec<Origin>>,
    /// See [`Self::meant`].
    meant: Vec<(Offset, Meant)>,
    /// Whether its last record is to be known again.
    is_remembered: bool,
    permit: Permit,
}

impl Batch {
    /// The partition all records come from.
    pub fn at(&self) -> &TopicPartition {
        &self.at
    }

    /// The offsets it covers.
    pub fn range(&self) -> OffsetRange {
        self.range
    }

    /// How many records a transform will see.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether a transform has nothing to do: what is here is unreadable.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// All that has to be accounted for: readable or not.
    pub fn n_records(&self) -> usize {
        self.offsets.len() + self.unreadable.len()
    }

    /// The offset of each record, ascending.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// The values.
    pub fn values(&self) -> &VarBytes {
        &self.values
    }

    /// The keys.
    pub fn keys(&self) -> &VarBytes {
        &self.keys
    }

    /// The headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, -1 where there is none.
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// What could not be cut into records, in order.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// Where each record came first, in a batch of the replay input; absent in all others, whose records are where they
    /// came first.
    pub fn origins(&self) -> Option<&[Origin]> {
        self.origins.as_deref()
    }

    /// Records that come again for one of their rows alone, and which that is, ascending.
    pub fn meant(&self) -> &[(Offset, Meant)] {
        &self.meant
    }

    /// The topic that all records are of which a transform sees at once: see [`Self::topic_ends`].
    pub fn topic(&self) -> &str {
        let first = self.origins().and_then(<[Origin]>::first);
        first.map_or(&self.at.topic, |origin| &origin.at.topic)
    }

    /// Where a record of another topic follows: a transform is told the topic once for a batch.
    pub fn topic_ends(&self) -> Option<Offset> {
        let origins = self.origins()?;
        let other = origins.iter().position(|origin| *origin.at.topic != *self.topic())?;
        Some(Offset::new(self.offsets[other]))
    }

    /// The last record that a transform will see, where it is [to be known again](BatchBuilder::remember).
    pub fn last(&self) -> Option<Fingerprint> {
        let row = self.offsets.len().checked_sub(1).filter(|_| self.is_remembered)?;
        Some(Fingerprint::of(Offset::new(self.offsets[row]), self.keys.get(row), self.values.get(row)))
    }

    /// The share of the byte budget that this batch holds until all its rows are handed over.
    pub fn permit(&self) -> Permit {
        self.permit.clone()
    }

    /// The same records, held by another share: of another budget, or of none.
    pub fn held_by(self, permit: Permit) -> Self {
        Self { permit, ..self }
    }

    /// The records `rows` alone, as a batch to try a transform on. What is unreadable stays behind.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let offset = |i: usize, end| self.offsets.get(i).map_or(end, |&o| Offset::new(o));
        let start = if rows.start == 0 { self.range.start } else { offset(rows.start, self.range.end) };
        let range = OffsetRange::new(start, offset(rows.end, self.range.end));
        Self { unreadable: Vec::new(), ..self.part(rows, range) }
    }

    /// Bytes of the values, keys and headers of `rows` together.
    pub fn bytes(&self, rows: &Range<usize>) -> usize {
        let headers = self.headers.starts[rows.start] as usize..self.headers.starts[rows.end] as usize;
        let headers = self.headers.names.bytes(&headers) + self.headers.values.bytes(&headers);
        self.values.bytes(rows) + self.keys.bytes(rows) + headers
    }

    /// The rows in order, cut so that no part has more than `most` bytes, but for a record that has more by itself.
    pub fn cuts(&self, most: usize) -> Vec<Range<usize>> {
        let all = 0..self.len();
        if self.bytes(&all) <= most {
            return Vec::from_iter((!all.is_empty()).then_some(all));
        }
        let mut cuts = Vec::new();
        let mut start = 0;
        for row in 0..self.len() {
            if row > start && self.bytes(&(start..row + 1)) > most {
                cuts.push(start..row);
                start = row;
            }
        }
        cuts.extend((start < self.len()).then_some(start..self.len()));
        cuts
    }

    /// Cuts the batch in two where offset `at` begins; a half without any offset is `None`.
    pub fn split(self, at: Offset) -> (Option<Self>, Option<Self>) {
        if at <= self.range.start {
            return (None, Some(self));
        }
        if at >= self.range.end {
            return (Some(self), None);
        }
        let row = self.offsets.partition_point(|&o| o < at.get());
        let front = self.part(0..row, OffsetRange::new(self.range.start, at));
        let back = self.part(row..self.len(), OffsetRange::new(at, self.range.end));
        (Some(front), Some(back))
    }

    fn part(&self, rows: Range<usize>, range: OffsetRange) -> Self {
        Self {
            at: self.at.clone(),
            range,
            offsets: self.offsets[rows.clone()].to_vec(),
            values: self.values.slice(rows.clone()),
            keys: self.keys.slice(rows.clone()),
            headers: self.headers.slice(rows.clone()),
            origins: self.origins.as_ref().map(|origins| origins[rows.clone()].to_vec()),
            meant: self.meant.iter().filter(|(offset, _)| range.contains(*offset)).cloned().collect(),
            timestamps: self.timestamps[rows].to_vec(),
            unreadable: self.unreadable.iter().filter(|u| range.contains(u.offset)).cloned().collect(),
            is_remembered: self.is_remembered,
            permit: self.permit.clone(),
        }
    }
}

/// Collects the records of one partition until the batch is full.
#[derive(Debug)]
pub struct BatchBuilder {
    at: TopicPartition,
    start: Offset,
    next: Offset,
    offsets: Vec<i64>,
    values: VarBytes,
    keys: VarBytes,
    headers: Headers,
    timestamps: Vec<i64>,
    unreadable: Vec<Unreadable>,
    origins: Option<Vec<Origin>>,
    meant: Vec<(Offset, Meant)>,
    is_remembered: bool,
    bytes: usize,
}

impl BatchBuilder {
    /// A batch that begins where the one before ended.
    pub fn new(at: TopicPartition, start: Offset) -> Self {
        Self {
            at,
            start,
            next: start,
            offsets: Vec::new(),
            values: VarBytes::default(),
            keys: VarBytes::default(),
            headers: Headers::default(),
            timestamps: Vec::new(),
            unreadable: Vec::new(),
            origins: None,
            meant: Vec::new(),
            is_remembered: false,
            bytes: 0,
        }
    }

    /// The last record is to be known again, wherever the batch is cut. To tell it costs a look at all of its bytes.
    pub fn remember(&mut self) {
        self.is_remembered = true;
    }

    /// It is of the replay input: what comes are envelopes, which are taken apart here.
    pub fn open_envelopes(&mut self) {
        self.origins = Some(Vec::new());
    }

    /// Makes room for as much as a batch of `records` with `bytes` of values and some more: growing step by step would
    /// copy what is there, and leave up to half of the room unused for as long as the batch is under way.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        let room = |n: usize| n + n / 8;
        let records = room(records);
        self.offsets.reserve(records);
        self.timestamps.reserve(records);
        self.values.offsets.reserve(records);
        self.values.data.reserve(room(bytes));
        self.keys.offsets.reserve(records);
        self.headers.starts.reserve(records);
    }

    /// Adds the record at `offset`, which is at or behind [`Self::next`].
    pub fn push(&mut self, offset: Offset, record: RecordRef<'_>) {
        match self.origins {
            None => self.add(offset, record),
            Some(_) => self.push_envelope(offset, record),
        }
    }

    /// What is no envelope cannot be read: nobody knows which record it is.
    fn push_envelope(&mut self, offset: Offset, record: RecordRef<'_>) {
        match Envelope::open(record.headers) {
            Ok((Envelope { origin, meant }, headers)) => {
                self.origins.get_or_insert_default().push(origin);
                self.meant.extend(meant.map(|meant| (offset, meant)));
                self.add(offset, RecordRef { headers, ..record });
            }
            Err(why) => self.push_unreadable(Unreadable {
                offset,
                bytes: record.value.unwrap_or_default().to_vec(),
                code: "no-envelope",
                message: format!("a record of the replay input that is no envelope: {why}"),
            }),
        }
    }

    fn add(&mut self, offset: Offset, record: RecordRef<'_>) {
        debug_assert!(offset >= self.next, "records come in order");
        self.offsets.push(offset.get());
        self.values.push(record.value);
        self.keys.push(record.key);
        self.headers.push(record.headers);
        self.timestamps.push(record.timestamp_ms);
        self.bytes +=
            RECORD_OVERHEAD + record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
        self.next = offset.next();
    }

    /// Adds what could not be cut into a record.
    pub fn push_unreadable(&mut self, found: Unreadable) {
        debug_assert!(found.offset >= self.next, "records come in order");
        self.bytes += RECORD_OVERHEAD + found.bytes.len();
        self.next = found.offset.next();
        self.unreadable.push(found);
    }

    /// The offset behind what was added last.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// How many records were added, readable or not.
    pub fn n_records(&self) -> usize {
        self.offsets.len() + self.unreadable.len()
    }

    /// Bytes held, an estimate that counts columns too.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch up to `end` (at or behind [`Self::next`]); `None` if that covers no offset.
    pub fn finish(mut self, end: Offset, permit: Permit) -> Option<Batch> {
        // Room for a whole batch that only a few records took: the permit is for those.
        if self.values.data.capacity() > 2 * self.values.data.len() {
            self.values.data.shrink_to_fit();
        }
        let range = OffsetRange::new(self.start, end.max(self.next));
        (!range.is_empty()).then_some(Batch {
            at: self.at,
            range,
            offsets: self.offsets,
            values: self.values,
            keys: self.keys,
            headers: self.headers,
            timestamps: self.timestamps,
            unreadable: self.unreadable,
            origins: self.origins,
            meant: self.meant,
            is_remembered: self.is_remembered,
            permit,
        })
    }
}

/// Offsets, timestamp, and the positions of value, key and headers.
const RECORD_OVERHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(n: i64) -> Batch {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::new(10));
        for i in 0..n {
            let value = i.to_string();
            let value = (i != 1).then_some(value.as_bytes());
            builder.push(Offset::new(10 + 2 * i), RecordRef { value, ..Default::default() });
        }
        let end = builder.next();
        builder.finish(end, Permit::free()).expect("not empty")
    }

    #[test]
    fn the_last_record_is_told_of_each_half_and_only_where_it_is_to_be_known_again() {
        let of = |batch: Batch| batch.last().map(|last| last.offset.get());
        assert_eq!(of(batch(3)), None);
        let mut remembered = batch(3);
        remembered.is_remembered = true;
        let (front, back) = remembered.split(Offset::new(13));
        assert_eq!((front.and_then(of), back.and_then(of)), (Some(12), Some(14)));
    }

    #[test]
    fn absent_and_empty_entries_differ() {
        let all: VarBytes = [Some(&b"a"[..]), None, Some(b"")].into_iter().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), [Some(&b"a"[..]), None, Some(b"")]);
        assert_eq!(all.validity, [0b101]);
    }

    #[test]
    fn an_absent_first_entry_is_absent() {
        let all: VarBytes = [None, Some(&b""[..]), None].into_iter().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), [None, Some(&b""[..]), None]);
        assert_eq!(all.validity, [0b010]);
    }

    #[test]
    fn the_halves_of_a_split_touch_and_lose_nothing() {
        for at in 9..18 {
            let (front, back) = batch(4).split(Offset::new(at));
            let halves: Vec<_> = front.into_iter().chain(back).collect();
            assert_eq!(halves[0].range().start, Offset::new(10));
            assert_eq!(halves.last().unwrap().range().end, Offset::new(17));
            assert!(halves.windows(2).all(|w| w[0].range().end == w[1].range().start));
            let offsets: Vec<_> = halves.iter().flat_map(|h| h.offsets().to_vec()).collect();
            assert_eq!(offsets, [10, 12, 14, 16]);
        }
    }

    #[test]
    fn rows_tried_alone_keep_their_values_and_offsets() {
        let part = batch(4).rows(1..3);
        assert_eq!(part.offsets(), [12, 14]);
        assert_eq!(part.values().iter().collect::<Vec<_>>(), [None, Some(&b"2"[..])]);
        assert_eq!(part.range(), OffsetRange::new(Offset::new(12), Offset::new(16)));
    }

    /// Envelopes with these values of their header, or without any header.
    fn envelopes(all: &[Option<&str>]) -> Batch {
        let mut builder = BatchBuilder::new(TopicPartition::new("weir.p.replay", 0), Offset::ZERO);
        builder.open_envelopes();
        for (n, envelope) in all.iter().enumerate() {
            let value = n.to_string();
            let headers: Vec<_> =
                envelope.iter().map(|text| (crate::origin::ENVELOPE, Some(text.as_bytes()))).collect();
            let record = RecordRef { value: Some(value.as_bytes()), headers: &headers, ..Default::default() };
            builder.push(Offset::new(n as i64), record);
        }
        builder.finish(Offset::new(all.len() as i64), Permit::free()).expect("not empty")
    }

    #[test]
    fn records_of_the_replay_input_are_what_is_in_their_envelopes_and_what_is_none_is_unreadable() {
        let batch = envelopes(&[Some("t/0/5/1"), None, Some("t/3/7/2")]);
        let origins = batch.origins().unwrap();
        assert_eq!(origins.iter().map(ToString::to_string).collect::<Vec<_>>(), ["t/0/5/1", "t/3/7/2"]);
        assert!((batch.offsets(), batch.headers().has_any()) == (&[0, 2], false));
        let unreadable = &batch.unreadable()[0];
        assert_eq!(
            (unreadable.offset, unreadable.code, &*unreadable.bytes),
            (Offset::new(1), "no-envelope", &b"1"[..])
        );
        let (front, back) = batch.split(Offset::new(1));
        let (front, back) = (front.unwrap(), back.unwrap());
        let texts =
            |batch: &Batch| batch.origins().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((texts(&front), texts(&back)), (vec!["t/0/5/1".to_owned()], vec!["t/3/7/2".to_owned()]));
    }

    #[test]
    fn a_batch_says_where_a_record_of_another_topic_follows() {
        let batch = envelopes(&[Some("a/0/5/1"), None, Some("a/1/0/1"), Some("b/0/5/1"), Some("a/0/9/1")]);
        assert_eq!((batch.topic(), batch.topic_ends()), ("a", Some(Offset::new(3))));
        let (_, back) = batch.split(Offset::new(3));
        let back = back.unwrap();
        assert_eq!((back.topic(), back.topic_ends()), ("b", Some(Offset::new(4))));
        assert_eq!((envelopes(&[None]).topic(), envelopes(&[None]).topic_ends()), ("weir.p.replay", None));
    }

    #[test]
    fn the_halves_of_a_batch_know_which_rows_are_meant_of_their_records() {
        let batch = envelopes(&[Some("t/0/5/1 a.b/0"), Some("t/0/6/1"), Some("t/0/5/1 a.b/1")]);
        let (front, back) = batch.split(Offset::new(1));
        let meant = |batch: Option<Batch>| -> Vec<_> {
            let batch = batch.unwrap();
            batch.meant().iter().map(|(offset, meant)| format!("{offset} {meant}")).collect()
        };
        assert_eq!((meant(front), meant(back)), (vec!["0 a.b/0".to_owned()], vec!["2 a.b/1".to_owned()]));
    }

    #[test]
    fn outside_of_the_replay_input_an_envelope_means_nothing() {
        let mut builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::ZERO);
        let headers = [(crate::origin::ENVELOPE, Some(&b"t/0/5/1"[..]))];
        builder.push(Offset::ZERO, RecordRef { headers: &headers, ..Default::default() });
        let batch = builder.finish(Offset::new(1), Permit::free()).expect("not empty");
        assert!(batch.origins().is_none() && batch.headers().get(0).eq(headers));
    }

    #[test]
    fn a_builder_without_offsets_makes_no_batch() {
        let builder = BatchBuilder::new(TopicPartition::new("t", 0), Offset::new(3));
        assert!(builder.finish(Offset::new(3), Permit::free()).is_none());
    }
}
