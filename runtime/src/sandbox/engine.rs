//! The engines that compile and run transforms, and the clock that interrupts them. They never read a file.
//!
//! The one for work can only be interrupted by the clock, which is cheap. The other one, the *judge*, also counts
//! fuel: what it says of a record is the same on every machine, however busy.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use wasmtime::{Config, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::cache::Cache;

/// How often a running call looks up whether its time is over.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// What holds for every transform of a process.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Where compiled code is kept between runs; only this user may write there. `None`: nowhere.
    pub cache_dir: Option<PathBuf>,
    /// The program that compiles, in a process of its own with limits: one that calls [`super::child::serve`] when it is
    /// started with [`super::child::COMMAND`]. `None`: this process itself, without limits.
    pub compiler: Option<PathBuf>,
    /// What a transform may import.
    pub imports: Imports,
    /// How many instances may live at once, judges not counted.
    pub max_instances: u32,
    /// The most memory that any transform may be given, in bytes.
    pub max_memory_bytes: usize,
    /// Whether deadlines work. Off for benchmarks only: a loop would then never end.
    pub interruptible: bool,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            cache_dir: None,
            compiler: None,
            imports: Imports::Inert,
            max_instances: 32,
            max_memory_bytes: 256 << 20,
            interruptible: true,
        }
    }
}

/// What a transform may import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Imports {
    /// WASI 0.2, answered with constants: see [`super::wasi`].
    #[default]
    Inert,
    /// Nothing at all.
    None,
}

/// The engines of a process. Cheap to clone; their clock stops with the last clone, transforms and instances
/// included.
#[derive(Clone, Debug)]
pub struct Sandbox {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    engine: Engine,
    judge: Engine,
    pub(super) options: SandboxOptions,
    pub(super) cache: Option<Cache>,
    _ticker: Option<Ticker>,
}

/// An engine could not be set up, or the clock not be started.
#[derive(Debug, thiserror::Error)]
#[error("starting the sandbox: {0}")]
pub struct EngineError(String);

impl Sandbox {
    /// Sets up the engines and starts their clock. The judge compiles nothing before there is something to judge.
    ///
    /// # Errors
    /// Where the processor or the operating system lacks something; a cache directory that cannot be used is only
    /// a warning.
    pub fn new(options: SandboxOptions) -> Result<Self, EngineError> {
        let failed = |e: wasmtime::Error| EngineError(format!("{e:#}"));
        let engine = engine(&options).map_err(failed)?;
        let judge = Engine::new(&config(&options, Use::Judge)).map_err(failed)?;
        let engines = [engine.weak(), judge.weak()];
        let ticker = options.interruptible.then(|| Ticker::start(engines)).transpose();
        let ticker = ticker.map_err(|e| EngineError(e.to_string()))?;
        let cache = options.cache_dir.as_deref().and_then(|dir| {
            let warn =
                |e: &std::io::Error| tracing::warn!(dir = %dir.display(), error = %e, "no compile cache");
            Cache::open(dir).inspect_err(warn).ok()
        });
        Ok(Self { shared: Arc::new(Shared { engine, judge, options, cache, _ticker: ticker }) })
    }

    pub(super) fn engine(&self, of: Use) -> &Engine {
        match of {
            Use::Work => &self.shared.engine,
            Use::Judge => &self.shared.judge,
        }
    }
}

/// What an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// To transform batches, interrupted by the clock alone.
    Work,
    /// To find the guilty record of a batch that failed, with so much fuel for each call.
    Judge,
}

/// Instances come from a pool; where its address space cannot be reserved (a small `ulimit -v`) they are made on
/// demand, which costs some microseconds each.
fn engine(options: &SandboxOptions) -> wasmtime::Result<Engine> {
    let mut config = config(options, Use::Work);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
    Engine::new(&config).or_else(|e| {
        tracing::warn!(error = format!("{e:#}"), "no pool for instances, making them on demand");
        Engine::new(config.allocation_strategy(InstanceAllocationStrategy::OnDemand))
    })
}

/// Makes code for the engines of a [`Sandbox`] that can be interrupted, and runs nothing.
pub(super) fn compiler(of: Use) -> wasmtime::Result<Engine> {
    Engine::new(&config(&SandboxOptions::default(), of))
}

/// Multi-memory stays on: without it some valid components panic in the compiler. Guard pages, their reservation
/// and the Spectre mitigations are left as they come.
fn config(options: &SandboxOptions, of: Use) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(options.interruptible)
        .consume_fuel(of == Use::Judge)
        .concurrency_support(false)
        .generate_address_map(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_wide_arithmetic(false);
    config
}

/// Interpreters are made of dozens of core modules that share one memory, so there are many more places for core
/// instances than for memories.
fn pool(options: &SandboxOptions) -> PoolingAllocationConfig {
    let n = options.max_instances;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(n)
        .total_core_instances(64 * n)
        .total_memories(2 * n)
        .total_tables(8 * n)
        .table_elements(100_000)
        .max_tables_per_module(4)
        .max_memories_per_module(2)
        .max_memory_size(options.max_memory_bytes)
        .linear_memory_keep_resident(4 << 20)
        .table_keep_resident(64 << 10);
    pool
}

/// A thread that moves the engines' epochs on every [`TICK`].
#[derive(Debug)]
struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engines: [EngineWeak; 2]) -> std::io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new().name("sandbox-clock".to_owned()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                engines.iter().filter_map(EngineWeak::upgrade).for_each(|engine| engine.increment_epoch());
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the clock thread has nothing to panic about");
        }
    }
}
