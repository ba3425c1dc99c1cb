//! The zygote: forks workers, reaps them, and tells how they ended.
//!
//! It is started with its controller's connection as standard input and the lifeline as standard
//! output. It has one thread, so that forking is safe, and does nothing between messages. When the
//! controller hangs up it kills what is left of its workers, reaps them and exits.
#![expect(unsafe_code, reason = "fork, and wait with resource usage, have no safe form")]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use bioxen_core::protocol::Reply;
use bioxen_core::protocol::zygote::{Answer, Exit, How, LARGEST_DATAGRAM, Order, exit_code};
use bioxen_core::{Isolation, Mechanism};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use nix::unistd::{ForkResult, Pid, dup, dup2_stdin, dup2_stdout, fork, setpgid};

use crate::connection::Connection;
use crate::console;
use crate::sandbox::{self, Filters};
use crate::serve::{self, Prepared};
use crate::{ISOLATED, UNFILTERED, lifeline};

struct Zygote {
    control: OwnedFd,
    lifeline: OwnedFd,
    children: SignalFd,
    workers: BTreeSet<Pid>,
    /// Room for one message. Made once: memory that is touched anew after a fork is copied anew.
    incoming: Vec<u8>,
    filters: Filters,
    prepared: Option<Prepared>,
    /// What all workers share.
    isolation: Isolation,
}

/// What reading an order came to.
enum Incoming {
    Order(Box<Order>, OwnedFd),
    HungUp,
}

/// The whole life of a zygote.
pub(crate) fn main() -> io::Result<()> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--version") {
        return Err(io::Error::other(concat!("version ", env!("CARGO_PKG_VERSION"))));
    }
    let not_ours = |_| {
        io::Error::other("this program is started by the BioXen library; it does nothing by itself")
    };
    let control = dup(io::stdin().as_fd())?;
    let lifeline = dup(io::stdout().as_fd())?;
    nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(control.as_raw_fd())
        .map_err(not_ours)?;
    for fd in [&control, &lifeline] {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    }
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    drop(null);

    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    // An interrupt typed at the terminal is the controller's to handle.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    // What workers leave behind is reaped here.
    nix::sys::prctl::set_child_subreaper(true)?;
    let children = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    let mut isolation = Isolation::default();
    let isolated = std::env::args_os().nth(1).is_some_and(|argument| argument == ISOLATED);
    enter_namespaces(isolated, &mut isolation);

    // After the namespaces, which it forbids to enter.
    let unfiltered = std::env::args_os().nth(2).is_some_and(|argument| argument == UNFILTERED);
    let filters = Filters::new(unfiltered)?;

    let mut zygote = Zygote {
        control,
        lifeline,
        children,
        workers: BTreeSet::new(),
        incoming: vec![0; LARGEST_DATAGRAM],
        filters,
        prepared: Some(Prepared::new()?),
        isolation,
    };
    zygote.tell(&Answer::Ready(zygote.isolation.clone()))?;
    // SAFETY: tidies the C library's heap and takes no pointer. Free blocks that lie about would be
    // put together by each forked worker anew, which copies the pages that they are in.
    unsafe { libc::malloc_trim(0) };
    zygote.serve()
}

/// Enters namespaces of its own, which all workers share: it costs once what would cost each.
fn enter_namespaces(isolated: bool, isolation: &mut Isolation) {
    let wanted = [
        (Mechanism::IpcNamespace, CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS),
        (Mechanism::NetworkNamespace, CloneFlags::CLONE_NEWNET),
    ];
    if !isolated {
        for (mechanism, _) in wanted {
            isolation.missed(mechanism, "left out where the network is granted");
        }
        return;
    }
    // An ordinary user gets the right to make namespaces from a user namespace. Root has it, and
    // would lose access to other users' files in one.
    let first = if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
        unshare(CloneFlags::CLONE_NEWUSER).and_then(|()| {
            std::fs::write("/proc/self/setgroups", "deny")
                .and_then(|()| std::fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
                .and_then(|()| std::fs::write("/proc/self/gid_map", format!("{group} {group} 1")))
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EPERM)))
        })
    };
    for (mechanism, flags) in wanted {
        let outcome = first.and_then(|()| unshare(flags));
        isolation.note(mechanism, outcome.map_err(|errno| format!("not allowed here: {errno}")));
    }
}

impl Zygote {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut sources = [
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut sources, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [controller, child] = sources.map(|source| source.any().unwrap_or(false));
            if child {
                while self.children.read_signal()?.is_some() {}
                self.reap()?;
            }
            if controller {
                match self.next_order()? {
                    Incoming::Order(order, socket) => self.fork_worker(&order, socket)?,
                    Incoming::HungUp => return self.wind_up(),
                }
            }
        }
    }

    fn tell(&self, answer: &Answer) -> io::Result<()> {
        let message = rmp_serde::to_vec(answer).map_err(io::Error::other)?;
        match send(self.control.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL) {
            // The controller is gone; the next look at its connection says so too.
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn next_order(&mut self) -> io::Result<Incoming> {
        let mut parts = [io::IoSliceMut::new(&mut self.incoming)];
        let mut passed = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let fd = self.control.as_raw_fd();
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(fd, &mut parts, Some(&mut passed), flags)?;
        let length = message.bytes;
        if length == 0 {
            return Ok(Incoming::HungUp);
        }
        let socket = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        let socket = socket.ok_or_else(|| io::Error::other("an order came without a socket"))?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(socket) };
        let order = rmp_serde::from_slice(&self.incoming[..length]).map_err(io::Error::other)?;
        Ok(Incoming::Order(Box::new(order), socket))
    }

    fn fork_worker(&mut self, order: &Order, socket: OwnedFd) -> io::Result<()> {
        self.filters.prepare(order);
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => {
                // Both sides do this, so that neither has to wait for the other.
                let _ = setpgid(child, child);
                self.workers.insert(child);
                let process = child.as_raw().cast_unsigned();
                self.tell(&Answer::Forked { order: order.id, process })
            }
            Ok(ForkResult::Child) => {
                let code = self.become_worker(order, socket);
                // SAFETY: ends the child without running what belongs to the zygote.
                unsafe { libc::_exit(code) }
            }
            Err(error) => {
                self.tell(&Answer::Refused { order: order.id, reason: error.to_string() })
            }
        }
    }

    /// The child's part. Returns its exit code.
    fn become_worker(&mut self, order: &Order, socket: OwnedFd) -> i32 {
        let mut connection = Connection::new(socket);
        let isolation = match self.hold_in(order, &connection) {
            Ok(isolation) => isolation,
            Err(error) => return refuse(&mut connection, &error.to_string()),
        };
        if let Some(program) = &order.program {
            let error = become_program(program, order, isolation, &mut connection);
            let reason = format!("{} cannot be run: {error}", program.display());
            return refuse(&mut connection, &reason);
        }
        let Some(prepared) = self.prepared.take() else { return 1 };
        match serve::serve(connection, prepared, isolation, order.working_directory.clone()) {
            Ok(()) => 0,
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => exit_code::MEMORY,
            Err(_) => 1,
        }
    }

    /// Holds the child in, and says how far.
    fn hold_in(&self, order: &Order, connection: &Connection) -> io::Result<Isolation> {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        lifeline::attach(&self.lifeline)?;
        if order.program.is_some() {
            // The connection becomes the program's standard input and output.
            dup2_stdin(connection.as_fd())?;
            dup2_stdout(connection.as_fd())?;
        } else if order.grants.spawn {
            console::collect_errors_of_programs()?;
        }
        sandbox::enter(order, &self.isolation, &self.filters)
    }

    /// Reaps whatever has ended, and kills what a worker has left.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(process) = next_ended()? {
            if self.workers.contains(&process) {
                // Until it is reaped, no other process can get its number.
                let _ = kill(Pid::from_raw(-process.as_raw()), Signal::SIGKILL);
            }
            let exit = take_exit(process)?;
            if self.workers.remove(&process) {
                let process = process.as_raw().cast_unsigned();
                self.tell(&Answer::Ended { process, exit })?;
            }
        }
        Ok(())
    }

    /// Kills and reaps all that is left.
    fn wind_up(&mut self) -> io::Result<()> {
        for worker in &self.workers {
            let _ = kill(Pid::from_raw(-worker.as_raw()), Signal::SIGKILL);
        }
        loop {
            match nix::sys::wait::wait() {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Becomes an interpreter that is a program of its own. Returns only when that fails.
fn become_program(
    program: &Path,
    order: &Order,
    isolation: Isolation,
    connection: &mut Connection,
) -> io::Error {
    if let Err(error) = connection.send(&[Reply::Sandboxed(isolation)]) {
        return error;
    }
    let mut command = Command::new(program);
    command.arg("-e").arg(crate::shim_bootstrap()).env_clear().envs(&order.environment);
    command.exec()
}

fn refuse(connection: &mut Connection, reason: &str) -> i32 {
    // When this fails the controller is gone, and the worker is about to be.
    let _ = connection.send(&[Reply::Fatal(reason.into())]);
    1
}

/// A child that has ended and is not reaped yet.
fn next_ended() -> io::Result<Option<Pid>> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::All, flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => Ok(None),
        Ok(status) => Ok(status.pid()),
        Err(error) => Err(error.into()),
    }
}

/// Reaps a child that has ended.
fn take_exit(process: Pid) -> io::Result<Exit> {
    let mut status = 0;
    // SAFETY: both places are ours to write to.
    let (reaped, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(process.as_raw(), &raw mut status, 0, &raw mut usage), usage)
    };
    if reaped < 0 {
        return Err(io::Error::last_os_error());
    }
    let how = if libc::WIFSIGNALED(status) {
        How::Signalled(libc::WTERMSIG(status))
    } else {
        How::Exited(libc::WEXITSTATUS(status))
    };
    let microseconds = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    Ok(Exit {
        how,
        cpu_time_us: (microseconds(usage.ru_utime) + microseconds(usage.ru_stime)).cast_unsigned(),
        peak_resident: usage.ru_maxrss.cast_unsigned() * 1024,
    })
}
