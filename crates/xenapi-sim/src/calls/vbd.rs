//! Drives: how VMs have disks and CDs.

use super::{Call, Handler, Outcome, later};
use crate::database::{Database, Row};
use crate::dispatch::construct;
use crate::driver::Order;
use crate::error::{ApiError, bad_power_state, bare, error, internal, not_allowed};
use crate::guests;
use crate::lifecycle;
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(match message {
        "create" => Handler::Now(create),
        "destroy" => Handler::Now(destroy),
        "plug" => later!(plug),
        "unplug" | "unplug_force" => later!(unplug),
        "insert" => Handler::Now(insert_cd),
        "eject" => Handler::Now(eject),
        "assert_attachable" => Handler::Now(assert_attachable),
        "set_mode" => Handler::Now(set_mode),
        _ => return None,
    })
}

fn create(call: &Call) -> Outcome {
    let fields = construct("VBD", &call.args[0])?;
    let fields =
        fields.into_iter().filter(|(name, _)| !["currently_attached", "device"].contains(name));
    Ok(insert(&mut call.inner.write(), fields.collect())?.into())
}

/// The number of a drive's place, from either of the forms that clients write.
fn position(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (number <= 254).then_some(number);
    }
    let letters = ["xvd", "hd", "sd"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let letter = letters.bytes().next().filter(u8::is_ascii_lowercase)?;
    (letters.len() == 1).then(|| u32::from(letter - b'a'))
}

/// A drive with these fields, where the VM has room for it.
pub(crate) fn insert(
    db: &mut Database,
    mut fields: Vec<(&'static str, Value)>,
) -> Result<Ref, ApiError> {
    let field = |name: &str| fields.iter().find(|(it, _)| *it == name).map(|(_, value)| value);
    let vm = field("VM").map(Value::as_ref).unwrap_or_default();
    let vdi = field("VDI").map(Value::as_ref).unwrap_or_default();
    let device = field("userdevice").and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = field("type").and_then(Value::as_str).unwrap_or("Disk").to_owned();
    let read_only = field("mode").and_then(Value::as_str) == Some("RO");
    let empty = field("empty").is_some_and(Value::as_bool);
    let row = db.row("VM", vm)?.clone();
    if kind == "CD" && !read_only {
        return Err(bare("VBD_CDS_MUST_BE_READONLY"));
    }
    if kind != "CD" && empty {
        return Err(error("VBD_NOT_REMOVABLE_MEDIA", ["in constructor"]));
    }
    if !empty {
        let disk = db.row("VDI", vdi)?;
        if disk.flag("read_only") && !read_only {
            return Err(error("VDI_READONLY", [vdi]));
        }
    }
    let used = super::vm::used(db, &row, "VBDs", "VBD", "userdevice");
    let device = if device == "autodetect" {
        (0..=254).map(|it: u32| it.to_string()).find(|it| !used.contains(it)).unwrap_or_default()
    } else {
        let Some(number) = position(&device) else { return Err(error("INVALID_DEVICE", [device])) };
        if used.iter().any(|it| position(it) == Some(number)) {
            return Err(error("DEVICE_ALREADY_EXISTS", [device]));
        }
        device
    };
    fields.retain(|(name, _)| *name != "userdevice");
    fields.push(("userdevice", device.into()));
    if empty {
        fields.retain(|(name, _)| *name != "VDI");
    }
    let vbd = db.insert("VBD", fields);
    lifecycle::refresh(db, vm);
    Ok(vbd)
}

fn destroy(call: &Call) -> Outcome {
    let vbd = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("VBD", vbd)?.clone();
    if row.flag("currently_attached") {
        return Err(not_allowed("the drive is attached"));
    }
    db.delete("VBD", vbd);
    lifecycle::refresh_vdi(&mut db, row.reference("VDI"));
    lifecycle::refresh(&mut db, row.reference("VM"));
    Ok(Value::Void)
}

/// Checks that a drive of a running VM can be plugged or unplugged.
fn check_hotplug(db: &Database, vbd: &Row, plugging: bool) -> Result<Row, ApiError> {
    let vm = db.row("VM", vbd.reference("VM"))?;
    if vbd.flag("currently_attached") == plugging {
        let code = if plugging { "DEVICE_ALREADY_ATTACHED" } else { "DEVICE_ALREADY_DETACHED" };
        return Err(error(code, [vbd.reference]));
    }
    if vm.text("power_state") != "Running" {
        return Err(bad_power_state(vm.reference, "running", vm.text("power_state")));
    }
    if vbd.text("type") == "CD" {
        return Err(not_allowed("a CD is inserted and ejected, not plugged"));
    }
    if !plugging && !vbd.flag("unpluggable") {
        return Err(error("VBD_NOT_UNPLUGGABLE", [vbd.reference]));
    }
    let metrics = db.find("VM_guest_metrics", vm.reference("guest_metrics"));
    if !metrics.is_some_and(|metrics| metrics.flag("PV_drivers_detected")) {
        return Err(error("VM_MISSING_PV_DRIVERS", [vm.reference]));
    }
    Ok(vm.as_ref().clone())
}

fn check_disk(db: &Database, vbd: &Row) -> Result<(), ApiError> {
    let Some(vdi) = db.find("VDI", vbd.reference("VDI")) else { return Ok(()) };
    let writes = vbd.text("mode") == "RW";
    let others = vdi.get("VBDs").ref_items().filter(|other| *other != vbd.reference);
    let mut others = others.filter_map(|other| db.find("VBD", other));
    let conflict = others
        .any(|other| other.flag("currently_attached") && (writes || other.text("mode") == "RW"));
    if conflict && !vdi.flag("sharable") {
        return Err(error("VDI_IN_USE", [vdi.reference]));
    }
    Ok(())
}

async fn plug(call: Call) -> Outcome {
    let vbd = call.subject()?;
    {
        let db = call.inner.read();
        let row = db.row("VBD", vbd)?;
        check_hotplug(&db, row, true)?;
    }
    call.take_time().await?;
    let (vm, disk) = {
        let mut db = call.inner.write();
        let row = db.row("VBD", vbd)?.clone();
        let vm = check_hotplug(&db, &row, true)?;
        check_disk(&db, &row)?;
        let number = position(row.text("userdevice")).unwrap_or_default();
        db.set("VBD", vbd, "device", lifecycle::device_name(number));
        db.set("VBD", vbd, "currently_attached", true);
        lifecycle::refresh(&mut db, vm.reference);
        (vm.uuid(), guests::disk(&db, &row))
    };
    if let Some(disk) = disk {
        let told = call.inner.driver.order(vm, Order::PlugDisk(disk)).await;
        told.map_err(|problem| internal(problem.message))?;
    }
    Ok(Value::Void)
}

async fn unplug(call: Call) -> Outcome {
    let vbd = call.subject()?;
    {
        let db = call.inner.read();
        let row = db.row("VBD", vbd)?;
        check_hotplug(&db, row, false)?;
    }
    call.take_time().await?;
    let (vm, number) = {
        let mut db = call.inner.write();
        let row = db.row("VBD", vbd)?.clone();
        let vm = check_hotplug(&db, &row, false)?;
        db.set("VBD", vbd, "currently_attached", false);
        db.set("VBD", vbd, "device", "");
        lifecycle::refresh(&mut db, vm.reference);
        (vm.uuid(), position(row.text("userdevice")).unwrap_or_default())
    };
    let told = call.inner.driver.order(vm, Order::UnplugDisk(number)).await;
    told.map_err(|problem| internal(problem.message))?;
    Ok(Value::Void)
}

fn insert_cd(call: &Call) -> Outcome {
    let (vbd, vdi) = (call.subject()?, call.reference(1)?);
    let mut db = call.inner.write();
    let row = db.row("VBD", vbd)?.clone();
    db.row("VDI", vdi)?;
    if row.text("type") != "CD" {
        return Err(error("VBD_NOT_REMOVABLE_MEDIA", [vbd]));
    }
    if !row.flag("empty") {
        return Err(error("VBD_NOT_EMPTY", [vbd]));
    }
    db.set("VBD", vbd, "VDI", vdi);
    db.set("VBD", vbd, "empty", false);
    lifecycle::refresh(&mut db, row.reference("VM"));
    Ok(Value::Void)
}

fn eject(call: &Call) -> Outcome {
    let vbd = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("VBD", vbd)?.clone();
    if row.text("type") != "CD" {
        return Err(error("VBD_NOT_REMOVABLE_MEDIA", [vbd]));
    }
    if row.flag("empty") {
        return Err(error("VBD_IS_EMPTY", [vbd]));
    }
    db.set("VBD", vbd, "VDI", Ref::NULL);
    db.set("VBD", vbd, "empty", true);
    lifecycle::refresh_vdi(&mut db, row.reference("VDI"));
    lifecycle::refresh(&mut db, row.reference("VM"));
    Ok(Value::Void)
}

fn assert_attachable(call: &Call) -> Outcome {
    let db = call.inner.read();
    check_disk(&db, db.row("VBD", call.subject()?)?)?;
    Ok(Value::Void)
}

fn set_mode(call: &Call) -> Outcome {
    let vbd = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("VBD", vbd)?.clone();
    let vm = db.row("VM", row.reference("VM"))?;
    if vm.text("power_state") != "Halted" {
        return Err(bad_power_state(vm.reference, "halted", vm.text("power_state")));
    }
    if row.text("type") == "CD" && call.text(1) == "RW" {
        return Err(bare("VBD_CDS_MUST_BE_READONLY"));
    }
    db.set("VBD", vbd, "mode", call.args[1].clone());
    Ok(Value::Void)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_drives_are_read_in_all_forms() {
        let places = ["0", "254", "255", "xvda", "hdd", "sdc", "x", ""].map(position);
        assert_eq!(places, [Some(0), Some(254), None, Some(0), Some(3), Some(2), None, None]);
    }
}
