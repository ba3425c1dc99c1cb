//! How a guest's interfaces get their addresses: cloud-init's network configuration, version 2.

use std::net::IpAddr;

use bioxen_core::{InterfaceAddress, MacAddress};

use super::setting::{HostName, InvalidSetting};
use super::yaml::Node;

/// One interface, known by its hardware address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Interface {
    pub(super) mac: MacAddress,
    dhcp: bool,
    addresses: Vec<InterfaceAddress>,
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
    pub fn fixed(mac: MacAddress, address: InterfaceAddress) -> Self {
        Self { dhcp: false, addresses: vec![address], ..Self::dhcp(mac) }
    }

    /// Gives it a further address.
    pub fn address(mut self, address: InterfaceAddress) -> Self {
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
        if self.addresses.iter().any(|address| address.ip() == gateway) {
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
