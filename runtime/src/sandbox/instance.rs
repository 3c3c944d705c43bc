//! A transform at work: one store, one deadline, one memory limit. After a failure it is never asked again.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use wasmtime::{Store, Trap};

use super::bindings::TransformComponent;
use super::describe;
use super::engine::{TICK, Use};
use super::limits::Limiter;
use super::load_error::one_line;
use super::log::{GuestLog, escape};
use super::transform::Transform;
use super::wasi::Host;
use super::{lower, output};
use crate::batch::Batch;
use crate::cpu;
use crate::description::Description;
use crate::route::Output;
use crate::rule::{CallError, Rule};
use crate::tables::Table;

/// What one instance may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceLimits {
    /// For all its memories and tables together, in bytes.
    pub memory_bytes: usize,
    /// For one batch. A judge gets [`JUDGE_PATIENCE`] times as much: what it finds out is not to depend on the clock.
    pub deadline: Duration,
    /// Units of fuel, about one per WebAssembly instruction and one per byte copied at once, that one record may take,
    /// what a fresh instance builds at its first call included. Only a judge counts them.
    pub fuel_per_record: u64,
    /// For starting, `describe` and `init`, each.
    pub start_deadline: Duration,
    /// For what one call returns, in bytes.
    pub output_bytes: usize,
    /// What of its log goes on to ours.
    pub log_bytes_per_second: u32,
}

impl Default for InstanceLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            deadline: Duration::from_secs(10),
            fuel_per_record: 4_000_000_000,
            start_deadline: Duration::from_secs(30),
            output_bytes: 128 << 20,
            log_bytes_per_second: 64 << 10,
        }
    }
}

/// What an instance starts with.
#[derive(Clone, Debug)]
pub struct Init {
    /// As the pipeline gives them; the others take their defaults.
    pub settings: Vec<(String, String)>,
    /// By name; more than the transform asks for do no harm.
    pub tables: Vec<Arc<Table>>,
    /// What it may use.
    pub limits: InstanceLimits,
    /// What [`Transform::describe`] said under the same settings.
    pub description: Arc<Description>,
}

/// Why an instance did not start. It would not start the next time either.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It failed while it started, described itself or took its settings.
    #[error("`{function}` of the transform failed")]
    Call {
        /// `start`, `describe` or `init`.
        function: &'static str,
        /// How.
        source: CallError,
    },
    /// It refuses the settings or tables.
    #[error("the transform refuses its settings or tables: {text}")]
    Refused {
        /// What it said, cut at 4 KiB.
        text: String,
    },
    /// What it says of itself breaks the contract.
    #[error("describe: {0}")]
    Description(String),
    /// A setting is missing, unknown, or none of its choices.
    #[error("{0}")]
    Settings(String),
    /// A table is missing or does not fit.
    #[error("{0}")]
    Tables(String),
    /// The component could not be compiled once more, for the judge.
    #[error("compiling it for the judge of a failed batch: {0}")]
    Judge(String),
    /// The machine has no room for another instance.
    #[error("no room for another instance: {0}")]
    NoRoom(String),
}

/// A running transform. It belongs to one thread at a time.
pub struct Instance {
    store: Store<Host>,
    guest: TransformComponent,
    description: Arc<Description>,
    limits: InstanceLimits,
    of: Use,
    dead: bool,
    suspect: bool,
    /// Bytes that it had when it had started.
    started_with: usize,
    /// The clock that interrupts it runs as long as its transform lives.
    _transform: Transform,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("transform", &self._transform)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

impl Instance {
    pub(super) fn describe(
        transform: &Transform,
        settings: &[(String, String)],
        limits: &InstanceLimits,
    ) -> Result<Description, StartError> {
        let (mut store, guest) = instantiate(transform, limits, Use::Work)?;
        let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        arm(&mut store, limits.start_deadline);
        let said = guest.weir_transform_transform().call_describe(&mut store, &settings);
        let said = said.map_err(|e| failed_start(&mut store, "describe", limits, &e))?;
        let said = said.map_err(|text| StartError::Refused { text: cut(&text) })?;
        describe::check(said).map_err(StartError::Description)
    }

    pub(super) fn start(transform: &Transform, init: &Init, of: Use) -> Result<Self, StartError> {
        let settings = complete(&init.settings, &init.description).map_err(StartError::Settings)?;
        let tables = lower::tables(&init.tables, &init.description).map_err(StartError::Tables)?;
        let tables: Vec<_> = tables.iter().map(lower::Wanted::as_param).collect();
        let limits = init.limits.clone();
        let (mut store, guest) = instantiate(transform, &limits, of)?;
        arm(&mut store, limits.start_deadline);
        let taken = guest.weir_transform_transform().call_init(&mut store, &settings, &tables);
        let taken = taken.map_err(|e| failed_start(&mut store, "init", &limits, &e))?;
        taken.map_err(|text| StartError::Refused { text: cut(&text) })?;
        let description = Arc::clone(&init.description);
        let started_with = store.data().limiter.used();
        let (dead, suspect) = (false, false);
        let _transform = transform.clone();
        Ok(Self { store, guest, description, limits, of, dead, suspect, started_with, _transform })
    }

    /// Whether it failed, and is good for nothing.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    fn call(&mut self, batch: &Batch) -> Result<Output, CallError> {
        let needs = self.description.needs;
        let places = lower::Places::of(batch, needs);
        let input = lower::batch(batch, needs, &places);
        let deadline = match self.of {
            Use::Work => self.limits.deadline,
            Use::Judge => self.limits.deadline.saturating_mul(JUDGE_PATIENCE),
        };
        arm(&mut self.store, deadline);
        if self.of == Use::Judge {
            self.store.set_fuel(self.limits.fuel_per_record).expect("the judge counts fuel");
        }
        // Other work on the machine makes nobody a suspect.
        let begun = cpu::thread_ns();
        let said = self.guest.weir_transform_transform().call_process(&mut self.store, input);
        self.suspect =
            (cpu::thread_ns() - begun).saturating_mul(MOST_FUEL_PER_NS) > self.limits.fuel_per_record;
        let said = said.map_err(|e| failed(&mut self.store, deadline, &self.limits, &e))?;
        let said = said.map_err(|text| CallError::Returned {
            text: cut(&text),
            log: self.store.data_mut().log.last_lines(),
        })?;
        output::check(said, &self.description, batch, self.limits.output_bytes)
            .map_err(|text| CallError::BadOutput { text, log: self.store.data_mut().log.last_lines() })
    }
}

impl Rule for Instance {
    /// # Errors
    /// See [`CallError`]; after one, [`Instance::is_dead`], and every further call fails.
    fn process(&mut self, batch: &Batch) -> Result<Output, CallError> {
        if self.dead {
            let text = "this instance failed before".to_owned();
            return Err(CallError::Trap { text, log: String::new() });
        }
        self.call(batch).inspect_err(|_| self.dead = true)
    }

    fn grown_bytes(&self) -> usize {
        self.store.data().limiter.used() - self.started_with
    }

    fn is_suspect(&self) -> bool {
        self.suspect
    }
}

/// How many times the deadline of a batch a judge has for one call. It takes that long only where fuel does not end
/// it: where there is very much of it, or on a machine that stands still.
const JUDGE_PATIENCE: u32 = 4;

/// No processor burns more fuel than this in a nanosecond: 17 were seen in a loop of a few instructions, and a byte that
/// is copied or filled is a unit too, of which 80 were seen. A call that took less time than its fuel over this has used
/// less, so there is no need to count.
const MOST_FUEL_PER_NS: u64 = 256;

/// Names, tags and lengths that come with what is counted.
const OVERHEAD: usize = 64 << 10;
/// How much of a guest's own words is kept.
const MAX_TEXT: usize = 4 << 10;

fn instantiate(
    transform: &Transform,
    limits: &InstanceLimits,
    of: Use,
) -> Result<(Store<Host>, TransformComponent), StartError> {
    let pre = transform.pre(of)?;
    let host = Host {
        log: GuestLog::new(limits.log_bytes_per_second),
        limiter: Limiter::new(limits.memory_bytes),
        handles: 0,
        clock: elapsed,
    };
    let mut store = Store::new(transform.sandbox().engine(of), host);
    store.limiter(|host| &mut host.limiter);
    store.set_hostcall_fuel(limits.output_bytes.saturating_add(OVERHEAD));
    arm(&mut store, limits.start_deadline);
    if of == Use::Judge {
        // How it starts is no record's fault.
        store.set_fuel(u64::MAX).expect("the judge counts fuel");
    }
    let guest =
        pre.instantiate(&mut store).map_err(|e| match e.is::<wasmtime::PoolConcurrencyLimitError>() {
            true => StartError::NoRoom(one_line(&e)),
            false => failed_start(&mut store, "start", limits, &e),
        })?;
    Ok((store, guest))
}

/// Gives the next call `deadline`, rounded up to ticks, and an empty log. Without interruption that is no limit.
fn arm(store: &mut Store<Host>, deadline: Duration) {
    let ticks = deadline.as_millis().div_ceil(TICK.as_millis()) as u64;
    store.set_epoch_deadline(ticks + 1);
    store.data_mut().log.begin();
    store.data_mut().limiter.take_refused();
}

fn failed_start(
    store: &mut Store<Host>,
    function: &'static str,
    limits: &InstanceLimits,
    error: &wasmtime::Error,
) -> StartError {
    StartError::Call { function, source: failed(store, limits.start_deadline, limits, error) }
}

fn failed(
    store: &mut Store<Host>,
    deadline: Duration,
    limits: &InstanceLimits,
    error: &wasmtime::Error,
) -> CallError {
    let log = store.data_mut().log.last_lines();
    let text = cut(&trap_text(error));
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return CallError::Deadline { ms: deadline.as_millis() as u64, log };
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::OutOfFuel) {
        return CallError::Fuel { limit: limits.fuel_per_record, log };
    }
    if store.data_mut().limiter.take_refused() {
        return CallError::Memory { limit_bytes: store.data().limiter.limit(), text, log };
    }
    if text.contains("too much data is being copied") {
        let text = format!("process: more than {} bytes go between guest and host", limits.output_bytes);
        return CallError::BadOutput { text, log };
    }
    CallError::Trap { text, log }
}

/// The cause alone: what stands before it is a list of unnamed functions.
fn trap_text(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    text.trim_start_matches("wasm trap: ").to_owned()
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let more = if end < text.len() { " (cut)" } else { "" };
    escape(&text[..end]) + more
}

/// The settings that the pipeline gives, and the defaults of the others.
fn complete<'a>(
    given: &'a [(String, String)],
    description: &'a Description,
) -> Result<Vec<(&'a str, &'a str)>, String> {
    if let Some((key, _)) = given.iter().find(|(key, _)| description.settings.iter().all(|s| s.key != *key)) {
        return Err(format!("the transform has no setting `{key}`"));
    }
    let mut all = Vec::new();
    for setting in &description.settings {
        let value = given.iter().find(|(key, _)| *key == setting.key).map(|(_, value)| value);
        let value = value.or(setting.default.as_ref());
        let value = value.ok_or_else(|| format!("setting `{}` is required, and not given", setting.key))?;
        if let Some(choices) = &setting.choices
            && !choices.contains(value)
        {
            return Err(format!("setting `{}`: `{value}` is none of {}", setting.key, choices.join(", ")));
        }
        all.push((setting.key.as_str(), value.as_str()));
    }
    Ok(all)
}

/// Time since the first call of this.
#[expect(
    clippy::disallowed_methods,
    reason = "it meters how much of a guest's log goes on; nothing is decided by it"
)]
fn elapsed() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
