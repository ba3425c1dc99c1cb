//! The task that a handler completes or fails: made here, watched, and taken away in every case.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Meter;
use crate::client::Client;
use crate::error::Error;
use crate::failure::Failure;
use crate::wire::{Ref, Value};
use crate::{class, enums};

/// For how long the server may hold back an answer when nothing happens to the task.
const WATCH: Duration = Duration::from_secs(30);
/// How long each step of taking a task away may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often in a row watching may fail before the task counts as lost.
const ATTEMPTS: u32 = 5;

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// With this result, in the form that tasks have it.
    Success(String),
    Failure(Failure),
    Cancelled,
    /// It was taken away before anybody saw how it ended.
    Gone,
}

/// A task made for one transfer. If this is dropped, the task is cancelled and destroyed.
#[derive(Debug)]
pub(crate) struct Task {
    client: Client,
    reference: Ref<class::Task>,
    over: bool,
}

impl Task {
    pub(crate) async fn create(client: &Client, label: &str, about: &str) -> Result<Self, Error> {
        let reference = client.task().create(label, about).await?;
        Ok(Self { client: client.clone(), reference, over: false })
    }

    pub(crate) fn reference(&self) -> &Ref<class::Task> {
        &self.reference
    }

    /// Resolves when the task has ended, and tells the meter of its progress until then.
    ///
    /// Every single question has a deadline; how long the task may take is the caller's to say.
    pub(crate) fn finished(
        &self,
        meter: Meter,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send + 'static {
        finished(self.client.clone(), self.reference.clone(), meter)
    }

    /// How it ended, if it has and that can be learnt at once.
    pub(crate) async fn outcome(&self) -> Option<Outcome> {
        let question = self.client.task().get_record(&self.reference).timeout(FAREWELL);
        let record = question.await.ok()?;
        ended(&record.status, || (record.result.clone(), record.error_info.clone()))
    }

    /// Takes away a task that has ended.
    pub(crate) async fn destroy(mut self) {
        self.over = true;
        farewell(&self.client, &self.reference, false).await;
    }

    /// Takes away a task whatever it does.
    pub(crate) async fn abandon(mut self) {
        self.over = true;
        farewell(&self.client, &self.reference, true).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let (client, reference) = (self.client.clone(), self.reference.clone());
            // Nobody is left to own this: it ends by its deadlines, or with the runtime.
            runtime.spawn(async move { farewell(&client, &reference, true).await });
        }
    }
}

async fn farewell(client: &Client, task: &Ref<class::Task>, cancel: bool) {
    if cancel && let Err(error) = client.task().cancel(task).timeout(FAREWELL).await {
        // It may have ended meanwhile, or be of the kind that nothing interrupts.
        debug!(%task, %error, "could not cancel");
    }
    if let Err(error) = client.task().destroy(task).timeout(FAREWELL).await {
        debug!(%task, %error, "could not destroy");
    }
}

/// The one place where a task is waited for.
async fn finished(client: Client, task: Ref<class::Task>, meter: Meter) -> Result<Outcome, Error> {
    let classes = [format!("task/{task}")];
    let (mut token, mut failures) = (String::new(), 0);
    loop {
        // Old servers want a fraction in every float.
        let question = client.event().from(&classes, &token, WATCH.as_secs_f64() + 0.1);
        let batch = match question.timeout(WATCH + Duration::from_secs(15)).await {
            Ok(batch) => batch,
            Err(error) if error.is_retryable() && failures < ATTEMPTS => {
                failures += 1;
                debug!(%task, %error, "watching again");
                sleep(Duration::from_secs(1) * failures).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        failures = 0;
        let known = !token.is_empty();
        let mut seen = false;
        token = batch.token;
        for event in batch.events.iter().filter(|event| Ref::from(event.r#ref.as_str()) == task) {
            seen = true;
            if event.operation == enums::EventOperation::Del {
                return Ok(Outcome::Gone);
            }
            if let Some(outcome) = read(&event.snapshot, &meter) {
                return Ok(outcome);
            }
        }
        // From the empty token on, every object there is comes as one that was added.
        if !known && !seen {
            return Ok(Outcome::Gone);
        }
    }
}

/// What a record says of the task: its progress, or how it ended.
fn read(record: &Value, meter: &Meter) -> Option<Outcome> {
    let text = |name: &str| record.member(name).and_then(Value::as_str).unwrap_or_default();
    let status = enums::TaskStatusType::from(text("status"));
    let outcome = ended(&status, || {
        let failure = match record.member("error_info") {
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        (text("result").to_owned(), failure)
    });
    if outcome.is_none()
        && let Some(progress) = record.member("progress").and_then(number)
    {
        meter.task(progress);
    }
    outcome
}

/// Old servers write floats as whole numbers.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        #[expect(clippy::cast_precision_loss, reason = "a progress is 0 or 1")]
        Value::Int(value) => Some(*value as f64),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Time(_) | Value::Array(_) | Value::Struct(_) => None,
    }
}

/// Once the status says that the task has ended, all else about it is final.
fn ended(
    status: &enums::TaskStatusType,
    details: impl FnOnce() -> (String, Vec<String>),
) -> Option<Outcome> {
    match status {
        // Servers that are newer than the model may have more ways to be under way.
        enums::TaskStatusType::Pending
        | enums::TaskStatusType::Cancelling
        | enums::TaskStatusType::Unknown(_) => None,
        enums::TaskStatusType::Success => Some(Outcome::Success(details().0)),
        enums::TaskStatusType::Failure => {
            let mut parts = details().1.into_iter();
            let code = parts.next().unwrap_or_default();
            if code == "TASK_CANCELLED" {
                return Some(Outcome::Cancelled);
            }
            Some(Outcome::Failure(Failure::new(code, parts.collect::<Vec<_>>())))
        }
        enums::TaskStatusType::Cancelled => Some(Outcome::Cancelled),
    }
}

/// Waits a little for a task that should end by itself, as when its connection was lost.
pub(crate) async fn soon(
    finished: impl Future<Output = Result<Outcome, Error>>,
    patience: Duration,
) -> Option<Outcome> {
    timeout(FAREWELL.min(patience), finished).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Map;

    fn record(members: &[(&str, Value)]) -> Value {
        let members = members.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Value::Struct(members.collect::<Map<_, _>>())
    }

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    #[test]
    fn a_task_has_ended_by_its_status_alone() {
        let meter = Meter::new(None, None);
        for status in ["pending", "cancelling", "pondering"] {
            let running = record(&[("status", text(status)), ("progress", Value::Int(1))]);
            assert_eq!(read(&running, &meter), None);
        }
        assert_eq!(meter.progress().task.to_bits(), 1.0_f64.to_bits());
        let done = record(&[("status", text("success")), ("result", text("<value>x</value>"))]);
        assert_eq!(read(&done, &meter), Some(Outcome::Success("<value>x</value>".into())));
        let failure = |code: &str| {
            let parts = Value::Array(vec![text(code), text("OpaqueRef:1")]);
            read(&record(&[("status", text("failure")), ("error_info", parts)]), &meter)
        };
        let expected = Failure::new("VDI_IN_USE", ["OpaqueRef:1".to_owned()]);
        assert_eq!(failure("VDI_IN_USE"), Some(Outcome::Failure(expected)));
        assert_eq!(failure("TASK_CANCELLED"), Some(Outcome::Cancelled));
        assert_eq!(
            read(&record(&[("status", text("cancelled"))]), &meter),
            Some(Outcome::Cancelled)
        );
    }
}
