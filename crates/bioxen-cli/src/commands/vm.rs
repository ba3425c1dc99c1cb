//! `bioxen vm`: VMs on pools, which outlive the command that makes them.

mod create;
mod delete;
mod exec;
mod list;
mod run;
mod show;
mod wait;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  bioxen vm create assembler --template debian-12-cloud --size bioinformatics
  bioxen vm exec assembler 'return _VERSION'
  bioxen vm run assembler gc.lua genome.fasta
  bioxen vm delete assembler --yes";

/// Make VMs on XCP-ng pools, use them, and delete them
///
/// A VM is a virtual machine on a pool with Lua in its guest. It stays until it is deleted, or until its
/// time is over and `bioxen vm gc` comes by.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Box<create::Arguments>),
    List(list::Arguments),
    Show(show::Arguments),
    Wait(wait::Arguments),
    Exec(exec::Arguments),
    Run(run::Arguments),
    Delete(delete::Arguments),
}

/// Does what the command line says.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        Command::Create(arguments) => create::execute(&arguments),
        Command::List(arguments) => list::execute(&arguments),
        Command::Show(arguments) => show::execute(&arguments),
        Command::Wait(arguments) => wait::execute(&arguments),
        Command::Exec(arguments) => exec::execute(arguments),
        Command::Run(arguments) => run::execute(arguments),
        Command::Delete(arguments) => delete::execute(&arguments),
    }
}
