//! From the pipeline file to the plan that runs: what the file says, whether that is what ran last, and how plans of
//! the past are loaded again for a sink that lags.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};

use super::named;
use crate::config::{DeclaredRoute, DeclaredSetting, DeclaredTable, PipelineConfig, TableConfig};
use crate::description::Description;
use crate::pipeline::Stop;
use crate::pipeline::threads::{Loaded, Rules};
use crate::plan::store::Store;
use crate::plan::{self, Entry, History, Plan, PlanLimits, PlanLog, TableRef};
use crate::route::{Bindings, DEAD_LETTERS, dead_letters_schema};
use crate::rule::Rule;
use crate::sandbox::{Init, Instance, InstanceLimits, Sandbox, StartError, Transform};
use crate::sink::state::PlanRef;
use crate::tables::{Table, TableOptions, file};

/// The plan that the pipeline file asks for, the bytes it names, and an instance that started; nothing is stored yet.
pub(super) struct Candidate {
    plan: Plan,
    bytes: Vec<Vec<u8>>,
    transform: Transform,
    init: Init,
    started: Instance,
}

/// The plan that runs.
pub(super) struct Chosen {
    plan: PlanRef,
    transform: Transform,
    init: Init,
    started: Instance,
}

impl Chosen {
    /// Which one it is.
    pub(super) fn plan(&self) -> &PlanRef {
        &self.plan
    }

    /// What its transform says of itself.
    pub(super) fn description(&self) -> &Arc<Description> {
        &self.init.description
    }
}

/// The pipeline file, or something it names, changed since the newest plan was taken from it.
#[derive(Debug, thiserror::Error)]
#[error("the pipeline file asks for another plan than plan {plan}, which ran last:\n{}", list(differences))]
pub struct Changed {
    /// The plan that ran last.
    pub plan: u64,
    /// What is different.
    pub differences: Vec<Difference>,
}

/// One thing in which two plans differ.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What, in the words of the pipeline file.
    pub what: String,
    /// What it was, if it was there.
    pub was: Option<String>,
    /// What it is, if it is there.
    pub is: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        write!(f, "{}: {} -> {}", self.what, or_none(&self.was), or_none(&self.is))
    }
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(|difference| format!("  {difference}")).collect::<Vec<_>>().join("\n")
}

impl Candidate {
    /// Reads and checks all that the file names, without writing anything.
    pub(super) fn load(config: &PipelineConfig, sandbox: &Sandbox) -> Result<Self> {
        named::transform(config)?;
        let component = read("component", &config.transform.component)?;
        let transform = sandbox
            .load(&component)
            .with_context(|| format!("loading the component {}", config.transform.component.display()))?;
        let may_use = instance_limits(&limits(config), config.limits.log_bytes_per_second.bytes());
        let mut description = transform.describe(&[], &may_use)?;
        check_settings(config, &description)?;
        let given: Vec<_> =
            config.transform.settings.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        // As a plan of the past is described when it is replayed: with what the settings come to.
        let settings = all_settings(&description, &given);
        if !settings.is_empty() {
            description = transform.describe(&settings.clone().into_iter().collect::<Vec<_>>(), &may_use)?;
        }
        check_tables(config, &description)?;
        let routes: Vec<&str> = description.routes.iter().map(|route| &*route.name).collect();
        config.check_routes(&routes)?;
        check_directories(config, &description)?;
        let mut bytes = vec![component];
        let mut tables = BTreeMap::new();
        let mut loaded = Vec::new();
        for (name, table) in &config.transform.tables {
            let (reference, table, contents) = load_table(&description, name, table)?;
            tables.insert(name.clone(), reference);
            loaded.push(Arc::new(table));
            bytes.push(contents);
        }
        let mut plan = Plan {
            replaces: None,
            digest: transform.digest().clone(),
            name: description.name.clone(),
            version: description.version.clone(),
            settings,
            tables,
            limits: limits(config),
            routes: routes_of(config),
            declared: String::new(),
        };
        plan.declared = crate::digest::of(&serde_json::to_vec(&plan).expect("a plan is plain data"));
        let (settings, description) = (plan.settings.clone().into_iter().collect(), Arc::new(description));
        let init = Init { settings, tables: loaded, limits: may_use, description };
        // One that does not start must not become the plan.
        let started = transform.instance(&init)?;
        Ok(Self { plan, bytes, transform, init, started })
    }

    /// What the pipeline file asks for.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What its transform says of itself.
    pub(super) fn description(&self) -> &Description {
        &self.init.description
    }

    /// How the file, or something it names, changed since the newest plan was taken from it, if it did.
    pub(super) fn changed(&self, history: &History) -> Option<Changed> {
        let (plan, newest) = history.newest()?;
        let changed = newest.declared != self.plan.declared;
        changed.then(|| Changed { plan, differences: differences(newest, &self.plan) })
    }

    /// The newest plan if the file did not change since it was last taken over, however far the log moved on;
    /// otherwise this one, if that is wanted.
    pub(super) fn choose(
        self,
        history: &mut History,
        log: &mut dyn PlanLog,
        store: &dyn Store,
        adopt: bool,
    ) -> Result<Chosen> {
        let plan = self.adopt(history, log, store, adopt)?;
        let Self { transform, init, started, .. } = self;
        Ok(Chosen { plan, transform, init, started })
    }

    fn adopt(
        &self,
        history: &mut History,
        log: &mut dyn PlanLog,
        store: &dyn Store,
        adopt: bool,
    ) -> Result<PlanRef> {
        if let Some(runs) = self.runs_already(history) {
            return Ok(runs);
        }
        if let Some(changed) = self.changed(history).filter(|_| !adopt) {
            return Err(changed.into());
        }
        // What a plan names is durable before the plan is.
        for bytes in &self.bytes {
            store.put(bytes)?;
        }
        let digest = self.plan.digest.clone();
        let next =
            |history: &History| Plan { replaces: history.newest().map(|(n, _)| n), ..self.plan.clone() };
        fail::fail_point!("plan.before_adopt");
        let mut put = false;
        let plan = history.append(log, |history| {
            let other = self.runs_already(history).is_some() || std::mem::replace(&mut put, true);
            (!other).then(|| Entry::Plan(next(history)))
        })?;
        fail::fail_point!("plan.after_adopt");
        // Another process may have been faster with the same file.
        let runs = plan.map(|plan| PlanRef { plan, digest }).or_else(|| self.runs_already(history));
        runs.context("another process changed the plan at the same moment; run again")
    }

    /// The newest plan, if the file said the same when that was taken from it.
    fn runs_already(&self, history: &History) -> Option<PlanRef> {
        let newest = history.newest().filter(|(_, plan)| plan.declared == self.plan.declared);
        newest.map(|(n, plan)| PlanRef { plan: n, digest: plan.digest.clone() })
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading the {what} {}", path.display()))
}

fn check_settings(config: &PipelineConfig, described: &Description) -> Result<(), crate::config::Error> {
    let declared = described.settings.iter().map(|setting| DeclaredSetting {
        key: &setting.key,
        required: setting.default.is_none(),
        choices: setting.choices.iter().flatten().map(String::as_str).collect(),
    });
    config.check_settings(&declared.collect::<Vec<_>>())
}

fn check_tables(config: &PipelineConfig, description: &Description) -> Result<(), crate::config::Error> {
    let declared = description.tables.iter().map(|need| DeclaredTable {
        name: &need.name,
        required: need.required,
        columns: need.columns.iter().map(|column| &*column.name).collect(),
    });
    config.check_tables(&declared.collect::<Vec<_>>())
}

fn check_directories(config: &PipelineConfig, description: &Description) -> Result<(), crate::config::Error> {
    let mut schemas = BTreeMap::from([(DEAD_LETTERS, dead_letters_schema())]);
    schemas.extend(description.routes.iter().map(|route| (&*route.name, route.schema())));
    let dead = std::slice::from_ref(&config.dead_letter.to);
    let to = |name: &str| config.routes.get(name).map_or(dead, Vec::as_slice);
    let declared: Vec<_> = schemas
        .iter()
        .map(|(name, schema)| DeclaredRoute {
            name,
            to: to(name),
            columns: schema.fields().iter().map(|field| field.name().as_str()).collect(),
        })
        .collect();
    config.check_directories(&declared, &|directory, route| {
        let field =
            directory.column.as_deref().and_then(|name| schemas[route.name].field_with_name(name).ok());
        super::sinks::directory_of(directory)
            .zip(field)
            .is_some_and(|(directory, field)| directory.takes(field))
    })
}

fn load_table(
    description: &Description,
    name: &str,
    table: &TableConfig,
) -> Result<(TableRef, Table, Vec<u8>)> {
    let bytes = read("table", &table.file)?;
    let reference = TableRef {
        digest: crate::digest::of(&bytes).into(),
        delimiter: table.delimiter.map(char::from),
        columns: table.columns.clone(),
    };
    let parsed = parse_table(description, name, &reference, &bytes)
        .with_context(|| format!("loading the table {}", table.file.display()))?;
    Ok((reference, parsed, bytes))
}

fn parse_table(description: &Description, name: &str, reference: &TableRef, bytes: &[u8]) -> Result<Table> {
    let need = description.tables.iter().find(|need| need.name == name);
    let need = need.with_context(|| format!("the transform has no table {name}"))?;
    let delimiter = reference.delimiter.and_then(|c| u8::try_from(c).ok());
    let options = TableOptions { delimiter, columns: reference.columns.clone() };
    Ok(file::load(need, bytes, &options)?)
}

fn all_settings(description: &Description, given: &[(String, String)]) -> BTreeMap<String, String> {
    let defaults = description.settings.iter().filter_map(|s| Some((s.key.clone(), s.default.clone()?)));
    defaults.chain(given.iter().cloned()).collect()
}

/// What the pipeline file says of routes, dead letters among them.
fn routes_of(config: &PipelineConfig) -> BTreeMap<String, Vec<String>> {
    let dead = (DEAD_LETTERS.to_owned(), vec![config.dead_letter.to.to_string()]);
    let targets = |targets: &Vec<crate::config::TargetRef>| targets.iter().map(ToString::to_string).collect();
    config.routes.iter().map(|(route, to)| (route.clone(), targets(to))).chain([dead]).collect()
}

/// The same for the sinks of a pipeline, in their order. What went to a sink that is no more goes nowhere.
fn bindings(plan: &Plan, sinks: &[Arc<str>]) -> Bindings {
    let of_sink = |sink: &Arc<str>| {
        let all = plan.routes.iter().flat_map(|(route, targets)| targets.iter().map(move |to| (route, to)));
        let ours = all.filter_map(|(route, to)| match to.split_once('.') {
            Some((name, target)) if *name == **sink => Some((route.as_str().into(), target.into())),
            _ => None,
        });
        ours.collect()
    };
    Bindings { sinks: sinks.iter().map(of_sink).collect() }
}

fn instance_limits(limits: &PlanLimits, log_bytes_per_second: u64) -> InstanceLimits {
    InstanceLimits {
        memory_bytes: limits.memory_bytes as usize,
        deadline: Duration::from_millis(limits.deadline_ms),
        output_bytes: limits.output_bytes as usize,
        fuel_per_record: limits.fuel_per_record,
        log_bytes_per_second: u32::try_from(log_bytes_per_second).unwrap_or(u32::MAX),
        ..InstanceLimits::default()
    }
}

fn limits(config: &PipelineConfig) -> PlanLimits {
    PlanLimits {
        memory_bytes: config.limits.memory.bytes(),
        deadline_ms: config.limits.deadline.duration().as_millis() as u64,
        output_bytes: config.limits.output_bytes.bytes(),
        fuel_per_record: config.limits.fuel_per_record.get(),
    }
}

/// What a person sees of two plans that differ.
fn differences(was: &Plan, is: &Plan) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |what: String, was: Option<String>, is: Option<String>| {
        if was != is {
            found.push(Difference { what, was, is });
        }
    };
    let transform = |plan: &Plan| Some(format!("{} {} ({})", plan.name, plan.version, short(&plan.digest)));
    compare("transform".into(), transform(was), transform(is));
    let mut keys: Vec<_> = was.settings.keys().chain(is.settings.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        compare(format!("setting {key}"), was.settings.get(key).cloned(), is.settings.get(key).cloned());
    }
    let mut names: Vec<_> = was.tables.keys().chain(is.tables.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let table = |plan: &Plan| plan.tables.get(name).map(|table| short(&table.digest));
        compare(format!("table {name}"), table(was), table(is));
        let mapping =
            |plan: &Plan| plan.tables.get(name).map(|t| format!("{:?} {:?}", t.delimiter, t.columns));
        compare(format!("columns of table {name}"), mapping(was), mapping(is));
    }
    let mut routes: Vec<_> = was.routes.keys().chain(is.routes.keys()).collect();
    routes.sort_unstable();
    routes.dedup();
    for route in routes {
        let targets = |plan: &Plan| plan.routes.get(route).map(|to| format!("[{}]", to.join(", ")));
        compare(format!("route {route}"), targets(was), targets(is));
    }
    let limit = |n: u64| Some(n.to_string());
    let (a, b) = (was.limits, is.limits);
    compare("limit memory, bytes".into(), limit(a.memory_bytes), limit(b.memory_bytes));
    compare("limit deadline, ms".into(), limit(a.deadline_ms), limit(b.deadline_ms));
    compare("limit output_bytes".into(), limit(a.output_bytes), limit(b.output_bytes));
    compare("limit fuel_per_record".into(), limit(a.fuel_per_record), limit(b.fuel_per_record));
    found
}

/// Enough of a digest to tell two apart.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

/// Of so many plans what they run is kept loaded: the newest, the one before, and what is replayed for a sink that lags.
const KEPT: usize = 4;

/// Loads what the plans of a log run.
pub(super) struct PlanRules {
    sandbox: Sandbox,
    store: Arc<dyn Store>,
    plans: Mutex<BTreeMap<u64, Plan>>,
    sinks: Vec<Arc<str>>,
    log_bytes_per_second: u64,
    workers: usize,
    loaded: Mutex<BTreeMap<u64, Arc<Slot>>>,
}

/// Filled by whoever needs it first; the others wait for that, and for no other plan.
type Slot = Mutex<Option<Arc<LoadedPlan>>>;

impl PlanRules {
    /// For `plans`, of which the `chosen` one is loaded, and so many workers.
    pub(super) fn new(
        sandbox: Sandbox,
        store: Arc<dyn Store>,
        plans: BTreeMap<u64, Plan>,
        sinks: Vec<Arc<str>>,
        log_bytes_per_second: u64,
        workers: usize,
        chosen: Chosen,
    ) -> Self {
        let Chosen { plan: PlanRef { plan: number, .. }, transform, init, started } = chosen;
        let plan = plans[&number].clone();
        let bindings = Arc::new(bindings(&plan, &sinks));
        let started = Mutex::new(vec![started]);
        let chosen = Arc::new(LoadedPlan { plan, transform, init, bindings, started });
        let loaded = Mutex::new(BTreeMap::from([(number, Arc::new(Mutex::new(Some(chosen))))]));
        let plans = Mutex::new(plans);
        Self { sandbox, store, plans, sinks, log_bytes_per_second, workers, loaded }
    }

    fn get(&self, plan: &PlanRef) -> Result<Arc<LoadedPlan>> {
        let slot = self.slot(plan.plan);
        let mut slot = slot.lock().expect("nobody panics with a plan in hand");
        if let Some(found) = &*slot {
            return Ok(found.clone());
        }
        let fresh = Arc::new(self.load_plan(plan)?);
        *slot = Some(fresh.clone());
        Ok(fresh)
    }

    fn slot(&self, number: u64) -> Arc<Slot> {
        let mut loaded = self.loaded.lock().expect("nobody panics with the plans in hand");
        let slot = loaded.entry(number).or_default().clone();
        while loaded.len() > KEPT
            && let Some(oldest) = loaded.keys().copied().find(|other| *other != number)
        {
            loaded.remove(&oldest);
        }
        slot
    }

    /// Plans that are loaded, but for those that are about to be.
    fn all_loaded(&self) -> Vec<Arc<LoadedPlan>> {
        let loaded = self.loaded.lock().expect("nobody panics with the plans in hand");
        loaded.values().filter_map(|slot| slot.try_lock().ok()?.clone()).collect()
    }

    fn load_plan(&self, wanted: &PlanRef) -> Result<LoadedPlan> {
        let plan =
            self.plans.lock().expect("nobody panics with the plans in hand").get(&wanted.plan).cloned();
        let plan =
            plan.with_context(|| format!("E_PLAN_MISSING: plan {} is not in the plan log", wanted.plan))?;
        anyhow::ensure!(
            plan.digest == wanted.digest,
            "E_PLAN_MISSING: a sink has rows of plan {} with {}, the plan log has {} under that number",
            wanted.plan,
            wanted.digest,
            plan.digest
        );
        let alike = self.all_loaded().into_iter().find(|loaded| loaded.plan.digest == plan.digest);
        let transform = match &alike {
            Some(alike) => alike.transform.clone(),
            None => self.sandbox.load(&self.store.get(&plan.digest)?)?,
        };
        let settings: Vec<_> = plan.settings.clone().into_iter().collect();
        let limits = instance_limits(&plan.limits, self.log_bytes_per_second);
        let description = Arc::new(transform.describe(&settings, &limits)?);
        // Whatever needs the same of a table may share it.
        let alike = alike.filter(|alike| alike.init.description == description);
        let mut tables = Vec::new();
        for (name, reference) in &plan.tables {
            tables.push(match alike.as_ref().and_then(|alike| alike.table(name, reference)) {
                Some(table) => table,
                None => {
                    let bytes = self.store.get(&reference.digest)?;
                    Arc::new(parse_table(&description, name, reference, &bytes)?)
                }
            });
        }
        let bindings = Arc::new(bindings(&plan, &self.sinks));
        let init = Init { settings, tables, limits, description };
        Ok(LoadedPlan { plan, transform, init, bindings, started: Mutex::default() })
    }
}

/// A plan's transform with all it starts with.
struct LoadedPlan {
    plan: Plan,
    transform: Transform,
    init: Init,
    bindings: Arc<Bindings>,
    /// Instances that nobody has used yet.
    started: Mutex<Vec<Instance>>,
}

impl LoadedPlan {
    fn table(&self, name: &str, reference: &TableRef) -> Option<Arc<Table>> {
        let at = self.plan.tables.iter().position(|(held, of)| held == name && of == reference)?;
        Some(self.init.tables[at].clone())
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.started.lock().expect("nobody panics with the instances in hand")
    }
}

impl Rules for PlanRules {
    fn load(&self, plan: &PlanRef) -> Result<Arc<dyn Loaded>, Stop> {
        let loaded = self.get(plan).map_err(|error| no_plan(plan.plan, &error))?;
        Ok(loaded)
    }

    fn make_ready(&self, number: u64, plan: &Plan) -> Result<(), Stop> {
        self.plans.lock().expect("nobody panics with the plans in hand").insert(number, plan.clone());
        // Of plans that were overtaken before anybody took them over.
        self.all_loaded().iter().for_each(|loaded| loaded.spare().clear());
        let loaded = self.get(&PlanRef { plan: number, digest: plan.digest.clone() });
        let loaded = loaded.map_err(|error| no_plan(number, &error))?;
        for _ in 0..self.workers {
            let instance = loaded.transform.instance(&loaded.init).map_err(|e| no_start(&e))?;
            loaded.spare().push(instance);
        }
        Ok(())
    }
}

fn no_plan(number: u64, error: &anyhow::Error) -> Stop {
    let outside = error.downcast_ref().is_some_and(|e| matches!(e, plan::Error::Io { .. }));
    Stop { outside, ..Stop::new(format!("loading plan {number}: {error:#}")) }
}

impl Loaded for LoadedPlan {
    fn description(&self) -> &Description {
        &self.init.description
    }

    fn bindings(&self) -> Arc<Bindings> {
        self.bindings.clone()
    }

    fn memory_bytes(&self) -> usize {
        self.init.limits.memory_bytes
    }

    fn instance(&self) -> Result<Box<dyn Rule>, Stop> {
        if let Some(started) = self.spare().pop() {
            return Ok(Box::new(started));
        }
        self.transform.instance(&self.init).map(|rule| Box::new(rule) as _).map_err(|e| no_start(&e))
    }

    fn judge(&self) -> Result<Box<dyn Rule>, Stop> {
        self.transform.judge(&self.init).map(|rule| Box::new(rule) as _).map_err(|e| no_start(&e))
    }
}

fn no_start(error: &StartError) -> Stop {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    Stop::new(format!("starting the transform: {error}{}", cause.unwrap_or_default()))
}
