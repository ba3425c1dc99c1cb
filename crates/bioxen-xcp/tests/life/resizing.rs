use std::time::Duration;

use bioxen_core::ByteSize;
use bioxen_xcp::machine::{MachineError, PowerState, Refusal, Resize, Size, Stop, Stopped};

use crate::support::{MINUTE, lab};

const GIB: u64 = 1 << 30;

#[tokio::test]
async fn a_vm_that_is_off_gets_all_it_is_to_have() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    let wanted = Resize {
        memory: Some(ByteSize::gib(6)),
        vcpus: Some(6),
        disk: Some(ByteSize::gib(12)),
        stop_if_needed: None,
    };
    let resized = machine.resize(&wanted).await.unwrap();
    let all = [Size::Disk(12 * GIB), Size::Memory(6 * GIB), Size::Vcpus(6)];
    assert_eq!(resized.changed, all);
    let details = machine.details().unwrap();
    assert_eq!((details.memory, details.vcpus, details.vcpus_max), (6 * GIB, 6, 6));
    assert_eq!(details.disks[0].size, 12 * GIB);
    assert_eq!(machine.resize(&wanted).await.unwrap().changed, []);
    let less = Resize { memory: Some(ByteSize::mib(256)), vcpus: Some(1), ..Resize::default() };
    machine.resize(&less).await.unwrap();
    let details = machine.details().unwrap();
    assert_eq!((details.memory, details.vcpus), (256 << 20, 1));
    machine.start(None).await.unwrap();
}

#[tokio::test]
async fn what_can_be_done_while_it_runs_is() {
    let lab = lab().await;
    let machine = lab.running("web").await;
    let wanted = Resize { memory: Some(ByteSize::gib(1)), vcpus: Some(1), ..Resize::default() };
    let plan = machine.plan_resize(&wanted).await.unwrap();
    assert_eq!((plan.changes.len(), plan.needs_stop.len()), (2, 0));
    let resized = machine.resize(&wanted).await.unwrap();
    assert_eq!(resized.changed, plan.changes);
    assert_eq!(resized.changed, [Size::Memory(GIB), Size::Vcpus(1)]);
    assert_eq!(resized.stopped, None);
    let details = machine.details().unwrap();
    assert_eq!((details.memory, details.vcpus), (GIB, 1));
    assert_eq!(details.state, PowerState::Running);
    let disk = Resize { disk: Some(ByteSize::gib(11)), ..Resize::default() };
    assert_eq!(machine.resize(&disk).await.unwrap().changed, [Size::Disk(11 * GIB)]);
}

#[tokio::test]
async fn what_cannot_is_refused_before_anything_changes_or_done_by_a_stop() {
    let lab = lab().await;
    let machine = lab.running("web").await;
    let before = machine.details().unwrap();
    let mut wanted = Resize {
        memory: Some(ByteSize::gib(4)),
        disk: Some(ByteSize::gib(11)),
        ..Resize::default()
    };
    let error = machine.resize(&wanted).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::Refused { reason, .. }
        if matches!(&**reason, Refusal::NeedsStop { what } if what.len() == 1)),
        "{error:?}"
    );
    lab.caught_up().await;
    assert_eq!(machine.details().unwrap(), before);
    wanted.stop_if_needed = Some(Stop { grace: MINUTE });
    let resized = machine.resize(&wanted).await.unwrap();
    assert_eq!(resized.stopped, Some(Stopped::Cleanly));
    let details = machine.details().unwrap();
    assert_eq!((details.memory, details.state), (4 * GIB, PowerState::Running));
    assert_eq!(details.disks[0].size, 11 * GIB);
}

#[tokio::test]
async fn a_vm_that_was_stopped_for_a_change_that_fails_runs_again() {
    let lab = lab().await;
    let machine = lab.running("web").await;
    lab.sim.fail_next("VM.set_memory_limits", "INTERNAL_ERROR", &["no"]);
    let wanted = Resize {
        memory: Some(ByteSize::gib(4)),
        stop_if_needed: Some(Stop { grace: Duration::ZERO }),
        ..Resize::default()
    };
    let error = machine.resize(&wanted).await.unwrap_err();
    assert_eq!(error.code(), Some("INTERNAL_ERROR"));
    assert!(error.to_string().contains("change the memory of vm `web`"), "{error}");
    lab.caught_up().await;
    let details = machine.details().unwrap();
    assert_eq!((details.memory, details.state), (2 * GIB, PowerState::Running));
}

#[tokio::test]
async fn a_disk_for_which_there_is_no_room_says_so() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    lab.sim.fail_next("VDI.resize", "SR_BACKEND_FAILURE_44", &["", "no space", ""]);
    let wanted = Resize { disk: Some(ByteSize::gib(20)), ..Resize::default() };
    let error = machine.resize(&wanted).await.unwrap_err();
    assert!(error.to_string().contains("grow the disk of vm `web`"), "{error}");
    assert!(error.hint().unwrap().contains("full"));
}
