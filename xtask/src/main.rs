//! What contributors and CI run on this workspace, as `cargo xtask COMMAND`.
//!
//! Each command is a list of named steps; this program only calls tools and reports on them.

mod codegen;
mod commands;
mod peers;
mod program;
mod python;
mod steps;
mod tools;
mod words;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match commands::Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
