//! Changing the sandbox from inside.

use bioxen::{EndedBy, Limits, VmSpec};
use bioxen_testkit::{block_on, fleet};

use crate::place::{IN_OUT, attempt, attempts};

attempts! {
    the_debug_library: attempt(
        "for name in pairs(debug) do if not ({traceback = 1, getinfo = 1})[name] then \
         return 'escaped: ' .. name end end"
    );
    the_registry_by_what_is_left_of_debug: attempt(
        "local info = debug.getinfo(1, 'SlnrtufL') for name, value in pairs(info) do \
         if type(value) == 'table' and name ~= 'activelines' then return 'escaped: ' .. name end end"
    );
    closing_the_standard_streams: attempt(
        "pcall(io.close) pcall(io.stdout.close, io.stdout) pcall(io.stderr.close, io.stderr) \
         pcall(io.stdin.close, io.stdin) pcall(io.output().close, io.output())"
    );
    closing_the_standard_streams_by_their_finaliser: attempt(
        "local meta = getmetatable(io.stdout) if meta then \
         for _, f in ipairs{io.stdout, io.stdin, io.stderr} do \
         pcall(meta.__gc, f) pcall(meta.__close, f) end end"
    );
    a_stream_that_is_used_after_it_was_closed: attempt(
        "local f = io.open(OUT .. '/x', 'w') f:write('x') f:close() \
         for _, act in ipairs{'write', 'read', 'lines', 'seek', 'setvbuf', 'flush', 'close'} do \
         pcall(f[act], f, 'no') end \
         local meta = getmetatable(f) pcall(meta.__gc, f) pcall(meta.__gc, f) pcall(meta.__gc, {}) \
         pcall(meta.__gc, io.stdout)"
    ).granted(IN_OUT);
    a_stream_with_the_methods_of_another: attempt(
        "local write = io.stdout.write pcall(write, {}) pcall(write, 1) pcall(write, setmetatable({}, \
         getmetatable(io.stdout)), 'x')"
    );
    a_buffer_of_any_size: attempt(
        "for _, size in ipairs{0, 1, 1e6, 2^31 - 1, 2^40, -1} do for _, mode in ipairs{'no', 'full', 'line'} do \
         pcall(io.stdout.setvbuf, io.stdout, mode, math.tointeger(size)) io.write('x') end end"
    );
    the_globals: attempt(
        "for name in pairs(_G) do if name ~= '_G' then _G[name] = nil end end _G = nil"
    );
    the_globals_by_a_metatable: attempt(
        "setmetatable(_G, {__index = function() return function() while true do end end end, \
         __newindex = function() error('no') end})"
    );
    the_metatable_of_strings: attempt(
        "local meta = getmetatable('') meta.__index = function() error('no') end meta.__eq = meta.__index \
         meta.__lt = meta.__index meta.__concat = meta.__index meta.__gc = meta.__index meta.__name = 5"
    );
    the_table_of_loaded_libraries: attempt(
        "for name in pairs(package.loaded) do package.loaded[name] = nil end package.loaded = nil \
         package.searchers = nil package.path = 5 return pcall(require, 'x')"
    );
    the_locale: attempt("os.setlocale('tr_TR.UTF-8') os.setlocale('de_DE.UTF-8') os.setlocale('', 'all') \
        assert(tostring(1.5) == '1.5')");
    the_collector: attempt(
        "collectgarbage('stop') collectgarbage('generational') collectgarbage('setpause', 1000) \
         for _ = 1, 1000 do local t = {} end"
    );
    an_error_in_a_finaliser: attempt(
        "setmetatable({}, {__gc = function() error('in a finaliser') end}) collectgarbage() \
         setmetatable({}, {__gc = function() error({}) end}) collectgarbage()"
    );
    exiting_in_a_finaliser: attempt(
        "setmetatable({}, {__gc = function() os.exit(3) end}) collectgarbage()"
    ).ends(&[EndedBy::Finished, EndedBy::Error]);
    exiting_while_a_fresh_state_closes: attempt(
        "keep = setmetatable({}, {__gc = function() os.exit(3) end})"
    ).ends(&[EndedBy::Finished]);
    exiting_while_a_variable_closes: attempt(
        "local x <close> = setmetatable({}, {__close = function() os.exit(3) end}) error('x')"
    ).ends(&[EndedBy::Finished]);
    exiting_with_nonsense: attempt(
        "pcall(os.exit, {}) pcall(os.exit, 'x') pcall(os.exit, 1.5) os.exit(2^62)"
    ).ends(&[EndedBy::Finished, EndedBy::Error]);
    yielding_where_there_is_nobody: attempt(
        "pcall(coroutine.yield) pcall(coroutine.wrap(coroutine.yield)) \
         local co = coroutine.running() pcall(coroutine.close, co) pcall(coroutine.resume, co)"
    );
    coroutines_that_resume_and_close_each_other: attempt(
        "local a, b a = coroutine.create(function() coroutine.resume(b) end) \
         b = coroutine.create(function() pcall(coroutine.resume, a) pcall(coroutine.close, a) \
         pcall(coroutine.close, b) end) coroutine.resume(a) \
         local w w = coroutine.wrap(function() return w() end) pcall(w) \
         local c c = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() \
         coroutine.yield(1) end}) coroutine.yield(2) end) coroutine.resume(c) coroutine.close(c) \
         coroutine.resume(c)"
    );
    coroutines_within_coroutines: attempt(
        "local function deep(n) return coroutine.wrap(function() return n == 0 and 1 or deep(n - 1)() end) end \
         pcall(deep(150)) return pcall(deep(100000))"
    );
    many_results: attempt(
        "pcall(table.unpack, {}, 1, 1e7) pcall(string.byte, ('x'):rep(1e7), 1, -1) \
         pcall(coroutine.wrap(function() return table.unpack({}, 1, 250000) end)) \
         local t = {} for i = 1, 200000 do t[i] = i end return select('#', table.unpack(t))"
    );
    recursion_in_c: attempt(
        "local function f(s) return (s:gsub('.', f)) end pcall(f, 'x') \
         local t = setmetatable({}, {}) getmetatable(t).__concat = function(a, b) return a .. b end pcall(f, t .. t)"
    ).ends(&[EndedBy::Error, EndedBy::Finished]);
    recursion_in_patterns: attempt(
        "pcall(string.find, ('('):rep(100000), ('('):rep(100000)) pcall(string.find, ('a'):rep(300000), ('a?'):rep(300000)) \
         return pcall(string.find, ('x'):rep(300000), '.-.-.-b', 1)"
    ).ends(&[EndedBy::Error, EndedBy::Finished, EndedBy::WallTime]);
    recursion_in_the_compiler: attempt(
        "pcall(load, ('('):rep(100000)) pcall(load, ('{'):rep(100000)) pcall(load, 'return ' .. ('-'):rep(100000) .. '1') \
         pcall(load, ('do '):rep(100000)) pcall(load, 'x = ' .. ('function() return '):rep(100000)) \
         pcall(load, 'x = ' .. ('a.'):rep(100000) .. 'a') pcall(load, ('local a '):rep(300))"
    );
    formats: attempt(
        "pcall(string.format, '%99.99f', 1) pcall(string.format, '%' .. ('0'):rep(1000) .. 'd', 1) \
         pcall(string.format, '%s%n%n%n') pcall(string.format, '%a %g %q', 1, 2, 'x\\0y') \
         pcall(string.rep, 'x', -1) pcall(string.pack, 's' .. ('8'):rep(100), 'x') pcall(os.date, '%E%O%5') \
         pcall(os.date, ('%c'):rep(10000)) pcall(os.time, {year = 2^40, month = 2^40, day = 2^40}) \
         pcall(utf8.char, 0x7fffffff) pcall(string.unpack, 'i17', ('x'):rep(100)) pcall(math.random, 0)"
    );
    tables_that_change_while_they_are_walked: attempt(
        "local t = {} for i = 1, 1000 do t[i] = i end for k in next, t do t[k] = nil t['x' .. k] = k \
         if #t == 0 then break end end table.sort({3, 1, 2, 5, 4}, function() return true end)"
    ).ends(&[EndedBy::Error, EndedBy::Finished]);
    values_that_grow_while_they_are_returned: attempt(
        "local t = setmetatable({}, {__index = function(t, k) t[#t + 1] = k return k end, __len = function() \
         return 1e15 end}) for i = 1, 10 do t[i] = t end return t, table.pack(t, t, t)"
    );
}

#[test]
fn what_one_vm_does_to_itself_its_neighbours_do_not_see() {
    block_on(async {
        let fleet = fleet();
        let vm = |name: &str| fleet.create(VmSpec::basic(name).unwrap());
        let (one, other) = (vm("one").await.unwrap(), vm("other").await.unwrap());
        let code = "getmetatable('').__index = nil string.format = nil print = nil x = 1";
        one.eval(code).await.unwrap().into_result().unwrap();
        for vm in [other, vm("later").await.unwrap()] {
            let run = vm.eval("return ('x'):upper(), string.format('%d', 1), type(print), x").await;
            let values: Vec<String> =
                run.unwrap().record.values.iter().map(ToString::to_string).collect();
            assert_eq!(values, ["\"X\"", "\"1\"", "\"function\"", "nil"]);
        }
    });
}

#[test]
fn functions_that_were_replaced_do_not_soften_the_limits_of_later_runs() {
    block_on(async {
        let fleet = fleet();
        let limits =
            Limits { wall_time: std::time::Duration::from_millis(300).into(), ..Limits::default() };
        let vm = fleet.create(VmSpec::basic("vm").unwrap().limits(limits)).await.unwrap();
        let code = "local function forever() while true do end end \
                    error, pcall, print, tostring = forever, forever, forever, forever \
                    setmetatable(_G, {__index = forever, __newindex = forever}) \
                    getmetatable('').__index = forever";
        vm.eval(code).await.unwrap().into_result().unwrap();
        for code in ["return x", "y = 1", "print('x')", "while true do end", "return ('x'):len()"] {
            let run = vm.eval(code).await.unwrap();
            assert_eq!(run.record.ending.ended_by, EndedBy::WallTime, "{code}");
        }
        let run = vm.eval("return 1").fresh().await.unwrap();
        assert_eq!(run.value().as_i64(), Some(1));
    });
}
