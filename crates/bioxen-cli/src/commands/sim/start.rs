//! `bioxen sim start`: starts the simulated pool, and gives it its name.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bioxen_xcp::{DEFAULT_USER, Endpoint, PoolSettings, TrustSettings};
use serde::Serialize;

use super::place::{Place, Served, State};
use super::{Guests, SimulatorError, name, own};
use crate::failure::Failure;
use crate::{configuration, confirmation, json, output};

/// How long the pool may take until it listens.
const PATIENCE: Duration = Duration::from_mins(1);

/// Start the simulated pool, and name it `sim`
///
/// Goes on with the VMs and disks of the time before; those that ran then are booted again. Where it
/// runs already, it stays as it is.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The port to listen on, on this machine only; any that is free when left out
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// How many hosts a new pool has
    #[arg(long, value_name = "N", default_value_t = 1)]
    hosts: usize,
    /// What runs in the VMs
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Guests::Process)]
    guests: Guests,
    /// Begin with a new pool: remove the VMs and disks of the time before
    #[arg(long)]
    fresh: bool,
    /// Do not ask before removing them
    #[arg(long, requires = "fresh")]
    yes: bool,
    /// Print the pool as one JSON object
    #[arg(long)]
    json: bool,
}

/// The pool, for a program.
#[derive(Serialize)]
struct Started<'a> {
    name: &'static str,
    /// Whether it ran before.
    already: bool,
    #[serde(flatten)]
    served: &'a Served,
}

/// Starts it.
pub(super) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let place = Place::open()?;
    let mut configuration = configuration::read()?;
    if configuration.find_pool(super::NAME).is_some() && own(&configuration, &place).is_none() {
        return Err(SimulatorError::NameTaken.into());
    }
    let (served, already) = match place.state()? {
        State::Running(_) if arguments.fresh => return Err(SimulatorError::Runs.into()),
        State::Running(served) => (served, true),
        State::Crashed(_) | State::Stopped => (arguments.start(&place)?, false),
    };
    let mut pool = settings(&place, &served)?;
    if let Some(there) = own(&configuration, &place) {
        // What its user has declared of its guests stays.
        pool.guests = there.guests.clone();
    }
    if own(&configuration, &place) != Some(&pool) {
        if own(&configuration, &place).is_some() {
            configuration.remove_pool(super::NAME).map_err(Failure::Configuration)?;
        }
        configuration.add_pool(&pool).map_err(Failure::Configuration)?;
    }
    let started = Started { name: super::NAME, already, served: &served };
    let rendered = if arguments.json { json::render(&started) } else { started.text() };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

impl Started<'_> {
    fn text(&self) -> Vec<u8> {
        let (how, url) = (if self.already { "runs already" } else { "started" }, self.url());
        format!("simulated pool `{}` {how}: {url}\n", self.name).into_bytes()
    }

    fn url(&self) -> &str {
        self.served.urls.first().map(String::as_str).unwrap_or_default()
    }
}

/// The pool as the configuration has it.
pub(super) fn settings(place: &Place, served: &Served) -> Result<PoolSettings, SimulatorError> {
    let malformed = |reason: String| SimulatorError::Malformed { path: place.told(), reason };
    let address = |url: &String| url.parse::<Endpoint>().map_err(|it| malformed(it.to_string()));
    let fingerprint = served.fingerprint.parse();
    let fingerprint = fingerprint.map_err(|_| malformed("its fingerprint is none".into()))?;
    Ok(PoolSettings {
        name: name(),
        addresses: served.urls.iter().map(address).collect::<Result<_, _>>()?,
        user: DEFAULT_USER.to_owned(),
        password: place.password_reference(),
        trust: TrustSettings::Fingerprint(fingerprint),
        guests: bioxen_xcp::GuestSettings::default(),
    })
}

impl Arguments {
    fn start(&self, place: &Place) -> Result<Served, SimulatorError> {
        place.forget()?;
        if self.fresh && place.pool().exists() {
            self.confirm()?;
            place.remove_pool()?;
        }
        place.make_password()?;
        let child = self.spawn(place)?;
        wait_until_ready(child, place)?;
        match place.state()? {
            State::Running(served) => Ok(served),
            State::Crashed(_) | State::Stopped => Err(ended(place)),
        }
    }

    fn confirm(&self) -> Result<(), SimulatorError> {
        let question = "Remove all VMs and disks of the simulated pool?";
        // A terminal that cannot be asked on is one where nobody agreed.
        if self.yes || matches!(confirmation::ask(question), Ok(Some(true))) {
            return Ok(());
        }
        Err(SimulatorError::NotConfirmed)
    }

    fn spawn(&self, place: &Place) -> Result<Child, SimulatorError> {
        let log = File::create(place.log()).map_err(SimulatorError::Spawn)?;
        let program = std::env::current_exe().map_err(SimulatorError::Spawn)?;
        let mut command = Command::new(program);
        command.args(["sim", "serve"]).arg(place.directory());
        command.arg(self.port.to_string()).arg(self.hosts.to_string()).arg(self.guests.name());
        // It must not keep a directory busy that somebody wants to remove.
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.spawn().map_err(SimulatorError::Spawn)
    }
}

/// Waits for the line that tells that the pool listens.
fn wait_until_ready(mut child: Child, place: &Place) -> Result<(), SimulatorError> {
    let stdout = child.stdout.take().expect("it was asked for a pipe");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // That nothing could be read is the same as that nothing was said. Nobody may be left to hear.
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(line) if line.trim() == "ready" => Ok(()),
        Ok(_) => {
            // It has ended, or is about to.
            child.wait().map_err(SimulatorError::Spawn)?;
            Err(ended(place))
        }
        Err(_) => {
            child.kill().and_then(|()| child.wait()).map_err(SimulatorError::Spawn)?;
            Err(SimulatorError::NotReady { log: place.log(), limit: PATIENCE })
        }
    }
}

/// That it ended, with its own words.
fn ended(place: &Place) -> SimulatorError {
    let log = std::fs::read_to_string(place.log()).unwrap_or_default();
    let lines = log.lines().map(str::trim).map(|line| {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        line.strip_prefix("caused by: ").unwrap_or(line)
    });
    let words: Vec<&str> = lines.filter(|line| !line.starts_with("hint: ")).collect();
    SimulatorError::Ended { log: place.log(), complaint: words.join(": ") }
}
