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
//! | `GET`, `POST`, `DELETE /_sim/guests/faults`, `DELETE /_sim/guests/faults/N` | the same for guests that boot: `{"vm": "web-*", "faults": ["ssh-refuses"], "times": 1}` |
//! | `POST /_sim/hosts/UUID/die`, `…/revive` | makes a host dead with its VMs, or alive again |
//! | `POST /_sim/hosts/UUID/memory` | sets how much memory a host has: `{"bytes": 8589934592}` |
//! | `POST /_sim/srs/UUID/fill`, `…/drain` | makes a storage full, or as full as its disks make it |
//! | `POST /_sim/vms/UUID/mute`, `…/unmute` | keeps a guest's agent from being heard from the next boot on |
//! | `POST /_sim/vms/UUID/poweroff`, `…/reboot`, `…/crash` | has the guest end by itself; answered when its processes have ended |
//! | `POST /_sim/vms/UUID/vanish` | makes a VM, template or snapshot vanish with its disks |
//! | `POST /_sim/clock/advance` | moves the time of day: `{"seconds": 3600}` |

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::calls;
use crate::driver::{Ended, GuestError};
use crate::error::ApiError;
use crate::faults::{FaultRule, GuestFaultRule};
use crate::guests;
use crate::http::{Answer, Credentials, Head};
use crate::inner::{Inner, lock};
use crate::placement;
use crate::schema::Schema;
use crate::store::DiskId;
use crate::value::Ref;
use crate::{sessions, tasks};

/// Answers a request below `/_sim`.
pub(crate) async fn answer(inner: &Arc<Inner>, head: &Head, body: &[u8]) -> Answer {
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
    let done = act(inner, head, body).await;
    let done = match inner.kept().await {
        Ok(()) => done,
        Err(error) => Err(Refusal::Failed(error.params.join(" "))),
    };
    match done {
        Ok(value) => Answer::json(200, "OK", &value),
        Err(Refusal::NotFound) => {
            Answer::json(404, "Not Found", &json!({"error": "there is no such thing"}))
        }
        Err(Refusal::Wrong(reason)) => Answer::json(400, "Bad Request", &json!({"error": reason})),
        Err(Refusal::Failed(reason)) => {
            Answer::json(500, "Internal Server Error", &json!({"error": reason}))
        }
    }
}

enum Refusal {
    NotFound,
    Wrong(String),
    Failed(String),
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<GuestError> for Refusal {
    fn from(error: GuestError) -> Self {
        Self::Failed(error.message)
    }
}

impl From<ApiError> for Refusal {
    fn from(_: ApiError) -> Self {
        Self::NotFound
    }
}

async fn act(inner: &Arc<Inner>, head: &Head, body: &[u8]) -> Result<serde_json::Value, Refusal> {
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
        ("GET", ["guests", "faults"]) => Ok(json!(inner.guest_faults.list())),
        ("POST", ["guests", "faults"]) => {
            let rule: GuestFaultRule = serde_json::from_slice(body)?;
            Ok(json!({ "id": inner.guest_faults.add(rule) }))
        }
        ("DELETE", ["guests", "faults"]) => {
            Ok(json!({ "removed": inner.guest_faults.remove(None) }))
        }
        ("DELETE", ["guests", "faults", number]) => {
            let number = number.parse().map_err(|_| Refusal::NotFound)?;
            Ok(json!({ "removed": inner.guest_faults.remove(Some(number)) }))
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
        ("POST", ["hosts", uuid, "memory"]) => {
            let wanted: Memory = serde_json::from_slice(body)?;
            set_memory(inner, find(inner, "host", uuid)?, wanted.bytes);
            Ok(json!({}))
        }
        ("POST", ["hosts", uuid, verb]) => on_host(inner, find(inner, "host", uuid)?, verb).await,
        ("POST", ["srs", uuid, verb]) => on_storage(inner, find(inner, "SR", uuid)?, verb),
        ("POST", ["vms", uuid, verb]) => on_vm(inner, find(inner, "VM", uuid)?, verb).await,
        _ => Err(Refusal::NotFound),
    }
}

/// How much memory a host is to have.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    bytes: u64,
}

fn summary(inner: &Inner) -> serde_json::Value {
    let db = inner.read();
    let host = |row: &Arc<crate::database::Row>| json!({ "uuid": row.uuid(), "name": row.text("name_label"), "address": row.text("address") });
    let hosts: Vec<_> = db.rows("host").map(host).collect();
    json!({
        "hosts": hosts,
        "faults": inner.faults.list(),
        "guest_faults": inner.guest_faults.list(),
        "guests": inner.driver.name(),
        "seed": inner.options.seed,
        "vms": db.count(Schema::get().class("VM")),
    })
}

fn find(inner: &Inner, class: &str, uuid: &str) -> Result<Ref, Refusal> {
    Ok(inner.read().by_uuid(Schema::get().class(class), uuid)?)
}

async fn on_host(inner: &Arc<Inner>, host: Ref, verb: &str) -> Result<serde_json::Value, Refusal> {
    match verb {
        "die" => host_dies(inner, host).await,
        "revive" => host_revives(inner, host),
        _ => return Err(Refusal::NotFound),
    }
    Ok(json!({}))
}

/// Makes a host dead, and its VMs and their guests with it.
pub(crate) async fn host_dies(inner: &Inner, host: Ref) {
    let guests: Vec<Ref> = {
        let mut db = inner.write();
        let Some(row) = db.find("host", host).cloned() else { return };
        // Before the guests end, so that none starts here meanwhile.
        db.set("host_metrics", row.reference("metrics"), "live", false);
        db.set("host", host, "enabled", false);
        let guest = |vm: &Ref| db.find("VM", *vm).is_some_and(|row| !row.flag("is_control_domain"));
        row.refs("resident_VMs").into_iter().filter(guest).collect()
    };
    for vm in guests {
        if let Err(error) = guests::kill(inner, vm).await {
            tracing::warn!(%vm, %error, "a guest did not end with its host");
        }
        let mut db = inner.write();
        if db.find("VM", vm).is_some_and(|row| row.reference("resident_on") == host) {
            guests::turned_off(inner, &mut db, vm);
        }
    }
}

/// Gives a host this much memory.
pub(crate) fn set_memory(inner: &Inner, host: Ref, bytes: u64) {
    let mut db = inner.write();
    let Some(metrics) = db.find("host", host).map(|row| row.reference("metrics")) else { return };
    db.set("host_metrics", metrics, "memory_total", i64::try_from(bytes).unwrap_or(i64::MAX));
    placement::refresh_metrics(&mut db, host, inner.clock.now());
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

async fn on_vm(inner: &Arc<Inner>, vm: Ref, verb: &str) -> Result<serde_json::Value, Refusal> {
    let uuid = inner.read().row("VM", vm)?.uuid();
    match verb {
        "mute" => {
            lock(&inner.mute).insert(uuid);
        }
        "unmute" => {
            lock(&inner.mute).remove(&uuid);
        }
        "poweroff" => end_guest(inner, vm, Ended::PowerOff).await?,
        "reboot" => end_guest(inner, vm, Ended::Reboot).await?,
        "crash" => end_guest(inner, vm, Ended::Crash).await?,
        "vanish" => vanish(inner, vm).await,
        _ => return Err(Refusal::NotFound),
    }
    Ok(json!({}))
}

/// Has a guest end as if it had done so by itself.
async fn end_guest(inner: &Arc<Inner>, vm: Ref, ended: Ended) -> Result<(), GuestError> {
    let runs = {
        let db = inner.read();
        db.find("VM", vm).is_some_and(|row| matches!(row.text("power_state"), "Running" | "Paused"))
    };
    if runs {
        guests::kill(inner, vm).await?;
        guests::end(inner, vm, ended);
    }
    Ok(())
}

/// Makes a VM vanish with its disks, whatever it is doing.
pub(crate) async fn vanish(inner: &Arc<Inner>, vm: Ref) {
    if let Err(error) = guests::kill(inner, vm).await {
        tracing::warn!(%vm, %error, "a guest did not end");
    }
    let (uuid, disks) = {
        let mut db = inner.write();
        let Some(row) = db.find("VM", vm).cloned() else { return };
        guests::turned_off(inner, &mut db, vm);
        let drives = row.get("VBDs").ref_items().filter_map(|drive| db.find("VBD", drive));
        let drives = drives.filter(|drive| drive.text("type") != "CD");
        let mut disks: Vec<Ref> = drives.map(|drive| drive.reference("VDI")).collect();
        disks.push(row.reference("suspend_VDI"));
        calls::vm::delete(&mut db, &row);
        let disks = disks.into_iter().filter_map(|disk| {
            let uuid = db.find("VDI", disk).filter(|row| row.refs("VBDs").is_empty())?.uuid();
            calls::vdi::forget(&mut db, disk);
            Some(DiskId(uuid))
        });
        (row.uuid(), disks.collect::<Vec<_>>())
    };
    inner.driver.destroyed(uuid).await;
    let store = Arc::clone(&inner.store);
    let removed = tokio::task::spawn_blocking(move || {
        disks.into_iter().try_for_each(|disk| store.destroy(disk))
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(%vm, %error, "a disk stayed");
    }
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
