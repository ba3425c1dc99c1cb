//! Tools that are not crates: which are needed, which are there, and how to get the rest.
//!
//! What counts is that a tool works, whichever way it was installed; a package is only a way to get
//! it on Debian.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::program::{in_ci, output_of, program, run, works};
use crate::steps::Outcome;

/// A tool that some step needs.
pub(crate) struct Tool {
    /// The Debian package that brings it.
    package: &'static str,
    /// A command that succeeds where it is installed.
    probe: &'static [&'static str],
}

impl Tool {
    /// Whether it can be used.
    pub(crate) fn works(&self) -> bool {
        works(&mut program(self.probe[0], &self.probe[1..]))
    }
}

/// Makes virtual environments for Python.
pub(crate) const PYTHON_VENV: Tool =
    Tool { package: "python3-venv", probe: &["python3", "-c", "import ensurepip, venv"] };

/// What the tests need: interpreters and their sockets, a terminal, Python; and for pools and their
/// guests OpenSSH, cloud-init, and what reads disk images.
pub(crate) const FOR_TESTS: &[Tool] = &[
    Tool { package: "lua5.1", probe: &["lua5.1", "-v"] },
    Tool { package: "lua5.2", probe: &["lua5.2", "-v"] },
    Tool { package: "lua5.3", probe: &["lua5.3", "-v"] },
    Tool { package: "lua5.4", probe: &["lua5.4", "-v"] },
    Tool { package: "luajit", probe: &["luajit", "-v"] },
    Tool { package: "lua-socket", probe: &["lua5.4", "-e", "require 'socket'"] },
    Tool { package: "tmux", probe: &["tmux", "-V"] },
    Tool { package: "openssh-client", probe: &["ssh", "-V"] },
    Tool { package: "openssh-server", probe: &["test", "-x", "/usr/sbin/sshd"] },
    Tool { package: "cloud-init", probe: &["cloud-init", "--version"] },
    Tool { package: "qemu-utils", probe: &["qemu-img", "--version"] },
    Tool { package: "dosfstools", probe: &["test", "-x", "/usr/sbin/mkfs.vfat"] },
    Tool { package: "mtools", probe: &["mcopy", "-V"] },
    Tool { package: "npm", probe: &["npm", "--version"] },
    Tool { package: "fence-agents", probe: &["fence_xenapi", "--version"] },
    PYTHON_VENV,
];

/// What the fuzz targets need besides a toolchain: libFuzzer is C++.
pub(crate) const FOR_FUZZING: &[Tool] = &[Tool { package: "g++", probe: &["c++", "--version"] }];

/// Sees to it that the tools are there: installs what is missing where it may, and otherwise says
/// what to install. In CI a tool that stays missing is an error.
pub(crate) fn provide(tools: &[Tool]) -> Result<Outcome> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(Outcome::Passed);
    }
    let packages = join(&missing);
    if !may_install() {
        return without(&format!(
            "missing {packages}; on Debian: `apt-get install {packages}` as root"
        ));
    }
    eprintln!("installing {packages}");
    if let Err(error) = install(&missing) {
        return without(&format!("{packages} could not be installed: {error:#}"));
    }
    match join(&self::missing(tools)) {
        still if still.is_empty() => Ok(Outcome::Passed),
        still => without(&format!("{still} does not work although it was installed")),
    }
}

/// Goes on without a tool, or fails where that is not allowed.
pub(crate) fn without(what: &str) -> Result<Outcome> {
    if in_ci() {
        bail!("{what}");
    }
    Ok(Outcome::Skipped(what.to_owned()))
}

fn missing(tools: &[Tool]) -> BTreeSet<&'static str> {
    tools.iter().filter(|tool| !tool.works()).map(|tool| tool.package).collect()
}

fn join(packages: &BTreeSet<&str>) -> String {
    packages.iter().copied().collect::<Vec<_>>().join(" ")
}

fn may_install() -> bool {
    let is_root = output_of(&mut program("id", &["-u"])).is_ok_and(|id| id.trim_ascii() == b"0");
    is_root && works(&mut program("apt-get", &["--version"]))
}

fn install(packages: &BTreeSet<&str>) -> Result<()> {
    run(&mut program("apt-get", &["update", "--quiet"]))?;
    let mut command =
        program("apt-get", &["install", "--quiet", "--yes", "--no-install-recommends"]);
    run(command.args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_missing_unless_its_probe_succeeds() {
        let tools = [
            Tool { package: "coreutils", probe: &["true"] },
            Tool { package: "broken", probe: &["false"] },
            Tool { package: "absent", probe: &["no-such-program"] },
        ];
        assert_eq!(missing(&tools), BTreeSet::from(["absent", "broken"]));
    }
}
