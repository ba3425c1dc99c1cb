//! How a guest's interfaces get their addresses: cloud-init's network configuration, version 2.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::setting::{HostName, InvalidSetting};
use super::yaml::Node;

/// The hardware address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Takes an address of one interface: one of a group, or of zeros, is refused.
    pub fn new(bytes: [u8; 6]) -> Result<Self, InvalidSetting> {
        let mac = Self(bytes);
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            let reason = "it is the address of no single interface";
            return Err(InvalidSetting::new("MAC address", &mac.to_string(), reason));
        }
        Ok(mac)
    }
}

impl FromStr for MacAddress {
    type Err = InvalidSetting;
    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        let is_pair =
            |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes: Option<Vec<u8>> = text
            .split([':', '-'])
            .map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| is_pair(pair)))
            .collect();
        let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        let reason = "it is six pairs of hexadecimal digits, with `:` between them";
        Self::new(bytes.ok_or_else(|| InvalidSetting::new("MAC address", text, reason))?)
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    ip: IpAddr,
    prefix: u8,
}

impl Address {
    /// Checks that a host can have this address in that network.
    pub fn new(ip: IpAddr, prefix: u8) -> Result<Self, InvalidSetting> {
        let address = Self { ip, prefix };
        let invalid = |reason| Err(InvalidSetting::new("address", &address.to_string(), reason));
        let width = if ip.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > width {
            return invalid("its prefix is too short or too long");
        }
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
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

    fn reaches(&self, other: IpAddr) -> bool {
        let mask = mask(self.ip, self.prefix);
        self.ip.is_ipv4() == other.is_ipv4() && bits(self.ip) & mask == bits(other) & mask
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

impl FromStr for Address {
    type Err = InvalidSetting;
    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        let parse = || {
            let (ip, prefix) = text.split_once('/')?;
            Some((ip.parse().ok()?, prefix.parse().ok()?))
        };
        let (ip, prefix) = parse()
            .ok_or_else(|| InvalidSetting::new("address", text, "it looks like `192.0.2.7/24`"))?;
        Self::new(ip, prefix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// One interface, known by its hardware address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Interface {
    pub(super) mac: MacAddress,
    dhcp: bool,
    addresses: Vec<Address>,
    gateways: Vec<IpAddr>,
    name_servers: Vec<IpAddr>,
    search: Vec<HostName>,
    mtu: Option<u16>,
}

impl Interface {
    /// An interface that asks for an address by DHCP (version 4).
    pub fn dhcp(mac: MacAddress) -> Self {
        Self {
            mac,
            dhcp: true,
            addresses: Vec::new(),
            gateways: Vec::new(),
            name_servers: Vec::new(),
            search: Vec::new(),
            mtu: None,
        }
    }

    /// An interface that has this address and asks for none.
    pub fn fixed(mac: MacAddress, address: Address) -> Self {
        Self { dhcp: false, addresses: vec![address], ..Self::dhcp(mac) }
    }

    /// Gives it a further address.
    pub fn address(mut self, address: Address) -> Self {
        self.addresses.push(address);
        self
    }

    /// Sends what is for elsewhere to this machine, which has to be in the network of one of the
    /// addresses so far.
    pub fn gateway(mut self, gateway: IpAddr) -> Result<Self, InvalidSetting> {
        let invalid = |reason| Err(InvalidSetting::new("gateway", &gateway.to_string(), reason));
        let is_link_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if !is_link_local && !self.addresses.iter().any(|address| address.reaches(gateway)) {
            return invalid("it is in no network of the interface");
        }
        if self.addresses.iter().any(|address| address.ip == gateway) {
            return invalid("it is the interface's own address");
        }
        if self.gateways.iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            return invalid("the interface has one already");
        }
        self.gateways.push(gateway);
        Ok(self)
    }

    /// Asks this machine for names.
    pub fn name_server(mut self, server: IpAddr) -> Self {
        self.name_servers.push(server);
        self
    }

    /// Looks for short names in this domain.
    pub fn search(mut self, domain: HostName) -> Self {
        self.search.push(domain);
        self
    }

    /// Sets the size of the largest packet.
    pub fn mtu(mut self, bytes: u16) -> Result<Self, InvalidSetting> {
        if bytes < 576 {
            let reason = "it is at least 576 bytes";
            return Err(InvalidSetting::new("MTU", &bytes.to_string(), reason));
        }
        self.mtu = Some(bytes);
        Ok(self)
    }

    fn node(&self, name: &str) -> Node {
        let mac = Node::map([("macaddress", Node::text(self.mac.to_string()))]);
        let mut entries = vec![("match", mac), ("set-name", Node::text(name))];
        entries.push(("dhcp4", Node::plain(self.dhcp)));
        if !self.addresses.is_empty() {
            entries.push(("addresses", Node::texts(&self.addresses)));
        }
        // Newer guests would rather have routes, but take these too; of routes, cloud-init 22.4 makes
        // `::/64` out of `::/0`, and in Debian's `interfaces` commands that its images do not have.
        for gateway in &self.gateways {
            let key = if gateway.is_ipv4() { "gateway4" } else { "gateway6" };
            entries.push((key, Node::text(gateway.to_string())));
        }
        let mut names = Vec::new();
        if !self.name_servers.is_empty() {
            names.push(("addresses", Node::texts(&self.name_servers)));
        }
        if !self.search.is_empty() {
            names.push(("search", Node::texts(&self.search)));
        }
        if !names.is_empty() {
            entries.push(("nameservers", Node::map(names)));
        }
        if let Some(mtu) = self.mtu {
            entries.push(("mtu", Node::plain(mtu)));
        }
        Node::map(entries)
    }
}

/// The whole configuration. The interfaces are named `eth0`, `eth1` and so on, in their order: old guest
/// agents tell the pool a device's number by the digits of its name, and not all guests rename an
/// interface to a name that is only a key here.
pub(super) fn node(interfaces: &[Interface]) -> Node {
    let names: Vec<String> = (0..interfaces.len()).map(|index| format!("eth{index}")).collect();
    let ethernets =
        names.iter().zip(interfaces).map(|(name, interface)| (name.as_str(), interface.node(name)));
    Node::map([("version", Node::plain(2)), ("ethernets", Node::map(ethernets))])
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
    fn addresses_that_no_host_can_have_are_refused() {
        for text in
            ["192.0.2.7/24", "192.0.2.0/31", "192.0.2.7/32", "2001:db8::7/64", "10.0.0.0/31"]
        {
            assert!(text.parse::<Address>().is_ok(), "{text}");
        }
        for text in
            ["192.0.2.0/24", "192.0.2.255/24", "192.0.2.7/33", "192.0.2.7/0", "127.0.0.1/8", "x"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_gateway_is_in_reach_and_another_machine() {
        let fixed = Interface::fixed(mac(), "192.0.2.7/24".parse().unwrap());
        for (gateway, good) in [
            ("192.0.2.1", true),
            ("192.0.3.1", false),
            ("192.0.2.7", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(fixed.clone().gateway(gateway.parse().unwrap()).is_ok(), good, "{gateway}");
        }
    }
}
