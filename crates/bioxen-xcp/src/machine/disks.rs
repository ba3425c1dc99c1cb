//! The disks of VMs, and whose they are.

use serde::Serialize;
use uuid::Uuid;
use xenapi::mirror::View;
use xenapi::{Ref, class, enums, vbd, vdi, vm};

use crate::tags::{MakingLabel, Tags};

/// A disk of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    #[serde(skip)]
    pub(crate) vdi: Ref<class::Vdi>,
    #[serde(skip)]
    pub(crate) storage_ref: Ref<class::Sr>,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// Its place among the VM's drives.
    pub position: String,
    /// Its name in the guest, while that runs: `xvda`.
    pub device: Option<String>,
    /// Its size, in bytes.
    pub size: u64,
    /// What it takes up of its storage, in bytes.
    pub used: u64,
    /// The storage that it is on.
    pub storage: String,
    /// Whether the guest boots from it.
    pub bootable: bool,
    /// Whether it goes with the VM: it came with it, or is ours, and no other VM has it.
    pub goes_with_vm: bool,
    #[serde(skip)]
    pub(crate) can_grow_live: bool,
}

/// The disks of a VM, without CDs, in the order of their positions.
pub(crate) fn disks(view: &View<'_>, vm: &vm::Record) -> Vec<Disk> {
    let mut disks: Vec<Disk> = vm
        .vbds
        .iter()
        .filter_map(|vbd| {
            let vbd = view.get(vbd).filter(|vbd| vbd.r#type == enums::VbdType::Disk)?;
            disk(view, vm, vbd, view.get(&vbd.vdi)?)
        })
        .collect();
    disks.sort_by_key(|disk| (disk.position.parse::<u32>().unwrap_or(u32::MAX), disk.uuid));
    disks
}

fn disk(view: &View<'_>, vm: &vm::Record, vbd: &vbd::Record, vdi: &vdi::Record) -> Option<Disk> {
    let others = vdi.vbds.iter().filter_map(|other| view.get(other));
    let shared = others.into_iter().any(|other| {
        other.vm != vbd.vm && view.get(&other.vm).is_some_and(|other| other.uuid != vm.uuid)
    });
    // The disks of a snapshot are there for it alone, and nobody gives disks to what is being made.
    let came_with_it = vbd.other_config.contains_key("owner")
        || vdi.is_a_snapshot
        || MakingLabel::read(&vm.name_label).is_some();
    Some(Disk {
        vdi: vbd.vdi.clone(),
        storage_ref: vdi.sr.clone(),
        name: vdi.name_label.clone(),
        uuid: vdi.uuid.parse().ok()?,
        position: vbd.userdevice.clone(),
        device: Some(vbd.device.clone()).filter(|device| !device.is_empty()),
        size: bytes(vdi.virtual_size),
        used: bytes(vdi.physical_utilisation),
        storage: view.get(&vdi.sr).map_or_else(|| vdi.sr.to_string(), |sr| sr.name_label.clone()),
        bootable: vbd.bootable,
        goes_with_vm: !shared && (came_with_it || Tags::read(&vdi.other_config).is_some()),
        can_grow_live: vdi.allowed_operations.contains(&enums::VdiOperation::ResizeOnline),
    })
}

/// What the server counts in signed numbers is negative only where it does not know.
pub(crate) fn bytes(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
