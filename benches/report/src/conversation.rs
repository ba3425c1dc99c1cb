//! A process of a comparison that is told what to do line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{Samples, system};

/// A running process that reads one command a line, and answers each with one line of JSON.
///
/// An answer with an `error` is a failure. It is killed when this is dropped.
#[derive(Debug)]
pub struct Conversation {
    name: String,
    child: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
    patience: Duration,
}

impl Conversation {
    /// Starts the process and waits until it says that it is ready. Each answer may take so long.
    pub fn start(name: &str, mut command: Command, patience: Duration) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("standard output is piped")?;
        // It speaks only when spoken to, so one place is enough.
        let (sender, answers) = sync_channel(1);
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.into_iter().try_for_each(|line| sender.send(line))
        });
        let commands = child.stdin.take();
        let started = Self { name: name.to_owned(), child, commands, answers, patience };
        started.answer().with_context(|| format!("{name} did not start"))?;
        Ok(started)
    }

    /// Lets it carry out a command.
    pub fn ask(&mut self, command: &str) -> Result<Value> {
        let input = self.commands.as_mut().context("it was told to end")?;
        writeln!(input, "{command}").and_then(|()| input.flush())?;
        self.answer().with_context(|| format!("{}: `{command}`", self.name))
    }

    /// Lets it carry out a command, and returns the `seconds` that it answers.
    pub fn time(&mut self, command: &str) -> Result<Samples> {
        seconds(&self.ask(command)?)
    }

    fn answer(&self) -> Result<Value> {
        let line = self.answers.recv_timeout(self.patience).context("no answer came")?;
        let answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        match answer["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => Ok(answer),
        }
    }

    /// The resident memory that it has now, in bytes.
    pub fn resident(&self) -> Result<f64> {
        system::resident_of(self.child.id()).context("the process is gone")
    }

    /// The most resident memory that it has had, in bytes.
    pub fn peak(&self) -> Result<f64> {
        system::peak_resident(self.child.id()).context("the process is gone")
    }
}

/// The `seconds` of an answer.
pub fn seconds(answer: &Value) -> Result<Samples> {
    let seconds = answer["seconds"].as_array().context("the answer tells no seconds")?;
    seconds.iter().map(|time| time.as_f64().context("seconds are numbers")).collect()
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // Ends its loop; what does not end by itself holds nothing that is worth waiting for.
        self.commands = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
