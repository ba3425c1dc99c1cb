//! Disturbing neighbours, the controller, and other programs of the same user.
//!
//! No attempt here is aimed at processes that are not of this test: if it got through, only they
//! would suffer.

use bioxen::Mechanism;

use crate::place::{Granted, NOTHING, OUT, SPAWN_IN_OUT, attempt, attempts, shell};

const SCOPE: &[Mechanism] = &[Mechanism::LandlockScope];
const SPAWN_PROC: Granted = Granted { read_proc: true, spawn: true, ..NOTHING };

attempts! {
    killing_a_neighbour: shell("kill -9 $NEIGHBOUR").needs(SCOPE);
    killing_a_bystander: shell("kill -9 $BYSTANDER; kill $BYSTANDER; kill -HUP $BYSTANDER").needs(SCOPE);
    killing_the_group_of_a_neighbour: shell("kill -9 -$NEIGHBOUR; kill -9 -- -$NEIGHBOUR").needs(SCOPE);
    killing_the_zygote: shell("kill -9 $ZYGOTE").needs(SCOPE);
    stopping_a_neighbour: shell("kill -STOP $NEIGHBOUR; kill -STOP $BYSTANDER; kill -TSTP $ZYGOTE").needs(SCOPE);
    asking_after_a_neighbour: shell("kill -0 $NEIGHBOUR && echo escaped; kill -0 $CONTROLLER && echo escaped")
        .needs(SCOPE);
    killing_by_another_program: shell("perl -e 'kill 9, $ARGV[0], $ARGV[1]' $NEIGHBOUR $BYSTANDER; \
        skill -9 -p $BYSTANDER 2>/dev/null; true").needs(SCOPE);
    killing_itself: shell("kill -9 $$; kill -9 $PPID").ends(&[
        bioxen::EndedBy::Killed,
        bioxen::EndedBy::Finished,
        bioxen::EndedBy::Error,
    ]);
    // A signal that is raised by news on a descriptor is sent by the kernel.
    signals_by_news_on_a_descriptor: shell(
        "perl -e 'pipe(my $r, my $w); \
         fcntl($r, 8, 0 + $ARGV[0]); fcntl($r, 10, 9); fcntl($r, 4, 020000); syswrite($w, \"x\"); \
         fcntl($r, 8, 0 + $ARGV[1]); syswrite($w, \"x\"); sleep 1' $NEIGHBOUR $BYSTANDER"
    ).with_program("/usr/bin/perl").needs(SCOPE);
    // What ties all VMs to their controller is one pipe.
    writing_into_what_ties_all_vms_to_their_controller: shell(
        "for fd in 3 4 5 6 7 8 9 10 11 12; do echo x > /proc/self/fd/$fd; echo x > /dev/fd/$fd; done 2>/dev/null"
    );
    writing_into_what_ties_all_vms_to_their_controller_by_the_parent: shell(
        "for fd in 3 4 5 6 7 8 9 10 11 12; do echo x > /proc/$PPID/fd/$fd; done 2>/dev/null"
    ).granted(SPAWN_PROC);
    writing_into_what_ties_all_vms_by_a_name_that_goes_on: attempt(
        "local up = ('/..'):rep(12) for fd = 3, 63 do \
         local f = io.open('/proc/self/fd/' .. fd .. '\\0' .. up .. OUT .. '/x', 'a') \
         if f then f:write('x') f:close() end end"
    ).granted(OUT);
    limits_of_a_neighbour: shell(
        "prlimit --pid $NEIGHBOUR --nofile=1:1; prlimit --pid $BYSTANDER --nofile=1:1 --cpu=1:1 --fsize=0:0"
    ).with_program("/usr/bin/prlimit");
    priority_of_a_neighbour: shell("renice -n 19 -p $NEIGHBOUR $BYSTANDER; renice -n 5 -p $BYSTANDER")
        .with_program("/usr/bin/renice");
    processors_of_a_neighbour: shell("taskset -pc 0 $NEIGHBOUR; taskset -pc 0 $BYSTANDER")
        .with_program("/usr/bin/taskset");
    scheduling_of_a_neighbour: shell(
        "chrt -i -p 0 $BYSTANDER && echo escaped; chrt -b -p 0 $BYSTANDER && echo escaped"
    ).with_program("/usr/bin/chrt");
    disk_priority_of_a_neighbour: shell(
        "before=$(ionice -p $BYSTANDER); ionice -c 3 -p $BYSTANDER; [ \"$before\" = \"$(ionice -p $BYSTANDER)\" ] || echo escaped"
    ).with_program("/usr/bin/ionice");
    fate_of_a_neighbour_when_memory_runs_out: shell(
        "echo 1000 > /proc/$NEIGHBOUR/oom_score_adj; echo 1000 > /proc/$BYSTANDER/oom_score_adj"
    ).granted(SPAWN_IN_OUT).needs(&[Mechanism::LandlockFiles]);
    tracing_a_neighbour: shell(
        "strace -p $BYSTANDER -o /dev/null & sleep 0.5; grep '^TracerPid' /proc/$BYSTANDER/status | grep -v '0$' && echo escaped; kill %1"
    ).granted(SPAWN_PROC).with_program("/usr/bin/strace");
    debugging_a_neighbour: shell(
        "gdb -batch -nx -p $NEIGHBOUR -ex 'call (int)getpid()' -ex kill 2>&1 | grep -q '^[$]1 = ' && echo escaped"
    ).with_program("/usr/bin/gdb");
    entering_the_namespaces_of_another: shell("nsenter -t $CONTROLLER -a echo escaped; nsenter -t $BYSTANDER -n echo escaped");
    typing_into_a_terminal: shell(
        "perl -e 'for my $n (0 .. 2) { open(my $t, \"<&=\", $n); print \"escaped\" if defined ioctl($t, 0x5412, \"x\"); }'"
    ).with_program("/usr/bin/perl");
    using_the_terminal_of_the_controller: shell("echo escaped > /dev/tty; echo x > /dev/console && echo escaped; \
        for t in /dev/pts/*; do echo x > $t && echo escaped; done").needs(&[Mechanism::LandlockFiles]);
}
