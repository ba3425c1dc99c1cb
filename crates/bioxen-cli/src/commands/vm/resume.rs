//! `bioxen vm resume`: wakes a VM up.

use std::process::ExitCode;

use bioxen_xcp::machine::{Done, PowerState};
use serde::Serialize;

use super::verb::Verb;
use crate::failure::Failure;

/// Let a VM go on that was suspended or paused
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
}

#[derive(Serialize)]
struct Outcome {
    resumed: Done,
}

/// Resumes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let resumed = arguments.verb.carry_out(async |_, vm| {
        let is_paused = vm.machine.details().map_err(Failure::machine)?.state == PowerState::Paused;
        let resumed =
            if is_paused { vm.machine.unpause().await } else { vm.machine.resume().await };
        resumed.map_err(Failure::machine)
    })?;
    let how = match resumed {
        Done::Now => "goes on",
        Done::Already => "runs already",
    };
    arguments.verb.answer(&Outcome { resumed }, &format!("vm `{}` {how}", arguments.verb.name))
}
