//! `bioxen pool storage`: where disks of VMs can be.

use std::process::ExitCode;

use bioxen_xcp::inventory;

use super::listing::Listing;
use crate::failure::Failure;
use crate::shown;
use crate::table::{quantity, text};

/// List the storage repositories of a pool, those for disks first
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listing: Listing,
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let columns = [
        text("STORAGE"),
        text("TYPE"),
        text("FOR"),
        text("REACH"),
        quantity("HOSTS"),
        quantity("SIZE"),
        quantity("FREE"),
        text("DEFAULT"),
        text("UUID"),
    ];
    arguments.listing.print(
        async |client| inventory::storage(client).await,
        columns,
        |row| {
            [
                row.name.clone(),
                row.kind.clone(),
                if row.disks { "disks" } else { "images" }.into(),
                if row.shared { "shared" } else { "local" }.into(),
                row.hosts.to_string(),
                shown::or_dash(row.size, shown::size),
                shown::or_dash(row.free, shown::size),
                if row.default { "yes" } else { "" }.into(),
                row.uuid.clone(),
            ]
        },
    )
}
