//! Several processes that run one pipeline, from the topics of a real Kafka: each record arrives once, whoever dies, is
//! stopped or comes later.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tempfile::TempDir;
use weir::sink::state::Nonce;
use weir_services::{Interrupt, Service, Services, until};

use crate::{LONG, given};

pub(crate) const FILE_NAME: &str = "pipeline.toml";

const FILE: &str = r#"
[pipeline]
name = "NAME"
state = "state"

[source.kafka]
brokers = "${WEIR_TEST_KAFKA}"
topics = ["TOPIC"]

[transform]
component = "customers.wasm"
tables.us_cities = { file = "us_cities.csv" }

[limits]
workers = 2

[routes]
usa = ["base.usa", "files.usa", "topics.usa"]
alerts = ["base.alerts", "files.alerts", "topics.alerts"]
other = ["base.other", "files.other", "topics.other"]

[dead_letter]
to = "base.dead_letters"

[sinks.files.files]
path = "out"
format = "jsonl"
roll = { rows = 3000, age = "2 s", idle = "500 ms" }

[sinks.base.postgres]
url = "${WEIR_TEST_POSTGRES}"
schema = "SCHEMA"
commit = { rows = 1000, age = "200 ms", idle = "100 ms" }

[sinks.topics.kafka]
brokers = "${WEIR_TEST_KAFKA}"
targets.usa.topic = "usa-TOPIC"
targets.alerts.topic = "alerts-TOPIC"
targets.other.topic = "other-TOPIC"
"#;

/// A pipeline, and a topic for it, of this test alone.
pub(super) struct Pipeline {
    dir: TempDir,
    /// Where Kafka and PostgreSQL are.
    kafka: String,
    pub(super) postgres: String,
    name: String,
    pub(super) schema: String,
    pub(super) topic: String,
    /// How many records were sent.
    pub(super) sent: usize,
    /// Processes that were started.
    started: usize,
}

impl Pipeline {
    /// On the servers that all tests share.
    pub(super) fn new(partitions: u16) -> Self {
        Self::on(given("WEIR_TEST_KAFKA"), given("WEIR_TEST_POSTGRES"), partitions)
    }

    pub(super) fn on(kafka: String, postgres: String, partitions: u16) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let own = Nonce::random().short();
        let (name, schema) = (format!("group-{own}"), format!("weir_{own}"));
        let topic = format!("customers-{own}");
        let file = FILE.replace("NAME", &name).replace("TOPIC", &topic);
        fs::write(dir.path().join(FILE_NAME), file.replace("SCHEMA", &schema)).expect("writable");
        fs::write(dir.path().join("us_cities.csv"), "city\nBoston\nAustin\n").expect("writable");
        fs::copy(env!("WEIR_CUSTOMERS_WASM"), dir.path().join("customers.wasm")).expect("writable");
        let mut pipeline = Self { dir, kafka, postgres, name, schema, topic, sent: 0, started: 0 };
        pipeline.ask(&format!("CREATE SCHEMA {}", pipeline.schema));
        pipeline.send(0, &["--create", "--partitions", &partitions.to_string()]);
        pipeline
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Changes the pipeline file.
    pub(super) fn edit(&self, change: impl Fn(String) -> String) {
        let file = self.path("pipeline.toml");
        let text = fs::read_to_string(&file).expect("readable");
        fs::write(file, change(text)).expect("writable");
    }

    /// Leaves out the sink of files.
    pub(super) fn leave_out_files(&self) {
        self.edit(|text| {
            let (before, rest) = text.split_once("[sinks.files.files]").expect("it is there");
            let (_, rest) = rest.split_once("[sinks.base").expect("it comes behind");
            let mut text = format!("{before}[sinks.base{rest}");
            for route in ["usa", "alerts", "other"] {
                text = text.replace(&format!("\"files.{route}\", "), "");
            }
            text
        });
    }

    /// Leaves out all sinks but that of files, to which dead letters go, too.
    pub(super) fn leave_only_files(&self) {
        self.edit(|text| {
            let (text, _) = text.split_once("[sinks.base").expect("they come last");
            let mut text = text.replace("base.dead_letters", "files.dead_letters");
            for route in ["usa", "alerts", "other"] {
                let all = format!("\"base.{route}\", \"files.{route}\", \"topics.{route}\"");
                text = text.replace(&all, &format!("\"files.{route}\""));
            }
            text
        });
    }

    /// Sends so many customers, in turn from Boston, Lyon, Austin and nowhere.
    pub(super) fn send(&mut self, n: usize, more: &[&str]) {
        self.send_aged(n, more, |i| (i % 90).to_string());
    }

    /// The same, each of an age.
    pub(super) fn send_aged(&mut self, n: usize, more: &[&str], age: impl Fn(usize) -> String) {
        let program = self
            .weir(&["produce", "-", "--format", "csv", "--topic", &self.topic])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut program = program.expect("the program starts");
        let mut rows = "id,first_name,last_name,email,age,location\n".to_owned();
        for i in self.sent..self.sent + n {
            let place = ["Boston", "Lyon", "\"austin, Texas\"", ""][i % 4];
            rows += &format!("c{i},Ada,Lovelace,{i}@example.com,{},{place}\n", age(i));
        }
        program.stdin.take().expect("piped").write_all(rows.as_bytes()).expect("it reads");
        assert!(program.wait().expect("it ends").success());
        self.sent += n;
    }

    /// The program with these arguments, where the servers of this pipeline are.
    pub(super) fn weir(&self, arguments: &[&str]) -> Command {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(arguments)
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .env("WEIR_BROKERS", &self.kafka)
            .env("WEIR_TEST_KAFKA", &self.kafka)
            .env("WEIR_TEST_POSTGRES", &self.postgres);
        weir
    }

    /// Where each partition of the topic ends; nothing where the brokers are just about to say who leads it.
    pub(super) fn ends(&self) -> Option<Vec<u64>> {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.kafka).create().expect("a client");
        let all = client.fetch_metadata(Some(&self.topic), LONG).expect("the cluster answers");
        let partitions = 0..all.topics()[0].partitions().len();
        let end = |p| Some(client.fetch_watermarks(&self.topic, p, LONG).ok()?.1 as u64);
        partitions.map(|p| end(p as i32)).collect()
    }

    /// Starts a process that runs until it is told to stop.
    pub(super) fn start(&mut self) -> Process {
        let postgres = self.postgres.clone();
        self.start_on(&postgres)
    }

    /// Starts a process that ends where the partitions end.
    pub(super) fn start_once(&mut self) -> Process {
        let postgres = self.postgres.clone();
        self.start_as(Command::new(env!("CARGO_BIN_EXE_weir")), FILE_NAME, &postgres, &["--once"])
    }

    /// As [`Self::start`], where PostgreSQL is somewhere else, or has another user.
    pub(super) fn start_on(&mut self, postgres: &str) -> Process {
        self.start_as(Command::new(env!("CARGO_BIN_EXE_weir")), FILE_NAME, postgres, &[])
    }

    /// As [`Self::start`] by a command that ends in the program, and for another file.
    pub(super) fn start_by(&mut self, program: Command, file: &str) -> Process {
        let postgres = self.postgres.clone();
        self.start_as(program, file, &postgres, &[])
    }

    fn start_as(&mut self, mut program: Command, file: &str, postgres: &str, more: &[&str]) -> Process {
        self.started += 1;
        let log = self.path(&format!("log-{}", self.started));
        let told = File::create(&log).expect("writable");
        let program = program
            .arg("run")
            .args(more)
            .arg(self.path(file))
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .env("WEIR_LOG", "info")
            .env("WEIR_TEST_KAFKA", &self.kafka)
            .env("WEIR_TEST_POSTGRES", postgres)
            .stdout(told.try_clone().expect("a file can be shared"))
            .stderr(told)
            .spawn();
        Process { child: program.expect("the program starts"), log }
    }

    /// Makes Kafka forget the consumer group, as it does by itself some days after the last process is gone.
    fn forget_group(&self) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.kafka).create().expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let group = format!("weir.{}", self.name);
        let deleted = runtime.block_on(admin.delete_groups(&[&group], &AdminOptions::new()));
        assert_eq!(deleted.expect("the cluster answers"), [Ok(group)]);
    }

    /// What PostgreSQL answers: rows of numbers.
    pub(super) fn ask(&self, sql: &str) -> Vec<Vec<i64>> {
        let sql = format!("SET search_path TO {}; {sql}", self.schema);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let rows = runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.postgres).await?;
            let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(rows)
        });
        let number = |row: &sqlx::postgres::PgRow, i| {
            let text = row.try_get_unchecked::<String, _>(i).expect("a number");
            text.parse().expect("a number")
        };
        let rows = rows.expect("the server answers");
        rows.iter().map(|row| (0..row.len()).map(|i| number(row, i)).collect()).collect()
    }

    /// How many rows the tables have, and how many records those are of.
    pub(super) fn delivered(&self) -> (usize, usize) {
        if self.ask("SELECT count(*)::text FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'dead_letters'")
            == [[0]]
        {
            return (0, 0);
        }
        let all = ["usa", "alerts", "other", "dead_letters"]
            .map(|table| format!("SELECT weir_partition, weir_offset FROM {table}"))
            .join(" UNION ALL ");
        let counts = self.ask(&format!(
            "SELECT count(*)::text, count(DISTINCT (weir_partition, weir_offset))::text FROM ({all}) AS rows"
        ));
        (counts[0][0] as usize, counts[0][1] as usize)
    }

    /// Looks until it is as expected; what was found instead is shown where that takes too long.
    fn until<T>(&self, look: impl Fn() -> Result<T, String>) -> T {
        #[expect(clippy::disallowed_methods, reason = "a bound, far behind what is expected")]
        let begun = Instant::now();
        loop {
            match look() {
                Ok(found) => return found,
                Err(found) => assert!(begun.elapsed() < LONG, "{found}\n{}", self.logs()),
            }
        }
    }

    /// Waits until at least `n` records have arrived.
    pub(super) fn wait_for(&self, n: usize) {
        self.until(|| {
            let delivered = self.delivered();
            if delivered.1 >= n { Ok(()) } else { Err(format!("{delivered:?} of {n} records arrived")) }
        });
    }

    /// What a command about the running pipeline says, a list of its processes.
    pub(super) fn tell(&self, command: &str) -> Vec<Value> {
        self.tell_of(FILE_NAME, command)
    }

    fn tell_of(&self, file: &str, command: &str) -> Vec<Value> {
        let said = self.json(file, command, &[]);
        said["processes"].as_array().cloned().unwrap_or_else(|| panic!("{said}"))
    }

    /// What a command says.
    fn json(&self, file: &str, command: &str, more: &[&str]) -> Value {
        let told = self.weir(&[command, "--json"]).arg(self.path(file)).args(more).output();
        let told = told.expect("the program starts");
        let said = serde_json::from_slice(&told.stdout);
        said.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&told.stderr)))
    }

    /// Waits until so many processes run a plan of which that is so; the plan.
    fn wait_for_plan(&self, processes: usize, expected: impl Fn(u64) -> bool) -> u64 {
        self.until(|| {
            let told = self.tell("status");
            let plans: Vec<_> = told
                .iter()
                .map(|process| process["status"]["plan"]["plan"].as_u64().expect("a number"))
                .collect();
            let all = plans.len() == processes && plans.iter().all(|plan| expected(*plan));
            if all { Ok(plans[0]) } else { Err(format!("{plans:?}")) }
        })
    }

    /// Waits until so many processes have all partitions among them, each in this state.
    pub(super) fn wait_until(&self, processes: usize, partitions: usize, state: &str) {
        self.until(|| {
            let told = self.tell("status");
            let states: Vec<_> = told.iter().flat_map(|process| states(&process["status"])).collect();
            let all = states.len() == partitions && states.iter().all(|found| found == state);
            match all && told.len() == processes {
                true => Ok(()),
                false => Err(format!("{states:?} in {} processes", told.len())),
            }
        });
    }

    /// Waits until the process of each of these files has some of the partitions, and together they have all.
    pub(crate) fn wait_until_shared(&self, files: &[String], partitions: usize) {
        self.until(|| {
            let of = |file: &String| {
                let told = self.tell_of(file, "status");
                told.iter().flat_map(|process| states(&process["status"])).collect::<Vec<_>>()
            };
            let each: Vec<_> = files.iter().map(of).collect();
            let run = each.iter().flatten().all(|state| state == "running");
            let all = run && each.iter().all(|of| !of.is_empty()) && each.concat().len() == partitions;
            if all { Ok(()) } else { Err(format!("{each:?}")) }
        });
    }

    /// Waits until every sink has all that was read.
    fn wait_until_committed(&self) {
        let is_done = |partition: &Value| {
            let committed = partition["committed"].as_object().expect("an object");
            partition["state"] == "running" && committed.values().all(|next| *next == partition["read"])
        };
        self.until(|| {
            let told = self.tell("status");
            let partitions = || told.iter().flat_map(|process| process["status"]["partitions"].as_array());
            let all = partitions().flatten().count() > 0 && partitions().flatten().all(is_done);
            if all { Ok(()) } else { Err(format!("{told:?}")) }
        });
    }

    pub(super) fn logs(&self) -> String {
        let log = |n| fs::read_to_string(self.path(&format!("log-{n}"))).unwrap_or_default();
        (1..=self.started).map(|n| format!("process {n}:\n{}\n", log(n))).collect()
    }

    /// Every record that was sent is in the tables once, and so it is in the files and in the topics.
    pub(super) fn check(&self) {
        assert_eq!(self.delivered(), (self.sent, self.sent), "in tables\n{}", self.logs());
        let mut files = Seen::default();
        let mut topics = Seen::default();
        for route in ["usa", "alerts", "other"] {
            for file in fs::read_dir(self.path("out").join(route)).expect("a directory") {
                for line in fs::read_to_string(file.expect("listed").path()).expect("readable").lines() {
                    let row: Value = serde_json::from_str(line).expect("JSON");
                    files.add(&row["weir_partition"], &row["weir_offset"]);
                }
            }
            for line in self.peek(&format!("{route}-{}", self.topic)).lines() {
                let record: Value = serde_json::from_str(line).expect("JSON");
                let headers = record["headers"].as_array().expect("headers");
                let origin =
                    headers.iter().find(|header| header["name"] == "weir-origin").expect("its origin");
                let [_, partition, offset, ..] =
                    origin["value"].as_str().expect("text").split('/').collect::<Vec<_>>()[..]
                else {
                    panic!("{origin}")
                };
                topics.add(&partition.into(), &offset.into());
            }
        }
        assert_eq!(files.counts(), (self.sent, self.sent), "in files");
        assert_eq!(topics.counts(), (self.sent, self.sent), "in topics");
    }

    /// All records of a topic that were committed, as JSON lines.
    pub(super) fn peek(&self, topic: &str) -> String {
        // A topic that was made a moment ago may be on its way to who leads it: then nobody can say what is in it.
        let look = || {
            let mut peek = self.weir(&["peek", "--json", topic, "-n", "10000000"]);
            let shown = peek.output().expect("the program starts");
            Ok((shown.status.code() != Some(3)).then_some(shown))
        };
        let shown = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        let shown = shown.expect("the cluster answers");
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        String::from_utf8(shown.stdout).expect("text")
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // A second panic would end the tests, and leave servers behind.
        if std::thread::panicking() {
            return;
        }
        self.ask(&format!("DROP SCHEMA {} CASCADE", self.schema));
    }
}

/// What the partitions of a process do.
fn states(status: &Value) -> Vec<String> {
    let partitions = status["partitions"].as_array().expect("a list");
    partitions.iter().map(|partition| partition["state"].as_str().expect("a word").to_owned()).collect()
}

/// Rows, and the records they are of.
#[derive(Default)]
struct Seen {
    rows: usize,
    records: BTreeSet<(String, String)>,
}

impl Seen {
    fn add(&mut self, partition: &Value, offset: &Value) {
        self.rows += 1;
        self.records.insert((partition.to_string(), offset.to_string()));
    }

    fn counts(&self) -> (usize, usize) {
        (self.rows, self.records.len())
    }
}

/// How many errors a process told of with this word while it ran. What stopped a partition is told once more in the end.
pub(super) fn errors(log: &str, word: &str) -> usize {
    log.lines().filter(|line| line.contains("ERROR") && line.contains(word)).count()
}

/// A running `weir`, which is killed if the test ends before it does.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// The most memory that it had so far, if it still has some.
    fn most_memory_mib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
    }

    /// Waits until it has told that, while it runs.
    pub(super) fn wait_for_word(&mut self, word: &str) {
        let look = || {
            let found = self.told().contains(word);
            let ended = !found && self.child.try_wait().expect("it is ours").is_some();
            assert!(!ended, "it ended without {word}\n{}", self.told());
            Ok(found.then_some(()))
        };
        let found = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        assert!(found.is_some(), "{word} was never told\n{}", self.told());
    }

    /// Waits until it ends by itself.
    pub(super) fn end(self) -> (ExitStatus, String) {
        let (status, log, _) = self.end_with_memory();
        (status, log)
    }

    /// The same, with the most memory that it was seen to have, in MiB.
    pub(super) fn end_with_memory(mut self) -> (ExitStatus, String, u64) {
        let mut most = 0;
        let look = || {
            most = most.max(self.most_memory_mib().unwrap_or(0));
            Ok(self.child.try_wait().expect("it is ours"))
        };
        let status = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        let status = status.unwrap_or_else(|| panic!("it does not end\n{}", self.told()));
        (status, self.told_at_the_end(status), most)
    }

    fn told(&self) -> String {
        fs::read_to_string(&self.log).expect("readable")
    }

    fn told_at_the_end(&self, status: ExitStatus) -> String {
        format!("{}({status})", self.told())
    }

    /// Whether it died of a failpoint; one that ended otherwise did wrong.
    #[cfg(feature = "failpoints")]
    pub(super) fn is_dead(&mut self) -> bool {
        let ended = self.child.try_wait().expect("it is ours");
        ended.is_some_and(|status| {
            assert_eq!(status.signal(), Some(9), "{}", self.told());
            true
        })
    }

    pub(super) fn kill(mut self) {
        self.child.kill().expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(9), "it had ended by itself: {}", self.told());
    }

    /// Asks it to stop, and waits until it has.
    pub(super) fn stop(mut self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        (status, self.told_at_the_end(status))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn of_three_processes_one_dies_and_one_is_stopped_and_every_record_arrives_once() {
    let mut pipeline = Pipeline::new(9);
    pipeline.send(20_000, &[]);
    let first = pipeline.start();
    let second = pipeline.start();
    pipeline.wait_for(5_000);
    let third = pipeline.start();
    pipeline.send(20_000, &[]);
    pipeline.wait_for(25_000);
    first.kill();
    pipeline.send(20_000, &[]);
    pipeline.wait_for(60_000);
    pipeline.send(20_000, &[]);
    let (status, log) = second.stop();
    assert!(status.success(), "{log}");
    pipeline.wait_for(80_000);
    let (status, log) = third.stop();
    assert!(status.success(), "{log}");
    pipeline.check();
}

#[test]
fn what_is_paused_stands_still_in_every_process_also_in_one_that_comes_later_until_it_is_resumed() {
    let mut pipeline = Pipeline::new(4);
    pipeline.send(5_000, &[]);
    let first = pipeline.start();
    let second = pipeline.start();
    pipeline.wait_until(2, 4, "running");
    pipeline.wait_for(1_000);
    let paused = pipeline.tell("pause");
    let changed = paused.iter().filter(|process| process["changed"] == true).count();
    assert_eq!((paused.len(), changed), (2, 2), "{paused:?}");
    pipeline.wait_until(2, 4, "paused");
    let stands = pipeline.delivered();
    pipeline.send(5_000, &[]);
    first.kill();
    let third = pipeline.start();
    // Once the group gave them what the dead one had.
    pipeline.wait_until(2, 4, "paused");
    assert_eq!(pipeline.delivered(), stands, "nothing is read");
    assert_eq!(pipeline.tell("resume").len(), 2);
    pipeline.wait_for(10_000);
    for process in [second, third] {
        let (status, log) = process.stop();
        assert!(status.success(), "{log}");
    }
    pipeline.check();
}

#[test]
fn a_plan_that_rejects_more_is_taken_back_once_whoever_sees_it_and_no_record_is_lost() {
    let mut pipeline = Pipeline::new(4);
    pipeline.edit(|text| text.replace("[limits]", "[transform.settings]\non_bad_age = \"null\"\n\n[limits]"));
    pipeline.send(4_000, &[]);
    let processes = [pipeline.start(), pipeline.start()];
    pipeline.wait_until(2, 4, "running");
    // Each has something to compare the next plan with.
    pipeline.send(4_000, &[]);
    pipeline.wait_for(8_000);
    let put = ["--set", "on_bad_age=reject", "--why", "be strict", "--yes", "--wait", "1 ms"];
    let put = pipeline.json(FILE_NAME, "deploy", &put)["plan"].as_u64().expect("a number");
    pipeline.wait_for_plan(2, |plan| plan == put);
    let every_second_is_bad = |i| if i % 2 == 0 { "old".to_owned() } else { "42".to_owned() };
    pipeline.send_aged(8_000, &[], every_second_is_bad);
    let back = pipeline.wait_for_plan(2, |plan| plan > put);
    pipeline.send_aged(4_000, &[], every_second_is_bad);
    pipeline.wait_for(20_000);
    let history = pipeline.json(FILE_NAME, "history", &[]);
    let plans = history["plans"].as_array().expect("plans");
    let what = &plans.last().expect("one")["what"];
    assert_eq!((plans.len(), plans[2]["plan"].as_u64()), (3, Some(back)), "{history}");
    assert_eq!(
        (what["replaces"].as_u64(), what["made"]["who"].as_str()),
        (Some(put), Some("weir (automatic)"))
    );
    let why = what["made"]["why"].as_str().expect("a text");
    assert!(why.contains(" % rejected in the first ") && why.ends_with("0.0 % before"), "{why}");
    for process in processes {
        let (status, log) = process.stop();
        assert!(status.success(), "{log}");
    }
    assert_eq!(pipeline.delivered(), (20_000, 20_000), "{}", pipeline.logs());
    let others = pipeline.ask(&format!("SELECT count(*)::text FROM dead_letters WHERE weir_plan <> {put}"));
    assert_eq!(others, [[0]], "only that plan rejected");
    let rejected = pipeline.ask("SELECT count(*)::text FROM dead_letters")[0][0];
    assert!((100..=4_000).contains(&rejected), "{rejected}");
}

#[test]
fn servers_that_are_killed_and_come_back_cost_no_record() {
    let services = Services::temporary().expect("a directory");
    let servers: [Box<dyn Service>; 2] =
        [Box::new(services.kafka().expect("Kafka")), Box::new(services.postgres().expect("PostgreSQL"))];
    let come_back = || {
        servers.iter().for_each(|server| server.start().expect("it starts"));
        servers.iter().for_each(|server| server.wait_ready().expect("it answers"));
    };
    come_back();
    let mut pipeline = Pipeline::on(servers[0].address(), servers[1].address(), 4);
    pipeline.send(10_000, &[]);
    let process = pipeline.start();
    pipeline.wait_for(1_000);
    for server in &servers {
        pipeline.send(10_000, &[]);
        server.kill().expect("it runs");
        come_back();
    }
    pipeline.send(10_000, &[]);
    pipeline.wait_for(40_000);
    pipeline.wait_until_committed();
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    pipeline.check();
}

/// The generations of a group that was forgotten begin again, below those that the sinks have seen.
#[test]
fn a_pipeline_whose_group_was_forgotten_goes_on_where_the_sinks_stand() {
    let mut pipeline = Pipeline::new(2);
    let go_on = |pipeline: &mut Pipeline| {
        pipeline.send(500, &[]);
        let process = pipeline.start();
        pipeline.wait_for(pipeline.sent);
        let (status, log) = process.stop();
        assert!(status.success(), "{log}");
        log
    };
    (0..3).for_each(|_| drop(go_on(&mut pipeline)));
    pipeline.forget_group();
    let log = go_on(&mut pipeline);
    assert!(log.contains("E_STALE_GENERATION") && log.contains("incarnation=1"), "{log}");
    let log = go_on(&mut pipeline);
    assert!(!log.contains("E_STALE_GENERATION"), "{log}");
    // Also one that ends where the partitions end, and several at once.
    pipeline.forget_group();
    pipeline.send(500, &[]);
    let (status, log) = pipeline.start_once().end();
    assert!(status.success() && log.contains("incarnation=2"), "{log}");
    pipeline.wait_for(pipeline.sent);
    (0..2).for_each(|_| drop(go_on(&mut pipeline)));
    pipeline.forget_group();
    let both = [pipeline.start(), pipeline.start()];
    pipeline.send(500, &[]);
    pipeline.wait_for(pipeline.sent);
    let ended = both.map(Process::stop);
    assert!(ended.iter().all(|(status, _)| status.success()), "{ended:?}");
    assert!(ended.iter().any(|(_, log)| log.contains("incarnation=3")), "{ended:?}");
    pipeline.check();
}
