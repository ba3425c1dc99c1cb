//! Started by a person.

use std::process::{Command, Stdio};

use crate::guest::PROGRAM;

#[test]
fn on_a_terminal_it_says_what_it_is_for() {
    // `script` gives a program a terminal.
    let line = format!("{PROGRAM} serve");
    let output =
        Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        return bioxen_testkit::skip("starting it on a terminal", "there is no `script`");
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("is for a controller") && said.contains("bioxen repl"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
}
