//! `bioxen vm list`: the VMs that are remembered, and how they are.

use std::collections::BTreeMap;
use std::process::ExitCode;

use bioxen_state::Vm;
use bioxen_xcp::Machine;
use bioxen_xcp::machine::Details;
use jiff::Timestamp;
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{self, Registry};
use crate::table::{quantity, text};
use crate::{configuration, json, output, report, runtime, shown, table};

/// List the VMs that were made or adopted
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only those on this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    #[serde(rename = "type")]
    vm_type: &'static str,
    pool: String,
    uuid: Option<String>,
    /// What its pool says; `null` where that was not reached, `gone` where the VM is not there.
    state: Option<String>,
    /// Whether its pool is in the configuration still.
    pool_known: bool,
    /// Where it is in its life: `making`, `ready` or `deleting`.
    phase: &'static str,
    address: Option<String>,
    memory: Option<u64>,
    vcpus: Option<u32>,
    adopted: bool,
    created: Timestamp,
    expires: Option<Timestamp>,
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    let mut vms = registry.state().vms().map_err(Failure::State)?;
    if let Some(pool) = &arguments.pool {
        vms.retain(|vm| vm.pool() == pool);
    }
    let rows = runtime::block_on(rows(&registry, vms))?;
    let rendered = if arguments.json {
        json::render(&rows)
    } else {
        let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let cells = |row: &Row| {
            let state = match row.phase {
                _ if !row.pool_known => "pool unknown".to_owned(),
                "ready" => dash(&row.state),
                phase => phase.to_owned(),
            };
            let memory = shown::or_dash(row.memory, shown::size);
            let vcpus = shown::or_dash(row.vcpus, |count| count.to_string());
            let expires = shown::or_dash(row.expires, shown::time);
            [row.name.clone(), row.pool.clone(), state, dash(&row.address), memory, vcpus, expires]
                .map(|cell| shown::plain(&cell))
        };
        let columns = [
            text("NAME"),
            text("POOL"),
            text("STATE"),
            text("ADDRESS"),
            quantity("MEMORY"),
            quantity("VCPUS"),
            text("EXPIRES"),
        ];
        table::render(columns, rows.iter().map(cells).collect()).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

async fn rows(registry: &Registry, vms: Vec<Vm>) -> Result<Vec<Row>, Failure> {
    let mut by_pool: BTreeMap<String, Vec<Vm>> = BTreeMap::new();
    for vm in vms {
        by_pool.entry(vm.pool().to_owned()).or_default().push(vm);
    }
    let configuration = configuration::read()?;
    let mut rows = Vec::new();
    for (pool, vms) in by_pool {
        if configuration.find_pool(&pool).is_none() {
            rows.extend(vms.iter().map(|vm| Row { pool_known: false, ..row(vm, None, None) }));
            continue;
        }
        let connected = registry.connect(Some(&pool)).await;
        if let Err(failure) = &connected {
            // What is remembered is shown all the same.
            let what = format!("pool `{pool}` was not asked: {}", failure.in_one_line());
            report::Report::new(what).warning();
        }
        let connected = connected.ok();
        for vm in vms {
            let details = connected.as_ref().and_then(|pool| {
                let found = vm.uuid.as_deref().map(|uuid| Machine::find(pool, uuid));
                found.and_then(Result::ok).and_then(|vm| vm.details().ok())
            });
            let state = match &details {
                Some(details) => Some(details.state.to_string()),
                None => connected.is_some().then(|| "gone".to_owned()),
            };
            rows.push(row(&vm, state, details.as_ref()));
        }
        if let Some(connected) = connected {
            registry::close(&connected).await;
        }
    }
    Ok(rows)
}

fn row(vm: &Vm, state: Option<String>, details: Option<&Details>) -> Row {
    Row {
        name: vm.name().to_string(),
        vm_type: "xcpng",
        pool: vm.pool().to_owned(),
        uuid: vm.uuid.clone(),
        state,
        pool_known: true,
        phase: vm.phase().name(),
        address: vm.address.map(|address| address.ip.to_string()),
        memory: details.map(|details| details.memory).or(vm.memory),
        vcpus: details.map(|details| details.vcpus).or(vm.vcpus),
        adopted: vm.adopted(),
        created: vm.created(),
        expires: vm.expires,
    }
}
