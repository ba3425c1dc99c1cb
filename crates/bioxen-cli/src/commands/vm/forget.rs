//! `bioxen vm forget`: lets go of a VM that was adopted.

use std::process::ExitCode;

use bioxen::VmName;
use bioxen_xcp::machine::MachineError;
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{self, Registry};
use crate::{json, output, runtime};

/// Forget a VM that was adopted; it stays on its pool as it is
///
/// Our marks are taken off it, and the key that we logged in with is forgotten too. One that was made here
/// is deleted with `bioxen vm delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Forgotten<'a> {
    name: &'a VmName,
    /// Whether it is on its pool still.
    is_there: bool,
}

/// Forgets it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    let (name, row) = (&arguments.name, registry.vm(&arguments.name)?);
    let is_there = runtime::block_on(async {
        let pool = registry.connect(Some(row.pool())).await?;
        let unmarked = match registry::machine_of(&pool, &row) {
            Ok(machine) => machine.forget().await.map(|_| true),
            Err(MachineError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        registry::close(&pool).await;
        unmarked.map_err(Failure::machine)
    })?;
    registry.state().forget(name).map_err(Failure::State)?;
    let rendered = if arguments.json {
        json::render(&Forgotten { name, is_there })
    } else if is_there {
        format!("vm `{name}` is forgotten, and stays on pool `{}`\n", row.pool()).into_bytes()
    } else {
        format!("vm `{name}` is forgotten; pool `{}` has it no more\n", row.pool()).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}
