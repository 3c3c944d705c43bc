//! The inert world: WASI 0.2 answered with constants, so that what becomes of a record depends on that record
//! alone. Nothing here blocks, remembers, or reaches anything of the machine, save the log.
//!
//! No arguments, variables, working directory or files; standard input is closed; the wall clock always tells
//! 1970-01-01T00:00:00Z, the monotonic one always 1 (Go stops at 0); random bytes depend on their number alone;
//! whoever waits goes on at once. What cannot be answered like this traps, by name, when it is called.

use std::time::Duration;

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{
    Component, ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};
use wasmtime::{Engine, Error, StoreContextMut};

use super::engine::Imports;
use super::limits::Limiter;
use super::load_error::LoadError;
use super::log::GuestLog;

/// What an instance's store carries: its log and what it may use.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) log: GuestLog,
    pub(super) limiter: Limiter,
    /// Streams and pollables that the guest has and did not drop.
    pub(super) handles: u32,
    /// Time since any fixed moment; it meters the log only.
    pub(super) clock: fn() -> Duration,
}

/// How many streams and pollables a guest may have at once.
const MAX_HANDLES: u32 = 1_000;

impl Host {
    fn give<T: 'static>(&mut self) -> wasmtime::Result<Resource<T>> {
        if self.handles == MAX_HANDLES {
            return Err(Error::msg(format!("it keeps {MAX_HANDLES} handles and asked for one more")));
        }
        self.handles += 1;
        Ok(Resource::new_own(0))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.log.write(bytes, (self.clock)(), &mut |line| tracing::info!(target: "guest", "{line}"));
    }
}

/// An interface that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name and version, such as `wasi:cli/stderr@0.2.6`.
    pub interface: String,
    /// What the guest gets, for people.
    pub answer: &'static str,
}

/// Offers everything that `component` imports and may import.
pub(super) fn link(
    engine: &Engine,
    component: &Component,
    allowed: Imports,
) -> Result<(Linker<Host>, Vec<Import>), LoadError> {
    let mut linker = Linker::new(engine);
    let mut imports = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        let item = match item.ty {
            ComponentItem::Type(_) => continue,
            ComponentItem::ComponentInstance(item) if allowed == Imports::Inert => item,
            _ => return Err(LoadError::import(name, allowed)),
        };
        let interface = admit(name, &item, engine)?;
        offer(&mut linker, name, interface, &item, engine).map_err(|e| LoadError::link(name, &e))?;
        imports.push(Import { interface: name.to_owned(), answer: answer(interface) });
    }
    Ok((linker, imports))
}

/// The name without its version, if it is one of WASI 0.2 that a transform may import. What only names types can
/// do no harm, whoever it is.
fn admit<'a>(name: &'a str, item: &ComponentInstance, engine: &Engine) -> Result<&'a str, LoadError> {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let harmless = item.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)));
    let wasi = interface.starts_with("wasi:") && version.starts_with("0.2.");
    if harmless || (wasi && !interface.starts_with("wasi:http")) {
        return Ok(interface);
    }
    Err(LoadError::import(name, Imports::Inert))
}

fn offer(
    linker: &mut Linker<Host>,
    name: &str,
    interface: &str,
    item: &ComponentInstance,
    engine: &Engine,
) -> wasmtime::Result<()> {
    let mut to = linker.instance(name)?;
    for (part, item) in item.exports(engine) {
        match item.ty {
            ComponentItem::Resource(_) => to.resource(part, resource(part), taken_back)?,
            ComponentItem::ComponentFunc(_) if !inert(&mut to, interface, part)? => {
                let text = format!("it called `{name}#{part}`, which a transform cannot do");
                to.func_new(part, move |_, _, _, _| Err(Error::msg(text.clone())))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn taken_back(mut store: Store<'_>, _: u32) -> wasmtime::Result<()> {
    store.data_mut().handles = store.data().handles.saturating_sub(1);
    Ok(())
}

struct OutputStream;
struct InputStream;
struct IoError;
struct Pollable;
struct Descriptor;
struct TerminalInput;
struct TerminalOutput;
struct Nobody;

/// One type serves for all that nobody ever gets, also under alias names.
fn resource(name: &str) -> ResourceType {
    match name {
        "output-stream" => ResourceType::host::<OutputStream>(),
        "input-stream" => ResourceType::host::<InputStream>(),
        "error" => ResourceType::host::<IoError>(),
        "pollable" => ResourceType::host::<Pollable>(),
        "descriptor" => ResourceType::host::<Descriptor>(),
        "terminal-input" => ResourceType::host::<TerminalInput>(),
        "terminal-output" => ResourceType::host::<TerminalOutput>(),
        _ => ResourceType::host::<Nobody>(),
    }
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

type Store<'a> = StoreContextMut<'a, Host>;
type To<'a, 'b> = &'a mut LinkerInstance<'b, Host>;
type Out = Resource<OutputStream>;
type In = Resource<InputStream>;

/// How many bytes a guest may write, or ask for at random, in one call.
const AT_ONCE: u64 = 1 << 20;

/// Answers `part` of `interface`, if that is possible without state. `Ok(false)`: it is not.
fn inert(to: To<'_, '_>, interface: &str, part: &str) -> wasmtime::Result<bool> {
    match interface {
        "wasi:io/streams" if part.starts_with("[method]output-stream.") => output(to, part),
        "wasi:io/streams" => input(to, part),
        "wasi:io/poll" => poll(to, part),
        "wasi:clocks/wall-clock" | "wasi:clocks/monotonic-clock" => clocks(to, interface, part),
        _ if interface.starts_with("wasi:random/") => random(to, part),
        _ => nothing(to, interface, part),
    }
}

fn output(to: To<'_, '_>, part: &str) -> wasmtime::Result<bool> {
    type Done = (Result<(), StreamError>,);
    match part.trim_start_matches("[method]output-stream.") {
        "check-write" => {
            to.func_wrap(part, |_: Store, _: (Out,)| Ok((Ok::<_, StreamError>(AT_ONCE),)))?;
        }
        "write" | "blocking-write-and-flush" => {
            to.func_wrap(part, |mut store: Store, (_, bytes): (Out, Vec<u8>)| -> wasmtime::Result<Done> {
                store.data_mut().write(&bytes);
                Ok((Ok(()),))
            })?;
        }
        "write-zeroes" | "blocking-write-zeroes-and-flush" => {
            to.func_wrap(part, |_: Store, _: (Out, u64)| -> wasmtime::Result<Done> { Ok((Ok(()),)) })?;
        }
        "flush" | "blocking-flush" => {
            to.func_wrap(part, |_: Store, _: (Out,)| -> wasmtime::Result<Done> { Ok((Ok(()),)) })?;
        }
        "subscribe" => {
            to.func_wrap(part, |mut store: Store, _: (Out,)| Ok((store.data_mut().give::<Pollable>()?,)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn input(to: To<'_, '_>, part: &str) -> wasmtime::Result<bool> {
    match part.trim_start_matches("[method]input-stream.") {
        "read" | "blocking-read" => {
            to.func_wrap(part, |_: Store, _: (In, u64)| Ok((Err::<Vec<u8>, _>(StreamError::Closed),)))?;
        }
        "skip" | "blocking-skip" => {
            to.func_wrap(part, |_: Store, _: (In, u64)| Ok((Err::<u64, _>(StreamError::Closed),)))?;
        }
        "subscribe" => {
            to.func_wrap(part, |mut store: Store, _: (In,)| Ok((store.data_mut().give::<Pollable>()?,)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn poll(to: To<'_, '_>, part: &str) -> wasmtime::Result<bool> {
    match part {
        "[method]pollable.block" => to.func_wrap(part, |_: Store, _: (Resource<Pollable>,)| Ok(()))?,
        "[method]pollable.ready" => to.func_wrap(part, |_: Store, _: (Resource<Pollable>,)| Ok((true,)))?,
        "poll" => to.func_wrap(part, |_: Store, (all,): (Vec<Resource<Pollable>>,)| {
            if all.is_empty() {
                return Err(Error::msg("it called `wasi:io/poll#poll` with nothing to wait for"));
            }
            Ok(((0..all.len() as u32).collect::<Vec<_>>(),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn clocks(to: To<'_, '_>, interface: &str, part: &str) -> wasmtime::Result<bool> {
    match (interface, part) {
        ("wasi:clocks/wall-clock", "now" | "resolution") => {
            to.func_wrap(part, |_: Store, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 0 },)))?;
        }
        ("wasi:clocks/monotonic-clock", "now" | "resolution") => {
            to.func_wrap(part, |_: Store, (): ()| Ok((1u64,)))?;
        }
        (_, "subscribe-instant" | "subscribe-duration") => {
            to.func_wrap(part, |mut store: Store, _: (u64,)| Ok((store.data_mut().give::<Pollable>()?,)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Never fewer bytes than asked for: some guests would ask again for ever.
fn random(to: To<'_, '_>, part: &str) -> wasmtime::Result<bool> {
    match part {
        "get-random-bytes" | "get-insecure-random-bytes" => {
            to.func_wrap(part, |_: Store, (n,): (u64,)| {
                if n > AT_ONCE {
                    return Err(Error::msg(format!(
                        "it asked for {n} random bytes at once, more than {AT_ONCE}"
                    )));
                }
                Ok((vec![0x5a_u8; n as usize],))
            })?
        }
        "get-random-u64" | "get-insecure-random-u64" => {
            to.func_wrap(part, |_: Store, (): ()| Ok((0x5a5a_5a5a_5a5a_5a5a_u64,)))?;
        }
        "insecure-seed" => to.func_wrap(part, |_: Store, (): ()| Ok(((1u64, 2u64),)))?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// What is empty, closed or not there.
fn nothing(to: To<'_, '_>, interface: &str, part: &str) -> wasmtime::Result<bool> {
    match (interface, part) {
        ("wasi:cli/stdout" | "wasi:cli/stderr", _) => {
            to.func_wrap(part, |mut store: Store, (): ()| Ok((store.data_mut().give::<OutputStream>()?,)))?;
        }
        ("wasi:cli/stdin", _) => {
            to.func_wrap(part, |mut store: Store, (): ()| Ok((store.data_mut().give::<InputStream>()?,)))?;
        }
        ("wasi:cli/environment", "get-environment") => {
            to.func_wrap(part, |_: Store, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
        }
        ("wasi:cli/environment", "get-arguments") => {
            to.func_wrap(part, |_: Store, (): ()| Ok((Vec::<String>::new(),)))?;
        }
        ("wasi:cli/environment", "initial-cwd") => {
            to.func_wrap(part, |_: Store, (): ()| Ok((None::<String>,)))?;
        }
        ("wasi:cli/terminal-stdin", _) => {
            to.func_wrap(part, |_: Store, (): ()| Ok((None::<Resource<TerminalInput>>,)))?;
        }
        ("wasi:cli/terminal-stdout" | "wasi:cli/terminal-stderr", _) => {
            to.func_wrap(part, |_: Store, (): ()| Ok((None::<Resource<TerminalOutput>>,)))?;
        }
        ("wasi:filesystem/preopens", "get-directories") => {
            to.func_wrap(part, |_: Store, (): ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn answer(interface: &str) -> &'static str {
    match interface {
        "wasi:cli/environment" => "no arguments, variables or working directory",
        "wasi:cli/stdin" => "closed",
        "wasi:cli/stdout" | "wasi:cli/stderr" => "goes to the guest log",
        "wasi:clocks/wall-clock" => "always 1970-01-01T00:00:00Z",
        "wasi:clocks/monotonic-clock" => "always 1",
        "wasi:filesystem/preopens" => "no directories",
        "wasi:io/streams" => "writes go to the guest log, reads end at once",
        "wasi:io/poll" => "ready at once",
        "wasi:io/error" => "never given",
        _ if interface.starts_with("wasi:cli/terminal-") => "no terminal",
        _ if interface.starts_with("wasi:random/") => "constants",
        _ => "each call traps",
    }
}
