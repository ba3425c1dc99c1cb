//! System calls that a zygote makes for its workers and that no worker makes itself.
//!
//! All workers of a kind share one system-call filter, which is applied to the process that forks
//! them. That process must still be able to fork, and a worker that has just been forked must leave
//! its process group, which the filter refuses to everybody else. So these calls carry a key in their sixth argument, which the kernel does not read and the filter does. The
//! key is made at random and known to the forking process alone: a worker forgets it, wherever it may
//! have been in memory, before it reads anything from its controller. Who does not know the key would
//! have to guess 64 bits, one system call a guess.
#![expect(unsafe_code, reason = "fork, and calls with a sixth argument, have no safe form")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, c_long};

static KEY: AtomicU64 = AtomicU64::new(0);

/// The most stack that a call through the gate may have used, with room to spare.
const STACK_TO_FORGET: usize = 16 << 10;

/// What `fork` returns, in which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forked {
    /// In the process that forked, with the other's number.
    Parent(u32),
    Child,
}

/// Makes the key. Called once, before there is a filter.
#[inline(never)]
pub(crate) fn make_key() -> io::Result<()> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the place to write to is ours and as long as said.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != 8 {
        return Err(io::Error::last_os_error());
    }
    KEY.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    Ok(())
}

/// The two halves of the key, the more significant first, as a filter sees them.
#[inline(never)]
pub(crate) fn with_halves<T>(use_them: impl FnOnce(u32, u32) -> T) -> T {
    let key = KEY.load(Ordering::Relaxed);
    let low = u32::try_from(key & u64::from(u32::MAX)).expect("it is masked");
    let high = u32::try_from(key >> 32).expect("it is shifted");
    use_them(high, low)
}

/// Forks a process whose parent is this process's parent. This process must have one thread.
#[inline(never)]
pub(crate) fn fork() -> io::Result<Forked> {
    let flags = c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    match call(libc::SYS_clone, [flags, 0, 0, 0, 0])? {
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent(u32::try_from(child).map_err(io::Error::other)?)),
    }
}

/// Makes this process the first of a process group of its own.
#[inline(never)]
pub(crate) fn enter_own_process_group() -> io::Result<()> {
    call(libc::SYS_setpgid, [0; 5]).map(drop)
}

#[inline(never)]
fn call(number: c_long, arguments: [c_long; 5]) -> io::Result<c_long> {
    let [first, second, third, fourth, fifth] = arguments;
    let key = KEY.load(Ordering::Relaxed);
    // SAFETY: the callers above pass what these calls take. A forked child has a copy of all memory
    // and, its parent having one thread, may do anything.
    let outcome = unsafe { libc::syscall(number, first, second, third, fourth, fifth, key) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

/// Forgets the key, and what is left of it on the stack.
///
/// For that to be all of it, the function that calls this must itself have made the other calls to
/// this module, so that what they left lies below its frame.
#[inline(never)]
pub(crate) fn forget_key() {
    KEY.store(0, Ordering::SeqCst);
    clear_stack();
}

/// Overwrites what calls have left on the stack below the frame of the caller.
#[inline(never)]
pub(crate) fn clear_stack() {
    let mut stack = [0_u8; STACK_TO_FORGET];
    // The compiler must not find out that nobody reads it.
    std::hint::black_box(&mut stack);
}

/// The calls that go through the gate, for a filter.
pub(crate) const CALLS: [c_long; 2] = [libc::SYS_clone, libc::SYS_setpgid];

/// The argument that the key is in.
pub(crate) const ARGUMENT: u8 = 5;

/// Ends this process without running what belongs to the one that it was forked from.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: takes no memory and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u64 = 0x5555_aaaa_3333_cccc;

    /// Uses the key, deeper down than the search for it reaches itself, and returns it in a form in
    /// which nobody finds it.
    #[inline(never)]
    fn use_key() -> u64 {
        let mut depth = [0_u8; 4 << 10];
        std::hint::black_box(&mut depth);
        make_key().unwrap();
        // Fails where this process is the first of its session, which is as well.
        let _ = enter_own_process_group();
        KEY.load(Ordering::Relaxed) ^ MASK
    }

    /// The places, from `start` down, at which the key lies.
    #[inline(never)]
    fn find(masked: u64, start: *const u64, places: usize) -> usize {
        (0..places)
            .filter(|place| {
                // SAFETY: a test's stack reaches much further down.
                let found = unsafe { start.wrapping_sub(*place).read_volatile() };
                found ^ MASK == masked
            })
            .count()
    }

    #[test]
    fn a_key_that_was_forgotten_is_not_left_on_the_stack() {
        const PLACES: usize = 32 << 10 >> 3;
        let here = 0_u64;
        let start = (&raw const here).cast::<u64>();
        let masked = use_key();
        let before = find(masked, start, PLACES);
        forget_key();
        assert_eq!(find(masked, start, PLACES), 0, "{before} before");
        assert!(before > 0, "there was nothing to forget");
        assert_eq!(KEY.load(Ordering::Relaxed), 0);
    }
}
