//! `bioxen vm clone`: another VM like one that is there.

use std::process::ExitCode;
use std::time::Duration;

use bioxen::{VmName, VmSpec};
use bioxen_core::MachineSpec;
use bioxen_xcp::making;
use bioxen_xcp::plan::PlanError;
use serde::Serialize;

use super::making::{Making, Origin};
use crate::failure::Failure;
use crate::registry::{Registry, Remembered};
use crate::{json, output, runtime, shown};

/// Make another VM like one that is there, and wait until Lua answers in it
///
/// The copy has disks like its origin's, shared as far as neither changes them, and an identity of its own:
/// another host key, another name, another key to log in with. The origin goes on meanwhile. Its guest
/// must be set up by cloud-init, as those of `bioxen vm create` are.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// What the copy is to be called
    new: VmName,
    /// Time after which `bioxen vm gc` deletes the copy, such as 8h or 7d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    making: Making,
    /// Show what the copy would take, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Planned<'a> {
    name: &'a VmName,
    origin: &'a VmName,
    dry_run: bool,
    memory: u64,
    vcpus: u32,
    disks: usize,
    /// Storage that it can come to take, in bytes.
    storage_at_most: u64,
}

/// Clones it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    registry.ensure_free(&arguments.new)?;
    runtime::block_on(async {
        let origin = registry.reach(&arguments.name).await?;
        let outcome = if let Some(address) = origin.fixed_address() {
            let (vm, origin) = (arguments.new.clone(), arguments.name.to_string());
            Err(Failure::Plan(Box::new(PlanError::AddressTaken { vm, origin, address })))
        } else if arguments.dry_run {
            plan(arguments, &origin)
        } else {
            let spec = spec(arguments, &origin);
            let from = Origin::Machine(origin.machine.clone());
            arguments.making.carry_out(&spec, from, &registry, &origin.pool).await
        };
        origin.close().await;
        outcome
    })
}

fn spec(arguments: &Arguments, origin: &Remembered) -> VmSpec {
    let made_by = origin.spec();
    let machine = made_by.machine().map(making::copy_spec).unwrap_or_default();
    let machine = MachineSpec {
        pool: Some(origin.row.pool().to_owned()),
        user: origin.row.ssh_user.clone().or(machine.user),
        port: Some(origin.row.ssh_port),
        lifetime: arguments.ttl,
        ..machine
    };
    VmSpec::new(arguments.new.clone(), machine)
}

fn plan(arguments: &Arguments, origin: &Remembered) -> Result<ExitCode, Failure> {
    let details = origin.machine.details().map_err(Failure::machine)?;
    let planned = Planned {
        name: &arguments.new,
        origin: &arguments.name,
        dry_run: true,
        memory: details.memory,
        vcpus: details.vcpus,
        disks: details.disks.len(),
        storage_at_most: details.disks.iter().map(|disk| disk.size).sum(),
    };
    let rendered = if arguments.making.json {
        json::render(&planned)
    } else {
        let Planned { name, origin, .. } = &planned;
        let vcpus =
            shown::counted(usize::try_from(planned.vcpus).unwrap_or(usize::MAX), "processor");
        let (memory, storage) = (shown::size(planned.memory), shown::size(planned.storage_at_most));
        format!(
            "vm `{name}` would be a copy of `{origin}`, with {memory} of memory, {vcpus} and \
             at most {storage} of storage\n"
        )
        .into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}
