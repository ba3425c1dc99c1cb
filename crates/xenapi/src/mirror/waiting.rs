//! Waiting for a mirror to show something.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::inner::Status;
use super::{Mirror, State, View};
use crate::any::{AnyRef, Watched};
use crate::error::Error;
use crate::generated::class;
use crate::wire::Ref;

/// Why waiting for a mirror was of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed.
    #[error("waited {after:?} for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// What kept the mirror from being up to date, if something did.
        #[source]
        behind: Option<Arc<Error>>,
    },
    /// The mirror ended, and will not change any more.
    #[error("the mirror ended while waiting for {what}")]
    Ended {
        /// What was waited for.
        what: String,
        /// Why it ended.
        #[source]
        error: Arc<Error>,
    },
    /// The server did not take a barrier.
    #[error("could not place a barrier in the events")]
    Barrier(#[source] Error),
}

/// How often a barrier is asked for again that could not be placed, and how long after one another: in all
/// for longer than a toolstack takes to restart.
const BARRIERS: u32 = 8;
const BETWEEN_BARRIERS: Duration = Duration::from_millis(100);

/// What is waited for, and until when.
struct Wait<'w> {
    what: &'w str,
    after: Duration,
    at: Instant,
}

impl<'w> Wait<'w> {
    fn new(what: &'w str, after: Duration) -> Self {
        // A time that the clock cannot hold is never reached.
        let far = Duration::from_hours(24 * 365);
        Self { what, after, at: Instant::now() + after.min(far) }
    }

    fn ended(&self, error: &Arc<Error>) -> WaitError {
        WaitError::Ended { what: self.what.into(), error: Arc::clone(error) }
    }

    async fn within<R>(
        &self,
        mirror: &Mirror,
        wait: impl Future<Output = Result<R, WaitError>>,
    ) -> Result<R, WaitError> {
        timeout_at(self.at, wait).await.unwrap_or_else(|_| {
            let behind = match mirror.state() {
                State::Filling { error, .. } | State::Behind { error, .. } => error,
                State::InStep { .. } => None,
                State::Ended { error } => Some(error),
            };
            Err(WaitError::Timeout { what: self.what.into(), after: self.after, behind })
        })
    }

    /// Waits for a status of which something is true.
    async fn status(
        &self,
        statuses: &mut watch::Receiver<Status>,
        mut is: impl FnMut(&Status) -> bool,
    ) -> Result<(), WaitError> {
        let found = statuses
            .wait_for(|status| matches!(status.state, State::Ended { .. }) || is(status))
            .await;
        // The mirror that is waited on holds the sender.
        let Ok(status) = found else { return Ok(()) };
        match &status.state {
            State::Ended { error } => Err(self.ended(error)),
            State::Filling { .. } | State::InStep { .. } | State::Behind { .. } => Ok(()),
        }
    }
}

/// Whether another answer may come to the same call, as when a proxy or the server itself was restarted. Where
/// there is no such pool, it is another one since, which events will tell.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Connect { .. }
        | Error::Transport { .. }
        | Error::Http { .. }
        | Error::Protocol { .. } => true,
        Error::Api { .. } => error.code() == Some("HANDLE_INVALID"),
        Error::Tls { .. } | Error::TooLarge { .. } | Error::Timeout { .. } | Error::Closed => false,
    }
}

impl Mirror {
    /// Waits until there is something to find. It is looked for once the mirror has been filled, and then
    /// after every change; nothing happens in between.
    ///
    /// `what` completes the error: "waited 60s for …".
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use xenapi::{Mirror, class, mirror::WaitError};
    /// # async fn example(mirror: &Mirror) -> Result<(), WaitError> {
    /// let minute = Duration::from_secs(60);
    /// let vm = mirror
    ///     .wait_until("a VM named `web`", minute, |view| {
    ///         view.by_name::<class::Vm>("web").next().map(|(vm, _)| vm)
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_until<R>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&View<'_>) -> Option<R>,
    ) -> Result<R, WaitError> {
        let wait = Wait::new(what, limit);
        let mut statuses = self.inner.subscribe();
        let mut seen = None;
        let found = async {
            loop {
                wait.status(&mut statuses, |status| {
                    status.is_filled() && seen != Some(status.version)
                })
                .await?;
                seen = Some(statuses.borrow().version);
                if let Some(found) = look(&self.view()) {
                    return Ok(found);
                }
            }
        };
        wait.within(self, found).await
    }

    /// Like [`Mirror::wait_until`], but for one object: looks again only when that changes. There is no
    /// record when it is gone, or not there yet.
    pub async fn wait_for<T: Watched, R>(
        &self,
        reference: &Ref<T>,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(Option<&Arc<T::Record>>) -> Option<R>,
    ) -> Result<R, WaitError> {
        let wait = Wait::new(what, limit);
        let mut statuses = self.inner.subscribe();
        let mut changes = self.inner.subscribe_to(AnyRef::from(reference));
        let found = async {
            wait.status(&mut statuses, Status::is_filled).await?;
            loop {
                changes.mark_unchanged();
                if let Some(found) = look(self.view().get(reference)) {
                    return Ok(found);
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    ended = wait.status(&mut statuses, |_| false) => ended?,
                }
            }
        };
        wait.within(self, found).await
    }

    /// Waits until everything that had happened in the pool when this was called is in.
    pub async fn barrier(&self, limit: Duration) -> Result<(), WaitError> {
        let wait = Wait::new("the events before a barrier", limit);
        let mut statuses = self.inner.subscribe();
        let mut broken = 0;
        let found = async {
            loop {
                wait.status(&mut statuses, Status::is_filled).await?;
                let before = statuses.borrow_and_update().fillings;
                let pool = self.view().iter::<class::Pool>().next().map(|(pool, _)| pool);
                let pool = pool.unwrap_or_default().to_string();
                let inject = self.client.event().inject("pool", &pool).timeout(limit).await;
                match inject {
                    Ok(token) => {
                        // Tokens are numbers of one width, so that text compares as they do. Another
                        // server may count otherwise, and is asked again.
                        wait.status(&mut statuses, |status| {
                            status.token >= token || status.fillings != before
                        })
                        .await?;
                        if statuses.borrow().fillings == before {
                            return Ok(());
                        }
                    }
                    // One barrier more does no harm.
                    Err(error) if may_pass(&error) && broken < BARRIERS => {
                        let pause = BETWEEN_BARRIERS * 2_u32.pow(broken);
                        broken += 1;
                        let refilled =
                            wait.status(&mut statuses, |status| status.fillings != before);
                        if let Ok(refilled) = timeout(pause, refilled).await {
                            refilled?;
                        }
                    }
                    Err(error) => return Err(WaitError::Barrier(error)),
                }
            }
        };
        wait.within(self, found).await
    }
}
