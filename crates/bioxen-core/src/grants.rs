//! Permissions that Lua code was given. None is there unless it was named.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the Lua code of a VM may touch outside itself. Everything else is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Files, and directories with all below them, that may be read.
    pub read: BTreeSet<PathBuf>,
    /// Files, and directories with all below them, that may be read, written, made and removed.
    pub write: BTreeSet<PathBuf>,
    /// Addresses that may be connected to.
    pub net: BTreeSet<NetAddress>,
    /// Environment variables of the controller that the code may see, by name.
    pub env: BTreeSet<String>,
    /// Whether programs may be started. They run under the VM's own restrictions, and may read and
    /// execute what the system installed (`/usr`, `/bin`, `/lib`).
    pub spawn: bool,
}

impl Grants {
    /// Nothing: no file, no network, no environment, no programs.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a file or a directory that may be read.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.insert(path.into());
        self
    }

    /// Adds a file or a directory that may be read and written.
    #[must_use]
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.insert(path.into());
        self
    }

    /// Adds an address that may be connected to.
    #[must_use]
    pub fn net(mut self, address: NetAddress) -> Self {
        self.net.insert(address);
        self
    }

    /// Adds an environment variable that may be seen.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>) -> Self {
        self.env.insert(name.into());
        self
    }

    /// Lets the code start programs.
    #[must_use]
    pub fn spawn(mut self) -> Self {
        self.spawn = true;
        self
    }

    /// Whether nothing was granted.
    pub fn is_none(&self) -> bool {
        *self == Self::none()
    }

    /// Whether `path` (absolute, without `.`, `..` or links) may be read.
    pub fn allows_read(&self, path: &Path) -> bool {
        self.read.iter().chain(&self.write).any(|granted| path.starts_with(granted))
    }

    /// Whether `path` (absolute, without `.`, `..` or links) may be written.
    pub fn allows_write(&self, path: &Path) -> bool {
        self.write.iter().any(|granted| path.starts_with(granted))
    }
}

/// A host and a TCP port: `example.org:443`, `127.0.0.1:8080`, `[::1]:80`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetAddress {
    host: String,
    port: u16,
}

/// Why a text is not a `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOST:PORT, with a port from 1 to 65535 (an IPv6 host stands in brackets)")]
pub struct InvalidNetAddress(String);

impl NetAddress {
    /// The host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for NetAddress {
    type Err = InvalidNetAddress;
    fn from_str(text: &str) -> Result<Self, InvalidNetAddress> {
        parse_address(text).ok_or_else(|| InvalidNetAddress(text.escape_debug().to_string()))
    }
}

fn parse_address(text: &str) -> Option<NetAddress> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => {
            let inner = bracketed.strip_suffix(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            inner
        }
        None => host,
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain = !host.is_empty() && host.chars().all(is_host);
    let ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok() && text.starts_with('[');
    (plain || ipv6).then(|| NetAddress { host: host.to_owned(), port })
}

impl fmt::Display for NetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for NetAddress {
    type Error = InvalidNetAddress;
    fn try_from(text: String) -> Result<Self, InvalidNetAddress> {
        text.parse()
    }
}

impl From<NetAddress> for String {
    fn from(address: NetAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granted_directory_covers_what_is_below_it_and_nothing_beside_it() {
        let grants = Grants::none().read("/data").write("/out/run");
        assert!(grants.allows_read(Path::new("/data/a/b")));
        assert!(grants.allows_read(Path::new("/out/run/x")));
        assert!(!grants.allows_read(Path::new("/database")));
        assert!(!grants.allows_write(Path::new("/data/a")));
        assert!(!grants.allows_write(Path::new("/out")));
    }

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        for good in ["example.org:443", "127.0.0.1:1", "[::1]:80"] {
            assert_eq!(good.parse::<NetAddress>().unwrap().to_string(), good);
        }
        for bad in ["", ":80", "host", "host:0", "host:70000", "a b:1", "::1:80", "[x]:1", "h\n:1"]
        {
            assert!(bad.parse::<NetAddress>().is_err(), "{bad:?}");
        }
    }
}
