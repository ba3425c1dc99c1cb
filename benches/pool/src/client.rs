//! A client in a process of its own, ours or another's, that is told what to do line by line.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench_report::{Conversation, Samples};
use clap::ValueEnum as _;
use serde::Deserialize;

use crate::simulator::Simulator;
use crate::{Helper, Setting};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// Whose client it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Ours, on a runtime of several threads.
    Ours,
    /// Ours, on a runtime of one thread.
    OursSmall,
    /// `XenAPI` from `PyPI`.
    Python,
    /// `xen-api` from npm.
    Npm,
}

impl Kind {
    /// What a row calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "xenapi, several threads",
            Self::OursSmall => "xenapi, one thread",
            Self::Python => "XenAPI (PyPI)",
            Self::Npm => "xen-api (npm)",
        }
    }

    fn command(self, setting: &Setting) -> Result<Option<Command>> {
        let helper = match self {
            Self::Ours => Helper::Client,
            Self::OursSmall => Helper::SmallClient,
            Self::Python => return Ok(setting.peers.python()),
            Self::Npm => return Ok(setting.peers.npm()),
        };
        this_program(helper).map(Some)
    }
}

/// This program as another process of the comparison.
pub(crate) fn this_program(helper: Helper) -> Result<Command> {
    let value = helper.to_possible_value().context("every helper has a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--helper", value.get_name(), "--"]);
    Ok(command)
}

/// A running client that has logged in.
pub(crate) struct Client(Conversation);

/// What a client says of a command.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    seconds: Vec<f64>,
    /// How many things it was about.
    count: u32,
}

impl Answer {
    /// How long each part took.
    pub(crate) fn seconds(&self) -> Samples {
        self.seconds.iter().copied().collect()
    }

    /// How many things there were a second.
    pub(crate) fn rates(&self) -> Samples {
        self.seconds().rate_of(f64::from(self.count))
    }
}

impl Client {
    /// Starts a client of the pool at this URL; `None` where it is not installed.
    pub(crate) fn start(kind: Kind, setting: &Setting, url: &str) -> Result<Option<Self>> {
        let Some(mut command) = kind.command(setting)? else { return Ok(None) };
        command.args([url, Simulator::PASSWORD]);
        Ok(Some(Self(Conversation::start(kind.name(), command, PATIENCE)?)))
    }

    /// Starts those of these clients that are installed.
    pub(crate) fn start_all(
        kinds: &[Kind],
        setting: &Setting,
        url: &str,
    ) -> Result<Vec<(Kind, Self)>> {
        let started = kinds.iter().map(|kind| Ok((*kind, Self::start(*kind, setting, url)?)));
        let started: Result<Vec<_>> = started.collect();
        Ok(started?.into_iter().filter_map(|(kind, client)| Some((kind, client?))).collect())
    }

    /// Lets it carry out a command.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Answer> {
        let answer = self.0.ask(command)?;
        serde_json::from_value(answer).with_context(|| format!("`{command}`"))
    }

    /// The resident memory that it has now, in bytes.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.0.resident()
    }

    /// The most resident memory that it has had, in bytes.
    pub(crate) fn peak(&self) -> Result<f64> {
        self.0.peak()
    }
}
