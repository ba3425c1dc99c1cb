//! Tasks: waited for by events, cancelled, and never left behind.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use xenapi::{Client, FailureKind, Ref, Task, TaskError, class};

use crate::pool::Pool;

const MINUTE: Duration = Duration::from_mins(1);

async fn clone(client: &Client, name: &str) -> Task<Ref<class::Vm>> {
    client.vm().clone(&"OpaqueRef:1".into(), name).start_task().await.unwrap()
}

/// Ends a task as servers do, some time from now.
async fn end(pool: &Pool, task: &str, fields: serde_json::Value) {
    tokio::time::sleep(10 * MINUTE).await;
    pool.rows.update("task", task, &fields);
}

#[tokio::test(start_paused = true)]
async fn a_task_gives_the_result_of_its_message() {
    let pool = Pool::start().await;
    let client = pool.client();
    let task = clone(&client, "a").await;
    let fields = json!({ "status": "success", "result": "<value>OpaqueRef:2</value>" });
    let (result, ()) = tokio::join!(task, end(&pool, "OpaqueRef:task-a", fields));
    assert_eq!(result.unwrap(), Ref::from("OpaqueRef:2"));
    client.close().await.unwrap();
    assert_eq!(pool.rows.record("task", "OpaqueRef:task-a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_gives_the_failure_with_its_parameters() {
    let pool = Pool::start().await;
    let client = pool.client();
    let task = clone(&client, "a").await;
    let fields = json!({ "status": "failure", "progress": 1.0,
        "error_info": ["VM_BAD_POWER_STATE", "OpaqueRef:1", "Halted", "Running"] });
    let (result, ()) = tokio::join!(task, end(&pool, "OpaqueRef:task-a", fields));
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "`Async.VM.clone` failed");
    assert!(matches!(
        error.failure().unwrap().kind(),
        FailureKind::VmBadPowerState { actual: "Running", .. }
    ));
    client.close().await.unwrap();
    assert_eq!(pool.rows.record("task", "OpaqueRef:task-a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_cancelled_says_so() {
    let pool = Pool::start().await;
    let client = pool.client();
    let mut task = clone(&client, "a").await.timeout(MINUTE);
    let error = task.wait().await.unwrap_err();
    assert!(matches!(error, TaskError::Timeout { after: MINUTE, .. }));
    task.cancel().await.unwrap();
    assert!(matches!(task.wait().await.unwrap_err(), TaskError::Cancelled { .. }));
    assert!(pool.rows.record("task", "OpaqueRef:task-a").is_some());
    drop(task);
    client.close().await.unwrap();
    assert_eq!(pool.rows.record("task", "OpaqueRef:task-a"), None);
}

#[tokio::test(start_paused = true)]
async fn the_row_of_a_task_whose_handle_is_dropped_is_destroyed() {
    let pool = Pool::start().await;
    let client = pool.client();
    drop(clone(&client, "a").await);
    let kept = clone(&client, "b").await.release();
    let waited = tokio::time::timeout(MINUTE, async { clone(&client, "c").await.await });
    assert!(waited.await.is_err());
    client.close().await.unwrap();
    assert_eq!(pool.rows.record("task", "OpaqueRef:task-a"), None);
    assert!(pool.rows.record("task", &kept.to_string()).is_some());
    assert_eq!(pool.rows.record("task", "OpaqueRef:task-c"), None);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_shall_not_outlive_its_handle_is_cancelled_unless_it_has_ended() {
    let pool = Pool::start().await;
    let client = pool.client();
    drop(clone(&client, "a").await.cancel_on_drop());
    let mut task = clone(&client, "b").await.cancel_on_drop();
    let fields = json!({ "status": "success", "result": "<value>OpaqueRef:2</value>" });
    let (result, ()) = tokio::join!(task.wait(), end(&pool, "OpaqueRef:task-b", fields));
    result.unwrap();
    drop(task);
    client.close().await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(pool.rows.record("task", &format!("OpaqueRef:task-{name}")), None);
    }
    assert_eq!(pool.server.count("task.cancel"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_rows_go_even_if_the_client_is_dropped_with_the_handle() {
    let pool = Pool::start().await;
    let client = pool.client();
    let task = clone(&client, "a").await;
    drop((client, task));
    let gone = async {
        while pool.rows.record("task", "OpaqueRef:task-a").is_some()
            || pool.server.count("session.logout") == 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(MINUTE, gone).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_vanished_has_an_unknown_outcome() {
    let pool = Pool::start().await;
    let client = pool.client();
    let task = clone(&client, "a").await;
    let vanish = async {
        tokio::time::sleep(MINUTE).await;
        pool.rows.remove("task", "OpaqueRef:task-a");
    };
    let (result, ()) = tokio::join!(task, vanish);
    assert!(matches!(result.unwrap_err(), TaskError::Vanished { .. }));
    // One that was gone before anything was told of it is no different.
    let task = Task::<()>::adopt(&client, "OpaqueRef:never".into());
    let error = task.await.unwrap_err();
    assert!(matches!(error, TaskError::Vanished { .. }) && error.may_have_run());
    assert_eq!(pool.server.count("task.destroy"), 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_that_a_restart_took_have_an_unknown_outcome() {
    let pool = Pool::start().await;
    let client = pool.client();
    let task = clone(&client, "a").await;
    let restart = async {
        tokio::time::sleep(MINUTE).await;
        pool.rows.remove("task", "OpaqueRef:task-a");
        pool.rows.restart();
    };
    let (result, ()) = tokio::join!(task, restart);
    assert!(matches!(result.unwrap_err(), TaskError::Vanished { .. }));
}

#[tokio::test(start_paused = true)]
async fn all_tasks_of_a_client_share_one_request_for_events() {
    let pool = Pool::start().await;
    let client = pool.client();
    let mut tasks = Vec::new();
    for number in 0..50 {
        tasks.push(clone(&client, &number.to_string()).await);
    }
    let (asked, looks) = (pool.rows.asked().len(), pool.server.count("task.get_record"));
    let wait = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    let ends = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        for number in 0..50 {
            let fields = json!({ "status": "success", "result": "<value>OpaqueRef:2</value>" });
            pool.rows.update("task", &format!("OpaqueRef:task-{number}"), &fields);
        }
    };
    tokio::join!(wait, ends);
    assert!(pool.rows.asked().len() - asked < 5, "{}", pool.rows.asked().len());
    assert_eq!(pool.server.count("task.get_record"), looks);
    assert!(pool.rows.asked().iter().all(|(classes, _, _)| *classes == json!(["task"])));
    // When the last row is gone, nothing more is asked.
    tokio::time::sleep(10 * MINUTE).await;
    let asked = pool.rows.asked().len();
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(pool.rows.asked().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_before_it_was_followed_is_found() {
    let pool = Pool::start().await;
    let client = pool.client();
    let busy = clone(&client, "busy").await;
    tokio::time::sleep(MINUTE).await;
    pool.rows.set("task", "OpaqueRef:done", json!({ "status": "success" }));
    tokio::time::sleep(MINUTE).await;
    let started = Instant::now();
    Task::<()>::adopt(&client, "OpaqueRef:done".into()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    drop(busy);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_until_the_end() {
    let pool = Pool::start().await;
    let client = pool.client();
    let task = clone(&client, "a").await;
    let mut progress = task.progress();
    let watched = async {
        let mut told = Vec::new();
        while let Some(now) = progress.next().await {
            told.push(now);
        }
        told
    };
    let works = async {
        for step in 1..4 {
            tokio::time::sleep(MINUTE).await;
            let fields = json!({ "progress": f64::from(step) / 4.0 });
            pool.rows.update("task", "OpaqueRef:task-a", &fields);
        }
        end(&pool, "OpaqueRef:task-a", json!({ "progress": 1.0, "status": "success" })).await;
    };
    let (told, ()) = tokio::join!(watched, works);
    assert_eq!(told, [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(task.record().unwrap().name_label, "Async.VM.clone");
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_of_the_callers_own_is_handled_alike() {
    let pool = Pool::start().await;
    let client = pool.client();
    let task = Task::<()>::create(&client, "upload", "of a disk").await.unwrap();
    assert_eq!(*task.reference(), Ref::from("OpaqueRef:made"));
    let ((), result) =
        tokio::join!(end(&pool, "OpaqueRef:made", json!({ "status": "success" })), task);
    result.unwrap();
    client.close().await.unwrap();
    assert_eq!(pool.rows.record("task", "OpaqueRef:made"), None);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_closed_leaves_no_task_waiting() {
    let pool = Pool::start().await;
    let client = pool.client();
    let task = clone(&client, "a").await;
    let close = async {
        tokio::time::sleep(MINUTE).await;
        client.close().await.unwrap();
        pool.rows.end_sessions();
    };
    let (result, ()) = tokio::join!(task, close);
    assert!(matches!(result.unwrap_err(), TaskError::Lost { .. }));
}
