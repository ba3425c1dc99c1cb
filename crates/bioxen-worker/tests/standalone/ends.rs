//! Whatever ends, all of it ends.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use bioxen::Grants;
use bioxen_core::protocol::standalone::Order;
use bioxen_core::protocol::{Request, Status, encode};
use bioxen_testkit::{Process, Wire, processes, wait_until};
use nix::sys::signal::Signal;

use crate::guest::{Guest, order, order_on};

/// What a worker may be doing, with how long its program sleeps, by which it is found.
const BUSY: [(&str, &str); 4] = [
    ("waiting", ""),
    ("a loop", "print('begun') while true do end"),
    ("a program", "print('begun') os.execute('sleep MARK')"),
    (
        "programs in the background",
        "os.execute('for i in 1 2; do sleep MARK >/dev/null 2>&1 & done') print('begun') \
         while true do end",
    ),
];

/// Each way of being busy, on each interpreter, over each wire: with something that ends one part.
fn leaves_nothing(mark: &str, end: impl Fn(&mut Guest, Process)) {
    let spawning = |spec: bioxen::VmSpec| spec.grants(Grants::none().spawn());
    let orders: Vec<Order> =
        [Some(order(spawning)), order_on("lua5.1", spawning)].into_iter().flatten().collect();
    for wire in [Wire::Pipes, Wire::Socket] {
        for order in &orders {
            for (what, code) in BUSY {
                let mut guest = Guest::start(wire);
                let (accepted, _, _) = guest.accepted(order);
                let (watcher, worker) = (guest.watcher(), Process::of(accepted.process));
                if !code.is_empty() {
                    guest.begun(&code.replace("MARK", mark));
                }
                end(&mut guest, worker);
                let gone = || {
                    !watcher.is_alive()
                        && !worker.is_alive()
                        && processes::with_mark(&format!("sleep {mark}")).is_empty()
                };
                let program = order.program.is_some();
                wait_until(&format!("{wire:?}, program: {program}: {what} is gone"), gone);
            }
        }
    }
}

#[test]
fn nothing_is_left_when_the_controller_hangs_up() {
    leaves_nothing("1001.17", |guest, _| guest.hang_up());
}

#[test]
fn nothing_is_left_when_the_controller_only_stops_to_write() {
    leaves_nothing("1002.17", |guest, _| guest.stop_writing());
}

#[test]
fn nothing_is_left_when_the_program_that_was_started_is_killed() {
    leaves_nothing("1003.17", |guest, _| guest.watcher().signal(Signal::SIGKILL));
}

#[test]
fn nothing_is_left_when_the_program_that_was_started_is_told_to_end() {
    leaves_nothing("1004.17", |guest, _| guest.watcher().signal(Signal::SIGTERM));
}

#[test]
fn nothing_is_left_when_the_worker_is_killed() {
    leaves_nothing("1005.17", |_, worker| worker.signal(Signal::SIGKILL));
}

#[test]
fn a_worker_that_dies_while_its_interpreter_is_asked_leaves_nothing() {
    let scratch = bioxen_testkit::Scratch::new();
    let script = scratch.file("slow", "#!/bin/sh\nexec sleep 1006.17\n");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let order = order(|spec| spec.interpreter(bioxen::Interpreter::Program(script)));
    let mut guest = Guest::start(Wire::Pipes);
    guest.send(&encode(&bioxen_core::protocol::standalone::Opening::Order(order)));
    let is_there = || !processes::with_mark("sleep 1006.17").is_empty();
    wait_until("it is asked", is_there);
    guest.hang_up();
    wait_until("it is gone", || !is_there());
    assert_eq!(guest.wait().0.signal(), Some(9));
}

#[test]
fn the_program_ends_as_its_worker_did() {
    let mut guest = Guest::start(Wire::Pipes);
    let (accepted, _, _) = guest.accepted(&order(|spec| spec));
    guest.begun("print('begun') while true do end");
    Process::of(accepted.process).signal(Signal::SIGABRT);
    assert_eq!(guest.wait().0.signal(), Some(6));

    let mut guest = Guest::start(Wire::Socket);
    guest.accepted(&order(|spec| spec));
    guest.send(&encode(&Request::Shutdown));
    assert!(guest.payload().is_none(), "its output is closed");
    assert_eq!(guest.wait().0.code(), Some(0));
}

#[test]
fn a_message_that_comes_while_code_runs_is_heard_on_every_wire() {
    for wire in [Wire::Pipes, Wire::Socket] {
        let mut guest = Guest::start(wire);
        guest.accepted(&order(|spec| spec));
        guest.evaluate("kept = 'kept'");
        guest.begun("print('begun') while true do end");
        let start = Instant::now();
        guest.cancel();
        let end = guest.end();
        assert_eq!(end.status, Status::Cancelled, "{wire:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{wire:?}: {:?}", start.elapsed());
        let end = guest.evaluate("return kept");
        assert_eq!(end.values, [bioxen::Value::String(b"kept".to_vec())]);
    }
}
