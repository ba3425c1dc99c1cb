//! `coroutine.resume`, `wrap` and `close`, with the running coroutine published to the interrupt.
//!
//! Stock Lua does not tell a signal handler which coroutine is running, so a loop inside one could
//! not be stopped. These three are the only ways to run code in a coroutine; apart from publishing
//! they do what the reference manual of Lua 5.4 says (section 6.2).

use std::ffi::c_int;

use mlua_sys as ffi;

use crate::interrupt::RunningState;

unsafe fn coroutine_argument(lua: *mut ffi::lua_State) -> *mut ffi::lua_State {
    // SAFETY: called by Lua; raises when the first argument is no coroutine.
    unsafe {
        let coroutine = ffi::lua_tothread(lua, 1);
        if coroutine.is_null() {
            ffi::luaL_checktype(lua, 1, ffi::LUA_TTHREAD);
        }
        coroutine
    }
}

/// Resumes `coroutine` with the top `count` values of `lua`. On success its results are on top of
/// `lua` and their number is returned, otherwise the error value is.
unsafe fn resume_with(
    lua: *mut ffi::lua_State,
    coroutine: *mut ffi::lua_State,
    count: c_int,
) -> Result<c_int, ()> {
    // SAFETY: called by Lua. Nothing is raised between `enter` and `leave`: `lua_resume` returns
    // the errors of the coroutine.
    unsafe {
        if ffi::lua_checkstack(coroutine, count) == 0 {
            ffi::lua_pushliteral(lua, c"too many arguments to resume");
            return Err(());
        }
        ffi::lua_xmove(lua, coroutine, count);
        let mut results = 0;
        let mut running = RunningState::of(coroutine);
        running.enter();
        let status = ffi::lua_resume(coroutine, lua, count, &raw mut results);
        running.leave();
        if status != ffi::LUA_OK && status != ffi::LUA_YIELD {
            ffi::lua_xmove(coroutine, lua, 1);
            return Err(());
        }
        if ffi::lua_checkstack(lua, results + 1) == 0 {
            ffi::lua_settop(coroutine, -results - 1);
            ffi::lua_pushliteral(lua, c"too many results to resume");
            return Err(());
        }
        ffi::lua_xmove(coroutine, lua, results);
        Ok(results)
    }
}

/// Runs the pending `close` methods of a coroutine.
unsafe fn close_thread(lua: *mut ffi::lua_State, coroutine: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua with a coroutine that does not run; its errors are returned.
    unsafe {
        let mut running = RunningState::of(coroutine);
        running.enter();
        let status = ffi::lua_closethread(coroutine, lua);
        running.leave();
        status
    }
}

pub(super) unsafe extern "C-unwind" fn resume(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let coroutine = coroutine_argument(lua);
        if let Ok(results) = resume_with(lua, coroutine, ffi::lua_gettop(lua) - 1) {
            ffi::lua_pushboolean(lua, 1);
            ffi::lua_insert(lua, -(results + 1));
            results + 1
        } else {
            ffi::lua_pushboolean(lua, 0);
            ffi::lua_insert(lua, -2);
            2
        }
    }
}

pub(super) unsafe extern "C-unwind" fn wrap(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::luaL_checktype(lua, 1, ffi::LUA_TFUNCTION);
        let coroutine = ffi::lua_newthread(lua);
        ffi::lua_pushvalue(lua, 1);
        ffi::lua_xmove(lua, coroutine, 1);
        ffi::lua_pushcclosure(lua, call_wrapped, 1);
        1
    }
}

unsafe extern "C-unwind" fn call_wrapped(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua; the upvalue is the coroutine that `wrap` made.
    unsafe {
        let coroutine = ffi::lua_tothread(lua, ffi::lua_upvalueindex(1));
        if let Ok(results) = resume_with(lua, coroutine, ffi::lua_gettop(lua)) {
            return results;
        }
        let status = ffi::lua_status(coroutine);
        if status != ffi::LUA_OK && status != ffi::LUA_YIELD {
            let status = close_thread(lua, coroutine);
            // The error of closing, or the original one, is on the coroutine's stack.
            ffi::lua_settop(lua, -2);
            ffi::lua_xmove(coroutine, lua, 1);
            if status == ffi::LUA_ERRMEM {
                ffi::lua_error(lua);
            }
        }
        if ffi::lua_type(lua, -1) == ffi::LUA_TSTRING {
            ffi::luaL_where(lua, 1);
            ffi::lua_insert(lua, -2);
            ffi::lua_concat(lua, 2);
        }
        ffi::lua_error(lua)
    }
}

pub(super) unsafe extern "C-unwind" fn close(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let coroutine = coroutine_argument(lua);
        let mut record: ffi::lua_Debug = std::mem::zeroed();
        let suspended = ffi::lua_status(coroutine) == ffi::LUA_YIELD;
        let has_frame = ffi::lua_getstack(coroutine, 0, &raw mut record) != 0;
        if coroutine == lua || (!suspended && has_frame) {
            let how = if coroutine == lua { c"running" } else { c"normal" };
            ffi::luaL_error(lua, c"cannot close a %s coroutine".as_ptr(), how.as_ptr());
        }
        if close_thread(lua, coroutine) == ffi::LUA_OK {
            ffi::lua_pushboolean(lua, 1);
            1
        } else {
            ffi::lua_pushboolean(lua, 0);
            ffi::lua_xmove(coroutine, lua, 1);
            2
        }
    }
}
