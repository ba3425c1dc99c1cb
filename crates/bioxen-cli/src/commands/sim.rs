//! `bioxen sim`: a simulated pool in the background, to play with.

mod error;
mod place;
mod serve;
mod start;
mod status;
mod stop;

use std::process::ExitCode;

use bioxen_xcp::{PoolName, PoolSettings};
use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

pub(crate) use error::SimulatorError;

/// The name that the simulated pool has in the configuration.
const NAME: &str = super::SIMULATED_POOL;

const AFTER_HELP: &str = "\
Examples:
  bioxen sim start
  bioxen pool templates sim
  bioxen sim status
  bioxen sim stop

The pool listens on this machine only, keeps its VMs from one start to the next, and is the pool `sim` in
config.toml while it runs.";

/// Keep a simulated XCP-ng pool in the background, to try things without a hypervisor
///
/// It speaks the Xen API as a real pool does. Its VMs are processes of this machine behind SSH servers of
/// their own; what runs in them is not kept apart from this machine as a hypervisor would keep it.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(start::Arguments),
    Stop(stop::Arguments),
    Status(status::Arguments),
    #[command(hide = true)]
    Serve(serve::Arguments),
}

/// Does what the command line says.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Start(arguments) => start::execute(arguments),
        Command::Stop(arguments) => stop::execute(arguments),
        Command::Status(arguments) => status::execute(arguments),
        Command::Serve(arguments) => serve::execute(arguments),
    }
}

/// What runs in the VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Guests {
    /// Processes of this machine that can be logged into
    Process,
    /// Nothing: an address appears, and nobody answers there
    None,
}

impl Guests {
    /// As the command line has it.
    fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::None => "none",
        }
    }
}

/// The pool of that name in the configuration, if it is the simulated one.
fn own<'a>(
    configuration: &'a bioxen_xcp::Configuration,
    place: &place::Place,
) -> Option<&'a PoolSettings> {
    let password = place.password_reference();
    configuration.find_pool(NAME).filter(|pool| pool.password == password)
}

fn name() -> PoolName {
    PoolName::new(NAME).expect("it is a name")
}

/// `1 VM`, `2 VMs`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
