//! Scripts with all that they are given.

use std::io;
use std::time::Duration;

use bioxen::{EndedBy, EvalError, Grants, Limit, Limits, Script, Value};
use tokio::io::AsyncWriteExt;

use super::{Subject, ended, failed, finished, text};
use crate::skip;

pub async fn arguments_arrive_as_any_bytes(subject: &Subject) {
    let vm = subject.vm().await;
    let script = Script::code("args", "return arg[0], #arg, arg[1], select('#', ...), ...");
    let script = script.args([&b"plain"[..], b"", b"\0\xff\n", "grün".as_bytes()]);
    let run = finished(vm.run(script).await);
    let expected = [
        text("args"),
        Value::Integer(4),
        text("plain"),
        Value::Integer(4),
        text("plain"),
        text(""),
        text(b"\0\xff\n"),
        text("grün"),
    ];
    assert_eq!(run.record.values, expected);
    assert_eq!(run.record.arguments.len(), 4);
}

pub async fn without_arguments_there_are_none(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.run(Script::code("s", "return select('#', ...), #(arg or {})")).await);
    assert_eq!(run.record.values, [Value::Integer(0), Value::Integer(0)]);
}

pub async fn standard_input_is_read_in_every_way(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "local line = io.read() local number = io.read('*n') local rest = io.read('*l') \
                local some = io.read(3) local all = io.read('*a') \
                return line, number, rest, some, all, io.read('*l'), io.read('*a'), io.read(0)";
    let input = &b"first line\n 42.5 \nabcdef\0\xff\nlast"[..];
    let run = finished(vm.run(Script::code("s", code).stdin(input)).await);
    let expected = [
        text("first line"),
        Value::Float(42.5),
        text(" "),
        text("abc"),
        text(b"def\0\xff\nlast"),
        Value::Nil,
        text(""),
        Value::Nil,
    ];
    assert_eq!(run.record.values, expected);
}

pub async fn lines_of_standard_input_can_be_walked(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "local t = {} for line in io.lines() do t[#t + 1] = line end \
                return #t, t[1], t[100000]";
    let input: String = (1..=100_000).map(|n| format!("line {n}\n")).collect();
    let run = finished(vm.run(Script::code("s", code).stdin(input)).await);
    assert_eq!(run.record.values, [Value::Integer(100_000), text("line 1"), text("line 100000")]);
}

pub async fn standard_input_is_empty_unless_it_is_given(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "return io.read('*a'), io.read('*l')";
    let expected = [text(""), Value::Nil];
    assert_eq!(finished(vm.run(Script::code("s", code)).await).record.values, expected);
    assert_eq!(finished(vm.eval(code).await).record.values, expected);
}

pub async fn input_that_was_not_read_is_not_left_for_the_next_run(subject: &Subject) {
    let vm = subject.vm().await;
    let script = Script::code("s", "return io.read('*l')").stdin("one\ntwo\nthree\n");
    assert_eq!(finished(vm.run(script).keep_state().await).value(), &text("one"));
    assert_eq!(finished(vm.eval("io.read('*a')").await).value(), &text(""));
}

pub async fn standard_input_can_come_from_a_reader_as_it_is_asked_for(subject: &Subject) {
    let vm = subject.vm().await;
    let (mut writer, reader) = tokio::io::duplex(64);
    let code = "for line in io.lines() do print('got ' .. line) end";
    let mut running = vm.eval(code).stdin(reader).start().await.expect("it starts");
    for word in ["one", "two"] {
        writer.write_all(format!("{word}\n").as_bytes()).await.expect("someone reads");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\n") {
            let chunk = running.next_chunk().await.expect("it runs").expect("it goes on");
            seen.extend_from_slice(&chunk.data);
        }
        assert_eq!(String::from_utf8_lossy(&seen), format!("got {word}\n"));
    }
    drop(writer);
    finished(running.finish().await);
}

pub async fn relative_paths_start_from_the_working_directory(subject: &Subject) {
    let scratch = subject.scratch();
    scratch.file("here/data.txt", "here");
    scratch.file("there/data.txt", "there");
    let (here, there) = (scratch.at("here"), scratch.at("there"));
    let grants = Grants::none().read(scratch.path());
    let vm = subject.vm_with(|spec| spec.grants(grants).working_directory(&here)).await;
    let code = "local f = assert(io.open('data.txt')) local s = f:read('*a') f:close() return s";
    assert_eq!(finished(vm.eval(code).await).value(), &text("here"));
    let script = || Script::code("s", code);
    let run = finished(vm.run(script().working_directory(&there)).await);
    assert_eq!(run.value(), &text("there"));
    let run = finished(vm.run(script().working_directory("../there")).await);
    assert_eq!(run.value(), &text("there"), "relative to the VM's own");
    assert_eq!(finished(vm.run(script()).await).value(), &text("here"), "it was for one run");
}

pub async fn variables_of_a_run_are_seen_by_it_alone(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "return os.getenv('BIOXEN_GIVEN'), (os.getenv('BIOXEN_OTHER'))";
    let script = Script::code("s", code).env("BIOXEN_GIVEN", "a = 'b'\n");
    let run = finished(vm.run(script).await);
    assert_eq!(run.record.values, [text("a = 'b'\n"), Value::Nil]);
    let run = finished(vm.run(Script::code("s", "return (os.getenv('BIOXEN_GIVEN'))")).await);
    assert_eq!(run.value(), &Value::Nil);
}

pub async fn a_script_may_be_in_a_file(subject: &Subject) {
    let scratch = subject.scratch();
    let code = "#!/usr/bin/env lua\nprint(...)\nerror('on line three')";
    let path = scratch.file("script.lua", code);
    let vm = subject.vm().await;
    let run = ended(vm.run(Script::file(&path).arg("x")).await, EndedBy::Error);
    assert_eq!(run.text(), "x\n");
    let message = run.record.error.expect("there is one").message;
    assert!(message.contains(":3: on line three"), "{message}");
    assert_eq!(run.record.code.name, path.display().to_string());
    assert_eq!(run.record.code.bytes, code.len() as u64);
}

pub async fn a_script_that_cannot_be_read_is_a_typed_error(subject: &Subject) {
    let scratch = subject.scratch();
    let vm = subject.vm().await;
    let kinds = [
        (scratch.at("missing.lua"), io::ErrorKind::NotFound),
        (scratch.directory("directory.lua"), io::ErrorKind::IsADirectory),
    ];
    for (path, expected) in kinds {
        let error = vm.run(Script::file(&path)).await.expect_err("there is no script");
        assert!(error.hint().is_some() && error.to_string().contains(path.to_str().unwrap_or("?")));
        let EvalError::Script { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), expected);
    }
    if nix::unistd::geteuid().is_root() {
        skip("a script that may not be read", "root may read everything");
    } else {
        let path = scratch.file("secret.lua", "return 1");
        let unreadable = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        std::fs::set_permissions(&path, unreadable).expect("its owner may");
        let error = vm.run(Script::file(&path)).await.expect_err("it may not be read");
        assert!(matches!(error, EvalError::Script { .. }), "{error}");
    }
    assert_eq!(finished(vm.eval("1").await).value(), &Value::Integer(1), "the VM goes on");
}

pub async fn a_syntax_error_says_where_it_is(subject: &Subject) {
    let vm = subject.vm().await;
    let message = failed(vm.run(Script::code("script.lua", "local x = 1\nlocal = 2\n")).await);
    assert!(message.contains("script.lua:2:"), "{message}");
    let message = failed(vm.eval("x = = 2").name("cell 7").await);
    assert!(message.contains("cell 7:1:"), "{message}");
}

pub async fn code_may_be_very_long(subject: &Subject) {
    let unlimited = Limits {
        wall_time: Limit::Of(Duration::from_secs(100)),
        cpu_time: Limit::Of(Duration::from_secs(100)),
        ..Limits::default()
    };
    let vm = subject.vm_with(|spec| spec.limits(unlimited)).await;
    let line = "x = 1 -- so that it is a long piece of code\n";
    let code = line.repeat((5 << 20) / line.len() + 1) + "return x + 1";
    let length = code.len() as u64;
    let run = finished(vm.run(Script::code("long", code)).await);
    assert_eq!(run.value(), &Value::Integer(2));
    assert!(run.record.code.bytes == length && length > 5 << 20);
}

pub async fn code_that_is_no_text_is_refused(subject: &Subject) {
    let vm = subject.vm().await;
    for code in [&b"\x1bLua\x54\0\x19\x93\r\n\x1a\n"[..], b"\x1bLuaQ\0\x01\x04", b"\x1bLJ\x02\0"] {
        failed(vm.run(Script::code("binary", code)).await);
        failed(vm.eval(code).await);
    }
    failed(vm.eval(&b"\xff\xfe\0x"[..]).await);
    assert_eq!(finished(vm.eval("1").await).value(), &Value::Integer(1));
}
