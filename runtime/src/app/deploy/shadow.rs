//! A plan that is tried on live records before it takes over: checked like one that is deployed, and put into the plan log
//! beside the plan that runs.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use super::{Base, Changes, Deployment, NeverRan, NoSuchPlan, Overtaken, who};
use crate::admin;
use crate::app::{Kept, Options, Origin};
use crate::config::PipelineConfig;
use crate::plan::{By, History, Made, Plan, Shadow, ShadowEnd};

/// When a shadow ends by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Until {
    /// Once one process has compared so many records.
    pub records: Option<u64>,
    /// At this time, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: Option<u64>,
    /// Then it becomes the next plan, if `records` were compared and no more than so many of them differ.
    pub promote_up_to: Option<u64>,
}

/// So long after its time a shadow would have been ended by a process that runs.
const LATE_MS: u64 = 10_000;

/// Whether its time is over and no process was there to say so.
pub fn is_overdue(shadow: &Shadow) -> bool {
    shadow.until_ms.is_some_and(|until| until.saturating_add(LATE_MS) < admin::now_ms())
}

/// One plan is tried at a time.
#[derive(Debug, thiserror::Error)]
#[error("shadow {running} is being tried already, beside plan {beside}: nothing was changed")]
pub struct AlreadyTried {
    /// Its place in the plan log.
    pub running: u64,
    /// The plan that it is compared with.
    pub beside: u64,
    /// Who began it, and why.
    pub made: Option<Made>,
    /// The pipeline file, by which it is ended.
    pub file: PathBuf,
}

impl Deployment {
    /// Has every process try it on live records, beside the plan that it would replace; its place in the plan log. One whose time
    /// is over, and that nobody was there to end, is ended for it.
    ///
    /// # Errors
    /// [`AlreadyTried`], [`Overtaken`], and what the plan log says.
    pub fn put_shadow(&mut self, why: &str, until: Until, on_trial: bool) -> Result<u64> {
        let (expected, _) = self.replaces();
        let made = Made { by: by(), why: why.to_owned(), on_trial };
        let (replaces, declared) = (Some(expected), self.declared.clone());
        let plan = Plan { replaces, declared, made: Some(made), ..self.candidate.plan().clone() };
        let Until { records, at_ms: until_ms, promote_up_to } = until;
        self.candidate.keep_in(self.store.as_ref())?;
        let overdue = self.history.shadow().filter(|(_, shadow)| is_overdue(shadow)).map(|(place, _)| place);
        if let Some(place) = overdue {
            let why = "its time was over, and no process ran that would have ended it";
            self.history.end_shadow(self.log.as_mut(), place, ShadowEnd::Done, &by(), why)?;
        }
        let shadow = Shadow { plan, records, until_ms, promote_up_to };
        if let Some(place) = self.history.put_shadow(self.log.as_mut(), &shadow)? {
            return Ok(place);
        }
        match (self.history.shadow(), self.history.newest()) {
            (_, Some((found, _))) if found != expected => Err(Overtaken { expected, found }.into()),
            (Some((running, shadow)), _) => {
                let Plan { replaces, made, .. } = shadow.plan.clone();
                let (beside, file) = (replaces.unwrap_or_default(), self.config.file.clone());
                Err(AlreadyTried { running, beside, made, file }.into())
            }
            (None, _) => bail!("the plan log does not take it"),
        }
    }

    /// What the plan log says by now, such as how a shadow ended.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_on(&mut self) -> Result<&History> {
        self.history.catch_up(self.log.as_mut())?;
        Ok(&self.history)
    }

    /// What is being tried on live records, or was to its end, as a plan that is ready to be put; and its place.
    ///
    /// # Errors
    /// [`NeverRan`], [`NoSuchPlan`], and what the sandbox and the plan log say.
    pub fn promotion(config: &PipelineConfig, options: &Options) -> Result<(u64, Self)> {
        let base = Base::open(config, options)?;
        base.newest()?;
        let Some((place, shadow)) = base.history.promotable() else { bail!(nothing_to(&base.history)) };
        let (called, plan) = (format!("shadow {place}"), shadow.plan.clone());
        let wanted = base.config_that_says(&called, &plan, &Changes::default())?;
        let deployment = base.deployment(wanted, Some(plan.declared.clone()))?;
        ensure!(
            plan.does_the_same(deployment.candidate.plan()),
            "what is in the plan log as {called} does not come to the same plan here"
        );
        let said = plan.made.map(|made| made.why).filter(|why| !why.is_empty());
        let why = said.map_or_else(|| called.clone(), |said| format!("{called}: {said}"));
        Ok((place, Self { why, ..deployment }))
    }
}

/// Ends what is being tried on live records; its place.
///
/// # Errors
/// [`NeverRan`], [`NoSuchPlan`] if nothing is being tried, and what the plan log says.
pub fn drop_shadow(config: &PipelineConfig, why: &str) -> Result<u64> {
    let kept = Origin::of(config)?.log_that_is_there(config)?;
    let Kept { mut log, mut history, .. } = kept.ok_or_else(|| NeverRan::of(config))?;
    let Some(place) = history.shadow().map(|(place, _)| place) else { bail!(nothing_to(&history)) };
    history.end_shadow(log.as_mut(), place, ShadowEnd::Dropped, &by(), why)?;
    Ok(place)
}

fn by() -> By {
    By { who: who(), at_ms: admin::now_ms() }
}

fn nothing_to(history: &History) -> NoSuchPlan {
    NoSuchPlan(match history.shadows.last_key_value() {
        None => "no plan was ever tried on live records".to_owned(),
        Some((place, _)) => match history.shadows_ended.get(place) {
            Some(ended) => {
                format!("no plan is being tried on live records: the last, shadow {place}, is {ended}")
            }
            None => format!("shadow {place} is being tried beside a plan that is not the newest"),
        },
    })
}
