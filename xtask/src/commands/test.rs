//! `cargo xtask test`: runs every test, and holds the examples against independent answers.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::program::{cargo, program, run, target_dir};
use crate::steps::{Outcome, Steps};
use crate::tools;

/// Runs all tests, after seeing to the tools that they need
///
/// As root on Debian the missing tools are installed; elsewhere the first step says which to
/// install, and tests that need them say so.
#[derive(Args)]
pub(crate) struct Test {
    /// Run only this step (may be repeated)
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
}

#[derive(Clone, PartialEq, ValueEnum)]
enum Step {
    /// Lua interpreters, tmux and Python, installed where missing and possible
    Tools,
    /// The programs of the workspace, which tests start
    Programs,
    /// Unit and integration tests, and the Rust examples as tests
    Tests,
    /// The examples in the documentation
    Doctests,
    /// The results of the example scripts, recomputed by Biopython
    Examples,
}

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        let mut steps = Steps::new("test", self.only);
        let ready = steps.run(&Step::Tools, "the tools for the tests are there", || {
            tools::provide(tools::FOR_TESTS)
        }) && steps.run(&Step::Programs, "the programs build", programs);
        if ready {
            steps.run(&Step::Tests, "unit and integration tests pass", tests);
            steps.run(&Step::Doctests, "examples in the documentation pass", doctests);
            steps.run(&Step::Examples, "Biopython agrees with the example scripts", examples);
        }
        steps.finish()
    }
}

fn programs() -> Result<Outcome> {
    run(&mut cargo(&["build", "--workspace", "--bins"]))?;
    Ok(Outcome::Passed)
}

fn tests() -> Result<Outcome> {
    if kernel_hangs()? {
        run(&mut cargo(&["test", "--workspace", "--no-fail-fast", "--lib"]))?;
        let reason = "the tests that make VMs are left out: this kernel hangs when a system-call \
                      filter is applied; restart the machine and run them again";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    // Not `--all-targets`: that would run the benchmarks too.
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    run(cargo(&["test", "--workspace", "--no-fail-fast"]).args(targets))?;
    Ok(Outcome::Passed)
}

/// Whether this machine's kernel is in a state, seen after more than a thousand filtered processes
/// had died at once, in which it applies no system-call filter and kills no process that asks for one.
fn kernel_hangs() -> Result<bool> {
    let doctor = target_dir().join("debug/bioxen");
    let output =
        program(&doctor, &["doctor", "--json"]).output().context("could not run bioxen")?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("hangs when a filter is applied"))
}

fn doctests() -> Result<Outcome> {
    run(&mut cargo(&["test", "--workspace", "--no-fail-fast", "--doc"]))?;
    Ok(Outcome::Passed)
}

fn examples() -> Result<Outcome> {
    if !tools::PYTHON_VENV.works() {
        return tools::without(
            "`python3 -m venv` does not work here; on Debian: `apt-get install python3-venv`",
        );
    }
    let venv = target_dir().join("xtask-venv");
    run(program("python3", &["-m", "venv"]).arg(&venv))?;
    let python = venv.join("bin/python");
    let requirements = ["-m", "pip", "install", "--quiet", "-r", "examples/requirements.txt"];
    match pip(&mut program(&python, &requirements))? {
        Pip::Installed => {}
        Pip::Offline => {
            return tools::without("pip can reach no package registry to install Biopython from");
        }
    }
    run(&mut program(&python, &["examples/check_with_biopython.py"]))?;
    Ok(Outcome::Passed)
}

enum Pip {
    Installed,
    Offline,
}

fn pip(command: &mut Command) -> Result<Pip> {
    let output = command.output().context("could not start pip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    eprint!("{said}");
    if output.status.success() {
        Ok(Pip::Installed)
    } else if said.contains("connection broken by") {
        // So it says before each new try; a package that is not there sounds otherwise.
        Ok(Pip::Offline)
    } else {
        bail!("pip could not install what `examples/requirements.txt` lists")
    }
}
