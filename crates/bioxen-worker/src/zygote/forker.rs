//! The forker: holds itself in as its workers are to be, and forks one for each order.
//!
//! What it has switched on for itself costs nothing for a worker. See `gate` for how it can still do
//! what its workers cannot.
#![expect(unsafe_code, reason = "tidying the heap and taking over descriptors have no safe form")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bioxen_core::Isolation;
use bioxen_core::protocol::zygote::{Answer, Kind, LARGEST_DATAGRAM, Order};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{Pid, getppid};

use super::Control;
use crate::connection::Connection;
use crate::gate::{self, Forked};
use crate::serve::Prepared;
use crate::{sandbox, worker};

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
        super::close_all_but(&control.0)?;
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
        if let Err(error) = grouped {
            return worker::refuse(&mut connection, &error.to_string());
        }
        worker::live(order, connection, self.prepared.take(), &self.isolation, ends.lifeline)
    }
}
