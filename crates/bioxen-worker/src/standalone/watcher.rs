//! The process that a worker which runs by itself is a child of.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bioxen_core::protocol::zygote::How;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, raise, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cgroup::Cgroup;
use crate::connection::Connection;
use crate::{gate, zygote};

/// How long a worker whose controller has hung up may take to leave by itself.
const GRACE: Duration = Duration::from_millis(100);

pub(super) struct Watcher {
    connection: Connection,
    worker: Pid,
    /// While this is open the worker lives, unless it ends by itself or is killed from here.
    _lifeline: UnixStream,
    signals: SignalFd,
    controller: Controller,
}

/// Whether anybody wants the worker.
#[derive(Clone, Copy)]
enum Controller {
    There,
    /// It has hung up. The worker is killed at this time, if it does not leave by itself.
    Gone(Instant),
    /// It has hung up, and the worker has been killed.
    Forgotten,
}

impl Watcher {
    /// Watches a child, whose end `signals` announces.
    pub(super) fn new(
        connection: Connection,
        worker: Pid,
        lifeline: UnixStream,
        signals: &SigSet,
    ) -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(signals, flags)?;
        Ok(Self { connection, worker, _lifeline: lifeline, signals, controller: Controller::There })
    }

    /// Returns never, but ends as the worker did once nothing is left of it, nor of its cgroup. The
    /// other end of the connection is seen to close then.
    pub(super) fn watch(mut self, cgroup: Option<Cgroup>) -> io::Result<()> {
        let how = loop {
            if let Some(how) = self.reap()? {
                break how;
            }
            self.wait()?;
        };
        loop {
            zygote::kill_children();
            let Some(process) = zygote::next_ended()? else { break };
            zygote::take_exit(process)?;
        }
        drop(cgroup);
        end_as(how)
    }

    /// Reaps what has ended. Returns how the worker did, once it has.
    fn reap(&self) -> io::Result<Option<How>> {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        while let Some(process) = waitid(Id::All, look)?.pid() {
            if process == self.worker {
                // Until it is reaped, no other process can get its number.
                self.kill();
                return zygote::take_exit(process).map(|exit| Some(exit.how));
            }
            zygote::take_exit(process)?;
        }
        Ok(None)
    }

    fn kill(&self) {
        let _ = kill(Pid::from_raw(-self.worker.as_raw()), Signal::SIGKILL);
        // It may have been forked only just, and not be in a group of its own yet.
        let _ = kill(self.worker, Signal::SIGKILL);
    }

    /// Waits for a child to end, and notices meanwhile that the controller hangs up.
    fn wait(&mut self) -> io::Result<()> {
        let left = match self.controller {
            Controller::There | Controller::Forgotten => None,
            Controller::Gone(at) => Some(at.saturating_duration_since(Instant::now())),
        };
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        });
        let children = self.signals.as_fd();
        // A pipe says so in any case, a socket when it is asked.
        let reader = PollFd::from_borrowed_fd(self.connection.reader(), PollFlags::RDHUP);
        let mut sources = vec![PollFd::from_borrowed_fd(children, PollFlags::IN)];
        if matches!(self.controller, Controller::There) {
            sources.push(reader);
        }
        match poll(&mut sources, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        let hung_up = sources.get(1).is_some_and(|reader| !reader.revents().is_empty());
        drop(sources);
        while self.signals.read_signal()?.is_some() {}
        match self.controller {
            Controller::There if hung_up => {
                self.controller = Controller::Gone(Instant::now() + GRACE);
            }
            Controller::Gone(at) if at <= Instant::now() => {
                self.kill();
                self.controller = Controller::Forgotten;
            }
            Controller::There | Controller::Gone(_) | Controller::Forgotten => {}
        }
        Ok(())
    }
}

/// Ends this process as another one ended.
fn end_as(how: How) -> ! {
    let number = match how {
        How::Exited(code) => gate::exit(code),
        How::Signalled(number) => number,
    };
    // With 0 the kernel would still hand it to the program that is to take dumps.
    let _ = setrlimit(Resource::RLIMIT_CORE, 1, 1);
    if let Ok(same) = Signal::try_from(number) {
        // SAFETY: the default action is no function of ours.
        let _ = unsafe { signal(same, SigHandler::SigDfl) };
        let _ = raise(same);
    }
    gate::exit(128 + number)
}
