//! Ties a process group's life to its controller's.
//!
//! The controller holds one end of a pair of sockets, and each worker the other end of its own pair. A
//! worker asks the kernel to send SIGKILL to its process group when its end has news. The only news
//! there can be is that the other end is closed: the controller let go of it, exited or was killed.
//! Neither the zygote nor the worker has to be scheduled for that, and, unlike with
//! `PR_SET_PDEATHSIG`, workers outlive a zygote that was killed.
//!
//! It is no pipe, and not shared, because a pipe can be opened for writing by who has its other end,
//! through `/proc/self/fd`: that would be news to all, or keep all of them alive.
#![expect(unsafe_code, reason = "fcntl has no safe form for F_SETSIG and F_SETOWN")]

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

/// Makes this process's group die with the holder of the other end of `own`; with `survives_exec`,
/// also after the process has become another program.
pub(crate) fn attach(own: OwnedFd, survives_exec: bool) -> io::Result<()> {
    let fd = own.as_raw_fd();
    set(fd, F_SETSIG, libc::SIGKILL)?;
    set(fd, libc::F_SETOWN, -std::process::id().cast_signed())?;
    set(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC)?;
    if is_hung_up(fd) {
        return Err(io::Error::other("the controller is gone"));
    }
    // Programs that this one starts have no use for it: they are in the group.
    set(fd, libc::F_SETFD, if survives_exec { 0 } else { libc::FD_CLOEXEC })?;
    // Open for as long as the process lives: the kernel forgets the request with the descriptor.
    let _ = own.into_raw_fd();
    Ok(())
}

/// From the kernel's `asm-generic/fcntl.h`; the same on all Linux processors that we build for.
const F_SETSIG: i32 = 10;

fn set(fd: i32, what: i32, value: i32) -> io::Result<()> {
    // SAFETY: these commands take an integer and touch no memory of ours.
    match unsafe { libc::fcntl(fd, what, value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn is_hung_up(fd: i32) -> bool {
    let mut source = libc::pollfd { fd, events: 0, revents: 0 };
    // SAFETY: one valid entry is passed, and its count.
    unsafe { libc::poll(&raw mut source, 1, 0) == 1 && source.revents & libc::POLLHUP != 0 }
}
