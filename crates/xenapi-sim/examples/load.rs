//! Calls a pool from many clients at once, and tells how many calls it answers in a second.
//!
//! `cargo run --release -p xenapi-sim --example load -- URL PASSWORD [CLIENTS [SECONDS]]`, for a pool
//! that speaks plain HTTP (`xenapi-sim --http --vms 10000`).

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Makes a call, and answers its body.
    async fn call(&mut self, method: &str, params: &Value) -> Outcome<Vec<u8>> {
        let body =
            json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": 1 }).to_string();
        let request = format!(
            "POST /jsonrpc HTTP/1.1\r\nhost: sim\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection ended".into());
            }
            let Some(end) = self.buffer.windows(4).position(|it| it == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.buffer[..end])?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.ok_or("no content-length")?.trim().parse()?;
            while self.buffer.len() < end + 4 + length {
                self.stream.read_buf(&mut self.buffer).await?;
            }
            return Ok(self.buffer[end + 4..end + 4 + length].to_vec());
        }
    }

    async fn value(&mut self, method: &str, params: &Value) -> Outcome<Value> {
        let mut answer: Value = serde_json::from_slice(&self.call(method, params).await?)?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(answer.to_string().into()),
        }
    }
}

async fn work(
    address: String,
    session: Value,
    vms: Arc<Vec<Value>>,
    until: Instant,
    calls: Arc<AtomicU64>,
    seed: usize,
) -> Outcome<()> {
    let mut client = Client::connect(&address).await?;
    let mut place = seed * 7919;
    while Instant::now() < until {
        let vm = &vms[place % vms.len()];
        place += 104_729;
        match place % 10 {
            0 => {
                client
                    .call("VM.set_name_description", &json!([session, vm, place.to_string()]))
                    .await?
            }
            1..=3 => client.call("VM.get_power_state", &json!([session, vm])).await?,
            4 | 5 => client.call("VM.get_VBDs", &json!([session, vm])).await?,
            6 => client.call("host.get_all_records", &json!([session])).await?,
            _ => client.call("VM.get_record", &json!([session, vm])).await?,
        };
        calls.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: load URL PASSWORD [CLIENTS [SECONDS]]";
    let address =
        arguments.first().and_then(|url| url.strip_prefix("http://")).ok_or(usage)?.to_owned();
    let password = arguments.get(1).ok_or(usage)?;
    let clients: usize = arguments.get(2).map_or(Ok(20), |it| it.parse())?;
    let seconds: u64 = arguments.get(3).map_or(Ok(5), |it| it.parse())?;
    let mut first = Client::connect(&address).await?;
    let session = first.value("session.login_with_password", &json!(["root", password])).await?;
    let vms = first.value("VM.get_all", &json!([session])).await?;
    let vms = Arc::new(vms.as_array().cloned().unwrap_or_default());
    let started = Instant::now();
    let size = first.call("VM.get_all_records", &json!([session])).await?.len();
    writeln!(
        std::io::stdout(),
        "VM.get_all_records of {}: {size} bytes in {:?}",
        vms.len(),
        started.elapsed()
    )?;
    let calls = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..clients)
        .map(|seed| {
            tokio::spawn(work(
                address.clone(),
                session.clone(),
                vms.clone(),
                until,
                calls.clone(),
                seed,
            ))
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let rate = calls.load(Ordering::Relaxed) / seconds;
    writeln!(std::io::stdout(), "{clients} clients: {rate} calls a second")?;
    Ok(())
}
