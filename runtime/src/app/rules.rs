//! What plans run, loaded from their bytes: the newest one, those that come while records flow, and those of the past that a
//! sink that lags still needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};

use super::plans::{Candidate, instance_limits, parse_table};
use crate::description::Description;
use crate::pipeline::Stop;
use crate::pipeline::threads::{Loaded, Rules};
use crate::plan::store::Store;
use crate::plan::{self, Plan, TableRef};
use crate::route::Bindings;
use crate::rule::Rule;
use crate::sandbox::{Init, Instance, Sandbox, StartError, Transform};
use crate::sink::state::PlanRef;
use crate::tables::Table;

/// Of so many plans what they run is kept loaded: the newest, the one before, and what is replayed for a sink that lags.
const KEPT: usize = 4;

/// Loads what the plans of a log run.
pub(super) struct PlanRules {
    sandbox: Sandbox,
    store: Arc<dyn Store>,
    plans: Mutex<BTreeMap<u64, Plan>>,
    sinks: Vec<Arc<str>>,
    log_bytes_per_second: u64,
    spares: usize,
    loaded: Mutex<BTreeMap<u64, Arc<Slot>>>,
}

/// Filled by whoever needs it first; the others wait for that, and for no other plan.
type Slot = Mutex<Option<Arc<LoadedPlan>>>;

impl PlanRules {
    /// For `plans`, of each of which so many instances are there before it is taken up.
    pub(super) fn new(
        sandbox: Sandbox,
        store: Arc<dyn Store>,
        plans: BTreeMap<u64, Plan>,
        sinks: Vec<Arc<str>>,
        log_bytes_per_second: u64,
        spares: usize,
    ) -> Self {
        let (plans, loaded) = (Mutex::new(plans), Mutex::default());
        Self { sandbox, store, plans, sinks, log_bytes_per_second, spares, loaded }
    }

    /// Keeps what was loaded already, if it is what the plan runs.
    pub(super) fn keep(&self, number: u64, candidate: Candidate) {
        let plan = self.plan(number).filter(|plan| plan.does_the_same(candidate.plan()));
        let Some(plan) = plan else { return };
        let loaded = Arc::new(LoadedPlan::of(plan, candidate, &self.sinks));
        *self.slot(number).lock().expect("nobody panics with a plan in hand") = Some(loaded);
    }

    /// What the transform of a plan says of itself that is about to run.
    pub(super) fn description(&self, plan: &PlanRef) -> Result<Arc<Description>> {
        let loaded = self.get(plan)?;
        self.has_all_sinks(plan.plan, &loaded.plan)?;
        Ok(loaded.init.description.clone())
    }

    /// Rows of a sink that was not there at the start would go nowhere.
    fn has_all_sinks(&self, number: u64, plan: &Plan) -> Result<(), Stop> {
        let sinks = plan.routes.values().flatten().filter_map(|to| to.split_once('.'));
        match sinks.map(|(sink, _)| sink).find(|sink| !self.sinks.iter().any(|ours| **ours == **sink)) {
            None => Ok(()),
            Some(sink) => {
                let text = format!(
                    "plan {number} sends rows to sink {sink}, and this process has none of that name"
                );
                Err(Stop::new(text).hint("stop it and start it with the file that has the sink"))
            }
        }
    }

    fn plan(&self, number: u64) -> Option<Plan> {
        self.plans.lock().expect("nobody panics with the plans in hand").get(&number).cloned()
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
        let plan = self.plan(wanted.plan);
        let plan =
            plan.with_context(|| format!("E_PLAN_MISSING: plan {} is not in the plan log", wanted.plan))?;
        anyhow::ensure!(
            plan.digest == wanted.digest,
            "E_PLAN_MISSING: a sink has rows of plan {} with {}, the plan log has {} under that number",
            wanted.plan,
            wanted.digest,
            plan.digest
        );
        self.load_as_it_is(plan)
    }

    fn load_as_it_is(&self, plan: Plan) -> Result<LoadedPlan> {
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
    fn of(plan: Plan, candidate: Candidate, sinks: &[Arc<str>]) -> Self {
        let (transform, init, started) = candidate.into_parts();
        let bindings = Arc::new(bindings(&plan, sinks));
        Self { plan, transform, init, bindings, started: Mutex::new(vec![started]) }
    }

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

    fn make_ready(&self, plans: &BTreeMap<u64, Plan>) -> Result<(), Stop> {
        let Some((&number, plan)) = plans.last_key_value() else { return Ok(()) };
        self.plans.lock().expect("nobody panics with the plans in hand").clone_from(plans);
        self.has_all_sinks(number, plan)?;
        // Of plans that were overtaken before anybody took them over.
        self.all_loaded().iter().for_each(|loaded| loaded.spare().clear());
        let loaded = self.get(&PlanRef { plan: number, digest: plan.digest.clone() });
        let loaded = loaded.map_err(|error| no_plan(number, &error))?;
        for _ in 0..self.spares {
            let instance = loaded.transform.instance(&loaded.init).map_err(|error| {
                let stop = no_start(&error);
                Stop { text: format!("plan {number}: {}", stop.text), ..stop }
            })?;
            loaded.spare().push(instance);
        }
        Ok(())
    }

    fn shadow(&self, plan: &Plan) -> Result<Arc<dyn Loaded>, Stop> {
        let loaded = self.load_as_it_is(plan.clone());
        Ok(Arc::new(loaded.map_err(|error| Stop::new(format!("loading it: {error:#}")))?))
    }
}

/// What a plan runs that is in no log, with rows for the sinks `names`.
pub(super) fn loaded(candidate: &Candidate, names: &[Arc<str>]) -> Arc<dyn Loaded> {
    let ((transform, init), plan) = (candidate.runs(), candidate.plan().clone());
    let bindings = Arc::new(bindings(&plan, names));
    Arc::new(LoadedPlan { plan, transform, init, bindings, started: Mutex::default() })
}

fn no_plan(number: u64, error: &anyhow::Error) -> Stop {
    let outside = error.downcast_ref().is_some_and(|e| matches!(e, plan::Error::Io { .. }));
    let stop = Stop { outside, ..Stop::new(format!("loading plan {number}: {error:#}")) };
    match error.downcast_ref() {
        Some(plan::Error::Store { .. }) => stop.hint(
            "a sink or a process still needs it: restore the store in the state directory, or the topic weir.PIPELINE.store",
        ),
        _ => stop,
    }
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
    Bindings { names: sinks.to_vec(), sinks: sinks.iter().map(of_sink).collect() }
}
