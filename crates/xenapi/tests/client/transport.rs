//! Answers that are late, cut, too large or none at all, and servers that speak another wire.

use std::time::Duration;

use crate::support::{Received, Reply, Server, http, result};
use xenapi::{Client, Error, Ref, Secret, Waiting};

const LOGIN: &str = "session.login_with_password";

/// A client of a server that lets it log in and answers all else by this rule.
async fn connect(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> (Server, Client) {
    let server = Server::start(move |call| match call.method() {
        LOGIN => result("\"OpaqueRef:s\""),
        _ => reply(call),
    })
    .await;
    let builder = Client::builder(&server.url()).unwrap().answer_limit(4096);
    let client = builder.login("root", Secret::from("secret")).connect().await.unwrap();
    (server, client)
}

/// The answer cut after as many bytes as the session that is asked for says.
fn cut(call: &Received) -> Reply {
    let whole = http("200 OK", "application/json", r#"{"jsonrpc":"2.0","result":"","id":1}"#);
    let start = call.body.find("cut-").unwrap() + "cut-".len();
    let length: usize = call.body[start..start + 4].parse().unwrap();
    Reply::SendAndClose(whole[..length.min(whole.len())].to_vec())
}

#[tokio::test]
async fn a_connection_cut_at_any_byte_is_told_and_a_change_not_repeated() {
    let (server, client) = connect(cut).await;
    let mut calls = 0;
    for length in 0.. {
        let vm = Ref::from(format!("cut-{length:04}").as_str());
        calls += 1;
        match client.vm().start(&vm, false, false).await {
            Err(error) => {
                assert!(
                    matches!(error, Error::Transport { sent: true, .. }),
                    "{length}: {error:?}"
                );
                assert!(error.may_have_run() && error.is_retryable());
            }
            Ok(()) => break,
        }
    }
    assert!(calls > 90);
    assert_eq!(server.count("VM.start"), calls);
}

#[tokio::test]
async fn a_question_whose_answer_was_lost_is_asked_once_more() {
    let (server, client) = connect(cut).await;
    let error = client.vm().get_name_label(&Ref::from("cut-0007")).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }));
    assert_eq!(server.count("VM.get_name_label"), 2);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_not_used() {
    let (server, client) = connect(|_| {
        Reply::SendAndClose(http("200 OK", "application/json", r#"{"result":"","id":1}"#))
    })
    .await;
    for _ in 0..5 {
        client.vm().start(&Ref::from("OpaqueRef:1"), false, false).await.unwrap();
    }
    assert_eq!(server.count("VM.start"), 5);
}

#[tokio::test]
async fn pages_are_told_with_their_status_and_text() {
    for (status, number) in [("404 Not Found", 404), ("500 Internal Error", 500), ("200 OK", 200)] {
        let page = "<html><body>\n<h1>Sorry</h1> nothing here";
        let server =
            Server::start(move |_| Reply::Send(http(status, "text/html; charset=UTF-8", page)))
                .await;
        let builder = Client::builder(&server.url()).unwrap();
        let error = builder.login("root", Secret::from("secret")).connect().await.unwrap_err();
        let Error::Http { status, excerpt, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*status, number);
        assert!(excerpt.contains("<h1>Sorry</h1> nothing here"), "{excerpt}");
    }
}

#[tokio::test]
async fn an_oversized_answer_is_refused() {
    let (_server, client) = connect(|_| result(&format!("\"{}\"", "x".repeat(5000)))).await;
    let error = client.vm().get_name_label(&Ref::null()).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 4096, .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let (_server, client) = connect(|_| Reply::Hang).await;
    tokio::time::pause();
    let start = client.vm().start(&Ref::null(), false, false).timeout(Duration::from_hours(2));
    let error = start.await.unwrap_err();
    assert!(
        matches!(error, Error::Timeout { after, waiting: Waiting::Answer, .. } if after.as_secs() == 7200),
        "{error:?}"
    );
    assert!(error.may_have_run());
    assert!(error.to_string().ends_with("within 7200s: it passed while waiting for the answer"));
}

#[tokio::test]
async fn a_refused_port_is_told() {
    let server = Server::start(|_| Reply::Hang).await;
    let url = format!("http://127.0.0.8:{}", server.address.port());
    let builder = Client::builder(&url).unwrap();
    let error = builder.login("root", Secret::from("secret")).connect().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(!error.may_have_run());
}

#[tokio::test]
async fn a_field_of_the_wrong_type_is_named() {
    let (_server, client) = connect(|_| result(r#"{"memory_static_max":["much"]}"#)).await;
    let error = client.vm().get_record(&Ref::null()).await.unwrap_err();
    let Error::Protocol { method, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(method, "VM.get_record");
    assert!(source.to_string().starts_with("field `memory_static_max`: "), "{source}");
}

#[tokio::test]
async fn a_server_of_xml_rpc_alone_is_spoken_to_in_it() {
    let server = Server::start(|call| {
        let value = if call.method() == LOGIN {
            "<value>OpaqueRef:s</value>"
        } else {
            "<value><array><data><value>OpaqueRef:1</value></data></array></value>"
        };
        let body = format!(
            "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member>\
             <name>Status</name><value>Success</value></member><member><name>Value</name>{value}\
             </member></struct></value></param></params></methodResponse>"
        );
        match call.path.as_str() {
            "/" => Reply::Send(http("200 OK", "text/xml", &body)),
            _ => Reply::Send(http("404 Not Found", "text/html", "<html>")),
        }
    })
    .await;
    let builder = Client::builder(&server.url()).unwrap();
    let client = builder.login("root", Secret::from("secret")).connect().await.unwrap();
    assert_eq!(client.vm().get_all().await.unwrap(), [Ref::from("OpaqueRef:1")]);
    // The wire is chosen once.
    assert_eq!(server.calls(), [LOGIN, LOGIN, LOGIN, "VM.get_all"]);
}

#[tokio::test]
async fn a_server_of_json_rpc_1_alone_is_spoken_to_in_it() {
    let server = Server::start(|call| {
        if call.body.contains("\"jsonrpc\"") {
            return Reply::Send(http("500 Internal Error", "text/html", "<html>"));
        }
        let body = r#"{"result":"OpaqueRef:s","error":null,"id":1}"#;
        Reply::Send(http("200 OK", "application/json", body))
    })
    .await;
    let builder = Client::builder(&server.url()).unwrap();
    let client = builder.login("root", Secret::from("secret")).connect().await.unwrap();
    assert_eq!(client.vm().get_name_label(&Ref::null()).await.unwrap(), "OpaqueRef:s");
    assert_eq!(server.calls(), [LOGIN, LOGIN, "VM.get_name_label"]);
}

#[tokio::test]
async fn a_large_answer_is_read() {
    let answer = || {
        let record = |number: u32| {
            format!(
                "\"OpaqueRef:{number:05}\":{{\"name_label\":\"vm {number}\",\"domid\":{number}}}"
            )
        };
        result(&format!("{{{}}}", (0..9000).map(record).collect::<Vec<_>>().join(",")))
    };
    let server =
        Server::start(
            move |call| {
                if call.method() == LOGIN { result("\"OpaqueRef:s\"") } else { answer() }
            },
        )
        .await;
    let builder = Client::builder(&server.url()).unwrap();
    let client = builder.login("root", Secret::from("secret")).connect().await.unwrap();
    let records = client.vm().get_all_records().await.unwrap();
    assert_eq!(records.len(), 9000);
    assert_eq!(records.get(&Ref::from("OpaqueRef:04321")).unwrap().name_label, "vm 4321");
}
