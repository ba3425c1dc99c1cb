//! A pool with somebody logged in, and requests as bytes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use xenapi_sim::Pool;

const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const MIB: usize = 1 << 20;

/// A pool with a session.
pub(crate) struct Session {
    pub(crate) pool: Pool,
    pub(crate) session: String,
}

/// An answer that went on until the connection ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn task(&self) -> &str {
        self.header("Task-Id").unwrap()
    }
}

impl Session {
    pub(crate) async fn new(hosts: usize) -> Self {
        let pool = Pool::builder().http().password("secret").seed(7).hosts(hosts);
        Self::of(pool.start().await.unwrap()).await
    }

    /// Logs in to a pool whose password is `secret`.
    pub(crate) async fn of(pool: Pool) -> Self {
        let mut new = Self { pool, session: String::new() };
        let session = new.raw("session.login_with_password", json!(["root", "secret"])).await;
        session["result"].as_str().unwrap().clone_into(&mut new.session);
        new
    }

    async fn raw(&self, method: &str, params: Value) -> Value {
        let body =
            json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).to_string();
        let head = format!(
            "POST /jsonrpc HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = self.connect(0).await;
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        serde_json::from_slice(&read_answer(&mut stream).await.body).unwrap()
    }

    /// Calls a method with the session; it must succeed.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let mut all = vec![json!(self.session)];
        all.extend(params.as_array().unwrap().iter().cloned());
        let answer = self.raw(method, all.into()).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    pub(crate) fn host(&self, number: usize) -> String {
        self.pool.urls()[number].split("//").nth(1).unwrap().to_owned()
    }

    pub(crate) async fn connect(&self, host: usize) -> TcpStream {
        TcpStream::connect(self.host(host)).await.unwrap()
    }

    /// The storage that every new disk goes to.
    pub(crate) async fn storage(&self) -> String {
        let pools = self.call("pool.get_all_records", json!([])).await;
        let pool = pools.as_object().unwrap().values().next().unwrap().clone();
        pool["default_SR"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn disk_on(&self, sr: &str, size: usize) -> String {
        let fields = json!({
            "name_label": "test", "name_description": "", "SR": sr, "virtual_size": size.to_string(),
            "type": "user", "sharable": false, "read_only": false, "other_config": {},
            "xenstore_data": {}, "sm_config": {}, "tags": [],
        });
        self.call("VDI.create", json!([fields])).await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn disk(&self, size: usize) -> String {
        self.disk_on(&self.storage().await, size).await
    }

    /// Sends a request with a body, ends the sending, and reads until the end.
    pub(crate) async fn put(&self, target: &str, length: Option<u64>, body: &[u8]) -> Answer {
        let mut stream = self.connect(0).await;
        stream.write_all(self.put_head(target, length).as_bytes()).await.unwrap();
        // A server that has seen enough stops reading.
        let _ = stream.write_all(body).await;
        let _ = stream.shutdown().await;
        read_answer(&mut stream).await
    }

    pub(crate) fn put_head(&self, target: &str, length: Option<u64>) -> String {
        let length =
            length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
        format!("PUT {target} HTTP/1.1\r\nCookie: session_id={}\r\n{length}\r\n", self.session)
    }

    pub(crate) async fn get(&self, host: usize, target: &str) -> Answer {
        let mut stream = self.connect(host).await;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nCookie: session_id={}\r\n\r\n",
            self.host(host),
            self.session
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream).await
    }

    /// Waits for a task's end and answers its record.
    pub(crate) async fn ended(&self, task: &str) -> Value {
        loop {
            let record = self.call("task.get_record", json!([task])).await;
            if record["status"] != "pending" {
                return record;
            }
            self.call("event.from", json!([["task"], "", 0.5])).await;
        }
    }

    pub(crate) async fn succeeded(&self, answer: &Answer) -> String {
        assert_eq!(answer.status(), 200, "{}", answer.head);
        let task = self.ended(answer.task()).await;
        assert_eq!(task["status"], "success", "{task}");
        task["result"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn failed(&self, answer: &Answer) -> Vec<Value> {
        assert_eq!(answer.status(), 200, "{}", answer.head);
        let task = self.ended(answer.task()).await;
        assert_eq!(task["status"], "failure", "{task}");
        task["error_info"].as_array().unwrap().clone()
    }

    pub(crate) async fn export(&self, vdi: &str, more: &str) -> Vec<u8> {
        let answer = self.get(0, &format!("/export_raw_vdi?vdi={vdi}{more}")).await;
        self.succeeded(&answer).await;
        answer.body
    }
}

pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A connection that is cut has ended too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("in time");
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Answer { head, body: bytes.split_off(end + 4) }
}
