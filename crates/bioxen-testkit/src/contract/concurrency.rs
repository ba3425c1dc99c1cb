//! Several calls on one VM, and several VMs.

use std::time::Duration;

use bioxen::{EndedBy, Event, Value};
use futures::future::join_all;
use tokio::io::AsyncWriteExt;

use super::endings::begun;
use super::{Subject, finished};
use crate::PATIENCE;

pub async fn calls_on_one_vm_run_in_the_order_in_which_they_came(subject: &Subject) {
    let vm = subject.vm().await;
    finished(vm.eval("order = {}").await);
    let calls =
        (1..=40).map(|n| vm.eval(format!("order[#order + 1] = {n} return #order")).into_future());
    for (run, position) in join_all(calls).await.into_iter().zip(1..) {
        assert_eq!(finished(run).value(), &Value::Integer(position));
    }
    let run = finished(vm.eval("table.concat(order, ' ')").await);
    let expected: Vec<String> = (1..=40).map(|n| n.to_string()).collect();
    assert_eq!(run.value().as_str(), Some(expected.join(" ").as_str()));
}

pub async fn many_vms_run_at_once(subject: &Subject) {
    let mut waiting = Vec::new();
    for _ in 0..12 {
        let vm = subject.vm().await;
        let (writer, reader) = tokio::io::duplex(64);
        let code = "print('ready') return io.read('*n')";
        let mut running = vm.eval(code).stdin(reader).start().await.expect("it starts");
        running.next_chunk().await.expect("it runs").expect("it has written");
        waiting.push((writer, running));
    }
    // All of them are in the middle of a run now.
    assert_eq!(subject.fleet.stats().runs_in_progress, 12);
    for (number, (mut writer, running)) in waiting.into_iter().enumerate() {
        writer.write_all(format!("{number}\n").as_bytes()).await.expect("someone reads");
        drop(writer);
        let run = finished(running.finish().await);
        assert_eq!(run.value().as_i64(), i64::try_from(number).ok());
    }
}

const ENDLESS: &str = "print('begun') while true do end";

/// Waits for the record of the run that was given up.
async fn cancelled(events: &mut bioxen::Events) {
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            let event = events.next().await.expect("the fleet is there");
            if let Event::RunEnded { record } = event {
                return record.ending.ended_by;
            }
        }
    });
    assert_eq!(told.await.expect("it is told in time"), EndedBy::Cancelled);
}

pub async fn a_call_whose_future_is_dropped_is_cancelled(subject: &Subject) {
    let vm = subject.vm().await;
    let mut events = subject.fleet.events();
    let given_up = tokio::time::timeout(Duration::from_millis(300), vm.eval(ENDLESS).into_future());
    assert!(given_up.await.is_err());
    cancelled(&mut events).await;
    subject.goes_on(&vm).await;
}

pub async fn a_run_that_is_dropped_is_cancelled(subject: &Subject) {
    let vm = subject.vm().await;
    let mut events = subject.fleet.events();
    drop(begun(&vm, ENDLESS).await);
    cancelled(&mut events).await;
    subject.goes_on(&vm).await;
}

pub async fn a_call_that_is_dropped_before_its_turn_never_runs(subject: &Subject) {
    let vm = subject.vm().await;
    let (mut writer, reader) = tokio::io::duplex(64);
    let code = "print('ready') ran = 'no' return io.read()";
    let mut first = vm.eval(code).stdin(reader).start().await.expect("it starts");
    first.next_chunk().await.expect("it runs").expect("it has written");
    let second =
        tokio::time::timeout(Duration::from_millis(50), vm.eval("ran = 'yes'").into_future());
    assert!(second.await.is_err(), "it waits for its turn");
    writer.write_all(b"go on\n").await.expect("someone reads");
    finished(first.finish().await);
    assert_eq!(finished(vm.eval("ran").await).value().as_str(), Some("no"));
}

pub async fn output_that_nobody_reads_holds_up_its_own_run_only(subject: &Subject) {
    let (loud, other) = (subject.vm().await, subject.vm().await);
    let code = "for i = 1, 100 do io.write(('x'):rep(100000)) end";
    let running = loud.eval(code).start().await.expect("it starts");
    assert_eq!(finished(other.eval("1").await).value(), &Value::Integer(1));
    assert_eq!(finished(running.finish().await).stdout.len(), 10_000_000);
}
