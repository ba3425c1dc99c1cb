//! A server on a loopback address that answers as a test tells it, in bytes.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What is done about a request.
pub(crate) enum Reply {
    /// Answer with this and wait for the next request.
    Send(Vec<u8>),
    /// Answer with this and close the connection.
    SendAndClose(Vec<u8>),
    /// Answer with what this comes to, when it does.
    Later(Pin<Box<dyn Future<Output = Vec<u8>> + Send>>),
    /// Never answer, and take note when the client goes.
    Hang,
}

/// A request as it came.
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) body: String,
}

impl Received {
    /// The message that is called.
    pub(crate) fn method(&self) -> &str {
        let (start, end) =
            if self.path == "/" { ("<methodName>", "<") } else { ("\"method\":\"", "\"") };
        let rest = self.body.split_once(start).expect("every call names its message").1;
        rest.split_once(end).expect("the name has an end").0
    }

    /// Whether the call is made in this session.
    pub(crate) fn in_session(&self, session: &str) -> bool {
        self.body.contains(session)
    }
}

/// The server. It ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    tls: bool,
    calls: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    gone: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

impl Server {
    /// A server that answers by this rule.
    pub(crate) async fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), None, script).await
    }

    pub(crate) async fn start_at(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (is_tls, seen, count) = (tls.is_some(), Arc::clone(&calls), Arc::clone(&connections));
        let script: Arc<Script> = Arc::new(script);
        let (left, gone) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (script, seen, tls) = (Arc::clone(&script), Arc::clone(&seen), tls.clone());
                let left = left.clone();
                open.spawn(async move {
                    match tls {
                        None => serve(stream, &*script, &seen, &left).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &*script, &seen, &left).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, tls: is_tls, calls, connections, gone, task }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// The messages that were called, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// How often this message was called.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.calls().iter().filter(|call| *call == method).count()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Server {
    /// Waits until a client has gone while it waited for an answer that never comes.
    pub(crate) async fn until_gone(&self) {
        self.gone.clone().wait_for(|gone| *gone > 0).await.unwrap();
    }
}

/// Answers requests until the client goes.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: &Script,
    seen: &Mutex<Vec<String>>,
    left: &watch::Sender<usize>,
) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let request = receive(&mut stream, &mut bytes).await?;
        seen.lock().unwrap().push(request.method().to_owned());
        match script(&request) {
            Reply::Send(answer) => stream.write_all(&answer).await.ok()?,
            Reply::SendAndClose(answer) => {
                stream.write_all(&answer).await.ok()?;
                stream.shutdown().await.ok()?;
                return None;
            }
            Reply::Later(answer) => stream.write_all(&answer.await).await.ok()?,
            Reply::Hang => {
                while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {}
                left.send_modify(|count| *count += 1);
                return None;
            }
        }
    }
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<Received> {
    loop {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split_once("Content-Length: ").unwrap().1;
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let body = body[..length].to_owned();
                bytes.drain(..head.len() + 4 + length);
                return Some(Received { path, body });
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// An HTTP answer.
pub(crate) fn http(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A JSON-RPC answer with this result.
pub(crate) fn result(value: &str) -> Reply {
    let body = format!("{{\"jsonrpc\":\"2.0\",\"result\":{value},\"id\":1}}");
    Reply::Send(http("200 OK", "application/json", &body))
}

/// A JSON-RPC answer with this failure.
pub(crate) fn failure(code: &str, params: &[&str]) -> Reply {
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"error\":{{\"code\":1,\"message\":\"{code}\",\"data\":{params:?}}},\"id\":1}}"
    );
    Reply::Send(http("200 OK", "application/json", &body))
}
