//! Worker programs that are none, and workers that say what makes no sense.

use std::error::Error as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bioxen::backend::StartError;
use bioxen::{CreateError, EvalError, Fleet, StartVmError};
use bioxen_testkit::{PATIENCE, Scratch, block_on, skip};

use crate::common::{check_works, create, spec};

const PYTHON: &str = "/usr/bin/python3";

fn fleet_of(program: &Path) -> Fleet {
    Fleet::builder().worker_program(program).standby(0).build()
}

async fn start_error(fleet: &Fleet) -> StartError {
    let created = tokio::time::timeout(PATIENCE, fleet.create(spec("vm"))).await;
    match created.expect("an answer comes in time").expect_err("this is no worker") {
        error @ CreateError::Start(StartVmError::Start { .. }) => {
            assert!(error.hint().is_some(), "{error}");
            assert_eq!(fleet.stats().vms, 0);
            let CreateError::Start(StartVmError::Start { source, .. }) = error else {
                unreachable!()
            };
            source
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_worker_program_that_is_not_there_is_a_typed_error() {
    block_on(async {
        let error = start_error(&fleet_of(Path::new("/no/such/worker"))).await;
        assert!(matches!(error, StartError::WorkerProgram { .. }), "{error}");
        assert!(error.to_string().contains("/no/such/worker") && error.source().is_some());
        assert!(error.hint().contains("BIOXEN_WORKER"), "{}", error.hint());
    });
}

#[test]
fn a_directory_is_no_worker_program() {
    block_on(async {
        let error = start_error(&fleet_of(Path::new("/tmp"))).await;
        assert!(matches!(error, StartError::WorkerProgram { .. }), "{error}");
        assert!(error.to_string().contains("/tmp"), "{error}");
    });
}

#[test]
fn a_file_that_is_not_executable_is_no_worker_program() {
    block_on(async {
        let scratch = Scratch::new();
        let error = start_error(&fleet_of(&scratch.file("worker", "#!/bin/sh\n"))).await;
        assert!(matches!(error, StartError::WorkerProgram { .. }), "{error}");
        let nonsense = scratch.file("nonsense", "\x7fELF and nothing else");
        std::fs::set_permissions(&nonsense, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = start_error(&fleet_of(&nonsense)).await;
        assert!(matches!(error, StartError::WorkerProgram { .. }), "{error}");
    });
}

#[test]
fn a_program_that_ends_at_once_is_no_worker_program() {
    block_on(async {
        for program in ["/bin/true", "/bin/false"] {
            let error = start_error(&fleet_of(Path::new(program))).await;
            assert!(matches!(error, StartError::WorkerProgram { .. }), "{error}");
            assert!(error.to_string().contains("ended at once"), "{error}");
        }
    });
}

#[test]
fn the_worker_program_says_that_it_does_nothing_by_itself() {
    let program = bioxen_testkit::worker_program();
    let output =
        std::process::Command::new(program).stdin(std::process::Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("started by the BioXen library"), "{said}");
}

/// The stand-in, under the name that tells it what to do.
fn fake_worker(scratch: &Scratch, behaviour: &str) -> Option<PathBuf> {
    if !Path::new(PYTHON).exists() {
        assert!(std::env::var("CI").is_err(), "python3 is needed");
        skip("workers that misbehave", "there is no python3");
        return None;
    }
    let source = format!("#!{PYTHON}\n{}", include_str!("fake_worker.py"));
    let path = scratch.file(&format!("{behaviour}.py"), source);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Some(path)
}

/// The error by which a VM of the stand-in cannot be made.
fn creation_fails(behaviour: &str) -> Option<StartError> {
    let scratch = Scratch::new();
    let program = fake_worker(&scratch, behaviour)?;
    let error = block_on(async { start_error(&fleet_of(&program)).await });
    Some(error)
}

#[test]
fn the_stand_in_is_taken_for_a_worker_when_it_behaves() {
    let scratch = Scratch::new();
    let Some(program) = fake_worker(&scratch, "well") else { return };
    block_on(async {
        let fleet = fleet_of(&program);
        let vm = create(&fleet, "vm").await;
        vm.eval("1").await.unwrap().into_result().unwrap();
    });
}

#[test]
fn a_worker_program_says_itself_why_it_ended() {
    let Some(error) = creation_fails("says_why") else { return };
    assert!(error.to_string().contains("this worker will not"), "{error}");
}

#[test]
fn a_worker_that_introduces_itself_wrongly_is_a_typed_error() {
    for (behaviour, seen) in [
        ("garbage_first", "\"garbage"),
        ("wrong_version", "version 77"),
        ("not_held_in", "not held in"),
        ("closes_at_once", "ended before it was ready"),
    ] {
        let Some(error) = creation_fails(behaviour) else { return };
        assert!(matches!(error, StartError::Worker { .. }), "{behaviour}: {error:?}");
        assert!(error.to_string().contains(seen), "{behaviour}: {error}");
    }
}

#[test]
fn a_worker_that_repeats_its_introduction_for_ever_is_given_up() {
    let Some(error) = creation_fails("endless_introduction") else { return };
    assert!(matches!(error, StartError::Worker { .. }), "{error:?}");
}

#[test]
fn a_zygote_that_cannot_fork_is_a_typed_error() {
    let Some(error) = creation_fails("refuses") else { return };
    assert!(matches!(error, StartError::Exhausted { .. }), "{error:?}");
    assert!(error.to_string().contains("no room"), "{error}");
}

#[test]
fn a_zygote_that_dies_over_an_order_is_a_typed_error() {
    let Some(error) = creation_fails("dies_on_order") else { return };
    assert!(matches!(error, StartError::WorkerProgram { .. }), "{error:?}");
}

#[test]
fn a_zygote_that_talks_nonsense_is_not_listened_to() {
    let scratch = Scratch::new();
    let Some(program) = fake_worker(&scratch, "garbage_from_zygote") else { return };
    block_on(async {
        // The nonsense is skipped; what makes sense after it counts.
        let fleet = fleet_of(&program);
        let _ = tokio::time::timeout(PATIENCE, fleet.create(spec("vm"))).await.expect("in time");
    });
}

#[test]
fn an_answer_that_makes_no_sense_is_a_typed_error_and_ends_the_worker() {
    for (behaviour, seen) in [
        ("garbage", "\"HTTP"),
        ("no_message", "no message"),
        ("huge_frame", "claims 4294967295 bytes"),
        ("wrong_number", "it ended evaluation 99"),
        ("too_much_output", "more than its limit"),
        ("hello_again", "introduces itself again"),
        ("nested", "no message"),
        ("fatal", "no reason"),
        ("zeros", "no message"),
    ] {
        let scratch = Scratch::new();
        let Some(program) = fake_worker(&scratch, behaviour) else { return };
        block_on(async {
            let fleet = fleet_of(&program);
            let (vm, other) = (create(&fleet, "vm").await, create(&fleet, "other").await);
            let worker = crate::common::worker_of(&vm);
            let outcome = tokio::time::timeout(PATIENCE, vm.eval("1").into_future()).await;
            let error = outcome.expect("in time").unwrap_err();
            let EvalError::Protocol { what, .. } = &error else { panic!("{behaviour}: {error}") };
            assert!(what.contains(seen), "{behaviour}: {what}");
            assert!(error.hint().is_some());
            worker.wait_for_end();
            assert_eq!(vm.status().name(), "failed", "{behaviour}");
            let again = vm.eval("1").await.unwrap_err();
            assert!(matches!(again, EvalError::NotRunning { .. }), "{again}");
            assert_eq!(other.status().name(), "running", "{behaviour}");
            vm.start().await.unwrap();
        });
    }
}

#[test]
fn a_worker_that_closes_its_connection_in_the_middle_is_a_named_ending() {
    let scratch = Scratch::new();
    let Some(program) = fake_worker(&scratch, "half_a_frame") else { return };
    block_on(async {
        let fleet = fleet_of(&program);
        let vm = create(&fleet, "vm").await;
        let run = tokio::time::timeout(PATIENCE, vm.eval("1").into_future()).await;
        let run = run.expect("in time").unwrap();
        assert_eq!(run.record.ending.ended_by.name(), "lost");
        assert_eq!(vm.status().name(), "failed");
    });
}

#[test]
fn a_worker_program_that_says_nothing_is_given_up() {
    let scratch = Scratch::new();
    let Some(worker) = fake_worker(&scratch, "silent_worker") else { return };
    let Some(zygote) = fake_worker(&scratch, "silent_zygote") else { return };
    block_on(async {
        let (worker, zygote) = (fleet_of(&worker), fleet_of(&zygote));
        let patience = Duration::from_secs(45);
        let (one, two) = (worker.create(spec("vm")), zygote.create(spec("vm")));
        let (one, two) =
            tokio::join!(tokio::time::timeout(patience, one), tokio::time::timeout(patience, two));
        assert!(one.expect("a silent worker is given up").is_err());
        assert!(two.expect("a silent zygote is given up").is_err());
    });
}

#[test]
fn workers_outlive_a_worker_program_that_is_replaced_by_nonsense() {
    block_on(async {
        let scratch = Scratch::new();
        let program = scratch.at("worker");
        std::fs::copy(bioxen_testkit::worker_program(), &program).unwrap();
        let fleet = fleet_of(&program);
        let vm = create(&fleet, "vm").await;
        std::fs::remove_file(&program).unwrap();
        std::fs::write(&program, "nonsense").unwrap();
        check_works(&vm).await;
        check_works(&create(&fleet, "other").await).await;
        vm.stop().await.unwrap();
        vm.start().await.unwrap();
        check_works(&vm).await;
    });
}
