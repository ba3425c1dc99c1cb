//! The command line: one command, one file.

mod bench;
mod check;
mod codegen;
mod fuzz;
mod guest_worker;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Checks, tests, fuzzes and measures this workspace, and generates code
#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Every command runs named steps and ends with a summary of them; `--only STEP` \
                  runs one alone. With CI=true in the environment nothing may be skipped for want \
                  of a tool that the tests need."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Check(check::Check),
    Test(test::Test),
    Fuzz(fuzz::Fuzz),
    Bench(bench::Bench),
    Codegen(codegen::Codegen),
    GuestWorker(guest_worker::GuestWorker),
}

impl Command {
    /// Runs the command; the error says what failed.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
            Self::Fuzz(fuzz) => fuzz.run(),
            Self::Bench(bench) => bench.run(),
            Self::Codegen(codegen) => codegen.run(),
            Self::GuestWorker(guest_worker) => guest_worker.run(),
        }
    }
}
