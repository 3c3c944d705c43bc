//! A sink whose records come from Kafka: it moves its group, and is stopped by it.

use super::*;

/// A member that shows what it is given, and then what is true.
struct Late {
    stale: Mutex<Vec<ConsumerGroupMetadata>>,
    then: Member,
}

impl Membership for Late {
    fn metadata(&self, held: &[(TopicPartition, Epoch)]) -> Option<ConsumerGroupMetadata> {
        let stale = self.stale.lock().unwrap().pop();
        stale.or_else(|| self.then.metadata(held))
    }
}

#[test]
fn the_group_moves_with_the_rows_and_stands_where_a_claim_found_it_before_any() {
    let base = Base::in_a_group();
    let mut sink = base.sink();
    sink.claim(&Claim { start: Start::Init(Offset::new(40)), ..claim(1) }).unwrap();
    assert_eq!(base.stands(), Some(40));
    sink.write(batch(40, 43)).unwrap();
    assert_eq!(sink.commit(&at(), &commit(40, 43)).unwrap(), Committed::Done);
    assert_eq!(base.stands(), Some(43));
}

/// The source learns of a new generation a little later than the cluster.
#[test]
fn a_commit_under_a_generation_that_is_over_is_tried_again_under_the_next() {
    let base = Base::in_a_group();
    let mut sink = base.claimed(1);
    let members = base.members.as_ref().unwrap();
    let stale = members.join(Epoch::new(1)).into_iter().take(3).collect();
    let then = members.member();
    assert!(then.metadata(&[(at(), Epoch::new(1))]).is_some());
    sink.group.as_mut().unwrap().member = Arc::new(Late { stale: Mutex::new(stale), then });
    sink.write(batch(0, 3)).unwrap();
    assert_eq!(sink.commit(&at(), &commit(0, 3)).unwrap(), Committed::Done);
    assert_eq!((base.visible(), base.stands()), (delivered(0, 3), Some(3)));
}

/// Nobody has claimed the partition, so it is not somebody else's: it may pass.
#[test]
fn who_is_no_member_any_more_commits_nothing() {
    let base = Base::in_a_group();
    let mut sink = base.claimed(1);
    base.members.as_ref().unwrap().join(Epoch::new(2));
    sink.write(batch(0, 3)).unwrap();
    let text = transient(sink.commit(&at(), &commit(0, 3)).unwrap_err());
    assert!(text.contains("moving the group"), "{text}");
    assert_eq!((base.visible(), base.stands()), (Vec::new(), Some(0)));
}

/// The process died with its transaction open: the cluster gives it up after its time.
#[test]
fn a_claim_waits_for_the_transaction_that_a_predecessor_left_open() {
    let base = Base::in_a_group();
    base.hasty.store(true, Ordering::Relaxed);
    let mut dead = base.claimed(1);
    dead.write(batch(0, 5)).unwrap();
    let (owner, epoch) = (dead.owned[&at()].owner, dead.owned[&at()].epoch);
    let mut state = dead.progress.get(&at()).unwrap().clone();
    state.commit(epoch, owner, &commit(0, 5)).unwrap();
    dead.transactions.begin().unwrap();
    let group = dead.group.as_ref().unwrap();
    dead.transactions.send_offsets(&[(at(), epoch, Offset::new(5))], &*group.member).unwrap();
    let (key, value) = dead.progress.record(&state);
    let record = kafka::transactions::Outgoing {
        topic: &format!("weir.{}.progress", base.pipeline),
        key: Some(key.as_bytes()),
        value: Some(&value),
        timestamp_ms: -1,
    };
    dead.transactions.send(0, &record, std::iter::empty()).unwrap();
    dead.transactions.settle().unwrap();
    let mut owner = Process::new(&base, 2);
    assert_eq!(owner.claim().unwrap().next, Offset::ZERO);
    owner.deliver(0, 2);
    assert_eq!((base.visible(), base.stands()), (delivered(0, 2), Some(2)));
}

fn move_group(base: &Base, to: i64) {
    drop(base.members.as_ref().unwrap().present.lock().unwrap().1.take());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", format!("weir.{}", base.pipeline))
        .create()
        .unwrap();
    let mut offsets = rdkafka::TopicPartitionList::new();
    offsets.add_partition_offset(INPUT, 0, rdkafka::Offset::Offset(to)).unwrap();
    consumer.commit(&offsets, rdkafka::consumer::CommitMode::Sync).unwrap();
}

#[test]
fn a_group_that_somebody_else_moved_stops_the_partition() {
    let base = Base::in_a_group();
    Process::claimed(&base, 1).deliver(0, 3);
    move_group(&base, 1);
    let text = permanent(Process::new(&base, 2).claim().unwrap_err());
    let expected = format!(
        "E_POSITION_MISMATCH: group weir.{} stands at 1 in customers/0, of which the record says 3",
        base.pipeline
    );
    assert!(text.starts_with(&expected), "{text}");
    move_group(&base, 3);
    Process::claimed(&base, 3).deliver(3, 4);
}

/// Such as one whose offsets expired while nobody was a member.
#[test]
fn a_group_without_an_offset_takes_that_of_the_record() {
    let base = Base::in_a_group();
    let mut first = base.sink();
    // The record alone, as if the group had been forgotten since.
    let group = first.group.take();
    first.id = format!("weir.{}.x", base.pipeline);
    first.claim(&claim(1)).unwrap();
    first.write(batch(0, 3)).unwrap();
    first.commit(&at(), &commit(0, 3)).unwrap();
    drop(group);
    assert_eq!(base.stands(), None);
    Process::claimed(&base, 2).deliver(3, 4);
    assert_eq!(base.stands(), Some(4));
}

/// It was asked under the epoch in which it lost the partition, and may be a member again by now.
#[test]
fn who_lost_a_partition_and_is_a_member_again_does_not_move_it() {
    let base = Base::in_a_group();
    let mut first = base.claimed(1);
    first.write(batch(0, 3)).unwrap();
    Process::claimed(&base, 2).deliver(0, 2);
    let refused = conflict(first.commit(&at(), &commit(0, 3)).unwrap_err());
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    assert_eq!((base.visible(), base.stands()), (delivered(0, 2), Some(2)));
}
