//! Running on after a limit, and taking more than a limit.

use std::time::{Duration, Instant};

use bioxen::{ByteSize, EndedBy, Grants, Limit, Limits, VmSpec};
use bioxen_testkit::{Process, Scratch, block_on, fleet};

use crate::place::{Attempt, Granted, IN_OUT, NOTHING, attempt, attempts, worker_of};

/// How long code may run; short, since each of these attempts takes all of it.
const SHORT: Duration = Duration::from_millis(200);

/// An attempt to run for ever.
fn forever(code: &str) -> Attempt {
    attempt(code)
        .limits(|limits| Limits { wall_time: Limit::Of(SHORT), ..limits })
        .ends(&[EndedBy::WallTime])
}

/// An attempt to use up memory, of which there is little.
fn bomb(code: &str) -> Attempt {
    attempt(code)
        .limits(|limits| Limits { memory: ByteSize::mib(24).into(), ..limits })
        .ends(&[EndedBy::Memory])
}

const SPAWN: Granted = Granted { spawn: true, ..NOTHING };

attempts! {
    a_loop: forever("while true do end");
    a_loop_that_counts: forever("for i = 1, math.huge do end");
    a_loop_of_jumps: forever("::again:: goto again");
    a_loop_that_catches_errors: forever("while true do pcall(function() while true do end end) end");
    a_loop_that_catches_errors_in_many_layers: forever(
        "local function f(n) while true do pcall(n > 0 and f or error, n - 1) end end f(100)"
    );
    a_loop_that_is_called_by_its_error_handler: forever(
        "local function f() return xpcall(f, f) end while true do f() end"
    );
    a_loop_in_a_message_handler: forever("xpcall(error, function() while true do end end)");
    a_loop_in_a_message_handler_of_the_limit_itself: forever(
        "while true do xpcall(function() while true do end end, function() while true do end end) end"
    );
    a_loop_in_a_coroutine: forever("coroutine.wrap(function() while true do end end)()");
    a_loop_in_a_coroutine_that_is_made_late: forever(
        "while true do pcall(coroutine.wrap(function() while true do end end)) end"
    );
    a_loop_over_many_coroutines: forever(
        "local t = {} for i = 1, 100 do t[i] = coroutine.wrap(function() while true do coroutine.yield() end end) end \
         while true do for i = 1, 100 do pcall(t[i]) end end"
    );
    a_loop_in_a_coroutine_of_a_coroutine: forever(
        "local function f(n) if n == 0 then while true do end end \
         return coroutine.resume(coroutine.create(f), n - 1) end while true do f(50) end"
    );
    a_loop_that_yields_to_itself: forever(
        "local co = coroutine.create(function() while true do pcall(coroutine.yield) end end) \
         while true do coroutine.resume(co) end"
    );
    a_loop_while_a_coroutine_closes: forever(
        "local co = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() \
         while true do end end}) coroutine.yield() end) coroutine.resume(co) coroutine.close(co)"
    );
    a_loop_while_a_variable_closes: forever(
        "local x <close> = setmetatable({}, {__close = function() while true do end end})"
    );
    a_loop_while_a_variable_closes_after_the_limit: forever(
        "local x <close> = setmetatable({}, {__close = function() while true do pcall(error) end end}) while true do end"
    );
    a_loop_in_a_finaliser: forever(
        "setmetatable({}, {__gc = function() while true do end end}) collectgarbage()"
    );
    a_loop_in_a_finaliser_that_catches_errors: forever(
        "setmetatable({}, {__gc = function() while true do pcall(function() while true do end end) end end}) \
         collectgarbage()"
    );
    finalisers_that_make_each_other: forever(
        "local function plant() setmetatable({}, {__gc = plant}) end plant() while true do local t = {} end"
    );
    a_loop_in_a_comparison: forever("table.sort({3, 2, 1}, function() while true do end end)");
    a_loop_in_a_replacement: forever("('x'):gsub('x', function() while true do end end)");
    a_loop_in_a_reader: forever("load(function() while true do end end)");
    a_reader_without_end: forever("load(function() return ' ' end)");
    a_loop_in_an_index: forever("return setmetatable({}, {__index = function() while true do end end}).x");
    a_loop_in_a_text: forever("return tostring(setmetatable({}, {__tostring = function() while true do end end}))");
    a_loop_in_the_text_of_an_error: forever(
        "error(setmetatable({}, {__tostring = function() while true do end end}))"
    );
    a_loop_in_an_iterator: forever("for _ in function() return 1 end do end");
    a_loop_in_a_module: forever(
        "package.preload.x = function() while true do end end require('x')"
    );
    a_loop_in_a_searcher: forever("package.searchers[1] = function() while true do end end require('x')");
    patterns_that_go_back: forever("(('a'):rep(40)):find(('a*'):rep(40) .. 'b')");
    patterns_that_go_back_in_a_caught_call: forever(
        "while true do pcall(string.find, ('a'):rep(40), ('a*'):rep(40) .. 'b') end"
    );
    moving_for_ever: forever("table.move({}, 1, math.maxinteger - 1, 2)");
    moving_for_ever_in_a_coroutine: forever(
        "coroutine.wrap(function() table.move({}, 1, math.maxinteger - 1, 2) end)()"
    );
    joining_for_ever: forever(
        "table.concat(setmetatable({}, {__len = function() return 1e15 // 1 | 0 end, __index = function() return '' end}))"
    );
    repeating_nothing_for_ever: forever("while true do (''):rep(1e9) end");
    counting_characters_for_ever: forever("local s = ('x'):rep(1e6) while true do utf8.len(s) end");
    collecting_for_ever: forever("while true do collectgarbage() end");
    exiting_late: forever(
        "local x <close> = setmetatable({}, {__close = function() while true do pcall(os.exit) end end}) while true do end"
    );
    a_loop_in_a_finaliser_of_what_is_left: attempt(
        "kept = setmetatable({}, {__gc = function() while true do end end})"
    ).limits(|limits| Limits { wall_time: Limit::Of(SHORT), ..limits });
    sleeping_in_a_program: forever("os.execute('sleep 1000')").granted(SPAWN);
    waiting_for_a_program: forever("return io.popen('sleep 1000'):read('a')").granted(SPAWN);
    waiting_for_a_program_to_end: forever("io.popen('sleep 1000'):close()").granted(SPAWN);
    writing_to_a_program_that_does_not_read: forever(
        "local p = io.popen('sleep 1000', 'w') while true do p:write(('x'):rep(100000)) p:flush() end"
    ).granted(SPAWN);
    a_program_that_ignores_signals: forever(
        "os.execute('trap \"\" TERM HUP INT ALRM IO PIPE; while :; do sleep 1000; done')"
    ).granted(SPAWN);
    a_program_that_stops_its_worker: forever("os.execute('kill -STOP $PPID; sleep 1000')").granted(SPAWN)
        .ends(&[EndedBy::WallTime, EndedBy::Killed]);
    computing_in_a_program: attempt("os.execute('while :; do :; done')").granted(SPAWN)
        .limits(|limits| Limits { wall_time: Limit::Of(Duration::from_secs(3)), cpu_time: Limit::Of(SHORT), ..limits })
        .ends(&[EndedBy::CpuTime, EndedBy::WallTime]);
    opening_a_pipe_that_nobody_writes_to: forever(
        "return io.open(OUT .. '/pipe')"
    ).granted(IN_OUT).ends(&[EndedBy::WallTime, EndedBy::Finished]);
    using_processor_time_in_small_pieces: attempt("while true do pcall(string.rep, 'x', 1000) end")
        .limits(|limits| Limits { cpu_time: Limit::Of(SHORT), ..limits }).ends(&[EndedBy::CpuTime]);
    using_processor_time_deaf: attempt("(('a'):rep(40)):find(('a*'):rep(40) .. 'b')")
        .limits(|limits| Limits { cpu_time: Limit::Of(SHORT), ..limits }).ends(&[EndedBy::CpuTime]);
}

attempts! {
    a_very_long_string: bomb("return #('x'):rep(1e9)");
    a_string_that_grows: bomb("local s = 'x' while true do s = s .. s end");
    a_string_that_grows_slowly: bomb("local s = ('x'):rep(1e6) while true do s = s .. ('y'):rep(1000000) end");
    a_table_that_grows: bomb("local t = {} for i = 1, 1e9 do t[i] = i end");
    a_table_of_strings: bomb("local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100) .. i end");
    a_table_that_is_asked_for_at_once: bomb("return table.pack(table.unpack({}, 1, 900000)), ('x'):rep(2^40)");
    tables_in_tables: bomb("local t = {} while true do t = {t} end");
    coroutines_without_end: bomb(
        "local t = {} while true do local co = coroutine.create(function() coroutine.yield() end) \
         coroutine.resume(co) t[#t + 1] = co end"
    );
    closures_without_end: bomb("local t = {} while true do local x = {} t[#t + 1] = function() return x end end");
    replacements_that_grow: bomb("local s = ('x'):rep(1000) while true do s = s:gsub('x', 'xx') end");
    formats_that_grow: bomb("local s = 'x' while true do s = ('%s%s'):format(s, s) end");
    pieces_that_are_joined: bomb("local t = {} for i = 1, 1000 do t[i] = ('x'):rep(20000) end \
        while true do t[#t + 1] = table.concat(t) end");
    code_that_grows: bomb("local s = 'return {' .. ('{},'):rep(200000) .. '}' local t = {} \
        while true do t[#t + 1] = assert(load(s))() end");
    a_stack_that_grows: attempt("local function f(...) return 1 + f(1, ...) end return f()")
        .ends(&[EndedBy::Error, EndedBy::Memory]);
    // Each step moves all values of the one before: time is up long before the stack is full.
    a_stack_that_grows_by_tail_calls: forever("local function f(...) return f(1, ...) end return f()");
    a_stack_of_coroutines_that_grows: attempt(
        "local t = {} for i = 1, 1e6 do local co = coroutine.create(function() \
         local function f() return 1 + f() end f() end) pcall(coroutine.resume, co) t[i] = co end"
    ).limits(|limits| Limits { memory: ByteSize::mib(24).into(), ..limits })
        .ends(&[EndedBy::Memory, EndedBy::Error]);
    memory_that_is_asked_for_again_and_again: attempt(
        "local caught = 0 for _ = 1, 300 do if not pcall(string.rep, 'x', 1e9) then caught = caught + 1 end end \
         return caught"
    ).limits(|limits| Limits { memory: ByteSize::mib(24).into(), ..limits });
    memory_held_while_errors_are_caught: bomb(
        "local t = {} while true do local ok = pcall(function() while true do t[#t + 1] = ('x'):rep(1000) .. #t end end) \
         if not ok then error(setmetatable({}, {__tostring = function() return ('x'):rep(1e8) end})) end end"
    ).ends(&[EndedBy::Memory, EndedBy::Error]);
    memory_in_finalisers: bomb(
        "local t = {} local function plant() setmetatable({}, {__gc = function() \
         for i = 1, 1000 do t[#t + 1] = ('x'):rep(1000) .. #t end plant() end}) end plant() while true do local x = {} end"
    ).ends(&[EndedBy::Memory, EndedBy::Error, EndedBy::WallTime])
        .limits(|limits| Limits { wall_time: Limit::Of(Duration::from_secs(5)), ..limits });
    output_without_end: attempt("while true do print(('x'):rep(1000)) end")
        .limits(|limits| Limits { output: ByteSize::mib(1).into(), ..limits }).ends(&[EndedBy::Output]);
    output_of_a_program_without_end: attempt("os.execute('yes')").granted(SPAWN)
        .limits(|limits| Limits { output: ByteSize::mib(1).into(), ..limits }).ends(&[EndedBy::Output]);
    errors_of_a_program_without_end: attempt("os.execute('yes >&2')").granted(SPAWN)
        .limits(|limits| Limits { output: ByteSize::mib(1).into(), ..limits }).ends(&[EndedBy::Output]);
    errors_of_a_program_that_is_read_without_end: attempt(
        "return io.popen('head -c 30000000 /dev/zero | tr \\\\0 x >&2; yes | head -c 30000000 >&2; echo x'):read('a')"
    ).granted(SPAWN).limits(|limits| Limits {
        output: ByteSize::mib(1).into(), wall_time: Limit::Of(Duration::from_secs(10)), ..limits
    }).ends(&[EndedBy::Output, EndedBy::WallTime]);
    errors_that_are_kept_beyond_what_may_be_written: attempt(
        "return io.popen('perl -e \"print STDERR q(x) x 1000000 for 1 .. 100\"; echo x'):read('a')"
    ).granted(SPAWN).limits(|limits| Limits { output: ByteSize::mib(1).into(), ..limits })
        .ends(&[EndedBy::Output]);
    more_open_files_than_allowed: attempt(
        "local t = {} for i = 1, 1000 do t[i] = io.open(OUT .. '/' .. i, 'w') if not t[i] then return i end end \
         return 'escaped'"
    ).granted(IN_OUT);
}

/// Input that never ends.
struct Endless;

impl tokio::io::AsyncRead for Endless {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        space: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let room = space.remaining();
        space.put_slice(&vec![b'x'; room]);
        std::task::Poll::Ready(Ok(()))
    }
}

#[test]
fn input_without_end_is_held_by_the_memory_limit() {
    block_on(async {
        let fleet = fleet();
        let limits = Limits { memory: ByteSize::mib(24).into(), ..Limits::default() };
        let vm = fleet.create(VmSpec::basic("vm").unwrap().limits(limits)).await.unwrap();
        for code in ["return #io.read('a')", "return #io.read('l')", "return #io.read(1e9)"] {
            let run = vm.eval(code).stdin(Endless).await.unwrap();
            assert_eq!(run.record.ending.ended_by, EndedBy::Memory, "{code}");
            assert!(run.record.peak_memory.unwrap() <= 24 << 20);
        }
        let code = "while true do io.read(1000) end";
        let run = vm.eval(code).stdin(Endless).wall_time(SHORT).await.unwrap();
        assert_eq!(run.record.ending.ended_by, EndedBy::WallTime);
    });
}

#[test]
fn errors_of_an_interpreters_programs_without_end_or_line_are_not_kept() {
    let Some(lua) = bioxen_testkit::interpreter("lua5.4") else { return };
    bioxen_testkit::in_own_process(|| {
        block_on(async {
            let fleet = fleet();
            let spec = VmSpec::basic("vm").unwrap().grants(Grants::none().spawn());
            let program = bioxen::Interpreter::Program(lua.program.clone().unwrap_or_default());
            let vm = fleet.create(spec.interpreter(program)).await.unwrap();
            let before = peak_of(Process::current());
            for how in ["os.execute('COMMAND')", "io.popen('COMMAND'):close()"] {
                let code = how.replace("COMMAND", "head -c 200000000 /dev/zero >&2");
                vm.eval(code).await.unwrap();
            }
            let grown = peak_of(Process::current()) - before;
            assert!(grown < 64 << 20, "the controller grew by {grown} bytes");
        });
    });
}

#[test]
fn a_pipe_that_nobody_writes_to_holds_nobody_up() {
    block_on(async {
        let scratch = Scratch::new();
        let pipe = scratch.at("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.is_ok_and(|status| status.success()));
        let fleet = fleet();
        let grants = Grants::none().write(scratch.path());
        let vm = fleet.create(VmSpec::basic("vm").unwrap().grants(grants)).await.unwrap();
        for code in
            ["io.open(PIPE)", "io.open(PIPE, 'w')", "loadfile(PIPE)", "io.open(PIPE, 'r+'):read()"]
        {
            let code = code.replace("PIPE", &format!("'{}'", pipe.display()));
            let run = vm.eval(code.clone()).wall_time(SHORT).await.unwrap();
            assert_eq!(run.record.ending.ended_by, EndedBy::WallTime, "{code}");
            if vm.status().name() == "failed" {
                vm.start().await.unwrap();
            }
        }
    });
}

#[test]
fn what_cannot_be_stopped_gently_is_stopped_soon_all_the_same() {
    block_on(async {
        let fleet = fleet();
        let vm = fleet.create(VmSpec::basic("vm").unwrap()).await.unwrap();
        let worker = worker_of(&vm);
        let begin = Instant::now();
        let code = "(('a'):rep(40)):find(('a*'):rep(40) .. 'b')";
        let run = vm.eval(code).wall_time(SHORT).await.unwrap();
        assert_eq!(run.record.ending.ended_by, EndedBy::WallTime);
        // The promise is 100 ms; a busy machine is given seconds.
        assert!(begin.elapsed() < SHORT + Duration::from_secs(5));
        worker.wait_for_end();
    });
}

#[test]
fn memory_of_the_process_stays_near_the_limit_whatever_the_code_does() {
    block_on(async {
        let fleet = fleet();
        let limits = Limits { memory: ByteSize::mib(24).into(), ..Limits::default() };
        let vm = fleet.create(VmSpec::basic("vm").unwrap().limits(limits)).await.unwrap();
        let worker = worker_of(&vm);
        let codes = [
            "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end",
            "for _ = 1, 50 do pcall(string.rep, 'x', 20e6) end return ('x'):rep(15e6)",
            "local t = {} for i = 1, 1e5 do t[i] = ('x'):rep(100) end return t",
            "io.write((('x'):rep(15e6)))",
            "error((('x'):rep(10e6)))",
        ];
        for code in codes {
            vm.eval(code).await.unwrap();
        }
        assert_eq!(worker_of(&vm), worker, "it is the same worker still");
        let most = peak_of(worker);
        assert!(most < 120 << 20, "{most} bytes were resident");
    });
}

/// The most resident memory that a process has had.
fn peak_of(process: Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
