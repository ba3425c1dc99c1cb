//! `bioxen config`: which settings are in force, and taking over those of before.

mod import;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  bioxen config show --origin
  bioxen config import xcpng_config.json --pool lab --dry-run
  bioxen config import .env --password 'cmd:pass show lab'";

/// Show the settings that are in force, and take over the Python library's
///
/// Settings are kept in config.toml, which may be edited. A project's own bioxen.toml, in the working
/// directory or above it, may choose a pool by name and say what VMs are like.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(show::Arguments),
    Import(import::Arguments),
}

/// Does what the command line says.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Show(arguments) => show::execute(arguments),
        Command::Import(arguments) => import::execute(arguments),
    }
}
