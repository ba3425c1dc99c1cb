//! Runs that do not come to their own end: each has a name, and the numbers behind it.

use std::time::Duration;

use bioxen::{EndedBy, EvalError, Limit, Limits, Run, Running, Stream, Vm};
use bioxen_core::ByteSize;
use nix::sys::signal::Signal;

use super::{Subject, ended, failed, finished};
/// Long enough for a busy machine to begin the run, short enough not to be waited for.
const SHORT: Duration = Duration::from_millis(300);

const ENDLESS: &str = "print('begun') local x = 0 while true do x = x + 1 end";

/// Starts code and waits until it has written something.
pub(super) async fn begun(vm: &Vm, code: &str) -> Running {
    let mut running = vm.eval(code.to_owned()).start().await.expect("it starts");
    running.next_chunk().await.expect("it runs").expect("it has written");
    running
}

fn check_numbers(run: &Run, limit: &str, flag: &str, exit_code: i32) {
    let ending = &run.record.ending;
    assert_eq!(ending.limit.as_deref(), Some(limit), "{ending:?}");
    assert!(ending.peak.is_some(), "{ending:?}");
    assert!(ending.hint.as_ref().is_some_and(|hint| hint.contains(flag)), "{ending:?}");
    assert_eq!(ending.exit_code, exit_code, "{ending:?}");
    assert!(run.record.values.is_empty() && run.record.error.is_none(), "{:?}", run.record);
}

pub async fn a_run_ends_when_its_time_is_up(subject: &Subject) {
    let wall_time = SHORT.into();
    let vm = subject.vm_with(|s| s.limits(Limits { wall_time, ..Limits::default() })).await;
    let run = ended(vm.eval(ENDLESS).await, EndedBy::WallTime);
    check_numbers(&run, "300ms", "--timeout", 124);
    assert_eq!(run.text(), "begun\n");
    assert!(run.record.duration >= SHORT);
    assert_eq!(run.record.ending.state_kept, subject.traits.survives_stopping);
    subject.goes_on(&vm).await;
}

pub async fn a_run_may_have_a_time_of_its_own(subject: &Subject) {
    let vm = subject.vm().await;
    let run = ended(vm.eval(ENDLESS).wall_time(SHORT).await, EndedBy::WallTime);
    assert!(run.record.duration >= SHORT);
    subject.goes_on(&vm).await;
    let unlimited = vm.eval("return 1").wall_time(Limit::Unlimited).await;
    finished(unlimited);
}

pub async fn a_run_that_waits_for_input_ends_when_its_time_is_up(subject: &Subject) {
    let vm = subject.vm().await;
    // Kept, so that the input does not come to its end.
    let (_writer, reader) = tokio::io::duplex(64);
    let run = vm.eval("return io.read()").stdin(reader).wall_time(SHORT).await;
    ended(run, EndedBy::WallTime);
    subject.goes_on(&vm).await;
}

pub async fn a_loop_inside_the_interpreter_ends_when_its_time_is_up(subject: &Subject) {
    let vm = subject.vm().await;
    let backtracking = "(('a'):rep(40)):find(('a*'):rep(40) .. 'b')";
    let run = ended(vm.eval(backtracking).wall_time(SHORT).await, EndedBy::WallTime);
    assert!(!run.record.ending.state_kept, "nothing but the end of the process stops that");
    assert!(run.record.ending.hint.as_ref().is_some_and(|hint| hint.contains("start the VM")));
    assert_eq!(vm.status().name(), "failed");
    let refused = vm.eval("1").await.expect_err("it has failed");
    assert!(matches!(refused, EvalError::NotRunning { .. }) && refused.hint().is_some());
    vm.start().await.expect("it starts");
    finished(vm.eval("1").await);
}

pub async fn a_run_ends_when_its_processor_time_is_up(subject: &Subject) {
    let cpu_time = SHORT.into();
    let vm = subject.vm_with(|s| s.limits(Limits { cpu_time, ..Limits::default() })).await;
    let run = ended(vm.eval(ENDLESS).await, EndedBy::CpuTime);
    check_numbers(&run, "300ms", "--cpu-time", 124);
    assert!(run.record.cpu_time.is_some_and(|used| used >= SHORT / 2), "{:?}", run.record);
    subject.goes_on(&vm).await;
}

pub async fn waiting_costs_no_processor_time(subject: &Subject) {
    let cpu_time = SHORT.into();
    let vm = subject.vm_with(|s| s.limits(Limits { cpu_time, ..Limits::default() })).await;
    let (_writer, reader) = tokio::io::duplex(64);
    let run = vm.eval("return io.read()").stdin(reader).wall_time(4 * SHORT).await;
    ended(run, EndedBy::WallTime);
}

pub async fn a_run_that_needs_too_much_memory_ends(subject: &Subject) {
    let memory = ByteSize::mib(48).into();
    let limited = Limits { memory, ..Limits::default() };
    let vm = subject.vm_with(|spec| spec.limits(limited)).await;
    let hogs = [
        "local t = {} for i = 1, 1e8 do t[i] = i + 0.5 end",
        "local t = {} for i = 1, 1e8 do t[i] = 'string ' .. i end",
        "local s = 'x' while true do s = s .. s end",
        "return (('x'):rep(1e9))",
        "local t = {} while true do t = {t, t, t, t} end",
    ];
    for code in hogs {
        let run = ended(vm.eval(code).await, EndedBy::Memory);
        let ending = &run.record.ending;
        assert_eq!(ending.limit.as_deref(), Some("48.0 MiB"), "{code}: {ending:?}");
        assert!(ending.peak.is_some() && ending.exit_code == 137, "{code}: {ending:?}");
        assert!(ending.hint.as_ref().is_some_and(|h| h.contains("--memory")), "{ending:?}");
        if ending.state_kept {
            finished(vm.eval("collectgarbage()").await);
        } else {
            vm.start().await.expect("it starts");
        }
    }
    // In a VM that has not been at its limit: the heap of a program stays in pieces.
    let vm = subject.vm().await;
    let run = finished(vm.eval("local s = ('x'):rep(20 * 1024 * 1024) return #s").await);
    assert!(run.record.peak_memory.is_some_and(|peak| peak >= 20 << 20), "{:?}", run.record);
    if subject.traits.counts_lua_memory {
        let run = finished(vm.eval("return 1").fresh().await);
        assert!(run.record.peak_memory.is_some_and(|peak| peak < 32 << 20), "{:?}", run.record);
    }
}

pub async fn a_shortage_of_memory_that_is_caught_ends_nothing(subject: &Subject) {
    let memory = ByteSize::mib(48).into();
    let limited = Limits { memory, ..Limits::default() };
    let vm = subject.vm_with(|spec| spec.limits(limited)).await;
    let run = finished(vm.eval("pcall(string.rep, 'x', 1e9)").await);
    assert!(run.record.values[1].as_str().is_some_and(|message| message.contains("memory")));
}

pub async fn a_run_can_be_cancelled(subject: &Subject) {
    let vm = subject.vm().await;
    let running = begun(&vm, ENDLESS).await;
    let canceller = running.canceller();
    canceller.cancel();
    canceller.cancel();
    let run = ended(running.finish().await, EndedBy::Cancelled);
    assert_eq!(run.record.ending.exit_code, 130);
    assert_eq!(run.record.ending.state_kept, subject.traits.survives_stopping);
    subject.goes_on(&vm).await;
    canceller.cancel();
    finished(vm.eval("1").await);
}

pub async fn a_run_that_waits_for_input_can_be_cancelled(subject: &Subject) {
    let vm = subject.vm().await;
    let (_writer, reader) = tokio::io::duplex(64);
    let code = "print('begun') return io.read()";
    let mut running = vm.eval(code).stdin(reader).start().await.expect("it starts");
    running.next_chunk().await.expect("it runs").expect("it has written");
    running.canceller().cancel();
    ended(running.finish().await, EndedBy::Cancelled);
    subject.goes_on(&vm).await;
}

pub async fn a_worker_that_is_killed_from_outside_is_told_as_killed(subject: &Subject) {
    let vm = subject.vm().await;
    let running = begun(&vm, ENDLESS).await;
    assert!(subject.worker_of(&vm).signal(Signal::SIGKILL).await, "it was there");
    let run = ended(running.finish().await, EndedBy::Killed);
    assert_eq!(run.record.ending.exit_code, 137);
    assert!(run.record.ending.hint.is_some() && !run.record.ending.state_kept);
    assert_eq!(vm.status().name(), "failed");
    let refused = vm.eval("1").await.expect_err("it has failed");
    assert!(refused.to_string().contains("killed"), "{refused}");
    vm.start().await.expect("it starts");
    finished(vm.eval("1").await);
}

pub async fn a_worker_that_crashes_is_told_as_crashed(subject: &Subject) {
    let vm = subject.vm().await;
    let running = begun(&vm, ENDLESS).await;
    // A program's runtime may look at the first one itself and take its handler away.
    subject.worker_of(&vm).signal_until_gone(Signal::SIGSEGV).await;
    let run = ended(running.finish().await, EndedBy::Crashed(11));
    assert_eq!(run.record.ending.exit_code, 139);
    vm.start().await.expect("it starts");
    finished(vm.eval("1").await);
}

pub async fn a_worker_that_dies_idle_is_noticed_by_the_next_run(subject: &Subject) {
    let vm = subject.vm().await;
    finished(vm.eval("x = 1").await);
    subject.worker_of(&vm).signal_until_gone(Signal::SIGKILL).await;
    match vm.eval("return x").await {
        Ok(run) => assert_eq!(run.record.ending.ended_by, EndedBy::Killed),
        Err(error) => assert!(matches!(error, EvalError::NotRunning { .. }), "{error}"),
    }
    assert_eq!(vm.status().name(), "failed");
    vm.start().await.expect("it starts");
    assert_eq!(finished(vm.eval("return x").await).value(), &bioxen::Value::Nil);
}

pub async fn stopping_a_vm_ends_its_run_as_cancelled(subject: &Subject) {
    let vm = subject.vm().await;
    let running = begun(&vm, ENDLESS).await;
    let stopping = {
        let vm = vm.clone();
        tokio::spawn(async move { vm.stop().await })
    };
    ended(running.finish().await, EndedBy::Cancelled);
    stopping.await.expect("it does not panic").expect("it stops");
    assert_eq!(vm.status().name(), "stopped");
    let refused = vm.eval("1").await.expect_err("it is stopped");
    assert!(matches!(refused, EvalError::NotRunning { .. }), "{refused}");
    vm.stop().await.expect("a stopped one too");
}

pub async fn the_limits_on_time_hold_for_a_script_that_catches_errors(subject: &Subject) {
    let vm = subject.vm().await;
    let stubborn = "while true do pcall(function() while true do end end) end";
    ended(vm.eval(stubborn).wall_time(SHORT).await, EndedBy::WallTime);
    subject.goes_on(&vm).await;
}

pub async fn what_was_written_before_the_end_arrives(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "print('one') io.stderr:write('two\\n') while true do end";
    let mut running = vm.eval(code).wall_time(2 * SHORT).start().await.expect("it starts");
    let mut streams = Vec::new();
    while let Some(chunk) = running.next_chunk().await.expect("it runs") {
        streams.push(chunk.stream);
    }
    assert_eq!(streams, [Stream::Stdout, Stream::Stderr]);
    ended(running.finish().await, EndedBy::WallTime);
    if !subject.traits.survives_stopping {
        vm.start().await.expect("it starts");
    }
    assert!(failed(vm.eval("error('next')").await).contains("next"));
}
