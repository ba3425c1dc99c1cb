//! Loading C code, or code that was compiled outside.

use crate::place::{Granted, IN, IN_OUT, NOTHING, OUT, attempt, attempts};

/// `return 'escaped'`, compiled by Lua 5.4 for 64 bits, as text of hexadecimal digits.
const COMPILED: &str = "1b4c7561540019930d0a1a0a0408087856000000000000000000000028774001808080000102845100000003000000460002014600010181048865736361706564810100008080808080";

/// Code that has the compiled chunk in `chunk`.
fn with_chunk(code: &str) -> String {
    format!(
        "local chunk = ('{COMPILED}'):gsub('..', function(x) return string.char(tonumber(x, 16)) end) {code}"
    )
}

const LIBRARIES: Granted = Granted { read_libraries: true, ..IN };

attempts! {
    a_library_by_its_path: attempt(
        "local f, m = package.loadlib('/lib/x86_64-linux-gnu/libc.so.6', 'system') return f and 'escaped' or m"
    ).naming("--lua");
    a_library_that_may_be_read: attempt(
        "for _, name in ipairs{'system', '*', 'luaopen_os'} do \
         if package.loadlib('/usr/lib/x86_64-linux-gnu/libc.so.6', name) then return 'escaped' end end"
    ).granted(LIBRARIES);
    a_library_by_require: attempt(
        "package.cpath = '/usr/lib/x86_64-linux-gnu/lua/5.4/?.so;/usr/lib/x86_64-linux-gnu/?.so.6' \
         for _, name in ipairs{'socket.core', 'libc', 'libm'} do \
         local ok, m = pcall(require, name) if ok then return 'escaped' end end"
    ).granted(LIBRARIES);
    a_searcher_that_was_put_back: attempt(
        "for i, searcher in ipairs(package.searchers) do package.searchers[i + 10] = searcher end \
         package.cpath = '/usr/lib/x86_64-linux-gnu/lua/5.4/?.so' \
         if #package.searchers ~= 2 then return 'escaped: ' .. #package.searchers end \
         for _, searcher in pairs(package.searchers) do \
           local loader = searcher('socket.core') if type(loader) == 'function' then return 'escaped' end end"
    ).granted(LIBRARIES);
    a_library_as_if_it_were_lua: attempt(
        "package.path = '/usr/lib/x86_64-linux-gnu/?.so.6' return (pcall(require, 'libc')) and 'escaped'"
    ).granted(LIBRARIES);
    compiling_to_bytes: attempt("return string.dump and 'escaped'");
    compiled_code: attempt(with_chunk("local f, m = load(chunk) return f and f() or m"));
    compiled_code_that_is_asked_for: attempt(with_chunk(
        "for _, mode in ipairs{'b', 'bt', 'tb', ''} do local f = load(chunk, 'x', mode) \
         if f then return f() end end"
    ));
    compiled_code_in_pieces: attempt(with_chunk(
        "local i = 0 local f = load(function() i = i + 1 return i <= #chunk and chunk:sub(i, i) or nil end, \
         'x', 'b') return f and f()"
    ));
    // The stock function below ours is in sight of the function that it reads pieces with.
    compiled_code_by_the_function_below: attempt(with_chunk(
        "local found = {} \
         load(function() for level = 1, 8 do local info = debug.getinfo(level, 'Sf') \
           if info and info.what == 'C' then found[#found + 1] = info.func end end end) \
         for _, f in ipairs(found) do \
           local ok, loaded = pcall(f, chunk, 'x', 'b') \
           if ok and type(loaded) == 'function' then return (select(2, pcall(loaded))) end end"
    ));
    compiled_code_by_a_finaliser_that_looks_below: attempt(with_chunk(
        "local found = {} \
         local function plant() return setmetatable({}, {__gc = function() \
           for level = 2, 6 do local info = debug.getinfo(level, 'Sf') \
             if info and info.what == 'C' then found[info.func] = true end end plant() end}) end \
         for _ = 1, 10 do plant() end \
         collectgarbage('setpause', 1) collectgarbage('setstepmul', 10000) \
         for _ = 1, 200 do load('return {}') end \
         for f in pairs(found) do local ok, loaded = pcall(f, chunk, 'x', 'b') \
           if ok and type(loaded) == 'function' then return (select(2, pcall(loaded))) end end"
    ));
    compiled_code_by_a_message_handler_that_looks_below: attempt(with_chunk(
        "local found = {} \
         local function look() for level = 1, 6 do local info = debug.getinfo(level, 'Sf') \
           if info and info.what == 'C' then found[info.func] = true end end end \
         xpcall(load, look) xpcall(load, look, function() error('x') end) xpcall(loadfile, look, {}) \
         for f in pairs(found) do local ok, loaded = pcall(f, chunk, 'x', 'b') \
           if ok and type(loaded) == 'function' then return (select(2, pcall(loaded))) end end"
    ));
    // Any function of C that code finds by looking is one that it has anyway.
    functions_below_ours: attempt(
        "local known, found = {}, {} \
         for _, library in pairs(package.loaded) do for _, f in pairs(library) do known[f] = true end end \
         for _, f in pairs(getmetatable(io.stdout).__index) do known[f] = true end \
         for _, f in pairs(package.searchers) do known[f] = true end \
         local function plant() return setmetatable({}, {__gc = function() \
           for level = 2, 6 do local info = debug.getinfo(level, 'Sf') \
             if info and info.what == 'C' then found[info.func] = true end end plant() end}) end \
         for _ = 1, 10 do plant() end \
         collectgarbage('setpause', 1) collectgarbage('setstepmul', 10000) \
         for _, f in ipairs{io.open, io.lines, io.input, io.output, io.popen, io.tmpfile, os.remove, os.rename, \
             os.tmpname, loadfile, dofile, load, package.searchpath, require} do \
           for _ = 1, 20 do pcall(f, IN .. '/ok.txt', IN .. '/none.txt') pcall(f, SECRET, SECRET) end end \
         for f in pairs(found) do if not known[f] then return 'escaped: ' .. tostring(f) end end"
    ).granted(IN);
    compiled_code_in_a_file: attempt(with_chunk(
        "local f = io.open(OUT .. '/chunk', 'wb') f:write(chunk) f:close() \
         for _, mode in ipairs{'b', 'bt', 't'} do local f = loadfile(OUT .. '/chunk', mode) \
         if f then return f() end end local f, m = loadfile(OUT .. '/chunk') return f and f() or m"
    )).granted(OUT);
    compiled_code_in_a_file_that_begins_like_text: attempt(with_chunk(
        "local f = io.open(OUT .. '/chunk', 'wb') f:write('#!/usr/bin/lua\\n', chunk) f:close() \
         local f, m = loadfile(OUT .. '/chunk', 'b') return f and f() or m"
    )).granted(OUT);
    compiled_code_to_be_run: attempt(with_chunk(
        "local f = io.open(OUT .. '/chunk', 'wb') f:write(chunk) f:close() return dofile(OUT .. '/chunk')"
    )).granted(OUT);
    compiled_code_as_a_module: attempt(with_chunk(
        "local f = io.open(OUT .. '/chunk', 'wb') f:write(chunk) f:close() \
         package.path = OUT .. '/?' return require('chunk')"
    )).granted(IN_OUT);
    the_foreign_functions_of_luajit: attempt(
        "local ok, ffi = pcall(require, 'ffi') if ok then return 'escaped' end \
         if package.preload.ffi and pcall(package.preload.ffi) then return 'escaped' end \
         if package.loaded.ffi then return 'escaped' end"
    ).on("luajit");
    the_foreign_functions_of_luajit_by_their_numbers: attempt(
        "local f = loadstring('return 1LL') local ok, value = pcall(f) \
         local meta = ok and debug.getmetatable and debug.getmetatable(value) \
         return meta and type(meta) == 'table' and meta.__index and 'escaped'"
    ).on("luajit");
    the_settings_of_the_compiler_of_luajit: attempt(
        "for _, name in ipairs{'jit.util', 'jit.v', 'jit.dump', 'jit.opt', 'jit.bc', 'string.buffer', 'jit.p'} do \
         local ok, library = pcall(require, name) \
         if ok and name == 'jit.util' then return 'escaped: ' .. name end end"
    ).on("luajit");
    compiled_code_of_luajit: attempt(
        "local dump = string.dump if dump then return 'escaped' end \
         local f, m = loadstring('\\27LJ\\2\\0') return f and 'escaped' or m"
    ).on("luajit");
    compiled_code_of_5_1: attempt(
        "if string.dump then return 'escaped' end local f, m = loadstring('\\27LuaQ\\0\\1\\4\\8\\4\\8\\0') \
         return f and 'escaped' or m"
    ).on("lua5.1");
    compiled_code_of_5_1_in_pieces: attempt(
        "local pieces = {'', '\\27', 'LuaQ\\0\\1\\4\\8\\4\\8\\0'} local i = 0 \
         local f, m = load(function() i = i + 1 return pieces[i] end) return f and 'escaped' or m"
    ).on("lua5.1");
    compiled_code_of_5_4_as_a_program: attempt(with_chunk(
        "for _, mode in ipairs{'b', 'bt', 't'} do local f = load(chunk, 'x', mode) \
         if f then return f() end end return string.dump and 'escaped'"
    )).on("lua5.4");
    a_library_for_a_program_that_was_not_granted: attempt(
        "package.cpath = '/usr/lib/x86_64-linux-gnu/lua/5.4/?.so' \
         local ok, m = pcall(require, 'socket.core') if ok then return 'escaped' end return m"
    ).granted(NOTHING).on("lua5.4").naming("--allow-read");
}
