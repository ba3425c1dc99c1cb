//! What the commands that list something of a pool have in common.

use std::process::ExitCode;

use bioxen_xcp::PoolSettings;
use serde::Serialize;

use crate::failure::Failure;
use crate::table::{self, Column};
use crate::{configuration, json, output, runtime, shown};

/// Which pool, and in what form.
#[derive(Debug, clap::Args)]
pub(super) struct Listing {
    /// The pool's name; may be left out where there is one only
    name: Option<String>,
    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

impl Listing {
    /// Connects to the pool, asks it for rows, and prints them.
    pub(super) fn print<Row: Serialize, const N: usize>(
        &self,
        ask: impl AsyncFnOnce(&xenapi::Client) -> Result<Vec<Row>, xenapi::Error>,
        columns: [Column; N],
        cells: impl Fn(&Row) -> [String; N],
    ) -> Result<ExitCode, Failure> {
        let pool = configuration::pool(self.name.as_deref())?;
        let rows = runtime::block_on(async { ask_pool(&pool, ask).await })?;
        let rendered = if self.json {
            json::render(&rows)
        } else {
            let plain = |row: &Row| cells(row).map(|cell| shown::plain(&cell));
            table::render(columns, rows.iter().map(plain).collect()).into_bytes()
        };
        output::print(&rendered)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks a pool something in a session of its own.
pub(in crate::commands) async fn ask_pool<T>(
    pool: &PoolSettings,
    ask: impl AsyncFnOnce(&xenapi::Client) -> Result<T, xenapi::Error>,
) -> Result<T, Failure> {
    let client = pool.connect().await.map_err(Failure::Pool)?;
    let answer = ask(&client).await;
    // The answer is worth more than a session that was closed in an orderly way.
    if let Err(error) = client.close().await {
        tracing::debug!(%error, "could not log out");
    }
    answer.map_err(|error| Failure::Pool(pool.failure(error)))
}
