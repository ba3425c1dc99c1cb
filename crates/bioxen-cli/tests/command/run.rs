//! `bioxen run`: a script with all that belongs to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

use crate::support::{Ended, below, bioxen, bioxen_reading, command, directory};

#[test]
fn a_script_sees_its_arguments_even_those_that_look_like_options() {
    let files = directory(&[("args.lua", "print(select('#', ...), ...) print(arg[1], #arg)")]);
    let script = below(&files, "args.lua");
    let ended = bioxen(["run", &script, "--json", "-v", "a b", "--", "-"]);
    assert_eq!(ended, Ended::well("5\t--json\t-v\ta b\t--\t-\n--json\t5\n"));
}

#[test]
fn a_script_from_standard_input_has_arguments_and_no_input() {
    let ended = bioxen_reading("print(..., io.read())", &["run", "-", "x"]);
    assert_eq!(ended, Ended::well("x\tnil\n"));
}

#[test]
fn what_a_script_returns_is_not_printed() {
    let files = directory(&[("values.lua", "print('out') return 1, 2")]);
    assert_eq!(bioxen(["run", &below(&files, "values.lua")]), Ended::well("out\n"));
}

#[test]
fn both_streams_go_where_they_belong() {
    let files = directory(&[("both.lua", "io.stdout:write('out') io.stderr:write('err')")]);
    assert_eq!(bioxen(["run", &below(&files, "both.lua")]), Ended::with(0, "out", "err"));
}

#[test]
fn output_comes_while_the_script_runs_and_input_goes_in_while_it_does() {
    let files = directory(&[("echo.lua", "for line in io.lines() do print('got ' .. line) end")]);
    let mut echo = command(["run", &below(&files, "echo.lua")]);
    let mut child = echo.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for word in ["one", "two"] {
        writeln!(input, "{word}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        assert_eq!(answer, format!("got {word}\n"));
    }
    drop(input);
    assert_eq!(output.read_to_string(&mut String::new()).unwrap(), 0);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_script_that_ignores_its_input_does_not_wait_for_its_end() {
    let mut command = command(["eval", "'done'"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Its standard input stays open all the while.
    let mut child = child;
    let input = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"done\n");
    drop(input);
}

#[test]
fn variables_are_given_by_name_and_value() {
    let ended = bioxen_reading("print(os.getenv('A'))", &["run", "--env", "A=b=c", "-"]);
    assert_eq!(ended, Ended::well("b=c\n"));
}

#[test]
fn relative_paths_start_from_the_chosen_directory() {
    let files = directory(&[("data.txt", "ACGT")]);
    let root = below(&files, "");
    let code = "print(io.open('data.txt'):read('a'))";
    let ended = bioxen_reading(code, &["run", "--workdir", &root, "--allow-read", &root, "-"]);
    assert_eq!(ended, Ended::well("ACGT\n"));
}

#[test]
fn what_was_granted_to_write_is_written() {
    let files = directory(&[]);
    let target = below(&files, "");
    let code = "local f = assert(io.open(... .. '/out', 'w')) f:write('x') f:close()";
    let ended = bioxen_reading(code, &["run", "--allow-write", &target, "-", &target]);
    assert_eq!(ended, Ended::well(""));
    assert_eq!(std::fs::read_to_string(files.path().join("out")).unwrap(), "x");
}

#[test]
fn a_granted_program_s_output_is_the_script_s() {
    let ended = bioxen_reading("os.execute('echo hello')", &["run", "--allow-spawn", "-"]);
    assert_eq!(ended, Ended::well("hello\n"));
}

#[test]
fn a_first_line_for_the_shell_is_skipped() {
    let files = directory(&[("tool.lua", "#!/usr/bin/env -S bioxen run\nprint('ran')")]);
    assert_eq!(bioxen(["run", &below(&files, "tool.lua")]), Ended::well("ran\n"));
}

#[test]
fn logs_go_to_standard_error_when_asked_for_by_flag_or_variable() {
    let quiet = bioxen(["eval", "1"]);
    assert_eq!(quiet.stderr, "");
    let logged = |ended: Ended| {
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "1\n"));
        assert!(ended.stderr.contains("created"), "{ended:?}");
    };
    logged(bioxen(["-v", "eval", "1"]));
    logged(bioxen(["eval", "-vv", "1"]));
    for (name, value) in [("BIOXEN_LOG", "debug"), ("PYLUA_DEBUG", "true")] {
        logged(command(["eval", "1"]).env(name, value).output().unwrap().into());
    }
}
