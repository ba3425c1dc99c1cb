//! The objects that tell how calls are getting on.

use std::sync::Arc;

use crate::database::Database;
use crate::error::{ApiError, error, not_allowed};
use crate::inner::Inner;
use crate::value::{Ref, Value};
use crate::wire::xml;

/// How long a finished task stays.
const KEPT: i64 = 65 * 60;
/// How long a pending task stays untouched.
const PENDING: i64 = 24 * 3600;
/// How many tasks there are before the oldest finished ones go.
const LIMIT: usize = 200;

/// Makes a pending task.
pub(crate) fn create(inner: &Inner, host: usize, label: &str, description: &str) -> Ref {
    let now = inner.clock.now();
    let mut db = inner.write();
    let class = crate::schema::Schema::get().class("task");
    if db.count(class) >= LIMIT {
        collect(&mut db, now);
    }
    db.insert(
        "task",
        vec![
            ("name_label", label.into()),
            ("name_description", description.into()),
            ("created", Value::Time(now)),
            ("status", "pending".into()),
            ("type", "<none/>".into()),
            ("resident_on", inner.hosts[host].host.into()),
            ("allowed_operations", Value::texts(["cancel", "destroy"])),
        ],
    )
}

/// Tells how far a task is, from 0 to 1.
pub(crate) fn progress(inner: &Inner, task: Ref, share: f64) {
    inner.write().set("task", task, "progress", Value::Float(share));
}

/// Notes how a task ended. A task that was destroyed meanwhile goes now.
pub(crate) fn finish(inner: &Inner, task: Ref, outcome: &Result<Value, ApiError>) {
    let now = Value::Time(inner.clock.now());
    inner.forget_cancel(task);
    let doomed = inner.take_doomed(task);
    let mut db = inner.write();
    if doomed {
        db.delete("task", task);
        return;
    }
    let none = Value::set(Vec::new());
    match outcome {
        Ok(value) => {
            db.set("task", task, "allowed_operations", none);
            db.set("task", task, "finished", now);
            db.set("task", task, "progress", Value::Float(1.0));
            db.set("task", task, "result", xml::task_result(value));
            db.set("task", task, "status", "success");
        }
        Err(error) => {
            db.set("task", task, "progress", Value::Float(1.0));
            let info = [&error.code].into_iter().chain(&error.params);
            db.set("task", task, "error_info", Value::texts(info));
            db.set("task", task, "finished", now);
            db.set("task", task, "allowed_operations", none);
            let cancelled = error.code == "TASK_CANCELLED";
            db.set("task", task, "status", if cancelled { "cancelled" } else { "failure" });
        }
    }
    db.set("task", task, "current_operations", Value::map(Vec::new()));
}

/// Removes a task: at once when it has ended, else at its end.
pub(crate) fn destroy(inner: &Inner, task: Ref) -> Result<(), ApiError> {
    let mut db = inner.write();
    db.row("task", task)?;
    if !inner.doom(task) {
        db.delete("task", task);
    }
    Ok(())
}

/// Asks for a task's end.
pub(crate) fn cancel(inner: &Arc<Inner>, canceller: Ref, task: Ref) -> Result<(), ApiError> {
    let mut db = inner.write();
    let row = db.row("task", task)?.clone();
    let allowed = row.get("allowed_operations").items().iter();
    if !allowed.into_iter().any(|operation| operation.as_str() == Some("cancel")) {
        return Err(not_allowed("the task cannot be cancelled"));
    }
    let operations = row.get("current_operations");
    let noted = operations.with(canceller.to_string().into(), "cancel".into());
    db.set("task", task, "current_operations", noted);
    drop(db);
    inner.cancel(task);
    Ok(())
}

/// The error of an operation that ended because it was cancelled.
pub(crate) fn cancelled(task: Ref) -> ApiError {
    error("TASK_CANCELLED", [task])
}

/// Removes what is old, and the oldest finished tasks when there are too many.
pub(crate) fn collect(db: &mut Database, now: i64) {
    let mut finished = Vec::new();
    let mut gone = Vec::new();
    for row in db.rows("task") {
        let pending = matches!(row.text("status"), "pending" | "cancelling");
        let since = if pending { row.int_time("created") } else { row.int_time("finished") };
        if now - since > if pending { PENDING } else { KEPT } {
            gone.push(row.reference);
        } else if !pending {
            finished.push((since, row.created, row.reference));
        }
    }
    let class = crate::schema::Schema::get().class("task");
    let over = (db.count(class) - gone.len()).saturating_sub(LIMIT - 1);
    finished.sort_unstable();
    gone.extend(finished.iter().take(over).map(|(_, _, reference)| *reference));
    for task in gone {
        db.delete("task", task);
    }
}
