//! Where a record came from first that goes through the pipeline again, and the envelope in which it does. An envelope is
//! the record itself with one header more, in front of its own. Where a sink refused one of its rows, that row alone is meant,
//! and what became of all others stays as it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::offset::{Offset, TopicPartition};

/// The header that makes a record of the replay input an envelope. In any other topic it means nothing.
pub const ENVELOPE: &str = "weir-replay";

/// The topic of a pipeline whose records are envelopes. It is made when there is the first; its only partition keeps all.
pub fn replay_topic(pipeline: &str) -> String {
    format!("weir.{pipeline}.replay")
}

/// A header as a batch takes it.
type Header<'a> = (&'a str, Option<&'a [u8]>);

/// A record by where it came first, and how often it was sent through again. As text, `topic/partition/offset/attempt`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The partition in which it came first.
    pub at: TopicPartition,
    /// Its offset there.
    pub offset: Offset,
    /// 1 where it comes again for the first time; 0 where it never did.
    pub attempt: u16,
}

impl Origin {
    /// A record that is where it came first.
    pub fn itself(at: &TopicPartition, offset: Offset) -> Self {
        Self { at: at.clone(), offset, attempt: 0 }
    }

    /// The same record, sent through once more.
    pub fn again(&self) -> Self {
        Self { attempt: self.attempt.saturating_add(1), ..self.clone() }
    }
}

/// The row that a record comes again for. As text, `sink.target/index`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meant {
    /// The sink that is to have it.
    pub sink: Arc<str>,
    /// Where there.
    pub target: Arc<str>,
    /// Its number among the rows of its record.
    pub index: i32,
}

/// What the header of an envelope says. As text, the origin and, behind a space, the row if one alone is meant. It names one
/// sending: whoever finds it in the replay input sends nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Envelope {
    /// Which record is in it.
    pub origin: Origin,
    /// Absent: all that becomes of the record is wanted.
    pub meant: Option<Meant>,
}

impl Envelope {
    /// The same, sent through once more.
    pub fn again(&self) -> Self {
        Self { origin: self.origin.again(), meant: self.meant.clone() }
    }

    /// Takes an envelope apart: what its header says, and the headers that are the record's own.
    ///
    /// # Errors
    /// Why it is none, for people.
    pub fn open<'a, 'h>(headers: &'a [Header<'h>]) -> Result<(Self, &'a [Header<'h>]), String> {
        let Some(((ENVELOPE, Some(value)), own)) = headers.split_first().map(|(first, own)| (*first, own))
        else {
            return Err(format!("its first header is not `{ENVELOPE}`"));
        };
        let text = String::from_utf8_lossy(value);
        let envelope =
            text.parse::<Self>().map_err(|why| format!("its header `{ENVELOPE}` is `{text}`: {why}"))?;
        match envelope.origin.attempt {
            0 => Err(format!("its header `{ENVELOPE}` is `{text}`: attempts begin at 1")),
            _ => Ok((envelope, own)),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, offset, attempt } = self;
        write!(f, "{}/{}/{offset}/{attempt}", at.topic, at.partition)
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "it has to be topic/partition/offset/attempt";
        let mut parts = text.rsplitn(4, '/');
        let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(FORM);
        let (attempt, offset, partition, topic) = (part()?, part()?, part()?, part()?);
        if !is_topic(topic) {
            return Err("that is no name of a topic");
        }
        let attempt = attempt.parse().map_err(|_| FORM)?;
        let offset = offset.parse::<i64>().ok().and_then(|n| Offset::try_from(n).ok()).ok_or(FORM)?;
        let partition = partition.parse().ok().filter(|n| *n >= 0).ok_or(FORM)?;
        Ok(Self { at: TopicPartition::new(topic, partition), offset, attempt })
    }
}

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{}", self.sink, self.target, self.index)
    }
}

impl FromStr for Meant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "a row has to be sink.target/index";
        let (place, index) = text.rsplit_once('/').ok_or(FORM)?;
        let (sink, target) = place.split_once('.').ok_or(FORM)?;
        let index = index.parse().ok().filter(|n| *n >= 0).ok_or(FORM)?;
        if sink.is_empty() || target.is_empty() {
            return Err(FORM);
        }
        Ok(Self { sink: sink.into(), target: target.into(), index })
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, meant } = self;
        write!(f, "{origin}")?;
        meant.iter().try_for_each(|meant| write!(f, " {meant}"))
    }
}

impl FromStr for Envelope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        // There is no space in the name of a topic.
        let (origin, meant) = match text.split_once(' ') {
            Some((origin, meant)) => (origin, Some(meant.parse()?)),
            None => (text, None),
        };
        Ok(Self { origin: origin.parse()?, meant })
    }
}

/// Whether a topic may be called so: in Kafka, where envelopes are.
fn is_topic(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_is_the_same_after_it_was_written_down() {
        for text in ["customers-raw/3/1042/1", "a.b_c/0/0/65535", "t/2147483647/9223372036854775807/7"] {
            assert_eq!(origin(text).to_string(), text);
        }
        assert_eq!(origin("t/0/5/1").again(), origin("t/0/5/2"));
    }

    #[test]
    fn what_is_no_origin_is_none() {
        for text in [
            "",
            "t",
            "t/0/5",
            "/0/5/1",
            "t/-1/5/1",
            "t/0/-5/1",
            "t/0/5/-1",
            "t/0/5/65536",
            "t/0/5/1/",
            "t/0/x/1",
            "t/0//1",
            "a/b/0/0/1",
            "a\0b/0/5/1",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }

    fn envelope(text: &str) -> Envelope {
        text.parse().unwrap()
    }

    #[test]
    fn an_envelope_is_the_same_after_it_was_written_down_and_no_two_of_one_record_are_alike() {
        let all = [
            "t/0/5/1",
            "t/0/5/2",
            "t/0/5/1 base.usa/0",
            "t/0/5/1 base.usa/1",
            "t/0/5/1 base.usa.old/0",
            "t/0/5/1 lake.usa/0",
            "t/0/5/1 base.a b/c/2147483647",
            "t/0/5/2 base.usa/0",
        ];
        for text in all {
            assert_eq!(envelope(text).to_string(), text);
        }
        assert_eq!(all.map(envelope).iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        let meant = Meant { sink: "base".into(), target: "usa.old".into(), index: 3 };
        assert_eq!(envelope("t/0/5/1 base.usa.old/3").meant, Some(meant));
    }

    #[test]
    fn what_is_no_row_of_a_sink_is_not_meant() {
        for row in
            ["", " ", "usa/0", "base.usa", "base.usa/", "base.usa/-1", "base.usa/x", ".usa/0", "base./0"]
        {
            assert!(format!("t/0/5/1 {row}").parse::<Envelope>().is_err(), "{row}");
        }
        assert!("t/0/5 base.usa/0".parse::<Envelope>().is_err());
    }

    #[test]
    fn an_envelope_keeps_the_headers_of_its_record_also_those_that_look_like_its_own() {
        let headers = [(ENVELOPE, Some(&b"t/0/5/1"[..])), ("a", None), (ENVELOPE, Some(b"x"))];
        let (found, own) = Envelope::open(&headers).unwrap();
        assert_eq!((found, own), (envelope("t/0/5/1"), &headers[1..]));
    }

    #[test]
    fn what_is_no_envelope_is_told_why() {
        let why = |headers: &[Header<'_>]| Envelope::open(headers).unwrap_err();
        let first = "its first header is not `weir-replay`";
        assert_eq!((&*why(&[]), &*why(&[(ENVELOPE, None)])), (first, first));
        assert_eq!(why(&[("a", None), (ENVELOPE, Some(b"t/0/5/1"))]), first);
        assert!(why(&[(ENVELOPE, Some(b"t/0/5"))]).contains("topic/partition/offset/attempt"));
        assert!(why(&[(ENVELOPE, Some(b"t/0/5/0"))]).contains("attempts begin at 1"));
        assert!(why(&[(ENVELOPE, Some(b"t/0/5/1 base"))]).contains("sink.target/index"));
    }
}
