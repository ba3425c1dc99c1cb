//! The first frames: the order in, the answer out.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use bioxen_core::protocol::standalone::{self, Answer, LARGEST_ORDER, Refusal};
use bioxen_core::protocol::zygote::Order;
use bioxen_core::protocol::{Decoder, HEADER_LENGTH, encode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::connection::Connection;

/// How long an order may be on its way, from the start of the program on.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends the answer.
pub(super) fn answer(connection: &mut Connection, answer: &Answer) -> io::Result<()> {
    connection.write_all(&encode(answer))
}

/// Reads the order and not a byte more: what follows may be for another interpreter. `None` when the
/// controller has gone without a word.
pub(super) fn receive(connection: &mut Connection) -> Result<Option<Order>, Refusal> {
    let no_order = |reason: String| Refusal::NoOrder { reason };
    let deadline = Instant::now() + PATIENCE;
    let mut decoder = Decoder::new(LARGEST_ORDER);
    let mut missing = HEADER_LENGTH;
    loop {
        let space = decoder.space();
        let start = space.len();
        space.resize(start + missing, 0);
        let read = read(connection, &mut space[start..], deadline);
        let read = read.map_err(|error| no_order(error.to_string()))?;
        space.truncate(start + read);
        match (read, start) {
            (0, 0) => return Ok(None),
            (0, _) => return Err(no_order(format!("the connection ended after {start} bytes"))),
            _ => {}
        }
        if let Some(payload) =
            decoder.next_payload().map_err(|error| no_order(error.to_string()))?
        {
            return standalone::Order::read(&payload).map(|order| Some(local(order)));
        }
        let there = decoder.space();
        let whole = there
            .first_chunk::<HEADER_LENGTH>()
            .map_or(HEADER_LENGTH, |header| HEADER_LENGTH + u32::from_be_bytes(*header) as usize);
        missing = whole - there.len();
    }
}

fn read(connection: &Connection, space: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut sources = [PollFd::new(connection.reader(), PollFlags::POLLIN)];
        match poll(&mut sources, timeout) {
            Ok(0) => {
                let seconds = PATIENCE.as_secs();
                return Err(io::Error::other(format!("nothing whole came within {seconds} s")));
            }
            Ok(_) => return connection.file().read(space),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The order as a zygote would be given it, its paths not resolved yet.
fn local(order: standalone::Order) -> Order {
    let standalone::Order { version: _, program, grants, limits, environment, working_directory } =
        order;
    let cgroup = Vec::new();
    Order { id: 0, program, grants, limits, environment, working_directory, cgroup }
}
