//! Random interleavings of several processes, done to files and to the sink in memory alike: both must answer the
//! same and show the same rows.

use proptest::prelude::*;

use super::*;
use crate::sink::memory::MemoryStore;
use crate::sink::state::{Epoch, Nonce, SinkState};

const PROCESSES: usize = 3;

/// One step of one process.
#[derive(Clone, Debug)]
enum Op {
    Claim(usize, u64),
    Write(usize, i64),
    Commit(usize),
    Release(usize),
    /// It dies, and another starts in its place.
    Die(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let process = || 0..PROCESSES;
    prop_oneof![
        2 => (process(), 1..8u64).prop_map(|(i, generation)| Op::Claim(i, generation)),
        4 => (process(), 1..4i64).prop_map(|(i, length)| Op::Write(i, length)),
        4 => process().prop_map(Op::Commit),
        1 => process().prop_map(Op::Release),
        1 => process().prop_map(Op::Die),
    ]
}

/// One process in both worlds, and the range it has written since its last commit.
struct Twins {
    files: Owner,
    memory: Owner,
    next: i64,
    written: i64,
}

/// What an answer means to the caller, without its text.
fn kind<T>(answer: &Result<T, Error>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(Error::Transient(_)) => "transient",
        Err(Error::Conflict(_)) => "conflict",
        Err(Error::Permanent(_)) => "permanent",
    }
}

impl Twins {
    fn start(files: &Place, memory: &MemoryStore) -> Self {
        let (files, mut memory) = (Owner::new(files, 0), Owner::new(memory, 0));
        memory.claim = files.claim.clone();
        Self { files, memory, next: 0, written: 0 }
    }

    fn claim(&mut self, generation: u64) {
        for owner in [&mut self.files, &mut self.memory] {
            owner.claim.epoch = Epoch::new(generation);
        }
        let (files, memory) = (self.files.claim(), self.memory.claim());
        assert_eq!(kind(&files), kind(&memory), "{files:?}");
        match (files, memory) {
            (Ok(files), Ok(memory)) => self.stand(&files, &memory),
            _ => self.release(),
        }
    }

    fn stand(&mut self, files: &SinkState, memory: &SinkState) {
        assert_eq!(files, memory);
        (self.next, self.written) = (files.next.get(), files.next.get());
    }

    fn write(&mut self, length: i64) {
        let (start, end) = (self.written, self.written + length);
        let (files, memory) = (self.files.write(start, end), self.memory.write(start, end));
        assert_eq!(kind(&files), kind(&memory), "{files:?}");
        if let (Ok(files), Ok(memory)) = (files, memory) {
            assert_eq!(files.rows, memory.rows);
            self.written = end;
        }
    }

    fn commit(&mut self, id: u128) {
        let commit = conformance::commit(self.next, self.written.max(self.next + 1));
        let commit = Commit { id: Nonce::from_u128(id << 96), ..commit };
        let files = self.files.sink.commit(&at(), &commit);
        let memory = self.memory.sink.commit(&at(), &commit);
        assert_eq!(kind(&files), kind(&memory), "{files:?}");
        match files {
            Ok(_) => (self.next, self.written) = (commit.range.end.get(), commit.range.end.get()),
            Err(_) => self.release(),
        }
    }

    fn release(&mut self) {
        self.files.sink.release(&at());
        self.memory.sink.release(&at());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn files_answer_and_show_what_the_sink_in_memory_does(
        ops in prop::collection::vec(op(), 1..40),
        compact_after in 1..6u64,
    ) {
        let (directory, store) = (Place::compacting(On::Disk, compact_after), MemoryStore::default());
        let mut processes: Vec<_> = (0..PROCESSES).map(|_| Twins::start(&directory, &store)).collect();
        for (id, op) in ops.into_iter().enumerate() {
            match op {
                Op::Claim(i, generation) => processes[i].claim(generation),
                Op::Write(i, length) => processes[i].write(length),
                Op::Commit(i) => processes[i].commit(id as u128),
                Op::Release(i) => processes[i].release(),
                Op::Die(i) => processes[i] = Twins::start(&directory, &store),
            }
            assert_eq!(directory.visible(), store.visible());
        }
    }
}
