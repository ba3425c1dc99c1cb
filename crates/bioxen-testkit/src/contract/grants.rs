//! What code may touch: nothing unless it was granted, and then that and no more.

use std::net::TcpListener;
use std::path::Path;

use bioxen::{Grants, Script, Value};

use super::{Subject, failed, finished, quoted, text};
use crate::skip;

/// A call that is to be refused, and the flag that its message is to name.
const REFUSED: &[(&str, &str)] = &[
    ("io.open('/etc/passwd')", "--allow-read /etc/passwd"),
    ("io.open('/etc/passwd', 'rb')", "--allow-read /etc/passwd"),
    ("io.open('/tmp/bioxen-x', 'w')", "--allow-write /tmp/bioxen-x"),
    ("io.open('/tmp/bioxen-x', 'a')", "--allow-write /tmp/bioxen-x"),
    ("io.open('/tmp/bioxen-x', 'r+')", "--allow-write /tmp/bioxen-x"),
    ("io.open('relative.txt')", "--allow-read relative.txt"),
    ("io.lines('/etc/passwd')", "--allow-read /etc/passwd"),
    ("io.input('/etc/passwd')", "--allow-read /etc/passwd"),
    ("io.output('/tmp/bioxen-x')", "--allow-write /tmp/bioxen-x"),
    ("io.popen('ls')", "--allow-spawn"),
    ("io.tmpfile()", "--allow-write /tmp"),
    ("loadfile('/etc/passwd')", "--allow-read /etc/passwd"),
    ("dofile('/etc/passwd')", "--allow-read /etc/passwd"),
    ("os.execute('ls')", "--allow-spawn"),
    ("os.getenv('HOME')", "--allow-env HOME"),
    ("os.remove('/tmp/bioxen-x')", "--allow-write /tmp/bioxen-x"),
    ("os.rename('/tmp/bioxen-x', '/tmp/bioxen-y')", "--allow-write /tmp/bioxen-x"),
    ("os.tmpname()", "--allow-write /tmp"),
    ("require('bioxen.x')", "--allow-read ./bioxen/x.lua"),
];

pub async fn what_is_not_granted_is_refused_by_a_message_that_names_the_grant(subject: &Subject) {
    let vm = subject.vm().await;
    for (call, flag) in REFUSED {
        // The refusal is either an error or a second result.
        let code = format!(
            "local ok, first, second = pcall(function() return {call} end) \
             if ok then return first, second end return nil, first"
        );
        let run = finished(vm.eval(code).await);
        let [got, message] = &run.record.values[..] else { panic!("{call}: {:?}", run.record) };
        assert_eq!(got, &Value::Nil, "{call}");
        let message = message.as_str().unwrap_or_default();
        assert!(message.contains(flag), "{call}: {message}");
    }
    assert!(!Path::new("/tmp/bioxen-x").exists());
    assert_eq!(finished(vm.eval("os.execute()").await).value().as_i64().unwrap_or(0), 0);
}

pub async fn a_granted_file_can_be_read_and_not_written(subject: &Subject) {
    let scratch = subject.scratch();
    let (data, other) = (scratch.file("data.txt", b"a\0b\xff\n"), scratch.file("other.txt", "no"));
    let vm = subject.vm_with(|spec| spec.grants(Grants::none().read(&data))).await;
    let read = |path: &Path| format!("assert(io.open({})):read('*a')", quoted(path));
    assert_eq!(finished(vm.eval(read(&data)).await).value(), &text(b"a\0b\xff\n"));
    assert!(failed(vm.eval(read(&other)).await).contains("--allow-read"));
    let write = format!("assert(io.open({}, 'w'))", quoted(&data));
    assert!(failed(vm.eval(write).await).contains("--allow-write"));
    // Older interpreters cut a line at a zero byte.
    let lines = format!("for line in io.lines({}) do return line:sub(1, 1) end", quoted(&data));
    assert_eq!(finished(vm.eval(lines).await).value(), &text(b"a"));
    assert_eq!(std::fs::read(&data).expect("it is there"), b"a\0b\xff\n");
}

pub async fn a_granted_directory_covers_all_below_it(subject: &Subject) {
    let scratch = subject.scratch();
    scratch.file("in/deep/down/data.txt", "deep");
    scratch.file("in-not/data.txt", "beside");
    let vm = subject.vm_with(|spec| spec.grants(Grants::none().read(scratch.at("in")))).await;
    let read = |path: &str| format!("assert(io.open({})):read('*a')", quoted(scratch.at(path)));
    assert_eq!(finished(vm.eval(read("in/deep/down/data.txt")).await).value(), &text("deep"));
    let run = finished(vm.eval(read("in/deep/../deep/./down/data.txt")).await);
    assert_eq!(run.value(), &text("deep"));
    for outside in ["in-not/data.txt", "in/../in-not/data.txt"] {
        assert!(failed(vm.eval(read(outside)).await).contains("--allow-read"), "{outside}");
    }
    let missing = failed(vm.eval(read("in/missing.txt")).await);
    assert!(missing.contains("No such file"), "{missing}");
}

pub async fn files_can_be_made_changed_and_removed_where_writing_is_granted(subject: &Subject) {
    let scratch = subject.scratch();
    let out = scratch.directory("out");
    let vm = subject.vm_with(|spec| spec.grants(Grants::none().write(&out))).await;
    let code = format!(
        "local out = {} \
         local f = assert(io.open(out .. '/new.txt', 'w')) f:write('one\\n') f:close() \
         f = assert(io.open(out .. '/new.txt', 'a')) f:write('two\\n') f:close() \
         f = assert(io.open(out .. '/new.txt', 'r+')) f:seek('set', 0) f:write('O') f:close() \
         assert(os.rename(out .. '/new.txt', out .. '/moved.txt')) \
         f = assert(io.open(out .. '/gone.txt', 'w')) f:close() \
         assert(os.remove(out .. '/gone.txt')) \
         f = assert(io.open(out .. '/moved.txt')) local s = f:read('*a') f:close() return s",
        quoted(&out)
    );
    assert_eq!(finished(vm.eval(code).await).value(), &text("One\ntwo\n"));
    let names: Vec<_> = std::fs::read_dir(&out).expect("it is there").flatten().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(std::fs::read(out.join("moved.txt")).expect("it is there"), b"One\ntwo\n");
}

pub async fn what_was_written_is_in_the_file_when_the_run_is_over(subject: &Subject) {
    let scratch = subject.scratch();
    let vm = subject.vm_with(|spec| spec.grants(Grants::none().write(scratch.path()))).await;
    let code =
        |name: &str| format!("f = assert(io.open({}, 'w')) f:write('x')", quoted(scratch.at(name)));
    finished(vm.eval(code("fresh.txt")).fresh().await);
    assert_eq!(std::fs::read(scratch.at("fresh.txt")).expect("it is there"), b"x");
}

pub async fn a_file_that_is_granted_for_writing_need_not_be_there(subject: &Subject) {
    let scratch = subject.scratch();
    let path = scratch.at("result.txt");
    let vm = subject.vm_with(|spec| spec.grants(Grants::none().write(&path))).await;
    let code = format!("assert(io.open({}, 'w')):write('result')", quoted(&path));
    finished(vm.eval(code).fresh().await);
    assert_eq!(std::fs::read(&path).expect("it is there"), b"result");
    let beside = format!("assert(io.open({}, 'w'))", quoted(scratch.at("beside.txt")));
    assert!(failed(vm.eval(beside).await).contains("--allow-write"));
}

pub async fn relative_grants_start_from_the_working_directory(subject: &Subject) {
    let scratch = subject.scratch();
    scratch.file("home/data.txt", "relative");
    let order = |spec: bioxen::VmSpec| {
        spec.working_directory(scratch.at("home")).grants(Grants::none().read("data.txt"))
    };
    let vm = subject.vm_with(order).await;
    let run = finished(vm.eval("assert(io.open('data.txt')):read('*a')").await);
    assert_eq!(run.value(), &text("relative"));
    assert!(run.record.context.grants.read.contains(&scratch.at("home/data.txt")));
}

pub async fn granted_variables_are_seen_and_no_others(subject: &Subject) {
    let grants = Grants::none().env("PATH").env("BIOXEN_SURELY_UNSET");
    let vm = subject.vm_with(|spec| spec.grants(grants)).await;
    let run = finished(vm.eval("os.getenv('PATH'), os.getenv('BIOXEN_SURELY_UNSET')").await);
    let path = std::env::var("PATH").expect("tests have one");
    assert_eq!(run.record.values[..2], [text(path), Value::Nil]);
    let code = "return os.getenv('HOME')";
    let run = finished(vm.run(Script::code("s", code)).await);
    assert!(run.record.values[1].as_str().is_some_and(|m| m.contains("--allow-env HOME")));
}

pub async fn modules_of_a_granted_directory_can_be_required(subject: &Subject) {
    let scratch = subject.scratch();
    scratch.file(
        "gc.lua",
        "local M = {} function M.count(s) return select(2, s:gsub('[GC]', '')) end \
                            loads = (loads or 0) + 1 return M",
    );
    scratch.file("bio/init.lua", "return {name = ...}");
    scratch.file("bio/seq.lua", "return {gc = require('gc')}");
    scratch.file("broken.lua", "local = 1");
    let order = |spec: bioxen::VmSpec| {
        spec.working_directory(scratch.path()).grants(Grants::none().read(scratch.path()))
    };
    let vm = subject.vm_with(order).await;
    let code = "require('gc').count('GATTACA'), require('gc') == require('bio.seq').gc, \
                require('bio').name, loads";
    let run = finished(vm.eval(code).await);
    let expected = [Value::Integer(2), Value::Boolean(true), text("bio"), Value::Integer(1)];
    assert_eq!(run.record.values, expected);
    assert!(failed(vm.eval("require('broken')").await).contains("broken.lua"));
    assert!(failed(vm.eval("require('missing')").await).contains("no file"));
    let elsewhere = format!("package.path = {} return require('gc')", quoted("/etc/?.conf"));
    assert!(
        failed(vm.eval(format!("package.loaded.gc = nil {elsewhere}")).await)
            .contains("--allow-read")
    );
}

pub async fn libraries_written_in_c_are_loaded_only_where_the_kind_allows_it(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "package.loadlib('/lib/x86_64-linux-gnu/libc.so.6', 'system')";
    let run = finished(vm.eval(code).await);
    assert_eq!(run.value(), &Value::Nil, "{:?}", run.record.values);
    let message = run.record.values[1].as_str().unwrap_or_default();
    let names_the_way = if subject.traits.loads_c_libraries { "--allow-read" } else { "--lua" };
    assert!(message.contains(names_the_way), "{message}");
}

/// Where Debian keeps what its packages of libraries for Lua contain.
const LUA_LIBRARIES: [&str; 2] = ["/usr/share/lua/", "/usr/lib/x86_64-linux-gnu/lua/"];

pub async fn a_granted_port_can_be_connected_to_and_no_other(subject: &Subject) {
    if !subject.traits.loads_c_libraries {
        let vm = subject.vm().await;
        assert!(failed(vm.eval("require('socket')").await).contains("not found"));
        return;
    }
    let version = finished(subject.vm().await.eval("_VERSION:match('%d.%d')").await);
    let version = version.value().as_str().expect("it has a version").to_owned();
    let [lua, c] = LUA_LIBRARIES.map(|directory| format!("{directory}{version}"));
    if !Path::new(&format!("{c}/socket/core.so")).exists() {
        return skip("connecting to a port", &format!("lua-socket for {version} is not installed"));
    }
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (granted, other) = (listen(), listen());
    let port = |listener: &TcpListener| listener.local_addr().expect("it has one").port();
    let address = format!("127.0.0.1:{}", port(&granted)).parse().expect("an address");
    let grants =
        Grants::none().net(address).read("/usr/share/lua").read("/usr/lib/x86_64-linux-gnu");
    let vm = subject.vm_with(|spec| spec.grants(grants)).await;
    let code = format!(
        "package.path = '{lua}/?.lua' package.cpath = '{c}/?.so' socket = require('socket') \
         local s = assert(socket.connect('127.0.0.1', {})) s:send('hello\\n') s:close() \
         return 'sent'",
        port(&granted)
    );
    assert_eq!(finished(vm.eval(code).await).value(), &text("sent"));
    let mut line = String::new();
    let (stream, _) = granted.accept().expect("someone connects");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line).expect("a line");
    assert_eq!(line, "hello\n");
    let code = format!("return socket.connect('127.0.0.1', {})", port(&other));
    let run = finished(vm.eval(code).await);
    assert_eq!(run.value(), &Value::Nil, "{:?}", run.record.values);
    other.set_nonblocking(true).expect("it can be");
    assert!(other.accept().is_err(), "nobody has connected");
}
