//! Processes of this machine, as `/proc` shows them.

use std::fs;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::waiting::PATIENCE;

/// One process: its number together with when it started, so that no later process is mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    started: u64,
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    parent: u32,
    group: u32,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl Process {
    /// The process with that number, if there is one.
    pub fn find(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// The process with that number.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn of(pid: u32) -> Self {
        Self::find(pid).unwrap_or_else(|| panic!("there is no process {pid}"))
    }

    /// This process.
    pub fn current() -> Self {
        Self::of(std::process::id())
    }

    fn stat(self) -> Option<Stat> {
        stat(self.pid).filter(|stat| stat.started == self.started)
    }

    /// Whether it still runs. One that has ended and was not waited for does not, nor does one that
    /// was killed and that only the kernel still [holds](Self::is_held_by_the_kernel).
    pub fn is_alive(self) -> bool {
        let runs = self.stat().is_some_and(|stat| stat.state != 'Z' && stat.state != 'X');
        runs && !self.is_held_by_the_kernel()
    }

    /// Whether it has been killed, but is in a system call that does not return. That is a fault of
    /// the kernel, and nobody can do anything about it but start the machine again.
    pub fn is_held_by_the_kernel(self) -> bool {
        let killed = || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
            let pending = status.lines().filter(|line| line.contains("Pnd:"));
            let bits = pending.filter_map(|line| line.split_whitespace().nth(1));
            let kill = 1 << (Signal::SIGKILL as u32 - 1);
            Some(bits.filter_map(|bits| u64::from_str_radix(bits, 16).ok()).any(|b| b & kill != 0))
        };
        self.stat().is_some_and(|stat| stat.state == 'D') && killed().unwrap_or(false)
    }

    /// Its parent.
    pub fn parent(self) -> Option<Self> {
        self.stat().and_then(|stat| Self::find(stat.parent))
    }

    /// The number of its process group.
    pub fn group(self) -> Option<u32> {
        self.stat().map(|stat| stat.group)
    }

    /// Its command line, the words separated by spaces.
    pub fn command_line(self) -> String {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned()
    }

    /// The processes that it has started, those that ended and were not waited for included. Those
    /// that only the kernel holds are left out.
    pub fn children(self) -> Vec<Self> {
        let is_child = |process: &Self| process.parent() == Some(self);
        all().into_iter().filter(is_child).filter(|child| !child.is_held_by_the_kernel()).collect()
    }

    /// Its children, theirs, and so on.
    pub fn descendants(self) -> Vec<Self> {
        let children = self.children();
        let further = children.iter().flat_map(|child| child.descendants());
        children.iter().copied().chain(further).collect()
    }

    /// Sends it a signal. That it is gone already is no failure.
    ///
    /// # Panics
    ///
    /// When the signal may not be sent.
    pub fn signal(self, signal: Signal) {
        if self.stat().is_some() {
            match kill(Pid::from_raw(self.pid.cast_signed()), signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => panic!("{signal} to process {}: {error}", self.pid),
            }
        }
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    ///
    /// When it has not within the usual patience.
    pub fn wait_for_end(self) {
        let start = Instant::now();
        while self.is_alive() {
            let left = PATIENCE.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "process {} ({}) goes on", self.pid, self.command_line());
            let Some(pid) = rustix::process::Pid::from_raw(self.pid.cast_signed()) else { return };
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
            // If the number has been taken over meanwhile, the loop's condition says so.
            if self.is_alive() {
                let seconds = i64::try_from(left.as_secs().max(1)).unwrap_or(i64::MAX);
                let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout));
            }
        }
    }
}

/// All processes.
///
/// # Panics
///
/// When there is no `/proc`.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("Linux has a /proc");
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.flatten().filter_map(number).filter_map(Process::find).collect()
}

/// The living processes whose command line holds `mark`, other than this one.
pub fn with_mark(mark: &str) -> Vec<Process> {
    let current = Process::current();
    let marked = |process: &Process| *process != current && process.command_line().contains(mark);
    all().into_iter().filter(marked).filter(|process| process.is_alive()).collect()
}

/// What this process's open descriptors refer to, sorted; the one that lists them is left out.
///
/// # Panics
///
/// When there is no `/proc`.
pub fn open_descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").expect("Linux has a /proc");
    let target = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let shown = format!("{} -> {}", entry.file_name().display(), target.display());
        (!shown.contains(&format!("/proc/{}/fd", std::process::id()))).then_some(shown)
    };
    let mut open: Vec<String> = entries.flatten().filter_map(target).collect();
    open.sort();
    open
}
