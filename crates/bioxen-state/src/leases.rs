//! Addresses that we choose: each is given to one VM at a time.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bioxen_core::{AddressRange, VmName};
use rusqlite::Connection;
use uuid::Uuid;

use crate::controllers::Controller;
use crate::error::StateError;
use crate::state::{State, Stopped};
use crate::vms;

/// A network of a pool, both by their uuids on the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<'a> {
    /// The pool.
    pub pool: &'a str,
    /// The network.
    pub network: &'a str,
}

impl State {
    /// Gives a VM that is remembered the lowest free address of a range on a network, none of these
    /// `excluded`. A VM that has such a one already keeps it. It is given back when the VM is forgotten.
    pub fn lease_address(
        &self,
        on: Network<'_>,
        range: AddressRange,
        excluded: &BTreeSet<IpAddr>,
        name: &VmName,
    ) -> Result<IpAddr, StateError> {
        self.change(|connection| {
            vms::expect(connection, name)?;
            let query = "SELECT address FROM leases WHERE pool = ?1 AND network = ?2 AND vm = ?3";
            let its = addresses(connection, query, &[on.pool, on.network, name.as_str()])?;
            let is_such = |it: &IpAddr| range.contains(*it) && !excluded.contains(it);
            if let Some(address) = its.into_iter().find(is_such) {
                return Ok(address);
            }
            let free = self.free(connection, on, range, excluded)?;
            connection.execute(
                "INSERT INTO leases (pool, network, address, vm) VALUES (?1, ?2, ?3, ?4)",
                [on.pool, on.network, &free.to_string(), name.as_str()],
            )?;
            Ok(free)
        })
    }

    /// Gives a controller the lowest free address of a range on a network, none of these `excluded`, for a VM
    /// that is not remembered. It is given back when the controller dies; each call gives another.
    pub fn hold_address(
        &self,
        on: Network<'_>,
        range: AddressRange,
        excluded: &BTreeSet<IpAddr>,
        controller: &Controller,
    ) -> Result<IpAddr, StateError> {
        self.change(|connection| {
            let free = self.free(connection, on, range, excluded)?;
            connection.execute(
                "INSERT OR REPLACE INTO held_addresses (pool, network, address, controller)
                 VALUES (?1, ?2, ?3, ?4)",
                rusqlite::params![
                    on.pool,
                    on.network,
                    free.to_string(),
                    controller.id().into_bytes()
                ],
            )?;
            Ok(free)
        })
    }

    /// The addresses on a network that VMs, or controllers that live, were given.
    pub fn given_addresses(&self, on: Network<'_>) -> Result<BTreeSet<IpAddr>, StateError> {
        self.read(|connection| self.given(connection, on))
    }

    /// Gives back all addresses of a VM that is still there.
    pub fn release_addresses(&self, name: &VmName) -> Result<(), StateError> {
        self.change(|connection| {
            vms::expect(connection, name)?;
            connection.execute("DELETE FROM leases WHERE vm = ?1", [name.as_str()])?;
            Ok(())
        })
    }

    fn free(
        &self,
        connection: &Connection,
        on: Network<'_>,
        range: AddressRange,
        excluded: &BTreeSet<IpAddr>,
    ) -> Result<IpAddr, Stopped> {
        let given = self.given(connection, on)?;
        let is_free = |address: &IpAddr| !given.contains(address) && !excluded.contains(address);
        range.addresses().find(is_free).ok_or_else(|| {
            let given = given.iter().filter(|address| range.contains(**address)).count();
            StateError::NoAddressFree { range, network: on.network.to_owned(), given }.into()
        })
    }

    fn given(&self, connection: &Connection, on: Network<'_>) -> Result<BTreeSet<IpAddr>, Stopped> {
        let query = "SELECT address FROM leases WHERE pool = ?1 AND network = ?2";
        let mut given = addresses(connection, query, &[on.pool, on.network])?;
        let holders = "SELECT DISTINCT controller FROM held_addresses";
        let holders: Vec<[u8; 16]> = connection
            .prepare(holders)?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for holder in holders {
            if self.is_alive(Uuid::from_bytes(holder))? {
                let held = "SELECT address FROM held_addresses
                            WHERE pool = ?1 AND network = ?2 AND controller = ?3";
                let held = connection
                    .prepare(held)?
                    .query_map(rusqlite::params![on.pool, on.network, holder], |row| row.get(0))?
                    .collect::<Result<Vec<String>, _>>()?;
                given.extend(held.iter().filter_map(|address| address.parse::<IpAddr>().ok()));
            }
        }
        Ok(given)
    }
}

/// The addresses that a query finds; what is no address can be none of a range.
fn addresses(
    connection: &Connection,
    query: &str,
    parameters: &[&str],
) -> Result<BTreeSet<IpAddr>, Stopped> {
    let mut statement = connection.prepare(query)?;
    let found = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get(0))?;
    let texts: Vec<String> = found.collect::<Result<_, _>>()?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}
