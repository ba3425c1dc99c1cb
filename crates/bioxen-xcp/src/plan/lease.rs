//! Addresses that a virtual machine is to be given of those that are declared for its networks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bioxen_core::{AddressRange, NetworkSpec};
use xenapi::class;

use super::{Interfaces, Named, NetworkView, Plan};
use crate::guest_settings::DeclaredRange;

/// An interface that is to be given an address, and has none yet.
#[derive(Clone, Debug)]
pub struct Lease {
    pool: String,
    range: DeclaredRange,
    excluded: BTreeSet<IpAddr>,
}

/// An address that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The pool, by its own uuid.
    pub pool: String,
    /// The network.
    pub network: Named<class::Network>,
    /// Where it is to be from.
    pub range: AddressRange,
    /// What of that it is not to be: what is in use there, and the network's own servers.
    pub excluded: BTreeSet<IpAddr>,
}

impl Wanted {
    /// The lowest address that it can be.
    pub fn lowest(&self) -> Option<IpAddr> {
        self.range.addresses().find(|address| !self.excluded.contains(address))
    }
}

impl Lease {
    /// What an interface is to be given of which this was said: nothing where it has an address or asks for
    /// one, and where none is declared.
    pub(super) fn of(spec: &NetworkSpec, network: &NetworkView, pool: &str) -> Option<Self> {
        let range = network.range.as_ref().filter(|_| spec.address.is_none() && !spec.dhcp)?;
        let excluded = range.reserved().union(&network.in_use).copied().collect();
        Some(Self { pool: pool.to_owned(), range: range.clone(), excluded })
    }

    /// What is declared.
    pub fn range(&self) -> &DeclaredRange {
        &self.range
    }
}

impl Plan {
    /// The addresses that have to be found for it, in the order of its interfaces.
    pub fn wanted(&self) -> Vec<Wanted> {
        let Interfaces::These(interfaces) = &self.interfaces else { return Vec::new() };
        let wanted = interfaces.iter().filter_map(|interface| {
            let Lease { pool, range, excluded } = interface.lease.as_ref()?;
            Some(Wanted {
                pool: pool.clone(),
                network: interface.network.clone(),
                range: range.addresses(),
                excluded: excluded.clone(),
            })
        });
        wanted.collect()
    }

    /// The same plan with these addresses for what [was wanted](Self::wanted), in that order. What is declared
    /// with them comes along, but for what was said.
    ///
    /// # Panics
    ///
    /// When one is not of the range that it was wanted from.
    #[must_use]
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let Interfaces::These(interfaces) = &mut self.interfaces else { return self };
        let waiting = interfaces.iter_mut().filter(|interface| interface.lease.is_some());
        for (interface, address) in waiting.zip(addresses) {
            let Some(Lease { range, .. }) = interface.lease.take() else { continue };
            let spec = &mut interface.spec;
            spec.address = Some(range.interface_address(address));
            spec.gateway = spec.gateway.or(range.gateway());
            if spec.name_servers.is_empty() {
                spec.name_servers = range.name_servers().to_vec();
            }
            // The pool would hold back what the guest sends from an address that is not among these.
            if !spec.allowed.is_empty() {
                spec.allowed.insert(address);
            }
        }
        self
    }

    /// The first address that was chosen for it.
    pub fn chosen_address(&self) -> Option<IpAddr> {
        let Interfaces::These(interfaces) = &self.interfaces else { return None };
        interfaces.iter().find_map(|interface| Some(interface.spec.address?.ip()))
    }
}
