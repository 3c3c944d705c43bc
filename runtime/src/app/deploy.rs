//! Another plan for a pipeline that runs: made from what runs now or from the file, checked like the plan of a start, and put
//! into the plan log, where all processes find it. It stops and starts nothing.

mod migration;
mod sample;
mod shadow;

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroU64;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};

pub use shadow::{AlreadyTried, Until, drop_shadow, is_overdue};

use super::again::Again;
use super::differences::{Difference, differences, of_routes};
use super::doctor;
use super::letters::used;
use super::plans::Candidate;
use super::sinks::sinks_of;
use super::{Kept, Options, Origin, cache_dir, joined, named, plans, recall, sandbox};
use crate::admin;
use crate::config::{ByteSize, Complaint, Period, PipelineConfig, TableConfig, TargetRef};
use crate::description::Description;
use crate::origin::replay_topic;
use crate::plan::store::Store;
use crate::plan::{Adopted, By, History, InputPartition, Made, Plan, PlanLog};
use crate::route::DEAD_LETTERS;
use crate::sandbox::{LoadError, Sandbox, compile_ahead};
use crate::sink::state::{Cut, PlanRef};

pub use migration::Statements;
pub use sample::{Fates, Sample};

/// What is to be different from what runs. Nothing at all: whatever the pipeline file says.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Another component, by its file.
    pub component: Option<PathBuf>,
    /// Settings, by their keys.
    pub settings: Vec<(String, String)>,
    /// Files of tables, by the tables' names.
    pub tables: Vec<(String, PathBuf)>,
    /// Limits of the transform, by their keys in the pipeline file.
    pub limits: Vec<(String, String)>,
}

impl Changes {
    /// Whether the pipeline file is asked alone.
    pub fn is_empty(&self) -> bool {
        self.component.is_none()
            && self.settings.is_empty()
            && self.tables.is_empty()
            && self.limits.is_empty()
    }

    /// The component that is loaded for it and may never have been.
    fn new_component<'a>(&'a self, config: &'a PipelineConfig) -> Option<&'a Path> {
        let of_the_file = self.is_empty().then_some(&*config.transform.component);
        self.component.as_deref().or(of_the_file)
    }
}

/// A plan that is ready to be put, and the one that it would replace.
pub struct Deployment {
    config: PipelineConfig,
    log: Box<dyn PlanLog>,
    store: Arc<dyn Store>,
    history: History,
    candidate: Candidate,
    /// What is said of the file that it was taken from.
    declared: String,
    /// Why, if nobody says.
    why: String,
    options: Options,
    /// What the plan runs that it would replace, or why that cannot be loaded here; loaded when it is first asked for.
    running: OnceCell<Result<Again, String>>,
}

impl std::fmt::Debug for Deployment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployment").field("plan", self.candidate.plan()).finish_non_exhaustive()
    }
}

/// What is to be known before a plan is put, besides what is different.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What sinks do not take.
    pub sinks: bool,
    /// What becomes of so many records that stand last in the input.
    pub last_records: Option<usize>,
}

/// What was found out.
#[derive(Debug)]
pub struct Looked {
    /// As of [`Deployment::differences`].
    pub differences: Vec<Difference>,
    /// As of [`Deployment::refused_by_sinks`], where they were asked.
    pub refused: Vec<(String, anyhow::Error)>,
    /// What became of the records, or why that could not be found out; of few where a sink refused meanwhile.
    pub sample: Option<Result<Sample>>,
}

/// Another plan came in between.
#[derive(Debug, thiserror::Error)]
#[error(
    "plan {found} was put while this one was prepared, to take the place of plan {expected}: nothing was changed"
)]
pub struct Overtaken {
    /// The plan that this one was to replace.
    pub expected: u64,
    /// The one that did.
    pub found: u64,
}

/// No plan runs that could be replaced.
#[derive(Debug, thiserror::Error)]
#[error("pipeline {pipeline} has never run: there is no plan to replace")]
pub struct NeverRan {
    pipeline: String,
}

impl NeverRan {
    fn of(config: &PipelineConfig) -> Self {
        Self { pipeline: config.name.to_string() }
    }
}

/// More memory for the transform than running processes have set aside.
#[derive(Debug, thiserror::Error)]
#[error("limit memory: {wanted:?} are more than the {most:?} that running processes can give to an instance")]
pub struct NoRoom {
    wanted: ByteSize,
    most: ByteSize,
}

/// Rows for a target that the pipeline file says something of, which running processes have not read.
#[derive(Debug, thiserror::Error)]
#[error("no plan has sent rows to {0} before, and running processes do not know what the file says of it")]
pub struct UnreadTarget(String);

/// A plan that is asked for and does not help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoSuchPlan(String);

impl Deployment {
    /// Loads and checks what runs with these changes, or what the file says where there are none. Nothing is written but
    /// into the store and the cache of this machine.
    ///
    /// # Errors
    /// [`NeverRan`], [`crate::config::Error`], and what the sandbox and the plan log say.
    pub fn prepare(config: &PipelineConfig, options: &Options, changes: &Changes) -> Result<Self> {
        let compiles = changes.new_component(config).map(|new| Compiles::begin(config, options, new));
        let base = Base::open(config, options)?;
        base.compiles.set(compiles);
        let (newest, running) = base.newest()?;
        let declared = running.declared.clone();
        if changes.is_empty() {
            return base.deployment(config.clone(), None);
        }
        let mut wanted = base.config_of(newest, changes)?;
        changes.apply(&mut wanted)?;
        base.deployment(wanted, Some(declared))
    }

    /// What ran as plan `to`, once more; without it, what ran before what runs now ([`History::before`]).
    ///
    /// # Errors
    /// [`NeverRan`], [`NoSuchPlan`], and what the sandbox and the plan log say.
    pub fn back(config: &PipelineConfig, options: &Options, to: Option<u64>) -> Result<Self> {
        let base = Base::open(config, options)?;
        let (newest, running) = base.newest()?;
        let declared = running.declared.clone();
        let to = match to {
            Some(to) if !base.history.plans.contains_key(&to) => {
                bail!(NoSuchPlan(format!("there is no plan {to}: `weir history` shows which there are")));
            }
            Some(to) => to,
            None => base.history.before().ok_or_else(|| {
                NoSuchPlan(format!(
                    "nothing ran before what plan {newest} does but what was undone since, by somebody or by itself: `--to PLAN` \
                     goes to any plan of `weir history`"
                ))
            })?,
        };
        let wanted = base.config_of(to, &Changes::default())?;
        let deployment = base.deployment(wanted, Some(declared))?;
        Ok(Self { why: format!("back to plan {to}"), ..deployment })
    }

    /// The plan that it would replace.
    pub fn replaces(&self) -> (u64, &Plan) {
        self.history.newest().expect("looked up when it was prepared")
    }

    /// What it would run, with rows for the sinks `names`, and the plan in which it would.
    pub(super) fn into_again(self, names: &[Arc<str>]) -> (Again, Plan) {
        let plan = self.candidate.plan().clone();
        (Again::of(&self.candidate, names), plan)
    }

    /// What would be different, the columns of the routes among it.
    pub fn differences(&self) -> Vec<Difference> {
        let (was, is) = (self.replaces().1, self.candidate.plan());
        let mut found = differences(was, is);
        // A transform says the same of itself under the same settings.
        if (&was.digest, &was.settings) != (&is.digest, &is.settings) {
            let running = self.running().as_ref().map(|running| running.loaded.description());
            found.extend(of_routes(running.map_err(String::as_str), self.candidate.description()));
        }
        found
    }

    /// What the plan runs that it would replace, or why that cannot be loaded here.
    fn running(&self) -> &Result<Again, String> {
        self.running.get_or_init(|| {
            let (plan, running) = self.replaces();
            let plan = PlanRef { plan, digest: running.digest.clone() };
            let (store, names) = (self.store.clone(), self.names());
            let loaded = Again::load(&self.config, &self.options, &self.history, store, names, &plan);
            loaded.map_err(|error| format!("{error:#}"))
        })
    }

    /// The sinks that have something, or may have.
    fn names(&self) -> Vec<Arc<str>> {
        used(&self.config, &self.history).iter().map(|(name, _)| name.as_str().into()).collect()
    }

    /// Whether it is what runs already, so that nothing [differs](Self::differences).
    pub fn runs_already(&self) -> bool {
        differences(self.replaces().1, self.candidate.plan()).is_empty()
    }

    /// Finds out all that somebody wants to know before it is put, at the same time: sinks and input wait for others most of the
    /// time. `tell` is called as soon as it is known what would be different.
    pub fn look(&self, ask: Ask, tell: impl FnOnce(&[Difference])) -> Looked {
        // Not all of it can be looked at by several threads.
        let Self { config, options, candidate, history, .. } = self;
        let is_refused = AtomicBool::new(false);
        let ask_sinks = || {
            let refused = doctor::refused_by_sinks(config, options, candidate, history);
            is_refused.store(!refused.is_empty(), Ordering::Relaxed);
            refused
        };
        thread::scope(|scope| {
            let last = ask.last_records.map(|n| scope.spawn(move || recall::last(config, history, n)));
            let refused = ask.sinks.then(|| scope.spawn(ask_sinks));
            let differences = self.differences();
            tell(&differences);
            let wanted = || !is_refused.load(Ordering::Relaxed);
            let sample = last.map(|last| joined(last).and_then(|last| self.sample(last, &wanted)));
            Looked { differences, sample, refused: refused.map(joined).unwrap_or_default() }
        })
    }

    /// The sinks that do not take what the plan's routes make, or cannot be asked, and why.
    pub fn refused_by_sinks(&self) -> Vec<(String, anyhow::Error)> {
        doctor::refused_by_sinks(&self.config, &self.options, &self.candidate, &self.history)
    }

    /// Puts it into the plan log, with the reason that somebody has; its number. From then on every process that has a
    /// partition takes it over at the next batch; after a crash before that, the next owner of a partition does. On trial,
    /// it is taken back by itself where it does worse than the plan before.
    ///
    /// # Errors
    /// [`Overtaken`], and what the plan log says: then it may be there all the same.
    pub fn put(&mut self, why: &str, on_trial: bool) -> Result<u64> {
        let why = if why.is_empty() { self.why.clone() } else { why.to_owned() };
        let made = Made { by: By { who: who(), at_ms: admin::now_ms() }, why, on_trial };
        let (expected, _) = self.replaces();
        let (log, store, declared) = (self.log.as_mut(), self.store.as_ref(), self.declared.clone());
        let put = self.candidate.put(declared, Some(expected), Some(made), &mut self.history, log, store)?;
        match put {
            Some(plan) => Ok(plan.plan),
            None => {
                let found = self.history.newest().map_or(expected, |(found, _)| found);
                Err(Overtaken { expected, found }.into())
            }
        }
    }

    /// The plan that took the place of plan `number`, as far as the log was read; who put it, and why.
    pub fn taken_back(&self, number: u64) -> Option<(u64, &Made)> {
        let mut plans = self.history.plans.iter();
        plans
            .find_map(|(by, plan)| Some((*by, plan.made.as_ref().filter(|_| plan.replaces == Some(number))?)))
    }

    /// Who paused the pipeline, if somebody did: no plan makes anything before it goes on.
    pub fn paused(&self) -> Option<&By> {
        self.history.paused.as_ref()
    }

    /// Partitions that are read, and from where on plan `number` makes them, as far as it has been adopted. The replay input
    /// is among them only once it has: mostly nothing comes there.
    ///
    /// # Errors
    /// If the plan log cannot be read.
    pub fn adopted(&mut self, number: u64) -> Result<BTreeMap<InputPartition, Option<Cut>>> {
        self.history.catch_up(self.log.as_mut())?;
        let replay = replay_topic(self.config.name.as_str());
        let is_read = |of: &&InputPartition| {
            !self.history.done.contains_key(of) && of.topic.as_deref() != Some(&*replay)
        };
        let read = self.history.started.keys().filter(is_read);
        let mut all: BTreeMap<_, _> = read.map(|of| (of.clone(), None)).collect();
        for Adopted { of, cut, .. } in self.history.adopted.iter().filter(|told| told.cut.plan.plan == number)
        {
            all.insert(of.clone(), Some(cut.clone()));
        }
        Ok(all)
    }
}

/// Compiles a component while other things are waited for, the plan log above all. Whoever finds out meanwhile that it is not
/// needed does not wait for it.
struct Compiles {
    component: PathBuf,
    thread: JoinHandle<Result<(), LoadError>>,
}

impl Compiles {
    fn begin(config: &PipelineConfig, options: &Options, component: &Path) -> Self {
        let (cache_dir, compiler) = (cache_dir(config, options), options.compiler.clone());
        // Of a pipeline that never ran nothing is made, its state directory least of all.
        let may_write = options.cache_dir.is_some() || config.state.exists();
        let (component, path) = (component.to_owned(), component.to_owned());
        let thread = thread::spawn(move || match fs::read(path) {
            Ok(bytes) if may_write => compile_ahead(&cache_dir, compiler.as_deref(), &bytes),
            // One that cannot be read is told by who loads it.
            _ => Ok(()),
        });
        Self { component, thread }
    }

    fn wait(self) -> Result<()> {
        let compiled = self.thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        compiled.with_context(|| plans::loading(&self.component))
    }
}

/// What is known before it is known what is wanted.
struct Base<'a> {
    config: &'a PipelineConfig,
    options: &'a Options,
    log: Box<dyn PlanLog>,
    store: Arc<dyn Store>,
    history: History,
    sandbox: Sandbox,
    /// The component that is about to be loaded, until somebody waited for it.
    compiles: Cell<Option<Compiles>>,
}

impl<'a> Base<'a> {
    fn open(config: &'a PipelineConfig, options: &'a Options) -> Result<Self> {
        let kept = Origin::of(config)?.log_that_is_there(config)?;
        let Kept { log, history, store } = kept.ok_or_else(|| NeverRan::of(config))?;
        let sandbox = sandbox(config, options, &history)?;
        Ok(Self { config, options, log, store, history, sandbox, compiles: Cell::default() })
    }

    fn wait_for_compiler(&self) -> Result<()> {
        self.compiles.take().map_or(Ok(()), Compiles::wait)
    }

    fn newest(&self) -> Result<(u64, &Plan)> {
        Ok(self.history.newest().ok_or_else(|| NeverRan::of(self.config))?)
    }

    /// Loads and checks what a file says; `declared` is what is said of the file that it was taken from, if that is
    /// another.
    fn deployment(self, config: PipelineConfig, declared: Option<String>) -> Result<Deployment> {
        sinks_of(&config, &self.history)?;
        self.has_room(&config)?;
        self.has_read_targets(&config)?;
        // What is not there is told at once, and not when something is compiled.
        named::transform(&config)?;
        self.wait_for_compiler()?;
        let candidate = Candidate::load(&config, &self.sandbox)?;
        let declared = declared.unwrap_or_else(|| candidate.plan().declared.clone());
        let Self { options, log, store, history, .. } = self;
        let (why, options, running) = (String::new(), options.clone(), OnceCell::new());
        Ok(Deployment { config, log, store, history, candidate, declared, why, options, running })
    }

    /// Where a target's rows go is no part of a plan: a process that has read nothing of it would send them to the place of
    /// the target's own name.
    fn has_read_targets(&self, config: &PipelineConfig) -> Result<(), UnreadTarget> {
        let past: BTreeSet<&String> =
            self.history.plans.values().flat_map(|plan| plan.routes.values().flatten()).collect();
        let all = config.routes.values().flatten().chain([&config.dead_letter.to]);
        let of_its_own = |to: &&TargetRef| config.sinks[&to.sink].targets().contains(&&to.target);
        let mut new = all.filter(of_its_own).map(ToString::to_string).filter(|to| !past.contains(to));
        new.next().map_or(Ok(()), |to| Err(UnreadTarget(to)))
    }

    /// Memory for instances is set aside when a process starts, for what is known by then.
    fn has_room(&self, config: &PipelineConfig) -> Result<(), NoRoom> {
        let past = self.history.plans.values().map(|plan| plan.limits.memory_bytes);
        let most = past.max().unwrap_or_default();
        match config.limits.memory.bytes() <= most {
            true => Ok(()),
            false => Err(NoRoom { wanted: config.limits.memory, most: ByteSize::of(most) }),
        }
    }

    fn config_of(&self, number: u64, changes: &Changes) -> Result<PipelineConfig> {
        self.config_that_says(&format!("plan {number}"), &self.history.plans[&number], changes)
    }

    /// The pipeline file as it would say what a plan says. With another component, settings and tables that this one
    /// does not have are left out, and so are settings that only said what the old one takes by itself.
    fn config_that_says(&self, called: &str, plan: &Plan, changes: &Changes) -> Result<PipelineConfig> {
        let mut config = self.config.clone();
        config.say_by(called);
        let kept = |digest: &str| self.store.file(digest).with_context(|| format!("getting {called}"));
        let component = kept(&plan.digest)?;
        config.transform.settings = plan.settings.clone();
        let table = |(name, of): (&String, &crate::plan::TableRef)| {
            let (file, columns) = (kept(&of.digest)?, of.columns.clone());
            let delimiter = of.delimiter.and_then(|c| u8::try_from(c).ok());
            anyhow::Ok((name.clone(), TableConfig { file, delimiter, columns }))
        };
        config.transform.tables = plan.tables.iter().map(table).collect::<Result<_>>()?;
        if let Some(other) = &changes.component {
            let old = self.describe(&component)?;
            self.wait_for_compiler()?;
            let new = self.describe(other)?;
            let given = |key: &String, value: &String| {
                let as_the_old =
                    old.settings.iter().any(|s| s.key == *key && s.default.as_ref() == Some(value));
                !as_the_old && new.settings.iter().any(|setting| setting.key == *key)
            };
            config.transform.settings.retain(|key, value| given(key, value));
            config.transform.tables.retain(|name, _| new.tables.iter().any(|need| need.name == *name));
        }
        config.transform.component = component;
        let limits = &mut config.limits;
        limits.memory = ByteSize::of(plan.limits.memory_bytes);
        limits.deadline = Period::milliseconds(plan.limits.deadline_ms);
        limits.output_bytes = ByteSize::of(plan.limits.output_bytes);
        limits.fuel_per_record =
            NonZeroU64::new(plan.limits.fuel_per_record).unwrap_or(limits.fuel_per_record);
        let targets =
            |to: &Vec<String>| to.iter().map(|to| self.target(called, to)).collect::<Result<Vec<_>>>();
        config.routes.clear();
        for (route, to) in &plan.routes {
            let mut to = targets(to)?;
            match route == DEAD_LETTERS {
                true => config.dead_letter.to = to.pop().context("a plan says where dead letters go")?,
                false => drop(config.routes.insert(route.clone(), to)),
            }
        }
        Ok(config)
    }

    fn describe(&self, component: &Path) -> Result<Description> {
        let bytes = plans::read("component", component)?;
        let transform = self.sandbox.load(&bytes).with_context(|| plans::loading(component))?;
        Ok(transform.describe(&[], &plans::may_use(self.config))?)
    }

    /// A place that a plan sends rows to; the file has its sink.
    fn target(&self, called: &str, to: &str) -> Result<TargetRef> {
        let target = TargetRef::parse(to).ok().filter(|target| self.config.sinks.contains_key(&target.sink));
        target.with_context(|| format!("{called} sends rows to {to}, and the pipeline file has no such sink"))
    }
}

impl Changes {
    fn apply(&self, config: &mut PipelineConfig) -> Result<()> {
        if let Some(component) = &self.component {
            config.say_by_option(&["transform", "component"], &format!("COMPONENT {}", component.display()));
            config.transform.component = component.clone();
        }
        for (key, value) in &self.settings {
            config.say_by_option(&["transform", "settings", key], &format!("--set {key}={value}"));
            config.transform.settings.insert(key.clone(), value.clone());
        }
        for (name, file) in &self.tables {
            let option = format!("--table {name}={}", file.display());
            config.say_by_option(&["transform", "tables", name], &option);
            config.say_by_option(&["transform", "tables", name, "file"], &option);
            let table = TableConfig { file: file.clone(), delimiter: None, columns: BTreeMap::new() };
            match config.transform.tables.get_mut(name) {
                Some(held) => held.file = file.clone(),
                None => drop(config.transform.tables.insert(name.clone(), table)),
            }
        }
        for (key, value) in &self.limits {
            let changed = config.limits.change(key, value);
            let (key, value) = (key.clone(), value.clone());
            changed.map_err(|complaint| WrongLimit { key, value, complaint })?;
        }
        Ok(())
    }
}

/// A limit that cannot be changed so.
#[derive(Debug, thiserror::Error)]
#[error("--limit {key}={value}: {}", complaint.message)]
pub struct WrongLimit {
    key: String,
    value: String,
    complaint: Complaint,
}

impl WrongLimit {
    /// What a person can do.
    pub fn hint(&self) -> Option<&str> {
        self.complaint.help.as_deref()
    }
}

/// Who does this, as the system and the environment say.
fn who() -> String {
    let uid = rustix::process::getuid().as_raw();
    match std::env::var("USER") {
        Ok(name) => format!("{name} (uid {uid})"),
        Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        pipeline = { name = "orders", state = "state" }
        source.files = { path = "orders.csv", topic = "orders" }
        transform = { component = "rule.wasm" }
        routes = { all = "lake.all" }
        dead_letter = { to = "lake.dead_letters" }
        sinks.lake.files = { path = "out" }
    "#;

    #[test]
    fn a_component_that_may_be_new_is_compiled_ahead_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pipeline.toml");
        fs::write(&file, FILE).unwrap();
        let config = PipelineConfig::load(&file).unwrap();
        let of_the_file = Some(dir.path().join("rule.wasm"));
        let new = |changes: Changes| changes.new_component(&config).map(Path::to_owned);
        assert_eq!(new(Changes::default()), of_the_file);
        let other = || Some(PathBuf::from("other.wasm"));
        assert_eq!(new(Changes { component: other(), ..Changes::default() }), other());
        let settings = vec![("strict".to_owned(), "true".to_owned())];
        assert_eq!(
            new(Changes { component: other(), settings: settings.clone(), ..Changes::default() }),
            other()
        );
        // What runs was compiled before it ran.
        assert_eq!(new(Changes { settings, ..Changes::default() }), None);
    }
}
