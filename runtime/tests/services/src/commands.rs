//! What each command does. Nothing is decided here of how a service starts or stops.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use weir_services::{
    DIR, Error, Interrupt, Result, Server, Service, Services, State, is_fetched, stop_all, until,
};

use crate::FAILED;
use crate::arguments::Arguments;

/// For a command to end that was told to.
const END: Duration = Duration::from_secs(10);

/// Any number of days: a command may take as long as it likes.
const NO_LIMIT: Duration = Duration::from_secs(u64::MAX / 4);

pub(crate) fn up(arguments: &Arguments) -> Result<ExitCode> {
    let services = Services::open(dir(arguments))?;
    fetch_all(&arguments.names, &services.interrupt())?;
    let wanted = wanted(&services, arguments)?;
    for service in &wanted {
        service.start()?;
    }
    for service in &wanted {
        service.wait_ready()?;
    }
    for service in &wanted {
        println!("{:9} {}", service.name(), service.address());
    }
    for (variable, value) in environment(&services, &wanted) {
        println!("export {variable}={value}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn status(arguments: &Arguments) -> Result<ExitCode> {
    let dir = dir(arguments);
    let made = if dir.exists() { Services::open(&dir)?.made()? } else { Vec::new() };
    if made.is_empty() {
        println!("there is no service in {}", dir.display());
    }
    for service in &made {
        println!("{:16} {}", service.name(), service.address());
        for server in service.servers() {
            println!("  {:16} {}", server.name(), shown(server)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(server: &Server) -> Result<String> {
    let state = match server.state()? {
        State::Down => "down",
        State::Running => "running",
        State::Paused => "paused",
    };
    let process = server.process_and_memory()?;
    Ok(process.map_or_else(|| state.to_owned(), |(pid, mib)| format!("{state}, process {pid}, {mib} MiB")))
}

pub(crate) fn down(arguments: &Arguments) -> Result<ExitCode> {
    let dir = dir(arguments);
    if !dir.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    let services = Services::open(&dir)?;
    let mut made = services.made()?;
    made.retain(|service| arguments.names.contains(&service.name()));
    stop_all(&made.iter().flat_map(|service| service.servers()).collect::<Vec<_>>())?;
    if arguments.wipe {
        made.iter().try_for_each(|service| services.wipe(service.as_ref()))?;
        services.remove()?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn fetch(arguments: &Arguments) -> Result<ExitCode> {
    fetch_all(&arguments.names, &Interrupt::default())?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let own_dir = arguments.dir.is_none() && std::env::var_os(DIR).is_none();
    let mut services = if own_dir { Services::temporary()? } else { Services::open(dir(arguments))? };
    let interrupt = services.interrupt();
    let signal = on_signal(&interrupt)?;
    fetch_all(&arguments.names, &interrupt)?;
    let wanted = wanted(&services, arguments)?;
    let mut started = Vec::new();
    let ended = start(&wanted, &mut started)
        .and_then(|()| command(&arguments.command, environment(&services, &wanted), &interrupt));
    let stopped = stop_all(&started);
    let code = match (signal.load(Ordering::Relaxed), ended) {
        // Whoever stopped it knows why.
        (signal, Err(_)) if signal != 0 => code_of_signal(signal),
        (_, Err(error)) => {
            eprintln!("weir-services: {error}");
            ExitCode::from(FAILED)
        }
        (0, Ok(status)) if !status.success() && own_dir => {
            services.keep();
            eprintln!(
                "weir-services: the logs of {} are kept in {}",
                arguments.names.join(", "),
                services.dir().display()
            );
            code_of(status)
        }
        (_, Ok(status)) => code_of(status),
    };
    stopped.map(|()| code)
}

/// Starts what is down, and waits for all. What it started it puts into `started`, whether it then fails or not.
fn start<'a>(wanted: &'a [Box<dyn Service>], started: &mut Vec<&'a Server>) -> Result<()> {
    for server in wanted.iter().flat_map(|service| service.servers()) {
        if server.start()? {
            started.push(server);
        }
    }
    wanted.iter().try_for_each(|service| service.wait_ready())
}

/// Runs the command to its end. Interrupted, it is told to end, and killed if it does not.
fn command(
    words: &[OsString],
    environment: Vec<(&'static str, String)>,
    interrupt: &Interrupt,
) -> Result<ExitStatus> {
    let failed = |error| Error::new(format!("cannot run {}: {error}", words[0].display()));
    let mut child = Command::new(&words[0]).args(&words[1..]).envs(environment).spawn().map_err(failed)?;
    if let Ok(Some(status)) = until(interrupt, NO_LIMIT, || child.try_wait().map_err(failed)) {
        return Ok(status);
    }
    signal(&child, Signal::TERM);
    if let Some(status) = until(&Interrupt::default(), END, || child.try_wait().map_err(failed))? {
        return Ok(status);
    }
    signal(&child, Signal::KILL);
    child.wait().map_err(failed)
}

/// Only for a child that was not waited for: its number is its own until then.
fn signal(child: &Child, signal: Signal) {
    // Ended already, it is found so by the wait that follows.
    let _sent = kill_process(Pid::from_child(child), signal);
}

/// Has the first of the signals that end a program end all waiting instead; which one it was is in the answer.
fn on_signal(interrupt: &Interrupt) -> Result<Arc<AtomicI32>> {
    let failed = |error| Error::new(format!("cannot watch for signals: {error}"));
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    let came = Arc::new(AtomicI32::new(0));
    let (interrupt, told) = (interrupt.clone(), Arc::clone(&came));
    thread::spawn(move || {
        for signal in signals.forever() {
            told.store(signal, Ordering::Relaxed);
            interrupt.tell();
        }
    });
    Ok(came)
}

/// As a shell has it.
fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok()).map(ExitCode::from);
    code.unwrap_or_else(|| code_of_signal(status.signal().unwrap_or(0)))
}

fn code_of_signal(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

fn dir(arguments: &Arguments) -> PathBuf {
    arguments.dir.clone().unwrap_or_else(Services::default_dir)
}

fn wanted(services: &Services, arguments: &Arguments) -> Result<Vec<Box<dyn Service>>> {
    let service = |name: &&str| -> Result<Box<dyn Service>> {
        Ok(match (*name, arguments.brokers, arguments.datanodes) {
            ("kafka", Some(brokers), _) => Box::new(services.kafka_of(brokers)?),
            ("hdfs", _, Some(datanodes)) => Box::new(services.hdfs_of(datanodes)?),
            _ => services.by_name(name)?,
        })
    };
    arguments.names.iter().map(service).collect()
}

/// Says so before it takes minutes.
fn fetch_all(names: &[&'static str], interrupt: &Interrupt) -> Result<()> {
    for name in names {
        if !is_fetched(name)? {
            eprintln!("weir-services: fetching {name}, a minute or more");
            weir_services::fetch(name, interrupt)?;
        }
    }
    Ok(())
}

/// What programs under test find the services by.
fn environment(services: &Services, wanted: &[Box<dyn Service>]) -> Vec<(&'static str, String)> {
    let addresses = wanted.iter().map(|service| (service.variable(), service.address()));
    addresses.chain([(DIR, services.dir().display().to_string())]).collect()
}
