//! The controller's side of a zygote.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram as StdUnixDatagram, UnixStream as StdUnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bioxen_core::backend::{Machine, ShutdownError, StartError};
use bioxen_core::protocol::zygote::{Answer, Exit, Kind, LARGEST_DATAGRAM, Order};
use bioxen_worker::{Cgroup, PROGRAM_NAME, UNFILTERED};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::net::UnixDatagram;
use tokio::sync::{oneshot, watch};
use tracing::{debug, warn};

/// How long a zygote may take to kill and reap its workers when it is told to end.
const WIND_UP: Duration = Duration::from_secs(5);

/// A running zygote.
pub(crate) struct Zygote {
    /// A socket that keeps messages apart, like one for datagrams, and knows its end, like a stream.
    control: Arc<UnixDatagram>,
    has_ended: bool,
    child: Mutex<Child>,
    shared: Arc<Shared>,
    /// Whether the kernel holds it in a call that does not return.
    stuck: bool,
}

/// Whether this kernel was seen to hang when a system-call filter was applied.
static FILTERS_HANG: AtomicBool = AtomicBool::new(false);

/// How long applying a filter may take. It takes a fraction of a millisecond.
const FILTER_PATIENCE: Duration = Duration::from_secs(2);

/// How much longer a zygote may take to be ready on a busy machine.
const READY_PATIENCE: Duration = Duration::from_secs(20);

/// What the task that listens to the zygote shares with those who wait.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gone: bool,
    next_order: u64,
    ready: Option<oneshot::Sender<()>>,
    orders: HashMap<u64, Ordered>,
    processes: HashMap<u32, Watched>,
    /// Ends that were told before the answer to the worker's order.
    early_ends: HashMap<u32, Exit>,
    /// The first line on standard error since it was last asked for.
    last_words: String,
    /// Workers that outlived the zygote, by handles that no other process can take over.
    orphans: HashMap<u32, Orphan>,
}

/// The controller's end of a worker's lifeline, if it has one. The kernel kills the worker, and what it has
/// started, when this is closed, however that comes about.
struct Lifeline(Option<OwnedFd>);

impl Lifeline {
    fn cut(&mut self) {
        drop(self.0.take());
    }
}

/// A worker that was asked for.
struct Ordered {
    answer: oneshot::Sender<Result<Process, String>>,
    lifeline: Lifeline,
}

/// A worker whose end the zygote will tell.
struct Watched {
    note_end: watch::Sender<Option<Exit>>,
    lifeline: Lifeline,
}

/// A worker whose end nobody will tell.
struct Orphan {
    handle: OwnedFd,
    lifeline: Lifeline,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A forked worker, from outside.
pub(crate) struct Process {
    pub(crate) number: u32,
    ended: watch::Receiver<Option<Exit>>,
    shared: Arc<Shared>,
    /// Whether its memory is to be asked of the system.
    pub(crate) is_program: bool,
    cgroup: Option<Cgroup>,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| match error.raw_os_error() {
        Some(code) if [Errno::EMFILE as i32, Errno::ENFILE as i32].contains(&code) => {
            StartError::Exhausted {
                what: "no file descriptors are left".into(),
                source: Some(error),
            }
        }
        Some(code) if [Errno::EAGAIN as i32, Errno::ENOMEM as i32].contains(&code) => {
            StartError::Exhausted {
                what: "no processes or memory are left".into(),
                source: Some(error),
            }
        }
        _ => StartError::WorkerProgram { what: what.into(), source: Some(error) },
    }
}

impl Zygote {
    /// Starts a zygote and waits until it is ready.
    ///
    /// On a kernel that hangs when a system-call filter is applied, the zygote is given up, which is
    /// all that can be done with it, and another one is started that applies none.
    pub(crate) async fn start(program: &Path, kind: Kind) -> Result<Self, StartError> {
        if !FILTERS_HANG.load(Ordering::Relaxed) {
            match Self::launch(program, kind, true).await? {
                Some(zygote) => return Ok(zygote),
                None => FILTERS_HANG.store(true, Ordering::Relaxed),
            }
            warn!("this kernel hangs when a system-call filter is applied; going on without");
        }
        Self::launch(program, kind, false).await?.ok_or_else(|| StartError::WorkerProgram {
            what: "the kernel does not let it start".into(),
            source: None,
        })
    }

    /// Starts a zygote; `None` when the kernel hangs as it applies a filter.
    async fn launch(
        program: &Path,
        kind: Kind,
        filtered: bool,
    ) -> Result<Option<Self>, StartError> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|error| failed("no socket pair")(error.into()))?;
        let ours = StdUnixDatagram::from(ours);
        ours.set_nonblocking(true).map_err(failed("no socket pair"))?;
        let shown = program.display();
        let mut child = Command::new(program)
            .arg0(PROGRAM_NAME)
            .arg(kind.to_string())
            .args((!filtered).then_some(UNFILTERED))
            .env_clear()
            // Nothing is left for each forked worker to resolve again.
            .env("LD_BIND_NOW", "1")
            .stdin(theirs)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    StartError::WorkerProgram { what: shown.to_string(), source: Some(error) }
                }
                _ => failed("starting it failed")(error),
            })?;
        let errors = child.stderr.take().map(OwnedFd::from);
        let number = child.id();
        let control = UnixDatagram::from_std(ours).map_err(failed("no event source"))?;
        let (ready, is_ready) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        shared.lock().ready = Some(ready);
        let mut zygote = Self {
            control: Arc::new(control),
            has_ended: false,
            child: Mutex::new(child),
            shared: Arc::clone(&shared),
            stuck: false,
        };
        let log = errors.map(|errors| tokio::spawn(log_errors(errors, Arc::clone(&shared))));
        tokio::spawn(listen(Arc::clone(&zygote.control), shared));
        let mut is_ready = is_ready;
        let mut waited = tokio::time::timeout(FILTER_PATIENCE, &mut is_ready).await;
        if waited.is_err() {
            if filtered && is_stuck_in_filter(number) {
                zygote.stuck = true;
                return Ok(None);
            }
            waited = tokio::time::timeout(READY_PATIENCE, &mut is_ready).await;
        }
        match waited {
            Ok(Ok(())) => {
                debug!(process = number, %kind, "zygote is ready");
                return Ok(Some(zygote));
            }
            Ok(Err(_ended)) => {}
            Err(_elapsed) => {
                let seconds = READY_PATIENCE.as_secs();
                let what = format!("`{shown}` was not ready after {seconds} s");
                return Err(StartError::WorkerProgram { what, source: None });
            }
        }
        if let Some(log) = log {
            let _ = log.await;
        }
        let what = format!("`{shown}` ended at once{}", zygote.shared.last_words());
        Err(StartError::WorkerProgram { what, source: None })
    }

    /// Whether it can take no more orders.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.lock().gone
    }

    /// Has a worker forked. Returns it and our end of the connection to it, or nothing where the
    /// zygote is gone; then nothing has been made that lasts.
    pub(crate) async fn fork(
        &self,
        mut order: Order,
    ) -> Result<Option<(Process, StdUnixStream)>, StartError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(failed("no socket pair"))?;
        ours.set_nonblocking(true).map_err(failed("no socket pair"))?;
        let (lifeline, end_of_lifeline) = if Kind::of(&order).has_lifeline() {
            let (ours, theirs) = StdUnixStream::pair().map_err(failed("no socket pair"))?;
            (Lifeline(Some(ours.into())), Some(theirs))
        } else {
            (Lifeline(None), None)
        };
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            order.id = state.next_order;
            state.next_order += 1;
            state.orders.insert(order.id, Ordered { answer, lifeline });
        }
        let is_program = order.program.is_some();
        let ends: Vec<&StdUnixStream> = [&theirs].into_iter().chain(&end_of_lifeline).collect();
        match self.send(&order, &ends).await {
            Ok(()) => drop((theirs, end_of_lifeline)),
            Err(error) if is_hang_up(&error) => {
                self.shared.lock().gone = true;
                return Ok(None);
            }
            Err(error) => return Err(failed("its zygote does not answer")(error)),
        }
        match answered.await {
            Ok(Ok(mut process)) => {
                process.is_program = is_program;
                Ok(Some((process, ours)))
            }
            Ok(Err(reason)) => Err(StartError::Exhausted { what: reason, source: None }),
            Err(_) => Ok(None),
        }
    }

    /// Sends an order, and with it the worker's ends of its connection and of its lifeline, if it
    /// has one.
    async fn send(&self, order: &Order, ends: &[&StdUnixStream]) -> io::Result<()> {
        let message = rmp_serde::to_vec(order).map_err(io::Error::other)?;
        if message.len() > LARGEST_DATAGRAM {
            return Err(io::Error::other("the grants are too many for one order"));
        }
        let fd = self.control.as_raw_fd();
        let sent = self.control.async_io(Interest::WRITABLE, || {
            let parts = [io::IoSlice::new(&message)];
            let passed: Vec<_> = ends.iter().map(|end| end.as_raw_fd()).collect();
            let rights = [ControlMessage::ScmRights(&passed)];
            Ok(sendmsg::<()>(fd, &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?)
        });
        sent.await.map(drop)
    }

    /// Reaps a zygote that is gone; its workers live on.
    pub(crate) fn reap(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.try_wait() {
            Ok(Some(status)) => warn!(%status, "a zygote has died; its VMs live on"),
            Ok(None) => warn!("a zygote has hung up"),
            Err(error) => warn!(%error, "a zygote has died"),
        }
    }

    /// Ends the zygote and all its workers, and returns when they are gone.
    pub(crate) fn end(&mut self) -> Result<(), ShutdownError> {
        self.has_ended = true;
        // Each worker's process group is killed by the kernel when its lifeline is closed …
        let orphans = self.shared.let_go();
        // … and the zygote, which reaps them, winds up when it reads the end of its connection.
        let _ = self.control.shutdown(Shutdown::Both);
        if self.stuck {
            // Not even SIGKILL ends it before the kernel lets go of it.
            let _ = self.child.get_mut().unwrap_or_else(PoisonError::into_inner).kill();
            return Ok(());
        }
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let waited = pidfd(child.id()).is_none_or(|handle| wait_for(&handle, WIND_UP));
        if !waited {
            let _ = child.kill();
        }
        let reaped = child.wait();
        let orphans_ended = orphans.iter().all(|orphan| wait_for(orphan, WIND_UP));
        match reaped {
            Ok(_) if waited && orphans_ended => Ok(()),
            Ok(_) => Err(ShutdownError { left: "some workers".into(), source: None }),
            Err(error) => {
                Err(ShutdownError { left: "the zygote".into(), source: Some(error.into()) })
            }
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        if !self.has_ended
            && let Err(error) = self.end()
        {
            warn!(%error, "clean-up failed");
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    [BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected].contains(&error.kind())
}

/// Whether a process waits in the kernel's allocator for filters. Only then is it certain that the
/// kernel is at fault, and not a busy machine.
fn is_stuck_in_filter(process: u32) -> bool {
    let place = std::fs::read_to_string(format!("/proc/{process}/wchan")).unwrap_or_default();
    place.contains("bpf")
}

fn pidfd(process: u32) -> Option<OwnedFd> {
    let process = rustix::process::Pid::from_raw(process.cast_signed())?;
    pidfd_open(process, PidfdFlags::empty()).ok()
}

/// Waits until a process has ended; `false` when it takes too long.
fn wait_for(handle: &OwnedFd, patience: Duration) -> bool {
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.is_ok_and(|count| count > 0),
        }
    }
}

/// The longest line on standard error that is kept whole.
const LONGEST_LINE: usize = 1024;

/// Passes on what a zygote or an interpreter says on standard error, which in a healthy fleet is
/// nothing. Code can have an interpreter write there without end, and without a new line.
async fn log_errors(errors: OwnedFd, shared: Arc<Shared>) {
    let Ok(pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(errors) else { return };
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let read = pipe.fill_buf().await.unwrap_or_default();
        let has_ended = read.is_empty();
        let end = read.iter().position(|byte| *byte == b'\n');
        let part = &read[..end.unwrap_or(read.len())];
        line.extend_from_slice(&part[..part.len().min(LONGEST_LINE - line.len())]);
        let used = part.len() + usize::from(end.is_some());
        pipe.consume(used);
        if end.is_some() || has_ended && !line.is_empty() {
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            debug!(line = %text.escape_debug(), "a worker wrote to its standard error");
            let mut state = shared.lock();
            if state.last_words.is_empty() {
                state.last_words = text;
            }
        }
        if has_ended {
            return;
        }
    }
}

/// Reads what the zygote says until it ends.
async fn listen(control: Arc<UnixDatagram>, shared: Arc<Shared>) {
    let mut space = vec![0; LARGEST_DATAGRAM];
    while let Ok(length @ 1..) = control.recv(&mut space).await {
        match rmp_serde::from_slice(&space[..length]) {
            Ok(answer) => shared.note(answer),
            Err(error) => warn!(%error, "the zygote said something that makes no sense"),
        }
    }
    shared.zygote_is_gone();
}

impl Shared {
    /// What was said on standard error, for an error message.
    fn last_words(&self) -> String {
        match std::mem::take(&mut self.lock().last_words) {
            words if words.is_empty() => words,
            words => format!("; it said: {}", words.escape_debug()),
        }
    }

    fn note(self: &Arc<Self>, answer: Answer) {
        let mut state = self.lock();
        match answer {
            Answer::Ready(_) => {
                if let Some(ready) = state.ready.take() {
                    let _ = ready.send(());
                }
            }
            Answer::Forked { order, process } => {
                let exit = state.early_ends.remove(&process);
                // Nothing is forked without an order, and each is answered once.
                let Some(Ordered { answer, lifeline }) = state.orders.remove(&order) else {
                    return;
                };
                let (note_end, ended) = watch::channel(exit);
                if exit.is_none() {
                    state.processes.insert(process, Watched { note_end, lifeline });
                }
                let shared = Arc::clone(self);
                // If whoever asked has gone, the handle is dropped and the worker with it, for
                // which the lock must be free.
                drop(state);
                let number = process;
                let handle = Process { number, ended, shared, is_program: false, cgroup: None };
                let _ = answer.send(Ok(handle));
            }
            Answer::Refused { order, reason } => {
                if let Some(Ordered { answer, .. }) = state.orders.remove(&order) {
                    let _ = answer.send(Err(reason));
                }
            }
            Answer::Ended { process, exit } => match state.processes.remove(&process) {
                Some(Watched { note_end, .. }) => drop(note_end.send_replace(Some(exit))),
                None => drop(state.early_ends.insert(process, exit)),
            },
        }
    }

    fn zygote_is_gone(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.ready = None;
        let orders = std::mem::take(&mut state.orders);
        // Their ends will not be told by anyone; from now on they are watched through handles.
        let processes = std::mem::take(&mut state.processes);
        let mut notes = Vec::new();
        for (number, Watched { note_end, lifeline }) in processes {
            if let Some(handle) = pidfd(number) {
                state.orphans.insert(number, Orphan { handle, lifeline });
            }
            notes.push(note_end);
        }
        drop(state);
        drop((orders, notes));
    }

    /// Closes all lifelines. Returns handles on those workers whose end nobody will tell.
    fn let_go(&self) -> Vec<OwnedFd> {
        let mut state = self.lock();
        // Their ends will still be told.
        state.processes.values_mut().for_each(|watched| watched.lifeline.cut());
        state.orders.clear();
        let orphans = std::mem::take(&mut state.orphans).into_values();
        let cut = |Orphan { handle, mut lifeline }| {
            lifeline.cut();
            handle
        };
        orphans.map(cut).collect()
    }
}

#[async_trait]
impl Machine for Process {
    fn process(&self) -> Option<u32> {
        Some(self.number)
    }

    fn kill(&self) {
        let state = self.shared.lock();
        if state.processes.contains_key(&self.number) {
            // Not reaped yet as far as the zygote has told, so the number is still its own.
            let worker = Pid::from_raw(self.number.cast_signed());
            let group = Pid::from_raw(-self.number.cast_signed());
            if kill(group, Signal::SIGKILL).is_err() {
                // It has only just been forked, and is not in a group of its own yet.
                let _ = kill(worker, Signal::SIGKILL);
            }
        } else if let Some(Orphan { handle, .. }) = state.orphans.get(&self.number) {
            let _ = kill(Pid::from_raw(-self.number.cast_signed()), Signal::SIGKILL);
            let _ = pidfd_send_signal(handle, rustix::process::Signal::KILL);
        }
    }

    async fn ended(&self) -> Option<Exit> {
        let mut ended = self.ended.clone();
        let exit = ended.wait_for(Option::is_some).await.map_or(None, |exit| *exit);
        if exit.is_none() {
            self.orphan_ended().await;
        }
        exit
    }

    fn cpu_time(&self) -> Option<Duration> {
        let spent = std::fs::read_to_string(format!("/proc/{}/schedstat", self.number)).ok()?;
        spent.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }

    fn peak_memory(&self) -> Option<u64> {
        if !self.is_program {
            return None;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.number)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }
}

impl Process {
    /// What a worker that has ended too early said, for an error message.
    pub(crate) async fn last_words(&self) -> String {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ended()).await;
        self.shared.last_words()
    }

    /// Keeps the worker's cgroup until the worker has ended.
    pub(crate) fn hold(&mut self, cgroup: Option<Cgroup>) {
        self.cgroup = cgroup;
    }

    /// Waits for a worker that outlived its zygote.
    async fn orphan_ended(&self) {
        let handle = {
            let state = self.shared.lock();
            state
                .orphans
                .get(&self.number)
                .and_then(|orphan| orphan.handle.as_fd().try_clone_to_owned().ok())
        };
        let Some(handle) = handle else { return };
        let waiting = tokio::task::spawn_blocking(move || wait_for(&handle, WIND_UP));
        if waiting.await.unwrap_or(false) {
            self.shared.lock().orphans.remove(&self.number);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.shared.lock().orphans.remove(&self.number);
        let Some(mut cgroup) = self.cgroup.take() else { return };
        if let (false, Ok(runtime)) = (cgroup.remove(), tokio::runtime::Handle::try_current()) {
            let mut ended = self.ended.clone();
            runtime.spawn(async move {
                let _ = ended.wait_for(Option::is_some).await;
                // The other processes of the group are reaped a moment after the worker.
                for _ in 0..50 {
                    if cgroup.remove() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                warn!("a cgroup could not be removed; the next program that makes one removes it");
            });
        }
    }
}
