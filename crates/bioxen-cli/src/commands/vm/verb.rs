//! What the commands that do one thing with one VM have in common.

use std::process::ExitCode;
use std::time::Duration;

use bioxen::VmName;
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{Registry, Remembered};
use crate::signals::Signals;
use crate::{confirmation, json, output, runtime};

/// Which VM, how long it may take, and in what form to answer.
#[derive(Debug, clap::Args)]
pub(super) struct Verb {
    /// The VM
    pub(super) name: VmName,
    /// Give up after this time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct Answer<'a, Fields> {
    name: &'a VmName,
    #[serde(flatten)]
    fields: &'a Fields,
}

impl Verb {
    /// Reaches the VM, does this with it, and logs out. Ctrl-C ends the waiting; what the pool was told
    /// to do is cancelled where it can be.
    pub(super) fn carry_out<T>(
        &self,
        work: impl AsyncFnOnce(&Registry, &Remembered) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let registry = Registry::open()?;
        runtime::block_on(async {
            let mut signals = Signals::listen()?;
            let mut vm = signals.or_stop(registry.reach(&self.name)).await?;
            vm.machine = vm.machine.within(self.timeout);
            let outcome = signals.or_stop(work(&registry, &vm)).await;
            vm.close().await;
            outcome
        })
    }

    /// Prints what came of it: a line for a person, or the VM's name with these fields.
    pub(super) fn answer(&self, fields: &impl Serialize, line: &str) -> Result<ExitCode, Failure> {
        let rendered = if self.json {
            json::render(&Answer { name: &self.name, fields })
        } else {
            format!("{line}\n").into_bytes()
        };
        output::print(&rendered)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks, unless `yes` says that there is no need to. `otherwise` says what was not done.
pub(super) fn confirm(yes: bool, question: &str, otherwise: String) -> Result<(), Failure> {
    if yes || confirmation::ask(question)? == Some(true) {
        return Ok(());
    }
    Err(Failure::NotConfirmed { what: otherwise })
}
