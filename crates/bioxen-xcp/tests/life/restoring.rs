use bioxen_xcp::machine::{Done, MachineError, PowerState, Refusal, Restored};
use bioxen_xcp::tags::Tags;
use xenapi::enums::VmPowerState;
use xenapi_sim::{Fault, FaultRule};

use crate::support::{lab, name, tags};

#[tokio::test]
async fn a_snapshot_is_made_gone_back_to_and_deleted_with_its_disks() {
    let lab = lab().await;
    let machine = lab.running("web").await;
    let before = lab.counts().await;
    let snapshot = machine.snapshot("fresh").await.unwrap();
    assert_eq!(machine.snapshots().unwrap(), std::slice::from_ref(&snapshot));
    assert!(!snapshot.memory && snapshot.taken.is_some());
    let restored = machine.restore("fresh", true).await.unwrap();
    assert_eq!(restored, Restored { before: PowerState::Running, started: true });
    assert_eq!(lab.state(&machine).await, VmPowerState::Running);
    let restored = machine.restore(&snapshot.uuid.to_string(), false).await.unwrap();
    assert_eq!(restored, Restored { before: PowerState::Running, started: false });
    assert_eq!(lab.state(&machine).await, VmPowerState::Halted);
    assert_eq!(machine.delete_snapshot("fresh").await.unwrap(), Done::Now);
    assert_eq!(machine.snapshots().unwrap(), []);
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn a_snapshot_whose_answer_is_lost_is_found_by_its_name() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    lab.sim.fault(FaultRule::new("VM.snapshot", Fault::DropAfter).times(1));
    let snapshot = machine.snapshot("fresh").await.unwrap();
    assert_eq!(machine.snapshots().unwrap(), [snapshot]);
}

#[tokio::test]
async fn a_vm_that_was_off_is_not_started_by_going_back() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    machine.snapshot("fresh").await.unwrap();
    assert!(!machine.restore("fresh", true).await.unwrap().started);
    assert_eq!(lab.state(&machine).await, VmPowerState::Halted);
}

#[tokio::test]
async fn a_snapshot_with_memory_goes_on_where_it_was() {
    let lab = lab().await;
    let machine = lab.running("web").await;
    lab.pool.client().vm().checkpoint(machine.reference(), "awake").await.unwrap();
    lab.caught_up().await;
    assert!(machine.snapshots().unwrap()[0].memory);
    machine.restore("awake", false).await.unwrap();
    assert_eq!(lab.state(&machine).await, VmPowerState::Suspended);
    machine.start(None).await.unwrap();
    let (vms, _) = lab.counts().await;
    machine.delete_snapshot("awake").await.unwrap();
    assert_eq!(lab.counts().await.0, vms - 1);
    let disks = lab.pool.client().vdi().get_all_records().await.unwrap();
    assert!(disks.values().all(|disk| disk.name_label != "Suspend image"), "its memory is left");
}

#[tokio::test]
async fn going_back_does_not_bring_old_marks_back() {
    let lab = lab().await;
    let made = lab.vm("guest", None).await;
    made.snapshot("foreign").await.unwrap();
    made.adopt(&name("guest")).await.unwrap();
    made.restore("foreign", false).await.unwrap();
    assert_eq!(made.tags(), Some(Tags { adopted: true, ..tags("guest") }));
    let ours = lab.ours("web").await;
    let soon = "2027-01-01T00:00:00Z".parse().unwrap();
    ours.expire(Some(soon)).await.unwrap();
    ours.snapshot("short-lived").await.unwrap();
    assert_eq!(ours.expire(None).await.unwrap(), Done::Now);
    assert_eq!(ours.expire(None).await.unwrap(), Done::Already);
    ours.restore("short-lived", false).await.unwrap();
    assert_eq!(ours.tags(), Some(tags("web")));
}

#[tokio::test]
async fn snapshots_that_are_not_there_or_there_already_are_refused() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    machine.snapshot("fresh").await.unwrap();
    let reason = |error: MachineError| match error {
        MachineError::Refused { reason, .. } => *reason,
        other => panic!("{other:?}"),
    };
    let refusal = reason(machine.snapshot("fresh").await.unwrap_err());
    assert!(matches!(refusal, Refusal::SnapshotThere { .. }));
    let refusal = reason(machine.restore("frehs", false).await.unwrap_err());
    assert!(matches!(refusal, Refusal::NoSuchSnapshot { near, .. } if near == ["fresh"]));
    let refusal = reason(machine.snapshot(" ").await.unwrap_err());
    assert!(matches!(refusal, Refusal::Size { .. }));
}

#[tokio::test]
async fn a_snapshot_for_which_there_is_no_room_leaves_nothing() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    let storage = machine.details().unwrap().disks[0].storage.clone();
    let (_, storage) = lab.storage(&storage).await;
    let before = lab.counts().await;
    assert!(lab.sim.fill_storage(storage, true));
    let error = machine.snapshot("fresh").await.unwrap_err();
    assert_eq!(error.code(), Some("SR_BACKEND_FAILURE_44"));
    assert!(error.hint().unwrap().contains("full"));
    assert_eq!(lab.counts().await, before);
    assert_eq!(machine.snapshots().unwrap(), []);
}
