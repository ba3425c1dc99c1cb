//! `bioxen vm stop`: brings a VM to a stand, cleanly if its guest can.

use std::process::ExitCode;
use std::time::Duration;

use bioxen_xcp::machine::{Stop, Stopped};
use serde::Serialize;

use super::verb::Verb;
use super::words;
use crate::failure::Failure;

/// Stop a VM
///
/// Its guest is told to shut down. When the grace is over, or where the guest cannot be told, its power is
/// cut. Its disks stay as they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
    #[command(flatten)]
    grace: Grace,
}

/// How long a guest has before it is done without it.
#[derive(Debug, clap::Args)]
pub(super) struct Grace {
    /// How long the guest has before its power is cut
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Cut its power at once
    #[arg(long, conflicts_with = "grace")]
    force: bool,
}

impl Grace {
    /// Nothing where the power is to be cut at once.
    pub(super) fn time(&self) -> Duration {
        if self.force { Duration::ZERO } else { self.grace }
    }
}

#[derive(Serialize)]
struct Outcome {
    stopped: Stopped,
}

/// Stops it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let stopped = arguments.verb.carry_out(async |_, vm| {
        let how = Stop { grace: arguments.grace.time() };
        vm.machine.stop(how).await.map_err(Failure::machine)
    })?;
    let how = match stopped {
        Stopped::Already => "is off already".to_owned(),
        Stopped::Cleanly => "was shut down by its guest".to_owned(),
        Stopped::Hard(why) => format!("is off; its power was cut, as {}", words::why_hard(why)),
    };
    arguments.verb.answer(&Outcome { stopped }, &format!("vm `{}` {how}", arguments.verb.name))
}
