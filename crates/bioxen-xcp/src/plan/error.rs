//! Why a virtual machine cannot be made.

use std::net::IpAddr;

use bioxen_core::{AddressRange, ByteSize, MacAddress, VmName};

use super::HostFit;

/// Why a virtual machine cannot be made. Nothing was asked of the pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It is not to be one.
    #[error("vm `{vm}` is not of type `xcpng`")]
    NotXcpng {
        /// The VM.
        vm: VmName,
    },
    /// It is to be a copy of a machine whose address was chosen.
    #[error("vm `{vm}` cannot be a copy of `{origin}`: both would have the address {address}")]
    AddressTaken {
        /// The VM.
        vm: VmName,
        /// What it is to be a copy of.
        origin: String,
        /// The address.
        address: IpAddr,
    },
    /// Nothing says from what.
    #[error("vm `{vm}` has no template to be made from")]
    NoTemplate {
        /// The VM.
        vm: VmName,
        /// Templates that could be used.
        ready: Vec<String>,
    },
    /// The template has no disk with an operating system.
    #[error(
        "vm `{vm}` cannot be made from template `{template}`: that is an installer's, which has no disk to boot and never reads a seed"
    )]
    Installer {
        /// The VM.
        vm: VmName,
        /// The template.
        template: String,
        /// Templates that could be used.
        ready: Vec<String>,
    },
    /// The pool has nothing of that name.
    #[error("vm `{vm}`: there is no {what} `{name}` on the pool")]
    NotFound {
        /// The VM.
        vm: VmName,
        /// What was looked for.
        what: &'static str,
        /// Its name or uuid.
        name: String,
        /// What there is instead, the most alike first.
        there: Vec<String>,
    },
    /// The pool has several things of that name.
    #[error(
        "vm `{vm}`: {what} `{name}` is ambiguous; it is the name of {}",
        candidates.join(", ")
    )]
    Ambiguous {
        /// The VM.
        vm: VmName,
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
        /// The uuids of all that have it.
        candidates: Vec<String>,
    },
    /// The storage of the template's disks is gone.
    #[error("vm `{vm}`: the storage of template `{template}` is not on the pool any more")]
    NoStorage {
        /// The VM.
        vm: VmName,
        /// The template.
        template: String,
    },
    /// The storage is one for images of media.
    #[error("vm `{vm}`: storage `{storage}` does not hold disks of VMs")]
    NotForDisks {
        /// The VM.
        vm: VmName,
        /// The storage repository.
        storage: String,
    },
    /// The storage has no room.
    #[error(
        "vm `{vm}`: storage `{storage}` has {} free, and {} are needed",
        ByteSize(*free),
        ByteSize(*needed)
    )]
    StorageFull {
        /// The VM.
        vm: VmName,
        /// The storage repository.
        storage: String,
        /// What it takes at once.
        needed: u64,
        /// What is free.
        free: u64,
    },
    /// Disks only grow.
    #[error(
        "vm `{vm}`: a disk of {} is smaller than that of template `{template}`, {}",
        ByteSize(*wanted),
        ByteSize(*least)
    )]
    DiskTooSmall {
        /// The VM.
        vm: VmName,
        /// The template.
        template: String,
        /// What was asked for.
        wanted: u64,
        /// What the template has.
        least: u64,
    },
    /// The template needs more.
    #[error(
        "vm `{vm}`: template `{template}` does not run with {}, only with {} or more",
        ByteSize(*wanted),
        ByteSize(*least)
    )]
    TooLittleMemory {
        /// The VM.
        vm: VmName,
        /// The template.
        template: String,
        /// What was asked for.
        wanted: u64,
        /// What the template needs.
        least: u64,
    },
    /// No processor was asked for.
    #[error("vm `{vm}` cannot have 0 processors")]
    NoProcessors {
        /// The VM.
        vm: VmName,
    },
    /// Nothing could reach it.
    #[error("vm `{vm}`: template `{template}` has no network interface, and no network was named")]
    NoNetwork {
        /// The VM.
        vm: VmName,
        /// The template.
        template: String,
        /// Networks that could be named.
        networks: Vec<String>,
    },
    /// More interfaces than guests take.
    #[error("vm `{vm}` cannot have {wanted} network interfaces; {most} are the most")]
    TooManyInterfaces {
        /// The VM.
        vm: VmName,
        /// How many were asked for.
        wanted: usize,
        /// How many there may be.
        most: usize,
    },
    /// Two interfaces with one hardware address.
    #[error("vm `{vm}`: two interfaces have the MAC address `{mac}`")]
    SameMac {
        /// The VM.
        vm: VmName,
        /// The address.
        mac: MacAddress,
    },
    /// An interface whose own address is not among those that it may use.
    #[error("vm `{vm}`: the address `{address}` is not among those that its interface may use")]
    NotAllowed {
        /// The VM.
        vm: VmName,
        /// Its address.
        address: IpAddr,
    },
    /// All addresses that are declared for a network are taken.
    #[error("vm `{vm}`: no address of {range} is free on network `{network}`")]
    NoAddressFree {
        /// The VM.
        vm: VmName,
        /// The network.
        network: String,
        /// What is declared for it.
        range: AddressRange,
    },
    /// The host that was named cannot take it.
    #[error("vm `{vm}` cannot run on host `{host}`: {obstacle}")]
    Host {
        /// The VM.
        vm: VmName,
        /// The host.
        host: String,
        /// Why.
        obstacle: String,
    },
    /// No host can take it.
    #[error("no host can take vm `{vm}` with {} of memory: {}", ByteSize(*needed), obstacles(hosts))]
    NoHost {
        /// The VM.
        vm: VmName,
        /// What it takes of a host.
        needed: u64,
        /// Each host with its reason.
        hosts: Vec<HostFit>,
    },
}

fn obstacles(hosts: &[HostFit]) -> String {
    if hosts.is_empty() {
        return "the pool has no host".into();
    }
    let of = |host: &HostFit| {
        let obstacle = host.obstacle.as_deref().unwrap_or("it could");
        format!("`{}`: {obstacle} ({} free)", host.name, ByteSize(host.memory_free))
    };
    hosts.iter().map(of).collect::<Vec<_>>().join("; ")
}

impl PlanError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        let one_of = |names: &[String], list: &str| match names {
            [] => format!("`bioxen pool {list} POOL` lists what there is"),
            names => {
                format!("there is `{}`; `bioxen pool {list} POOL` lists all", names.join("`, `"))
            }
        };
        match self {
            Self::AddressTaken { .. } => {
                "make it with `bioxen vm create`, and give it an address of its own".into()
            }
            Self::NotXcpng { .. } => "order it with `--type xcpng`".into(),
            Self::NoTemplate { ready, .. } | Self::Installer { ready, .. } => {
                one_of(ready, "templates")
            }
            Self::NotFound { what, there, .. } => one_of(there, list(what)),
            Self::Ambiguous { what, .. } => format!("name the {what} by its uuid"),
            Self::NoStorage { .. } => "connect it again, or use another template".into(),
            Self::NotForDisks { .. } => "`bioxen pool storage POOL` says which hold disks".into(),
            Self::StorageFull { .. } => {
                "free some of it (`bioxen vm gc`), name another with `--storage`, or ask for less with `--disk`".into()
            }
            Self::DiskTooSmall { .. } => "leave `--disk` out, or ask for more".into(),
            Self::TooLittleMemory { .. } => "ask for more with `--memory` or `--size`".into(),
            Self::NoProcessors { .. } => "ask for at least one with `--vcpus`".into(),
            Self::NoNetwork { networks, .. } => {
                format!("name one with `--network`; {}", one_of(networks, "networks"))
            }
            Self::TooManyInterfaces { .. } => "leave some `--network` out".into(),
            Self::SameMac { .. } => "leave `mac=` out, and each gets its own".into(),
            Self::NotAllowed { .. } => "add it with `allow=`".into(),
            Self::NoAddressFree { .. } => {
                "delete a VM that has one of them, declare a wider range in `config.toml`, or ask a DHCP server: `--network NAME,address=dhcp`".into()
            }
            Self::Host { .. } => "name another with `--host`, or let the pool choose".into(),
            Self::NoHost { .. } => {
                "ask for less memory, or stop VMs that are not needed; `bioxen pool hosts POOL` shows what is free".into()
            }
        }
    }
}

fn list(what: &str) -> &'static str {
    match what {
        "template" => "templates",
        "storage" => "storage",
        "network" => "networks",
        _ => "hosts",
    }
}
