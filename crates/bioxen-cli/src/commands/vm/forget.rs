//! `bioxen vm forget`: lets go of a VM that was adopted, or whose pool is known no more.

use std::process::ExitCode;

use bioxen::VmName;
use bioxen_state::Vm;
use bioxen_xcp::machine::MachineError;
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{self, Registry};
use crate::{configuration, json, output, runtime};

/// Forget a VM that was adopted; it stays on its pool as it is
///
/// Our marks are taken off it, and the key that we logged in with is forgotten too. One that was made here
/// is deleted with `bioxen vm delete`; only where its pool is not in the configuration any more can it be
/// forgotten as well, and what there is of it stays there with our marks.
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
    /// Whether it is on its pool still; `null` where that is in the configuration no more.
    is_there: Option<bool>,
    /// Its uuid there, by which it can be found.
    uuid: Option<&'a str>,
}

/// Forgets it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    let (name, row) = (&arguments.name, registry.vm(&arguments.name)?);
    let is_there = if registry::has_pool(&configuration::read()?, &row) {
        Some(runtime::block_on(unmark(&registry, &row))?)
    } else {
        // Nobody is to be making or deleting it meanwhile.
        let controller = registry.controller()?;
        registry.state().claim(name, &controller).map_err(Failure::State)?;
        None
    };
    registry.state().forget(name).map_err(Failure::State)?;
    let uuid = row.uuid.as_deref();
    let rendered = if arguments.json {
        json::render(&Forgotten { name, is_there, uuid })
    } else {
        line(&row, is_there).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

/// Takes our marks off it; answers whether it is on its pool.
async fn unmark(registry: &Registry, row: &Vm) -> Result<bool, Failure> {
    let pool = registry.connect_to(row).await?;
    let unmarked = match registry::machine_of(&pool, row) {
        Ok(machine) => machine.forget().await.map(|_| true),
        Err(MachineError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    };
    registry::close(&pool).await;
    unmarked.map_err(Failure::machine)
}

fn line(row: &Vm, is_there: Option<bool>) -> String {
    let (name, pool) = (row.name(), row.pool());
    match (is_there, row.uuid.as_deref().or(row.making_label())) {
        (Some(true), _) => format!("vm `{name}` is forgotten, and stays on pool `{pool}`\n"),
        (Some(false), _) => format!("vm `{name}` is forgotten; pool `{pool}` has it no more\n"),
        (None, known) => format!(
            "vm `{name}` is forgotten; what there is of it stays on pool `{pool}`, with our marks, as {}\n",
            known.unwrap_or("nothing that is known")
        ),
    }
}
