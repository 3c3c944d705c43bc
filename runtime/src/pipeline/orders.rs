//! What a person tells a pipeline that runs: to read nothing for a while, and to go on. Every such decision is in the
//! plan log before it is answered, so that a restart keeps to it.
//!
//! A partition that is paused keeps its claim. What was read of it is finished and committed, and then it stands still; when
//! it goes on, the source reads it again from there, under another run, so that nothing that was on its way before is taken
//! for what comes now. What becomes ours while everything is paused is not even claimed before it goes on.

use std::collections::BTreeMap;

use super::track::Phase;
use super::{Action, Core};
use crate::offset::TopicPartition;
use crate::plan::{By, Entry, InputPartition};
use crate::source::RunId;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub what: What,
    /// Of which partition; of all if absent.
    pub of: Option<TopicPartition>,
    /// Who, and when.
    pub by: By,
}

/// What an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Read nothing more for now.
    Pause,
    /// Go on.
    Resume,
}

/// An order that is not followed, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Lower case, no period.
    pub text: String,
    /// What a person can do.
    pub hint: Option<String>,
}

impl Refusal {
    fn new(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { text: text.into(), hint: Some(hint.into()) }
    }
}

impl Core {
    /// Follows an order or refuses it, and says which as `ticket`: whether anything is different now.
    pub(super) fn order(&mut self, ticket: u64, order: Order) {
        let answer = self.check(&order).map(|()| self.follow(order));
        self.actions.push_back(Action::Answer { ticket, answer });
    }

    fn check(&self, order: &Order) -> Result<(), Refusal> {
        if self.stopping {
            let text = "the pipeline was told to stop";
            return Err(Refusal::new(text, "start it first: what is paused stays paused"));
        }
        let Some(at) = &order.of else { return Ok(()) };
        let ours =
            self.tracks.contains_key(at) || self.waiting.contains_key(at) || self.stopped.contains_key(at);
        let known = self.history.paused_partitions.contains_key(&self.of(at));
        match order.what {
            What::Pause if !ours => {
                let text = format!("this process does not have partition {at}");
                Err(Refusal::new(text, "`weir status` shows the partitions that there are"))
            }
            What::Resume if !ours && !known => {
                let text = format!("partition {at} is not paused");
                Err(Refusal::new(text, "`weir status` shows the partitions that there are"))
            }
            What::Resume if self.history.paused.is_some() => {
                let text = format!("all of the pipeline is paused, and {at} with it");
                Err(Refusal::new(text, "let all of it go on: `weir resume` without a partition"))
            }
            What::Pause | What::Resume => Ok(()),
        }
    }

    /// Whether anything is different now.
    fn follow(&mut self, order: Order) -> bool {
        let Order { what, of, by } = order;
        let of = of.map(|at| self.of(&at));
        let before = match &of {
            Some(of) => self.history.paused_partitions.contains_key(of),
            None => self.history.paused.is_some(),
        };
        let nothing_left = of.is_none() && self.history.paused_partitions.is_empty();
        match what {
            What::Pause if before => return false,
            What::Resume if !before && (of.is_some() || nothing_left) => return false,
            What::Pause => {
                tell(of.as_ref(), Some(&by));
                self.history.pause(of.clone(), by.clone());
                self.actions.push_back(Action::Log(Entry::Paused { of, by }));
            }
            What::Resume => {
                tell(of.as_ref(), None);
                self.history.resume(of.as_ref());
                self.actions.push_back(Action::Log(Entry::Resumed { of, by }));
            }
        }
        self.keep_all();
        true
    }

    /// What the plan log says, unless this process has decided something since.
    pub(super) fn paused_elsewhere(
        &mut self,
        up_to: u64,
        all: Option<By>,
        partitions: BTreeMap<InputPartition, By>,
    ) {
        if up_to < self.logged {
            return;
        }
        if all.is_some() != self.history.paused.is_some() {
            tell(None, all.as_ref());
        }
        let before = &self.history.paused_partitions;
        for of in before
            .keys()
            .chain(partitions.keys())
            .filter(|of| before.contains_key(of) != partitions.contains_key(of))
        {
            tell(Some(of), partitions.get(of));
        }
        (self.history.paused, self.history.paused_partitions) = (all, partitions);
        self.keep_all();
    }

    /// Whether nothing is to be read of a partition.
    pub(super) fn is_paused(&self, at: &TopicPartition) -> bool {
        self.not_ready.is_some() || self.trials.is_taking_back() || self.history.is_paused(&self.of(at))
    }

    /// Makes partitions stand still or go on, as it is decided.
    pub(super) fn keep_all(&mut self) {
        let all: Vec<_> = self.tracks.keys().cloned().collect();
        let to_claim: Vec<_> = all.into_iter().filter(|at| self.keep_to(at)).collect();
        self.claim(0, &to_claim);
    }

    /// Makes a partition stand still or go on, as it is decided; whether it is to be claimed for that.
    fn keep_to(&mut self, at: &TopicPartition) -> bool {
        let paused = self.is_paused(at);
        let track = self.tracks.get_mut(at).expect("checked by the caller");
        match (&track.phase, paused) {
            (Phase::Unclaimed, false) => {
                track.phase = Phase::Claiming;
                return true;
            }
            (Phase::Running, true) if !track.held => {
                track.held = true;
                self.actions.push_back(Action::Hold { at: at.clone() });
                self.finish_if_through(at);
            }
            (Phase::Running, false) if track.held => {
                track.held = false;
                self.next_run += 1;
                track.reading = RunId(self.next_run);
                self.read(at);
            }
            _ => {}
        }
        false
    }

    /// Lets the source read on from where it was heard last, if there is more.
    pub(super) fn read(&mut self, at: &TopicPartition) {
        let track = &self.tracks[at];
        if track.end.is_none() {
            let (run, from) = (track.reading, track.resume());
            let last = track.last_before(from);
            self.actions.push_back(Action::Read { run, at: at.clone(), from, last });
        }
    }
}

/// Whoever reads the log wants to know why nothing is read, also where somebody else decided it.
fn tell(of: Option<&InputPartition>, paused_by: Option<&By>) {
    let of = of.map(ToString::to_string);
    match paused_by {
        Some(by) => tracing::info!(of, by = by.who, "paused: nothing more is read"),
        None => tracing::info!(of, "resumed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset::Offset;
    use crate::pipeline::rig::{Rig, at};
    use crate::pipeline::status::State;
    use crate::pipeline::{Event, Stop};
    use crate::plan::{History, InputPartition};
    use crate::sink::state::PlanRef;
    use crate::source::SourceEvent;

    fn by() -> By {
        By { who: "somebody".into(), at_ms: 7 }
    }

    /// The answer, and what else is to be done.
    fn order(rig: &mut Rig, what: What, of: Option<TopicPartition>) -> (Result<bool, Refusal>, Vec<Action>) {
        rig.done();
        rig.decide(Event::Order { ticket: 9, order: Order { what, of, by: by() } });
        let mut done = rig.done();
        let at = done.iter().position(|action| matches!(action, Action::Answer { ticket: 9, .. }));
        let Action::Answer { answer, .. } = done.remove(at.expect("every order is answered")) else {
            unreachable!()
        };
        (answer, done)
    }

    fn running() -> (Rig, RunId) {
        let mut rig = Rig::new();
        let claims = rig.assign();
        let run = rig.claim(claims);
        (rig, run)
    }

    /// From where on it is to be read under which run, if it is.
    fn read(done: &[Action]) -> Option<(RunId, Offset)> {
        done.iter().find_map(|action| match action {
            Action::Read { run, from, .. } => Some((*run, *from)),
            _ => None,
        })
    }

    fn transforms(rig: &mut Rig) -> usize {
        rig.done().iter().filter(|action| matches!(action, Action::Transform(_))).count()
    }

    #[test]
    fn a_pause_is_written_down_before_it_is_answered_and_holds_the_source() {
        let (mut rig, _) = running();
        let (answer, done) = order(&mut rig, What::Pause, None);
        assert_eq!(answer, Ok(true));
        let [Action::Log(entry), Action::Hold { at: held }] = &done[..] else { panic!("{done:?}") };
        assert_eq!((entry, held), (&Entry::Paused { of: None, by: by() }, &at()));
        assert_eq!((rig.stands().0, rig.core.status(rig.now).paused), (State::Paused, Some(by())));
        let (answer, done) = order(&mut rig, What::Pause, None);
        assert!(answer == Ok(false) && done.is_empty(), "it is paused already: {done:?}");
    }

    #[test]
    fn what_was_on_its_way_is_taken_in_and_then_read_on_behind_it_under_another_run() {
        let (mut rig, run) = running();
        rig.batch(run, 0, 5);
        order(&mut rig, What::Pause, Some(at())).0.unwrap();
        assert_eq!(rig.stands().0, State::Pausing, "a batch is being transformed");
        rig.batch(run, 5, 8);
        assert_eq!(transforms(&mut rig), 1);
        let (answer, done) = order(&mut rig, What::Resume, Some(at()));
        let (again, from) = read(&done).expect("it goes on");
        assert_eq!((answer, from), (Ok(true), Offset::new(8)));
        assert_ne!(again, run);
        rig.batch(run, 8, 9);
        assert_eq!(transforms(&mut rig), 0, "it belongs to what was read before");
        rig.batch(again, 8, 10);
        assert_eq!(transforms(&mut rig), 1);
    }

    #[test]
    fn what_becomes_ours_while_all_is_paused_is_claimed_when_it_goes_on() {
        let mut history = History::default();
        history.pause(None, by());
        let mut rig = Rig::with(history);
        assert!(rig.assign().is_empty(), "a restart stays paused");
        assert_eq!(rig.stands().0, State::Paused);
        let claims =
            rig.decide(Event::Order { ticket: 1, order: Order { what: What::Resume, of: None, by: by() } });
        assert_eq!(claims.len(), 1);
        rig.claim(claims);
        assert_eq!(rig.stands().0, State::Running);
    }

    #[test]
    fn a_partition_that_is_paused_keeps_its_claim_also_over_a_restart() {
        let mut history = History::default();
        history.pause(Some(InputPartition::file(7)), by());
        let mut rig = Rig::with(history);
        let claims = rig.assign();
        rig.claim(claims);
        assert_eq!((rig.stands().0, read(&rig.done())), (State::Paused, None));
        assert!(read(&order(&mut rig, What::Resume, Some(at())).1).is_some());
    }

    #[test]
    fn all_that_is_resumed_goes_for_every_partition_and_one_does_not_go_on_alone() {
        let (mut rig, _) = running();
        order(&mut rig, What::Pause, Some(at())).0.unwrap();
        order(&mut rig, What::Pause, None).0.unwrap();
        let refused = order(&mut rig, What::Resume, Some(at())).0.unwrap_err();
        assert!(refused.text.contains("all of the pipeline is paused"), "{refused}");
        let (answer, done) = order(&mut rig, What::Resume, None);
        assert!(answer == Ok(true) && read(&done).is_some(), "{done:?}");
        assert_eq!(order(&mut rig, What::Resume, None).0, Ok(false));
    }

    #[test]
    fn a_partition_that_nobody_has_is_refused_and_nothing_is_written_down() {
        let (mut rig, _) = running();
        for what in [What::Pause, What::Resume] {
            let (answer, done) = order(&mut rig, what, Some(TopicPartition::new("t", 8)));
            assert!(answer.is_err() && done.is_empty(), "{done:?}");
        }
    }

    #[test]
    fn a_file_that_ends_while_it_is_paused_is_not_read_again() {
        let (mut rig, run) = running();
        rig.batch(run, 0, 5);
        order(&mut rig, What::Pause, None).0.unwrap();
        let end = SourceEvent::End { run, at: at(), end: Offset::new(5), for_good: true };
        rig.decide(Event::Source(end));
        assert_eq!(read(&order(&mut rig, What::Resume, None).1), None);
    }

    #[test]
    fn a_pipeline_that_is_paused_can_be_stopped_and_takes_no_order_then() {
        let (mut rig, _) = running();
        order(&mut rig, What::Pause, None).0.unwrap();
        rig.decide(Event::Stop);
        let stopped: Vec<Stop> = Vec::new();
        let said = rig.done().into_iter().filter_map(|action| match action {
            Action::Stopped { stop, .. } => Some(stop),
            _ => None,
        });
        assert_eq!(said.collect::<Vec<_>>(), stopped);
        assert_eq!(rig.core.status(rig.now).partitions, []);
        assert!(order(&mut rig, What::Resume, None).0.is_err());
    }

    #[test]
    fn what_is_paused_elsewhere_stands_still_here_unless_it_was_decided_otherwise_since() {
        let (mut rig, _) = running();
        let paused = |up_to, all| Event::Paused { up_to, all, partitions: BTreeMap::new() };
        let ours = Entry::Resumed { of: None, by: by() };
        rig.core.logged(&ours, 4);
        rig.decide(paused(4, Some(by())));
        assert_eq!(rig.stands().0, State::Running, "the log had more than that was made of");
        rig.decide(paused(6, Some(by())));
        assert_eq!(rig.stands().0, State::Paused);
        order(&mut rig, What::Resume, None).0.unwrap();
        rig.core.logged(&ours, 6);
        rig.decide(paused(6, Some(by())));
        assert_eq!(rig.stands().0, State::Running);
        rig.decide(paused(7, None));
        assert_eq!(rig.stands().0, State::Running);
    }
    #[test]
    fn a_plan_that_cannot_run_here_stops_reading_until_it_can() {
        let (mut rig, run) = running();
        rig.batch(run, 0, 5);
        assert_eq!(transforms(&mut rig), 1);
        let stop = Stop::new("loading plan 5: E_STORE: not there");
        rig.decide(Event::NotReady { plan: 5, stop: stop.clone() });
        assert!(rig.done().iter().any(|action| matches!(action, Action::Hold { .. })));
        assert_eq!(rig.stands().0, State::NeedsPlan);
        let told = rig.core.status(rig.now).partitions[0].told();
        assert!(told.contains("loading plan 5: E_STORE"), "{told}");
        // Neither an old one nor somebody who lets it go on makes it run.
        rig.decide(Event::Plan { plan: PlanRef { plan: 2, digest: "sha256:ab".into() }, on_trial: false });
        order(&mut rig, What::Resume, None).0.unwrap();
        assert_eq!(rig.stands().0, State::NeedsPlan);
        rig.done();
        rig.decide(Event::Plan { plan: PlanRef { plan: 5, digest: "sha256:ab".into() }, on_trial: false });
        let (run, from) = read(&rig.done()).expect("it is read on");
        assert_eq!((rig.stands().0, from), (State::Running, Offset::new(5)));
        rig.batch(run, 5, 6);
        let plans: Vec<_> = rig
            .done()
            .into_iter()
            .filter_map(|action| match action {
                Action::Transform(job) => Some(job.plan.plan),
                _ => None,
            })
            .collect();
        assert_eq!(plans, [5]);
    }
}
