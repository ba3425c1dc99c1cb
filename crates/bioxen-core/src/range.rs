//! Addresses that we may choose from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Addresses that VMs may be given: `10.0.0.20-10.0.0.99`, a single one, or all that hosts of a network
/// can have, `10.0.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is no range of addresses: {reason}; write FIRST-LAST, as in 10.0.0.20-10.0.0.99, or NETWORK/PREFIX"
)]
pub struct InvalidRange {
    given: String,
    reason: &'static str,
}

impl AddressRange {
    /// The lowest address of it.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The highest address of it.
    pub fn last(self) -> IpAddr {
        self.last
    }

    /// The addresses, lowest first.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.first.is_ipv4();
        (number(self.first)..=number(self.last)).map(move |number| address(number, v4))
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4()
            && (number(self.first)..=number(self.last)).contains(&number(address))
    }

    /// The addresses that hosts of a network can have: without those of the network itself and of all its
    /// hosts, where it has room for others.
    fn of_network(network: IpAddr, prefix: u8) -> Result<Self, &'static str> {
        let width = if network.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > width {
            return Err("its prefix is too short or too long");
        }
        let others = (1_u128 << (width - prefix)) - 1;
        if number(network) & others != 0 {
            return Err("it does not begin where such a network does");
        }
        let (first, last) = (number(network), number(network) | others);
        // Networks of one or two addresses have no others than those of hosts.
        let (first, last) = if others > 1 { (first + 1, last - 1) } else { (first, last) };
        let v4 = network.is_ipv4();
        Ok(Self { first: address(first, v4), last: address(last, v4) })
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = |reason| InvalidRange { given: text.escape_debug().to_string(), reason };
        let parse = |part: &str| part.trim().parse::<IpAddr>();
        if let Some((network, prefix)) = text.split_once('/') {
            let (Ok(network), Ok(prefix)) = (parse(network), prefix.trim().parse()) else {
                return Err(invalid("it holds something that is no address"));
            };
            return Self::of_network(network, prefix).map_err(invalid);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Ok(first), Ok(last)) = (parse(first), parse(last)) else {
            return Err(invalid("it holds something that is no address"));
        };
        if first.is_ipv4() != last.is_ipv4() {
            return Err(invalid("its ends are of two kinds"));
        }
        if first > last {
            return Err(invalid("it ends before it begins"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl TryFrom<String> for AddressRange {
    type Error = InvalidRange;
    fn try_from(text: String) -> Result<Self, InvalidRange> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written() {
        for text in ["10.0.0.20-10.0.0.99", "fd00::10-fd00::ff", "10.0.0.1", "::1-::2"] {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.1-", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "a-b", "10.0.0.0/33"]
        {
            let error = text.parse::<AddressRange>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.20-10.0.0.99"), "{error}");
        }
    }

    #[test]
    fn a_network_stands_for_the_addresses_of_its_hosts() {
        for (network, range) in [
            ("10.0.0.0/24", "10.0.0.1-10.0.0.254"),
            ("10.0.0.4/30", "10.0.0.5-10.0.0.6"),
            ("10.0.0.4/31", "10.0.0.4-10.0.0.5"),
            ("10.0.0.4/32", "10.0.0.4"),
            ("fd00::/126", "fd00::1-fd00::2"),
        ] {
            assert_eq!(network.parse::<AddressRange>().unwrap().to_string(), range, "{network}");
        }
        for wrong in ["10.0.0.1/24", "10.0.0.0/0", "10.0.0.0/", "/24", "fd00::/129"] {
            assert!(wrong.parse::<AddressRange>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_addresses_of_a_range_are_those_that_it_contains(first: u32, count in 0_u32..50) {
            let last = first.saturating_add(count);
            let range = AddressRange {
                first: Ipv4Addr::from_bits(first).into(),
                last: Ipv4Addr::from_bits(last).into(),
            };
            let addresses: Vec<IpAddr> = range.addresses().collect();
            prop_assert_eq!(addresses.len() as u64, u64::from(last - first) + 1);
            prop_assert!(addresses.iter().all(|address| range.contains(*address)));
            prop_assert!(addresses.is_sorted());
            let outside = |bits: Option<u32>| {
                bits.is_none_or(|bits| !range.contains(Ipv4Addr::from_bits(bits).into()))
            };
            prop_assert!(outside(first.checked_sub(1)) && outside(last.checked_add(1)));
        }
    }
}
