//! What a VM of type `xcpng` lives in.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::{CallHomeAddress, InterfaceAddress, InvalidAddress, MacAddress};

/// The virtual machine of a VM: from what it is made, how large it is and where.
///
/// Whatever is not said comes from the configuration's defaults, and after those from the template
/// and the pool. Things of a pool are named by name or uuid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineSpec {
    /// The pool, by its name in the configuration.
    pub pool: Option<String>,
    /// What it is made from.
    pub template: Option<String>,
    /// How large it is, where memory or processors are not said.
    pub size: Option<SizeClass>,
    /// Its memory.
    pub memory: Option<ByteSize>,
    /// Its processors.
    pub vcpus: Option<u32>,
    /// The size to which its first disk grows.
    pub disk: Option<ByteSize>,
    /// The storage repository of its disks. Another than the template's makes a full copy.
    pub storage: Option<String>,
    /// Whether its disks share nothing with the template's.
    pub full_copy: bool,
    /// Its interfaces, in their order; none are those of the template.
    pub networks: Vec<NetworkSpec>,
    /// The host that it is to run on, if that can take it.
    pub host: Option<String>,
    /// What its name on the pool begins with, before the VM's own.
    pub name_prefix: Option<String>,
    /// How long it may live, from when it is made.
    pub lifetime: Option<Duration>,
    /// The guest's user that Lua runs as; `bioxen` where nothing is said.
    pub user: Option<String>,
    /// The port of the guest's SSH server; 22 where nothing is said.
    pub port: Option<u16>,
    /// Packages of the guest's distribution to install.
    pub packages: Vec<String>,
    /// A cloud-config of the user's own, which is merged with ours.
    pub cloud_config: Option<String>,
    /// Public keys that may log in besides our own, as in `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// Where this machine listens for its guest, which is to call when it has set itself up; as its pool's
    /// configuration says where nothing is said.
    pub call_home: Option<CallHomeAddress>,
    /// What is copied into the guest before Lua starts there.
    pub files: Vec<FileCopy>,
}

/// A file or directory of the controller's machine that is copied into a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCopy {
    /// Where it is here.
    pub from: PathBuf,
    /// Where it is to be in the guest; a relative path starts from the user's home directory.
    pub to: String,
}

/// Memory and processors by one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeClass {
    /// 1 GiB and 1 processor.
    Light,
    /// 2 GiB and 2 processors.
    Standard,
    /// 4 GiB and 4 processors.
    Development,
    /// 8 GiB and 8 processors.
    Production,
    /// 8 GiB and 4 processors.
    Bioinformatics,
}

impl SizeClass {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Light, Self::Standard, Self::Development, Self::Production, Self::Bioinformatics];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Standard => "standard",
            Self::Development => "development",
            Self::Production => "production",
            Self::Bioinformatics => "bioinformatics",
        }
    }

    /// Its memory.
    pub fn memory(self) -> ByteSize {
        ByteSize::gib(match self {
            Self::Light => 1,
            Self::Standard => 2,
            Self::Development => 4,
            Self::Production | Self::Bioinformatics => 8,
        })
    }

    /// Its processors.
    pub fn vcpus(self) -> u32 {
        match self {
            Self::Light => 1,
            Self::Standard => 2,
            Self::Development | Self::Bioinformatics => 4,
            Self::Production => 8,
        }
    }
}

impl fmt::Display for SizeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a text names no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size; known are {known}", known = SizeClass::ALL.map(SizeClass::name).join(", "))]
pub struct UnknownSizeClass(String);

impl FromStr for SizeClass {
    type Err = UnknownSizeClass;
    fn from_str(text: &str) -> Result<Self, UnknownSizeClass> {
        Self::ALL
            .into_iter()
            .find(|size| size.name() == text)
            .ok_or_else(|| UnknownSizeClass(text.escape_debug().to_string()))
    }
}

/// One interface: which network it is on, and with which addresses.
///
/// As text it is the network's name, followed by `key=value` after commas:
/// `lab,address=10.0.0.7/24,gateway=10.0.0.1,dns=10.0.0.2,mac=0a:00:00:00:00:01,allow=10.0.0.7`. Keys that
/// name several may be repeated. `address=dhcp` asks for one even where a range is declared. A network whose name has a comma is named by its uuid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The network.
    pub network: String,
    /// Its hardware address; made up where nothing is said.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// Its address. Where nothing is said it gets one of the range that is declared for the network, and
    /// where none is it asks for one by DHCP.
    #[serde(default)]
    pub address: Option<InterfaceAddress>,
    /// Whether it asks for its address by DHCP, whatever range is declared.
    #[serde(default)]
    pub dhcp: bool,
    /// Whither what is for elsewhere is sent.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Who knows names.
    #[serde(default)]
    pub name_servers: Vec<IpAddr>,
    /// The only addresses that the pool lets it use; empty means all that the network allows.
    #[serde(default)]
    pub allowed: BTreeSet<IpAddr>,
}

impl NetworkSpec {
    /// An interface on this network, of which nothing else is said.
    pub fn new(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            mac: None,
            address: None,
            dhcp: false,
            gateway: None,
            name_servers: Vec::new(),
            allowed: BTreeSet::new(),
        }
    }
}

/// Why a text is no interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNetworkSpec {
    /// It does not begin with a network.
    #[error("it names no network; write `NETWORK[,address=…][,mac=…]`")]
    NoNetwork,
    /// A key is not known.
    #[error("`{0}` is no setting of an interface; known are address, gateway, dns, mac and allow")]
    UnknownKey(String),
    /// A key that may be there once is there twice.
    #[error("`{0}` is there twice")]
    Twice(&'static str),
    /// An address is none.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// An address is none.
    #[error("`{0}` is no address")]
    Ip(String),
    /// A gateway is where nothing can be sent to.
    #[error("gateway `{0}` is in no network of the interface")]
    Gateway(IpAddr),
}

impl FromStr for NetworkSpec {
    type Err = InvalidNetworkSpec;
    fn from_str(text: &str) -> Result<Self, InvalidNetworkSpec> {
        fn once<T>(
            place: &mut Option<T>,
            key: &'static str,
            value: T,
        ) -> Result<(), InvalidNetworkSpec> {
            let before = place.replace(value);
            before.map_or(Ok(()), |_| Err(InvalidNetworkSpec::Twice(key)))
        }
        let ip = |value: &str| {
            let invalid = |_| InvalidNetworkSpec::Ip(value.escape_debug().to_string());
            value.parse::<IpAddr>().map_err(invalid)
        };
        let mut parts = text.split(',');
        let network = parts.next().filter(|name| !name.is_empty());
        let mut spec = Self::new(network.ok_or(InvalidNetworkSpec::NoNetwork)?);
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "address" if spec.dhcp => return Err(InvalidNetworkSpec::Twice("address")),
                "address" if value == "dhcp" && spec.address.is_none() => spec.dhcp = true,
                "address" => once(&mut spec.address, "address", value.parse()?)?,
                "mac" => once(&mut spec.mac, "mac", value.parse()?)?,
                "gateway" => once(&mut spec.gateway, "gateway", ip(value)?)?,
                "dns" => spec.name_servers.push(ip(value)?),
                "allow" => {
                    spec.allowed.insert(ip(value)?);
                }
                other => {
                    let key = other.escape_debug().to_string();
                    return Err(InvalidNetworkSpec::UnknownKey(key));
                }
            }
        }
        let reached = |gateway| spec.address.is_some_and(|address| address.reaches(gateway));
        match spec.gateway {
            Some(gateway) if !reached(gateway) => Err(InvalidNetworkSpec::Gateway(gateway)),
            _ => Ok(spec),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_read_from_one_text() {
        let spec: NetworkSpec =
            "lab net,address=10.0.0.7/24,gateway=10.0.0.1,dns=10.0.0.2,dns=10.0.0.3,allow=10.0.0.7"
                .parse()
                .unwrap();
        assert_eq!(spec.network, "lab net");
        assert_eq!(spec.address.unwrap().to_string(), "10.0.0.7/24");
        assert_eq!(spec.name_servers.len(), 2);
        assert_eq!(spec.allowed.len(), 1);
        assert_eq!("lab".parse(), Ok(NetworkSpec::new("lab")));
        let asking = NetworkSpec { dhcp: true, ..NetworkSpec::new("lab") };
        assert_eq!("lab,address=dhcp".parse(), Ok(asking));
    }

    #[test]
    fn a_text_that_is_no_interface_says_why() {
        let error = |text: &str| text.parse::<NetworkSpec>().unwrap_err();
        assert_eq!(error(",mac=x"), InvalidNetworkSpec::NoNetwork);
        assert_eq!(error("lab,vlan=3"), InvalidNetworkSpec::UnknownKey("vlan".into()));
        assert_eq!(error("lab,dns=x"), InvalidNetworkSpec::Ip("x".into()));
        let twice = "lab,mac=0a:00:00:00:00:01,mac=0a:00:00:00:00:02";
        assert_eq!(error(twice), InvalidNetworkSpec::Twice("mac"));
        for twice in
            ["lab,address=dhcp,address=10.0.0.7/24", "lab,address=10.0.0.7/24,address=dhcp"]
        {
            assert!(twice.parse::<NetworkSpec>().is_err(), "{twice}");
        }
        let away = "lab,address=10.0.0.7/24,gateway=10.0.1.1";
        assert!(matches!(error(away), InvalidNetworkSpec::Gateway(_)));
        assert!(matches!(error("lab,gateway=10.0.0.1"), InvalidNetworkSpec::Gateway(_)));
    }

    #[test]
    fn a_size_is_known_by_its_word() {
        assert_eq!("bioinformatics".parse(), Ok(SizeClass::Bioinformatics));
        assert_eq!(SizeClass::Bioinformatics.memory(), ByteSize::gib(8));
        assert_eq!(SizeClass::Bioinformatics.vcpus(), 4);
        let error = "huge".parse::<SizeClass>().unwrap_err().to_string();
        assert!(error.ends_with("light, standard, development, production, bioinformatics"));
    }
}
