//! What runs in one SSH session: a command, a shell, or the file service.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, Sig};
use rustix::process::Signal;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufReader, copy_buf};
use tokio::sync::mpsc;

use super::sftp;
use super::terminal::{Terminal, shown_signal};
use crate::guest::accounts::Account;
use crate::guest::booted::Guest;
use crate::guest::sandbox::{Entry, Launch};
use crate::guest::starting;

/// Pieces of input that may wait for a command to read them.
const WAITING: usize = 64;
const PIECE: usize = 64 << 10;

/// What a client asks of a session.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Shell,
    Command(String),
    Files,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct TerminalSize {
    pub(super) columns: u32,
    pub(super) rows: u32,
}

/// A session's work.
pub(super) struct Work {
    pub(super) guest: Arc<Guest>,
    pub(super) account: Account,
    pub(super) request: Request,
    pub(super) environment: Vec<(String, String)>,
    pub(super) terminal: Option<TerminalSize>,
    pub(super) handle: Handle,
    pub(super) id: ChannelId,
}

impl Work {
    /// Does it, and tells the client how it ended.
    pub(super) async fn run(self, channel: Channel<Msg>) {
        let ended = match (&self.request, self.terminal) {
            (Request::Files, _) => self.serve_files(channel).await,
            (Request::Shell | Request::Command(_), Some(size)) => {
                self.on_terminal(channel, size).await
            }
            (Request::Shell | Request::Command(_), None) => self.on_pipes(channel).await,
        };
        let (handle, id) = (&self.handle, self.id);
        // A client that is gone needs no telling.
        let _ = match ended {
            Ok(status) => self.report(status).await,
            Err(error) => {
                let text = format!("the session could not be started: {error}\r\n");
                let _ = handle.extended_data(id, 1, Bytes::from(text)).await;
                handle.exit_status_request(id, 255).await
            }
        };
        let _ = handle.eof(id).await;
        let _ = handle.close(id).await;
    }

    async fn report(&self, status: ExitStatus) -> Result<(), ()> {
        if let Some(signal) = status.signal() {
            let (name, core) = (shown_signal(signal), status.core_dumped());
            let text = String::new;
            return self.handle.exit_signal_request(self.id, name, core, text(), text()).await;
        }
        let code = status.code().and_then(|code| u32::try_from(code).ok());
        self.handle.exit_status_request(self.id, code.unwrap_or(255)).await
    }

    fn launch(&self) -> Launch {
        let Account { name, home, shell } = &self.account;
        let words = match &self.request {
            Request::Command(command) => vec![shell.clone(), "-c".into(), command.clone()],
            Request::Shell | Request::Files => vec![shell.clone(), "-l".into()],
        };
        let home_seen = self.guest.files.visible(home);
        let variables = [("HOME", &home_seen), ("USER", name), ("LOGNAME", name), ("SHELL", shell)];
        let mut environment: Vec<(String, String)> =
            variables.map(|(name, value)| (name.to_owned(), value.clone())).to_vec();
        environment.extend(self.environment.iter().cloned());
        Launch { words, environment, directory: home.clone(), terminal: self.terminal.is_some() }
    }

    async fn serve_files(&self, channel: Channel<Msg>) -> io::Result<ExitStatus> {
        let (service, mut ours) = tokio::io::duplex(4 * PIECE);
        sftp::serve(service, self.guest.files.clone(), self.account.home.clone()).await;
        let mut stream = channel.into_stream();
        let carried =
            tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut ours, PIECE, PIECE);
        carried.await.map(|_| ExitStatus::from_raw(0))
    }

    async fn on_pipes(&self, channel: Channel<Msg>) -> io::Result<ExitStatus> {
        let mut command = self.guest.entry.command(&self.launch());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = starting::start(&mut command)?;
        let (read, write) = channel.split();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(io::Error::other("a pipe is missing"));
        };
        let mut output = BufReader::with_capacity(PIECE, output);
        let mut errors = BufReader::with_capacity(PIECE, errors);
        let (mut to_output, mut to_errors) = (write.make_writer(), write.make_writer_ext(Some(1)));
        let outputs = async {
            // Whether the command or the client ended first does not matter here.
            let _ = tokio::join!(
                copy_buf(&mut output, &mut to_output),
                copy_buf(&mut errors, &mut to_errors)
            );
        };
        let control = Control { entry: &self.guest.entry, pid: child.id(), terminal: None };
        let finished = control.attend(read, input, outputs).await;
        if finished == Finished::ClientGone {
            // As with a real server, the command goes on; it has lost its pipes.
            drop((output, errors));
        }
        child.wait().await
    }

    async fn on_terminal(
        &self,
        channel: Channel<Msg>,
        size: TerminalSize,
    ) -> io::Result<ExitStatus> {
        let (terminal, keyboard, slave) = Terminal::open(&self.guest, size).await?;
        let mut command = self.guest.entry.command(&self.launch());
        let second = slave.try_clone()?;
        let third = slave.try_clone()?;
        command.stdin(Stdio::from(slave)).stdout(Stdio::from(second)).stderr(Stdio::from(third));
        let mut child = starting::start(&mut command)?;
        // It holds the terminal's other end, which must not outlive the child here.
        drop(command);
        let pid = child.id();
        let (read, write) = channel.split();
        let mut to_client = write.make_writer();
        let outputs = terminal.copy_until_end(&mut child, &mut to_client);
        let control = Control { entry: &self.guest.entry, pid, terminal: Some(&terminal) };
        control.attend(read, keyboard, outputs).await;
        // A session that lost its terminal is hung up.
        drop(terminal);
        child.wait().await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finished {
    OutputsEnded,
    ClientGone,
}

/// Carries what the client sends to the command.
struct Control<'a> {
    entry: &'a Entry,
    pid: Option<u32>,
    terminal: Option<&'a Terminal>,
}

impl Control<'_> {
    /// Until the outputs have ended or the client is gone.
    async fn attend(
        &self,
        mut read: ChannelReadHalf,
        input: impl AsyncWrite + Unpin,
        outputs: impl Future<Output = ()>,
    ) -> Finished {
        let (sender, receiver) = mpsc::channel(WAITING);
        let feed = feed(receiver, input);
        let messages = async {
            let mut sender = Some(sender);
            while let Some(message) = read.wait().await {
                match message {
                    ChannelMsg::Data { data } => {
                        if let Some(sender) = &sender {
                            // A command that reads no more is no reason to end its session.
                            let _ = sender.send(data).await;
                        }
                    }
                    ChannelMsg::Eof => sender = None,
                    ChannelMsg::Signal { signal } => self.signal(&signal),
                    ChannelMsg::WindowChange { col_width, row_height, .. } => {
                        if let Some(terminal) = self.terminal {
                            terminal.resize(TerminalSize { columns: col_width, rows: row_height });
                        }
                    }
                    ChannelMsg::Close => break,
                    // The rest is for clients.
                    _ => {}
                }
            }
        };
        // That the input has ended is no end of the session.
        let feed = async {
            feed.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = outputs => Finished::OutputsEnded,
            () = messages => Finished::ClientGone,
            () = feed => Finished::ClientGone,
        }
    }

    fn signal(&self, signal: &Sig) {
        let signal = match signal {
            Sig::ABRT => Signal::ABORT,
            Sig::ALRM => Signal::ALARM,
            Sig::FPE => Signal::FPE,
            Sig::HUP => Signal::HUP,
            Sig::ILL => Signal::ILL,
            Sig::INT => Signal::INT,
            Sig::KILL => Signal::KILL,
            Sig::PIPE => Signal::PIPE,
            Sig::QUIT => Signal::QUIT,
            Sig::SEGV => Signal::SEGV,
            Sig::TERM => Signal::TERM,
            Sig::USR1 => Signal::USR1,
            Sig::Custom(_) => return,
        };
        if let Some(pid) = self.pid {
            self.entry.signal(pid, signal);
        }
    }
}

/// Writes what comes to a command's input, and ends it when nothing more comes.
async fn feed(mut receiver: mpsc::Receiver<Bytes>, mut input: impl AsyncWrite + Unpin) {
    while let Some(piece) = receiver.recv().await {
        if input.write_all(&piece).await.is_err() {
            // Nobody reads; what still comes is dropped.
            while receiver.recv().await.is_some() {}
            return;
        }
    }
    let _ = input.shutdown().await;
}
