//! `bioxen pool show`: a pool's settings, and what the pool says of itself.

use std::process::ExitCode;

use bioxen_xcp::inventory::{self, Host};
use serde::Serialize;

use super::list::Row;
use super::listing::ask_pool;
use crate::failure::Failure;
use crate::{configuration, json, output, runtime, shown, table};

/// Show a pool's settings, and what the pool says of itself
///
/// The settings are shown also where the pool cannot be reached; that is then said, and the exit code is 5.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pool's name; may be left out where there is one only
    name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    settings: Row<'a>,
    /// `null` where the pool could not be asked.
    hosts: Option<&'a [Host]>,
}

/// Shows it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let pool = configuration::pool(arguments.name.as_deref())?;
    let ask = async |client: &xenapi::Client| inventory::hosts(client).await;
    let asked = runtime::block_on(async { ask_pool(&pool, ask).await });
    let settings = Row::of(&pool);
    let rendered = if arguments.json {
        let hosts = asked.as_deref().ok();
        json::render(&Shown { settings, hosts })
    } else {
        let live = asked.as_deref().map(live_entries).unwrap_or_default();
        let entries = settings.entries().into_iter().chain(live);
        format!("{}\n{}", pool.name, table::list(entries)).into_bytes()
    };
    output::print(&rendered)?;
    asked.map(|_| ExitCode::SUCCESS)
}

fn live_entries(hosts: &[Host]) -> Vec<[String; 2]> {
    let master = hosts.iter().find(|host| host.master);
    let free: u64 = hosts.iter().map(|host| host.memory_free).sum();
    let total: u64 = hosts.iter().map(|host| host.memory_total).sum();
    let vms: usize = hosts.iter().map(|host| host.vms).sum();
    [
        ("master", master.map_or_else(|| "?".into(), |host| host.name.clone())),
        ("version", master.map_or_else(|| "?".into(), |host| host.version.clone())),
        ("hosts", hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ")),
        ("memory", format!("{} free of {}", shown::size(free), shown::size(total))),
        ("running VMs", vms.to_string()),
    ]
    .map(|(name, value)| [name.to_owned(), shown::plain(&value)])
    .into()
}
