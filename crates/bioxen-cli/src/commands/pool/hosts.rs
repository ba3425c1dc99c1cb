//! `bioxen pool hosts`: the hosts of a pool.

use std::process::ExitCode;

use bioxen_xcp::inventory::{self, Host};

use super::listing::Listing;
use crate::failure::Failure;
use crate::shown;
use crate::table::{quantity, text};

/// List the hosts of a pool, its master first
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listing: Listing,
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let columns = [
        text("HOST"),
        text("ADDRESS"),
        text("ROLE"),
        text("STATE"),
        text("VERSION"),
        quantity("CPUS"),
        quantity("MEMORY"),
        quantity("FREE"),
        quantity("VMS"),
    ];
    arguments.listing.print(
        async |client| inventory::hosts(client).await,
        columns,
        |host| {
            [
                host.name.clone(),
                host.address.clone(),
                if host.master { "master" } else { "member" }.into(),
                state(host).into(),
                host.version.clone(),
                host.cpus.to_string(),
                shown::size(host.memory_total),
                shown::size(host.memory_free),
                host.vms.to_string(),
            ]
        },
    )
}

fn state(host: &Host) -> &'static str {
    match (host.live, host.enabled) {
        (true, true) => "up",
        (true, false) => "disabled",
        (false, _) => "down",
    }
}
