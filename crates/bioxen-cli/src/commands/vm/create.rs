//! `bioxen vm create`: a machine from a template, with Lua in it.

use std::process::ExitCode;

use bioxen::{VmName, VmSpec, VmType};
use bioxen_xcp::ConnectedPool;
use bioxen_xcp::plan::{Plan, PoolView, Step};
use serde::Serialize;

use super::making::{Making, Origin};
use crate::failure::Failure;
use crate::machine_options::{PlaceOptions, SizeOptions};
use crate::registry::{self, Registry};
use crate::table::{self, quantity, text};
use crate::{json, output, runtime, shown};

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

    #[command(flatten)]
    making: Making,

    /// Show what would be done and what it would take, and do nothing
    #[arg(long)]
    dry_run: bool,
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
            plan(arguments, &spec, &registry, &pool)
        } else {
            arguments.making.carry_out(&spec, Origin::Template, &registry, &pool).await
        };
        registry::close(&pool).await;
        outcome
    })
}

fn plan(
    arguments: &Arguments,
    spec: &VmSpec,
    registry: &Registry,
    pool: &ConnectedPool,
) -> Result<ExitCode, Failure> {
    let plan = Plan::new(spec, &PoolView::of_pool(pool))
        .map_err(|error| Failure::Plan(Box::new(error)))?;
    let plan = registry.with_addresses(plan)?;
    let steps = plan.steps();
    let rendered = if arguments.making.json {
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
