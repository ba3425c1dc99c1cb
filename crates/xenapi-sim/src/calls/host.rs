//! Hosts.

use super::{Call, Handler, Outcome, blob, later, vm};
use crate::database::Row;
use crate::error::{ApiError, error};
use crate::placement;
use crate::schema::Schema;
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(match message {
        "evacuate" => later!(evacuate),
        _ => Handler::Now(now(message)?),
    })
}

fn now(message: &str) -> Option<fn(&Call) -> Outcome> {
    Some(match message {
        "destroy" => destroy,
        "enable" => |call| enable(call, true),
        "disable" => |call| enable(call, false),
        "compute_free_memory" => |call| {
            let db = call.inner.read();
            Ok(placement::free_memory(&db, db.row("host", call.subject()?)?).into())
        },
        "compute_memory_overhead" => {
            |call| Ok(call.inner.read().row("host", call.subject()?)?.int("memory_overhead").into())
        }
        "get_servertime" | "get_server_localtime" => |call| Ok(Value::Time(call.inner.clock.now())),
        "get_data_sources" => data_sources,
        "query_data_source" => query_data_source,
        "record_data_source"
        | "forget_data_source_archives"
        | "backup_rrds"
        | "sync_data"
        | "refresh_pack_info"
        | "send_debug_keys"
        | "dmesg_clear"
        | "syslog_reconfigure" => known,
        "assert_can_evacuate" => assert_can_evacuate,
        "get_vms_which_prevent_evacuation" => |call| Ok(Value::map(prevented(call)?)),
        "get_uncooperative_resident_VMs" => |_| Ok(Value::set(Vec::new())),
        "retrieve_wlb_evacuate_recommendations" => |_| Ok(Value::map(Vec::new())),
        "get_management_interface" => management_interface,
        "list_methods" => |_| Ok(Value::texts(&Schema::get().names)),
        "dmesg" | "get_log" => |_| Ok("".into()),
        "call_plugin" => |call| Err(error("XENAPI_MISSING_PLUGIN", [call.text(1)])),
        "call_extension" => |call| Err(error("MESSAGE_METHOD_UNKNOWN", [call.text(1)])),
        "has_extension" => |_| Ok(false.into()),
        "migrate_receive" => migrate_receive,
        "restart_agent" => |call| {
            known(call)?;
            crate::control::restart_toolstack(&call.inner);
            Ok(Value::Void)
        },
        "create_new_blob" => blob::create_for,
        "get_server_certificate" => |call| Ok(call.inner.options.certificate.as_str().into()),
        "get_sched_gran" => |_| Ok("core".into()),
        "get_system_status_capabilities" => |_| Ok("".into()),
        _ => return None,
    })
}

fn known(call: &Call) -> Outcome {
    call.inner.read().row("host", call.subject()?)?;
    Ok(Value::Void)
}

fn enable(call: &Call, enabled: bool) -> Outcome {
    let host = call.subject()?;
    let mut db = call.inner.write();
    db.row("host", host)?;
    db.set("host", host, "enabled", enabled);
    Ok(Value::Void)
}

/// Takes a host that is dead for good out of the pool.
fn destroy(call: &Call) -> Outcome {
    let host = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("host", host)?.clone();
    let master = db.find("pool", call.inner.pool).map(|pool| pool.reference("master"));
    if master == Some(host) {
        return Err(error("HOST_CANNOT_DESTROY_SELF", [host]));
    }
    if placement::is_live(&db, &row) {
        return Err(error("HOST_IS_LIVE", [host]));
    }
    let guest = |vm: &Ref| db.find("VM", *vm).is_some_and(|vm| !vm.flag("is_control_domain"));
    if row.refs("resident_VMs").iter().any(guest) {
        return Err(error("HOST_HAS_RESIDENT_VMS", [host]));
    }
    for (set, class) in [("PBDs", "PBD"), ("PIFs", "PIF")] {
        for part in row.refs(set) {
            db.delete(class, part);
        }
    }
    if let Some(domain) = db.find("VM", row.reference("control_domain")).cloned() {
        vm::delete(&mut db, &domain);
    }
    db.delete("host_metrics", row.reference("metrics"));
    db.delete("host", host);
    Ok(Value::Void)
}

const SOURCES: [(&str, &str); 4] = [
    ("cpu_avg", "(fraction)"),
    ("loadavg", "(fraction)"),
    ("memory_total_kib", "KiB"),
    ("memory_free_kib", "KiB"),
];

fn data_sources(call: &Call) -> Outcome {
    known(call)?;
    let source = |(name, units): (&str, &str)| {
        Value::members(vec![
            ("name_label", name.into()),
            ("name_description", name.into()),
            ("enabled", true.into()),
            ("standard", true.into()),
            ("units", units.into()),
            ("min", Value::Float(0.0)),
            ("max", Value::Float(1.0)),
            ("value", Value::Float(0.0)),
        ])
    };
    Ok(Value::set(SOURCES.map(source).to_vec()))
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53")]
fn query_data_source(call: &Call) -> Outcome {
    let db = call.inner.read();
    let host = db.row("host", call.subject()?)?;
    let kib = |field: &str| {
        let metrics = db.find("host_metrics", host.reference("metrics"));
        metrics.map_or(0, |metrics| metrics.int(field)) as f64 / 1024.0
    };
    Ok(Value::Float(match call.text(1) {
        "memory_total_kib" => kib("memory_total"),
        "memory_free_kib" => kib("memory_free"),
        _ => vm::load(host.uuid(), call.inner.clock.now()),
    }))
}

/// VMs that cannot leave a host, with the reasons.
fn prevented(call: &Call) -> Result<Vec<(Value, Value)>, ApiError> {
    let db = call.inner.read();
    let host = db.row("host", call.subject()?)?;
    let stuck = host.get("resident_VMs").ref_items().filter_map(|vm| db.find("VM", vm));
    let stuck =
        stuck.filter(|vm| !vm.flag("is_control_domain") && elsewhere(call, &db, vm).is_none());
    let told =
        |vm: &std::sync::Arc<Row>| (Value::Ref(vm.reference), Value::texts(["NO_HOSTS_AVAILABLE"]));
    Ok(stuck.map(told).collect())
}

/// Another host for a VM.
fn elsewhere(_call: &Call, db: &crate::database::Database, vm: &Row) -> Option<Ref> {
    let possible = placement::possible_hosts(db, vm);
    possible.into_iter().find(|host| *host != vm.reference("resident_on"))
}

fn assert_can_evacuate(call: &Call) -> Outcome {
    match prevented(call)?.first() {
        None => Ok(Value::Void),
        Some(_) => Err(error("CANNOT_EVACUATE_HOST", ["NO_HOSTS_AVAILABLE"])),
    }
}

async fn evacuate(call: Call) -> Outcome {
    let host = call.subject()?;
    enable(&call, false)?;
    let guests = {
        let db = call.inner.read();
        let guests = db.row("host", host)?.refs("resident_VMs");
        let real = |vm: &Ref| db.find("VM", *vm).is_some_and(|row| !row.flag("is_control_domain"));
        guests.into_iter().filter(real).collect::<Vec<_>>()
    };
    call.take_time().await?;
    for guest in guests {
        let target = {
            let db = call.inner.read();
            let Some(row) = db.find("VM", guest) else { continue };
            elsewhere(&call, &db, row)
        };
        let Some(target) = target else {
            return Err(error("CANNOT_EVACUATE_HOST", ["NO_HOSTS_AVAILABLE"]));
        };
        vm::arrive(&call, guest, target)?;
    }
    Ok(Value::Void)
}

fn management_interface(call: &Call) -> Outcome {
    let db = call.inner.read();
    let host = db.row("host", call.subject()?)?;
    let pifs = host.get("PIFs").ref_items();
    let management =
        pifs.into_iter().find(|pif| db.find("PIF", *pif).is_some_and(|pif| pif.flag("management")));
    management
        .map(Value::Ref)
        .ok_or_else(|| error("HOST_HAS_NO_MANAGEMENT_IP", Vec::<String>::new()))
}

fn migrate_receive(call: &Call) -> Outcome {
    let host = call.subject()?;
    let db = call.inner.read();
    let address = db.row("host", host)?.text("address");
    let url = format!("http://{address}/");
    Ok(Value::text_map([
        ("host", host.to_string().as_str()),
        ("session_id", call.session.to_string().as_str()),
        ("xenops", url.as_str()),
        ("master", url.as_str()),
        ("SM", url.as_str()),
    ]))
}
