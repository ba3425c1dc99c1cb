//! `bioxen sim stop`: ends the simulated pool with its guests, and takes its name away.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use super::place::{Place, Served, State};
use super::{SimulatorError, own};
use crate::failure::Failure;
use crate::report::Report;
use crate::{configuration, json, output};

/// How long the pool may take to end with its guests, before it is killed.
const GRACE: Duration = Duration::from_secs(30);
/// How long a killed process may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// End the simulated pool with its guests; its VMs are there again at the next start
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print what came of it as one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Clone, Copy, Serialize)]
struct Stopped {
    /// How it was found: `running`, `crashed` or `stopped`.
    before: &'static str,
}

/// Ends it. That there is none is no failure.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let place = Place::open()?;
    let stopped = match place.state()? {
        State::Running(served) => {
            end(&place, &served)?;
            Stopped { before: "running" }
        }
        State::Crashed(_) => Stopped { before: "crashed" },
        State::Stopped => Stopped { before: "stopped" },
    };
    place.forget()?;
    let mut configuration = configuration::read()?;
    if own(&configuration, &place).is_some() {
        configuration.remove_pool(super::NAME).map_err(Failure::Configuration)?;
    }
    let text = match stopped.before {
        "running" => "stopped the simulated pool\n",
        "crashed" => "the simulated pool had crashed; nothing of it runs\n",
        _ => "the simulated pool does not run\n",
    };
    output::print(&if arguments.json { json::render(&stopped) } else { text.into() })?;
    Ok(ExitCode::SUCCESS)
}

fn end(place: &Place, served: &Served) -> Result<(), SimulatorError> {
    let pid = served.pid;
    signal(pid, Signal::SIGTERM)?;
    if waited(place, GRACE)? {
        return Ok(());
    }
    let message =
        format!("the simulated pool did not end within {} s and was killed", GRACE.as_secs());
    Report::new(message).warning();
    signal(pid, Signal::SIGKILL)?;
    if waited(place, PATIENCE)? { Ok(()) } else { Err(SimulatorError::DoesNotEnd { pid }) }
}

/// Tells the process, which is there for as long as the lock is held.
fn signal(pid: i32, signal: Signal) -> Result<(), SimulatorError> {
    match kill(Pid::from_raw(pid), signal) {
        // It has ended just now.
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(SimulatorError::Signal { pid, source: error.into() }),
    }
}

/// Whether the pool's process ended in time.
fn waited(place: &Place, limit: Duration) -> Result<bool, SimulatorError> {
    let (sender, receiver) = mpsc::channel();
    let end = place.end();
    std::thread::spawn(move || {
        // Nobody waits any more when this takes too long.
        let _ = sender.send(end.wait());
    });
    match receiver.recv_timeout(limit) {
        Ok(waited) => waited.map(|()| true),
        Err(_) => Ok(false),
    }
}
