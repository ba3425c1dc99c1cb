//! What a pool's configuration says of the guests of its VMs: which addresses they are given, and how they
//! are reached.

mod jump;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bioxen_core::{AddressRange, CallHomeAddress, InterfaceAddress, InvalidAddress, InvalidRange};
use serde::{Deserialize, Serialize};

pub(crate) use jump::SshTable;
pub use jump::{Identity, InvalidJump, Jump, JumpPlace};

/// What is declared of the guests of a pool's VMs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestSettings {
    /// The addresses that they are given, by the name or uuid of the network.
    pub ranges: BTreeMap<String, DeclaredRange>,
    /// Where this machine listens for them when they call home, if they are to.
    pub call_home: Option<CallHomeAddress>,
    /// By way of which host they are reached, if by any.
    pub jump: Option<Jump>,
}

/// Addresses of a network that VMs are given where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeclaredRange {
    addresses: AddressRange,
    prefix: u8,
    gateway: Option<IpAddr>,
    name_servers: Vec<IpAddr>,
}

/// Why addresses cannot be given to VMs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDeclaration {
    /// They are no range.
    #[error(transparent)]
    Range(#[from] InvalidRange),
    /// It is not known which network they are in.
    #[error("`prefix` says how much of an address is its network's, and is missing")]
    NoPrefix,
    /// It is said twice which network they are in, and not the same.
    #[error("`prefix` is {prefix}, and `addresses` says another")]
    TwoPrefixes {
        /// The one.
        prefix: u8,
    },
    /// One of them can be no host's.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// They begin in one network and end in another.
    #[error("{0} is more than one network")]
    SeveralNetworks(AddressRange),
    /// The gateway cannot be reached from them.
    #[error("gateway `{0}` is not in the network of the addresses")]
    Gateway(IpAddr),
}

/// A declaration as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RangeTable {
    addresses: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dns: Vec<IpAddr>,
}

impl GuestSettings {
    /// Reads the declarations; an error comes with the network that it is about.
    pub(crate) fn from_tables(
        networks: BTreeMap<String, RangeTable>,
    ) -> Result<Self, (String, InvalidDeclaration)> {
        let read = |(network, table)| match DeclaredRange::from_table(&table) {
            Ok(range) => Ok((network, range)),
            Err(error) => Err((network, error)),
        };
        let ranges = networks.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { ranges, ..Self::default() })
    }

    /// All that is declared, each by its key in the pool's table with its value as text.
    pub fn entries(&self) -> Vec<(String, String)> {
        let mut entries = Vec::new();
        if let Some(at) = self.call_home {
            entries.push(("call_home".to_owned(), at.to_string()));
        }
        for (network, range) in &self.ranges {
            let mut add =
                |key: &str, value| entries.push((format!("networks.{network}.{key}"), value));
            add("addresses", range.addresses.to_string());
            add("prefix", range.prefix.to_string());
            if let Some(gateway) = range.gateway {
                add("gateway", gateway.to_string());
            }
            if !range.name_servers.is_empty() {
                let servers = range.name_servers.iter().map(IpAddr::to_string);
                add("dns", servers.collect::<Vec<_>>().join(", "));
            }
        }
        if let Some(Jump { place, host_key, identity }) = &self.jump {
            let (how, identity) = match identity {
                Identity::Agent => ("agent", "true".to_owned()),
                Identity::File(path) => ("identity", format!("file:{}", path.display())),
            };
            let jump = [("jump", place.to_string()), ("host_key", host_key.to_string())];
            let all = jump.into_iter().chain([(how, identity)]);
            entries.extend(all.map(|(key, value)| (format!("ssh.{key}"), value)));
        }
        entries
    }

    pub(crate) fn range_tables(&self) -> BTreeMap<String, RangeTable> {
        let table = |(network, range): (&String, &DeclaredRange)| (network.clone(), range.table());
        self.ranges.iter().map(table).collect()
    }
}

impl DeclaredRange {
    /// Checks that these addresses can be given to hosts of one network with this prefix, and that they reach
    /// the gateway.
    pub fn new(
        addresses: AddressRange,
        prefix: u8,
        gateway: Option<IpAddr>,
        name_servers: Vec<IpAddr>,
    ) -> Result<Self, InvalidDeclaration> {
        let first = InterfaceAddress::new(addresses.first(), prefix)?;
        InterfaceAddress::new(addresses.last(), prefix)?;
        if !first.reaches(addresses.last()) {
            return Err(InvalidDeclaration::SeveralNetworks(addresses));
        }
        match gateway {
            Some(gateway) if !first.reaches(gateway) => Err(InvalidDeclaration::Gateway(gateway)),
            _ => Ok(Self { addresses, prefix, gateway, name_servers }),
        }
    }

    fn from_table(table: &RangeTable) -> Result<Self, InvalidDeclaration> {
        let addresses: AddressRange = table.addresses.parse()?;
        let of_network = table.addresses.split_once('/').and_then(|(_, it)| it.trim().parse().ok());
        let prefix = match (table.prefix, of_network) {
            (Some(prefix), Some(other)) if prefix != other => {
                return Err(InvalidDeclaration::TwoPrefixes { prefix });
            }
            (said, of_network) => said.or(of_network).ok_or(InvalidDeclaration::NoPrefix)?,
        };
        Self::new(addresses, prefix, table.gateway, table.dns.clone())
    }

    fn table(&self) -> RangeTable {
        RangeTable {
            addresses: self.addresses.to_string(),
            prefix: Some(self.prefix),
            gateway: self.gateway,
            dns: self.name_servers.clone(),
        }
    }

    /// The addresses.
    pub fn addresses(&self) -> AddressRange {
        self.addresses
    }

    /// Whither guests send what is for elsewhere.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// Who knows names.
    pub fn name_servers(&self) -> &[IpAddr] {
        &self.name_servers
    }

    /// One of the addresses with its network's prefix.
    ///
    /// # Panics
    ///
    /// When it is none of them.
    pub(crate) fn interface_address(&self, address: IpAddr) -> InterfaceAddress {
        assert!(self.addresses.contains(address), "{address} is not of {}", self.addresses);
        InterfaceAddress::new(address, self.prefix).expect("what is between two hosts' is a host's")
    }

    /// Those of its addresses that are no VM's to have: the network's own servers.
    pub(crate) fn reserved(&self) -> BTreeSet<IpAddr> {
        self.gateway.iter().chain(&self.name_servers).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(text: &str) -> Result<DeclaredRange, InvalidDeclaration> {
        DeclaredRange::from_table(&toml_edit::de::from_str(text).unwrap())
    }

    #[test]
    fn a_declaration_is_read_back_from_its_table() {
        let text = "addresses = '10.0.3.100-10.0.3.199'\nprefix = 24\ngateway = '10.0.3.1'\n\
                    dns = ['10.0.3.1', '10.0.3.2']\n";
        let range = declared(text).unwrap();
        assert_eq!(DeclaredRange::from_table(&range.table()), Ok(range.clone()));
        let address = range.interface_address(range.addresses().first());
        assert_eq!(address.to_string(), "10.0.3.100/24");
        assert_eq!(range.reserved().len(), 2);
    }

    #[test]
    fn a_network_says_its_prefix_itself() {
        let range = declared("addresses = '10.0.3.0/24'").unwrap();
        assert_eq!(range.addresses().to_string(), "10.0.3.1-10.0.3.254");
        assert_eq!(range.interface_address(range.addresses().last()).to_string(), "10.0.3.254/24");
    }

    #[test]
    fn addresses_that_cannot_be_given_say_why() {
        use InvalidDeclaration as I;
        let error = |text: &str| declared(text).unwrap_err();
        assert!(matches!(error("addresses = '10.0.3'"), I::Range(_)));
        assert_eq!(error("addresses = '10.0.3.1-10.0.3.9'"), I::NoPrefix);
        let two = "addresses = '10.0.3.0/24'\nprefix = 16";
        assert_eq!(error(two), I::TwoPrefixes { prefix: 16 });
        assert!(matches!(error("addresses = '10.0.3.0-10.0.3.9'\nprefix = 24"), I::Address(_)));
        assert!(matches!(error("addresses = '127.0.0.1'\nprefix = 8"), I::Address(_)));
        let wide = "addresses = '10.0.3.9-10.0.4.9'\nprefix = 24";
        assert!(matches!(error(wide), I::SeveralNetworks(_)));
        let away = "addresses = '10.0.3.9'\nprefix = 24\ngateway = '10.0.4.1'";
        assert!(matches!(error(away), I::Gateway(_)));
        let unknown = "addresses = '10.0.3.9'\nprefix = 24\nnetmask = 24";
        assert!(toml_edit::de::from_str::<RangeTable>(unknown).is_err());
    }
}
