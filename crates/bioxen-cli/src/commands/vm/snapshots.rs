//! `bioxen vm snapshots`: what a VM can be brought back to.

use std::process::ExitCode;

use bioxen::VmName;
use bioxen_xcp::machine::Snapshot;

use crate::failure::Failure;
use crate::registry::Registry;
use crate::table::{quantity, text};
use crate::{json, output, runtime, shown, table};

/// List the snapshots of a VM, the oldest first
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    let snapshots = runtime::block_on(async {
        let vm = registry.reach(&arguments.name).await?;
        let snapshots = vm.machine.snapshots().map_err(Failure::machine);
        vm.close().await;
        snapshots
    })?;
    let rendered = if arguments.json {
        json::render(&snapshots)
    } else {
        let columns = [text("SNAPSHOT"), text("TAKEN"), quantity("USED"), text("UUID")];
        table::render(columns, snapshots.iter().map(cells).collect()).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

fn cells(snapshot: &Snapshot) -> [String; 4] {
    [
        shown::plain(&snapshot.name),
        shown::or_dash(snapshot.taken, shown::time),
        shown::size(snapshot.used),
        snapshot.uuid.to_string(),
    ]
}
