//! `bioxen vm`: VMs on pools, which outlive the command that makes them.

mod adopt;
mod clone;
mod console;
mod copy;
mod create;
mod delete;
mod exec;
mod forget;
mod gc;
mod leaks;
mod list;
mod making;
mod migrate;
mod reboot;
mod resize;
mod restore;
mod resume;
mod run;
mod show;
mod snapshot;
mod snapshots;
mod ssh;
mod start;
mod stop;
mod suspend;
mod verb;
mod wait;
mod words;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  bioxen vm create assembler --template debian-12-cloud --size bioinformatics
  bioxen vm exec assembler 'return _VERSION'
  bioxen vm copy genome.fasta assembler:
  bioxen vm run assembler gc.lua genome.fasta
  bioxen vm snapshot assembler before-upgrade
  bioxen vm stop assembler
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
    Copy(copy::Arguments),
    Ssh(ssh::Arguments),
    Console(console::Arguments),
    Start(start::Arguments),
    Stop(stop::Arguments),
    Reboot(reboot::Arguments),
    Suspend(suspend::Arguments),
    Resume(resume::Arguments),
    Snapshot(snapshot::Arguments),
    Snapshots(snapshots::Arguments),
    Restore(restore::Arguments),
    Resize(resize::Arguments),
    Migrate(migrate::Arguments),
    Clone(clone::Arguments),
    Adopt(Box<adopt::Arguments>),
    Forget(forget::Arguments),
    Delete(delete::Arguments),
    Gc(gc::Arguments),
    Leaks(leaks::Arguments),
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
        Command::Copy(arguments) => copy::execute(&arguments),
        Command::Ssh(arguments) => ssh::execute(&arguments),
        Command::Console(arguments) => console::execute(&arguments),
        Command::Start(arguments) => start::execute(&arguments),
        Command::Stop(arguments) => stop::execute(&arguments),
        Command::Reboot(arguments) => reboot::execute(&arguments),
        Command::Suspend(arguments) => suspend::execute(&arguments),
        Command::Resume(arguments) => resume::execute(&arguments),
        Command::Snapshot(arguments) => snapshot::execute(&arguments),
        Command::Snapshots(arguments) => snapshots::execute(&arguments),
        Command::Restore(arguments) => restore::execute(&arguments),
        Command::Resize(arguments) => resize::execute(&arguments),
        Command::Migrate(arguments) => migrate::execute(&arguments),
        Command::Clone(arguments) => clone::execute(&arguments),
        Command::Adopt(arguments) => adopt::execute(&arguments),
        Command::Forget(arguments) => forget::execute(&arguments),
        Command::Delete(arguments) => delete::execute(&arguments),
        Command::Gc(arguments) => gc::execute(&arguments),
        Command::Leaks(arguments) => leaks::execute(&arguments),
    }
}
