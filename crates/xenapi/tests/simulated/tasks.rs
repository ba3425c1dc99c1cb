//! Tasks of a simulated pool.

use std::time::Duration;

use xenapi::{Client, FailureKind, Ref, Task, TaskError, class};
use xenapi_sim::Pool;

use crate::pool;

async fn guest(client: &Client) -> Ref<class::Vm> {
    let all = client.vm().get_all_records().await.unwrap().into_iter();
    let mut guests = all.filter(|(_, vm)| !vm.is_a_template && !vm.is_control_domain);
    guests.next().unwrap().0
}

async fn assert_no_rows(pool: &Pool, client: Client) {
    client.close().await.unwrap();
    let login = Client::builder(&pool.url()).unwrap();
    let client = login.login("root", xenapi::Secret::from("secret")).build();
    let rows = client.task().get_all_records().await.unwrap();
    assert!(rows.is_empty(), "{rows:?}");
}

#[tokio::test]
async fn a_task_gives_its_result_or_its_failure_and_leaves_nothing() {
    let (pool, client) = pool(Pool::builder().vms(1)).await;
    let vm = guest(&client).await;
    let copy = client.vm().clone(&vm, "copy").start_task().await.unwrap().await.unwrap();
    assert_eq!(client.vm().get_name_label(&copy).await.unwrap(), "copy");
    client.vm().start(&vm, false, false).start_task().await.unwrap().await.unwrap();
    let again = client.vm().start(&vm, false, false).start_task().await.unwrap().await;
    let error = again.unwrap_err();
    assert!(matches!(
        error.failure().unwrap().kind(),
        FailureKind::VmBadPowerState { actual: "running", .. }
    ));
    assert_no_rows(&pool, client).await;
}

#[tokio::test]
async fn a_task_whose_handle_is_dropped_goes_on_and_leaves_nothing() {
    let latency = Duration::from_millis(200);
    let (pool, client) = pool(Pool::builder().vms(1).latency("VM.start", latency)).await;
    let vm = guest(&client).await;
    drop(client.vm().start(&vm, false, false).start_task().await.unwrap());
    let mirror =
        xenapi::Mirror::start(&client, [xenapi::class::Class::Vm, xenapi::class::Class::Task]);
    let mirror = mirror.unwrap();
    let running = mirror.wait_for(&vm, "the VM to run", crate::MINUTE, |vm| {
        (vm?.power_state.as_str() == "Running").then_some(())
    });
    running.await.unwrap();
    let no_tasks = mirror.wait_until("the row to go", crate::MINUTE, |view| {
        (view.count::<class::Task>() == 0).then_some(())
    });
    no_tasks.await.unwrap();
    drop(mirror);
    assert_no_rows(&pool, client).await;
}

#[tokio::test]
async fn a_hundred_tasks_at_once_end_one_and_all() {
    let (pool, client) = pool(Pool::builder().vms(1)).await;
    let vm = guest(&client).await;
    let mut tasks = Vec::new();
    for number in 0..100 {
        let task = client.vm().clone(&vm, &number.to_string()).start_task().await.unwrap();
        tasks.push((number, task));
    }
    for (number, task) in tasks {
        let copy = task.await.unwrap();
        assert_eq!(client.vm().get_name_label(&copy).await.unwrap(), number.to_string());
    }
    assert_no_rows(&pool, client).await;
}

#[tokio::test]
async fn a_task_that_a_restart_took_says_that_its_outcome_is_unknown() {
    let latency = Duration::from_secs(30);
    let (pool, client) = pool(Pool::builder().vms(1).latency("VM.start", latency)).await;
    let vm = guest(&client).await;
    let task = client.vm().start(&vm, false, false).start_task().await.unwrap();
    let mut progress = task.progress();
    progress.next().await.unwrap();
    pool.restart_toolstack();
    let error = task.await.unwrap_err();
    assert!(
        matches!(
            error,
            TaskError::Vanished { .. } | TaskError::Failed { .. } | TaskError::Cancelled { .. }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_task_of_the_callers_own_ends_as_the_caller_says() {
    let (pool, client) = pool(Pool::builder()).await;
    let task = Task::<()>::create(&client, "upload", "of a disk").await.unwrap();
    let row = task.reference().clone();
    client.task().set_progress(&row, 0.5).await.unwrap();
    client.task().set_status(&row, xenapi::enums::TaskStatusType::Success).await.unwrap();
    task.await.unwrap();
    assert_no_rows(&pool, client).await;
}
