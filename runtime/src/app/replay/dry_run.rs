//! What would become of dead letters if they were copied now: they go through a plan in the sandbox, told what they would be
//! told, and what comes out is shown. Nothing is copied, and no sink is asked what it would take.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Choice, Choosing, Gone, Known, Letter, Selected, TooLarge, directory, topic};
use crate::app::again::Again;
use crate::app::deploy::{Changes, Deployment};
use crate::app::inputs::Replays;
use crate::app::letters::used;
use crate::app::{Kept, Options, Origin as Source};
use crate::batch::{Batch, BatchBuilder};
use crate::budget::Permit;
use crate::config::PipelineConfig;
use crate::offset::{Offset, TopicPartition};
use crate::origin::{Envelope, replay_topic};
use crate::plan::{History, Plan};
use crate::route::{DEAD_LETTERS, Fate, Routed};
use crate::sink::back::{Made, Reason, reasons};
use crate::sink::state::PlanRef;

/// Letters that are in memory at once, and their bytes.
const AT_ONCE: (usize, usize) = (1_000, 4 << 20);

/// What would become of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// Which record, and at which attempt it became this letter; and the row that alone is meant of it.
    pub letter: Envelope,
    /// What would become of it.
    pub becomes: Becomes,
}

/// What would become of a letter that was selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// Rows.
    Routed(Vec<Rows>),
    /// The transform leaves it out on purpose.
    Dropped,
    /// The transform rejects it: a letter again.
    Rejected(Vec<Reason>),
    /// The transform fails on it: a letter again.
    Failed(Vec<Reason>),
    /// It would stop the pipeline, for this reason.
    Stops(String),
    /// It was copied before, and is not copied again.
    There,
    /// It has gone through as often as `dead_letter.max_attempts` says, and is left where it is.
    Spent,
    /// It is larger than the replay input takes, and is left where it is.
    TooLarge(TooLarge),
    /// A sink has kept a row of it, and the input does not have it any more.
    Gone(Gone),
}

/// The rows that come of a record on one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The route.
    pub route: Arc<str>,
    /// How many.
    pub rows: u64,
    /// Where they would go, each as `sink.target`; nowhere, where the plan leaves them out on purpose.
    pub to: Vec<String>,
}

/// A plan that letters can go through, and what is known of the replay input.
pub struct DryRun {
    again: Again,
    plan: PlanRef,
    routes: BTreeMap<String, Vec<String>>,
    /// Where they would be read.
    at: TopicPartition,
    known: Known,
    history: History,
    names: Vec<Arc<str>>,
    /// Those that go through it next, in their order, and what is known of them.
    pending: Vec<(Envelope, Next)>,
    bytes: usize,
}

impl std::fmt::Debug for DryRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DryRun").field("plan", &self.plan).finish_non_exhaustive()
    }
}

enum Next {
    Runs(Letter),
    Is(Becomes),
}

impl DryRun {
    /// By the newest plan; with changes, by what would be deployed with them.
    ///
    /// # Errors
    /// Those of [`Deployment::prepare`], and what the replay input says.
    pub fn open(config: &PipelineConfig, options: &Options, changes: &Changes) -> Result<Self> {
        let source = Source::of(config)?;
        let kept = source.log_that_is_there(config)?;
        let kept = kept.with_context(|| format!("pipeline {} has never run", config.name))?;
        let Kept { history, store, .. } = kept;
        let (newest, running) = history.newest().context("no plan is in the plan log")?;
        let names: Vec<Arc<str>> =
            used(config, &history).iter().map(|(name, _)| name.as_str().into()).collect();
        let (number, again, plan): (_, _, Plan) = if changes.is_empty() {
            let plan = PlanRef { plan: newest, digest: running.digest.clone() };
            let again = Again::load(config, options, &history, store, names.clone(), &plan)?;
            (newest, again, running.clone())
        } else {
            let (again, plan) = Deployment::prepare(config, options, changes)?.into_again(&names);
            (history.next(), again, plan)
        };
        // One that does not start says so once.
        drop(again.loaded.instance()?);
        let known = match &source {
            Source::Files(_) => directory::look(&Replays::new(config)),
            Source::Kafka(_, cluster) => topic::look(cluster, config.name.as_str()),
        };
        let known = known.context("looking at the replay input")?;
        Ok(Self {
            again,
            plan: PlanRef { plan: number, digest: plan.digest },
            routes: plan.routes,
            at: TopicPartition::new(replay_topic(config.name.as_str()), 0),
            known,
            history,
            names,
            pending: Vec::new(),
            bytes: 0,
        })
    }

    /// Hands over what would become of each letter, in their order.
    ///
    /// # Errors
    /// What reading a letter ends with.
    pub fn run(
        mut self,
        config: &PipelineConfig,
        selected: impl Iterator<Item = Result<Selected>>,
        each: &mut dyn FnMut(Foreseen),
    ) -> Result<()> {
        let (history, known) = (std::mem::take(&mut self.history), std::mem::take(&mut self.known));
        Choosing { config, history: &history, known }.all(selected, &mut |letter, choice| {
            self.take(letter, choice);
            if self.pending.len() >= AT_ONCE.0 || self.bytes >= AT_ONCE.1 {
                self.hand_over(each);
            }
            Ok(())
        })?;
        self.hand_over(each);
        Ok(())
    }

    fn take(&mut self, letter: Envelope, choice: Choice) {
        let next = match choice {
            Choice::Spent => Next::Is(Becomes::Spent),
            Choice::There => Next::Is(Becomes::There),
            Choice::TooLarge(letter) => Next::Is(Becomes::TooLarge(letter)),
            Choice::Gone(letter) => Next::Is(Becomes::Gone(letter)),
            Choice::Copy(letter, bytes) => {
                self.bytes += bytes;
                Next::Runs(letter)
            }
        };
        self.pending.push((letter, next));
    }

    fn hand_over(&mut self, each: &mut dyn FnMut(Foreseen)) {
        self.bytes = 0;
        let pending = std::mem::take(&mut self.pending);
        let runs = pending.iter().filter_map(|(_, next)| match next {
            Next::Runs(letter) => Some(letter),
            Next::Is(_) => None,
        });
        let mut came = self.all(&runs.collect::<Vec<_>>()).into_iter();
        for (letter, next) in pending {
            let becomes = match next {
                Next::Is(becomes) => becomes,
                Next::Runs(_) => came.next().expect("one for each letter that went through"),
            };
            each(Foreseen { letter, becomes });
        }
    }

    /// What becomes of each. A transform is told one topic at a time, so letters of several go through one after the other.
    fn all(&self, letters: &[&Letter]) -> Vec<Becomes> {
        letters
            .chunk_by(|a, b| a.origin.at.topic == b.origin.at.topic)
            .flat_map(|alike| self.together(alike))
            .collect()
    }

    /// Where one of several would stop the pipeline, each goes through by itself, to find out which.
    fn together(&self, letters: &[&Letter]) -> Vec<Becomes> {
        match (self.again.run(&self.batch(letters), &self.plan), letters) {
            (Ok(routed), _) => self.fates(&routed),
            (Err(why), [_]) => vec![Becomes::Stops(why)],
            (Err(_), several) => several.iter().flat_map(|letter| self.together(&[*letter])).collect(),
        }
    }

    /// As they would be read from the replay input.
    fn batch(&self, letters: &[&Letter]) -> Batch {
        let mut builder = BatchBuilder::new(self.at.clone(), Offset::ZERO);
        builder.open_envelopes();
        for letter in letters {
            let offset = builder.next();
            letter.enveloped(|record| builder.push(offset, record));
        }
        let end = builder.next();
        builder.finish(end, Permit::free()).expect("there is a letter")
    }

    /// What became of the records of a batch, one after the other.
    fn fates(&self, routed: &Routed) -> Vec<Becomes> {
        let mut rows: BTreeMap<i64, Vec<Rows>> = BTreeMap::new();
        let mut whys: BTreeMap<i64, Vec<Reason>> = BTreeMap::new();
        for part in &routed.parts {
            if *part.route == *DEAD_LETTERS {
                let made = Made::of(part).expect("dead letters are columns of text");
                let why = |made: &Made| made.row.get("reasons").map(reasons).unwrap_or_default();
                whys.extend(part.offsets.iter().copied().zip(made.iter().map(why)));
                continue;
            }
            for offset in part.offsets.iter() {
                let of_record = rows.entry(*offset).or_default();
                match of_record.iter_mut().find(|known| known.route == part.route) {
                    Some(known) => known.rows += 1,
                    None => {
                        let to = match routed.addressee(Offset::new(*offset)) {
                            Some(to) => vec![format!("{}.{}", self.names[to.sink], to.target)],
                            None => self.routes.get(&*part.route).cloned().unwrap_or_default(),
                        };
                        of_record.push(Rows { route: part.route.clone(), rows: 1, to });
                    }
                }
            }
        }
        let becomes = |(offset, fate): &(Offset, Fate)| match fate {
            Fate::Routed => Becomes::Routed(rows.remove(&offset.get()).unwrap_or_default()),
            Fate::Dropped => Becomes::Dropped,
            Fate::Rejected => Becomes::Rejected(whys.remove(&offset.get()).unwrap_or_default()),
            Fate::Failed => Becomes::Failed(whys.remove(&offset.get()).unwrap_or_default()),
        };
        routed.fates.iter().map(becomes).collect()
    }
}
