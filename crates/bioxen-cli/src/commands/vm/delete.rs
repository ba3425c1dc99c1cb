//! `bioxen vm delete`: a VM with its snapshots and disks.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use bioxen::VmName;
use bioxen_xcp::machine::{Deleted, Done, MachineError};
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{self, Registry, Remembered};
use crate::{confirmation, json, output, runtime, shown};

/// Delete a VM with its snapshots and disks
///
/// One that was adopted is only forgotten, and so is one that is not on its pool any more.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show what would be deleted, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    name: &'a VmName,
    /// Whether anything was changed on the pool.
    dry_run: bool,
    /// `null` for one that was only forgotten.
    deleted: Option<Deleted>,
}

/// Deletes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    let row = registry.vm(&arguments.name)?;
    let name = &arguments.name;
    let question = if row.adopted() {
        format!("Forget vm `{name}`? It was adopted, and stays on pool `{}`.", row.pool())
    } else {
        format!("Delete vm `{name}` on pool `{}` with its snapshots and disks?", row.pool())
    };
    if !arguments.dry_run && !arguments.yes && confirmation::ask(&question)? != Some(true) {
        return Err(Failure::NotConfirmed { what: format!("vm `{name}` was not deleted") });
    }
    let deleted = runtime::block_on(async {
        let pool = registry.connect_to(&row).await?;
        let deleted = match registry::machine_of(&pool, &row) {
            Ok(machine) => {
                let vm = Remembered { row, pool: Arc::clone(&pool), machine };
                if arguments.dry_run { would_delete(&vm) } else { delete(&registry, &vm).await }
            }
            // It is not there any more: what is remembered of it is all that is left.
            Err(MachineError::NotFound { .. }) if arguments.dry_run => Ok(None),
            Err(MachineError::NotFound { .. }) => {
                registry.state().forget(name).map(|()| None).map_err(Failure::State)
            }
            Err(error) => Err(Failure::machine(error)),
        };
        registry::close(&pool).await;
        deleted
    })?;
    let rendered = if arguments.json {
        json::render(&Outcome { name, dry_run: arguments.dry_run, deleted })
    } else {
        line(arguments, deleted.as_ref()).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

async fn delete(registry: &Registry, vm: &Remembered) -> Result<Option<Deleted>, Failure> {
    let name = vm.row.name();
    if vm.row.adopted() {
        vm.machine.forget().await.map_err(Failure::machine)?;
        registry.state().forget(name).map_err(Failure::State)?;
        return Ok(None);
    }
    let controller = registry.controller()?;
    registry.state().deleting(name, &controller).map_err(Failure::State)?;
    let deleted = vm.machine.delete().await.map_err(Failure::machine)?;
    registry.state().forget(name).map_err(Failure::State)?;
    Ok(Some(deleted))
}

fn would_delete(vm: &Remembered) -> Result<Option<Deleted>, Failure> {
    if vm.row.adopted() {
        return Ok(None);
    }
    let details = vm.machine.details().map_err(Failure::machine)?;
    let freed = details.disks.iter().map(|disk| disk.used).sum();
    Ok(Some(Deleted {
        vm: Done::Already,
        snapshots: details.snapshots.len(),
        disks: details.disks.len(),
        freed,
        kept: Vec::new(),
    }))
}

fn line(arguments: &Arguments, deleted: Option<&Deleted>) -> String {
    let name = &arguments.name;
    let would = if arguments.dry_run { "would be " } else { "" };
    match deleted {
        None => format!("vm `{name}` {would}forgotten; nothing of it is deleted\n"),
        Some(deleted) => {
            let Deleted { disks, snapshots, freed, kept, .. } = deleted;
            let freed = shown::size(*freed);
            let disks = shown::counted(*disks, "disk");
            let snapshots = shown::counted(*snapshots, "snapshot");
            let mut line = format!(
                "vm `{name}` {would}deleted, with {disks} and {snapshots}; {freed} freed\n"
            );
            for disk in kept {
                let name = shown::plain(&disk.name);
                let _ = writeln!(line, "kept: disk `{name}`, which is not its alone");
            }
            line
        }
    }
}
