//! System calls that a program makes which was started where that is granted. What may be called there
//! stands on a list of what is forbidden, so each way round it is tried.

use bioxen::Mechanism;

use crate::place::{Attempt, Granted, SPAWN_IN_OUT, attempts, shell};

const SPAWN_NET_IN: Granted = Granted { net: true, ..SPAWN_IN_OUT };

/// Where the numbers of the same calls begin for programs with 32-bit pointers.
const X32: libc::c_long = 0x4000_0000;

/// An attempt in Perl. `F` is a file open for reading, `D` a directory, and `$p` the path of the
/// secret; `refused` makes a system call and says so if that is not refused for what it is.
fn perl(program: impl AsRef<str>) -> Attempt {
    let program = program.as_ref();
    assert!(!program.contains('\''), "the program stands between quotes in a shell");
    let export = "export SECRET SECRET_DIR IN OUT OTHER_PORT GRANTED_PORT STREAM_SOCKET DATAGRAM_SOCKET \
        NEIGHBOUR BYSTANDER";
    let begin = "use Socket; open(F, \"$ENV{IN}/ok.txt\"); sysopen(D, $ENV{IN}, 0200000); \
        my $p = \"$ENV{SECRET}\"; my ($b, $n) = ($ENV{BYSTANDER} + 0, $ENV{NEIGHBOUR} + 0); \
        sub refused { my $r = shift; print \"escaped: $r, $!\\n\" if $r >= 0 or $! != 1 && $! != 38; }";
    shell(format!("{export}; perl -e '{begin} {program}'"))
        .granted(SPAWN_IN_OUT)
        .with_program("/usr/bin/perl")
        .needs(&[Mechanism::Seccomp])
}

/// One system call that is to be refused, or not to be there.
fn refused(number: libc::c_long, arguments: &str) -> Attempt {
    perl(format!("refused(syscall({number}, {arguments}));"))
}

attempts! {
    permissions_of_an_open_file: refused(libc::SYS_fchmod, "fileno(F), 0777");
    permissions_of_an_open_file_by_its_name: refused(libc::SYS_fchmodat, "-100, \"/proc/self/fd/\" . fileno(F), 0777");
    permissions_by_the_newer_call: refused(452, "-100, $p, 0777, 0");
    owner_of_an_open_file: refused(libc::SYS_fchown, "fileno(F), $<, $<");
    times_of_an_open_file: refused(libc::SYS_utimensat, "fileno(F), 0, 0, 0");
    times_by_a_name: refused(libc::SYS_utimensat, "-100, $p, 0, 0");
    attributes: refused(libc::SYS_setxattr, "$p, \"user.x\", \"y\", 1, 0");
    attributes_of_an_open_file: refused(libc::SYS_fsetxattr, "fileno(F), \"user.x\", \"y\", 1, 0");
    attributes_that_are_removed: refused(libc::SYS_removexattr, "$p, \"user.x\"");
    attributes_by_the_newer_call: refused(463, "-100, $p, 0, \"user.x\", pack(\"x16\"), 16");
    flags_by_the_newer_call: refused(469, "-100, $p, pack(\"x24\"), 24, 0");
    flags_of_an_open_file: perl(
        "print \"escaped\" if defined ioctl(F, 0x40086602, pack(\"L\", 0x80)); \
         print \"escaped\" if defined ioctl(F, 0x401c5820, pack(\"x28\")); \
         print \"escaped\" if defined ioctl(F, 0x40087602, pack(\"L\", 5));"
    );
    a_lease_on_a_file: perl("print \"escaped\" if defined fcntl(F, 1024, 0);");
    news_of_a_directory: perl("print \"escaped\" if defined fcntl(D, 1026, 0x80000002);");
    watching_a_directory: refused(libc::SYS_inotify_init1, "0");
    watching_all_files: refused(libc::SYS_fanotify_init, "0x200, 0");

    a_pair_of_sockets_that_sends_elsewhere: perl(
        "for my $kind (2, 3, 5) { socketpair(my $one, my $other, PF_UNIX, $kind, 0) or next; \
         send($one, \"x\", 0, pack_sockaddr_un($ENV{DATAGRAM_SOCKET})); \
         connect($one, pack_sockaddr_un($ENV{DATAGRAM_SOCKET})) and syswrite($one, \"x\"); }"
    );
    a_pair_of_sockets_that_sends_elsewhere_where_the_network_is_granted: perl(
        "for my $kind (1, 2, 3, 5) { socketpair(my $one, my $other, PF_UNIX, $kind, 0) or next; close($other); \
         send($one, \"x\", 0, pack_sockaddr_un($ENV{DATAGRAM_SOCKET})); \
         connect($one, pack_sockaddr_un($ENV{DATAGRAM_SOCKET})) and syswrite($one, \"x\"); \
         connect($one, pack_sockaddr_un($ENV{STREAM_SOCKET})) and syswrite($one, \"x\"); }"
    ).granted(SPAWN_NET_IN);
    data_that_goes_ahead_by_version_6: perl(
        "socket(my $s, PF_INET6, SOCK_STREAM, 0) or exit; \
         send($s, \"x\", 0x20000000, pack_sockaddr_in6($ENV{OTHER_PORT}, inet_pton(AF_INET6, \"::ffff:127.0.0.1\")))"
    ).granted(SPAWN_NET_IN);
    data_that_goes_ahead_in_many_messages: perl(format!(
        "socket(my $s, PF_INET, SOCK_STREAM, 0) or exit; \
         refused(syscall({}, fileno($s), pack(\"x64\"), 0, 0x20000000));",
        libc::SYS_sendmmsg
    )).granted(SPAWN_NET_IN);
    data_that_goes_ahead_when_it_is_written: perl(
        "socket(my $s, PF_INET, SOCK_STREAM, 0) or exit; setsockopt($s, 6, 30, 1); \
         connect($s, pack_sockaddr_in($ENV{OTHER_PORT}, inet_aton(\"127.0.0.1\"))); syswrite($s, \"x\");"
    ).granted(SPAWN_NET_IN).needs(&[Mechanism::LandlockNetwork]);
    an_address_of_its_own: perl(
        "socket(my $s, PF_INET, SOCK_STREAM, 0) or exit; \
         print \"escaped\" if bind($s, pack_sockaddr_in(0, inet_aton(\"127.0.0.1\")));"
    ).granted(SPAWN_NET_IN);
    programs_for_the_kernel_on_a_socket: perl(
        "socketpair(my $one, my $other, PF_UNIX, SOCK_STREAM, 0) or exit; my $code = pack(\"SCCL\", 6, 0, 0, 0); \
         print \"escaped\" if setsockopt($one, 1, 26, pack(\"Sx6P\", 1, $code));"
    );

    limits_of_the_worker: refused(libc::SYS_prlimit64, "getppid(), 7, 0, pack(\"x16\")");
    priority_of_all_of_the_user: refused(libc::SYS_setpriority, "2, 0, 5");
    priority_of_a_group: refused(libc::SYS_setpriority, "1, $n, 5");
    disk_priority_of_all_of_the_user: refused(libc::SYS_ioprio_set, "3, $<, 24576");
    scheduling: refused(libc::SYS_sched_setscheduler, "$b, 3, pack(\"L\", 0)");
    scheduling_by_the_newer_call: refused(libc::SYS_sched_setattr, "$b, pack(\"LLQlLQQQ\", 48, 3, 0, 0, 0, 0, 0, 0), 0");
    places_in_memory: refused(libc::SYS_migrate_pages, "$b, 1, pack(\"Q\", 1), pack(\"Q\", 1)");
    memory_that_is_reaped: refused(libc::SYS_process_mrelease, "3, 0");
    priority_of_its_own: perl(format!(
        "print \"escaped: its own must work\" if syscall({}, 0, 0, 5) < 0 or syscall({}, 0, 8, pack(\"Q\", 1)) < 0;",
        libc::SYS_setpriority, libc::SYS_sched_setaffinity
    ));

    a_session_by_another_number: refused(X32 + libc::SYS_setsid, "0");
    permissions_by_another_number: refused(X32 + libc::SYS_fchmodat, "-100, $p, 0777");
    a_session_by_a_far_number: refused((1 << 32) + libc::SYS_setsid, "0");
    filters_of_its_own: refused(libc::SYS_seccomp, "2, 0, pack(\"L\", 0x7fff0000)");
    filters_of_its_own_by_another_call: refused(libc::SYS_prctl, "22, 2, 0");
    shared_memory_by_its_number: refused(libc::SYS_shmat, "0, 0, 0");
    messages_by_their_number: refused(libc::SYS_msgrcv, "0, pack(\"x64\"), 8, 0, 2048");
    semaphores_by_their_number: refused(libc::SYS_semctl, "0, 0, 16");
    queues_by_their_name: refused(libc::SYS_mq_unlink, "\"bioxen-escape\"");
    the_time_of_the_machine: refused(libc::SYS_clock_settime, "0, pack(\"QQ\", 0, 0)");
    rings: refused(libc::SYS_io_uring_setup, "1, pack(\"x128\")");
}
