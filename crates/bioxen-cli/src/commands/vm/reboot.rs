//! `bioxen vm reboot`: has a VM boot again.

use std::process::ExitCode;

use bioxen_xcp::machine::Rebooted;
use serde::Serialize;

use super::stop::Grace;
use super::verb::Verb;
use super::words;
use crate::failure::Failure;

/// Reboot a VM
///
/// By its guest; when the grace is over, or where the guest cannot be told, by cutting its power. Does
/// not wait for the guest to be back: `bioxen vm wait` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
    #[command(flatten)]
    grace: Grace,
}

#[derive(Serialize)]
struct Outcome {
    rebooted: Rebooted,
}

/// Reboots it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let rebooted = arguments.verb.carry_out(async |_, vm| {
        vm.machine.reboot(arguments.grace.time()).await.map_err(Failure::machine)
    })?;
    let how = match rebooted {
        Rebooted::Cleanly => "was rebooted by its guest".to_owned(),
        Rebooted::Hard(why) => format!("boots; its power was cut, as {}", words::why_hard(why)),
    };
    arguments.verb.answer(&Outcome { rebooted }, &format!("vm `{}` {how}", arguments.verb.name))
}
