//! Measures the client `xenapi` and the simulated pool `xenapi-sim` beside the clients that others
//! wrote, in one run on one machine.
//!
//! ```text
//!                    ┌──▶ this program as client ──┐
//! commands by line ──┼──▶ python3 peer.py ─────────┼──▶ this program as simulated pool
//!                    └──▶ node peer.mjs ───────────┘
//! ```
//!
//! Each client and the pool is a process of its own. The clients take turns, so that what else the
//! machine does falls on all of them. The results go to standard output, progress to standard error.

mod calls;
mod changes;
mod client;
mod import;
mod mirror;
mod ours;
mod peers;
#[path = "../../../crates/xenapi/benches/plain/mod.rs"]
mod plain;
mod proxy;
mod raw;
mod records;
mod serving;
mod simulator;

use std::process::ExitCode;

use anyhow::Result;
use bench_report::{Effort, Report};
use clap::{Parser, ValueEnum};

use crate::peers::Peers;

const AFTER: &str = "\
How long a clean build of the client takes is measured from the shell:

    CARGO_TARGET_DIR=$(mktemp -d) cargo build --timings -p xenapi
    CARGO_TARGET_DIR=$(mktemp -d) cargo build --timings -p xenapi --features full";

/// Measures the client of the Xen API and the simulated pool beside other clients
#[derive(Parser)]
#[command(after_help = AFTER)]
struct Options {
    /// Take fewer samples: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Measure only this (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<Family>,
    /// Print one JSON object in place of the table
    #[arg(long)]
    json: bool,
    /// How many VMs the pool has
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    vms: u32,
    /// Be the other process of a comparison
    #[arg(long, hide = true)]
    helper: Option<Helper>,
    /// What the other process is told
    #[arg(hide = true, last = true)]
    words: Vec<String>,
}

/// What this program can be in place of measuring.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Helper {
    /// The simulated pool
    Simulator,
    /// Our client, on a runtime of several threads
    Client,
    /// Our client, on a runtime of one thread
    SmallClient,
}

/// What is measured together.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Family {
    /// All records of all VMs at once
    Records,
    /// Many small calls
    Calls,
    /// From a change in the pool to the watcher
    Changes,
    /// An always current copy of the pool
    Mirror,
    /// A disk that is brought in
    Import,
    /// The simulated pool by itself
    Simulator,
}

/// What all measurements need to know.
struct Setting {
    effort: Effort,
    vms: u32,
    peers: Peers,
}

impl Helper {
    fn run(self, words: &[String]) -> Result<ExitCode> {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        match self {
            Self::Simulator => Ok(simulator::serve(words)),
            Self::Client => ours::serve(tokio::runtime::Builder::new_multi_thread(), words),
            Self::SmallClient => ours::serve(tokio::runtime::Builder::new_current_thread(), words),
        }
    }
}

impl Family {
    fn measure(self, setting: &Setting, report: &mut Report) -> Result<()> {
        match self {
            Self::Records => records::measure(setting, report),
            Self::Calls => calls::measure(setting, report),
            Self::Changes => changes::measure(setting, report),
            Self::Mirror => mirror::measure(setting, report),
            Self::Import => import::measure(setting, report),
            Self::Simulator => serving::measure(setting, report),
        }
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(helper) = options.helper {
        return helper.run(&options.words);
    }
    let mut report = Report::new();
    let peers = Peers::install(&mut report)?;
    let setting = Setting { effort: Effort { quick: options.quick }, vms: options.vms, peers };
    let mut outcome = ExitCode::SUCCESS;
    for family in Family::value_variants() {
        if !options.only.is_empty() && !options.only.contains(family) {
            continue;
        }
        let name = family.to_possible_value().map(|name| name.get_name().to_owned());
        let name = name.unwrap_or_default();
        eprintln!("measuring {name} …");
        if let Err(error) = family.measure(&setting, &mut report) {
            // What was measured before it is worth showing.
            report.note(format!("{name} failed: {error:#}"));
            outcome = ExitCode::FAILURE;
        }
    }
    if options.json { report.print_json() } else { report.print_table() }?;
    Ok(outcome)
}
