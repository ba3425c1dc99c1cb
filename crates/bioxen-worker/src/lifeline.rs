//! Ties a process group's life to its controller's.
//!
//! The controller holds the only write end of a pipe. Each worker opens the read end anew, so that
//! the settings below are its own, and asks the kernel to send SIGKILL to its process group when the
//! pipe has news. The only news there can be is that the last writer is gone: the controller exited
//! or was killed. Neither the zygote nor the worker has to be scheduled for that, and, unlike with
//! `PR_SET_PDEATHSIG`, workers outlive a zygote that was killed.
#![expect(unsafe_code, reason = "fcntl has no safe form for F_SETSIG and F_SETOWN")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

/// Where a process that inherited the read end `pipe` opens it anew.
pub(crate) fn path(pipe: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", pipe.as_raw_fd())).expect("it holds no zero byte")
}

/// Makes this process's group die with the holder of the pipe's other end, also after the process
/// has become another program by `exec`. `own` is the read end, opened anew.
pub(crate) fn attach(own: OwnedFd) -> io::Result<()> {
    let fd = own.as_raw_fd();
    set(fd, F_SETSIG, libc::SIGKILL)?;
    set(fd, libc::F_SETOWN, -std::process::id().cast_signed())?;
    set(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC)?;
    if is_hung_up(fd) {
        return Err(io::Error::other("the controller is gone"));
    }
    // Open for as long as the process lives, not only until its first `exec`: the kernel forgets
    // the request with the descriptor.
    set(fd, libc::F_SETFD, 0)?;
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
