//! `bioxen vm snapshot`: keeps a VM's disks and settings as they are.

use std::process::ExitCode;

use bioxen_xcp::machine::{Done, Snapshot};
use serde::Serialize;

use super::verb::{Verb, confirm};
use crate::failure::Failure;
use crate::shown;

/// Make a snapshot of a VM's disks and settings, whatever it is doing
///
/// What is in its memory is not part of it: back at the snapshot, the guest boots as after a power cut.
/// `bioxen vm restore` goes back to it, and `--delete` deletes it again.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
    /// What the snapshot is to be called
    snapshot: String,
    /// Delete this snapshot instead, given by name or uuid
    #[arg(long)]
    delete: bool,
    /// Do not ask before it is deleted
    #[arg(long, requires = "delete")]
    yes: bool,
    /// Find out whether there is such a snapshot, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    /// The snapshot, as it is or was; `null` where there is none.
    snapshot: Option<&'a Snapshot>,
    dry_run: bool,
}

#[derive(Serialize)]
struct Deletion<'a> {
    snapshot: &'a Snapshot,
    dry_run: bool,
    /// `null` where nothing was done.
    deleted: Option<Done>,
}

/// Makes it, or deletes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.delete {
        return delete(arguments);
    }
    let Arguments { verb, snapshot, dry_run, .. } = arguments;
    let made = verb.carry_out(async |_, vm| {
        if *dry_run {
            let all = vm.machine.snapshots().map_err(Failure::machine)?;
            return Ok(all.into_iter().find(|it| it.name == *snapshot));
        }
        vm.machine.snapshot(snapshot).await.map(Some).map_err(Failure::machine)
    })?;
    let (name, shown) = (&verb.name, shown::plain(snapshot));
    let line = match (dry_run, &made) {
        (true, None) => format!("vm `{name}` would have a snapshot `{shown}`"),
        (true, Some(_)) => format!("vm `{name}` has a snapshot `{shown}` already"),
        (false, _) => format!("vm `{name}` has a snapshot `{shown}`"),
    };
    verb.answer(&Outcome { snapshot: made.as_ref(), dry_run: *dry_run }, &line)
}

fn delete(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { verb, snapshot, dry_run, yes, .. } = arguments;
    let (name, shown) = (&verb.name, shown::plain(snapshot));
    let question = format!("Delete snapshot `{shown}` of vm `{name}`?");
    confirm(*yes || *dry_run, &question, format!("snapshot `{shown}` was not deleted"))?;
    let (found, deleted) = verb.carry_out(async |_, vm| {
        let found = vm.machine.snapshot_named(snapshot).map_err(Failure::machine)?;
        if *dry_run {
            return Ok((found, None));
        }
        let deleted = vm.machine.delete_snapshot(snapshot).await.map_err(Failure::machine)?;
        Ok((found, Some(deleted)))
    })?;
    let what = match deleted {
        None => "would be deleted",
        Some(Done::Now) => "is deleted",
        Some(Done::Already) => "was gone already",
    };
    let line = format!("snapshot `{shown}` of vm `{name}` {what}");
    verb.answer(&Deletion { snapshot: &found, dry_run: *dry_run, deleted }, &line)
}
