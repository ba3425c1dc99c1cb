//! `require`: modules written in Lua, from directories that may be read.

use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mlua_sys as ffi;

use super::libraries::raise;
use super::system::{Access, refusal};
use super::values::bytes_at;

const PATH: &std::ffi::CStr = c"./?.lua;./?/init.lua";

/// Sets the search path and leaves the searchers for preloaded modules and for Lua files.
///
/// # Safety
///
/// Runs in a protected call with an empty stack.
pub(super) unsafe fn set_up(lua: *mut ffi::lua_State) {
    // SAFETY: the table `package` is there.
    unsafe {
        ffi::lua_getglobal(lua, c"package".as_ptr());
        ffi::lua_pushstring(lua, PATH.as_ptr());
        ffi::lua_setfield(lua, 1, c"path".as_ptr());
        ffi::lua_pushstring(lua, c"".as_ptr());
        ffi::lua_setfield(lua, 1, c"cpath".as_ptr());
        ffi::lua_getfield(lua, 1, c"searchers".as_ptr());
        ffi::lua_pushvalue(lua, 1);
        ffi::lua_pushcclosure(lua, search, 1);
        ffi::lua_rawseti(lua, 2, 2);
        for index in [3, 4] {
            ffi::lua_pushnil(lua);
            ffi::lua_rawseti(lua, 2, index);
        }
        ffi::lua_settop(lua, 0);
    }
}

/// `package.loadlib`: libraries written in C are not for sandboxed code.
pub(super) unsafe extern "C-unwind" fn loadlib(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua with room for three results.
    unsafe {
        ffi::lua_pushnil(lua);
        ffi::lua_pushliteral(
            lua,
            c"the built-in interpreter loads no libraries written in C; name another with --lua",
        );
        ffi::lua_pushliteral(lua, c"absent");
        3
    }
}

const NO_NETWORK: &str = "no network library in the built-in Lua; another interpreter (--lua) can \
load one that is under --allow-read and connect where --allow-net allows it";

/// What looking for a module's file came to.
enum Found {
    File(Vec<u8>),
    /// The lines that `require` adds to its message.
    Nothing(String),
}

/// The searcher for Lua files. Its upvalue is the table `package`.
unsafe extern "C-unwind" fn search(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua. What needs to be dropped is, before an error can be raised.
    unsafe {
        ffi::luaL_checklstring(lua, 1, std::ptr::null_mut());
        ffi::lua_settop(lua, 1);
        ffi::lua_getfield(lua, ffi::lua_upvalueindex(1), c"path".as_ptr());
        let (Some(name), Some(templates)) = (bytes_at(lua, 1), bytes_at(lua, 2)) else {
            return raise(lua, "'package.path' must be a string".to_owned());
        };
        match find(name, templates) {
            Found::Nothing(tried) => {
                super::push_bytes(lua, tried.as_bytes());
                1
            }
            Found::File(path) => {
                super::push_bytes(lua, &path);
                drop(path);
                let name = ffi::lua_tostring(lua, 3);
                if ffi::luaL_loadfilex(lua, name, c"t".as_ptr()) != ffi::LUA_OK {
                    return ffi::luaL_error(
                        lua,
                        c"error loading module '%s' from file '%s':\n\t%s".as_ptr(),
                        ffi::lua_tostring(lua, 1),
                        name,
                        ffi::lua_tostring(lua, -1),
                    );
                }
                ffi::lua_pushvalue(lua, 3);
                2
            }
        }
    }
}

fn find(name: &[u8], templates: &[u8]) -> Found {
    let part: Vec<u8> = name.iter().map(|byte| if *byte == b'.' { b'/' } else { *byte }).collect();
    let mut tried = Vec::new();
    for template in templates.split(|byte| *byte == b';').filter(|part| !part.is_empty()) {
        let path = template.split(|byte| *byte == b'?').collect::<Vec<_>>().join(&part[..]);
        if path.contains(&0) {
            continue;
        }
        let shown = String::from_utf8_lossy(&path).into_owned();
        if refusal(&path, Access::Read).is_some() {
            tried.push(format!("no read grant for '{shown}' (allow it with --allow-read {shown})"));
        } else if Path::new(OsStr::from_bytes(&path)).is_file() {
            return Found::File(path);
        } else {
            tried.push(format!("no file '{shown}'"));
        }
    }
    if name == b"socket" || name.starts_with(b"socket.") {
        tried.push(NO_NETWORK.to_owned());
    }
    Found::Nothing(tried.join("\n\t"))
}
