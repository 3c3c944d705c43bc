//! `weir produce`.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use crossbeam_channel::{Receiver, TryRecvError};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::Ended;
use super::kafka::ClusterArgs;
use super::object::Object;
use super::run::{clock, stop_on_signals};
use super::screen::count;
use crate::batch::{Batch, BatchBuilder};
use crate::budget::Permit;
use crate::kafka::produce::{Compression, Sender, Sent};
use crate::kafka::topics::Shape;
use crate::offset::TopicPartition;
use crate::source::format::{Format, Options, RecordReader};

/// Send the rows of a CSV file, or lines of JSON, to a Kafka topic
///
/// A CSV row becomes a JSON object, every value a string, in the order of the header; a line goes as it is. Each record
/// is confirmed by all replicas in sync. Keys go to the partitions that Java clients give them; records without one are
/// spread evenly, each by chance.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
    weir produce data/customers.csv --topic customers-raw --create
    weir produce data/customers.csv --topic customers-raw --key id --rate 100
    zcat old.jsonl.gz | weir produce - --topic customers-raw --format jsonl

What cannot be cut into a record, such as a row with too many fields, is told and not sent; it then exits with 1.
Ctrl-C sends what was read, waits until it is confirmed and says how many records that are.")]
pub(super) struct ProduceArgs {
    /// A CSV or JSON-lines file, or one of these packed by gzip or zstd; - for standard input
    file: PathBuf,
    /// Where to
    #[arg(long, short)]
    topic: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How the file is cut, where its name does not tell
    #[arg(long, value_enum)]
    format: Option<Cut>,
    /// The column, or the member of each JSON object, that becomes the record's key
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Make numbers, true, false and null of what reads like one; an empty field becomes null
    #[arg(long)]
    typed: bool,
    /// At most so many records a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Make the topic, if it is not there
    #[arg(long)]
    create: bool,
    /// With how many partitions to make it [default: what the cluster makes]
    #[arg(long, value_name = "N", requires = "create", value_parser = clap::value_parser!(u16).range(1..))]
    partitions: Option<u16>,
    /// With how many copies of each record to make it [default: what the cluster makes]
    #[arg(long, value_name = "N", requires = "create", value_parser = clap::value_parser!(u16).range(1..))]
    replication: Option<u16>,
    /// How records are packed on their way and in the topic
    #[arg(long, value_enum, default_value = "none")]
    compression: Packing,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cut {
    Csv,
    Jsonl,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Packing {
    None,
    Gzip,
    Lz4,
    Zstd,
}

/// Records read at a time.
const AT_ONCE: usize = 1_000;

/// How long to wait for reports at a time.
const TURN: Duration = Duration::from_millis(20);

/// How long nothing may be confirmed at the end before it is said that nothing comes any more. The client itself gives a
/// record up after five minutes.
const LAST_WORD: Duration = Duration::from_secs(330);

pub(super) fn produce(args: &ProduceArgs) -> Result<Ended> {
    let stop = stop_on_signals("waiting until what was read is confirmed")?;
    let cluster = args.cluster.cluster()?;
    let input = Input::open(args)?;
    if args.create {
        let shape = Shape { partitions: args.partitions, replication: args.replication };
        if cluster.create(&args.topic, shape)? && !args.json {
            println!("made topic {}", args.topic);
        }
    }
    // Else records would wait in the client until they are given up.
    cluster.partitions(&args.topic)?;
    let compression = match args.compression {
        Packing::None => Compression::None,
        Packing::Gzip => Compression::Gzip,
        Packing::Lz4 => Compression::Lz4,
        Packing::Zstd => Compression::Zstd,
    };
    let sender = Sender::new(&cluster, &args.topic, compression)?;
    let mut job = Job { args, sender, stop, begun: clock(), read: 0, unreadable: 0, stopped: false };
    let failed = job.send_all(input);
    let took = job.settle();
    job.say(took);
    failed?;
    Ok(job.ended())
}

/// What is sent, and how far the reading of it is.
struct Input {
    records: RecordReader,
    progress: ProgressBar,
}

impl Input {
    fn open(args: &ProduceArgs) -> Result<Self> {
        let (name, bytes, length): (String, Box<dyn Read + Send>, _) = match args.file == Path::new("-") {
            true => ("standard input".to_owned(), Box::new(std::io::stdin()), None),
            false => {
                let name = args.file.display().to_string();
                let file = File::open(&args.file).with_context(|| format!("opening {name}"))?;
                let length = file.metadata().with_context(|| format!("opening {name}"))?.len();
                (name, Box::new(file), Some(length))
            }
        };
        let format = match (args.format, Format::of_path(&name)) {
            (Some(Cut::Csv), _) => Format::Csv,
            (Some(Cut::Jsonl), _) => Format::JsonLines,
            (None, Some(format)) => format,
            (None, None) => bail!("{name} does not tell how it is cut; say --format csv or --format jsonl"),
        };
        let progress = progress(length);
        let bytes = Box::new(progress.wrap_read(bytes));
        Ok(Self { records: RecordReader::open(bytes, name, &Options::new(format))?, progress })
    }
}

/// On a terminal a bar, or a count where nobody knows how much there is; nothing in a pipe.
fn progress(length: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {percent}% {msg}, {eta} to go"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

struct Job<'a> {
    args: &'a ProduceArgs,
    sender: Sender,
    stop: Receiver<()>,
    begun: Instant,
    /// Records handed to the client.
    read: u64,
    unreadable: u64,
    stopped: bool,
}

impl Job<'_> {
    fn send_all(&mut self, mut input: Input) -> Result<()> {
        let at_once = self.args.rate.map_or(AT_ONCE, |rate| AT_ONCE.min(rate.div_ceil(50) as usize));
        loop {
            let at = TopicPartition::new(self.args.topic.as_str(), 0);
            let mut builder = BatchBuilder::new(at, input.records.next());
            input.records.fill(&mut builder, at_once, 1 << 20)?;
            let end = builder.next();
            let Some(batch) = builder.finish(end, Permit::free()) else { break };
            self.unreadable += batch.unreadable().len() as u64;
            for found in batch.unreadable() {
                eprintln!("not sent: record {}: {}: {}", found.offset, found.code, found.message);
            }
            self.send(&batch)?;
            let sent = self.sender.sent();
            input.progress.set_message(format!("{} confirmed", count(sent.confirmed)));
            if self.stopped || sent.unconfirmed > 0 {
                break;
            }
        }
        input.progress.finish_and_clear();
        Ok(())
    }

    fn send(&mut self, batch: &Batch) -> Result<()> {
        for (value, offset) in batch.values().iter().zip(batch.offsets()) {
            let value = value.unwrap_or_default();
            let record = self.record(value).with_context(|| format!("record {offset}"))?;
            self.sender.send(record.key.as_deref(), Some(record.value.as_deref().unwrap_or(value)))?;
            self.read += 1;
            self.keep_to_the_rate();
        }
        self.stopped |= !matches!(self.stop.try_recv(), Err(TryRecvError::Empty));
        Ok(())
    }

    fn record(&self, value: &[u8]) -> Result<Record> {
        let Self { args: ProduceArgs { key, typed, .. }, .. } = self;
        if key.is_none() && !typed {
            return Ok(Record { key: None, value: None });
        }
        let object =
            Object::read(value).context("it is no JSON object, and --key and --typed look into it")?;
        let key = key.as_ref().and_then(|name| object.text(name)).map(String::into_bytes);
        Ok(Record { key, value: typed.then(|| object.typed().into_bytes()) })
    }

    /// Waits as long as it is too early for another record.
    fn keep_to_the_rate(&mut self) {
        let Some(rate) = self.args.rate else { return };
        let due = Duration::from_secs_f64(self.read as f64 / f64::from(rate));
        while let Some(early) = due.checked_sub(self.begun.elapsed()).filter(|early| !early.is_zero()) {
            self.stopped |= !matches!(self.stop.try_recv(), Err(TryRecvError::Empty));
            if self.stopped {
                return;
            }
            self.sender.wait(early.min(TURN));
        }
    }

    /// Waits until every record is confirmed or given up; returns how long all of it took.
    fn settle(&self) -> Duration {
        let mut heard = (self.sender.under_way(), clock());
        while self.sender.under_way() > 0 && heard.1.elapsed() < LAST_WORD {
            // A millisecond: the client waits all of the time that it is given.
            self.sender.wait(Duration::from_millis(1));
            if self.sender.under_way() != heard.0 {
                heard = (self.sender.under_way(), clock());
            }
        }
        self.begun.elapsed()
    }

    fn sent(&self) -> Sent {
        let sent = self.sender.sent();
        Sent { unconfirmed: self.read - sent.confirmed, ..sent }
    }

    fn say(&self, took: Duration) {
        let (sent, topic) = (self.sent(), &self.args.topic);
        let per_second = sent.confirmed as f64 / took.as_secs_f64().max(0.001);
        if self.args.json {
            println!(
                "{}",
                json!({
                    "topic": topic, "confirmed": sent.confirmed, "bytes": sent.bytes, "unconfirmed": sent.unconfirmed,
                    "unreadable": self.unreadable, "stopped": self.stopped, "error": sent.first_error,
                    "seconds": took.as_secs_f64(),
                })
            );
            return;
        }
        let confirmed = count(sent.confirmed);
        println!("{confirmed} records in topic {topic}, confirmed ({per_second:.0} records/s)");
        if self.unreadable > 0 {
            println!("{} not sent, since they could not be read", count(self.unreadable));
        }
        if sent.unconfirmed > 0 {
            let why = sent.first_error.as_deref().unwrap_or("no answer");
            println!("{} not confirmed: they may be there or not ({why})", count(sent.unconfirmed));
        }
    }

    fn ended(&self) -> Ended {
        match (self.sent().unconfirmed, self.unreadable) {
            (1.., _) => Ended::Outside,
            (_, 1..) => Ended::No,
            _ => Ended::Done,
        }
    }
}

struct Record {
    key: Option<Vec<u8>>,
    /// Absent: as it was read.
    value: Option<Vec<u8>>,
}
