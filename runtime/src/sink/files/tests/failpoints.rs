//! A process that dies, or is only paused, at every failpoint, while another takes over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use crossbeam_channel::bounded;

use super::*;

/// What failpoints do is one table for all tests of this program.
static ALONE: Mutex<()> = Mutex::new(());

/// Offsets 0 to 4 in two commits, each of two files, continuing wherever the sink stands.
fn finish(owner: &mut Owner) {
    let next = owner.claim().unwrap().next.get();
    for end in [2, 4] {
        if next < end {
            owner.deliver(next.max(end - 2), end);
        }
    }
}

/// Runs `work` and stops it for good at `point`. Says whether it came there.
fn die_at(point: &str, work: impl FnOnce()) -> bool {
    let me = thread::current().id();
    fail::cfg_callback(point, move || {
        if thread::current().id() == me {
            std::panic::resume_unwind(Box::new("dead"));
        }
    })
    .unwrap();
    let died = catch_unwind(AssertUnwindSafe(work)).is_err();
    fail::remove(point);
    died
}

#[test]
fn rows_are_visible_once_wherever_the_owner_dies() {
    let _alone = ALONE.lock().unwrap();
    for point in FAILPOINTS {
        let directory = Directory::new(Format::JsonLines);
        let mut generation = 1;
        // Work for the roll-forward and the cleanup that some points are in.
        if ["file.roll.between", "claim.cleanup.between"].contains(&point) {
            let before = if point == "file.roll.between" { "file.after_put" } else { "file.mid_write" };
            assert!(die_at(before, || finish(&mut Owner::new(&directory, 1))));
            generation = 2;
        }
        let died = die_at(point, || {
            let mut owner = std::mem::ManuallyDrop::new(Owner::new(&directory, generation));
            finish(&mut owner);
        });
        assert!(died, "{point} was not hit");
        finish(&mut Owner::new(&directory, generation + 1));
        assert_eq!(directory.visible(), delivered(0, 4), "after a death at {point}");
        assert_eq!(directory.staged(), Vec::<PathBuf>::new(), "after a death at {point}");
    }
}

#[test]
fn a_paused_owner_that_wakes_after_a_takeover_changes_nothing() {
    let _alone = ALONE.lock().unwrap();
    for point in
        FAILPOINTS.into_iter().filter(|point| !point.contains(".roll.") && !point.contains("cleanup"))
    {
        let directory = Arc::new(Directory::new(Format::JsonLines));
        let (paused, is_paused) = bounded(1);
        let (wake, woken) = bounded(1);
        let gate = Mutex::new(Some((paused, woken)));
        let zombie = thread::spawn({
            let directory = directory.clone();
            move || {
                let me = thread::current().id();
                fail::cfg_callback(point, move || {
                    let open = (thread::current().id() == me).then(|| gate.lock().unwrap().take()).flatten();
                    if let Some((paused, woken)) = open {
                        paused.send(()).unwrap();
                        woken.recv().unwrap();
                    }
                })
                .unwrap();
                let mut owner = Owner::new(&*directory, 1);
                // It may be refused anywhere; what counts is what readers see.
                catch_unwind(AssertUnwindSafe(|| finish(&mut owner))).is_ok()
            }
        });
        is_paused.recv().unwrap();
        finish(&mut Owner::new(&*directory, 2));
        assert_eq!(directory.visible(), delivered(0, 4), "while paused at {point}");
        wake.send(()).unwrap();
        zombie.join().unwrap();
        fail::remove(point);
        assert_eq!(directory.visible(), delivered(0, 4), "after waking at {point}");
        assert_eq!(Owner::new(&*directory, 3).claim().unwrap().next, Offset::new(4));
    }
}
