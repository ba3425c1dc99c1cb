//! Ten thousand small calls, one after another and 32 at a time, to a server that does nothing.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use xenapi::{Client, Ref, Secret};

const CALLS: u32 = 10_000;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    content-length: 45\r\n\r\n{\"jsonrpc\":\"2.0\",\"result\":\"assembler\",\"id\":1}";

/// Answers all requests that are there at once, as they may share a connection.
async fn serve(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        let mut answers = Vec::new();
        while let Some(length) = request(&bytes) {
            bytes.drain(..length);
            answers.extend_from_slice(ANSWER);
        }
        if stream.write_all(&answers).await.is_err() {
            return;
        }
    }
}

/// How long the first request is, where all of it is there.
fn request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length: usize = text.split_once("Content-Length: ")?.1.lines().next()?.parse().ok()?;
    (bytes.len() >= head + length).then_some(head + length)
}

async fn connect() -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let builder = Client::builder(&format!("http://{address}")).expect("it is an address");
    builder.login("root", Secret::from("secret")).connect().await.expect("it lets anyone in")
}

async fn calls(client: &Client, at_once: u32) {
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let client = client.clone();
        tasks.spawn(async move {
            let vm = Ref::from("OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba");
            for _ in 0..CALLS / at_once {
                client.vm().get_name_label(&vm).await.expect("it answers");
            }
        });
    }
    tasks.join_all().await;
}

fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let client = runtime.block_on(connect());
    let mut group = criterion.benchmark_group("calls");
    group.sample_size(10).throughput(Throughput::Elements(CALLS.into()));
    for at_once in [1, 32] {
        group.bench_function(format!("{at_once} in flight"), |bencher| {
            bencher.iter(|| runtime.block_on(calls(&client, at_once)));
        });
    }
    group.finish();
}

criterion_group!(calling, benches);
criterion_main!(calling);
