//! Programs that run in a guest: started, fed, heard, and ended.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::watch;

use super::connection::within;
use super::group::{self, Announcement, Group};
use super::{Command, Connection, SshError};

/// Data on this stream of a channel is standard error.
pub(super) const STDERR: u32 = 1;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(u32),
    /// By a signal, named without `SIG`.
    Signal(String),
    /// Nobody said how.
    Unknown,
}

impl Exit {
    /// Whether it ended by itself, with code 0.
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
            Self::Unknown => f.write_str("no word of how"),
        }
    }
}

/// A signal that can be sent over SSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// Asks to stop what it does, like Ctrl-C.
    Interrupt,
    /// Asks to end.
    Terminate,
    /// Ends at once.
    Kill,
}

impl Signal {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Kill => "KILL",
        }
    }

    fn to_wire(self) -> Sig {
        match self {
            Self::Interrupt => Sig::INT,
            Self::Terminate => Sig::TERM,
            Self::Kill => Sig::KILL,
        }
    }
}

/// Something that happened to a running program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It wrote to standard output.
    Stdout(Bytes),
    /// It wrote to standard error.
    Stderr(Bytes),
    /// It has ended; nothing follows.
    Ended(Exit),
}

/// What a program wrote, up to a limit, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Whether either was longer than the limit.
    pub cut: bool,
    /// How it ended.
    pub exit: Exit,
}

/// A running program. Dropping it ends the program and what it started.
pub struct Execution {
    /// `None` once it was taken apart; then there is nothing to end any more.
    reader: Option<ChannelReadHalf>,
    writer: Arc<ChannelWriteHalf<Msg>>,
    connection: Connection,
    announcement: Announcement,
    /// What was heard while the announcement was awaited.
    early: VecDeque<Happening>,
    /// How it ended, once that was said; the channel may still hold output.
    exit: Option<Exit>,
    over: watch::Sender<bool>,
}

/// A running program, taken apart.
pub(super) struct Parts {
    pub(super) reader: ChannelReadHalf,
    pub(super) writer: Arc<ChannelWriteHalf<Msg>>,
    pub(super) group: Option<Group>,
    pub(super) early: VecDeque<Happening>,
    pub(super) exit: Option<Exit>,
}

/// The standard input of a program.
pub struct Input {
    writer: Arc<ChannelWriteHalf<Msg>>,
    connection: Connection,
    over: watch::Receiver<bool>,
}

impl Connection {
    /// Starts a program. Read its output: once much has piled up, all of the connection waits.
    pub async fn start(&self, command: &Command) -> Result<Execution, SshError> {
        let mut execution = self.start_as_is(&group::announcing(command)).await?;
        execution.announcement = Announcement::default();
        // From here on it can be ended, whatever the server thinks of signals.
        let announced = self.wait("a program to start", execution.announced()).await;
        announced.map(|()| execution)
    }

    /// Starts a program that does not announce its group.
    pub(super) async fn start_as_is(&self, command: &Command) -> Result<Execution, SshError> {
        let text = command
            .to_shell()
            .map_err(|reason| SshError::Command { program: command.name(), reason })?;
        let channel = self.channel().await?;
        self.wait("a program to start", channel.exec(true, text))
            .await?
            .map_err(|error| self.failure(error, "a program"))?;
        let (reader, writer) = channel.split();
        let writer = Arc::new(writer);
        let over = watch::Sender::new(false);
        let connection = self.clone();
        let announcement = Announcement::none();
        let mut execution = Execution {
            reader: Some(reader),
            writer,
            connection,
            announcement,
            early: VecDeque::new(),
            exit: None,
            over,
        };
        execution.confirm(&command.name()).await?;
        Ok(execution)
    }

    /// Runs a program with this standard input to its end, and keeps up to `limit` bytes of each of
    /// its outputs. When `deadline` passes first, it is ended.
    pub async fn run(
        &self,
        command: &Command,
        input: impl Into<Bytes>,
        limit: usize,
        deadline: Duration,
    ) -> Result<Output, SshError> {
        let what = format!("`{}` to end", command.name());
        let input = input.into();
        let running = async {
            let mut execution = self.start(command).await?;
            let stdin = execution.input();
            let feeding = async {
                // It may end without reading all of it; how it ended says more.
                let _ = stdin.write(input).await;
                let _ = stdin.finish().await;
            };
            let (output, ()) = tokio::join!(execution.collect(limit), feeding);
            output
        };
        within(deadline, self.address(), &what, Box::pin(running)).await?
    }
}

impl Execution {
    /// Waits for the guest's word that the program was started.
    async fn confirm(&mut self, program: &str) -> Result<(), SshError> {
        let connection = self.connection.clone();
        let hearing = async {
            loop {
                match self.message().await {
                    Some(ChannelMsg::Success) => return Ok(()),
                    Some(ChannelMsg::Failure) => {
                        let (address, what) =
                            (connection.address().to_owned(), format!("to start `{program}`"));
                        let reason = "it gives no reason".into();
                        return Err(SshError::Refused { address, what, reason });
                    }
                    // Room for what we send, which may be said at any time.
                    Some(ChannelMsg::WindowAdjusted { .. }) => {}
                    Some(_) | None => return Err(connection.lost()),
                }
            }
        };
        connection.wait("a program to start", hearing).await?
    }

    /// Waits until the program has said which group it leads, or has ended.
    async fn announced(&mut self) {
        while !self.announcement.is_settled() {
            match self.message().await {
                Some(ChannelMsg::Data { data }) => self.early.push_back(Happening::Stdout(data)),
                Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                    let own = self.announcement.hear(&data);
                    if !own.is_empty() {
                        self.early.push_back(Happening::Stderr(own.into()));
                    }
                }
                Some(ChannelMsg::Close) => {
                    self.exit.get_or_insert(Exit::Unknown);
                    break;
                }
                None => break,
                Some(other) => self.exit = read_exit(&other).or(self.exit.take()),
            }
        }
        let rest = self.announcement.rest();
        if !rest.is_empty() {
            self.early.push_back(Happening::Stderr(rest.into()));
        }
    }

    /// Its standard input. The program waits for more until [`Input::finish`] is called.
    pub fn input(&self) -> Input {
        Input {
            writer: Arc::clone(&self.writer),
            connection: self.connection.clone(),
            over: self.over.subscribe(),
        }
    }

    async fn message(&mut self) -> Option<ChannelMsg> {
        self.reader.as_mut()?.wait().await
    }

    /// Waits for what happens next. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Happening, SshError> {
        if let Some(heard) = self.early.pop_front() {
            return Ok(heard);
        }
        loop {
            match self.message().await {
                Some(ChannelMsg::Data { data }) => return Ok(Happening::Stdout(data)),
                Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                    return Ok(Happening::Stderr(data));
                }
                Some(ChannelMsg::Close) => return Ok(self.ended()),
                None if self.exit.is_some() => return Ok(self.ended()),
                None => {
                    self.over.send_replace(true);
                    return Err(self.connection.lost());
                }
                Some(other) => self.exit = read_exit(&other).or(self.exit.take()),
            }
        }
    }

    fn ended(&mut self) -> Happening {
        self.over.send_replace(true);
        Happening::Ended(self.exit.get_or_insert(Exit::Unknown).clone())
    }

    /// Waits for its end and keeps up to `limit` bytes of each of its outputs.
    pub async fn collect(&mut self, limit: usize) -> Result<Output, SshError> {
        let (mut stdout, mut stderr, mut cut) = (Vec::new(), Vec::new(), false);
        let mut keep = |kept: &mut Vec<u8>, data: &[u8]| {
            let room = limit - kept.len();
            cut |= data.len() > room;
            kept.extend_from_slice(&data[..data.len().min(room)]);
        };
        let exit = loop {
            match self.next().await? {
                Happening::Stdout(data) => keep(&mut stdout, &data),
                Happening::Stderr(data) => keep(&mut stderr, &data),
                Happening::Ended(exit) => break exit,
            }
        };
        Ok(Output { stdout, stderr, cut, exit })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Its channel and what was heard of it, for someone who will see to its end.
    pub(super) fn into_parts(mut self) -> Option<Parts> {
        let (reader, writer) = (self.reader.take()?, Arc::clone(&self.writer));
        let (group, exit) = (self.group(), self.exit.take());
        let early = std::mem::take(&mut self.early);
        Some(Parts { reader, writer, group, early, exit })
    }

    /// The process group that it leads in the guest, once that was heard.
    pub fn group(&self) -> Option<Group> {
        self.announcement.group()
    }

    /// Sends a signal to the program and what it started.
    pub async fn signal(&self, signal: Signal) -> Result<(), SshError> {
        let connection = &self.connection;
        if let Some(group) = self.group() {
            return connection.signal_group(group, signal).await;
        }
        connection
            .wait("a signal to be sent", self.writer.signal(signal.to_wire()))
            .await?
            .map_err(|error| connection.failure(error, "a signal"))
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let is_over = self.over.send_replace(true);
        if is_over || self.reader.is_none() || self.connection.is_closed() {
            return;
        }
        let (writer, connection) = (Arc::clone(&self.writer), self.connection.clone());
        let group = self.group();
        self.connection.spawn(async move {
            // Where this fails the connection is gone, and was given up by everybody.
            let _ =
                connection.wait("a program to be ended", end(&connection, &writer, group)).await;
        });
    }
}

impl Input {
    /// Sends bytes, as fast as the program takes them. When the program ends first, this fails.
    pub async fn write(&self, data: impl Into<Bytes>) -> Result<(), SshError> {
        let mut over = self.over.clone();
        tokio::select! {
            biased;
            sent = self.writer.data_bytes(data) => {
                sent.map_err(|error| self.connection.failure(error, "input"))
            }
            _ = over.wait_for(|over| *over) => Err(self.refused()),
            _ = self.connection.ended() => Err(self.connection.lost()),
        }
    }

    /// Says that there is no more.
    pub async fn finish(self) -> Result<(), SshError> {
        if *self.over.borrow() {
            return Err(self.refused());
        }
        self.connection
            .wait("the end of input to be sent", self.writer.eof())
            .await?
            .map_err(|error| self.connection.failure(error, "input"))
    }

    fn refused(&self) -> SshError {
        let address = self.connection.address().to_owned();
        SshError::Refused { address, what: "input".into(), reason: "the program has ended".into() }
    }
}

/// Ends a program and what it started, and closes its channel. The server ends no program because
/// its channel is closed, and whether it heeds a signal depends.
async fn end(connection: &Connection, writer: &ChannelWriteHalf<Msg>, group: Option<Group>) {
    kill(connection, writer, group).await;
    let _ = writer.close().await;
}

/// Ends a program and what it started.
pub(super) async fn kill(
    connection: &Connection,
    writer: &ChannelWriteHalf<Msg>,
    group: Option<Group>,
) {
    // Each of these fails only with the connection.
    let _ = writer.signal(Sig::KILL).await;
    if let Some(group) = group {
        let _ = connection.signal_group(group, Signal::Kill).await;
    }
}

/// How a program ended, if this message says so.
pub(super) fn read_exit(message: &ChannelMsg) -> Option<Exit> {
    match message {
        ChannelMsg::ExitStatus { exit_status } => Some(Exit::Code(*exit_status)),
        ChannelMsg::ExitSignal { signal_name, .. } => {
            Some(Exit::Signal(signal_name_of(signal_name)))
        }
        _ => None,
    }
}

fn signal_name_of(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}
