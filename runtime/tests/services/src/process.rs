//! A process that was started here, found again by its number *and* the time of its start. It never signals a process
//! of which only one of the two fits: that one is somebody else's.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};

use crate::error::Doing;
use crate::{Error, Result};

/// A process, whether it still runs or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pid: Pid,
    /// In ticks since the machine started.
    started: u64,
}

/// What the system says of a process.
struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

impl Process {
    /// The one that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let raw = i32::try_from(pid).ok()?;
        Some(Self { pid: Pid::from_raw(raw)?, started: Stat::read(pid)?.started })
    }

    /// The one written down in `file`; `None` without such a file.
    pub(crate) fn recorded(file: &Path) -> Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(file) else { return Ok(None) };
        let parse = || {
            let (pid, started) = text.trim().split_once(' ')?;
            let pid = i32::try_from(pid.parse::<u32>().ok()?).ok().and_then(Pid::from_raw)?;
            Some(Self { pid, started: started.parse().ok()? })
        };
        parse().map(Some).ok_or_else(|| Error::new(format!("{} is damaged: {text:?}", file.display())))
    }

    pub(crate) fn record(&self, file: &Path) -> Result<()> {
        fs::write(file, format!("{} {}\n", self.id(), self.started))
            .doing(|| format!("write {}", file.display()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.stat().is_some()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'T')
    }

    /// Of memory, in MiB.
    pub(crate) fn resident_mib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
    }

    /// Does nothing if it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let Some(handle) = self.handle() else { return Ok(()) };
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).doing(|| format!("signal process {}", self.id())),
        }
    }

    /// It and all that it started, and they in turn, itself first.
    pub(crate) fn family(&self) -> Vec<Self> {
        let mut family = vec![*self];
        let mut at = 0;
        while let Some(parent) = family.get(at).copied() {
            family.extend(parent.children());
            at += 1;
        }
        family
    }

    fn children(&self) -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let children = pids.filter(|pid| Stat::read(*pid).is_some_and(|stat| stat.parent == self.id()));
        let children: Vec<Self> = children.filter_map(Self::of).collect();
        // Had it ended meanwhile, its number could be another's, and so the children.
        if self.is_running() { children } else { Vec::new() }
    }

    /// The running process and no other: it is asked for by its number first and compared after, so that what has the
    /// number now is what the handle stands for.
    fn handle(&self) -> Option<OwnedFd> {
        let handle = pidfd_open(self.pid, PidfdFlags::empty()).ok()?;
        self.is_running().then_some(handle)
    }

    /// `None` if it has ended. An ended child of this very process is cleared away.
    fn stat(&self) -> Option<Stat> {
        let stat = Stat::read(self.id()).filter(|stat| stat.started == self.started)?;
        if matches!(stat.state, 'Z' | 'X') && !self.has_threads() {
            // Refused if it is not our child: then somebody else clears it away.
            let _ended = waitpid(Some(self.pid), WaitOptions::NOHANG);
            return None;
        }
        Some(stat)
    }

    /// Besides its first one. Killed, that may end before the others, which still hold the ports.
    fn has_threads(&self) -> bool {
        fs::read_dir(format!("/proc/{}/task", self.id())).is_ok_and(|threads| threads.count() > 1)
    }
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold anything.
        let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, started })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use super::*;
    use crate::wait::{Interrupt, until};

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn gone(process: Process) -> bool {
        let gone = || Ok((!process.is_running()).then_some(()));
        until(&Interrupt::default(), Duration::from_secs(30), gone).unwrap().is_some()
    }

    #[test]
    fn a_process_is_found_again_by_its_record_and_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("process");
        let mut child = sleeper();
        Process::of(child.id()).unwrap().record(&file).unwrap();
        let process = Process::recorded(&file).unwrap().unwrap();
        assert!(process.is_running());
        process.signal(Signal::TERM).unwrap();
        assert!(gone(process));
        // It was cleared away already, if it could be.
        drop(child.wait());
        process.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn a_stranger_who_has_the_number_by_chance_is_never_signalled() {
        let mut child = sleeper();
        let right = Process::of(child.id()).unwrap();
        let stranger = Process { started: right.started - 1, ..right };
        assert!(!stranger.is_running());
        stranger.signal(Signal::KILL).unwrap();
        assert_eq!(stranger.family(), [stranger], "and what it started is not taken for ours");
        assert!(right.is_running());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_ended_is_not_running_even_before_it_is_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(gone(process));
        drop(child.wait());
    }

    #[test]
    fn a_family_is_all_that_a_process_started() {
        let mut shell = Command::new("sh").args(["-c", "sleep 1000 & wait"]).spawn().unwrap();
        let parent = Process::of(shell.id()).unwrap();
        let both = || Ok(Some(parent.family()).filter(|family| family.len() == 2));
        let family =
            until(&Interrupt::default(), Duration::from_secs(30), both).unwrap().expect("the shell forks");
        assert_eq!(family[0], parent);
        for process in &family {
            process.signal(Signal::KILL).unwrap();
        }
        assert!(family.iter().all(|process| gone(*process)));
        drop(shell.wait());
    }
}
