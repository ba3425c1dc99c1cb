//! Reading what was not granted.

use bioxen::Mechanism;

use crate::place::{Granted, IN, IN_OUT, NOTHING, OUT, SPAWN_IN_OUT, attempt, attempts, shell};

/// Opens a path and hands back what is in it.
fn open(path: &str) -> String {
    format!(
        "local f, m = io.open({path}) if not f then return m end \
         local s = f:read(4096) if s then return 'escaped: ' .. s end return 'nothing', m"
    )
}

attempts! {
    a_system_file: attempt(open("'/etc/passwd'")).naming("--allow-read /etc/passwd");
    a_secret_file: attempt(open("SECRET")).naming("--allow-read");
    a_secret_file_beside_a_granted_directory: attempt(open("SECRET")).granted(IN).naming("--allow-read");
    the_environment_of_the_worker: attempt(open("'/proc/self/environ'")).naming("--allow-read");
    the_memory_map_of_the_worker: attempt(open("'/proc/self/maps'")).granted(IN).naming("--allow-read");
    the_program_of_the_worker: attempt(open("'/proc/self/exe'")).granted(IN).naming("--allow-read");
    the_memory_of_another_process: attempt(open("'/proc/1/mem'")).granted(IN).naming("--allow-read");
    the_memory_of_a_neighbour: attempt(open("'/proc/' .. NEIGHBOUR .. '/mem'")).granted(IN)
        .naming("--allow-read");
    the_environment_of_the_controller: attempt(open("'/proc/' .. CONTROLLER .. '/environ'")).granted(IN)
        .naming("--allow-read");
    a_disk: attempt(
        "for _, name in ipairs{'sda', 'vda', 'nvme0n1', 'mem', 'kmsg', 'loop0'} do \
         if io.open('/dev/' .. name) then return 'escaped' end end"
    );
    a_device: attempt(open("'/dev/zero'")).granted(IN).naming("--allow-read");
    a_link_out_of_a_granted_directory: attempt(open("IN .. '/link.txt'")).granted(IN)
        .naming("--allow-read");
    a_linked_directory: attempt(open("IN .. '/linked/secret.txt'")).granted(IN).naming("--allow-read");
    a_link_to_an_absolute_path: attempt(open("IN .. '/absolute/secret.txt'")).granted(IN)
        .naming("--allow-read");
    dots_out_of_a_granted_directory: attempt(open("IN .. '/../secret/secret.txt'")).granted(IN)
        .naming("--allow-read");
    dots_after_something_that_is_not_there: attempt(
        open("IN .. '/missing/../../secret/secret.txt'")
    ).granted(IN).naming("--allow-read");
    dots_after_a_file: attempt(open("IN .. '/ok.txt/../../secret/secret.txt'")).granted(IN)
        .naming("--allow-read");
    dots_after_a_link: attempt(open("IN .. '/linked/../secret/secret.txt'")).granted(IN)
        .naming("--allow-read");
    slashes_and_dots: attempt(open("IN .. '/.//./..//secret/./secret.txt'")).granted(IN)
        .naming("--allow-read");
    a_name_that_begins_like_a_granted_one: attempt(
        "local f = io.open(IN .. '-beside/secret.txt') return f and 'escaped'"
    ).granted(IN);
    a_name_that_goes_on_after_its_end: attempt(
        open("SECRET .. '\\0/../../in/ok.txt'")
    ).granted(IN).naming("--allow-read");
    a_link_whose_name_goes_on_after_its_end: attempt(
        open("IN .. '/linked/secret.txt\\0/..'")
    ).granted(IN).naming("--allow-read");
    names_that_go_on_after_their_end_of_other_functions: attempt(
        "local name = SECRET .. '\\0/../../in/ok.txt' \
         for _, f in ipairs{io.lines, io.input, loadfile, dofile} do \
           local ok, value, why = pcall(f, name) \
           why = tostring(why or value) \
           if not why:find('--allow-read', 1, true) then return 'escaped: ' .. why end end \
         if package.searchpath('x', name) then return 'escaped' end \
         package.path = name return (pcall(require, 'x')) and 'escaped'"
    ).granted(IN);
    descriptors_by_a_search: attempt(
        "for fd = 0, 63 do if package.searchpath('x', '/proc/self/fd/' .. fd) then return 'escaped by ' .. fd end end"
    ).granted(IN);
    an_empty_name: attempt("return io.open('') and 'escaped'").granted(IN);
    a_very_long_name: attempt("return io.open(IN .. ('/.'):rep(100000) .. '/../secret/secret.txt') \
        and 'escaped'").granted(IN);
    lines_of_a_file: attempt("for line in io.lines(SECRET) do return 'escaped ' .. line end")
        .naming("--allow-read");
    the_default_input: attempt("io.input(SECRET) return 'escaped ' .. io.read('a')")
        .naming("--allow-read");
    a_file_as_code: attempt("return dofile(SECRET)").naming("--allow-read");
    a_file_as_a_chunk: attempt("return loadfile(SECRET)").naming("--allow-read");
    a_link_as_code: attempt("return loadfile(IN .. '/link.txt')").granted(IN).naming("--allow-read");
    a_file_as_a_module: attempt(
        "package.path = SECRET_DIR .. '/?.txt' return require('secret')"
    ).granted(IN).naming("--allow-read");
    a_module_by_a_name_with_dots_in_it: attempt(
        "package.path = IN .. '/?' return require('/../secret/secret')"
    ).granted(IN);
    whether_a_file_is_there: attempt(
        "return package.searchpath('secret', SECRET_DIR .. '/?.txt') and 'escaped'"
    );
    whether_a_file_is_there_by_its_error: attempt(
        "local _, there = io.open(SECRET) local _, gone = io.open(SECRET_DIR .. '/none.txt') \
         if there:gsub('secret.txt', 'x') ~= gone:gsub('none.txt', 'x') then return 'escaped' end"
    ).granted(IN);
    whether_a_file_is_there_by_removing_it: attempt(
        "local _, there = os.remove(SECRET) local _, gone = os.remove(SECRET_DIR .. '/none.txt') \
         if there:gsub('secret.txt', 'x') ~= gone:gsub('none.txt', 'x') then return 'escaped' end"
    ).granted(OUT);
    a_directory: attempt("local f = io.open(SECRET_DIR) return f and f:read('a') and 'escaped'");
    descriptors_that_are_open: attempt(
        "for fd = 0, 63 do for _, where in ipairs{'/proc/self/fd/', '/dev/fd/', '/proc/thread-self/fd/'} do \
         if io.open(where .. fd) then return 'escaped by ' .. fd end end end"
    ).granted(IN);
    descriptors_by_a_name_that_goes_on: attempt(
        "local up = ('/..'):rep(12) \
         for fd = 0, 63 do if io.open('/proc/self/fd/' .. fd .. '\\0' .. up .. IN .. '/ok.txt') then \
         return 'escaped by ' .. fd end end"
    ).granted(IN);
    a_file_that_is_moved_to_where_it_may_be_read: attempt(
        "os.rename(SECRET, OUT .. '/moved') local f = io.open(OUT .. '/moved') \
         return f and 'escaped ' .. f:read('a')"
    ).granted(OUT);
    a_directory_that_is_moved_to_where_it_may_be_read: attempt(
        "os.rename(SECRET_DIR, OUT .. '/moved') return io.open(OUT .. '/moved/secret.txt') and 'escaped'"
    ).granted(OUT);
    a_file_by_a_relative_name: attempt(
        "for _, up in ipairs{'', '../', '../../', '../../../', '../../../../../../../../../..'} do \
         for _, name in ipairs{'Cargo.toml', 'etc/passwd'} do \
         if io.open(up .. name) then return 'escaped' end end end"
    ).granted(IN);
    variables_that_were_not_granted: attempt(
        "for _, name in ipairs{'HOME', 'PATH', 'USER', 'SHELL', 'PWD', 'LD_BIND_NOW', 'CARGO', \
         'CARGO_MANIFEST_DIR', 'BIOXEN_WORKER', 'LUA_PATH', 'SSH_AUTH_SOCK', '', '_'} do \
         if os.getenv(name) then return 'escaped: ' .. name end end"
    );
    files_by_a_listing: attempt("return assert(io.popen('ls ' .. SECRET_DIR)):read('a')").naming("--allow-spawn");
    another_languages_modules: attempt(
        "for _, name in ipairs{'ffi', 'socket', 'lfs', 'posix', 'jit', 'bit'} do \
         if pcall(require, name) then return 'escaped: ' .. name end end"
    ).granted(IN_OUT);
}

const FILES: &[Mechanism] = &[Mechanism::LandlockFiles];

attempts! {
    by_cat: shell("cat $SECRET").needs(FILES);
    by_redirection: shell("read line < $SECRET; echo \"$line\"").needs(FILES);
    as_a_shell_script: shell("sh $SECRET; . $SECRET").needs(FILES);
    by_an_inherited_descriptor: shell("exec 5<$SECRET; cat <&5").needs(FILES);
    by_copying: shell("cp $SECRET $OUT/copy; cat $OUT/copy").granted(SPAWN_IN_OUT).needs(FILES);
    by_a_hard_link: shell("ln $SECRET $OUT/hard; cat $OUT/hard").granted(SPAWN_IN_OUT).needs(FILES);
    by_a_symbolic_link: shell("ln -s $SECRET $OUT/soft; cat $OUT/soft $OUT/link.txt")
        .granted(SPAWN_IN_OUT).needs(FILES);
    by_moving: shell("mv $SECRET $OUT/moved; cat $OUT/moved").granted(SPAWN_IN_OUT).needs(FILES);
    by_an_archive: shell("tar cf - -C $SECRET_DIR . | cat").needs(FILES);
    by_a_device_of_the_kernel: shell("cat /proc/$CONTROLLER/environ /proc/1/environ /proc/kcore | head -c 9 \
        && echo; cat /proc/self/environ | head -c 0 && echo").needs(FILES);
    by_the_root_of_another_process: shell("cat /proc/$CONTROLLER/root$SECRET /proc/$BYSTANDER/cwd/$SECRET")
        .granted(Granted { read_proc: true, ..SPAWN_IN_OUT }).needs(FILES);
    by_listing_a_directory: shell("ls $SECRET_DIR | sed s/^/escaped/; for f in $SECRET_DIR/s*; do \
        [ -r \"$f\" ] && head -c1 \"$f\" >/dev/null && echo escaped; done").needs(FILES);
    by_the_dynamic_linker: shell("/lib64/ld-linux-x86-64.so.2 /bin/cat $SECRET").needs(FILES);
    by_perl: shell("perl -e 'open(F, $ARGV[0]) and print <F>' $SECRET").with_program("/usr/bin/perl")
        .needs(FILES);
    by_changing_the_root: shell("chroot $SECRET_DIR; unshare -r -m cat $SECRET; \
        nsenter -t $CONTROLLER -m cat $SECRET").needs(FILES);
    by_a_bind_mount: shell("mount --bind $SECRET_DIR $OUT; cat $OUT/secret.txt").granted(SPAWN_IN_OUT)
        .needs(FILES);
    the_environment_of_programs: attempt(
        "for line in io.popen('env'):lines() do local name = line:match('^[^=]*') \
         if not ({PWD = 1, OLDPWD = 1, SHLVL = 1, _ = 1})[name] then return 'escaped: ' .. line end end"
    ).granted(Granted { spawn: true, ..NOTHING });
    descriptors_of_programs: attempt(
        "local open = io.popen('for fd in 3 4 5 6 7 8 9; do if { true <&$fd; } 2>/dev/null; then \
         echo $fd; fi; done'):read('a') return open ~= '' and 'escaped: ' .. open or nil"
    ).granted(Granted { spawn: true, ..NOTHING });
    descriptors_of_programs_that_are_executed: attempt(
        "os.execute('for fd in 3 4 5 6 7 8 9; do if { true <&$fd; } 2>/dev/null; then \
         echo escaped $fd; fi; done')"
    ).granted(Granted { spawn: true, ..NOTHING });
    memory_of_the_worker_by_its_programs: shell("head -c 1 /proc/$PPID/mem; head -c 1 /proc/$NEIGHBOUR/mem; \
        cat /proc/$NEIGHBOUR/maps /proc/$CONTROLLER/maps /proc/$CONTROLLER/environ | sed s/^/escaped/")
        .granted(Granted { read_proc: true, ..SPAWN_IN_OUT }).needs(&[Mechanism::LandlockScope]);
}
