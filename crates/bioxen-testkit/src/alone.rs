//! Tests that need a process of their own: because they count what a process has, or end it.

use std::env;
use std::process::{Command, Stdio};

use crate::worker_program;

/// Names the test that a process was started for, and what part it plays in it.
const ROLE: &str = "BIOXEN_TEST_ROLE";

/// What part this process plays in the test that started it; `None` in the test itself.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// The name of the test that a closure was written in, as the test harness knows it.
pub fn own_test_name<F>(_: &F) -> String {
    let path = std::any::type_name::<F>();
    let path = path.split("::{{closure}}").next().unwrap_or(path);
    path.split_once("::").map_or(path, |(_crate, name)| name).to_owned()
}

/// A command that runs one test of this program again, in a process that plays `role` in it.
///
/// # Panics
///
/// When the test's own program is unknown.
pub fn test_command(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a test knows its own program"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env("BIOXEN_WORKER", worker_program()).stdin(Stdio::null());
    command
}

/// Runs a test's body in a process in which nothing else happens.
///
/// # Panics
///
/// When the body fails there.
pub fn in_own_process<F: FnOnce()>(body: F) {
    if role().is_some() {
        return body();
    }
    let name = own_test_name(&body);
    let output = test_command(&name, "alone").output().expect("a test can be run again");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "in a process of its own, `{name}` failed:\n{stdout}\n{stderr}"
    );
    for line in stderr.lines().filter(|line| line.starts_with("skipped")) {
        eprintln!("{line}");
    }
}
