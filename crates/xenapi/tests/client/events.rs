//! Watching a pool, over everything that can happen on the way.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use xenapi::class::{self, Class};
use xenapi::{AnyRecord, AnyRef, Change, Watch};

use crate::pool::Pool;
use crate::support::Server;

fn vm(number: u32) -> AnyRef {
    AnyRef::from(&xenapi::Ref::<class::Vm>::from(format!("OpaqueRef:{number}").as_str()))
}

fn named(name: &str) -> serde_json::Value {
    json!({ "name_label": name })
}

async fn next(watch: &mut Watch) -> Change {
    watch.next().await.unwrap().unwrap()
}

/// What is told, up to where all that is there has been told: `+` for what came, `~` for what changed and
/// `-` for what is gone, with the name.
async fn replay(watch: &mut Watch) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match next(watch).await {
            Change::Replayed => return told,
            change => told.push(line(&change)),
        }
    }
}

fn line(change: &Change) -> String {
    let name = |record: &AnyRecord| record.of::<class::Vm>().unwrap().name_label.clone();
    match change {
        Change::Added(_, record) => format!("+{}", name(record)),
        Change::Changed(_, record) => format!("~{}", name(record)),
        Change::Removed(object) => format!("-{object}"),
        Change::Replayed => "all".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_told_and_then_what_happens() {
    let pool = Pool::start().await;
    pool.rows.set("vm", "OpaqueRef:1", named("one"));
    pool.rows.set("host", "OpaqueRef:h", named("not asked for"));
    let mut watch = pool.client().watch([Class::Vm]).unwrap();
    assert_eq!(replay(&mut watch).await, ["+one"]);
    pool.rows.set("vm", "OpaqueRef:2", named("two"));
    assert_eq!(line(&next(&mut watch).await), "+two");
    pool.rows.set("vm", "OpaqueRef:1", named("uno"));
    assert_eq!(line(&next(&mut watch).await), "~uno");
    pool.rows.remove("vm", "OpaqueRef:2");
    assert_eq!(next(&mut watch).await, Change::Removed(vm(2)));
    assert_eq!(pool.rows.asked()[0].0, json!(["vm"]));
}

#[tokio::test(start_paused = true)]
async fn while_nothing_happens_one_request_waits_and_nothing_else_is_sent() {
    let pool = Pool::start().await;
    let mut watch = pool.client().watch([Class::Vm]).unwrap();
    assert!(replay(&mut watch).await.is_empty());
    let quiet = tokio::time::timeout(Duration::from_mins(10), watch.next()).await;
    assert!(quiet.is_err());
    let asked = pool.rows.asked();
    assert!(asked.len() <= 14, "{} questions in ten minutes", asked.len());
    assert!(asked[1..].iter().all(|(_, token, time)| !token.is_empty() && time.fract() != 0.0));
    assert_eq!(pool.server.connections(), 1);
    // It was only waited for, so what comes next is not lost.
    pool.rows.set("vm", "OpaqueRef:1", named("one"));
    assert_eq!(line(&next(&mut watch).await), "+one");
}

#[tokio::test(start_paused = true)]
async fn deletions_that_the_server_forgot_are_noticed() {
    let pool = Pool::start().await;
    for number in 1..=3 {
        pool.rows.set("vm", &format!("OpaqueRef:{number}"), named("some"));
    }
    let mut watch = pool.client().watch([Class::Vm]).unwrap();
    replay(&mut watch).await;
    pool.rows.remove("vm", "OpaqueRef:2");
    pool.rows.forget_deletions();
    pool.rows.set("vm", "OpaqueRef:4", named("four"));
    assert_eq!(line(&next(&mut watch).await), "+four");
    assert_eq!(next(&mut watch).await, Change::Removed(vm(2)));
    pool.rows.set("vm", "OpaqueRef:1", named("uno"));
    assert_eq!(line(&next(&mut watch).await), "~uno");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_toolstack_tells_everything_again_and_the_rest_is_gone() {
    let pool = Pool::start().await;
    pool.rows.set("vm", "OpaqueRef:1", named("one"));
    pool.rows.set("vm", "OpaqueRef:2", named("two"));
    let client = pool.client();
    let mut watch = client.watch([Class::Vm]).unwrap();
    replay(&mut watch).await;
    pool.rows.remove("vm", "OpaqueRef:1");
    pool.rows.set("vm", "OpaqueRef:3", named("three"));
    pool.rows.restart();
    assert_eq!(replay(&mut watch).await, ["~two", "+three", "-OpaqueRef:1"]);
    pool.rows.set("vm", "OpaqueRef:3", named("tres"));
    assert_eq!(line(&next(&mut watch).await), "~tres");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_tried_again_after_longer_and_longer_waits() {
    let Pool { server, rows } = Pool::start().await;
    rows.set("vm", "OpaqueRef:1", named("one"));
    let address = server.address.to_string();
    let pool = Pool { server, rows: rows.clone() };
    let mut watch = pool.client().watch([Class::Vm]).unwrap();
    replay(&mut watch).await;
    drop(pool);
    let gone = Instant::now();
    let back = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pool = Pool::serve(rows, &address).await;
        pool.rows.set("vm", "OpaqueRef:2", named("two"));
        pool
    };
    let (pool, change) = tokio::join!(back, next(&mut watch));
    assert_eq!(line(&change), "+two");
    // Tried at once, then 1, 2 and 4 seconds later.
    assert_eq!(gone.elapsed().as_secs(), 7);
    assert_eq!(pool.server.count("session.login_with_password"), 0);
    assert_eq!(pool.server.count("event.from"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_without_a_sign_is_given_up() {
    let pool = Pool::start().await;
    let client = pool.client();
    let login = pool.server.url();
    drop(login);
    let hung = Server::start(|call| match call.method() {
        "session.login_with_password" => crate::support::result("\"OpaqueRef:s\""),
        "event.from" if call.body.contains("\"\",0.1") => {
            crate::support::result(r#"{"events":[],"valid_ref_counts":{},"token":"1"}"#)
        }
        _ => crate::support::Reply::Hang,
    })
    .await;
    drop(client);
    let client = xenapi::Client::builder(&hung.url())
        .unwrap()
        .login("root", xenapi::Secret::from("secret"))
        .build();
    let mut watch = client.watch([Class::Vm]).unwrap();
    replay(&mut watch).await;
    let _ = tokio::time::timeout(Duration::from_secs(140), watch.next()).await;
    assert_eq!(hung.count("event.from"), 4);
}

#[tokio::test(start_paused = true)]
async fn the_new_master_is_followed() {
    let new = Pool::serve(crate::pool::Rows::default(), "127.0.0.4:0").await;
    new.rows.set("vm", "OpaqueRef:2", named("two"));
    let beside = format!("127.0.0.1:{}", new.server.address.port());
    let moved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_member = std::sync::Arc::clone(&moved);
    let old = Server::start_at(beside.parse().unwrap(), None, move |call| {
        if is_member.load(std::sync::atomic::Ordering::SeqCst) {
            return crate::support::failure("HOST_IS_SLAVE", &["127.0.0.4"]);
        }
        is_member.store(call.method() == "event.from", std::sync::atomic::Ordering::SeqCst);
        crate::support::result(match call.method() {
            "event.from" => {
                r#"{"events":[{"class":"vm","operation":"add","ref":"OpaqueRef:1",
                    "snapshot":{"name_label":"one"}}],"valid_ref_counts":{"vm":1},"token":"1"}"#
            }
            _ => "\"OpaqueRef:s\"",
        })
    })
    .await;
    let client = xenapi::Client::builder(&old.url())
        .unwrap()
        .login("root", xenapi::Secret::from("secret"))
        .build();
    let mut watch = client.watch([Class::Vm]).unwrap();
    assert_eq!(replay(&mut watch).await, ["+one"]);
    assert_eq!(replay(&mut watch).await, ["+two", "-OpaqueRef:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_given_up() {
    let pool = Pool::start().await;
    pool.rows.set("vm", "OpaqueRef:1", named("one"));
    let mut watch = pool.client().watch([Class::Vm]).unwrap();
    replay(&mut watch).await;
    pool.rows.fail_next("EVENT_FROM_TOKEN_PARSE_FAILURE");
    assert_eq!(replay(&mut watch).await, ["~one"]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_an_error_that_does_not_pass() {
    let pool = Pool::start().await;
    let client = pool.client();
    let mut watch = client.watch([Class::Vm]).unwrap();
    replay(&mut watch).await;
    pool.rows.fail_next("RBAC_PERMISSION_DENIED");
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some("RBAC_PERMISSION_DENIED"));
    assert!(watch.next().await.is_none());

    let mut watch = client.watch([Class::Vm]).unwrap();
    replay(&mut watch).await;
    client.close().await.unwrap();
    pool.rows.end_sessions();
    assert!(matches!(*watch.next().await.unwrap().unwrap_err(), xenapi::Error::Closed));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_events_keeps_no_other_call_from_its_turn() {
    let pool = Pool::start().await;
    let client = xenapi::Client::builder(&pool.server.url())
        .unwrap()
        .request_limit(1)
        .login("root", xenapi::Secret::from("secret"))
        .build();
    let mut watches = Vec::new();
    for _ in 0..3 {
        let mut watch = client.watch([Class::Vm]).unwrap();
        replay(&mut watch).await;
        watches.push(watch);
    }
    let waiting = watches.iter_mut().map(|watch| Box::pin(watch.next()));
    let mut waiting: Vec<_> = waiting.collect();
    let started = Instant::now();
    tokio::select! {
        _ = waiting[0].as_mut() => panic!("nothing happens"),
        done = async { client.vm().start(&"OpaqueRef:1".into(), false, false).await } => done.unwrap(),
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// A server that has nothing to tell, and lets those wait who ask for what happens next.
async fn quiet() -> (Server, xenapi::Client) {
    let server = Server::start(|call| match call.method() {
        "event.from" if call.body.contains("\"\",0.1") => {
            crate::support::result(r#"{"events":[],"valid_ref_counts":{},"token":"1"}"#)
        }
        "event.from" => crate::support::Reply::Hang,
        _ => crate::support::result("\"OpaqueRef:s\""),
    })
    .await;
    let builder = xenapi::Client::builder(&server.url()).unwrap();
    let client = builder.login("root", xenapi::Secret::from("secret")).build();
    (server, client)
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_dropped_hangs_up() {
    let (server, client) = quiet().await;
    let mut watch = client.watch([Class::Vm]).unwrap();
    replay(&mut watch).await;
    let moment = Duration::from_secs(1);
    assert!(tokio::time::timeout(moment, watch.next()).await.is_err());
    assert_eq!(server.count("event.from"), 2);
    drop(watch);
    tokio::time::timeout(moment, server.until_gone()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_mirror_whose_last_clone_is_dropped_hangs_up() {
    let (server, client) = quiet().await;
    let mirror = xenapi::Mirror::start(&client, [Class::Vm]).unwrap();
    let moment = Duration::from_secs(1);
    mirror.ready(moment).await.unwrap();
    let clone = mirror.clone();
    drop(mirror);
    tokio::time::timeout(moment, server.until_gone()).await.unwrap_err();
    assert_eq!(server.count("event.from"), 2);
    drop(clone);
    tokio::time::timeout(moment, server.until_gone()).await.unwrap();
}
