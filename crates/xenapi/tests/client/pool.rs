//! A pool of rows that tells what happens to them, as servers do: with coalescing, with counts, and with a
//! memory of deletions that has an end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use xenapi::{Client, Secret};

use crate::support::{Received, Reply, Server, failure, http, result};

/// A pool, and the server that speaks for it.
pub(crate) struct Pool {
    pub(crate) server: Server,
    pub(crate) rows: Rows,
}

/// What is in the pool. It outlives its server.
#[derive(Clone, Default)]
pub(crate) struct Rows {
    state: Arc<Mutex<State>>,
    woken: Arc<Notify>,
}

#[derive(Default)]
struct State {
    clock: u64,
    rows: BTreeMap<(String, String), Row>,
    deletions: Vec<(String, String, u64, u64)>,
    sessions: BTreeSet<String>,
    logins: u32,
    /// The classes, token and time of each question for events.
    asked: Vec<(Value, String, f64)>,
    failures: Vec<&'static str>,
}

struct Row {
    came: u64,
    changed: u64,
    record: Value,
}

impl Pool {
    pub(crate) async fn start() -> Self {
        let rows = Rows::default();
        rows.set("pool", "OpaqueRef:pool", json!({ "uuid": "the pool" }));
        Self::serve(rows, "127.0.0.1:0").await
    }

    pub(crate) async fn serve(rows: Rows, address: &str) -> Self {
        let answering = rows.clone();
        let answer = move |call: &Received| answering.answer(call);
        let server = Server::start_at(address.parse().unwrap(), None, answer).await;
        Self { server, rows }
    }

    pub(crate) fn client(&self) -> Client {
        let builder = Client::builder(&self.server.url()).unwrap();
        builder.login("root", Secret::from("secret")).build()
    }
}

impl Rows {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State, u64)) {
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        change(&mut state, now);
        drop(state);
        self.woken.notify_waiters();
    }

    /// Makes or changes a row.
    pub(crate) fn set(&self, class: &str, reference: &str, record: Value) {
        self.change(|state, now| {
            let row = state.rows.entry((class.into(), reference.into()));
            let row = row.or_insert(Row { came: now, changed: now, record: Value::Null });
            row.changed = now;
            row.record = record;
        });
    }

    /// Changes some fields of a row.
    pub(crate) fn update(&self, class: &str, reference: &str, fields: &Value) {
        let mut record = self.record(class, reference).unwrap();
        for (name, value) in fields.as_object().unwrap() {
            record[name] = value.clone();
        }
        self.set(class, reference, record);
    }

    pub(crate) fn record(&self, class: &str, reference: &str) -> Option<Value> {
        let state = self.state();
        state.rows.get(&(class.into(), reference.into())).map(|row| row.record.clone())
    }

    pub(crate) fn remove(&self, class: &str, reference: &str) {
        self.change(|state, now| {
            if let Some(row) = state.rows.remove(&(class.into(), reference.into())) {
                state.deletions.push((class.into(), reference.into(), row.came, now));
            }
        });
    }

    /// The server does not remember any deletion any more.
    pub(crate) fn forget_deletions(&self) {
        self.state().deletions.clear();
    }

    /// All sessions end, and those that wait in them are told.
    pub(crate) fn end_sessions(&self) {
        self.change(|state, _| state.sessions.clear());
    }

    /// The toolstack starts anew: from a database that is older, and without any memory.
    pub(crate) fn restart(&self) {
        self.change(|state, _| {
            state.sessions.clear();
            state.deletions.clear();
            state.clock = 1;
            for row in state.rows.values_mut() {
                (row.came, row.changed) = (1, 1);
            }
        });
    }

    /// The next question for events fails with this code.
    pub(crate) fn fail_next(&self, code: &'static str) {
        self.change(|state, _| state.failures.push(code));
    }

    /// The questions for events so far.
    pub(crate) fn asked(&self) -> Vec<(Value, String, f64)> {
        self.state().asked.clone()
    }

    fn answer(&self, call: &Received) -> Reply {
        let body: Value = serde_json::from_str(&call.body).unwrap();
        let mut params = body["params"].as_array().unwrap().clone();
        if call.method() == "session.login_with_password" {
            let mut state = self.state();
            state.logins += 1;
            let session = format!("OpaqueRef:session-{}", state.logins);
            state.sessions.insert(session.clone());
            return result(&json!(session).to_string());
        }
        let session = params.remove(0).as_str().unwrap().to_owned();
        if !self.state().sessions.contains(&session) {
            return failure("SESSION_INVALID", &[&session]);
        }
        let text = |index: usize| params[index].as_str().unwrap_or_default().to_owned();
        match call.method() {
            "event.from" => {
                let timeout = params[2].as_f64().unwrap();
                let (classes, token) = (params[0].clone(), text(1));
                self.state().asked.push((classes.clone(), token.clone(), timeout));
                let rows = self.clone();
                Reply::Later(Box::pin(async move {
                    rows.events(&session, &classes, &token, timeout).await
                }))
            }
            "event.inject" => {
                let before = token(self.state().clock);
                match self.record(&text(0), &text(1)) {
                    Some(record) => self.set(&text(0), &text(1), record),
                    None => return failure("HANDLE_INVALID", &[&text(0), &text(1)]),
                }
                result(&json!(before).to_string())
            }
            "task.get_record" => match self.record("task", &text(0)) {
                Some(record) => result(&record.to_string()),
                None => failure("HANDLE_INVALID", &["task", &text(0)]),
            },
            "task.destroy" => {
                self.remove("task", &text(0));
                result("\"\"")
            }
            "task.cancel" => {
                let fields =
                    json!({ "status": "cancelled", "error_info": ["TASK_CANCELLED", text(0)] });
                self.update("task", &text(0), &fields);
                result("\"\"")
            }
            "task.create" => {
                self.set(
                    "task",
                    "OpaqueRef:made",
                    json!({ "name_label": text(0), "status": "pending" }),
                );
                result("\"OpaqueRef:made\"")
            }
            "Async.VM.clone" => {
                let task = format!("OpaqueRef:task-{}", text(1));
                self.set(
                    "task",
                    &task,
                    json!({ "name_label": "Async.VM.clone", "status": "pending" }),
                );
                result(&json!(task).to_string())
            }
            _ => result("\"\""),
        }
    }

    async fn events(&self, session: &str, classes: &Value, since: &str, timeout: f64) -> Vec<u8> {
        let end = Instant::now() + Duration::from_secs_f64(timeout);
        loop {
            let woken = self.woken.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let ended = Instant::now() >= end;
            if let Some(answer) = self.state().look(session, classes, since, ended) {
                return bytes(answer);
            }
            let _ = timeout_at(end, woken).await;
        }
    }
}

impl State {
    fn look(&mut self, session: &str, classes: &Value, since: &str, ended: bool) -> Option<Reply> {
        if !self.sessions.contains(session) {
            return Some(failure("SESSION_INVALID", &[session]));
        }
        if let Some(code) = self.failures.pop() {
            return Some(failure(code, &[]));
        }
        let since: u64 = since.split(',').next().unwrap().parse().unwrap_or(0);
        let asked = |class: &str| classes.as_array().unwrap().iter().any(|name| name == class);
        let mut events = Vec::new();
        for ((class, reference), row) in &self.rows {
            if asked(class) && row.changed > since {
                let operation = if row.came > since { "add" } else { "mod" };
                events.push(json!({ "id": row.changed.to_string(), "timestamp": "0.0",
                    "class": class, "operation": operation, "ref": reference,
                    "snapshot": row.record }));
            }
        }
        for (class, reference, came, left) in &self.deletions {
            if asked(class) && *came <= since && *left > since {
                events.push(json!({ "id": left.to_string(), "timestamp": "0.0",
                    "class": class, "operation": "del", "ref": reference }));
            }
        }
        if events.is_empty() && !ended {
            return None;
        }
        let mut counts = BTreeMap::<_, u64>::new();
        for (class, _) in self.rows.keys() {
            *counts.entry(class).or_default() += 1;
        }
        let batch =
            json!({ "events": events, "valid_ref_counts": counts, "token": token(self.clock) });
        Some(result(&batch.to_string()))
    }
}

fn token(clock: u64) -> String {
    format!("{clock:020},{:020}", 0)
}

fn bytes(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Send(bytes) => bytes,
        _ => http("500 Internal Server Error", "text/plain", "not answered at once"),
    }
}
