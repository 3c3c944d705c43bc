//! A process that dies, or is only paused, at every failpoint, while another takes over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::{Sender, bounded};

use super::*;

laws![
    rows_are_visible_once_wherever_the_owner_dies,
    a_paused_owner_that_wakes_after_a_takeover_changes_nothing,
    a_paused_owner_that_wakes_leaves_alone_what_its_successor_has_staged,
    a_record_put_too_late_is_noticed_by_who_put_it_and_by_nobody_else,
];

/// What failpoints do is one table for all tests of this program.
static ALONE: Mutex<()> = Mutex::new(());

/// All but those that need a predecessor with something left to do.
const POINTS_OF_A_FIRST_OWNER: [&str; 18] = [
    "claim.after_init",
    "claim.before_temp_record",
    "claim.after_temp_record",
    "claim.after_put",
    "claim.after_check",
    "file.after_open",
    "file.mid_write",
    "file.before_close",
    "file.after_close",
    "file.before_temp_record",
    "file.after_temp_record",
    "file.after_put",
    "file.after_check",
    "file.between_renames",
    "file.after_renames",
    "file.compact.after_temp_snapshot",
    "file.compact.after_snapshot",
    "file.compact.between",
];

/// One whose log is compacted at every record, one whose log is not compacted while these tests last, unless somebody has
/// to come by there, and one of which every row has a directory of its own.
///
/// Where requests go over a network, each point has one of the three: they differ in what the sink does, not in how a
/// storage does it.
fn places(on: On, point: &'static str) -> Vec<Place> {
    let seldom = if point.starts_with("file.compact") { 2 } else { 100 };
    let new: [&dyn Fn() -> Place; 3] =
        [&|| Place::compacting(on, 1), &|| Place::compacting(on, seldom), &|| Place {
            compact_after: seldom,
            ..Place::scattered(on)
        }];
    match on {
        On::Disk => new.iter().map(|new| new()).collect(),
        #[cfg(feature = "servers")]
        On::Hdfs => {
            let n = FAILPOINTS.iter().position(|known| *known == point).unwrap();
            vec![new[n % 3]()]
        }
    }
}

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

fn rows_are_visible_once_wherever_the_owner_dies(on: On) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (point, directory) in
        FAILPOINTS.into_iter().flat_map(|p| places(on, p).into_iter().map(move |place| (p, place)))
    {
        let mut generation = 1;
        // Work for the roll-forward and the cleanup that some points are in.
        if ["file.roll.between", "claim.cleanup.between"].contains(&point) {
            let before =
                if point == "file.roll.between" { "file.after_put" } else { "file.after_temp_record" };
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
        assert_eq!(directory.staged(), [""; 0], "after a death at {point}");
    }
}

fn a_paused_owner_that_wakes_after_a_takeover_changes_nothing(on: On) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (point, directory) in first_owners(on) {
        let zombie = pause_at(point, directory.clone());
        finish(&mut Owner::new(&*directory, 2));
        assert_eq!(directory.visible(), delivered(0, 4), "while paused at {point}");
        zombie.wake();
        assert_eq!(directory.visible(), delivered(0, 4), "after waking at {point}");
        assert_eq!(Owner::new(&*directory, 3).claim().unwrap().next, Offset::new(4));
    }
}

fn a_paused_owner_that_wakes_leaves_alone_what_its_successor_has_staged(on: On) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (point, directory) in first_owners(on) {
        let zombie = pause_at(point, directory.clone());
        let mut successor = Owner::new(&*directory, 2);
        let next = successor.claim().unwrap().next.get();
        successor.write(next, 4).unwrap();
        zombie.wake();
        assert_eq!(successor.commit(next, 4).unwrap(), Committed::Done, "after waking at {point}");
        assert_eq!(directory.visible(), delivered(0, 4), "after waking at {point}");
    }
}

fn first_owners(on: On) -> impl Iterator<Item = (&'static str, Arc<Place>)> {
    let pairs = move |point| places(on, point).into_iter().map(move |directory| (point, Arc::new(directory)));
    POINTS_OF_A_FIRST_OWNER.into_iter().flat_map(pairs)
}

/// Three owners: the first wakes up where the second has compacted; the third must not see what it did.
fn a_record_put_too_late_is_noticed_by_who_put_it_and_by_nobody_else(on: On) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for point in ["claim.before_temp_record", "file.before_temp_record"] {
        let directory = Arc::new(Place::compacting(on, 2));
        let zombie = pause_at(point, directory.clone());
        let mut second = Owner::new(&*directory, 2);
        second.claim().unwrap();
        (0..3).for_each(|offset| second.deliver(offset, offset + 1));
        let tally = zombie.tally.clone();
        zombie.wake();
        assert!(tally.overtaken.get() > 0, "after waking at {point}");
        let mut third = Owner::new(&*directory, 3);
        assert_eq!(third.claim().unwrap().next, Offset::new(3));
        third.deliver(3, 4);
        assert_eq!(directory.visible().len(), delivered(0, 4).len(), "after waking at {point}");
    }
}

/// A process that stands still.
struct Paused {
    point: &'static str,
    tally: Arc<Tally>,
    wake: Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// Starts generation 1, which stands still at `point` until it is woken.
fn pause_at(point: &'static str, directory: Arc<Place>) -> Paused {
    let (paused, is_paused) = bounded(1);
    let (wake, woken) = bounded(1);
    let sink = directory.open();
    let tally = sink.tally();
    let thread = thread::spawn(move || {
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
        let mut owner = Owner { sink: Box::new(sink), claim: conformance::claim(1) };
        let refused = catch_unwind(AssertUnwindSafe(|| finish(&mut owner))).is_err();
        fail::remove(point);
        tracing::debug!(point, refused, "the paused owner is through");
    });
    is_paused.recv().unwrap_or_else(|_| panic!("{point} was not hit"));
    Paused { point, tally, wake, thread }
}

impl Paused {
    fn wake(self) {
        self.wake.send(()).unwrap();
        self.thread.join().unwrap_or_else(|_| panic!("after waking at {}", self.point));
    }
}
