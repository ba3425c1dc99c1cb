//! Seccomp: which system calls a worker may make.
//!
//! A worker that only computes gets a short list of calls; granted files add calls to the list. Code
//! that may start programs cannot live on a list, as programs need what they need: there the list
//! says what is forbidden, namely what reaches beyond the VM and what would let a process leave the
//! VM's process group, by which all of it is killed.

mod search;

use std::collections::BTreeMap;

use bioxen_core::protocol::zygote::Kind;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::gate;
use search::{JUMP_IF_EQUAL, Verdict};

/// Applies to a zygote, and so to all that it forks, what none of them ever needs.
///
/// This is also where a kernel shows that cannot apply filters (its allocator for them can be locked
/// up for good by other programs): it hangs here, before there is any worker, and the controller
/// starts another zygote that does not try.
pub(crate) fn apply_to_zygote() -> std::io::Result<()> {
    if let Ok(program) = never() {
        nix::sys::prctl::set_no_new_privs()?;
        // Where the kernel has no filters at all, the workers' own report that.
        let _ = seccompiler::apply_filter(&program);
    }
    Ok(())
}

/// Applies the filter for a kind of worker to this process and all that it starts, leaving the gate
/// open to who has its key.
pub(super) fn apply(kind: Kind) -> Result<(), String> {
    let mut program = compile(kind).map_err(|error| error.to_string())?;
    put_in_key(&mut program);
    let outcome = seccompiler::apply_filter(&program);
    // The kernel has a copy. This one must not be found by the workers.
    program.fill(sock_filter { code: 0, jt: 0, jf: 0, k: 0 });
    std::hint::black_box(&mut program);
    outcome.map_err(|error| error.to_string())
}

/// Stands for the gate's key in a filter until just before it is applied, so that the key is in no
/// other memory meanwhile. Neither half is a number that a filter has another use for.
const KEY: u64 = 0x6b65_795f_2d68_6572;

fn put_in_key(program: &mut BpfProgram) {
    let [high, low] = [KEY >> 32, KEY & u64::from(u32::MAX)];
    gate::with_halves(|high_half, low_half| {
        for instruction in program.iter_mut().filter(|one| one.code == JUMP_IF_EQUAL) {
            if u64::from(instruction.k) == high {
                instruction.k = high_half;
            } else if u64::from(instruction.k) == low {
                instruction.k = low_half;
            }
        }
    });
}

/// A filter that refuses what neither a zygote nor any worker ever does.
fn never() -> Result<BpfProgram, seccompiler::Error> {
    let rules = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    program(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.cast_unsigned()))
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn compile(kind: Kind) -> Result<BpfProgram, seccompiler::Error> {
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let is_list_of_allowed = !kind.spawn;
    let rules = if is_list_of_allowed { allowed(kind)? } else { forbidden(kind)? };
    let listed = if is_list_of_allowed { Verdict::Allow } else { Verdict::Refuse };
    let verdict = |conditions: &Vec<_>| if conditions.is_empty() { listed } else { Verdict::Ask };
    let mut calls: Vec<(c_long, Verdict)> =
        rules.iter().map(|(call, conditions)| (*call, verdict(conditions))).collect();
    let conditional = rules.into_iter().filter(|(_, conditions)| !conditions.is_empty()).collect();
    if is_list_of_allowed {
        let rest = program(conditional, denied, SeccompAction::Allow)?;
        return Ok(search::before(&calls, &[(0, Verdict::Refuse)], rest));
    }
    // The C library then falls back to `clone`, whose arguments can be looked at.
    calls.push((libc::SYS_clone3, Verdict::Missing));
    let ranges = [
        (0, Verdict::Allow),
        (FIRST_UNKNOWN, Verdict::Missing),
        // The same calls by other numbers, for 64-bit processors with 32-bit pointers.
        (X32, Verdict::Refuse),
    ];
    let rest = program(conditional, SeccompAction::Allow, denied)?;
    Ok(search::before(&calls, &ranges, rest))
}

/// The first call that is younger than the list of what is forbidden. Programs have to do without it
/// on older kernels too.
const FIRST_UNKNOWN: u32 = 463;

/// Where numbers begin that name x86-64 calls anew.
const X32: u32 = 0x4000_0000;

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, seccompiler::Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, listed, arch)?.try_into()?)
}

/// What computing and speaking to the controller takes.
const COMPUTE: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setitimer,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// What granted files take; landlock says which files.
const FILES: &[c_long] = &[
    libc::SYS_chdir,
    libc::SYS_dup,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchdir,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// What it takes to become an interpreter that is a program of its own. No process can be made, so
/// becoming another program is all that `execve` allows, and landlock says which.
const PROGRAM: &[c_long] = &[
    libc::SYS_dup3,
    libc::SYS_execve,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
];

/// What a TCP connection takes besides `socket`; landlock says which ports.
const CONNECT: &[c_long] = &[
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_pselect6,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
];

fn allowed(kind: Kind) -> Result<Rules, seccompiler::Error> {
    let mut rules: Rules = COMPUTE.iter().map(|call| (*call, Vec::new())).collect();
    let mut add = |calls: &[c_long]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    if kind.files || kind.program {
        add(FILES);
    }
    if kind.program {
        // A dynamic linker maps code, and a compiler for Lua makes some.
        add(PROGRAM);
        add(&[libc::SYS_mmap, libc::SYS_mprotect]);
    }
    if kind.net {
        add(CONNECT);
    }
    if !kind.is_bare() {
        // Each of these workers restricts itself further, by its own grants.
        add(LANDLOCK);
    }
    if !kind.program {
        // Memory is never executable: argument 2 of both calls is the protection.
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.insert(call, vec![masked_is(2, libc::PROT_EXEC.cast_unsigned().into(), 0)?]);
        }
    }
    // Its own limits, and nobody else's.
    rules.insert(libc::SYS_prlimit64, vec![is(0, 0)?]);
    if kind.files || kind.program {
        // Neither leases, which hold up others who open a file, nor news of directories.
        let others = [libc::F_SETLEASE, libc::F_NOTIFY]
            .map(|command| condition(1, SeccompCmpOp::Ne, command.cast_unsigned().into()));
        rules.insert(libc::SYS_fcntl, vec![rule(others.into_iter().collect::<Result<_, _>>()?)?]);
    }
    if kind.net {
        rules.insert(libc::SYS_socket, tcp_only()?);
        rules.insert(libc::SYS_setsockopt, no_filter()?);
        for (call, flags) in SENDING {
            if let Some(conditions) = rules.get_mut(&call) {
                *conditions = vec![masked_is(flags, FAST_OPEN, 0)?];
            }
        }
    }
    for call in gate::CALLS {
        // What a kind of worker may do anyway needs no key.
        let gated = vec![rule(vec![with_key(SeccompCmpOp::Eq)?])?];
        rules.entry(call).or_insert(gated);
    }
    if kind.files || kind.program {
        // Asking a descriptor whether it is a terminal, and nothing else.
        rules.insert(libc::SYS_ioctl, vec![is(1, libc::TCGETS)?]);
    }
    Ok(rules)
}

/// What it takes to give up access to files and ports.
const LANDLOCK: &[c_long] = &[
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
];

/// What has no place in a zygote either: the kernel itself, other file systems, other processes.
const NEVER: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
];

/// Calls that send, with the argument that their flags are in.
const SENDING: [(c_long, u8); 3] =
    [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];

/// Sending that connects, of which landlock does not know.
const FAST_OPEN: u64 = libc::MSG_FASTOPEN.cast_unsigned() as u64;

/// What even code that may start programs must not do.
const FORBIDDEN: &[c_long] = &[
    // Leaving the process group, or reaching processes outside of it.
    libc::SYS_setsid,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // What landlock has no rules for: permissions, owners, times and attributes of any file, and
    // news of what others do with it.
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_lremovexattr,
    libc::SYS_lsetxattr,
    libc::SYS_quotactl_fd,
    libc::SYS_removexattr,
    libc::SYS_setxattr,
    libc::SYS_utimensat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    // Being found by others. Without an address of its own a socket gets one by listening.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_listen,
    // Other namespaces, file systems and roots.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // The kernel itself, and calls that go round this filter. More filters would only take away, but
    // to free very many at once can hold up a kernel for good.
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_seccomp,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    // Objects of the whole machine, which can be used by their numbers without having been asked for.
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_msgctl,
    libc::SYS_msgget,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_semctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmget,
];

/// The same number on all processors.
const SYS_FCHMODAT2: c_long = 452;

/// Calls that change how a process is served, which only the caller may do to itself: with the
/// arguments that say so.
const ON_ITSELF: [(c_long, &[(u8, u64)]); 7] = [
    (libc::SYS_ioprio_set, &[(0, IOPRIO_WHO_PROCESS), (1, 0)]),
    (libc::SYS_prlimit64, &[(0, 0)]),
    (libc::SYS_sched_setaffinity, &[(0, 0)]),
    (libc::SYS_sched_setattr, &[(0, 0)]),
    (libc::SYS_sched_setparam, &[(0, 0)]),
    (libc::SYS_sched_setscheduler, &[(0, 0)]),
    (libc::SYS_setpriority, &[(0, libc::PRIO_PROCESS as u64), (1, 0)]),
];

/// From the kernel's `linux/ioprio.h`.
const IOPRIO_WHO_PROCESS: u64 = 1;

fn forbidden(kind: Kind) -> Result<Rules, seccompiler::Error> {
    let mut rules: Rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let new_namespace = namespaces
        .into_iter()
        .map(|flag| masked_is(0, flag.cast_unsigned().into(), flag.cast_unsigned().into()))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, new_namespace);
    rules.insert(libc::SYS_setpgid, vec![rule(vec![with_key(SeccompCmpOp::Ne)?])?]);
    for (call, arguments) in ON_ITSELF {
        let other = |(argument, value): &(u8, u64)| {
            rule(vec![condition(*argument, SeccompCmpOp::Ne, *value)?])
        };
        rules.insert(call, arguments.iter().map(other).collect::<Result<_, _>>()?);
    }
    if kind.net {
        rules.insert(libc::SYS_socket, not_tcp()?);
        for (call, flags) in SENDING {
            rules.insert(call, vec![masked_is(flags, FAST_OPEN, FAST_OPEN)?]);
        }
    } else {
        rules.insert(libc::SYS_socket, Vec::new());
        rules.insert(libc::SYS_connect, Vec::new());
    }
    rules.insert(libc::SYS_socketpair, not_a_pair()?);
    rules.insert(libc::SYS_setsockopt, a_filter()?);
    rules.insert(libc::SYS_prctl, vec![is(0, libc::PR_SET_SECCOMP.cast_unsigned().into())?]);
    // Leases hold up others who open a file; directories give news of what others do in them.
    rules.insert(
        libc::SYS_fcntl,
        vec![
            is(1, libc::F_SETLEASE.cast_unsigned().into())?,
            is(1, libc::F_NOTIFY.cast_unsigned().into())?,
        ],
    );
    rules.insert(libc::SYS_ioctl, not_a_terminals()?);
    Ok(rules)
}

/// Options of a socket that give it a filter. Those are programs for the kernel too.
const SOCKET_FILTERS: [i32; 4] = [
    libc::SO_ATTACH_FILTER,
    libc::SO_ATTACH_BPF,
    libc::SO_ATTACH_REUSEPORT_CBPF,
    libc::SO_ATTACH_REUSEPORT_EBPF,
];

/// For a list of what is allowed: any option of a socket but those.
fn no_filter() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let level = libc::SOL_SOCKET.cast_unsigned().into();
    let others = SOCKET_FILTERS
        .iter()
        .map(|option| condition(2, SeccompCmpOp::Ne, option.cast_unsigned().into()))
        .collect::<Result<_, _>>()?;
    Ok(vec![rule(vec![condition(1, SeccompCmpOp::Ne, level)?])?, rule(others)?])
}

/// For a list of what is forbidden: those options.
fn a_filter() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let level = libc::SOL_SOCKET.cast_unsigned().into();
    let of = |option: &i32| {
        rule(vec![
            condition(1, SeccompCmpOp::Eq, level)?,
            condition(2, SeccompCmpOp::Eq, option.cast_unsigned().into())?,
        ])
    };
    SOCKET_FILTERS.iter().map(of).collect()
}

/// For a list of what is forbidden: requests to a device or a file system, by which attributes of
/// files are changed, and of those to a terminal typing on behalf of its user.
fn not_a_terminals() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    Ok(vec![
        rule(vec![condition(1, SeccompCmpOp::Lt, TERMINAL)?])?,
        rule(vec![condition(1, SeccompCmpOp::Gt, TERMINAL + 0xff)?])?,
        is(1, libc::TIOCSTI)?,
        is(1, libc::TIOCLINUX)?,
        is(1, libc::TIOCSETD)?,
        is(1, libc::TIOCCONS)?,
    ])
}

/// The first request to a terminal; there are 256. Some of them are for any descriptor.
const TERMINAL: u64 = 0x5400;

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(conditions)?)
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

/// Whether the caller has the key to the gate.
fn with_key(operator: SeccompCmpOp) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(gate::ARGUMENT, SeccompCmpArgLen::Qword, operator, KEY)?)
}

fn is(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    rule(vec![condition(argument, SeccompCmpOp::Eq, value)?])
}

fn masked_is(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    rule(vec![condition(argument, SeccompCmpOp::MaskedEq(mask), value)?])
}

/// The part of a socket's type that is not a flag.
const SOCKET_TYPE: u64 = 0xf;

fn families() -> [u64; 2] {
    [libc::AF_INET, libc::AF_INET6].map(|family| family.cast_unsigned().into())
}

fn tcp_only() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let stream = libc::SOCK_STREAM.cast_unsigned().into();
    let tcp = |family| {
        rule(vec![
            condition(0, SeccompCmpOp::Eq, family)?,
            condition(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), stream)?,
            condition(2, SeccompCmpOp::Le, libc::IPPROTO_TCP.cast_unsigned().into())?,
        ])
    };
    families().into_iter().map(tcp).collect()
}

/// For a list of what is forbidden: any socket but TCP. A socket of this machine can be sent to any
/// other by its path, of which landlock does not know.
fn not_tcp() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let [ipv4, ipv6] = families();
    let stream: u64 = libc::SOCK_STREAM.cast_unsigned().into();
    let mut rules = vec![rule(vec![
        condition(0, SeccompCmpOp::Ne, ipv4)?,
        condition(0, SeccompCmpOp::Ne, ipv6)?,
    ])?];
    // Types are 1 (stream) to 6; each bit pattern but 1 is refused, as is MPTCP, for which landlock
    // has no rules.
    for other in (0..=SOCKET_TYPE).filter(|kind| *kind != stream) {
        rules.push(masked_is(1, SOCKET_TYPE, other)?);
    }
    rules.push(rule(vec![condition(
        2,
        SeccompCmpOp::Gt,
        libc::IPPROTO_TCP.cast_unsigned().into(),
    )?])?);
    Ok(rules)
}

/// For a list of what is forbidden: any pair of sockets but those that stay connected to each other.
fn not_a_pair() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let connected =
        [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(|kind| u64::from(kind.cast_unsigned()));
    let unix = libc::AF_UNIX.cast_unsigned().into();
    let mut rules = vec![rule(vec![condition(0, SeccompCmpOp::Ne, unix)?])?];
    for other in (0..=SOCKET_TYPE).filter(|kind| !connected.contains(kind)) {
        rules.push(masked_is(1, SOCKET_TYPE, other)?);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> impl Iterator<Item = Kind> {
        (0..16_u8).map(|number| {
            let bit = |bit: u8| number & (1 << bit) != 0;
            Kind { files: bit(0), program: bit(1), spawn: bit(2), net: bit(3) }
        })
    }

    #[test]
    fn every_kind_of_worker_has_a_filter() {
        for kind in kinds() {
            assert!(compile(kind).is_ok(), "{kind}");
        }
    }

    #[test]
    fn every_filter_gets_the_key_in_place_of_what_stands_for_it() {
        let halves = [KEY >> 32, KEY & u64::from(u32::MAX)];
        let stand_ins = |program: &BpfProgram| {
            program.iter().filter(|one| halves.contains(&one.k.into())).count()
        };
        for kind in kinds() {
            let mut program = compile(kind).unwrap();
            let found = stand_ins(&program);
            put_in_key(&mut program);
            assert_eq!(stand_ins(&program), 0, "{kind}");
            // Two halves for each call that goes through the gate.
            assert!(found >= 2 && found.is_multiple_of(2), "{kind}: {found}");
        }
    }
}
