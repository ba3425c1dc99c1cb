//! Numbers that a seed decides.

use std::time::Duration;

/// A stream of numbers that a seed decides (the generator `SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below a usize")
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// A time of up to this many milliseconds.
    pub(crate) fn millis(&mut self, most: usize) -> Duration {
        Duration::from_micros(self.below(most * 1000 + 1) as u64)
    }
}

/// The seed of one life of many. The first has the seed itself, so that any of them can be lived alone.
pub(crate) fn seed_of(seed: u64, life: u64) -> u64 {
    if life == 0 { seed } else { Chance::new(seed ^ life.rotate_left(32)).next() }
}
