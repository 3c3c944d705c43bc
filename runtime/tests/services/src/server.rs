//! One server: a process with a directory, a log and ports of its own. What it is (its configuration, its command, when it
//! answers) is for its `Kind` to say.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::Doing;
use crate::ports::is_free;
use crate::process::Process;
use crate::services::lock;
use crate::wait::{Interrupt, until};
use crate::{Error, Result};

/// For a server to answer. A JVM on a busy machine takes half a minute.
const READY: Duration = Duration::from_secs(90);

/// For a server to end by itself.
const STOP: Duration = Duration::from_secs(30);

/// The file of settings that a server was told besides, one in a line.
const SETTINGS: &str = "settings";

/// Of a log, in an error.
const LAST_LINES: usize = 20;

/// What kind of server it is.
pub(crate) trait Kind: Debug + Send + Sync {
    /// Those it listens on.
    fn ports(&self) -> Vec<u16>;

    /// Makes what the server needs and what is not there yet. May be called again after it failed or was killed.
    fn prepare(&self, place: &Place) -> Result<()>;

    fn command(&self, place: &Place) -> Result<Command>;

    fn is_ready(&self, place: &Place) -> bool;

    /// Makes it finish what it is doing and end.
    fn stop_signal(&self) -> Signal {
        Signal::TERM
    }
}

/// Where a server lives.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    /// What it listens at, and is reached at.
    pub(crate) host: Ipv4Addr,
    pub(crate) interrupt: Interrupt,
}

/// A server, whether it runs or not. All that is known of it stands in its directory: another process that opens the same
/// directory has the same server.
#[derive(Debug)]
pub struct Server {
    name: String,
    place: Place,
    /// Held while any server of the services is started.
    lock: PathBuf,
    kind: Box<dyn Kind>,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Down,
    Running,
    Paused,
}

impl Server {
    pub(crate) fn new(name: String, place: Place, lock: PathBuf, kind: impl Kind + 'static) -> Self {
        Self { name, place, lock, kind: Box::new(kind) }
    }

    /// As people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it wrote since its directory was made.
    pub fn log(&self) -> PathBuf {
        self.place.log()
    }

    /// Has it started with a setting of its own from its next start on: Kafka's in `server.properties`, Hadoop's in
    /// `hdfs-site.xml`. It takes the place of ours of that name.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let mut settings = self.place.settings();
        settings.retain(|(other, _)| other != name);
        settings.push((name.to_owned(), value.to_owned()));
        let text: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::create_dir_all(&self.place.dir).doing(|| format!("make {}", self.place.dir.display()))?;
        self.place.write(SETTINGS, &text)
    }

    pub fn state(&self) -> Result<State> {
        Ok(match self.process()? {
            Some(process) if process.is_paused() => State::Paused,
            Some(process) if process.is_running() => State::Running,
            _ => State::Down,
        })
    }

    /// Its number, if it runs, and the MiB of memory that are resident.
    pub fn process_and_memory(&self) -> Result<Option<(u32, u64)>> {
        let running = self.process()?.filter(Process::is_running);
        Ok(running.map(|process| (process.id(), process.resident_mib().unwrap_or(0))))
    }

    /// Starts it, and does not wait until it answers. Returns whether it was down: one that runs is left alone, one that
    /// is paused goes on.
    pub fn start(&self) -> Result<bool> {
        let _lock = lock(&self.lock)?;
        if self.state()? != State::Down {
            self.resume()?;
            return Ok(false);
        }
        for port in self.kind.ports() {
            if !is_free(self.place.host, port) {
                return Err(Error::new(format!(
                    "cannot start {}: its port {port} is taken by another program; end that, or have new ports chosen \
                     with `weir-services down --wipe`, which deletes the data",
                    self.name
                )));
            }
        }
        fs::create_dir_all(self.place.temp()).doing(|| format!("make {}", self.place.temp().display()))?;
        self.kind.prepare(&self.place)?;
        let log = self.place.open_log()?;
        let from = log.metadata().doing(|| format!("look at {}", self.log().display()))?.len();
        fs::write(self.place.log_begin(), from.to_string())
            .doing(|| format!("write in {}", self.place.dir.display()))?;
        let mut command = self.kind.command(&self.place)?;
        self.place.settle(&mut command, log)?;
        // Ctrl-C is for whoever started us; the servers are told when they shall stop.
        command.process_group(0);
        let child = command.spawn().doing(|| format!("start {}", self.name))?;
        // It is there until it is waited for, which only `Process` does.
        let process = Process::of(child.id()).ok_or_else(|| self.failed("ended at once"))?;
        process.record(&self.place.record())?;
        Ok(true)
    }

    /// Returns when it answers, and fails with the end of its log if it ends or does not answer within 90 s.
    pub fn wait_ready(&self) -> Result<()> {
        self.wait_until(|| Ok(self.kind.is_ready(&self.place)))
    }

    /// As [`Server::wait_ready`], for another sign of being ready.
    pub(crate) fn wait_until(&self, is_ready: impl Fn() -> Result<bool>) -> Result<()> {
        let look = || match self.state()? {
            State::Down => Err(self.failed("does not run")),
            State::Paused => Ok(None),
            State::Running => Ok(is_ready()?.then_some(())),
        };
        let late = || self.failed(&format!("does not answer after {} s", READY.as_secs()));
        until(&self.place.interrupt, READY, look)?.ok_or_else(late)
    }

    /// Ends it in an orderly way and waits until it is gone; kills it if that takes more than 30 s. Does nothing if it is
    /// down.
    pub fn stop(&self) -> Result<()> {
        stop_all(&[self])
    }

    /// Ends it, and all processes of its own, in the middle of whatever they are doing, and waits until they are gone.
    pub fn kill(&self) -> Result<()> {
        let Some(process) = self.process()? else { return Ok(()) };
        // Held still first, so that it starts no process that would be missed.
        process.signal(Signal::STOP)?;
        let family = process.family();
        for member in &family {
            member.signal(Signal::KILL)?;
        }
        let gone = || Ok((!family.iter().any(Process::is_running)).then_some(()));
        let still_there = || Error::new(format!("{} was killed and does not end", self.name));
        until(&Interrupt::default(), STOP, gone)?.ok_or_else(still_there)
    }

    /// Freezes it: it keeps its connections, and does nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal_family(Signal::STOP)?;
        let paused = || Ok((self.state()? != State::Running).then_some(()));
        let late = || Error::new(format!("{} does not pause", self.name));
        until(&Interrupt::default(), STOP, paused)?.ok_or_else(late)
    }

    /// Lets it go on after [`Server::pause`].
    pub fn resume(&self) -> Result<()> {
        self.signal_family(Signal::CONT)
    }

    fn signal_family(&self, signal: Signal) -> Result<()> {
        let Some(process) = self.process()? else { return Ok(()) };
        process.family().iter().try_for_each(|member| member.signal(signal))
    }

    fn process(&self) -> Result<Option<Process>> {
        Process::recorded(&self.place.record())
    }

    fn failed(&self, how: &str) -> Error {
        let log = self.place.log_since_start();
        Error::new(format!("{} {how}; its log {} ends:\n{}", self.name, self.log().display(), end_of(&log)))
    }
}

/// Stops them at the same time, as one that stops may need what another one holds.
pub fn stop_all(servers: &[&Server]) -> Result<()> {
    for server in servers {
        server.resume()?;
        if let Some(process) = server.process()? {
            process.signal(server.kind.stop_signal())?;
        }
    }
    for server in servers {
        let down = || Ok((server.state()? == State::Down).then_some(()));
        if until(&Interrupt::default(), STOP, down)?.is_none() {
            server.kill()?;
        }
    }
    Ok(())
}

impl Place {
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// For temporary files of the server.
    pub(crate) fn temp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn record(&self) -> PathBuf {
        self.dir.join("process")
    }

    fn log_begin(&self) -> PathBuf {
        self.dir.join("log-begin")
    }

    fn open_log(&self) -> Result<File> {
        let log = self.log();
        OpenOptions::new().create(true).append(true).open(&log).doing(|| format!("open {}", log.display()))
    }

    /// Empty if it cannot be read.
    pub(crate) fn log_since_start(&self) -> String {
        let from = fs::read_to_string(self.log_begin()).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(self.log())
            && file.seek(SeekFrom::Start(from)).is_ok()
            && file.read_to_end(&mut bytes).is_err()
        {
            bytes.clear();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the server was [told](Server::set) besides.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.dir.join(SETTINGS)).unwrap_or_default();
        let setting =
            |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        text.lines().filter_map(setting).collect()
    }

    /// Makes `file` what `text` says.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        let file = self.dir.join(file);
        fs::write(&file, text).doing(|| format!("write {}", file.display()))
    }

    /// Makes the directory `data` by `make`, once: what is left of a first time that failed is deleted.
    pub(crate) fn make_once(&self, data: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let made = self.dir.join("made");
        if made.exists() {
            return Ok(());
        }
        if data.exists() {
            fs::remove_dir_all(data).doing(|| format!("delete {}", data.display()))?;
        }
        fs::create_dir_all(data).doing(|| format!("make {}", data.display()))?;
        make()?;
        fs::write(&made, "").doing(|| format!("write {}", made.display()))
    }

    /// Runs a command to its end, with its output in the log. It fails with the end of that.
    pub(crate) fn run(&self, mut command: Command) -> Result<()> {
        let log = self.open_log()?;
        let from = log.metadata().map_or(0, |metadata| metadata.len());
        self.write("log-begin", &from.to_string())?;
        self.settle(&mut command, log)?;
        if run(&mut command, READY, &self.interrupt)? {
            return Ok(());
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let log = self.log_since_start();
        Err(Error::new(format!("{program} failed; its log {} ends:\n{}", self.log().display(), end_of(&log))))
    }

    /// Nothing of the caller's environment may change what a server does.
    fn settle(&self, command: &mut Command, log: File) -> Result<()> {
        let errors = log.try_clone().doing(|| format!("open {}", self.log().display()))?;
        command.env_clear();
        command
            .envs(["PATH", "HOME", "USER"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("LC_ALL", "C.UTF-8").env("TMPDIR", self.temp()).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(())
    }
}

/// Runs a command to its end, at most for `limit`: whether it succeeded.
pub(crate) fn run(command: &mut Command, limit: Duration, interrupt: &Interrupt) -> Result<bool> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().doing(|| format!("run {program}"))?;
    let ended = until(interrupt, limit, || child.try_wait().doing(|| format!("wait for {program}")));
    if !matches!(ended, Ok(Some(_))) {
        child.kill().and_then(|()| child.wait()).doing(|| format!("end {program}"))?;
    }
    let late = || Error::new(format!("{program} took more than {} s", limit.as_secs()));
    Ok(ended?.ok_or_else(late)?.success())
}

/// Its last lines, indented.
pub(crate) fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell that does as it is told.
    #[derive(Debug)]
    struct Shell {
        script: &'static str,
        port: u16,
    }

    impl Kind for Shell {
        fn ports(&self) -> Vec<u16> {
            vec![self.port]
        }

        fn prepare(&self, _: &Place) -> Result<()> {
            Ok(())
        }

        fn command(&self, _: &Place) -> Result<Command> {
            let mut command = Command::new("sh");
            command.args(["-c", self.script]);
            Ok(command)
        }

        fn is_ready(&self, place: &Place) -> bool {
            place.log_since_start().contains("ready")
        }
    }

    fn server(dir: &Path, script: &'static str) -> Server {
        // Port 0 is always free.
        with_port(dir, script, 0)
    }

    fn with_port(dir: &Path, script: &'static str, port: u16) -> Server {
        let place = Place { dir: dir.to_owned(), host: Ipv4Addr::LOCALHOST, interrupt: Interrupt::default() };
        Server::new("the shell".to_owned(), place, dir.join("lock"), Shell { script, port })
    }

    #[test]
    fn starting_twice_starts_one_server_and_both_find_it_ready() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) =
            (server(dir.path(), "echo ready; exec sleep 1000"), server(dir.path(), "exit 1"));
        assert!(first.start().unwrap());
        first.wait_ready().unwrap();
        assert!(!second.start().unwrap());
        second.wait_ready().unwrap();
        assert_eq!(first.process_and_memory().unwrap(), second.process_and_memory().unwrap());
        second.stop().unwrap();
        assert_eq!(first.state().unwrap(), State::Down);
    }

    #[test]
    fn a_server_that_cannot_start_fails_with_the_end_of_its_log_and_of_no_earlier_start() {
        let dir = tempfile::tempdir().unwrap();
        let good = server(dir.path(), "echo ready; exec sleep 1000");
        good.start().unwrap();
        good.wait_ready().unwrap();
        good.kill().unwrap();
        let bad = server(dir.path(), "echo the disk is full >&2; exit 1");
        bad.start().unwrap();
        let error = bad.wait_ready().unwrap_err().to_string();
        assert!(error.starts_with("the shell does not run; its log"), "{error}");
        assert!(error.ends_with("ends:\n    the disk is full"), "{error}");
    }

    #[test]
    fn a_server_whose_port_is_taken_is_not_started() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let server = with_port(dir.path(), "exec sleep 1000", port);
        let error = server.start().unwrap_err().to_string();
        assert!(error.contains(&format!("its port {port} is taken by another program")), "{error}");
        assert_eq!(server.state().unwrap(), State::Down);
    }

    #[test]
    fn a_paused_server_goes_on_when_it_is_resumed_started_or_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path(), "echo ready; exec sleep 1000");
        server.start().unwrap();
        for go_on in [Server::resume, |server: &Server| server.start().map(drop)] {
            server.pause().unwrap();
            assert_eq!(server.state().unwrap(), State::Paused);
            go_on(&server).unwrap();
            let running = || Ok((server.state()? == State::Running).then_some(()));
            assert!(until(&Interrupt::default(), STOP, running).unwrap().is_some());
        }
        server.pause().unwrap();
        server.stop().unwrap();
        assert_eq!(server.state().unwrap(), State::Down);
    }

    #[test]
    fn a_killed_server_leaves_no_process_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path(), "sleep 1000 & echo ready; wait");
        server.start().unwrap();
        server.wait_ready().unwrap();
        let family = server.process().unwrap().unwrap().family();
        assert_eq!(family.len(), 2);
        server.kill().unwrap();
        assert!(!family.iter().any(Process::is_running));
        server.kill().unwrap();
    }

    #[test]
    fn an_interrupted_wait_ends_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path(), "exec sleep 1000");
        server.start().unwrap();
        server.place.interrupt.tell();
        assert_eq!(server.wait_ready().unwrap_err().to_string(), "interrupted");
        server.stop().unwrap();
    }

    #[test]
    fn what_is_made_once_is_made_again_if_it_failed() {
        let dir = tempfile::tempdir().unwrap();
        let place =
            Place { dir: dir.path().to_owned(), host: Ipv4Addr::LOCALHOST, interrupt: Interrupt::default() };
        let data = place.dir.join("data");
        let half = || {
            fs::write(data.join("half"), "").unwrap();
            Err(Error::new("no"))
        };
        place.make_once(&data, half).unwrap_err();
        place.make_once(&data, || fs::write(data.join("whole"), "").doing(|| "write".to_owned())).unwrap();
        place.make_once(&data, || panic!("it is there")).unwrap();
        assert!(data.join("whole").exists() && !data.join("half").exists());
    }
}
