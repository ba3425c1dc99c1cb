//! `bioxen sim serve`: the process that is the simulated pool. `bioxen sim start` starts it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use xenapi_sim::guest::ProcessOptions;
use xenapi_sim::{Pool, StartError};

use super::place::{Held, Served};
use super::{Guests, SimulatorError};
use crate::failure::Failure;
use crate::output;
use crate::signals::Signals;

/// Be the simulated pool until told to end; not for use by hand
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where it is kept
    directory: PathBuf,
    /// The port to listen on
    port: u16,
    /// How many hosts a new pool has
    hosts: usize,
    /// What runs in the VMs
    guests: Guests,
}

/// Serves it.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    // The terminal that it was started from may go.
    nix::unistd::setsid().map_err(|error| Failure::Runtime(error.into()))?;
    let held = Held::take(&arguments.directory)?;
    let password = held.password()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Failure::Runtime)?.block_on(async {
        let mut signals = Signals::listen()?;
        let pool = start(arguments, &held, password).await.map_err(SimulatorError::Pool)?;
        let fingerprint = pool.fingerprint().to_owned();
        held.tell(&Served::new(pool.urls(), fingerprint, arguments.guests))?;
        output::print(b"ready\n")?;
        signals.next().await;
        pool.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn start(arguments: &Arguments, held: &Held, password: String) -> Result<Pool, StartError> {
    let builder = Pool::builder()
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port)))
        .hosts(arguments.hosts)
        .password(password)
        .state(held.pool());
    match arguments.guests {
        Guests::Process => builder.process_guests(ProcessOptions::default()).start().await,
        Guests::None => builder.start().await,
    }
}
