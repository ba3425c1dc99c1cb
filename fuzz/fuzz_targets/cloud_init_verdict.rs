//! What a guest says of its first boot: the parts are divided by zero bytes.

#![no_main]

use bioxen_xcp::cloud_init::{Evidence, Verdict};
use libfuzzer_sys::fuzz_target;

/// More than a verdict tells; a character has 4 bytes at most.
const LINES: usize = 11;
const LINE: usize = 401 * 4;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|byte| *byte == 0);
    let mut part = || parts.next();
    let evidence =
        Evidence { status_command: part(), status_file: part(), result_file: part(), log: part() };
    let lines = match evidence.verdict() {
        Some(Verdict::Error { errors }) => {
            assert!(!errors.is_empty(), "a failure has a reason");
            errors
        }
        Some(Verdict::Done { warnings }) => warnings,
        Some(Verdict::Disabled { reason }) => vec![reason],
        Some(Verdict::Running { stage }) => stage.into_iter().collect(),
        Some(Verdict::NotStarted) | None => Vec::new(),
    };
    assert!(lines.len() < LINES);
    for line in lines {
        assert!(line.len() < LINE);
        assert!(!line.contains(char::is_control), "it can be shown on a terminal");
    }
});
