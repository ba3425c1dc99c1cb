//! Samples of one quantity, and what is said about them.

use std::time::Instant;

/// Measured numbers, in seconds, bytes or per second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// A figure that was measured once.
    pub(crate) fn once(value: f64) -> Self {
        Self(vec![value])
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The middle one; `None` of no samples.
    pub(crate) fn median(&self) -> Option<f64> {
        self.percentile(50)
    }

    /// What 95 of 100 do not exceed.
    pub(crate) fn p95(&self) -> Option<f64> {
        self.percentile(95)
    }

    fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
    }

    /// Each sample's inverse: from seconds to a rate of `amount` a second.
    pub(crate) fn rate_of(&self, amount: f64) -> Self {
        Self(self.0.iter().map(|seconds| amount / seconds).collect())
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// What an action returned, and the seconds that it took.
pub(crate) fn timed<T>(action: impl FnOnce() -> T) -> (T, f64) {
    let clock = Instant::now();
    let result = action();
    (result, clock.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_p95_are_samples() {
        let samples: Samples = (1..=100_u32).rev().map(f64::from).collect();
        assert_eq!((samples.median(), samples.p95()), (Some(51.0), Some(96.0)));
        assert_eq!(Samples::once(3.0).p95(), Some(3.0));
        assert_eq!(Samples::default().median(), None);
    }
}
