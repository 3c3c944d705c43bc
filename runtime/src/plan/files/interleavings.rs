//! Three writers of one plan log, on files and in memory alike.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use super::*;
use crate::plan::memory::MemoryLog;
use crate::plan::{Entry, History};
use crate::seeds::{self, Random};

const WRITERS: usize = 3;

/// An entry that tells who wrote it, and as his which.
fn entry(writer: usize, n: u64) -> Entry {
    Entry::Start { generation: n, owner: Nonce::from_u128(writer as u128), runtime: String::new() }
}

fn told(entry: &Entry) -> (Nonce, u64) {
    match entry {
        Entry::Start { generation, owner, .. } => (*owner, *generation),
        other => panic!("nobody wrote {other:?}"),
    }
}

/// Writers put at the place they believe to be free, read from any place on, or begin again knowing nothing, in the
/// order that the seed says.
fn interleave(seed: u64, mut writers: Vec<Box<dyn PlanLog>>) -> Result<u64, String> {
    let mut random = Random::new(seed);
    let mut log: Vec<Entry> = Vec::new();
    let mut next = [0; WRITERS];
    let mut lost = 0;
    for n in 0..30 {
        let who = random.below(WRITERS);
        match random.below(10) {
            0..6 => {
                let free = next[who] == log.len() as u64;
                let won = writers[who].put(next[who], &entry(who, n)).map_err(|e| e.to_string())?;
                if won != free {
                    return Err(format!("{who} put at {} of {}, and won: {won}", next[who], log.len()));
                }
                match won {
                    true => log.push(entry(who, n)),
                    false => lost += 1,
                }
                next[who] += u64::from(won);
            }
            6 => next[who] = 0,
            _ => {
                let from = random.below(log.len() + 2) as u64;
                let read = writers[who].read(from).map_err(|e| e.to_string())?;
                let expected: Vec<_> = (0..).zip(log.iter().cloned()).skip(from as usize).collect();
                if read != expected {
                    return Err(format!("{who} read {read:?} instead of {expected:?}"));
                }
                next[who] = log.len() as u64;
            }
        }
    }
    Ok(lost)
}

fn in_memory() -> Vec<Box<dyn PlanLog>> {
    let log = MemoryLog::default();
    (0..WRITERS).map(|_| Box::new(log.clone()) as _).collect()
}

fn on_disk(dir: &Path) -> Vec<Box<dyn PlanLog>> {
    (0..WRITERS).map(|_| Box::new(FileLog::open(dir).unwrap()) as _).collect()
}

#[test]
fn the_first_to_write_at_a_place_wins_in_every_order_of_three_writers() {
    let (lost, many) = seeds::try_each(2_000, |seed| interleave(seed, in_memory()));
    assert!(!many || lost.iter().sum::<u64>() > 1_000, "nobody loses any more");
    let on_disk = |seed| interleave(seed, on_disk(tempfile::tempdir().map_err(|e| e.to_string())?.path()));
    let (lost, many) = seeds::try_each(50, on_disk);
    assert!(!many || lost.iter().sum::<u64>() > 50, "nobody loses any more");
}

/// Each appends all of its entries at its own pace, while the others do the same.
fn race(writers: Vec<Box<dyn PlanLog>>, mut reader: Box<dyn PlanLog>) {
    const EACH: u64 = 20;
    thread::scope(|scope| {
        for (who, mut log) in writers.into_iter().enumerate() {
            scope.spawn(move || {
                let mut history = History::default();
                for n in 0..EACH {
                    let at = history.append(&mut *log, |_| Some(entry(who, n))).unwrap();
                    let read = log.read(at.unwrap()).unwrap();
                    assert_eq!(told(&read[0].1), told(&entry(who, n)));
                }
            });
        }
    });
    let mut by_writer: BTreeMap<Nonce, Vec<u64>> = BTreeMap::new();
    for (who, n) in reader.read(0).unwrap().iter().map(|(_, entry)| told(entry)) {
        by_writer.entry(who).or_default().push(n);
    }
    assert_eq!(by_writer.len(), WRITERS);
    assert!(by_writer.values().all(|entries| entries.iter().copied().eq(0..EACH)), "{by_writer:?}");
}

#[test]
fn writers_at_the_same_time_lose_no_entry_and_find_theirs_where_they_were_told() {
    let log = MemoryLog::default();
    race((0..WRITERS).map(|_| Box::new(log.clone()) as _).collect(), Box::new(log.clone()));
    let dir = tempfile::tempdir().unwrap();
    race(on_disk(dir.path()), on_disk(dir.path()).remove(0));
}
