//! `bioxen vm leaks`: what was left behind on pools.

use std::process::ExitCode;

use super::gc::{self, Row};
use crate::failure::Failure;
use crate::registry::Registry;
use crate::{leftovers, runtime};

/// List what was left behind on pools by commands that were killed, and what has expired
///
/// Changes nothing; `bioxen vm gc` removes it. Networks that were made here and are not used are listed
/// too, and are left to `bioxen network delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only those on this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    let (rows, all_asked) = runtime::block_on(async {
        let pools = gc::pools(&registry, arguments.pool.as_deref()).await?;
        let found: Result<Vec<_>, _> =
            pools.there.iter().map(|pool| leftovers::find(&registry, pool)).collect();
        gc::close(&pools).await;
        let mut rows: Vec<Row> = found?.iter().flat_map(gc::rows).collect();
        rows.extend(gc::on_unknown_pools(&registry, arguments.pool.as_deref())?);
        Ok((rows, pools.all_asked))
    })?;
    gc::show(&rows, arguments.json)?;
    Ok(if all_asked { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
