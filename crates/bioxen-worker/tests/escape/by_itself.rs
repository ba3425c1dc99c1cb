//! The whole suite again, on workers that run by themselves as they do in a guest.

use std::process::{Command, Stdio};

use bioxen_testkit::{STANDALONE, worker_program};

#[test]
fn the_whole_suite_holds_for_workers_that_run_by_themselves_too() {
    if std::env::var_os(STANDALONE).is_some() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--skip", "ordinary_user", "--skip", "by_itself", "--test-threads", "2"])
        .env("BIOXEN_WORKER", worker_program())
        .env(STANDALONE, "pipes")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "by themselves:\n{stdout}\n{stderr}");
    for line in stderr.lines().filter(|line| line.starts_with("skipped")) {
        eprintln!("{line} (by themselves)");
    }
}
