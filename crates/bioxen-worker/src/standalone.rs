//! A worker that runs by itself: a program for one VM, which speaks over standard input and output.
//!
//! The program that is started reads the order and becomes the *watcher*. It forks the worker, which
//! resolves what was ordered, holds itself in and serves.
//!
//! ```text
//! controller ◀──standard input and output──▶ worker ──forks──▶ programs, in its group
//!     └──────── hangs up ──▶ watcher ──SIGKILL──▶ │
//!                               └──ended by anyone: lifeline ──SIGKILL──▶ the worker's group
//! ```
//!
//! The watcher has one thread, no right that it does not need, and nothing to do with what runs: when
//! the controller hangs up, or the worker ends, it kills the worker's group, reaps all of it and ends as
//! the worker did, so that whoever started it learns how.
#![expect(unsafe_code, reason = "fork, and descriptors of this process, have no safe form")]

mod opening;
mod resolve;
mod watcher;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use bioxen_core::protocol::standalone::{Accepted, Answer, FoundProgram, Refusal};
use bioxen_core::protocol::zygote::{Kind, Order};
use bioxen_core::{Isolation, Mechanism};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, dup2_stdin, dup2_stdout, fork, getpid, pipe, setpgid};

use crate::cgroup::Cgroup;
use crate::connection::Connection;
use crate::serve::Prepared;
use crate::{SERVE, UNFILTERED, gate, lifeline, sandbox, worker, zygote};
use watcher::Watcher;

/// The whole life of a worker that runs by itself.
pub(crate) fn main() -> io::Result<()> {
    let filtered = std::env::args().nth(2).is_none_or(|argument| argument != UNFILTERED);
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        return Err(io::Error::other(format!(
            "`{SERVE}` is for a controller, which speaks to it over standard input and output; \
             to run Lua by hand, use `bioxen run` or `bioxen repl`"
        )));
    }
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let mut connection = take_connection()?;
    let mut order = match opening::receive(&mut connection) {
        Ok(Some(order)) => order,
        Ok(None) => return Ok(()),
        Err(refusal) => {
            opening::answer(&mut connection, &Answer::Refused(refusal.clone()))?;
            return Err(io::Error::other(refusal));
        }
    };
    zygote::forget_environment();
    let kind = Kind::of(&order);

    // What the worker leaves behind is reaped here.
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut isolation = Isolation::default();
    let cgroup = make_cgroup(&mut order, &mut isolation);
    zygote::enter_namespaces(!kind.net, &mut isolation);
    if filtered {
        // After the namespaces, which it forbids to enter.
        sandbox::apply_to_zygote()?;
    }
    let (ours, theirs) = UnixStream::pair()?;
    let ends_of_children = SigSet::from(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ends_of_children), None)?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(theirs);
            Watcher::new(connection, child, ours, &ends_of_children)?.watch(cgroup)
        }
        ForkResult::Child => {
            // It is the watcher's to remove.
            std::mem::forget(cgroup);
            drop(ours);
            sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&ends_of_children), None)?;
            let birth = Birth { order, search_path, isolation, filtered, lifeline: theirs.into() };
            gate::exit(birth.into_life(connection))
        }
    }
}

/// The group for a worker that may start programs, where one can be made.
fn make_cgroup(order: &mut Order, isolation: &mut Isolation) -> Option<Cgroup> {
    if !Kind::of(order).spawn {
        return None;
    }
    match Cgroup::create(&order.limits) {
        Ok(cgroup) => {
            order.cgroup = cgroup.directories().to_vec();
            Some(cgroup)
        }
        Err(reason) => {
            isolation.missed(Mechanism::Cgroup, reason);
            None
        }
    }
}

/// Standard input and output, in whose place nothing is left. All else that whoever started this
/// program had open is closed.
fn take_connection() -> io::Result<Connection> {
    close_all_but_standard_streams()?;
    let (reader, writer) = (take(&io::stdin())?, take(&io::stdout())?);
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
    } else {
        // An empty root directory: then there are no programs either that could use them.
        let (end, start) = pipe()?;
        dup2_stdin(&end)?;
        dup2_stdout(&start)?;
    }
    Ok(Connection::of_two_ends(reader, writer))
}

/// Takes over a standard stream, which is not handed on to programs.
fn take(stream: &impl AsFd) -> io::Result<OwnedFd> {
    let taken = fcntl(stream, FcntlArg::F_DUPFD_CLOEXEC(libc::STDERR_FILENO + 1))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let taken = unsafe { OwnedFd::from_raw_fd(taken) };
    // Whoever made the stream may have left it so that reading does not wait.
    fcntl(&taken, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(taken)
}

/// Closes what this process may have been given descriptors of without knowing.
fn close_all_but_standard_streams() -> io::Result<()> {
    let (first, last) = (libc::STDERR_FILENO + 1, libc::c_uint::MAX);
    // SAFETY: nothing in this process has opened a descriptor yet.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    // Kernels before 5.9 do not know the call.
    let (most, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    let most = i32::try_from(most.min(1 << 16)).unwrap_or(i32::MAX);
    for fd in first..most {
        // Most of them are not open.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// A child of the watcher that is to be a worker.
struct Birth {
    order: Order,
    search_path: OsString,
    /// The namespaces, which are the watcher's too.
    isolation: Isolation,
    filtered: bool,
    lifeline: OwnedFd,
}

impl Birth {
    /// Becomes the worker. Returns its exit code.
    fn into_life(self, mut connection: Connection) -> i32 {
        let Self { mut order, search_path, mut isolation, filtered, lifeline } = self;
        let accepted = match tie(&order, lifeline) {
            Ok(()) => resolve::resolve(&mut order, &search_path),
            Err(error) => Err(Refusal::SetUp { reason: error.to_string() }),
        };
        let is_accepted = accepted.is_ok();
        let answer = accepted.map_or_else(Answer::Refused, Answer::Accepted);
        if opening::answer(&mut connection, &answer).is_err() || !is_accepted {
            return 1;
        }
        match enter_kind(&order, filtered, &mut isolation) {
            Ok(prepared) => worker::live(&order, connection, prepared, &isolation, None),
            Err(error) => worker::refuse(&mut connection, &error.to_string()),
        }
    }
}

/// Enters a process group of its own, which ends with the watcher.
fn tie(order: &Order, lifeline: OwnedFd) -> io::Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    lifeline::attach(lifeline, order.program.is_some())
}

/// Holds this process in as all workers of its kind are. Nobody has the filter's key afterwards.
#[inline(never)]
fn enter_kind(
    order: &Order,
    filtered: bool,
    isolation: &mut Isolation,
) -> io::Result<Option<Prepared>> {
    let prepared = if order.program.is_some() { None } else { Some(Prepared::new()?) };
    gate::make_key()?;
    let entered = sandbox::enter_kind(Kind::of(order), filtered, isolation);
    gate::forget_key();
    entered.map(|()| prepared)
}

/// What is told of an order that was understood.
fn accepted(order: &Order, program: Option<FoundProgram>) -> Accepted {
    Accepted {
        process: getpid().as_raw().cast_unsigned(),
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        program,
        grants: order.grants.clone(),
        working_directory: order.working_directory.clone().unwrap_or_default(),
    }
}
