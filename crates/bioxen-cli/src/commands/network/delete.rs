//! `bioxen network delete`: a network that was made here.

use std::process::ExitCode;

use bioxen_xcp::machine::Done;
use bioxen_xcp::networks;
use serde::Serialize;

use super::with_pool;
use crate::failure::Failure;
use crate::{confirmation, json, output, shown};

/// Delete a network that was made here and that no VM is on
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The network, by name or uuid
    name: String,
    /// The pool; may be left out where there is one only
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Find out whether it could be deleted, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    name: &'a str,
    /// Whether nothing was changed on the pool.
    dry_run: bool,
    /// `null` where it was only found out that it can be deleted.
    deleted: Option<Done>,
}

/// Deletes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { name, dry_run, .. } = arguments;
    let shown = shown::plain(name);
    if !arguments.yes
        && !dry_run
        && confirmation::ask(&format!("Delete network `{shown}`?"))? != Some(true)
    {
        return Err(Failure::NotConfirmed { what: format!("network `{shown}` was not deleted") });
    }
    let deleted = with_pool(arguments.pool.as_deref(), async |pool| {
        if *dry_run {
            return networks::check_deletion(pool, name).map(|()| None).map_err(Failure::network);
        }
        networks::delete(pool, name).await.map(Some).map_err(Failure::network)
    })?;
    let rendered = if arguments.json {
        json::render(&Outcome { name, dry_run: *dry_run, deleted })
    } else {
        let what = match deleted {
            None => "could be deleted",
            Some(Done::Now) => "is deleted",
            Some(Done::Already) => "was gone already",
        };
        format!("network `{shown}` {what}\n").into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}
