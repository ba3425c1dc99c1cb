//! Lua values as data, read without calling any metamethod.

use std::ffi::{CStr, c_int, c_void};

use bioxen_core::Value;
use bioxen_core::protocol::DEEPEST_VALUE;
use mlua_sys as ffi;

use crate::console;

/// The values are larger than the evaluation may return.
pub(super) struct TooMuch;

/// Bytes that a value costs on the wire besides its contents, roughly.
const OVERHEAD: usize = 4;

/// Reads the values from a stack index up to the top.
pub(super) unsafe fn take(lua: *mut ffi::lua_State, first: c_int) -> Result<Vec<Value>, TooMuch> {
    // SAFETY: the indices between `first` and the top are valid.
    unsafe { (first..=ffi::lua_gettop(lua)).map(|index| one(lua, index)).collect() }
}

/// Reads one value.
pub(super) unsafe fn one(lua: *mut ffi::lua_State, index: c_int) -> Result<Value, TooMuch> {
    // SAFETY: the caller passes a valid index.
    unsafe { read(lua, ffi::lua_absindex(lua, index), &mut Vec::new()) }
}

/// The string at a stack index as text, if it is a string.
pub(super) unsafe fn text_at(lua: *mut ffi::lua_State, index: c_int) -> Option<String> {
    // SAFETY: the caller passes a valid index.
    unsafe { bytes_at(lua, index) }.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The string at a stack index, if it is a string; valid while it is on the stack.
pub(super) unsafe fn bytes_at<'a>(lua: *mut ffi::lua_State, index: c_int) -> Option<&'a [u8]> {
    // SAFETY: the type is checked first, so that no number is converted in place.
    unsafe {
        if ffi::lua_type(lua, index) != ffi::LUA_TSTRING {
            return None;
        }
        let mut length = 0;
        let start = ffi::lua_tolstring(lua, index, &raw mut length);
        Some(std::slice::from_raw_parts(start.cast(), length))
    }
}

/// Reads a value; `around` are the tables that it is inside of.
unsafe fn read(
    lua: *mut ffi::lua_State,
    index: c_int,
    around: &mut Vec<*const c_void>,
) -> Result<Value, TooMuch> {
    spend(OVERHEAD)?;
    // SAFETY: `index` is valid and absolute.
    unsafe {
        Ok(match ffi::lua_type(lua, index) {
            ffi::LUA_TNIL => Value::Nil,
            ffi::LUA_TBOOLEAN => Value::Boolean(ffi::lua_toboolean(lua, index) != 0),
            ffi::LUA_TNUMBER if ffi::lua_isinteger(lua, index) != 0 => {
                Value::Integer(ffi::lua_tointeger(lua, index))
            }
            ffi::LUA_TNUMBER => Value::Float(ffi::lua_tonumber(lua, index)),
            ffi::LUA_TSTRING => {
                let bytes = bytes_at(lua, index).unwrap_or_default();
                spend(bytes.len())?;
                Value::String(bytes.to_vec())
            }
            ffi::LUA_TTABLE => read_table(lua, index, around)?,
            _ => other(lua, index),
        })
    }
}

fn spend(bytes: usize) -> Result<(), TooMuch> {
    if console::spend(bytes as u64) { Ok(()) } else { Err(TooMuch) }
}

unsafe fn other(lua: *mut ffi::lua_State, index: c_int) -> Value {
    // SAFETY: `index` is valid; type names are static.
    unsafe {
        let kind = CStr::from_ptr(ffi::luaL_typename(lua, index)).to_string_lossy();
        Value::Other(format!("{kind}: {:p}", ffi::lua_topointer(lua, index)))
    }
}

unsafe fn read_table(
    lua: *mut ffi::lua_State,
    index: c_int,
    around: &mut Vec<*const c_void>,
) -> Result<Value, TooMuch> {
    // SAFETY: `index` is a table; room on the stack is asked for; `lua_next` raises no error, as
    // the keys come from the table itself and nothing changes it meanwhile.
    unsafe {
        let address = ffi::lua_topointer(lua, index);
        let too_deep = around.len() >= DEEPEST_VALUE || ffi::lua_checkstack(lua, 4) == 0;
        if too_deep || around.contains(&address) {
            return Ok(other(lua, index));
        }
        around.push(address);
        let mut entries = Vec::new();
        ffi::lua_pushnil(lua);
        while ffi::lua_next(lua, index) != 0 {
            let top = ffi::lua_gettop(lua);
            let entry = (read(lua, top - 1, around)?, read(lua, top, around)?);
            entries.push(entry);
            ffi::lua_settop(lua, -2);
        }
        around.pop();
        Ok(array_or_map(entries))
    }
}

fn array_or_map(mut entries: Vec<(Value, Value)>) -> Value {
    entries.sort_by(|(one, _), (other, _)| order_of_keys(one, other));
    let is_array =
        entries.iter().zip(1..).all(|((key, _), position)| *key == Value::Integer(position));
    if is_array {
        Value::Array(entries.into_iter().map(|(_, value)| value).collect())
    } else {
        Value::Map(entries)
    }
}

/// Numbers by size, then strings by their bytes, then the rest as it comes.
fn order_of_keys(one: &Value, other: &Value) -> std::cmp::Ordering {
    let rank = |key: &Value| match key {
        Value::Integer(_) | Value::Float(_) => 0,
        Value::String(_) => 1,
        Value::Boolean(_) => 2,
        _ => 3,
    };
    match (one, other) {
        (Value::Integer(one), Value::Integer(other)) => one.cmp(other),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Boolean(one), Value::Boolean(other)) => one.cmp(other),
        _ if rank(one) == 0 && rank(other) == 0 => {
            let number = |key: &Value| key.as_f64().unwrap_or(f64::NAN);
            number(one).total_cmp(&number(other))
        }
        _ => rank(one).cmp(&rank(other)),
    }
}
