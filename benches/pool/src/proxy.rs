//! A proxy that counts what clients send through it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result};

use crate::simulator::Simulator;

/// A proxy to a pool, for as long as this program runs.
pub(crate) struct Proxy {
    url: String,
    requests: Arc<AtomicU32>,
}

impl Proxy {
    pub(crate) fn start(simulator: &Simulator) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let target = simulator.url().strip_prefix("http://").context("the pool speaks HTTP")?;
        let target = target.trim_end_matches('/').to_owned();
        let requests = Arc::new(AtomicU32::new(0));
        let counter = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                join(stream?, TcpStream::connect(&target)?, counter.clone())?;
            }
            io::Result::Ok(())
        });
        Ok(Self { url, requests })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How many pieces clients have sent so far: requests that come together can be one.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn join(client: TcpStream, server: TcpStream, requests: Arc<AtomicU32>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        carry(from, to, || {
            requests.fetch_add(1, Ordering::SeqCst);
        })
    });
    thread::spawn(move || carry(server, client, || ()));
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream, note: impl Fn()) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        note();
        to.write_all(&bytes[..count])?;
    }
}
