//! Puts a pipeline together from its file: the only place that names concrete sources and sinks. It decides nothing
//! while records flow.

mod again;
mod columns;
pub mod deploy;
mod differences;
pub mod doctor;
pub mod explain;
mod inputs;
pub mod letters;
mod logs;
mod named;
mod plans;
mod recall;
pub mod replay;
mod rules;
mod secret;
mod sinks;
mod state_dir;
mod topics;

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use anyhow::Result;
use crossbeam_channel::Receiver;

use crate::admin::{self, Server};
use crate::budget::Budget;
use crate::config::{self, FilesSource, KafkaSource, PipelineConfig, SourceConfig};
use crate::description::Description;
use crate::kafka::Cluster;
use crate::kafka::group::Membership;
use crate::pipeline::status::Status;
use crate::pipeline::threads::{self, ALWAYS_VERIFIED, Handle, Outcome, Parts};
use crate::pipeline::{Settings, trial};
use crate::plan::files::FileLog;
use crate::plan::kafka::KafkaLog;
use crate::plan::store::Store;
use crate::plan::{By, History, Plan, PlanLog};
use crate::sandbox::{Imports, Sandbox, SandboxOptions};
use crate::sink::state::Nonce;
use crate::source::Source;

pub use differences::{Difference, differences};
use logs::{Cached, Impatient, SharedLog};
pub use named::meant_component;
pub use plans::Changed;
use rules::PlanRules;
pub use secret::Unfit;
use sinks::{Counted, Opened, open_sinks, sinks_of};
pub use sinks::{NewSink, OtherCluster, TwoMoveTheGroup};
pub use state_dir::{Held, Sharing, StateDir};

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
    /// Whether others may look at it while it runs, as the file says.
    pub admin: bool,
}

/// A pipeline that is ready to run: its state directory is held, its plan is chosen, its sinks are open.
pub struct Pipeline {
    parts: Parts,
    plan: (u64, Plan),
    description: Arc<Description>,
    counted: Vec<Counted>,
    notes: Vec<String>,
    handle: Handle,
    admin: Option<Server>,
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
    /// Opens what `config` names, once all of its files are there, in this order: state directory, transform, plan, inputs,
    /// sinks. Nothing is written before the configuration is known to be sound, but for the state directory itself; and a plan
    /// is put into the log only once the sinks were seen to take what its routes make.
    ///
    /// # Errors
    /// [`Held`], [`config::Error`], [`Changed`] and what the sandbox, the sources and the sinks say.
    pub fn open(config: &PipelineConfig, options: &Options) -> Result<Self> {
        named::all(config)?;
        let origin = Origin::of(config)?;
        let state = StateDir::open(&config.state, origin.sharing())?;
        let (log, store) = origin.log(config, &state)?;

        let mut inner = log.lock();
        let sandbox = sandbox(config, options, &inner.history)?;
        let candidate = plans::Candidate::load(config, &sandbox)?;
        let sinks = sinks_of(config, &inner.history)?;
        let logs::Inner { history, log: plan_log, .. } = &mut *inner;
        let newest = match candidate.chosen(history, options.adopt)? {
            Some(runs) => runs,
            None => {
                // One that a sink does not take would stand in the log, and every start would fail at it.
                doctor::taken_by_sinks(config, options, &candidate, history)?;
                candidate.take_over(history, plan_log.as_mut(), store.as_ref())?
            }
        };
        let names = sinks.iter().map(|(name, _)| name.as_str().into()).collect::<Vec<Arc<str>>>();
        let log_bytes = config.limits.log_bytes_per_second.bytes();
        let plans = history.plans.clone();
        drop(inner);
        let workers = config.limits.workers.get() as usize;
        // One for each worker, and one for each second look: each is some milliseconds that records need not wait.
        let spares = workers + ALWAYS_VERIFIED as usize;
        let rules = PlanRules::new(sandbox, store, plans, names.clone(), log_bytes, spares);
        rules.keep(newest.plan, candidate);
        let description = rules.description(&newest)?;

        let owner = Nonce::random();
        let budget = Budget::new(config.limits.in_flight_bytes.bytes() as usize);
        let (source, member) = origin.source(config, options, &log, &budget, owner)?;
        let Opened { sinks, counted, notes } = open_sinks(config, &description, &sinks, member.as_ref())?;
        let history = log.lock().history.clone();
        let plan = history.plans[&newest.plan].clone();
        let settings = Settings {
            pipeline: config.name.as_str().into(),
            owner,
            sinks: names,
            file_topic: origin.file_topic(),
            stop_after_consecutive: config.dead_letter.stop_after_consecutive.get(),
            // One that goes on waits for whatever may come back.
            max_attempts: if options.once { MAX_ATTEMPTS } else { u32::MAX },
            rollback: config.deploy.limits().map(limits_of_a_trial),
            on_trial_after: config
                .deploy
                .limits()
                .filter(|_| history.newest().is_some_and(|(number, _)| number == newest.plan))
                .and_then(|limits| history.on_trial_after(admin::now_ms(), limits.time.duration())),
        };
        let (handle, desk) = threads::handle(Status::before(&settings, &history, &newest));
        let parts = Parts {
            settings,
            history,
            newest: newest.clone(),
            followed: Box::new(Impatient(log.clone())),
            log: Box::new(log),
            source,
            budget,
            sinks,
            counts: counted.iter().cloned().map(|counted| Box::new(move || counted.so_far()) as _).collect(),
            rules: Arc::new(rules),
            workers,
            verify_fraction: config.sandbox.verify_fraction.get(),
            now_ms: admin::now_ms,
            desk,
        };
        let admin = options.admin.then(|| serve(config, handle.clone())).transpose()?;
        let plan = (newest.plan, plan);
        Ok(Self { parts, plan, description, counted, notes, handle, admin, _state: state })
    }

    /// Who wants nothing to be read, if somebody does.
    pub fn paused(&self) -> Option<&By> {
        self.parts.history.paused.as_ref()
    }

    /// What was found out about the sinks that a person may want to know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The sinks that get something, in their order.
    pub fn sinks(&self) -> &[Arc<str>] {
        &self.parts.settings.sinks
    }

    /// Where it puts up how it stands while it runs.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where others may look at it.
    pub fn admin(&self) -> Option<&Server> {
        self.admin.as_ref()
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
    /// committed.
    pub fn run(self, stop: &Receiver<()>) -> Result<Ran> {
        let outcome = threads::run(self.parts, stop)?;
        let counted: Vec<_> = self.counted.iter().map(Counted::so_far).collect();
        Ok(Ran {
            outcome,
            rolled_forward: counted.iter().map(|counted| counted.rolled_forward).sum(),
            refused: counted.iter().map(|counted| counted.refused).sum(),
            superseded: counted.iter().map(|counted| counted.superseded).sum(),
        })
    }
}

fn limits_of_a_trial(rollback: &config::Rollback) -> trial::Limits {
    trial::Limits {
        records: rollback.records.get(),
        time: rollback.time.duration(),
        rejected: rollback.rejected.get(),
        failed: rollback.failed.get(),
    }
}

fn serve(config: &PipelineConfig, handle: Handle) -> Result<Server, admin::Error> {
    let settings = admin::Settings { listen: config.admin.listen, sockets: config.admin.socket.clone() };
    let process = admin::Process {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: admin::now_ms(),
        listen: None,
    };
    let server = Server::start(&settings, handle, process)?;
    let address = server.address().map(|address| address.to_string());
    tracing::debug!(address, socket = %server.socket().display(), "others may look now");
    Ok(server)
}

/// What this process is in the group in which its records are read.
struct Member {
    who: Arc<dyn Membership>,
    /// Where the group is.
    cluster: Cluster,
}

/// Where the records of a pipeline come from, and so where it writes down its decisions.
enum Origin<'a> {
    Files(&'a FilesSource),
    Kafka(&'a KafkaSource, Cluster),
}

/// Where decisions are written down, what they add up to, and the bytes that they name.
struct Kept {
    log: Box<dyn PlanLog>,
    history: History,
    store: Arc<dyn Store>,
}

impl<'a> Origin<'a> {
    fn of(config: &'a PipelineConfig) -> Result<Self> {
        Ok(match &config.source {
            SourceConfig::Files(files) => Self::Files(files),
            SourceConfig::Kafka(kafka) => Self::Kafka(kafka, topics::cluster(kafka)?),
        })
    }

    fn sharing(&self) -> Sharing {
        match self {
            Self::Files(_) => Sharing::Alone,
            Self::Kafka(..) => Sharing::WithOthers,
        }
    }

    fn file_topic(&self) -> Option<Arc<str>> {
        match self {
            Self::Files(files) => Some(files.topic.as_str().into()),
            Self::Kafka(..) => None,
        }
    }

    fn log(&self, config: &PipelineConfig, state: &StateDir) -> Result<(SharedLog, Arc<dyn Store>)> {
        Ok(match self {
            Self::Files(_) => (SharedLog::in_files(state)?, Arc::new(state.store()?)),
            Self::Kafka(_, cluster) => {
                let name = config.name.as_str();
                let store = Cached::new(cluster, name, state.store()?);
                (SharedLog::in_kafka(cluster, name)?, Arc::new(store))
            }
        })
    }

    /// The plan log and the store of a pipeline that has run, whether it runs now or not; nothing is made.
    fn log_that_is_there(&self, config: &PipelineConfig) -> Result<Option<Kept>> {
        let local = || state_dir::store_in(&config.state);
        match self {
            Self::Files(_) => {
                let plans = state_dir::plans_in(&config.state);
                if !plans.is_dir() {
                    return Ok(None);
                }
                let mut log = FileLog::open(plans)?;
                let history = logs::read(&mut log)?;
                Ok(Some(Kept { log: Box::new(log), history, store: Arc::new(local()?) }))
            }
            Self::Kafka(_, cluster) => {
                let name = config.name.as_str();
                let Some(mut log) = KafkaLog::open_if_there(cluster, name)? else { return Ok(None) };
                let history = logs::read_far(&mut log)?;
                let store = Cached::new(cluster, name, local()?);
                Ok(Some(Kept { log: Box::new(log), history, store: Arc::new(store) }))
            }
        }
    }

    fn source(
        &self,
        config: &PipelineConfig,
        options: &Options,
        log: &SharedLog,
        budget: &Budget,
        owner: Nonce,
    ) -> Result<(Box<dyn Source>, Option<Member>)> {
        Ok(match self {
            Self::Files(files) => {
                (Box::new(inputs::file_source(config, files, options, log, budget, owner)?), None)
            }
            Self::Kafka(kafka, cluster) => {
                let source = topics::kafka_source(config, kafka, cluster, options, log, budget)?;
                let member = Member { who: source.membership(), cluster: cluster.clone() };
                (Box::new(source), Some(member))
            }
        })
    }
}

/// What a thread came to; its panic is that of who waits for it.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn cache_dir(config: &PipelineConfig, options: &Options) -> PathBuf {
    options.cache_dir.clone().unwrap_or_else(|| config.state.join("cache"))
}

fn sandbox(config: &PipelineConfig, options: &Options, history: &History) -> Result<Sandbox> {
    let past = history.plans.values().map(|plan| plan.limits.memory_bytes);
    let memory = past.chain([config.limits.memory.bytes()]);
    let imports = match config.sandbox.imports {
        config::Imports::Inert => Imports::Inert,
        config::Imports::None => Imports::None,
    };
    let workers = config.limits.workers.get();
    Ok(Sandbox::new(SandboxOptions {
        cache_dir: Some(cache_dir(config, options)),
        compiler: options.compiler.clone(),
        imports,
        // Judges are not counted. Per worker one of each of two plans, and one that is started or looks again; those that wait for
        // the next plan, and for one that was overtaken a moment ago; a shadow's, and two that only say what they are.
        max_instances: workers * 3 + (workers + ALWAYS_VERIFIED) * 2 + 3,
        // Plans of the past had limits of their own, and may be needed for a sink that lags.
        max_memory_bytes: memory.max().unwrap_or_default() as usize,
        interruptible: true,
    })?)
}

/// The plan log of a pipeline, read without running it; `None` if it has never run.
///
/// # Errors
/// If it cannot be read.
pub fn history(config: &PipelineConfig) -> Result<Option<History>> {
    let kept = Origin::of(config)?.log_that_is_there(config)?;
    // A start that was refused leaves a log without a plan.
    Ok(kept.map(|kept| kept.history).filter(|history| history.newest().is_some()))
}
