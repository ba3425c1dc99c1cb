//! The whole suite again as an ordinary user, when it is run as root.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use bioxen_testkit::{Scratch, skip, worker_program};

/// The user that owns nothing: `nobody` on every Linux.
const NOBODY: u32 = 65534;

#[test]
fn the_whole_suite_holds_for_an_ordinary_user_too() {
    if !nix::unistd::geteuid().is_root() {
        return skip("running as another user", "this is an ordinary user already");
    }
    // Where this test's program is, others may have no access.
    let scratch = Scratch::new();
    let (test, worker) = (scratch.at("escape"), scratch.at("bioxen-worker"));
    std::fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    std::fs::copy(worker_program(), &worker).unwrap();
    let home = scratch.directory("home");
    for path in [scratch.path(), &test, &worker, &home] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    nix::unistd::chown(&home, Some(NOBODY.into()), Some(NOBODY.into())).unwrap();
    let output = Command::new(&test)
        .args(["--skip", "ordinary_user", "--skip", "by_itself", "--test-threads", "2"])
        .current_dir(&home)
        .env("BIOXEN_WORKER", &worker)
        .env("TMPDIR", &home)
        .env("HOME", &home)
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "as an ordinary user:\n{stdout}\n{stderr}");
    for line in stderr.lines().filter(|line| line.starts_with("skipped")) {
        eprintln!("{line} (as an ordinary user)");
    }
}
