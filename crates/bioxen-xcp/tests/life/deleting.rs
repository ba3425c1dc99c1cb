use std::time::Duration;

use bioxen_xcp::Machine;
use bioxen_xcp::machine::{Deleted, Done, MachineError, Refusal};
use bioxen_xcp::tags::Tags;
use uuid::Uuid;
use xenapi::enums::{VbdMode, VbdType, VdiType};
use xenapi::{Ref, class, vbd, vdi};
use xenapi_sim::{Fault, FaultRule};

use crate::support::{Lab, OWNER, lab, name, tags};

/// A disk with these marks.
async fn disk(lab: &Lab, label: &str, tags: Option<&Tags>) -> Ref<class::Vdi> {
    let (sr, _) = lab.storage("Local storage").await;
    let wanted = vdi::Record {
        name_label: label.into(),
        sr,
        virtual_size: 10 << 20,
        r#type: VdiType::User,
        other_config: tags.map(|tags| tags.entries().collect()).unwrap_or_default(),
        ..Default::default()
    };
    lab.pool.client().vdi().create(&wanted).await.unwrap()
}

async fn attach(lab: &Lab, machine: &Machine, disk: &Ref<class::Vdi>, position: &str) {
    let wanted = vbd::Record {
        vm: machine.reference().clone(),
        vdi: disk.clone(),
        userdevice: position.into(),
        mode: VbdMode::Rw,
        r#type: VbdType::Disk,
        ..Default::default()
    };
    lab.pool.client().vbd().create(&wanted).await.unwrap();
    lab.caught_up().await;
}

fn refusal(error: MachineError) -> Refusal {
    match error {
        MachineError::Refused { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_vm_goes_with_its_snapshots_and_disks_running_or_not() {
    let lab = lab().await;
    let before = lab.counts().await;
    let machine = lab.running("web").await;
    machine.snapshot("one").await.unwrap();
    machine.snapshot("two").await.unwrap();
    lab.pool.client().vm().checkpoint(machine.reference(), "awake").await.unwrap();
    let deleted = machine.delete().await.unwrap();
    assert_eq!((deleted.vm, deleted.snapshots, deleted.disks), (Done::Now, 3, 1));
    assert!(deleted.freed > 0);
    assert_eq!(lab.counts().await, before);
    let again = machine.delete().await.unwrap();
    assert_eq!((again.vm, again.disks), (Done::Already, 0));
    assert!(matches!(Machine::find(&lab.pool, "web").unwrap_err(), MachineError::NotFound { .. }));
}

#[tokio::test]
async fn our_seed_goes_with_it_and_disks_of_others_stay() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    let other = lab.ours("other").await;
    let seed = disk(&lab, "seed", Some(&tags("web"))).await;
    let data = disk(&lab, "data", None).await;
    let shared = disk(&lab, "shared", Some(&tags("web"))).await;
    attach(&lab, &machine, &seed, "1").await;
    attach(&lab, &machine, &data, "2").await;
    attach(&lab, &machine, &shared, "4").await;
    attach(&lab, &other, &shared, "4").await;
    let deleted = machine.delete().await.unwrap();
    assert_eq!(deleted.disks, 2, "the system's and the seed");
    let kept: Vec<_> = deleted.kept.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(kept, ["data", "shared"]);
    let left = lab.pool.client().vdi().get_all().await.unwrap();
    assert!(left.contains(&data) && left.contains(&shared) && !left.contains(&seed));
}

#[tokio::test]
async fn what_is_not_ours_or_adopted_is_not_deleted() {
    let lab = lab().await;
    let foreign = Tags { owner: Uuid::from_u128(0xf0), ..tags("theirs") };
    let unmarked = lab.vm("found", None).await;
    let theirs = lab.vm("theirs", Some(&foreign)).await;
    let before = lab.counts().await;
    let error = unmarked.delete().await.unwrap_err();
    assert_eq!(refusal(error), Refusal::NotOurs { owner: None });
    let error = theirs.delete().await.unwrap_err();
    assert_eq!(refusal(error), Refusal::NotOurs { owner: Some(foreign.owner) });
    assert_eq!(unmarked.adopt(&name("mine")).await.unwrap(), Done::Now);
    assert_eq!(unmarked.adopt(&name("mine")).await.unwrap(), Done::Already);
    let error = unmarked.delete().await.unwrap_err();
    assert!(error.hint().unwrap().contains("bioxen vm forget"), "{:?}", error.hint());
    assert_eq!(refusal(error), Refusal::Adopted);
    assert_eq!(refusal(unmarked.expire(None).await.unwrap_err()), Refusal::Adopted);
    assert_eq!(unmarked.forget().await.unwrap(), Done::Now);
    assert_eq!(unmarked.forget().await.unwrap(), Done::Already);
    assert_eq!(unmarked.tags(), None);
    let error = theirs.adopt(&name("mine")).await.unwrap_err();
    assert_eq!(refusal(error), Refusal::NotOurs { owner: Some(foreign.owner) });
    let ours = lab.ours("web").await;
    assert_eq!(refusal(ours.adopt(&name("web")).await.unwrap_err()), Refusal::Made);
    assert_eq!(refusal(ours.forget().await.unwrap_err()), Refusal::Made);
    ours.delete().await.unwrap();
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn two_controllers_that_delete_one_vm_both_succeed() {
    let lab = lab().await;
    let before = lab.counts().await;
    let machine = lab.running("web").await;
    machine.snapshot("one").await.unwrap();
    let other = lab.controller(OWNER).await;
    let twin = Machine::find(&other, "web").unwrap();
    for call in ["VDI.destroy", "VM.destroy", "VM.hard_shutdown"] {
        lab.sim.set_latency(call, Duration::from_millis(50));
    }
    let (one, two) = tokio::join!(machine.delete(), twin.delete());
    let (one, two): (Deleted, Deleted) = (one.unwrap(), two.unwrap());
    assert!(one.vm == Done::Now || two.vm == Done::Now, "{one:?} {two:?}");
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn a_disk_that_trails_after_its_vm_is_waited_for() {
    let lab = lab().await;
    let before = lab.counts().await;
    let machine = lab.ours("web").await;
    let in_use = Fault::Error(["VDI_IN_USE", "OpaqueRef:x", "destroy"].map(Into::into).to_vec());
    lab.sim.fault(FaultRule::new("VDI.destroy", in_use).times(3));
    assert_eq!(machine.delete().await.unwrap().disks, 1);
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn answers_that_are_lost_on_the_way_leave_nothing() {
    let lab = lab().await;
    let before = lab.counts().await;
    for call in ["VDI.destroy", "VM.destroy", "VM.hard_shutdown"] {
        for fault in [Fault::DropBefore, Fault::DropAfter] {
            let machine = lab.running("web").await;
            let number = lab.sim.fault(FaultRule::new(call, fault.clone()).times(1));
            machine.delete().await.unwrap();
            lab.sim.forget_fault(Some(number));
            assert_eq!(lab.counts().await, before, "{call} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_deletion_that_is_broken_off_anywhere_is_finished_by_the_next() {
    let lab = lab().await;
    let before = lab.counts().await;
    for call in ["VM.hard_shutdown", "VDI.destroy", "VM.destroy"] {
        let machine = lab.running("web").await;
        machine.snapshot("one").await.unwrap();
        let refuse = Fault::Error(vec!["INTERNAL_ERROR".into(), "broken off".into()]);
        let number = lab.sim.fault(FaultRule::new(call, refuse));
        let broken = machine.delete().await;
        assert_eq!(broken.unwrap_err().code(), Some("INTERNAL_ERROR"));
        lab.sim.forget_fault(Some(number));
        let found = Machine::find(&lab.pool, "web").unwrap();
        assert_eq!(found.tags(), Some(tags("web")), "it can be found and deleted");
        found.delete().await.unwrap();
        assert_eq!(lab.counts().await, before);
    }
}

#[tokio::test]
async fn a_deletion_whose_future_is_dropped_is_finished_by_the_next() {
    let lab = lab().await;
    let before = lab.counts().await;
    for call in ["VM.hard_shutdown", "VDI.destroy", "VM.destroy"] {
        let machine = lab.running("web").await;
        machine.snapshot("one").await.unwrap();
        lab.sim.set_latency(call, Duration::from_hours(1));
        let cut = tokio::time::timeout(Duration::from_millis(300), machine.delete()).await;
        assert!(cut.is_err(), "it should hang in {call}");
        lab.sim.set_latency(call, Duration::ZERO);
        machine.delete().await.unwrap();
        assert_eq!(lab.counts().await, before, "{call}");
    }
}
