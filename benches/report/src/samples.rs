//! Samples of one quantity, and what is said about them.

use std::time::Instant;

/// Measured numbers, in seconds, bytes or per second.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// A figure that was measured once.
    pub fn once(value: f64) -> Self {
        Self(vec![value])
    }

    /// Adds one sample.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds all samples of another measurement of the same.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle one; `None` of no samples.
    pub fn median(&self) -> Option<f64> {
        self.percentile(50)
    }

    /// What 95 of 100 do not exceed.
    pub fn p95(&self) -> Option<f64> {
        self.percentile(95)
    }

    fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
    }

    /// Each sample's inverse: from seconds to a rate of `amount` a second.
    #[must_use]
    pub fn rate_of(&self, amount: f64) -> Self {
        Self(self.0.iter().map(|seconds| amount / seconds).collect())
    }

    /// Each sample less a constant that it contains.
    #[must_use]
    pub fn less(&self, constant: f64) -> Self {
        Self(self.0.iter().map(|value| value - constant).collect())
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// What an action returned, and the seconds that it took.
pub fn timed<T>(action: impl FnOnce() -> T) -> (T, f64) {
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
