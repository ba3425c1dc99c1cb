//! `bioxen vm migrate`: moves a running VM.

use std::process::ExitCode;

use bioxen_xcp::machine::Done;
use serde::Serialize;

use super::verb::Verb;
use crate::failure::Failure;
use crate::shown;

/// Move a running VM to another host of its pool
///
/// It goes on meanwhile. Refused before anything is asked where the host is down, does not reach one of
/// its disks, or has too little memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
    /// The host, by name, address or uuid
    host: String,
    /// Find out whether it could be moved there, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    host: &'a str,
    /// Whether nothing was changed on the pool.
    dry_run: bool,
    /// `null` where it was only found out that it can be.
    moved: Option<Done>,
}

/// Moves it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { verb, host, dry_run } = arguments;
    let moved = verb.carry_out(async |_, vm| {
        if *dry_run {
            return vm.machine.check_migration(host).await.map(|()| None).map_err(Failure::machine);
        }
        vm.machine.migrate(host).await.map(Some).map_err(Failure::machine)
    })?;
    let (name, shown) = (&verb.name, shown::plain(host));
    let line = match moved {
        None => format!("vm `{name}` could be moved to host `{shown}`"),
        Some(Done::Now | Done::Already) => format!("vm `{name}` runs on host `{shown}`"),
    };
    verb.answer(&Outcome { host, dry_run: *dry_run, moved }, &line)
}
