//! `cargo xtask test`: runs every test, and holds the examples against independent answers.

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::program::{cargo, program, root, run, target_dir};
use crate::python::{self, Environment};
use crate::steps::{Outcome, Steps};
use crate::{peers, tools};

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
    /// The Python client of the Xen API, against a simulated pool
    PeerPython,
    /// The JavaScript client of the Xen API, against a simulated pool
    PeerNode,
    /// Ansible's modules for the Xen API, against a simulated pool
    PeerAnsible,
    /// The agent with which clusters fence VMs off, against a simulated pool
    PeerFencing,
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
            steps.run(&Step::PeerPython, "XenAPI for Python lives with the pool", peers::python);
            steps.run(&Step::PeerNode, "xen-api for JavaScript mirrors the pool", peers::node);
            steps.run(&Step::PeerAnsible, "Ansible deploys to the pool", peers::ansible);
            steps.run(&Step::PeerFencing, "a cluster's agent fences VMs off", peers::fencing);
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
    let requirements = root().join("examples/requirements.txt");
    let packages = ["-r", requirements.to_str().context("the path is not UTF-8")?];
    match python::environment("xtask-venv", &packages)? {
        Environment::Missing(outcome) => Ok(outcome),
        Environment::Ready(environment) => {
            let python = environment.join("bin/python");
            run(&mut program(python, &["examples/check_with_biopython.py"]))?;
            Ok(Outcome::Passed)
        }
    }
}
