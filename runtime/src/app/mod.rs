//! Puts a pipeline together from its file: the only place that names concrete sources and sinks. It decides nothing
//! while records flow.

mod inputs;
mod plans;
mod sinks;
mod state_dir;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use crossbeam_channel::Receiver;

use crate::budget::Budget;
use crate::config::{self, FilesSource, PipelineConfig, SourceConfig};
use crate::description::Description;
use crate::pipeline::threads::{self, Outcome, Parts};
use crate::pipeline::{Settings, Tally};
use crate::plan::files::FileLog;
use crate::plan::{Entry, History, Plan};
use crate::sandbox::{Imports, Sandbox, SandboxOptions};
use crate::sink::state::{Epoch, Nonce};
use crate::source::files::{FileSettings, FileSource, Inputs};

pub use plans::{Changed, Difference};
pub use sinks::{NewSink, TwoMoveTheGroup};
use sinks::{Tallies, open_sinks, sinks_of};
pub use state_dir::{Held, StateDir};

/// A sink that fails for a reason that may pass is tried again so often before its partition stops: with waits
/// that double from 100 ms to 30 s, some two minutes.
const MAX_ATTEMPTS: u32 = 12;

/// What a caller wants of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether a file that changed since the newest plan becomes the next plan, or is refused.
    pub adopt: bool,
    /// Whether it ends at the end of the input, or goes on looking for more.
    pub once: bool,
    /// Where compiled transforms are kept.
    pub cache_dir: Option<PathBuf>,
    /// The program that compiles them: see [`SandboxOptions::compiler`].
    pub compiler: Option<PathBuf>,
}

/// A pipeline that is ready to run: its state directory is held, its plan is chosen, its sinks are open.
pub struct Pipeline {
    parts: Parts,
    plan: (u64, Plan),
    description: Arc<Description>,
    tallies: Tallies,
    _state: StateDir,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    /// What became of the records, and which partitions stopped.
    pub outcome: Outcome,
    /// Files that a predecessor had committed and this run made visible.
    pub rolled_forward: u64,
    /// Rows that a database or a topic refused for what is in them; they are among its rejects.
    pub refused: u64,
    /// Rows of tables with keys behind which another one of the same commit had their key.
    pub superseded: u64,
}

impl Pipeline {
    /// Opens what `config` names, in this order: state directory, transform, plan, inputs, sinks. Nothing is
    /// written before the configuration is known to be sound, but for the state directory itself.
    ///
    /// # Errors
    /// [`Held`], [`config::Error`], [`Changed`] and what the sandbox, the sources and the sinks say.
    pub fn open(config: &PipelineConfig, options: &Options) -> Result<Self> {
        let state = StateDir::open(&config.state)?;
        let mut log = FileLog::open(state.plans())?;
        let mut history = History::default();
        history.catch_up(&mut log)?;

        let sandbox = sandbox(config, options, &history)?;
        let store = state.store()?;
        let candidate = plans::Candidate::load(config, &sandbox)?;
        let sinks = sinks_of(config, &history)?;
        let chosen = candidate.choose(&mut history, &mut log, &store, options.adopt)?;
        let names = sinks.iter().map(|(name, _)| name.as_str().into()).collect::<Vec<Arc<str>>>();
        let log_bytes = config.limits.log_bytes_per_second.bytes();
        let (newest, description) = (chosen.plan().clone(), chosen.description().clone());
        let plans = history.plans.clone();
        let rules = plans::PlanRules::new(sandbox, store, plans, names.clone(), log_bytes, chosen);

        let SourceConfig::Files(source_config) = &config.source;
        let inputs = Inputs::new(&source_config.path, source_config.format.map(inputs::format_of));
        let log = Arc::new(Mutex::new((history, log)));
        inputs::discover(&log, &inputs).context("looking for input files")?;
        let owner = Nonce::random();
        let (generation, topic_id) = begin(&log, owner)?;

        // A source of Kafka is the member of a group, and its sink has to know.
        let (sinks, tallies) = open_sinks(config, &description, &sinks, None)?;
        let budget = Budget::new(config.limits.in_flight_bytes.bytes() as usize);
        let source = file_source(config, source_config, options, inputs, &log, &budget, generation, topic_id);
        let (history, plan) = {
            let held = log.lock().expect("nobody panics with the log in hand");
            (held.0.clone(), held.0.plans[&newest.plan].clone())
        };
        let settings = Settings {
            pipeline: config.name.as_str().into(),
            owner,
            sinks: names,
            plans_can_come: false,
            stop_after_consecutive: config.dead_letter.stop_after_consecutive.get(),
            max_attempts: MAX_ATTEMPTS,
        };
        let parts = Parts {
            settings,
            history,
            newest: newest.clone(),
            log: Box::new(FileLog::open(state.plans())?),
            source: Box::new(source),
            budget,
            sinks,
            rules: Arc::new(rules),
            workers: config.limits.workers.get() as usize,
            verify_fraction: config.sandbox.verify_fraction.get(),
        };
        Ok(Self { parts, plan: (newest.plan, plan), description, tallies, _state: state })
    }

    /// The plan that will run, and its number.
    pub fn plan(&self) -> (u64, &Plan) {
        (self.plan.0, &self.plan.1)
    }

    /// What the transform says of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Runs until the end of the input, or until `stop` gets a message: then what is under way is finished and
    /// committed. `watch` is called now and then.
    pub fn run(self, stop: &Receiver<()>, watch: &mut dyn FnMut(&Tally)) -> Result<Ran> {
        let outcome = threads::run(self.parts, stop, watch)?;
        let Tallies { files, tables, topics } = &self.tallies;
        Ok(Ran {
            outcome,
            rolled_forward: files.iter().map(|tally| tally.rolled_forward.get()).sum(),
            refused: tables.iter().map(|tally| tally.rejected.get()).sum::<u64>()
                + topics.iter().map(|tally| tally.rejected.get()).sum::<u64>(),
            superseded: tables.iter().map(|tally| tally.superseded.get()).sum(),
        })
    }
}

type SharedLog = Arc<Mutex<(History, FileLog)>>;

fn sandbox(config: &PipelineConfig, options: &Options, history: &History) -> Result<Sandbox> {
    let past = history.plans.values().map(|plan| plan.limits.memory_bytes);
    let memory = past.chain([config.limits.memory.bytes()]);
    let imports = match config.sandbox.imports {
        config::Imports::Inert => Imports::Inert,
        config::Imports::None => Imports::None,
    };
    let workers = config.limits.workers.get();
    Ok(Sandbox::new(SandboxOptions {
        cache_dir: options.cache_dir.clone().or_else(|| Some(config.state.join("cache"))),
        compiler: options.compiler.clone(),
        imports,
        // One for each worker, one more for a second look, and both again while a plan changes.
        max_instances: workers * 4 + 4,
        // Plans of the past had limits of their own, and may be needed for a sink that lags.
        max_memory_bytes: memory.max().unwrap_or_default() as usize,
        interruptible: true,
    })?)
}

/// Writes down that this process begins: every claim of it carries the number it gets.
fn begin(log: &SharedLog, owner: Nonce) -> Result<(u64, Arc<str>)> {
    let mut held = log.lock().expect("nobody panics with the log in hand");
    let (history, log) = &mut *held;
    history.append(log, |history| {
        history.topic_id.is_none().then(|| Entry::Topic { id: Nonce::random().to_string().into() })
    })?;
    history.append(log, |history| {
        let runtime = env!("CARGO_PKG_VERSION").to_owned();
        Some(Entry::Start { generation: history.generation + 1, owner, runtime })
    })?;
    let topic_id = history.topic_id.clone().expect("just written");
    Ok((history.generation, topic_id))
}

#[expect(clippy::too_many_arguments, reason = "it only passes on what was opened")]
fn file_source(
    config: &PipelineConfig,
    source: &FilesSource,
    options: &Options,
    inputs: Inputs,
    log: &SharedLog,
    budget: &Budget,
    generation: u64,
    topic_id: Arc<str>,
) -> FileSource {
    let settings = FileSettings {
        topic: source.topic.as_str().into(),
        topic_id,
        group: config.name.as_str().into(),
        epoch: Epoch::new(generation),
        batch_records: config.limits.batch_records.get() as usize,
        batch_bytes: config.limits.batch_bytes.bytes() as usize,
        once: options.once,
    };
    let (entries, started) = {
        let held = log.lock().expect("nobody panics with the log in hand");
        (inputs::unfinished(&held.0), held.0.started.keys().copied().collect())
    };
    let discover = inputs::discoverer(log.clone(), inputs.clone());
    FileSource::new(settings, inputs, budget.clone(), entries, started, discover)
}

/// The plan log of a pipeline, read without running it.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn history(config: &PipelineConfig) -> Result<History> {
    let plans = config.state.join("plans");
    anyhow::ensure!(
        plans.is_dir(),
        "no pipeline has run with the state directory {}",
        config.state.display()
    );
    let mut history = History::default();
    history.catch_up(&mut FileLog::open(plans)?)?;
    Ok(history)
}
