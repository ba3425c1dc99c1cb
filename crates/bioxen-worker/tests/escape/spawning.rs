//! Starting programs where that was not granted.

use bioxen::Limits;
use bioxen_core::Limit;

use crate::place::{
    Attempt, Granted, IN_OUT, NOTHING, SPAWN, SPAWN_IN_OUT, attempt, attempts, shell,
};

/// An attempt where programs may be started, and none at a time.
fn alone(code: &str) -> Attempt {
    attempt(code).granted(SPAWN).limits(|limits| Limits { child_processes: Limit::Of(0), ..limits })
}

attempts! {
    by_execute: attempt("os.execute('echo escaped')").naming("--allow-spawn");
    by_popen: attempt("return assert(io.popen('echo escaped')):read('a')").naming("--allow-spawn");
    by_popen_for_writing: attempt("assert(io.popen('cat > ' .. OUT .. '/x', 'w')):write('x')").granted(IN_OUT)
        .naming("--allow-spawn");
    by_popen_with_a_path: attempt("return assert(io.popen('/bin/echo escaped')):read('a')").granted(IN_OUT)
        .naming("--allow-spawn");
    by_a_name_that_is_looked_up: attempt("os.execute('PATH=/tmp:. ./x; exec x')").naming("--allow-spawn");
    by_asking_whether_it_may: attempt("return os.execute() and 'escaped'");
    by_a_function_kept_from_before: attempt(
        "local execute, popen = os.execute, io.popen os.execute, io.popen = nil, nil \
         return pcall(execute, 'echo escaped'), pcall(popen, 'echo escaped')"
    ).naming("--allow-spawn");
    by_a_handler_that_runs_inside: attempt(
        // While a stock function allocates memory a finaliser runs, and sees who called it.
        "local found = {} \
         local function plant() return setmetatable({}, {__gc = function() \
           for level = 2, 6 do local info = debug.getinfo(level, 'Sf') \
             if info and info.what == 'C' then found[info.func] = true end end \
           plant() end}) end \
         for _ = 1, 10 do plant() end \
         collectgarbage('setpause', 1) collectgarbage('setstepmul', 10000) \
         for _ = 1, 200 do pcall(io.popen, ('x'):rep(100)) pcall(io.lines, 'x') end \
         for f in pairs(found) do \
           local ok, file = pcall(f, 'echo escaped') \
           if ok and io.type(file) then return 'escaped' end end"
    ).granted(IN_OUT);
    a_program_that_was_written: shell(
        "printf '#!/bin/sh\\necho escaped\\n' > $OUT/run; chmod +x $OUT/run; $OUT/run"
    ).granted(SPAWN_IN_OUT).needs(&[bioxen::Mechanism::LandlockFiles]);
    // Root keeps the two rights by which it reads other users' files, where files were granted.
    a_program_that_raises_its_rights: shell(
        "for f in su sudo mount newgrp passwd pkexec; do \
           u=$(command -v $f) && [ -u \"$u\" ] && $u --version >/dev/null 2>&1; done; \
         su -c 'echo escaped' </dev/null 2>/dev/null; sudo -n echo escaped 2>/dev/null; \
         grep -q '^NoNewPrivs:.1' /proc/self/status || echo escaped; \
         grep '^CapEff' /proc/self/status | grep -qv '000000000000000[0246]$' && echo escaped; true"
    ).granted(Granted { spawn: true, read_proc: true, ..NOTHING });
    more_programs_than_allowed: attempt(
        // A shell that cannot start the second program ends, and must leave nobody who holds its pipe.
        "local t = {} for i = 1, 40 do local p = io.popen('sleep 50 >/dev/null 2>&1 & sleep 0.3; echo x') \
         if p then t[#t + 1] = p end end \
         local n = 0 for _, p in ipairs(t) do if p:read('l') == 'x' then n = n + 1 end end \
         if n > 8 then return 'escaped: ' .. n end"
    ).granted(Granted { spawn: true, ..NOTHING })
        .limits(|limits| Limits { child_processes: Limit::Of(8), ..limits });
    a_program_where_none_are_allowed: alone("os.execute('echo escaped')").naming("--max-processes");
    a_program_to_read_from_where_none_are_allowed: alone("return assert(io.popen('echo escaped')):read('a')").naming("--max-processes");
    a_program_of_another_interpreter_where_none_are_allowed: alone("os.execute('echo escaped >&2; echo escaped')").on("lua5.4");
}
