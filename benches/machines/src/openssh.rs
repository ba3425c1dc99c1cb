//! OpenSSH's programs, which enter the same guests.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::lab::{Lab, USER, ssh_port};

/// What OpenSSH's programs need to know.
fn options(lab: &Lab) -> Vec<String> {
    let options = [
        format!("IdentityFile={}", lab.key().display()),
        "IdentitiesOnly=yes".into(),
        "StrictHostKeyChecking=no".into(),
        "UserKnownHostsFile=/dev/null".into(),
        "LogLevel=ERROR".into(),
        format!("Port={}", ssh_port()),
    ];
    options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect()
}

/// Copies a file into a guest.
pub(crate) fn scp(lab: &Lab, host: &str, from: &Path, to: &str) -> Result<()> {
    let mut command = Command::new("scp");
    command.arg("-q").args(options(lab)).arg(from).arg(format!("{USER}@{host}:{to}"));
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "scp ended with {status}");
    Ok(())
}

/// A connection of OpenSSH's own that its programs share.
pub(crate) struct Master {
    options: Vec<String>,
    target: String,
    _place: TempDir,
}

impl Master {
    pub(crate) fn start(lab: &Lab, host: &str) -> Result<Self> {
        let place = TempDir::new()?;
        let mut options = options(lab);
        options.extend(["-o".into(), format!("ControlPath={}/master", place.path().display())]);
        let target = format!("{USER}@{host}");
        let mut command = Command::new("ssh");
        command.args(&options).args(["-o", "ControlMaster=yes", "-o", "ControlPersist=yes"]);
        command.args(["-fN", &target]).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.stderr(Stdio::null()).status()?;
        ensure!(status.success(), "ssh ended with {status}");
        Ok(Self { options, target, _place: place })
    }

    /// Runs a command, which is to say 2.
    pub(crate) fn run(&self, command: &str) -> Result<()> {
        let output =
            Command::new("ssh").args(&self.options).args([&self.target, command]).output()?;
        ensure!(output.status.success(), "ssh ended with {}", output.status);
        ensure!(output.stdout == b"2\n", "it said {}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let mut command = Command::new("ssh");
        let command = command.args(&self.options).args(["-O", "exit", &self.target]);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
