//! Logging in, staying in, and being thrown out.

use std::sync::Arc;

use crate::database::Database;
use crate::error::{ApiError, error};
use crate::inner::Inner;
use crate::options::Role;
use crate::value::{Ref, Value};

/// How long a session lasts without a call.
const IDLE: i64 = 24 * 3600;
/// How much later than noted a session may have been used.
const REFRESH: i64 = 600;
/// How many sessions an originator or a user has at most.
const LIMIT: usize = 500;

/// Opens a session for who knows the password.
pub(crate) fn login(
    inner: &Inner,
    host: usize,
    name: &str,
    password: &str,
    originator: &str,
) -> Result<Ref, ApiError> {
    let known = {
        let users = inner.users.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        users.get(name).filter(|user| user.password == password).map(|user| user.role)
    };
    let Some(role) = known else {
        let reason = "the user name or the password is wrong";
        return Err(error("SESSION_AUTHENTICATION_FAILED", [name, reason]));
    };
    let now = inner.clock.now();
    let mut db = inner.write();
    evict(&mut db, "originator", originator);
    evict(&mut db, "auth_user_name", name);
    Ok(db.insert(
        "session",
        vec![
            ("this_host", inner.hosts[host].host.into()),
            ("auth_user_name", name.into()),
            ("originator", originator.into()),
            ("is_local_superuser", (role == Role::PoolAdmin && name == "root").into()),
            ("last_active", Value::Time(now)),
            ("validation_time", Value::Time(now)),
        ],
    ))
}

/// Makes room for one more session with this value in this field.
fn evict(db: &mut Database, field: &str, value: &str) {
    let same = db.rows("session").filter(|row| row.text(field) == value);
    let mut same: Vec<_> =
        same.map(|row| (row.int_time("last_active"), row.created, row.reference)).collect();
    if same.len() >= LIMIT {
        same.sort_unstable();
        for (_, _, reference) in &same[..=same.len() - LIMIT] {
            db.delete("session", *reference);
        }
    }
}

/// The session with this text, which must be open; its use is noted.
pub(crate) fn check(inner: &Inner, text: &str) -> Result<Ref, ApiError> {
    let invalid = || error("SESSION_INVALID", [text]);
    let reference = Ref::parse(text).ok_or_else(invalid)?;
    let now = inner.clock.now();
    let last = {
        let db = inner.read();
        db.find("session", reference).ok_or_else(invalid)?.int_time("last_active")
    };
    if now - last > IDLE {
        inner.write().delete("session", reference);
        return Err(invalid());
    }
    if now - last > REFRESH {
        inner.write().set("session", reference, "last_active", Value::Time(now));
    }
    Ok(reference)
}

/// What the owner of this session may do.
pub(crate) fn role(inner: &Inner, session: Ref) -> Role {
    let db = inner.read();
    let Some(row) = db.find("session", session) else { return Role::ReadOnly };
    if row.flag("is_local_superuser") {
        return Role::PoolAdmin;
    }
    let users = inner.users.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    users.get(row.text("auth_user_name")).map_or(Role::ReadOnly, |user| user.role)
}

/// Ends all sessions, as a restart of the toolstack does.
pub(crate) fn lose_all(inner: &Arc<Inner>) {
    let mut db = inner.write();
    let all: Vec<Ref> = db.rows("session").map(|row| row.reference).collect();
    for session in all {
        db.delete("session", session);
    }
}

/// The least that a method asks for.
pub(crate) fn needed_role(class: &str, message: &str) -> Role {
    let reads = message.starts_with("get_") || message.starts_with("compute_");
    if reads && class != "secret" {
        return Role::ReadOnly;
    }
    match (class, message) {
        ("session", _)
        | ("event", "from" | "next" | "register" | "unregister")
        | ("task", "create" | "destroy" | "cancel") => Role::ReadOnly,
        ("event" | "task", _)
        | (
            "VM",
            "start" | "clean_shutdown" | "hard_shutdown" | "clean_reboot" | "hard_reboot" | "pause"
            | "unpause" | "suspend" | "resume" | "shutdown" | "send_sysrq" | "send_trigger"
            | "query_services",
        )
        | ("VBD", "insert" | "eject") => Role::VmOperator,
        ("VM", "start_on" | "resume_on" | "pool_migrate" | "migrate_send" | "checkpoint") => {
            Role::VmPowerAdmin
        }
        (
            "VM" | "VBD" | "VIF" | "VDI" | "console" | "VM_appliance" | "VTPM" | "VGPU" | "blob"
            | "message" | "VM_guest_metrics" | "VM_metrics" | "VMSS",
            _,
        ) => Role::VmAdmin,
        ("user" | "role" | "subject" | "secret", _)
        | ("host" | "pool", "call_plugin" | "call_extension" | "join" | "join_force") => {
            Role::PoolAdmin
        }
        _ => Role::PoolOperator,
    }
}

/// Refuses what the session's owner may not do.
pub(crate) fn permit(
    inner: &Inner,
    session: Ref,
    class: &str,
    message: &str,
) -> Result<(), ApiError> {
    let needed = needed_role(class, message);
    if needed == Role::ReadOnly || role(inner, session) >= needed {
        return Ok(());
    }
    let permission = format!("{class}.{message}").to_lowercase();
    let text = format!("the role {} is needed", needed.name());
    Err(error("RBAC_PERMISSION_DENIED", [permission, text]))
}
