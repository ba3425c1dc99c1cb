//! The clients that others wrote: installed beside the build, where they are reachable.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use bench_report::Report;

const PYTHON: [(&str, &str); 2] = [
    ("peer.py", include_str!("../peers/peer.py")),
    ("requirements.txt", include_str!("../peers/requirements.txt")),
];
const NPM: [(&str, &str); 2] = [
    ("peer.mjs", include_str!("../peers/peer.mjs")),
    ("package.json", include_str!("../peers/package.json")),
];

/// How to start each client that is there.
pub(crate) struct Peers {
    python: Option<PathBuf>,
    npm: Option<PathBuf>,
}

impl Peers {
    /// Installs what is missing. What cannot be is left out, and the report says so.
    pub(crate) fn install(report: &mut Report) -> Result<Self> {
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(2).context("this program lies in no directory")?;
        let directory = target.join("compare-pool");
        let mut or_note = |name: &str, installed: Result<PathBuf>| {
            let note = |error| report.note(format!("{name} was not compared with: {error:#}"));
            installed.map_err(note).ok()
        };
        Ok(Self {
            python: or_note("XenAPI from PyPI", install_python(&directory.join("python"))),
            npm: or_note("xen-api from npm", install_npm(&directory.join("npm"))),
        })
    }

    /// The Python client, as a command that awaits its arguments.
    pub(crate) fn python(&self) -> Option<Command> {
        let directory = self.python.as_ref()?;
        let mut command = Command::new(directory.join("venv/bin/python3"));
        command.arg(directory.join(PYTHON[0].0));
        Some(command)
    }

    /// The JavaScript client, as a command that awaits its arguments.
    pub(crate) fn npm(&self) -> Option<Command> {
        let mut command = Command::new("node");
        // So that memory is what is held, not what has not been tidied yet.
        command.arg("--expose-gc");
        command.arg(self.npm.as_ref()?.join(NPM[0].0));
        Some(command)
    }
}

fn install_python(directory: &Path) -> Result<PathBuf> {
    let installed = lay_out(directory, &PYTHON)?;
    if !installed {
        eprintln!("installing XenAPI from PyPI …");
        let venv = directory.join("venv");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        run(pip.arg(directory.join(PYTHON[1].0)))?;
        mark(directory, &PYTHON)?;
    }
    Ok(directory.to_owned())
}

fn install_npm(directory: &Path) -> Result<PathBuf> {
    let installed = lay_out(directory, &NPM)?;
    if !installed {
        eprintln!("installing xen-api from npm …");
        let arguments = ["install", "--no-audit", "--no-fund", "--silent"];
        run(Command::new("npm").args(arguments).current_dir(directory))?;
        mark(directory, &NPM)?;
    }
    Ok(directory.to_owned())
}

/// Writes the files there; whether what the second names was installed already.
fn lay_out(directory: &Path, files: &[(&str, &str); 2]) -> Result<bool> {
    fs::create_dir_all(directory)?;
    for (name, text) in files {
        fs::write(directory.join(name), text)?;
    }
    Ok(fs::read_to_string(directory.join("installed")).is_ok_and(|text| text == files[1].1))
}

fn mark(directory: &Path, files: &[(&str, &str); 2]) -> Result<()> {
    Ok(fs::write(directory.join("installed"), files[1].1)?)
}

fn run(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).file_name().map(OsStr::to_owned);
    let program = program.unwrap_or_default();
    let program = program.display();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("could not start {program}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed: {}", told.lines().last().unwrap_or("it does not say why"));
    }
    Ok(())
}
