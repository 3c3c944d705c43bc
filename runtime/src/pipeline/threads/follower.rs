//! Follows the plan log beside the records: a plan that somebody adds is loaded and started here before anybody is told of
//! it, a pause is told that somebody wanted elsewhere, a plan that does worse is taken back, and what only people read is
//! written down. No record waits for it, but for those that a plan would make which is being taken back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::shadow::{Shadows, Through};
use super::{Rules, spawn};
use crate::pipeline::{Event, Stop};
use crate::plan::{By, Entry, Error, History, InputPartition, Made, Plan, PlanLog, ShadowEnd};
use crate::sink::state::PlanRef;

/// How often it is looked whether somebody added something.
const EVERY: Duration = Duration::from_millis(50);

/// A plan that could not be made ready is tried again after so many looks, then after twice as many, and so on.
const TRY_AGAIN: u32 = 40;
const AT_LEAST_EVERY: u32 = 1_200;

/// So many entries are written before it is looked again whether there is a plan; and so many in the end, when somebody waits.
const BETWEEN_LOOKS: usize = 16;
const AT_THE_END: usize = 1_000;

/// As whom it decides.
const WHO: &str = "weir (automatic)";

/// What it is to write.
enum Told {
    /// When there is time.
    Entry(Box<Entry>),
    /// Nothing, but read to the end.
    Asked(u64),
    /// At once: a plan is taken back, and another one is to be done again.
    Back { plan: u64, to: u64, why: String },
}

/// A plan that is to be taken back.
struct Back {
    plan: u64,
    to: u64,
    made: Made,
    /// How often it was tried.
    tried: u32,
}

/// What a follower begins with.
pub(super) struct Begin {
    pub(super) log: Box<dyn PlanLog>,
    /// What was read of it.
    pub(super) history: History,
    /// The plan that runs already.
    pub(super) newest: u64,
    pub(super) rules: Arc<dyn Rules>,
    /// Who tries plans on live records.
    pub(super) shadows: Shadows,
    /// What time it is, for people.
    pub(super) now_ms: fn() -> u64,
    /// How often it is tried to take a plan back.
    pub(super) max_attempts: u32,
}

/// The outer end.
pub(super) struct Follower {
    told: Sender<Told>,
    thread: JoinHandle<()>,
}

impl Follower {
    /// Tells `events` of what it hears.
    #[expect(
        clippy::disallowed_methods,
        reason = "as many entries as there are partitions and plans: few, and small"
    )]
    pub(super) fn start(begin: Begin, events: Sender<Event>) -> Self {
        let Begin { log, history, newest: ready, rules, shadows, now_ms, max_attempts } = begin;
        let (told, to_do) = unbounded();
        let (refused, back, to_tell, failing) = (None, None, VecDeque::new(), false);
        let (paused, n_adopted) = (paused(&history), history.adopted.len());
        let inner = Inner {
            log,
            history,
            ready,
            refused,
            rules,
            shadows,
            now_ms,
            max_attempts,
            paused,
            n_adopted,
            asked: None,
            back,
            to_tell,
            failing,
        };
        Self { told, thread: spawn("plans", move || inner.follow(&to_do, &events)) }
    }

    /// Writes an entry when there is time.
    pub(super) fn tell(&self, entry: Entry) {
        // Once nobody takes it any more the process is about to end.
        drop(self.told.send(Told::Entry(Box::new(entry))));
    }

    /// Reads to the end of the log, and tells once all is told that is there.
    pub(super) fn read_log(&self, asked: u64) {
        drop(self.told.send(Told::Asked(asked)));
    }

    /// Takes a plan back, if it still is the newest.
    pub(super) fn take_back(&self, plan: u64, to: u64, why: String) {
        drop(self.told.send(Told::Back { plan, to, why }));
    }

    /// Ends once all is written that was to be.
    pub(super) fn join(self) {
        drop(self.told);
        self.thread.join().expect("a panic ends the process");
    }
}

struct Inner {
    log: Box<dyn PlanLog>,
    history: History,
    /// The number of the newest plan that runs or is ready to.
    ready: u64,
    refused: Option<Refused>,
    rules: Arc<dyn Rules>,
    shadows: Shadows,
    /// As it was told last.
    paused: Paused,
    /// Of so many cuts it was told.
    n_adopted: usize,
    /// The last question that is not answered yet.
    asked: Option<u64>,
    now_ms: fn() -> u64,
    max_attempts: u32,
    back: Option<Back>,
    to_tell: VecDeque<Entry>,
    failing: bool,
}

/// A plan that could not be made ready.
struct Refused {
    plan: u64,
    /// How many looks are let pass before it is tried again.
    wait: u32,
    passed: u32,
}

impl Inner {
    fn follow(mut self, to_do: &Receiver<Told>, events: &Sender<Event>) {
        loop {
            // What is left to write is reason enough to go on at once.
            let patience = if self.to_tell.is_empty() || self.failing { EVERY } else { Duration::ZERO };
            let ends = match to_do.recv_timeout(patience) {
                Ok(told) => {
                    self.note(told);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            to_do.try_iter().for_each(|told| self.note(told));
            // Who ends needs no other plan any more.
            let heard = self.take_back(events).and_then(|()| if ends { Ok(()) } else { self.hear(events) });
            let most = if ends { AT_THE_END } else { BETWEEN_LOOKS };
            let failed = heard.and_then(|()| self.tell(most)).err();
            if !ends {
                self.tell_what_was_adopted(events);
                if failed.is_none()
                    && let Some(asked) = self.asked.take()
                {
                    drop(events.send(Event::LogRead { asked }));
                }
            }
            match (&failed, std::mem::replace(&mut self.failing, failed.is_some())) {
                (Some(error), false) => {
                    tracing::warn!(%error, "the plan log does not answer: no new plan is heard of until it does");
                }
                (None, true) => tracing::info!("the plan log answers again"),
                _ => {}
            }
            if ends {
                return;
            }
        }
    }

    fn note(&mut self, told: Told) {
        match told {
            Told::Entry(entry) => self.to_tell.push_back(*entry),
            Told::Asked(asked) => self.asked = Some(asked),
            Told::Back { plan, to, why } => {
                let by = By { who: WHO.to_owned(), at_ms: (self.now_ms)() };
                self.back = Some(Back { plan, to, made: Made { by, why, on_trial: false }, tried: 0 });
            }
        }
    }

    fn tell(&mut self, most: usize) -> Result<(), Error> {
        for _ in 0..most {
            let Some(entry) = self.to_tell.front() else { break };
            self.history
                .append(self.log.as_mut(), |history| (!history.is_told(entry)).then(|| entry.clone()))?;
            self.to_tell.pop_front();
        }
        Ok(())
    }

    fn hear(&mut self, events: &Sender<Event>) -> Result<(), Error> {
        if let Err(error) = self.history.catch_up(self.log.as_mut()) {
            if !matches!(error, Error::Io { .. }) {
                // What it says counts for others, who understand it.
                let stop = Stop::new(error.to_string());
                drop(events.send(Event::NotReady { plan: self.history.next(), stop }));
            }
            return Err(error);
        }
        self.tell_what_is_paused(events);
        self.shadows.follow(&self.history);
        self.end_what_is_through()?;
        let Some((number, plan)) = self.history.newest().filter(|(number, _)| *number > self.ready) else {
            return Ok(());
        };
        let again = self.refused.as_mut().filter(|refused| refused.plan == number);
        if let Some(refused) = again
            && refused.passed < refused.wait
        {
            refused.passed += 1;
            return Ok(());
        }
        let event = match self.rules.make_ready(&self.history.plans) {
            Ok(()) => {
                self.ready = number;
                self.refused = None;
                let on_trial = plan.is_on_trial();
                Event::Plan { plan: PlanRef { plan: number, digest: plan.digest.clone() }, on_trial }
            }
            Err(stop) => {
                let before = self.refused.take().filter(|refused| refused.plan == number);
                let wait = before.map_or(TRY_AGAIN, |refused| (refused.wait * 2).min(AT_LEAST_EVERY));
                self.refused = Some(Refused { plan: number, wait, passed: 0 });
                Event::NotReady { plan: number, stop }
            }
        };
        // Nobody listens any more once the pipeline ended.
        drop(events.send(event));
        Ok(())
    }

    /// Writes down that a plan was tried enough; or has it run, if that was wanted of one that does so well.
    fn end_what_is_through(&mut self) -> Result<(), Error> {
        let Some(Through { place, why, promote }) = self.shadows.through((self.now_ms)()) else {
            return Ok(());
        };
        let by = By { who: WHO.to_owned(), at_ms: (self.now_ms)() };
        let log = self.log.as_mut();
        if promote && let Some(shadow) = self.history.shadows.get(&place) {
            let on_trial = shadow.plan.made.as_ref().is_some_and(|made| made.on_trial);
            let made = Made { by: by.clone(), why: format!("shadow {place}: {why}"), on_trial };
            let plan = Plan { made: Some(made), ..shadow.plan.clone() };
            // Somebody may have dropped it a moment ago, or put another plan: then it is not tried any more.
            self.history.append(log, |history| {
                let is_tried = history.shadow().is_some_and(|(tried, _)| tried == place);
                is_tried.then(|| Entry::Plan(plan.clone()))
            })?;
        }
        self.history.end_shadow(log, place, ShadowEnd::Done, &by, &why)?;
        self.shadows.follow(&self.history);
        Ok(())
    }

    /// By this process and by others.
    fn tell_what_was_adopted(&mut self, events: &Sender<Event>) {
        let news = self.history.adopted[self.n_adopted..].to_vec();
        if !news.is_empty() {
            self.n_adopted += news.len();
            drop(events.send(Event::Adopted(news)));
        }
    }

    fn tell_what_is_paused(&mut self, events: &Sender<Event>) {
        let paused = paused(&self.history);
        if paused != self.paused {
            self.paused = paused.clone();
            let (up_to, (all, partitions)) = (self.history.next(), paused);
            drop(events.send(Event::Paused { up_to, all, partitions }));
        }
    }

    /// Why a plan of the log cannot run here: whoever begins with one on trial never ran the one before.
    fn cannot_run(&self, number: u64) -> Option<String> {
        let plan = self.history.plans.get(&number)?;
        let loaded = self.rules.load(&PlanRef { plan: number, digest: plan.digest.clone() });
        loaded.err().map(|stop| format!("plan {number} cannot take its place: {stop}"))
    }

    /// Takes back what is to be, unless somebody was faster. Then there is another plan in any case.
    fn take_back(&mut self, events: &Sender<Event>) -> Result<(), Error> {
        let Some(mut back) = self.back.take() else { return Ok(()) };
        if let Some(error) = self.cannot_run(back.to) {
            drop(events.send(Event::Kept { plan: back.plan, error }));
            return Ok(());
        }
        let log = self.log.as_mut();
        // Also where an answer was lost.
        let tried = self.history.catch_up(log).and_then(|()| {
            self.history.append(log, |history| history.taking_back(back.plan, back.to, back.made.clone()))
        });
        if let Err(error) = &tried {
            back.tried = back.tried.saturating_add(1);
            if back.tried < self.max_attempts {
                self.back = Some(back);
            } else {
                drop(events.send(Event::Kept { plan: back.plan, error: error.to_string() }));
            }
        }
        tried.map(|_| ())
    }
}

/// What is not to be read: at all, and which partitions.
type Paused = (Option<By>, BTreeMap<InputPartition, By>);

fn paused(history: &History) -> Paused {
    (history.paused.clone(), history.paused_partitions.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::pipeline::threads::Loaded;
    use crate::pipeline::threads::shadow::Lane;
    use crate::plan::memory::MemoryLog;
    use crate::plan::tests::{plan, shadow};
    use crate::plan::{Shadow, ShadowEnded};

    /// Rules that only note what plans they were told of.
    #[derive(Default)]
    struct Told(Mutex<Vec<u64>>);

    impl Rules for Told {
        fn load(&self, _: &PlanRef) -> Result<Arc<dyn Loaded>, Stop> {
            Err(Stop::new("nothing is loaded here"))
        }

        fn shadow(&self, _: &Plan) -> Result<Arc<dyn Loaded>, Stop> {
            Err(Stop::new("nothing is loaded here"))
        }

        fn make_ready(&self, plans: &BTreeMap<u64, Plan>) -> Result<(), Stop> {
            self.0.lock().unwrap().extend(plans.keys());
            Ok(())
        }
    }

    /// A follower that has read nothing yet.
    fn inner(log: MemoryLog, told: Arc<Told>) -> Inner {
        Inner {
            log: Box::new(log),
            history: History::default(),
            ready: 0,
            refused: None,
            rules: told.clone(),
            shadows: Shadows::new(Arc::new(Lane::new()), told, 0),
            now_ms: || 0,
            max_attempts: 1,
            paused: Paused::default(),
            n_adopted: 0,
            asked: None,
            back: None,
            to_tell: VecDeque::new(),
            failing: false,
        }
    }

    #[test]
    fn what_somebody_drops_does_not_become_the_next_plan_by_itself_a_moment_later() {
        for dropped in [false, true] {
            let (mut log, mut theirs) = (MemoryLog::default(), History::default());
            theirs.put_plan(&mut log, &plan(None, "a")).unwrap();
            let through = Shadow { records: Some(0), promote_up_to: Some(0), ..shadow(0, "b") };
            theirs.put_shadow(&mut log, &through).unwrap();
            let mut inner = inner(log.clone(), Arc::new(Told::default()));
            inner.history = theirs.clone();
            inner.shadows.follow(&theirs);
            if dropped {
                let by = By { who: "a".to_owned(), at_ms: 7 };
                theirs.end_shadow(&mut log, 1, ShadowEnd::Dropped, &by, "").unwrap();
            }
            inner.end_what_is_through().unwrap();
            let (newest, _) = inner.history.newest().unwrap();
            assert_eq!(newest, if dropped { 0 } else { 2 });
            let ended = &inner.history.shadows_ended[&1];
            assert_eq!(matches!(ended, ShadowEnded::Dropped { .. }), dropped, "{ended}");
        }
    }

    #[test]
    fn a_plan_stays_where_the_one_before_cannot_run_here() {
        let (mut log, mut theirs) = (MemoryLog::default(), History::default());
        theirs.put_plan(&mut log, &plan(None, "a")).unwrap();
        theirs.put_plan(&mut log, &plan(Some(0), "b")).unwrap();
        let (events, heard) = bounded(1);
        let mut inner = inner(log, Arc::new(Told::default()));
        inner.history = theirs;
        inner.note(super::Told::Back { plan: 1, to: 0, why: "it traps".to_owned() });
        inner.take_back(&events).unwrap();
        let Ok(Event::Kept { plan: 1, error }) = heard.try_recv() else { panic!("it is told") };
        assert!(error.contains("plan 0 cannot take its place"), "{error}");
        assert_eq!(inner.history.newest().unwrap().0, 1);
    }

    #[test]
    fn a_plan_that_came_and_went_between_two_looks_is_known_too() {
        let (mut log, mut theirs) = (MemoryLog::default(), History::default());
        for (replaces, digest) in [(None, "a"), (Some(0), "b"), (Some(1), "c")] {
            theirs.put_plan(&mut log, &plan(replaces, digest)).unwrap();
        }
        let (told, (events, heard)) = (Arc::new(Told::default()), bounded(1));
        let mut inner = inner(log, told.clone());
        inner.hear(&events).unwrap();
        assert!(matches!(heard.try_recv(), Ok(Event::Plan { plan, .. }) if plan.plan == 2));
        assert_eq!(*told.0.lock().unwrap(), [0, 1, 2]);
    }
}
