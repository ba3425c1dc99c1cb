//! What several of these tests need.

use bioxen::{EndedBy, EvalError, Fleet, Run, Running, Vm, VmSpec, VmState};
use bioxen_testkit::Process;

/// Code that says when it has begun, and then never ends.
pub(crate) const ENDLESS: &str = "print('begun') local x = 0 while true do x = x + 1 end";

pub(crate) fn spec(name: &str) -> VmSpec {
    VmSpec::basic(name).expect("tests use valid names")
}

pub(crate) async fn create(fleet: &Fleet, name: &str) -> Vm {
    fleet.create(spec(name)).await.expect("it can be created")
}

/// The names of all VMs.
pub(crate) fn names(fleet: &Fleet) -> Vec<String> {
    fleet.vms().iter().map(|vm| vm.name().to_string()).collect()
}

/// The process of a running VM's worker.
pub(crate) fn worker_of(vm: &Vm) -> Process {
    match vm.status() {
        VmState::Running { process: Some(pid), .. } => Process::of(pid),
        other => panic!("it is {other:?}"),
    }
}

/// The process that a VM's worker was forked from.
pub(crate) fn zygote_of(vm: &Vm) -> Process {
    worker_of(vm).parent().expect("it has a parent")
}

/// Starts code and waits until it has written something.
pub(crate) async fn begun(vm: &Vm, code: &'static str) -> Running {
    let mut running = vm.eval(code).start().await.expect("it starts");
    running.next_chunk().await.expect("it runs").expect("it has written");
    running
}

#[track_caller]
pub(crate) fn ended(outcome: Result<Run, EvalError>, by: EndedBy) -> Run {
    let run = outcome.unwrap_or_else(|error| panic!("no run: {error}"));
    assert_eq!(run.record.ending.ended_by, by, "{:?}", run.record.error);
    run
}

/// Checks that a VM runs code.
pub(crate) async fn check_works(vm: &Vm) {
    let run = ended(vm.eval("return 6 * 7").await, EndedBy::Finished);
    assert_eq!(run.value().as_i64(), Some(42));
}
