//! A plan, ready to run once more over records that were read back. What it makes of them is looked at, and goes nowhere.

use std::sync::Arc;

use anyhow::Result;

use super::plans::Candidate;
use super::rules::{self, PlanRules};
use super::{Options, sandbox};
use crate::batch::Batch;
use crate::config::PipelineConfig;
use crate::pipeline::threads::{Loaded, Rules, keeper};
use crate::plan::History;
use crate::plan::store::Store;
use crate::route::{self, Pieces, Routed};
use crate::sink::state::PlanRef;

/// What a plan runs, in the sandbox.
pub(super) struct Again {
    pub(super) loaded: Arc<dyn Loaded>,
}

impl Again {
    /// Of a plan of the log. Its rows are bound to the sinks `names`, in that order.
    ///
    /// # Errors
    /// If the log or the store has not what it names, or the sandbox does not take that.
    pub(super) fn load(
        config: &PipelineConfig,
        options: &Options,
        history: &History,
        store: Arc<dyn Store>,
        names: Vec<Arc<str>>,
        plan: &PlanRef,
    ) -> Result<Self> {
        let log_bytes = config.limits.log_bytes_per_second.bytes();
        let sandbox = sandbox(config, options, history)?;
        let rules = PlanRules::new(sandbox, store, history.plans.clone(), names, log_bytes, 1);
        Ok(Self { loaded: rules.load(plan)? })
    }

    /// Of a plan that is in no log. Its rows are bound to the sinks `names`, in that order.
    pub(super) fn of(candidate: &Candidate, names: &[Arc<str>]) -> Self {
        Self { loaded: rules::loaded(candidate, names) }
    }

    /// What becomes of each record, or why that cannot be said: where a pipeline would stop.
    pub(super) fn run(&self, batch: &Batch, plan: &PlanRef) -> Result<Routed, String> {
        let judged = keeper(&self.loaded).transform(batch).map_err(|stopped| stopped.to_string())?;
        self.route(batch, plan, judged.pieces)
    }

    /// What the plan makes of a batch, from what its transform gave back.
    pub(super) fn route(&self, batch: &Batch, plan: &PlanRef, pieces: Pieces) -> Result<Routed, String> {
        let (description, bindings) = (self.loaded.description(), self.loaded.bindings());
        route::route(batch, plan.clone(), description, bindings, pieces).map_err(|e| e.to_string())
    }
}
