//! The protocol of the commit log, with the code of this sink: three processes claim, write, commit, roll forward and
//! compact one partition, request by request in an order that a seed decides, while they die, stand still, lose answers
//! and are overtaken. The models that the protocol was designed with, done to the code itself.
//!
//! More seeds, or one of them again: [`crate::seeds`].

mod disk;
mod truth;

use std::panic::{AssertUnwindSafe, catch_unwind};

use disk::{Dead, Disk, PROCESSES, Seat, Shared};

use super::*;
use crate::seeds::{self, Random};
use crate::sink::state::{Epoch, Nonce, Start};

/// How often a process that died or gave up is followed by another.
const LIVES: usize = 2;

/// The proof that what the test is about happened.
#[derive(Debug, Default)]
struct Trouble {
    commits: u64,
    deaths: u64,
    fenced: u64,
    unknown_resolved: u64,
    rolled_forward: u64,
    cleaned: u64,
    snapshots: u64,
    /// Records put where everything was covered, and how many of those were found out by who put them.
    too_late: u64,
    overtaken: u64,
}

impl Trouble {
    fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.deaths += other.deaths;
        self.fenced += other.fenced;
        self.unknown_resolved += other.unknown_resolved;
        self.rolled_forward += other.rolled_forward;
        self.cleaned += other.cleaned;
        self.snapshots += other.snapshots;
        self.too_late += other.too_late;
        self.overtaken += other.overtaken;
    }

    fn tell(&mut self, tally: &Tally) {
        self.fenced += tally.fenced.get();
        self.unknown_resolved += tally.unknown_resolved.get();
        self.rolled_forward += tally.rolled_forward.get();
        self.cleaned += tally.cleaned.get();
        self.snapshots += tally.snapshots.get();
        self.overtaken += tally.overtaken.get();
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "tells what the seeds came upon")]
fn rows_are_visible_once_in_every_order_of_requests() {
    let (runs, many) = seeds::try_each(2_500, |seed| run(seed, false));
    let mut trouble = Trouble::default();
    runs.iter().for_each(|run| trouble.add(run));
    println!("{trouble:?}");
    let Trouble { fenced, unknown_resolved, rolled_forward, cleaned, too_late, overtaken, .. } = trouble;
    let rare = [fenced, unknown_resolved, rolled_forward, cleaned, too_late, overtaken];
    assert!(!many || rare.iter().all(|n| *n >= 100), "the seeds no longer get into trouble: {trouble:?}");
}

/// The test above would find it out if nobody looked for a snapshot after a put.
#[test]
fn without_the_look_at_the_snapshots_after_a_put_rows_would_be_visible_twice() {
    let found = (0..1_000).find(|seed| run(*seed, true).is_err()).expect("a seed shows it");
    assert!(run(found, false).is_ok(), "seed {found}");
}

/// Everything that one seed leads to, until all processes are through and another one has claimed in peace.
fn run(seed: u64, blind: bool) -> Result<Trouble, String> {
    let disk = Arc::new(Disk::new(Random::new(seed)));
    let trouble = std::thread::scope(|scope| {
        let processes: Vec<_> = (0..PROCESSES)
            .map(|me| {
                let seat = Seat::new(&disk, me, blind);
                scope.spawn(move || live(&seat))
            })
            .collect();
        let mut all = Trouble::default();
        processes.into_iter().for_each(|process| all.add(&process.join().expect("panics are caught")));
        all
    });
    let found = disk.lock().violation.clone();
    found.map_or(Ok(()), Err)?;
    check_end(&disk)?;
    Ok(Trouble { too_late: disk.lock().truth.too_late, ..trouble })
}

/// The lives of one process after the other.
fn live(seat: &Seat) -> Trouble {
    let mut trouble = Trouble::default();
    for _ in 0..LIVES {
        let tally = Arc::new(Tally::default());
        let died = catch_unwind(AssertUnwindSafe(|| Process::start(seat, tally.clone()).run()));
        trouble.tell(&tally);
        match died {
            Ok(commits) => trouble.commits += commits,
            Err(cause) if cause.is::<Dead>() => trouble.deaths += 1,
            Err(_) => {
                let violation = Err("a process panicked".to_owned());
                seat.disk.lock().hold(violation);
            }
        }
    }
    seat.leave();
    trouble
}

/// One process, from its start to its end.
struct Process<'a> {
    seat: &'a Seat,
    sink: FilesSink,
    claim: Claim,
}

impl<'a> Process<'a> {
    fn start(seat: &'a Seat, tally: Arc<Tally>) -> Self {
        let (owner, compact_after) = seat.step(|shared| {
            (Nonce::from_u128(u128::from(shared.random.next()) << 64), 1 + shared.random.below(3))
        });
        let config = FilesConfig {
            format: Format::JsonLines,
            compact_after: compact_after as u64,
            ..FilesConfig::new("", "p", "lake")
        };
        let context =
            Context { config, storage: Arc::new(seat.clone()), tally, without_siblings: Mutex::default() };
        let sink = FilesSink { context: Arc::new(context), owned: BTreeMap::new() };
        let claim = Claim { owner, start: Start::Init(Offset::ZERO), ..conformance::claim(0) };
        Self { seat, sink, claim }
    }

    fn chance(&self, percent: u64) -> bool {
        self.seat.step(|shared| shared.random.chance(percent))
    }

    fn hold(&self, check: impl FnOnce(&mut Shared) -> Result<(), String>) {
        self.seat.step(|shared| {
            let held = check(shared);
            shared.hold(held);
        });
    }

    /// Nothing that happens here is a reason to stop for good.
    fn refuse_permanent<T>(&self, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(Error::Permanent(problem)) => {
                self.hold(|_| Err(problem.to_string()));
                None
            }
            Err(Error::Transient(_) | Error::Conflict(_)) => None,
        }
    }

    /// Claims and commits some times; says how many commits were answered.
    fn run(mut self) -> u64 {
        let mut commits = 0;
        let mut begins = true;
        while begins || self.chance(45) {
            if begins || self.chance(50) {
                self.claim.epoch = self.seat.step(|shared| shared.next_epoch());
            }
            begins = false;
            let answer = self.sink.claim(&self.claim);
            let Some(state) = self.refuse_permanent(answer) else { continue };
            self.hold(|shared| shared.truth.stands(&state));
            let mut next = state.next.get();
            while self.chance(65) {
                let Some(end) = self.deliver(next) else { break };
                (next, commits) = (end, commits + 1);
            }
            if self.chance(50) {
                self.sink.release(&at());
            }
        }
        commits
    }

    /// One commit from `start` on; says where it ends once it is known to have happened.
    fn deliver(&mut self, start: i64) -> Option<i64> {
        let (id, length, rows) = self.seat.step(|shared| {
            (shared.random.next(), 1 + shared.random.below(2) as i64, shared.random.chance(80))
        });
        let end = start + length;
        let parts = if rows { vec![part("a", (start..end).collect(), 0)] } else { Vec::new() };
        let commit = Commit { id: Nonce::from_u128(u128::from(id) << 64), ..conformance::commit(start, end) };
        let (range, plan, counters) = (commit.range, commit.plan.clone(), commit.counters.clone());
        let answer =
            self.sink.write(RoutedBatch { at: at(), range, plan, counters, last: None, told: 0, parts });
        self.refuse_permanent(answer)?;
        for _ in 0..3 {
            self.seat.step(|shared| shared.truth.try_again(commit.id));
            let answer = self.sink.commit(&at(), &commit);
            let happened = match self.refuse_permanent(answer)? {
                Committed::Done => Resolved::Committed,
                Committed::Unknown(_) => {
                    let answer = self.sink.resolve(&at(), &commit);
                    self.refuse_permanent(answer)?
                }
            };
            match happened {
                Resolved::Committed => {
                    self.hold(|shared| match shared.truth.has(commit.id) {
                        true => Ok(()),
                        false => Err(format!("{} counts as committed, and is in no log", commit.id)),
                    });
                    return Some(end);
                }
                Resolved::NotCommitted => self.hold(|shared| shared.truth.rule_out(commit.id)),
            }
        }
        None
    }
}

/// Whoever claims when all others are gone finds the truth and leaves nothing unfinished.
fn check_end(disk: &Arc<Disk>) -> Result<(), String> {
    drop(disk.calm_down());
    let seat = Seat::new(disk, 0, false);
    let mut last = Process::start(&seat, Arc::default());
    last.claim.epoch = disk.lock().next_epoch();
    let state = last.sink.claim(&last.claim).map_err(|e| format!("the last claim: {e}"))?;
    let shared = disk.lock();
    if shared.truth.newest() != Some(&state) {
        return Err(format!("the last claim was told {state:?}, not {:?}", shared.truth.newest()));
    }
    shared.truth.all_visible(shared.files())?;
    let own = format!("/staging/{}-", last.claim.epoch);
    if let Some(path) = shared.files().paths().find(|p| p.contains("/staging/") && !p.contains(&own)) {
        return Err(format!("{path} stays behind"));
    }
    shared.violation.clone().map_or(Ok(()), Err)
}

impl Shared {
    fn next_epoch(&mut self) -> Epoch {
        self.generation += 1;
        Epoch::new(self.generation)
    }
}
