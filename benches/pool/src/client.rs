//! A client in a process of its own, ours or another's, that is told what to do line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bench_report::{Samples, system};
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
pub(crate) struct Client {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// What a client says of a command.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    seconds: Vec<f64>,
    /// How many things it was about.
    count: u32,
    error: Option<String>,
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
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("standard output is piped")?;
        // A client speaks only when spoken to, so one place is enough.
        let (sender, answers) = sync_channel(1);
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.into_iter().try_for_each(|line| sender.send(line))
        });
        let commands = child.stdin.take();
        let client = Self { child, commands, answers };
        client.answer().with_context(|| format!("{} did not start", kind.name()))?;
        Ok(Some(client))
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
        let input = self.commands.as_mut().context("it was told to end")?;
        writeln!(input, "{command}").and_then(|()| input.flush())?;
        self.answer().with_context(|| format!("`{command}`"))
    }

    fn answer(&self) -> Result<Answer> {
        let line = self.answers.recv_timeout(PATIENCE).context("no answer came")?;
        let answer: Answer = serde_json::from_str(&line).with_context(|| line.clone())?;
        match &answer.error {
            Some(error) => bail!("{error}"),
            None => Ok(answer),
        }
    }

    /// The resident memory that it has now, in bytes.
    pub(crate) fn resident(&self) -> Result<f64> {
        system::resident_of(self.child.id()).context("the client is gone")
    }

    /// The most resident memory that it has had, in bytes.
    pub(crate) fn peak(&self) -> Result<f64> {
        system::peak_resident(self.child.id()).context("the client is gone")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Ends its loop; what does not end by itself holds nothing that is worth waiting for.
        self.commands = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
