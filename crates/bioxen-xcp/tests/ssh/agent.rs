//! OpenSSH's agent.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An agent of OpenSSH's with one key.
pub(crate) struct Agent {
    process: Child,
    pub(crate) socket: PathBuf,
    _place: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start(key: Option<&Path>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("agent");
        let mut process = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It speaks once it listens.
        let mut said = [0];
        process.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        if let Some(key) = key {
            let mut adding = Command::new("ssh-add");
            let adding = adding.arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket);
            assert!(adding.status().unwrap().success());
        }
        Self { process, socket, _place: place }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
