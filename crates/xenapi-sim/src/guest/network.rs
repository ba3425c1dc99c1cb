//! The addresses that a guest's network configuration gives to its interfaces.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, Value};

use super::yaml;

/// Where a guest keeps its network configuration, as cloud-init leaves it.
pub(super) const CONFIGURATION: &str = "/etc/netplan/50-cloud-init.yaml";

/// The configuration as it is kept. JSON is YAML.
pub(super) fn kept(configuration: &Value) -> String {
    let network = Map::from_iter([("network".to_owned(), configuration.clone())]);
    format!("{:#}\n", Value::Object(network))
}

/// The address that an interface is to have, out of a configuration that was kept.
///
/// Guests of the simulator are on the loopback of its machine, so that no other address could be reached: for
/// those there is none.
pub(super) fn address(kept: &[u8], mac: &str) -> Option<Ipv4Addr> {
    let configuration = yaml::parse(kept).ok()?;
    let interface = |it: &&Value| is_of(it, mac);
    let network = configuration.get("network")?;
    let said: Vec<&Value> = if let Some(ethernets) = network.get("ethernets") {
        let interface = ethernets.as_object()?.values().find(interface)?;
        interface.get("addresses")?.as_array()?.iter().collect()
    } else {
        let interface = network.get("config")?.as_array()?.iter().find(interface)?;
        let subnets = interface.get("subnets")?.as_array()?;
        subnets.iter().filter_map(|subnet| subnet.get("address")).collect()
    };
    let addresses = said.into_iter().filter_map(yaml::text).filter_map(|text| {
        let address = text.split('/').next().unwrap_or_default();
        address.parse::<IpAddr>().ok()
    });
    addresses.into_iter().find_map(|address| match address {
        IpAddr::V4(address) if address.is_loopback() => Some(address),
        _ => None,
    })
}

/// Whether a part of a configuration, of version 2 or 1, is about the interface with this hardware address.
fn is_of(interface: &Value, mac: &str) -> bool {
    let named = interface.get("match").and_then(|it| it.get("macaddress"));
    let named = named.or_else(|| interface.get("mac_address")).and_then(yaml::text);
    named.is_some_and(|named| named.eq_ignore_ascii_case(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str = "0a:f0:00:00:00:01";

    fn address_in(network: &str) -> Option<Ipv4Addr> {
        address(kept(&yaml::parse(network.as_bytes()).unwrap()).as_bytes(), MAC)
    }

    #[test]
    fn an_interface_has_the_address_that_either_version_gives_it() {
        let second = "version: 2\nethernets:\n  eth0:\n    match: {macaddress: '0A:F0:00:00:00:01'}\n    \
                      addresses: ['fd00::7/64', 127.8.0.7/24]\n";
        let first = "version: 1\nconfig:\n- type: physical\n  name: eth0\n  \
                     mac_address: '0a:f0:00:00:00:01'\n  subnets: [{type: static, address: 127.8.0.7}]\n";
        for network in [second, first] {
            assert_eq!(address_in(network), Some(Ipv4Addr::new(127, 8, 0, 7)), "{network}");
        }
    }

    #[test]
    fn an_address_that_nobody_could_reach_is_none() {
        for network in [
            "version: 2\nethernets: {eth0: {match: {macaddress: '0a:f0:00:00:00:01'}, addresses: [10.0.0.7/24]}}",
            "version: 2\nethernets: {eth0: {match: {macaddress: '0a:f0:00:00:00:02'}, addresses: [127.8.0.7/24]}}",
            "version: 2\nethernets: {eth0: {match: {macaddress: '0a:f0:00:00:00:01'}, dhcp4: true}}",
            "version: 2",
        ] {
            assert_eq!(address_in(network), None, "{network}");
        }
        assert_eq!(address(b"", MAC), None);
    }
}
