//! Addresses that we choose: each is given to one VM at a time.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bioxen_core::VmName;

use crate::error::StateError;
use crate::state::State;
use crate::vms;

/// Addresses that VMs may be given: `10.0.0.20-10.0.0.99`, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is no range of addresses: {reason}; write FIRST-LAST, as in 10.0.0.20-10.0.0.99"
)]
pub struct InvalidRange {
    given: String,
    reason: &'static str,
}

impl AddressRange {
    /// The addresses, lowest first.
    fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.first.is_ipv4();
        (number(self.first)..=number(self.last)).map(move |number| address(number, v4))
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4()
            && (number(self.first)..=number(self.last)).contains(&number(address))
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = |reason| InvalidRange { given: text.escape_debug().to_string(), reason };
        let parse = |part: &str| part.trim().parse::<IpAddr>();
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

impl State {
    /// Gives a VM the lowest free address of a range on a network, both by their uuids on the pool. A VM
    /// that has one of the range there keeps it. It is given back when the VM is forgotten.
    ///
    /// That no other machine has it is for whoever declares the range to see to.
    pub fn lease_address(
        &self,
        pool_uuid: &str,
        network_uuid: &str,
        range: AddressRange,
        name: &VmName,
    ) -> Result<IpAddr, StateError> {
        self.change(|connection| {
            vms::expect(connection, name)?;
            let query = "SELECT address, vm FROM leases WHERE pool = ?1 AND network = ?2";
            let mut taken = HashSet::new();
            let mut statement = connection.prepare(query)?;
            let mut rows = statement.query([pool_uuid, network_uuid])?;
            while let Some(row) = rows.next()? {
                // What is no address can be none of the range.
                let Ok(address) = row.get::<_, String>(0)?.parse::<IpAddr>() else { continue };
                if !range.contains(address) {
                    continue;
                }
                if row.get::<_, String>(1)? == name.as_str() {
                    return Ok(address);
                }
                taken.insert(address);
            }
            let Some(free) = range.addresses().find(|address| !taken.contains(address)) else {
                let (network, taken) = (network_uuid.to_owned(), taken.len());
                return Err(StateError::NoAddressFree { range, network, taken }.into());
            };
            connection.execute(
                "INSERT INTO leases (pool, network, address, vm) VALUES (?1, ?2, ?3, ?4)",
                [pool_uuid, network_uuid, &free.to_string(), name.as_str()],
            )?;
            Ok(free)
        })
    }

    /// Gives back all addresses of a VM that is still there.
    pub fn release_addresses(&self, name: &VmName) -> Result<(), StateError> {
        self.change(|connection| {
            vms::expect(connection, name)?;
            connection.execute("DELETE FROM leases WHERE vm = ?1", [name.as_str()])?;
            Ok(())
        })
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
        for text in ["", "10.0.0.1-", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.0/24", "a-b"]
        {
            let error = text.parse::<AddressRange>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.20-10.0.0.99"), "{error}");
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
