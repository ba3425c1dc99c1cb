//! A pool of two hosts that answers the calls which come with a transfer, and lets a test do the rest.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use xenapi::{Client, Fingerprint, Secret, Trust};

pub(crate) const DISK: &str = "OpaqueRef:disk";
pub(crate) const SESSION: &str = "OpaqueRef:session";
pub(crate) const SIZE: u64 = 64 << 20;

/// What a test does with a request that is no call.
pub(crate) type Handler =
    dyn Fn(Arc<Pool>, Request) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// A connection, plain or by TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

type Connection = BufStream<Box<dyn Duplex>>;

/// The answer to a call, or the failure.
type Answer = Result<Value, Vec<String>>;

/// A request that is no call, and the connection it came by.
pub(crate) struct Request {
    /// Which host was asked: 1 for the master, 2 for the member.
    pub(crate) host: u8,
    pub(crate) line: String,
    pub(crate) headers: String,
    pub(crate) stream: Connection,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The value of a parameter of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let query = self.line.split(' ').nth(1)?.split_once('?')?.1;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn path(&self) -> &str {
        self.line.split([' ', '?']).nth(1).unwrap()
    }

    pub(crate) fn length(&self) -> usize {
        self.header("Content-Length").unwrap().parse().unwrap()
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The early answer: no length, and the connection closes after.
    pub(crate) async fn accept(&mut self) {
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTask-Id: OpaqueRef:task1\r\n\r\n";
        self.write(head).await.unwrap();
    }

    pub(crate) async fn refuse(&mut self, status: &str) {
        let body = "<html>no such luck</html>";
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.write(head.as_bytes()).await.unwrap();
    }

    pub(crate) async fn redirect(&mut self, to: &str) {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {to}/there\r\n\r\n");
        self.write(head.as_bytes()).await.unwrap();
    }

    /// Reads the body of an upload.
    pub(crate) async fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = vec![0; self.length()];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    /// Reads frames into a disk that is as large as this.
    pub(crate) async fn frames(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let mut disk = vec![0; size];
        loop {
            let offset = self.stream.read_u64_le().await?;
            let length = self.stream.read_u32_le().await?;
            if (offset, length) == (0, 0) {
                return Ok(disk);
            }
            assert!(offset % 512 == 0 && length % 512 == 0);
            let start = usize::try_from(offset).unwrap();
            self.stream.read_exact(&mut disk[start..start + length as usize]).await?;
        }
    }

    /// Waits until the client closes the connection.
    pub(crate) async fn closed(&mut self) {
        let mut rest = [0; 4096];
        while matches!(self.stream.read(&mut rest).await, Ok(count) if count > 0) {}
    }
}

/// What the pool knows and has seen.
pub(crate) struct Pool {
    scheme: &'static str,
    address: SocketAddr,
    member: SocketAddr,
    calls: Mutex<Vec<String>>,
    requests: Mutex<Vec<String>>,
    /// How many questions for events wait, and the most that did.
    waiting: Mutex<(usize, usize)>,
    tasks: watch::Sender<Tasks>,
    facts: Mutex<Facts>,
}

/// The tasks that were made, the first with the number 1.
#[derive(Clone, Default)]
struct Tasks {
    /// Counts what happened to them.
    clock: u64,
    rows: Vec<Row>,
}

#[derive(Clone)]
struct Row {
    record: Value,
    came: u64,
    changed: u64,
    cancelled: bool,
    destroyed: bool,
}

/// What can be asked of the pool.
#[derive(Clone)]
pub(crate) struct Facts {
    /// Which hosts have the storage.
    pub(crate) storage: Vec<u8>,
    /// What kind of storage it is.
    pub(crate) kind: &'static str,
    /// Which host the VM is on.
    pub(crate) resident: Option<u8>,
    /// Whether the console exists.
    pub(crate) console: bool,
}

/// The pool, and the tasks that serve it, which end when this is dropped.
pub(crate) struct Running {
    pub(crate) pool: Arc<Pool>,
    pub(crate) client: Client,
    serving: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.serving {
            task.abort();
        }
    }
}

/// A pool whose handlers are these, and a client of it.
pub(crate) async fn start<F>(
    handler: impl Fn(Arc<Pool>, Request) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = ()> + Send + 'static,
{
    start_with(None, handler).await
}

/// The same by TLS 1.2, which is what hosts speak.
pub(crate) async fn start_tls<F>(
    handler: impl Fn(Arc<Pool>, Request) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["xcp-01".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let fingerprint = Fingerprint::of(&certificate);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    start_with(Some((Arc::new(config).into(), fingerprint)), handler).await
}

async fn start_with<F>(
    tls: Option<(TlsAcceptor, Fingerprint)>,
    handler: impl Fn(Arc<Pool>, Request) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = ()> + Send + 'static,
{
    let (master, member) = listeners().await;
    let pool = Arc::new(Pool {
        scheme: if tls.is_some() { "https" } else { "http" },
        address: master.local_addr().unwrap(),
        member: member.local_addr().unwrap(),
        calls: Mutex::default(),
        requests: Mutex::default(),
        waiting: Mutex::default(),
        tasks: watch::Sender::default(),
        facts: Mutex::new(Facts {
            storage: vec![1],
            kind: "nfs",
            resident: Some(1),
            console: true,
        }),
    });
    let handler: Arc<Handler> = Arc::new(move |pool, request| Box::pin(handler(pool, request)));
    let (acceptor, trust) = match tls {
        Some((acceptor, pin)) => (Some(acceptor), Trust::fingerprint(pin)),
        None => (None, Trust::none()),
    };
    let serve = |listener, host| {
        let (pool, handler, acceptor) = (Arc::clone(&pool), Arc::clone(&handler), acceptor.clone());
        tokio::spawn(accept(listener, acceptor, move |stream| {
            serve(stream, host, Arc::clone(&pool), Arc::clone(&handler))
        }))
    };
    let serving = vec![serve(master, 1), serve(member, 2)];
    let builder = Client::builder(&pool.url(1)).unwrap().trust(trust);
    let client = builder.login("root", Secret::from("secret")).build();
    Running { pool, client, serving }
}

/// Two hosts on the same port, as hosts of a pool are.
async fn listeners() -> (TcpListener, TcpListener) {
    loop {
        let master = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = master.local_addr().unwrap().port();
        // Another test can have taken it there.
        if let Ok(member) = TcpListener::bind(("127.0.0.2", port)).await {
            return (master, member);
        }
    }
}

impl Pool {
    pub(crate) fn url(&self, host: u8) -> String {
        format!("{}://{}", self.scheme, if host == 1 { self.address } else { self.member })
    }

    pub(crate) fn calls(&self, method: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| *call == method).count()
    }

    /// The most questions for events that have waited at one time.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().1
    }

    /// The requests that were no calls, each with the number of the host.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock().unwrap());
    }

    fn facts(&self) -> Facts {
        self.facts.lock().unwrap().clone()
    }

    fn change(&self, task: &str, change: impl FnOnce(&mut Row)) {
        self.tasks.send_modify(|tasks| {
            tasks.clock += 1;
            let row = &mut tasks.rows[number(task) - 1];
            row.changed = tasks.clock;
            change(row);
        });
    }

    fn change_if_there(&self, task: &str, change: impl FnOnce(&mut Row)) -> Answer {
        if self.tasks.borrow().rows[number(task) - 1].destroyed {
            return Err(vec!["HANDLE_INVALID".into(), "task".into(), task.into()]);
        }
        self.change(task, change);
        Ok(json!(""))
    }

    pub(crate) fn succeed(&self, task: &str, result: &str) {
        self.change(task, |row| {
            row.record["status"] = "success".into();
            row.record["result"] = result.into();
        });
    }

    pub(crate) fn fail(&self, task: &str, failure: &[&str]) {
        self.change(task, |row| {
            row.record["status"] = "failure".into();
            row.record["error_info"] = json!(failure);
        });
    }

    pub(crate) fn progress(&self, task: &str, progress: f64) {
        self.change(task, |row| row.record["progress"] = progress.into());
    }

    /// Somebody cancels the task while it runs.
    pub(crate) fn cancel(&self, task: &str) {
        self.change(task, |row| {
            row.record["status"] = "cancelled".into();
            row.record["error_info"] = json!(["TASK_CANCELLED", task]);
        });
    }

    /// Somebody destroys the row of the task.
    pub(crate) fn destroy(&self, task: &str) {
        self.change(task, |row| row.destroyed = true);
    }

    /// Waits until all tasks that were made are destroyed, and says whether any was cancelled.
    pub(crate) async fn cancelled(&self) -> bool {
        let mut tasks = self.tasks.subscribe();
        let tasks = tasks.wait_for(|tasks| tasks.rows.iter().all(|row| row.destroyed)).await;
        tasks.unwrap().rows.iter().any(|row| row.cancelled)
    }

    async fn call(&self, method: &str, params: &[Value]) -> Answer {
        let facts = self.facts();
        let text = |index: usize| params[index].as_str().unwrap_or_default();
        Ok(match method {
            "session.login_with_password" => json!(SESSION),
            "session.logout" | "task.add_to_other_config" => json!(""),
            "pool.get_all_records" => json!({"OpaqueRef:pool": {"master": "OpaqueRef:host1"}}),
            "host.get_address" => json!(format!("127.0.0.{}", &text(1)["OpaqueRef:host".len()..])),
            "host.get_servertime" => json!("20260821T13:04:05Z"),
            "host.get_uuid" => json!("uuid-of-host"),
            "VDI.get_record" => json!({"SR": "OpaqueRef:sr", "virtual_size": SIZE}),
            "SR.get_record" => json!({"type": facts.kind}),
            "SR.get_PBDs" => json!(["OpaqueRef:pbd1", "OpaqueRef:pbd2"]),
            "PBD.get_record" => {
                let host = if text(1).ends_with('1') { 1 } else { 2 };
                let attached = facts.storage.contains(&host);
                json!({"host": format!("OpaqueRef:host{host}"), "currently_attached": attached})
            }
            "VM.get_uuid" => json!("uuid-of-vm"),
            "VM.get_resident_on" => match facts.resident {
                Some(host) => json!(format!("OpaqueRef:host{host}")),
                None => json!("OpaqueRef:NULL"),
            },
            "console.get_record" if !facts.console => {
                return Err(vec!["HANDLE_INVALID".into(), "console".into(), text(1).into()]);
            }
            "console.get_record" => json!({"VM": "OpaqueRef:vm", "protocol": "rfb"}),
            "task.create" => {
                let mut number = 0;
                self.tasks.send_modify(|tasks| {
                    tasks.clock += 1;
                    let (came, changed) = (tasks.clock, tasks.clock);
                    let record = json!({"name_label": text(1), "name_description": text(2),
                        "status": "pending", "progress": 0.0});
                    let row = Row { record, came, changed, cancelled: false, destroyed: false };
                    tasks.rows.push(row);
                    number = tasks.rows.len();
                });
                json!(format!("OpaqueRef:task{number}"))
            }
            "task.get_record" => {
                let row = self.tasks.borrow().rows[number(text(1)) - 1].clone();
                if row.destroyed {
                    return Err(vec!["HANDLE_INVALID".into(), "task".into(), text(1).into()]);
                }
                row.record
            }
            // One that a client has made stays pending.
            "task.cancel" => return self.change_if_there(text(1), |row| row.cancelled = true),
            "task.destroy" => return self.change_if_there(text(1), |row| row.destroyed = true),
            "event.from" => {
                assert_eq!(params[1], json!(["task"]));
                self.events(text(2), params[3].as_f64().unwrap()).await
            }
            _ => panic!("nobody should call {method}"),
        })
    }

    /// What happened since the token was given, as soon as something did, or nothing in the end.
    async fn events(&self, token: &str, timeout: f64) -> Value {
        let since: u64 = token.parse().unwrap_or(0);
        let mut tasks = self.tasks.subscribe();
        let news = tasks.wait_for(|tasks| tasks.rows.iter().any(|row| row.is_news(since)));
        {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.0 += 1;
            waiting.1 = waiting.1.max(waiting.0);
        }
        let news = tokio::time::timeout(Duration::from_secs_f64(timeout), news).await;
        self.waiting.lock().unwrap().0 -= 1;
        let tasks = news.map_or_else(|_| self.tasks.borrow().clone(), |news| news.unwrap().clone());
        let rows = tasks.rows.iter().zip(1..).filter(|(row, _)| row.is_news(since));
        let events: Vec<_> = rows.map(|(row, number)| row.event(number, since)).collect();
        let count = tasks.rows.iter().filter(|row| !row.destroyed).count();
        let counts = json!({ "task": count });
        json!({"events": events, "valid_ref_counts": counts, "token": tasks.clock.to_string()})
    }
}

impl Row {
    /// Whether there is something to tell to who knows all until then.
    fn is_news(&self, since: u64) -> bool {
        self.changed > since && !(self.destroyed && self.came > since)
    }

    fn event(&self, number: usize, since: u64) -> Value {
        let mut event = json!({"class": "task", "ref": format!("OpaqueRef:task{number}"),
            "id": self.changed.to_string(), "timestamp": "0.0"});
        event["operation"] = match (self.destroyed, self.came > since) {
            (true, _) => "del",
            (false, true) => "add",
            (false, false) => "mod",
        }
        .into();
        if !self.destroyed {
            event["snapshot"] = self.record.clone();
        }
        event
    }
}

fn number(task: &str) -> usize {
    task.strip_prefix("OpaqueRef:task").unwrap().parse().unwrap()
}

async fn accept<F>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    serve: impl Fn(Box<dyn Duplex>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let mut open = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, serve) = (tls.clone(), serve.clone());
        open.spawn(async move {
            match tls {
                None => serve(Box::new(stream)).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(Box::new(stream)).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: Box<dyn Duplex>, host: u8, pool: Arc<Pool>, handler: Arc<Handler>) {
    let mut stream = BufStream::new(stream);
    while let Some((line, headers)) = head(&mut stream).await {
        let mut request = Request { host, line, headers, stream };
        if request.path() != "/jsonrpc" {
            pool.requests.lock().unwrap().push(format!("{host} {}", request.line));
            assert!(!request.line.contains(SESSION));
            let cookie = format!("session_id={SESSION}");
            assert_eq!(request.header("Cookie"), Some(cookie.as_str()));
            return handler(pool, request).await;
        }
        let Ok(body) = request.body().await else { return };
        let call: Value = serde_json::from_slice(&body).unwrap();
        let method = call["method"].as_str().unwrap();
        pool.calls.lock().unwrap().push(method.to_owned());
        let mut answer = json!({"jsonrpc": "2.0", "id": call["id"]});
        match pool.call(method, call["params"].as_array().unwrap()).await {
            Ok(result) => answer["result"] = result,
            Err(failure) => {
                answer["error"] = json!({"code": 1, "message": failure[0], "data": failure[1..]});
            }
        }
        let body = answer.to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
        let answer = format!("{head}: {}\r\n\r\n{body}", body.len());
        if request.write(answer.as_bytes()).await.is_err() {
            return;
        }
        stream = request.stream;
    }
}

async fn head(stream: &mut Connection) -> Option<(String, String)> {
    let (mut line, mut headers) = (String::new(), String::new());
    stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
    while !headers.ends_with("\r\n\r\n") && headers != "\r\n" {
        stream.read_line(&mut headers).await.ok().filter(|count| *count > 0)?;
    }
    Some((line.trim_end().to_owned(), headers))
}
