//! Starting a task.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;

use super::Task;
use crate::call::Call;
use crate::error::Error;
use crate::generated::class;
use crate::wire::{Ref, Request};

/// A message that has not been sent, and will start a task when it is awaited.
#[must_use = "a call does nothing until it is awaited"]
pub struct StartTask<R> {
    call: Call<Ref<class::Task>>,
    result: PhantomData<fn() -> R>,
}

impl<R> StartTask<R> {
    pub(crate) fn new(call: Call<Ref<class::Task>>) -> Self {
        Self { call, result: PhantomData }
    }

    /// What will be sent.
    pub fn request(&self) -> &Request {
        self.call.request()
    }
}

impl<R: 'static> IntoFuture for StartTask<R> {
    type Output = Result<Task<R>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let client = self.call.client().clone();
            let name = self.call.request().wire_name().into_owned();
            let task = self.call.await?;
            Ok(Task::named(&client, task, name))
        })
    }
}

impl<R> fmt::Debug for StartTask<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StartTask").field(&self.call).finish()
    }
}
