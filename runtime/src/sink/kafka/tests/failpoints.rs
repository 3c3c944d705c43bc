//! A process that dies at every failpoint, or stands still there while another wants the partition: in the transaction of
//! its claim, and in that of its first commit.

use crossbeam_channel::bounded;

use super::rows::{limit, text};
use super::*;

/// What failpoints do is one table for all tests of this program.
static ALONE: Mutex<()> = Mutex::new(());

/// At which visit of a failpoint something happens.
const VISITS: [usize; 2] = [1, 2];

/// Only a process that begins comes by, not each of its transactions.
const ONCE: &str = "kafka.after_renewal";

/// A row that its topic does not take.
fn large(offset: i64) -> Part {
    text("a", offset, &"x".repeat(2_000))
}

/// Offsets 0 to 4 in two commits, continuing wherever the sink stands; the row of offset 1 is too large for its topic.
fn finish(sink: &mut KafkaSink, generation: u64) -> Result<(), Error> {
    let next = sink.claim(&claim(generation))?.next.get();
    for start in [0, 2].into_iter().filter(|start| next <= *start) {
        let parts = (start..start + 2).map(|o| if o == 1 { large(o) } else { text("a", o, "small") });
        sink.write(RoutedBatch { parts: parts.collect(), ..batch(start, start + 2) })?;
        sink.commit(&at(), &commit(start, start + 2))?;
    }
    Ok(())
}

/// As a pipeline does: what may pass is tried again, from the claim on.
fn finish_at_last(base: &Base, generation: u64) {
    let mut sink = base.sink();
    let mut last = None;
    for _ in 0..20 {
        match finish(&mut sink, generation) {
            Ok(()) => return,
            Err(error @ Error::Transient(_)) => last = Some(error),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it does not pass: {last:?}");
}

fn check(base: &Base, when: &str) {
    let offsets = |records: Vec<peek::Seen>| {
        let mut offsets: Vec<_> = records.iter().map(|record| place(record)[0]).collect();
        offsets.sort_unstable();
        offsets
    };
    assert_eq!(offsets(base.records("a")), [0, 2, 3], "{when}");
    assert_eq!(offsets(base.rejects()), [1], "{when}");
    if base.members.is_some() {
        assert_eq!(base.stands(), Some(4), "{when}");
    }
}

/// Tries each failpoint at each visit, in both ways to fence; different ones at once.
fn at_each(what: impl Fn(&Base, &'static str, usize) + Sync) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let each = |point: &'static str| {
        for visit in VISITS.into_iter().filter(|visit| point != ONCE || *visit == 1) {
            for base in [Base::alone(), Base::in_a_group()] {
                limit(&base.topic("a"), 1_000);
                base.hasty.store(true, Ordering::Relaxed);
                what(&base, point, visit);
            }
        }
    };
    thread::scope(|scope| FAILPOINTS.iter().for_each(|point| drop(scope.spawn(move || each(point)))));
}

#[test]
fn rows_and_rejects_are_there_once_wherever_the_owner_dies() {
    at_each(|base, point, visit| {
        let (me, visits) = (thread::current().id(), AtomicUsize::new(0));
        fail::cfg_callback(point, move || {
            if thread::current().id() == me && visits.fetch_add(1, Ordering::Relaxed) + 1 == visit {
                std::panic::resume_unwind(Box::new("dead"));
            }
        })
        .unwrap();
        let died = catch_unwind(AssertUnwindSafe(|| finish(&mut base.sink(), 1))).is_err();
        fail::remove(point);
        assert!(died, "{point} was not hit");
        finish_at_last(base, 2);
        check(base, &format!("after a death at visit {visit} of {point}"));
    });
}

#[test]
fn a_paused_owner_is_fenced_and_changes_nothing_when_it_wakes() {
    at_each(|base, point, visit| {
        thread::scope(|scope| {
            // Within: whoever fails here lets the paused one go.
            let (paused, is_paused) = bounded(1);
            let (wake, woken) = bounded::<()>(1);
            let zombie = scope.spawn(move || {
                let (me, visits) = (thread::current().id(), AtomicUsize::new(0));
                let pause = move || {
                    if thread::current().id() == me && visits.fetch_add(1, Ordering::Relaxed) + 1 == visit {
                        paused.send(()).unwrap();
                        woken.recv().unwrap();
                    }
                };
                fail::cfg_callback(point, pause).unwrap();
                // It may be refused anywhere; what counts is what readers see.
                let ended = finish(&mut base.sink(), 1);
                fail::remove(point);
                tracing::debug!(point, ?ended, "the paused owner is through");
            });
            is_paused.recv().unwrap_or_else(|_| panic!("{point} was not hit"));
            finish_at_last(base, 2);
            check(base, &format!("while paused at visit {visit} of {point}"));
            wake.send(()).unwrap();
            zombie.join().unwrap();
        });
        finish_at_last(base, 3);
        check(base, &format!("after waking at visit {visit} of {point}"));
    });
}
