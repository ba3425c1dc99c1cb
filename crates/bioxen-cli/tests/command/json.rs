//! `--json`: the record for programs.

use serde_json::json;

use crate::support::{below, bioxen, bioxen_reading, directory};

#[test]
fn the_record_holds_what_ran_how_it_ended_and_what_it_wrote() {
    let files = directory(&[("job.lua", "print(...) io.stderr:write('!') return {gc = 0.5}, 7")]);
    let script = below(&files, "job.lua");
    let ended = bioxen(["run", "--json", "--timeout", "5s", &script, "a"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout.lines().count(), 1, "one line for a program");
    let record = ended.json();
    assert_eq!(record["format"], 1);
    assert_eq!(record["vm"], "run");
    assert_eq!(record["backend"], "basic");
    assert_eq!(record["code"]["name"], json!(script));
    assert_eq!(record["arguments"], json!(["a"]));
    assert_eq!(record["fresh"], true);
    assert_eq!(record["output"], "a\n");
    assert_eq!(record["error_output"], "!");
    assert_eq!(record["stdout"], json!({"bytes": 2, "cut": false}));
    assert_eq!(record["stderr"], json!({"bytes": 1, "cut": false}));
    assert_eq!(record["values"], json!([{"gc": 0.5}, 7]));
    assert_eq!(record["ended_by"], "finished");
    assert_eq!(record["exit_code"], 0);
    assert_eq!(record["limits"]["wall_time_us"], 5_000_000);
    assert!(record["duration_us"].as_u64().unwrap() > 0);
    assert!(record["peak_memory_bytes"].as_u64().unwrap() > 1000);
    assert!(record["isolation"]["active"].as_array().unwrap().contains(&json!("process")));
}

#[test]
fn an_error_is_in_the_record_and_not_on_standard_error() {
    let ended = bioxen(["eval", "--json", "error({code = 5})"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""));
    let record = ended.json();
    assert_eq!(record["ended_by"], "error");
    assert_eq!(record["error"]["value"], json!({"code": 5}));
    assert_eq!(record["exit_code"], 1);
}

#[test]
fn a_limit_is_in_the_record_with_peak_and_hint() {
    let ended = bioxen(["eval", "--json", "--timeout", "50ms", "while true do end"]);
    assert_eq!(ended.code, Some(124));
    let record = ended.json();
    assert_eq!(record["ended_by"], "wall_time");
    assert_eq!(record["limit"], "50ms");
    assert!(record["peak"].is_string() && record["hint"].is_string(), "{record}");
}

#[test]
fn output_that_is_not_text_is_told_as_hexadecimal_bytes() {
    let record = bioxen(["eval", "--json", r"io.write('\0\xff')"]).json();
    assert_eq!(record["output"], json!({"bytes_hex": "00ff"}));
}

#[test]
fn a_failure_of_ours_prints_no_record() {
    let ended = bioxen_reading("", &["run", "--json", "--lua", "lua9.9", "-"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(125), ""));
}
