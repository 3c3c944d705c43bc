//! A process, from its start to its end, and what it took of the machine, with all that it started. It is looked at from
//! outside alone: no process counts for itself.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::tick;
use rustix::process::{Pid, Signal, kill_process};

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);

/// Ticks of the clock in which Linux tells times of the processors: the same on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    /// The most memory that it held, without what it started.
    pub(crate) peak_mib: f64,
    /// When it first said what the run was waiting for.
    pub(crate) said_s: Option<f64>,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it logged.
    pub(crate) log: String,
}

/// Runs `command`, calls `look` every few milliseconds with the time since its start, and notes when it first writes
/// `awaited` to its log.
///
/// # Panics
/// With what it wrote, unless it ends well.
pub(crate) fn measure(
    command: &mut Command,
    awaited: &'static str,
    mut look: impl FnMut(Duration),
) -> Measured {
    let cpu_before = cpu_of_the_ended_s();
    let start = now();
    let mut child = spawn(command);
    let (mut out, log) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    std::thread::scope(|threads| {
        let log = threads.spawn(move || read_log(log, awaited, start));
        let mut measured = Measured::default();
        let mut status = None;
        for _ in tick(LOOK) {
            measured.peak_mib = peak_mib(&child).unwrap_or(measured.peak_mib);
            look(start.elapsed());
            status = child.try_wait().expect("it is ours");
            if status.is_some() {
                break;
            }
        }
        measured.wall_s = start.elapsed().as_secs_f64();
        measured.cpu_s = cpu_of_the_ended_s() - cpu_before;
        let (said_s, log) = log.join().expect("a reader does not panic");
        assert!(status.is_some_and(|status| status.success()), "{command:?}: {status:?}\n{log}");
        (measured.said_s, measured.log) = (said_s, log);
        out.read_to_string(&mut measured.stdout).expect("it prints text");
        measured
    })
}

/// Starts it, with both of its outputs kept for us.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    started.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Tells it to stop, and waits until it has.
pub(crate) fn stop(weir: &mut Child) {
    kill_process(Pid::from_child(weir), Signal::TERM).expect("it is ours");
    let status = weir.wait().expect("it is ours");
    assert!(status.success(), "it stops when it is told to: {status}");
}

/// All that it says, until it ends.
pub(crate) fn read_all(mut from: impl std::io::Read) -> String {
    let mut all = String::new();
    from.read_to_string(&mut all).expect("it says text");
    all
}

/// When the awaited words came, and all of the log.
fn read_log(log: impl std::io::Read, awaited: &str, start: Instant) -> (Option<f64>, String) {
    let (mut said_s, mut all) = (None, String::new());
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        if said_s.is_none() && line.contains(awaited) {
            said_s = Some(start.elapsed().as_secs_f64());
        }
        all += &line;
        all.push('\n');
    }
    (said_s, all)
}

/// What all processes that we started and that have ended took, with those that they started.
pub(crate) fn cpu_of_the_ended_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux tells of a process");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    // Behind the name, `cutime` and `cstime` are the 14th and 15th: see proc(5).
    let ticks = fields.split(' ').skip(13).take(2).map(|field| field.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// `None` once it has ended.
pub(crate) fn peak_mib(child: &Child) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(peak.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
}

#[expect(clippy::disallowed_methods, reason = "how long it takes on the wall is what people feel")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
