use bioxen_xcp::machine::{Done, MachineError, PowerState, Refusal};
use xenapi_sim::Pool;

use crate::support::{Lab, lab_of};

const GIB: u64 = 1 << 30;

async fn two_hosts() -> (Lab, Vec<String>) {
    let lab = lab_of(Pool::builder().hosts(2).host_memory(10 * GIB)).await;
    let hosts = lab.hosts().await.into_iter().map(|(_, name, _)| name).collect();
    (lab, hosts)
}

fn refusal(error: MachineError) -> Refusal {
    match error {
        MachineError::Refused { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_running_vm_moves_to_another_host() {
    let (lab, hosts) = two_hosts().await;
    let machine = lab.ours("web").await;
    machine.start(Some(&hosts[0])).await.unwrap();
    assert_eq!(machine.migrate(&hosts[1]).await.unwrap(), Done::Now);
    assert_eq!(machine.details().unwrap().host.as_ref(), Some(&hosts[1]));
}

#[tokio::test]
async fn a_move_that_cannot_be_is_refused_with_the_reason() {
    let (lab, hosts) = two_hosts().await;
    let machine = lab.ours("web").await;
    let error = machine.migrate(&hosts[1]).await.unwrap_err();
    assert!(matches!(error, MachineError::State { state: PowerState::Halted, .. }), "{error:?}");
    machine.start(Some(&hosts[0])).await.unwrap();
    let reason = refusal(machine.migrate(&hosts[0]).await.unwrap_err());
    assert_eq!(reason, Refusal::SameHost { host: hosts[0].clone() });
    assert!(matches!(
        refusal(machine.migrate("nowhere").await.unwrap_err()),
        Refusal::NoSuchHost { .. }
    ));
    let (other, _, _) = lab.hosts().await.remove(1);
    lab.pool.client().host().set_name_label(&other, &hosts[0]).await.unwrap();
    lab.caught_up().await;
    let reason = refusal(machine.migrate(&hosts[0]).await.unwrap_err());
    assert_eq!(reason, Refusal::AmbiguousHost { host: hosts[0].clone() });
    lab.pool.client().host().set_name_label(&other, &hosts[1]).await.unwrap();
    lab.caught_up().await;
    let big = lab.ours("big").await;
    let (least, most) = (512 << 20, 4 << 30);
    let vms = lab.pool.client().vm();
    vms.set_memory_limits(big.reference(), least, most, most, most).await.unwrap();
    big.start(Some(&hosts[1])).await.unwrap();
    let (least, most) = (512 << 20, 3 << 30);
    let third = lab.ours("third").await;
    vms.set_memory_limits(third.reference(), least, most, most, most).await.unwrap();
    third.start(Some(&hosts[0])).await.unwrap();
    let reason = refusal(third.migrate(&hosts[1]).await.unwrap_err());
    assert!(matches!(&reason, Refusal::Memory { host, .. } if *host == hosts[1]), "{reason:?}");
    assert_eq!(refusal(third.check_migration(&hosts[1]).await.unwrap_err()), reason);
    let (target, _, uuid) = lab.hosts().await.remove(1);
    lab.pool.client().host().disable(&target, None).await.unwrap();
    let reason = refusal(machine.migrate(&hosts[1]).await.unwrap_err());
    assert_eq!(reason, Refusal::HostDisabled { host: hosts[1].clone() });
    assert!(lab.sim.kill_host(uuid).await);
    let reason = refusal(machine.migrate(&hosts[1]).await.unwrap_err());
    assert_eq!(reason, Refusal::HostDown { host: hosts[1].clone() });
}

#[tokio::test]
async fn a_vm_whose_disk_the_host_does_not_reach_stays() {
    let (lab, hosts) = two_hosts().await;
    let machine = lab.ours("web").await;
    machine.start(Some(&hosts[0])).await.unwrap();
    let (target, _, _) = lab.hosts().await.remove(1);
    let storage = machine.details().unwrap().disks[0].storage.clone();
    let (sr, _) = lab.storage(&storage).await;
    let pbds = lab.pool.client().pbd().get_all_records().await.unwrap();
    let pbd = pbds.iter().find(|(_, pbd)| pbd.sr == sr && pbd.host == target).unwrap().0;
    lab.pool.client().pbd().unplug(pbd).await.unwrap();
    let reason = refusal(machine.migrate(&hosts[1]).await.unwrap_err());
    assert!(matches!(&reason, Refusal::Storage { storage: it, .. } if *it == storage));
}
