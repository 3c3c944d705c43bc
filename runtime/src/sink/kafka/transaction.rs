//! One transaction: rows, what is refused of them, where the sink then stands, and where the group does. It decides
//! nothing about what to do when it fails.

use crate::kafka::transactions::{Ended, Outgoing, Transactions, Undone, wire_bytes};
use crate::offset::TopicPartition;
use crate::sink::state::SinkState;

use super::progress::Progress;
use super::staging::{Staged, Staging};
use super::topics::{REJECTS, Topics};
use super::{Group, reject};

/// What the record of a position is called; rows have their number over all partitions.
const NO_ROW: usize = usize::MAX;

/// What a transaction is for, in one partition.
pub(super) struct Work<'a> {
    pub(super) at: &'a TopicPartition,
    /// Where the sink stands afterwards.
    pub(super) state: &'a SinkState,
    /// Absent in a claim.
    pub(super) staging: Option<&'a Staging>,
}

/// What it takes.
pub(super) struct With<'a> {
    pub(super) sink: &'a str,
    pub(super) topics: &'a Topics,
    pub(super) progress: &'a Progress,
    pub(super) group: Option<&'a Group>,
}

/// Runs it. Returns how it ended, and how many rows of each partition were among what is refused.
pub(super) fn run(transactions: &mut Transactions, with: &With<'_>, work: &[Work<'_>]) -> (Ended, Vec<u64>) {
    let mut rejected = Vec::with_capacity(work.len());
    match send(transactions, with, work, &mut rejected) {
        Ok(()) => {
            fail::fail_point!("kafka.before_commit");
            (transactions.commit(), rejected)
        }
        Err(undone) => (Ended::Undone(undone), rejected),
    }
}

fn send(
    transactions: &mut Transactions,
    with: &With<'_>,
    work: &[Work<'_>],
    rejected: &mut Vec<u64>,
) -> Result<(), Undone> {
    fail::fail_point!("kafka.before_begin");
    transactions.begin()?;
    fail::fail_point!("kafka.after_begin");
    let mut first = 0;
    for Work { at, staging, .. } in work {
        let Some(staging) = staging else { continue };
        rejected.push(send_rows(transactions, with, at, staging, first)?);
        first += staging.n_rows() as usize;
    }
    fail::fail_point!("kafka.after_rows");
    for Work { state, .. } in work {
        let (key, value) = with.progress.record(state);
        let (key, value, topic) = (Some(key.as_bytes()), Some(&*value), with.progress.topic());
        let record = Outgoing { topic, key, value, timestamp_ms: -1 };
        transactions.send(NO_ROW, &record, std::iter::empty())?;
    }
    fail::fail_point!("kafka.after_progress");
    if let Some(group) = with.group {
        let offsets: Vec<_> =
            work.iter().map(|Work { at, state, .. }| ((*at).clone(), state.epoch, state.next)).collect();
        transactions.send_offsets(&offsets, &*group.member)?;
    }
    fail::fail_point!("kafka.after_offsets");
    transactions.settle()
}

/// Sends the rows of a partition in their order; how many of them are refused.
fn send_rows(
    transactions: &mut Transactions,
    with: &With<'_>,
    at: &TopicPartition,
    staging: &Staging,
    first: usize,
) -> Result<u64, Undone> {
    let (mut refused, mut apart, mut n) = (0, false, 0);
    let mut origin = String::new();
    for row in staging.rows() {
        n += 1;
        if row.is_suspect() != apart || apart && n > staging.suspects_at_once() {
            transactions.settle()?;
            (apart, n) = (row.is_suspect(), 1);
        }
        refused += u64::from(!send_row(transactions, with, at, first + row.place, row, &mut origin)?);
    }
    if apart {
        transactions.settle()?;
    }
    Ok(refused)
}

/// Sends a row to its topic, or, if that would refuse it, to those that are refused; whether it was the former.
fn send_row(
    transactions: &mut Transactions,
    with: &With<'_>,
    at: &TopicPartition,
    tag: usize,
    row: Staged<'_>,
    text: &mut String,
) -> Result<bool, Undone> {
    let topic = with.topics.get(row.origin().topic);
    let provenance = row.provenance(at, text);
    let ours = row.origin().provenance.then(|| provenance.headers());
    let headers = row.headers().chain(ours.into_iter().flatten());
    let too_large = || {
        let bytes = wire_bytes(row.key(), row.value(), headers.clone());
        (bytes > topic.most_bytes)
            .then(|| format!("it takes {bytes} bytes, and topic {} takes {}", topic.name, topic.most_bytes))
    };
    let Some(reason) = row.refused().map(str::to_owned).or_else(too_large) else {
        let (key, value, timestamp_ms) = (row.key(), row.value(), row.timestamp_ms());
        let record = Outgoing { topic: &topic.name, key, value, timestamp_ms };
        transactions.send(tag, &record, headers)?;
        return Ok(true);
    };
    let rejects = with.topics.get(REJECTS);
    let letter = reject::letter(with.sink, &row, &provenance, &reason, rejects.most_bytes);
    // Not under its own time: that may be what is refused.
    let record = Outgoing { topic: &rejects.name, key: letter.key, value: letter.value, timestamp_ms: -1 };
    transactions.send(NO_ROW, &record, provenance.headers().chain(letter.headers()))?;
    Ok(false)
}
