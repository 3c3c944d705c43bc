//! A core with one partition `t/7` and two sinks, for tests that look at single decisions.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::status::State;
use super::{Action, Core, Event, Settings, trial};
use crate::batch::{BatchBuilder, RecordRef};
use crate::budget::Permit;
use crate::commit::{Claimed, Report};
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::plan::History;
use crate::route::{Bindings, Fate, Routed};
use crate::sink::state::{Claim, Cut, Epoch, Input, Nonce, PlanRef, SinkState, Start};
use crate::source::{Assignment, RunId, SourceEvent};

pub(super) struct Rig {
    pub(super) core: Core,
    pub(super) now: Duration,
    /// What was to be done besides claims.
    done: Vec<Action>,
}

/// What a plan that is put is tried by.
const LIMITS: trial::Limits =
    trial::Limits { records: 1_000, time: Duration::from_secs(60), rejected: 0.05, failed: 0.001 };

/// What became of records from `from` on, without rows.
pub(super) fn routed(plan: u64, from: i64, fates: impl Iterator<Item = Fate>) -> Routed {
    let fates: Vec<_> = (from..).map(Offset::new).zip(fates).collect();
    let n_records = fates.len() as u64;
    Routed {
        at: at(),
        range: OffsetRange::new(Offset::new(from), Offset::new(from + n_records as i64)),
        plan: PlanRef { plan, digest: "sha256:ab".into() },
        bindings: Arc::new(Bindings {
            names: vec!["lake".into(), "base".into()],
            sinks: vec![Vec::new(); 2],
        }),
        n_records,
        last: None,
        fates,
        parts: Vec::new(),
        addressed: Vec::new(),
        rejected: BTreeMap::new(),
        routes: BTreeMap::new(),
        permit: Permit::free(),
    }
}

pub(super) fn at() -> TopicPartition {
    TopicPartition::new("t", 7)
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(History::default())
    }

    pub(super) fn with(history: History) -> Self {
        let settings = Settings {
            pipeline: "p".into(),
            owner: Nonce::from_u128(1),
            sinks: vec!["lake".into(), "base".into()],
            stop_after_consecutive: 1000,
            file_topic: Some("t".into()),
            max_attempts: 2,
            rollback: Some(LIMITS),
            on_trial_after: None,
        };
        let core = Core::new(settings, history, PlanRef { plan: 3, digest: "sha256:ab".into() });
        Self { core, now: Duration::ZERO, done: Vec::new() }
    }

    /// The claims that follow from an event.
    pub(super) fn decide(&mut self, event: Event) -> Vec<(usize, RunId, Claim)> {
        let mut claims = Vec::new();
        for action in self.core.handle(event, self.now) {
            match action {
                Action::Claim { sink, claims: all } => {
                    claims.extend(all.into_iter().map(|(run, claim)| (sink, run, claim)));
                }
                other => self.done.push(other),
            }
        }
        claims
    }

    /// What else was to be done since this was asked last.
    pub(super) fn done(&mut self) -> Vec<Action> {
        mem::take(&mut self.done)
    }

    pub(super) fn assign(&mut self) -> Vec<(usize, RunId, Claim)> {
        let assignment = Assignment {
            at: at(),
            topic_id: "id".into(),
            group: "p".into(),
            epoch: Epoch::new(1),
            start: Start::Init(Offset::ZERO),
            input: Some(Input { path: "a.csv".into(), length: 9, digest: "sha256:cd".into() }),
        };
        self.decide(Event::Source(SourceEvent::Assigned(vec![assignment])))
    }

    /// Answers the claims of both sinks, one after the other; the run.
    pub(super) fn claim(&mut self, claims: Vec<(usize, RunId, Claim)>) -> RunId {
        self.claim_with(claims, |_, _| {})
    }

    /// The same, where the sinks have rows of a plan.
    pub(super) fn claim_behind(&mut self, claims: Vec<(usize, RunId, Claim)>, plan: &PlanRef) -> RunId {
        let cut = Cut { from: Offset::ZERO, plan: plan.clone() };
        self.claim_with(claims, |_, state| state.cuts = vec![cut.clone()])
    }

    /// The same, with what each has of plan 3.
    pub(super) fn claim_at(&mut self, claims: Vec<(usize, RunId, Claim)>, next: &[Offset]) -> RunId {
        self.claim_with(claims, |sink, state| {
            state.next = next[sink];
            if state.next > Offset::ZERO {
                let plan = PlanRef { plan: 3, digest: "sha256:ab".into() };
                state.cuts = vec![Cut { from: Offset::ZERO, plan }];
            }
        })
    }

    /// The same, where each sink has what `change` makes of it.
    pub(super) fn claim_with(
        &mut self,
        mut claims: Vec<(usize, RunId, Claim)>,
        change: impl Fn(usize, &mut SinkState),
    ) -> RunId {
        let mut last = RunId(0);
        while let Some((sink, run, claim)) = claims.pop() {
            let mut state = SinkState::init(&claim, Offset::ZERO);
            change(sink, &mut state);
            let report = Report::Claimed(vec![Claimed { at: at(), run, state: Ok(state) }]);
            claims = self.decide(Event::Sink { sink, report });
            last = run;
        }
        last
    }

    /// What the partition does, and in words.
    pub(super) fn stands(&self) -> (State, String) {
        let [partition] = &self.core.status(self.now).partitions[..] else { panic!("one partition") };
        (partition.state, partition.told())
    }

    /// Hears a record of the source, and that nothing stands up to `end`.
    pub(super) fn batch(&mut self, run: RunId, from: i64, end: i64) {
        let mut batch = BatchBuilder::new(at(), Offset::new(from));
        batch.push(Offset::new(from), RecordRef { value: Some(b"1"), ..RecordRef::default() });
        let batch = batch.finish(Offset::new(end), Permit::free()).expect("it has a record");
        self.decide(Event::Source(SourceEvent::Batch { run, batch }));
    }
}
