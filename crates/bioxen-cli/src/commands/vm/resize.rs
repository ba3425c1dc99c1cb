//! `bioxen vm resize`: gives a VM more or less.

use std::process::ExitCode;

use bioxen::ByteSize;
use bioxen_xcp::machine::{Resize, ResizePlan, Resized, Size, Stop};
use serde::Serialize;

use super::verb::Verb;
use super::words;
use crate::failure::Failure;
use crate::registry::{Registry, Remembered};

/// Give a VM more or less memory, processors or disk
///
/// What can be changed while it runs is changed so. Its disk can only grow, and its guest has to grow
/// what is on it: cloud images do when they boot.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("sizes").multiple(true).required(true)))]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
    /// Its memory
    #[arg(long, value_name = "SIZE", group = "sizes")]
    memory: Option<ByteSize>,
    /// Its processors
    #[arg(long, value_name = "COUNT", group = "sizes")]
    vcpus: Option<u32>,
    /// The size of the disk that it boots from
    #[arg(long, value_name = "SIZE", group = "sizes")]
    disk: Option<ByteSize>,
    /// Stop it where that is needed, and start it again
    #[arg(long)]
    stop_if_needed: bool,
    /// Show what would be changed, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Planned {
    dry_run: bool,
    #[serde(flatten)]
    plan: ResizePlan,
}

/// Resizes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let wanted = Resize {
        memory: arguments.memory,
        vcpus: arguments.vcpus,
        disk: arguments.disk,
        stop_if_needed: arguments.stop_if_needed.then(Stop::default),
    };
    if arguments.dry_run {
        return plan(arguments, &wanted);
    }
    let resized = arguments.verb.carry_out(async |registry, vm| {
        let resized = vm.machine.resize(&wanted).await.map_err(Failure::machine)?;
        note(registry, vm, &resized)?;
        Ok(resized)
    })?;
    let name = &arguments.verb.name;
    let line = match (resized.changed.as_slice(), resized.stopped) {
        ([], _) => format!("vm `{name}` is as large as that already"),
        (changed, None) => format!("vm `{name}` has {}", words::sizes(changed)),
        (changed, Some(_)) => {
            format!(
                "vm `{name}` has {}; it was stopped for that, and started again",
                words::sizes(changed)
            )
        }
    };
    arguments.verb.answer(&resized, &line)
}

/// Remembers the sizes that were changed.
fn note(registry: &Registry, vm: &Remembered, resized: &Resized) -> Result<(), Failure> {
    let noted = registry.state().update(vm.row.name(), |row| {
        for change in &resized.changed {
            match *change {
                Size::Memory(bytes) => row.memory = Some(bytes),
                Size::Vcpus(count) => row.vcpus = Some(count),
                Size::Disk(bytes) => row.disk = Some(bytes),
            }
        }
    });
    noted.map(drop).map_err(Failure::State)
}

fn plan(arguments: &Arguments, wanted: &Resize) -> Result<ExitCode, Failure> {
    let plan = arguments
        .verb
        .carry_out(async |_, vm| vm.machine.plan_resize(wanted).await.map_err(Failure::machine))?;
    let name = &arguments.verb.name;
    let line = match (plan.changes.as_slice(), plan.needs_stop.as_slice()) {
        ([], _) => format!("vm `{name}` is as large as that already"),
        (changes, []) => format!("vm `{name}` would have {}", words::sizes(changes)),
        (changes, what) => format!(
            "vm `{name}` would have {}; it must be stopped for {}",
            words::sizes(changes),
            what.join(" and ")
        ),
    };
    arguments.verb.answer(&Planned { dry_run: true, plan }, &line)
}
