//! A pipeline that runs is looked at, from outside of its process.

use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::guests;
use crate::run::{FILE, Pipeline, said, stderr};

/// A process that is gone when the test is.
pub(crate) struct Running(Child);

impl Running {
    /// Runs a pipeline until it is told to stop, and waits until it can be looked at.
    pub(crate) fn start(pipeline: &Pipeline) -> Self {
        Self::with(pipeline, &[])
    }

    pub(crate) fn with(pipeline: &Pipeline, args: &[&str]) -> Self {
        let mut run = pipeline.weir("run", args);
        let log = File::create(pipeline.path("log")).expect("writable");
        let child = run.stdout(Stdio::null()).stderr(log).spawn().expect("the program starts");
        let mut running = Self(child);
        while status(pipeline).0 != Some(0) {
            running.assert_alive();
        }
        running
    }

    pub(crate) fn assert_alive(&mut self) {
        assert_eq!(self.0.try_wait().expect("it is ours"), None, "it runs until it is told to stop");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its own end.
    pub(crate) fn ends(mut self) -> Option<i32> {
        self.0.wait().expect("it ends").code()
    }

    pub(crate) fn end(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A pipeline with these records, and these keys of `[admin]`.
fn pipeline(records: &[&str], admin: &str) -> Pipeline {
    let pipeline = Pipeline::of(guests::hostile(), &format!("{FILE}\n[admin]\n{admin}\n"));
    pipeline.input(&records.iter().map(ToString::to_string).collect::<Vec<_>>());
    pipeline
}

/// The exit code, and what it says.
pub(crate) fn status(pipeline: &Pipeline) -> (Option<i32>, Value) {
    let output = pipeline.weir("status", &["--json"]).output().expect("the program starts");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

fn address(pipeline: &Pipeline) -> SocketAddr {
    let (_, said) = status(pipeline);
    let text = said["processes"][0]["process"]["listen"].as_str().expect("it listens").to_owned();
    text.parse().expect("an address")
}

/// The code and the body.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it reads");
    answer(stream)
}

fn answer(mut stream: impl Read) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code"), body.to_owned())
}

/// Asks until it is as expected.
fn wait_for(
    running: &mut Running,
    address: SocketAddr,
    path: &str,
    expected: impl Fn(u16, &str) -> bool,
) -> String {
    loop {
        let (code, body) = get(address, path);
        if expected(code, &body) {
            return body;
        }
        running.assert_alive();
    }
}

#[test]
fn a_pipeline_that_runs_can_be_looked_at_until_it_ends() {
    let pipeline = pipeline(&["one", "two", "drop", "reject"], "listen = \"127.0.0.1:0\"");
    let mut running = Running::start(&pipeline);
    let address = address(&pipeline);
    let done = |_: u16, body: &str| body.contains("weir_partitions_finished_total{pipeline=\"it\"} 1\n");
    let numbers = wait_for(&mut running, address, "/metrics", done);
    for line in [
        "weir_records_total{pipeline=\"it\"} 4",
        "weir_record_fates_total{pipeline=\"it\",fate=\"routed\"} 2",
        "weir_record_fates_total{pipeline=\"it\",fate=\"dropped\"} 1",
        "weir_rows_total{pipeline=\"it\",sink=\"out\",target=\"ok\"} 2",
        "weir_rows_total{pipeline=\"it\",sink=\"out\",target=\"dead\"} 1",
        "weir_commits_total{pipeline=\"it\",sink=\"out\"} 1",
        "weir_rows_refused_total{pipeline=\"it\",sink=\"out\"} 0",
        "weir_budget_used_bytes{pipeline=\"it\"} 0",
    ] {
        assert!(numbers.lines().any(|found| found == line), "{line} is not in\n{numbers}");
    }
    assert_eq!((get(address, "/healthz").0, get(address, "/readyz").0), (200, 200));
    let answer: Value = serde_json::from_str(&get(address, "/status").1).expect("JSON");
    assert_eq!(
        (&answer["process"]["pid"], &answer["status"]["records"]["taken"]),
        (&running.0.id().into(), &4.into())
    );
    let shown = pipeline.weir("status", &[]).output().expect("the program starts");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    // Each number of the equation, and each row of a sink, has a line of its own.
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in [
        "in 4",
        "on route ok 2",
        "rejected, refused 1",
        "dropped 1",
        "failed 0",
        "every record is accounted for: 4 in = 2 routed + 1 rejected + 1 dropped + 0 failed",
        "ok 2",
        "dead 1",
    ] {
        assert!(words.iter().any(|words| words.join(" ") == line), "{line} is not in\n{text}");
    }
    assert!(words.iter().any(|words| words.starts_with(&["out", "3"])), "{text}");
    let asked = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["status", "--json", "--address", &address.to_string()])
        .output()
        .expect("the program starts");
    assert_eq!(said(&asked)["processes"][0]["process"], answer["process"]);
    assert_eq!(running.end(), Some(0));
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    assert_eq!(std::fs::read_dir(pipeline.path("state/admin")).expect("it was made").count(), 0);
    let (code, said) = status(&pipeline);
    assert_eq!((code, &said["history"]["done"][0]["records"]), (Some(3), &4.into()));
}

#[test]
fn two_pipelines_with_one_port_and_one_directory_of_sockets_are_told_apart() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let sockets = tempfile::tempdir().expect("a temporary directory");
    let port = taken.local_addr().expect("it listens").port();
    let admin = format!("listen = \"127.0.0.1:{port}\"\nsocket = \"{}\"", sockets.path().display());
    let (one, other) = (pipeline(&["one"], &admin), pipeline(&["one", "two"], &admin));
    other.write(
        &std::fs::read_to_string(other.path("pipeline.toml"))
            .expect("written")
            .replace("\"it\"", "\"other\""),
    );
    let running = [Running::start(&one), Running::start(&other)];
    let addresses = [address(&one), address(&other)];
    assert!(
        addresses[0] != addresses[1] && addresses.iter().all(|address| address.port() > port),
        "{addresses:?}"
    );
    for (pipeline, running) in [(&one, &running[0]), (&other, &running[1])] {
        let (code, said) = status(pipeline);
        let processes = said["processes"].as_array().expect("a list");
        assert_eq!((code, processes.len()), (Some(0), 1));
        assert_eq!(processes[0]["process"]["pid"], running.0.id());
    }
}

#[test]
fn a_process_that_was_killed_leaves_a_socket_that_nobody_takes_for_it() {
    let pipeline = pipeline(&["one"], "listen = \"none\"");
    let mut killed = Running::start(&pipeline);
    killed.signal(Signal::KILL);
    killed.0.wait().expect("it ends");
    let sockets = || std::fs::read_dir(pipeline.path("state/admin")).expect("it was made").count();
    assert_eq!((sockets(), status(&pipeline).0), (1, Some(3)));
    let running = Running::start(&pipeline);
    assert_eq!((sockets(), &status(&pipeline).1["processes"][0]["process"]["listen"]), (1, &Value::Null));
    assert_eq!(running.end(), Some(0));
    assert_eq!(sockets(), 0);
}

#[test]
fn an_address_of_another_machine_is_refused_before_a_record_is_read() {
    let pipeline = pipeline(&["one"], "listen = \"192.0.2.1:9640\"");
    let refused = pipeline.weir("run", &["--once"]).output().expect("the program starts");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("cannot listen at 192.0.2.1:9640"), "{}", stderr(&refused));
    assert!(!pipeline.path("out/ok").exists());
}

#[test]
fn who_asks_where_nobody_runs_is_told_so() {
    let pipeline = pipeline(&["one"], "listen = \"none\"");
    let output = pipeline.weir("status", &[]).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3));
    assert!(text.contains("it: nothing runs on this machine") && text.contains("it has never run"), "{text}");
    assert!(!pipeline.path("state").exists(), "who looks makes nothing");
}

/// Tells the pipeline something; the exit code, and what is answered.
fn tell(pipeline: &Pipeline, command: &str, args: &[&str]) -> (Option<i32>, Value) {
    let output = pipeline.weir(command, &[&["--json"], args].concat()).output().expect("the program starts");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

/// Pauses a process before it does anything else: it is stopped until the order waits in its socket.
fn pause_at_once(pipeline: &Pipeline, running: &Running) -> (u16, Value) {
    running.signal(Signal::STOP);
    let socket = std::fs::read_dir(pipeline.path("state/admin")).expect("it was made").next();
    let mut stream =
        UnixStream::connect(socket.expect("it listens").expect("readable").path()).expect("it listens");
    write!(stream, "POST /pause HTTP/1.0\r\nContent-Length: 0\r\n\r\n").expect("it reads");
    running.signal(Signal::CONT);
    let (code, body) = answer(stream);
    (code, serde_json::from_str(&body).expect("JSON"))
}

/// So many that a run does not come to their end before somebody tells it something, on however busy a machine.
const MANY: usize = 2_000_000;

/// Of them, little is under way at a time: a pause waits for what is.
fn pipeline_of_many() -> Pipeline {
    let little = "[limits]\nin_flight_bytes = \"64 KiB\"\nbatch_bytes = \"4 KiB\"\n";
    let pipeline = pipeline(&vec!["one"; MANY], "listen = \"127.0.0.1:0\"");
    let file = std::fs::read_to_string(pipeline.path("pipeline.toml")).expect("written");
    pipeline.write(&file.replace("[limits]\n", little));
    pipeline
}

#[test]
fn a_pause_commits_what_was_read_holds_over_a_restart_and_ends_where_it_began() {
    let pipeline = pipeline_of_many();
    let mut running = Running::start(&pipeline);
    let address = address(&pipeline);
    wait_for(&mut running, address, "/metrics", |_, body| {
        !body.contains("weir_records_total{pipeline=\"it\"} 0\n")
    });
    let (code, said) = pause_at_once(&pipeline, &running);
    assert_eq!((code, &said["changed"]), (200, &true.into()), "{said}");
    let (code, said) = tell(&pipeline, "pause", &[]);
    assert_eq!((code, &said["processes"][0]["changed"]), (Some(0), &false.into()), "{said}");
    let status = &said["processes"][0]["status"];
    let partition = &status["partitions"][0];
    assert_eq!(
        (&partition["state"], &partition["read"]),
        (&"paused".into(), &partition["committed"]["out"]),
        "{status}"
    );
    let read = partition["read"].as_i64().expect("a number");
    assert!(0 < read && read < MANY as i64, "paused at {read}");
    assert_eq!(pipeline.offsets("ok"), (0..read).collect::<Vec<_>>(), "all that was read is there");
    let (code, body) = get(address, "/readyz");
    assert!(code == 503 && body.contains("it was paused by uid"), "{body}");
    assert!(get(address, "/metrics").1.contains("weir_paused{pipeline=\"it\"} 1\n"));
    assert_eq!(running.end(), Some(0));

    let mut again = pipeline.weir("run", &[]);
    let mut running =
        Running(again.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts"));
    let held = || self::status(&pipeline).1["processes"][0]["status"]["partitions"][0]["state"] == "paused";
    while !held() {
        running.assert_alive();
    }
    assert_eq!(pipeline.offsets("ok").len() as i64, read, "nothing was read");
    let (code, said) = tell(&pipeline, "resume", &[]);
    assert_eq!((code, &said["processes"][0]["changed"]), (Some(0), &true.into()), "{said}");
    let stands = || self::status(&pipeline).1["processes"][0]["status"]["partitions"][0]["read"].as_i64();
    while stands().is_none_or(|now| now == read) {
        running.assert_alive();
    }
    running.signal(Signal::TERM);
    let mut told = String::new();
    running.0.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    assert!(told.contains("paused by uid") && told.contains("until `weir resume"), "{told}");
    let all = pipeline.offsets("ok");
    assert!(
        all.len() as i64 > read && all.iter().copied().eq(0..all.len() as i64),
        "{} after {read}",
        all.len()
    );
}

#[test]
fn a_run_that_ends_while_it_is_paused_does_not_say_that_there_is_nothing_new() {
    let pipeline = pipeline(&["one"], "listen = \"none\"");
    let mut running = Running::start(&pipeline);
    while self::status(&pipeline).1["processes"][0]["status"]["finished"] != 1 {
        running.assert_alive();
    }
    assert_eq!(tell(&pipeline, "pause", &[]).0, Some(0));
    assert_eq!(running.end(), Some(0));
    fs::write(pipeline.path("input/b.jsonl"), "two").expect("writable");
    let mut again = pipeline.weir("run", &[]);
    let again = again.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let mut again = Running(again);
    while self::status(&pipeline).1["processes"][0]["status"]["paused"].is_null() {
        again.assert_alive();
    }
    again.signal(Signal::TERM);
    let mut said = String::new();
    again.0.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(said.contains("nothing was read: paused by uid"), "{said}");
}

#[test]
fn one_partition_is_paused_and_the_others_go_on() {
    let pipeline = pipeline_of_many();
    let mut running = Running::start(&pipeline);
    let address = address(&pipeline);
    wait_for(&mut running, address, "/metrics", |_, body| {
        body.contains("weir_partitions{pipeline=\"it\",state=\"running\"} 1\n")
    });
    assert_eq!(tell(&pipeline, "pause", &["--partition", "records:0"]).0, Some(0));
    std::fs::write(pipeline.path("input/b.jsonl"), "two\n").expect("writable");
    wait_for(&mut running, address, "/metrics", |_, body| {
        body.contains("weir_partitions_finished_total{pipeline=\"it\"} 1\n")
    });
    let (_, said) = status(&pipeline);
    let partitions = said["processes"][0]["status"]["partitions"].as_array().expect("a list");
    assert_eq!(
        (partitions.len(), &partitions[0]["input"], &partitions[0]["state"]),
        (1, &"a.jsonl".into(), &"paused".into())
    );
    let refused = pipeline.weir("pause", &["--partition", "records:7"]).output().expect("the program starts");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("does not have partition records/7"), "{}", stderr(&refused));
    assert_eq!(tell(&pipeline, "resume", &["--partition", "records/0"]).0, Some(0));
    assert_eq!(running.end(), Some(0));
}

#[test]
fn nothing_can_be_paused_where_nothing_runs() {
    let pipeline = pipeline(&["one"], "listen = \"none\"");
    for command in ["pause", "resume"] {
        assert_eq!(tell(&pipeline, command, &[]), (Some(3), serde_json::json!({ "processes": [] })));
    }
}
