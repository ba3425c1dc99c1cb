//! Calls without any client: what the wire carries, as bytes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::simulator::Simulator;

/// A session of the pool, for calls whose answers are wanted as they come.
pub(crate) struct Raw {
    address: String,
    session: String,
}

impl Raw {
    /// Logs in.
    pub(crate) fn log_in(simulator: &Simulator) -> Result<Self> {
        let address = simulator.url().strip_prefix("http://").context("the pool speaks HTTP")?;
        let address = address.trim_end_matches('/').to_owned();
        let mut raw = Self { address, session: String::new() };
        let login =
            raw.post("session.login_with_password", &json!(["root", Simulator::PASSWORD]))?;
        let answer: Value = serde_json::from_slice(&login)?;
        answer["result"].as_str().context("there is a session")?.clone_into(&mut raw.session);
        Ok(raw)
    }

    /// The body of the answer to a call that needs nothing but the session.
    pub(crate) fn call(&self, method: &str) -> Result<Vec<u8>> {
        self.post(method, &json!([self.session]))
    }

    /// What a call with these parameters after the session gives.
    pub(crate) fn ask(&self, method: &str, params: Value) -> Result<Value> {
        let Value::Array(params) = params else { bail!("parameters are a list") };
        let session = Value::String(self.session.clone());
        let params: Vec<Value> = [session].into_iter().chain(params).collect();
        let mut answer: Value = serde_json::from_slice(&self.post(method, &params.into())?)?;
        ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].take())
    }

    /// The session, which proves who asks.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// Where the pool is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One VM of the pool that is neither a template nor a host's own.
    pub(crate) fn some_vm(&self) -> Result<String> {
        let query =
            "field \"is_a_template\" = \"false\" and field \"is_control_domain\" = \"false\"";
        let vms = self.ask("VM.get_all_records_where", json!([query]))?;
        let vms = vms.as_object().context("there are VMs")?;
        Ok(vms.keys().next().context("there is a VM")?.clone())
    }

    fn post(&self, method: &str, params: &Value) -> Result<Vec<u8>> {
        let body =
            json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).to_string();
        let mut stream = TcpStream::connect(&self.address)?;
        let head = format!("POST /jsonrpc HTTP/1.1\r\nHost: {}\r\n", self.address);
        let length = body.len();
        let rest = format!("Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        stream.write_all([head, rest].concat().as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.context("the answer has a head")?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "the answer to {method} is none");
        Ok(answer.split_off(end + 4))
    }
}
