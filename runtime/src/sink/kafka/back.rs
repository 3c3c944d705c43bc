//! Reading back what a Kafka sink has: what is committed, up to where topics end at the moment, in no group and without a
//! trace. A letter is the record itself; what it is a letter for stands in its headers.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{KafkaConfig, of_cluster};
use crate::kafka;
use crate::kafka::peek::{From, Seen, peek};
use crate::offset::{Offset, TopicPartition};
use crate::route::{DEAD_LETTERS, dead_letters_schema, records_schema};
use crate::sink::Error;
use crate::sink::back::{
    Asked, Coordinates, Each, Found, Letter, REFUSED, Reader, Reason, Refused, Sought, Stage, Stood,
    WITHOUT_PROVENANCE, bare, meant, missing, no_letter, reasons,
};
use crate::sink::json;
use crate::sink::state::SinkState;

/// Reads back what a Kafka sink has.
pub struct KafkaReader {
    config: KafkaConfig,
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReader").field("config", &self.config).finish()
    }
}

impl KafkaReader {
    /// A reader of the sink so configured; nobody is asked yet.
    pub fn new(config: KafkaConfig) -> Self {
        Self { config }
    }

    fn own(&self, topic: &str) -> String {
        format!("weir.{}.{topic}", self.config.pipeline)
    }

    fn topic(&self, target: &Arc<str>) -> String {
        self.config.topics.get(target).cloned().unwrap_or_else(|| target.to_string())
    }

    fn has_forgotten(&self, topic: &str) -> Result<bool, Error> {
        let cluster = &self.config.cluster;
        let n = match cluster.partitions(topic) {
            Err(kafka::Error::NoTopic { .. }) => return Ok(false),
            other => other.map_err(of_cluster)?,
        };
        let all: Vec<i32> = (0..i32::try_from(n).unwrap_or(i32::MAX)).collect();
        let firsts = cluster.places(topic, &all, From::Start).map_err(of_cluster)?;
        Ok(firsts.values().any(|first| *first > Offset::ZERO))
    }

    /// All of a topic, until `each` says `false`; whether it never did. There is nothing in a topic that is not there.
    fn all(&self, topic: &str, each: &mut dyn FnMut(Seen) -> Result<bool, Error>) -> Result<bool, Error> {
        let mut ended = Ok(true);
        let looked = peek(&self.config.cluster, topic, None, From::Start, &mut |seen| {
            ended = each(seen);
            matches!(ended, Ok(true))
        });
        match looked {
            Ok(()) | Err(kafka::Error::NoTopic { .. }) => ended,
            Err(error) => Err(of_cluster(error)),
        }
    }
}

impl Reader for KafkaReader {
    /// The last record of a key counts.
    fn state(&mut self, at: &TopicPartition) -> Result<Option<SinkState>, Error> {
        let (topic, mut found) = (self.own("progress"), None);
        let of_sink = format!("{}/", self.config.sink);
        self.all(&topic, &mut |seen| {
            let key = seen.key.and_then(|key| String::from_utf8(key).ok()).unwrap_or_default();
            let ours = key.starts_with(&of_sink) && key.ends_with(&format!("/{}", at.partition));
            if let Some(value) = seen.value.filter(|_| ours) {
                let state = super::progress::read(&topic, &key, &value)?;
                if state.topic == at.topic && state.partition == at.partition {
                    found = Some(state);
                }
            }
            Ok(true)
        })?;
        Ok(found)
    }

    fn letters(&mut self, sought: &Sought, each: Each<'_>) -> Result<(), Error> {
        for target in &sought.dead {
            let topic = self.topic(target);
            let goes_on = self.all(&topic, &mut |seen| {
                let letter = dead_letter(seen, &self.config.sink, &topic)?;
                Ok(letter.is_none_or(|letter| !sought.takes(&letter.origin, letter.plan) || each(letter)))
            })?;
            if !goes_on {
                return Ok(());
            }
        }
        if sought.refused {
            let topic = self.own("rejects");
            self.all(&topic, &mut |seen| {
                let letter = refused(seen, &self.config.sink, &topic)?;
                Ok(letter.is_none_or(|letter| !sought.takes(&letter.origin, letter.plan) || each(letter)))
            })?;
        }
        Ok(())
    }

    fn rows(&mut self, asked: &Asked<'_>) -> Result<Found, Error> {
        if !self.config.provenance && *asked.route != *DEAD_LETTERS {
            return Ok(Found { unknown: Some(WITHOUT_PROVENANCE.to_owned()), ..Found::default() });
        }
        let topic = self.topic(asked.target);
        let mut found = Found::default();
        self.all(&topic, &mut |seen| {
            if let Some((origin, index, plan)) = said(&seen)
                && origin == *asked.origin
            {
                found.rows.push(stood(&seen, asked, index, plan, &place(&seen, &topic)));
            }
            Ok(true)
        })?;
        // What a topic forgets, it forgets from the first offset on.
        if self.has_forgotten(&topic)? {
            found.unknown = Some(format!("topic {topic} does not keep its oldest records any more"));
        } else if self.config.cluster.is_compacted(&topic).unwrap_or_default() {
            // Who may not ask takes it for a topic that keeps them all.
            found.unknown =
                Some(format!("topic {topic} is compacted: of one key it keeps the last record alone"));
        }
        Ok(found)
    }
}

/// What a topic keeps of a row.
fn stood(seen: &Seen, asked: &Asked<'_>, index: i32, plan: u64, place: &str) -> Stood {
    let of_records = [records_schema(), dead_letters_schema()].contains(asked.schema);
    let row = seen.value.as_deref().map(|value| match (of_records, std::str::from_utf8(value)) {
        (true, text) => Map::from_iter([
            ("value".to_owned(), text.map_or(Value::Null, Value::from)),
            ("value_bytes".to_owned(), if text.is_ok() { Value::Null } else { json::of_bytes(value) }),
        ]),
        (false, _) => serde_json::from_slice(value).unwrap_or_default(),
    });
    Stood { index, plan, attempt: attempt(seen), row, is_partial: of_records, place: place.to_owned() }
}

/// Without the header its record came for the first time.
fn attempt(seen: &Seen) -> u16 {
    header(seen, "weir-attempt").and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The record that a letter is; nothing where it is a row of another route.
fn dead_letter(seen: Seen, sink: &Arc<str>, topic: &str) -> Result<Option<Letter>, Error> {
    let place = place(&seen, topic);
    let Some(stage) = header(&seen, "weir-stage") else { return Ok(None) };
    let stage: Stage = stage.parse().map_err(|_| no_letter(&place, "its stage is unknown"))?;
    let why = header(&seen, "weir-reasons").and_then(|text| serde_json::from_str(&text).ok());
    let letter = Letter {
        stage,
        reasons: why.as_ref().map(reasons).unwrap_or_default(),
        meant: why.as_ref().and_then(meant),
        trap: header(&seen, "weir-trap"),
        log: header(&seen, "weir-log"),
        // What the source could not cut has no time; the topic has that of the letter.
        timestamp_ms: Some(seen.timestamp_ms).filter(|ms| *ms >= 0 && stage != Stage::Source),
        ..of_origin(&seen, sink, &place)?
    };
    let headers = seen.headers.into_iter().filter(|(name, _)| !name.starts_with("weir-")).collect();
    Ok(Some(Letter { key: seen.key, value: seen.value, headers, ..letter }))
}

/// The row that this sink refused; nothing where it was another one.
fn refused(seen: Seen, sink: &Arc<str>, topic: &str) -> Result<Option<Letter>, Error> {
    let place = place(&seen, topic);
    if header(&seen, "weir-sink").is_none_or(|of| *of != **sink) {
        return Ok(None);
    }
    let told = |name: &str| header(&seen, name).unwrap_or_default();
    let length = |name: &str| told(name).parse::<usize>().unwrap_or_default();
    let (key, value) = (length("weir-key-bytes"), length("weir-value-bytes"));
    let kept = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let mut cut = Vec::new();
    for (what, had, kept) in [("key", key, kept(&seen.key)), ("value", value, kept(&seen.value))] {
        if kept < had {
            cut.push(format!("of its {what} {kept} of {had} bytes are kept"));
        }
    }
    let reason = Reason {
        code: REFUSED.to_owned(),
        message: told("weir-reason"),
        detail: Some(cut.join(", ")).filter(|cut| !cut.is_empty()),
        ..Reason::default()
    };
    let refused = Refused { target: told("weir-target"), route: told("weir-route"), row: None };
    let letter = of_origin(&seen, sink, &place)?;
    let letter = Letter {
        reasons: vec![reason],
        meant: missing(&letter, &refused),
        refused: Some(refused),
        timestamp_ms: told("weir-timestamp").parse().ok().filter(|ms| *ms >= 0),
        ..letter
    };
    Ok(Some(Letter { key: seen.key, value: seen.value, ..letter }))
}

fn of_origin(seen: &Seen, sink: &Arc<str>, place: &str) -> Result<Letter, Error> {
    let (origin, index, plan) =
        said(seen).ok_or_else(|| no_letter(place, "it does not say where it comes from"))?;
    Ok(Letter { attempt: attempt(seen), ..bare(origin, index, plan, sink, place) })
}

/// The record, the number of the row among those of the record, and the plan, as the header has them.
fn said(seen: &Seen) -> Option<(Coordinates, i32, u64)> {
    let text = header(seen, "weir-origin")?;
    let mut parts = text.rsplitn(3, '/');
    let (plan, index) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((parts.next()?.parse().ok()?, index, plan))
}

fn place(seen: &Seen, topic: &str) -> String {
    format!("topic {topic}, partition {}, offset {}", seen.partition, seen.offset)
}

/// Ours come last, behind those that a record was given.
fn header(seen: &Seen, name: &str) -> Option<String> {
    let mut found = seen.headers.iter().rev().filter(|(of, _)| of == name);
    let (_, value) = found.next()?;
    Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(headers: &[(&str, &str)]) -> Seen {
        Seen {
            partition: 1,
            offset: Offset::new(7),
            timestamp_ms: 5,
            key: None,
            value: Some(b"va".to_vec()),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), Some(v.as_bytes().to_vec()))).collect(),
        }
    }

    #[test]
    fn a_dead_letter_is_the_record_with_its_own_headers_alone() {
        let reasons = r#"[{"code":"trap","message":"boom"}]"#;
        let all = [
            ("own", "1"),
            ("weir-stage", "transform"),
            ("weir-reasons", reasons),
            ("weir-trap", "boom"),
            ("weir-origin", "a/3/1042/0/9"),
            ("weir-attempt", "2"),
        ];
        let letter = dead_letter(seen(&all), &"s".into(), "dead").unwrap().unwrap();
        let said = (letter.origin.to_string(), letter.plan, letter.index, letter.attempt);
        assert_eq!(said, ("a/3/1042".to_owned(), 9, 0, 2));
        assert_eq!(letter.headers, [("own".to_owned(), Some(b"1".to_vec()))]);
        assert_eq!((letter.reasons[0].code.as_str(), letter.trap.as_deref()), ("trap", Some("boom")));
        assert_eq!((letter.timestamp_ms, letter.value.as_deref()), (Some(5), Some(&b"va"[..])));
        assert_eq!(dead_letter(seen(&[("own", "1")]), &"s".into(), "dead").unwrap(), None);
        let error = dead_letter(seen(&all[..3]), &"s".into(), "dead").unwrap_err().to_string();
        assert!(error.contains("topic dead, partition 1, offset 7"), "{error}");
    }

    #[test]
    fn a_refused_row_says_how_much_of_it_was_kept_and_belongs_to_its_sink() {
        let all = [
            ("weir-origin", "a/0/4/2/9"),
            ("weir-sink", "s"),
            ("weir-target", "t"),
            ("weir-route", "r"),
            ("weir-reason", "too large"),
            ("weir-value-bytes", "90"),
            ("weir-timestamp", "-1"),
        ];
        let letter = refused(seen(&all), &"s".into(), "rejects").unwrap().unwrap();
        assert_eq!((letter.stage, letter.index, letter.timestamp_ms), (Stage::Sink, 2, None));
        assert_eq!(letter.meant, Some("s.t/2".parse().unwrap()));
        assert_eq!(letter.reasons[0].detail.as_deref(), Some("of its value 2 of 90 bytes are kept"));
        assert_eq!(refused(seen(&all), &"other".into(), "rejects").unwrap(), None);
    }
}
