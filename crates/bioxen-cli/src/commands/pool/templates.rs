//! `bioxen pool templates`: what VMs can be made of.

use std::process::ExitCode;

use bioxen_xcp::inventory::{self, TemplateKind};

use super::listing::Listing;
use crate::failure::Failure;
use crate::shown;
use crate::table::{quantity, text};

const AFTER_HELP: &str = "\
KIND is `ready` where the template has a disk, so that a copy of it can be started at once, and
`installer` where it has settings only and an operating system must be installed first.";

/// List the templates of a pool, those first that can be started at once
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listing: Listing,
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let columns = [
        text("TEMPLATE"),
        text("KIND"),
        quantity("VCPUS"),
        quantity("MEMORY"),
        quantity("DISK"),
        quantity("NICS"),
        text("UUID"),
    ];
    arguments.listing.print(
        async |client| inventory::templates(client).await,
        columns,
        |row| {
            let kind = match row.kind {
                TemplateKind::Ready => "ready",
                TemplateKind::Installer => "installer",
            };
            [
                row.name.clone(),
                kind.into(),
                row.vcpus.to_string(),
                shown::size(row.memory),
                shown::size(row.disk),
                row.interfaces.to_string(),
                row.uuid.clone(),
            ]
        },
    )
}
