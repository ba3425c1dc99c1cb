//! What a plan needs to know of a pool, as plain data at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use xenapi::mirror::View;
use xenapi::{Ref, class, enums};

use crate::connected_pool::ConnectedPool;
use crate::guest_settings::DeclaredRange;
use crate::inventory::{bytes, holds_disks};
use crate::tags;

/// A thing of a pool, by all that it may be called.
#[derive(Serialize)]
pub struct Named<T> {
    /// How the pool refers to it.
    #[serde(skip)]
    pub reference: Ref<T>,
    /// Its identity.
    pub uuid: String,
    /// Its name, which others may have too.
    pub name: String,
}

impl<T> Named<T> {
    pub(crate) fn new(reference: Ref<T>, uuid: &str, name: &str) -> Self {
        Self { reference, uuid: uuid.to_owned(), name: name.to_owned() }
    }
}

impl<T> Clone for Named<T> {
    fn clone(&self) -> Self {
        Self::new(self.reference.clone(), &self.uuid, &self.name)
    }
}

impl<T> fmt::Debug for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.name, self.uuid)
    }
}

/// A pool at one moment.
#[derive(Clone, Debug, Default)]
pub struct PoolView {
    /// Its own identity.
    pub uuid: String,
    /// Its templates.
    pub templates: Vec<TemplateView>,
    /// Its networks.
    pub networks: Vec<NetworkView>,
    /// Its storage repositories.
    pub storages: Vec<StorageView>,
    /// Its hosts.
    pub hosts: Vec<HostView>,
}

/// A template.
#[derive(Clone, Debug)]
pub struct TemplateView {
    /// Which it is.
    pub named: Named<class::Vm>,
    /// Its disks, by their devices.
    pub disks: Vec<DiskView>,
    /// The networks of its interfaces, by their devices.
    pub networks: Vec<Ref<class::Network>>,
    /// Its memory.
    pub memory: u64,
    /// The least memory that it runs with.
    pub least_memory: u64,
    /// Its processors.
    pub vcpus: u32,
}

/// A disk of a template.
#[derive(Clone, Debug)]
pub struct DiskView {
    /// The number of its device.
    pub device: String,
    /// Its size.
    pub size: u64,
    /// Where it is.
    pub storage: Ref<class::Sr>,
}

/// A network.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// Which it is.
    pub named: Named<class::Network>,
    /// The addresses that are declared for it, if any are.
    pub range: Option<DeclaredRange>,
    /// The addresses that are in use on it, as far as the pool knows: those that guest tools tell, on
    /// whichever network, and those that were chosen for interfaces on this one.
    pub in_use: BTreeSet<IpAddr>,
}

/// A storage repository.
#[derive(Clone, Debug)]
pub struct StorageView {
    /// Which it is.
    pub named: Named<class::Sr>,
    /// Of what type it is.
    pub kind: String,
    /// Whether disks of VMs can be on it.
    pub disks: bool,
    /// What is free of it; `None` where it is not known.
    pub free: Option<u64>,
    /// The hosts that reach it.
    pub hosts: BTreeSet<Ref<class::Host>>,
}

/// A host.
#[derive(Clone, Debug)]
pub struct HostView {
    /// Which it is.
    pub named: Named<class::Host>,
    /// Whether it takes VMs and is up, as far as the master knows.
    pub takes_vms: bool,
    /// What of its memory is free.
    pub memory_free: u64,
}

impl PoolView {
    /// Looks at a pool, with the addresses that are declared for its networks.
    pub fn of_pool(pool: &ConnectedPool) -> Self {
        let mut of = Self::of(&pool.mirror().view());
        of.declare(&pool.guests().ranges);
        of
    }

    /// Looks at a mirror of VMs, disks, networks, storage and hosts.
    pub fn of(view: &View<'_>) -> Self {
        let pool = view.iter::<class::Pool>().next();
        Self {
            uuid: pool.map(|(_, pool)| pool.uuid.clone()).unwrap_or_default(),
            templates: templates(view),
            networks: networks(view),
            storages: storages(view),
            hosts: hosts(view),
        }
    }

    /// Notes which addresses are declared for networks, by their names or uuids. A declaration that is for no
    /// network of the pool, or for several, is for none, and that is logged.
    pub fn declare(&mut self, ranges: &BTreeMap<String, DeclaredRange>) {
        for (wanted, range) in ranges {
            let by_uuid = |network: &&mut NetworkView| network.named.uuid == *wanted;
            let found = match self.networks.iter_mut().find(by_uuid) {
                Some(found) => vec![found],
                None => self.networks.iter_mut().filter(|it| it.named.name == *wanted).collect(),
            };
            let count = found.len();
            if let Ok([network]) = <[&mut NetworkView; 1]>::try_from(found) {
                network.range = Some(range.clone());
                continue;
            }
            tracing::warn!(
                network = %wanted,
                count,
                "addresses are declared for a network, and there is not one of that name"
            );
        }
    }
}

fn templates(view: &View<'_>) -> Vec<TemplateView> {
    let vms = view.iter::<class::Vm>();
    let templates =
        vms.filter(|(_, vm)| vm.is_a_template && !vm.is_a_snapshot && !vm.is_control_domain);
    let of = |(reference, vm): (Ref<class::Vm>, &std::sync::Arc<xenapi::vm::Record>)| {
        let disk = |vbd: &Ref<class::Vbd>| {
            let vbd = view.get(vbd).filter(|vbd| vbd.r#type == enums::VbdType::Disk)?;
            let vdi = view.get(&vbd.vdi)?;
            let (device, storage) = (vbd.userdevice.clone(), vdi.sr.clone());
            Some(DiskView { device, size: bytes(vdi.virtual_size), storage })
        };
        let mut disks: Vec<DiskView> = vm.vbds.iter().filter_map(disk).collect();
        disks.sort_by_key(|disk| number(&disk.device));
        let mut vifs: Vec<_> = vm.vifs.iter().filter_map(|vif| view.get(vif)).collect();
        vifs.sort_by_key(|vif| number(&vif.device));
        TemplateView {
            named: Named::new(reference, &vm.uuid, &vm.name_label),
            disks,
            networks: vifs.iter().map(|vif| vif.network.clone()).collect(),
            memory: bytes(vm.memory_static_max),
            least_memory: bytes(vm.memory_static_min),
            vcpus: u32::try_from(vm.vcpus_max).unwrap_or(1),
        }
    };
    templates.map(of).collect()
}

/// Devices are numbers in text; one that is none comes last.
fn number(device: &str) -> u32 {
    device.parse().unwrap_or(u32::MAX)
}

fn networks(view: &View<'_>) -> Vec<NetworkView> {
    let told: BTreeSet<IpAddr> = view
        .iter::<class::VmGuestMetrics>()
        .flat_map(|(_, metrics)| metrics.networks.values())
        .filter_map(|address| address.parse().ok())
        .collect();
    let mut chosen: BTreeMap<Ref<class::Network>, BTreeSet<IpAddr>> = BTreeMap::new();
    for (_, interface) in view.iter::<class::Vif>() {
        let address = interface.other_config.get(tags::ADDRESS);
        if let Some(address) = address.and_then(|address| address.parse().ok()) {
            chosen.entry(interface.network.clone()).or_default().insert(address);
        }
    }
    let of = |(reference, network): (_, &std::sync::Arc<xenapi::network::Record>)| NetworkView {
        in_use: told.iter().chain(chosen.get(&reference).into_iter().flatten()).copied().collect(),
        named: Named::new(reference, &network.uuid, &network.name_label),
        range: None,
    };
    view.iter::<class::Network>().map(of).collect()
}

fn storages(view: &View<'_>) -> Vec<StorageView> {
    let of = |(reference, sr): (Ref<class::Sr>, &std::sync::Arc<xenapi::sr::Record>)| {
        let pbds = sr.pbds.iter().filter_map(|pbd| view.get(pbd));
        let size = u64::try_from(sr.physical_size).ok().filter(|size| *size > 0);
        StorageView {
            named: Named::new(reference, &sr.uuid, &sr.name_label),
            kind: sr.r#type.clone(),
            disks: holds_disks(sr),
            free: size.map(|size| size.saturating_sub(bytes(sr.physical_utilisation))),
            hosts: pbds.filter(|pbd| pbd.currently_attached).map(|pbd| pbd.host.clone()).collect(),
        }
    };
    view.iter::<class::Sr>().map(of).collect()
}

fn hosts(view: &View<'_>) -> Vec<HostView> {
    let of = |(reference, host): (_, &std::sync::Arc<xenapi::host::Record>)| {
        let metrics = view.get(&host.metrics);
        HostView {
            named: Named::new(reference, &host.uuid, &host.name_label),
            takes_vms: host.enabled && metrics.is_some_and(|metrics| metrics.live),
            memory_free: metrics.map_or(0, |metrics| bytes(metrics.memory_free)),
        }
    };
    view.iter::<class::Host>().map(of).collect()
}
