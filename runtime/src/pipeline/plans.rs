//! What follows from what the plan log tells: another plan makes what is read from now on, or cannot run here; which plan made
//! what, as others had it written down; and that the log does not have what a sink knows.

use std::time::Duration;

use super::track::{Asked, Phase};
use super::{Action, Core, GiveUp, Stop, Waiting};
use crate::offset::TopicPartition;
use crate::plan::{Adopted, Entry};
use crate::sink::state::{Cut, PlanRef};

/// A plan that cannot run here.
#[derive(Debug)]
pub(super) struct NotReady {
    pub(super) plan: u64,
    pub(super) stop: Stop,
    /// How often it was tried.
    times: u32,
}

impl Core {
    pub(super) fn plan(&mut self, plan: PlanRef, on_trial: bool, now: Duration) {
        if plan.plan <= self.newest.plan {
            return;
        }
        tracing::info!(
            plan = plan.plan,
            before = self.newest.plan,
            "another plan makes what is read from now on"
        );
        self.newest = plan;
        self.trials.put(self.newest.plan, on_trial, now);
        self.give_up_below(self.newest.plan);
        self.not_ready.take_if(|not_ready| not_ready.plan <= self.newest.plan);
        self.keep_all();
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.past.is_some()) {
            waiting.until = now;
        }
        self.tick(now);
        let waiting = self.tracks.iter().filter(|(_, track)| matches!(track.phase, Phase::NeedsPlan(_)));
        let waiting: Vec<_> = waiting.map(|(at, _)| at.clone()).collect();
        waiting.iter().for_each(|at| self.start_reading(at));
    }

    /// A run that is to end stops after a few attempts, as where a sink fails.
    pub(super) fn not_ready(&mut self, plan: u64, stop: Stop) {
        if plan <= self.newest.plan {
            return;
        }
        let before = self.not_ready.take().filter(|not_ready| not_ready.plan == plan);
        let times = before.as_ref().map_or(1, |before| before.times + 1);
        if before.is_none_or(|before| before.stop != stop) {
            tracing::warn!(plan, running = self.newest.plan, hint = stop.hint, error = %stop,
                "the newest plan cannot run here: nothing is read until it can");
        }
        self.not_ready = Some(NotReady { plan, stop: stop.clone(), times });
        self.keep_all();
        if times > self.settings.max_attempts {
            let all: Vec<_> = self.tracks.keys().cloned().collect();
            all.iter().for_each(|at| self.drain(at, Some(stop.clone())));
            for at in std::mem::take(&mut self.waiting).into_keys() {
                self.stopped(&at, stop.clone());
            }
        }
    }

    pub(super) fn kept(&mut self, plan: u64, error: &str, now: Duration) {
        if plan != self.newest.plan {
            return;
        }
        tracing::error!(plan, error, "the plan cannot be taken back, and stays");
        self.trials.kept(plan);
        self.give_up_below(self.newest.plan);
        let of_it = |waiting: &Waiting| waiting.past == Some(plan);
        let stopped = self.waiting.extract_if(.., |_, waiting| of_it(waiting) && !waiting.given_up);
        for (at, Waiting { stop, .. }) in stopped.collect::<Vec<_>>() {
            self.stopped(&at, stop);
        }
        self.waiting.values_mut().filter(|waiting| of_it(waiting)).for_each(|waiting| waiting.until = now);
        self.keep_all();
        self.tick(now);
    }

    pub(super) fn give_up_below(&mut self, plan: u64) {
        if !self.stopping {
            let taken_back = self.trials.taken_back();
            self.actions.push_back(Action::GiveUp(GiveUp::Below { plan, taken_back }));
        }
    }

    /// Tells people of a cut, once.
    pub(super) fn log_cut(&mut self, at: &TopicPartition, cut: Cut) {
        let (of, epoch) = (self.of(at), self.tracks[at].assignment.epoch);
        let to_tell = (of.clone(), cut.plan.plan);
        if self.history.knows_cut(&of, &cut, epoch) || self.telling.get(&to_tell) == Some(&cut) {
            return;
        }
        self.telling.insert(to_tell, cut.clone());
        let runtime = env!("CARGO_PKG_VERSION").to_owned();
        self.actions.push_back(Action::Tell(Entry::Adopted { of, cut, epoch, runtime }));
    }

    pub(super) fn adopted(&mut self, adopted: Vec<Adopted>) {
        for adopted in adopted {
            self.telling.remove(&(adopted.of.clone(), adopted.cut.plan.plan));
            self.history.adopt(adopted);
        }
        let waiting = self.tracks.iter().filter(|(_, track)| matches!(track.phase, Phase::NeedsCuts(_)));
        let waiting = waiting.map(|(at, _)| at.clone()).collect();
        self.all_claimed(waiting);
    }

    /// Why a partition stops, if the log does not have what it waits for.
    pub(super) fn ask_the_log(&mut self, stop: Stop) -> Asked {
        self.asked += 1;
        self.actions.push_back(Action::ReadLog { asked: self.asked });
        Asked { n: self.asked, stop }
    }

    /// What a partition still waits for, the plan log does not have; but for a plan that it has and that cannot run here.
    pub(super) fn log_read(&mut self, asked: u64) {
        let not_ready = self.not_ready.as_ref().map(|not_ready| not_ready.plan);
        let lost = self.tracks.iter().filter_map(|(at, track)| match &track.phase {
            Phase::NeedsCuts(Asked { n, stop }) => (*n <= asked).then(|| (at.clone(), stop.clone())),
            Phase::NeedsPlan(Asked { n, stop }) => {
                let is_lost = *n <= asked && not_ready.is_none_or(|plan| plan < track.floor());
                is_lost.then(|| (at.clone(), stop.clone()))
            }
            _ => None,
        });
        for (at, stop) in lost.collect::<Vec<_>>() {
            self.drain(&at, Some(stop));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset::Offset;
    use crate::pipeline::Event;
    use crate::pipeline::rig::Rig;
    use crate::pipeline::status::State;
    use crate::plan::InputPartition;
    use crate::sink::state::{Epoch, forgotten};

    fn newer() -> PlanRef {
        PlanRef { plan: 5, digest: "sha256:ab".into() }
    }

    /// Two sinks have rows of a plan that this process, which has read of plan 3, has not heard of. It asks the log.
    fn behind() -> Rig {
        let mut rig = Rig::new();
        let claims = rig.assign();
        rig.claim_behind(claims, &newer());
        assert_eq!(rig.stands().0, State::NeedsPlan);
        assert!(rig.done().iter().any(|action| matches!(action, Action::ReadLog { asked: 1 })));
        rig
    }

    #[test]
    fn a_partition_whose_sinks_have_rows_of_a_plan_that_cannot_run_here_says_why_it_waits() {
        let mut rig = behind();
        rig.decide(Event::NotReady { plan: 5, stop: Stop::new("loading plan 5: E_STORE: not there") });
        rig.decide(Event::LogRead { asked: 1 });
        let (state, told) = rig.stands();
        assert_eq!(state, State::NeedsPlan);
        assert!(told.contains("loading plan 5: E_STORE"), "{told}");
    }

    #[test]
    fn a_plan_that_the_log_has_is_waited_for_and_one_that_it_lost_stops_the_partition() {
        let mut rig = behind();
        rig.decide(Event::LogRead { asked: 0 });
        assert_eq!(rig.stands().0, State::NeedsPlan, "it was read to its end before the sinks were claimed");
        rig.decide(Event::Plan { plan: newer(), on_trial: false });
        rig.decide(Event::LogRead { asked: 1 });
        assert_eq!(rig.stands().0, State::Running);

        let mut rig = behind();
        rig.decide(Event::Plan { plan: PlanRef { plan: 4, ..newer() }, on_trial: false });
        rig.decide(Event::LogRead { asked: 1 });
        let (state, told) = rig.stands();
        assert_eq!(state, State::Stopped);
        assert!(told.contains("E_PLAN_MISSING: a sink has rows of plan 5"), "{told}");
    }

    #[test]
    fn cuts_that_a_sink_forgot_are_waited_for_until_the_log_was_read_to_its_end_without_them() {
        let old = [Cut { from: Offset::ZERO, plan: PlanRef { plan: 1, ..newer() } }];
        let cuts = [Cut { from: Offset::new(6), plan: PlanRef { plan: 3, ..newer() } }];
        for lost in [false, true] {
            let mut rig = Rig::new();
            let claims = rig.assign();
            rig.claim_with(claims, |sink, state| {
                if sink == 0 {
                    (state.next, state.cuts) = (Offset::new(9), cuts.to_vec());
                    state.forgotten = forgotten(None, &old);
                }
            });
            assert_eq!(rig.stands().0, State::NeedsPlan);
            let cut = if lost { &cuts[0] } else { &old[0] };
            let of = InputPartition::file(7);
            rig.decide(Event::Adopted(vec![Adopted { of, cut: cut.clone(), epoch: Epoch::new(0) }]));
            rig.decide(Event::LogRead { asked: 1 });
            let (state, told) = rig.stands();
            assert_eq!(state, if lost { State::Stopped } else { State::Running }, "{told}");
            assert_eq!(told.contains("E_PLAN_MISSING"), lost, "{told}");
        }
    }
}
