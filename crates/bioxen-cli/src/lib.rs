//! The `bioxen` command as a library, so that tests and the documentation's generator reach it.
//!
//! One command, one file below `commands`; what several of them share is beside it. A command
//! travels one way: its arguments are parsed once, become a `VmSpec` and code to run, and end as an
//! exit code or a `Failure`, which is printed here and nowhere else.

mod arguments;
mod code;
mod commands;
mod comparison;
mod configuration;
mod confirmation;
mod directories;
mod ending;
mod execution;
mod failure;
mod fleet;
mod json;
mod leftovers;
mod logs;
mod machine_options;
mod output;
mod progress;
mod registry;
mod report;
mod runtime;
mod shown;
mod signals;
mod standard_input;
mod table;
mod vm_options;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use arguments::Arguments;

/// Parses the command line, does what it says, and returns what the shell should see.
///
/// A wrong command line ends the process here, with clap's message and exit code 2.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    arguments.color.apply();
    logs::start(arguments.verbose);
    commands::run(arguments.command).unwrap_or_else(|failure| failure.tell())
}

/// The command line as clap knows it: what the reference and the manual pages are made from.
pub fn command() -> clap::Command {
    Arguments::command()
}
