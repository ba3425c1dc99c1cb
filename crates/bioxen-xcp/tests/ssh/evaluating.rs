//! Lua in the guest: a worker behind a link, as the fleet uses it.

use std::time::{Duration, Instant};

use bioxen_core::backend::{Link, Machine};
use bioxen_core::protocol::zygote::How;
use bioxen_core::protocol::{
    Configure, Decoder, End, Evaluate, Form, Reply, Request, Status, decode, encode,
};
use bioxen_core::{Stream, Value};
use bioxen_xcp::ssh::Connection;
use bioxen_xcp::ssh::guest::{self, GuestError, GuestProgram, GuestWorker, SshLink};
use nix::sys::signal::Signal;

use crate::server::{Server, is_ci, runs, server};

const DEADLINE: Duration = Duration::from_mins(1);

fn shim(interpreter: &str) -> GuestProgram {
    GuestProgram::Shim { interpreter: interpreter.into() }
}

fn installed() -> impl Iterator<Item = &'static str> {
    let names = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"];
    names.into_iter().filter(|name| {
        let is_there = std::path::Path::new("/usr/bin").join(name).exists();
        assert!(is_there || !is_ci(), "`{name}` is not installed, and CI tries all interpreters");
        is_there
    })
}

/// A server and a worker in the interpreter that is there; none without either.
async fn worker() -> Option<(Server, Connection, GuestWorker)> {
    let server = server()?;
    let Some(interpreter) = installed().last() else {
        eprintln!("skipped: no Lua interpreter is installed");
        return None;
    };
    let connection = Connection::open(&server.target()).await.unwrap();
    let worker = guest::start(&connection, &shim(interpreter), DEADLINE).await.unwrap();
    Some((server, connection, worker))
}

/// Evaluates one piece of code, and returns its output and how it ended.
async fn evaluate(link: &mut SshLink, code: &str) -> (Vec<u8>, End) {
    let request = Request::Evaluate(Evaluate {
        id: 1,
        form: Form::Input,
        fresh: false,
        name: "=test".into(),
        code: code.as_bytes(),
        arguments: Vec::new(),
        environment: None,
        working_directory: None,
        wall_time_us: None,
        cpu_time_us: None,
        output: None,
    });
    link.send(&encode(&request)).await.unwrap();
    let mut decoder = Decoder::new(64 << 20);
    let mut output = Vec::new();
    loop {
        while let Some(payload) = decoder.next_payload().unwrap() {
            match decode(&payload).unwrap() {
                Reply::Output(Stream::Stdout, data) => output.extend_from_slice(data),
                Reply::End(end) => return (output, end),
                other => panic!("{other:?}"),
            }
        }
        assert_ne!(link.receive(decoder.space()).await.unwrap(), 0, "the worker is gone");
    }
}

#[tokio::test]
async fn every_interpreter_of_the_guest_evaluates_and_keeps_its_state() {
    let Some(server) = server() else { return };
    let connection = Connection::open(&server.target()).await.unwrap();
    for interpreter in installed() {
        let worker = guest::start(&connection, &shim(interpreter), DEADLINE).await.unwrap();
        assert!(worker.hello.interpreter.starts_with("Lua"), "{:?}", worker.hello);
        let mut link = worker.link;
        link.send(&encode(&Request::Configure(Configure::default()))).await.unwrap();
        let (output, end) = evaluate(&mut link, "x = 20; print('hi'); return x + 22").await;
        assert_eq!((output.as_slice(), end.status), (&b"hi\n"[..], Status::Finished));
        assert_eq!(end.values, [Value::Integer(42)], "{interpreter}");
        let (_, end) = evaluate(&mut link, "x * 2").await;
        assert_eq!(end.values, [Value::Integer(40)], "{interpreter}");
    }
}

#[tokio::test]
async fn large_code_and_large_output_pass_whole() {
    let Some((_server, _connection, mut worker)) = worker().await else { return };
    let text = "x".repeat(5 << 20);
    let code = format!("local s = [[{text}]] io.write(s, s) return #s");
    let (output, end) = evaluate(&mut worker.link, &code).await;
    assert_eq!(end.values, [Value::Integer(5 << 20)]);
    assert!(output.len() == 10 << 20 && output.iter().all(|&byte| byte == b'x'));
}

#[tokio::test]
async fn a_worker_that_exits_is_heard_of_with_its_code() {
    let Some((_server, _connection, mut worker)) = worker().await else { return };
    worker.link.send(&encode(&Request::Shutdown)).await.unwrap();
    assert_eq!(worker.link.receive(&mut bytes::BytesMut::new()).await.unwrap(), 0);
    let exit = worker.machine.ended().await.unwrap();
    assert_eq!(exit.how, How::Exited(0));
    assert!(worker.link.send(b"late").await.is_err());
}

#[tokio::test]
async fn a_killed_worker_wakes_whoever_waits_and_is_gone_with_its_children() {
    let Some((_server, connection, mut worker)) = worker().await else { return };
    let group = worker.machine.group().unwrap();
    let code = "io.popen('sleep 600'); while true do end";
    let request = Request::Evaluate(Evaluate {
        id: 1,
        form: Form::Chunk,
        fresh: true,
        name: "=test".into(),
        code: code.as_bytes(),
        arguments: Vec::new(),
        environment: None,
        working_directory: None,
        wall_time_us: None,
        cpu_time_us: None,
        output: None,
    });
    worker.link.send(&encode(&request)).await.unwrap();
    let mut space = bytes::BytesMut::new();
    let machine = worker.machine.clone();
    let began = Instant::now();
    let killing = async { machine.kill() };
    let (received, ()) = tokio::join!(worker.link.receive(&mut space), killing);
    assert_eq!(received.unwrap(), 0);
    let exit = machine.ended().await.unwrap();
    assert_eq!(exit.how, How::Signalled(9));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(!runs(group.number()));
    machine.kill();
    drop(worker);
    connection.close().await;
}

#[tokio::test]
async fn a_worker_that_talks_while_nobody_listens_can_be_killed() {
    let Some((_server, connection, mut worker)) = worker().await else { return };
    let code = "local s = ('x'):rep(60000) while true do io.write(s) io.flush() end";
    let request = Request::Evaluate(Evaluate {
        id: 1,
        form: Form::Chunk,
        fresh: true,
        name: "=test".into(),
        code: code.as_bytes(),
        arguments: Vec::new(),
        environment: None,
        working_directory: None,
        wall_time_us: None,
        cpu_time_us: None,
        output: None,
    });
    worker.link.send(&encode(&request)).await.unwrap();
    // Once a program on the same connection is not answered, the unread channel is full.
    let patience = Duration::from_millis(500);
    let command = bioxen_xcp::ssh::Command::new("true");
    while connection.run(&command, "", 10, patience).await.is_ok() {}
    worker.machine.kill();
    let exit = worker.machine.ended().await.unwrap();
    assert_eq!(exit.how, How::Signalled(9));
    // The connection is of use again.
    let output = connection.run(&command, "", 10, DEADLINE).await.unwrap();
    assert!(output.exit.is_success());
}

#[tokio::test]
async fn a_dropped_link_ends_its_worker() {
    let Some((_server, connection, worker)) = worker().await else { return };
    let group = worker.machine.group().unwrap().number();
    assert!(runs(group));
    drop(worker);
    connection.close().await;
    assert!(!runs(group));
}

#[tokio::test]
async fn what_is_no_worker_is_named_with_its_last_words() {
    let Some(server) = server() else { return };
    let connection = Connection::open(&server.target()).await.unwrap();
    let refusal = async |program: GuestProgram| {
        guest::start(&connection, &program, DEADLINE).await.unwrap_err()
    };
    let error = refusal(shim("lua9.9")).await;
    assert!(matches!(error, GuestError::Introduction { .. }), "{error}");
    let shown = error.to_string();
    assert!(shown.contains("exit code 127") && shown.contains("not found"), "{shown}");
    let path = "/bin/echo".to_owned();
    let error = refusal(GuestProgram::Other { path, arguments: vec!["hello".into()] }).await;
    assert!(error.to_string().contains("hell"), "{error}");
    let path = "/bin/sh".to_owned();
    let arguments = vec!["-c".into(), "echo no such luck >&2; exit 3".into()];
    let shown = refusal(GuestProgram::Other { path, arguments }).await.to_string();
    assert!(shown.contains("exit code 3") && shown.contains("no such luck"), "{shown}");
    let program = GuestProgram::Other { path: "/bin/sleep".into(), arguments: vec!["60".into()] };
    let patience = Duration::from_millis(300);
    let error = guest::start(&connection, &program, patience).await.unwrap_err();
    let GuestError::Ssh { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("`/bin/sleep` to come up"), "{source}");
}

#[tokio::test]
async fn a_worker_whose_connection_is_lost_is_lost_too() {
    let Some((server, _connection, mut worker)) = worker().await else { return };
    let group = worker.machine.group().unwrap();
    server.signal_children(Signal::SIGKILL);
    assert_eq!(worker.link.receive(&mut bytes::BytesMut::new()).await.unwrap(), 0);
    assert_eq!(worker.machine.ended().await, None);
    assert!(worker.link.send(b"late").await.is_err());
    // Over the next connection what was left is ended.
    let again = Connection::open(&server.target()).await.unwrap();
    again.signal_group(group, bioxen_xcp::ssh::Signal::Kill).await.unwrap();
    assert!(!runs(group.number()));
}
