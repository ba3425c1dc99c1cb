//! `bioxen pool`: XCP-ng pools, by names that the user gives them.

mod acquaintance;
mod add;
mod check;
mod hosts;
mod list;
mod listing;
mod networks;
mod remove;
mod show;
mod storage;
mod templates;
mod trust;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;

pub(super) use listing::ask_pool;

const AFTER_HELP: &str = "\
Examples:
  bioxen pool add lab https://xcp-01.example --password env:LAB_PASSWORD
  bioxen pool check lab
  bioxen pool templates lab --json";

/// Name XCP-ng pools, check them, and see what they hold
///
/// A pool is an address, a user, a reference to the password, and the fingerprint of its certificate,
/// kept in config.toml under a name. Nothing here changes a pool.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(add::Arguments),
    List(list::Arguments),
    Show(show::Arguments),
    Trust(trust::Arguments),
    Check(check::Arguments),
    Hosts(hosts::Arguments),
    Templates(templates::Arguments),
    Networks(networks::Arguments),
    Storage(storage::Arguments),
    Remove(remove::Arguments),
}

/// Does what the command line says.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Add(arguments) => add::execute(arguments),
        Command::List(arguments) => list::execute(arguments),
        Command::Show(arguments) => show::execute(arguments),
        Command::Trust(arguments) => trust::execute(arguments),
        Command::Check(arguments) => check::execute(arguments),
        Command::Hosts(arguments) => hosts::execute(arguments),
        Command::Templates(arguments) => templates::execute(arguments),
        Command::Networks(arguments) => networks::execute(arguments),
        Command::Storage(arguments) => storage::execute(arguments),
        Command::Remove(arguments) => remove::execute(arguments),
    }
}
