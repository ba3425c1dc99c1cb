//! The simulated pool, as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench_report::system;
use clap::Parser as _;
use xenapi_sim::cli::{Arguments, run};

use crate::Helper;
use crate::client::this_program;

/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Is the pool, until it is told to end.
pub(crate) fn serve(words: &[String]) -> ExitCode {
    let name = "xenapi-sim".to_owned();
    run(Arguments::parse_from([&name].into_iter().chain(words)))
}

/// A running pool.
pub(crate) struct Simulator {
    child: Child,
    url: String,
}

impl Simulator {
    /// The password of the user `root`.
    pub(crate) const PASSWORD: &str = "compare";

    /// Starts a pool with these arguments of `xenapi-sim`, and waits until it listens.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = this_program(Helper::Simulator)?;
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        command.env("XENAPI_SIM_PASSWORD", Self::PASSWORD);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = child.stdout.take().context("standard output is piped")?;
        let mut simulator = Self { child, url: String::new() };
        let (sender, url) = sync_channel(1);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines();
            lines.next().and_then(Result::ok).map(|line| sender.send(line))
        });
        simulator.url = url.recv_timeout(PATIENCE).context("the simulated pool did not start")?;
        Ok(simulator)
    }

    /// Starts a pool of this many VMs that speaks plain HTTP, so that no cipher is measured.
    pub(crate) fn of(vms: u32) -> Result<Self> {
        Self::gathering(vms, "0s")
    }

    /// The same, gathering events for this time before it tells them.
    pub(crate) fn gathering(vms: u32, time: &str) -> Result<Self> {
        let vms = vms.to_string();
        Self::start(&["--http", "--seed", "1", "--event-batching", time, "--vms", &vms])
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The resident memory that it has now, in bytes.
    pub(crate) fn resident(&self) -> Result<f64> {
        system::resident_of(self.child.id()).context("the simulated pool is gone")
    }

    /// The most resident memory that it has had, in bytes.
    pub(crate) fn peak(&self) -> Result<f64> {
        system::peak_resident(self.child.id()).context("the simulated pool is gone")
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
