//! How far a task is.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::watch;

use super::has_ended;
use super::hub::Sight;

/// A stream of how far a task is, from 0 to 1, from [`Task::progress`](super::Task::progress).
///
/// It tells the present and every change, except those that are over before it is polled. It ends with the
/// task; 1 does not mean success. It keeps nothing on the server: the handle does.
#[must_use = "streams do nothing until they are polled"]
pub struct TaskProgress {
    next: Pin<Box<dyn Future<Output = (Follower, Option<f64>)> + Send>>,
    ended: bool,
}

struct Follower {
    sight: watch::Receiver<Sight>,
    told: Option<f64>,
}

impl TaskProgress {
    pub(super) fn new(sight: watch::Receiver<Sight>) -> Self {
        Self { next: Box::pin(Follower { sight, told: None }.next()), ended: false }
    }

    /// Waits for the next change. If the future is dropped, nothing is lost.
    pub async fn next(&mut self) -> Option<f64> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Follower {
    async fn next(mut self) -> (Self, Option<f64>) {
        loop {
            let (progress, ended) = match &*self.sight.borrow_and_update() {
                Sight::Seen(record) => (Some(record.progress), has_ended(record)),
                Sight::Unseen => (None, false),
                Sight::Gone | Sight::Lost(_) => (None, true),
            };
            let is_news = progress.map(f64::to_bits) != self.told.map(f64::to_bits);
            if let (Some(progress), true) = (progress, is_news) {
                self.told = Some(progress);
                return (self, Some(progress));
            }
            if ended || self.sight.changed().await.is_err() {
                return (self, None);
            }
        }
    }
}

impl Stream for TaskProgress {
    type Item = f64;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<f64>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let (follower, progress) = ready!(self.next.as_mut().poll(context));
        match progress {
            Some(_) => self.next = Box::pin(follower.next()),
            None => self.ended = true,
        }
        Poll::Ready(progress)
    }
}

impl fmt::Debug for TaskProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskProgress").field("ended", &self.ended).finish_non_exhaustive()
    }
}
