//! The worker's end of the protocol: whole messages in and out, blocking.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use bioxen_core::protocol::{Decoder, LARGEST_REQUEST, Reply, encode_into};
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::interrupt;

/// Bytes that are read at least at once. Little, since an idle worker keeps the page they are in.
const READ_AT_LEAST: usize = 512;

/// Bytes that are read at most at once.
const READ_AT_MOST: usize = 4 << 20;

pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    outgoing: Vec<u8>,
}

/// What waiting for a message came to.
pub(crate) enum Received {
    /// The payload of a frame.
    Payload(Bytes),
    /// The evaluation that waits is to end.
    Interrupted,
    /// The controller is gone.
    Closed,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            stream: UnixStream::from(socket),
            decoder: Decoder::new(LARGEST_REQUEST),
            outgoing: Vec::new(),
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether bytes that have not been looked at are here already.
    pub(crate) fn has_buffered_bytes(&mut self) -> bool {
        !self.decoder.space().is_empty()
    }

    /// Waits for the next message between evaluations.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        loop {
            if let Some(payload) = self.decoder.next_payload().map_err(io::Error::other)? {
                return Ok(Received::Payload(payload));
            }
            if self.fill()? == 0 {
                return Ok(Received::Closed);
            }
        }
    }

    /// Waits for the next message while an evaluation runs, which may have to end meanwhile.
    pub(crate) fn receive_or_interrupt(&mut self) -> io::Result<Received> {
        loop {
            if let Some(payload) = self.decoder.next_payload().map_err(io::Error::other)? {
                return Ok(Received::Payload(payload));
            }
            let mut sources = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            // Unlike `read`, `poll` is not restarted after a signal.
            let waited = poll(&mut sources, PollTimeout::NONE);
            if interrupt::pending().is_some() {
                return Ok(Received::Interrupted);
            }
            match waited {
                Ok(_) if self.fill()? == 0 => return Ok(Received::Closed),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let space = self.decoder.space();
        let start = space.len();
        // A large message is on its way: read in larger pieces.
        space.resize(start + start.clamp(READ_AT_LEAST, READ_AT_MOST), 0);
        let outcome = loop {
            match self.stream.read(&mut space[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        space.truncate(start + outcome.as_ref().copied().unwrap_or(0));
        outcome
    }

    /// Sends messages as one write.
    pub(crate) fn send(&mut self, replies: &[Reply]) -> io::Result<()> {
        self.outgoing.clear();
        for reply in replies {
            encode_into(&mut self.outgoing, reply);
        }
        self.stream.write_all(&self.outgoing)
    }
}
