//! What is answered, over real connections.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::ask::Place;
use super::*;
use crate::commit::WriterStats;
use crate::offset::Offset;
use crate::pipeline::shadow::{ShadowState, Standing};
use crate::pipeline::status::{BudgetStatus, Cost, Partition, Records, SinkCounts, SinkStatus, State};
use crate::pipeline::threads;
use crate::sink::state::PlanRef;

/// Of a pipeline `p` with one partition that runs, and one sink.
pub(super) fn answer() -> Answer {
    let records = Records { taken: 50, routed: 49, failed: 1, conserved: true, ..Records::default() };
    let sink = SinkStatus {
        name: "lake".into(),
        rows: BTreeMap::from([("usa".into(), 49)]),
        dropped: 0,
        writer: WriterStats { commits: 2, ..WriterStats::default() },
        own: SinkCounts { refused: 3, ..SinkCounts::default() },
        busy_ms: 250,
        calling_ms: None,
    };
    let partition = Partition {
        topic: "t".into(),
        partition: 3,
        input: None,
        state: State::Running,
        trouble: None,
        read: Some(Offset::new(50)),
        end: None,
        committed: BTreeMap::from([("lake".into(), Offset::new(40))]),
        plan: Some(1),
        judging: None,
    };
    let status = Status {
        pipeline: "p".into(),
        plan: PlanRef { plan: 1, digest: "sha256:ab".into() },
        trial: None,
        shadow: Some(Standing {
            shadow: 5,
            beside: 1,
            digest: "sha256:cd".into(),
            state: ShadowState::Running,
            records: 10,
            different: 3,
            of: None,
            skipped: 2,
            unjudged: 0,
            trouble: None,
            cpu_ns: 0,
            cpu_ns_beside: 0,
        }),
        costs: vec![Cost { plan: 1, records: 4, cpu_ns: 6_000 }],
        not_ready: None,
        running_ms: 1000,
        ending: false,
        paused: None,
        paused_partitions: Vec::new(),
        finished: 2,
        partitions: vec![partition],
        records,
        sinks: vec![sink],
        budget: BudgetStatus { used_bytes: 10, limit_bytes: 100 },
    };
    Answer { process: process(), status }
}

fn process() -> Process {
    Process { pid: std::process::id(), version: "0".into(), started_ms: 5, listen: None }
}

/// Whoever asks before anything else is put up is told the answer of these tests.
fn start(directory: &Path, listen: Option<SocketAddr>) -> (Server, threads::Desk) {
    let (handle, desk) = threads::handle(answer().status);
    let settings = Settings { listen, sockets: directory.to_owned() };
    (Server::start(&settings, handle, process()).expect("there is room"), desk)
}

fn anywhere() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The code, the head and the body.
fn http(server: &Server, method: &str, path: &str) -> (u16, String, String) {
    let address = server.address().expect("it listens");
    let mut stream = std::net::TcpStream::connect(address).expect("it answers");
    write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    (
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code"),
        head.to_owned(),
        body.to_owned(),
    )
}

#[test]
fn every_page_answers_what_the_pipeline_showed_last() {
    let directory = tempfile::tempdir().unwrap();
    let (server, desk) = start(directory.path(), anywhere());
    let (code, _, body) = http(&server, "GET", "/readyz");
    assert!(code == 503 && body.contains("it has not begun"), "{body}");
    for page in ["/status", "/metrics"] {
        assert_eq!(http(&server, "GET", page).0, 200, "{page}, before it begins");
    }
    desk.put_up(Status { running_ms: 77, ..answer().status });
    assert!(http(&server, "GET", "/status").2.contains("\"running_ms\":77"));
    desk.put_up(answer().status);
    let (code, head, body) = http(&server, "GET", "/status");
    let found: Answer = serde_json::from_str(&body).unwrap();
    assert_eq!((code, found.status), (200, answer().status));
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert_eq!(found.process.listen, server.address());
    assert_eq!(http(&server, "GET", "/healthz").0, 200);
    assert_eq!(http(&server, "GET", "/readyz").0, 200);
    let (code, head, body) = http(&server, "GET", "/metrics");
    assert!(code == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("weir_rows_total{pipeline=\"p\",sink=\"lake\",target=\"usa\"} 49\n"), "{body}");
}

#[test]
fn a_pipeline_that_waits_is_not_ready_and_says_for_what() {
    let directory = tempfile::tempdir().unwrap();
    let (server, desk) = start(directory.path(), anywhere());
    let mut status = answer().status;
    status.partitions[0].state = State::Stopped;
    desk.put_up(status);
    let (code, _, body) = http(&server, "GET", "/readyz");
    assert!(code == 503 && body.contains("t/3: stopped"), "{body}");
    assert_eq!(http(&server, "GET", "/healthz").0, 200, "it is alive");
}

#[test]
fn nobody_can_change_anything_where_everybody_may_look() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _desk) = start(directory.path(), anywhere());
    for path in ["/pause", "/resume"] {
        let (code, _, body) = http(&server, "POST", path);
        assert!(code == 403 && body.contains("weir pause"), "{body}");
    }
    assert_eq!(http(&server, "POST", "/status").0, 405);
    // Nor see what records hold.
    let (code, _, body) = http(&server, "GET", "/shadow");
    assert!(code == 403 && body.contains("weir shadow status"), "{body}");
    let told = ask::shadow(&Place::Socket(server.socket().to_owned())).unwrap();
    assert_eq!((told.process.pid, told.report), (process().pid, None), "nothing was tried");
    let (code, _, body) = http(&server, "GET", "/nothing");
    assert!(code == 404 && body.contains("/healthz"), "{body}");
}

#[test]
fn a_port_that_is_taken_is_passed_over_and_that_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (first, _desk) = start(directory.path(), anywhere());
    let (second, _other) = start(directory.path(), first.address());
    assert!(!first.moved() && second.moved());
    let ports = [&first, &second].map(|server| server.address().unwrap().port());
    assert!(ports[0] < ports[1], "{ports:?}");
    let mut ours: Vec<_> = [&first, &second].map(|server| server.socket().to_owned()).to_vec();
    ours.sort();
    assert_eq!(socket::list(directory.path()).unwrap(), ours, "each has a socket of its own");
}

#[test]
fn a_socket_is_for_its_owner_and_goes_with_its_process() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("admin");
    let (server, _desk) = start(&directory, None);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(server.socket())), (0o700, 0o600));
    let found = ask::processes(&directory, "p").unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0].0, &found[0].1.status),
        (&Place::Socket(server.socket().to_owned()), &answer().status)
    );
    assert_eq!(ask::processes(&directory, "another").unwrap(), []);
    drop(server);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    assert_eq!(ask::processes(&directory, "p").unwrap(), []);
}

#[test]
fn what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (dead, living) = (directory.path().join("1.sock"), directory.path().join("2.sock"));
    drop(UnixListener::bind(&dead).unwrap());
    let _listening = UnixListener::bind(&living).unwrap();
    let (server, _desk) = start(directory.path(), None);
    assert!(!dead.exists() && living.exists() && server.socket().exists());
}

#[test]
fn a_directory_that_is_too_deep_for_a_socket_has_one_nevertheless() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("d".repeat(120));
    let (server, _desk) = start(&directory, None);
    assert_eq!(ask::processes(&directory, "p").unwrap().len(), 1);
    drop(server);
    assert!(socket::list(&directory).unwrap().is_empty());
}

#[test]
fn what_cannot_be_listened_at_is_refused_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let (handle, _desk) = threads::handle(answer().status);
    // An address for documentation: no machine has it.
    let listen = Some("192.0.2.1:9640".parse().unwrap());
    let settings = Settings { listen, sockets: directory.path().to_owned() };
    let refused = Server::start(&settings, handle, process()).unwrap_err();
    assert!(refused.to_string().contains("192.0.2.1:9640"), "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("[admin]")));
}

#[test]
fn who_never_asks_anything_does_not_keep_others_from_an_answer_or_the_server_from_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _desk) = start(directory.path(), anywhere());
    let address = server.address().unwrap();
    let silent: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    assert_eq!(http(&server, "GET", "/healthz").0, 200);
    drop(server);
    drop(silent);
}
