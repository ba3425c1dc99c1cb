//! Clones, copies, snapshots and checkpoints.

use super::{power, tell};
use crate::calls::{Call, Handler, Outcome, later, vdi};
use crate::database::{Database, Row};
use crate::error::{ApiError, not_allowed};
use crate::lifecycle;
use crate::operations;
use crate::random::mac_address;
use crate::store::DiskId;
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(match message {
        "clone" => later!(clone),
        "copy" => later!(copy),
        "snapshot" => later!(snapshot),
        "checkpoint" => later!(checkpoint),
        _ => return None,
    })
}

/// What kind of copy is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Clone,
    /// With all disks on this storage, or each where it was.
    Copy(Option<Ref>),
    Snapshot,
    Checkpoint,
}

impl Kind {
    fn is_snapshot(self) -> bool {
        matches!(self, Self::Snapshot | Self::Checkpoint)
    }
}

async fn clone(call: Call) -> Outcome {
    make(&call, "clone", Kind::Clone, &[], "VM_CLONED").await
}

async fn copy(call: Call) -> Outcome {
    let sr = Some(call.reference(2)?).filter(|sr| !sr.is_null());
    if let Some(sr) = sr {
        let db = call.inner.read();
        if db.row("SR", sr)?.text("content_type") == "iso" {
            return Err(not_allowed("disks cannot be copied to an SR that holds ISO images"));
        }
    }
    make(&call, "copy", Kind::Copy(sr), &[], "VM_COPIED").await
}

async fn snapshot(call: Call) -> Outcome {
    let ignored: Vec<Ref> = call.args[2].ref_items().collect();
    make(&call, "snapshot", Kind::Snapshot, &ignored, "VM_SNAPSHOTTED").await
}

async fn checkpoint(call: Call) -> Outcome {
    make(&call, "checkpoint", Kind::Checkpoint, &[], "VM_CHECKPOINTED").await
}

/// A disk of the new VM.
struct NewDisk {
    /// The drive of the old VM that it is copied from.
    drive: Ref,
    from: DiskId,
    vdi: Ref,
    to: DiskId,
}

async fn make(
    call: &Call,
    operation: &'static str,
    kind: Kind,
    ignored: &[Ref],
    message: &'static str,
) -> Outcome {
    let vm = call.subject()?;
    let _busy = operations::begin(call, vm, operation).await?;
    let (row, disks) = {
        let mut db = call.inner.write();
        let row = db.row("VM", vm)?.clone();
        let disks = new_disks(&mut db, &row, kind, ignored, call.inner.clock.now())?;
        (row, disks)
    };
    let made = copy_bytes(call, &disks).await;
    let made = match made {
        Ok(()) => call.take_time().await,
        Err(error) => Err(error),
    };
    let made = made.and_then(|()| {
        let mut db = call.inner.write();
        // Whoever is copied may have vanished meanwhile.
        db.row("VM", vm)?;
        let copy = new_vm(call, &mut db, &row, call.text(1), kind, &disks)?;
        tell(call, &mut db, message, vm);
        Ok(copy)
    });
    match made {
        Ok(copy) => Ok(copy.into()),
        Err(error) => {
            for disk in &disks {
                vdi::remove(call, disk.vdi).await?;
            }
            Err(error)
        }
    }
}

async fn copy_bytes(call: &Call, disks: &[NewDisk]) -> Result<(), ApiError> {
    let pairs: Vec<_> = disks.iter().map(|disk| (disk.from, disk.to)).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    call.on_disks(move |store| {
        pairs.into_iter().try_for_each(|(from, to)| store.clone_disk(from, to))
    })
    .await
}

fn new_disks(
    db: &mut Database,
    vm: &Row,
    kind: Kind,
    ignored: &[Ref],
    now: i64,
) -> Result<Vec<NewDisk>, ApiError> {
    let mut disks = Vec::new();
    for drive in vm.refs("VBDs") {
        let Some(vbd) = db.find("VBD", drive).cloned() else { continue };
        if vbd.text("type") == "CD" || vbd.flag("empty") || ignored.contains(&vbd.reference("VDI"))
        {
            continue;
        }
        let Some(old) = db.find("VDI", vbd.reference("VDI")).cloned() else { continue };
        let sr = if let Kind::Copy(Some(sr)) = kind { sr } else { old.reference("SR") };
        let made = if kind.is_snapshot() {
            vdi::snapshot_row(db, &old, now)
        } else {
            vdi::clone_row(db, &old, sr)
        };
        let vdi = match made {
            Ok(vdi) => vdi,
            Err(error) => {
                for disk in disks {
                    let NewDisk { vdi, .. } = disk;
                    vdi::forget(db, vdi);
                }
                return Err(error);
            }
        };
        let to = DiskId(db.row("VDI", vdi)?.uuid());
        disks.push(NewDisk { drive, from: DiskId(old.uuid()), vdi, to });
    }
    Ok(disks)
}

/// Fields that a copy does not take over.
const OWN: &[&str] = &[
    "uuid",
    "VBDs",
    "VIFs",
    "VGPUs",
    "VTPMs",
    "VUSBs",
    "consoles",
    "crash_dumps",
    "snapshots",
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
    "attached_PCIs",
    "blobs",
    "parent",
    "is_default_template",
    "ha_always_run",
    "ha_restart_priority",
    "snapshot_of",
    "is_a_snapshot",
    "snapshot_time",
    "snapshot_info",
    "snapshot_metadata",
    "power_state",
    "name_label",
    "blocked_operations",
];

fn new_vm(
    call: &Call,
    db: &mut Database,
    vm: &Row,
    name: &str,
    kind: Kind,
    disks: &[NewDisk],
) -> Result<Ref, ApiError> {
    let now = call.inner.clock.now();
    let mut fields = vm.members();
    fields.retain(|(field, _)| !OWN.contains(field));
    let seed = db.random.uuid().hyphenated().to_string();
    if !kind.is_snapshot() {
        let mut config = vm.get("other_config").clone();
        let was_template = vm.flag("is_a_template") && !vm.flag("is_a_snapshot");
        for key in ["default_template", "mac_seed"] {
            config = config.without(&key.into());
        }
        if was_template {
            config = config.with("base_template_name".into(), vm.text("name_label").into());
        }
        fields.retain(|(field, _)| *field != "other_config");
        fields.push(("other_config", config.with("mac_seed".into(), seed.as_str().into())));
    }
    let generation = format!("{}:{}", db.random.next() >> 1, db.random.next() >> 1);
    fields.retain(|(field, _)| !["generation_id", "is_a_template"].contains(field));
    fields.push(("generation_id", generation.into()));
    fields.push(("name_label", name.into()));
    fields.push(("domid", (-1).into()));
    fields.push(("is_a_template", (kind.is_snapshot() || vm.flag("is_a_template")).into()));
    fields.extend(copied_metrics(db, vm));
    if kind.is_snapshot() {
        fields.extend(snapshot_fields(call, db, vm, kind, now)?);
    }
    let copy = db.insert("VM", fields);
    copy_drives(db, vm, copy, kind, disks);
    copy_interfaces(db, vm, copy, (!kind.is_snapshot()).then_some(seed.as_str()));
    if kind.is_snapshot() {
        db.set("VM", vm.reference, "parent", copy);
    }
    lifecycle::refresh(db, copy);
    Ok(copy)
}

fn copied_metrics(db: &mut Database, vm: &Row) -> Vec<(&'static str, Value)> {
    let mut copy = |class: &'static str, field: &'static str| {
        let row = db.find(class, vm.reference(field)).cloned();
        let fields = row.map(|row| row.members()).unwrap_or_default();
        if fields.is_empty() && class == "VM_guest_metrics" {
            return (field, Value::Ref(Ref::NULL));
        }
        let fields = fields.into_iter().filter(|(name, _)| *name != "uuid").collect();
        (field, Value::Ref(db.insert(class, fields)))
    };
    vec![copy("VM_metrics", "metrics"), copy("VM_guest_metrics", "guest_metrics")]
}

fn snapshot_fields(
    call: &Call,
    db: &mut Database,
    vm: &Row,
    kind: Kind,
    now: i64,
) -> Result<Vec<(&'static str, Value)>, ApiError> {
    let info = [
        ("power-state-at-snapshot", vm.text("power_state")),
        ("disk-snapshot-type", "crash_consistent"),
    ];
    let metadata = serde_json::json!({ "name_label": vm.text("name_label") }).to_string();
    let mut fields = vec![
        ("is_a_snapshot", true.into()),
        ("snapshot_of", vm.reference.into()),
        ("snapshot_time", Value::Time(now)),
        ("snapshot_info", Value::text_map(info)),
        ("snapshot_metadata", metadata.into()),
        ("parent", vm.reference("parent").into()),
    ];
    if kind == Kind::Checkpoint {
        let image = power::suspend_image(call, db, vm)?;
        fields.push(("suspend_VDI", image.into()));
        fields.push(("power_state", "Suspended".into()));
    }
    Ok(fields)
}

fn copy_drives(db: &mut Database, vm: &Row, copy: Ref, kind: Kind, disks: &[NewDisk]) {
    for drive in vm.refs("VBDs") {
        let Some(vbd) = db.find("VBD", drive).cloned() else { continue };
        let disk = disks.iter().find(|disk| disk.drive == drive);
        if vbd.text("type") != "CD" && disk.is_none() {
            continue;
        }
        let mut fields = drive_fields(&vbd, copy);
        if let Some(disk) = disk {
            fields.retain(|(field, _)| *field != "VDI");
            fields.push(("VDI", disk.vdi.into()));
            if !kind.is_snapshot() {
                fields.retain(|(field, _)| *field != "other_config");
                let config = vbd.get("other_config").with("owner".into(), "".into());
                fields.push(("other_config", config));
            }
        }
        db.insert("VBD", fields);
    }
}

/// The fields of a drive, for one of another VM that is off.
pub(super) fn drive_fields(vbd: &Row, vm: Ref) -> Vec<(&'static str, Value)> {
    const OWN: [&str; 6] =
        ["uuid", "VM", "currently_attached", "device", "current_operations", "allowed_operations"];
    let mut fields = vbd.members();
    fields.retain(|(field, _)| !OWN.contains(field));
    fields.push(("VM", vm.into()));
    fields
}

/// Gives `copy` the interfaces of `vm`, with addresses of its own if there is a seed for them.
pub(super) fn copy_interfaces(db: &mut Database, vm: &Row, copy: Ref, seed: Option<&str>) {
    const OWN: [&str; 5] =
        ["uuid", "VM", "currently_attached", "current_operations", "allowed_operations"];
    for vif in vm.refs("VIFs") {
        let Some(row) = db.find("VIF", vif).cloned() else { continue };
        let mut fields = row.members();
        fields.retain(|(field, _)| !OWN.contains(field));
        fields.push(("VM", copy.into()));
        if let Some(seed) = seed {
            fields.retain(|(field, _)| !["MAC", "MAC_autogenerated"].contains(field));
            fields.push(("MAC", mac_address(seed, row.text("device")).into()));
            fields.push(("MAC_autogenerated", true.into()));
        }
        db.insert("VIF", fields);
    }
}
