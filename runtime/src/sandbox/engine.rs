//! The engine that compiles and runs transforms, and the clock that interrupts them. It never reads a file.

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
    /// What a transform may import.
    pub imports: Imports,
    /// How many instances may live at once: workers, and one per worker for halving a batch.
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

/// The one engine of a process. Cheap to clone; its clock stops with the last clone, transforms and instances
/// included.
#[derive(Clone, Debug)]
pub struct Sandbox {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) options: SandboxOptions,
    pub(super) cache: Option<Cache>,
    _ticker: Option<Ticker>,
}

/// The engine could not be set up, or its clock not be started.
#[derive(Debug, thiserror::Error)]
#[error("starting the sandbox: {0}")]
pub struct EngineError(String);

impl Sandbox {
    /// Sets up the engine and starts its clock.
    ///
    /// # Errors
    /// Where the processor or the operating system lacks something; a cache directory that cannot be used is only
    /// a warning.
    pub fn new(options: SandboxOptions) -> Result<Self, EngineError> {
        let engine = engine(&options).map_err(|e| EngineError(format!("{e:#}")))?;
        let ticker = options.interruptible.then(|| Ticker::start(engine.weak())).transpose();
        let ticker = ticker.map_err(|e| EngineError(e.to_string()))?;
        let cache = options.cache_dir.as_deref().and_then(Cache::open);
        Ok(Self { shared: Arc::new(Shared { engine, options, cache, _ticker: ticker }) })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.shared.engine
    }
}

/// Instances come from a pool; where its address space cannot be reserved (a small `ulimit -v`) they are made on
/// demand, which costs some microseconds each.
fn engine(options: &SandboxOptions) -> wasmtime::Result<Engine> {
    let mut config = config(options);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
    Engine::new(&config).or_else(|e| {
        tracing::warn!(error = format!("{e:#}"), "no pool for instances, making them on demand");
        Engine::new(config.allocation_strategy(InstanceAllocationStrategy::OnDemand))
    })
}

/// Multi-memory stays on: without it some valid components panic in the compiler. Guard pages, their reservation
/// and the Spectre mitigations are left as they come.
fn config(options: &SandboxOptions) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(options.interruptible)
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

/// A thread that moves the engine's epoch on every [`TICK`].
#[derive(Debug)]
struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new().name("sandbox-clock".to_owned()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
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
