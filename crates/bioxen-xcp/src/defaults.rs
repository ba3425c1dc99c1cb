//! What a VM of type `xcpng` becomes where nobody says otherwise: `[defaults.xcpng]`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use bioxen_core::{ByteSize, MachineSpec, NetworkSpec, SizeClass, VmName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml_edit::{DocumentMut, Table};

use crate::pool::PoolName;

/// Defaults of VMs of type `xcpng`, as they stand in a configuration file. What is not said is left to
/// the template and the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XcpngDefaults {
    /// The pool that they live on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The template that they are made from, by name or uuid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Label>,
    /// How big they are, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeClass>,
    /// Their memory; goes before what the size class says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Their virtual processors; goes before what the size class says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<NonZeroU32>,
    /// The size of their disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Size>,
    /// The network that they are on, by name or uuid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Label>,
    /// The storage that their disks are on, by name or uuid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Label>,
    /// The host that they run on, by name or uuid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Label>,
    /// Whom to log in as in the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_user: Option<GuestUser>,
    /// What their names on the pool begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<NamePrefix>,
}

impl XcpngDefaults {
    /// The names of all of them, in the order in which they are shown.
    pub const NAMES: [&str; 11] = [
        "pool",
        "template",
        "size",
        "memory",
        "vcpus",
        "disk",
        "network",
        "storage",
        "host",
        "ssh_user",
        "name_prefix",
    ];

    /// Puts them where an order says nothing. An order that names a size has the memory and processors
    /// of that size, whatever the defaults say of them.
    #[must_use]
    pub fn complete(&self, order: MachineSpec) -> MachineSpec {
        let label = |label: &Option<Label>| label.as_ref().map(|label| label.0.clone());
        let mut order = MachineSpec {
            pool: order.pool.or_else(|| self.pool.as_ref().map(ToString::to_string)),
            template: order.template.or_else(|| label(&self.template)),
            disk: order.disk.or(self.disk.map(|size| size.0)),
            storage: order.storage.or_else(|| label(&self.storage)),
            host: order.host.or_else(|| label(&self.host)),
            name_prefix: order
                .name_prefix
                .or_else(|| self.name_prefix.as_ref().map(ToString::to_string)),
            user: order.user.or_else(|| self.ssh_user.as_ref().map(|user| user.0.clone())),
            ..order
        };
        if order.size.is_none() {
            order.size = self.size;
            order.memory = order.memory.or(self.memory.map(|size| size.0));
            order.vcpus = order.vcpus.or(self.vcpus.map(NonZeroU32::get));
        }
        if order.networks.is_empty() {
            order.networks.extend(label(&self.network).map(NetworkSpec::new));
        }
        order
    }

    /// Those that are said, by name.
    pub(crate) fn to_table(&self) -> Table {
        toml_edit::ser::to_document(self).expect("defaults have a form in TOML").as_table().clone()
    }

    /// Reads them from a table.
    pub(crate) fn from_table(table: Table) -> Result<Self, toml_edit::de::Error> {
        toml_edit::de::from_document(DocumentMut::from(table))
    }

    /// Reads them from a table whose values were all read before.
    pub(crate) fn from_known(table: Table) -> Self {
        Self::from_table(table).expect("what was read before can be read again")
    }

    /// Those that are said, each with its value as text.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let table = self.to_table();
        let text = |name| {
            let value = table.get(name)?.as_value()?;
            Some((name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        };
        Self::NAMES.into_iter().filter_map(text).collect()
    }
}

/// A text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is {what}")]
pub struct InvalidDefault {
    given: String,
    what: &'static str,
}

fn refuse<T>(given: &str, what: &'static str) -> Result<T, InvalidDefault> {
    Err(InvalidDefault { given: given.escape_debug().to_string(), what })
}

/// An amount of memory or disk, above nothing and below 8 EiB, as the Xen API counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(ByteSize);

impl Size {
    /// How much it is.
    pub fn bytes(self) -> u64 {
        self.0.as_u64()
    }
}

impl FromStr for Size {
    type Err = InvalidDefault;
    fn from_str(text: &str) -> Result<Self, InvalidDefault> {
        match text.parse::<ByteSize>() {
            Ok(size) if size.as_u64() > 0 && i64::try_from(size.as_u64()).is_ok() => Ok(Self(size)),
            _ => refuse(text, "no size; write one such as 2GiB or 512MiB"),
        }
    }
}

/// Written exactly, in the largest unit that it is a whole number of.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let bytes = self.bytes();
        let unit = units.into_iter().find(|(bits, _)| bytes.trailing_zeros() >= *bits);
        let (bits, unit) = unit.unwrap_or((0, "B"));
        write!(f, "{}{unit}", bytes >> bits)
    }
}

/// What the pool calls something, or its uuid: text of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(String);

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = InvalidDefault;
    fn from_str(text: &str) -> Result<Self, InvalidDefault> {
        if text.trim().is_empty() || text.len() > 255 || text.contains(char::is_control) {
            return refuse(text, "no name or uuid: it is 1 to 255 bytes of text on one line");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A user's name in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestUser(String);

impl GuestUser {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GuestUser {
    type Err = InvalidDefault;
    fn from_str(text: &str) -> Result<Self, InvalidDefault> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let starts_well =
            text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if starts_well && text.len() <= 32 && text.bytes().all(is_part) {
            return Ok(Self(text.to_owned()));
        }
        refuse(text, "no user's name: it is 1 to 32 letters, digits, `_`, `-` and `.`")
    }
}

impl fmt::Display for GuestUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What names of VMs begin with: the beginning of a VM's name, with room for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePrefix(String);

impl NamePrefix {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NamePrefix {
    type Err = InvalidDefault;
    fn from_str(text: &str) -> Result<Self, InvalidDefault> {
        match VmName::new(text) {
            Ok(_) if text.len() <= 40 => Ok(Self(text.to_owned())),
            _ => refuse(
                text,
                "no beginning of names: it is 1 to 40 of a-z, 0-9, `-` and `_`, starting with a letter",
            ),
        }
    }
}

impl fmt::Display for NamePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Gives types that are written as text their form in files.
macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(Size, Label, GuestUser, NamePrefix);

#[cfg(test)]
mod tests {
    use super::*;

    /// All of them.
    const ALL: &str = "pool = 'lab'\ntemplate = 'Debian 12'\nsize = 'light'\nmemory = '1536MiB'\n\
        vcpus = 2\ndisk = '20GiB'\nnetwork = 'eth0'\nstorage = 'ssd'\nhost = 'xcp-01'\n\
        ssh_user = 'ada'\nname_prefix = 'lab-'\n";

    fn parse(text: &str) -> Result<XcpngDefaults, toml_edit::de::Error> {
        toml_edit::de::from_str(text)
    }

    #[test]
    fn defaults_are_read_back_from_their_table() {
        let defaults = parse(ALL).unwrap();
        assert_eq!(XcpngDefaults::from_table(defaults.to_table()).unwrap(), defaults);
        let names: Vec<&str> = defaults.entries().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, XcpngDefaults::NAMES);
        assert_eq!(defaults.entries()[3].1, "1536MiB");
        assert_eq!(XcpngDefaults::default().entries(), []);
    }

    #[test]
    fn what_can_be_no_default_is_refused() {
        for wrong in [
            "pool = 'Lab'",
            "template = ''",
            "template = \"a\\nb\"",
            "size = 'huge'",
            "memory = '0'",
            "memory = '2 parsecs'",
            "memory = '9EiB'",
            "vcpus = 0",
            "vcpus = -1",
            "ssh_user = 'a b'",
            "ssh_user = '-o'",
            "name_prefix = 'Lab '",
            "address = '10.0.0.1'",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_is_written_exactly() {
        for (given, written) in
            [("2GiB", "2GiB"), ("2GB", "1953125KiB"), ("1.5 GiB", "1536MiB"), ("7", "7B")]
        {
            let size: Size = given.parse().unwrap();
            assert_eq!(size.to_string(), written);
            assert_eq!(written.parse::<Size>().unwrap(), size);
        }
    }

    #[test]
    fn defaults_complete_what_was_not_said() {
        let defaults = parse(ALL).unwrap();
        let complete = defaults.complete(MachineSpec::default());
        assert_eq!((complete.pool.as_deref(), complete.vcpus), (Some("lab"), Some(2)));
        assert_eq!(complete.memory, Some(ByteSize::mib(1536)));
        assert_eq!(complete.networks, [NetworkSpec::new("eth0")]);
        let said = MachineSpec {
            size: Some(SizeClass::Production),
            networks: vec![NetworkSpec::new("other")],
            ..MachineSpec::default()
        };
        let complete = defaults.complete(said.clone());
        assert_eq!((complete.size, complete.memory, complete.vcpus), (said.size, None, None));
        assert_eq!(complete.networks, said.networks);
        assert_eq!(XcpngDefaults::default().complete(said.clone()), said);
    }
}
