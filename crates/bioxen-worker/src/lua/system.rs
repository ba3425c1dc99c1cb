//! What sandboxed code may know and use of the system: grants, environment, programs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, c_int};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use bioxen_core::{Grants, Stream};
use mlua_sys as ffi;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::libraries::{call_original, raise, refuse};
use super::{push_bytes, values};
use crate::{console, interrupt};

#[derive(Default)]
struct System {
    grants: Grants,
    environment: BTreeMap<String, String>,
    working_directory: PathBuf,
    /// Whether the limit on child processes is 0.
    is_alone: bool,
}

thread_local! {
    static SYSTEM: RefCell<System> = RefCell::default();
}

/// Sets what code may touch.
pub(crate) fn set_grants(grants: Grants) {
    SYSTEM.with_borrow_mut(|system| system.grants = grants);
}

/// Sets that no program may run beside the worker, whatever the grants say.
pub(crate) fn stay_alone() {
    SYSTEM.with_borrow_mut(|system| system.is_alone = true);
}

/// Sets the variables that code sees. Programs that it starts get the same.
pub(crate) fn set_environment(environment: BTreeMap<String, String>) {
    SYSTEM.with_borrow_mut(|system| {
        if system.grants.spawn && system.environment != environment {
            export(&environment);
        }
        system.environment = environment;
    });
}

/// Makes the process's environment, which `io.popen` hands on, the given one.
fn export(environment: &BTreeMap<String, String>) {
    let present: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    // SAFETY: a worker has one thread, and no pointer into the environment is kept.
    unsafe {
        for name in &present {
            std::env::remove_var(name);
        }
        for (name, value) in environment {
            std::env::set_var(name, value);
        }
    }
}

/// Enters the directory that relative paths start from.
pub(crate) fn set_working_directory(directory: &Path) -> std::io::Result<()> {
    SYSTEM.with_borrow_mut(|system| {
        if system.working_directory == directory {
            return Ok(());
        }
        // Without any file to open there is none to be entered either, and no need to.
        let outcome = std::env::set_current_dir(directory);
        if outcome.is_ok() || system.grants.read.is_empty() && system.grants.write.is_empty() {
            directory.clone_into(&mut system.working_directory);
            return Ok(());
        }
        outcome
    })
}

/// A use of a file that is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Says why a file may not be used so, or nothing when it may.
pub(super) fn refusal(path: &[u8], access: Access) -> Option<String> {
    let flag = match access {
        Access::Read => "--allow-read",
        Access::Write => "--allow-write",
    };
    if path.contains(&0) {
        // The system would use the part before it, which is another name than the one looked at.
        let shown = String::from_utf8_lossy(path).replace('\0', "\\0");
        return Some(format!("{shown}: no {flag} can grant a name with a zero byte in it"));
    }
    SYSTEM.with_borrow(|system| {
        let path = Path::new(OsStr::from_bytes(path));
        let real = real_path(&system.working_directory.join(path));
        let (allowed, verb) = match access {
            Access::Read => (system.grants.allows_read(&real), "reading"),
            Access::Write => (system.grants.allows_write(&real), "writing"),
        };
        let shown = path.display();
        (!allowed)
            .then(|| format!("{shown}: {verb} it was not granted; allow it with {flag} {shown}"))
    })
}

/// The path without links, `.` and `..`; its last parts need not exist.
fn real_path(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        if let Ok(real) = existing.canonicalize() {
            return missing.iter().rev().fold(real, |path, part| path.join(part));
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                existing = parent;
            }
            // `..` after something that does not exist, or no way to ask: by its letters alone.
            _ => return by_letters(path),
        }
    }
}

fn by_letters(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, component| {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
        path
    })
}

const NO_SPAWN: &str = "starting programs was not granted; allow it with --allow-spawn";
const NO_PROCESSES: &str = "no program may run beside this one; allow some with --max-processes";

/// Why no program may be started, or nothing when it may.
fn refusal_to_spawn() -> Option<&'static str> {
    SYSTEM.with_borrow(|system| match system.grants.spawn {
        false => Some(NO_SPAWN),
        true if system.is_alone => Some(NO_PROCESSES),
        true => None,
    })
}

/// `os.getenv`: only variables that were granted or given.
pub(super) unsafe extern "C-unwind" fn getenv(lua: *mut ffi::lua_State) -> c_int {
    enum Answer {
        Value(String),
        Unset,
        Refused(String),
    }
    // SAFETY: called by Lua; what needs to be dropped is, before anything can be raised, except for
    // want of memory, where one string is lost with the evaluation.
    unsafe {
        ffi::luaL_checklstring(lua, 1, std::ptr::null_mut());
        let name = values::text_at(lua, 1).unwrap_or_default();
        let answer = SYSTEM.with_borrow(|system| match system.environment.get(&name) {
            Some(value) => Answer::Value(value.clone()),
            None if system.grants.env.contains(&name) => Answer::Unset,
            None => Answer::Refused(format!(
                "environment variable `{name}` was not granted; allow it with --allow-env {name}"
            )),
        });
        drop(name);
        match answer {
            Answer::Value(value) => {
                push_bytes(lua, value.as_bytes());
                1
            }
            Answer::Unset => {
                ffi::lua_pushnil(lua);
                1
            }
            Answer::Refused(message) => {
                ffi::lua_pushnil(lua);
                push_bytes(lua, message.as_bytes());
                2
            }
        }
    }
}

/// `io.popen`: the program's standard error goes to the run's.
pub(super) unsafe extern "C-unwind" fn popen(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if let Some(reason) = refusal_to_spawn() {
            let command = values::text_at(lua, 1).unwrap_or_default();
            return refuse(lua, format!("{command}: {reason}"));
        }
        console::send_waiting();
        call_original(lua)
    }
}

/// `os.execute`: the program's output becomes the run's, as it comes.
pub(super) unsafe extern "C-unwind" fn execute(lua: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua; nothing that needs to be dropped is held when an error is raised.
    unsafe {
        if ffi::lua_type(lua, 1) <= ffi::LUA_TNIL {
            ffi::lua_pushboolean(lua, c_int::from(refusal_to_spawn().is_none()));
            return 1;
        }
        ffi::luaL_checklstring(lua, 1, std::ptr::null_mut());
        if let Some(reason) = refusal_to_spawn() {
            return raise(lua, reason.to_owned());
        }
        let command = values::bytes_at(lua, 1).unwrap_or_default();
        console::send_waiting();
        let outcome = run_program(command);
        if let Some(reason) = interrupt::pending() {
            drop(outcome);
            interrupt::raise(lua, reason);
        }
        match outcome {
            Ok(status) => push_status(lua, status),
            Err(error) => {
                let message = format!("cannot start a program: {error}");
                drop(error);
                raise(lua, message)
            }
        }
    }
}

/// `luaL_execresult`, from what Rust knows.
unsafe fn push_status(lua: *mut ffi::lua_State, status: ExitStatus) -> c_int {
    let (how, code) = match status.code() {
        Some(code) => (c"exit", code),
        None => (c"signal", status.signal().unwrap_or(0)),
    };
    // SAFETY: called by Lua with room for three results.
    unsafe {
        if status.success() {
            ffi::lua_pushboolean(lua, 1);
        } else {
            ffi::lua_pushnil(lua);
        }
        ffi::lua_pushstring(lua, how.as_ptr());
        ffi::lua_pushinteger(lua, code.into());
        3
    }
}

fn run_program(command: &[u8]) -> std::io::Result<ExitStatus> {
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(OsStr::from_bytes(command))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let copied = copy_output(&mut child);
    if copied.is_err() || interrupt::pending().is_some() {
        let _ = child.kill();
        // What it has started in turn; whatever does not heed this ends with the VM.
        let _ = nix::sys::signal::killpg(nix::unistd::getpgrp(), nix::sys::signal::SIGTERM);
    }
    let status = child.wait()?;
    copied.map(|()| status)
}

/// Hands the child's output on until it has closed both streams or the run is to end.
fn copy_output(child: &mut Child) -> std::io::Result<()> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let mut space = vec![0; 16 << 10];
    while stdout.is_some() || stderr.is_some() {
        let open = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        let mut sources: Vec<PollFd> =
            open.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let waited = poll(&mut sources, PollTimeout::NONE);
        if interrupt::pending().is_some() {
            return Ok(());
        }
        match waited {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> =
            sources.iter().map(|source| source.any().unwrap_or_default()).collect();
        let mut ready = ready.into_iter();
        copy_ready(&mut stdout, Stream::Stdout, &mut ready, &mut space)?;
        copy_ready(&mut stderr, Stream::Stderr, &mut ready, &mut space)?;
    }
    Ok(())
}

fn copy_ready(
    source: &mut Option<impl Read>,
    stream: Stream,
    ready: &mut impl Iterator<Item = bool>,
    space: &mut [u8],
) -> std::io::Result<()> {
    let Some(open) = source else { return Ok(()) };
    if ready.next() != Some(true) {
        return Ok(());
    }
    match open.read(space)? {
        0 => *source = None,
        count => {
            console::write(stream, &space[..count]);
            console::send_waiting();
        }
    }
    Ok(())
}
