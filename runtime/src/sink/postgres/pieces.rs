//! How much is sent to a server at once. Pure.

/// Rows per statement, and their bytes: more save little and cost memory.
const MAX: Size = Size { rows: 10_000, bytes: 8 << 20 };

/// Of one row or several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// Cuts what comes one after the other into pieces that are not too large, or cannot be cut.
pub(super) fn pieces<T>(all: &[T], size: impl Fn(&T) -> Size) -> Vec<(&[T], Size)> {
    let mut pieces = Vec::new();
    let (mut start, mut sum) = (0, Size::default());
    for (n, one) in all.iter().enumerate() {
        let size = size(one);
        let with = Size { rows: sum.rows + size.rows, bytes: sum.bytes + size.bytes };
        if n > start && (with.rows > MAX.rows || with.bytes > MAX.bytes) {
            pieces.push((&all[start..n], sum));
            (start, sum) = (n, size);
        } else {
            sum = with;
        }
    }
    pieces.extend((start < all.len()).then(|| (&all[start..], sum)));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(all: &[(usize, usize)], expected: &[usize]) {
        let found = pieces(all, |(rows, bytes)| Size { rows: *rows, bytes: *bytes });
        assert_eq!(found.iter().map(|(piece, _)| piece.len()).collect::<Vec<_>>(), expected, "{all:?}");
        let pieces: Vec<_> = found.iter().map(|(piece, _)| *piece).collect();
        assert_eq!(pieces.concat(), all);
        for (piece, size) in found {
            let sums = piece.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            assert_eq!(sums, (size.rows, size.bytes));
        }
    }

    #[test]
    fn a_piece_is_as_large_as_may_be_and_of_one_at_least() {
        let Size { rows, bytes } = MAX;
        check(&[], &[]);
        check(&[(rows, bytes)], &[1]);
        check(&[(rows - 1, 1), (1, 1), (1, 1)], &[2, 1]);
        check(&[(1, bytes), (1, 1), (1, bytes - 1)], &[1, 2]);
        check(&[(1, 1), (2 * rows, 2 * bytes), (1, 1)], &[1, 1, 1]);
    }
}
