//! The addresses of a virtual machine's interfaces.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text or a number is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is no {what}: {reason}")]
pub struct InvalidAddress {
    what: &'static str,
    value: String,
    reason: &'static str,
}

impl InvalidAddress {
    fn new(what: &'static str, value: &str, reason: &'static str) -> Self {
        let shown: String = value.chars().take(60).collect();
        let rest = if shown.len() < value.len() { "…" } else { "" };
        Self { what, value: format!("{}{rest}", shown.escape_debug()), reason }
    }
}

/// The hardware address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Takes an address of one interface: one of a group, or of zeros, is refused.
    pub fn new(bytes: [u8; 6]) -> Result<Self, InvalidAddress> {
        let mac = Self(bytes);
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            let reason = "it is the address of no single interface";
            return Err(InvalidAddress::new("MAC address", &mac.to_string(), reason));
        }
        Ok(mac)
    }
}

impl FromStr for MacAddress {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let is_pair =
            |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes: Option<Vec<u8>> = text
            .split([':', '-'])
            .map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| is_pair(pair)))
            .collect();
        let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        let reason = "it is six pairs of hexadecimal digits, with `:` between them";
        Self::new(bytes.ok_or_else(|| InvalidAddress::new("MAC address", text, reason))?)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&pairs.join(":"))
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address with the length of its network's prefix, such as `192.0.2.7/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceAddress {
    ip: IpAddr,
    prefix: u8,
}

impl InterfaceAddress {
    /// Checks that a host can have this address in that network.
    pub fn new(ip: IpAddr, prefix: u8) -> Result<Self, InvalidAddress> {
        let address = Self { ip, prefix };
        let invalid = |reason| Err(InvalidAddress::new("address", &address.to_string(), reason));
        let width = if ip.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > width {
            return invalid("its prefix is too short or too long");
        }
        // The rest of 127.0.0.0/8 stays, as guests of simulated pools are there.
        let is_here = ip == IpAddr::from(Ipv4Addr::LOCALHOST) || ip == Ipv6Addr::LOCALHOST;
        if ip.is_unspecified() || ip.is_multicast() || is_here {
            return invalid("no interface can have it");
        }
        let host = bits(ip) & !mask(ip, prefix);
        // Networks of one or two addresses have no others than those of hosts.
        if ip.is_ipv4()
            && prefix < 31
            && (host == 0 || host == !mask(ip, prefix) & u128::from(u32::MAX))
        {
            return invalid("it is that of the network itself, or of all its hosts");
        }
        Ok(address)
    }

    /// The address alone.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The length of the network's prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether another address is in the same network.
    pub fn reaches(&self, other: IpAddr) -> bool {
        let mask = mask(self.ip, self.prefix);
        self.ip.is_ipv4() == other.is_ipv4() && bits(self.ip) & mask == bits(other) & mask
    }
}

/// Where this machine listens for guests that call home: `10.0.0.5`, `10.0.0.5:8740`, `0.0.0.0:8740`. Without
/// a port it is a free one, and another each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CallHomeAddress(SocketAddr);

impl CallHomeAddress {
    /// The address and the port, which is 0 where any will do.
    pub fn socket(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for CallHomeAddress {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let any_port = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
        let socket = text.parse::<SocketAddr>().or_else(|_| any_port());
        let invalid = |reason| InvalidAddress::new("address to listen at", text, reason);
        let socket = socket.map_err(|_| invalid("it looks like `10.0.0.5` or `10.0.0.5:8740`"))?;
        if socket.ip().is_multicast() {
            return Err(invalid("no machine has it alone"));
        }
        Ok(Self(socket))
    }
}

impl fmt::Display for CallHomeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            0 => self.0.ip().fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

impl TryFrom<String> for CallHomeAddress {
    type Error = InvalidAddress;
    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<CallHomeAddress> for String {
    fn from(address: CallHomeAddress) -> Self {
        address.to_string()
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn mask(ip: IpAddr, prefix: u8) -> u128 {
    let width = if ip.is_ipv4() { 32 } else { 128 };
    u128::MAX.checked_shl(width - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for InterfaceAddress {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let parse = || {
            let (ip, prefix) = text.split_once('/')?;
            Some((ip.parse().ok()?, prefix.parse().ok()?))
        };
        let (ip, prefix) = parse()
            .ok_or_else(|| InvalidAddress::new("address", text, "it looks like `192.0.2.7/24`"))?;
        Self::new(ip, prefix)
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidAddress;
    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for InterfaceAddress {
    type Error = InvalidAddress;
    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<InterfaceAddress> for String {
    fn from(address: InterfaceAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac() -> MacAddress {
        "0A:f0-00:00:00:01".parse().unwrap()
    }

    #[test]
    fn a_mac_address_is_that_of_one_interface() {
        assert_eq!(mac().to_string(), "0a:f0:00:00:00:01");
        for text in
            ["", "a:f0:00:00:00:01", "0a:f0:00:00:00", "01:00:5e:00:00:01", "+a:f0:00:00:00:01"]
        {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_to_listen_at_may_leave_the_port_out() {
        for text in ["10.0.0.5", "10.0.0.5:8740", "0.0.0.0:8740", "fd00::1", "[fd00::1]:8740"] {
            assert_eq!(text.parse::<CallHomeAddress>().unwrap().to_string(), text);
        }
        for wrong in ["", "lab", "10.0.0.5:", "10.0.0.5:70000", "224.0.0.1:80"] {
            assert!(wrong.parse::<CallHomeAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_that_no_host_can_have_are_refused() {
        for text in
            ["192.0.2.7/24", "192.0.2.0/31", "192.0.2.7/32", "2001:db8::7/64", "10.0.0.0/31"]
        {
            assert!(text.parse::<InterfaceAddress>().is_ok(), "{text}");
        }
        for text in
            ["192.0.2.0/24", "192.0.2.255/24", "192.0.2.7/33", "192.0.2.7/0", "127.0.0.1/8", "x"]
        {
            assert!(text.parse::<InterfaceAddress>().is_err(), "{text}");
        }
    }
}
