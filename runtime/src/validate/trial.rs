//! A sample through a transform, twice: once in the batches of a pipeline, and once cut otherwise, in another
//! order, by another instance. It writes nothing anywhere.

use std::sync::Arc;
use std::time::Duration;

use tracing::Dispatch;
use tracing::dispatcher::with_default;
use tracing::subscriber::NoSubscriber;

use super::guest_log::{GuestLog, Listener};
use super::sample::Sample;
use super::shown::{Collected, Shown};
use super::{Error, last_words, told};
use crate::batch::Batch;
use crate::pipeline::Tally;
use crate::purity::{difference, in_other_cuts};
use crate::route::{self, Routed};
use crate::rule::Rule;
use crate::sandbox::verdict::{Judged, Keeper, Stopped};
use crate::sandbox::{Init, Instance, StartError, Transform};
use crate::sink::state::PlanRef;

/// Failures that are told in full.
const TOLD: usize = 3;

/// What came of a sample.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) tally: Tally,
    /// In the sandbox and in routing, the first time.
    pub(super) took: Duration,
    pub(super) shown: Vec<Shown>,
    pub(super) log: GuestLog,
    /// The first failures, and where.
    pub(super) failures: Vec<String>,
    /// Batches that failed whole and went through in parts.
    pub(super) split: u64,
    /// Records that were compared.
    pub(super) compared: u64,
    /// The first difference between the two times.
    pub(super) difference: Option<String>,
    /// Why it did not come to the end.
    pub(super) stopped: Option<String>,
}

/// Runs all of `sample`, the first batch on `instance`. A transform that stalls, or a record without a fate, ends
/// it.
///
/// # Errors
/// What the sample says of itself: see [`Sample::next_batch`].
pub(super) fn run(
    transform: &Transform,
    init: &Init,
    instance: Instance,
    sample: &mut Sample,
    show: usize,
) -> Result<Ran, Error> {
    let mut trial = Trial::new(transform, init, instance);
    let mut shown = Collected::new(show, init.description.routes.iter().map(|route| route.name.clone()));
    while trial.ran.stopped.is_none()
        && let Some(batch) = sample.next_batch()?
    {
        let Some(routed) = trial.first(&batch) else { break };
        trial.note_failures(&routed.1, &batch, sample);
        shown.add(&routed.0, sample);
        trial.second(&batch, &routed.0, sample);
    }
    let log = trial.listener.heard();
    Ok(Ran { shown: shown.finish(), log, ..trial.ran })
}

/// Keeps instances of a transform; `first` is the first of them.
pub(super) fn keeper<'a>(
    transform: &'a Transform,
    init: &'a Init,
    mut first: Option<Instance>,
) -> Keeper<'a, StartError> {
    let fresh = move || -> Result<Box<dyn Rule>, _> {
        let first = first.take().map(Ok);
        Ok(Box::new(first.unwrap_or_else(|| transform.instance(init))?))
    };
    let judge = || -> Result<Box<dyn Rule>, _> { Ok(Box::new(transform.judge(init)?)) };
    Keeper::new(Box::new(fresh), Box::new(judge))
}

struct Trial<'a> {
    init: &'a Init,
    plan: PlanRef,
    keeper: Keeper<'a, StartError>,
    other: Keeper<'a, StartError>,
    listener: Listener,
    listening: Dispatch,
    deaf: Dispatch,
    ran: Ran,
}

impl<'a> Trial<'a> {
    fn new(transform: &'a Transform, init: &'a Init, instance: Instance) -> Self {
        let listener = Listener::default();
        Self {
            init,
            plan: PlanRef { plan: 1, digest: Arc::clone(transform.digest()) },
            keeper: keeper(transform, init, Some(instance)),
            other: keeper(transform, init, None),
            listening: Dispatch::new(listener.clone()),
            deaf: Dispatch::new(NoSubscriber::default()),
            listener,
            ran: Ran {
                tally: Tally::default(),
                took: Duration::ZERO,
                shown: Vec::new(),
                log: GuestLog::default(),
                failures: Vec::new(),
                split: 0,
                compared: 0,
                difference: None,
                stopped: None,
            },
        }
    }

    /// As a pipeline does it. `None`: it cannot go on; the batch is taken in and has no fate.
    fn first(&mut self, batch: &Batch) -> Option<(Routed, Vec<String>)> {
        let (keeper, plan, description) = (&mut self.keeper, self.plan.clone(), &self.init.description);
        let (made, took) = super::timed(|| {
            with_default(&self.listening, || {
                let Judged { pieces, first_failure, .. } =
                    keeper.transform(batch).map_err(|e| stopped(&e))?;
                let split = first_failure.is_some() && pieces.failed.is_empty();
                let failures = pieces.failed.iter().take(TOLD);
                let failures = failures
                    .map(|f| told_failure(batch.offsets()[f.row as usize], &f.message, &f.log))
                    .collect();
                let routed = route::route(batch, plan, description, Arc::default(), pieces)
                    .map_err(|e| e.to_string())?;
                Ok((routed, failures, split))
            })
        });
        self.ran.took += took;
        match made {
            Ok((routed, failures, split)) => {
                self.ran.tally.count(&routed);
                self.ran.split += u64::from(split);
                Some((routed, failures))
            }
            Err(text) => {
                self.ran.tally.records += batch.n_records() as u64;
                self.ran.stopped = Some(text);
                None
            }
        }
    }

    fn note_failures(&mut self, failures: &[String], batch: &Batch, sample: &Sample) {
        let room = TOLD.saturating_sub(self.ran.failures.len());
        let place = of_file(batch, sample);
        self.ran.failures.extend(failures.iter().take(room).map(|failure| format!("{place}{failure}")));
    }

    /// The same records again, in small batches, the last first, by the other instance. One difference is enough.
    fn second(&mut self, batch: &Batch, first: &Routed, sample: &Sample) {
        if self.ran.difference.is_some() {
            return;
        }
        let (other, plan) = (&mut self.other, self.plan.clone());
        let made =
            with_default(&self.deaf, || in_other_cuts(other, batch, &mut || true).map_err(|e| stopped(&e)));
        let made = made.and_then(|pieces| {
            route::route(batch, plan, &self.init.description, Arc::default(), pieces)
                .map_err(|e| e.to_string())
        });
        let found = match made {
            Ok(second) => difference(first, &second).map(|found| found.to_string()),
            Err(text) => Some(format!("the second time it did not come to the end: {text}")),
        };
        self.ran.compared += batch.n_records() as u64;
        self.ran.difference = found.map(|found| format!("{}{found}", of_file(batch, sample)));
    }
}

/// Where several files are read, which one.
fn of_file(batch: &Batch, sample: &Sample) -> String {
    match sample.n_files() {
        1 => String::new(),
        _ => format!("{}: ", crate::sandbox::escape(sample.name(batch.at().partition))),
    }
}

fn told_failure(offset: i64, message: &str, log: &str) -> String {
    match last_words(log) {
        Some(last) => format!("offset {offset}: {message}; its last words: {last}"),
        None => format!("offset {offset}: {message}"),
    }
}

fn stopped(error: &Stopped<StartError>) -> String {
    told(error)
}
