//! `bioxen doctor`: what it finds, and that it changes nothing.

use crate::support::{bioxen, command};

#[test]
fn it_finds_that_vms_can_run_here() {
    let ended = bioxen(["doctor"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    for told in [
        "\nTypes of VM\n  basic  works: ",
        "\n  xcpng  built in; `bioxen pool check` tries a pool\n",
        "\n  embedded  Lua 5.4",
    ] {
        assert!(ended.stdout.contains(told), "{told}: {}", ended.stdout);
    }
    assert!(ended.stdout.contains("\n  process            active\n"), "{}", ended.stdout);
}

#[test]
fn for_a_program_there_is_one_object() {
    let findings = bioxen(["doctor", "--json"]).json();
    assert_eq!(findings["basic"]["works"], true);
    assert_eq!(findings["vm_types"][0]["name"], "basic");
    assert_eq!(findings["interpreters"][0]["name"], "embedded");
    assert!(findings["basic"]["median_vm_us"].as_u64().unwrap() > 0);
    let isolation = findings["basic"]["isolation"].as_array().unwrap();
    assert_eq!(isolation.len(), bioxen::Mechanism::ALL.len());
    for mechanism in isolation {
        let missing = mechanism["active"] == false;
        assert_eq!(mechanism["reason"].is_string(), missing, "{mechanism}");
        assert_eq!(mechanism["how_to_get"].is_string(), missing, "{mechanism}");
    }
}

#[test]
fn it_names_the_directories_without_making_them() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let output = command(["doctor"]).env("BIOXEN_HOME", &home).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let state = home.join("state");
    assert!(text.contains(&format!("  state   {} (not there yet)", state.display())), "{text}");
    assert!(!home.exists());
}

#[test]
fn it_says_so_and_fails_when_no_vm_can_run() {
    let mut doctor = command(["doctor"]);
    let output = doctor.env("BIOXEN_WORKER", "/no/such/worker").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("  basic  does not work here: "), "{text}");
    assert!(text.contains("hint: "), "{text}");
}

#[test]
fn an_interpreter_that_is_missing_is_listed_with_where_to_get_it() {
    let mut doctor = command(["doctor"]);
    let output = doctor.env("PATH", "/no/such/directory").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("  lua5.1    not found; `apt install lua5.1`"), "{text}");
    assert!(text.contains("  luajit    not found; `apt install luajit`"), "{text}");
}
