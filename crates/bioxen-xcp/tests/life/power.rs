use std::time::Duration;

use bioxen_xcp::machine::{
    Done, Machine, MachineError, PowerState, Rebooted, Refusal, Started, Stop, Stopped, WhyHard,
};
use xenapi::enums::VmPowerState;
use xenapi_sim::{Fault, FaultRule, Pool};

use crate::support::{MINUTE, lab, lab_of};

#[tokio::test]
async fn a_vm_is_started_and_stopped_and_saying_it_twice_changes_nothing() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    assert_eq!(machine.start(None).await.unwrap(), Started::Booted);
    assert_eq!(machine.details().unwrap().state, PowerState::Running);
    assert_eq!(machine.start(None).await.unwrap(), Started::Already);
    lab.heard_of(&machine).await;
    assert_eq!(machine.stop(Stop::default()).await.unwrap(), Stopped::Cleanly);
    assert_eq!(machine.details().unwrap().state, PowerState::Halted);
    assert_eq!(machine.stop(Stop::default()).await.unwrap(), Stopped::Already);
}

#[tokio::test]
async fn a_vm_starts_on_the_host_that_is_named_and_is_not_said_to_where_it_runs_elsewhere() {
    let lab = lab_of(Pool::builder().hosts(2)).await;
    let machine = lab.ours("web").await;
    let hosts = lab.hosts().await;
    machine.start(Some(&hosts[1].1)).await.unwrap();
    assert_eq!(machine.details().unwrap().host.as_ref(), Some(&hosts[1].1));
    assert_eq!(machine.start(Some(&hosts[1].1)).await.unwrap(), Started::Already);
    let error = machine.start(Some(&hosts[0].1)).await.unwrap_err();
    assert!(matches!(&error, MachineError::Refused { reason, .. }
        if matches!(&**reason, Refusal::OtherHost { host } if *host == hosts[1].1)));
    let error = machine.start(Some("nowhere")).await.unwrap_err();
    assert!(error.to_string().contains("there is no host `nowhere`"), "{error}");
}

#[tokio::test]
async fn a_clean_shutdown_that_hangs_ends_with_the_grace() {
    let lab = lab().await;
    let machine = lab.running("stubborn").await;
    lab.sim.set_latency("VM.clean_shutdown", Duration::from_hours(1));
    let stopped = machine.stop(Stop { grace: Duration::from_millis(200) }).await.unwrap();
    assert_eq!(stopped, Stopped::Hard(WhyHard::GraceOver));
    assert_eq!(lab.state(&machine).await, VmPowerState::Halted);
}

#[tokio::test]
async fn power_is_cut_at_once_where_the_guest_has_no_tools_or_no_grace() {
    let lab = lab().await;
    let machine = lab.ours("silent").await;
    lab.sim.mute_guest(machine.uuid(), true);
    machine.start(None).await.unwrap();
    let stopped = machine.stop(Stop { grace: MINUTE * 10 }).await.unwrap();
    assert_eq!(stopped, Stopped::Hard(WhyHard::NoTools));
    lab.sim.mute_guest(machine.uuid(), false);
    machine.start(None).await.unwrap();
    lab.heard_of(&machine).await;
    let stopped = machine.stop(Stop { grace: Duration::ZERO }).await.unwrap();
    assert_eq!(stopped, Stopped::Hard(WhyHard::Asked));
}

#[tokio::test]
async fn a_vm_that_somebody_else_stops_meanwhile_is_stopped() {
    let lab = lab().await;
    let machine = lab.running("shared").await;
    lab.sim.set_latency("VM.clean_shutdown", Duration::from_hours(1));
    let stopping = machine.clone();
    let stop = tokio::spawn(async move { stopping.stop(Stop { grace: MINUTE }).await });
    let begun = lab.pool.mirror().wait_for(machine.reference(), "the stop", MINUTE, |vm| {
        (!vm?.current_operations.is_empty()).then_some(())
    });
    begun.await.unwrap();
    lab.pool.client().vm().hard_shutdown(machine.reference()).await.unwrap();
    assert_eq!(stop.await.unwrap().unwrap(), Stopped::Already);
}

#[tokio::test]
async fn a_stop_whose_answer_is_lost_counts_by_the_state_that_is_reached() {
    let lab = lab().await;
    let machine = lab.running("far").await;
    lab.sim.fault(FaultRule::new("VM.clean_shutdown", Fault::DropAfter).times(1));
    assert_eq!(machine.stop(Stop::default()).await.unwrap(), Stopped::Already);
    assert_eq!(lab.state(&machine).await, VmPowerState::Halted);
    for fault in [Fault::DropAfter, Fault::DropBefore] {
        lab.sim.fault(FaultRule::new("VM.start", fault).times(1));
        machine.start(None).await.unwrap();
        assert_eq!(lab.state(&machine).await, VmPowerState::Running);
        lab.heard_of(&machine).await;
        machine.stop(Stop::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_suspended_or_paused_vm_goes_on_when_it_is_started() {
    let lab = lab().await;
    let machine = lab.running("sleeper").await;
    assert_eq!(machine.suspend().await.unwrap(), Done::Now);
    assert_eq!(machine.suspend().await.unwrap(), Done::Already);
    assert_eq!(machine.details().unwrap().state, PowerState::Suspended);
    assert_eq!(machine.start(None).await.unwrap(), Started::Resumed);
    assert_eq!(machine.pause().await.unwrap(), Done::Now);
    assert_eq!(machine.start(None).await.unwrap(), Started::Unpaused);
    assert_eq!(machine.pause().await.unwrap(), Done::Now);
    assert_eq!(machine.unpause().await.unwrap(), Done::Now);
    assert_eq!(machine.unpause().await.unwrap(), Done::Already);
    assert_eq!(machine.suspend().await.unwrap(), Done::Now);
    assert_eq!(machine.resume().await.unwrap(), Done::Now);
    assert_eq!(machine.resume().await.unwrap(), Done::Already);
    machine.suspend().await.unwrap();
    let stopped = machine.stop(Stop::default()).await.unwrap();
    assert_eq!(stopped, Stopped::Hard(WhyHard::Suspended));
}

#[tokio::test]
async fn what_needs_a_running_vm_says_in_which_state_it_is() {
    let lab = lab().await;
    let machine = lab.ours("idle").await;
    for error in [
        machine.reboot(MINUTE).await.unwrap_err(),
        machine.suspend().await.unwrap_err(),
        machine.pause().await.unwrap_err(),
        machine.resume().await.unwrap_err(),
    ] {
        assert!(matches!(error, MachineError::State { state: PowerState::Halted, .. }));
        assert_eq!(error.hint().unwrap(), "start it with `bioxen vm start idle`");
    }
}

#[tokio::test]
async fn a_reboot_is_clean_where_the_guest_does_it_within_the_grace() {
    let lab = lab().await;
    let machine = lab.running("web").await;
    let before = machine.details().unwrap().started.unwrap();
    lab.sim.clock().advance(Duration::from_hours(1));
    assert_eq!(machine.reboot(MINUTE).await.unwrap(), Rebooted::Cleanly);
    lab.caught_up().await;
    assert!(machine.details().unwrap().started.unwrap() > before);
    lab.heard_of(&machine).await;
    lab.sim.set_latency("VM.clean_reboot", Duration::from_hours(1));
    let rebooted = machine.reboot(Duration::from_millis(100)).await.unwrap();
    assert_eq!(rebooted, Rebooted::Hard(WhyHard::GraceOver));
    assert_eq!(lab.state(&machine).await, VmPowerState::Running);
}

#[tokio::test]
async fn a_vm_that_vanished_is_gone_and_no_other_error() {
    let lab = lab().await;
    let machine = lab.ours("ghost").await;
    lab.pool.client().vm().destroy(machine.reference()).await.unwrap();
    let error = machine.start(None).await.unwrap_err();
    assert!(matches!(error, MachineError::Gone { .. }), "{error:?}");
    let error = machine.stop(Stop::default()).await.unwrap_err();
    assert!(matches!(error, MachineError::Gone { .. }), "{error:?}");
    lab.caught_up().await;
    assert!(matches!(machine.details().unwrap_err(), MachineError::Gone { .. }));
}

#[tokio::test]
async fn a_pool_without_a_host_for_it_says_of_each_why_not() {
    let lab = lab_of(Pool::builder().hosts(2)).await;
    let machine = lab.ours("web").await;
    for (host, _, _) in lab.hosts().await {
        lab.pool.client().host().disable(&host, None).await.unwrap();
    }
    let error = machine.start(None).await.unwrap_err();
    let MachineError::NoHost { hosts, .. } = &error else { panic!("{error:?}") };
    assert_eq!(hosts.len(), 2);
    assert!(hosts.iter().all(|(_, reason)| reason.starts_with("HOST_DISABLED")), "{hosts:?}");
}

#[tokio::test]
async fn an_operation_that_the_vm_is_busy_with_is_waited_for() {
    let builder = Pool::builder().queue_limit(Duration::from_millis(10));
    let lab = lab_of(builder).await;
    let machine = lab.ours("busy").await;
    lab.sim.set_latency("VM.snapshot", Duration::from_millis(400));
    let other = machine.clone();
    let snapshot = tokio::spawn(async move { other.snapshot("now").await });
    let begun = lab.pool.mirror().wait_for(machine.reference(), "the snapshot", MINUTE, |vm| {
        (!vm?.current_operations.is_empty()).then_some(())
    });
    begun.await.unwrap();
    assert_eq!(machine.start(None).await.unwrap(), Started::Booted);
    snapshot.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_takes_longer_than_there_is_time_says_so() {
    let lab = lab().await;
    let machine = lab.ours("slow").await.within(Duration::from_millis(300));
    lab.sim.set_latency("VM.start", Duration::from_hours(1));
    let error = machine.start(None).await.unwrap_err();
    assert!(matches!(&error, MachineError::Pool { step: "start", .. }), "{error:?}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("did not end within"), "{source}");
}

#[tokio::test]
async fn a_machine_is_found_by_its_name_and_its_uuid() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    let found = Machine::find(&lab.pool, "web").unwrap();
    assert_eq!(found.uuid(), machine.uuid());
    lab.ours("web").await;
    let error = Machine::find(&lab.pool, "web").unwrap_err();
    assert!(error.to_string().contains(&machine.uuid().to_string()), "{error}");
    assert_eq!(Machine::all(&lab.pool).len(), 2);
    let error = Machine::find(&lab.pool, "Debian 12 (cloud-init)").unwrap_err();
    assert!(matches!(error, MachineError::NotAVm { kind: "template", .. }));
}

#[tokio::test]
async fn details_tell_all_there_is_to_know() {
    let lab = lab().await;
    let machine = lab.running("web").await;
    machine.snapshot("fresh").await.unwrap();
    let details = machine.details().unwrap();
    assert_eq!((details.name.as_str(), details.uuid), ("web", machine.uuid()));
    assert!(details.host.is_some() && details.started.is_some());
    assert_eq!((details.memory, details.vcpus), (2 << 30, 2));
    assert_eq!(details.disks.len(), 1);
    assert_eq!(details.disks[0].size, 10 << 30);
    assert!(details.disks[0].bootable && details.disks[0].goes_with_vm);
    assert_eq!(details.disks[0].device.as_deref(), Some("xvda"));
    assert_eq!(details.interfaces.len(), 1);
    assert!(details.interfaces[0].addresses[0].is_ipv4(), "{:?}", details.interfaces);
    assert_eq!(details.tools.as_deref(), Some("7.33.0"));
    assert_eq!(details.tags, Some(crate::support::tags("web")));
    assert_eq!(details.snapshots[0].name, "fresh");
    assert_eq!(details.template.as_deref(), Some("Debian 12 (cloud-init)"));
    machine.stop(Stop::default()).await.unwrap();
    let details = machine.details().unwrap();
    assert!(details.tools.is_none() && details.started.is_none() && details.host.is_none());
    assert!(details.interfaces[0].addresses.is_empty());
}
