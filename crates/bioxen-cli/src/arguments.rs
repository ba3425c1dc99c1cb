//! The command line: what every command shares, and the list of commands.

use clap::{ArgAction, Parser, ValueEnum};

use crate::commands::Command;

const AFTER_HELP: &str = "\
Examples:
  bioxen eval '(\"GATTACA\"):reverse()'
  bioxen run --allow-read genome.fasta --memory 512MiB gc.lua genome.fasta
  bioxen run --on 5.1,5.4,luajit gc.lua     the same code on several interpreters, compared
  bioxen demo                               several VMs at work on a real genome

Environment:
  BIOXEN_LOG      log filter, such as `debug` or `bioxen=trace`; goes to standard error
  BIOXEN_HOME     where history and other state are kept, instead of the XDG directories
  BIOXEN_XCPNG_…  defaults of VMs on pools, such as BIOXEN_XCPNG_POOL
  NO_COLOR        when set, nothing is coloured";

/// Runs Lua in isolated VMs, each with its own limits and grants, and records every run.
///
/// A VM may touch nothing outside itself unless a grant (`--allow-…`) says so, and may use no more
/// than its limits; both are on by default.
#[derive(Debug, Parser)]
#[command(name = "bioxen", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Log what happens to standard error; twice for more
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,

    /// When to use colour
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, global = true)]
    pub(crate) color: Color,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When messages are coloured.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Also into files and pipes
    Always,
    /// Not at all
    Never,
}

impl Color {
    /// Makes this hold for all that is printed from now on.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}
