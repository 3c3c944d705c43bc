//! What a claim is held against: the state that the progress topic has, and where the group stands. It changes nothing.

use std::time::Duration;

use super::{KafkaSink, of_cluster};
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::{Claim, Refused, SinkState, Start};
use crate::sink::{Error, Problem};

/// How long to wait until a group and its record may agree: the markers of one transaction land one after the other.
const UNTIL_LANDED_MS: [u64; 3] = [50, 500, 2_000];

impl KafkaSink {
    /// The state of a claim's partition, once it is the claim's.
    pub(super) fn claimed(&self, claim: &Claim) -> Result<SinkState, Error> {
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

    /// Whether the group stands where the sink does; both were moved by the same transactions.
    pub(super) fn agrees_with_group(&mut self, at: &TopicPartition) -> Result<(), Error> {
        let Some(group) = &self.group else { return Ok(()) };
        let mut waits = UNTIL_LANDED_MS.into_iter().map(Duration::from_millis);
        loop {
            let stands = group.offsets.committed(at).map_err(of_cluster)?;
            self.progress.read_on()?;
            let ours = self.progress.get(at).map(|state| state.next);
            match (ours, stands) {
                (Some(_) | None, None) => return Ok(()),
                (Some(ours), Some(stands)) if ours == stands => return Ok(()),
                (ours, Some(stands)) => match waits.next() {
                    Some(time) => self.transactions.wait(time),
                    None => return Err(mismatch(group.offsets.group(), at, stands, ours)),
                },
            }
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
