//! Which of Lua's standard functions sandboxed code has, and in which form.
//!
//! Everything of Lua 5.4 is there but: `string.dump` and binary chunks (crafted ones corrupt the
//! interpreter), `debug` except `traceback` and `getinfo` (the rest reaches into other functions),
//! and libraries written in C. What touches the world outside is replaced by a form that asks the
//! grants first.

use std::cell::Cell;
use std::ffi::{CStr, c_int};

use mlua_sys as ffi;

use super::{coroutines, files, modules, system, values};
use crate::console;
use crate::interrupt::{self, Reason};

type Function = unsafe extern "C-unwind" fn(*mut ffi::lua_State) -> c_int;

const LIBRARIES: [(&CStr, Function); 10] = [
    (c"_G", ffi::luaopen_base),
    (c"package", ffi::luaopen_package),
    (c"coroutine", ffi::luaopen_coroutine),
    (c"table", ffi::luaopen_table),
    (c"io", ffi::luaopen_io),
    (c"os", ffi::luaopen_os),
    (c"string", ffi::luaopen_string),
    (c"math", ffi::luaopen_math),
    (c"utf8", ffi::luaopen_utf8),
    (c"debug", ffi::luaopen_debug),
];

/// Functions that ask the grants and then call the original, which is their upvalue.
const GUARDED: [(&CStr, &CStr, Function); 13] = [
    (c"_G", c"load", load),
    (c"_G", c"loadfile", files::loadfile),
    (c"_G", c"dofile", files::dofile),
    (c"io", c"open", files::open),
    (c"io", c"lines", files::lines),
    (c"io", c"input", files::input),
    (c"io", c"output", files::output),
    (c"io", c"popen", system::popen),
    (c"io", c"tmpfile", files::tmpfile),
    (c"os", c"remove", files::remove),
    (c"os", c"rename", files::rename),
    (c"os", c"tmpname", files::tmpname),
    (c"os", c"execute", system::execute),
];

/// Functions of our own.
const REPLACED: [(&CStr, &CStr, Function); 7] = [
    (c"os", c"exit", exit),
    (c"os", c"getenv", system::getenv),
    (c"coroutine", c"resume", coroutines::resume),
    (c"coroutine", c"wrap", coroutines::wrap),
    (c"coroutine", c"close", coroutines::close),
    (c"package", c"loadlib", modules::loadlib),
    (c"package", c"searchpath", modules::searchpath),
];

const REMOVED: [(&CStr, &CStr); 16] = [
    (c"string", c"dump"),
    (c"debug", c"debug"),
    (c"debug", c"gethook"),
    (c"debug", c"getlocal"),
    (c"debug", c"getmetatable"),
    (c"debug", c"getregistry"),
    (c"debug", c"getupvalue"),
    (c"debug", c"getuservalue"),
    (c"debug", c"setcstacklimit"),
    (c"debug", c"sethook"),
    (c"debug", c"setlocal"),
    (c"debug", c"setmetatable"),
    (c"debug", c"setupvalue"),
    (c"debug", c"setuservalue"),
    (c"debug", c"upvalueid"),
    (c"debug", c"upvaluejoin"),
];

/// Opens the libraries in a fresh state. Runs in a protected call.
pub(super) unsafe extern "C-unwind" fn open(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua; each step leaves the stack as it found it.
    unsafe {
        for (name, function) in LIBRARIES {
            ffi::luaL_requiref(lua, name.as_ptr(), function, 1);
            ffi::lua_settop(lua, 0);
        }
        for (library, name, function) in GUARDED {
            ffi::lua_getglobal(lua, library.as_ptr());
            ffi::lua_getfield(lua, 1, name.as_ptr());
            ffi::lua_pushcclosure(lua, function, 1);
            ffi::lua_setfield(lua, 1, name.as_ptr());
            ffi::lua_settop(lua, 0);
        }
        for (library, name, function) in REPLACED {
            ffi::lua_getglobal(lua, library.as_ptr());
            ffi::lua_pushcclosure(lua, function, 0);
            ffi::lua_setfield(lua, 1, name.as_ptr());
            ffi::lua_settop(lua, 0);
        }
        for (library, name) in REMOVED {
            ffi::lua_getglobal(lua, library.as_ptr());
            ffi::lua_pushnil(lua);
            ffi::lua_setfield(lua, 1, name.as_ptr());
            ffi::lua_settop(lua, 0);
        }
        modules::set_up(lua);
        ffi::lua_getglobal(lua, c"math".as_ptr());
        ffi::lua_getfield(lua, 1, c"randomseed".as_ptr());
        ffi::lua_rawsetp(lua, ffi::LUA_REGISTRYINDEX, (&raw const RANDOMSEED_KEY).cast());
        0
    }
}

/// Raises an error with a position and a message of ours.
pub(super) unsafe fn raise(lua: *mut ffi::lua_State, message: String) -> c_int {
    // SAFETY: called by Lua; the message is dropped before the error is raised.
    unsafe {
        ffi::luaL_where(lua, 1);
        super::push_bytes(lua, message.as_bytes());
        drop(message);
        ffi::lua_concat(lua, 2);
        ffi::lua_error(lua)
    }
}

/// Returns `nil`, a message and an error number, as `io.open` does.
pub(super) unsafe fn refuse(lua: *mut ffi::lua_State, message: String) -> c_int {
    // SAFETY: called by Lua with room for three results.
    unsafe {
        ffi::lua_pushnil(lua);
        super::push_bytes(lua, message.as_bytes());
        drop(message);
        ffi::lua_pushinteger(lua, libc::EACCES.into());
        3
    }
}

/// Calls the original that a guarded function has as its upvalue, with the same arguments.
///
/// Lua does not know of this call: the original runs in the guarded function's own place on the
/// stack, where a finaliser or a reader function that looks for its callers finds only the latter.
pub(super) unsafe fn call_original(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua; the upvalue was set in `open`, and what the C libraries of Lua define
    // there has no upvalues of its own.
    unsafe {
        match ffi::lua_tocfunction(lua, ffi::lua_upvalueindex(1)) {
            Some(original) => original(lua),
            None => ffi::luaL_error(lua, c"this function is not there".as_ptr()),
        }
    }
}

/// `load` that accepts source text only.
unsafe extern "C-unwind" fn load(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua. The third argument is the mode; the fourth, if given, stays.
    unsafe {
        if ffi::lua_gettop(lua) < 3 {
            ffi::lua_settop(lua, 3);
        }
        ffi::lua_pushliteral(lua, c"t");
        ffi::lua_replace(lua, 3);
        call_original(lua)
    }
}

thread_local! {
    static EXIT_CODE: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Forgets or sets the code that `os.exit` was given.
pub(crate) fn set_exit_code(code: Option<i32>) {
    EXIT_CODE.set(code);
}

/// The code that `os.exit` was given in this evaluation.
pub(crate) fn take_exit_code() -> Option<i32> {
    EXIT_CODE.take()
}

/// `os.exit` ends the evaluation and not the worker.
unsafe extern "C-unwind" fn exit(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let code = match ffi::lua_type(lua, 1) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => 0,
            ffi::LUA_TBOOLEAN => i64::from(ffi::lua_toboolean(lua, 1) == 0),
            _ => ffi::luaL_checkinteger(lua, 1),
        };
        // What a process's exit code is cut to.
        set_exit_code(Some((code & 0xff) as i32));
    }
    console::flush_c_streams();
    interrupt::request(Reason::Exit);
    interrupt::raise(lua, interrupt::pending().unwrap_or(Reason::Exit))
}

/// Where the registry keeps `math.randomseed`, whatever becomes of the table `math`.
static RANDOMSEED_KEY: u8 = 1;

/// Pushes `math.randomseed`.
pub(super) unsafe fn push_randomseed(lua: *mut ffi::lua_State) {
    let key = (&raw const RANDOMSEED_KEY).cast();
    // SAFETY: reading an existing registry entry raises no error.
    unsafe { ffi::lua_rawgetp(lua, ffi::LUA_REGISTRYINDEX, key) };
}

/// Where the registry keeps the traceback of the last error.
static TRACEBACK_KEY: u8 = 0;

/// Keeps the traceback on top of the stack, and takes it off.
pub(super) unsafe fn set_traceback(lua: *mut ffi::lua_State) {
    // SAFETY: called by Lua in a message handler.
    unsafe { ffi::lua_rawsetp(lua, ffi::LUA_REGISTRYINDEX, (&raw const TRACEBACK_KEY).cast()) };
}

/// The traceback of the last error, without the worker's own frame at its end.
pub(super) unsafe fn take_traceback(lua: *mut ffi::lua_State) -> Option<String> {
    // SAFETY: reading and clearing an existing registry entry raises no error.
    unsafe {
        let key = (&raw const TRACEBACK_KEY).cast();
        let found = ffi::lua_rawgetp(lua, ffi::LUA_REGISTRYINDEX, key) == ffi::LUA_TSTRING;
        let text = if found { values::text_at(lua, -1) } else { None };
        ffi::lua_settop(lua, -2);
        if found {
            ffi::lua_pushnil(lua);
            ffi::lua_rawsetp(lua, ffi::LUA_REGISTRYINDEX, key);
        }
        text.map(|text| text.strip_suffix("\n\t[C]: in ?").unwrap_or(&text).to_owned())
    }
}
