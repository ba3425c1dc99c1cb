//! A stream of what happens.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use futures_core::Stream;

use super::{Change, Feed, News};
use crate::any::{Unwatchable, watchable};
use crate::client::Client;
use crate::error::Error;
use crate::generated::class::Class;

/// What happens to the objects of some classes: a stream of [`Change`]s, from [`Client::watch`].
///
/// First all that is there is [`Added`](Change::Added), then comes [`Replayed`](Change::Replayed), then
/// what happens. It goes on by itself after lost connections (tried again after 1, 2, 4 … 30 seconds), lost
/// sessions, another master and a restarted toolstack. Where the server may have forgotten deletions
/// meanwhile, all that is there is told again: what is still there as [`Changed`](Change::Changed), though
/// perhaps nothing changed, and [`Replayed`](Change::Replayed) at the end.
///
/// The server is asked only while this is polled. If it is polled too late, deletions may have been
/// forgotten, which is noticed and made up for; states in between are left out, as they always may be.
///
/// It ends with an error where trying again would not help: the client was closed, the password is not
/// accepted any more, or the user may not do this.
#[must_use = "nothing is watched until it is polled"]
pub struct Watch {
    state: State,
    told: vec::IntoIter<Change>,
    /// All that is there is among the changes at hand.
    replayed: bool,
}

type Answer = (Feed, Result<News, Arc<Error>>);

enum State {
    Idle(Option<Feed>),
    /// Kept when nobody waits, so that the request is not lost with those who do not want to wait longer.
    Asking(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Over,
}

impl Client {
    /// Watches the objects of these classes.
    ///
    /// ```no_run
    /// use xenapi::{AnyRecord, Change, Client, class::Class};
    ///
    /// # async fn example(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut watch = client.watch([Class::Vm, Class::Host])?;
    /// while let Some(change) = watch.next().await {
    ///     match change? {
    ///         Change::Added(_, AnyRecord::Vm(vm)) | Change::Changed(_, AnyRecord::Vm(vm)) => {
    ///             println!("{} is {}", vm.name_label, vm.power_state);
    ///         }
    ///         Change::Removed(object) => println!("{object:?} is gone"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, classes: impl IntoIterator<Item = Class>) -> Result<Watch, Unwatchable> {
        let feed = Feed::new(self, &watchable(classes)?);
        Ok(Watch { state: State::Idle(Some(feed)), told: Vec::new().into_iter(), replayed: false })
    }
}

impl Watch {
    /// Waits for the next change. After an error there is nothing more.
    ///
    /// If the future is dropped, nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Change, Arc<Error>>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    fn take(&mut self, news: News) {
        match news {
            News::Batch(applied) => {
                self.told = applied.changes.into_iter();
                self.replayed = applied.anew;
            }
            News::Trouble(_) => {}
        }
    }
}

impl Stream for Watch {
    type Item = Result<Change, Arc<Error>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(change) = self.told.next() {
                return Poll::Ready(Some(Ok(change)));
            }
            if std::mem::take(&mut self.replayed) {
                return Poll::Ready(Some(Ok(Change::Replayed)));
            }
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Idle(feed) => {
                    self.state = match feed.take() {
                        Some(mut feed) => State::Asking(Box::pin(async move {
                            let news = feed.next().await;
                            (feed, news)
                        })),
                        None => State::Over,
                    };
                }
                State::Asking(asking) => {
                    let (feed, news) = ready!(asking.as_mut().poll(context));
                    match news {
                        Ok(news) => {
                            self.state = State::Idle(Some(feed));
                            self.take(news);
                        }
                        Err(error) => {
                            self.state = State::Over;
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("to_tell", &self.told.len()).finish_non_exhaustive()
    }
}
