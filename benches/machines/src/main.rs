//! Measures VMs on XCP-ng pools, made and entered by `bioxen`, beside other ways to do the same, in one run
//! on one machine.
//!
//! ```text
//!                    ┌──▶ this program as controller ──┐
//! commands by line ──┤                                 ├──▶ this program as simulated pool, with guests
//!                    └──▶ python3 peer.py ─────────────┘
//!                         ssh, scp, ansible-playbook
//! ```
//!
//! The controller, the pool and each peer is a process of its own, and all reach the same pool and the same
//! guests. They take turns, so that what else the machine does falls on all of them. The pool speaks plain HTTP
//! and has no delays but those that are said. The results go to standard output, progress to standard error.

mod answer;
mod bare;
mod controller;
mod copy;
mod crowd;
mod evaluate;
mod idle;
mod lab;
mod lives;
mod openssh;
mod peers;
mod proxy;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use bench_report::{Effort, Report};
use clap::{Parser, ValueEnum};

use crate::peers::Peers;

/// Measures VMs on XCP-ng pools beside other ways to make them and to run Lua in them
#[derive(Parser)]
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
    /// How many VMs live at once; without it 100, or 20 with --quick
    #[arg(long, value_name = "N")]
    machines: Option<u32>,
    /// The worker for guests; without it what `cargo xtask guest-worker` has built
    #[arg(long, value_name = "FILE", env = "BIOXEN_GUEST_WORKER")]
    worker: Option<PathBuf>,
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
    /// A controller of VMs
    Controller,
}

/// What is measured together.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Family {
    /// From a template to the first answer
    Answer,
    /// Many VMs made, used and deleted
    Lives,
    /// Evaluations in a VM
    Evaluate,
    /// Evaluations in many VMs at once
    Crowd,
    /// A large file copied into a VM
    Copy,
    /// The worker put into a VM
    Worker,
    /// What it costs to watch VMs
    Idle,
}

/// What all measurements need to know.
struct Setting {
    effort: Effort,
    machines: u32,
    worker: PathBuf,
    peers: Peers,
}

impl Helper {
    fn run(self, words: &[String]) -> Result<ExitCode> {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        match self {
            Self::Simulator => Ok(lab::serve(words)),
            Self::Controller => controller::serve(words),
        }
    }
}

impl Family {
    fn measure(self, setting: &Setting, report: &mut Report) -> Result<()> {
        match self {
            Self::Answer => answer::measure(setting, report),
            Self::Lives => lives::measure(setting, report),
            Self::Evaluate => evaluate::measure(setting, report),
            Self::Crowd => crowd::measure(setting, report),
            Self::Copy => copy::measure(setting, report),
            Self::Worker => worker::measure(setting, report),
            Self::Idle => idle::measure(setting, report),
        }
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(helper) = options.helper {
        return helper.run(&options.words);
    }
    let worker = match options.worker {
        Some(worker) => worker,
        None => built_worker()?,
    };
    let mut report = Report::new();
    let peers = Peers::install(&mut report)?;
    let effort = Effort { quick: options.quick };
    let machines = options.machines.unwrap_or(if options.quick { 20 } else { 100 });
    let setting = Setting { effort, machines, worker, peers };
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

/// Where `cargo xtask guest-worker` puts what it builds.
fn built_worker() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("this program lies in no directory")?;
    let worker = target.join("guest/bioxen-worker");
    ensure!(worker.exists(), "there is no worker for guests; build it: `cargo xtask guest-worker`");
    Ok(worker)
}
