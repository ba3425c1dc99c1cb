//! The way to make a pool misbehave, over HTTP: everything below `/_sim`.
//!
//! Requests carry the password of `root` by HTTP Basic authentication, bodies are JSON.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /_sim` | tells the pool's hosts, faults and guests |
//! | `GET /_sim/faults` | lists what is to go wrong with calls |
//! | `POST /_sim/faults` | adds a fault: `{"call": "VM.start", "fault": {"error": ["CODE", "p"]}, "times": 2}` |
//! | `DELETE /_sim/faults`, `DELETE /_sim/faults/N` | removes all faults, or one |
//! | `POST /_sim/latency` | sets how long operations take: `{"VM.start": 2.5}`, in seconds |
//! | `POST /_sim/sessions/lose` | ends all sessions |
//! | `POST /_sim/events/lose` | forgets all deletions that `event.from` has not told yet |
//! | `POST /_sim/toolstack/restart` | ends all sessions and connections, cancels tasks |
//! | `POST /_sim/hosts/UUID/die`, `…/revive` | makes a host dead with its VMs, or alive again |
//! | `POST /_sim/srs/UUID/fill`, `…/drain` | makes a storage full, or as full as its disks make it |
//! | `POST /_sim/vms/UUID/mute`, `…/unmute` | keeps a guest's agent from being heard from the next boot on |
//! | `POST /_sim/vms/UUID/poweroff`, `…/reboot`, `…/crash` | has the guest end by itself |
//! | `POST /_sim/clock/advance` | moves the time of day: `{"seconds": 3600}` |

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::driver::Ended;
use crate::error::ApiError;
use crate::faults::FaultRule;
use crate::guests;
use crate::http::{Answer, Credentials, Head};
use crate::inner::{Inner, lock};
use crate::lifecycle;
use crate::schema::Schema;
use crate::value::Ref;
use crate::{sessions, tasks};

/// Answers a request below `/_sim`.
pub(crate) fn answer(inner: &Arc<Inner>, head: &Head, body: &[u8]) -> Answer {
    let root = {
        let users = inner.users.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        users.get("root").map(|user| user.password.clone())
    };
    match Credentials::of(head) {
        Credentials::Basic(name, password)
            if name == "root" && Some(&password) == root.as_ref() => {}
        Credentials::Basic(..) | Credentials::Session(_) | Credentials::None => {
            let answer = Answer::json(401, "Unauthorized", &json!({"error": "log in as root"}));
            return answer.with("WWW-Authenticate", "Basic realm=\"xenapi-sim\"");
        }
    }
    match act(inner, head, body) {
        Ok(value) => Answer::json(200, "OK", &value),
        Err(Refusal::NotFound) => {
            Answer::json(404, "Not Found", &json!({"error": "there is no such thing"}))
        }
        Err(Refusal::Wrong(reason)) => Answer::json(400, "Bad Request", &json!({"error": reason})),
    }
}

enum Refusal {
    NotFound,
    Wrong(String),
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<ApiError> for Refusal {
    fn from(_: ApiError) -> Self {
        Self::NotFound
    }
}

fn act(inner: &Arc<Inner>, head: &Head, body: &[u8]) -> Result<serde_json::Value, Refusal> {
    let parts: Vec<&str> = head.path.split('/').filter(|part| !part.is_empty()).skip(1).collect();
    match (head.method.as_str(), parts.as_slice()) {
        ("GET", []) => Ok(summary(inner)),
        ("GET", ["faults"]) => Ok(json!(inner.faults.list())),
        ("POST", ["faults"]) => {
            let rule: FaultRule = serde_json::from_slice(body)?;
            Ok(json!({ "id": inner.faults.add(rule) }))
        }
        ("DELETE", ["faults"]) => Ok(json!({ "removed": inner.faults.remove(None) })),
        ("DELETE", ["faults", number]) => {
            let number = number.parse().map_err(|_| Refusal::NotFound)?;
            Ok(json!({ "removed": inner.faults.remove(Some(number)) }))
        }
        ("POST", ["latency"]) => {
            let latencies: std::collections::HashMap<String, f64> = serde_json::from_slice(body)?;
            for (call, seconds) in latencies {
                let latency = Duration::try_from_secs_f64(seconds)
                    .map_err(|error| Refusal::Wrong(error.to_string()))?;
                lock(&inner.latencies).insert(call, latency);
            }
            Ok(json!({}))
        }
        ("POST", ["sessions", "lose"]) => {
            sessions::lose_all(inner);
            Ok(json!({}))
        }
        ("POST", ["events", "lose"]) => {
            inner.write().forget_deletions();
            Ok(json!({}))
        }
        ("POST", ["toolstack", "restart"]) => {
            restart_toolstack(inner);
            Ok(json!({}))
        }
        ("POST", ["clock", "advance"]) => {
            let wanted: std::collections::HashMap<String, f64> = serde_json::from_slice(body)?;
            let seconds = wanted.get("seconds").copied().unwrap_or_default();
            let by = Duration::try_from_secs_f64(seconds)
                .map_err(|error| Refusal::Wrong(error.to_string()))?;
            inner.clock.advance(by);
            Ok(json!({}))
        }
        ("POST", ["hosts", uuid, verb]) => on_host(inner, find(inner, "host", uuid)?, verb),
        ("POST", ["srs", uuid, verb]) => on_storage(inner, find(inner, "SR", uuid)?, verb),
        ("POST", ["vms", uuid, verb]) => on_vm(inner, find(inner, "VM", uuid)?, verb),
        _ => Err(Refusal::NotFound),
    }
}

fn summary(inner: &Inner) -> serde_json::Value {
    let db = inner.read();
    let host = |row: &Arc<crate::database::Row>| json!({ "uuid": row.uuid(), "name": row.text("name_label"), "address": row.text("address") });
    let hosts: Vec<_> = db.rows("host").map(host).collect();
    json!({
        "hosts": hosts,
        "faults": inner.faults.list(),
        "guests": inner.driver.name(),
        "seed": inner.options.seed,
        "vms": db.count(Schema::get().class("VM")),
    })
}

fn find(inner: &Inner, class: &str, uuid: &str) -> Result<Ref, Refusal> {
    Ok(inner.read().by_uuid(Schema::get().class(class), uuid)?)
}

fn on_host(inner: &Arc<Inner>, host: Ref, verb: &str) -> Result<serde_json::Value, Refusal> {
    match verb {
        "die" => host_dies(inner, host),
        "revive" => host_revives(inner, host),
        _ => return Err(Refusal::NotFound),
    }
    Ok(json!({}))
}

/// Makes a host dead, and its VMs with it.
pub(crate) fn host_dies(inner: &Inner, host: Ref) {
    let mut db = inner.write();
    let Some(row) = db.find("host", host).cloned() else { return };
    db.set("host_metrics", row.reference("metrics"), "live", false);
    db.set("host", host, "enabled", false);
    for vm in row.refs("resident_VMs") {
        let guest = db.find("VM", vm).is_some_and(|row| !row.flag("is_control_domain"));
        if guest {
            lock(&inner.booted).remove(&vm);
            lifecycle::leave_host(&mut db, vm, "Halted");
        }
    }
}

/// Makes a dead host live again.
pub(crate) fn host_revives(inner: &Inner, host: Ref) {
    let mut db = inner.write();
    let Some(metrics) = db.find("host", host).map(|row| row.reference("metrics")) else { return };
    db.set("host_metrics", metrics, "live", true);
    db.set("host", host, "enabled", true);
}

fn on_storage(inner: &Arc<Inner>, sr: Ref, verb: &str) -> Result<serde_json::Value, Refusal> {
    match verb {
        "fill" => fill(inner, sr, true),
        "drain" => fill(inner, sr, false),
        _ => return Err(Refusal::NotFound),
    }
    Ok(json!({}))
}

/// Makes a storage full, or as full as its disks make it.
pub(crate) fn fill(inner: &Inner, sr: Ref, full: bool) {
    let mut db = inner.write();
    let Some(row) = db.find("SR", sr).cloned() else { return };
    let disks = row.get("VDIs").ref_items().filter_map(|vdi| db.find("VDI", vdi));
    let used: i64 = disks.map(|vdi| vdi.int("physical_utilisation")).sum();
    let used = if full { row.int("physical_size") } else { used };
    db.set("SR", sr, "physical_utilisation", used);
}

fn on_vm(inner: &Arc<Inner>, vm: Ref, verb: &str) -> Result<serde_json::Value, Refusal> {
    let uuid = inner.read().row("VM", vm)?.uuid();
    match verb {
        "mute" => {
            lock(&inner.mute).insert(uuid);
        }
        "unmute" => {
            lock(&inner.mute).remove(&uuid);
        }
        "poweroff" => guests::end(inner, vm, Ended::PowerOff),
        "reboot" => guests::end(inner, vm, Ended::Reboot),
        "crash" => guests::end(inner, vm, Ended::Crash),
        _ => return Err(Refusal::NotFound),
    }
    Ok(json!({}))
}

/// What a restart of the toolstack does: sessions and connections end, tasks are cancelled.
pub(crate) fn restart_toolstack(inner: &Arc<Inner>) {
    sessions::lose_all(inner);
    let pending: Vec<Ref> = {
        let db = inner.read();
        let pending = db.rows("task").filter(|row| row.text("status") == "pending");
        pending.map(|row| row.reference).collect()
    };
    for task in pending {
        inner.cancel(task);
        tasks::finish(inner, task, &Err(tasks::cancelled(task)));
    }
    let mut db = inner.write();
    db.forget_deletions();
    drop(db);
    inner.epoch.send_modify(|epoch| *epoch += 1);
}
