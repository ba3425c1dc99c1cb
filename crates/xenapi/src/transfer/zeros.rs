//! Finding zeros fast.

use std::ops::Range;

/// The smallest piece that is skipped. What a server writes at once should be no smaller.
pub(crate) const CELL: usize = 64 << 10;

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Bytes are zero if the first is and each equals the next. Comparing two slices is what the C library
    // does at the speed of memory, on any machine and in any build.
    match bytes {
        [] => true,
        [first, rest @ ..] => *first == 0 && bytes[..rest.len()] == *rest,
    }
}

/// The next stretch that is not zero: of whole cells, but for the last, and as long as can be.
///
/// The search begins at the start of a cell.
pub(crate) fn next_run(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let cell = |start: usize| &bytes[start..bytes.len().min(start + CELL)];
    let mut start = from;
    while start < bytes.len() && is_zero(cell(start)) {
        start += CELL;
    }
    let mut end = start;
    while end < bytes.len() && !is_zero(cell(end)) {
        end += CELL;
    }
    (start < end).then_some(start..end.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_bit_anywhere_makes_bytes_not_zero() {
        for length in [1, 2, 7, 8, 63, 64, 65, 1000] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for place in 0..length {
                bytes[place] = 128;
                assert!(!is_zero(&bytes), "{place} of {length}");
                bytes[place] = 0;
            }
        }
        assert!(is_zero(&[]));
    }

    proptest! {
        #[test]
        fn runs_hold_all_that_is_not_zero_and_no_zero_cell(
            cells in proptest::collection::vec(proptest::option::of(0..CELL), 0..20),
            tail in 0..CELL,
        ) {
            let mut bytes = vec![0; cells.len() * CELL + tail];
            for (index, place) in cells.iter().enumerate() {
                if let Some(place) = place {
                    bytes[index * CELL + place] = 1;
                }
            }
            let mut rest = bytes.clone();
            let (mut last, mut place) = (None, 0);
            while let Some(run) = next_run(&bytes, place) {
                place = run.end;
                prop_assert!(run.start % CELL == 0 && run.start < run.end);
                // Two that touch would have been one.
                prop_assert!(last.is_none_or(|end| end < run.start));
                for cell in bytes[run.clone()].chunks(CELL) {
                    prop_assert!(!is_zero(cell));
                }
                last = Some(run.end);
                rest[run].fill(0);
            }
            prop_assert!(is_zero(&rest));
        }
    }
}
