//! Where a record stands in its partition. All arithmetic on offsets is in this file; nothing else adds one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The *next record to read* of a partition, the number Kafka commits: a reader at offset 5 has read 0 to 4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Offset(i64);

impl Offset {
    /// The first record of a partition that nobody has written to yet.
    pub const ZERO: Self = Self(0);

    /// # Panics
    /// On a negative number: whoever reads offsets from outside checks them first.
    pub fn new(n: i64) -> Self {
        assert!(n >= 0, "offset {n} is negative");
        Self(n)
    }

    /// The plain number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Where a reader stands after the record at this offset.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The offset `n` records further on.
    pub fn plus(self, n: usize) -> Self {
        Self(self.0 + n as i64)
    }

    /// The offset `n` earlier, and no earlier than the first of all.
    pub fn back(self, n: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(n).max(0))
    }

    /// How many offsets lie from `earlier` up to this one; 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        (self.0 - earlier.0).max(0) as u64
    }
}

impl TryFrom<i64> for Offset {
    type Error = String;

    fn try_from(n: i64) -> Result<Self, String> {
        if n >= 0 { Ok(Self(n)) } else { Err(format!("offset {n} is negative")) }
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Offsets from `start` up to, and without, `end`. May hold fewer records than offsets: compaction and
/// transaction markers leave holes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ends")]
pub struct OffsetRange {
    /// The first offset inside.
    pub start: Offset,
    /// The first offset behind.
    pub end: Offset,
}

impl OffsetRange {
    /// # Panics
    /// If `end` lies before `start`.
    pub fn new(start: Offset, end: Offset) -> Self {
        assert!(start <= end, "range [{start}, {end}) runs backwards");
        Self { start, end }
    }

    /// Whether no offset lies inside.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether `at` lies inside.
    pub fn contains(&self, at: Offset) -> bool {
        self.start <= at && at < self.end
    }

    /// What of this range lies at or behind `at`; `None` if nothing does.
    pub fn from(&self, at: Offset) -> Option<Self> {
        (at < self.end).then(|| Self { start: self.start.max(at), end: self.end })
    }
}

/// A range as it was written by somebody.
#[derive(Deserialize)]
struct Ends {
    start: Offset,
    end: Offset,
}

impl TryFrom<Ends> for OffsetRange {
    type Error = String;

    fn try_from(Ends { start, end }: Ends) -> Result<Self, String> {
        if start <= end {
            Ok(Self { start, end })
        } else {
            Err(format!("range [{start}, {end}) runs backwards"))
        }
    }
}

impl fmt::Debug for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One input partition, by the name of its topic. Which topic of that name is meant, should one be deleted and
/// made again, is told by the topic id in [`crate::sink::state::SinkState`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(Offset::new(start), Offset::new(end))
    }

    #[test]
    fn a_range_holds_its_start_and_not_its_end() {
        assert!(range(3, 5).contains(Offset::new(3)));
        assert!(!range(3, 5).contains(Offset::new(5)));
        assert!(range(3, 3).is_empty());
    }

    #[test]
    fn what_was_written_by_somebody_is_an_offset_or_a_range_or_refused() {
        let read = |text: &str| serde_json::from_str::<OffsetRange>(text).map_err(|e| e.to_string());
        assert_eq!(read(r#"{"start":3,"end":5}"#), Ok(range(3, 5)));
        assert_eq!(serde_json::to_string(&range(3, 5)).unwrap(), r#"{"start":3,"end":5}"#);
        assert_eq!(read(r#"{"start":5,"end":3}"#), Err("range [5, 3) runs backwards".to_owned()));
        let negative = read(r#"{"start":-1,"end":3}"#).unwrap_err();
        assert!(negative.starts_with("offset -1 is negative"), "{negative}");
    }

    #[test]
    fn what_a_reader_already_has_is_cut_off_the_front() {
        assert_eq!(range(3, 8).from(Offset::new(1)), Some(range(3, 8)));
        assert_eq!(range(3, 8).from(Offset::new(5)), Some(range(5, 8)));
        assert_eq!(range(3, 8).from(Offset::new(8)), None);
    }
}
