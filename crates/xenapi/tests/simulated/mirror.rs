//! A mirror equals the pool, whatever is done to either.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use xenapi::class::{self, Class};
use xenapi::enums::VmPowerState;
use xenapi::mirror::State;
use xenapi::{Client, Mirror, Ref, vm};
use xenapi_sim::{Fault, FaultRule, Pool};

use crate::{MINUTE, pool};

async fn mirror(client: &Client) -> Mirror {
    let mirror = Mirror::start(client, [Class::Vm, Class::Vbd, Class::Task]).unwrap();
    mirror.ready(MINUTE).await.unwrap();
    mirror
}

/// What the mirror shows, once all that had happened is in, against what the pool says it has.
async fn assert_equal(mirror: &Mirror, client: &Client) {
    mirror.barrier(MINUTE).await.unwrap();
    let shown: BTreeMap<Ref<class::Vm>, vm::Record> = mirror
        .snapshot::<class::Vm>()
        .into_iter()
        .map(|(vm, record)| (vm, (*record).clone()))
        .collect();
    let there: BTreeMap<_, _> = client.vm().get_all_records().await.unwrap().into();
    assert!(shown.keys().eq(there.keys()), "{} of {}", shown.len(), there.len());
    for (vm, record) in &there {
        assert_eq!(&shown[vm], record);
    }
    let disks = client.vbd().get_all().await.unwrap();
    assert_eq!(mirror.view().count::<class::Vbd>(), disks.len());
}

fn guests(mirror: &Mirror) -> Vec<Ref<class::Vm>> {
    let all = mirror.snapshot::<class::Vm>().into_iter();
    let guests = all.filter(|(_, vm)| !vm.is_a_template && !vm.is_control_domain);
    let mut guests: Vec<_> = guests.map(|(vm, _)| vm).collect();
    guests.sort();
    guests
}

/// Clones, starts, renames and destroys, with all the failures that come of doing so at random.
async fn churn(client: Client, vms: Vec<Ref<class::Vm>>, rounds: usize) {
    for round in 0..rounds {
        let vm = &vms[round % vms.len()];
        let _ = client.vm().set_name_description(vm, &format!("round {round}")).await;
        let _ = client.vm().start(vm, false, false).await;
        if let Ok(task) = client.vm().clone(vm, "copy").start_task().await
            && let Ok(copy) = task.await
        {
            let _ = client.vm().destroy(&copy).await;
        }
        let _ = client.vm().hard_shutdown(vm).await;
        if let Ok(copy) = client.vm().clone(vm, "another").await
            && round % 2 == 0
        {
            let _ = client.vm().destroy(&copy).await;
        }
    }
}

async fn churn_beside(pool: &Pool, client: &Client, mirror: &Mirror, faults: impl AsyncFn(&Pool)) {
    let guests = guests(mirror);
    let mut clients = JoinSet::new();
    for part in guests.chunks(3) {
        clients.spawn(churn(client.clone(), part.to_vec(), 12));
    }
    while !clients.is_empty() {
        tokio::select! {
            done = clients.join_next() => done.unwrap().unwrap(),
            () = faults(pool) => {}
        }
    }
}

#[tokio::test]
async fn a_mirror_equals_a_pool_that_clients_work_in() {
    let (pool, client) = pool(Pool::builder().vms(12).seed(1)).await;
    let mirror = mirror(&client).await;
    churn_beside(&pool, &client, &mirror, async |_| std::future::pending().await).await;
    assert_equal(&mirror, &client).await;
}

#[tokio::test]
async fn a_mirror_equals_a_pool_that_forgets_events_and_sessions() {
    let (pool, client) = pool(Pool::builder().vms(12).seed(2)).await;
    let mirror = mirror(&client).await;
    pool.fault(FaultRule::new("event.from", Fault::DropAfter).probability(0.05));
    pool.fault(FaultRule::new("event.from", Fault::Garbage).times(1));
    let step = AtomicUsize::new(0);
    churn_beside(&pool, &client, &mirror, async |pool| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        match step.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => pool.lose_events(),
            1 => pool.lose_sessions(),
            _ => pool.restart_toolstack(),
        }
    })
    .await;
    pool.forget_fault(None);
    assert_equal(&mirror, &client).await;
    assert!(matches!(mirror.state(), State::InStep { .. }));
}

#[tokio::test]
async fn a_member_of_the_pool_leads_the_mirror_to_the_master() {
    let (pool, _) = pool(Pool::builder().vms(2).hosts(2)).await;
    let member = &pool.urls()[1];
    let client = Client::builder(member).unwrap().login("root", xenapi::Secret::from("secret"));
    let mirror = mirror(&client.build()).await;
    assert_eq!(guests(&mirror).len(), 2);
}

#[tokio::test]
async fn a_vm_is_waited_for_until_it_runs() {
    let (_pool, client) = pool(Pool::builder().vms(1)).await;
    let mirror = mirror(&client).await;
    let vm = guests(&mirror).remove(0);
    client.vm().start(&vm, false, false).await.unwrap();
    let running = mirror.wait_for(&vm, "the VM to run", MINUTE, |vm| {
        (vm?.power_state == VmPowerState::Running).then_some(())
    });
    running.await.unwrap();
}
