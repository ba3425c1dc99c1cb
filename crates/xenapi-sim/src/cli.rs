//! The command `xenapi-sim`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::guest::ProcessOptions;
use crate::pool::{Pool, StartError};

/// A simulated XCP-ng pool that speaks the Xen API.
///
/// The first line on standard output is the pool's URL. Log in as `root`, with the password in
/// `XENAPI_SIM_PASSWORD` or the one printed on standard error.
#[derive(Debug, Parser)]
#[command(version, name = "xenapi-sim")]
pub struct Arguments {
    /// Where the master listens; further hosts listen on the addresses after it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Speak HTTP without TLS, on a loopback address.
    #[arg(long)]
    http: bool,
    /// How many hosts the pool has.
    #[arg(long, value_name = "N", default_value_t = 1)]
    hosts: usize,
    /// What runs in the VMs.
    #[arg(long, value_name = "KIND", default_value = "none")]
    guests: Guests,
    /// Let guests see this directory at the same path, to read and to write; may be repeated.
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
    /// How long after a boot a guest's address is known.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    boot_delay: Duration,
    /// How long a login with a wrong password takes.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    login_delay: Duration,
    /// How long `event.from` gathers changes before it answers.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = humantime::parse_duration)]
    event_batching: Duration,
    /// How many VMs there are from the start.
    #[arg(long, value_name = "N", default_value_t = 0)]
    vms: usize,
    /// Decides all uuids, references and hardware addresses.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Keep the pool's state in this directory, and go on from what is there.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The password of the user `root`.
    #[arg(skip)]
    password: Option<String>,
}

/// What runs in the VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Guests {
    /// Nothing: an address appears after the boot delay.
    None,
    /// Processes in a sandbox, behind an SSH server on a loopback address of each VM.
    Process,
}

impl Arguments {
    async fn start(self) -> Result<Pool, StartError> {
        let mut builder = Pool::builder()
            .listen(self.listen)
            .hosts(self.hosts)
            .boot_delay(self.boot_delay)
            .login_delay(self.login_delay)
            .event_batching(self.event_batching)
            .vms(self.vms);
        if self.http {
            builder = builder.http();
        }
        if let Some(seed) = self.seed {
            builder = builder.seed(seed);
        }
        if let Some(state) = self.state {
            builder = builder.state(state);
        }
        if let Some(password) = self.password {
            builder = builder.password(password);
        }
        match self.guests {
            Guests::None => builder.start().await,
            Guests::Process => {
                let options = ProcessOptions { shared: self.share, ..ProcessOptions::default() };
                builder.process_guests(options).start().await
            }
        }
    }
}

/// Runs a pool until it is told to end.
pub fn run(mut arguments: Arguments) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("XENAPI_SIM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    arguments.password = std::env::var("XENAPI_SIM_PASSWORD").ok().filter(|it| !it.is_empty());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, None),
    };
    runtime.block_on(async {
        let told = arguments.password.is_some();
        match arguments.start().await {
            Ok(pool) => serve(pool, told).await,
            Err(error) => {
                let hint = error.hint();
                fail(&error, Some(&hint))
            }
        }
    })
}

async fn serve(pool: Pool, password_known: bool) -> ExitCode {
    // Listened for before the URL is told: who reads it may end the pool at once.
    let told = match listen_for_end() {
        Ok(told) => told,
        Err(error) => return fail(&error, None),
    };
    if let Err(error) = announce(&pool, password_known) {
        return fail(&error, None);
    }
    match told.await {
        Ok(()) => {
            pool.stop().await;
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, None),
    }
}

fn announce(pool: &Pool, password_known: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for url in pool.urls() {
        writeln!(out, "{url}")?;
    }
    out.flush()?;
    let mut notes = io::stderr().lock();
    if !password_known {
        writeln!(notes, "user root, password {}", pool.password())?;
    }
    if pool.url().starts_with("https") {
        writeln!(notes, "certificate SHA-256 {}", pool.fingerprint())?;
    }
    Ok(())
}

/// What is ready once the process was told to end.
fn listen_for_end() -> io::Result<impl Future<Output = io::Result<()>>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    })
}

fn fail(error: &dyn std::error::Error, hint: Option<&str>) -> ExitCode {
    let mut notes = io::stderr().lock();
    let mut text = format!("error: {error}\n");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}  caused by: {cause}\n");
        source = cause.source();
    }
    if let Some(hint) = hint {
        text = format!("{text}  hint: {hint}\n");
    }
    // Nobody is left to be told when standard error is gone.
    let _ = notes.write_all(text.as_bytes());
    ExitCode::FAILURE
}
