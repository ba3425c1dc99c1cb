//! The pool's time of day, which tests may set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A pool's time of day: the machine's, moved by as much as it was advanced.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds that are added to the machine's time.
    ahead: Arc<AtomicI64>,
}

impl Clock {
    /// The machine's time.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward: sessions grow old, tasks are collected.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.ahead.fetch_add(millis, Ordering::Relaxed);
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        millis.saturating_add(self.ahead.load(Ordering::Relaxed)) / 1000
    }
}
