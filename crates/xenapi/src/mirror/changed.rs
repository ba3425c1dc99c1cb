//! A stream of what changes in a mirror.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::Mirror;
use crate::any::{AnyRecord, AnyRef};

/// What changes in a mirror: a stream of objects with their records as they are when they are told, or
/// none if they are gone. From [`Mirror::changed`].
///
/// An object that changes again before it was told is told once, so that not more is ever kept for this than
/// there are objects. It keeps the mirror alive, and ends only if the mirror does.
#[must_use = "streams do nothing until they are polled"]
pub struct Changed {
    mirror: Mirror,
    queue: Arc<Queue>,
}

/// Objects that changed and were not told yet.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<AnyRef>,
    objects: HashSet<AnyRef>,
    waker: Option<Waker>,
    ended: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, changed: &[AnyRef]) {
        let mut waiting = self.waiting();
        for object in changed {
            if waiting.objects.insert(object.clone()) {
                waiting.order.push_back(object.clone());
            }
        }
        if !changed.is_empty() {
            wake(waiting);
        }
    }

    pub(super) fn end(&self) {
        let mut waiting = self.waiting();
        waiting.ended = true;
        wake(waiting);
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<AnyRef>> {
        let mut waiting = self.waiting();
        if let Some(object) = waiting.order.pop_front() {
            waiting.objects.remove(&object);
            return Poll::Ready(Some(object));
        }
        if waiting.ended {
            return Poll::Ready(None);
        }
        waiting.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    let waker = waiting.waker.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Changed {
    pub(super) fn new(mirror: &Mirror) -> Self {
        let queue = Arc::default();
        mirror.inner.add_queue(&queue);
        Self { mirror: mirror.clone(), queue }
    }

    /// Waits for the next change. If the future is dropped, nothing is lost.
    pub async fn next(&mut self) -> Option<(AnyRef, Option<AnyRecord>)> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Changed {
    type Item = (AnyRef, Option<AnyRecord>);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll(context).map(|object| {
            object.map(|object| {
                let record = self.mirror.view().any(&object).cloned();
                (object, record)
            })
        })
    }
}

impl fmt::Debug for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").field("mirror", &self.mirror).finish_non_exhaustive()
    }
}
