//! How runs end: the exit code, and what is said about it.

use std::process::Stdio;

use crate::support::{Ended, below, bioxen, bioxen_reading, command, directory};

#[test]
fn the_script_s_own_exit_code_is_the_command_s() {
    for (code, seen) in [("os.exit(3)", 3), ("os.exit(true)", 0), ("os.exit(false)", 1)] {
        assert_eq!(bioxen(["eval", code]), Ended::with(seen, "", ""), "{code}");
    }
    assert_eq!(bioxen(["eval", "os.exit(256 + 7)"]).code, Some(7));
}

#[test]
fn a_lua_error_is_1_with_its_traceback() {
    let files = directory(&[("bad.lua", "local function f() error('boom') end\nf()\n")]);
    let script = below(&files, "bad.lua");
    let ended = bioxen(["run", &script]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let mut lines = ended.stderr.lines();
    assert_eq!(lines.next(), Some(&*format!("error: {script}:1: boom")));
    assert_eq!(lines.next(), Some("  stack traceback:"));
    assert!(ended.stderr.contains(":2: in main chunk"), "{}", ended.stderr);
}

#[test]
fn a_message_does_not_begin_in_the_middle_of_the_script_s_line() {
    let ended = bioxen(["eval", "io.stderr:write('half') error('whole', 0)"]);
    assert!(ended.stderr.starts_with("half\nerror: whole\n"), "{ended:?}");
}

#[test]
fn a_syntax_error_is_1() {
    let ended = bioxen_reading("x = = 1", &["run", "-"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("error: stdin:1: unexpected symbol"), "{ended:?}");
}

#[test]
fn the_wall_time_limit_is_124_and_says_limit_peak_and_hint() {
    let ended = bioxen(["eval", "--timeout", "100ms", "while true do end"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(124), ""));
    assert!(
        ended.stderr.starts_with("error: stopped at its wall-time limit of 100ms (0.1"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("  hint: raise it with --timeout"), "{ended:?}");
}

#[test]
fn the_processor_time_limit_is_124() {
    let ended = bioxen(["eval", "--cpu-time", "100ms", "while true do end"]);
    assert_eq!(ended.code, Some(124));
    assert!(ended.stderr.contains("processor-time limit of 100ms"), "{ended:?}");
}

#[test]
fn the_memory_limit_is_137() {
    let ended = bioxen(["eval", "--memory", "8MiB", "('x'):rep(1e9)"]);
    assert_eq!(ended.code, Some(137));
    assert!(ended.stderr.contains("memory limit of 8.0 MiB"), "{ended:?}");
    assert!(ended.stderr.contains("--memory"), "{ended:?}");
}

#[test]
fn the_output_limit_is_1_and_what_fitted_was_printed() {
    let code = "while true do io.write(('x'):rep(1000)) end";
    let ended = bioxen(["eval", "--max-output", "4KiB", code]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.len() <= 4096 && !ended.stdout.is_empty(), "{}", ended.stdout.len());
    assert!(ended.stderr.contains("output limit of 4.0 KiB"), "{ended:?}");
}

#[test]
fn a_lifted_limit_does_not_stop_anything() {
    let ended =
        bioxen(["eval", "--max-output", "unlimited", "local _ = io.write(('x'):rep(2^25))"]);
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 1 << 25));
}

#[test]
fn what_was_not_granted_is_refused_with_the_flag_that_would_grant_it() {
    for (code, flag) in [
        ("assert(io.open('/etc/passwd'))", "--allow-read /etc/passwd"),
        ("assert(os.execute('id'))", "--allow-spawn"),
        ("assert(io.open('/tmp/bioxen-never', 'w'))", "--allow-write /tmp/bioxen-never"),
    ] {
        let ended = bioxen(["eval", code]);
        assert_eq!(ended.code, Some(1), "{code}: {ended:?}");
        assert!(ended.stderr.contains(flag), "{code}: {ended:?}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let code = "while true do print(('x'):rep(100)) end";
    let mut endless = command(["eval", "--max-output", "unlimited", code]);
    let mut child = endless.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended, Ended::with(141, "", ""));
}

#[test]
fn a_full_disk_is_a_failure_of_ours() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = command(["eval", "1"]).stdout(full).output().unwrap();
    let expected = "error: could not write to standard output\n  \
                    caused by: No space left on device (os error 28)\n";
    assert_eq!(Ended::from(output), Ended::with(125, "", expected));
}
