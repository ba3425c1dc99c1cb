//! The calls that do more than read and write fields: one module for each class.

mod appliance;
mod blob;
mod event;
mod host;
mod message;
mod network;
mod pbd;
mod pif;
mod pool;
mod session;
pub(crate) mod sr;
mod task;
pub(crate) mod vbd;
pub(crate) mod vdi;
pub(crate) mod vif;
pub(crate) mod vm;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::database::Database;
use crate::error::ApiError;
use crate::inner::Inner;
use crate::schema::Method;
use crate::store::DiskStore;
use crate::tasks;
use crate::value::{Ref, Value};

/// What a call comes to.
pub(crate) type Outcome = Result<Value, ApiError>;
/// A call that is under way.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// How a call with code of its own is answered.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// At once.
    Now(fn(&Call) -> Outcome),
    /// After some work, for which there is a task.
    Later(fn(Call) -> Pending),
    /// After waiting for something, without a task; given up when the caller hangs up.
    Wait(fn(Call) -> Pending),
}

/// A call whose session, count and types of arguments were found to be right.
pub(crate) struct Call {
    /// The pool.
    pub(crate) inner: Arc<Inner>,
    /// The host that was called.
    pub(crate) host: usize,
    /// The caller's session.
    pub(crate) session: Ref,
    /// What was called.
    pub(crate) method: &'static Method,
    /// The arguments without the session, one for each parameter.
    pub(crate) args: Vec<Value>,
    /// The call's task; null where it has none.
    pub(crate) task: Ref,
}

/// The handler of a message, where it has code of its own.
pub(crate) fn handler(class: &str, message: &str) -> Option<Handler> {
    match class {
        "session" => session::handler(message),
        "task" => task::handler(message),
        "event" => event::handler(message),
        "message" => message::handler(message),
        "blob" => blob::handler(message),
        "pool" => pool::handler(message),
        "host" => host::handler(message),
        "SR" => sr::handler(message),
        "PBD" => pbd::handler(message),
        "VDI" => vdi::handler(message),
        "VBD" => vbd::handler(message),
        "VIF" => vif::handler(message),
        "VM" => vm::handler(message),
        "VM_appliance" => appliance::handler(message),
        "network" => network::handler(message),
        "VLAN" | "PIF" => pif::handler(class, message),
        _ => None,
    }
}

/// A [`Handler::Later`] of an async function.
macro_rules! later {
    ($function:path) => {
        $crate::calls::Handler::Later(|call| Box::pin($function(call)))
    };
}
pub(crate) use later;

impl Call {
    /// Takes as long as this method was told to, telling the task how far it is.
    pub(crate) async fn take_time(&self) -> Result<(), ApiError> {
        let whole = self.inner.latency(&self.method.name);
        if whole.is_zero() {
            return Ok(());
        }
        let mut cancelled = self.inner.cancellable(self.task);
        let steps = 10_u32;
        for step in 1..=steps {
            let is_cancelled = cancelled.wait_for(|it| *it);
            if tokio::time::timeout(whole / steps, is_cancelled).await.is_ok() {
                return Err(tasks::cancelled(self.task));
            }
            tasks::progress(&self.inner, self.task, f64::from(step) / f64::from(steps));
        }
        Ok(())
    }

    /// Runs what blocks on the disk store.
    pub(crate) async fn on_disks<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn DiskStore) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = self.inner.store.clone();
        let done = tokio::task::spawn_blocking(move || work(store.as_ref())).await;
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(crate::error::error("VDI_IO_ERROR", [error.to_string()])),
            Err(_) => Err(crate::error::internal("the work on the disk was given up")),
        }
    }

    /// A moment from now.
    pub(crate) fn deadline(after: Duration) -> tokio::time::Instant {
        tokio::time::Instant::now() + after
    }
}

/// Makes a message object, which tells of something that happened to an object.
pub(crate) fn announce(
    inner: &Inner,
    db: &mut Database,
    name: &'static str,
    class: &'static str,
    uuid: uuid::Uuid,
) {
    let fields = vec![
        ("name", Value::text(name)),
        ("priority", Value::Int(5)),
        ("cls", Value::text(class)),
        ("obj_uuid", Value::text(uuid.hyphenated().to_string())),
        ("timestamp", Value::Time(inner.clock.now())),
    ];
    db.insert("message", fields);
    let class = crate::schema::Schema::get().class("message");
    if db.count(class) > MESSAGES {
        let oldest = db.rows_at(class).min_by_key(|row| row.created).map(|row| row.reference);
        if let Some(oldest) = oldest {
            db.delete("message", oldest);
        }
    }
}

/// How many messages are kept.
const MESSAGES: usize = 10_000;
