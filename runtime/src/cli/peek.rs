//! `weir peek`.

use std::io::{BufWriter, ErrorKind, Write};

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Ended;
use super::kafka::ClusterArgs;
use super::screen::count;
use crate::kafka::peek::{From, Seen, peek as look};
use crate::offset::Offset;

/// Print records of a Kafka topic, such as a sample for `weir validate`
///
/// Prints the values, one per line, up to where the topic ends at the moment. Reads what is committed, joins no group
/// and leaves no trace.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
    weir peek customers-raw -n 100 > sample.jsonl          the newest 100 of all partitions
    weir peek customers-raw --from start -n 100            the oldest
    weir peek customers-raw -p 2 --from 4711 -n 1 --json   one record, with all there is of it
    weir peek customers-raw --from 2026-11-01T00:00:00Z

With --json a line is {\"partition\", \"offset\", \"timestamp\", \"key\", \"value\", \"headers\"}; what is not text \
is there as \"key_base64\", \"value_base64\". Without it, tombstones and values with a line feed in them are left out and \
counted.")]
pub(super) struct PeekArgs {
    /// Which topic
    topic: String,
    /// At most so many records
    #[arg(short, value_name = "N", default_value_t = 10)]
    n: u64,
    /// Only of this partition
    #[arg(long, short, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// start, an offset, or a time such as 2026-11-01T00:00:00Z [default: so that the last N are shown]
    #[arg(long, value_parser = from)]
    from: Option<From>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print all there is of a record, as a JSON object per line
    #[arg(long)]
    json: bool,
}

fn from(text: &str) -> Result<From, String> {
    if text == "start" {
        return Ok(From::Start);
    }
    if let Ok(n) = text.parse::<i64>() {
        return Offset::try_from(n).map(From::At);
    }
    let time = text.parse::<jiff::Timestamp>();
    time.map(|time| From::Time(time.as_millisecond()))
        .map_err(|_| "it is not start, an offset or a time".to_owned())
}

pub(super) fn peek(args: &PeekArgs) -> Result<Ended> {
    let cluster = args.cluster.cluster()?;
    let mut page =
        Page { out: BufWriter::new(std::io::stdout().lock()), json: args.json, shown: 0, left_out: 0 };
    let looked = match args.from {
        Some(from) => page.first(args.n, |each| look(&cluster, &args.topic, args.partition, from, each)),
        None => {
            page.last(args.n, |each| look(&cluster, &args.topic, args.partition, From::Last(args.n), each))
        }
    };
    match looked.and_then(|()| page.out.flush().map_err(Into::into)) {
        // Whoever reads has seen enough.
        Err(error) if is_closed(&error) => return Ok(Ended::Done),
        other => other?,
    }
    if page.left_out > 0 {
        eprintln!("left out, since they are no line: {}; --json shows them", count(page.left_out));
    }
    if page.shown == 0 && page.left_out == 0 {
        eprintln!("no records there");
    }
    Ok(Ended::Done)
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

struct Page<W> {
    out: W,
    json: bool,
    shown: u64,
    left_out: u64,
}

/// Calls back with each record until that says `false`.
type Look<'a> = &'a mut dyn FnMut(Seen) -> bool;

impl<W: Write> Page<W> {
    /// The first `n` that come.
    fn first(
        &mut self,
        n: u64,
        look: impl FnOnce(Look<'_>) -> Result<(), crate::kafka::Error>,
    ) -> Result<()> {
        let mut shown = Ok(());
        if n == 0 {
            return Ok(());
        }
        look(&mut |seen| {
            shown = self.show(&seen);
            shown.is_ok() && self.shown + self.left_out < n
        })?;
        shown
    }

    /// The newest `n` of what comes, by time, oldest first.
    fn last(&mut self, n: u64, look: impl FnOnce(Look<'_>) -> Result<(), crate::kafka::Error>) -> Result<()> {
        let mut all = Vec::new();
        look(&mut |seen| {
            all.push(seen);
            true
        })?;
        // A partition stays in its own order, whatever times its records say.
        all.sort_by_key(|seen| (seen.timestamp_ms, seen.partition, seen.offset));
        let from = all.len().saturating_sub(usize::try_from(n).unwrap_or(usize::MAX));
        all[from..].iter().try_for_each(|seen| self.show(seen))
    }

    fn show(&mut self, seen: &Seen) -> Result<()> {
        let what = "writing to standard output";
        match (&seen.value, self.json) {
            (_, true) => {
                let text = serde_json::to_string(&Whole(seen)).expect("it is plain data");
                writeln!(self.out, "{text}").context(what)?;
            }
            (Some(value), false) if !value.contains(&b'\n') => {
                self.out.write_all(value).and_then(|()| self.out.write_all(b"\n")).context(what)?;
            }
            _ => {
                self.left_out += 1;
                return Ok(());
            }
        }
        self.shown += 1;
        Ok(())
    }
}

/// All there is of a record, in the order in which people read it.
struct Whole<'a>(&'a Seen);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(seen) = self;
        let time =
            jiff::Timestamp::from_millisecond(seen.timestamp_ms).ok().filter(|_| seen.timestamp_ms >= 0);
        let mut record = serializer.serialize_map(None)?;
        record.serialize_entry("partition", &seen.partition)?;
        record.serialize_entry("offset", &seen.offset)?;
        record.serialize_entry("timestamp", &time.map(|time| time.to_string()))?;
        put(&mut record, "key", seen.key.as_deref())?;
        put(&mut record, "value", seen.value.as_deref())?;
        record.serialize_entry("headers", &seen.headers.iter().map(Header).collect::<Vec<_>>())?;
        record.end()
    }
}

struct Header<'a>(&'a (String, Option<Vec<u8>>));

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self((name, value)) = self;
        let mut header = serializer.serialize_map(None)?;
        header.serialize_entry("name", name)?;
        put(&mut header, "value", value.as_deref())?;
        header.end()
    }
}

fn put<M: SerializeMap>(into: &mut M, name: &str, bytes: Option<&[u8]>) -> Result<(), M::Error> {
    let (name, value) = entry(name, bytes);
    into.serialize_entry(&name, &value)
}

/// Bytes under a name in JSON: text as it is, others as base64.
pub(super) fn entry(name: &str, bytes: Option<&[u8]>) -> (String, Option<String>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (name.to_owned(), None),
        Some((Ok(text), _)) => (name.to_owned(), Some(text.to_owned())),
        Some((Err(_), bytes)) => (format!("{name}_base64"), Some(BASE64_STANDARD.encode(bytes))),
    }
}
