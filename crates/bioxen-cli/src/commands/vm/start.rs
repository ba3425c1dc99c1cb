//! `bioxen vm start`: lets a VM run.

use std::process::ExitCode;

use bioxen_xcp::machine::Started;
use serde::Serialize;

use super::verb::Verb;
use crate::failure::Failure;

/// Start a VM, or let it go on
///
/// One that is off boots; one that is suspended or paused goes on where it was. Does not wait for its
/// guest: `bioxen vm wait` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
    /// Host that it is to run on; otherwise the pool chooses
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

#[derive(Serialize)]
struct Outcome {
    started: Started,
}

/// Starts it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let started = arguments.verb.carry_out(async |_, vm| {
        vm.machine.start(arguments.host.as_deref()).await.map_err(Failure::machine)
    })?;
    let how = match started {
        Started::Booted => "is started; `bioxen vm wait` waits for its guest",
        Started::Resumed => "was suspended and goes on",
        Started::Unpaused => "was paused and goes on",
        Started::Already => "runs already",
    };
    arguments.verb.answer(&Outcome { started }, &format!("vm `{}` {how}", arguments.verb.name))
}
