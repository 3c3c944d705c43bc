//! The real servers, started, asked, killed and started again. Each test has servers of its own and holds that none of
//! their processes is left; it never touches a server that was there before.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use weir_services::{Service, Services, State};

#[test]
fn what_postgres_has_committed_is_there_after_a_kill() {
    with_own(|services| {
        let postgres = services.postgres().unwrap();
        up(&postgres);
        psql(&postgres.url(), "create table t (n int); insert into t values (1), (2)");
        postgres.kill().unwrap();
        assert_eq!(postgres.server().state().unwrap(), State::Down);
        up(&postgres);
        assert_eq!(psql(&postgres.url(), "select sum(n) from t"), "3");
    });
}

#[test]
fn a_session_that_is_open_keeps_postgres_from_stopping_for_no_longer_than_a_moment() {
    with_own(|services| {
        let postgres = services.postgres().unwrap();
        up(&postgres);
        let mut client = Client::new(&postgres.url());
        assert_eq!(client.ask("select 1"), "1", "it is open");
        postgres.stop().unwrap();
        // Only an orderly stop leaves nothing to recover.
        let log = fs::read_to_string(postgres.server().log()).unwrap();
        up(&postgres);
        let log = fs::read_to_string(postgres.server().log()).unwrap()[log.len()..].to_owned();
        assert!(!log.contains("was not properly shut down"), "{log}");
    });
}

#[test]
fn a_paused_postgres_answers_nobody_until_it_is_resumed() {
    with_own(|services| {
        let postgres = services.postgres().unwrap();
        up(&postgres);
        postgres.pause().unwrap();
        let mut ask = Command::new("psql");
        let ask = ask.args(["-X", "-c", "select 1"]).arg(postgres.url()).env("PGCONNECT_TIMEOUT", "2");
        assert!(!ask.output().unwrap().status.success());
        postgres.resume().unwrap();
        assert_eq!(psql(&postgres.url(), "select 1"), "1");
    });
}

#[test]
fn clients_of_a_pooler_have_one_session_of_the_server_in_turn() {
    with_own(|services| {
        let (postgres, pooler) = (services.postgres().unwrap(), services.pgbouncer().unwrap());
        // At once, as `run` does.
        postgres.start().unwrap();
        pooler.start().unwrap();
        postgres.wait_ready().unwrap();
        pooler.wait_ready().unwrap();
        let mut client = Client::new(&pooler.address());
        let session = client.ask("select pg_backend_pid()");
        assert_eq!(psql(&pooler.address(), "select pg_backend_pid()"), session);
        assert_ne!(psql(&postgres.url(), "select pg_backend_pid()"), session);
        assert_eq!(client.ask("select pg_backend_pid()"), session);
    });
}

#[test]
fn a_broker_that_was_killed_comes_back_at_its_address() {
    with_own(|services| {
        let kafka = services.kafka().unwrap();
        up(&kafka);
        assert!(api_keys(&kafka.address()).contains(&PRODUCE));
        kafka.broker(1).unwrap().kill().unwrap();
        assert!(TcpStream::connect(kafka.address()).is_err());
        up(&kafka);
        assert!(api_keys(&kafka.address()).contains(&PRODUCE));
    });
}

#[test]
fn a_file_outlives_the_kill_of_the_datanode_that_has_it() {
    with_own(|services| {
        let hdfs = services.hdfs().unwrap();
        up(&hdfs);
        let file = services.dir().join("hdfs/file");
        fs::write(&file, "so it is\n").unwrap();
        hdfs.fs(&["-put", file.to_str().unwrap(), "/there"]).unwrap();
        let datanode = hdfs.datanode(1).unwrap();
        datanode.kill().unwrap();
        assert_eq!(hdfs.namenode().state().unwrap(), State::Running);
        datanode.start().unwrap();
        datanode.wait_ready().unwrap();
        assert_eq!(hdfs.fs(&["-cat", "/there"]).unwrap(), "so it is\n");
        let error = hdfs.fs(&["-cat", "/elsewhere"]).unwrap_err().to_string();
        assert!(error.contains("No such file or directory"), "{error}");
    });
}

#[test]
fn what_is_up_stays_up_when_it_is_brought_up_again_and_goes_when_it_is_wiped() {
    let temp = tempfile::Builder::new().prefix("weir-services-").tempdir().unwrap();
    let dir = temp.path().join("of-services");
    let weir_services = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).arg("--dir").arg(&dir).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    open_to_all(temp.path());
    let first = weir_services(&["up", "postgres"]);
    let url = first.lines().find_map(|line| line.strip_prefix("export WEIR_TEST_POSTGRES=")).unwrap();
    assert_eq!(psql(url, "select 1"), "1");
    let running = weir_services(&["status"]);
    assert!(running.contains("running, process"), "{running}");
    assert_eq!(weir_services(&["up", "postgres"]), first);
    let processes = |text: &str| text.split("process ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    assert_eq!(processes(&weir_services(&["status"])), processes(&running));
    weir_services(&["down"]);
    assert_eq!(processes_in(&dir), [""; 0]);
    assert_eq!(weir_services(&["up", "postgres"]), first, "it comes back where it was");
    weir_services(&["down", "--wipe"]);
    assert_eq!(processes_in(&dir), [""; 0]);
    assert!(!dir.exists());
}

#[test]
fn a_command_is_told_its_servers_and_its_exit_code_is_handed_on_when_they_are_gone() {
    let temp = tempfile::Builder::new().prefix("weir-services-").tempdir().unwrap();
    open_to_all(temp.path());
    let dir = temp.path().join("of-services");
    let script = "psql -tAc 'select 6 * 7' $WEIR_TEST_POSTGRES; echo $WEIR_SERVICES_DIR; exit 7";
    let mut run = Command::new(PROGRAM);
    let output =
        run.args(["run", "postgres", "--dir"]).arg(&dir).args(["--", "sh", "-c", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().collect::<Vec<_>>(), ["42", dir.to_str().unwrap()], "{output:?}");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(processes_in(&dir), [""; 0]);
}

#[test]
fn what_runs_already_is_left_running_by_a_command_that_uses_it() {
    with_own(|services| {
        let postgres = services.postgres().unwrap();
        up(&postgres);
        let process = postgres.server().process_and_memory().unwrap().unwrap().0;
        let mut run = Command::new(PROGRAM);
        let run = run.args(["run", "postgres", "--dir"]).arg(services.dir()).args(["--", "true"]);
        assert!(run.status().unwrap().success());
        assert_eq!(postgres.server().process_and_memory().unwrap().unwrap().0, process);
        assert_eq!(psql(&postgres.url(), "select 1"), "1");
    });
}

#[test]
fn a_run_that_is_told_to_end_takes_its_command_and_its_servers_with_it() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 143)] {
        let mut run = Command::new(PROGRAM);
        let script = "echo $WEIR_SERVICES_DIR; exec sleep 1000";
        let run = run.env_remove("WEIR_SERVICES_DIR").args(["run", "postgres", "--", "sh", "-c", script]);
        let mut run = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut dir = String::new();
        BufReader::new(run.stdout.take().unwrap()).read_line(&mut dir).unwrap();
        let dir = Path::new(dir.trim_end());
        assert!(!processes_in(dir).is_empty());
        kill_process(Pid::from_child(&run), signal).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(code), "that of the command, which got SIGTERM");
        assert_eq!(processes_in(dir), [""; 0]);
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir-services");

/// The number of a request to Kafka.
const PRODUCE: i16 = 0;

/// Services that only `check` has. They are gone after it.
fn with_own(check: impl FnOnce(&Services)) {
    let services = Services::temporary().unwrap();
    let dir = services.dir().to_owned();
    check(&services);
    assert!(!processes_in(&dir).is_empty(), "or this looks for them in a wrong way");
    drop(services);
    assert_eq!(processes_in(&dir), [""; 0]);
    assert!(!dir.exists());
}

fn up(service: &dyn Service) {
    service.start().and_then(|()| service.wait_ready()).unwrap();
}

/// The command lines of all processes that work in a directory or name it.
fn processes_in(dir: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let works_there = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        (works_there || command.contains(dir.to_str()?)).then_some(command)
    });
    processes.collect()
}

/// PostgreSQL may run as another user than this test.
fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// A psql with an open session.
struct Client {
    psql: Child,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn new(url: &str) -> Self {
        let mut psql = Command::new("psql");
        let psql = psql.args(["-X", "-tA"]).arg(url).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut psql = psql.spawn().unwrap();
        let answers = BufReader::new(psql.stdout.take().unwrap());
        Self { psql, answers }
    }

    /// One line.
    fn ask(&mut self, sql: &str) -> String {
        writeln!(self.psql.stdin.as_ref().unwrap(), "{sql};").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.psql.stdin.take());
        self.psql.wait().unwrap();
    }
}

fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql")
        .args(["-X", "-q", "-tA", "-v", "ON_ERROR_STOP=1", "-c", sql, url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The numbers of the requests that a broker takes, asked of it byte by byte.
fn api_keys(address: &str) -> Vec<i16> {
    const API_VERSIONS: [u8; 10] = [0, 18, 0, 0, 0, 0, 0, 42, 0xff, 0xff];
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&[0, 0, 0, 10])?;
        stream.write_all(&API_VERSIONS)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap();
    let (head, keys) = answer.split_at(10);
    assert_eq!(head[..6], [0, 0, 0, 42, 0, 0], "our number, and no error");
    keys.chunks_exact(6).map(|key| i16::from_be_bytes([key[0], key[1]])).collect()
}
