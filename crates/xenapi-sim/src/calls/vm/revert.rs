//! Going back to a snapshot.

use super::{copies, power, tell};
use crate::calls::{Call, Outcome, vdi};
use crate::database::{Database, Row};
use crate::error::{ApiError, error};
use crate::lifecycle;
use crate::operations;
use crate::store::DiskId;
use crate::value::{Ref, Value};

/// Fields that a VM keeps when it goes back.
const KEPT: &[&str] = &[
    "uuid",
    "tags",
    "affinity",
    "snapshots",
    "groups",
    "VBDs",
    "VIFs",
    "VGPUs",
    "VTPMs",
    "VUSBs",
    "consoles",
    "crash_dumps",
    "children",
    "metrics",
    "guest_metrics",
    "resident_on",
    "scheduled_to_be_resident_on",
    "current_operations",
    "allowed_operations",
    "appliance",
    "suspend_VDI",
    "domid",
    "is_a_template",
    "is_a_snapshot",
    "snapshot_of",
    "snapshot_time",
    "snapshot_info",
    "snapshot_metadata",
    "parent",
    "power_state",
    "name_label",
    "generation_id",
    "blobs",
    "is_default_template",
    "attached_PCIs",
];

pub(super) async fn revert(call: Call) -> Outcome {
    let snapshot = call.subject()?;
    let row = {
        let db = call.inner.read();
        let row = db.row("VM", snapshot)?.clone();
        lifecycle::check(&db, &row, "revert")?;
        row
    };
    let vm = row.reference("snapshot_of");
    if call.inner.read().find("VM", vm).is_none() {
        return Err(error("VM_REVERT_FAILED", [snapshot, vm]));
    }
    let _snapshot_busy = operations::begin(&call, snapshot, "revert").await?;
    let running = call.inner.read().row("VM", vm)?.text("power_state") != "Halted";
    if running {
        power::power_off_one(&call, vm).await?;
    }
    let (old, disks) = {
        let mut db = call.inner.write();
        let before = db.row("VM", vm)?.clone();
        let disks = plan(&mut db, &row)?;
        (before, disks)
    };
    let pairs: Vec<_> = disks.iter().map(|disk| (disk.from, disk.to)).collect();
    call.on_disks(move |store| {
        pairs.into_iter().try_for_each(|(from, to)| store.clone_disk(from, to))
    })
    .await?;
    call.take_time().await?;
    let gone = apply(&call, &old, &row, &disks)?;
    for disk in gone {
        vdi::remove(&call, disk).await?;
    }
    tell(&call, &mut call.inner.write(), "VM_REVERTED", vm);
    Ok(Value::Void)
}

/// A disk that comes back.
struct Returned {
    /// The snapshot's drive that it belongs to.
    drive: Ref,
    /// The disk that it takes the place of.
    instead_of: Ref,
    vdi: Ref,
    from: DiskId,
    to: DiskId,
}

fn plan(db: &mut Database, snapshot: &Row) -> Result<Vec<Returned>, ApiError> {
    let mut disks = Vec::new();
    for drive in snapshot.refs("VBDs") {
        let Some(vbd) = db.find("VBD", drive).cloned() else { continue };
        if vbd.text("type") == "CD" {
            continue;
        }
        let Some(kept) = db.find("VDI", vbd.reference("VDI")).cloned() else { continue };
        let vdi = vdi::clone_row(db, &kept, kept.reference("SR"))?;
        let instead_of = kept.reference("snapshot_of");
        let name = db.find("VDI", instead_of).map(|row| row.get("name_label").clone());
        if let Some(name) = name {
            db.set("VDI", vdi, "name_label", name);
        }
        let to = DiskId(db.row("VDI", vdi)?.uuid());
        disks.push(Returned { drive, instead_of, vdi, from: DiskId(kept.uuid()), to });
    }
    Ok(disks)
}

/// Puts everything back, and answers the disks that are not needed any more.
fn apply(call: &Call, vm: &Row, snapshot: &Row, disks: &[Returned]) -> Result<Vec<Ref>, ApiError> {
    let mut db = call.inner.write();
    let reference = vm.reference;
    for (field, value) in snapshot.members() {
        if !KEPT.contains(&field) {
            db.set("VM", reference, field, value);
        }
    }
    let original: Option<serde_json::Value> =
        serde_json::from_str(snapshot.text("snapshot_metadata")).ok();
    if let Some(name) = original.as_ref().and_then(|it| it["name_label"].as_str()) {
        db.set("VM", reference, "name_label", name);
    }
    for vbd in vm.refs("VBDs") {
        db.delete("VBD", vbd);
    }
    for vif in vm.refs("VIFs") {
        db.delete("VIF", vif);
    }
    for drive in snapshot.refs("VBDs") {
        let Some(vbd) = db.find("VBD", drive).cloned() else { continue };
        let mut fields = copies::drive_fields(&vbd, reference);
        if let Some(disk) = disks.iter().find(|disk| disk.drive == drive) {
            fields.retain(|(field, _)| *field != "VDI");
            fields.push(("VDI", disk.vdi.into()));
        }
        db.insert("VBD", fields);
    }
    copies::copy_interfaces(&mut db, snapshot, reference, None);
    let mut gone = Vec::new();
    for disk in disks {
        // Later snapshots stay snapshots of the disk, though it is another now.
        for sibling in
            db.find("VDI", disk.instead_of).map(|row| row.refs("snapshots")).unwrap_or_default()
        {
            db.set("VDI", sibling, "snapshot_of", disk.vdi);
        }
        if db.find("VDI", disk.instead_of).is_some_and(|row| row.refs("VBDs").is_empty()) {
            gone.push(disk.instead_of);
        }
    }
    db.set("VM", reference, "parent", snapshot.reference);
    if snapshot.text("power_state") == "Suspended" {
        let image = db.find("VDI", snapshot.reference("suspend_VDI")).cloned();
        if let Some(image) = image {
            let copy = vdi::clone_row(&mut db, &image, image.reference("SR"))?;
            db.set("VM", reference, "suspend_VDI", copy);
            lifecycle::leave_host(&mut db, reference, "Suspended");
        }
    }
    lifecycle::refresh(&mut db, reference);
    Ok(gone)
}
