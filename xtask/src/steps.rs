//! Runs the steps of a command one after another, times them and sums them up.
//!
//! Everything here goes to stderr, beside what cargo says about itself.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

/// How a step ended, if not with an error.
pub(crate) enum Outcome {
    /// It did what it is for.
    Passed,
    /// It could not be done here and need not be; the text says why.
    Skipped(String),
}

/// The steps of one command, as far as they have been run.
pub(crate) struct Steps<S> {
    command: &'static str,
    only: Vec<S>,
    began: Instant,
    ended: Vec<Ended>,
}

struct Ended {
    step: String,
    took: Duration,
    verdict: Verdict,
}

enum Verdict {
    Passed,
    Skipped(String),
    Failed,
}

impl<S: ValueEnum + PartialEq> Steps<S> {
    /// Begins the command of this name. Where `only` names steps, the others are left out.
    pub(crate) fn new(command: &'static str, only: Vec<S>) -> Self {
        Self { command, only, began: Instant::now(), ended: Vec::new() }
    }

    /// Runs one step, unless it is left out, and returns whether the next may build on it.
    pub(crate) fn run(
        &mut self,
        step: &S,
        title: &str,
        action: impl FnOnce() -> Result<Outcome>,
    ) -> bool {
        if !self.only.is_empty() && !self.only.contains(step) {
            return true;
        }
        let step = name(step);
        eprintln!("\n=== {step}: {title}");
        let began = Instant::now();
        let outcome = action();
        let took = began.elapsed();
        let verdict = match outcome {
            Ok(Outcome::Passed) => {
                eprintln!("--- {step}: passed in {}", seconds(took));
                Verdict::Passed
            }
            Ok(Outcome::Skipped(reason)) => {
                eprintln!("--- {step}: skipped, {reason}");
                Verdict::Skipped(reason)
            }
            Err(error) => {
                eprintln!("--- {step}: FAILED after {}: {error:#}", seconds(took));
                eprintln!("    to run it alone: {}", self.alone(&step));
                Verdict::Failed
            }
        };
        let passed = !matches!(verdict, Verdict::Failed);
        self.ended.push(Ended { step, took, verdict });
        passed
    }

    /// Sums up. Fails when a step did.
    pub(crate) fn finish(self) -> Result<()> {
        eprintln!("\n=== cargo xtask {}: {}", self.command, seconds(self.began.elapsed()));
        let width = self.ended.iter().map(|ended| ended.step.len()).max().unwrap_or_default();
        for ended in &self.ended {
            eprintln!("{}", self.line(ended, width));
        }
        let failed: Vec<&str> = self
            .ended
            .iter()
            .filter(|ended| matches!(ended.verdict, Verdict::Failed))
            .map(|ended| ended.step.as_str())
            .collect();
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
    }

    fn line(&self, Ended { step, took, verdict }: &Ended, width: usize) -> String {
        let (word, note) = match verdict {
            Verdict::Passed => ("passed", String::new()),
            Verdict::Skipped(reason) => ("skipped", reason.clone()),
            Verdict::Failed => ("FAILED", format!("to run it alone: {}", self.alone(step))),
        };
        let took = seconds(*took);
        format!("  {word:<7}  {step:<width$}  {took:>8}  {note}").trim_end().to_owned()
    }

    fn alone(&self, step: &str) -> String {
        format!("cargo xtask {} --only {step}", self.command)
    }
}

/// A step's name on the command line.
pub(crate) fn name<S: ValueEnum>(step: &S) -> String {
    step.to_possible_value().expect("no step is hidden").get_name().to_owned()
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, ValueEnum)]
    enum Step {
        First,
        Second,
    }

    #[test]
    fn a_failed_step_fails_the_command_and_is_named() {
        let mut steps = Steps::new("check", vec![]);
        assert!(steps.run(&Step::First, "goes well", || Ok(Outcome::Passed)));
        assert!(!steps.run(&Step::Second, "goes wrong", || bail!("broken")));
        assert_eq!(steps.finish().unwrap_err().to_string(), "failed: second");
    }

    #[test]
    fn a_skipped_step_fails_nothing() {
        let mut steps = Steps::new("check", vec![]);
        assert!(steps.run(&Step::First, "", || Ok(Outcome::Skipped("no tool".into()))));
        assert!(steps.finish().is_ok());
    }

    #[test]
    fn steps_that_were_not_asked_for_are_left_out() {
        let mut steps = Steps::new("check", vec![Step::Second]);
        assert!(steps.run(&Step::First, "", || bail!("not to be run")));
        assert!(steps.run(&Step::Second, "", || Ok(Outcome::Passed)));
        assert!(steps.finish().is_ok());
    }

    #[test]
    fn a_failed_steps_line_says_how_to_run_it_alone() {
        let steps = Steps::<Step>::new("check", vec![]);
        let took = Duration::from_millis(1240);
        let line = steps.line(&Ended { step: "first".into(), took, verdict: Verdict::Failed }, 5);
        assert!(line.contains("1.2 s"), "{line}");
        assert!(line.ends_with("to run it alone: cargo xtask check --only first"), "{line}");
    }
}
