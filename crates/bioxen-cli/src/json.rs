//! Results for programs: one object, or an array of objects, on standard output.

use std::io::{self, IsTerminal as _};

use bioxen::{Run, RunRecord, Value};
use serde::Serialize;

/// The whole record of a run, with what it wrote.
#[derive(Serialize)]
pub(crate) struct RunObject<'a> {
    #[serde(flatten)]
    record: &'a RunRecord,
    /// What it wrote to standard output; `{"bytes_hex": …}` where that is not UTF-8.
    output: Value,
    /// What it wrote to standard error, in the same form.
    error_output: Value,
}

impl<'a> RunObject<'a> {
    /// The object for a run whose output was all collected.
    pub(crate) fn new(run: &'a Run) -> Self {
        Self {
            record: &run.record,
            output: Value::String(run.stdout.clone()),
            error_output: Value::String(run.stderr.clone()),
        }
    }
}

/// Renders a result: indented for a terminal, on one line for a program or a file.
pub(crate) fn render(result: &impl Serialize) -> Vec<u8> {
    let rendered = if io::stdout().is_terminal() {
        serde_json::to_vec_pretty(result)
    } else {
        serde_json::to_vec(result)
    };
    let mut bytes = rendered.expect("records have text keys and no failing values");
    bytes.push(b'\n');
    bytes
}
