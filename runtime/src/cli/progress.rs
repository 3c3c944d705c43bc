//! How far a run is, for whoever watches it: a line that is written anew on a terminal, a line now and then in a pipe. It
//! looks at what the pipeline puts up of itself, in a thread of its own, so no record ever waits for a reader.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use indicatif::{ProgressBar, ProgressStyle};

use super::screen::{count, counted};
use crate::pipeline::status::{Partition, Status};
use crate::pipeline::threads::Handle;
use crate::sandbox::escape;

/// How often a line on a terminal is written anew.
const BLINK: Duration = Duration::from_millis(200);

/// When the first line goes into a pipe; each further one after twice the time, up to [`RARELY`].
const SOON: Duration = Duration::from_secs(10);

/// How often a line goes into a pipe in the end, where somebody may keep them all.
const RARELY: Duration = Duration::from_secs(600);

/// A rate is taken since so many looks ago: on a terminal five seconds, in a pipe since the last line.
const LOOKS_ON_TERMINAL: usize = 25;

/// The line that stands on the terminal at the moment.
static STANDING: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Says how far a run is until it is told that it ended.
pub(super) struct Progress {
    /// Closed, it ends the thread.
    running: Sender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    pub(super) fn start(handle: Handle) -> io::Result<Self> {
        let (running, ended) = bounded(0);
        let terminal = io::stderr().is_terminal();
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(move || match terminal {
            true => on_terminal(&handle, &ended),
            false => in_pipe(&handle, &ended),
        })?;
        Ok(Self { running, thread })
    }

    pub(super) fn end(self) {
        drop(self.running);
        // It only looks and writes; had it panicked, that would have been told.
        self.thread.join().ok();
    }
}

/// On a terminal, a line that says what somebody waits for; gone when it is dropped.
pub(super) struct Line(Option<ProgressBar>);

impl Line {
    /// None where only a program reads what is told.
    pub(super) fn new(quiet: bool) -> Self {
        Self((!quiet && io::stderr().is_terminal()).then(|| {
            let line = spinner();
            line.enable_steady_tick(BLINK);
            line
        }))
    }

    pub(super) fn say(&self, what: &str) {
        if let Some(line) = &self.0 {
            line.set_message(escape(what));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(line) = &self.0 {
            line.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let line = ProgressBar::new_spinner();
    line.set_style(
        ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is well formed"),
    );
    line
}

/// Tells a line on standard error while a run goes on.
pub(super) fn tell(line: &str) {
    // Whoever closed it wants to know nothing.
    AboveTheLine.write_all(format!("{line}\n").as_bytes()).ok();
}

/// Standard error for the log: what is written there goes above the line that stands on the terminal.
pub(super) struct AboveTheLine;

impl Write for AboveTheLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let standing = STANDING.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match standing {
            Some(line) => line.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn on_terminal(handle: &Handle, ended: &Receiver<()>) {
    let line = spinner();
    let stands = |line| *STANDING.lock().unwrap_or_else(PoisonError::into_inner) = line;
    stands(Some(line.clone()));
    let mut seen = Seen::new(LOOKS_ON_TERMINAL);
    while is_running(ended, BLINK) {
        line.set_message(seen.line(&handle.status()));
        line.tick();
    }
    stands(None);
    line.finish_and_clear();
}

fn in_pipe(handle: &Handle, ended: &Receiver<()>) {
    let (mut seen, mut last) = (Seen::new(1), String::new());
    let mut wait = SOON;
    while is_running(ended, wait) {
        wait = (wait * 2).min(RARELY);
        let line = seen.line(&handle.status());
        // A pipeline that has nothing to do has nothing to say.
        if line != last {
            eprintln!("{line}");
            last = line;
        }
    }
}

/// Lets time pass; `false` as soon as the run has ended.
fn is_running(ended: &Receiver<()>, time: Duration) -> bool {
    ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
}

/// When how many records had been taken in, the last looks, for a rate.
struct Seen {
    /// Milliseconds, and records.
    looks: VecDeque<(u64, u64)>,
    most: usize,
}

impl Seen {
    /// From the beginning of the run on, at which there were none.
    fn new(most: usize) -> Self {
        Self { looks: VecDeque::from([(0, 0)]), most }
    }

    /// How it stands, in one line: what went through and how fast, by which plan, how far it is behind, and what holds it up.
    fn line(&mut self, status: &Status) -> String {
        let records = &status.records;
        let mut line = format!(
            "{} records, {}/s",
            count(records.taken),
            count(self.per_second(status.running_ms, records.taken))
        );
        match &status.partitions[..] {
            [] => line += ", no partition at the moment",
            partitions => {
                line += &format!(", {}", plan(status));
                line += &lag(partitions).map_or_else(String::new, |lag| format!(", lag {}", count(lag)));
            }
        }
        let lost = records.rejected + records.failed;
        if lost > 0 {
            line += &format!(", {} to dead letters", count(lost));
        }
        match &status.complaints()[..] {
            [] => {}
            [only] => line += &format!("; {}", escape(only)),
            [first, others @ ..] => line += &format!("; {} (and {} more)", escape(first), others.len()),
        }
        line
    }

    fn per_second(&mut self, now_ms: u64, records: u64) -> u64 {
        let (then_ms, before) = self.looks.front().copied().unwrap_or_default();
        self.looks.push_back((now_ms, records));
        if self.looks.len() > self.most {
            self.looks.pop_front();
        }
        records.saturating_sub(before) * 1000 / now_ms.saturating_sub(then_ms).max(1)
    }
}

/// The plan that makes what is read from now on; and where not all partitions of which something was made are at it, in how
/// many it has made something.
fn plan(status: &Status) -> String {
    let newest = status.plan.plan;
    let begun = || status.partitions.iter().filter_map(|partition| partition.plan);
    let (there, all) = (begun().filter(|plan| *plan == newest).count(), begun().count());
    match there == all {
        true => format!("plan {newest}"),
        false => format!("plan {newest} in {there} of {}", counted(all as u64, "partition")),
    }
}

/// How many offsets are missing in the sinks that are furthest behind, if the ends of all partitions are known.
fn lag(partitions: &[Partition]) -> Option<u64> {
    partitions.iter().map(Partition::lag).sum()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::offset::Offset;
    use crate::pipeline::status::{BudgetStatus, Records, State};
    use crate::plan::By;
    use crate::sink::state::PlanRef;

    /// Of a partition that ends at 40, and of which the sink has 30.
    pub(in crate::cli) fn status(running_ms: u64, taken: u64) -> Status {
        let partition = Partition {
            topic: "t".into(),
            partition: 0,
            input: None,
            state: State::Running,
            trouble: None,
            read: Some(Offset::new(40)),
            end: Some(Offset::new(40)),
            committed: BTreeMap::from([("lake".into(), Offset::new(30))]),
            judging: None,
            plan: None,
        };
        Status {
            pipeline: "p".into(),
            plan: PlanRef { plan: 0, digest: "d".into() },
            trial: None,
            shadow: None,
            costs: Vec::new(),
            not_ready: None,
            running_ms,
            ending: false,
            paused: None,
            paused_partitions: Vec::new(),
            finished: 0,
            partitions: vec![partition],
            records: Records { taken, ..Records::default() },
            sinks: Vec::new(),
            budget: BudgetStatus::default(),
        }
    }

    #[test]
    fn a_rate_is_that_of_the_last_looks_and_not_of_the_whole_run() {
        let mut seen = Seen::new(2);
        assert_eq!(seen.line(&status(1_000, 5_000)), "5,000 records, 5,000/s, plan 0, lag 10");
        assert_eq!(seen.line(&status(2_000, 5_000)), "5,000 records, 2,500/s, plan 0, lag 10");
        assert_eq!(seen.line(&status(3_000, 5_000)), "5,000 records, 0/s, plan 0, lag 10");
        assert_eq!(
            seen.line(&status(3_000, 5_000)),
            "5,000 records, 0/s, plan 0, lag 10",
            "no time has passed"
        );
    }

    #[test]
    fn a_lag_is_told_only_where_all_ends_are_known() {
        let mut status = status(1_000, 10);
        status.partitions[0].end = None;
        assert_eq!(Seen::new(1).line(&status), "10 records, 10/s, plan 0");
        status.partitions.clear();
        assert_eq!(Seen::new(1).line(&status), "10 records, 10/s, no partition at the moment");
    }

    #[test]
    fn where_a_plan_has_not_taken_over_everywhere_it_is_told_how_far_it_is() {
        let mut status = status(1_000, 10);
        status.plan.plan = 7;
        let mut told = |plans: &[Option<u64>]| {
            let at = |plan: &Option<u64>| Partition { plan: *plan, ..status.partitions[0].clone() };
            status.partitions = plans.iter().map(at).collect();
            plan(&status)
        };
        assert_eq!(told(&[Some(4), None, Some(4)]), "plan 7 in 0 of 2 partitions");
        assert_eq!(told(&[Some(7), None, Some(4)]), "plan 7 in 1 of 2 partitions");
        assert_eq!(told(&[Some(7), None, Some(7)]), "plan 7");
        assert_eq!(told(&[None]), "plan 7", "nothing was made yet");
    }

    #[test]
    fn what_is_lost_and_what_holds_it_up_is_in_the_line() {
        let mut status = status(1_000, 10);
        (status.records.rejected, status.records.failed) = (2, 1);
        status.paused = Some(By { who: "ada".to_owned(), at_ms: 0 });
        assert_eq!(
            Seen::new(1).line(&status),
            "10 records, 10/s, plan 0, lag 10, 3 to dead letters; it was paused by ada"
        );
        status.ending = true;
        let line = Seen::new(1).line(&status);
        assert!(line.ends_with("; it was told to stop (and 1 more)"), "{line}");
    }
}
