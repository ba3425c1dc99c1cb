//! Machine code in a VM: what code could do that has broken out of its interpreter.
//!
//! A library written in C is loaded into a program `lua5.4`, from a directory that may be read; that is
//! allowed there. What it then asks of the system goes past all checks in Lua.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use bioxen::{Interpreter, Limits, Mechanism};
use bioxen_testkit::{Scratch, block_on, interpreter};

use crate::place::{Attempt, Granted, IN, IN_OUT, Place, attempt, attempts};

/// Builds the library, once.
pub(crate) fn library() -> PathBuf {
    static LIBRARY: OnceLock<(Scratch, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let scratch = Scratch::new();
        let source = scratch.file("probe.c", include_str!("probe.c"));
        let path = scratch.at("probe.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&path).arg(&source);
        let compiled = compiler.output().expect("a C compiler, with which Lua is built too");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        (scratch, path)
    });
    path.clone()
}

/// An attempt that has `call(number, …)`, which makes a system call and returns its result.
fn native(code: impl AsRef<str>) -> Attempt {
    let code = code.as_ref();
    attempt(format!("package.cpath = IN .. '/?.so' local call = require('probe') {code}"))
        .on("lua5.4")
        .granted(IN)
        .prepared(|scratch| {
            std::fs::copy(library(), scratch.at("in/probe.so")).expect("it can be copied");
        })
        .needs(&[Mechanism::Seccomp, Mechanism::LandlockFiles, Mechanism::LandlockScope])
}

/// One system call with arguments, which is to fail.
fn fails(number: libc::c_long, arguments: &str) -> Attempt {
    let arguments = if arguments.is_empty() { String::new() } else { format!(", {arguments}") };
    native(format!(
        "local result, problem = call({number}{arguments}) \
         if result >= 0 then return 'escaped: ' .. result end return problem"
    ))
}

const AT_FDCWD: i32 = libc::AT_FDCWD;

fn at(number: libc::c_long, rest: &str) -> Attempt {
    fails(number, &format!("{AT_FDCWD}, {rest}"))
}

/// As in the kernel's headers; the fifth argument of `sendto` for data that goes ahead.
const FAST_OPEN: i32 = libc::MSG_FASTOPEN;

/// An IPv4 address and a port, as the kernel wants them.
const ADDRESS: &str = "local function address(port) return string.pack('<I2', 2) .. string.pack('>I2', port) \
    .. '\\127\\0\\0\\1' .. ('\\0'):rep(8) end ";

fn connecting(code: &str) -> Attempt {
    native(format!("{ADDRESS}{code}")).granted(Granted { net: true, ..IN })
}

attempts! {
    // The calls work at all.
    the_library_makes_system_calls: native(format!(
        "assert(call({}) > 1) assert(call({}) == call({}))",
        libc::SYS_getpid, libc::SYS_geteuid, libc::SYS_getuid
    ));

    a_new_process: native(format!(
        "for _, number in ipairs{{{}, {}}} do local pid = call(number, 17, 0, 0, 0, 0) \
         if pid == 0 then call({}, 0) end if pid > 0 then return 'escaped' end end",
        libc::SYS_clone, 57, libc::SYS_exit_group
    ));
    a_new_process_by_the_newer_call: native(format!(
        "local pid = call({}, string.pack('<i8i8i8i8i8i8i8i8', 0, 0, 0, 0, 17, 0, 0, 0), 64) \
         if pid == 0 then call({}, 0) end if pid > 0 then return 'escaped' end",
        libc::SYS_clone3, libc::SYS_exit_group
    ));
    another_program: fails(libc::SYS_execve, "'/bin/true', string.pack('<i8', 0), string.pack('<i8', 0)");
    another_program_by_a_descriptor: at(libc::SYS_execveat, "'/bin/true', 0, 0, 0");

    a_secret: at(libc::SYS_openat, "SECRET, 0, 0");
    a_secret_by_the_newer_call: at(libc::SYS_openat2, "SECRET, ('\\0'):rep(24), 24");
    a_secret_by_its_handle: native(format!(
        "local handle = string.pack('<I4I4', 128, 0) .. ('\\0'):rep(200) local mount = ('\\0'):rep(8) \
         call({}, {AT_FDCWD}, SECRET, handle, mount, 0) \
         local fd = call({}, {AT_FDCWD}, handle, 0) if fd >= 0 then return 'escaped' end",
        libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at
    ));
    the_memory_of_a_neighbour: at(libc::SYS_openat, "'/proc/' .. NEIGHBOUR .. '/mem', 2, 0");
    the_memory_of_a_neighbour_by_a_call: native(format!(
        "local space = ('\\0'):rep(64) local vector = string.pack('<i8i8', 4194304, 64) \
         if call({}, NEIGHBOUR, vector, 1, vector, 1, 0) >= 0 then return 'escaped' end \
         if call({}, BYSTANDER, vector, 1, vector, 1, 0) >= 0 then return 'escaped' end",
        libc::SYS_process_vm_readv, libc::SYS_process_vm_readv
    ));
    tracing_a_bystander: fails(libc::SYS_ptrace, "16, BYSTANDER, 0, 0");
    a_new_file: at(libc::SYS_openat, "SECRET_DIR .. '/made.txt', 65, 511");
    cutting_a_file_short: fails(libc::SYS_truncate, "SECRET, 0");
    removing_a_file: at(libc::SYS_unlinkat, "SECRET, 0");
    moving_a_file: native(format!(
        "if call({}, {AT_FDCWD}, SECRET, {AT_FDCWD}, OUT .. '/x', 0) == 0 then return 'escaped' end",
        libc::SYS_renameat2
    )).granted(IN_OUT);
    a_link: native(format!(
        "if call({}, {AT_FDCWD}, SECRET, {AT_FDCWD}, OUT .. '/x', 0) == 0 then return 'escaped' end",
        libc::SYS_linkat
    )).granted(IN_OUT);
    a_symbolic_link: native(format!(
        "if call({}, SECRET, {AT_FDCWD}, OUT .. '/x') == 0 then return 'escaped' end",
        libc::SYS_symlinkat
    )).granted(IN_OUT);
    permissions: at(libc::SYS_fchmodat, "SECRET, 511");
    owners: at(libc::SYS_fchownat, "SECRET, 0, 12345, 0");
    times: at(libc::SYS_utimensat, "SECRET, ('\\0'):rep(32), 0");
    attributes: fails(libc::SYS_setxattr, "SECRET, 'user.x', 'y', 1, 0");
    a_device: at(libc::SYS_mknodat, "SECRET_DIR .. '/made.txt', 4438, 259");
    what_is_in_a_directory: at(libc::SYS_openat, "SECRET_DIR, 65536, 0");
    watching_a_directory: fails(libc::SYS_inotify_init1, "0");
    watching_all_files: fails(libc::SYS_fanotify_init, "0, 0");

    a_signal_to_a_neighbour: native(format!(
        "for _, pid in ipairs{{NEIGHBOUR, BYSTANDER, ZYGOTE}} do \
         if call({}, pid, 0) == 0 or call({}, pid, pid, 0) == 0 or call({}, pid, 0) == 0 then \
         return 'escaped' end end",
        libc::SYS_kill, libc::SYS_tgkill, libc::SYS_tkill
    ));
    a_handle_on_a_neighbour: fails(libc::SYS_pidfd_open, "NEIGHBOUR, 0");
    a_signal_by_news_on_a_descriptor: native(format!(
        "for fd = 0, 12 do for _, pid in ipairs{{BYSTANDER, NEIGHBOUR}} do \
         call({fcntl}, fd, 8, pid) call({fcntl}, fd, 10, 9) call({fcntl}, fd, 4, 8192) end end",
        fcntl = libc::SYS_fcntl
    )).ends(&[bioxen::EndedBy::Finished, bioxen::EndedBy::Killed, bioxen::EndedBy::Lost]);
    limits_of_a_neighbour: native(format!(
        "for _, pid in ipairs{{BYSTANDER, NEIGHBOUR}} do \
         if call({prlimit}, pid, 7, string.pack('<i8i8', 1, 1), 0) == 0 then return 'escaped' end end",
        prlimit = libc::SYS_prlimit64
    ));
    limits_of_a_neighbour_that_are_looked_at: native(format!(
        "local space = ('\\0'):rep(16) .. 'x' if call({}, BYSTANDER, 7, 0, space) == 0 then return 'escaped' end",
        libc::SYS_prlimit64
    ));
    limits_of_its_own_that_are_raised: native(format!(
        "local pid = call({}) for limit = 0, 15 do local old = ('\\0'):rep(16) .. limit call({prlimit}, 0, limit, 0, old) \
         local _, hard = string.unpack('<I8I8', old) \
         if hard ~= -1 and call({prlimit}, 0, limit, string.pack('<i8i8', hard + 1, hard + 1), 0) == 0 then \
         return 'escaped: ' .. limit end end",
        libc::SYS_getpid, prlimit = libc::SYS_prlimit64
    ));
    priority_of_a_neighbour: fails(libc::SYS_setpriority, "0, BYSTANDER, 19");
    processors_of_a_neighbour: fails(libc::SYS_sched_setaffinity, "BYSTANDER, 8, string.pack('<i8', 1)");
    scheduling_of_a_neighbour: fails(libc::SYS_sched_setscheduler, "BYSTANDER, 3, string.pack('<i4', 0)");
    disk_priority_of_a_neighbour: fails(libc::SYS_ioprio_set, "1, BYSTANDER, 24576");
    a_group_of_its_own: fails(libc::SYS_setpgid, "0, 0");
    a_session_of_its_own: fails(libc::SYS_setsid, "");
    writing_into_what_ties_all_vms_to_their_controller: native(format!(
        "for fd = 3, 63 do for _, how in ipairs{{1, 2, 1025}} do \
         local open = call({open}, {AT_FDCWD}, '/proc/self/fd/' .. fd, how, 0) \
         if open >= 0 then call({write}, open, 'x', 1) end end end",
        open = libc::SYS_openat, write = libc::SYS_write
    )).ends(&[bioxen::EndedBy::Finished, bioxen::EndedBy::Killed]);

    a_socket_of_the_internet: fails(libc::SYS_socket, "2, 1, 0");
    a_socket_for_datagrams: fails(libc::SYS_socket, "2, 2, 0");
    a_socket_of_this_machine: fails(libc::SYS_socket, "1, 1, 0");
    a_socket_of_the_kernel: fails(libc::SYS_socket, "16, 3, 0");
    a_raw_socket: fails(libc::SYS_socket, "17, 3, 0");
    a_socket_to_the_host: fails(libc::SYS_socket, "40, 1, 0");
    another_port: connecting(&format!(
        "local s = call({}, 2, 1, 0) assert(s >= 0) \
         if call({}, s, address(OTHER_PORT), 16) == 0 then return 'escaped' end",
        libc::SYS_socket, libc::SYS_connect
    ));
    another_port_by_data_that_goes_ahead: connecting(&format!(
        "local s = call({}, 2, 1, 0) assert(s >= 0) \
         call({}, s, 'x', 1, {FAST_OPEN}, address(OTHER_PORT), 16)",
        libc::SYS_socket, libc::SYS_sendto
    ));
    another_port_by_a_message_that_goes_ahead: connecting(&format!(
        "local s = call({}, 2, 1, 0) assert(s >= 0) local name, data = address(OTHER_PORT), 'x' \
         local function where(text) return tonumber(('%p'):format(text)) + 24 end \
         local vector = string.pack('<I8I8', where(data), 1) .. ('\\0'):rep(40) \
         call({}, s, string.pack('<I8I4I4I8I8I8I8I8', where(name), 16, 0, where(vector), 1, 0, 0, 0), {FAST_OPEN})",
        libc::SYS_socket, libc::SYS_sendmsg
    ));
    waiting_for_connections: connecting(&format!(
        "local s = call({}, 2, 1, 0) if call({}, s, 1) == 0 then return 'escaped' end \
         if call({}, s, address(0), 16) == 0 then return 'escaped' end",
        libc::SYS_socket, libc::SYS_listen, libc::SYS_bind
    ));
    other_sockets_where_the_network_is_granted: connecting(&format!(
        "for _, kind in ipairs{{{{1, 1, 0}}, {{1, 2, 0}}, {{2, 2, 0}}, {{2, 3, 1}}, {{2, 1, 262}}, {{2, 1, 132}}, \
         {{10, 2, 0}}, {{10, 3, 58}}, {{16, 3, 0}}, {{17, 3, 0}}, {{40, 1, 0}}, {{38, 5, 0}}}} do \
         if call({}, kind[1], kind[2], kind[3]) >= 0 then return 'escaped: ' .. table.concat(kind, ' ') end end",
        libc::SYS_socket
    ));

    memory_beyond_the_limit: fails(libc::SYS_mmap, "0, 1 << 31, 3, 34, -1, 0");
    shared_memory_beyond_the_limit: fails(libc::SYS_mmap, "0, 1 << 31, 3, 33, -1, 0");
    a_lease_on_a_file: native(format!(
        "local fd = call({}, {AT_FDCWD}, IN .. '/ok.txt', 0, 0) assert(fd >= 0) \
         if call({fcntl}, fd, 1024, 0) >= 0 then return 'escaped' end \
         if call({fcntl}, call({open}, {AT_FDCWD}, IN, 65536, 0), 1026, 2) >= 0 then return 'escaped' end",
        libc::SYS_openat, fcntl = libc::SYS_fcntl, open = libc::SYS_openat
    ));
    programs_for_the_kernel_on_a_socket: connecting(&format!(
        "local s = call({}, 2, 1, 0) assert(s >= 0) local code = string.pack('<I2I1I1I4', 6, 0, 0, 0) .. ('\\0'):rep(40) \
         local where = tonumber(('%p'):format(code)) + 24 \
         if call({set}, s, 1, 26, string.pack('<I8I8', 1, where), 16) == 0 then return 'escaped' end \
         if call({set}, s, 1, 9, string.pack('<i4', 1), 4) ~= 0 then return 'escaped: others must work' end",
        libc::SYS_socket, set = libc::SYS_setsockopt
    ));
    mounting: fails(libc::SYS_mount, "'none', OUT, 'tmpfs', 0, 0");
    unmounting: fails(libc::SYS_umount2, "OUT, 0");
    another_root: fails(libc::SYS_chroot, "IN");
    new_namespaces: native(format!(
        "for bit = 7, 30 do if call({}, 1 << bit) == 0 then return 'escaped: ' .. bit end end",
        libc::SYS_unshare
    ));
    other_namespaces: fails(libc::SYS_setns, "0, 0");
    programs_for_the_kernel: fails(libc::SYS_bpf, "0, ('\\0'):rep(64), 64");
    counters_of_the_kernel: fails(libc::SYS_perf_event_open, "('\\0'):rep(128), 0, -1, -1, 0");
    rings: fails(libc::SYS_io_uring_setup, "1, ('\\0'):rep(128)");
    page_faults: fails(libc::SYS_userfaultfd, "1");
    keys: fails(libc::SYS_keyctl, "0, -3, 1");
    messages_of_the_kernel: fails(libc::SYS_syslog, "3, ('\\0'):rep(4096), 4096");
    the_name_of_the_machine: fails(libc::SYS_sethostname, "'escape', 6");
    the_time_of_the_machine: fails(libc::SYS_clock_settime, "0, string.pack('<i8i8', 0, 0)");
    modules_of_the_kernel: fails(libc::SYS_init_module, "'', 0, ''");
    accounting: fails(libc::SYS_acct, "OUT .. '/x'");
    memory_that_others_see: fails(libc::SYS_shmget, "0, 4096, 950");
    messages_that_others_see: fails(libc::SYS_msgget, "0, 950");
    semaphores_that_others_see: fails(libc::SYS_semget, "0, 1, 950");
    queues_that_others_see: fails(libc::SYS_mq_open, "'escape', 66, 511, 0");
    another_user: native(format!(
        "if call({}) == 0 and call({}, 12345) == 0 then return 'escaped' end",
        libc::SYS_geteuid, libc::SYS_setuid
    ));
    rights_that_were_dropped: fails(
        libc::SYS_capset,
        "string.pack('<I4i4', 0x20080522, 0), string.pack('<I4I4I4I4I4I4', ~0 & 0xffffffff, ~0 & 0xffffffff, 0, 0xff, 0xff, 0)"
    );
    being_dumped: fails(libc::SYS_prctl, "4, 1, 0, 0, 0");
    a_filter_that_is_taken_off: fails(libc::SYS_prctl, "22, 0, 0, 0, 0");
}

/// VMs of one kind share their zygote, and nothing that one of them could write to.
#[test]
fn nothing_that_is_open_in_a_vm_leads_to_others_of_its_kind() {
    let Some(lua) = interpreter("lua5.4") else { return };
    block_on(async {
        let place = Place::new(|scratch| {
            std::fs::copy(library(), scratch.at("in/probe.so")).expect("it can be copied");
        })
        .await;
        let program = Interpreter::Program(lua.program.unwrap_or_default());
        let vm = |name| {
            let spec = place.spec(name, IN, Limits::default()).interpreter(program.clone());
            place.fleet.create(spec)
        };
        let (attacker, other) = (vm("attacker").await.unwrap(), vm("other").await.unwrap());
        let code = format!(
            "package.cpath = IN .. '/?.so' local call = require('probe') local n = 0 \
             for fd = 2, 63 do for _, how in ipairs{{1, 2, 1025}} do \
             local open = call({}, {AT_FDCWD}, '/proc/self/fd/' .. fd, how, 0) \
             if open >= 0 then n = n + 1 call({}, open, 'x', 1) end \
             call({write}, fd, 'x', 1) call({shutdown}, fd, 2) end end return n",
            libc::SYS_openat,
            libc::SYS_write,
            write = libc::SYS_write,
            shutdown = libc::SYS_shutdown,
        );
        let run = place.attack(&attacker, &code).await;
        place.check_unharmed(&run).await;
        assert_eq!(other.eval("return 6 * 7").await.unwrap().value().as_i64(), Some(42));
        let third = vm("third").await.expect("the zygote goes on");
        assert_eq!(third.eval("return 6 * 7").await.unwrap().value().as_i64(), Some(42));
    });
}
