//! Machines and wires that are lost while code runs, and fleets that are.

use bioxen::{EndedBy, EvalError, Value, Vm};
use bioxen_core::Place;
use bioxen_xcp::ssh::{Command, Exit};
use bytes::Bytes;

use crate::cable::Cable;
use crate::lab::{Lab, begun};
use crate::support::{machines, nothing_is_left_of};

/// The run was lost, its VM says so, and can be started again.
async fn is_lost_and_can_be_started(vm: &Vm, running: bioxen::Running) {
    let run = running.finish().await.unwrap();
    let ending = &run.record.ending;
    assert_eq!(ending.ended_by, EndedBy::Lost);
    assert_eq!((ending.exit_code, ending.state_kept), (125, false));
    assert_eq!(vm.status().name(), "failed");
    let refused = vm.eval("1").await.unwrap_err();
    assert!(matches!(refused, EvalError::NotRunning { .. }), "{refused}");
    vm.start().await.unwrap_or_else(|error| panic!("{}", crate::lab::chain(&error)));
    let run = vm.eval("return x, 6 * 7").await.unwrap();
    assert_eq!(run.record.values, [Value::Nil, Value::Integer(42)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_reset_in_the_middle_of_a_run_can_be_used_again() {
    let lab = Lab::new().await;
    let vm = lab.vm("gc").await;
    let running = begun(&vm).await;
    lab.onlooker.vm().hard_reboot(&lab.machine().await).await.unwrap();
    is_lost_and_can_be_started(&vm, running).await;
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_somebody_turned_off_is_started_again() {
    let lab = Lab::new().await;
    let vm = lab.vm("gc").await;
    let running = begun(&vm).await;
    lab.onlooker.vm().hard_shutdown(&lab.machine().await).await.unwrap();
    is_lost_and_can_be_started(&vm, running).await;
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_restarts_by_itself_in_the_middle_of_a_run_can_be_used_again() {
    let lab = Lab::new().await;
    let vm = lab.vm("gc").await;
    let running = begun(&vm).await;
    let connection = lab.backend.connection(vm.name()).await.unwrap();
    let reboot = Command::new("sudo").argument("reboot");
    let limit = std::time::Duration::from_secs(30);
    // The answer may be lost with the guest.
    if let Ok(output) = connection.run(&reboot, Bytes::new(), 1 << 10, limit).await {
        assert!(
            matches!(output.exit, Exit::Code(0) | Exit::Unknown | Exit::Signal(_)),
            "{output:?}"
        );
    }
    is_lost_and_can_be_started(&vm, running).await;
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_in_the_middle_of_a_run_is_made_again() {
    let lab = Lab::new().await;
    let mut spec = lab.spec("gc");
    let Place::Xcpng(machine) = &mut spec.place else { panic!("another place") };
    let cable = Cable::to(machine.port.unwrap()).await;
    machine.port = Some(cable.port());
    let vm = lab.fleet.create(spec).await.unwrap();
    let running = begun(&vm).await;
    let before = workers(&lab, &vm).await;
    cable.cut();
    is_lost_and_can_be_started(&vm, running).await;
    // Nobody is left to run code that nobody waits for.
    assert_eq!(workers(&lab, &vm).await, before);
    lab.close().await;
}

/// How many processes of workers there are in the guest of a VM.
async fn workers(lab: &Lab, vm: &Vm) -> u32 {
    let connection = lab.backend.connection(vm.name()).await.unwrap();
    let count =
        Command::new("pgrep").arguments(["--count", "--runstates", "D,R,S,T", "^bioxen-worker"]);
    let limit = std::time::Duration::from_secs(30);
    let counted = connection.run(&count, Bytes::new(), 1 << 10, limit).await.unwrap();
    String::from_utf8_lossy(&counted.stdout).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_between_two_runs_is_made_again() {
    let lab = Lab::new().await;
    let mut spec = lab.spec("gc");
    let Place::Xcpng(machine) = &mut spec.place else { panic!("another place") };
    let cable = Cable::to(machine.port.unwrap()).await;
    machine.port = Some(cable.port());
    let vm = lab.fleet.create(spec).await.unwrap();
    vm.eval("x = 1").await.unwrap();
    cable.cut();
    match vm.eval("x").await {
        Ok(run) => assert_eq!(run.record.ending.ended_by, EndedBy::Lost),
        Err(error) => assert!(matches!(error, EvalError::NotRunning { .. }), "{error}"),
    }
    vm.start().await.unwrap();
    assert_eq!(vm.eval("x").await.unwrap().value(), &Value::Nil);
    lab.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_dropped_without_a_shutdown_leaves_nothing() {
    let lab = Lab::new().await;
    let vm = lab.vm("gc").await;
    drop(begun(&vm).await);
    let fleet = lab.backend.fleet();
    assert_eq!(machines(&lab.onlooker, fleet).await.len(), 1);
    let Lab { pool, onlooker, backend, fleet: handle } = lab;
    drop((vm, handle, backend));
    let going = async {
        while !machines(&onlooker, fleet).await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(bioxen_testkit::PATIENCE, going).await.expect("its machine goes");
    nothing_is_left_of(&onlooker, fleet).await;
    pool.sim.stop().await;
}
