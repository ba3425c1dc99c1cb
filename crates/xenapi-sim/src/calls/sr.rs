//! Storage repositories, and how full they are.

use super::{Call, Handler, Outcome, blob};
use crate::database::{Database, Row};
use crate::error::{ApiError, bare, error};
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "create" => create,
        "introduce" => introduce,
        "destroy" => |call| leave(call, "destroy"),
        "forget" => |call| leave(call, "forget"),
        "scan" | "update" => |call| {
            call.inner.read().row("SR", call.subject()?)?;
            Ok(Value::Void)
        },
        "get_supported_types" => supported_types,
        "create_new_blob" => blob::create_for,
        "assert_can_host_ha_statefile" | "assert_supports_database_replication" => |call| {
            call.inner.read().row("SR", call.subject()?)?;
            Ok(Value::Void)
        },
        "get_data_sources" => |_| Ok(Value::set(Vec::new())),
        _ => return None,
    }))
}

/// Whether disks take up their whole size from the start.
pub(super) fn is_thick(sr: &Row) -> bool {
    sr.text("type").starts_with("lvm")
}

/// Refuses what does not fit.
pub(crate) fn check_space(db: &Database, sr: Ref, more: i64) -> Result<(), ApiError> {
    let row = db.row("SR", sr)?;
    let size = row.int("physical_size");
    if size >= 0 && row.int("physical_utilisation").saturating_add(more) > size {
        let text = "there is not enough space on the storage";
        return Err(error("SR_BACKEND_FAILURE_44", ["", text, ""]));
    }
    Ok(())
}

/// Counts what was added to a storage, or taken away.
pub(crate) fn account(db: &mut Database, sr: Ref, physical: i64, logical: i64) {
    let Some(row) = db.find("SR", sr) else { return };
    let used = row.int("physical_utilisation") + physical;
    let allocated = row.int("virtual_allocation") + logical;
    db.set("SR", sr, "physical_utilisation", used);
    db.set("SR", sr, "virtual_allocation", allocated);
}

const TYPES: &[&str] = &[
    "cephfs",
    "ext",
    "file",
    "glusterfs",
    "iso",
    "linstor",
    "lvm",
    "lvmohba",
    "lvmoiscsi",
    "moosefs",
    "nfs",
    "smb",
    "udev",
    "xfs",
    "zfs",
];

fn supported_types(_: &Call) -> Outcome {
    Ok(Value::texts(TYPES))
}

fn create(call: &Call) -> Outcome {
    let host = call.reference(0)?;
    let kind = call.text(5);
    if !TYPES.contains(&kind) {
        return Err(error("SR_UNKNOWN_DRIVER", [kind]));
    }
    let mut db = call.inner.write();
    db.row("host", host)?;
    let size = if call.int(2) > 0 { call.int(2) } else { 1 << 40 };
    let shared = call.flag(7);
    let sr = db.insert(
        "SR",
        vec![
            ("name_label", call.args[3].clone()),
            ("name_description", call.args[4].clone()),
            ("type", call.args[5].clone()),
            ("content_type", call.args[6].clone()),
            ("shared", shared.into()),
            ("sm_config", call.args[8].clone()),
            ("physical_size", size.into()),
            ("allowed_operations", Value::texts(OPERATIONS)),
        ],
    );
    let hosts: Vec<Ref> =
        if shared { db.rows("host").map(|row| row.reference).collect() } else { vec![host] };
    for host in hosts {
        db.insert(
            "PBD",
            vec![
                ("SR", sr.into()),
                ("host", host.into()),
                ("device_config", call.args[1].clone()),
                ("currently_attached", true.into()),
            ],
        );
    }
    Ok(sr.into())
}

/// What storage takes while it is plugged in.
pub(crate) const OPERATIONS: [&str; 10] = [
    "scan",
    "update",
    "vdi_create",
    "vdi_introduce",
    "vdi_destroy",
    "vdi_resize",
    "vdi_clone",
    "vdi_snapshot",
    "pbd_create",
    "plug",
];

fn introduce(call: &Call) -> Outcome {
    let names =
        ["uuid", "name_label", "name_description", "type", "content_type", "shared", "sm_config"];
    let mut fields: Vec<_> = names.into_iter().zip(call.args.iter().cloned()).collect();
    fields.push(("physical_size", (1_i64 << 40).into()));
    fields.push(("allowed_operations", Value::texts(OPERATIONS)));
    Ok(call.inner.write().insert("SR", fields).into())
}

fn leave(call: &Call, operation: &str) -> Outcome {
    let sr = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("SR", sr)?.clone();
    let attached = row
        .refs("PBDs")
        .into_iter()
        .find(|pbd| db.find("PBD", *pbd).is_some_and(|pbd| pbd.flag("currently_attached")));
    if let Some(pbd) = attached.filter(|_| operation == "forget") {
        return Err(error("SR_HAS_PBD", [sr, pbd]));
    }
    if operation == "destroy" && !row.refs("VDIs").is_empty() {
        return Err(bare("SR_NOT_EMPTY"));
    }
    for vdi in row.refs("VDIs") {
        super::vdi::forget(&mut db, vdi);
    }
    for pbd in row.refs("PBDs") {
        db.delete("PBD", pbd);
    }
    db.delete("SR", sr);
    Ok(Value::Void)
}
