//! Making a VM and waiting for it: what `vm create` and `vm clone` have in common.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bioxen::{VmName, VmSpec};
use bioxen_state::Controller;
use bioxen_xcp::making::{self, Known, MakeOrder, Timed, WorkerSource};
use bioxen_xcp::plan::Deadlines;
use bioxen_xcp::{ConnectedPool, Machine};
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{Registry, RegistryJournal};
use crate::signals::Signals;
use crate::{json, leftovers, output, progress, shown};

/// How long to wait, and in what form to answer.
#[derive(Debug, clap::Args)]
pub(super) struct Making {
    /// Wait until Lua answers, which is what happens anyway
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,

    /// Return once it is started; `bioxen vm wait` does the rest
    #[arg(long)]
    no_wait: bool,

    /// Give up after this time, and remove what was made
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// What a VM is made from.
pub(super) enum Origin {
    /// The template that its spec names.
    Template,
    /// Another VM.
    Machine(Machine),
}

/// What was made.
#[derive(Serialize)]
struct Created<'a> {
    name: &'a VmName,
    uuid: Option<&'a str>,
    pool: &'a str,
    /// `null` where its guest was not waited for.
    address: Option<std::net::IpAddr>,
    ready: bool,
    interpreter: Option<&'a str>,
    warnings: &'a [String],
    timeline: &'a [Timed],
}

enum Outcome {
    Started(Box<Known>),
    Made(Box<making::Made>),
}

impl Making {
    /// Makes the VM, and tells what came of it. When that fails, what had been made is removed again.
    pub(super) async fn carry_out(
        &self,
        spec: &VmSpec,
        origin: Origin,
        registry: &Registry,
        pool: &Arc<ConnectedPool>,
    ) -> Result<ExitCode, Failure> {
        let mut signals = Signals::listen()?;
        let controller = registry.controller()?;
        let order = self.order(spec, registry, pool, &controller);
        let making = async {
            let made = tokio::time::timeout(self.timeout, self.make(order, origin)).await;
            let late = |_| Failure::MakeTimeout { vm: spec.name.clone(), after: self.timeout };
            made.map_err(late)?.map_err(|error| Failure::Make(Box::new(error)))
        };
        let outcome = signals.or_stop(making).await;
        // Whoever gave up has what was made removed behind it.
        pool.settled().await;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(failure) => {
                forget_what_was_undone(registry, &controller, pool, &spec.name)?;
                return Err(failure);
            }
        };
        if let Outcome::Started(_) = &outcome {
            registry.state().release(&spec.name).map_err(Failure::State)?;
        }
        self.show(&spec.name, pool, &outcome)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn make(&self, order: MakeOrder, origin: Origin) -> Result<Outcome, making::MakeError> {
        let started = |known| Outcome::Started(Box::new(known));
        let made = |made| Outcome::Made(Box::new(made));
        match (origin, self.no_wait) {
            (Origin::Template, true) => making::start(order).await.map(started),
            (Origin::Template, false) => making::make(order).await.map(made),
            (Origin::Machine(of), true) => making::start_copy(order, of).await.map(started),
            (Origin::Machine(of), false) => making::make_copy(order, of).await.map(made),
        }
    }

    fn order(
        &self,
        spec: &VmSpec,
        registry: &Registry,
        pool: &Arc<ConnectedPool>,
        controller: &Controller,
    ) -> MakeOrder {
        MakeOrder {
            pool: Arc::clone(pool),
            spec: spec.clone(),
            fleet: None,
            run: None,
            worker: WorkerSource::Find,
            journal: Arc::new(RegistryJournal::new(registry, controller, pool, spec)),
            deadlines: Deadlines::default(),
            report: if self.json { progress::silent() } else { progress::lines() },
        }
    }

    fn show(&self, name: &VmName, pool: &ConnectedPool, outcome: &Outcome) -> Result<(), Failure> {
        let (known, made) = match outcome {
            Outcome::Started(known) => (known.as_ref(), None),
            Outcome::Made(made) => (&made.known, Some(made)),
        };
        let warnings = made.map_or(&[][..], |made| &made.warnings);
        if self.json {
            return output::print(&json::render(&Created {
                name,
                uuid: known.uuid.as_deref(),
                pool: pool.name().as_str(),
                address: known.address.map(|(address, _)| address),
                ready: known.ready,
                interpreter: made.map(|made| made.lua.interpreter.version.as_str()),
                warnings,
                timeline: made.map_or(&[][..], |made| &made.timeline),
            }));
        }
        for warning in warnings {
            crate::report::Report::new(shown::plain(warning)).warning();
        }
        let line = match (made, known.address) {
            (Some(made), Some((address, _))) => {
                let lua = &made.lua.interpreter.version;
                format!(
                    "vm `{name}` is ready at {address} with {lua}, after {}\n",
                    shown::duration(made.took())
                )
            }
            _ => format!("vm `{name}` is started; `bioxen vm wait {name}` waits for its guest\n"),
        };
        output::print(line.as_bytes())
    }
}

/// Forgets a VM of which nothing is left; what is left stays remembered, for `vm gc`.
fn forget_what_was_undone(
    registry: &Registry,
    controller: &Controller,
    pool: &ConnectedPool,
    name: &VmName,
) -> Result<(), Failure> {
    let row = registry.state().find_vm(name).map_err(Failure::State)?;
    // Another command may be making one of this name, which is why ours has failed.
    let Some(row) = row.filter(|row| row.controller() == Some(controller.id())) else {
        return Ok(());
    };
    if leftovers::is_there(pool, &row) {
        return Ok(());
    }
    registry.state().forget(name).map_err(Failure::State)
}
