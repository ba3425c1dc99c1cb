//! The forker: holds itself in as its workers are to be, and forks one for each order.
//!
//! What it has switched on for itself costs nothing for a worker. See `gate` for how it can still do
//! what its workers cannot.
#![expect(unsafe_code, reason = "tidying the heap and taking over descriptors have no safe form")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use bioxen_core::Isolation;
use bioxen_core::protocol::Reply;
use bioxen_core::protocol::zygote::{Answer, Kind, LARGEST_DATAGRAM, Order, exit_code};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, getppid};

use super::Control;
use crate::connection::Connection;
use crate::gate::{self, Forked};
use crate::serve::{self, Prepared};
use crate::{console, lifeline, lua, sandbox};

pub(super) struct Forker {
    /// `None` in a worker.
    control: Option<Control>,
    /// Room for one message. Made once: memory that is touched anew after a fork is copied anew.
    incoming: Vec<u8>,
    /// What the built-in Lua takes; `None` where the interpreter is a program.
    prepared: Option<Prepared>,
    /// What all workers share.
    isolation: Isolation,
}

/// What reading an order came to.
enum Incoming {
    Order(Box<Order>, Ends),
    HungUp,
}

/// What comes with an order: the worker's ends of its sockets.
struct Ends {
    connection: OwnedFd,
    /// There for kinds that have one.
    lifeline: Option<OwnedFd>,
}

impl Forker {
    /// Makes this process, a child of `keeper`, one that forks workers of a kind.
    pub(super) fn enter(
        kind: Kind,
        filtered: bool,
        keeper: Pid,
        control: Control,
        mut isolation: Isolation,
    ) -> io::Result<Self> {
        // Dies with its keeper, who alone can say how workers end. They do not inherit this.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != keeper {
            return Err(io::Error::other("the keeper is gone"));
        }
        let incoming = vec![0; LARGEST_DATAGRAM];
        let prepared = if kind.program { None } else { Some(Prepared::new()?) };
        gate::make_key()?;
        sandbox::enter_kind(kind, filtered, &mut isolation)?;
        gate::clear_stack();
        Ok(Self { control: Some(control), incoming, prepared, isolation })
    }

    /// Forks workers until the controller hangs up.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        self.tell(&Answer::Ready(self.isolation.clone()))?;
        // SAFETY: tidies the C library's heap and takes no pointer. Free blocks that lie about would
        // be put together by each forked worker anew, which copies the pages that they are in.
        unsafe { libc::malloc_trim(0) };
        while let Incoming::Order(order, ends) = self.next_order()? {
            match gate::fork() {
                Ok(Forked::Parent(process)) => {
                    drop(ends);
                    self.tell(&Answer::Forked { order: order.id, process })?;
                }
                Ok(Forked::Child) => {
                    let grouped = gate::enter_own_process_group();
                    gate::forget_key();
                    gate::exit(self.become_worker(&order, ends, grouped))
                }
                Err(error) => {
                    self.tell(&Answer::Refused { order: order.id, reason: error.to_string() })?;
                }
            }
        }
        Ok(())
    }

    fn tell(&self, answer: &Answer) -> io::Result<()> {
        self.control.as_ref().map_or(Ok(()), |control| control.tell(answer))
    }

    fn next_order(&mut self) -> io::Result<Incoming> {
        let Some(Control(control)) = &self.control else { return Ok(Incoming::HungUp) };
        let mut parts = [io::IoSliceMut::new(&mut self.incoming)];
        let mut passed = nix::cmsg_space!([std::os::fd::RawFd; 2]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(control.as_raw_fd(), &mut parts, Some(&mut passed), flags)?;
        let length = message.bytes;
        if length == 0 {
            return Ok(Incoming::HungUp);
        }
        let mut ends = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows
                // them.
                ends.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let order: Order =
            rmp_serde::from_slice(&self.incoming[..length]).map_err(io::Error::other)?;
        let mut ends = ends.into_iter();
        match (ends.next(), ends.next()) {
            (Some(connection), lifeline)
                if lifeline.is_some() == Kind::of(&order).has_lifeline() =>
            {
                Ok(Incoming::Order(Box::new(order), Ends { connection, lifeline }))
            }
            _ => Err(io::Error::other("an order came without its sockets")),
        }
    }

    /// The child's part. Returns its exit code.
    fn become_worker(&mut self, order: &Order, ends: Ends, grouped: io::Result<()>) -> i32 {
        // A worker has no way to speak to the controller but its own connection; and while any
        // process holds this one, the controller cannot notice that the zygote is gone.
        drop(self.control.take());
        let mut connection = Connection::new(ends.connection);
        let held_in = grouped.and_then(|()| self.hold_in(order, &connection, ends.lifeline));
        let isolation = match held_in {
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
        let Some(prepared) = self.prepared.take() else { return 1 };
        match serve::serve(connection, prepared, isolation, order.working_directory.clone()) {
            Ok(()) => 0,
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => exit_code::MEMORY,
            Err(_) => 1,
        }
    }

    /// Holds the child in, and says how far.
    fn hold_in(
        &self,
        order: &Order,
        connection: &Connection,
        lifeline: Option<OwnedFd>,
    ) -> io::Result<Isolation> {
        if let Some(lifeline) = lifeline {
            let survives_exec = order.program.is_some();
            lifeline::attach(lifeline, survives_exec)?;
        }
        if order.program.is_some() {
            // The connection becomes the program's standard input and output.
            dup2_stdin(connection.as_fd())?;
            dup2_stdout(connection.as_fd())?;
        } else if Kind::of(order).spawn {
            console::collect_errors_of_programs()?;
        }
        Ok(sandbox::enter(order, &self.isolation))
    }
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

fn refuse(connection: &mut Connection, reason: &str) -> i32 {
    // When this fails the controller is gone, and the worker is about to be.
    let _ = connection.send(&[Reply::Fatal(reason.into())]);
    1
}
