//! `bioxen pool check`: whether a pool can be used, step by step.

use std::process::ExitCode;

use bioxen_xcp::check::{self, Outcome, Step};

use crate::failure::Failure;
use crate::{configuration, json, output, runtime, shown};

const AFTER_HELP: &str = "\
The exit code is 0 if the pool can be used, 5 if it is not reached or not trusted, 6 if it does not let the
user in, and 1 if something else keeps it from being used.";

/// Find out whether a pool can be used, and if not, why; changes nothing
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The pool's name; may be left out where there is one only
    name: Option<String>,
    /// Print the steps as one JSON array of objects
    #[arg(long)]
    json: bool,
}

/// Checks it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let pool = configuration::pool(arguments.name.as_deref())?;
    let mut unprinted = Ok(());
    let steps = runtime::block_on(async {
        let tell = |step: &Step| {
            if !arguments.json && unprinted.is_ok() {
                unprinted = output::print(line(step).as_bytes());
            }
        };
        Ok(check::check(&pool, tell).await)
    })?;
    unprinted?;
    if arguments.json {
        output::print(&json::render(&steps))?;
    }
    Ok(ExitCode::from(exit_code(&steps)))
}

fn exit_code(steps: &[Step]) -> u8 {
    match steps.iter().find(|step| step.outcome == Outcome::Failed).map(|step| step.name) {
        None => 0,
        Some("name" | "port" | "tls") => 5,
        Some("login") => 6,
        Some(_) => 1,
    }
}

/// One step for a person: what came of it, how long it took, and what to do.
fn line(step: &Step) -> String {
    let outcome = match step.outcome {
        Outcome::Passed => "passed",
        Outcome::Warning => "warning",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
    };
    let took =
        if step.outcome == Outcome::Skipped { String::new() } else { shown::duration(step.took) };
    let detail = shown::plain(&step.detail);
    let hint = step.hint.as_ref().map(|hint| format!("{:30}hint: {hint}\n", ""));
    format!("{:<10} {outcome:<8} {took:>8}  {detail}\n{}", step.name, hint.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_how_far_one_came() {
        let step = |name, outcome| Step {
            name,
            outcome,
            took: std::time::Duration::ZERO,
            detail: String::new(),
            hint: None,
        };
        assert_eq!(exit_code(&[step("name", Outcome::Passed), step("clock", Outcome::Warning)]), 0);
        assert_eq!(exit_code(&[step("tls", Outcome::Failed), step("login", Outcome::Skipped)]), 5);
        assert_eq!(exit_code(&[step("login", Outcome::Failed)]), 6);
        assert_eq!(exit_code(&[step("storage", Outcome::Failed)]), 1);
    }
}
