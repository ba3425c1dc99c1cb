//! A small client of its own, so that what is tested is what goes over the wire.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "helpers of tests, of which each program uses a part"
)]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xenapi_sim::Pool;

/// The null reference.
pub(crate) const NULL: &str = "OpaqueRef:NULL";
/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The error of a failed call: its code and parameters.
pub(crate) type Failure = Vec<String>;

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(it, _)| it.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    }
}

/// Sends a request as it is, and reads one answer; `None` when the connection ends before its end.
pub(crate) async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Option<Answer> {
    stream.write_all(request).await.ok()?;
    let mut buffer = Vec::new();
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| {
        line.to_lowercase().strip_prefix("content-length: ").map(|it| it.parse::<usize>().unwrap())
    })?;
    let mut body = buffer.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Answer { status, head, body })
}

/// The host and port of a URL.
pub(crate) fn address(url: &str) -> String {
    url.split("//").nth(1).unwrap().to_owned()
}

/// Sends one request on a connection of its own; `None` where nobody answers.
pub(crate) async fn raw(url: &str, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address(url)).await.ok()?;
    tokio::time::timeout(LIMIT * 2, exchange(&mut stream, request)).await.unwrap()
}

/// A request with this body.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// A request of the user `root` of a pool whose password is `s3cret`.
pub(crate) fn as_root(verb: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{verb} {path} HTTP/1.1\r\nAuthorization: Basic cm9vdDpzM2NyZXQ=\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Someone who is logged in.
pub(crate) struct Client {
    url: String,
    pub(crate) session: String,
}

impl Client {
    pub(crate) async fn login(pool: &Pool) -> Self {
        Self::login_as(&pool.url(), "root", pool.password()).await.unwrap()
    }

    pub(crate) async fn login_as(url: &str, name: &str, password: &str) -> Result<Self, Failure> {
        let mut client = Self { url: url.to_owned(), session: String::new() };
        let session = client.plain("session.login_with_password", json!([name, password])).await?;
        session.as_str().unwrap().clone_into(&mut client.session);
        Ok(client)
    }

    /// Calls without adding the session.
    pub(crate) async fn plain(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let body =
            json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": 1 }).to_string();
        let answer = raw(&self.url, &post("/jsonrpc", &body)).await;
        let Some(answer) = answer else { return Err(vec!["(the connection ended)".into()]) };
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut answer = answer.json();
        match answer.get("error") {
            None => Ok(answer["result"].take()),
            Some(error) => {
                let params = error["data"].as_array().unwrap().iter();
                let params = params.map(|it| it.as_str().unwrap().to_owned());
                let code = error["message"].as_str().unwrap().to_owned();
                Err([code].into_iter().chain(params).collect())
            }
        }
    }

    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let mut all = vec![json!(self.session)];
        all.extend(params.as_array().unwrap().iter().cloned());
        tokio::time::timeout(LIMIT, self.plain(method, json!(all))).await.unwrap()
    }

    /// A call that must succeed.
    pub(crate) async fn ok(&self, method: &str, params: Value) -> Value {
        match self.call(method, params.clone()).await {
            Ok(value) => value,
            Err(failure) => panic!("{method}{params}: {failure:?}"),
        }
    }

    /// A call that must answer text, such as a reference.
    pub(crate) async fn text(&self, method: &str, params: Value) -> String {
        self.ok(method, params).await.as_str().unwrap().to_owned()
    }

    /// The error of a call that must fail.
    pub(crate) async fn fails(&self, method: &str, params: Value) -> Failure {
        match self.call(method, params.clone()).await {
            Ok(value) => panic!("{method}{params}: {value}"),
            Err(failure) => failure,
        }
    }

    /// Waits for a task's end, and answers its record.
    pub(crate) async fn wait(&self, task: &str) -> Value {
        let mut token = String::new();
        loop {
            let classes = json!([[format!("task/{task}")], token, 10.0]);
            let batch = self.ok("event.from", classes).await;
            batch["token"].as_str().unwrap().clone_into(&mut token);
            let record = self.ok("task.get_record", json!([task])).await;
            if record["status"] != "pending" {
                return record;
            }
        }
    }

    /// A VM made of the ready-made template with this name.
    pub(crate) async fn new_vm(&self, name: &str) -> String {
        let template = self.ok("VM.get_by_name_label", json!(["Debian 12 (cloud-init)"])).await;
        let vm = self.text("VM.clone", json!([template[0], name])).await;
        self.ok("VM.provision", json!([vm])).await;
        vm
    }

    /// Waits until a field of a VM has this value.
    pub(crate) async fn until(&self, vm: &str, field: &str, wanted: &Value) {
        let mut token = String::new();
        loop {
            let batch = self.ok("event.from", json!([[format!("vm/{vm}")], token, 10.0])).await;
            batch["token"].as_str().unwrap().clone_into(&mut token);
            if self.ok(&format!("VM.get_{field}"), json!([vm])).await == *wanted {
                return;
            }
        }
    }

    /// Waits until the VM's agent has reported.
    pub(crate) async fn until_agent(&self, vm: &str) {
        let mut token = String::new();
        loop {
            let batch =
                self.ok("event.from", json!([["vm", "vm_guest_metrics"], token, 10.0])).await;
            batch["token"].as_str().unwrap().clone_into(&mut token);
            let metrics = self.ok("VM.get_guest_metrics", json!([vm])).await;
            if self.ok("VM_guest_metrics.get_PV_drivers_detected", json!([metrics])).await == true {
                return;
            }
        }
    }
}

/// A pool that speaks plain HTTP and tells events without gathering them.
pub(crate) async fn pool() -> Pool {
    Pool::builder().http().seed(1).event_batching(Duration::ZERO).start().await.unwrap()
}
