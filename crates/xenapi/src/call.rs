//! Messages as values: made by the methods of each class, sent when they are awaited.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::tasks::StartTask;
use crate::wire::{FromWire, Request};

/// A message that has not been sent. Awaiting it sends it and gives the result.
///
/// If the future is dropped, its connection is closed, unless other calls wait for answers over it; a
/// message that had been sent may be carried out all the same.
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<R> {
    client: Client,
    request: Request,
    timeout: Option<Duration>,
    result: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    pub(crate) fn new(client: &Client, request: Request) -> Self {
        Self { client: client.clone(), request, timeout: None, result: PhantomData }
    }

    /// Gives up after this time, instead of the client's own.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// What will be sent.
    pub fn request(&self) -> &Request {
        &self.request
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parameters can be secrets.
        f.debug_struct("Call").field("method", &self.request.wire_name()).finish_non_exhaustive()
    }
}

impl<R: FromWire + Send + 'static> IntoFuture for Call<R> {
    type Output = Result<R, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.client.run::<R>(&self.request, self.timeout).await })
    }
}

/// A message that can also be carried out as a task. Awaiting it waits until the server is done.
#[derive(Debug)]
#[must_use = "a call does nothing until it is awaited"]
pub struct AsyncCall<R>(Call<R>);

impl<R> AsyncCall<R> {
    pub(crate) fn new(client: &Client, request: Request) -> Self {
        Self(Call::new(client, request))
    }

    /// Gives up after this time, instead of the client's own.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.timeout(timeout))
    }

    /// What will be sent.
    pub fn request(&self) -> &Request {
        self.0.request()
    }

    /// The `Async.` form: the server answers at once with a task, and what goes wrong is told by that.
    pub fn start_task(self) -> StartTask<R> {
        let Call { client, request, timeout, .. } = self.0;
        StartTask::new(Call { client, request: request.as_task(), timeout, result: PhantomData })
    }
}

impl<R: FromWire + Send + 'static> IntoFuture for AsyncCall<R> {
    type Output = Result<R, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        self.0.into_future()
    }
}
