//! One attempt at claims, and what each is held against: the state that the progress topic has, and where the group
//! stands.

use std::time::Duration;

use super::attempt::Tries;
use super::{KafkaSink, Owned, of_cluster};
use crate::kafka::transactions::{Ended, Undone};
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::{Claim, Refused, SinkState, Start};
use crate::sink::{Error, Problem};

/// How long to wait until a group and its record may agree: the markers of one transaction land one after the other.
const UNTIL_LANDED_MS: [u64; 3] = [50, 500, 2_000];

/// How claims ended, as far as that is known, in their order.
pub(super) type Answers = [Option<Result<SinkState, Error>>];

impl KafkaSink {
    /// Tries once to claim what has no answer yet, in one transaction. Whether all have one now.
    pub(super) fn claim_once(
        &mut self,
        claims: &[Claim],
        answers: &mut Answers,
        tries: &mut Tries,
    ) -> Result<bool, Error> {
        // Somebody else may have had them since. Who may not have them is told so before it fences who has.
        self.progress.read_on()?;
        if self.ready(claims, answers).is_empty() {
            return Ok(true);
        }
        if !self.is_fit() {
            self.renew()?;
        }
        self.hold_against_group(claims, answers)?;
        let ready = self.ready(claims, answers);
        if ready.is_empty() {
            return Ok(true);
        }
        let states: Vec<_> = ready.iter().map(|(i, state)| (&claims[*i].at, state.clone())).collect();
        match self.transact(&states, false) {
            Ended::Committed => {
                fail::fail_point!("kafka.after_commit");
                for (i, state) in ready {
                    self.progress.keep(state.clone());
                    self.owned.insert(claims[i].at.clone(), Owned::new(&claims[i], state.next));
                    answers[i] = Some(Ok(state));
                }
                Ok(true)
            }
            // Whether it is there makes no difference: what this very claim has may be claimed by it again.
            Ended::Unknown(text) => {
                self.again(Undone::Fenced(text), tries, &states)?;
                self.renew().map(|()| false)
            }
            Ended::UnknownAndFenced(text) => self.again(Undone::Fenced(text), tries, &states).map(|()| false),
            Ended::Undone(undone) => self.again(undone, tries, &states).map(|()| false),
        }
    }

    /// The states of what may be claimed, each with its place, once they are the claims'. What may not has its answer.
    fn ready(&self, claims: &[Claim], answers: &mut Answers) -> Vec<(usize, SinkState)> {
        let mut ready = Vec::new();
        for (i, (claim, answer)) in claims.iter().zip(answers).enumerate() {
            if answer.is_none() {
                match self.claimed(claim) {
                    Ok(state) => ready.push((i, state)),
                    Err(error) => *answer = Some(Err(error)),
                }
            }
        }
        ready
    }

    fn claimed(&self, claim: &Claim) -> Result<SinkState, Error> {
        let mut state = match self.progress.get(&claim.at) {
            Some(state) => state.clone(),
            None => self.begun(claim)?,
        };
        state.claim(claim)?;
        Ok(state)
    }

    fn begun(&self, claim: &Claim) -> Result<SinkState, Error> {
        if let Some(held) = self.progress.other_topic(&claim.at.topic, &claim.topic_id) {
            let (topic, ours) = (claim.at.topic.clone(), claim.topic_id.clone());
            return Err(Refused::TopicReplaced { topic, held: held.clone(), ours }.into());
        }
        match claim.start {
            Start::Init(start) => Ok(SinkState::init(claim, start)),
            Start::MustExist => Err(missing(&claim.at, self.progress.topic())),
        }
    }

    /// Refuses claims of partitions in which the group does not stand where the sink does; both were moved by the same
    /// transactions.
    fn hold_against_group(&mut self, claims: &[Claim], answers: &mut Answers) -> Result<(), Error> {
        let Some(group) = &self.group else { return Ok(()) };
        let mut waits = UNTIL_LANDED_MS.into_iter().map(Duration::from_millis);
        let mut asked: Vec<_> = (0..claims.len()).filter(|i| answers[*i].is_none()).collect();
        loop {
            let ats: Vec<_> = asked.iter().map(|i| &claims[*i].at).collect();
            let stands = group.offsets.committed(&ats).map_err(of_cluster)?;
            self.progress.read_on()?;
            let ours = |i: usize| self.progress.get(&claims[i].at).map(|state| state.next);
            let stands = asked.iter().copied().zip(stands);
            let differ: Vec<_> = stands
                .filter_map(|(i, stands)| Some((i, stands?)))
                .filter(|(i, stands)| ours(*i) != Some(*stands))
                .collect();
            if differ.is_empty() {
                return Ok(());
            }
            let Some(time) = waits.next() else {
                for (i, stands) in differ {
                    let error = mismatch(group.offsets.group(), &claims[i].at, stands, ours(i));
                    answers[i] = Some(Err(error));
                }
                return Ok(());
            };
            self.transactions.wait(time);
            asked = differ.into_iter().map(|(i, _)| i).collect();
        }
    }
}

/// The state was there once.
pub(super) fn missing(at: &TopicPartition, topic: &str) -> Error {
    let text = format!("E_STATE_MISSING: there is no position of {at} in topic {topic}, but there was one");
    Error::Permanent(Problem::new(text).hint("start over with a pipeline of another name"))
}

fn mismatch(group: &str, at: &TopicPartition, stands: Offset, ours: Option<Offset>) -> Error {
    let ours_text =
        ours.map_or_else(|| "there is no record".to_owned(), |ours| format!("the record says {ours}"));
    let text = format!("E_POSITION_MISMATCH: group {group} stands at {stands} in {at}, of which {ours_text}");
    let to = ours.map_or_else(
        || "--delete-offsets".to_owned(),
        |ours| format!("--reset-offsets --to-offset {ours} --execute"),
    );
    let hint = format!(
        "somebody else moved the group; move it back: `kafka-consumer-groups.sh --group {group} --topic {}:{} {to}`",
        at.topic, at.partition
    );
    Error::Permanent(Problem::new(text).hint(hint))
}
