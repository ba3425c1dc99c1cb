//! Holds workers in, before they read anything from their controller.
//!
//! What all workers of a kind share is switched on once, in the process that forks them: privileges
//! are dropped, and the system-call filter is applied last, since it forbids the steps before it. What
//! depends on a worker's own order follows in the worker. A mechanism that this machine does not have
//! is reported and not fatal: the controller decides whether what was reached is enough.

mod files;
mod filter;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bioxen_core::protocol::zygote::{Kind, Order};
use bioxen_core::{Grants, Isolation, Limit, Mechanism};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

pub(crate) use filter::apply_to_zygote;

/// Address space that a worker may have beyond what Lua may hold: its program, its stack, the
/// messages in transit. The bound on Lua's memory is the allocator's; this one is behind it.
const ADDRESS_SPACE_SLACK: u64 = 768 << 20;

/// Holds in the process that forks the workers of a kind, by all that they have in common.
///
/// Each mechanism is switched on once, here, and a worker has it from its first instruction.
pub(crate) fn enter_kind(kind: Kind, filtered: bool, isolation: &mut Isolation) -> io::Result<()> {
    isolation.note(Mechanism::Capabilities, drop_capabilities(kind));
    isolation.note(Mechanism::NoNewPrivileges, prctl::set_no_new_privs());
    if !kind.program {
        // Neighbours of the same user can then neither trace a worker nor read its memory.
        prctl::set_dumpable(false)?;
    }
    if kind.is_bare() {
        files::restrict(&Grants::none(), None, isolation);
    }
    if filtered {
        isolation.note(Mechanism::Seccomp, filter::apply(kind));
    } else {
        let reason = "this kernel hangs when a filter is applied; restart the machine";
        isolation.missed(Mechanism::Seccomp, reason);
    }
    Ok(())
}

/// Holds a worker in, by what its order asks for beyond what its kind has.
pub(crate) fn enter(order: &Order, kind: &Isolation) -> Isolation {
    let mut isolation = kind.clone();
    isolation.reached(Mechanism::Process);
    enter_cgroup(&order.cgroup, &mut isolation);
    if let Some(directory) = &order.working_directory {
        // Where it cannot be entered, each run that needs it says so.
        let _ = std::env::set_current_dir(directory);
    }
    let limited = limit_resources(order, isolation.active.contains(&Mechanism::IpcNamespace));
    isolation.note(Mechanism::ResourceLimits, limited);
    if !Kind::of(order).is_bare() {
        files::restrict(&order.grants, order.program.as_deref(), &mut isolation);
    }
    let held_back = [Mechanism::Seccomp, Mechanism::LandlockNetwork, Mechanism::NetworkNamespace];
    if !order.grants.net.is_empty() {
        let reason = "the kernel's rules know ports only; any host is reached on a granted port";
        isolation.missed(Mechanism::NetworkHosts, reason);
    } else if held_back.iter().any(|mechanism| isolation.active.contains(mechanism)) {
        isolation.reached(Mechanism::NetworkHosts);
    } else {
        isolation.missed(Mechanism::NetworkHosts, "nothing here holds the network back");
    }
    isolation
}

fn enter_cgroup(cgroup: &[PathBuf], isolation: &mut Isolation) {
    if cgroup.is_empty() {
        let reason = isolation.missing.entry(Mechanism::Cgroup);
        reason.or_insert_with(|| "used only where programs may be started".into());
        return;
    }
    let process = std::process::id().to_string();
    let entered = cgroup
        .iter()
        .try_for_each(|directory| std::fs::write(directory.join("cgroup.procs"), &process));
    isolation.note(Mechanism::Cgroup, entered);
}

/// Lowers the limits. With `own_users`, this process is in a user namespace that all descendants of
/// its parent are in and nobody else, if it is not root's.
fn limit_resources(order: &Order, own_users: bool) -> nix::Result<()> {
    let bound = |resource, bound: u64| setrlimit(resource, bound, bound);
    // With 0 the kernel would still hand a program that crashes to the one that is to take dumps.
    bound(Resource::RLIMIT_CORE, 1)?;
    if let Limit::Of(files) = order.limits.open_files {
        bound(Resource::RLIMIT_NOFILE, files.into())?;
    }
    match (order.limits.memory, &order.program) {
        (Limit::Unlimited, _) => {}
        (Limit::Of(memory), program) => {
            bound(Resource::RLIMIT_AS, memory.as_u64().saturating_add(ADDRESS_SPACE_SLACK))?;
            // Another interpreter has the allocator of its choice; what it takes from the system
            // for data can be bounded, a little more being used before any Lua runs.
            if program.is_some() {
                bound(Resource::RLIMIT_DATA, memory.as_u64().saturating_add(2 << 20))?;
            }
        }
    }
    if let (true, true, Limit::Of(output)) =
        (Kind::of(order).spawn, order.grants.write.is_empty(), order.limits.output)
    {
        // What programs say on standard error is collected in a file in memory. Where no other file
        // can be written, none needs to be larger than what may be said.
        bound(Resource::RLIMIT_FSIZE, output.as_u64().saturating_add(64 << 10))?;
    }
    if let (true, Limit::Of(processes)) = (Kind::of(order).spawn, order.limits.child_processes) {
        // Counts all processes of the user, so it is no bound for root; a cgroup counts right.
        if order.cgroup.is_empty() && !nix::unistd::geteuid().is_root() {
            let counted = count_threads(own_users.then(|| nix::unistd::getppid().as_raw()));
            bound(Resource::RLIMIT_NPROC, counted.saturating_add(processes.into()))?;
        }
    }
    Ok(())
}

/// How many threads the kernel counts against this user now: those of the processes below one,
/// itself included, or else all.
fn count_threads(root: Option<i32>) -> u64 {
    let user = nix::unistd::getuid().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let mut processes: BTreeMap<i32, Running> = entries
        .flatten()
        .filter(|entry| {
            entry.metadata().is_ok_and(|metadata| root.is_some() || metadata.uid() == user)
        })
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, running(&entry.path())?))
        })
        .collect();
    if let Some(root) = root {
        let parents: BTreeMap<i32, i32> =
            processes.iter().map(|(process, running)| (*process, running.parent)).collect();
        let above = |process: &i32| parents.get(process).copied();
        processes.retain(|process, _| {
            std::iter::successors(Some(*process), above).any(|process| process == root)
        });
    }
    processes.values().map(|running| running.threads).sum()
}

/// What counting a process takes.
struct Running {
    parent: i32,
    threads: u64,
}

fn running(process: &Path) -> Option<Running> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // The program's name, which stands between parentheses, may have spaces in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Running { parent: fields.get(1)?.parse().ok()?, threads: fields.get(17)?.parse().ok()? })
}

/// Drops all capabilities, but for root those by which it opens other users' files, where files were
/// granted: landlock still confines it to them.
fn drop_capabilities(kind: Kind) -> rustix::io::Result<()> {
    let kept = if kind.files {
        let held = rustix::thread::capabilities(None)?.permitted;
        held & (CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH)
    } else {
        CapabilitySet::empty()
    };
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
    rustix::thread::set_capabilities(None, sets)
}
