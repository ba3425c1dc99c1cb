//! `bioxen vm suspend`: puts a VM to sleep.

use std::process::ExitCode;

use bioxen_xcp::machine::Done;
use serde::Serialize;

use super::verb::Verb;
use crate::failure::Failure;

/// Suspend a VM: its memory goes to disk, and it leaves its host
///
/// `bioxen vm resume` lets it go on where it was.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
}

#[derive(Serialize)]
struct Outcome {
    suspended: Done,
}

/// Suspends it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let suspended = arguments
        .verb
        .carry_out(async |_, vm| vm.machine.suspend().await.map_err(Failure::machine))?;
    let how = match suspended {
        Done::Now => "is suspended",
        Done::Already => "is suspended already",
    };
    arguments.verb.answer(&Outcome { suspended }, &format!("vm `{}` {how}", arguments.verb.name))
}
