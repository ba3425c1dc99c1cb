//! A mirror shows what is in the pool, and wakes those who wait for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use xenapi::class::{self, Class};
use xenapi::mirror::{State, WaitError};
use xenapi::{Mirror, Ref};

use crate::pool::Pool;

const MINUTE: Duration = Duration::from_mins(1);

fn vm(name: &str, state: &str) -> serde_json::Value {
    json!({ "uuid": format!("uuid of {name}"), "name_label": name, "power_state": state })
}

async fn mirror(pool: &Pool) -> Mirror {
    let mirror = Mirror::start(&pool.client(), [Class::Vm]).unwrap();
    mirror.ready(MINUTE).await.unwrap();
    mirror
}

#[tokio::test(start_paused = true)]
async fn objects_are_found_by_reference_uuid_and_name() {
    let pool = Pool::start().await;
    pool.rows.set("vm", "OpaqueRef:1", vm("web", "Running"));
    pool.rows.set("vm", "OpaqueRef:2", json!({ "uuid": "u", "name_label": "web" }));
    let mirror = mirror(&pool).await;
    let one: Ref<class::Vm> = "OpaqueRef:1".into();
    assert_eq!(mirror.get(&one).unwrap().power_state.as_str(), "Running");
    assert_eq!(mirror.by_uuid::<class::Vm>("uuid of web").unwrap().0, one);
    assert_eq!(mirror.by_name::<class::Vm>("web").len(), 2);
    assert!(mirror.by_name::<class::Vm>("db").is_empty());
    assert_eq!(mirror.snapshot::<class::Vm>().len(), 2);
    assert_eq!(mirror.view().count::<class::Vm>(), 2);
    assert!(mirror.snapshot::<class::Host>().is_empty());
    assert!(matches!(mirror.state(), State::InStep { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_empty_pool_is_mirrored_too() {
    let pool = Pool::start().await;
    pool.rows.remove("pool", "OpaqueRef:pool");
    let mirror = mirror(&pool).await;
    assert!(mirror.snapshot::<class::Vm>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_is_looked_at_only_after_changes() {
    let pool = Pool::start().await;
    let mirror = mirror(&pool).await;
    let looks = AtomicUsize::new(0);
    let found = mirror.wait_until("a VM named `web`", 600 * MINUTE, |view| {
        looks.fetch_add(1, Ordering::SeqCst);
        view.by_name::<class::Vm>("web").next().map(|(vm, _)| vm)
    });
    let appears = async {
        tokio::time::sleep(10 * MINUTE).await;
        pool.rows.set("vm", "OpaqueRef:1", vm("web", "Halted"));
    };
    let (found, ()) = tokio::join!(found, appears);
    assert_eq!(found.unwrap(), Ref::from("OpaqueRef:1"));
    assert_eq!(looks.into_inner(), 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_one_object_looks_only_when_that_changes() {
    let pool = Pool::start().await;
    pool.rows.set("vm", "OpaqueRef:1", vm("web", "Halted"));
    let mirror = mirror(&pool).await;
    let looks = AtomicUsize::new(0);
    let one: Ref<class::Vm> = "OpaqueRef:1".into();
    let running = mirror.wait_for(&one, "the VM to run", MINUTE, |vm| {
        looks.fetch_add(1, Ordering::SeqCst);
        (vm?.power_state.as_str() == "Running").then_some(())
    });
    let changes = async {
        for number in 2..20 {
            pool.rows.set("vm", &format!("OpaqueRef:{number}"), vm("other", "Running"));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        pool.rows.set("vm", "OpaqueRef:1", vm("web", "Running"));
    };
    let (found, ()) = tokio::join!(running, changes);
    found.unwrap();
    assert_eq!(looks.into_inner(), 2);
    let gone = mirror.wait_for(&one, "the VM to go", MINUTE, |vm| vm.is_none().then_some(()));
    let (gone, ()) = tokio::join!(gone, async { pool.rows.remove("vm", "OpaqueRef:1") });
    gone.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_says_what_was_waited_for_and_what_is_wrong() {
    let pool = Pool::start().await;
    let mirror = mirror(&pool).await;
    let error = mirror.wait_until("a miracle", MINUTE, |_| None::<()>).await.unwrap_err();
    assert_eq!(error.to_string(), "waited 60s for a miracle");
    assert!(matches!(error, WaitError::Timeout { behind: None, .. }));
    drop(pool);
    let error = mirror.wait_until("a miracle", MINUTE, |_| None::<()>).await.unwrap_err();
    assert!(matches!(error, WaitError::Timeout { behind: Some(_), .. }), "{error:?}");
    assert!(matches!(mirror.state(), State::Behind { error: Some(_), .. }));
}

#[tokio::test(start_paused = true)]
async fn it_catches_up_after_a_restart_of_the_toolstack() {
    let pool = Pool::start().await;
    for number in 1..=3 {
        pool.rows.set("vm", &format!("OpaqueRef:{number}"), vm("some", "Running"));
    }
    let mirror = mirror(&pool).await;
    let mut changed = mirror.changed();
    pool.rows.remove("vm", "OpaqueRef:1");
    pool.rows.set("vm", "OpaqueRef:2", vm("some", "Halted"));
    pool.rows.restart();
    mirror.barrier(MINUTE).await.unwrap();
    assert_eq!(mirror.view().count::<class::Vm>(), 2);
    let mut told = Vec::new();
    for _ in 0..2 {
        let (object, record) = changed.next().await.unwrap();
        told.push((object.to_string(), record.is_some()));
    }
    told.sort();
    // What is as it was is not told, though the server told it again.
    assert_eq!(told, [("OpaqueRef:1".into(), false), ("OpaqueRef:2".into(), true)]);
    assert!(tokio::time::timeout(MINUTE, changed.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn behind_a_barrier_everything_before_it_is_in() {
    let pool = Pool::start().await;
    let mirror = mirror(&pool).await;
    for number in 0..50 {
        pool.rows.set("vm", "OpaqueRef:1", vm(&number.to_string(), "Running"));
        mirror.barrier(MINUTE).await.unwrap();
        assert_eq!(mirror.by_name::<class::Vm>(&number.to_string()).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_barrier_that_is_refused_is_placed_again_for_a_while() {
    let pool = Pool::start().await;
    let row = pool.rows.record("pool", "OpaqueRef:pool").unwrap();
    pool.rows.remove("pool", "OpaqueRef:pool");
    let mirror = mirror(&pool).await;
    let comes_back = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        pool.rows.set("pool", "OpaqueRef:pool", row);
    };
    let (placed, ()) = tokio::join!(mirror.barrier(MINUTE), comes_back);
    placed.unwrap();
    pool.rows.remove("pool", "OpaqueRef:pool");
    // What is to be told is why, and long before a limit that is meant for slow events.
    let refused = mirror.barrier(600 * MINUTE);
    let error = tokio::time::timeout(MINUTE, refused).await.unwrap().unwrap_err();
    let WaitError::Barrier(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code(), Some("HANDLE_INVALID"));
}

#[tokio::test(start_paused = true)]
async fn fields_that_are_not_wanted_are_empty() {
    let pool = Pool::start().await;
    pool.rows.set("vm", "OpaqueRef:1", json!({ "name_label": "web", "recommendations": "<xml/>" }));
    let mirror = Mirror::builder(&pool.client(), [Class::Vm])
        .unwrap()
        .without::<class::Vm>(&["recommendations", "no such field"])
        .start();
    mirror.ready(MINUTE).await.unwrap();
    let vm = mirror.get(&Ref::<class::Vm>::from("OpaqueRef:1")).unwrap();
    assert_eq!((vm.name_label.as_str(), vm.recommendations.as_str()), ("web", ""));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_client_and_says_why() {
    let pool = Pool::start().await;
    let client = pool.client();
    let mirror = Mirror::start(&client, [Class::Vm]).unwrap();
    mirror.ready(MINUTE).await.unwrap();
    let mut changed = mirror.changed();
    client.close().await.unwrap();
    pool.rows.end_sessions();
    let error = mirror.wait_until("anything", MINUTE, |_| None::<()>).await.unwrap_err();
    assert!(matches!(error, WaitError::Ended { .. }), "{error:?}");
    assert!(changed.next().await.is_none());
    assert!(matches!(mirror.state(), State::Ended { .. }));
}

#[tokio::test(start_paused = true)]
async fn dropping_it_stops_following() {
    let pool = Pool::start().await;
    let mirror = mirror(&pool).await;
    drop(mirror.clone());
    let before = pool.rows.asked().len();
    drop(mirror);
    tokio::time::sleep(10 * MINUTE).await;
    assert!(pool.rows.asked().len() <= before + 1);
    // Nobody else has the client.
    assert_eq!(pool.server.count("session.logout"), 1);
}
