//! The embedded interpreter: Lua 5.4 through its C interface.
//!
//! The C interface is used directly (and not through a safe wrapper) because a worker needs what
//! wrappers keep to themselves: an allocator that knows its peak, the running coroutines, errors
//! that code cannot swallow, and C stdio under Lua's own `io` library. The unsafe code of the worker
//! that concerns Lua is in this module and in `interrupt`.
//!
//! Rules that the code here keeps: a function that can raise a Lua error runs inside a protected
//! call and holds nothing that needs to be dropped when it raises; no panic crosses into C.
#![expect(unsafe_code, reason = "the interface of Lua is C")]

mod coroutines;
mod files;
mod libraries;
mod memory;
mod modules;
mod system;
mod values;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use bioxen_core::protocol::{Form, Status};
use bioxen_core::{LuaError, Value};
use mlua_sys as ffi;

use crate::console;
use crate::interrupt::RunningState;
pub(crate) use libraries::{set_exit_code, take_exit_code};
pub(crate) use memory::Memory;
pub(crate) use system::{set_environment, set_grants, set_working_directory, stay_alone};

unsafe extern "C" {
    /// `$LuaVersion: Lua 5.4.x  Copyright … $`
    safe static lua_ident: [c_char; 16];
}

/// The version as the interpreter itself gives it, with the release: `Lua 5.4.9`.
pub fn version() -> String {
    // SAFETY: the text is static and ends with a NUL.
    let ident = unsafe { CStr::from_ptr((&raw const lua_ident).cast()) }.to_string_lossy();
    let words = ident.trim_start_matches("$LuaVersion: ").split_whitespace();
    words.take(2).collect::<Vec<_>>().join(" ")
}

/// A Lua state with the libraries that sandboxed code may use.
pub(crate) struct State {
    lua: *mut ffi::lua_State,
}

/// What running code came to.
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) values: Vec<Value>,
    pub(crate) error: Option<LuaError>,
}

impl Outcome {
    fn of(status: Status) -> Self {
        Self { status, values: Vec::new(), error: None }
    }

    /// Nothing was run, and why.
    pub(crate) fn failed(message: String) -> Self {
        let error = LuaError { message, traceback: None, value: None };
        Self { status: Status::Error, values: Vec::new(), error: Some(error) }
    }
}

impl State {
    /// Makes a state whose memory is counted by `memory`; `None` when even that is too much.
    pub(crate) fn new(memory: &'static Memory) -> Option<Self> {
        // SAFETY: the allocator keeps the contract of `lua_Alloc`, and its data is never freed.
        let lua = unsafe { ffi::lua_newstate(memory::allocate, memory.as_data()) };
        if lua.is_null() {
            return None;
        }
        let state = Self { lua };
        // SAFETY: a fresh state; errors stay inside the protected call.
        let status = unsafe {
            ffi::lua_pushcfunction(lua, libraries::open);
            ffi::lua_pcall(lua, 0, 0, 0)
        };
        (status == ffi::LUA_OK).then_some(state)
    }

    /// Gives `math.random` a sequence of its own, from the system's randomness.
    ///
    /// Forked workers share the state that the zygote prepared, its random seed included.
    pub(crate) fn reseed(&self) {
        let mut seed = [0_i64; 2];
        // SAFETY: `seed` is ours to write to; the calls into Lua are protected.
        unsafe {
            let size = size_of_val(&seed);
            libc::getrandom(seed.as_mut_ptr().cast(), size, 0);
            let lua = self.lua;
            libraries::push_randomseed(lua);
            ffi::lua_pushinteger(lua, seed[0]);
            ffi::lua_pushinteger(lua, seed[1]);
            ffi::lua_pcall(lua, 2, 0, 0);
            ffi::lua_settop(lua, 0);
        }
    }

    /// Frees what nothing refers to any more. Finalisers run in here, watched like other code.
    pub(crate) fn collect_garbage(&mut self, memory: &Memory) {
        // SAFETY: the state is alive and runs nothing; a full collection raises no error, as those of
        // finalisers become warnings.
        unsafe {
            let mut running = RunningState::of(self.lua);
            running.enter();
            ffi::lua_gc(self.lua, ffi::LUA_GCCOLLECT);
            running.leave();
            ffi::lua_sethook(self.lua, None, 0, 0);
        }
        memory.note_collection();
    }

    /// Runs code to its end, whatever that is.
    pub(crate) fn evaluate(
        &mut self,
        form: Form,
        name: &str,
        code: &[u8],
        arguments: &[impl AsRef<[u8]>],
    ) -> Outcome {
        // SAFETY: the stack is empty between evaluations and is emptied again below.
        unsafe {
            let mut running = RunningState::of(self.lua);
            running.enter();
            let outcome = self.load_and_call(form, name, code, arguments);
            running.leave();
            ffi::lua_sethook(self.lua, None, 0, 0);
            ffi::lua_settop(self.lua, 0);
            outcome
        }
    }

    unsafe fn load_and_call(
        &mut self,
        form: Form,
        name: &str,
        code: &[u8],
        arguments: &[impl AsRef<[u8]>],
    ) -> Outcome {
        let lua = self.lua;
        // SAFETY: each call below is either protected or cannot raise an error.
        unsafe {
            ffi::lua_pushcfunction(lua, explain_error);
            let loaded = load(lua, form, name, code);
            if loaded != ffi::LUA_OK {
                if form == Form::Input && loaded == ffi::LUA_ERRSYNTAX && wants_more(lua) {
                    let mut outcome = self.failure(loaded);
                    outcome.status = Status::Incomplete;
                    return outcome;
                }
                return self.failure(loaded);
            }
            if let Err(status) = push_arguments(lua, name, arguments) {
                return self.failure(status);
            }
            let count = c_int::try_from(arguments.len()).unwrap_or(c_int::MAX);
            let status = ffi::lua_pcall(lua, count, ffi::LUA_MULTRET, 1);
            if status != ffi::LUA_OK {
                return self.failure(status);
            }
            match values::take(lua, 2) {
                Ok(values) => Outcome { status: Status::Finished, values, error: None },
                Err(values::TooMuch) => Outcome::of(Status::Output),
            }
        }
    }

    /// The outcome for an error whose value is on top of the stack.
    unsafe fn failure(&mut self, status: c_int) -> Outcome {
        let lua = self.lua;
        let kind = if status == ffi::LUA_ERRMEM { Status::Memory } else { Status::Error };
        // SAFETY: the error value is on the stack; naming it is protected.
        unsafe {
            let traceback = libraries::take_traceback(lua);
            let is_text = ffi::lua_type(lua, -1) == ffi::LUA_TSTRING;
            let value = if is_text { None } else { values::one(lua, -1).ok() };
            ffi::lua_pushcfunction(lua, describe_error);
            ffi::lua_insert(lua, -2);
            let described = ffi::lua_pcall(lua, 1, 1, 0);
            let mut message = values::text_at(lua, -1).unwrap_or_else(|| "unknown error".into());
            if described != ffi::LUA_OK {
                message = format!("(error value that cannot be shown: {message})");
            }
            Outcome {
                status: kind,
                values: Vec::new(),
                error: Some(LuaError { message, traceback, value }),
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Finalisers run in here, so they are watched like other code.
        // SAFETY: the state is alive and not used again.
        unsafe {
            let mut running = RunningState::of(self.lua);
            running.enter();
            ffi::lua_close(self.lua);
            running.leave();
        }
        console::flush_c_streams();
    }
}

/// The pieces of a chunk that the loader is fed with one after another.
struct Pieces<'a> {
    pieces: [&'a [u8]; 2],
    next: usize,
}

unsafe extern "C-unwind" fn next_piece(
    _: *mut ffi::lua_State,
    data: *mut c_void,
    size: *mut usize,
) -> *const c_char {
    // SAFETY: `load` passes a `Pieces` that outlives the loading.
    let pieces = unsafe { &mut *data.cast::<Pieces>() };
    while let Some(piece) = pieces.pieces.get(pieces.next) {
        pieces.next += 1;
        if !piece.is_empty() {
            // SAFETY: Lua passes a valid place for the size.
            unsafe { *size = piece.len() };
            return piece.as_ptr().cast();
        }
    }
    // SAFETY: as above.
    unsafe { *size = 0 };
    ptr::null()
}

/// Compiles code and leaves the function, or the error, on the stack. Cannot raise.
unsafe fn load(lua: *mut ffi::lua_State, form: Form, name: &str, code: &[u8]) -> c_int {
    let name = CString::new(name.replace('\0', "?")).unwrap_or_default();
    let compile = |prefix: &'static [u8], code: &[u8]| {
        let mut pieces = Pieces { pieces: [prefix, code], next: 0 };
        let data = (&raw mut pieces).cast();
        // SAFETY: the reader and its data outlive the call. Only source text is accepted: precompiled
        // code can corrupt the interpreter.
        unsafe { ffi::lua_load(lua, next_piece, data, name.as_ptr(), c"t".as_ptr()) }
    };
    match form {
        Form::Chunk => compile(b"", skip_first_comment(code)),
        Form::Input if code.trim_ascii_start().starts_with(b"return") => compile(b"", code),
        Form::Input => match compile(b"return ", code) {
            ffi::LUA_ERRSYNTAX => {
                // SAFETY: drops the error message that the first try left.
                unsafe { ffi::lua_settop(lua, -2) };
                compile(b"", code)
            }
            other => other,
        },
    }
}

/// Leaves out a first line that starts with `#`, but not its end, so that lines keep their numbers.
fn skip_first_comment(code: &[u8]) -> &[u8] {
    if code.first() == Some(&b'#') {
        let end = code.iter().position(|byte| *byte == b'\n').unwrap_or(code.len());
        &code[end..]
    } else {
        code
    }
}

/// Whether the syntax error on top of the stack is that the code ended too early.
unsafe fn wants_more(lua: *mut ffi::lua_State) -> bool {
    // SAFETY: reads the message without changing it.
    unsafe { values::text_at(lua, -1) }.is_some_and(|message| message.ends_with("<eof>"))
}

/// What `push_arguments_unprotected` is told, by address.
struct Arguments<'a> {
    name: &'a str,
    values: Vec<&'a [u8]>,
}

/// Sets `arg` and pushes the arguments, for the function below them on the stack.
unsafe fn push_arguments(
    lua: *mut ffi::lua_State,
    name: &str,
    values: &[impl AsRef<[u8]>],
) -> Result<(), c_int> {
    if values.is_empty() && !name.starts_with('@') {
        return Ok(());
    }
    let arguments = Arguments {
        name: name.strip_prefix(['@', '=']).unwrap_or(name),
        values: values.iter().map(AsRef::as_ref).collect(),
    };
    // SAFETY: the callee reads `arguments`, which outlives the call; its errors are caught.
    unsafe {
        ffi::lua_pushcfunction(lua, push_arguments_unprotected);
        ffi::lua_pushlightuserdata(lua, (&raw const arguments).cast_mut().cast());
        match ffi::lua_pcall(lua, 1, ffi::LUA_MULTRET, 0) {
            ffi::LUA_OK => Ok(()),
            status => Err(status),
        }
    }
}

unsafe extern "C-unwind" fn push_arguments_unprotected(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: the caller passes the address of its `Arguments`, which holds nothing to drop here.
    unsafe {
        let arguments = &*ffi::lua_touserdata(lua, 1).cast::<Arguments>();
        let count = c_int::try_from(arguments.values.len()).unwrap_or(c_int::MAX - 10);
        ffi::luaL_checkstack(lua, count.saturating_add(4), c"too many arguments".as_ptr());
        ffi::lua_createtable(lua, count, 1);
        push_bytes(lua, arguments.name.as_bytes());
        ffi::lua_rawseti(lua, -2, 0);
        for (value, index) in arguments.values.iter().zip(1..) {
            push_bytes(lua, value);
            ffi::lua_rawseti(lua, -2, index);
        }
        ffi::lua_setglobal(lua, c"arg".as_ptr());
        for value in &arguments.values {
            push_bytes(lua, value);
        }
        count
    }
}

/// Pushes a Lua string. May raise for want of memory.
unsafe fn push_bytes(lua: *mut ffi::lua_State, bytes: &[u8]) {
    // SAFETY: the bytes are valid for their length.
    unsafe { ffi::lua_pushlstring(lua, bytes.as_ptr().cast(), bytes.len()) };
}

/// The message handler of an evaluation: notes where the error was, and leaves it as it is.
unsafe extern "C-unwind" fn explain_error(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua with the error value as its only argument.
    unsafe {
        ffi::luaL_traceback(lua, lua, ptr::null(), 1);
        libraries::set_traceback(lua);
        1
    }
}

/// Turns any error value into text, with the help of `__tostring`.
unsafe extern "C-unwind" fn describe_error(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called in a protected call with the error value as its only argument.
    unsafe {
        let has_text = ffi::lua_type(lua, 1) == ffi::LUA_TSTRING
            || ffi::lua_type(lua, 1) == ffi::LUA_TNUMBER
            || ffi::luaL_getmetafield(lua, 1, c"__tostring".as_ptr()) != ffi::LUA_TNIL;
        ffi::lua_settop(lua, 1);
        if has_text {
            ffi::luaL_tolstring(lua, 1, ptr::null_mut());
        } else {
            let kind = ffi::luaL_typename(lua, 1);
            ffi::lua_pushfstring(lua, c"(error object is a %s value)".as_ptr(), kind);
        }
        1
    }
}
