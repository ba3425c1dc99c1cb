//! Until when a call may take, and what it waits for.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Endpoint;
use crate::error::{Error, Waiting};

/// The moment at which a call gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    pub(crate) fn new(after: Duration) -> Self {
        // A time that the clock cannot hold is never reached.
        let far = Duration::from_hours(24 * 365);
        Self { at: Instant::now() + after.min(far), after }
    }

    /// The earlier of this one and one after this time from now.
    pub(crate) fn sooner(self, after: Duration) -> Self {
        let other = Self::new(after);
        if other.at < self.at { other } else { self }
    }

    /// Waits for the future, but not for longer than this.
    pub(crate) async fn wait<T>(
        self,
        endpoint: &Endpoint,
        waiting: Waiting,
        future: impl Future<Output = T>,
    ) -> Result<T, Error> {
        timeout_at(self.at, future).await.map_err(|_| Error::Timeout {
            endpoint: endpoint.clone(),
            after: self.after,
            waiting,
        })
    }
}
