//! Reaching others over a network, or over sockets of this machine.

use bioxen::Mechanism;

use crate::place::{Granted, IN_OUT, SPAWN, SPAWN_NET, attempt, attempts, shell};

const PERL: &str = "/usr/bin/perl";
const SECCOMP: &[Mechanism] = &[Mechanism::Seccomp];
const PORTS: &[Mechanism] = &[Mechanism::LandlockNetwork];

/// An attempt by a program in Perl, which may use the same names as shell commands.
fn perl(program: &str) -> crate::place::Attempt {
    assert!(!program.contains('\''), "the program stands between quotes in a shell");
    let export = "export SECRET IN OUT OTHER_PORT GRANTED_PORT STREAM_SOCKET DATAGRAM_SOCKET NEIGHBOUR BYSTANDER";
    shell(format!("{export}; perl -e 'use Socket; {program}'")).with_program(PERL)
}

const CONNECT: &str = "socket(my $s, PF_INET, SOCK_STREAM, 0) or exit; \
    connect($s, pack_sockaddr_in($ENV{OTHER_PORT}, inet_aton(\"127.0.0.1\"))) and syswrite($s, \"x\");";

attempts! {
    there_is_no_way_to_in_lua: attempt(
        "for name, library in pairs(_G) do if type(library) == 'table' then \
         for word, value in pairs(library) do word = tostring(word):lower() \
           if type(value) ~= 'string' and (word:find('sock') or word:find('connect') or word:find('http')) then \
             return 'escaped: ' .. name .. '.' .. word end end end end"
    );
    by_a_module: attempt("return (pcall(require, 'socket')) and 'escaped'").granted(IN_OUT);
    by_a_device_of_the_shell: shell("exec 5<>/dev/tcp/127.0.0.1/$OTHER_PORT && echo escaped; \
        bash -c 'exec 5<>/dev/tcp/127.0.0.1/'$OTHER_PORT' && echo escaped'; true");
    by_a_program: perl(CONNECT).needs(SECCOMP);
    by_another_program: shell("curl -s --max-time 5 http://127.0.0.1:$OTHER_PORT/; \
        curl -s --max-time 5 telnet://127.0.0.1:$OTHER_PORT").with_program("/usr/bin/curl").needs(SECCOMP);
    another_port_than_the_granted_one: perl(CONNECT).granted(SPAWN_NET).needs(PORTS);
    another_port_by_version_6: perl(
        "socket(my $s, PF_INET6, SOCK_STREAM, 0) or exit; \
         connect($s, pack_sockaddr_in6($ENV{OTHER_PORT}, inet_pton(AF_INET6, \"::ffff:127.0.0.1\")))"
    ).granted(SPAWN_NET).needs(PORTS);
    // Data that travels with the opening of a connection needs no call to `connect`.
    another_port_by_data_that_goes_ahead: perl(
        "socket(my $s, PF_INET, SOCK_STREAM, 0) or exit; \
         send($s, \"x\", 0x20000000, pack_sockaddr_in($ENV{OTHER_PORT}, inet_aton(\"127.0.0.1\")))"
    ).granted(SPAWN_NET).needs(PORTS);
    another_port_by_another_protocol: perl(
        "socket(my $s, PF_INET, SOCK_STREAM, 262) or exit; \
         connect($s, pack_sockaddr_in($ENV{OTHER_PORT}, inet_aton(\"127.0.0.1\")))"
    ).granted(SPAWN_NET).needs(SECCOMP);
    waiting_for_connections: perl(
        "socket(my $s, PF_INET, SOCK_STREAM, 0) or exit; \
         bind($s, pack_sockaddr_in(0, INADDR_ANY)) and listen($s, 1) and print \"escaped\""
    ).granted(SPAWN_NET).needs(PORTS);
    waiting_for_connections_on_a_port_that_the_system_chooses: perl(
        "socket(my $s, PF_INET, SOCK_STREAM, 0) or exit; \
         if (listen($s, 1)) { my ($p) = unpack_sockaddr_in(getsockname($s)); print \"escaped: $p\" }"
    ).granted(SPAWN_NET);
    datagrams: perl(
        "socket(my $s, PF_INET, SOCK_DGRAM, 0) or exit; \
         send($s, \"x\", 0, pack_sockaddr_in($ENV{OTHER_PORT}, inet_aton(\"127.0.0.1\"))) and print \"escaped\""
    ).granted(SPAWN_NET).needs(SECCOMP);
    datagrams_where_no_network_is_granted: perl(
        "socket(my $s, PF_INET, SOCK_DGRAM, 0) and print \"escaped\""
    ).needs(SECCOMP);
    raw_packets: perl(
        "socket(my $s, PF_INET, SOCK_RAW, 1) and print \"escaped\"; \
         socket(my $t, 17, SOCK_RAW, 768) and print \"escaped\"; \
         socket(my $u, 16, SOCK_RAW, 0) and print \"escaped\"; \
         socket(my $v, 38, SOCK_SEQPACKET, 0) and print \"escaped\"; \
         socket(my $w, 40, SOCK_STREAM, 0) and print \"escaped\""
    ).granted(SPAWN_NET).needs(SECCOMP);
    a_socket_of_this_machine: perl(
        "socket(my $s, PF_UNIX, SOCK_STREAM, 0) or exit; connect($s, pack_sockaddr_un($ENV{STREAM_SOCKET}))"
    ).needs(SECCOMP);
    a_socket_of_this_machine_where_the_network_is_granted: perl(
        "socket(my $s, PF_UNIX, SOCK_STREAM, 0) or exit; connect($s, pack_sockaddr_un($ENV{STREAM_SOCKET}))"
    ).granted(SPAWN_NET);
    // Datagrams need no call to `connect` either.
    a_socket_of_this_machine_by_datagrams: perl(
        "socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or exit; \
         send($s, \"x\", 0, pack_sockaddr_un($ENV{DATAGRAM_SOCKET}))"
    ).granted(SPAWN);
    a_socket_of_this_machine_by_datagrams_where_the_network_is_granted: perl(
        "socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or exit; \
         send($s, \"x\", 0, pack_sockaddr_un($ENV{DATAGRAM_SOCKET}))"
    ).granted(SPAWN_NET);
    a_device_of_the_log: shell("logger escape; echo x > /dev/log; echo x > /dev/kmsg && echo escaped; true")
        .granted(Granted { net: true, ..SPAWN });
}
