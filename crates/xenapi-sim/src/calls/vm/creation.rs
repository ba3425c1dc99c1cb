//! Making VMs, provisioning them from templates, and destroying them.

use crate::calls::{Call, Outcome, vbd, vdi};
use crate::database::{Database, Row};
use crate::dispatch::construct;
use crate::error::{ApiError, error, internal};
use crate::lifecycle;
use crate::operations;
use crate::placement;
use crate::value::{Ref, Value};

pub(super) fn create(call: &Call) -> Outcome {
    let mut fields = construct("VM", &call.args[0])?;
    fields.retain(|(field, _)| *field != "power_state");
    let mut db = call.inner.write();
    Ok(insert(&mut db, fields).into())
}

/// A VM that is off, with its metrics.
pub(crate) fn insert(db: &mut Database, mut fields: Vec<(&'static str, Value)>) -> Ref {
    let metrics = db.insert("VM_metrics", Vec::new());
    fields.push(("metrics", metrics.into()));
    fields.push(("domid", (-1).into()));
    let vm = db.insert("VM", fields);
    let seeded =
        db.find("VM", vm).is_some_and(|row| row.get("other_config").at("mac_seed").is_some());
    if !seeded {
        let seed = db.random.uuid().hyphenated().to_string();
        let config = db
            .find("VM", vm)
            .map(|row| row.get("other_config").with("mac_seed".into(), seed.into()));
        db.set("VM", vm, "other_config", config.unwrap_or(Value::Void));
    }
    if let Some(overhead) = db.find("VM", vm).map(|row| placement::overhead(row)) {
        db.set("VM", vm, "memory_overhead", overhead);
    }
    lifecycle::refresh(db, vm);
    vm
}

/// A disk that a template asks for.
#[derive(Debug, PartialEq, Eq)]
struct WantedDisk {
    device: String,
    size: i64,
    sr: String,
    bootable: bool,
    kind: String,
}

/// Reads `<provision><disk device="0" size="…" sr="…" bootable="true" type="system"/></provision>`.
fn wanted_disks(text: &str) -> Result<Vec<WantedDisk>, ApiError> {
    use quick_xml::events::Event;
    let wrong = |reason: String| internal(format!("the template's disks cannot be read: {reason}"));
    let mut reader = quick_xml::Reader::from_str(text);
    let mut disks = Vec::new();
    loop {
        match reader.read_event().map_err(|error| wrong(error.to_string()))? {
            Event::Start(tag) | Event::Empty(tag) if tag.name().as_ref() == "disk" => {
                let attribute = |name: &str| -> String {
                    let found = tag.try_get_attribute(name).ok().flatten();
                    found.map(|it| it.value.into_owned()).unwrap_or_default()
                };
                let size = attribute("size");
                disks.push(WantedDisk {
                    device: attribute("device"),
                    size: size.parse().map_err(|_| wrong(format!("`{size}` is no size")))?,
                    sr: attribute("sr"),
                    bootable: attribute("bootable") == "true",
                    kind: attribute("type"),
                });
            }
            Event::Eof => return Ok(disks),
            _ => {}
        }
    }
}

pub(super) async fn provision(call: Call) -> Outcome {
    let vm = call.subject()?;
    let _busy = operations::begin(&call, vm, "provision").await?;
    call.take_time().await?;
    let mut db = call.inner.write();
    db.set("VM", vm, "is_a_template", false);
    let config = db.row("VM", vm)?.get("other_config").clone();
    if let Some(text) = config.at("disks") {
        let disks = wanted_disks(text)?;
        let class = crate::schema::Schema::get().class("SR");
        for disk in disks {
            // The class's name in lower case is what the server says here, and only here.
            let sr =
                db.by_uuid(class, &disk.sr).map_err(|_| error("UUID_INVALID", ["sr", &disk.sr]))?;
            attach(&mut db, vm, sr, &disk)?;
        }
    }
    let config = config.without(&"disks".into()).without(&"postinstall".into());
    db.set("VM", vm, "other_config", config);
    lifecycle::refresh(&mut db, vm);
    Ok(Value::Void)
}

fn attach(db: &mut Database, vm: Ref, sr: Ref, disk: &WantedDisk) -> Result<(), ApiError> {
    let system = disk.kind == "system";
    let fields = vec![
        ("name_label", disk.device.as_str().into()),
        ("SR", sr.into()),
        ("virtual_size", disk.size.into()),
        ("type", if system { "system" } else { "user" }.into()),
    ];
    let vdi = vdi::insert(db, fields)?;
    let fields = vec![
        ("VM", vm.into()),
        ("VDI", vdi.into()),
        ("userdevice", disk.device.as_str().into()),
        ("bootable", disk.bootable.into()),
        ("mode", "RW".into()),
        ("type", "Disk".into()),
        ("unpluggable", (!system).into()),
        ("other_config", Value::text_map([("owner", "")])),
    ];
    vbd::insert(db, fields)?;
    Ok(())
}

pub(super) async fn destroy(call: Call) -> Outcome {
    let vm = call.subject()?;
    let busy = operations::begin(&call, vm, "destroy").await?;
    call.take_time().await?;
    let (uuid, image) = {
        let mut db = call.inner.write();
        let row = db.row("VM", vm)?.clone();
        super::tell(&call, &mut db, "VM_DELETED", vm);
        delete(&mut db, &row);
        (row.uuid(), row.reference("suspend_VDI"))
    };
    drop(busy);
    crate::inner::lock(&call.inner.booted).remove(&vm);
    call.inner.driver.destroyed(uuid).await;
    vdi::remove(&call, image).await?;
    Ok(Value::Void)
}

/// Deletes a VM's row and all that is part of it; its disks stay.
pub(crate) fn delete(db: &mut Database, vm: &Row) {
    for (set, class) in [
        ("VBDs", "VBD"),
        ("VIFs", "VIF"),
        ("VGPUs", "VGPU"),
        ("VUSBs", "VUSB"),
        ("VTPMs", "VTPM"),
        ("consoles", "console"),
    ] {
        for part in vm.refs(set) {
            let disk =
                (class == "VBD").then(|| db.find("VBD", part).map(|vbd| vbd.reference("VDI")));
            db.delete(class, part);
            if let Some(disk) = disk.flatten() {
                lifecycle::refresh_vdi(db, disk);
            }
        }
    }
    for (_, blob) in vm.get("blobs").entries() {
        db.delete("blob", blob.as_ref());
    }
    db.delete("VM_metrics", vm.reference("metrics"));
    db.delete("VM_guest_metrics", vm.reference("guest_metrics"));
    db.delete("VM", vm.reference);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_of_a_template_are_read() {
        let text = "<provision><disk device=\"0\" size=\"10737418240\" sr=\"\" bootable=\"true\" type=\"system\"/></provision>";
        let disk = WantedDisk {
            device: "0".into(),
            size: 10 << 30,
            sr: String::new(),
            bootable: true,
            kind: "system".into(),
        };
        assert_eq!(wanted_disks(text).unwrap(), [disk]);
        assert!(wanted_disks("<provision><disk size='x'/></provision>").is_err());
        assert!(wanted_disks("<provision>").unwrap_or_default().is_empty());
    }
}
