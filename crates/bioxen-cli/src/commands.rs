//! The commands, one file each: its arguments and its action.

mod completions;
mod config;
mod demo;
mod doctor;
mod eval;
mod man;
mod network;
mod pool;
mod repl;
mod run;
#[cfg(target_os = "linux")]
mod sim;
mod vm;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;

#[cfg(target_os = "linux")]
pub(crate) use sim::SimulatorError;

/// The name that the simulated pool has in the configuration.
pub(crate) const SIMULATED_POOL: &str = "sim";

/// Everything that `bioxen` can be asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::Arguments),
    Eval(eval::Arguments),
    Repl(repl::Arguments),
    Demo(demo::Arguments),
    Vm(vm::Arguments),
    Network(network::Arguments),
    Pool(pool::Arguments),
    Config(config::Arguments),
    #[cfg(target_os = "linux")]
    Sim(sim::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Does what the command line says.
pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(arguments) => run::execute(arguments),
        Command::Eval(arguments) => eval::execute(arguments),
        Command::Repl(arguments) => repl::execute(&arguments),
        Command::Demo(arguments) => demo::execute(&arguments),
        Command::Vm(arguments) => vm::execute(arguments),
        Command::Network(arguments) => network::execute(&arguments),
        Command::Pool(arguments) => pool::execute(&arguments),
        Command::Config(arguments) => config::execute(&arguments),
        #[cfg(target_os = "linux")]
        Command::Sim(arguments) => sim::execute(&arguments),
        Command::Doctor(arguments) => doctor::execute(&arguments),
        Command::Completions(arguments) => completions::execute(&arguments),
        Command::Man(arguments) => man::execute(&arguments),
    }
}
