//! Between the rows of VMs and what runs in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::calls;
use crate::database::{Database, Row};
use crate::driver::{Ended, GuestError, Machine, MachineDisk, MachineNic, Order, Report, Reports};
use crate::guest::GuestFault;
use crate::inner::{Inner, lock};
use crate::lifecycle;
use crate::placement;
use crate::store::DiskId;
use crate::value::{Ref, Value};

/// A VM's disk as its guest gets it; nothing for an empty drive.
pub(crate) fn disk(db: &Database, vbd: &Row) -> Option<MachineDisk> {
    let vdi = db.find("VDI", vbd.reference("VDI"))?;
    let position = vbd.text("userdevice").parse().unwrap_or_default();
    Some(MachineDisk {
        position,
        device: lifecycle::device_name(position),
        disk: DiskId(vdi.uuid()),
        size: u64::try_from(vdi.int("virtual_size")).unwrap_or_default(),
        read_only: vbd.text("mode") == "RO",
        cd: vbd.text("type") == "CD",
    })
}

/// A VM's interface as its guest gets it.
pub(crate) fn nic(db: &Database, vif: &Row) -> MachineNic {
    let network = db.find("network", vif.reference("network"));
    MachineNic {
        device: vif.text("device").parse().unwrap_or_default(),
        mac: vif.text("MAC").to_owned(),
        network: network.map(|row| row.uuid()).unwrap_or_default(),
        network_name: network.map(|row| row.text("name_label").to_owned()).unwrap_or_default(),
    }
}

fn text_map(value: &Value) -> BTreeMap<String, String> {
    value.entries().iter().map(|(key, value)| (key.plain(), value.plain())).collect()
}

fn machine(db: &Database, vm: &Row, boot: u64) -> Machine {
    let vbds = vm.get("VBDs").ref_items().filter_map(|vbd| db.find("VBD", vbd));
    let vifs = vm.get("VIFs").ref_items().filter_map(|vif| db.find("VIF", vif));
    let mut disks: Vec<_> = vbds.filter_map(|vbd| disk(db, vbd)).collect();
    let mut nics: Vec<_> = vifs.map(|vif| nic(db, vif)).collect();
    disks.sort_by_key(|disk| disk.position);
    nics.sort_by_key(|nic| nic.device);
    Machine {
        vm: vm.uuid(),
        name: vm.text("name_label").to_owned(),
        boot,
        vcpus: u32::try_from(vm.int("VCPUs_at_startup")).unwrap_or(1),
        memory: u64::try_from(vm.int("memory_dynamic_max")).unwrap_or_default(),
        disks,
        nics,
        platform: text_map(vm.get("platform")),
        xenstore_data: text_map(vm.get("xenstore_data")),
    }
}

/// Lets a VM's guest boot, now that its rows say that it runs.
pub(crate) async fn boot(inner: &Arc<Inner>, vm: Ref) -> Result<(), GuestError> {
    let boot = inner.next_boot();
    lock(&inner.booted).insert(vm, boot);
    let machine = {
        let db = inner.read();
        db.find("VM", vm).map(|row| machine(&db, row, boot))
    };
    let Some(mut machine) = machine else { return Ok(()) };
    strike(inner, &mut machine);
    let owner = Arc::downgrade(inner);
    let reports = Reports::new(move |report| hear(&owner, vm, boot, report));
    inner.driver.boot(machine, reports).await
}

/// Gives a machine the faults that the pool was told to, beside those that it asks for itself.
fn strike(inner: &Inner, machine: &mut Machine) {
    for fault in inner.guest_faults.strike(&machine.name, machine.vm) {
        let asked = machine.xenstore_data.entry(GuestFault::KEY.to_owned()).or_default();
        *asked = format!("{asked} {fault}");
    }
}

/// What a guest reports, if it is of the VM's present boot.
fn hear(owner: &Weak<Inner>, vm: Ref, boot: u64, report: Report) {
    let Some(inner) = owner.upgrade() else { return };
    if lock(&inner.booted).get(&vm) != Some(&boot) {
        return;
    }
    let now = inner.clock.now();
    match report {
        Report::Agent(agent) => {
            let mut db = inner.write();
            let runs = db.find("VM", vm).is_some_and(|row| row.text("power_state") != "Halted");
            let uuid = db.find("VM", vm).map(|row| row.uuid()).unwrap_or_default();
            if runs && !lock(&inner.mute).contains(&uuid) {
                lifecycle::note_agent(&mut db, vm, &agent, now);
            }
        }
        Report::Ended(ended) => end(&inner, vm, ended),
    }
}

/// What becomes of a VM whose guest has ended, as its `actions_after_…` say.
pub(crate) fn end(inner: &Arc<Inner>, vm: Ref, ended: Ended) {
    let mut db = inner.write();
    let Some(row) = db.find("VM", vm).cloned() else { return };
    if !matches!(row.text("power_state"), "Running" | "Paused") {
        return;
    }
    let (field, message) = match ended {
        Ended::PowerOff => ("actions_after_shutdown", "VM_SHUTDOWN"),
        Ended::Reboot => ("actions_after_reboot", "VM_REBOOTED"),
        Ended::Crash => ("actions_after_crash", "VM_CRASHED"),
    };
    calls::announce(inner, &mut db, message, "VM", row.uuid());
    match row.text(field) {
        "restart" | "coredump_and_restart" | "rename_restart" => {
            lifecycle::restart(&mut db, &row, inner.clock.now());
            drop(db);
            let owner = inner.clone();
            inner.spawn(async move { boot_again(&owner, vm).await });
        }
        "preserve" => {
            db.set("VM", vm, "power_state", "Paused");
            lifecycle::refresh(&mut db, vm);
        }
        _ => turned_off(inner, &mut db, vm),
    }
}

/// Makes the rows of a VM those of one that is off, now that its guest has ended.
pub(crate) fn turned_off(inner: &Inner, db: &mut Database, vm: Ref) {
    lock(&inner.booted).remove(&vm);
    let Some(host) = db.find("VM", vm).map(|row| row.reference("resident_on")) else { return };
    lifecycle::leave_host(db, vm, "Halted");
    placement::refresh_metrics(db, host, inner.clock.now());
}

/// Ends a VM's guest from outside. Whatever it says from now on is not heard.
pub(crate) async fn kill(inner: &Inner, vm: Ref) -> Result<(), GuestError> {
    let Some(uuid) = inner.read().find("VM", vm).map(|row| row.uuid()) else { return Ok(()) };
    lock(&inner.booted).remove(&vm);
    inner.driver.order(uuid, Order::PowerOff).await
}

/// Boots the guest of a VM that restarts by itself; one that fails leaves the VM off.
pub(crate) async fn boot_again(inner: &Arc<Inner>, vm: Ref) {
    if let Err(error) = boot(inner, vm).await {
        tracing::warn!(%vm, %error, "the guest did not boot again");
        turned_off(inner, &mut inner.write(), vm);
    }
    // Whoever waits for this boot finds no change of the rows.
    inner.wake();
}
