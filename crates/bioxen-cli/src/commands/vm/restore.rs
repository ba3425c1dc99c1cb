//! `bioxen vm restore`: brings a VM back to a snapshot.

use std::process::ExitCode;

use bioxen_xcp::machine::{Restored, Snapshot};
use serde::Serialize;

use super::verb::{Verb, confirm};
use crate::failure::Failure;
use crate::shown;

/// Bring a VM back to a snapshot
///
/// What has happened in it since then is lost. It stands still afterwards, unless `--start` is given and
/// it ran before. Whose it is and when it expires stay as they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    verb: Verb,
    /// The snapshot, by name or uuid
    snapshot: String,
    /// Start it again if it ran before
    #[arg(long)]
    start: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show the snapshot that it would be brought back to, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    snapshot: &'a str,
    #[serde(flatten)]
    restored: Restored,
}

#[derive(Serialize)]
struct Planned<'a> {
    snapshot: &'a Snapshot,
    dry_run: bool,
}

/// Restores it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { verb, snapshot, .. } = arguments;
    if arguments.dry_run {
        return plan(arguments);
    }
    let (name, shown) = (&verb.name, shown::plain(snapshot));
    let question = format!(
        "Bring vm `{name}` back to its snapshot `{shown}`? What has happened in it since then is lost."
    );
    confirm(arguments.yes, &question, format!("vm `{name}` was not restored"))?;
    let restored = verb.carry_out(async |_, vm| {
        vm.machine.restore(snapshot, arguments.start).await.map_err(Failure::machine)
    })?;
    let how = if restored.started { "runs again" } else { "is off" };
    let line = format!("vm `{name}` is back at its snapshot `{shown}` and {how}");
    verb.answer(&Outcome { snapshot, restored }, &line)
}

fn plan(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { verb, snapshot, .. } = arguments;
    let found = verb
        .carry_out(async |_, vm| vm.machine.snapshot_named(snapshot).map_err(Failure::machine))?;
    let taken = found.taken.map(|taken| format!(", as it was at {taken}")).unwrap_or_default();
    let line = format!(
        "vm `{}` would be back at its snapshot `{}`{taken}",
        verb.name,
        shown::plain(&found.name)
    );
    verb.answer(&Planned { snapshot: &found, dry_run: true }, &line)
}
