//! A rule that is replaced while three processes run it under load: each record arrives once, made by one plan, whoever dies,
//! lags or cannot follow meanwhile. What has arrived is judged by a program that shows nothing of how it came there.
//!
//! `WEIR_SWAPS=100` has the rule replaced so often, and `WEIR_SWAPS_RATE=50000` sends so many records a second meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
#[cfg(feature = "failpoints")]
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use weir_services::{Interrupt, until};

use crate::group::{FILE_NAME, Pipeline, Process};
use crate::hdfs::Cluster;
use crate::{LONG, fetch_topics};

const PARTITIONS: u16 = 6;

const ROUTES: [&str; 3] = ["usa", "alerts", "other"];

/// Where all processes can be asked, also those with a state directory of their own.
const ADMIN: &str = "\n[admin]\nsocket = \"sockets\"\n";

/// Of so many customers of the load one has an age that is none. All of those are American, so `on_bad_age` says whether they
/// become dead letters: a plan that rejects where the one before did not rejects 2 % more of all records. One that rejects 5 % more
/// would be taken back by itself, and a plan that somebody put is to stay here.
const ONE_OF_BAD_AGE: usize = 50;

fn age(of: usize) -> String {
    if of.is_multiple_of(ONE_OF_BAD_AGE) { "old".to_owned() } else { (of % 90).to_string() }
}

/// Dead letters go to the sink of tables alone.
fn pipeline() -> Pipeline {
    let pipeline = Pipeline::new(PARTITIONS);
    pipeline.leave_out_files();
    pipeline.edit(|text| text + ADMIN);
    fs::write(pipeline.path("more_cities.csv"), "city\nBoston\nAustin\nLyon\n").expect("writable");
    pipeline
}

/// What a variable says, for a longer trial.
fn or_as_asked(name: &str, usual: u32) -> u32 {
    std::env::var(name).map_or(usual, |asked| asked.parse().expect("a number"))
}

/// Records that are sent all the while.
struct Load {
    producer: Child,
    thread: JoinHandle<()>,
}

impl Load {
    fn start(pipeline: &Pipeline, per_second: u32) -> Self {
        let mut producer = pipeline
            .weir(&["produce", "-", "--format", "csv", "--topic", &pipeline.topic])
            .args(["--rate", &per_second.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut to = producer.stdin.take().expect("piped");
        let thread = std::thread::spawn(move || {
            let mut rows = "id,first_name,last_name,email,age,location\n".to_owned();
            for i in 0_usize.. {
                let place = ["Boston", "Lyon", "\"austin, Texas\"", ""][i % 4];
                rows += &format!("l{i},Ada,Lovelace,{i}@example.com,{},{place}\n", age(i));
                if i % 100 == 0 {
                    // Until nobody reads it any more.
                    if to.write_all(rows.as_bytes()).is_err() {
                        return;
                    }
                    rows.clear();
                }
            }
        });
        Self { producer, thread }
    }

    /// Once all that were sent are in the topic.
    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.producer);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = self.producer.wait().expect("it is ours");
        assert!(status.code().is_some(), "it was told to stop, and waits for what it sent: {status}");
        self.thread.join().expect("it writes");
    }
}

/// What a command that has ended said.
struct Told {
    code: Option<i32>,
    said: Value,
    all: String,
}

impl Told {
    fn of(output: &Output) -> Self {
        let all = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
        Self {
            code: output.status.code(),
            said: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            all,
        }
    }

    /// The number of the plan that runs now.
    fn plan(&self) -> u64 {
        self.said["plan"].as_u64().unwrap_or_else(|| panic!("{}", self.all))
    }
}

impl Pipeline {
    /// From now on dead letters go to the sink of topics alone.
    #[cfg(feature = "failpoints")]
    fn letters_to_topics(&self) {
        let target = format!("targets.dead_letters.topic = \"dead_letters-{}\"\n", self.topic);
        self.edit(|text| {
            let text = text.replace("base.dead_letters", "topics.dead_letters");
            text.replace("targets.usa.topic", &format!("{target}targets.usa.topic"))
        });
    }

    /// Replaces the plan, and waits for nobody.
    fn deploy(&self, change: &[&str]) -> Told {
        Told::of(&self.deploying(FILE_NAME, change, "1 ms").output().expect("the program starts"))
    }

    fn deploying(&self, file: &str, change: &[&str], wait: &str) -> Command {
        let file = self.path(file);
        let mut weir = self.weir(&["deploy", file.to_str().expect("text")]);
        weir.args(change).args(["--yes", "--json", "--wait", wait]);
        weir
    }

    fn roll_back(&self) -> Told {
        let file = self.path(FILE_NAME);
        let back = ["rollback", file.to_str().expect("text"), "--yes", "--json", "--wait", "1 ms"];
        Told::of(&self.weir(&back).output().expect("the program starts"))
    }

    /// Has all processes that run pause or go on; whether there were some, and all did.
    #[cfg(feature = "failpoints")]
    fn order(&self, what: &str) -> bool {
        let ordered = self.weir(&[what]).arg(self.path(FILE_NAME)).output();
        ordered.expect("the program starts").status.success()
    }

    /// The `n`th of a series of swaps, each of which changes what becomes of records.
    fn swap(&self, n: usize) -> u64 {
        // How often it is swapped is what counts here.
        let deploy = |change: &[&str]| self.deploy(&[change, &["--sample", "0"]].concat());
        let to = |non_usa| deploy(&["--set", &format!("non_usa={non_usa}")]);
        let drops =
            |on_bad_age| deploy(&["--set", "non_usa=drop", "--set", &format!("on_bad_age={on_bad_age}")]);
        // A broker that has too much to do may lead nothing for a moment. Then a plan may be there all the same.
        let look = || {
            let told = match n % 6 {
                0 => to("alerts"),
                2 => to("other"),
                3 => deploy(&["--table", &self.more_cities()]),
                4 => self.roll_back(),
                1 => drops("null"),
                _ => drops("reject"),
            };
            Ok((told.code != Some(3)).then_some(told))
        };
        let told = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        let told = told.unwrap_or_else(|| panic!("swap {n}\n{}", self.logs()));
        assert_eq!(told.code, Some(0), "swap {n}: {}\n{}", told.all, self.logs());
        told.plan()
    }

    fn more_cities(&self) -> String {
        format!("us_cities={}", self.path("more_cities.csv").display())
    }

    fn history(&self) -> Value {
        let file = self.path(FILE_NAME);
        let look = || {
            let told = self.weir(&["history", file.to_str().expect("text"), "--json"]).output();
            let told = Told::of(&told.expect("the program starts"));
            // A broker that has too much to do may lead nothing for a moment.
            Ok((told.code != Some(3)).then_some(told))
        };
        let told = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        let told = told.expect("the cluster answers");
        assert_eq!(told.code, Some(0), "{}", told.all);
        told.said
    }

    /// Waits until each of so many processes has partitions, and all that was sent is in all sinks.
    fn wait_until_shared_by(&self, processes: usize) {
        let has_some = |process: &Value| {
            let partitions = process["status"]["partitions"].as_array();
            partitions.is_some_and(|partitions| !partitions.is_empty())
        };
        let look = || {
            let told = self.tell("status");
            let shared = told.len() == processes && told.iter().all(has_some);
            Ok((shared && self.is_all_there()).then_some(()))
        };
        let there = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        assert!(there.is_some(), "{:?}\n{}", self.tell("status"), self.logs());
    }

    /// Waits until every partition is in one process, and all that was sent is in all sinks.
    fn wait_until_all_is_there(&self) {
        let look = || Ok(self.is_all_there().then_some(()));
        let there = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        assert!(there.is_some(), "{:?}\n{}", self.tell("status"), self.logs());
    }

    fn is_all_there(&self) -> bool {
        let told = self.tell("status");
        let partitions: Vec<_> =
            told.iter().flat_map(|process| process["status"]["partitions"].as_array()).flatten().collect();
        let Some(ends) = self.ends() else { return false };
        let has_all = |partition: &&Value| {
            let end = &ends[partition["partition"].as_u64().expect("a number") as usize];
            let committed = partition["committed"].as_object().expect("an object");
            partition["state"] == "running" && committed.values().all(|next| next.as_u64() == Some(*end))
        };
        partitions.len() == usize::from(PARTITIONS) && partitions.iter().all(has_all)
    }

    /// Fetches all there is, and has it judged.
    fn judge(&self) -> Value {
        let history = self.history();
        let mut all = history["plans"].as_array().expect("plans").iter();
        let by_itself = |plan: &Value| plan["what"]["made"]["by"]["who"] == "weir (automatic)";
        assert!(!all.any(by_itself), "a plan was taken back: {history}");
        let dumped = self.dump();
        let judged = judge(&dumped);
        assert_eq!(judged.code, Some(0), "{}\n{}\n{}", judged.all, self.history(), self.logs());
        let first = judged.all.lines().next().expect("it tells how much there was");
        serde_json::from_str(first).expect("JSON")
    }

    /// A directory with all there is, in the order in which it came about backwards: what came of a record is there when the
    /// record is.
    fn dump(&self) -> PathBuf {
        let dumped = self.path("dumped");
        fs::remove_dir_all(&dumped).ok();
        for sink in ["base", "topics"] {
            fs::create_dir_all(dumped.join(sink)).expect("writable");
        }
        let history = self.history();
        let plans = history["plans"].as_array().expect("plans").iter();
        let routes = plans.flat_map(|plan| plan["what"]["routes"].as_object().expect("routes").values());
        let targets: BTreeSet<_> = routes
            .flat_map(|to| to.as_array().expect("targets"))
            .filter_map(|target| target.as_str()?.split_once('.'))
            .collect();
        let of = |sink| targets.iter().filter(move |(of, _)| *of == sink).map(|(_, target)| *target);
        for route in of("base") {
            let table = dumped.join("base").join(route).with_extension("csv");
            let how = "WITH (FORMAT csv, HEADER, NULL '\\N')";
            // Rows that the table refused are there, too.
            let (schema, is_of) = (&self.schema, format!("WHERE target = '{route}'"));
            let ours = "jsonb_build_object('weir_topic', weir_topic, 'weir_partition', weir_partition, \
                        'weir_offset', weir_offset, 'weir_index', weir_index, 'weir_plan', weir_plan)";
            let refused = format!("jsonb_populate_record(NULL::{schema}.{route}, \"row\"::jsonb || {ours})");
            let refused = format!("SELECT ({refused}).* FROM {schema}.weir_reject {is_of}");
            let all = format!("SELECT * FROM {schema}.{route} UNION ALL {refused}");
            let copy = format!("\\copy ({all}) TO '{}' {how}", table.display());
            let psql = Command::new("psql")
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", &copy, &self.postgres])
                .output();
            let told = Told::of(&psql.expect("psql is there"));
            assert_eq!(told.code, Some(0), "{}", told.all);
        }
        let topics = of("topics").map(|route| {
            (format!("{route}-{}", self.topic), dumped.join("topics").join(route).with_extension("jsonl"))
        });
        fetch_topics(topics.chain([(self.topic.clone(), dumped.join("input.jsonl"))]));
        fs::write(dumped.join("history.json"), history.to_string()).expect("writable");
        for file in fs::read_dir(self.path("")).expect("readable") {
            let name = file.expect("readable").file_name();
            if name.to_str().is_some_and(|name| name.ends_with("cities.csv")) {
                fs::copy(self.path("").join(&name), dumped.join(&name)).expect("writable");
            }
        }
        dumped
    }
}

fn judge(dumped: &Path) -> Told {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit/swap.py");
    // It keeps no compiled code among the sources.
    let judged = Command::new("python3").arg("-B").arg(program).arg(dumped).output();
    Told::of(&judged.expect("python3 is there"))
}

fn stop(processes: impl IntoIterator<Item = Process>) {
    for process in processes {
        let (status, log) = process.stop();
        assert!(status.success(), "{log}");
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "says how much it tried")]
fn a_plan_that_is_replaced_again_and_again_under_load_makes_each_record_once_and_alike_in_all_sinks() {
    let swaps = or_as_asked("WEIR_SWAPS", 30);
    let mut pipeline = pipeline();
    pipeline.send(10_000, &[]);
    let processes = [pipeline.start(), pipeline.start(), pipeline.start()];
    pipeline.wait_for(1_000);
    let load = Load::start(&pipeline, or_as_asked("WEIR_SWAPS_RATE", 1_000));
    let plans: Vec<_> = (0..swaps as usize).map(|n| pipeline.swap(n)).collect();
    assert!(plans.is_sorted_by(|one, next| one < next), "{plans:?}");
    load.end();
    pipeline.wait_until_all_is_there();
    stop(processes);
    let judged = pipeline.judge();
    assert!(judged["plans"].as_u64() > Some(u64::from(swaps)), "{judged}");
    // What is no age was both of what plans made of it.
    let [letters, ageless] = ["dead_letters", "usa WHERE age IS NULL"]
        .map(|rows| pipeline.ask(&format!("SELECT count(*)::text FROM {rows}"))[0][0]);
    assert!(letters > 0 && ageless > 0, "{letters} dead letters, {ageless} without an age");
    let history = pipeline.history();
    let plans = history["plans"].as_array().expect("a list").iter();
    let made = || plans.clone().filter_map(|plan| plan["what"]["made"]["at_ms"].as_u64());
    let took_ms = made().max().zip(made().min()).map(|(last, first)| last - first);
    println!("{judged}; from the first plan to the last {took_ms:?} ms");
}

#[test]
fn whoever_dies_while_plans_are_replaced_leaves_each_record_made_once_and_alike_in_all_sinks() {
    const SWAPS: usize = 12;
    let mut pipeline = pipeline();
    pipeline.send(10_000, &[]);
    let mut processes = [pipeline.start(), pipeline.start(), pipeline.start()].map(Some);
    pipeline.wait_for(1_000);
    let load = Load::start(&pipeline, 500);
    for n in 0..SWAPS {
        pipeline.swap(n);
        if n % 4 == 2 {
            let one = &mut processes[n / 4 % 3];
            one.take().expect("it was put back").kill();
            *one = Some(pipeline.start());
        }
    }
    load.end();
    pipeline.wait_until_all_is_there();
    stop(processes.into_iter().flatten());
    pipeline.judge();
}

/// Where processes that run may die of a swap or of a commit at it, some at once, each when it comes by there the nth time.
#[cfg(feature = "failpoints")]
const DEATHS: [&[(&str, u32)]; 8] = [
    // Not at the first time: that is how it begins.
    &[("plan.before_put", 4), ("kafka.before_begin", 4), ("postgres.after_begin", 4)],
    &[("plan.after_put", 4), ("kafka.after_rows", 4), ("postgres.mid_rows", 4)],
    &[("kafka.after_progress", 4), ("postgres.after_position", 4), ("postgres.after_reject", 4)],
    &[("kafka.before_commit", 4), ("kafka.after_offsets", 4), ("postgres.before_commit", 4)],
    &[("kafka.after_begin", 4), ("kafka.after_commit", 4), ("postgres.after_commit", 4)],
    // At the first time: later it comes by there only where it gets partitions of another.
    &[("kafka.after_renewal", 1), ("postgres.claim.after_begin", 1), ("postgres.claim.before_commit", 1)],
    &[("postgres.claim.after_commit", 1)],
    // Once partitions have begun, only what people order is written there.
    &[("plan.before_log", 2), ("plan.after_log", 2)],
];

/// Where `weir deploy` may die.
#[cfg(feature = "failpoints")]
const DEATHS_OF_DEPLOY: [&str; 6] = [
    "store.before_temp",
    "store.after_temp",
    "plan.before_adopt",
    "plan.before_put",
    "plan.after_put",
    "plan.after_adopt",
];

/// A program that dies when it comes by a failpoint the nth time.
#[cfg(feature = "failpoints")]
fn armed(mut weir: Command, point: &str, n: u32) -> Command {
    weir.env("WEIR_KILL_AT", format!("{point}:{n}"));
    weir
}

#[cfg(feature = "failpoints")]
impl Pipeline {
    /// Has `weir deploy` die where it has not `died` yet; whether that was everywhere by now. `n` is another one each time.
    fn kill_a_deploy(&self, n: usize, died: &mut BTreeSet<&str>) -> bool {
        let Some(point) = DEATHS_OF_DEPLOY.iter().find(|point| !died.contains(*point)) else { return true };
        // A table that no store has.
        let cities = self.path(&format!("{n}-cities.csv"));
        fs::write(&cities, format!("city\nBoston\nAustin\nTown {n}\n")).expect("writable");
        let table = format!("us_cities={}", cities.display());
        let deploy = self.deploying(FILE_NAME, &["--table", &table, "--sample", "0"], "1 ms");
        let deploy = armed(deploy, point, 1).output().expect("the program starts");
        // A broker that has too much to do may lead nothing for a moment.
        let ended = (deploy.status.signal(), deploy.status.code());
        assert!(matches!(ended, (Some(9), _) | (_, Some(3))), "{point}: {ended:?} {}", Told::of(&deploy).all);
        died.extend(ended.0.map(|_| *point));
        died.len() == DEATHS_OF_DEPLOY.len()
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_at_any_failpoint_of_a_swap_they_leave_each_record_made_once_and_alike_in_all_sinks() {
    let mut pipeline = pipeline();
    pipeline.letters_to_topics();
    pipeline.send(2_000, &[]);
    let first = pipeline.start();
    pipeline.wait_until_all_is_there();
    stop([first]);
    pipeline.ask("ALTER TABLE usa ADD CHECK (age <> 33) NOT VALID");
    let load = Load::start(&pipeline, 500);
    let (mut swaps, mut died) = (0, BTreeSet::new());
    for points in DEATHS {
        let weir = || Command::new(env!("CARGO_BIN_EXE_weir"));
        let start = |(point, n): &(&str, u32)| Some(pipeline.start_by(armed(weir(), point, *n), FILE_NAME));
        let mut processes: Vec<_> = points.iter().map(start).collect();
        let takes_orders = points.iter().any(|(point, _)| point.ends_with("_log"));
        let order = |what| takes_orders && pipeline.order(what);
        while processes.iter().any(Option::is_some) {
            swaps += 1;
            order("pause");
            pipeline.swap(swaps);
            pipeline.kill_a_deploy(swaps, &mut died);
            order("resume");
            for process in &mut processes {
                if process.as_mut().is_some_and(Process::is_dead) {
                    *process = None;
                }
            }
        }
    }
    let look = || {
        swaps += 1;
        Ok(pipeline.kill_a_deploy(swaps, &mut died).then_some(()))
    };
    let killed = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
    assert!(killed.is_some(), "the cluster does not answer\n{}", pipeline.logs());
    let last = pipeline.start();
    let look = || Ok(pipeline.order("resume").then_some(()));
    let goes_on = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
    assert!(goes_on.is_some(), "{}", pipeline.logs());
    load.end();
    pipeline.wait_until_all_is_there();
    stop([last]);
    let refused = pipeline.ask("SELECT count(*)::text FROM weir_reject")[0][0];
    assert!(refused > 0, "nobody of 33 came");
    pipeline.judge();
}

/// Rows that somebody else has locked, in a transaction that goes on.
struct Locked {
    runtime: tokio::runtime::Runtime,
    session: PgConnection,
}

impl Locked {
    /// Where the sink of tables stands: until this is let go of it commits nothing.
    fn positions_of(pipeline: &Pipeline) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sql = format!("BEGIN; SELECT FROM {}.weir_position FOR UPDATE", pipeline.schema);
        let session = runtime.block_on(async {
            let mut session = PgConnection::connect(&pipeline.postgres).await?;
            session.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            Ok::<_, sqlx::Error>(session)
        });
        Self { runtime, session: session.expect("the server answers") }
    }

    fn let_go(self) {
        self.runtime.block_on(self.session.close()).expect("the server answers");
    }
}

impl Pipeline {
    /// How many offsets each of the sinks has, of all partitions together.
    fn committed(&self) -> [u64; 2] {
        let told = self.tell("status");
        let partitions: Vec<_> =
            told.iter().flat_map(|process| process["status"]["partitions"].as_array()).flatten().collect();
        let of = |sink| partitions.iter().filter_map(|partition| partition["committed"][sink].as_u64()).sum();
        ["base", "topics"].map(of)
    }

    /// Waits until the topics have all that was sent.
    fn wait_for_topics(&self) {
        let look = || Ok(self.ends().filter(|ends| self.committed()[1] == ends.iter().sum::<u64>()));
        let there = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
        assert!(there.is_some(), "{:?}\n{}", self.tell("status"), self.logs());
    }
}

#[test]
fn a_sink_that_lags_gets_from_the_old_plans_what_the_others_have_of_them() {
    let mut pipeline = pipeline();
    pipeline.send(3_000, &[]);
    let [first, second, third] = [pipeline.start(), pipeline.start(), pipeline.start()];
    pipeline.wait_until_shared_by(3);
    let locked = Locked::positions_of(&pipeline);
    for n in 0..3 {
        pipeline.send(17_000, &[]);
        pipeline.wait_for_topics();
        pipeline.swap(n);
    }
    pipeline.send(2_000, &[]);
    pipeline.wait_for_topics();
    let [base, topics] = pipeline.committed();
    assert!(base + 50_000 <= topics, "the tables have {base}, the topics {topics}");
    first.kill();
    second.kill();
    locked.let_go();
    let fourth = pipeline.start();
    pipeline.wait_until_all_is_there();
    stop([third, fourth]);
    pipeline.judge();
}

/// `weir deploy` at a terminal, which has asked whether its plan is to be put, and waits.
struct Asking {
    weir: Child,
    said: BufReader<ChildStdout>,
    asked: Vec<u8>,
}

impl Asking {
    /// Waits until it asks. Whoever cannot reach the brokers ends instead.
    fn start(pipeline: &Pipeline, change: &[&str]) -> Self {
        const AT_A_TERMINAL: &str =
            "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let file = pipeline.path(FILE_NAME);
        let mut deploy = pipeline.weir(&["deploy", file.to_str().expect("text"), "--wait", "1 ms"]);
        deploy.args(change);
        let mut weir = Command::new("python3")
            .args(["-c", AT_A_TERMINAL])
            .arg(deploy.get_program())
            .args(deploy.get_args())
            .envs(deploy.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut said = BufReader::new(weir.stdout.take().expect("piped"));
        let mut asked = Vec::new();
        while !asked.ends_with(b"[y/N]") && said.read_until(b']', &mut asked).expect("it talks") > 0 {}
        Self { weir, said, asked }
    }

    fn answer(&mut self) {
        // Nobody reads it where it has ended; then its exit code tells.
        self.weir.stdin.as_mut().expect("piped").write_all(b"y\n").ok();
    }

    fn ends(mut self) -> Told {
        self.said.read_to_end(&mut self.asked).expect("it talks");
        let all = String::from_utf8_lossy(&self.asked).into_owned();
        Told { code: self.weir.wait().expect("it is ours").code(), said: Value::Null, all }
    }
}

#[test]
fn of_two_who_replace_a_plan_at_once_one_puts_theirs_and_the_other_is_told_that_it_came_too_late() {
    const ROUNDS: usize = 2;
    let mut pipeline = pipeline();
    pipeline.send(2_000, &[]);
    let process = pipeline.start();
    pipeline.wait_until_all_is_there();
    let (mut tries, mut decided) = (0, Vec::new());
    for _ in 0..ROUNDS {
        // A broker that has too much to do may lead nothing for a moment. Then it is not known what became of a plan.
        let race = || {
            tries += 1;
            // The limit so that none of them finds its plan there already.
            let limit = format!("deadline={} s", 10 + tries);
            // Both have prepared theirs to take the place of the same plan before one of them is let go on.
            let mut both = ["alerts", "drop"].map(|non_usa| {
                Asking::start(&pipeline, &["--set", &format!("non_usa={non_usa}"), "--limit", &limit])
            });
            both.iter_mut().for_each(Asking::answer);
            let both = both.map(Asking::ends);
            Ok(both.iter().all(|told| told.code != Some(3)).then_some(both))
        };
        let both = until(&Interrupt::default(), LONG, race).expect("nobody interrupts");
        let both = both.unwrap_or_else(|| panic!("{}", pipeline.logs()));
        decided.push((10 + tries) * 1_000);
        let (put, late): (Vec<_>, Vec<_>) = both.iter().partition(|told| told.code == Some(0));
        let ([put], [late]) = (&put[..], &late[..]) else { panic!("{} {}", both[0].all, both[1].all) };
        assert!(put.all.contains("is in the plan log"), "{}", put.all);
        assert_eq!(late.code, Some(1), "{}", late.all);
        assert!(late.all.contains("was put while this one was prepared"), "{}", late.all);
    }
    pipeline.send(1_000, &[]);
    pipeline.wait_until_all_is_there();
    stop([process]);
    pipeline.judge();
    let history = pipeline.history();
    let plans = history["plans"].as_array().expect("a list").iter();
    let put: Vec<_> = plans.filter_map(|plan| plan["what"]["limits"]["deadline_ms"].as_u64()).collect();
    let all: BTreeSet<_> = put.iter().copied().collect();
    assert!(all.len() == put.len() && decided.iter().all(|put| all.contains(put)), "{put:?} {decided:?}");
}

#[test]
fn a_plan_that_is_tried_beside_gets_records_of_all_processes_and_touches_none_before_it_is_promoted() {
    let mut pipeline = pipeline();
    pipeline.send(2_000, &[]);
    let processes = [pipeline.start(), pipeline.start(), pipeline.start()];
    pipeline.wait_until_shared_by(processes.len());
    let load = Load::start(&pipeline, 1_000);
    let tried = pipeline.deploy(&["--shadow", "--set", "non_usa=alerts", "--records", "2000"]);
    let shadow = |command| {
        let file = pipeline.path(FILE_NAME);
        let mut weir = pipeline.weir(&["shadow", command, file.to_str().expect("text"), "--json"]);
        if command == "promote" {
            weir.args(["--yes", "--wait", "1 ms"]);
        }
        Told::of(&weir.output().expect("the program starts"))
    };
    let look = || Ok(Some(shadow("status").said).filter(|said| said["ended"]["how"] == "done"));
    let said = until(&Interrupt::default(), LONG, look).expect("nobody interrupts");
    let said = said.unwrap_or_else(|| panic!("{}\n{}", tried.all, pipeline.logs()));
    assert_eq!(said["processes"], 3, "{said}");
    let comparison = &said["report"]["comparison"];
    assert!(comparison["records"].as_u64() >= Some(2_000), "{said}");
    assert_eq!((&comparison["fields"], &comparison["others"]), (&serde_json::json!([]), &0.into()), "{said}");
    let [found] = &comparison["found"].as_array().expect("a list")[..] else { panic!("{said}") };
    assert_eq!((&found["was"], &found["is"]), (&"route other".into(), &"route alerts".into()), "{said}");
    assert_eq!(found["records"], comparison["different"]);
    let plans = |pipeline: &Pipeline| pipeline.history()["plans"].as_array().expect("a list").len();
    assert_eq!(plans(&pipeline), 1, "what is tried is no plan");
    assert_eq!(shadow("promote").code, Some(0));
    assert_eq!(plans(&pipeline), 2);
    load.end();
    pipeline.send(2_000, &[]);
    pipeline.wait_until_all_is_there();
    stop(processes);
    assert_eq!(pipeline.judge()["plans"], 2);
}

#[test]
fn a_process_that_cannot_get_the_new_plan_holds_its_partitions_and_says_why_until_it_can() {
    let mut pipeline = pipeline();
    let text = fs::read_to_string(pipeline.path(FILE_NAME)).expect("readable");
    let files = [1, 2, 3].map(|n| format!("pipeline-{n}.toml"));
    for (n, file) in (1..).zip(&files) {
        fs::write(pipeline.path(file), text.replace("\"state\"", &format!("\"state-{n}\"")))
            .expect("writable");
    }
    pipeline.send(2_000, &[]);
    let weir = || Command::new(env!("CARGO_BIN_EXE_weir"));
    let processes = [0, 1, 2].map(|n| pipeline.start_by(weir(), &files[n]));
    pipeline.wait_until_shared_by(3);
    // Nothing that it does not have can be kept there.
    let store = pipeline.path("state-2").join("store");
    fs::remove_dir_all(&store).expect("it is there");
    fs::write(&store, "").expect("writable");
    let load = Load::start(&pipeline, 500);
    let mut weir = pipeline.deploying(&files[0], &["--table", &pipeline.more_cities()], "100 s");
    let told = Told::of(&weir.output().expect("the program starts"));
    let plan = told.plan();
    let why = format!("loading plan {plan}: ");
    assert_eq!(told.code, Some(1), "{}", told.all);
    assert!(told.said["refused"].as_str().is_some_and(|refused| refused.contains(&why)), "{}", told.all);

    // The others go on with all that they have, and it stands still with the last that it made.
    let standing = || {
        let status = pipeline.tell("status");
        let all = status.iter().flat_map(|process| process["status"]["partitions"].as_array()).flatten();
        let (standing, running): (Vec<_>, Vec<_>) =
            all.cloned().partition(|partition| partition["state"] == "needs-plan");
        let flushed = |of: &Value| {
            of["committed"].as_object().is_some_and(|all| all.values().all(|next| *next == of["read"]))
        };
        let newest = |of: &Value| of["state"] == "running" && of["plan"] == plan;
        (!standing.is_empty() && standing.iter().all(flushed) && running.iter().all(newest))
            .then_some(standing)
    };
    let before = until(&Interrupt::default(), LONG, || Ok(standing())).expect("nobody interrupts");
    let before = before.unwrap_or_else(|| panic!("{:?}\n{}", pipeline.tell("status"), pipeline.logs()));
    load.end();
    let of_others = |status: Vec<Value>| {
        let Some(ends) = pipeline.ends() else { return false };
        let all = status.iter().flat_map(|process| process["status"]["partitions"].as_array()).flatten();
        all.filter(|of| of["state"] == "running")
            .all(|of| of["committed"]["base"] == ends[of["partition"].as_u64().expect("a number") as usize])
    };
    let look = || Ok(of_others(pipeline.tell("status")).then_some(()));
    assert!(
        until(&Interrupt::default(), LONG, look).expect("nobody interrupts").is_some(),
        "{}",
        pipeline.logs()
    );
    assert_eq!(standing().expect("they still stand"), before);
    for partition in &before {
        let trouble = partition["trouble"]["text"].as_str().expect("it says why");
        assert!(trouble.contains(&why) && trouble.contains("state-2/store"), "{trouble}");
        assert_ne!(partition["plan"], plan);
    }

    fs::remove_file(&store).expect("it is there");
    pipeline.wait_until_all_is_there();
    stop(processes);
    pipeline.judge();
}

#[test]
fn a_target_of_which_the_file_says_what_running_processes_have_not_read_is_refused() {
    let mut pipeline = pipeline();
    pipeline.send(100, &[]);
    let process = pipeline.start();
    pipeline.wait_until_all_is_there();
    pipeline.edit(|text| {
        let text = text.replace("\"topics.alerts\"", "\"topics.alerts\", \"topics.late\"");
        text.replace(
            "targets.usa.topic",
            &format!("targets.late.topic = \"late-{}\"\ntargets.usa.topic", pipeline.topic),
        )
    });
    let told = pipeline.deploy(&[]);
    assert_eq!(told.code, Some(1), "{}", told.all);
    assert!(told.all.contains("rows to topics.late before") && told.all.contains("--adopt"), "{}", told.all);
    // Whoever starts anew has read it.
    stop([process]);
    let process = pipeline.start_by(Command::new(env!("CARGO_BIN_EXE_weir")), FILE_NAME);
    let (status, log) = process.end();
    assert!(!status.success() && log.contains("--adopt"), "{log}");
    assert_eq!(pipeline.history()["plans"].as_array().map(Vec::len), Some(1));
}

/// A pipeline that runs, of which no row comes to the table `other` by the plan that runs.
fn without_others() -> (Pipeline, Process) {
    let mut pipeline = pipeline();
    pipeline.edit(|text| text.replace("[limits]", "settings.non_usa = \"drop\"\n\n[limits]"));
    pipeline.send(1_000, &[]);
    let process = pipeline.start();
    pipeline.wait_until_all_is_there();
    (pipeline, process)
}

#[test]
fn a_plan_whose_rows_a_table_does_not_take_is_refused_by_column_and_the_old_one_goes_on() {
    let (mut pipeline, process) = without_others();
    for (change, column) in [
        ("ALTER TABLE other ALTER COLUMN value TYPE integer USING NULL", "value"),
        ("ALTER TABLE other DROP COLUMN value_bytes", "value_bytes"),
        ("ALTER TABLE other ADD COLUMN since date NOT NULL", "since"),
    ] {
        pipeline.ask(change);
        let told = pipeline.deploy(&["--set", "non_usa=other"]);
        assert_eq!((told.code, &told.said["deployed"]), (Some(2), &Value::Bool(false)), "{}", told.all);
        let refused = told.said["refused"].to_string();
        assert!(refused.contains("table `other`") && refused.contains(column), "{refused}");
        pipeline.ask("DROP TABLE other");
        let made = "CREATE TABLE other (LIKE alerts INCLUDING ALL)";
        pipeline.ask(made);
    }
    pipeline.send(1_000, &[]);
    pipeline.wait_until_all_is_there();
    // Once the table fits the same is taken.
    pipeline.swap(2);
    pipeline.send(1_000, &[]);
    pipeline.wait_until_all_is_there();
    stop([process]);
    let judged = pipeline.judge();
    assert_eq!((&judged["plans"], &judged["plans_with_rows"]), (&2.into(), &2.into()), "{judged}");
}

#[test]
fn a_plan_is_tried_on_the_last_records_of_all_partitions_before_it_is_put() {
    let (mut pipeline, process) = without_others();
    // Of four that are sent, one is from Lyon and one from nowhere.
    let told = pipeline.deploy(&["--set", "non_usa=alerts", "--sample", "600"]);
    assert_eq!((told.code, &told.said["deployed"]), (Some(0), &Value::Bool(true)), "{}", told.all);
    let sample = &told.said["sample"];
    assert_eq!((&sample["read"], &sample["records"]), (&600.into(), &600.into()), "{sample}");
    let of = |side: &str, what: &str| sample[side][what].as_u64().expect("a number");
    let on = |side: &str, route: &str| sample[side]["routed"][route].as_u64().expect("a number");
    assert_eq!(on("was", "usa"), on("is", "usa"), "{sample}");
    let moved = of("was", "dropped");
    assert!(moved > 0 && of("is", "dropped") == 0, "{sample}");
    assert_eq!((on("was", "alerts") + moved, on("is", "other")), (on("is", "alerts"), 0), "{sample}");
    assert_eq!(sample["comparison"]["different"], moved);
    let found = &sample["comparison"]["found"][0];
    assert_eq!((&found["was"], &found["is"]), (&"dropped".into(), &"route alerts".into()), "{found}");
    assert_eq!(found["samples"][0]["topic"], *pipeline.topic, "{found}");

    // More than there are: all.
    let told = pipeline.deploy(&["--set", "non_usa=other", "--sample", "100000"]);
    assert_eq!(told.said["sample"]["read"], 1_000, "{}", told.all);
    pipeline.send(1_000, &[]);
    pipeline.wait_until_all_is_there();
    stop([process]);
    pipeline.judge();
}

#[test]
fn a_column_that_a_table_lacks_and_that_may_be_null_is_added_where_somebody_asks_for_it() {
    let (mut pipeline, process) = without_others();
    pipeline.ask("ALTER TABLE other DROP COLUMN value_bytes");
    let change = ["--set", "non_usa=other"];
    let told = pipeline.deploy(&change);
    assert_eq!((told.code, &told.said["deployed"]), (Some(2), &Value::Bool(false)), "{}", told.all);
    assert!(told.said["refused"].to_string().contains("no column `value_bytes`"), "{}", told.all);
    let told = pipeline.deploy(&[&change[..], &["--ddl"]].concat());
    let statements = told.said["statements"].clone();
    let statement = statements[0].as_str().expect("a statement");
    assert!(
        told.code == Some(0) && statement.ends_with(".\"other\" ADD COLUMN \"value_bytes\" bytea"),
        "{statements}"
    );
    // One that may not be null is for a person, and nothing is done by halves.
    pipeline.ask("ALTER TABLE other DROP COLUMN weir_plan");
    let told = pipeline.deploy(&[&change[..], &["--migrate"]].concat());
    assert!(told.code != Some(0) && told.all.contains("no column `weir_plan`"), "{}", told.all);
    pipeline.ask("ALTER TABLE other ADD COLUMN weir_plan bigint NOT NULL DEFAULT 0");
    let told = pipeline.deploy(&[&change[..], &["--ddl"]].concat());
    assert_eq!(told.said["statements"], statements, "{}", told.all);
    let told = pipeline.deploy(&[&change[..], &["--migrate"]].concat());
    assert_eq!((&told.said["deployed"], &told.said["statements"]), (&true.into(), &statements));
    pipeline.send(1_000, &[]);
    pipeline.wait_until_all_is_there();
    stop([process]);
    let judged = pipeline.judge();
    assert_eq!((&judged["plans"], &judged["plans_with_rows"]), (&2.into(), &2.into()), "{judged}");
}

#[test]
#[expect(clippy::print_stdout, reason = "names the files that were made")]
fn no_file_in_hdfs_has_rows_of_two_plans_however_often_the_rule_is_replaced() {
    const SWAPS: usize = 10;
    let cluster = Cluster::take();
    let mut pipeline = Pipeline::new(PARTITIONS);
    let directory = format!("/weir-tests/{}", pipeline.topic);
    pipeline.leave_only_files();
    let url = format!("url = \"{}{directory}\"", cluster.hdfs.url());
    pipeline.edit(|text| text.replace("path = \"out\"", &url) + ADMIN);
    pipeline.send(2_000, &[]);
    let processes = [pipeline.start(), pipeline.start()];
    pipeline.wait_until_all_is_there();
    let load = Load::start(&pipeline, 1_000);
    for n in 0..SWAPS {
        let change = format!("non_usa={}", ["alerts", "other"][n % 2]);
        let told = pipeline.deploying(FILE_NAME, &["--set", &change], "60 s").output();
        let told = Told::of(&told.expect("the program starts"));
        let cuts = told.said["cuts"].as_array().map_or(0, Vec::len);
        assert_eq!(
            (told.code, cuts),
            (Some(0), usize::from(PARTITIONS)),
            "{}\n{}",
            told.all,
            pipeline.logs()
        );
    }
    load.end();
    pipeline.wait_until_all_is_there();
    stop(processes);

    let lake = pipeline.path("lake");
    cluster.hdfs.fs(&["-get", &directory, lake.to_str().expect("text")]).expect("it is fetched");
    let (mut made_by, mut plans) = (BTreeMap::new(), BTreeSet::new());
    for route in ROUTES.iter().chain(&["dead_letters"]) {
        for file in fs::read_dir(lake.join(route)).expect("a directory") {
            let path = file.expect("listed").path();
            let mut of_file = BTreeSet::new();
            for line in fs::read_to_string(&path).expect("text").lines() {
                let row: Value = serde_json::from_str(line).expect("JSON");
                let of = |name: &str| row[name].as_u64().expect("a number");
                let record = (of("weir_partition"), of("weir_offset"));
                assert_eq!(made_by.insert(record, of("weir_plan")), None, "twice: {record:?}");
                of_file.insert(of("weir_plan"));
            }
            println!("plan {of_file:?}: {route}/{}", path.file_name().expect("a name").display());
            assert_eq!(of_file.len(), 1, "{}", path.display());
            plans.extend(of_file);
        }
    }
    let sent: u64 = pipeline.ends().expect("the brokers answer").iter().sum();
    assert_eq!((made_by.len() as u64, plans.len()), (sent, SWAPS + 1));
    let made_by: Vec<_> = made_by.into_iter().collect();
    let goes_back = |pair: &[((u64, u64), u64)]| pair[0].0.0 == pair[1].0.0 && pair[0].1 > pair[1].1;
    assert!(!made_by.windows(2).any(goes_back), "a plan came after a newer one");
}

/// A copy of what was fetched, in which something is to be changed.
struct Dumped<'a> {
    from: &'a Path,
    to: PathBuf,
}

impl<'a> Dumped<'a> {
    fn copy(from: &'a Path, n: usize) -> Self {
        let to = from.with_file_name(format!("damaged-{n}"));
        let copy = Command::new("cp").arg("-r").arg(from).arg(&to).status().expect("cp is there");
        assert!(copy.success());
        Self { from, to }
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<String>)) {
        let text = fs::read_to_string(self.from.join(file)).expect("readable");
        let mut lines = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        fs::write(self.to.join(file), lines.join("\n") + "\n").expect("writable");
    }
}

/// Plan of the American on a line of a topic, and what it looks like with another.
fn plan_of(line: &str) -> (&str, impl Fn(u64) -> String) {
    let begin = line.find("weir-origin").expect("its origin");
    let end = begin + line[begin..].find('}').expect("its end");
    let number = line[begin..end].rfind('/').expect("a plan") + begin + 1;
    let behind = number + line[number..].find('"').expect("a text");
    (&line[number..behind], move |plan| format!("{}{plan}{}", &line[..number], &line[behind..]))
}

/// A line of a topic as if its row came of another record.
fn of_record(line: &str, partition: &str, offset: &str) -> String {
    let begin = line.find("weir-origin").expect("its origin");
    let place = begin + line[begin..].find('/').expect("a topic in front of it") + 1;
    let end = place + line[place..].find('"').expect("a text");
    let [_, _, index, plan] = line[place..end].split('/').collect::<Vec<_>>()[..] else { panic!("{line}") };
    format!("{}{partition}/{offset}/{index}/{plan}{}", &line[..place], &line[end..])
}

#[test]
fn the_judge_names_a_row_that_is_gone_is_there_twice_or_is_of_another_plan() {
    let mut pipeline = pipeline();
    let process = pipeline.start();
    let mut plans = Vec::new();
    for n in 0..3 {
        pipeline.send_aged(400, &[], age);
        pipeline.wait_until_all_is_there();
        plans.push(pipeline.swap(n));
    }
    pipeline.send_aged(400, &[], age);
    pipeline.wait_until_all_is_there();
    stop([process]);
    pipeline.judge();
    let dumped = pipeline.path("dumped");
    let (topic, table, letters) = ("topics/usa.jsonl", "base/usa.csv", "base/dead_letters.csv");
    // Seen from behind: in front of it values may have commas in them.
    let column = |table, name| {
        let rows = fs::read_to_string(dumped.join(table)).expect("readable");
        let column = rows.lines().next().expect("a header").rsplit(',').position(|found| found == name);
        column.expect("rows tell where they come from")
    };
    let with_plan = |table, row: &str, plan: u64| {
        let mut values: Vec<_> = row.rsplit(',').map(str::to_owned).collect();
        values[column(table, "weir_plan")] = plan.to_string();
        values.reverse();
        values.join(",")
    };
    // Of the first plan among those that were put, with another one on both sides of it.
    let of_plan =
        |lines: &[String], plan: u64| lines.iter().rposition(|line| plan_of(line).0 == plan.to_string());

    type Damage<'a> = &'a dyn Fn(&Dumped);
    let damages: [(&str, Damage); 12] = [
        ("lost", &|copy| copy.change(topic, |lines| drop(lines.remove(7)))),
        ("in one sink alone", &|copy| copy.change(table, |rows| drop(rows.remove(7)))),
        ("twice", &|copy| copy.change(table, |rows| rows.push(rows[7].clone()))),
        ("sinks differ", &|copy| {
            copy.change(topic, |lines| {
                let here = of_plan(lines, plans[0]).expect("it made rows");
                let changed = plan_of(&lines[here]).1(plans[1]);
                lines[here] = changed;
            });
        }),
        ("plan goes down", &|copy| {
            let down = |lines: &mut Vec<String>| {
                let here = of_plan(lines, plans[2]).expect("it made rows");
                let changed = plan_of(&lines[here]).1(plans[0]);
                lines[here] = changed;
            };
            copy.change(topic, down);
        }),
        ("not what its plan makes", &|copy| {
            copy.change(table, |rows| rows[7] = rows[7].replacen("Ada", "Eva", 1));
        }),
        ("no such plan", &|copy| copy.change(table, |rows| rows[7] = with_plan(table, &rows[7], 999))),
        // The first letters are of a time in which all plans reject.
        ("lost", &|copy| copy.change(letters, |rows| drop(rows.remove(1)))),
        ("twice", &|copy| copy.change(letters, |rows| rows.push(rows[1].clone()))),
        ("not what its plan makes", &|copy| {
            copy.change(letters, |rows| rows[1] = rows[1].replacen("age-not-integer", "age-out-of-range", 1));
        }),
        // The second of the plans that were put makes a customer of it.
        ("not what its plan makes", &|copy| {
            copy.change(letters, |rows| rows[1] = with_plan(letters, &rows[1], plans[1]));
        }),
        // Of a record that is a dead letter the other sink has a row.
        ("not what its plan makes", &|copy| {
            let rows = fs::read_to_string(dumped.join(letters)).expect("readable");
            let row: Vec<_> = rows.lines().nth(1).expect("a letter").rsplit(',').collect();
            let [partition, offset] =
                ["weir_partition", "weir_offset"].map(|name| row[column(letters, name)]);
            copy.change(topic, |lines| lines.push(of_record(&lines[7], partition, offset)));
        }),
    ];
    for (n, (name, damage)) in damages.into_iter().enumerate() {
        let copy = Dumped::copy(&dumped, n);
        damage(&copy);
        let judged = judge(&copy.to);
        assert_eq!(judged.code, Some(1), "{name}: {}", judged.all);
        assert!(judged.all.contains(&format!("\n{name}: ")), "{name}: {}", judged.all);
    }
}
