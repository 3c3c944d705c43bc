//! A member of a group, at a cluster that the client library plays.

use std::thread;
use std::time::Instant;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey;

use super::*;

const TOPIC: &str = "customers";

/// A cluster of its own, and a member of its group that has both partitions of the topic.
fn alone() -> (MockCluster<'static, DefaultProducerContext>, Cluster, Member, Vec<TopicPartition>) {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(TOPIC, 2, 1).unwrap();
    let soon = [("session.timeout.ms", "4000"), ("heartbeat.interval.ms", "100")];
    let soon = soon.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let cluster = Cluster::new(mock.bootstrap_servers(), soon.into()).unwrap();
    let mut member = join(&cluster);
    let ours = told(&mut member, assigned);
    assert_eq!(ours.len(), 2);
    (mock, cluster, member, ours)
}

fn join(cluster: &Cluster) -> Member {
    let mut member = Member::new(cluster, "group").unwrap();
    member.join(&[TOPIC], None).unwrap();
    member
}

fn assigned(told: &Told) -> Option<Vec<TopicPartition>> {
    match told {
        Told::Assigned { partitions, .. } if !partitions.is_empty() => Some(partitions.clone()),
        _ => None,
    }
}

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// What `look` finds, once it finds something.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a bound, far behind what is expected")]
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "nothing of the kind came");
    }
}

/// What the group says next that is `wanted`.
fn told<T>(member: &mut Member, wanted: impl Fn(&Told) -> Option<T>) -> T {
    until(|| {
        let told = member.told();
        if told.is_none() {
            member.wait(PATIENCE);
        }
        told.as_ref().and_then(&wanted)
    })
}

/// A client that begins a partition forgets that it lost all of them, and would have whoever is asked to let go of them finish
/// what it has begun.
#[test]
fn a_member_whose_session_is_over_is_told_that_it_lost_its_partitions_also_if_one_was_begun_since() {
    let (mock, _, mut member, ours) = alone();
    mock.request_errors(RDKafkaApiKey::Heartbeat, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
    // Nobody listens to the group meanwhile, as where a broker is asked for something else.
    until(|| {
        thread::yield_now();
        member.consumer.assignment_lost().then_some(())
    });
    assert!(member.start(&[(ours[0].clone(), Offset::ZERO)]).is_empty());
    assert!(!member.consumer.assignment_lost(), "the client remembers it by itself now");
    let lost = told(&mut member, |told| match told {
        Told::Lost(lost) => Some(lost.clone()),
        Told::Revoked(_) => panic!("they are to be given away, and are gone"),
        Told::Assigned { .. } | Told::Trouble(_) => None,
    });
    assert_eq!(lost, ours);
    // And it is a member again, by another name.
    assert_eq!(told(&mut member, assigned), ours);
    assert!(member.start(&[(ours[0].clone(), Offset::ZERO), (ours[1].clone(), Offset::ZERO)]).is_empty());
}

#[test]
fn a_member_that_goes_with_what_it_was_to_give_back_leaves_it_to_others() {
    let (_mock, cluster, mut member, ours) = alone();
    assert!(member.start(&[(ours[0].clone(), Offset::ZERO), (ours[1].clone(), Offset::ZERO)]).is_empty());
    member.leave();
    let revoked = told(&mut member, |told| match told {
        Told::Revoked(revoked) => Some(revoked.clone()),
        _ => None,
    });
    assert_eq!(revoked, ours);
    let gone = thread::spawn(move || drop(member));
    until(|| {
        thread::yield_now();
        gone.is_finished().then_some(())
    });
    assert_eq!(told(&mut join(&cluster), assigned), ours);
}

/// Others may have had what it keeps, and have brought it further: it has to begin anew. This cluster gives out names as brokers
/// did before 2.2: of those since, the client says that all was lost.
#[test]
fn a_member_whose_session_is_over_while_it_gives_something_back_is_given_anew_what_it_keeps() {
    let (mock, cluster, mut member, ours) = alone();
    assert!(member.start(&[(ours[0].clone(), Offset::ZERO), (ours[1].clone(), Offset::ZERO)]).is_empty());
    let other = join(&cluster);
    let epoch = |generation| Epoch { incarnation: 0, generation };
    let revoked = told(&mut member, |told| match told {
        Told::Revoked(revoked) => Some(revoked.clone()),
        _ => None,
    });
    drop(other);
    let [given, kept] = [true, false].map(|is_given| {
        ours.iter().find(|at| revoked.contains(at) == is_given).expect("each has one in the end").clone()
    });
    let membership = member.membership();
    let held = [(kept.clone(), epoch(member.consumer.context().ours().partitions[&kept]))];
    assert!(membership.metadata(&held).is_some());

    mock.request_errors(RDKafkaApiKey::Heartbeat, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
    until(|| {
        thread::yield_now();
        membership.metadata(&held).is_none().then_some(())
    });
    member.let_go(&given);
    let lost = told(&mut member, |told| match told {
        Told::Lost(lost) => Some(lost.clone()),
        _ => None,
    });
    assert_eq!(lost, std::slice::from_ref(&kept));
    let (generation, all) = told(&mut member, |told| match told {
        Told::Assigned { generation, partitions } => Some((*generation, partitions.clone())),
        _ => None,
    });
    assert_eq!(BTreeSet::from_iter(all), BTreeSet::from_iter(ours));
    assert!(generation > held[0].1.generation);
    assert!(membership.metadata(&held).is_none(), "what was begun before is given up");
    assert!(member.start(&[(kept.clone(), Offset::ZERO)]).is_empty());
    assert!(membership.metadata(&[(kept, epoch(generation))]).is_some());
}
