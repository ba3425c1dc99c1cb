//! Virtual machines.

mod copies;
mod creation;
mod placement;
mod power;
mod revert;
mod settings;

use super::{Call, Handler, Outcome, announce, blob, later};
use crate::error::error;
use crate::lifecycle;
use crate::value::{Ref, Value};

pub(crate) use creation::{delete, insert};
pub(crate) use power::{arrive, power_off_one, shut_down_one, start_one};

pub(super) fn handler(message: &str) -> Option<Handler> {
    power::handler(message)
        .or_else(|| copies::handler(message))
        .or_else(|| settings::handler(message))
        .or_else(|| placement::handler(message))
        .or_else(|| own(message))
}

fn own(message: &str) -> Option<Handler> {
    Some(match message {
        "create" => Handler::Now(creation::create),
        "provision" => later!(creation::provision),
        "destroy" => later!(creation::destroy),
        "revert" => later!(revert::revert),
        "create_new_blob" => Handler::Now(blob::create_for),
        "assert_operation_valid" => Handler::Now(assert_valid),
        "update_allowed_operations" => Handler::Now(update_allowed),
        "get_allowed_VBD_devices" => Handler::Now(vbd_devices),
        "get_allowed_VIF_devices" => Handler::Now(vif_devices),
        "get_cooperative" => Handler::Now(|_| Ok(true.into())),
        "query_services" => Handler::Now(|_| Ok(Value::map(Vec::new()))),
        "get_boot_record" => Handler::Now(|call| {
            Ok(Value::Record(call.inner.read().row("VM", call.subject()?)?.clone()))
        }),
        "get_data_sources" => Handler::Now(data_sources),
        "query_data_source" => Handler::Now(query_data_source),
        "record_data_source" | "forget_data_source_archives" | "send_sysrq" | "send_trigger" => {
            Handler::Now(known)
        }
        "copy_bios_strings" => Handler::Now(copy_bios_strings),
        "call_plugin" => Handler::Now(|call| Err(error("XENAPI_MISSING_PLUGIN", [call.text(1)]))),
        _ => return None,
    })
}

/// Does nothing, for a VM that there is.
fn known(call: &Call) -> Outcome {
    call.inner.read().row("VM", call.subject()?)?;
    Ok(Value::Void)
}

fn assert_valid(call: &Call) -> Outcome {
    let db = call.inner.read();
    lifecycle::check(&db, db.row("VM", call.subject()?)?, call.text(1))?;
    Ok(Value::Void)
}

fn update_allowed(call: &Call) -> Outcome {
    let mut db = call.inner.write();
    let vm = call.subject()?;
    db.row("VM", vm)?;
    lifecycle::refresh(&mut db, vm);
    Ok(Value::Void)
}

fn vbd_devices(call: &Call) -> Outcome {
    let db = call.inner.read();
    let used = used(&db, db.row("VM", call.subject()?)?, "VBDs", "VBD", "userdevice");
    Ok(Value::texts((0..=254).map(|it: u32| it.to_string()).filter(|it| !used.contains(it))))
}

fn vif_devices(call: &Call) -> Outcome {
    let db = call.inner.read();
    let used = used(&db, db.row("VM", call.subject()?)?, "VIFs", "VIF", "device");
    Ok(Value::texts((0..7).map(|it: u32| it.to_string()).filter(|it| !used.contains(it))))
}

/// The device numbers that a VM's devices of one class have.
pub(super) fn used(
    db: &crate::database::Database,
    vm: &crate::database::Row,
    set: &str,
    class: &str,
    field: &str,
) -> Vec<String> {
    let devices = vm.get(set).ref_items().filter_map(|device| db.find(class, device));
    devices.map(|device| device.text(field).to_owned()).collect()
}

const SOURCES: [(&str, &str); 3] =
    [("cpu0", "(fraction)"), ("memory", "B"), ("cpu_usage", "(fraction)")];

fn data_sources(call: &Call) -> Outcome {
    call.inner.read().row("VM", call.subject()?)?;
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

fn query_data_source(call: &Call) -> Outcome {
    let db = call.inner.read();
    let vm = db.row("VM", call.subject()?)?;
    let running = vm.text("power_state") == "Running";
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53")]
    let memory = vm.int("memory_dynamic_max") as f64;
    match call.text(1) {
        _ if !running => Ok(Value::Float(0.0)),
        "memory" => Ok(Value::Float(memory)),
        name if name.starts_with("cpu") => {
            Ok(Value::Float(load(vm.uuid(), call.inner.clock.now())))
        }
        _ => Ok(Value::Float(0.0)),
    }
}

/// A made-up load, which moves with time.
pub(crate) fn load(uuid: uuid::Uuid, now: i64) -> f64 {
    let phase = u32::from(uuid.as_bytes()[0]);
    #[expect(clippy::cast_precision_loss, reason = "only the seconds within some minutes count")]
    let seconds = now.rem_euclid(600) as f64;
    0.05 + 0.04 * ((seconds + f64::from(phase)) / 40.0).sin()
}

fn copy_bios_strings(call: &Call) -> Outcome {
    let (vm, host) = (call.subject()?, call.reference(1)?);
    let mut db = call.inner.write();
    let strings = db.row("host", host)?.get("bios_strings").clone();
    if !db.row("VM", vm)?.get("bios_strings").entries().is_empty() {
        return Err(error("VM_BIOS_STRINGS_ALREADY_SET", [vm]));
    }
    db.set("VM", vm, "bios_strings", strings);
    Ok(Value::Void)
}

/// Tells of something that happened to a VM.
fn tell(call: &Call, db: &mut crate::database::Database, name: &'static str, vm: Ref) {
    if let Some(uuid) = db.find("VM", vm).map(|row| row.uuid()) {
        announce(&call.inner, db, name, "VM", uuid);
    }
}

/// A VM that is off, with its metrics.
pub(crate) fn creation_insert(
    db: &mut crate::database::Database,
    fields: Vec<(&'static str, Value)>,
) -> Ref {
    creation::insert(db, fields)
}
