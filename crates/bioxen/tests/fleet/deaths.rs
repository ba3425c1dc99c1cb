//! Zygotes and workers that die, and those that go on.

use bioxen::{EndedBy, EvalError};
use bioxen_testkit::{PATIENCE, block_on, eventually, fleet};
use futures::future::join_all;
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;

use crate::common::{ENDLESS, begun, check_works, create, ended, worker_of, zygote_of};

#[test]
fn the_death_of_a_worker_is_its_own_vms_affair() {
    block_on(async {
        let fleet = fleet();
        let (victim, busy, idle) = (
            create(&fleet, "victim").await,
            create(&fleet, "busy").await,
            create(&fleet, "idle").await,
        );
        let (mut input, reader) = tokio::io::duplex(64);
        let code = "print('begun') return io.read()";
        let mut neighbour = busy.eval(code).stdin(reader).start().await.unwrap();
        neighbour.next_chunk().await.unwrap().unwrap();
        let running = begun(&victim, ENDLESS).await;
        worker_of(&victim).signal(Signal::SIGKILL);
        ended(running.finish().await, EndedBy::Killed);
        assert_eq!(victim.status().name(), "failed");
        check_works(&idle).await;
        input.write_all(b"unharmed\n").await.unwrap();
        let run = ended(neighbour.finish().await, EndedBy::Finished);
        assert_eq!(run.value().as_str(), Some("unharmed"));
        victim.start().await.unwrap();
        check_works(&victim).await;
        check_works(&create(&fleet, "new").await).await;
    });
}

#[test]
fn calls_that_wait_for_a_worker_hear_of_its_death() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        let running = begun(&vm, ENDLESS).await;
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let vm = vm.clone();
                tokio::spawn(async move { vm.eval("1").await })
            })
            .collect();
        tokio::task::yield_now().await;
        worker_of(&vm).signal(Signal::SIGKILL);
        ended(running.finish().await, EndedBy::Killed);
        for outcome in join_all(waiting).await {
            let error = outcome.unwrap().unwrap_err();
            assert!(matches!(error, EvalError::NotRunning { .. }), "{error}");
        }
    });
}

#[test]
fn vms_outlive_their_zygote() {
    block_on(async {
        let fleet = fleet();
        let (busy, idle) = (create(&fleet, "busy").await, create(&fleet, "idle").await);
        idle.eval("x = 'kept'").await.unwrap();
        let (mut input, reader) = tokio::io::duplex(64);
        let code = "print('begun') return io.read()";
        let mut running = busy.eval(code).stdin(reader).start().await.unwrap();
        running.next_chunk().await.unwrap().unwrap();
        let zygote = zygote_of(&busy);
        zygote.signal(Signal::SIGKILL);
        zygote.wait_for_end();
        input.write_all(b"on\n").await.unwrap();
        let run = ended(running.finish().await, EndedBy::Finished);
        assert_eq!(run.value().as_str(), Some("on"));
        assert_eq!(idle.eval("x").await.unwrap().value().as_str(), Some("kept"));
        let fresh = create(&fleet, "new").await;
        check_works(&fresh).await;
        assert_ne!(zygote_of(&fresh), zygote);
        check_works(&busy).await;
    });
}

#[test]
fn a_vm_that_has_outlived_its_zygote_can_be_stopped_started_and_removed() {
    block_on(async {
        let fleet = fleet();
        let vms = [create(&fleet, "stopped").await, create(&fleet, "removed").await];
        let workers = vms.clone().map(|vm| worker_of(&vm));
        let zygote = zygote_of(&vms[0]);
        zygote.signal(Signal::SIGKILL);
        zygote.wait_for_end();
        check_works(&create(&fleet, "new").await).await;
        vms[0].stop().await.unwrap();
        fleet.remove("removed").await.unwrap();
        for worker in workers {
            worker.wait_for_end();
        }
        vms[0].start().await.unwrap();
        check_works(&vms[0]).await;
    });
}

#[test]
fn an_orphaned_worker_that_is_killed_ends_its_run_and_can_be_started_again() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        let running = begun(&vm, ENDLESS).await;
        let worker = worker_of(&vm);
        let zygote = zygote_of(&vm);
        zygote.signal(Signal::SIGKILL);
        zygote.wait_for_end();
        check_works(&create(&fleet, "new").await).await;
        worker.signal(Signal::SIGKILL);
        let run = tokio::time::timeout(PATIENCE, running.finish()).await.unwrap().unwrap();
        // Nobody was left to ask how it ended.
        assert!(
            [EndedBy::Lost, EndedBy::Killed].contains(&run.record.ending.ended_by),
            "{}",
            run.record.ending.ended_by
        );
        vm.start().await.unwrap();
        check_works(&vm).await;
    });
}

#[test]
fn limits_hold_in_a_vm_that_has_outlived_its_zygote() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        let zygote = zygote_of(&vm);
        zygote.signal(Signal::SIGKILL);
        zygote.wait_for_end();
        let short = std::time::Duration::from_millis(200);
        ended(vm.eval(ENDLESS).wall_time(short).await, EndedBy::WallTime);
        check_works(&vm).await;
        // A loop that hears nothing costs the worker, which ends itself.
        let deaf = "(('a'):rep(40)):find(('a*'):rep(40) .. 'b')";
        let run = tokio::time::timeout(PATIENCE, vm.eval(deaf).wall_time(short).into_future());
        let run = run.await.expect("it ends").unwrap();
        let by = run.record.ending.ended_by;
        assert!([EndedBy::WallTime, EndedBy::Lost].contains(&by), "{by}");
    });
}

#[test]
fn a_zygote_that_is_stopped_holds_up_no_run() {
    block_on(async {
        let fleet = fleet();
        let vm = create(&fleet, "vm").await;
        let zygote = zygote_of(&vm);
        zygote.signal(Signal::SIGSTOP);
        check_works(&vm).await;
        let short = std::time::Duration::from_millis(200);
        ended(vm.eval(ENDLESS).wall_time(short).await, EndedBy::WallTime);
        check_works(&vm).await;
        zygote.signal(Signal::SIGCONT);
        check_works(&create(&fleet, "other").await).await;
    });
}

#[test]
fn a_fleet_whose_zygote_was_killed_leaves_nothing() {
    bioxen_testkit::in_own_process(|| {
        block_on(async {
            let fleet = fleet();
            let vm = create(&fleet, "vm").await;
            let zygote = zygote_of(&vm);
            let orphan = worker_of(&vm);
            zygote.signal(Signal::SIGKILL);
            zygote.wait_for_end();
            check_works(&create(&fleet, "new").await).await;
            drop((vm, fleet));
            orphan.wait_for_end();
            eventually("nothing is left", || {
                bioxen_testkit::Process::current().descendants().is_empty()
            })
            .await;
        });
    });
}
