//! `io`, `os`, `loadfile` and `dofile` on files: the grants first, then Lua's own functions.

use std::ffi::c_int;

use mlua_sys as ffi;

use super::libraries::{call_original, raise, refuse};
use super::system::{Access, refusal};
use super::values::bytes_at;

/// How a function answers when it may not.
#[derive(Clone, Copy)]
enum Answer {
    /// `nil` and a message.
    Return,
    /// An error.
    Raise,
}

/// Calls the original when the file named by an argument may be used so.
unsafe fn guarded(lua: *mut ffi::lua_State, index: c_int, access: Access, answer: Answer) -> c_int {
    // SAFETY: called by Lua; `bytes_at` is used before the stack changes.
    unsafe {
        ffi::luaL_checklstring(lua, index, std::ptr::null_mut());
        match (bytes_at(lua, index).and_then(|path| refusal(path, access)), answer) {
            (None, _) => call_original(lua),
            (Some(message), Answer::Return) => refuse(lua, message),
            (Some(message), Answer::Raise) => raise(lua, message),
        }
    }
}

/// `io.open(path, mode)`.
pub(super) unsafe extern "C-unwind" fn open(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let mode = bytes_at(lua, 2).unwrap_or(b"r");
        let writes = mode.iter().any(|letter| b"wa+".contains(letter));
        guarded(lua, 1, if writes { Access::Write } else { Access::Read }, Answer::Return)
    }
}

/// `io.lines(path, …)`, or of the default input.
pub(super) unsafe extern "C-unwind" fn lines(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(lua, 1) <= ffi::LUA_TNIL {
            return call_original(lua);
        }
        guarded(lua, 1, Access::Read, Answer::Raise)
    }
}

unsafe fn default_file(lua: *mut ffi::lua_State, access: Access) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        // A number is a name too.
        if ffi::lua_isstring(lua, 1) != 0 {
            guarded(lua, 1, access, Answer::Raise)
        } else {
            call_original(lua)
        }
    }
}

/// `io.input(path or file)`.
pub(super) unsafe extern "C-unwind" fn input(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { default_file(lua, Access::Read) }
}

/// `io.output(path or file)`.
pub(super) unsafe extern "C-unwind" fn output(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { default_file(lua, Access::Write) }
}

/// `loadfile(path, mode, environment)`, source text only.
pub(super) unsafe extern "C-unwind" fn loadfile(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua. The second argument is the mode; the third, if given, stays.
    unsafe {
        if ffi::lua_gettop(lua) < 2 {
            ffi::lua_settop(lua, 2);
        }
        ffi::lua_pushliteral(lua, c"t");
        ffi::lua_replace(lua, 2);
        if ffi::lua_type(lua, 1) <= ffi::LUA_TNIL {
            return call_original(lua);
        }
        guarded(lua, 1, Access::Read, Answer::Return)
    }
}

/// `dofile(path)`, source text only.
pub(super) unsafe extern "C-unwind" fn dofile(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua; the name stays on the stack while it is used.
    unsafe {
        let name = ffi::luaL_optlstring(lua, 1, std::ptr::null(), std::ptr::null_mut());
        ffi::lua_settop(lua, 1);
        if let Some(message) = bytes_at(lua, 1).and_then(|path| refusal(path, Access::Read)) {
            return raise(lua, message);
        }
        if ffi::luaL_loadfilex(lua, name, c"t".as_ptr()) != ffi::LUA_OK {
            ffi::lua_error(lua);
        }
        ffi::lua_call(lua, 0, ffi::LUA_MULTRET);
        ffi::lua_gettop(lua) - 1
    }
}

/// `os.remove(path)`.
pub(super) unsafe extern "C-unwind" fn remove(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { guarded(lua, 1, Access::Write, Answer::Return) }
}

/// `os.rename(from, to)`.
pub(super) unsafe extern "C-unwind" fn rename(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::luaL_checklstring(lua, 1, std::ptr::null_mut());
        match bytes_at(lua, 1).and_then(|path| refusal(path, Access::Write)) {
            Some(message) => refuse(lua, message),
            None => guarded(lua, 2, Access::Write, Answer::Return),
        }
    }
}

const TEMPORARY: &str = "/tmp";

/// `io.tmpfile()`, for which the directory of temporary files must be granted.
pub(super) unsafe extern "C-unwind" fn tmpfile(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        match refusal(TEMPORARY.as_bytes(), Access::Write) {
            Some(message) => refuse(lua, message),
            None => call_original(lua),
        }
    }
}

/// `os.tmpname()`, which makes the file that it names.
pub(super) unsafe extern "C-unwind" fn tmpname(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        match refusal(TEMPORARY.as_bytes(), Access::Write) {
            Some(message) => raise(lua, message),
            None => call_original(lua),
        }
    }
}
