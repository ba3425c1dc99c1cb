//! What cannot be done, and how that is said.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Ended, below, bioxen, bioxen_reading, directory};

#[test]
fn a_missing_script_is_2_and_named() {
    let expected = "error: script `no-such.lua` cannot be read\n  \
                    caused by: No such file or directory (os error 2)\n  \
                    hint: check that `no-such.lua` is a file you may read\n";
    assert_eq!(bioxen(["run", "no-such.lua"]), Ended::with(2, "", expected));
}

#[test]
fn a_directory_is_no_script() {
    let ended = bioxen(["run", "/"]);
    let expected = "error: script `/` cannot be read\n  \
                    caused by: Is a directory (os error 21)\n  \
                    hint: check that `/` is a file you may read\n";
    assert_eq!(ended, Ended::with(2, "", expected));
}

#[test]
fn an_unreadable_script_is_2() {
    if nix::unistd::geteuid().is_root() {
        // Root reads everything; a file that nobody can read is one of the kernel's.
        let ended = bioxen(["run", "/proc/self/mem"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        return;
    }
    let files = directory(&[("secret.lua", "")]);
    let script = files.path().join("secret.lua");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o000)).unwrap();
    let ended = bioxen(["run", &below(&files, "secret.lua")]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
}

#[test]
fn an_unknown_type_of_vm_is_a_wrong_command_line_that_names_the_known_ones() {
    let ended = bioxen(["run", "--vm-type", "docker", "x.lua"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("invalid value 'docker'"), "{ended:?}");
    assert!(ended.stderr.contains("[possible values: basic, xcpng]"), "{ended:?}");
}

#[test]
fn a_virtual_machine_without_a_pool_is_125() {
    let expected = "error: could not start vm `eval`\n  \
                    caused by: the machine of vm `eval` cannot be used\n  \
                    caused by: which pool? there is none\n  \
                    hint: add one with `bioxen pool add`\n";
    assert_eq!(bioxen(["eval", "--vm-type", "xcpng", "1"]), Ended::with(125, "", expected));
}

#[test]
fn what_is_said_of_a_virtual_machine_that_there_is_not_is_a_wrong_command_line() {
    let expected = "error: `--template` is about a virtual machine, and a vm of type `basic` has \
                    none\n  hint: add `--vm-type xcpng`\n";
    assert_eq!(bioxen(["eval", "--template", "debian", "1"]), Ended::with(2, "", expected));
}

#[test]
fn an_interpreter_that_is_not_there_is_125() {
    let ended = bioxen(["eval", "--lua", "lua9.9", "1"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(125), ""));
    assert!(ended.stderr.contains("`lua9.9`"), "{ended:?}");
    assert!(ended.stderr.contains("  hint: "), "{ended:?}");
}

#[test]
fn a_path_that_is_not_there_cannot_be_granted() {
    let ended = bioxen(["eval", "--allow-read", "/no/such/data", "1"]);
    assert_eq!(ended.code, Some(125));
    assert!(ended.stderr.contains("`/no/such/data`"), "{ended:?}");
}

#[test]
fn wrong_values_are_2_and_say_what_would_be_right() {
    for (arguments, said) in [
        (["--memory", "lots"], "`lots` is not a size such as `64MiB`"),
        (["--timeout", "0s"], "`0s` is not a duration such as `500ms`"),
        (["--open-files", "-1"], "-1"),
        (["--allow-net", "example.org"], "`example.org` is not HOST:PORT"),
        (["--require", "magic"], "seccomp"),
        (["--env", "NAME"], "it is not NAME=VALUE"),
        (["--memroy", "1MiB"], "'--memory'"),
        (["--max-processes", "3"], "--allow-spawn"),
    ] {
        let ended = bioxen(["run"].iter().chain(&arguments).chain(&["x.lua"]));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains(said), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn nothing_to_do_is_2_with_the_usage() {
    for arguments in [&[][..], &["run"], &["eval"], &["completions", "tcsh"]] {
        let ended = bioxen(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
    }
}

#[test]
fn code_on_standard_input_may_be_any_bytes_but_must_be_lua() {
    let ended = bioxen_reading("\u{1}", &["eval", "-"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn colour_is_there_only_when_it_is_asked_for() {
    let plain = bioxen(["run", "no-such.lua"]).stderr;
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let coloured = bioxen(["--color", "always", "run", "no-such.lua"]).stderr;
    assert!(coloured.starts_with("\u{1b}["), "{coloured:?}");
    let visible = anstream::adapter::strip_str(&coloured).to_string();
    assert_eq!(visible, plain, "colour adds no meaning");
}
