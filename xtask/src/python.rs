//! Virtual environments with packages from PyPI.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::program::{program, run, target_dir};
use crate::steps::Outcome;
use crate::tools;

/// What asking for an environment came to.
pub(crate) enum Environment {
    /// The folder that it is in.
    Ready(PathBuf),
    /// It cannot be had here, which is no failure.
    Missing(Outcome),
}

/// An environment below the target directory with these packages, as `pip install` takes them.
pub(crate) fn environment(name: &str, packages: &[&str]) -> Result<Environment> {
    if !tools::PYTHON_VENV.works() {
        let reason =
            "`python3 -m venv` does not work here; on Debian: `apt-get install python3-venv`";
        return tools::without(reason).map(Environment::Missing);
    }
    let place = target_dir().join(name);
    run(program("python3", &["-m", "venv"]).arg(&place))?;
    let mut install = program(place.join("bin/python"), &["-m", "pip", "install", "--quiet"]);
    match pip(install.args(packages))? {
        Pip::Installed => Ok(Environment::Ready(place)),
        Pip::Offline => {
            let reason =
                format!("pip can reach no package registry to install {}", packages.join(" "));
            tools::without(&reason).map(Environment::Missing)
        }
    }
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
        bail!("pip could not install the packages")
    }
}
