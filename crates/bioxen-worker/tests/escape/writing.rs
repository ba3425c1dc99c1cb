//! Writing what was not granted.

use bioxen::Mechanism;

use crate::place::{IN, IN_OUT, OUT, SPAWN, SPAWN_IN_OUT, attempt, attempts, shell};

const FILES: &[Mechanism] = &[Mechanism::LandlockFiles];

attempts! {
    a_new_file: attempt("assert(io.open('/tmp/bioxen-escape', 'w')) return 'escaped'").naming("--allow-write");
    over_a_file: attempt("io.open(SECRET, 'w'):write('x')");
    at_the_end_of_a_file: attempt("io.open(SECRET, 'a'):write('x')").granted(IN_OUT);
    in_the_middle_of_a_file: attempt("io.open(SECRET, 'r+'):write('x')").granted(IN_OUT);
    by_another_spelling_of_the_mode: attempt(
        "for _, mode in ipairs{'w', 'wb', 'w+', 'w+b', 'a', 'ab', 'a+', 'r+', 'r+b', 'rw', 'W', '+w'} do \
         pcall(function() io.open(IN .. '/ok.txt', mode):write('x') end) end"
    ).granted(IN);
    a_file_that_may_only_be_read: attempt("io.open(IN .. '/ok.txt', 'w'):write('x')").granted(IN);
    beside_what_may_be_read: attempt("assert(io.open(IN .. '/new.txt', 'w')):write('x')").granted(IN)
        .naming("allow-write");
    through_a_link: attempt("assert(io.open(OUT .. '/link.txt', 'w')):write('x')").granted(OUT).naming("--allow-write");
    through_a_linked_directory: attempt("assert(io.open(OUT .. '/linked/new.txt', 'w')):write('x')").granted(OUT)
        .naming("--allow-write");
    through_a_dangling_link: attempt("assert(io.open(OUT .. '/dangling', 'w')):write('x')").granted(OUT);
    by_dots: attempt("assert(io.open(OUT .. '/../secret/secret.txt', 'w')):write('x')").granted(OUT)
        .naming("--allow-write");
    by_a_name_that_goes_on_after_its_end: attempt(
        "assert(io.open(SECRET .. '\\0/../../out/x', 'w')):write('x')"
    ).granted(OUT).naming("--allow-write");
    by_the_default_output: attempt("io.output(SECRET) io.write('x')").granted(IN).naming("--allow-write");
    by_removing: attempt("return os.remove(SECRET)").granted(IN_OUT).naming("--allow-write");
    by_removing_what_may_only_be_read: attempt("return os.remove(IN .. '/ok.txt')").granted(IN_OUT)
        .naming("--allow-write");
    by_removing_a_directory: attempt("os.remove(SECRET_DIR) return os.remove(IN)").granted(IN_OUT);
    by_removing_through_a_link: attempt("return os.remove(OUT .. '/linked/secret.txt')").granted(OUT)
        .naming("--allow-write");
    by_removing_a_name_that_goes_on: attempt("return os.remove(SECRET .. '\\0/../../out/x')").granted(OUT)
        .naming("--allow-write");
    by_renaming_over_a_name_that_goes_on: attempt(
        "io.open(OUT .. '/mine', 'w'):close() return os.rename(OUT .. '/mine', SECRET .. '\\0/../../out/x')"
    ).granted(OUT).naming("--allow-write");
    by_the_default_output_and_a_name_that_goes_on: attempt(
        "io.output(SECRET .. '\\0/../../out/x') io.write('x')"
    ).granted(OUT).naming("--allow-write");
    by_renaming_over_it: attempt(
        "io.open(OUT .. '/mine', 'w'):close() return os.rename(OUT .. '/mine', SECRET)"
    ).granted(OUT).naming("--allow-write");
    by_renaming_it_away: attempt("return os.rename(SECRET, OUT .. '/mine')").granted(OUT)
        .naming("--allow-write");
    by_renaming_what_may_only_be_read: attempt("return os.rename(IN .. '/ok.txt', OUT .. '/mine')")
        .granted(IN_OUT).naming("--allow-write");
    by_renaming_a_granted_directory: attempt("os.rename(OUT, SECRET_DIR .. '/out')").granted(OUT);
    a_temporary_file: attempt("assert(io.tmpfile()) return 'escaped'").naming("--allow-write /tmp");
    a_temporary_name: attempt("return os.tmpname() and 'escaped'").naming("--allow-write /tmp");
    a_temporary_file_beside_a_grant: attempt("assert(io.tmpfile()) return 'escaped'").granted(OUT)
        .naming("--allow-write /tmp");
    the_own_descriptors: attempt(
        "for fd = 0, 63 do local f = io.open('/proc/self/fd/' .. fd, 'w') \
         if f then return 'escaped by ' .. fd end end"
    ).granted(OUT);
    the_own_descriptors_by_a_name_that_goes_on: attempt(
        "local up = ('/..'):rep(12) \
         for fd = 0, 63 do local f = io.open('/proc/self/fd/' .. fd .. '\\0' .. up .. OUT .. '/x', 'w') \
         if f then f:write('x') f:close() end end return 'tried'"
    ).granted(OUT);
    settings_of_the_own_process: attempt(
        "for _, name in ipairs{'oom_score_adj', 'comm', 'mem', 'coredump_filter', 'clear_refs'} do \
         if io.open('/proc/self/' .. name, 'r+') then return 'escaped by ' .. name end end"
    ).granted(OUT);
    settings_of_the_kernel: attempt(
        "assert(io.open('/proc/sys/kernel/hostname', 'w')) return 'escaped'"
    ).granted(OUT).naming("--allow-write");
}

attempts! {
    by_the_shell: shell("echo x > $SECRET; echo x >> $SECRET; : > $SECRET_DIR/made.txt").needs(FILES);
    by_the_shell_where_it_may_only_be_read: shell("echo x > $IN/ok.txt; echo x > $IN/new.txt; rm $IN/ok.txt")
        .granted(SPAWN_IN_OUT).needs(FILES);
    a_directory: shell("mkdir $SECRET_DIR/made $IN/made; rmdir $SECRET_DIR").granted(SPAWN_IN_OUT).needs(FILES);
    a_link_to_write_through: shell("ln -s $SECRET $OUT/soft; echo x > $OUT/soft; echo x > $OUT/link.txt")
        .granted(SPAWN_IN_OUT).needs(FILES);
    a_hard_link_to_write_through: shell("ln $SECRET $OUT/hard && echo x > $OUT/hard; ln $OUT/hard $SECRET_DIR/x")
        .granted(SPAWN_IN_OUT).needs(FILES);
    a_hard_link_into_what_may_not_be_written: shell("echo x > $OUT/a; ln $OUT/a $SECRET_DIR/made.txt; \
        cp $OUT/a $SECRET_DIR/made.txt; mv $OUT/a $SECRET_DIR/made.txt").granted(SPAWN_IN_OUT).needs(FILES);
    by_cutting_it_short: shell("truncate -s 0 $SECRET; truncate -s 0 $IN/ok.txt").granted(SPAWN_IN_OUT)
        .needs(FILES);
    permissions: shell("chmod 777 $SECRET; chmod 777 $IN/ok.txt; chmod 0 $SECRET_DIR").granted(SPAWN_IN_OUT);
    permissions_without_any_file_granted: shell("chmod 777 $SECRET");
    times: shell("touch -d 2001-01-01 $SECRET; touch -d 2001-01-01 $IN/ok.txt").granted(SPAWN_IN_OUT);
    owners: shell("chown 12345:12345 $SECRET; chgrp 12345 $SECRET; chown :$(id -g) $SECRET");
    attributes: shell("perl -e 'require \"syscall.ph\"' 2>/dev/null; setfattr -n user.x -v y $SECRET; \
        chattr +i $SECRET");
    a_pipe_or_a_device: shell("mkfifo $SECRET_DIR/pipe; mknod $SECRET_DIR/null c 1 3; mknod $OUT/null c 1 3 \
        && echo escaped").granted(SPAWN_IN_OUT).needs(FILES);
    a_dump_of_a_crashed_program: shell("cd $OUT; ulimit -c unlimited 2>/dev/null && echo escaped; \
        sh -c 'kill -SEGV $$'; ls $OUT | grep -i core | sed s/^/escaped/").granted(SPAWN_IN_OUT);
    limits_that_were_set: shell("ulimit -n 100000 2>/dev/null && echo escaped; ulimit -c 1 2>/dev/null && echo escaped");
    the_time_of_the_machine: shell("date -s 2001-01-01 >/dev/null 2>&1 && echo escaped");
    the_name_of_the_machine: shell("hostname escape 2>/dev/null && echo escaped; \
        echo escape > /proc/sys/kernel/hostname").granted(SPAWN);
    a_schedule_for_later: shell("echo 'touch /tmp/x' | at now && echo escaped; \
        echo '* * * * * true' | crontab - && echo escaped");
    shared_memory: shell("echo x > /dev/shm/bioxen-escape && echo escaped; ipcmk -M 10 && echo escaped; \
        ipcmk -Q && echo escaped; ipcmk -S 1 && echo escaped").granted(SPAWN_IN_OUT).needs(&[Mechanism::LandlockFiles, Mechanism::Seccomp]);
}
