//! A consumer group as whoever commits for it sees it: which member this process is, and how far the group is. It joins
//! no group and moves no offset; that is done inside of transactions.

use std::fmt::Debug;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::RDKafkaErrorCode;

use super::lone::LoneConsumer;
use super::{Cluster, Error};
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::Epoch;

/// How long the offset of a partition may be in the hands of a transaction whose process died: its own time, 10 s, and
/// as long again until a broker looks.
const PENDING: std::time::Duration = std::time::Duration::from_secs(40);

/// What this process is in its consumer group, as the source that reads as a member knows it.
pub trait Membership: Send + Sync {
    /// The member and its generation as they are now, if each of these partitions is still this member's, as it was
    /// given to it under that epoch, and has not been revoked or lost since. Asked for each transaction: a partition that
    /// stays with a member is committed under later generations than that in which it came.
    ///
    /// A broker asks who commits, and not whose the partition is; so who has come back to the group after it lost one
    /// could still move it. The answer therefore has to be given under the lock under which partitions are given up: a
    /// revocation is answered after the partition is gone from what is looked at here. Then nothing more is needed, since
    /// a generation in which somebody else has the partition begins only after that, and brokers refuse the one before.
    /// Whoever holds that lock must not wait for a sink: the sink may be waiting here.
    ///
    /// It must not be the metadata of a consumer that has not joined, either: a broker believes those of anybody.
    fn metadata(&self, held: &[(TopicPartition, Epoch)]) -> Option<ConsumerGroupMetadata>;
}

/// Asks how far a group is.
pub struct GroupOffsets {
    cluster: Cluster,
    group: String,
    asker: LoneConsumer,
}

impl Debug for GroupOffsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupOffsets").field("group", &self.group).finish_non_exhaustive()
    }
}

impl GroupOffsets {
    /// For `group`, which need not be there.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn new(cluster: &Cluster, group: &str) -> Result<Self, Error> {
        // Makes the client wait for an offset that a transaction may still move.
        let asker = cluster.lone_consumer(group, &[("isolation.level", "read_committed")])?;
        Ok(Self { cluster: cluster.clone(), group: group.to_owned(), asker })
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Where the group goes on in each of these partitions, once no transaction is open that moves it; `None` if it has
    /// never been there.
    ///
    /// # Errors
    /// [`Error::Unreachable`], also where a transaction stays open; [`Error::Refused`].
    pub fn committed(&self, ats: &[&TopicPartition]) -> Result<Vec<Option<Offset>>, Error> {
        let what = |at: &TopicPartition| format!("asking where group {} is in {at}", self.group);
        let mut asked = TopicPartitionList::with_capacity(ats.len());
        for at in ats {
            asked.add_partition(&at.topic, at.partition);
        }
        let Some(first) = ats.first() else { return Ok(Vec::new()) };
        let found = self.asker.committed_offsets(asked, PENDING);
        let found = found.map_err(|error| self.cluster.failed(what(first), &error))?;
        let stands = |at: &&TopicPartition| {
            let Some(found) = found.find_partition(&at.topic, at.partition) else { return Ok(None) };
            found.error().map_err(|error| self.cluster.failed(what(at), &error))?;
            Ok(match found.offset() {
                rdkafka::Offset::Offset(next) => Some(Offset::new(next)),
                _ => None,
            })
        };
        ats.iter().map(stands).collect()
    }
}

/// Whether an error says that the member has to join again.
pub(super) fn is_stale(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::IllegalGeneration | Code::UnknownMemberId | Code::RebalanceInProgress | Code::FencedInstanceId
    )
}
