//! The command `xenapi-sim`: see `xenapi_sim::cli`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    xenapi_sim::cli::run(xenapi_sim::cli::Arguments::parse())
}
