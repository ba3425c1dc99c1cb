//! Ends evaluations that are over a limit or no longer wanted.
//!
//! There is no thread and no count hook (which would halve Lua's speed). One interval timer and one
//! signal handler watch a running evaluation:
//!
//! ```text
//! begin ──2 ms──▶ first look: from now on a message from the controller raises SIGIO too
//!                    ├─ message there ─────────────▶ request(Cancelled)
//!                    ├─ deadline / CPU limit ──────▶ request(WallTime / CpuTime)
//!                    └─ output waits for 5 ms ─────▶ hook that sends it and removes itself
//! request ──▶ a hook before every Lua instruction of every coroutine that is running ──▶ error
//!        └──50 ms, still running──▶ _exit with a code that says why (the Lua state is lost)
//! ```
//!
//! Where the descriptor on which messages arrive raises no signal, it is looked at every 10 ms instead.
//!
//! A hook before every instruction cannot be swallowed by `pcall`. It is not heard by finalisers,
//! message handlers and loops inside C functions; those end with the process.
#![expect(unsafe_code, reason = "signal handlers and Lua hooks are called by C")]

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bioxen_core::protocol::Status;
use bioxen_core::protocol::zygote::exit_code;
use mlua_sys as ffi;

use crate::console;

/// How soon a running evaluation is looked at first; shorter ones cost one system call.
const FIRST_LOOK: u64 = 2_000_000;
/// How long written output may wait for more before it is sent.
const OUTPUT_PATIENCE: u64 = 5_000_000;
/// How often to look for a message that nothing announces.
const PACE: u64 = 10_000_000;
/// How long Lua may take to hear a request to stop.
const GRACE: u64 = 50_000_000;

/// Why an evaluation is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    WallTime = 1,
    CpuTime = 2,
    Output = 3,
    Cancelled = 4,
    Exit = 5,
}

impl Reason {
    const ALL: [Self; 5] =
        [Self::WallTime, Self::CpuTime, Self::Output, Self::Cancelled, Self::Exit];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// How the controller hears of it.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::WallTime => Status::WallTime,
            Self::CpuTime => Status::CpuTime,
            Self::Output => Status::Output,
            Self::Cancelled => Status::Cancelled,
            Self::Exit => Status::Finished,
        }
    }

    fn exit_code(self) -> i32 {
        match self {
            Self::WallTime => exit_code::WALL_TIME,
            Self::CpuTime => exit_code::CPU_TIME,
            Self::Output => exit_code::OUTPUT,
            Self::Cancelled => exit_code::CANCELLED,
            Self::Exit => exit_code::EXIT,
        }
    }

    /// What the Lua code sees as its error.
    fn message(self) -> &'static std::ffi::CStr {
        match self {
            Self::WallTime => c"the run was stopped: its time was up",
            Self::CpuTime => c"the run was stopped: its processor time was up",
            Self::Output => c"the run was stopped: it wrote more than allowed",
            Self::Cancelled => c"the run was cancelled",
            Self::Exit => c"the run called os.exit",
        }
    }
}

// All of this is shared with the signal handler, which runs on this process's only thread.
/// When the timer that has been set runs out; 0 when it has.
static TIMER_DUE: AtomicU64 = AtomicU64::new(0);
static RUNNING: AtomicBool = AtomicBool::new(false);
static WAITING_FOR_INPUT: AtomicBool = AtomicBool::new(false);
static LISTENING: AtomicBool = AtomicBool::new(false);
/// Whether messages come unannounced.
static UNANNOUNCED: AtomicBool = AtomicBool::new(false);
static REASON: AtomicU8 = AtomicU8::new(0);
static GRACE_ENDS: AtomicU64 = AtomicU64::new(u64::MAX);
static DEADLINE: AtomicU64 = AtomicU64::new(u64::MAX);
static CPU_DEADLINE: AtomicU64 = AtomicU64::new(u64::MAX);
static OUTPUT_DUE: AtomicU64 = AtomicU64::new(u64::MAX);
static READER: AtomicI32 = AtomicI32::new(-1);
static RUNNING_STATES: AtomicPtr<RunningState> = AtomicPtr::new(ptr::null_mut());

/// A Lua state (the main one or a coroutine) that is on the way to the instruction being executed.
///
/// It lives on the stack of whoever runs the state, from [`RunningState::enter`] to
/// [`RunningState::leave`]; Lua errors do not jump over these frames.
pub(crate) struct RunningState {
    state: *mut ffi::lua_State,
    outer: *mut RunningState,
}

impl RunningState {
    pub(crate) fn of(state: *mut ffi::lua_State) -> Self {
        Self { state, outer: ptr::null_mut() }
    }

    /// Publishes the state to the signal handler.
    ///
    /// # Safety
    ///
    /// `self` must not move and `leave` must be called before it is gone.
    pub(crate) unsafe fn enter(&mut self) {
        self.outer = RUNNING_STATES.load(Ordering::Relaxed);
        RUNNING_STATES.store(self, Ordering::SeqCst);
        if pending().is_some() {
            // SAFETY: the state is alive, as it is about to run.
            unsafe { set_hook(self.state, true) };
        }
    }

    pub(crate) fn leave(&mut self) {
        RUNNING_STATES.store(self.outer, Ordering::SeqCst);
    }
}

/// The reason for which the present evaluation is to end, if it is.
pub(crate) fn pending() -> Option<Reason> {
    Reason::from_number(REASON.load(Ordering::Relaxed))
}

/// Whether an evaluation runs.
pub(crate) fn is_running() -> bool {
    RUNNING.load(Ordering::Relaxed)
}

/// Installs the signal handlers. `reader` is where the controller's messages arrive.
pub(crate) fn install(reader: RawFd) -> io::Result<()> {
    READER.store(reader, Ordering::Relaxed);
    for signal in [libc::SIGALRM, libc::SIGIO] {
        // SAFETY: `action` is fully initialised, and the handler only does what is allowed in one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaddset(&raw mut action.sa_mask, libc::SIGALRM);
            libc::sigaddset(&raw mut action.sa_mask, libc::SIGIO);
            if libc::sigaction(signal, &raw const action, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    // A worker that stops the programs it has started signals its whole group, itself included.
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGTERM, ignore as extern "C" fn(libc::c_int) as usize) };
    // SAFETY: takes an integer.
    let owned = unsafe { libc::fcntl(reader, libc::F_SETOWN, std::process::id().cast_signed()) };
    UNANNOUNCED.store(owned == -1, Ordering::Relaxed);
    Ok(())
}

/// Starts to watch an evaluation. `cpu_now` is the processor time that the process has used.
pub(crate) fn begin(wall: Option<Duration>, cpu: Option<Duration>, cpu_now: u64) {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let after = |start: u64, limit: Option<Duration>| {
        limit.map_or(u64::MAX, |limit| start.saturating_add(nanoseconds(limit)))
    };
    let now = monotonic_now();
    REASON.store(0, Ordering::Relaxed);
    GRACE_ENDS.store(u64::MAX, Ordering::Relaxed);
    OUTPUT_DUE.store(u64::MAX, Ordering::Relaxed);
    DEADLINE.store(after(now, wall), Ordering::Relaxed);
    CPU_DEADLINE.store(after(cpu_now, cpu), Ordering::Relaxed);
    RUNNING.store(true, Ordering::SeqCst);
    let first = [Some(FIRST_LOOK), wall.map(nanoseconds), cpu.map(nanoseconds)];
    let first = first.into_iter().flatten().min().unwrap_or(FIRST_LOOK);
    // A timer that an evaluation before this one has left will do, if it runs out early enough.
    let due = TIMER_DUE.load(Ordering::Relaxed);
    if due == 0 || due > now.saturating_add(first) {
        arm(first);
    }
}

/// Stops watching, and says why the evaluation had to end, if it had to.
///
/// The timer is left to run out: the handler ignores it, and the next evaluation sets it anew.
pub(crate) fn end() -> Option<Reason> {
    RUNNING.store(false, Ordering::SeqCst);
    if LISTENING.swap(false, Ordering::Relaxed) {
        listen(false);
    }
    let reason = pending();
    REASON.store(0, Ordering::Relaxed);
    reason
}

/// Asks the running evaluation to end. Later requests do not change the reason.
pub(crate) fn request(reason: Reason) {
    let unset = REASON.compare_exchange(0, reason as u8, Ordering::SeqCst, Ordering::Relaxed);
    if unset.is_ok() {
        GRACE_ENDS.store(monotonic_now().saturating_add(GRACE), Ordering::Relaxed);
        // SAFETY: the published states are alive.
        unsafe { set_hooks(true) };
        arm(GRACE);
    }
}

/// Notes that output has been written and is not sent yet.
pub(crate) fn output_waits() {
    if is_running() && OUTPUT_DUE.load(Ordering::Relaxed) == u64::MAX {
        let now = monotonic_now();
        OUTPUT_DUE.store(now.saturating_add(OUTPUT_PATIENCE), Ordering::Relaxed);
        // Before the first look the timer is due soon anyway.
        if LISTENING.load(Ordering::Relaxed) {
            arm_for_next(now);
        }
    }
}

/// Notes that all written output has been sent.
pub(crate) fn output_sent() {
    OUTPUT_DUE.store(u64::MAX, Ordering::Relaxed);
}

/// While code waits for input, what arrives is that input and no request to stop.
pub(crate) fn waiting_for_input(waiting: bool) {
    WAITING_FOR_INPUT.store(waiting, Ordering::SeqCst);
}

extern "C" fn ignore(_signal: libc::c_int) {}

extern "C" fn on_signal(signal: libc::c_int) {
    if signal == libc::SIGALRM {
        TIMER_DUE.store(0, Ordering::Relaxed);
    }
    if !is_running() {
        return;
    }
    // SAFETY: `errno` belongs to this thread.
    let errno = unsafe { *libc::__errno_location() };
    look();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn look() {
    let now = monotonic_now();
    if let Some(reason) = pending() {
        if now >= GRACE_ENDS.load(Ordering::Relaxed) {
            // SAFETY: ends the process without running anything of ours.
            unsafe { libc::_exit(reason.exit_code()) };
        }
        // SAFETY: the published states are alive.
        unsafe { set_hooks(true) };
        return arm_for_next(now);
    }
    if !LISTENING.swap(true, Ordering::Relaxed) {
        listen(true);
    }
    if !WAITING_FOR_INPUT.load(Ordering::SeqCst) && message_is_there() {
        return request(Reason::Cancelled);
    }
    if now >= DEADLINE.load(Ordering::Relaxed) {
        return request(Reason::WallTime);
    }
    if process_cpu_time() >= CPU_DEADLINE.load(Ordering::Relaxed) {
        return request(Reason::CpuTime);
    }
    if now >= OUTPUT_DUE.load(Ordering::Relaxed) {
        OUTPUT_DUE.store(u64::MAX, Ordering::Relaxed);
        // SAFETY: the published states are alive.
        unsafe { set_hooks(true) };
    }
    arm_for_next(now);
}

fn arm_for_next(now: u64) {
    let cpu_left = CPU_DEADLINE.load(Ordering::Relaxed).saturating_sub(process_cpu_time());
    let next = GRACE_ENDS
        .load(Ordering::Relaxed)
        .min(DEADLINE.load(Ordering::Relaxed))
        .min(OUTPUT_DUE.load(Ordering::Relaxed))
        // One thread cannot use processor time faster than time passes.
        .min(now.saturating_add(cpu_left))
        .min(next_look_for_messages(now));
    if next != u64::MAX {
        arm(next.saturating_sub(now));
    }
}

/// When to look for a message; the end of time where one announces itself.
fn next_look_for_messages(now: u64) -> u64 {
    let must_look = LISTENING.load(Ordering::Relaxed) && UNANNOUNCED.load(Ordering::Relaxed);
    if must_look { now.saturating_add(PACE) } else { u64::MAX }
}

fn arm(nanoseconds: u64) {
    let microseconds = (nanoseconds / 1000).max(1);
    let once = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval {
            tv_sec: (microseconds / 1_000_000).cast_signed(),
            tv_usec: (microseconds % 1_000_000).cast_signed(),
        },
    };
    TIMER_DUE.store(monotonic_now().saturating_add(nanoseconds), Ordering::Relaxed);
    // SAFETY: the new value is valid, and the old one is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, ptr::null_mut()) };
}

/// Lets a message from the controller raise SIGIO, or not.
fn listen(on: bool) {
    let reader = READER.load(Ordering::Relaxed);
    let flags = if on { libc::O_ASYNC } else { 0 };
    // SAFETY: takes an integer; the descriptor has no other flags.
    let set = unsafe { libc::fcntl(reader, libc::F_SETFL, flags) };
    if on && !UNANNOUNCED.load(Ordering::Relaxed) {
        // The kernel takes the flag for any descriptor, and shows it on those that know what it means.
        // SAFETY: takes nothing.
        let kept = unsafe { libc::fcntl(reader, libc::F_GETFL) };
        UNANNOUNCED.store(set == -1 || kept & libc::O_ASYNC == 0, Ordering::Relaxed);
    }
}

/// Whether the controller has sent something, or is gone.
fn message_is_there() -> bool {
    let fd = READER.load(Ordering::Relaxed);
    let mut source = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry is passed, and its count.
    unsafe { libc::poll(&raw mut source, 1, 0) == 1 }
}

/// Sets or clears the hook of every running state.
///
/// # Safety
///
/// Every published state must be alive. `lua_sethook` may be called from a signal handler.
unsafe fn set_hooks(on: bool) {
    let mut next = RUNNING_STATES.load(Ordering::SeqCst);
    while !next.is_null() {
        // SAFETY: entries stay valid until they are unpublished.
        unsafe {
            set_hook((*next).state, on);
            next = (*next).outer;
        }
    }
}

unsafe fn set_hook(state: *mut ffi::lua_State, on: bool) {
    let mask = ffi::LUA_MASKCALL | ffi::LUA_MASKRET | ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT;
    // SAFETY: the caller vouches for the state.
    unsafe {
        if on {
            ffi::lua_sethook(state, Some(on_hook), mask, 1);
        } else {
            ffi::lua_sethook(state, None, 0, 0);
        }
    }
}

unsafe extern "C-unwind" fn on_hook(state: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    if let Some(reason) = pending() {
        raise(state, reason);
    }
    // SAFETY: Lua calls a hook with a live state, and the published ones are alive. A coroutine
    // that was made while the hook was on has inherited it and may not be published.
    unsafe {
        set_hook(state, false);
        set_hooks(false);
    }
    console::send_waiting();
}

/// Raises the error that ends the evaluation.
pub(crate) fn raise(state: *mut ffi::lua_State, reason: Reason) -> ! {
    // SAFETY: called from Lua, inside a protected call; nothing here needs to be dropped.
    unsafe {
        ffi::lua_pushstring(state, reason.message().as_ptr());
        ffi::lua_error(state)
    }
}

fn clock(which: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to write to.
    unsafe { libc::clock_gettime(which, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

pub(crate) fn monotonic_now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Processor time that this process has used, in nanoseconds.
pub(crate) fn process_cpu_time() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}
