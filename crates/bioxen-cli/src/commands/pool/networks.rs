//! `bioxen pool networks`: what interfaces of VMs can be connected to.

use std::process::ExitCode;

use bioxen_xcp::inventory;

use super::listing::Listing;
use crate::failure::Failure;
use crate::shown;
use crate::table::{quantity, text};

/// List the networks of a pool
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listing: Listing,
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let columns = [
        text("NETWORK"),
        text("REACH"),
        text("BRIDGE"),
        quantity("VLAN"),
        quantity("MTU"),
        quantity("HOSTS"),
        quantity("NICS"),
        text("UUID"),
    ];
    arguments.listing.print(
        async |client| inventory::networks(client).await,
        columns,
        |row| {
            [
                row.name.clone(),
                if row.external { "external" } else { "internal" }.into(),
                row.bridge.clone(),
                shown::or_dash(row.vlan, |vlan| vlan.to_string()),
                row.mtu.to_string(),
                row.hosts.to_string(),
                row.interfaces.to_string(),
                row.uuid.clone(),
            ]
        },
    )
}
