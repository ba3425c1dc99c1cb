//! A comparison as a table with the first differences below it, or as JSON.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::differences::{self, Difference};
use super::{Finished, Outcome, groups};
use crate::failure::Failure;
use crate::json::RunObject;
use crate::table::{self, quantity, text};
use crate::{ending, shown};

const DIFFERENCES_SHOWN: usize = 3;
const LONGEST_LINE: usize = 100;

/// The comparison for a person.
pub(super) fn table_and_differences(outcomes: &[Outcome]) -> String {
    let columns = [
        text("LUA"),
        text("VERSION"),
        text("ENDED BY"),
        quantity("EXIT"),
        quantity("TIME"),
        quantity("OUTPUT"),
        text("SAME OUTPUT"),
    ];
    let rows = outcomes.iter().map(|outcome| row(outcome, first_output(outcomes))).collect();
    let mut shown = table::render(columns, rows);
    for (index, line) in outcomes.iter().filter_map(what_went_wrong).enumerate() {
        let _ = writeln!(shown, "{}{line}", if index == 0 { "\n" } else { "" });
    }
    let groups = groups(outcomes);
    if let Some((first, others)) = groups.split_first() {
        for other in others {
            write_differences(&mut shown, first, other);
        }
    }
    shown
}

fn row(outcome: &Outcome, first: Option<&[u8]>) -> [String; 7] {
    let dash = || "-".to_owned();
    let name = outcome.interpreter.clone();
    let Ok(Finished { run, output }) = &outcome.run else {
        return [name, dash(), "not started".into(), dash(), dash(), dash(), dash()];
    };
    let record = &run.record;
    [
        name,
        record.context.interpreter.version.clone(),
        record.ending.ended_by.to_string(),
        record.ending.exit_code.to_string(),
        shown::duration(record.duration),
        format!("{} B", output.len()),
        if first == Some(output) { "yes" } else { "no" }.into(),
    ]
}

/// The output that the others are held against: that of the first interpreter that ran.
fn first_output(outcomes: &[Outcome]) -> Option<&[u8]> {
    outcomes.iter().find_map(|outcome| Some(outcome.run.as_ref().ok()?.output.as_slice()))
}

/// One line for an interpreter on which the code did not run to its end.
fn what_went_wrong(outcome: &Outcome) -> Option<String> {
    let what = match &outcome.run {
        Ok(Finished { run, .. }) => ending::message(&run.record)?,
        Err(failure) => failure.in_one_line(),
    };
    Some(format!("{}: {what}", outcome.interpreter))
}

fn write_differences(shown: &mut String, first: &(Vec<&str>, &[u8]), other: &(Vec<&str>, &[u8])) {
    let found = differences::between(first.1, other.1, DIFFERENCES_SHOWN);
    let names = (first.0[0], other.0[0]);
    let width = names.0.chars().count().max(names.1.chars().count());
    let _ = writeln!(shown, "\noutput on {} differs from that on {}:", other.0.join(", "), names.0);
    for Difference { number, one, other } in found.lines {
        for (name, line) in [(names.0, one), (names.1, other)] {
            let _ = writeln!(shown, "  line {number}  {name:<width$}  {}", shown_line(line));
        }
    }
    if found.more > 0 {
        let _ = writeln!(shown, "  and {} more lines", found.more);
    }
}

fn shown_line(line: Option<&[u8]>) -> String {
    match line {
        None => "(no such line)".into(),
        Some(line) if line.ends_with(b"\n") => {
            shown::clipped(&String::from_utf8_lossy(line), LONGEST_LINE)
        }
        Some(line) => {
            let text = shown::clipped(&String::from_utf8_lossy(line), LONGEST_LINE);
            format!("{text} (without a newline)")
        }
    }
}

/// The comparison for a program: each run's object, with the interpreter as it was named.
#[derive(Serialize)]
#[serde(untagged)]
enum Object<'a> {
    Ran {
        on: &'a str,
        same_output_as_first: bool,
        #[serde(flatten)]
        run: RunObject<'a>,
    },
    NotStarted {
        on: &'a str,
        ended_by: &'static str,
        error: serde_json::Value,
        hint: Option<String>,
    },
}

/// The comparison for a program.
pub(super) fn objects(outcomes: &[Outcome]) -> impl Serialize {
    let first = first_output(outcomes);
    outcomes.iter().map(|outcome| object(outcome, first)).collect::<Vec<_>>()
}

fn object<'a>(outcome: &'a Outcome, first: Option<&[u8]>) -> Object<'a> {
    let on = &outcome.interpreter;
    match &outcome.run {
        Ok(Finished { run, output }) => Object::Ran {
            on,
            same_output_as_first: first == Some(output),
            run: RunObject::new(run),
        },
        Err(failure) => Object::NotStarted {
            on,
            ended_by: "not_started",
            error: json!({"message": failure.in_one_line(), "traceback": null, "value": null}),
            hint: Failure::hint(failure),
        },
    }
}
