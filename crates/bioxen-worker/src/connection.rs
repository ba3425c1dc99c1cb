//! The worker's end of the protocol: whole messages in and out, blocking.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use bioxen_core::protocol::{Decoder, LARGEST_REQUEST, Reply, encode_into};
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::interrupt;

/// Bytes that are read at least at once. Little, since an idle worker keeps the page they are in.
const READ_AT_LEAST: usize = 512;

/// Bytes that are read at most at once.
const READ_AT_MOST: usize = 4 << 20;

pub(crate) struct Connection {
    reader: File,
    /// Where it is not the same as the reader: two pipes.
    writer: Option<File>,
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
    /// A connection over a socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self::over(socket, None)
    }

    /// A connection that reads from one end and writes to another: two pipes, or twice a socket.
    pub(crate) fn of_two_ends(reader: OwnedFd, writer: OwnedFd) -> Self {
        Self::over(reader, Some(writer))
    }

    fn over(reader: OwnedFd, writer: Option<OwnedFd>) -> Self {
        Self {
            reader: reader.into(),
            writer: writer.map(File::from),
            decoder: Decoder::new(LARGEST_REQUEST),
            outgoing: Vec::new(),
        }
    }

    /// The descriptor on which the controller's messages arrive.
    pub(crate) fn raw_reader(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    pub(crate) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_ref().unwrap_or(&self.reader).as_fd()
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
            let mut sources = [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN)];
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
            match self.reader.read(&mut space[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        space.truncate(start + outcome.as_ref().copied().unwrap_or(0));
        outcome
    }

    /// What is read from, for who reads other things than messages.
    pub(crate) fn file(&self) -> &File {
        &self.reader
    }

    /// Sends bytes that are whole frames.
    pub(crate) fn write_all(&mut self, frames: &[u8]) -> io::Result<()> {
        self.writer.as_mut().unwrap_or(&mut self.reader).write_all(frames)
    }

    /// Sends messages as one write.
    pub(crate) fn send(&mut self, replies: &[Reply]) -> io::Result<()> {
        self.outgoing.clear();
        for reply in replies {
            encode_into(&mut self.outgoing, reply);
        }
        self.writer.as_mut().unwrap_or(&mut self.reader).write_all(&self.outgoing)
    }
}
