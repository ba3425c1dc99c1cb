//! `bioxen network list`: the networks of a pool, and which of them are ours.

use std::process::ExitCode;

use bioxen_xcp::networks::{self, Listed};

use super::with_pool;
use crate::failure::Failure;
use crate::table::{quantity, text};
use crate::{json, output, shown, table};

/// List the networks of a pool, and which of them were made here
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pool; may be left out where there is one only
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let rows = with_pool(arguments.pool.as_deref(), async |pool| {
        networks::list(pool).await.map_err(|error| Failure::Pool(pool.failure(error)))
    })?;
    let rendered = if arguments.json {
        json::render(&rows)
    } else {
        let columns = [
            text("NETWORK"),
            text("REACH"),
            quantity("VLAN"),
            quantity("NICS"),
            text("OURS"),
            text("UUID"),
        ];
        table::render(columns, rows.iter().map(cells).collect()).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &Listed) -> [String; 6] {
    let network = &row.network;
    [
        shown::plain(&network.name),
        if network.external { "external" } else { "internal" }.into(),
        shown::or_dash(network.vlan, |vlan| vlan.to_string()),
        network.interfaces.to_string(),
        if row.ours { "yes" } else { "no" }.into(),
        network.uuid.clone(),
    ]
}
