//! `bioxen vm show`: all there is to know of one VM.

use std::process::ExitCode;

use bioxen::VmName;
use bioxen_xcp::machine::Details;
use jiff::Timestamp;
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{Registry, Remembered};
use crate::{json, output, runtime, shown, table};

/// Show all there is to know of a VM
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    pool: String,
    phase: &'static str,
    adopted: bool,
    address: Option<String>,
    /// How the address became known.
    address_known_by: Option<&'static str>,
    user: Option<String>,
    host_key: Option<String>,
    seed: Option<String>,
    created: Timestamp,
    expires: Option<Timestamp>,
    /// As the pool has it.
    machine: Details,
}

/// Shows it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    let shown = runtime::block_on(async {
        let vm = registry.reach(&arguments.name).await?;
        let shown = shown_of(&vm);
        vm.close().await;
        shown
    })?;
    let rendered = if arguments.json {
        json::render(&shown)
    } else {
        format!("{}\n{}", shown.name, table::list(entries(&shown))).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

fn shown_of(vm: &Remembered) -> Result<Shown, Failure> {
    let row = &vm.row;
    Ok(Shown {
        name: row.name().to_string(),
        pool: row.pool().to_owned(),
        phase: row.phase().name(),
        adopted: row.adopted(),
        address: row.address.map(|address| address.ip.to_string()),
        address_known_by: row.address.map(|address| address.known_by.name()),
        user: row.ssh_user.clone(),
        host_key: row.host_key.clone(),
        seed: row.seed_digest.clone(),
        created: row.created(),
        expires: row.expires,
        machine: vm.machine.details().map_err(Failure::machine)?,
    })
}

fn entries(shown: &Shown) -> Vec<[String; 2]> {
    let machine = &shown.machine;
    let disks =
        machine.disks.iter().map(|disk| format!("{} on {}", shown::size(disk.size), disk.storage));
    let interfaces = machine.interfaces.iter().map(|interface| {
        let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
        format!("{} {} {}", interface.network, interface.mac, addresses.join(" "))
    });
    let snapshots = machine.snapshots.iter().map(|snapshot| snapshot.name.clone());
    let list = |items: &mut dyn Iterator<Item = String>| {
        let all: Vec<String> = items.collect();
        (!all.is_empty()).then(|| all.join(", "))
    };
    let entries = [
        ("uuid", Some(machine.uuid.to_string())),
        ("pool", Some(shown.pool.clone())),
        ("state", Some(machine.state.to_string())),
        ("phase", Some(shown.phase.to_owned())),
        ("host", machine.host.clone()),
        ("template", machine.template.clone()),
        ("memory", Some(shown::size(machine.memory))),
        ("processors", Some(machine.vcpus.to_string())),
        ("disks", list(&mut disks.into_iter())),
        ("interfaces", list(&mut interfaces.into_iter())),
        ("address", shown.address.clone()),
        ("user", shown.user.clone()),
        ("guest tools", machine.tools.clone()),
        ("snapshots", list(&mut snapshots.into_iter())),
        ("adopted", shown.adopted.then(|| "yes: it is never deleted by us".to_owned())),
        ("created", Some(shown::time(shown.created))),
        ("started", machine.started.map(shown::time)),
        ("expires", shown.expires.map(shown::time)),
    ];
    let said = entries.into_iter().filter_map(|(name, value)| Some((name, value?)));
    said.map(|(name, value)| [name.to_owned(), shown::plain(&value)]).collect()
}
