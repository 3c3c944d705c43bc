//! A process that dies at every failpoint, or stands still there while another wants the partition.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::bounded;

use super::*;

/// What failpoints do is one table for all tests of this program.
static ALONE: Mutex<()> = Mutex::new(());

/// Offsets 0 to 4 in two commits, continuing wherever the sink stands; the row of offset 1 in target `a` is refused.
fn finish(process: &mut Process) {
    let next = process.claim().unwrap().next.get();
    for end in [2, 4] {
        if next < end {
            process.deliver(next.max(end - 2), end);
        }
    }
}

fn refusing() -> Base {
    let base = Base::new();
    base.ask(&format!("CREATE TABLE a (text text, number bigint CHECK (number <> 1), {OURS})"));
    base
}

fn check(base: &Base, when: &str) {
    let mut expected = delivered(0, 4);
    expected.retain(|(target, offset, ..)| target != "a" || *offset != 1);
    assert_eq!(base.visible(), expected, "{when}");
    let refused = r#"1|new row for relation "a" violates check constraint "a_number_check""#;
    assert_eq!(base.rejects(), [refused], "{when}");
}

#[test]
fn rows_and_rejects_are_there_once_wherever_the_owner_dies() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for point in FAILPOINTS {
        let base = refusing();
        let me = thread::current().id();
        fail::cfg_callback(point, move || {
            if thread::current().id() == me {
                std::panic::resume_unwind(Box::new("dead"));
            }
        })
        .unwrap();
        let died = catch_unwind(AssertUnwindSafe(|| finish(&mut Process::new(&base, 1)))).is_err();
        fail::remove(point);
        assert!(died, "{point} was not hit");
        finish(&mut Process::new(&base, 2));
        check(&base, &format!("after a death at {point}"));
    }
}

/// Whoever holds the row of the position when it stops is ended by the server, since nobody can wait for it.
#[test]
fn a_paused_owner_is_fenced_or_ended_and_changes_nothing_when_it_wakes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for point in FAILPOINTS {
        let base = refusing();
        base.hasty.store(true, Ordering::Relaxed);
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
                let refused = catch_unwind(AssertUnwindSafe(|| finish(&mut Process::new(&base, 1)))).is_err();
                fail::remove(point);
                tracing::debug!(point, refused, "the paused owner is through");
            });
            is_paused.recv().unwrap_or_else(|_| panic!("{point} was not hit"));
            base.hasty.store(false, Ordering::Relaxed);
            finish(&mut Process::new(&base, 2));
            check(&base, &format!("while paused at {point}"));
            wake.send(()).unwrap();
            zombie.join().unwrap();
        });
        finish(&mut Process::new(&base, 3));
        check(&base, &format!("after waking at {point}"));
    }
}
