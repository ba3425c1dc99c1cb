//! All there is to know of a VM, as one record that can be shown or given to programs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use xenapi::enums::VmPowerState;
use xenapi::mirror::View;
use xenapi::{Map, vm, vm_guest_metrics};

use super::disks::{Disk, bytes, disks};
use super::snapshots::{Snapshot, snapshots};
use super::{Machine, MachineError, PowerState};
use crate::making::address_of;
use crate::tags::Tags;

/// What waiting for an address is called in messages.
pub(super) const LEARN_ADDRESS: &str = "learn the address of";

/// A VM as the pool has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Details {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// What it is doing.
    pub state: PowerState,
    /// The host that it runs on.
    pub host: Option<String>,
    /// Its memory, in bytes.
    pub memory: u64,
    /// The most memory that it can be given while it runs, in bytes.
    pub memory_max: u64,
    /// Its processors.
    pub vcpus: u32,
    /// The most processors that it can be given while it runs.
    pub vcpus_max: u32,
    /// Its disks, without CDs.
    pub disks: Vec<Disk>,
    /// Its network interfaces.
    pub interfaces: Vec<Interface>,
    /// The version of the tools in its guest, where it runs and they have said so.
    pub tools: Option<String>,
    /// Its marks, where it is ours.
    pub tags: Option<Tags>,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<Snapshot>,
    /// When it was started, where it runs.
    pub started: Option<Timestamp>,
    /// The template that it was made from.
    pub template: Option<String>,
}

/// A network interface of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its number.
    pub device: u32,
    /// The network that it is on.
    pub network: String,
    /// Its hardware address.
    pub mac: String,
    /// Its addresses, where the VM runs and its guest has said so; link-local ones come last.
    pub addresses: Vec<IpAddr>,
}

impl Machine {
    /// All there is to know of it, from the mirror: nothing is asked.
    pub fn details(&self) -> Result<Details, MachineError> {
        let record = self.record()?;
        let view = self.pool.mirror().view();
        let runs = matches!(record.power_state, VmPowerState::Running | VmPowerState::Paused);
        // What a guest said stays when it is off, and is true no more.
        let guest = view.get(&record.guest_metrics).filter(|_| runs);
        let metrics = view.get(&record.metrics).filter(|_| runs);
        let started = metrics.map(|metrics| metrics.start_time);
        Ok(Details {
            name: record.name_label.clone(),
            uuid: self.uuid,
            state: PowerState::from(&record.power_state),
            host: view.get(&record.resident_on).map(|host| host.name_label.clone()),
            memory: bytes(record.memory_dynamic_max),
            memory_max: bytes(record.memory_static_max),
            vcpus: u32::try_from(record.vcpus_at_startup).unwrap_or(0),
            vcpus_max: u32::try_from(record.vcpus_max).unwrap_or(0),
            disks: disks(&view, &record),
            interfaces: interfaces(&view, &record, guest.map(|guest| &guest.networks)),
            tools: guest.and_then(|guest| tools(guest)),
            tags: Tags::read(&record.other_config),
            snapshots: snapshots(&view, &record),
            started: started.filter(|time| *time != Timestamp::UNIX_EPOCH),
            template: record.other_config.get("base_template_name").cloned(),
        })
    }
}

impl Machine {
    /// Where its guest can be reached: waits until its tools have told that. It must run.
    pub async fn address(&self) -> Result<IpAddr, MachineError> {
        let step = self.step(LEARN_ADDRESS);
        let state = self.record()?.power_state.clone();
        if state != VmPowerState::Running {
            return Err(step.in_state(&state));
        }
        let mirror = self.pool.mirror();
        let told = mirror.wait_until("its guest to tell its address", step.left(), |view| {
            address_of(view, &self.reference)
        });
        told.await.map_err(|source| step.failed(source))
    }

    /// Where its guest can be reached, if its tools have told that.
    pub fn told_address(&self) -> Option<IpAddr> {
        address_of(&self.pool.mirror().view(), &self.reference)
    }
}

fn interfaces(
    view: &View<'_>,
    vm: &vm::Record,
    said: Option<&Map<String, String>>,
) -> Vec<Interface> {
    let vifs: Vec<_> = vm.vifs.iter().filter_map(|vif| view.get(vif)).collect();
    let only = vifs.len() == 1;
    let interface = |vif: &&std::sync::Arc<xenapi::vif::Record>| {
        let network = view.get(&vif.network);
        Some(Interface {
            device: vif.device.parse().ok()?,
            network: network.map_or_else(|| vif.network.to_string(), |it| it.name_label.clone()),
            mac: vif.mac.clone(),
            addresses: said.map_or_else(Vec::new, |said| addresses(said, &vif.device, only)),
        })
    };
    let mut interfaces: Vec<_> = vifs.iter().filter_map(interface).collect();
    interfaces.sort_by_key(|interface| interface.device);
    interfaces
}

/// The addresses of an interface among what a guest said of all: `0/ip`, `0/ipv4/1`, `1/ipv6/0`.
///
/// Old tools count interfaces by the guest's own names. Where there is one only, all of it is its.
fn addresses(said: &Map<String, String>, device: &str, only: bool) -> Vec<IpAddr> {
    let of_it = |key: &str| {
        key.split_once('/').is_some_and(|(number, kind)| {
            (only || number == device)
                && (kind == "ip" || kind.starts_with("ipv4/") || kind.starts_with("ipv6/"))
        })
    };
    let found: BTreeSet<(bool, IpAddr)> = said
        .iter()
        .filter(|(key, _)| of_it(key))
        .filter_map(|(_, address)| address.parse().ok())
        .map(|address| (is_link_local(&address), address))
        .collect();
    found.into_iter().map(|(_, address)| address).collect()
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn tools(guest: &vm_guest_metrics::Record) -> Option<String> {
    let part = |key: &str| guest.pv_drivers_version.get(key).filter(|part| *part != "-1");
    let major = part("major")?;
    let rest = ["minor", "micro"].into_iter().filter_map(part).map(|part| format!(".{part}"));
    Some(format!("{major}{}", rest.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Map<String, String> {
        let pairs = [
            ("0/ip", "10.0.0.7"),
            ("0/ipv4/0", "10.0.0.7"),
            ("0/ipv6/0", "fe80::1"),
            ("0/ipv6/1", "fd00::7"),
            ("1/ip", "10.1.0.7"),
            ("10/ip", "10.2.0.7"),
            ("1/name", "eth1"),
            ("1/ipv4/0", "nonsense"),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn an_interface_has_the_addresses_of_its_number_link_local_ones_last() {
        let text = |device: &str, only| {
            let found = addresses(&said(), device, only);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(text("0", false), ["10.0.0.7", "fd00::7", "fe80::1"]);
        assert_eq!(text("1", false), ["10.1.0.7"]);
        assert_eq!(text("2", false), [""; 0]);
        assert_eq!(text("2", true).len(), 5);
    }

    #[test]
    fn tools_are_told_by_the_version_that_they_say() {
        let version = |parts: &[(&str, &str)]| vm_guest_metrics::Record {
            pv_drivers_version: parts
                .iter()
                .map(|(key, part)| ((*key).to_owned(), (*part).to_owned()))
                .collect(),
            ..Default::default()
        };
        assert_eq!(tools(&version(&[])), None);
        let said = version(&[("major", "7"), ("minor", "33"), ("micro", "-1")]);
        assert_eq!(tools(&said).as_deref(), Some("7.33"));
    }
}
