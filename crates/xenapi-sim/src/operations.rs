//! Operations on VMs: one at a time where they conflict, the others wait their turn.

use std::sync::Arc;

use tokio::time::Instant;

use crate::calls::Call;
use crate::error::ApiError;
use crate::inner::{Inner, lock};
use crate::lifecycle;
use crate::tasks;
use crate::value::Ref;

/// An operation that a VM is busy with, until this is dropped.
pub(crate) struct Busy {
    inner: Arc<Inner>,
    vm: Ref,
    task: Ref,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut db = self.inner.write();
        let Some(row) = db.find("VM", self.vm) else { return };
        let left = row.get("current_operations").without(&self.task.to_string().into());
        db.set("VM", self.vm, "current_operations", left);
        lifecycle::refresh(&mut db, self.vm);
    }
}

/// A place in the queue before a VM, until this is dropped.
struct Place<'a> {
    inner: &'a Inner,
    vm: Ref,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = lock(&self.inner.queues);
        if let Some(queue) = queues.get_mut(&self.vm) {
            queue.retain(|ticket| *ticket != self.ticket);
            if queue.is_empty() {
                queues.remove(&self.vm);
            }
        }
        drop(queues);
        self.inner.wake();
    }
}

/// Begins an operation as soon as the VM takes it; waits only for other operations.
pub(crate) async fn begin(call: &Call, vm: Ref, operation: &'static str) -> Result<Busy, ApiError> {
    let inner = &call.inner;
    let deadline = Instant::now() + inner.options.queue_limit;
    let ticket = inner.next_ticket();
    let mut place = None;
    let mut changes = inner.changes();
    let mut cancelled = inner.cancellable(call.task);
    loop {
        changes.borrow_and_update();
        let conflict = match try_begin(call, vm, operation, ticket) {
            Ok(busy) => return Ok(busy),
            Err(conflict) if conflict.code == CONFLICT => conflict,
            Err(error) => return Err(error),
        };
        place.get_or_insert_with(|| {
            lock(&inner.queues).entry(vm).or_default().push(ticket);
            Place { inner, vm, ticket }
        });
        tokio::select! {
            _ = changes.changed() => {}
            _ = cancelled.wait_for(|it| *it) => return Err(tasks::cancelled(call.task)),
            () = tokio::time::sleep_until(deadline) => return Err(conflict),
        }
    }
}

const CONFLICT: &str = "OTHER_OPERATION_IN_PROGRESS";

fn try_begin(call: &Call, vm: Ref, operation: &'static str, ticket: u64) -> Result<Busy, ApiError> {
    let inner = &call.inner;
    let hurries = operation.starts_with("hard_");
    let waits = |queue: &Vec<u64>| queue.first().is_some_and(|first| *first != ticket);
    let behind = !hurries && lock(&inner.queues).get(&vm).is_some_and(waits);
    let mut db = inner.write();
    let row = db.row("VM", vm)?.clone();
    let running: Vec<(Ref, String)> = row
        .get("current_operations")
        .entries()
        .iter()
        .filter_map(|(task, name)| Some((Ref::parse(task.as_str()?)?, name.plain())))
        .collect();
    for (task, name) in &running {
        if lifecycle::cancels(operation, name) {
            inner.cancel(*task);
        }
    }
    lifecycle::check(&db, &row, operation)?;
    if behind {
        let (task, name) = running.first().cloned().unwrap_or((Ref::NULL, operation.to_owned()));
        let told = ["VM", &vm.to_string(), &name, &task.to_string()];
        return Err(crate::error::error(CONFLICT, told));
    }
    let operations = row.get("current_operations");
    let noted = operations.with(call.task.to_string().into(), operation.into());
    db.set("VM", vm, "current_operations", noted);
    lifecycle::refresh(&mut db, vm);
    Ok(Busy { inner: inner.clone(), vm, task: call.task })
}
