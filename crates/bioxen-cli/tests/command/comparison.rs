//! `--on`: the same code on several interpreters.

use serde_json::json;

use crate::support::{Ended, below, bioxen, bioxen_reading, directory, examples, has};

/// The cells of a table's row that begins with `first`.
fn row<'a>(ended: &'a Ended, first: &str) -> Vec<&'a str> {
    let line = ended.stdout.lines().find(|line| line.split_whitespace().next() == Some(first));
    let line = line.unwrap_or_else(|| panic!("no row `{first}` in {ended:?}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn interpreters_that_agree_are_0() {
    let ended = bioxen(["eval", "--on", "5.4,embedded", "print('same') return 1"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let first = row(&ended, "5.4");
    assert!(first[1].starts_with("Lua 5.4"), "{first:?}");
    assert_eq!(first[2..4], ["finished", "0"]);
    assert_eq!(first[5..], ["7 B", "yes"]);
    assert_eq!(row(&ended, "embedded")[5..], ["7 B", "yes"]);
    assert!(!ended.stdout.contains("differs"), "{ended:?}");
}

#[test]
fn interpreters_that_differ_are_1_and_the_first_differing_lines_are_shown() {
    if !(has("lua5.1") && has("lua5.3")) {
        return;
    }
    let code = "print('same') print(10 / 2) return _VERSION";
    let ended = bioxen(["eval", "--on", "5.1,5.3,5.4", code]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""), "{ended:?}");
    assert_eq!(row(&ended, "5.1")[6], "yes");
    assert_eq!(row(&ended, "5.4")[6], "no");
    let differences = ended.stdout.split_once("\n\n").expect("a table and differences").1;
    assert_eq!(
        differences,
        "output on 5.3 differs from that on 5.1:\n  \
         line 2  5.1  5\n  line 2  5.3  5.0\n  \
         line 3  5.1  Lua 5.1\n  line 3  5.3  Lua 5.3\n\n\
         output on 5.4 differs from that on 5.1:\n  \
         line 2  5.1  5\n  line 2  5.4  5.0\n  \
         line 3  5.1  Lua 5.1\n  line 3  5.4  Lua 5.4\n"
    );
}

#[test]
fn the_examples_agree_on_all_interpreters() {
    let wanted = ["5.1", "5.2", "5.3", "5.4", "luajit"];
    let program = |name: &str| if name == "luajit" { name.into() } else { format!("lua{name}") };
    if !wanted.iter().all(|name| *name == "5.4" || has(&program(name))) {
        return;
    }
    let genome = examples().join("data/lambda.fasta").display().to_string();
    let script = examples().join("kmer_counts.lua").display().to_string();
    let ended =
        bioxen(["run", "--on", &wanted.join(","), "--allow-read", &genome, &script, &genome]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(wanted.map(|name| row(&ended, name)[6]), ["yes"; 5]);
}

#[test]
fn all_interpreters_read_the_same_input() {
    let input = "GATTACA\n".repeat(50_000);
    let code = "print(#io.read('*a'))";
    let ended = bioxen_reading(&input, &["eval", "--on", "5.4,embedded", "--json", code]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let outputs = ended.json();
    assert_eq!([&outputs[0]["output"], &outputs[1]["output"]], ["400000\n", "400000\n"]);
}

#[test]
fn an_interpreter_that_is_not_there_has_its_row_and_its_reason() {
    let ended = bioxen(["eval", "--on", "5.4,lua9.9", "1"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(row(&ended, "lua9.9")[2], "not started");
    assert!(ended.stdout.contains("\nlua9.9: could not start vm"), "{ended:?}");
}

#[test]
fn an_error_on_one_of_them_is_told_below_the_table() {
    let code = "if jit or _VERSION ~= 'Lua 5.4' then error('too old', 0) end";
    if !has("lua5.1") {
        return;
    }
    let ended = bioxen(["eval", "--on", "5.4,5.1", code]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(row(&ended, "5.1")[2..4], ["error", "1"]);
    assert!(ended.stdout.ends_with("\n5.1: too old\n"), "{ended:?}");
}

#[test]
fn the_same_failure_everywhere_is_still_no_success() {
    assert_eq!(bioxen(["eval", "--on", "5.4,embedded", "error('no')"]).code, Some(1));
}

#[test]
fn for_a_program_there_is_an_array_of_records() {
    let files = directory(&[("hello.lua", "print('hello')")]);
    let script = below(&files, "hello.lua");
    let ended = bioxen(["run", "--json", "--on", "5.4,lua9.9", &script]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let records = ended.json();
    assert_eq!(records.as_array().unwrap().len(), 2);
    assert_eq!(records[0]["on"], "5.4");
    assert_eq!(records[0]["output"], "hello\n");
    assert_eq!(records[0]["same_output_as_first"], true);
    assert_eq!(records[0]["ended_by"], "finished");
    assert_eq!(records[1]["on"], "lua9.9");
    assert_eq!(records[1]["ended_by"], "not_started");
    assert!(records[1]["error"]["message"].as_str().unwrap().contains("lua9.9"));
    assert_eq!(records[1]["error"]["traceback"], json!(null));
}
