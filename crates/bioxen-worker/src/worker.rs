//! What makes a process a worker: it holds itself in, and serves or becomes another interpreter.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use bioxen_core::Isolation;
use bioxen_core::protocol::Reply;
use bioxen_core::protocol::zygote::{Kind, Order, exit_code};
use nix::unistd::{dup2_stdin, dup2_stdout};

use crate::connection::Connection;
use crate::serve::{self, Prepared};
use crate::{console, lifeline, lua, sandbox};

/// The life of a worker in a process group of its own, which already has what its kind has in common.
/// Returns its exit code.
///
/// The built-in interpreter needs what was `prepared` for it. A `lifeline` that is already attached
/// need not be passed.
pub(crate) fn live(
    order: &Order,
    mut connection: Connection,
    prepared: Option<Prepared>,
    kind: &Isolation,
    lifeline: Option<OwnedFd>,
) -> i32 {
    let isolation = match hold_in(order, &connection, kind, lifeline) {
        Ok(isolation) => isolation,
        Err(error) => return refuse(&mut connection, &error.to_string()),
    };
    if let Some(program) = &order.program {
        let error = become_program(program, order, isolation, &mut connection);
        let reason = format!("{} cannot be run: {error}", program.display());
        return refuse(&mut connection, &reason);
    }
    if !Kind::of(order).spawn {
        lua::stay_alone();
    }
    let Some(prepared) = prepared else { return 1 };
    match serve::serve(connection, prepared, isolation, order.working_directory.clone()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => exit_code::MEMORY,
        Err(_) => 1,
    }
}

/// Says why no worker came of it. Returns the exit code.
pub(crate) fn refuse(connection: &mut Connection, reason: &str) -> i32 {
    // When this fails the controller is gone, and the worker is about to be.
    let _ = connection.send(&[Reply::Fatal(reason.into())]);
    1
}

/// Holds the process in, and says how far.
fn hold_in(
    order: &Order,
    connection: &Connection,
    kind: &Isolation,
    lifeline: Option<OwnedFd>,
) -> io::Result<Isolation> {
    if let Some(lifeline) = lifeline {
        let survives_exec = order.program.is_some();
        lifeline::attach(lifeline, survives_exec)?;
    }
    if order.program.is_some() {
        // The connection becomes the program's standard input and output.
        dup2_stdin(connection.reader())?;
        dup2_stdout(connection.writer())?;
    } else if Kind::of(order).spawn {
        console::collect_errors_of_programs()?;
    }
    Ok(sandbox::enter(order, kind))
}

/// Becomes an interpreter that is a program of its own. Returns only when that fails.
fn become_program(
    program: &Path,
    order: &Order,
    isolation: Isolation,
    connection: &mut Connection,
) -> io::Error {
    if let Err(error) = connection.send(&[Reply::Sandboxed(isolation)]) {
        return error;
    }
    let mut command = Command::new(program);
    command.arg("-e").arg(crate::shim_bootstrap()).env_clear().envs(&order.environment);
    command.exec()
}
