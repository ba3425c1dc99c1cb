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
use search::JUMP_IF_EQUAL;

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
    let programs = compile(kind).map_err(|error| error.to_string())?;
    programs.into_iter().try_for_each(|mut program| {
        put_in_key(&mut program);
        let outcome = seccompiler::apply_filter(&program);
        // The kernel has a copy. This one must not be found by the workers.
        program.fill(sock_filter { code: 0, jt: 0, jf: 0, k: 0 });
        std::hint::black_box(&mut program);
        outcome.map_err(|error| error.to_string())
    })
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

fn compile(kind: Kind) -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    if !kind.spawn {
        let rules = allowed(kind)?;
        let calls: Vec<(c_long, bool)> =
            rules.iter().map(|(call, conditions)| (*call, conditions.is_empty())).collect();
        let conditional = rules.into_iter().filter(|(_, conditions)| !conditions.is_empty());
        let rest = program(conditional.collect(), denied, SeccompAction::Allow)?;
        return Ok(vec![search::before(&calls, rest)]);
    }
    // The C library then falls back to `clone`, whose arguments can be looked at.
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![
        program(forbidden(kind)?, SeccompAction::Allow, denied)?,
        program(clone3, SeccompAction::Allow, missing)?,
    ])
}

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
    if kind.net {
        rules.insert(libc::SYS_socket, tcp_only()?);
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

/// What even code that may start programs must not do.
const FORBIDDEN: &[c_long] = &[
    // Leaving the process group, or reaching processes outside of it.
    libc::SYS_setsid,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
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
    // The kernel itself, and calls that go round this filter.
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
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
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    // Objects of the whole machine.
    libc::SYS_mq_open,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_shmget,
];

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
    rules.insert(libc::SYS_socket, if kind.net { not_tcp()? } else { not_unix()? });
    if !kind.net {
        rules.insert(libc::SYS_connect, Vec::new());
    }
    // Typing into a terminal on behalf of its user.
    rules.insert(libc::SYS_ioctl, vec![is(1, libc::TIOCSTI)?, is(1, libc::TIOCLINUX)?]);
    Ok(rules)
}

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

/// For a list of what is forbidden: any socket but TCP and those between own processes.
fn not_tcp() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let [ipv4, ipv6] = families();
    let unix = libc::AF_UNIX.cast_unsigned().into();
    let stream: u64 = libc::SOCK_STREAM.cast_unsigned().into();
    let mut rules = vec![rule(vec![
        condition(0, SeccompCmpOp::Ne, ipv4)?,
        condition(0, SeccompCmpOp::Ne, ipv6)?,
        condition(0, SeccompCmpOp::Ne, unix)?,
    ])?];
    for family in [ipv4, ipv6] {
        // Types are 1 (stream) to 6; each bit pattern but 1 is refused, as is MPTCP, for which
        // landlock has no rules.
        for other in (0..=SOCKET_TYPE).filter(|kind| *kind != stream) {
            rules.push(rule(vec![
                condition(0, SeccompCmpOp::Eq, family)?,
                condition(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), other)?,
            ])?);
        }
        rules.push(rule(vec![
            condition(0, SeccompCmpOp::Eq, family)?,
            condition(2, SeccompCmpOp::Gt, libc::IPPROTO_TCP.cast_unsigned().into())?,
        ])?);
    }
    Ok(rules)
}

fn not_unix() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let unix = libc::AF_UNIX.cast_unsigned().into();
    Ok(vec![rule(vec![condition(0, SeccompCmpOp::Ne, unix)?])?])
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
            let mut found = 0;
            for mut program in compile(kind).unwrap() {
                found += stand_ins(&program);
                put_in_key(&mut program);
                assert_eq!(stand_ins(&program), 0, "{kind}");
            }
            // Two halves for each call that goes through the gate.
            assert!(found >= 2 && found.is_multiple_of(2), "{kind}: {found}");
        }
    }
}
