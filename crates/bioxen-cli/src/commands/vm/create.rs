//! `bioxen vm create`: a machine from a template, with Lua in it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bioxen::{VmName, VmSpec, VmType};
use bioxen_state::Controller;
use bioxen_xcp::ConnectedPool;
use bioxen_xcp::making::{self, Known, MakeOrder, Timed, WorkerSource};
use bioxen_xcp::plan::{Deadlines, Plan, PoolView, Step};
use serde::Serialize;

use crate::failure::Failure;
use crate::machine_options::{PlaceOptions, SizeOptions};
use crate::registry::{self, Registry, RegistryJournal};
use crate::signals::Signals;
use crate::table::{self, quantity, text};
use crate::{json, output, progress, runtime, shown};

const AFTER_HELP: &str = "\
Examples:
  bioxen vm create assembler --template debian-12-cloud
  bioxen vm create big --template debian-12-cloud --size production --disk 40GiB --ttl 8h
  bioxen vm create fixed --template debian-12-cloud --network lab,address=10.0.0.7/24,gateway=10.0.0.1
  bioxen vm create assembler --template debian-12-cloud --dry-run";

/// Make a VM on a pool and wait until Lua answers in it
///
/// Steps are shown on standard error as they end. When one fails, all that was made is removed again.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub(crate) struct Arguments {
    /// What it is to be called
    name: VmName,

    /// Kind of place in which it lives
    #[arg(long = "type", value_name = "TYPE", default_value_t = VmType::Xcpng)]
    vm_type: VmType,

    #[command(flatten)]
    place: PlaceOptions,

    #[command(flatten)]
    size: SizeOptions,

    /// Wait until Lua answers, which is what happens anyway
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,

    /// Return once it is started; `bioxen vm wait` does the rest
    #[arg(long)]
    no_wait: bool,

    /// Show what would be done and what it would take, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Give up after this time, and remove what was made
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
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

/// What would be made.
#[derive(Serialize)]
struct Planned<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    pool: &'a str,
    steps: Vec<Step>,
}

/// Makes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.vm_type != VmType::Xcpng {
        return Err(Failure::NeedsDaemon { vm_type: arguments.vm_type });
    }
    let machine = arguments.size.apply(arguments.place.machine()?);
    let (_, machine) = registry::complete(machine)?;
    let spec = VmSpec::new(arguments.name.clone(), machine);
    let registry = Registry::open()?;
    registry.ensure_free(&arguments.name)?;
    runtime::block_on(async {
        let wanted = spec.machine().and_then(|machine| machine.pool.clone());
        let pool = registry.connect(wanted.as_deref()).await?;
        let outcome = if arguments.dry_run {
            plan(arguments, &spec, &pool)
        } else {
            make(arguments, &spec, &registry, &pool).await
        };
        registry::close(&pool).await;
        outcome
    })
}

fn plan(arguments: &Arguments, spec: &VmSpec, pool: &ConnectedPool) -> Result<ExitCode, Failure> {
    let plan = Plan::new(spec, &PoolView::of(&pool.mirror().view()))
        .map_err(|error| Failure::Plan(Box::new(error)))?;
    let steps = plan.steps();
    let rendered = if arguments.json {
        json::render(&Planned { plan: &plan, pool: pool.name().as_str(), steps })
    } else {
        let rows = steps.into_iter().map(|step| [step.step.to_string(), shown::plain(&step.what)]);
        let steps = table::render([text("STEP"), text("WHAT IT DOES")], rows.collect());
        let hosts = plan.cost.hosts.iter().map(|fit| {
            let could = fit.obstacle.clone().unwrap_or_else(|| "could take it".into());
            [shown::plain(&fit.name), shown::size(fit.memory_free), shown::plain(&could)]
        });
        let columns = [text("HOST"), quantity("FREE MEMORY"), text("")];
        let hosts = table::render(columns, hosts.collect());
        let cost = table::list([
            ["memory".into(), shown::size(plan.cost.memory)],
            ["storage now".into(), shown::size(plan.cost.storage_now)],
            ["storage at most".into(), shown::size(plan.cost.storage_at_most)],
        ]);
        format!("{steps}\n{cost}\n{hosts}").into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

async fn make(
    arguments: &Arguments,
    spec: &VmSpec,
    registry: &Registry,
    pool: &Arc<ConnectedPool>,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let controller = registry.controller()?;
    let order = order(spec, registry, pool, &controller, arguments.json);
    let making = async {
        if arguments.no_wait {
            making::start(order).await.map(|known| Outcome::Started(Box::new(known)))
        } else {
            making::make(order).await.map(|made| Outcome::Made(Box::new(made)))
        }
    };
    let making = async {
        let made = tokio::time::timeout(arguments.timeout, making).await;
        let late = |_| Failure::MakeTimeout { vm: spec.name.clone(), after: arguments.timeout };
        made.map_err(late)?.map_err(|error| Failure::Make(Box::new(error)))
    };
    let outcome = signals.or_stop(making).await;
    // Whoever gave up has what was made removed behind it.
    pool.settled().await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(failure) => {
            forget_what_was_undone(registry, pool, &spec.name)?;
            return Err(failure);
        }
    };
    if let Outcome::Started(_) = &outcome {
        registry.state().release(&spec.name).map_err(Failure::State)?;
    }
    show(arguments, pool, &outcome)?;
    Ok(ExitCode::SUCCESS)
}

enum Outcome {
    Started(Box<Known>),
    Made(Box<making::Made>),
}

fn order(
    spec: &VmSpec,
    registry: &Registry,
    pool: &Arc<ConnectedPool>,
    controller: &Controller,
    quiet: bool,
) -> MakeOrder {
    MakeOrder {
        pool: Arc::clone(pool),
        spec: spec.clone(),
        fleet: None,
        run: None,
        worker: WorkerSource::Find,
        journal: Arc::new(RegistryJournal::new(registry, controller, pool, spec)),
        deadlines: Deadlines::default(),
        report: if quiet { progress::silent() } else { progress::lines() },
    }
}

/// Forgets a VM of which nothing is left; what is left stays remembered, for `vm gc`.
fn forget_what_was_undone(
    registry: &Registry,
    pool: &ConnectedPool,
    name: &VmName,
) -> Result<(), Failure> {
    let Some(row) = registry.state().find_vm(name).map_err(Failure::State)? else {
        return Ok(());
    };
    let view = pool.mirror().view();
    let by_uuid = row.uuid.as_deref().and_then(|uuid| view.by_uuid::<xenapi::class::Vm>(uuid));
    let label = row.making_label().unwrap_or_default();
    let is_left = by_uuid.is_some() || view.by_name::<xenapi::class::Vm>(label).next().is_some();
    drop(view);
    if is_left {
        return Ok(());
    }
    registry.state().forget(name).map_err(Failure::State)
}

fn show(arguments: &Arguments, pool: &ConnectedPool, outcome: &Outcome) -> Result<(), Failure> {
    let (known, made) = match outcome {
        Outcome::Started(known) => (known.as_ref(), None),
        Outcome::Made(made) => (&made.known, Some(made)),
    };
    let name = &arguments.name;
    let warnings = made.map_or(&[][..], |made| &made.warnings);
    if arguments.json {
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
            let took: Duration = made.timeline.iter().map(|timed| timed.took).sum();
            let lua = &made.lua.interpreter.version;
            format!(
                "vm `{name}` is ready at {address} with {lua}, after {}\n",
                shown::duration(took)
            )
        }
        _ => format!("vm `{name}` is started; `bioxen vm wait {name}` waits for its guest\n"),
    };
    output::print(line.as_bytes())
}
