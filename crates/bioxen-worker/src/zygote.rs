//! The zygote: two processes that have workers made and tell how they ended.
//!
//! The program that the controller starts becomes the *keeper*, which reaps. It forks the *forker*,
//! which holds itself in as its workers are to be and then forks one for each order; they are made the
//! keeper's children, so that the forker needs none of the rights that waiting and killing take.
//!
//! ```text
//! controller ──order + socket──▶ forker ──fork──▶ worker
//!     ▲◀────────Forked─────────────┘                │
//!     └─────────Ended──── keeper ◀──────────────────┘ reaped
//! ```
//!
//! The connection to the controller is the program's standard input. Both processes have one thread,
//! so that forking is safe, and do nothing between messages. When the controller hangs up the forker
//! exits, and the keeper after the last worker.
#![expect(unsafe_code, reason = "fork, and wait with resource usage, have no safe form")]

mod forker;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use bioxen_core::protocol::zygote::{Answer, Exit, How, Kind};
use bioxen_core::{Isolation, Mechanism};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{ForkResult, Pid, dup, dup2_stdin, dup2_stdout, fork, getpgid, getpid, setpgid};

use crate::{UNFILTERED, gate, sandbox};
use forker::Forker;

/// The connection to the controller, which keeps messages apart.
struct Control(OwnedFd);

impl Control {
    fn tell(&self, answer: &Answer) -> io::Result<()> {
        let message = rmp_serde::to_vec(answer).map_err(io::Error::other)?;
        match send(self.0.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL) {
            // The controller is gone; the next look at the connection says so too.
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The whole life of a zygote.
pub(crate) fn main() -> io::Result<()> {
    let argument = |place| std::env::args().nth(place);
    let kind = argument(1).unwrap_or_default();
    if kind == "--version" {
        return Err(io::Error::other(concat!("version ", env!("CARGO_PKG_VERSION"))));
    }
    let not_ours = || {
        io::Error::other("this program is started by the BioXen library; it does nothing by itself")
    };
    let kind: Kind = kind.parse().map_err(|_| not_ours())?;
    let filtered = argument(2).is_none_or(|argument| argument != UNFILTERED);
    let control = take_connection().map_err(|_| not_ours())?;
    forget_environment();

    // An interrupt typed at the terminal is the controller's to handle.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    // What workers leave behind is reaped here.
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut isolation = Isolation::default();
    enter_namespaces(!kind.net, &mut isolation);
    if filtered {
        // After the namespaces, which it forbids to enter.
        sandbox::apply_to_zygote()?;
    }
    let keeper = getpid();
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Keeper { control, forker: child }.keep(),
        ForkResult::Child => {
            let forker = Forker::enter(kind, filtered, keeper, control, isolation);
            let ended = forker.and_then(|mut forker| forker.serve());
            if let Err(error) = &ended {
                eprintln!("{}: {error}", crate::PROGRAM_NAME);
            }
            gate::exit(i32::from(ended.is_err()))
        }
    }
}

/// The controller's connection, in whose place nothing is left. All else that the controller had open
/// is closed: it may have been given descriptors that it does not know of.
fn take_connection() -> io::Result<Control> {
    nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(io::stdin().as_raw_fd())?;
    close_inherited()?;
    let control = dup(io::stdin().as_fd())?;
    nix::fcntl::fcntl(&control, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(Control(control))
}

/// Removes the variables that were for this program and its dynamic linker. Workers, and the programs
/// that they start, have those of their VM.
pub(crate) fn forget_environment() {
    let names: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in names {
        // SAFETY: this process has one thread, and no pointer into the environment is kept.
        unsafe { std::env::remove_var(name) };
    }
}

/// Closes what this program was given without knowing. What it has opened itself, as a runtime does
/// that was started before this was called, is told by that it would not outlive an `exec`.
fn close_inherited() -> io::Result<()> {
    for fd in open_descriptors()? {
        let flags = nix::fcntl::fcntl(unknown(fd), nix::fcntl::FcntlArg::F_GETFD);
        if flags.is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0) {
            let _ = nix::unistd::close(fd);
        }
    }
    Ok(())
}

/// Closes all but the standard streams and `kept`. For a process that was just forked, in which
/// nobody else uses them.
fn close_all_but(kept: &impl AsRawFd) -> io::Result<()> {
    for fd in open_descriptors()?.into_iter().filter(|fd| *fd != kept.as_raw_fd()) {
        // One of them was that of the listing and is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// All descriptors besides the standard streams.
fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let name = |entry: io::Result<std::fs::DirEntry>| entry.map(|entry| entry.file_name());
    let names: Vec<_> = std::fs::read_dir("/proc/self/fd")?.map(name).collect::<Result<_, _>>()?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse::<RawFd>().ok());
    Ok(numbers.filter(|fd| *fd > libc::STDERR_FILENO).collect())
}

/// A descriptor by its number, only to ask about it.
fn unknown(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it was open a moment ago; if it is not any more the question fails.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Enters namespaces of its own, which all workers share: it costs once what would cost each.
pub(crate) fn enter_namespaces(isolated: bool, isolation: &mut Isolation) {
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

/// The process that reaps.
struct Keeper {
    control: Control,
    forker: Pid,
}

impl Keeper {
    /// Reaps whatever ends, and kills what a worker has left, until there is nothing more to reap.
    ///
    /// When the controller hangs up, the workers' lifelines kill them; those that have cut theirs are
    /// killed here. A forker that did not exit by itself was killed: then this process exits, which
    /// the controller notices, and workers live on.
    fn keep(&self) -> io::Result<()> {
        let mut hung_up = false;
        loop {
            if hung_up {
                kill_children();
            }
            let Some(process) = next_ended()? else { return Ok(()) };
            if process == self.forker {
                match take_exit(process)?.how {
                    How::Exited(0) => hung_up = true,
                    how => return Err(io::Error::other(format!("it ended early: {how:?}"))),
                }
                continue;
            }
            let is_worker = is_worker(process);
            // Until it is reaped, no other process can get its number.
            let _ = kill(Pid::from_raw(-process.as_raw()), Signal::SIGKILL);
            let exit = take_exit(process)?;
            if is_worker {
                let process = process.as_raw().cast_unsigned();
                self.control.tell(&Answer::Ended { process, exit })?;
            }
        }
    }
}

/// Kills all children of this process and what is in their groups, where the kernel can list them.
pub(crate) fn kill_children() {
    let own = getpid();
    let listed = std::fs::read_to_string(format!("/proc/self/task/{own}/children"));
    let listed = listed.unwrap_or_default();
    for child in listed.split_whitespace().filter_map(|word| word.parse::<i32>().ok()) {
        // Until it is reaped, no other process can get its number.
        let _ = kill(Pid::from_raw(-child), Signal::SIGKILL);
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    }
}

/// Whether a process that has ended was a worker, and not something that a worker had started, which
/// is in its process group. A worker that was killed before it could enter a group of its own is in
/// this one.
fn is_worker(process: Pid) -> bool {
    getpgid(Some(process)).is_ok_and(|group| group == process || group == getpid())
}

/// Waits for a child to end, without reaping it; `None` when there are no children.
pub(crate) fn next_ended() -> io::Result<Option<Pid>> {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    loop {
        match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(status) => return Ok(status.pid()),
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps a child that has ended.
pub(crate) fn take_exit(process: Pid) -> io::Result<Exit> {
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
        cpu_time_us: Some(
            (microseconds(usage.ru_utime) + microseconds(usage.ru_stime)).cast_unsigned(),
        ),
        peak_resident: Some(usage.ru_maxrss.cast_unsigned() * 1024),
    })
}
