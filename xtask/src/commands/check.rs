//! `cargo xtask check`: what can be said about the code without running it.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::commands::codegen;
use crate::program::{cargo, run, works};
use crate::steps::{Outcome, Steps};
use crate::words;

/// Checks format, lints, documentation, dependencies and words
///
/// All steps are run, whether or not an earlier one failed.
#[derive(Args)]
pub(crate) struct Check {
    /// Run only this step (may be repeated)
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
}

#[derive(Clone, PartialEq, ValueEnum)]
enum Step {
    /// Formatting, by rustfmt
    Format,
    /// Lints of all targets, by clippy; warnings are errors
    Lints,
    /// API documentation, by rustdoc; warnings are errors
    Docs,
    /// Advisories, licences, duplicates and sources, by cargo-deny where it is installed
    Dependencies,
    /// The word that two protocols share and that is not used here
    Words,
    /// Code that is generated, held against what it is generated from
    Generated,
}

impl Check {
    pub(crate) fn run(self) -> Result<()> {
        let mut steps = Steps::new("check", self.only);
        steps.run(&Step::Format, "the code is formatted", format);
        steps.run(&Step::Lints, "clippy has nothing to say", lints);
        steps.run(&Step::Docs, "the documentation builds without warnings", docs);
        steps.run(&Step::Dependencies, "dependencies are acceptable", dependencies);
        steps.run(&Step::Words, "no ambiguous word is used", || {
            words::check().map(|()| Outcome::Passed)
        });
        steps.run(&Step::Generated, "generated code is up to date", || {
            codegen::check().map(|()| Outcome::Passed)
        });
        steps.finish()
    }
}

fn format() -> Result<Outcome> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    Ok(Outcome::Passed)
}

fn lints() -> Result<Outcome> {
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let all_classes =
        ["clippy", "--package", "xenapi", "--features", "full", "--", "-D", "warnings"];
    run(&mut cargo(&all_classes))?;
    // A workspace of its own, which nothing else here would build; it shares what it can.
    let fuzz = ["clippy", "--manifest-path", "fuzz/Cargo.toml", "--all-targets"];
    let share = ["--target-dir", "target", "--", "-D", "warnings"];
    run(&mut cargo(&[fuzz.as_slice(), &share].concat()))?;
    Ok(Outcome::Passed)
}

fn docs() -> Result<Outcome> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    run(command.env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Outcome::Passed)
}

fn dependencies() -> Result<Outcome> {
    if !works(&mut cargo(&["deny", "--version"])) {
        let reason = "cargo-deny is not installed; `cargo install --locked cargo-deny` gets it";
        return Ok(Outcome::Skipped(reason.into()));
    }
    run(&mut cargo(&["deny", "check", "--hide-inclusion-graph"]))?;
    Ok(Outcome::Passed)
}
