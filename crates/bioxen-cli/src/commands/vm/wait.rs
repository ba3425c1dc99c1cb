//! `bioxen vm wait`: waits for the guest of a VM, and for Lua in it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bioxen::VmName;
use bioxen_xcp::making::{self, MakeOrder, WorkerSource};
use bioxen_xcp::plan::Deadlines;
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{Registry, RegistryJournal, Remembered};
use crate::signals::Signals;
use crate::{json, output, progress, runtime};

/// Wait until Lua answers in a VM
///
/// Finishes what `vm create --no-wait`, or a command that was killed, had begun.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// Give up after this time; the VM stays as it is
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Ready<'a> {
    name: &'a VmName,
    address: Option<std::net::IpAddr>,
    interpreter: &'a str,
    warnings: &'a [String],
}

/// Waits for it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    runtime::block_on(async {
        let vm = registry.reach(&arguments.name).await?;
        let outcome = wait(arguments, &registry, &vm).await;
        vm.close().await;
        outcome
    })
}

async fn wait(
    arguments: &Arguments,
    registry: &Registry,
    vm: &Remembered,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let controller = registry.controller()?;
    registry.state().claim(&arguments.name, &controller).map_err(Failure::State)?;
    let spec = vm.spec();
    let order = MakeOrder {
        pool: Arc::clone(&vm.pool),
        spec: spec.clone(),
        fleet: None,
        run: None,
        worker: WorkerSource::Find,
        journal: Arc::new(RegistryJournal::new(registry, &controller, &vm.pool, &spec)),
        deadlines: Deadlines::default(),
        report: if arguments.json { progress::silent() } else { progress::lines() },
    };
    let finishing = Box::pin(making::finish(order, vm.machine.reference().clone(), vm.known()?));
    let waiting = async {
        let made = tokio::time::timeout(arguments.timeout, finishing).await;
        let (vm, after) = (arguments.name.clone(), arguments.timeout);
        let late = |_| Failure::WaitTimeout { vm, after };
        made.map_err(late)?.map_err(|error| Failure::Make(Box::new(error)))
    };
    let outcome = signals.or_stop(waiting).await;
    registry.state().release(&arguments.name).map_err(Failure::State)?;
    let made = outcome?;
    let name = &arguments.name;
    let address = made.known.address.map(|(address, _)| address);
    let interpreter = made.lua.interpreter.version.as_str();
    let rendered = if arguments.json {
        json::render(&Ready { name, address, interpreter, warnings: &made.warnings })
    } else {
        let address = address.map_or_else(|| "?".to_owned(), |address| address.to_string());
        format!("vm `{name}` is ready at {address} with {interpreter}\n").into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}
