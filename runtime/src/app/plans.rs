//! From the pipeline file to the plan that runs: what the file says, and whether that is what ran last.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::differences::{Difference, differences};
use super::named;
use crate::config::{DeclaredRoute, DeclaredSetting, DeclaredTable, PipelineConfig, TableConfig};
use crate::description::Description;
use crate::plan::store::Store;
use crate::plan::{History, Made, Plan, PlanLimits, PlanLog, TableRef};
use crate::route::{DEAD_LETTERS, dead_letters_schema};
use crate::sandbox::{Init, Instance, InstanceLimits, Sandbox, Transform};
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

/// The pipeline file, or something it names, changed since the newest plan was taken from it.
#[derive(Debug, thiserror::Error)]
#[error("the pipeline file asks for another plan than plan {plan}, which ran last:\n{}", list(differences))]
pub struct Changed {
    /// The plan that ran last.
    pub plan: u64,
    /// What is different.
    pub differences: Vec<Difference>,
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(|difference| format!("  {difference}")).collect::<Vec<_>>().join("\n")
}

impl Candidate {
    /// Reads and checks all that the file names, without writing anything.
    pub(super) fn load(config: &PipelineConfig, sandbox: &Sandbox) -> Result<Self> {
        named::transform(config)?;
        let component = read("component", &config.transform.component)?;
        let transform = sandbox.load(&component).with_context(|| loading(&config.transform.component))?;
        let may_use = may_use(config);
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
            made: None,
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
        let changed = !self.is_said_by(newest);
        changed.then(|| Changed { plan, differences: differences(newest, &self.plan) })
    }

    /// Its transform, what that starts with, and an instance that started.
    pub(super) fn into_parts(self) -> (Transform, Init, Instance) {
        let Self { transform, init, started, .. } = self;
        (transform, init, started)
    }

    /// Its transform, and what that starts with.
    pub(super) fn runs(&self) -> (Transform, Init) {
        (self.transform.clone(), self.init.clone())
    }

    /// The newest plan if the file did not change since it was last taken over, however far the log moved on; none where
    /// this one is to be [taken over](Self::take_over).
    ///
    /// # Errors
    /// [`Changed`], where it is to be and nobody wants it to `adopt` what the file says.
    pub(super) fn chosen(&self, history: &History, adopt: bool) -> Result<Option<PlanRef>, Changed> {
        if let Some(runs) = self.runs_already(history) {
            return Ok(Some(runs));
        }
        self.changed(history).filter(|_| !adopt).map_or(Ok(None), Err)
    }

    /// Makes it the next plan, as taken from the file.
    pub(super) fn take_over(
        &self,
        history: &mut History,
        log: &mut dyn PlanLog,
        store: &dyn Store,
    ) -> Result<PlanRef> {
        let newest = history.newest().map(|(newest, _)| newest);
        let put = self.put(self.plan.declared.clone(), newest, None, history, log, store)?;
        // Another process may have been faster with the same file.
        let runs = put.or_else(|| self.runs_already(history));
        runs.context("another process changed the plan at the same moment; run again")
    }

    /// Makes it the plan that follows on `replaces`, as taken from a file of which `declared` was the digest; nothing, if
    /// another one came in between.
    pub(super) fn put(
        &self,
        declared: String,
        replaces: Option<u64>,
        made: Option<Made>,
        history: &mut History,
        log: &mut dyn PlanLog,
        store: &dyn Store,
    ) -> Result<Option<PlanRef>> {
        self.keep_in(store)?;
        let next = Plan { replaces, declared, made, ..self.plan.clone() };
        fail::fail_point!("plan.before_adopt");
        let plan = history.put_plan(log, &next)?;
        fail::fail_point!("plan.after_adopt");
        Ok(plan.map(|plan| PlanRef { plan, digest: self.plan.digest.clone() }))
    }

    /// What a plan names is durable before the plan is.
    pub(super) fn keep_in(&self, store: &dyn Store) -> Result<()> {
        for bytes in &self.bytes {
            store.put(bytes)?;
        }
        Ok(())
    }

    /// Whether the file said the same when a plan was taken from it, or says what that does by now.
    fn is_said_by(&self, plan: &Plan) -> bool {
        plan.declared == self.plan.declared || plan.does_the_same(&self.plan)
    }

    /// The newest plan, if the file says nothing else.
    fn runs_already(&self, history: &History) -> Option<PlanRef> {
        let newest = history.newest().filter(|(_, plan)| self.is_said_by(plan));
        newest.map(|(n, plan)| PlanRef { plan: n, digest: plan.digest.clone() })
    }
}

/// What is done when it fails.
pub(super) fn loading(component: &Path) -> String {
    format!("loading the component {}", component.display())
}

pub(super) fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
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

pub(super) fn parse_table(
    description: &Description,
    name: &str,
    reference: &TableRef,
    bytes: &[u8],
) -> Result<Table> {
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

/// What an instance may use, as the pipeline file says.
pub(super) fn may_use(config: &PipelineConfig) -> InstanceLimits {
    instance_limits(&limits(config), config.limits.log_bytes_per_second.bytes())
}

pub(super) fn instance_limits(limits: &PlanLimits, log_bytes_per_second: u64) -> InstanceLimits {
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
