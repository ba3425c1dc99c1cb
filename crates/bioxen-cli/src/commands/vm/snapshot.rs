//! `bioxen vm snapshot`: keeps a VM's disks and settings as they are.

use std::process::ExitCode;

use bioxen_xcp::machine::Snapshot;
use serde::Serialize;

use super::verb::Verb;
use crate::failure::Failure;
use crate::shown;

/// Make a snapshot of a VM's disks and settings, whatever it is doing
///
/// What is in its memory is not part of it: back at the snapshot, the guest boots as after a power cut.
/// `bioxen vm restore` goes back to it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
    /// What the snapshot is to be called
    snapshot: String,
}

#[derive(Serialize)]
struct Outcome {
    snapshot: Snapshot,
}

/// Makes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { verb, snapshot } = arguments;
    let snapshot = verb
        .carry_out(async |_, vm| vm.machine.snapshot(snapshot).await.map_err(Failure::machine))?;
    let made = shown::plain(&snapshot.name);
    let line = format!("vm `{}` has a snapshot `{made}`", verb.name);
    verb.answer(&Outcome { snapshot }, &line)
}
