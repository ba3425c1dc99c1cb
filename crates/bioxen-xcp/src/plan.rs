//! How a virtual machine will be made: a spec and a pool, turned into decisions, before anything is
//! asked of the pool.
//!
//! What cannot work is refused here, with the reason: a template that only installs, a name that two
//! networks have, a disk that is smaller than the template's, storage or memory that is not there.
//!
//! ```
//! use bioxen_core::VmSpec;
//! use bioxen_xcp::plan::{Plan, PlanError, PoolView};
//!
//! let spec = VmSpec::xcpng("assembler")?.template("debian-12-cloud");
//! let empty = PoolView::default();
//! assert!(matches!(Plan::new(&spec, &empty), Err(PlanError::NotFound { .. })));
//! # Ok::<(), bioxen_core::InvalidName>(())
//! ```

mod choose;
mod error;
mod lease;
mod steps;
mod view;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bioxen_core::{MacAddress, MachineSpec, NetworkSpec, VmName, VmSpec};
use serde::Serialize;
use xenapi::{Ref, class};

pub use error::PlanError;
pub use lease::{Lease, Wanted};
pub use steps::{Deadlines, Step, StepKind};
pub use view::{DiskView, HostView, Named, NetworkView, PoolView, StorageView, TemplateView};

use crate::seed_disk;

/// The guest's user that Lua runs as, where a spec names none.
pub const DEFAULT_USER: &str = "bioxen";

/// The port of a guest's SSH server, where a spec names none.
pub const DEFAULT_PORT: u16 = 22;

/// How many interfaces guests are known to take.
const MOST_INTERFACES: usize = 7;

/// A virtual machine that can be made.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The VM that it is for.
    pub vm: VmName,
    /// Its name on the pool.
    pub label: String,
    /// What it is made from.
    pub template: Named<class::Vm>,
    /// How its disks come to be.
    pub copy: Copy,
    /// Where its disks will be.
    pub storage: Named<class::Sr>,
    /// Its memory, in bytes.
    pub memory: u64,
    /// Its processors.
    pub vcpus: u32,
    /// How its first disk grows, if it does.
    pub growth: Option<Growth>,
    /// Its interfaces.
    pub interfaces: Interfaces,
    /// The host that it is to run on, if that can take it.
    pub host: Option<Named<class::Host>>,
    /// How long it may live.
    pub lifetime: Option<Duration>,
    /// The guest's user that Lua runs as.
    pub user: String,
    /// The port of the guest's SSH server.
    pub port: u16,
    /// How many files and directories are copied into it.
    pub files: usize,
    /// What it will take.
    pub cost: Cost,
}

/// How disks come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Copy {
    /// They share with the template what is not changed, and are there at once.
    Clone,
    /// They share nothing, and every byte is copied first.
    Full,
}

/// A disk that grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// The number of its device.
    pub device: String,
    /// The template's size.
    pub from: u64,
    /// Its size.
    pub to: u64,
}

/// What interfaces there will be.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interfaces {
    /// Those of the template; the first asks for an address.
    OfTemplate {
        /// How many there are.
        count: usize,
    },
    /// These, in place of the template's.
    These(Vec<PlannedInterface>),
}

/// One interface.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedInterface {
    /// The network that it is on.
    pub network: Named<class::Network>,
    /// What was said about it; of an address that it was leased, what follows from that.
    #[serde(flatten)]
    pub spec: NetworkSpec,
    /// The address that it is to be given, until it has been.
    #[serde(skip)]
    pub lease: Option<Lease>,
}

impl PlannedInterface {
    /// The addresses that the pool lets it use, if it is to hold it to some.
    pub fn allowed(&self) -> Option<&BTreeSet<IpAddr>> {
        Some(&self.spec.allowed).filter(|allowed| !allowed.is_empty())
    }

    /// Its hardware address, where it was said.
    pub fn mac(&self) -> Option<MacAddress> {
        self.spec.mac
    }
}

/// What a virtual machine takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Storage that is taken at once, in bytes: growth and clones of thin disks take theirs when they
    /// are written.
    pub storage_now: u64,
    /// Storage that it can come to take.
    pub storage_at_most: u64,
    /// Memory on its host, with what the hypervisor needs for itself.
    pub memory: u64,
    /// The hosts that could take it now.
    pub hosts: Vec<HostFit>,
}

/// Whether a host could take a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostFit {
    /// The host.
    pub name: String,
    /// Its free memory.
    pub memory_free: u64,
    /// Why it could not; `None` if it could.
    pub obstacle: Option<String>,
}

impl Plan {
    /// Decides how to make the virtual machine that `spec` orders, on a pool as it is in `view`.
    ///
    /// # Errors
    ///
    /// When it cannot be made. Nothing has been asked of the pool then.
    pub fn new(spec: &VmSpec, view: &PoolView) -> Result<Self, PlanError> {
        let vm = &spec.name;
        let Some(machine) = spec.machine() else {
            return Err(PlanError::NotXcpng { vm: vm.clone() });
        };
        let template = choose::template(vm, machine, view)?;
        let storage = choose::storage(vm, machine, template, view)?;
        let interfaces = interfaces(vm, machine, template, view)?;
        let host = match &machine.host {
            Some(name) => Some(choose::host(vm, name, view)?.named.clone()),
            None => None,
        };
        let copy = copy(machine, template, storage);
        let growth = growth(vm, machine, template)?;
        let (memory, vcpus) = size(vm, machine, template)?;
        let cost = cost(template, storage, copy, growth.as_ref(), (memory, vcpus), view);
        let prefix = machine.name_prefix.as_deref().unwrap_or_default();
        let plan = Self {
            vm: vm.clone(),
            label: format!("{prefix}{vm}"),
            template: template.named.clone(),
            copy,
            storage: storage.named.clone(),
            memory,
            vcpus,
            growth,
            interfaces,
            host,
            lifetime: machine.lifetime,
            user: machine.user.clone().unwrap_or_else(|| DEFAULT_USER.into()),
            port: machine.port.unwrap_or(DEFAULT_PORT),
            files: machine.files.len(),
            cost,
        };
        plan.check_room(storage)?;
        Ok(plan)
    }

    fn check_room(&self, storage: &StorageView) -> Result<(), PlanError> {
        let vm = || self.vm.clone();
        if let Some(free) = storage.free.filter(|free| *free < self.cost.storage_now) {
            let (storage, needed) = (self.storage.name.clone(), self.cost.storage_now);
            return Err(PlanError::StorageFull { vm: vm(), storage, needed, free });
        }
        if let Some(host) = &self.host {
            let fit = self.cost.hosts.iter().find(|fit| fit.name == host.name);
            if let Some(obstacle) = fit.and_then(|fit| fit.obstacle.clone()) {
                return Err(PlanError::Host { vm: vm(), host: host.name.clone(), obstacle });
            }
        }
        if self.cost.hosts.iter().all(|fit| fit.obstacle.is_some()) {
            let hosts = self.cost.hosts.clone();
            return Err(PlanError::NoHost { vm: vm(), needed: self.cost.memory, hosts });
        }
        Ok(())
    }
}

fn copy(machine: &MachineSpec, template: &TemplateView, storage: &StorageView) -> Copy {
    let moves = template.disks.iter().any(|disk| disk.storage != storage.named.reference);
    if machine.full_copy || moves { Copy::Full } else { Copy::Clone }
}

fn growth(
    vm: &VmName,
    machine: &MachineSpec,
    template: &TemplateView,
) -> Result<Option<Growth>, PlanError> {
    let (Some(wanted), Some(first)) = (machine.disk, template.disks.first()) else {
        return Ok(None);
    };
    let (from, to) = (first.size, wanted.as_u64());
    if to < from {
        let template = template.named.name.clone();
        return Err(PlanError::DiskTooSmall { vm: vm.clone(), template, wanted: to, least: from });
    }
    Ok((to > from).then(|| Growth { device: first.device.clone(), from, to }))
}

fn size(
    vm: &VmName,
    machine: &MachineSpec,
    template: &TemplateView,
) -> Result<(u64, u32), PlanError> {
    let of_class = machine.size.map(|size| (size.memory().as_u64(), size.vcpus()));
    let memory = machine.memory.map(|memory| memory.as_u64());
    let memory = memory.or(of_class.map(|size| size.0)).unwrap_or(template.memory);
    let vcpus = machine.vcpus.or(of_class.map(|size| size.1)).unwrap_or(template.vcpus);
    let template_name = || template.named.name.clone();
    if memory < template.least_memory {
        let least = template.least_memory;
        return Err(PlanError::TooLittleMemory {
            vm: vm.clone(),
            template: template_name(),
            wanted: memory,
            least,
        });
    }
    if vcpus == 0 {
        return Err(PlanError::NoProcessors { vm: vm.clone() });
    }
    Ok((memory, vcpus))
}

fn interfaces(
    vm: &VmName,
    machine: &MachineSpec,
    template: &TemplateView,
    view: &PoolView,
) -> Result<Interfaces, PlanError> {
    let of_template = of_template(machine, template, view);
    let wanted = of_template.as_ref().unwrap_or(&machine.networks);
    if wanted.is_empty() {
        return match template.networks.len() {
            0 => Err(PlanError::NoNetwork {
                vm: vm.clone(),
                template: template.named.name.clone(),
                networks: choose::names(view.networks.iter().map(|network| &network.named)),
            }),
            count => Ok(Interfaces::OfTemplate { count }),
        };
    }
    if wanted.len() > MOST_INTERFACES {
        let (wanted, most) = (wanted.len(), MOST_INTERFACES);
        return Err(PlanError::TooManyInterfaces { vm: vm.clone(), wanted, most });
    }
    let mut planned: Vec<PlannedInterface> = Vec::new();
    for spec in wanted {
        let same_mac = spec.mac.filter(|mac| planned.iter().any(|other| other.mac() == Some(*mac)));
        if let Some(mac) = same_mac {
            return Err(PlanError::SameMac { vm: vm.clone(), mac });
        }
        // The pool would hold back what the guest sends from an address that is not among these.
        let own = spec.address.map(|address| address.ip());
        if let Some(own) = own.filter(|own| !spec.allowed.is_empty() && !spec.allowed.contains(own))
        {
            return Err(PlanError::NotAllowed { vm: vm.clone(), address: own });
        }
        let network = choose::network(vm, &spec.network, view)?;
        let lease = Lease::of(spec, network, &view.uuid);
        planned.push(PlannedInterface {
            network: network.named.clone(),
            spec: spec.clone(),
            lease,
        });
    }
    Ok(Interfaces::These(planned))
}

/// The template's own interfaces as if they had been named, where addresses are declared for one of their
/// networks: the guest has to be told which of its interfaces has which address.
fn of_template(
    machine: &MachineSpec,
    template: &TemplateView,
    view: &PoolView,
) -> Option<Vec<NetworkSpec>> {
    if !machine.networks.is_empty() {
        return None;
    }
    let network = |wanted: &Ref<class::Network>| {
        view.networks.iter().find(|network| network.named.reference == *wanted)
    };
    let its: Option<Vec<&NetworkView>> = template.networks.iter().map(network).collect();
    let its = its.filter(|its| its.iter().any(|network| network.range.is_some()))?;
    Some(its.iter().map(|network| NetworkSpec::new(&network.named.uuid)).collect())
}

fn cost(
    template: &TemplateView,
    storage: &StorageView,
    copy: Copy,
    growth: Option<&Growth>,
    (memory, vcpus): (u64, u32),
    view: &PoolView,
) -> Cost {
    let disks: u64 = template.disks.iter().map(|disk| disk.size).sum();
    let grown = growth.map_or(0, |growth| growth.to - growth.from);
    let seed = seed_disk::SMALLEST as u64;
    // Storage on logical volumes takes the whole of a disk when that is made.
    let is_thick = storage.kind.starts_with("lvm");
    let all = disks + grown;
    let now = match copy {
        Copy::Full => all,
        Copy::Clone if is_thick => all,
        Copy::Clone => 0,
    };
    let memory = memory + overhead(memory, vcpus);
    let hosts = view.hosts.iter().map(|host| fit(host, memory, storage)).collect();
    Cost { storage_now: now + seed, storage_at_most: all + seed, memory, hosts }
}

fn fit(host: &HostView, memory: u64, storage: &StorageView) -> HostFit {
    let obstacle = if !host.takes_vms {
        Some("it takes no VMs at present".to_owned())
    } else if !storage.hosts.contains(&host.named.reference) {
        Some(format!("it does not reach storage `{}`", storage.named.name))
    } else if host.memory_free < memory {
        Some("it has too little free memory".to_owned())
    } else {
        None
    };
    HostFit { name: host.named.name.clone(), memory_free: host.memory_free, obstacle }
}

/// What the hypervisor needs for itself beside a guest's memory: 2 MiB, a shadow of 256 pages for each
/// processor and 2 for each MiB, at least 1 MiB, and 38 pages for each processor.
fn overhead(memory: u64, vcpus: u32) -> u64 {
    const PAGE: u64 = 4096;
    const MIB: u64 = 1 << 20;
    let vcpus = u64::from(vcpus);
    let shadow = (256 * vcpus + 2 * (memory / MIB)) * PAGE;
    2 * MIB + shadow.max(MIB) + 38 * vcpus * PAGE
}

#[cfg(test)]
mod tests;
