//! What a pool holds, as rows that can be shown or given to programs: hosts, templates, networks and
//! storage.
//!
//! Each list is one answer of the pool per class, read when it is asked for. Sizes are in bytes.

use serde::Serialize;
use xenapi::{Client, Error, Map, Ref, class, enums};

/// A host of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// Where the pool reaches it.
    pub address: String,
    /// Whether it is the pool's master.
    pub master: bool,
    /// Whether it takes VMs.
    pub enabled: bool,
    /// Whether it is up, as far as the master knows.
    pub live: bool,
    /// What runs on it: `XCP-ng 8.3.0`.
    pub version: String,
    /// Its processors.
    pub cpus: u32,
    /// Its memory.
    pub memory_total: u64,
    /// What of it is free.
    pub memory_free: u64,
    /// How many VMs run on it, without the host's own.
    pub vms: usize,
}

/// What can be made of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateKind {
    /// It has a disk with an operating system: its copy can be started at once.
    Ready,
    /// It has settings only: an operating system must be installed first.
    Installer,
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Template {
    /// Its name, which other templates may have too.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// What can be made of it.
    pub kind: TemplateKind,
    /// Whether it came with the hypervisor.
    pub default: bool,
    /// Processors of a VM made from it.
    pub vcpus: u32,
    /// Memory of a VM made from it.
    pub memory: u64,
    /// The size of its disks, or of those that an installer would make.
    pub disk: u64,
    /// How many network interfaces it has.
    pub interfaces: usize,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Its name, which other networks may have too.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// The bridge that it is on each host.
    pub bridge: String,
    /// Its VLAN, where it has one.
    pub vlan: Option<u16>,
    /// The largest packet.
    pub mtu: u32,
    /// Whether it leads out of the hosts.
    pub external: bool,
    /// On how many hosts it is connected.
    pub hosts: usize,
    /// How many interfaces of VMs it has.
    pub interfaces: usize,
}

/// A storage repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Storage {
    /// Its name, which other repositories may have too.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// Of what type it is: `ext`, `nfs`, `lvm`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether disks of VMs can be on it.
    pub disks: bool,
    /// Whether the pool puts disks on it where nothing else is said.
    pub default: bool,
    /// Whether all hosts reach it.
    pub shared: bool,
    /// On how many hosts it is connected.
    pub hosts: usize,
    /// Its size; `None` where it is not known.
    pub size: Option<u64>,
    /// What is free of it; `None` where it is not known.
    pub free: Option<u64>,
}

/// The hosts, the master first.
pub async fn hosts(client: &Client) -> Result<Vec<Host>, Error> {
    let (pools, hosts, metrics, vms) = tokio::try_join!(
        client.pool().get_all_records().into_future(),
        client.host().get_all_records().into_future(),
        client.host_metrics().get_all_records().into_future(),
        client.vm().get_all_records().into_future(),
    )?;
    let master = pools.values().next().map(|pool| &pool.master);
    let row = |(reference, host): (&Ref<class::Host>, &xenapi::host::Record)| {
        let metrics = metrics.get(&host.metrics);
        let runs_here = |vm: &&xenapi::vm::Record| {
            vm.resident_on == *reference
                && vm.power_state == enums::VmPowerState::Running
                && !vm.is_control_domain
        };
        Host {
            name: host.name_label.clone(),
            uuid: host.uuid.clone(),
            address: host.address.clone(),
            master: Some(reference) == master,
            enabled: host.enabled,
            live: metrics.is_some_and(|metrics| metrics.live),
            version: version(&host.software_version),
            cpus: host.cpu_info.get("cpu_count").and_then(|count| count.parse().ok()).unwrap_or(0),
            memory_total: metrics.map_or(0, |metrics| bytes(metrics.memory_total)),
            memory_free: metrics.map_or(0, |metrics| bytes(metrics.memory_free)),
            vms: vms.values().filter(runs_here).count(),
        }
    };
    let mut rows: Vec<Host> = hosts.iter().map(row).collect();
    rows.sort_by(|one, other| (!one.master, &one.name).cmp(&(!other.master, &other.name)));
    Ok(rows)
}

/// The templates, those first that can be started at once, then by name.
pub async fn templates(client: &Client) -> Result<Vec<Template>, Error> {
    let (vms, vbds, vdis) = tokio::try_join!(
        client.vm().get_all_records().into_future(),
        client.vbd().get_all_records().into_future(),
        client.vdi().get_all_records().into_future(),
    )?;
    let row = |vm: &xenapi::vm::Record| {
        let disks = vm.vbds.iter().filter_map(|vbd| {
            let vbd = vbds.get(vbd).filter(|vbd| vbd.r#type == enums::VbdType::Disk)?;
            vdis.get(&vbd.vdi).map(|vdi| bytes(vdi.virtual_size))
        });
        let disks: Vec<u64> = disks.collect();
        let to_make = vm.other_config.get("disks").map_or(0, |disks| provisioned_size(disks));
        Template {
            name: vm.name_label.clone(),
            uuid: vm.uuid.clone(),
            kind: if disks.is_empty() { TemplateKind::Installer } else { TemplateKind::Ready },
            default: vm.is_default_template,
            vcpus: u32::try_from(vm.vcpus_max).unwrap_or(0),
            memory: bytes(vm.memory_static_max),
            disk: disks.iter().sum::<u64>() + to_make,
            interfaces: vm.vifs.len(),
        }
    };
    let is_template =
        |vm: &&xenapi::vm::Record| vm.is_a_template && !vm.is_a_snapshot && !vm.is_control_domain;
    let mut rows: Vec<Template> = vms.values().filter(is_template).map(row).collect();
    let installs = |row: &Template| row.kind == TemplateKind::Installer;
    rows.sort_by(|one, other| (installs(one), &one.name).cmp(&(installs(other), &other.name)));
    Ok(rows)
}

/// The networks, by name.
pub async fn networks(client: &Client) -> Result<Vec<Network>, Error> {
    let (networks, pifs) = tokio::try_join!(
        client.network().get_all_records().into_future(),
        client.pif().get_all_records().into_future(),
    )?;
    let row = |network: &xenapi::network::Record| {
        let pifs: Vec<_> = network.pifs.iter().filter_map(|pif| pifs.get(pif)).collect();
        let vlan = pifs.iter().find_map(|pif| u16::try_from(pif.vlan).ok());
        Network {
            name: network.name_label.clone(),
            uuid: network.uuid.clone(),
            bridge: network.bridge.clone(),
            vlan,
            mtu: u32::try_from(network.mtu).unwrap_or(0),
            external: !pifs.is_empty(),
            hosts: pifs.iter().filter(|pif| pif.currently_attached).count(),
            interfaces: network.vifs.len(),
        }
    };
    let mut rows: Vec<Network> = networks.values().map(row).collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rows)
}

/// The storage repositories, those for disks first, then by name.
pub async fn storage(client: &Client) -> Result<Vec<Storage>, Error> {
    let (pools, repositories, pbds) = tokio::try_join!(
        client.pool().get_all_records().into_future(),
        client.sr().get_all_records().into_future(),
        client.pbd().get_all_records().into_future(),
    )?;
    let default = pools.values().next().map(|pool| &pool.default_sr);
    let row = |(reference, sr): (&Ref<class::Sr>, &xenapi::sr::Record)| {
        let attached =
            |pbd: &&Ref<class::Pbd>| pbds.get(*pbd).is_some_and(|pbd| pbd.currently_attached);
        // Before the first scan, and for some types always, the sizes are negative.
        let size = u64::try_from(sr.physical_size).ok().filter(|size| *size > 0);
        let used = bytes(sr.physical_utilisation);
        Storage {
            name: sr.name_label.clone(),
            uuid: sr.uuid.clone(),
            kind: sr.r#type.clone(),
            disks: holds_disks(sr),
            default: Some(reference) == default,
            shared: sr.shared,
            hosts: sr.pbds.iter().filter(attached).count(),
            size,
            free: size.map(|size| size.saturating_sub(used)),
        }
    };
    let mut rows: Vec<Storage> = repositories.iter().map(row).collect();
    rows.sort_by(|one, other| (!one.disks, &one.name).cmp(&(!other.disks, &other.name)));
    Ok(rows)
}

/// `XCP-ng 8.3.0`, by what a host says of its software.
pub(crate) fn version(software: &Map<String, String>) -> String {
    let part = |key: &str| software.get(key).map_or("", String::as_str);
    format!("{} {}", part("product_brand"), part("product_version")).trim().to_owned()
}

/// Whether disks of VMs can be on a storage repository.
pub(crate) fn holds_disks(sr: &xenapi::sr::Record) -> bool {
    sr.content_type != "iso" && !["iso", "udev"].contains(&sr.r#type.as_str())
}

/// What the server counts in signed numbers is never negative but for "not known".
pub(crate) fn bytes(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// The size of the disks that `VM.provision` would make: the sum of all `size="…"` in a text like
/// `<provision><disk device="0" size="10737418240" sr="" bootable="true" type="system"/></provision>`.
fn provisioned_size(disks: &str) -> u64 {
    let sizes = disks.split("size=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
        rest[1..].split(quote).next()?.parse::<u64>().ok()
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_that_an_installer_makes_are_added_up() {
        let text = r#"<provision><disk device="0" size="10737418240" sr="" bootable="true"/><disk size='5' device="1"/></provision>"#;
        assert_eq!(provisioned_size(text), 10_737_418_245);
        assert_eq!(provisioned_size("<provision/>"), 0);
        assert_eq!(provisioned_size("size="), 0);
        assert_eq!(provisioned_size("size=\"x\""), 0);
    }
}
