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
        match find(name, templates, (b".", b"/")) {
            Found::Nothing(mut tried) => {
                if name == b"socket" || name.starts_with(b"socket.") {
                    tried.push_str("\n\t");
                    tried.push_str(NO_NETWORK);
                }
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

/// `package.searchpath(name, path, separator, replacement)`: files that may be read.
pub(super) unsafe extern "C-unwind" fn searchpath(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua. What needs to be dropped is, before an error can be raised.
    unsafe {
        ffi::luaL_checklstring(lua, 1, std::ptr::null_mut());
        ffi::luaL_checklstring(lua, 2, std::ptr::null_mut());
        ffi::lua_settop(lua, 4);
        for (index, default) in [(3, c"."), (4, c"/")] {
            if ffi::lua_type(lua, index) == ffi::LUA_TNIL {
                ffi::lua_pushstring(lua, default.as_ptr());
                ffi::lua_replace(lua, index);
            }
            ffi::luaL_checklstring(lua, index, std::ptr::null_mut());
        }
        let argument = |index| bytes_at(lua, index).unwrap_or_default();
        match find(argument(1), argument(2), (argument(3), argument(4))) {
            Found::File(path) => {
                super::push_bytes(lua, &path);
                drop(path);
                1
            }
            Found::Nothing(tried) => {
                ffi::lua_pushnil(lua);
                super::push_bytes(lua, tried.as_bytes());
                drop(tried);
                2
            }
        }
    }
}

/// Looks for the first file of a path that may be read. In `name`, the first of the pair stands for
/// the second.
fn find(name: &[u8], templates: &[u8], (separator, replacement): (&[u8], &[u8])) -> Found {
    let part = replaced(name, separator, replacement);
    let mut tried = Vec::new();
    for template in templates.split(|byte| *byte == b';').filter(|part| !part.is_empty()) {
        let path = replaced(template, b"?", &part);
        let shown = String::from_utf8_lossy(&path).into_owned();
        if path.contains(&0) {
            continue;
        }
        if refusal(&path, Access::Read).is_some() {
            tried.push(format!("no read grant for '{shown}' (allow it with --allow-read {shown})"));
        } else if Path::new(OsStr::from_bytes(&path)).is_file() {
            return Found::File(path);
        } else {
            tried.push(format!("no file '{shown}'"));
        }
    }
    Found::Nothing(tried.join("\n\t"))
}

/// The bytes with each `from` replaced, if there is something to replace.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        if !from.is_empty() && rest.starts_with(from) {
            out.extend_from_slice(to);
            rest = &rest[from.len()..];
        } else {
            out.push(*first);
            rest = &rest[1..];
        }
    }
    out
}
