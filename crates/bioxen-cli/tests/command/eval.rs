//! `bioxen eval`: what is printed for values, and where code comes from.

use crate::support::{Ended, bioxen, bioxen_reading, command, feed};

#[test]
fn a_string_is_printed_bare_and_other_values_in_lua_notation() {
    assert_eq!(bioxen(["eval", r#""a".."b""#]), Ended::well("ab\n"));
    assert_eq!(bioxen(["eval", "1"]), Ended::well("1\n"));
    assert_eq!(bioxen(["eval", "10 / 4"]), Ended::well("2.5\n"));
    assert_eq!(
        bioxen(["eval", "{1, {gc = 49.5, name = 'lambda'}}"]),
        Ended::well("{1, {gc = 49.5, name = \"lambda\"}}\n")
    );
}

#[test]
fn each_value_has_a_line_of_its_own() {
    assert_eq!(bioxen(["eval", "return 1, nil, 'x', true"]), Ended::well("1\nnil\nx\ntrue\n"));
}

#[test]
fn statements_that_return_nothing_print_only_what_they_print() {
    assert_eq!(bioxen(["eval", "print('a') print('b')"]), Ended::well("a\nb\n"));
    assert_eq!(bioxen(["eval", ""]), Ended::well(""));
}

#[test]
fn what_the_code_prints_comes_before_its_values() {
    assert_eq!(bioxen(["eval", "print('first') return 'second'"]), Ended::well("first\nsecond\n"));
}

#[test]
fn a_negative_number_is_code_and_no_option() {
    assert_eq!(bioxen(["eval", "-1"]), Ended::well("-1\n"));
    assert_eq!(bioxen(["eval", "--", "-(2^3)"]), Ended::well("-8.0\n"));
}

#[test]
fn code_comes_from_standard_input_when_it_is_a_dash() {
    assert_eq!(bioxen_reading("local x = 6\nreturn x * 7\n", &["eval", "-"]), Ended::well("42\n"));
    let failed = bioxen_reading("\nerror('no', 1)", &["eval", "-"]);
    assert!(failed.stderr.starts_with("error: stdin:2: no\n"), "{failed:?}");
}

#[test]
fn code_reads_the_command_s_standard_input() {
    let ended = bioxen_reading("ACGT\nTTTT\n", &["eval", "io.read('l'), #io.read('a')"]);
    assert_eq!(ended, Ended::well("ACGT\n5\n"));
}

#[test]
fn any_bytes_go_in_and_out_unchanged() {
    let bytes: Vec<u8> = (0..=255).collect();
    let output = feed(command(["eval", "local _ = io.write(io.read('a'))"]), &bytes);
    assert_eq!(output.stdout, bytes);
}

#[test]
fn incomplete_code_is_a_syntax_error() {
    let ended = bioxen(["eval", "for i = 1, 3 do"]);
    let expected = "error: eval:1: 'end' expected near <eof>\n";
    assert_eq!(ended, Ended::with(1, "", expected));
}

#[test]
fn limits_and_grants_are_those_of_the_command_line() {
    let ended = bioxen(["eval", "--allow-env", "PATH", "os.getenv('PATH') ~= nil"]);
    assert_eq!(ended, Ended::well("true\n"));
    assert_eq!(bioxen(["eval", "os.getenv('PATH') == nil"]), Ended::well("true\n"));
}
