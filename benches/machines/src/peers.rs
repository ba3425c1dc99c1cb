//! What others wrote: installed beside the build, where it is reachable.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use bench_report::Report;

const SCRIPT: (&str, &str) = ("peer.py", include_str!("../peers/peer.py"));
const PLAYBOOK: (&str, &str) = ("machines.yml", include_str!("../peers/machines.yml"));
const PACKAGES: (&str, &str) = ("requirements.txt", include_str!("../peers/requirements.txt"));

/// Where the peers are, if they are there.
pub(crate) struct Peers {
    directory: Option<PathBuf>,
}

impl Peers {
    /// Installs what is missing. What cannot be is left out, and the report says so.
    pub(crate) fn install(report: &mut Report) -> Result<Self> {
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(2).context("this program lies in no directory")?;
        let note =
            |error| report.note(format!("XenAPI, paramiko and Ansible are missing: {error:#}"));
        let directory = install(&target.join("compare-machines/python")).map_err(note).ok();
        Ok(Self { directory })
    }

    /// The script, as a command that awaits its arguments.
    pub(crate) fn python(&self) -> Option<Command> {
        let directory = self.directory.as_ref()?;
        let mut command = Command::new(directory.join("venv/bin/python3"));
        command.arg(directory.join(SCRIPT.0));
        Some(command)
    }

    /// The playbook, as a command that awaits its variables.
    pub(crate) fn ansible(&self) -> Option<Command> {
        let directory = self.directory.as_ref()?;
        let mut command = Command::new(directory.join("venv/bin/ansible-playbook"));
        command.args(["-i", "localhost,", "-c", "local"]).arg(directory.join(PLAYBOOK.0));
        command.env("ANSIBLE_HOME", directory.join("home")).env("LC_ALL", "C.UTF-8");
        command.env_remove("ANSIBLE_CONFIG");
        Some(command)
    }
}

fn install(directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    for (name, text) in [SCRIPT, PLAYBOOK, PACKAGES] {
        fs::write(directory.join(name), text)?;
    }
    let mark = directory.join("installed");
    if !fs::read_to_string(&mark).is_ok_and(|text| text == PACKAGES.1) {
        eprintln!("installing XenAPI, paramiko and Ansible from PyPI …");
        let venv = directory.join("venv");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        run(pip.arg(directory.join(PACKAGES.0)))?;
        fs::write(mark, PACKAGES.1)?;
    }
    Ok(directory.to_owned())
}

/// Runs a program to its end; says what it said if that is a bad one.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).file_name().map(OsStr::to_owned);
    let program = program.unwrap_or_default();
    let program = program.display();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("could not start {program}"))?;
    if !output.status.success() {
        let told = [output.stderr, output.stdout].concat();
        bail!("{program} failed: {}", String::from_utf8_lossy(&told).trim());
    }
    Ok(())
}
