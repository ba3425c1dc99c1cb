//! What the operating system says, and what is asked of it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike as _;
use nix::unistd::Pid;

/// Where a measurement's processes run.
#[derive(Clone, Copy, Debug)]
pub enum Placement {
    /// All on one processor.
    Pinned,
    /// Wherever the scheduler puts them.
    Unpinned,
}

/// Puts this thread, and all threads and processes that it starts, where they were before.
#[derive(Debug)]
#[must_use = "all is as before once this is dropped"]
pub struct Placed(CpuSet);

impl Placement {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pinned, Self::Unpinned];

    /// What a row calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Unpinned => "unpinned",
        }
    }

    /// Holds for threads and processes that are started while the result is kept.
    pub fn enter(self) -> Result<Placed> {
        let this_thread = Pid::from_raw(0);
        let before = sched_getaffinity(this_thread)?;
        if let Self::Pinned = self {
            let last = (0..CpuSet::count()).rev().find(|cpu| before.is_set(*cpu).unwrap_or(false));
            let mut one = CpuSet::new();
            one.set(last.context("there is no processor")?)?;
            sched_setaffinity(this_thread, &one)?;
        }
        Ok(Placed(before))
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// Number of processors and the machine's load, in words.
pub fn situation() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    format!("{processors} processors, load {load} at the end")
}

/// A process's share of the memory that it uses, in bytes: what it shares is divided by how many
/// share it. `None` where that is not ours to read.
pub fn proportional_set_size(process: u32) -> Option<f64> {
    kibibytes(&format!("/proc/{process}/smaps_rollup"), "Pss:")
}

/// The most resident memory that a process has had, in bytes.
pub fn peak_resident(process: u32) -> Option<f64> {
    kibibytes(&format!("/proc/{process}/status"), "VmHWM:")
}

/// The resident memory that this process has now, in bytes.
pub fn resident() -> f64 {
    kibibytes("/proc/self/status", "VmRSS:").unwrap_or(0.0)
}

/// The resident memory that a process has now, in bytes.
pub fn resident_of(process: u32) -> Option<f64> {
    kibibytes(&format!("/proc/{process}/status"), "VmRSS:")
}

fn kibibytes(path: &str, field: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let number: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(number) * 1024.0)
}

/// Processor time that a process has used.
pub fn cpu_time(process: u32) -> Duration {
    let spent = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    let nanoseconds = spent.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Processor time that this process has used, over all its threads.
pub fn own_cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Duration::from_micros(microseconds.unsigned_abs())
}

/// The process that started this one.
pub fn parent(process: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A process and all that descend from it.
pub fn family(ancestor: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> =
        numbers.filter_map(|process| Some((process, parent(process)?))).collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&process) = found.get(next) {
        found.extend(
            parents.iter().filter(|(_, parent)| *parent == process).map(|(child, _)| child),
        );
        next += 1;
    }
    found
}

/// Whether a process is there.
pub fn is_there(process: u32) -> bool {
    fs::exists(format!("/proc/{process}")).unwrap_or(false)
}

/// How many threads this process has.
pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// How many files this process has open.
pub fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Lets this process open as many files as it may.
pub fn raise_open_files() -> Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// How many processes there may be, over the whole machine.
pub fn most_processes() -> u32 {
    let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
    let bounds = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    bounds.into_iter().filter_map(number).min().unwrap_or(u32::MAX)
}

/// Waits until something holds; `false` when it takes too long.
pub fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience;
    while !holds() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
