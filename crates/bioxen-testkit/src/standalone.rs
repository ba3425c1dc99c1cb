//! A backend whose workers run by themselves, as they do in a guest, but on this machine: what stands
//! between here and there is two pipes or a socket in place of SSH.
#![expect(unsafe_code, reason = "wait with resource usage has no safe form")]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bioxen::{InterpreterFacts, Isolation, VmSpec, VmType};
use bioxen_core::backend::{Backend, Link, Machine, ShutdownError, StartError, Started};
use bioxen_core::protocol::standalone::{Accepted, Answer, Opening, Order};
use bioxen_core::protocol::zygote::{Exit, How};
use bioxen_core::protocol::{Decoder, Hello, Reply, decode, encode};
use bytes::{Bytes, BytesMut};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::PATIENCE;

/// The largest message of a worker that has not run any code.
const LARGEST_INTRODUCTION: usize = 64 << 10;

/// What a worker's standard input and output are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Two pipes.
    Pipes,
    /// One end of a pair of sockets, twice.
    Socket,
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pipes" => Ok(Self::Pipes),
            "socket" => Ok(Self::Socket),
            other => Err(format!("`{other}` is neither `pipes` nor `socket`")),
        }
    }
}

/// Ours and theirs.
struct Ends {
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    stdin: OwnedFd,
    stdout: OwnedFd,
}

impl Wire {
    fn ends(self) -> io::Result<Ends> {
        match self {
            Self::Pipes => {
                let ((stdin, writer), (reader, stdout)) = (io::pipe()?, io::pipe()?);
                Ok(Ends {
                    reader: Box::new(pipe::Receiver::from_owned_fd(reader.into())?),
                    writer: Box::new(pipe::Sender::from_owned_fd(writer.into())?),
                    stdin: stdin.into(),
                    stdout: stdout.into(),
                })
            }
            Self::Socket => {
                let (ours, theirs) = StdUnixStream::pair()?;
                ours.set_nonblocking(true)?;
                let (reader, writer) = UnixStream::from_std(ours)?.into_split();
                let stdout = theirs.try_clone()?.into();
                Ok(Ends {
                    reader: Box::new(reader),
                    writer: Box::new(writer),
                    stdin: theirs.into(),
                    stdout,
                })
            }
        }
    }
}

/// Makes VMs of type `basic`, each by a program of its own.
pub struct StandaloneBackend {
    program: PathBuf,
    wire: Wire,
    started: Mutex<Vec<Weak<Worker>>>,
}

impl StandaloneBackend {
    /// A backend that starts `program` for each VM.
    pub fn new(program: PathBuf, wire: Wire) -> Self {
        Self { program, wire, started: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Worker>>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self) -> io::Result<(StandaloneLink, watch::Receiver<Option<Exit>>)> {
        let Ends { reader, writer, stdin, stdout } = self.wire.ends()?;
        let mut command = Command::new(&self.program);
        command.arg(bioxen_worker::SERVE).stdin(stdin).stdout(stdout).stderr(Stdio::null());
        let child = command.spawn()?;
        let (note_end, ended) = watch::channel(None);
        std::thread::spawn(move || note_end.send_replace(Some(wait_for(child.id()))));
        Ok((StandaloneLink { reader, writer, decoder: Decoder::new(LARGEST_INTRODUCTION) }, ended))
    }
}

/// Reaps a child when it has ended.
fn wait_for(process: u32) -> Exit {
    let mut status = 0;
    // SAFETY: both places are ours to write to; the child is nobody else's to wait for.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let reaped = libc::wait4(process.cast_signed(), &raw mut status, 0, &raw mut usage);
        assert_eq!(reaped, process.cast_signed(), "{}", io::Error::last_os_error());
        usage
    };
    let how = if libc::WIFSIGNALED(status) {
        How::Signalled(libc::WTERMSIG(status))
    } else {
        How::Exited(libc::WEXITSTATUS(status))
    };
    let microseconds = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    Exit {
        how,
        cpu_time_us: Some(
            (microseconds(usage.ru_utime) + microseconds(usage.ru_stime)).cast_unsigned(),
        ),
        peak_resident: Some(usage.ru_maxrss.cast_unsigned() * 1024),
    }
}

#[async_trait]
impl Backend for StandaloneBackend {
    fn vm_type(&self) -> VmType {
        VmType::Basic
    }

    async fn start(&self, spec: &VmSpec) -> Result<Started, StartError> {
        let vm = spec.name.as_str();
        let failed = |reason: String| StartError::Worker { vm: vm.to_owned(), reason };
        let names = spec.grants.env.iter();
        let environment: BTreeMap<_, _> =
            names.filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect();
        let order = Order::of(spec, environment.clone());
        let spawned = self.spawn();
        let (mut link, ended) = spawned.map_err(|source| StartError::WorkerProgram {
            what: self.program.display().to_string(),
            source: Some(source),
        })?;
        let introduction = tokio::time::timeout(PATIENCE, link.introduce(&order)).await;
        let introduction =
            introduction.map_err(|_| failed(format!("it said nothing for {PATIENCE:?}")))?;
        let (answer, isolation, hello) = match introduction.map_err(failed)? {
            Introduction::Refused(refusal) => return Err(refusal.into_start_error(vm)),
            Introduction::Ready(answer, isolation, hello) => (*answer, isolation, hello),
        };
        isolation.meets(spec)?;
        let (process, is_program) = (answer.process, answer.program.is_some());
        let worker = Arc::new(Worker { process, ended, is_program });
        self.lock().push(Arc::downgrade(&worker));
        let Accepted { platform, program, grants, working_directory, .. } = answer;
        let (version, program) = match program {
            Some(program) => (program.version, Some(program.path)),
            None => (hello.interpreter, None),
        };
        Ok(Started {
            link: Box::new(link),
            machine: Box::new(Handle(worker)),
            interpreter: InterpreterFacts { version, program, platform },
            isolation,
            grants,
            environment,
            working_directory: Some(working_directory),
            machine_facts: None,
        })
    }

    async fn shutdown(&self) -> Result<(), ShutdownError> {
        let started = std::mem::take(&mut *self.lock());
        for worker in started.iter().filter_map(Weak::upgrade) {
            worker.kill();
            let ended = tokio::time::timeout(Duration::from_secs(10), worker.ended()).await;
            if ended.is_err() {
                return Err(ShutdownError { left: "a worker".into(), source: None });
            }
        }
        Ok(())
    }
}

/// What came of an order.
enum Introduction {
    Refused(bioxen_core::protocol::standalone::Refusal),
    Ready(Box<Accepted>, Isolation, Hello),
}

struct StandaloneLink {
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    decoder: Decoder,
}

impl StandaloneLink {
    async fn introduce(&mut self, order: &Order) -> Result<Introduction, String> {
        let text = |error: io::Error| error.to_string();
        self.send(&encode(&Opening::Order(order.clone()))).await.map_err(text)?;
        let answer = self.payload().await?;
        let accepted = match decode(&answer).map_err(|error| error.to_string())? {
            Answer::Refused(refusal) => return Ok(Introduction::Refused(refusal)),
            Answer::Accepted(accepted) => accepted,
        };
        if accepted.program.is_some() {
            self.send(bioxen_worker::SHIM.as_bytes()).await.map_err(text)?;
        }
        let mut isolation = None;
        loop {
            let payload = self.payload().await?;
            match decode(&payload).map_err(|error| error.to_string())? {
                Reply::Sandboxed(reached) => isolation = Some(reached),
                Reply::Hello(hello) => {
                    hello.check_version().map_err(|error| error.to_string())?;
                    let isolation = isolation.ok_or("it was not held in")?;
                    return Ok(Introduction::Ready(Box::new(accepted), isolation, hello));
                }
                Reply::Fatal(reason) => return Err(reason.into_owned()),
                other => return Err(format!("it began with {other:?}")),
            }
        }
    }

    async fn payload(&mut self) -> Result<Bytes, String> {
        loop {
            if let Some(payload) = self.decoder.next_payload().map_err(|error| error.to_string())? {
                return Ok(payload);
            }
            match self.reader.read_buf(self.decoder.space()).await {
                Ok(0) => return Err("it ended before it was ready".into()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

#[async_trait]
impl Link for StandaloneLink {
    async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.writer.write_all(frame).await
    }

    async fn receive(&mut self, space: &mut BytesMut) -> io::Result<usize> {
        space.reserve(if space.len() > 1024 { 68 << 10 } else { 2 << 10 });
        self.reader.read_buf(space).await
    }
}

/// A worker, by its own process and by the end of its watcher, which comes after.
struct Worker {
    process: u32,
    ended: watch::Receiver<Option<Exit>>,
    is_program: bool,
}

impl Worker {
    fn kill(&self) {
        if self.ended.borrow().is_none() {
            let _ = kill(Pid::from_raw(-self.process.cast_signed()), Signal::SIGKILL);
        }
    }

    async fn ended(&self) -> Option<Exit> {
        let mut ended = self.ended.clone();
        ended.wait_for(Option::is_some).await.map_or(None, |exit| *exit)
    }
}

struct Handle(Arc<Worker>);

#[async_trait]
impl Machine for Handle {
    fn process(&self) -> Option<u32> {
        Some(self.0.process)
    }

    fn kill(&self) {
        self.0.kill();
    }

    async fn ended(&self) -> Option<Exit> {
        self.0.ended().await
    }

    fn cpu_time(&self) -> Option<Duration> {
        let spent = std::fs::read_to_string(format!("/proc/{}/schedstat", self.0.process)).ok()?;
        spent.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }

    fn peak_memory(&self) -> Option<u64> {
        if !self.0.is_program {
            return None;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.process)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.kill();
    }
}
