//! Where the file sink puts what: every path below its root. Parts that come from data cannot leave their place.

use super::directories::NOTHING;
use crate::offset::{OffsetRange, TopicPartition};
use crate::sink::state::{Epoch, Nonce};

/// The directories of one partition's log, below the root.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Holds one directory per topic id.
    pub(super) topics: String,
    /// The topic id as a directory's name.
    pub(super) topic_id: String,
    /// The partition.
    pub(super) partition: i32,
}

impl Places {
    pub(super) fn new(pipeline: &str, sink: &str, topic_id: &str, partition: i32) -> Self {
        let topics = format!("_weir/{}/{}", part(pipeline), part(sink));
        Self { topics, topic_id: part(topic_id), partition }
    }

    /// A partition of another topic id, given as a directory's name.
    pub(super) fn of(&self, topic_id: &str, partition: i32) -> Self {
        Self { topics: self.topics.clone(), topic_id: topic_id.to_owned(), partition }
    }

    /// Holds one directory per partition of a topic id, given as a directory's name.
    pub(super) fn partitions(&self, topic_id: &str) -> String {
        format!("{}/{topic_id}", self.topics)
    }

    fn directory(&self) -> String {
        format!("{}/{}/{}", self.topics, self.topic_id, self.partition)
    }

    pub(super) fn log(&self) -> String {
        format!("{}/log", self.directory())
    }

    pub(super) fn record(&self, n: u64) -> String {
        format!("{}/{n:020}.json", self.log())
    }

    pub(super) fn snapshot(&self, n: u64) -> String {
        format!("{}/{n:020}.snap.json", self.log())
    }

    pub(super) fn staging(&self) -> String {
        format!("{}/staging", self.directory())
    }

    pub(super) fn staged(&self, epoch: Epoch, owner: Nonce) -> String {
        format!("{}/{epoch}-{}", self.staging(), owner.short())
    }
}

/// What a file of the log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Logged {
    Record(u64),
    Snapshot(u64),
}

/// What a file of the log is, from its name.
pub(super) fn logged(name: &str) -> Option<Logged> {
    let (digits, ending) = name.split_once('.')?;
    // No log is that long, and whoever counts on from here does not come to the end of the numbers.
    let n = Some(digits).filter(|digits| digits.len() == 20)?.parse().ok().filter(|n| *n < u64::MAX / 2)?;
    match ending {
        "json" => Some(Logged::Record(n)),
        "snap.json" => Some(Logged::Snapshot(n)),
        _ => None,
    }
}

/// The epoch of a staging directory from its name.
pub(super) fn staged_epoch(name: &str) -> Option<Epoch> {
    let mut parts = name.splitn(3, '-');
    let (incarnation, generation, _) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Epoch { incarnation: incarnation.parse().ok()?, generation: generation.parse().ok()? })
}

/// The directory of a target, which may be several parts deep.
pub(super) fn target(target: &str) -> String {
    target.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The name of a visible file, without its ending. It tells where the rows came from, and no commit before or
/// after has the same.
pub(super) fn visible(
    at: &TopicPartition,
    range: OffsetRange,
    commit: Nonce,
    route: &str,
    n: usize,
) -> String {
    let (topic, route, commit) = (topic(&at.topic), self::route(route), commit.short());
    let (start, end) = (range.start.get(), range.end.get());
    format!("{topic}+{}+{start:020}+{end:020}+{commit}+{route}+{n}", at.partition)
}

/// What the name of a visible file says, as far as it is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Visible {
    /// As [`topic`] has it.
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The first offset that its commit covers.
    pub(super) start: i64,
    /// The first behind it.
    pub(super) end: i64,
    /// As [`route`] has it.
    pub(super) route: String,
}

/// What [`visible`] put into a name; `None` if the name is none of those.
pub(super) fn visible_of(name: &str) -> Option<Visible> {
    let (name, _ending) = name.rsplit_once('.')?;
    let parts: Vec<&str> = name.split('+').collect();
    let [topic, partition, start, end, _commit, route, _n] = parts[..] else { return None };
    Some(Visible {
        topic: topic.to_owned(),
        partition: partition.parse().ok()?,
        start: start.parse().ok()?,
        end: end.parse().ok()?,
        route: route.to_owned(),
    })
}

/// A topic as the name of a visible file has it.
pub(super) fn topic(topic: &str) -> String {
    short(part(topic))
}

/// A route as the name of a visible file has it.
pub(super) fn route(route: &str) -> String {
    short(part(route))
}

/// One part of a path, percent-encoded where it could mean something to a file system or to a reader: readers
/// skip what begins with `_` or `.`, and `+` stands between the parts of a file's name.
fn part(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'=' => out.push(byte as char),
            b'_' | b'.' if i > 0 => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

/// The value of a directory such as `country=USA`, percent-encoded so that distinct texts stay distinct. What is too
/// long for a name ends in its digest, behind a `~`, which stands nowhere else.
pub(super) fn value(text: &str) -> String {
    const LIMIT: usize = 150;
    let encoded = match text {
        NOTHING => text.replacen('_', "%5F", 1),
        _ => part(text).replace('=', "%3D"),
    };
    if encoded.len() <= LIMIT {
        return encoded;
    }
    // Not in the middle of `%XX`.
    let end = (LIMIT - 2..=LIMIT)
        .find(|end| !encoded[..*end].ends_with('%') && !encoded[..*end - 1].ends_with('%'));
    let digest = crate::digest::of(text.as_bytes());
    format!("{}~{}", &encoded[..end.unwrap_or(LIMIT)], &digest["sha256:".len()..][..32])
}

/// Two long names and the numbers between must fit into the 255 bytes of a file's name.
fn short(part: String) -> String {
    const LIMIT: usize = 80;
    if part.len() <= LIMIT {
        return part;
    }
    format!("{}~{:08x}", &part[..LIMIT - 9], crc32fast::hash(part.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset::Offset;

    #[test]
    fn no_part_leaves_its_place_or_hides() {
        for (text, expected) in [
            ("customers_usa", "customers_usa"),
            ("dt=2026-01-31", "dt=2026-01-31"),
            ("..", "%2E."),
            ("_weir", "%5Fweir"),
            ("a:b\0+é", "a%3Ab%00%2B%C3%A9"),
            ("", "%"),
        ] {
            assert_eq!(part(text), expected);
        }
        assert_eq!(target("a/../b//c"), "a/%2E./b/%/c");
    }

    #[test]
    fn a_visible_name_tells_where_its_rows_came_from_and_fits() {
        let range = OffsetRange::new(Offset::new(5), Offset::new(17));
        let commit = Nonce::from_u128(0xabcd << 96);
        let name = visible(&TopicPartition::new("customers", 3), range, commit, "usa", 0);
        assert_eq!(name, "customers+3+00000000000000000005+00000000000000000017+0000abcd+usa+0");
        let long = "x".repeat(249);
        let name = visible(&TopicPartition::new(long.as_str(), i32::MAX), range, commit, &long, 0);
        assert!(name.len() + ".parquet".len() <= 255, "{}", name.len());
        let told = visible_of(&format!("{name}.parquet")).unwrap();
        assert_eq!((told.topic, told.route), (topic(&long), route(&long)));
        assert_eq!((told.partition, told.start, told.end), (i32::MAX, 5, 17));
        assert_eq!(visible_of("dt=2026-01-31"), None);
    }

    #[test]
    fn numbers_and_epochs_are_read_back_from_names() {
        let places = Places::new("p", "s", "id", 0);
        let epoch = Epoch { incarnation: 1, generation: 42 };
        let directory = places.staged(epoch, Nonce::from_u128(7));
        assert_eq!(staged_epoch(directory.rsplit('/').next().unwrap()), Some(epoch));
        assert_eq!(logged("00000000000000000042.json"), Some(Logged::Record(42)));
        assert_eq!(logged("00000000000000000042.snap.json"), Some(Logged::Snapshot(42)));
        assert_eq!(logged("00000000000000000042.sum.json"), None);
        assert_eq!(logged("42.json"), None);
        assert_eq!(staged_epoch("lost+found"), None);
    }
}
