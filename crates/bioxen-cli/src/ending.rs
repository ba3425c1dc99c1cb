//! How a run ended, for a person and for the shell.

use std::process::ExitCode;

use bioxen::{EndedBy, Ending, RunRecord};

use crate::report::Report;

/// What the shell sees of a run that ended by itself or by a limit.
pub(crate) fn exit_code(ending: &Ending) -> ExitCode {
    // As the operating system does it: only the lowest byte of a process's exit code counts.
    ExitCode::from(ending.exit_code.to_le_bytes()[0])
}

/// What to say about a run's ending, when there is anything to say.
pub(crate) fn report(record: &RunRecord) -> Option<Report> {
    let message = message(record)?;
    let error = record.error.as_ref().filter(|_| record.ending.ended_by == EndedBy::Error);
    Some(Report {
        message,
        causes: Vec::new(),
        detail: error.and_then(|error| error.traceback.clone()),
        hint: record.ending.hint.clone(),
    })
}

/// One line about the ending; `None` when the code ran to its end.
pub(crate) fn message(record: &RunRecord) -> Option<String> {
    let ending = &record.ending;
    let limit = |what: &str| {
        let limit = ending.limit.as_deref().unwrap_or("unknown");
        let reached = ending.peak.as_deref().map(|peak| format!(" ({peak} reached)"));
        format!("stopped at its {what} limit of {limit}{}", reached.unwrap_or_default())
    };
    Some(match ending.ended_by {
        EndedBy::Finished => return None,
        EndedBy::Error => record
            .error
            .as_ref()
            .map_or_else(|| "the code failed without a message".to_owned(), ToString::to_string),
        EndedBy::WallTime => limit("wall-time"),
        EndedBy::CpuTime => limit("processor-time"),
        EndedBy::Memory => limit("memory"),
        EndedBy::Output => limit("output"),
        EndedBy::Killed => "the worker was killed from outside".to_owned(),
        EndedBy::Crashed(signal) => format!("the worker crashed ({})", signal_name(signal)),
        EndedBy::Cancelled => "cancelled".to_owned(),
        EndedBy::Lost => "the worker vanished".to_owned(),
    })
}

/// The name of a signal that processes crash by, or its number.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        11 => "SIGSEGV",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    format!("signal {signal}, {name}")
}
