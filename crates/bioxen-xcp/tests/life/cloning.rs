use std::time::Duration;

use bioxen_xcp::Machine;
use bioxen_xcp::machine::{MachineError, NewVm, PowerState, Refusal};
use uuid::Uuid;
use xenapi_sim::{Fault, FaultRule};

use crate::support::{OWNER, lab, name, tags};

const MAKING: Uuid = Uuid::from_u128(0x3a1);

#[tokio::test]
async fn a_copy_is_a_vm_of_its_own() {
    let lab = lab().await;
    let origin = lab.ours("web").await;
    let before = lab.counts().await;
    let making = origin.clone_as(&NewVm::new(name("web-2"), MAKING)).await.unwrap();
    assert_eq!(making.machine().name(), "web-2");
    let label = NewVm::new(name("web-2"), MAKING).label(OWNER).to_string();
    assert_eq!(Machine::find(&lab.pool, &label).unwrap().uuid(), making.machine().uuid());
    let copy = making.finish().await.unwrap();
    assert_eq!(copy.name(), "web-2");
    assert_eq!(copy.tags(), Some(tags("web-2")));
    let found = Machine::find(&lab.pool, "web-2").unwrap();
    assert_eq!(found.uuid(), copy.uuid());
    let (one, other) = (origin.details().unwrap(), copy.details().unwrap());
    assert_ne!(one.disks[0].uuid, other.disks[0].uuid);
    assert_ne!(one.interfaces[0].mac, other.interfaces[0].mac);
    assert_eq!(other.state, PowerState::Halted);
    copy.start(None).await.unwrap();
    let deleted = copy.delete().await.unwrap();
    assert_eq!((deleted.disks, deleted.kept.len()), (1, 0));
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn a_running_vm_is_copied_by_a_snapshot_that_is_removed_again() {
    let lab = lab().await;
    let origin = lab.running("web").await;
    let (vms, disks) = lab.counts().await;
    let making = origin.clone_as(&NewVm::new(name("web-2"), MAKING)).await.unwrap();
    let copy = making.finish().await.unwrap();
    assert_eq!(lab.counts().await, (vms + 1, disks + 1));
    assert_eq!(origin.snapshots().unwrap(), []);
    assert_eq!(origin.details().unwrap().state, PowerState::Running);
    copy.start(None).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_is_abandoned_leaves_nothing() {
    let lab = lab().await;
    let origin = lab.ours("web").await;
    let before = lab.counts().await;
    let making = origin.clone_as(&NewVm::new(name("web-2"), MAKING)).await.unwrap();
    making.abandon().await.unwrap();
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn a_copy_whose_answer_is_lost_is_found_by_its_name() {
    let lab = lab().await;
    let origin = lab.ours("web").await;
    let (vms, disks) = lab.counts().await;
    lab.sim.fault(FaultRule::new("VM.clone", Fault::DropAfter).times(1));
    let making = origin.clone_as(&NewVm::new(name("web-2"), MAKING)).await.unwrap();
    making.finish().await.unwrap();
    assert_eq!(lab.counts().await, (vms + 1, disks + 1));
}

#[tokio::test]
async fn marks_whose_answers_are_lost_are_set_again() {
    let lab = lab().await;
    let origin = lab.running("web").await;
    for fault in [Fault::DropAfter, Fault::DropBefore] {
        for call in [
            "VM.remove_from_other_config",
            "VM.add_to_other_config",
            "VM.set_is_a_template",
            "VM.set_name_label",
        ] {
            lab.sim.fault(FaultRule::new(call, fault.clone()).times(1));
        }
        let making = origin.clone_as(&NewVm::new(name("web-2"), MAKING)).await.unwrap();
        let copy = making.finish().await.unwrap();
        assert_eq!(copy.tags(), Some(tags("web-2")));
        copy.delete().await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_that_stays_a_template_is_undone() {
    let lab = lab().await;
    let origin = lab.running("web").await;
    let before = lab.counts().await;
    lab.sim.fail_next("VM.set_is_a_template", "INTERNAL_ERROR", &["no"]);
    origin.clone_as(&NewVm::new(name("web-2"), MAKING)).await.unwrap_err();
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn a_copy_that_cannot_be_marked_is_undone() {
    let lab = lab().await;
    let origin = lab.vm("foreign", None).await;
    let before = lab.counts().await;
    lab.sim.fail_next("VM.add_to_other_config", "INTERNAL_ERROR", &["no"]);
    let error = origin.clone_as(&NewVm::new(name("web-2"), MAKING)).await.unwrap_err();
    assert_eq!(error.code(), Some("INTERNAL_ERROR"));
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn a_copy_of_a_running_vm_for_which_there_is_no_room_leaves_nothing() {
    let lab = lab().await;
    let origin = lab.running("web").await;
    let before = lab.counts().await;
    lab.sim.fail_next("VM.clone", "SR_BACKEND_FAILURE_44", &["", "no space", ""]);
    let error = origin.clone_as(&NewVm::new(name("web-2"), MAKING)).await.unwrap_err();
    assert_eq!(error.code(), Some("SR_BACKEND_FAILURE_44"));
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn a_copy_does_not_take_a_name_that_is_taken() {
    let lab = lab().await;
    let origin = lab.ours("web").await;
    let error = origin.clone_as(&NewVm::new(name("web"), MAKING)).await.unwrap_err();
    assert!(matches!(&error, MachineError::Refused { reason, .. }
        if matches!(**reason, Refusal::NameTaken { .. })));
}

#[tokio::test]
async fn no_more_copies_are_made_at_once_than_a_storage_is_given() {
    let lab = lab().await;
    let origin = lab.ours("web").await;
    lab.sim.set_latency("VM.clone", Duration::from_millis(200));
    let mut copies = tokio::task::JoinSet::new();
    for number in 0..6 {
        let origin = origin.clone();
        copies.spawn(async move {
            let new = NewVm::new(name(&format!("web-{number}")), Uuid::from_u128(number));
            origin.clone_as(&new).await.unwrap().finish().await.unwrap()
        });
    }
    let mut most = 0;
    while !copies.is_empty() {
        let vm = lab.pool.client().vm().get_record(origin.reference()).await.unwrap();
        most = most.max(vm.current_operations.len());
        while copies.try_join_next().transpose().unwrap().is_some() {}
        tokio::task::yield_now().await;
    }
    assert!((2..=4).contains(&most), "{most}");
}
