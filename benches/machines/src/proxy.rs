//! A proxy that counts what goes through it.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;

/// What comes before the name of a call, in JSON-RPC, in XML-RPC, and of what is neither; and what after.
const MARKS: [(&[u8], u8); 3] =
    [(b"\"method\":\"", b'"'), (b"<methodName>", b'<'), (b"PUT /", b'?')];

/// More than a name has, with what comes before it.
const LONGEST: usize = 128;

/// The call that waits for events. Everybody who waits has one under way.
const LONG_POLL: &str = "event.from";

/// A proxy to a pool or to a guest, for as long as this program runs.
pub(crate) struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

/// What went through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How often each call of the Xen API was made.
    calls: BTreeMap<String, u32>,
    /// How many bytes went to the server.
    pub(crate) sent: usize,
    /// How many bytes came back.
    pub(crate) came: usize,
}

impl Seen {
    /// How many calls there were beside the one that waits for events.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.iter().filter(|(name, _)| *name != LONG_POLL).map(|(_, count)| count).sum()
    }

    /// The calls with how often each was made, the most frequent first.
    pub(crate) fn list(&self) -> String {
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let shown = calls.iter().map(|(name, count)| format!("{name} {count}"));
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl Proxy {
    pub(crate) fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, target) = (listener.local_addr()?, target.to_owned());
        let seen = Arc::<Mutex<Seen>>::default();
        let counter = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                join(stream?, TcpStream::connect(&target)?, &counter)?;
            }
            io::Result::Ok(())
        });
        Ok(Self { address, seen })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What went through since this was last asked.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *lock(&self.seen))
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(client: TcpStream, server: TcpStream, seen: &Arc<Mutex<Seen>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let (up, down) = (Arc::clone(seen), Arc::clone(seen));
    thread::spawn(move || {
        let mut names = Names::default();
        carry(from, to, |bytes| {
            let mut seen = lock(&up);
            seen.sent += bytes.len();
            names.feed(bytes, |name| *seen.calls.entry(name).or_default() += 1);
        })
    });
    thread::spawn(move || carry(server, client, |bytes| lock(&down).came += bytes.len()));
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        note(&bytes[..count]);
        to.write_all(&bytes[..count])?;
    }
}

/// Finds the names of calls in what a client sends, however it comes in pieces.
#[derive(Default)]
struct Names {
    rest: Vec<u8>,
}

impl Names {
    fn feed(&mut self, bytes: &[u8], mut note: impl FnMut(String)) {
        self.rest.extend_from_slice(bytes);
        while let Some((start, end)) = self.next() {
            note(String::from_utf8_lossy(&self.rest[start..end]).into_owned());
            self.rest.drain(..end);
        }
        let surplus = self.rest.len().saturating_sub(LONGEST);
        self.rest.drain(..surplus);
    }

    /// Where the next name is that is there as a whole.
    fn next(&self) -> Option<(usize, usize)> {
        let found = MARKS.iter().filter_map(|(before, after)| {
            let start = self.rest.windows(before.len()).position(|part| part == *before)?;
            let start = start + before.len();
            let length = self.rest[start..].iter().position(|byte| byte == after)?;
            Some((start, start + length))
        });
        found.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_come_in_pieces() {
        let sent =
            b"{\"method\":\"VM.start\",\"id\":1}<methodName>VM.clone</methodName>PUT /import?x";
        for size in [1, 7, sent.len()] {
            let (mut names, mut found) = (Names::default(), Vec::new());
            sent.chunks(size).for_each(|piece| names.feed(piece, |name| found.push(name)));
            assert_eq!(found, ["VM.start", "VM.clone", "import"], "in pieces of {size}");
        }
    }
}
