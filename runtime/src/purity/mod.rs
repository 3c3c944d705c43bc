//! Whether a transform makes the same of the same records: handed over again, cut otherwise, the last first, to another
//! instance. It never says which of the two answers is right.

mod difference;

use std::ops::Range;

pub use difference::{Difference, difference};

use crate::batch::Batch;
use crate::offset::OffsetRange;
use crate::route::Pieces;
use crate::sandbox::verdict::{Keeper, Stopped};

/// What to do about a [`Difference`].
pub const HINT: &str = "what becomes of a record may depend on that record, the settings and the tables alone: look for \
                        state that is kept between records, and for the order of hash maps";

/// The sizes into which batches are cut, over and over.
const CUTS: [usize; 4] = [1, 7, 64, 1_000];

/// Hands `batch` over in other cuts, the last first, as long as `go_on` says.
///
/// # Errors
/// As [`Keeper::transform_while`].
pub fn in_other_cuts<E: std::error::Error + 'static>(
    keeper: &mut Keeper<'_, E>,
    batch: &Batch,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Pieces, Stopped<E>> {
    let mut all = Pieces { outputs: Vec::new(), failed: Vec::new() };
    for rows in cuts(batch.len()).into_iter().rev() {
        let first = rows.start as u32;
        let pieces = keeper.transform_while(&batch.rows(rows), &mut |_| go_on())?.pieces;
        all.outputs.extend(pieces.outputs.into_iter().map(|(row, output)| (first + row, output)));
        all.failed.extend(pieces.failed.into_iter().map(|mut failed| {
            failed.row += first;
            failed
        }));
    }
    all.outputs.sort_by_key(|(row, _)| *row);
    all.failed.sort_by_key(|failed| failed.row);
    Ok(all)
}

fn cuts(n: usize) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let mut start = 0;
    for size in CUTS.into_iter().cycle() {
        if start == n {
            break;
        }
        let end = n.min(start + size);
        cuts.push(start..end);
        start = end;
    }
    cuts
}

/// Whether a batch is among those to look at again, about `fraction` of all. It depends on the offsets alone, so that
/// the same batch is looked at again when it is read again.
pub fn is_sampled(range: OffsetRange, fraction: f64) -> bool {
    // The finalizer of SplitMix64: neighbouring offsets get numbers that have nothing to do with one another.
    let mut z = (range.start.get() as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ((z >> 11) as f64) < fraction * (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset::Offset;

    #[test]
    fn the_other_cuts_cover_everything_once() {
        for n in [0, 1, 2, 8, 45, 1_000, 4_096] {
            let rows: Vec<usize> = cuts(n).into_iter().flatten().collect();
            assert_eq!(rows, Vec::from_iter(0..n), "{n}");
        }
        assert_eq!(cuts(10), [0..1, 1..8, 8..10]);
    }

    #[test]
    fn about_the_fraction_is_sampled_and_none_or_all_at_the_ends() {
        let range =
            |i: usize| OffsetRange::new(Offset::new(0).plus(i * 4096), Offset::new(0).plus(i * 4096 + 4096));
        let sampled = |fraction| (0..10_000).filter(|&i| is_sampled(range(i), fraction)).count();
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        assert!((50..=150).contains(&sampled(0.01)), "{}", sampled(0.01));
    }
}
