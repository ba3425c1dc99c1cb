//! `bioxen network create`: an internal network, or a VLAN.

use std::process::ExitCode;

use bioxen_xcp::networks::{self, Created};
use serde::Serialize;

use super::with_pool;
use crate::failure::Failure;
use crate::{json, output, shown};

/// Make a network: an internal one, or a VLAN
///
/// An internal one leads nowhere out of the hosts, so that VMs on it reach each other on one host. A VLAN
/// is made on all hosts of the pool.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What it is to be called
    name: String,
    /// The pool; may be left out where there is one only
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Tag of the VLAN that it is to be
    #[arg(long, value_name = "TAG", requires = "device")]
    vlan: Option<u16>,
    /// Interface of the hosts, or network that leads out of them, that the VLAN is on
    #[arg(long, value_name = "DEVICE", requires = "vlan")]
    device: Option<String>,
    /// Find out whether it could be made, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    name: &'a str,
    vlan: Option<u16>,
    /// Whether nothing was changed on the pool.
    dry_run: bool,
    /// `null` where it was only found out that it can be made.
    uuid: Option<uuid::Uuid>,
}

/// Makes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { name, vlan, dry_run, .. } = arguments;
    let on = vlan.zip(arguments.device.as_deref());
    let created = with_pool(arguments.pool.as_deref(), async |pool| {
        let created: Result<Option<Created>, _> = match on {
            None if *dry_run => networks::check_internal(pool, name).map(|()| None),
            None => networks::create_internal(pool, name).await.map(Some),
            Some((tag, device)) if *dry_run => {
                networks::check_vlan(pool, name, device, tag).await.map(|()| None)
            }
            Some((tag, device)) => networks::create_vlan(pool, name, device, tag).await.map(Some),
        };
        created.map_err(Failure::network)
    })?;
    let rendered = if arguments.json {
        let uuid = created.map(|created| created.uuid);
        json::render(&Outcome { name, vlan: *vlan, dry_run: *dry_run, uuid })
    } else {
        let what = match on {
            None => "which is internal".to_owned(),
            Some((tag, device)) => format!("which is vlan {tag} on `{}`", shown::plain(device)),
        };
        let made = if *dry_run { "could be made" } else { "is made" };
        format!("network `{}`, {what}, {made}\n", shown::plain(name)).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}
