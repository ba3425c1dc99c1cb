//! `bioxen doctor`: what this machine offers, and how to get what it does not. Changes nothing.

mod advice;
mod findings;
mod rendering;

use std::process::ExitCode;

use crate::failure::Failure;
use crate::{fleet, json, output, runtime};
use findings::Findings;

/// Show what this machine offers, and how to get the rest
///
/// Makes some VMs to see what works and how fast. Changes nothing. The exit code is 0 if VMs can run
/// here, else 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print the findings as one JSON object
    #[arg(long)]
    json: bool,
}

/// Looks around and tells; succeeds if VMs can run.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let findings = runtime::block_on(async {
        let fleet = fleet::new();
        let findings = Findings::gather(&fleet).await;
        fleet::shut_down(&fleet).await;
        Ok(findings)
    })?;
    let rendered = if arguments.json {
        json::render(&findings)
    } else {
        rendering::text(&findings).into_bytes()
    };
    output::print(&rendered)?;
    Ok(if findings.can_run_vms() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
