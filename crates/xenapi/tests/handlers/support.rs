//! A pool of two hosts that answers the calls which come with a transfer, and lets a test do the rest.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

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
    /// The records of tasks that were made, the first with the number 1, and how often any changed.
    tasks: watch::Sender<(u64, Vec<Value>)>,
    facts: Mutex<Facts>,
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
        tasks: watch::channel((0, Vec::new())).0,
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

    fn change(&self, task: &str, change: impl FnOnce(&mut Value)) {
        let number: usize = task.strip_prefix("OpaqueRef:task").unwrap().parse().unwrap();
        self.tasks.send_modify(|(version, tasks)| {
            *version += 1;
            change(&mut tasks[number - 1]);
        });
    }

    pub(crate) fn succeed(&self, task: &str, result: &str) {
        self.change(task, |record| {
            record["status"] = "success".into();
            record["result"] = result.into();
        });
    }

    pub(crate) fn fail(&self, task: &str, failure: &[&str]) {
        self.change(task, |record| {
            record["status"] = "failure".into();
            record["error_info"] = json!(failure);
        });
    }

    pub(crate) fn progress(&self, task: &str, progress: f64) {
        self.change(task, |record| record["progress"] = progress.into());
    }

    /// Waits until all tasks that were made are destroyed, and says whether any was cancelled.
    pub(crate) async fn cancelled(&self) -> bool {
        let mut tasks = self.tasks.subscribe();
        let (_, tasks) = &*tasks
            .wait_for(|(_, tasks)| tasks.iter().all(|task| task["destroyed"] == true))
            .await
            .unwrap();
        tasks.iter().any(|task| task["cancelled"] == true)
    }

    async fn call(&self, method: &str, params: &[Value]) -> Result<Value, Vec<String>> {
        let facts = self.facts();
        let text = |index: usize| params[index].as_str().unwrap_or_default();
        Ok(match method {
            "session.login_with_password" => json!(SESSION),
            "session.logout" | "task.add_to_other_config" => json!(""),
            "pool.get_all" => json!(["OpaqueRef:pool"]),
            "pool.get_master" => json!("OpaqueRef:host1"),
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
                self.tasks.send_modify(|(version, tasks)| {
                    *version += 1;
                    tasks.push(json!({"status": "pending", "progress": 0.0}));
                    number = tasks.len();
                });
                json!(format!("OpaqueRef:task{number}"))
            }
            "task.get_record" => {
                let number: usize = text(1)["OpaqueRef:task".len()..].parse().unwrap();
                self.tasks.borrow().1[number - 1].clone()
            }
            "task.cancel" => {
                self.change(text(1), |record| record["cancelled"] = true.into());
                json!("")
            }
            "task.destroy" => {
                self.change(text(1), |record| record["destroyed"] = true.into());
                json!("")
            }
            "event.from" => self.events(params[1][0].as_str().unwrap(), text(2)).await,
            _ => panic!("nobody should call {method}"),
        })
    }

    async fn events(&self, class: &str, token: &str) -> Value {
        let seen: u64 = token.parse().unwrap_or(0);
        let mut tasks = self.tasks.subscribe();
        let (version, tasks) =
            tasks.wait_for(|(version, _)| *version > seen).await.unwrap().clone();
        let reference = class.strip_prefix("task/").unwrap();
        let number: usize = reference["OpaqueRef:task".len()..].parse().unwrap();
        let event = json!({"class": "task", "operation": "mod", "ref": reference, "id": "1",
            "timestamp": "0.0", "snapshot": tasks[number - 1]});
        json!({"events": [event], "valid_ref_counts": {}, "token": version.to_string()})
    }
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
