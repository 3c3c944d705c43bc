//! Looking at some records of a partition by their offsets, as far as they are still there: in no group, without a trace.

use std::collections::BTreeSet;

use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use super::peek::{From, Reader, Seen, seen};
use super::{Cluster, Error, PATIENCE};
use crate::offset::Offset;

/// So many records are read on through; behind more the client is told another place.
const NEAR: u64 = 1_000;

/// Hands the records of a partition at `offsets` to `each`, in their order, until that says `false`. What a topic has forgotten,
/// was compacted away or was never committed is passed over.
///
/// # Errors
/// As of [`super::peek::peek`].
pub fn pick(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    offsets: &BTreeSet<Offset>,
    each: &mut dyn FnMut(Seen) -> bool,
) -> Result<(), Error> {
    let reader = Reader::new(cluster, topic)?;
    let mut wanted = offsets.iter().copied().peekable();
    'places: while let Some(next) = wanted.peek() {
        let ends = reader.begin(Some(partition), From::At(*next))?;
        // Nothing is there from it on.
        let Some(end) = ends.get(&partition) else { return Ok(()) };
        loop {
            let Some(polled) = reader.consumer.poll(PATIENCE) else { return Err(reader.silence()) };
            let at = match polled {
                Ok(message) => {
                    let at = Offset::new(message.offset());
                    while wanted.next_if(|offset| *offset < at).is_some() {}
                    if at < *end && wanted.next_if_eq(&at).is_some() && !each(seen(&message)) {
                        return Ok(());
                    }
                    at
                }
                Err(KafkaError::PartitionEOF(_)) => return Ok(()),
                Err(error) => return Err(reader.cluster.failed(reader.what(), &error)),
            };
            match wanted.peek() {
                Some(next) if at.next() >= *end || *next >= *end => return Ok(()),
                Some(next) if next.since(at) > NEAR => continue 'places,
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
    Ok(())
}
