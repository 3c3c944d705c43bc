//! A process that dies at every failpoint, or stands still there while another wants the partition.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::bounded;

use super::*;

/// What failpoints do is one table for all tests of this program.
static ALONE: Mutex<()> = Mutex::new(());

/// Where the write lock is not held.
const OUTSIDE: [&str; 2] = ["sqlite.claim.after_commit", "sqlite.after_commit"];

/// Offsets 0 to 4 in two commits, continuing wherever the sink stands; the row of offset 1 in target `a` is refused.
fn finish(process: &mut Process) {
    let next = process.claim().unwrap().next.get();
    for end in [2, 4] {
        if next < end {
            process.deliver(next.max(end - 2), end);
        }
    }
}

fn refusing() -> File {
    let file = File::new();
    file.run(
        "CREATE TABLE a (text TEXT, number INTEGER CHECK (number <> 1),
         weir_topic, weir_partition, weir_offset, weir_index, weir_plan)",
    );
    file
}

fn check(file: &File, when: &str) {
    let mut expected = delivered(0, 4);
    expected.retain(|(target, offset, ..)| target != "a" || *offset != 1);
    assert_eq!(file.visible(), expected, "{when}");
    assert_eq!(file.rejects(), ["1|CHECK constraint failed: number <> 1"], "{when}");
}

#[test]
fn rows_and_rejects_are_there_once_wherever_the_owner_dies() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for point in FAILPOINTS {
        let file = refusing();
        let me = thread::current().id();
        fail::cfg_callback(point, move || {
            if thread::current().id() == me {
                std::panic::resume_unwind(Box::new("dead"));
            }
        })
        .unwrap();
        let died = catch_unwind(AssertUnwindSafe(|| finish(&mut Process::new(&file, 1)))).is_err();
        fail::remove(point);
        assert!(died, "{point} was not hit");
        finish(&mut Process::new(&file, 2));
        check(&file, &format!("after a death at {point}"));
    }
}

#[test]
fn a_paused_owner_is_waited_for_or_fenced_and_changes_nothing_when_it_wakes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for point in FAILPOINTS {
        let file = refusing();
        let (paused, is_paused) = bounded(1);
        let (wake, woken) = bounded::<()>(1);
        thread::scope(|scope| {
            let zombie = scope.spawn(|| {
                let me = thread::current().id();
                let gate = Mutex::new(Some((paused, woken)));
                let pause = move || {
                    let first = (thread::current().id() == me).then(|| gate.lock().unwrap().take()).flatten();
                    if let Some((paused, woken)) = first {
                        paused.send(()).unwrap();
                        woken.recv().unwrap();
                    }
                };
                fail::cfg_callback(point, pause).unwrap();
                // It may be refused anywhere; what counts is what readers see.
                let refused = catch_unwind(AssertUnwindSafe(|| finish(&mut Process::new(&file, 1)))).is_err();
                fail::remove(point);
                tracing::debug!(point, refused, "the paused owner is through");
            });
            is_paused.recv().unwrap_or_else(|_| panic!("{point} was not hit"));
            match OUTSIDE.contains(&point) {
                true => {
                    finish(&mut Process::new(&file, 2));
                    check(&file, &format!("while paused at {point}"));
                }
                false => {
                    // The connection opens without a lock, but nobody writes besides the one who holds it.
                    let text = transient(SqliteSink::open(file.config()).unwrap_err());
                    assert!(text.contains("database is locked"), "{point}: {text}");
                }
            }
            wake.send(()).unwrap();
            zombie.join().unwrap();
        });
        finish(&mut Process::new(&file, 3));
        check(&file, &format!("after waking at {point}"));
    }
}
