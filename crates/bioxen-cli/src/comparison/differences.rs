//! Where two outputs part, line by line.

/// The first lines in which two outputs differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Differences<'a> {
    pub(super) lines: Vec<Difference<'a>>,
    /// How many more differ.
    pub(super) more: usize,
}

/// A line that differs. `None` is beyond an output's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference<'a> {
    /// Its number, from 1.
    pub(super) number: usize,
    pub(super) one: Option<&'a [u8]>,
    pub(super) other: Option<&'a [u8]>,
}

/// Compares line by line and keeps the first `most` differences.
pub(super) fn between<'a>(one: &'a [u8], other: &'a [u8], most: usize) -> Differences<'a> {
    let (mut ones, mut others) = (lines(one), lines(other));
    let mut lines = Vec::new();
    let mut more = 0;
    for number in 1.. {
        match (ones.next(), others.next()) {
            (None, None) => break,
            (one, other) if one == other => {}
            (one, other) if lines.len() < most => lines.push(Difference { number, one, other }),
            _ => more += 1,
        }
    }
    Differences { lines, more }
}

/// The lines with their ends, so that a missing last newline shows.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differing_lines_are_kept_with_their_numbers() {
        let found = between(b"a\nb\nc\n", b"a\nB\nc\nd\n", 5);
        let lines = vec![
            Difference { number: 2, one: Some(b"b\n"), other: Some(b"B\n") },
            Difference { number: 4, one: None, other: Some(b"d\n") },
        ];
        assert_eq!(found, Differences { lines, more: 0 });
    }

    #[test]
    fn what_is_beyond_the_first_differences_is_counted() {
        let found = between(b"1\n2\n3\n", b"4\n5\n6\n", 2);
        assert_eq!((found.lines.len(), found.more), (2, 1));
    }

    #[test]
    fn a_missing_last_newline_is_a_difference() {
        assert_eq!(between(b"a\n", b"a", 2).lines.len(), 1);
    }
}
