//! Measures `BioXen` beside other ways to run Lua, in one run on one machine.
//!
//! Whatever is compared takes turns: a little of the one, a little of the other, and again. What else
//! the machine does then falls on both, and their ratio is worth more than either figure. The results
//! go to standard output, progress to standard error.

mod alternatives;
mod command;
mod creation;
mod memory;
mod ours;
mod round_trip;
mod runaway;
mod speed;
mod throughput;

use std::process::ExitCode;

use anyhow::Result;
use bench_report::{Effort, Report};
use clap::{Parser, ValueEnum};

use crate::alternatives::Helper;

/// Measures VMs beside other ways to run Lua
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
    /// Be the other process of a comparison
    #[arg(long, hide = true)]
    helper: Option<Helper>,
}

/// What is measured together.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Family {
    /// One small evaluation, there and back
    Eval,
    /// VMs made, one by one and side by side
    Create,
    /// Evaluations a second, and broadcasts
    Throughput,
    /// What idle VMs cost
    Memory,
    /// 10,000 VMs at once (only when named: they take many of the machine's processes)
    Many,
    /// How fast Lua itself runs
    Speed,
    /// How soon code is ended that does not end
    Runaway,
    /// The command as a whole
    Command,
    /// A gigabyte of output
    Stream,
}

impl Options {
    fn wants(&self, family: Family) -> bool {
        match self.only.as_slice() {
            [] => family != Family::Many,
            named => named.contains(&family),
        }
    }
}

impl Family {
    fn measure(self, effort: Effort, report: &mut Report) -> Result<()> {
        match self {
            Self::Eval => round_trip::measure(effort, report),
            Self::Create => creation::measure(effort, report),
            Self::Throughput => throughput::measure(effort, report),
            Self::Memory => memory::measure(report),
            Self::Many => memory::measure_many(effort, report),
            Self::Speed => speed::measure(effort, report),
            Self::Runaway => runaway::measure(effort, report),
            Self::Command => command::measure(effort, report),
            Self::Stream => command::measure_stream(effort, report),
        }
    }
}

fn main() -> Result<ExitCode> {
    bioxen::init();
    let options = Options::parse();
    if let Some(helper) = options.helper {
        helper.run()?;
        return Ok(ExitCode::SUCCESS);
    }
    let effort = Effort { quick: options.quick };
    let mut report = Report::new();
    let mut outcome = ExitCode::SUCCESS;
    for family in Family::value_variants() {
        if !options.wants(*family) {
            continue;
        }
        let name = family.to_possible_value().map(|name| name.get_name().to_owned());
        let name = name.unwrap_or_default();
        eprintln!("measuring {name} …");
        if let Err(error) = family.measure(effort, &mut report) {
            // What was measured before it is worth showing.
            report.note(format!("{name} failed: {error:#}"));
            outcome = ExitCode::FAILURE;
        }
    }
    if options.json { report.print_json() } else { report.print_table() }?;
    Ok(outcome)
}
