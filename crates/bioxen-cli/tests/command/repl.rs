//! `bioxen repl` without a terminal: lines in, values out.

use crate::support::{Ended, bioxen_reading};

fn repl(input: &str) -> Ended {
    bioxen_reading(input, &["repl"])
}

#[test]
fn values_are_shown_in_lua_notation_without_a_prompt() {
    assert_eq!(
        repl("1 + 1\n'a'\n{1, x = 'y'}\nnil\n"),
        Ended::well("2\n\"a\"\n{[1] = 1, x = \"y\"}\nnil\n")
    );
}

#[test]
fn what_one_line_sets_the_next_one_sees() {
    assert_eq!(repl("x = 6\nprint('six')\nx * 7"), Ended::well("six\n42\n"));
}

#[test]
fn a_statement_may_take_several_lines() {
    assert_eq!(repl("for i = 1, 2 do\n  print(i)\nend\n'done'\n"), Ended::well("1\n2\n\"done\"\n"));
}

#[test]
fn an_error_does_not_end_it_but_makes_it_1() {
    let ended = repl("error('no', 0)\n'after'\n");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "\"after\"\n"));
    assert!(ended.stderr.starts_with("error: no\n"), "{ended:?}");
}

#[test]
fn a_limit_stops_one_line_and_not_the_conversation() {
    let ended = bioxen_reading("x = 1\nwhile true do end\nx\n", &["repl", "--timeout", "100ms"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "1\n"), "{ended:?}");
    assert!(ended.stderr.contains("wall-time limit of 100ms"), "{ended:?}");
}

#[test]
fn a_vm_that_had_to_be_killed_is_started_again_with_a_warning() {
    // The interpreter's own C code hears no request to stop.
    let hang = "('a'):rep(30):find(('a?'):rep(30) .. ('a'):rep(30))";
    let stuck = format!("x = 1\n{}\nx\n", hang.replace("30", "40"));
    let ended = bioxen_reading(&stuck, &["repl", "--timeout", "100ms"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "nil\n"), "{ended:?}");
    assert!(ended.stderr.contains("warning: the Lua state was lost"), "{ended:?}");
}

#[test]
fn input_that_ends_in_the_middle_is_an_error() {
    let expected = "error: the code ends in the middle of a statement\n";
    assert_eq!(repl("if true then\n"), Ended::with(1, "", expected));
}

#[test]
fn leaving_by_os_exit_gives_its_code() {
    assert_eq!(repl("os.exit(5)\nprint('never')\n"), Ended::with(5, "", ""));
    assert_eq!(repl("os.exit(0)\nprint('never')\n"), Ended::well(""));
    assert_eq!(repl("os.exit()\nprint('never')\n"), Ended::well(""));
}

#[test]
fn nothing_in_is_nothing_out() {
    assert_eq!(repl(""), Ended::well(""));
}
