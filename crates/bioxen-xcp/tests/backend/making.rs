//! Guests that do not become what they should, and what is told of those that do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bioxen::{Event, Value};
use bioxen_core::Mechanism;
use bioxen_xcp::Care;
use bioxen_xcp::making::WorkerSource;
use bioxen_xcp::plan::StepKind;
use bioxen_xcp::ssh::files::WorkerImage;
use xenapi_sim::guest::GuestFault;

use crate::lab::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_the_guest_cannot_run_gives_way_to_the_guests_own_interpreter() {
    let garbage = WorkerImage::new(&b"\x7fELF and no more of it"[..]);
    let lab = Lab::with(None, |backend| backend.worker(WorkerSource::Image(garbage))).await;
    let vm = lab.vm("gc").await;
    let run = vm.eval("return 6 * 7").await.unwrap();
    assert_eq!(run.value(), &Value::Integer(42));
    let context = &run.record.context;
    assert!(context.interpreter.program.is_some(), "{:?}", context.interpreter);
    assert!(context.isolation.active.is_empty());
    for mechanism in Mechanism::ALL {
        let reason = &context.isolation.missing[&mechanism];
        assert!(reason.contains("our worker does not run in this guest"), "{mechanism}: {reason}");
    }
    lab.fleet.remove("gc").await.unwrap();
    let (error, told) = lab.refused(lab.spec("held-in").require(Mechanism::LandlockFiles)).await;
    assert!(told.contains("cannot be isolated as demanded"), "{told}");
    assert!(told.contains("our worker does not run in this guest"), "{told}");
    assert!(error.hint().is_some());
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_another_host_key_is_refused_with_both_keys_shown() {
    let lab = Lab::with(Some(GuestFault::WrongHostKey), |backend| backend).await;
    let (error, told) = lab.refused(lab.spec("gc")).await;
    assert!(told.contains("step `ssh` failed"), "{told}");
    assert!(told.contains("is not who it should be"), "{told}");
    assert_eq!(told.matches("SHA256:").count(), 2, "{told}");
    assert!(error.hint().is_some_and(|hint| hint.contains("somebody else")), "{error:?}");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_ssh_server_refuses_is_given_up_in_time() {
    let limit = Duration::from_secs(1);
    let lab =
        Lab::with(Some(GuestFault::SshRefuses), |backend| backend.deadline(StepKind::Ssh, limit));
    let lab = lab.await;
    let (error, told) = lab.refused(lab.spec("gc")).await;
    assert!(told.contains("step `ssh` failed") && told.contains("could not connect to"), "{told}");
    assert!(error.hint().is_some_and(|hint| hint.contains("sshd")), "{error:?}");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_cloud_init_fails_is_undone_and_its_own_words_are_told() {
    let lab = Lab::with(Some(GuestFault::CloudInitFails), |backend| backend).await;
    let (error, told) = lab.refused(lab.spec("gc")).await;
    assert!(told.contains("step `cloud-init` failed"), "{told}");
    assert!(told.contains("Runparts: 1 failures (simulated)"), "{told}");
    assert!(error.hint().is_some_and(|hint| hint.contains("complains about")), "{error:?}");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_tells_no_address_is_given_up_in_time() {
    let limit = Duration::from_millis(500);
    let lab = Lab::with(Some(GuestFault::NoAddress), |backend| {
        backend.deadline(StepKind::Address, limit)
    });
    let lab = lab.await;
    let (error, told) = lab.refused(lab.spec("gc")).await;
    assert!(told.contains("step `address` failed") && told.contains("its address"), "{told}");
    assert!(error.hint().is_some_and(|hint| hint.contains("guest tools")), "{error:?}");
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_are_told_to_those_who_listen_to_the_fleet() {
    let lab = Lab::new().await;
    let mut events = lab.fleet.events();
    let vm = lab.vm("gc").await;
    let (mut begun, mut ended) = (Vec::new(), Vec::new());
    loop {
        let event = events.next().await.unwrap();
        assert_eq!(event.vm(), vm.name());
        match event {
            Event::StepStarted { step, .. } => begun.push(step),
            Event::StepEnded { step, failed, .. } => {
                assert!(failed.is_none() && begun.contains(&step), "{step}: {failed:?}");
                ended.push(step);
            }
            Event::VmCreated { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    // Neither a larger disk nor another network was ordered, and no files.
    let left_out = [StepKind::Disk, StepKind::Network, StepKind::Files];
    let steps = StepKind::ALL.iter().filter(|step| !left_out.contains(step));
    let steps: Vec<_> = steps.map(|step| step.name()).collect();
    for mut told in [begun, ended] {
        let comes = |step: StepKind| told.iter().position(|it| *it == step.name());
        for (one, other) in [
            (StepKind::Clone, StepKind::Provision),
            (StepKind::Provision, StepKind::Size),
            (StepKind::Size, StepKind::Start),
            (StepKind::Seed, StepKind::Start),
            (StepKind::CloudInit, StepKind::Unseed),
            (StepKind::CloudInit, StepKind::Lua),
        ] {
            assert!(comes(one) < comes(other), "{one} before {other}: {told:?}");
        }
        told.sort_by_key(|step| steps.iter().position(|it| it == step));
        assert_eq!(told, steps);
    }
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fails_is_told_with_its_step_and_that_it_was_undone() {
    let lab = Lab::new().await;
    let mut events = lab.fleet.events();
    lab.pool.sim.fail_next("VM.start", "NO_HOSTS_AVAILABLE", &[]);
    let (error, told) = lab.refused(lab.spec("gc")).await;
    assert!(told.contains("step `start` failed"), "{told}");
    assert!(error.hint().is_some_and(|hint| hint.contains("less memory")), "{error:?}");
    let mut failed_step = None;
    loop {
        match events.next().await.unwrap() {
            Event::StepEnded { step, failed: Some(_), .. } => failed_step = Some(step),
            Event::MakingUndone { left, .. } => {
                assert_eq!(left, Vec::<String>::new());
                break;
            }
            Event::StepStarted { .. } | Event::StepEnded { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(failed_step, Some("start"));
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_made_in_parallel_with_no_more_clones_at_once_than_care_allows() {
    let care = Care { clones_per_storage: 2, ..Care::default() };
    let lab = Lab::with(None, |backend| backend.care(care)).await;
    lab.pool.sim.set_latency("VM.clone", Duration::from_millis(300));
    let (onlooker, most) = (lab.onlooker.clone(), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let watching = tokio::spawn(async move {
        loop {
            let tasks = onlooker.task().get_all_records().await.unwrap();
            let clones = tasks.values().filter(|task| {
                task.name_label.contains("VM.clone")
                    && task.status == xenapi::enums::TaskStatusType::Pending
            });
            seen.fetch_max(clones.count(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let group = lab.fleet.create_group("gc", 5, lab.spec("gc")).await.unwrap();
    watching.abort();
    assert_eq!(group.members().len(), 5);
    assert_eq!(most.load(Ordering::Relaxed), 2, "two at once, and never three");
    lab.close().await;
}
