//! How long a record takes: from the moment it is handed to a producer until a reader of the sink has its row. Each record
//! carries its time as its id, by a clock that producer and reader share. Nobody else is measured here.

use std::time::{Duration, Instant};

use crossbeam_channel::tick;
use rdkafka::Message as _;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row as _};
use tokio::runtime::{Builder, Runtime};
use weir::sink::state::Nonce;

use crate::broker::{Broker, PARTITIONS, send, to, wait_until_due};
use crate::job::{Job, Random};
use crate::outputs::Kind;
use crate::pipeline::{Ground, Pipeline};
use crate::process::{cpu_of_the_ended_s, now, read_all, spawn, stop};
use crate::{common, given, prepare};

const PER_SECOND: u64 = 1_000;

/// Seconds before what is counted.
const WARM_UP: u64 = 3;

/// For a record to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two questions to a database.
const LOOK: Duration = Duration::from_millis(2);

/// What the sinks are told besides, and what it is called.
const COMMITS: [(&str, &str); 2] =
    [("default", ""), ("20 ms", "commit = { age = \"20 ms\", idle = \"20 ms\" }\n")];

/// Prints a table.
pub(crate) fn measure(seconds: u64) {
    let (directory, job) = (tempfile::tempdir().expect("a temporary directory"), Job::new());
    let mut ground = prepare(directory.path(), &job, 0);
    println!("{PER_SECOND} records/s for {seconds} s; {}", common::runs::machine());
    println!("\n| sink | commit | p50, ms | p90, ms | p99, ms | most, ms | processors used |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for kind in [Kind::Kafka, Kind::Postgres] {
        for (called, more) in COMMITS {
            let name = format!("bench-latency-{}", Nonce::random().short());
            ground.topic = format!("{name}.in");
            ground.broker.create(&ground.topic);
            let (mut all, processors) = run(&ground, &job, &name, kind, more, seconds);
            ground.broker.delete(&format!("{name}."));
            all.sort_unstable();
            let ms = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)].as_secs_f64() * 1e3;
            println!(
                "| {} | {called} | {:.1} | {:.1} | {:.1} | {:.1} | {processors:.2} |",
                kind.name(),
                ms(50),
                ms(90),
                ms(99),
                ms(100)
            );
        }
    }
}

/// How long each record took, and how many processors the pipeline had.
fn run(
    ground: &Ground<'_>,
    job: &Job,
    name: &str,
    kind: Kind,
    more: &str,
    seconds: u64,
) -> (Vec<Duration>, f64) {
    let pipeline = Pipeline::new(ground, name, &[kind], more);
    let (cpu_before, started) = (cpu_of_the_ended_s(), now());
    let mut weir = spawn(&mut pipeline.run());
    let log = weir.stderr.take().expect("piped");
    let all = std::thread::scope(|threads| {
        threads.spawn(move || read_all(log));
        let mut reader = Reader::open(kind, name, started);
        let mut source = Source::new(ground, job, started);
        source.send();
        reader.wait_for(1);
        reader.prepare();
        threads.spawn(move || source.send_for(WARM_UP + seconds));
        reader.wait_for(1 + (WARM_UP + seconds) * PER_SECOND);
        stop(&mut weir);
        reader.took
    });
    let processors = (cpu_of_the_ended_s() - cpu_before) / started.elapsed().as_secs_f64();
    pipeline.clear();
    let counted = all.len() - (seconds * PER_SECOND) as usize;
    (all[counted..].to_vec(), processors)
}

/// Who sends the records.
struct Source<'a> {
    topic: &'a str,
    job: &'a Job,
    producer: BaseProducer,
    random: Random,
    started: Instant,
    sent: u64,
}

impl<'a> Source<'a> {
    fn new(ground: &'a Ground<'_>, job: &'a Job, started: Instant) -> Self {
        let producer = ground.broker.producer("0");
        Self { topic: &ground.topic, job, producer, random: Random(3), started, sent: 0 }
    }

    fn send(&mut self) {
        let id = self.started.elapsed().as_micros().to_string();
        let customer = self.job.american(&id, &mut self.random);
        send(&self.producer, self.topic, to(self.sent), customer.as_bytes());
        self.sent += 1;
    }

    fn send_for(mut self, seconds: u64) {
        let begun = now();
        for i in 0..seconds * PER_SECOND {
            wait_until_due(begun, PER_SECOND, i);
            self.send();
        }
        self.producer.flush(PATIENCE).expect("the cluster takes the records");
    }
}

/// Who waits for the rows.
struct Reader {
    rows: Rows,
    started: Instant,
    took: Vec<Duration>,
}

enum Rows {
    Topic(BaseConsumer),
    Table(Table),
}

impl Reader {
    fn open(kind: Kind, name: &str, started: Instant) -> Self {
        let server = given(kind.server().expect("it is on a server"));
        let rows = match kind {
            Kind::Kafka => Rows::Topic(Broker(server).reader(&format!("{name}.usa"), &[])),
            _ => Rows::Table(Table::new(&server, &name.replace('-', "_"))),
        };
        Self { rows, started, took: Vec::new() }
    }

    fn prepare(&mut self) {
        if let Rows::Table(table) = &mut self.rows {
            table.index();
        }
    }

    /// Until `n` rows have come in all.
    fn wait_for(&mut self, n: u64) {
        let mut last = now();
        while (self.took.len() as u64) < n {
            let ids = match &mut self.rows {
                Rows::Topic(reader) => ids_of(reader),
                Rows::Table(table) => table.next(),
            };
            let at = self.started.elapsed();
            if !ids.is_empty() {
                last = now();
            }
            assert!(last.elapsed() < PATIENCE, "{} of {n} rows came", self.took.len());
            self.took.extend(ids.into_iter().map(|id| at.saturating_sub(Duration::from_micros(id))));
        }
    }
}

fn ids_of(reader: &BaseConsumer) -> Vec<u64> {
    let polled = reader.poll(Duration::from_millis(100)).into_iter().flatten();
    let rows = polled.map(|row| serde_json::from_slice::<Value>(row.payload().expect("a row")));
    rows.map(|row| row.expect("JSON")["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")).collect()
}

/// The table of Americans, and up to where it was read.
struct Table {
    runtime: Runtime,
    connection: PgConnection,
    name: String,
    last: [i64; PARTITIONS as usize],
}

impl Table {
    fn new(url: &str, schema: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connection = runtime.block_on(PgConnection::connect(url)).expect("the server answers");
        Self { runtime, connection, name: format!("{schema}.usa"), last: [-1; PARTITIONS as usize] }
    }

    /// So that a question takes the same time, however many rows there are.
    fn index(&mut self) {
        let sql = format!("CREATE INDEX ON {} (weir_partition, weir_offset)", self.name);
        let made = self.runtime.block_on(sqlx::query(AssertSqlSafe(sql)).execute(&mut self.connection));
        made.expect("the server does it");
    }

    /// The rows that came since the last question.
    fn next(&mut self) -> Vec<u64> {
        tick(LOOK).recv().expect("a clock goes on");
        let new = self.last.iter().enumerate();
        let new = new.map(|(p, last)| format!("weir_partition = {p} AND weir_offset > {last}"));
        let new = new.collect::<Vec<_>>().join(" OR ");
        let sql = format!("SELECT id, weir_partition, weir_offset FROM {} WHERE {new}", self.name);
        let asked = self.runtime.block_on(sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.connection));
        // The table is not there before the pipeline is.
        let rows = asked.unwrap_or_default();
        let read = rows.iter().map(|row| {
            let (id, partition, offset): (String, i32, i64) = (row.get(0), row.get(1), row.get(2));
            let last = &mut self.last[partition as usize];
            *last = offset.max(*last);
            id.parse().expect("an id is a time")
        });
        read.collect()
    }
}
