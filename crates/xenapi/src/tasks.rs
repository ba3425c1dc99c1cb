//! Tasks of the server: what takes long is started, waited for, looked at and cancelled.
//!
//! ```text
//! AsyncCall ──start_task──▶ Task ──await──▶ result, or how else it ended
//!                            │ ▲
//!                   dropped, │ │ what is told of it
//!                   finished ▼ │
//!                            Hub: follows tasks by events for all handles of a client,
//!                                 and destroys the rows that nobody needs any more
//! ```

mod error;
mod hub;
mod progress;
mod start;

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

pub use error::TaskError;
pub use progress::TaskProgress;
pub use start::StartTask;

pub(crate) use hub::Hub;

use crate::client::Client;
use crate::error::Error;
use crate::failure::Failure;
use crate::generated::enums::TaskStatusType;
use crate::generated::{class, task};
use crate::wire::{FromWire, Ref, task_result};
use hub::{Parting, Sight};

/// How long a task is waited for unless the caller says so: the server gives up tasks that nothing
/// touched for as long.
const DAY: Duration = Duration::from_hours(24);
/// How long an event that tells of a task may take, before the task is looked at.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How long nothing may be told of a task before it is looked at. Events tell all there is to tell, so this
/// is a net under them.
const NEXT_LOOK: Duration = Duration::from_secs(30);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(10);

/// A task of the server that will have a result of type `R`. Awaiting it waits for that.
///
/// ```no_run
/// use std::time::Duration;
///
/// use xenapi::{Client, Ref, TaskError, class};
///
/// # async fn example(client: &Client, vm: &Ref<class::Vm>) -> Result<(), Box<dyn std::error::Error>> {
/// let task = client.vm().clone(vm, "a copy").start_task().await?;
/// let copy: Ref<class::Vm> = task.timeout(Duration::from_secs(600)).await?;
/// # Ok(())
/// # }
/// ```
///
/// It is followed by events: all handles of a client share one request that waits for them. The task's row
/// on the server is destroyed when the handle is dropped, whichever way that comes; what the task was doing
/// goes on, unless it is [cancelled](Task::cancel) before or [is to be then](Task::cancel_on_drop).
/// [`Client::close`] waits a few seconds for that.
#[must_use = "dropping it means that nobody learns how the task ends"]
pub struct Task<R> {
    client: Client,
    reference: Ref<class::Task>,
    name: String,
    sight: watch::Receiver<Sight>,
    limit: Duration,
    parting: Parting,
    result: PhantomData<fn() -> R>,
}

impl<R> Task<R> {
    /// Takes over a task that is there already, and the duty to destroy its row.
    ///
    /// # Panics
    ///
    /// If called outside a Tokio runtime.
    pub fn adopt(client: &Client, task: Ref<class::Task>) -> Self {
        Self::named(client, task, "task".into())
    }

    /// Makes a task for what the caller does itself, such as an upload, to be named in the request for that.
    /// It ends when the server says so, or when the caller sets its status; cancelling it does not end it.
    pub async fn create(client: &Client, label: &str, description: &str) -> Result<Self, Error> {
        let task = client.task().create(label, description).await?;
        Ok(Self::named(client, task, label.to_owned()))
    }

    fn named(client: &Client, task: Ref<class::Task>, name: String) -> Self {
        let sight = client.shared.tasks.follow(client, &task);
        Self {
            client: client.clone(),
            reference: task,
            name,
            sight,
            limit: DAY,
            parting: Parting::Destroy,
            result: PhantomData,
        }
    }

    /// Has the server cancel it if the handle is dropped before it has ended, as when nobody is left who sends
    /// what it waits for.
    pub fn cancel_on_drop(mut self) -> Self {
        self.parting = Parting::Cancel;
        self
    }

    /// Its reference.
    pub fn reference(&self) -> &Ref<class::Task> {
        &self.reference
    }

    /// Waits for this time, instead of a day.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What was told of it last, if anything was.
    pub fn record(&self) -> Option<Arc<task::Record>> {
        match &*self.sight.borrow() {
            Sight::Seen(record) => Some(Arc::clone(record)),
            Sight::Unseen | Sight::Gone | Sight::Lost(_) => None,
        }
    }

    /// How far it is: a stream of numbers from 0 to 1, which ends with the task.
    pub fn progress(&self) -> TaskProgress {
        TaskProgress::new(self.sight.clone())
    }

    /// Asks the server to cancel it, and does not wait for that. What cannot be cancelled any more, or at all, goes on to its end.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.client.task().cancel(&self.reference).await
    }

    /// Gives up the handle but leaves the task's row on the server, which somebody else has to destroy.
    pub fn release(mut self) -> Ref<class::Task> {
        self.parting = Parting::Release;
        self.reference.clone()
    }

    /// Waits until it has ended, one way or another.
    async fn end(&mut self) -> Result<Arc<task::Record>, TaskError> {
        let mut patience = FIRST_LOOK;
        loop {
            match &*self.sight.borrow_and_update() {
                Sight::Seen(record) if has_ended(record) => return Ok(Arc::clone(record)),
                Sight::Seen(_) => patience = NEXT_LOOK,
                Sight::Unseen => {}
                Sight::Gone => return Err(TaskError::Vanished { task: self.name.clone() }),
                Sight::Lost(error) => {
                    let task = self.name.clone();
                    return Err(TaskError::Lost { task, source: Arc::clone(error) });
                }
            }
            let next = Instant::now() + patience;
            tokio::select! {
                _ = self.sight.changed() => {}
                () = sleep_until(next) => {
                    self.look().await;
                    patience = NEXT_LOOK;
                }
            }
        }
    }

    async fn look(&self) {
        let hub = &self.client.shared.tasks;
        match self.client.task().get_record(&self.reference).timeout(LOOK).await {
            Ok(record) => hub.tell(&self.reference, Sight::Seen(Arc::new(record))),
            Err(error) if error.code() == Some("HANDLE_INVALID") => {
                hub.tell(&self.reference, Sight::Gone);
            }
            // Whether that passes is for those who follow the events to find out.
            Err(error) => debug!(task = %self.reference, %error, "could not look at the task"),
        }
    }
}

impl<R: FromWire> Task<R> {
    /// Waits for its result without giving up the handle, so that it can be cancelled if this takes too
    /// long.
    ///
    /// If the future is dropped, nothing is lost.
    pub async fn wait(&mut self) -> Result<R, TaskError> {
        // A time that the clock cannot hold is never reached.
        let deadline = Instant::now() + self.limit.min(365 * DAY);
        let ended = timeout_at(deadline, self.end()).await;
        let Ok(ended) = ended else {
            return Err(TaskError::Timeout { task: self.name.clone(), after: self.limit });
        };
        self.outcome(&*ended?)
    }

    /// How it ended, if it has and that can be learnt by looking once.
    pub(crate) async fn ended_already(&self) -> Option<Result<R, TaskError>> {
        self.look().await;
        let record = self.record().filter(|record| has_ended(record))?;
        Some(self.outcome(&record))
    }

    fn outcome(&self, record: &task::Record) -> Result<R, TaskError> {
        let task = self.name.clone();
        if record.status == TaskStatusType::Success {
            return task_result(&record.result)
                .map_err(|source| TaskError::Protocol { task, source });
        }
        let mut parts = record.error_info.iter().cloned();
        let code = parts.next().unwrap_or_default();
        if record.status == TaskStatusType::Cancelled || code == "TASK_CANCELLED" {
            return Err(TaskError::Cancelled { task });
        }
        let source = Failure::new(code, parts.collect::<Vec<_>>());
        Err(TaskError::Failed { task, source })
    }
}

/// Whether nothing will change any more. Progress says nothing about that.
fn has_ended(record: &task::Record) -> bool {
    match record.status {
        TaskStatusType::Success | TaskStatusType::Failure | TaskStatusType::Cancelled => true,
        TaskStatusType::Pending | TaskStatusType::Cancelling | TaskStatusType::Unknown(_) => false,
    }
}

impl<R: FromWire + Send + 'static> IntoFuture for Task<R> {
    type Output = Result<R, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move { self.wait().await })
    }
}

impl<R> Drop for Task<R> {
    fn drop(&mut self) {
        self.client.shared.tasks.leave(&self.reference, self.parting);
    }
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("reference", &self.reference)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
