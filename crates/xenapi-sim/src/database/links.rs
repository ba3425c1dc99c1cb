//! Which set fields list the objects that refer to their owner.

use std::collections::HashMap;

use crate::schema::Schema;

/// Parent class, its set, child class, its reference to the parent.
const LINKS: [(&str, &str, &str, &str); 34] = [
    ("VM", "VBDs", "VBD", "VM"),
    ("VM", "VIFs", "VIF", "VM"),
    ("VM", "VGPUs", "VGPU", "VM"),
    ("VM", "VTPMs", "VTPM", "VM"),
    ("VM", "VUSBs", "VUSB", "VM"),
    ("VM", "consoles", "console", "VM"),
    ("VM", "crash_dumps", "crashdump", "VM"),
    ("VM", "snapshots", "VM", "snapshot_of"),
    ("VM", "children", "VM", "parent"),
    ("VM_appliance", "VMs", "VM", "appliance"),
    ("VMSS", "VMs", "VM", "snapshot_schedule"),
    ("VDI", "VBDs", "VBD", "VDI"),
    ("VDI", "crash_dumps", "crashdump", "VDI"),
    ("VDI", "snapshots", "VDI", "snapshot_of"),
    ("SR", "VDIs", "VDI", "SR"),
    ("SR", "PBDs", "PBD", "SR"),
    ("host", "PBDs", "PBD", "host"),
    ("host", "PIFs", "PIF", "host"),
    ("host", "PCIs", "PCI", "host"),
    ("host", "PGPUs", "PGPU", "host"),
    ("host", "PUSBs", "PUSB", "host"),
    ("host", "host_CPUs", "host_cpu", "host"),
    ("host", "crashdumps", "host_crashdump", "host"),
    ("host", "features", "Feature", "host"),
    ("host", "certificates", "Certificate", "host"),
    ("host", "resident_VMs", "VM", "resident_on"),
    ("network", "PIFs", "PIF", "network"),
    ("network", "VIFs", "VIF", "network"),
    ("PIF", "VLAN_slave_of", "VLAN", "tagged_PIF"),
    ("PIF", "bond_master_of", "Bond", "master"),
    ("Bond", "slaves", "PIF", "bond_slave_of"),
    ("PIF", "tunnel_access_PIF_of", "tunnel", "access_PIF"),
    ("PIF", "tunnel_transport_PIF_of", "tunnel", "transport_PIF"),
    ("task", "subtasks", "task", "subtask_of"),
];

/// The set that a reference must show up in.
#[derive(Clone, Copy)]
pub(super) struct Link {
    /// The class that has the set.
    pub(super) parent: usize,
    /// The set's place in that class.
    pub(super) field: usize,
}

/// All links, by the class and field of the reference.
pub(super) struct Links(HashMap<(usize, usize), Link>, Vec<Vec<(usize, Link)>>);

impl Links {
    /// The links of the model's classes.
    pub(super) fn new(schema: &Schema) -> Self {
        let mut by_field = HashMap::new();
        let mut by_class = vec![Vec::new(); schema.classes.len()];
        for (parent, set, child, reference) in LINKS {
            let parent = schema.class(parent);
            let link = Link { parent, field: schema.classes[parent].field(set) };
            let child = schema.class(child);
            let place = schema.classes[child].field(reference);
            by_field.insert((child, place), link);
            by_class[child].push((place, link));
        }
        Self(by_field, by_class)
    }

    /// The link of a field, if it is one.
    pub(super) fn at(&self, class: usize, field: usize) -> Option<Link> {
        self.0.get(&(class, field)).copied()
    }

    /// All links of a class's fields.
    pub(super) fn of(&self, class: usize) -> Vec<(usize, Link)> {
        self.1[class].clone()
    }
}
