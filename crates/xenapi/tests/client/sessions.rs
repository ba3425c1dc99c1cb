//! Sessions: made once, renewed when lost, ended when done, and never forced.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Server, failure, result};
use tokio::task::JoinSet;
use xenapi::{Client, Error, Ref, Secret};

const LOGIN: &str = "session.login_with_password";

async fn connect(server: &Server) -> Result<Client, Error> {
    Client::builder(&server.url()).unwrap().login("root", Secret::from("secret")).connect().await
}

#[tokio::test]
async fn calls_share_one_session_and_one_connection_until_it_is_closed() {
    let server = Server::start(|call| match call.method() {
        LOGIN => result("\"OpaqueRef:s\""),
        "VM.get_all" => {
            assert!(call.in_session("OpaqueRef:s"));
            result("[\"OpaqueRef:1\"]")
        }
        _ => result("\"\""),
    })
    .await;
    let client = connect(&server).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.clone().vm().get_all().await.unwrap(), [Ref::from("OpaqueRef:1")]);
    }
    client.close().await.unwrap();
    client.close().await.unwrap();
    assert!(matches!(client.vm().get_all().await, Err(Error::Closed)));
    let expected = [LOGIN, "VM.get_all", "VM.get_all", "VM.get_all", "session.logout"];
    assert_eq!(server.calls(), expected);
    assert_eq!(server.connections(), 1);
}

/// Gives out sessions one after another; only the newest from `valid` on are good.
async fn server_with_sessions(valid: usize) -> Server {
    let logins = AtomicUsize::new(0);
    Server::start(move |call| match call.method() {
        LOGIN => result(&format!("\"OpaqueRef:s{}\"", logins.fetch_add(1, Ordering::SeqCst))),
        _ if (0..valid).any(|old| call.in_session(&format!("OpaqueRef:s{old}\""))) => {
            failure("SESSION_INVALID", &["OpaqueRef:old"])
        }
        _ => result("\"\""),
    })
    .await
}

#[tokio::test]
async fn a_lost_session_is_renewed_once_for_all_and_the_messages_repeated() {
    let server = server_with_sessions(1).await;
    let client = connect(&server).await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        calls
            .spawn(async move { client.vm().start(&Ref::from("OpaqueRef:1"), false, false).await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(server.count(LOGIN), 2);
}

#[tokio::test]
async fn a_session_that_stays_invalid_ends_the_call() {
    let server = server_with_sessions(usize::MAX >> 48).await;
    let client = connect(&server).await.unwrap();
    let error = client.vm().start(&Ref::from("OpaqueRef:1"), false, false).await.unwrap_err();
    assert_eq!(error.code(), Some("SESSION_INVALID"));
    assert_eq!(server.count(LOGIN), 2);
    assert_eq!(server.count("VM.start"), 2);
}

#[tokio::test]
async fn a_session_that_was_given_is_neither_renewed_nor_ended() {
    let server = Server::start(|call| match call.method() {
        "pool.get_all" => result("[]"),
        _ => failure("SESSION_INVALID", &["OpaqueRef:mine"]),
    })
    .await;
    let builder = Client::builder(&server.url()).unwrap();
    let client = builder.session(Secret::from("OpaqueRef:mine")).connect().await.unwrap();
    let error = client.vm().get_all().await.unwrap_err();
    assert_eq!(error.code(), Some("SESSION_INVALID"));
    client.close().await.unwrap();
    assert_eq!(server.calls(), ["pool.get_all", "VM.get_all"]);
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let server = Server::start(|_| failure("SESSION_AUTHENTICATION_FAILED", &["root", "no"])).await;
    let builder = Client::builder(&server.url()).unwrap();
    let client = builder.login("root", Secret::from("wrong")).build();
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        calls.spawn(async move { client.vm().get_all().await });
    }
    while let Some(done) = calls.join_next().await {
        let error = done.unwrap().unwrap_err();
        assert_eq!(error.code(), Some("SESSION_AUTHENTICATION_FAILED"));
        assert!(!error.is_retryable());
    }
    assert_eq!(server.calls(), [LOGIN]);
}

#[tokio::test]
async fn a_member_leads_to_the_master() {
    let master =
        Server::start_at("127.0.0.2:0".parse().unwrap(), None, |call| match call.method() {
            LOGIN => result("\"OpaqueRef:s\""),
            _ => result("[]"),
        })
        .await;
    let beside = format!("127.0.0.1:{}", master.address.port()).parse().unwrap();
    let member = Server::start_at(beside, None, |_| failure("HOST_IS_SLAVE", &["127.0.0.2"])).await;
    let client = connect(&member).await.unwrap();
    client.vm().get_all().await.unwrap();
    assert_eq!(client.endpoint().unwrap().to_string(), master.url());
    assert_eq!(member.calls(), [LOGIN]);
    assert_eq!(master.calls(), [LOGIN, "VM.get_all"]);
}

#[tokio::test]
async fn a_master_that_became_a_member_is_left_for_the_new_one() {
    let new = Server::start_at("127.0.0.3:0".parse().unwrap(), None, |call| match call.method() {
        LOGIN => result("\"OpaqueRef:new\""),
        _ => result("[]"),
    })
    .await;
    let beside = format!("127.0.0.1:{}", new.address.port()).parse().unwrap();
    let old = Server::start_at(beside, None, |call| match call.method() {
        LOGIN => result("\"OpaqueRef:old\""),
        _ => failure("HOST_IS_SLAVE", &["127.0.0.3"]),
    })
    .await;
    let client = connect(&old).await.unwrap();
    client.vm().get_all().await.unwrap();
    assert_eq!(new.calls(), [LOGIN, "VM.get_all"]);
}

#[tokio::test]
async fn members_that_name_each_other_as_master_are_not_followed_for_ever() {
    let server = Server::start(|_| failure("HOST_IS_SLAVE", &["127.0.0.1"])).await;
    let error = connect(&server).await.unwrap_err();
    assert_eq!(error.code(), Some("HOST_IS_SLAVE"));
    assert_eq!(server.count(LOGIN), 4);
}

#[tokio::test]
async fn the_first_member_that_answers_is_used() {
    let server = Server::start(|_| result("\"OpaqueRef:s\"")).await;
    let nobody = format!("http://127.0.0.9:{}", server.address.port());
    let client = Client::builder(&nobody)
        .unwrap()
        .or(&server.url())
        .unwrap()
        .login("root", Secret::from("secret"))
        .connect()
        .await
        .unwrap();
    assert_eq!(client.endpoint().unwrap().to_string(), server.url());
}

#[tokio::test]
async fn dropping_the_last_clone_logs_out() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let server = Server::start(move |call| {
        if call.method() == "session.logout" {
            sender.lock().unwrap().take().unwrap().send(()).unwrap();
        }
        result("\"OpaqueRef:s\"")
    })
    .await;
    let client = connect(&server).await.unwrap();
    drop(client.clone());
    assert_eq!(server.count("session.logout"), 0);
    drop(client);
    receiver.await.unwrap();
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_their_turn() {
    let server = Server::start(|call| match call.method() {
        LOGIN => result("\"OpaqueRef:s\""),
        _ => result("[]"),
    })
    .await;
    let client = Client::builder(&server.url())
        .unwrap()
        .request_limit(2)
        .login("root", Secret::from("secret"))
        .build();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calls.spawn(async move { client.vm().get_all().await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    assert!(server.connections() <= 2, "{}", server.connections());
}

#[tokio::test]
async fn the_async_form_starts_a_task() {
    let server = Server::start(|call| match call.method() {
        "Async.VM.clone" => result("\"OpaqueRef:task\""),
        _ => result("\"OpaqueRef:s\""),
    })
    .await;
    let client = connect(&server).await.unwrap();
    let clone = client.vm().clone(&Ref::from("OpaqueRef:1"), "copy");
    let task = clone.start_task().await.unwrap();
    assert_eq!(*task.reference(), Ref::from("OpaqueRef:task"));
}
