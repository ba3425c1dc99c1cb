//! `bioxen vm gc`: removes what was left behind on pools.

use std::process::ExitCode;
use std::sync::Arc;

use bioxen_state::Vm;
use bioxen_xcp::ConnectedPool;
use bioxen_xcp::leaks::{Fate, Kind, Leak, Reason};
use serde::Serialize;

use crate::failure::Failure;
use crate::leftovers::{self, Found, Outcome};
use crate::registry::{self, Registry};
use crate::report::Report;
use crate::signals::Signals;
use crate::table::{quantity, text};
use crate::{configuration, confirmation, json, output, runtime, shown, table};

/// Remove what was left behind on pools by commands that were killed, and what has expired
///
/// Only what carries the marks of this installation goes, or the name that this installation gives to
/// what it is making, where nobody is making it any more. What may be somebody else's is named, and left.
/// Fails when something of this installation could not be removed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only on this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Show what would be removed, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

/// One thing that was left behind.
#[derive(Clone, Serialize)]
pub(super) struct Row {
    pool: String,
    /// `vm`, `snapshot`, `disk`, `network`, or `record` for a VM that is only remembered.
    kind: &'static str,
    name: String,
    uuid: Option<String>,
    why: String,
    reason: Option<Reason>,
    /// How old it is at least, in seconds, where that can be told.
    age: Option<u64>,
    /// What it takes up of storage, in bytes.
    size: u64,
    /// What became of it; `null` where nothing was to.
    outcome: Option<String>,
    /// Whether there is nothing left to be done about it; `null` where nothing was to be.
    settled: Option<bool>,
}

/// The pools that were asked.
pub(super) struct Pools {
    pub(super) there: Vec<Arc<ConnectedPool>>,
    /// Whether none was left out because it was not reached.
    pub(super) all_asked: bool,
}

/// This pool, or all that are configured; of these, those that are not reached are told of and left out.
pub(super) async fn pools(registry: &Registry, name: Option<&str>) -> Result<Pools, Failure> {
    if let Some(name) = name {
        let there = vec![registry.connect(Some(name)).await?];
        return Ok(Pools { there, all_asked: true });
    }
    let configuration = configuration::read()?;
    let mut pools = Pools { there: Vec::new(), all_asked: true };
    for settings in configuration.pools() {
        let name = &settings.name;
        match registry.connect(Some(name.as_str())).await {
            Ok(pool) => pools.there.push(pool),
            Err(failure) => {
                let why = failure.in_one_line();
                Report::new(format!("pool `{name}` was not asked: {why}")).warning();
                pools.all_asked = false;
            }
        }
    }
    Ok(pools)
}

/// Logs out everywhere.
pub(super) async fn close(pools: &Pools) {
    for pool in &pools.there {
        registry::close(pool).await;
    }
}

/// Removes it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    runtime::block_on(async {
        let mut signals = Signals::listen()?;
        let pools = signals.or_stop(pools(&registry, arguments.pool.as_deref())).await?;
        let outcome = signals.or_stop(gc(arguments, &registry, &pools)).await;
        close(&pools).await;
        outcome
    })
}

async fn gc(
    arguments: &Arguments,
    registry: &Registry,
    pools: &Pools,
) -> Result<ExitCode, Failure> {
    let found: Result<Vec<_>, _> =
        pools.there.iter().map(|pool| leftovers::find(registry, pool)).collect();
    let found = found?;
    let before: Vec<Row> = found.iter().flat_map(rows).collect();
    let unknown = on_unknown_pools(registry, arguments.pool.as_deref())?;
    let rows = if arguments.dry_run {
        [before, unknown].concat()
    } else {
        let mut rows = Vec::new();
        if !before.is_empty() {
            let question = format!("{}Remove what can be removed of this?", table(&before));
            if !arguments.yes && confirmation::ask_beside(question).await? != Some(true) {
                return Err(Failure::NotConfirmed { what: "nothing was removed".into() });
            }
            rows = collect(registry, found).await?;
        }
        rows.extend(unknown.into_iter().map(left_unknown));
        rows
    };
    show(&rows, arguments.json)?;
    let all = pools.all_asked && rows.iter().all(|row| row.settled != Some(false));
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what was left behind.
pub(super) fn show(rows: &[Row], as_json: bool) -> Result<(), Failure> {
    let rendered = match rows {
        rows if as_json => json::render(&rows),
        [] => b"nothing was left behind\n".to_vec(),
        rows => table(rows).into_bytes(),
    };
    output::print(&rendered)
}

async fn collect(registry: &Registry, found: Vec<Found>) -> Result<Vec<Row>, Failure> {
    let controller = registry.controller()?;
    let mut rows = Vec::new();
    for found in found {
        let pool = Arc::clone(&found.pool);
        let outcomes = leftovers::collect(registry, &controller, found).await?;
        rows.extend(outcomes.iter().map(|outcome| row_after(&pool, outcome)));
    }
    Ok(rows)
}

/// What was found on one pool, before anything is done about it.
pub(super) fn rows(found: &Found) -> Vec<Row> {
    let leaks = found.leaks.iter().map(|leak| row_of(&found.pool, leak));
    let remembered = found.rows.iter().filter(|row| !leftovers::is_there(&found.pool, row));
    let pool = found.pool.name().as_str();
    let records = remembered.map(|row| record(pool, row.name().as_str()));
    leaks.chain(records).collect()
}

/// VMs that are remembered of pools which are in the configuration no more; none where one pool is asked for.
pub(super) fn on_unknown_pools(
    registry: &Registry,
    asked: Option<&str>,
) -> Result<Vec<Row>, Failure> {
    if asked.is_some() {
        return Ok(Vec::new());
    }
    let configuration = configuration::read()?;
    let mut vms = registry.state().vms().map_err(Failure::State)?;
    vms.retain(|vm| !registry::has_pool(&configuration, vm));
    let row = |vm: &Vm| Row {
        uuid: vm.uuid.clone(),
        why: "its pool is not in the configuration".to_owned(),
        ..record(vm.pool(), vm.name().as_str())
    };
    Ok(vms.iter().map(row).collect())
}

fn left_unknown(row: Row) -> Row {
    let outcome = format!("left: `bioxen vm forget {}` lets go of it", row.name);
    Row { outcome: Some(outcome), settled: Some(false), ..row }
}

fn row_of(pool: &ConnectedPool, leak: &Leak) -> Row {
    let kind = match leak.kind {
        Kind::Vm => "vm",
        Kind::Snapshot => "snapshot",
        Kind::Disk => "disk",
        Kind::Network => "network",
    };
    Row {
        pool: pool.name().to_string(),
        kind,
        name: leak.name.clone(),
        uuid: Some(leak.uuid.to_string()),
        why: leftovers::reason(leak),
        reason: Some(leak.reason.clone()),
        age: leak.age.and_then(|age| u64::try_from(age.as_secs()).ok()),
        size: leak.size,
        outcome: None,
        settled: None,
    }
}

fn record(pool: &str, name: &str) -> Row {
    Row {
        pool: pool.to_owned(),
        kind: "record",
        name: name.to_owned(),
        uuid: None,
        why: "nothing of it is on its pool".to_owned(),
        reason: None,
        age: None,
        size: 0,
        outcome: None,
        settled: None,
    }
}

fn row_after(pool: &ConnectedPool, outcome: &Outcome) -> Row {
    let (row, what) = match outcome {
        Outcome::Forgotten(name) => {
            (record(pool.name().as_str(), name.as_str()), "forgotten".to_owned())
        }
        Outcome::Held(leak) => (row_of(pool, leak), "left: somebody else sees to it".to_owned()),
        Outcome::Leak(outcome) => {
            let what = match &outcome.fate {
                Fate::Removed { .. } => "removed".to_owned(),
                Fate::Gone => "was gone".to_owned(),
                Fate::Changed => "left: it has changed meanwhile".to_owned(),
                Fate::Kept => kept(&outcome.leak).to_owned(),
                Fate::Failed(error) => {
                    Report::of(error, error.hint()).warning();
                    format!("failed: {error}")
                }
            };
            (row_of(pool, &outcome.leak), what)
        }
    };
    Row { outcome: Some(what), settled: Some(outcome.is_settled()), ..row }
}

fn kept(leak: &Leak) -> &'static str {
    match leak.kind {
        Kind::Network => "kept: `bioxen network delete` removes it",
        Kind::Vm | Kind::Snapshot | Kind::Disk => "kept: it may be somebody else's",
    }
}

/// As a table for a person.
fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        [
            row.pool.clone(),
            row.kind.to_owned(),
            shown::plain(&row.name),
            row.why.clone(),
            shown::or_dash(row.age, shown::age),
            shown::size(row.size),
            shown::or_dash(row.outcome.as_deref(), shown::plain),
        ]
    };
    let columns = [
        text("POOL"),
        text("WHAT"),
        text("NAME"),
        text("WHY"),
        quantity("AGE"),
        quantity("SIZE"),
        text("OUTCOME"),
    ];
    table::render(columns, rows.iter().map(cells).collect())
}
