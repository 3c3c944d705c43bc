//! Compilation in a process of its own, with limits on its memory, time and files: what takes a compiler down, or makes
//! it grow without end, takes down only that. Both sides are here: the one that asks, and the program that answers.
//!
//! The child reads the bytes of a component from standard input, until they end, and writes one byte for how it went and
//! then the code, or what the compiler said.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crossbeam_channel::bounded;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::compile::{self, Compiled, Refused};
use super::engine::{self, Use};
use super::load_error::KILLED;
use super::{LoadError, MAX_COMPONENT_BYTES};

/// The command by which a program that calls [`serve`] does so.
pub const COMMAND: &str = "compile-component";

/// Address space of the child in bytes. The largest interpreters take some 600 MB.
const MAX_MEMORY_BYTES: u64 = 2 << 30;
/// What it may take of the processors, in seconds. JavaScript and Python take 10 s.
const MAX_CPU_SECONDS: u64 = 60;
/// On the wall: a machine may be busy, but not for ever.
const MAX_WALL: Duration = Duration::from_secs(900);
/// The largest code that is taken, in bytes: some three times the largest component.
const MAX_CODE_BYTES: u64 = 256 << 20;

const OK: u8 = 0;
const INVALID: u8 = 1;
const PANICKED: u8 = 2;
/// The exit code of a child that ran out of time on the wall.
const TOO_LATE: i32 = 124;

/// Has `program` compile a component: it is started as `program compile-component work` (or `judge`), and calls
/// [`serve`].
///
/// # Errors
/// What the compiler says, [`LoadError::CompileLimit`] where the child hit a limit, [`LoadError::Compiler`] where it
/// crashed or did not start.
pub(super) fn compile(program: &Path, of: Use, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let started = Command::new(program)
        .args([COMMAND, name(of)])
        .env_clear()
        // Ctrl-C on a terminal is for whoever asked, who may want the answer to finish what is under way.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let broken = |e: io::Error| LoadError::Compiler { text: format!("its process: {e}") };
    let mut child = started.map_err(broken)?;
    let (mut input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let mut answer = Vec::new();
    let read = std::thread::scope(|scope| {
        // A child that gives up does not read to the end; what it says then is what counts.
        scope.spawn(move || drop(input.write_all(bytes)));
        output.take(MAX_CODE_BYTES).read_to_end(&mut answer)
    });
    let status = child.wait().map_err(broken)?;
    read.map_err(broken)?;
    if !status.success() {
        return Err(died(status));
    }
    match answer.first() {
        Some(&OK) => Ok(answer.split_off(1)),
        Some(&INVALID) => Err(compile::refused(Refused::Invalid(text(&answer[1..])), bytes)),
        _ => Err(compile::refused(Refused::Panicked(text(answer.get(1..).unwrap_or_default())), bytes)),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn died(status: ExitStatus) -> LoadError {
    let limit = |what| LoadError::CompileLimit { what };
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(TOO_LATE), _) => limit("900 s on the wall"),
        (_, Some(Signal::XCPU)) => limit("60 s of processor time"),
        (_, Some(Signal::KILL)) => limit(KILLED),
        // So an allocation that fails ends a program, and a recursion that is too deep.
        (_, Some(Signal::ABORT)) => limit("2 GiB of memory, or than the compiler's stack holds"),
        _ => LoadError::Compiler { text: format!("its process ended with {status}") },
    }
}

fn name(of: Use) -> &'static str {
    match of {
        Use::Work => "work",
        Use::Judge => "judge",
    }
}

/// Answers one request of [`compile`] and nothing else; for the `main` of a program. `of` is its last argument.
///
/// # Errors
/// If the request cannot be read, the answer not be written, or the limits not be set.
pub fn serve(of: &str, input: impl Read, mut output: impl Write) -> io::Result<()> {
    let of = match of {
        "work" => Use::Work,
        "judge" => Use::Judge,
        other => return Err(io::Error::other(format!("`{other}` is neither work nor judge"))),
    };
    limit_this_process()?;
    // Records are under way when a judge is needed; for a transform they all wait.
    if of == Use::Judge {
        rustix::process::nice(10)?;
    }
    let mut bytes = Vec::new();
    input.take(MAX_COMPONENT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let engine = engine::compiler(of).map_err(|e| io::Error::other(format!("{e:#}")))?;
    let (tag, answer) = match compile::code(&engine, &bytes) {
        Ok(Compiled(code)) => (OK, code),
        Err(Refused::Invalid(text)) => (INVALID, text.into_bytes()),
        Err(Refused::Panicked(text)) => (PANICKED, text.into_bytes()),
    };
    output.write_all(&[tag])?;
    output.write_all(&answer)?;
    output.flush()
}

/// From here on this process cannot become large, run for long, write a file, or outlive whoever asked.
fn limit_this_process() -> io::Result<()> {
    for (resource, most) in [
        (Resource::As, MAX_MEMORY_BYTES),
        (Resource::Cpu, MAX_CPU_SECONDS),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        // Nobody may raise a limit that is lower already.
        let most = getrlimit(resource).maximum.map_or(most, |now| now.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Nobody sends: it waits until the time is over.
    let (keep, never) = bounded::<()>(0);
    std::thread::Builder::new().name("too-late".to_owned()).spawn(move || {
        let _keep = keep;
        never.recv_timeout(MAX_WALL).expect_err("nobody sends");
        std::process::exit(TOO_LATE);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_the_child_ended_says_which_limit_it_hit() {
        for (raw, expected) in [
            (24, "compiling the component took more than 60 s of processor time"),
            (6, "compiling the component took more than 2 GiB of memory"),
            (TOO_LATE << 8, "compiling the component took more than 900 s on the wall"),
            (11, "the compiler failed on this component: its process ended with signal: 11"),
        ] {
            let told = died(ExitStatus::from_raw(raw)).to_string();
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn a_program_that_is_none_or_does_not_answer_is_told() {
        let told = |program: &str| compile(Path::new(program), Use::Work, b"x").unwrap_err().to_string();
        assert!(told("/nowhere/weir").contains("its process: No such file"), "{}", told("/nowhere/weir"));
        assert!(
            told("/bin/false").contains("its process ended with exit status: 1"),
            "{}",
            told("/bin/false")
        );
        assert!(
            told("/bin/true").starts_with("the compiler failed on this component"),
            "{}",
            told("/bin/true")
        );
    }
}
