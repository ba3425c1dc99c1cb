//! Programs that code starts, where that is granted.

use std::time::Duration;

use bioxen::{EndedBy, Grants, Limit, Limits, Script, Value, Vm};

use super::{Subject, ended, failed, finished, text};
use crate::processes;

async fn spawning_vm(subject: &Subject) -> Vm {
    subject
        .vm_with(|spec| {
            let limits = Limits { child_processes: Limit::Of(16), ..Limits::default() };
            spec.grants(Grants::none().spawn()).limits(limits)
        })
        .await
}

pub async fn the_output_of_a_program_is_that_of_the_run(subject: &Subject) {
    let vm = spawning_vm(subject).await;
    let code = "io.write('before ') os.execute('printf \"out\\\\n\"; printf err >&2') \
                io.write('after')";
    let run = finished(vm.eval(code).await);
    assert_eq!(run.text(), "before out\nafter");
    assert_eq!(String::from_utf8_lossy(&run.stderr), "err");
}

pub async fn the_output_of_a_program_is_exact_bytes(subject: &Subject) {
    let vm = spawning_vm(subject).await;
    let code =
        "os.execute([[printf '\\000\\001\\377\\n\\n']]) os.execute('head -c 300000 /dev/zero')";
    // The device itself is not granted, so that only what printf writes is there.
    let run = finished(vm.eval(code).await);
    assert_eq!(run.stdout, b"\0\x01\xff\n\n");
    let code = "os.execute([[i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done]])";
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(finished(vm.eval(code).await).text(), expected);
}

pub async fn the_status_of_a_program_is_told(subject: &Subject) {
    let vm = spawning_vm(subject).await;
    let code = "local function code(...) \
                  local first, _, third = ... \
                  if third then return third end \
                  return type(first) == 'number' and first / 256 or first \
                end \
                return code(os.execute('exit 0')), code(os.execute('exit 7')), \
                code(os.execute('no-such-program')), code(os.execute('true'))";
    let run = finished(vm.eval(code).await);
    let codes: Vec<_> = run.record.values.iter().map(Value::as_i64).collect();
    assert_eq!(codes, [Some(0), Some(7), Some(127), Some(0)]);
    let run = finished(vm.eval("os.execute()").await);
    assert!(matches!(run.value(), Value::Boolean(true) | Value::Integer(1)), "{}", run.value());
}

pub async fn a_program_can_be_read_from(subject: &Subject) {
    let vm = spawning_vm(subject).await;
    let code = "local p = assert(io.popen('echo one; echo two; echo err >&2')) \
                local first, rest = p:read('*l'), p:read('*a') p:close() return first, rest";
    let run = finished(vm.eval(code).await);
    assert_eq!(run.record.values, [text("one"), text("two\n")]);
    assert_eq!(run.text(), "");
    let lines = "local t = {} for l in io.popen('printf \"a\\\\nb\\\\n\"'):lines() do t[#t + 1] = l end \
                 return table.concat(t, ' ')";
    assert_eq!(finished(vm.eval(lines).await).value(), &text("a b"));
}

pub async fn a_program_can_be_written_to(subject: &Subject) {
    let scratch = subject.scratch();
    let out = scratch.file("out.txt", "");
    let vm = subject
        .vm_with(|spec| {
            let limits = Limits { child_processes: Limit::Of(16), ..Limits::default() };
            spec.grants(Grants::none().spawn().write(&out)).limits(limits)
        })
        .await;
    let code = format!(
        "local p = assert(io.popen('tr a-z A-Z > ' .. {}, 'w')) p:write('gattaca') p:close()",
        super::quoted(&out)
    );
    finished(vm.eval(code).await);
    assert_eq!(std::fs::read(&out).expect("it is there"), b"GATTACA");
}

pub async fn a_program_has_no_input(subject: &Subject) {
    let vm = spawning_vm(subject).await;
    let script = Script::code("s", "os.execute('cat; echo end') return io.read('*a')").stdin("own");
    let run = finished(vm.run(script).await);
    assert_eq!((run.text().as_ref(), run.value()), ("end\n", &text("own")));
    let run = finished(vm.eval("local p = io.popen('cat; echo end') return (p:read('*a'))").await);
    assert_eq!(run.value(), &text("end\n"));
}

pub async fn programs_see_the_variables_of_the_run_and_no_others(subject: &Subject) {
    let vm = spawning_vm(subject).await;
    let code = "os.execute('echo \"$BIOXEN_GIVEN|$HOME|$CARGO_PKG_NAME\"')";
    let script = Script::code("s", code).env("BIOXEN_GIVEN", "it's given");
    assert_eq!(finished(vm.run(script).await).text(), "it's given||\n");
    let code = "return (io.popen('echo \"$BIOXEN_GIVEN|$HOME\"'):read('*a'))";
    assert_eq!(finished(vm.eval(code).await).value(), &text("|\n"));
}

pub async fn programs_start_in_the_working_directory(subject: &Subject) {
    let scratch = subject.scratch();
    let there = scratch.directory("there");
    let vm = subject
        .vm_with(|spec| {
            let limits = Limits { child_processes: Limit::Of(16), ..Limits::default() };
            spec.grants(Grants::none().spawn().read(scratch.path()))
                .limits(limits)
                .working_directory(scratch.path())
        })
        .await;
    let shown = format!("{}\n", scratch.path().display());
    assert_eq!(finished(vm.eval("os.execute('pwd')").await).text(), shown);
    let script = Script::code("s", "os.execute('pwd')").working_directory(&there);
    assert_eq!(finished(vm.run(script).await).text(), format!("{}\n", there.display()));
}

pub async fn the_limits_of_a_run_hold_for_its_programs(subject: &Subject) {
    let vm = spawning_vm(subject).await;
    let mark = "1234.5671";
    let code = format!("print('begun') os.execute('sleep {mark}')");
    let limit = Duration::from_millis(500);
    ended(vm.eval(code).wall_time(limit).await, EndedBy::WallTime);
    subject.goes_on(&vm).await;
    crate::eventually("the program is gone", || processes::with_mark(mark).is_empty()).await;
    let vm = subject
        .vm_with(|spec| {
            let output = bioxen_core::ByteSize::kib(50).into();
            let limits = Limits { child_processes: Limit::Of(16), output, ..Limits::default() };
            spec.grants(Grants::none().spawn()).limits(limits)
        })
        .await;
    let run = ended(vm.eval("os.execute('yes')").await, EndedBy::Output);
    assert_eq!(run.stdout.len(), 50 << 10);
}

pub async fn programs_are_not_started_unless_that_is_granted(subject: &Subject) {
    let vm = subject.vm().await;
    assert!(failed(vm.eval("os.execute('true')").await).contains("--allow-spawn"));
    assert!(failed(vm.eval("assert(io.popen('true'))").await).contains("--allow-spawn"));
}
