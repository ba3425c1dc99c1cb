//! A worker that runs in a guest: how it is started, the link to it, and its end.
//!
//! ```text
//! start ──▶ introduced ──▶ frames over the link ──┬── closed by it ──▶ awaited ──┬──▶ ended
//!                                                 └── kill, link dropped ──▶ killed ──┘
//! ```
//!
//! The link reads its channel itself, so a message costs no task of its own. Whoever ends the worker
//! takes the channel from the link: a link that nobody reads can then hold up nothing.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bioxen_core::Isolation;
use bioxen_core::backend::{Link, Machine, VersionMismatch};
use bioxen_core::protocol::standalone::{Accepted, Answer, Opening, Order, Refusal};
use bioxen_core::protocol::zygote::{self, How};
use bioxen_core::protocol::{Decoder, Hello, Reply, decode, encode};
use bytes::{Bytes, BytesMut};
use futures::future::Either;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::watch;

use super::connection::within;
use super::exec::{self, Exit, Parts, STDERR};
use super::meter::Meter;
use super::{Command, Connection, Execution, Group, Happening, SshError};

/// The largest message of a worker that has not run any code.
const LARGEST_INTRODUCTION: usize = 64 << 10;

/// What is kept of a worker's standard error.
const LAST_WORDS: usize = 4 << 10;

/// Bytes that are taken at once, when so many are there.
const ENOUGH: usize = 256 << 10;

/// How long a worker that has closed its output may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// How long a guest that goes down may take to be gone after its workers are.
const DOWN_WITHIN: Duration = Duration::from_secs(5);

/// How long ending a worker may take, before the guest is left to itself.
const ENDED_WITHIN: Duration = Duration::from_secs(4);

/// What runs Lua in a guest.
#[derive(Clone, Debug, PartialEq)]
pub enum GuestProgram {
    /// The guest's own interpreter, made a worker by the shim.
    Shim {
        /// Its name or path: `lua5.4`, `/usr/bin/luajit`.
        interpreter: String,
    },
    /// Our worker, which was put there before.
    Worker {
        /// Where it is.
        path: String,
        /// What it is to be.
        order: Box<Order>,
    },
    /// A program that speaks the worker protocol from its first byte on.
    Other {
        /// Where it is.
        path: String,
        /// The arguments with which it does.
        arguments: Vec<String>,
    },
}

impl GuestProgram {
    fn name(&self) -> &str {
        match self {
            Self::Shim { interpreter } => interpreter,
            Self::Worker { path, .. } | Self::Other { path, .. } => path,
        }
    }

    fn command(&self) -> Command {
        match self {
            Self::Shim { interpreter } => {
                Command::new(interpreter).argument("-e").argument(bioxen_worker::shim_bootstrap())
            }
            Self::Worker { path, .. } => Command::new(path).argument(bioxen_worker::SERVE),
            Self::Other { path, arguments } => Command::new(path).arguments(arguments),
        }
    }

    /// What it must be sent before it can introduce itself.
    fn first_words(&self) -> Option<Bytes> {
        match self {
            Self::Shim { .. } => Some(Bytes::from_static(bioxen_worker::SHIM.as_bytes())),
            Self::Worker { order, .. } => Some(encode(&Opening::Order(Order::clone(order))).into()),
            Self::Other { .. } => None,
        }
    }
}

/// A worker that has just introduced itself.
pub struct GuestWorker {
    /// The connection to it.
    pub link: SshLink,
    /// The worker from outside.
    pub machine: GuestMachine,
    /// Its introduction.
    pub hello: Hello,
    /// The order as it understood it; only our own worker answers one.
    pub accepted: Option<Accepted>,
    /// How it is held in within the guest, where it says so; a shim does not.
    pub isolation: Option<Isolation>,
}

/// Why a worker in a guest did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// It could not be started or heard.
    #[error("`{program}` could not be started in the guest")]
    Ssh {
        /// The program.
        program: String,
        /// Why.
        source: SshError,
    },
    /// It ended, or said something else than a worker does.
    #[error("`{program}` did not come up as a worker in the guest: {reason}")]
    Introduction {
        /// The program.
        program: String,
        /// What was seen instead, with its last words.
        reason: String,
    },
    /// It does not become what was ordered.
    #[error("`{program}` in the guest does not do what was ordered")]
    Refused {
        /// The program.
        program: String,
        /// Why.
        source: Refusal,
    },
    /// It speaks another version of the protocol.
    #[error("`{program}` in the guest does not fit this program")]
    Version {
        /// The program.
        program: String,
        /// The versions.
        source: VersionMismatch,
    },
}

impl GuestError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Ssh { source, .. } => source.hint(),
            Self::Introduction { program, .. } => {
                format!("run `{program}` in the guest by hand; if it is not there, install it")
            }
            Self::Refused { .. } => {
                "correct the order, or provide in the guest what it names".into()
            }
            Self::Version { .. } => "put the worker of this version into the guest".into(),
        }
    }
}

/// Starts a worker in a guest and reads its introduction. When this fails or its future is dropped,
/// the worker is ended.
pub async fn start(
    connection: &Connection,
    program: &GuestProgram,
    deadline: Duration,
) -> Result<GuestWorker, GuestError> {
    let what = format!("`{}` to come up", program.name());
    let ssh = |source| GuestError::Ssh { program: program.name().to_owned(), source };
    let starting = async {
        let execution = connection.start(&program.command()).await.map_err(ssh)?;
        let mut link = SshLink::over(execution).ok_or_else(|| ssh(connection.lost()))?;
        match introduce(&mut link, program).await {
            Ok(Introduction { hello, accepted, isolation }) => {
                hello.check_version().map_err(|source| {
                    let program = program.name().to_owned();
                    GuestError::Version { program, source }
                })?;
                if let Some(accepted) = accepted.as_ref().filter(|it| it.program.is_some()) {
                    let meter = Meter::start(connection, accepted.process).await.map_err(ssh)?;
                    link.shared.meter.get_or_init(|| meter);
                }
                let machine = link.machine();
                Ok(GuestWorker { link, machine, hello, accepted, isolation })
            }
            Err(Unfit::Refused(source)) => {
                Err(GuestError::Refused { program: program.name().to_owned(), source })
            }
            Err(Unfit::Other(_)) if connection.is_closed() => Err(ssh(connection.lost())),
            Err(Unfit::Other(reason)) => Err(link.explain(program, reason).await),
        }
    };
    within(deadline, connection.address(), &what, Box::pin(starting)).await.map_err(ssh)?
}

/// What a worker says before it has run anything.
struct Introduction {
    hello: Hello,
    accepted: Option<Accepted>,
    isolation: Option<Isolation>,
}

/// Why a program is no worker of ours.
enum Unfit {
    Refused(Refusal),
    Other(String),
}

impl<E: fmt::Display> From<E> for Unfit {
    fn from(reason: E) -> Self {
        Self::Other(reason.to_string())
    }
}

async fn introduce(link: &mut SshLink, program: &GuestProgram) -> Result<Introduction, Unfit> {
    if let Some(words) = program.first_words() {
        // A program that is none ends before it has read all this; its last words say more.
        let _ = link.shared.send(words).await;
    }
    let mut decoder = Decoder::new(LARGEST_INTRODUCTION);
    let mut accepted = None;
    if matches!(program, GuestProgram::Worker { .. }) {
        match decode(&next_payload(link, &mut decoder).await?)? {
            Answer::Refused(refusal) => return Err(Unfit::Refused(refusal)),
            Answer::Accepted(answer) => {
                if answer.program.is_some() {
                    let shim = Bytes::from_static(bioxen_worker::SHIM.as_bytes());
                    link.shared.send(shim).await?;
                }
                accepted = Some(answer);
            }
        }
    }
    let mut isolation = None;
    loop {
        match decode(&next_payload(link, &mut decoder).await?)? {
            Reply::Sandboxed(reached) => isolation = Some(reached),
            Reply::Hello(hello) => return Ok(Introduction { hello, accepted, isolation }),
            Reply::Fatal(reason) => return Err(reason.into()),
            other @ (Reply::Output(..) | Reply::NeedInput(_) | Reply::End(_)) => {
                return Err(format!("it began with {other:?}").into());
            }
        }
    }
}

async fn next_payload(link: &mut SshLink, decoder: &mut Decoder) -> Result<Bytes, Unfit> {
    loop {
        if let Some(payload) = decoder.next_payload()? {
            return Ok(payload);
        }
        if link.receive(decoder.space()).await? == 0 {
            return Err("it ended before it was ready".into());
        }
    }
}

/// The bytes to and from a worker in a guest. Dropping it ends the worker.
pub struct SshLink {
    shared: Arc<Shared>,
}

/// A worker in a guest, from outside.
#[derive(Clone)]
pub struct GuestMachine {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    writer: Arc<ChannelWriteHalf<Msg>>,
    group: Option<Group>,
    inbox: Mutex<Inbox>,
    /// How the worker ended, once it has.
    ended: watch::Sender<Option<Exit>>,
    /// What measures it, where it does not do that itself.
    meter: OnceLock<Meter>,
}

struct Inbox {
    /// `None` once the worker has closed its output or is being ended.
    reader: Option<ChannelReadHalf>,
    /// What had come before there was a link.
    early: BytesMut,
    /// Who waits for bytes.
    waker: Option<Waker>,
    last_words: Vec<u8>,
    exit: Option<Exit>,
}

impl SshLink {
    fn over(execution: Execution) -> Option<Self> {
        let connection = execution.connection().clone();
        let Parts { reader, writer, group, early, exit } = execution.into_parts()?;
        let mut inbox = Inbox {
            reader: Some(reader),
            early: BytesMut::new(),
            waker: None,
            last_words: Vec::new(),
            exit,
        };
        for heard in early {
            match heard {
                Happening::Stdout(data) => inbox.early.extend_from_slice(&data),
                Happening::Stderr(data) => inbox.keep(&data),
                Happening::Ended(exit) => inbox.exit = Some(exit),
            }
        }
        let (inbox, ended) = (Mutex::new(inbox), watch::Sender::new(None));
        let meter = OnceLock::new();
        Some(Self { shared: Arc::new(Shared { connection, writer, group, inbox, ended, meter }) })
    }

    /// The worker from outside.
    pub fn machine(&self) -> GuestMachine {
        GuestMachine { shared: Arc::clone(&self.shared) }
    }

    /// What a worker that did not come up left behind.
    async fn explain(&self, program: &GuestProgram, reason: String) -> GuestError {
        self.shared.end(Cause::Closed);
        let exit = self.shared.exit().await;
        let words = self.shared.last_words();
        let end = match exit {
            Exit::Unknown => String::new(),
            known @ (Exit::Code(_) | Exit::Signal(_)) => format!(" ({known})"),
        };
        let words = if words.is_empty() { String::new() } else { format!("; it said: {words}") };
        let reason = format!("{reason}{end}{words}");
        GuestError::Introduction { program: program.name().to_owned(), reason }
    }
}

#[async_trait]
impl Link for SshLink {
    async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Some(meter) = self.shared.meter.get() {
            meter.wake();
        }
        self.shared.send(Bytes::copy_from_slice(frame)).await
    }

    async fn receive(&mut self, space: &mut BytesMut) -> io::Result<usize> {
        std::future::poll_fn(|context| self.shared.poll_receive(context, space)).await
    }
}

impl Drop for SshLink {
    fn drop(&mut self) {
        self.shared.end(Cause::Killed);
    }
}

impl GuestMachine {
    /// The last of what the worker wrote to standard error.
    pub fn last_words(&self) -> String {
        self.shared.last_words()
    }

    /// Its process group in the guest, if it said which. After a lost connection the group may
    /// still run: [`Connection::signal_group`] ends it over the next one.
    pub fn group(&self) -> Option<Group> {
        self.shared.group
    }
}

#[async_trait]
impl Machine for GuestMachine {
    fn process(&self) -> Option<u32> {
        None
    }

    fn kill(&self) {
        self.shared.end(Cause::Killed);
    }

    async fn measure(&self) {
        if let Some(meter) = self.shared.meter.get() {
            meter.look().await;
        }
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.shared.meter.get().map(|meter| meter.last().cpu_time)
    }

    fn peak_memory(&self) -> Option<u64> {
        self.shared.meter.get().map(|meter| meter.last().peak_memory)
    }

    /// Whoever reads the link hears of the worker's own end first; this waits for the rest.
    async fn ended(&self) -> Option<zygote::Exit> {
        let how = match self.shared.exit().await {
            Exit::Code(code) => How::Exited(i32::try_from(code).unwrap_or(i32::MAX)),
            // A system that goes down asks its processes to end first, and so it is the system that is lost.
            Exit::Signal(name) if name == "TERM" || name == "HUP" => {
                let gone = tokio::time::timeout(DOWN_WITHIN, self.shared.connection.ended()).await;
                if gone.is_ok() {
                    return None;
                }
                How::Signalled(signal_number(&name)?)
            }
            Exit::Signal(name) => How::Signalled(signal_number(&name)?),
            Exit::Unknown => return None,
        };
        // SSH does not tell what a program has used; this is what was seen last, where it was measured.
        let used = self.shared.meter.get().map(Meter::last);
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Some(zygote::Exit {
            how,
            cpu_time_us: used.map(|used| microseconds(used.cpu_time)),
            peak_resident: used.map(|used| used.peak_memory),
        })
    }
}

/// Why a worker is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It has closed its output, and should be gone soon.
    Closed,
    /// It is not wanted any more.
    Killed,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_words(&self) -> String {
        String::from_utf8_lossy(&self.lock().last_words).trim().to_owned()
    }

    async fn send(&self, frame: Bytes) -> io::Result<()> {
        if self.lock().reader.is_none() {
            return Err(self.broken());
        }
        let mut ended = self.ended.subscribe();
        tokio::select! {
            biased;
            sent = self.writer.data_bytes(frame) => sent.map_err(|_| self.broken()),
            // A worker that is gone makes no room for what it was sent.
            _ = ended.wait_for(Option::is_some) => Err(self.broken()),
            _ = self.connection.ended() => Err(self.broken()),
        }
    }

    fn broken(&self) -> io::Error {
        if self.connection.is_closed() {
            io::Error::new(io::ErrorKind::ConnectionReset, self.connection.lost())
        } else {
            io::ErrorKind::BrokenPipe.into()
        }
    }

    fn poll_receive(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        space: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let before = space.len();
        let mut inbox = self.lock();
        if !inbox.early.is_empty() {
            space.extend_from_slice(&std::mem::take(&mut inbox.early));
        }
        let is_over = loop {
            let Some(reader) = inbox.reader.as_mut() else { break false };
            let heard = pin!(reader.wait()).poll(context);
            match heard {
                Poll::Pending if space.len() > before => break false,
                Poll::Pending => {
                    inbox.waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Some(ChannelMsg::Data { data })) => {
                    space.extend_from_slice(&data);
                    if space.len() - before >= ENOUGH {
                        break false;
                    }
                }
                Poll::Ready(Some(ChannelMsg::Eof | ChannelMsg::Close) | None) => break true,
                Poll::Ready(Some(other)) => inbox.hear(&other),
            }
        };
        drop(inbox);
        if is_over {
            self.end(Cause::Closed);
        }
        Poll::Ready(Ok(space.len() - before))
    }

    /// Takes the channel from the link and has the end of the worker seen to. A repeat does nothing.
    fn end(self: &Arc<Self>, cause: Cause) {
        let (reader, waker) = {
            let mut inbox = self.lock();
            (inbox.reader.take(), inbox.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(reader) = reader {
            let shared = Arc::clone(self);
            self.connection.spawn(async move {
                shared.see_out(reader, cause).await;
                let exit = shared.lock().exit.take().unwrap_or(Exit::Unknown);
                shared.ended.send_replace(Some(exit));
            });
        }
    }

    async fn see_out(&self, mut reader: ChannelReadHalf, cause: Cause) {
        if cause == Cause::Closed {
            let leaving = tokio::time::timeout(GONE_WITHIN, self.listen(&mut reader)).await;
            if leaving.is_err() {
                tracing::debug!("a worker closed its output and runs on; it is killed");
            }
        }
        if self.connection.is_closed() {
            return;
        }
        let ending = async {
            // What it had started is ended too, even if itself is gone. The channel is read meanwhile, or
            // it could hold up the very messages that end it.
            let killing = pin!(exec::kill(&self.connection, &self.writer, self.group));
            let listening = pin!(self.listen(&mut reader));
            let is_gone = match futures::future::select(killing, listening).await {
                Either::Left(((), listening)) => {
                    tokio::time::timeout(GONE_WITHIN, listening).await.is_ok()
                }
                Either::Right(((), killing)) => {
                    killing.await;
                    true
                }
            };
            // The last thing: not every server tells how a program ended on a channel that was closed.
            let _ = self.writer.close().await;
            is_gone
        };
        if !tokio::time::timeout(ENDED_WITHIN, ending).await.unwrap_or(false) {
            tracing::debug!("a worker could not be seen to end");
        }
    }

    /// Hears what else comes until the channel is closed.
    async fn listen(&self, reader: &mut ChannelReadHalf) {
        while let Some(message) = reader.wait().await {
            if matches!(message, ChannelMsg::Close) {
                return;
            }
            self.lock().hear(&message);
        }
    }

    async fn exit(&self) -> Exit {
        let mut ended = self.ended.subscribe();
        let exit = ended.wait_for(Option::is_some).await;
        // The sender lives in `self`, so there is always an answer in the end.
        exit.map_or(Exit::Unknown, |exit| exit.clone().unwrap_or(Exit::Unknown))
    }
}

impl Inbox {
    /// Notes what is no output of the worker.
    fn hear(&mut self, message: &ChannelMsg) {
        if let ChannelMsg::ExtendedData { data, ext: STDERR } = message {
            self.keep(data);
        } else if let Some(exit) = exec::read_exit(message) {
            self.exit = Some(exit);
        }
    }

    /// Keeps the last of what the worker says on standard error.
    fn keep(&mut self, data: &[u8]) {
        self.last_words.extend_from_slice(data);
        let surplus = self.last_words.len().saturating_sub(LAST_WORDS);
        self.last_words.drain(..surplus);
    }
}

impl fmt::Debug for GuestWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestWorker")
            .field("hello", &self.hello)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

/// The number that Linux gives a signal which SSH names.
fn signal_number(name: &str) -> Option<i32> {
    Some(match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP@openssh.com" | "TRAP" => 5,
        "ABRT" => 6,
        "BUS" | "BUS@openssh.com" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        "XCPU" | "XCPU@openssh.com" => 24,
        "SYS" | "SYS@openssh.com" => 31,
        _ => return None,
    })
}
