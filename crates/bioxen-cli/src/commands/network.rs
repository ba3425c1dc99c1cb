//! `bioxen network`: networks of pools that VMs can be on.

mod create;
mod delete;
mod list;

use std::process::ExitCode;

use bioxen_xcp::ConnectedPool;
use clap::Subcommand;

use crate::failure::Failure;
use crate::registry::{self, Registry};
use crate::runtime;
use crate::signals::Signals;

const AFTER_HELP: &str = "\
Examples:
  bioxen network create lab
  bioxen network create sequencers --vlan 120 --device eth0
  bioxen vm create assembler --template debian-12-cloud --network lab
  bioxen network delete lab --yes";

/// List, make and delete networks of XCP-ng pools
///
/// What is made carries the marks of this installation, and nothing else is ever deleted.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Arguments),
    Create(create::Arguments),
    Delete(delete::Arguments),
}

/// Does what the command line says.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::List(arguments) => list::execute(arguments),
        Command::Create(arguments) => create::execute(arguments),
        Command::Delete(arguments) => delete::execute(arguments),
    }
}

/// Does something with a pool, and logs out.
fn with_pool<T>(
    name: Option<&str>,
    work: impl AsyncFnOnce(&ConnectedPool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let registry = Registry::open()?;
    runtime::block_on(async {
        let mut signals = Signals::listen()?;
        let pool = signals.or_stop(registry.connect(name)).await?;
        let outcome = signals.or_stop(work(&pool)).await;
        registry::close(&pool).await;
        outcome
    })
}
