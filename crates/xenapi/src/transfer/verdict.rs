//! The task of a transfer, which alone says how that ended.

use std::time::Duration;

use super::{Direction, Meter, TransferFailure};
use crate::client::Client;
use crate::error::Error;
use crate::tasks::{Task, TaskError};
use crate::wire::FromWire;

/// For how long the task is asked why the connection broke.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Makes the task. Without its handle there is nobody who moves bytes for it, so it is cancelled then.
pub(super) async fn begin<R>(
    client: &Client,
    direction: Direction,
    object: &str,
) -> Result<Task<R>, Error> {
    let task = Task::create(client, &direction.to_string(), object).await?;
    // A transfer has as long as it needs, as long as it moves.
    Ok(task.cancel_on_drop().timeout(Duration::MAX))
}

/// Waits until the task has ended, and tells the meter of its progress until then.
pub(super) async fn ended<R: FromWire>(task: &mut Task<R>, meter: &Meter) -> Result<R, TaskError> {
    let mut progress = task.progress();
    let mut result = std::pin::pin!(task.wait());
    loop {
        tokio::select! {
            biased;
            Some(progress) = progress.next() => meter.task(progress),
            result = &mut result => return result,
        }
    }
}

/// Adds what the task says to what a host said when it refused.
pub(super) async fn explain<R: FromWire>(
    mut failure: TransferFailure,
    task: &Task<R>,
) -> TransferFailure {
    if let TransferFailure::Refused { source, .. } = &mut failure
        && let Some(Err(TaskError::Failed { source: said, .. })) = task.ended_already().await
    {
        *source = Some(said);
    }
    failure
}
