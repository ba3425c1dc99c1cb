//! The life of a VM: states, events, health, and the end of its fleet.

use bioxen::{EndedBy, EvalError, Event, Fleet, Health, RemoveError, StartVmError, VmState};
use bioxen_testkit::{block_on, eventually, fleet, worker_program};
use nix::sys::signal::Signal;

use crate::common::{ENDLESS, begun, check_works, create, ended, names, spec, worker_of};

/// What an event is, in a word, and the VM that it happened to.
fn told(event: &Event) -> String {
    let json = serde_json::to_value(event).unwrap();
    format!("{} {}", json["event"].as_str().unwrap(), event.vm())
}

#[test]
fn events_tell_a_life_in_order() {
    block_on(async {
        let fleet = fleet();
        let mut events = fleet.events();
        let vm = create(&fleet, "vm").await;
        vm.eval("1").await.unwrap();
        let running = begun(&vm, ENDLESS).await;
        worker_of(&vm).signal(Signal::SIGKILL);
        ended(running.finish().await, EndedBy::Killed);
        vm.start().await.unwrap();
        vm.stop().await.unwrap();
        vm.start().await.unwrap();
        fleet.remove("vm").await.unwrap();
        drop((vm, fleet));
        let mut all = Vec::new();
        while let Some(event) = events.next().await {
            all.push(told(&event));
        }
        let expected = [
            "vm_created vm",
            "run_started vm",
            "run_ended vm",
            "run_started vm",
            "vm_failed vm",
            "run_ended vm",
            "vm_started vm",
            "vm_stopped vm",
            "vm_started vm",
            "vm_stopped vm",
            "vm_removed vm",
        ];
        assert_eq!(all, expected);
    });
}

#[test]
fn a_reader_of_events_that_is_dropped_disturbs_nobody() {
    block_on(async {
        let fleet = fleet();
        drop(fleet.events());
        let mut events = fleet.events();
        let vm = create(&fleet, "vm").await;
        check_works(&vm).await;
        assert_eq!(told(&events.next().await.unwrap()), "vm_created vm");
    });
}

#[test]
fn the_numbers_of_a_fleet_are_counted() {
    block_on(async {
        let fleet = fleet();
        let (one, two) = (create(&fleet, "one").await, create(&fleet, "two").await);
        one.eval("1").await.unwrap();
        let running = begun(&one, ENDLESS).await;
        two.stop().await.unwrap();
        let stats = fleet.stats();
        assert_eq!((stats.vms, stats.runs, stats.runs_in_progress), (2, 2, 1));
        assert_eq!(stats.by_state, [("running", 1), ("stopped", 1)].into());
        assert_eq!(stats.by_type, [(bioxen::VmType::Basic, 2)].into());
        running.canceller().cancel();
        ended(running.finish().await, EndedBy::Cancelled);
        assert_eq!(fleet.stats().runs_in_progress, 0);
        let json = serde_json::to_value(fleet.stats()).unwrap();
        assert_eq!(json["by_type"], serde_json::json!({"basic": 2}));
    });
}

#[test]
fn stopping_and_starting_are_told_apart_from_what_they_find() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        let error = vm.start().await.unwrap_err();
        assert!(matches!(error, StartVmError::AlreadyRunning { state: "running", .. }), "{error}");
        assert!(error.hint().is_some());
        let worker = worker_of(&vm);
        vm.stop().await.unwrap();
        assert!(!worker.is_alive());
        assert_eq!(vm.status(), VmState::Stopped);
        vm.stop().await.unwrap();
        let error = vm.eval("1").await.unwrap_err();
        assert!(matches!(&error, EvalError::NotRunning { state, .. } if state == "stopped"));
        let starts = [vm.start(), vm.start(), vm.start()];
        let started = futures::future::join_all(starts).await;
        assert_eq!(started.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{started:?}");
        check_works(&vm).await;
    });
}

#[test]
fn a_vm_that_runs_code_says_that_it_is_busy() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        assert!(matches!(vm.status(), VmState::Running { busy: false, .. }));
        let running = begun(&vm, ENDLESS).await;
        assert!(matches!(vm.status(), VmState::Running { busy: true, .. }));
        drop(running);
        eventually("it is free again", || {
            matches!(vm.status(), VmState::Running { busy: false, .. })
        })
        .await;
    });
}

#[test]
fn all_that_is_known_about_a_vm_is_data() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        vm.eval("1").await.unwrap();
        let json = serde_json::to_value(vm.info()).unwrap();
        assert_eq!(json["name"], "vm");
        assert_eq!(json["type"], "basic");
        assert_eq!(json["state"], "running");
        assert_eq!(json["busy"], false);
        assert_eq!(json["runs"], 1);
        assert!(json["process"].as_u64().is_some());
        assert!(json["interpreter"]["version"].as_str().unwrap().starts_with("Lua 5.4"));
        assert!(json["isolation"]["active"].as_array().unwrap().len() >= 3);
        assert!(json["overall_health"].is_string());
        vm.stop().await.unwrap();
        let json = serde_json::to_value(vm.info()).unwrap();
        assert_eq!(json["state"], "stopped");
        assert!(json["isolation"].is_null());
    });
}

#[test]
fn health_says_what_is_missing_and_what_went_wrong() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        match vm.health() {
            Health::Healthy => {}
            // On a machine without some mechanism.
            Health::Degraded(findings) => {
                assert!(findings.iter().all(|finding| finding.contains("is not active: ")));
            }
            Health::Error(findings) => panic!("{findings:?}"),
        }
        let running = begun(&vm, ENDLESS).await;
        worker_of(&vm).signal(Signal::SIGKILL);
        ended(running.finish().await, EndedBy::Killed);
        let Health::Error(findings) = vm.health() else { panic!("{:?}", vm.health()) };
        assert!(findings[0].contains("killed"), "{findings:?}");
        vm.start().await.unwrap();
        assert!(!matches!(vm.health(), Health::Error(_)));
    });
}

#[test]
fn a_removed_vm_says_so_to_whoever_still_holds_it() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        let running = begun(&vm, ENDLESS).await;
        let waiting = {
            let vm = vm.clone();
            tokio::spawn(async move { vm.eval("1").await })
        };
        // The second call stands in the queue before the VM goes.
        eventually("it waits", || fleet.stats().runs_in_progress >= 1).await;
        tokio::task::yield_now().await;
        fleet.remove("vm").await.unwrap();
        ended(running.finish().await, EndedBy::Cancelled);
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, EvalError::Removed { .. }), "{error}");
        assert!(matches!(vm.eval("1").await.unwrap_err(), EvalError::Removed { .. }));
        let error = vm.start().await.unwrap_err();
        assert!(matches!(error, StartVmError::Removed { .. }) && error.hint().is_some(), "{error}");
        vm.stop().await.unwrap();
        let error = fleet.remove("vm").await.unwrap_err();
        assert!(matches!(error, RemoveError::NoSuchVm(_)), "{error}");
        let again = create(&fleet, "vm").await;
        check_works(&again).await;
        assert!(vm.eval("1").await.is_err(), "the old handle is not one on the new VM");
    });
}

#[test]
fn a_fleet_ends_all_when_it_is_shut_down_and_can_be_used_again() {
    block_on(async {
        let fleet = fleet();
        let (one, two) = (create(&fleet, "one").await, create(&fleet, "two").await);
        let workers = [worker_of(&one), worker_of(&two)];
        let running = begun(&one, ENDLESS).await;
        fleet.shutdown().await.unwrap();
        assert!(workers.iter().all(|worker| !worker.is_alive()));
        ended(running.finish().await, EndedBy::Cancelled);
        assert_eq!(names(&fleet), [""; 0]);
        assert!(matches!(two.eval("1").await.unwrap_err(), EvalError::Removed { .. }));
        fleet.shutdown().await.unwrap();
        fleet.shutdown().await.unwrap();
        check_works(&create(&fleet, "one").await).await;
        fleet.shutdown().await.unwrap();
    });
}

#[test]
fn a_vm_that_outlives_its_fleet_is_no_use() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        let worker = worker_of(&vm);
        drop(fleet);
        worker.wait_for_end();
        assert!(matches!(vm.eval("1").await.unwrap_err(), EvalError::Removed { .. }));
        assert!(matches!(vm.start().await.unwrap_err(), StartVmError::Removed { .. }));
        vm.stop().await.unwrap();
    });
}

#[test]
fn a_clone_of_a_fleet_is_the_same_fleet() {
    block_on(async {
        let fleet = fleet();
        let other = fleet.clone();
        let vm = create(&fleet, "vm").await;
        drop(fleet);
        check_works(&vm).await;
        assert_eq!(names(&other), ["vm"]);
    });
}

#[test]
fn no_more_runs_than_allowed_are_in_progress_at_once() {
    block_on(async {
        let fleet =
            Fleet::builder().worker_program(worker_program()).standby(0).most_running(1).build();
        let (one, two) = (create(&fleet, "one").await, create(&fleet, "two").await);
        let first = begun(&one, ENDLESS).await;
        let second = tokio::spawn(async move { two.eval("1").await });
        // It has had every chance to begin when other VMs were made and removed meanwhile.
        for _ in 0..3 {
            create(&fleet, "other").await;
            fleet.remove("other").await.unwrap();
        }
        assert!(!second.is_finished());
        drop(first);
        ended(second.await.unwrap(), EndedBy::Finished);
    });
}

#[test]
fn the_verbs_are_the_same_without_an_async_runtime() {
    let builder = Fleet::builder().worker_program(worker_program()).standby(0);
    let fleet = bioxen::blocking::Fleet::from_builder(builder).unwrap();
    let vm = fleet.create(spec("vm")).unwrap();
    vm.eval("x = 1").unwrap();
    assert_eq!(vm.eval("x").unwrap().value().as_i64(), Some(1));
    assert!(vm.eval_fresh("x").unwrap().value().as_i64().is_none());
    let short = std::time::Duration::from_millis(200);
    let run = vm.eval_within("while true do end", short).unwrap();
    assert_eq!(run.record.ending.ended_by, EndedBy::WallTime);
    assert!(vm.session().evaluate("for i = 1,").unwrap().incomplete);
    let group = fleet.create_group("g", 2, spec("unused")).unwrap();
    assert_eq!(group.broadcast("1").len(), 2);
    assert_eq!(fleet.broadcast("g_*", "1").unwrap().len(), 2);
    assert_eq!(group.remove().removed.len(), 2);
    vm.stop().unwrap();
    vm.start().unwrap();
    assert_eq!(vm.status().name(), "running");
    fleet.remove("vm").unwrap();
    assert!(fleet.vm("vm").is_err() && fleet.find_vm("vm").is_none());
    fleet.shutdown().unwrap();
}
