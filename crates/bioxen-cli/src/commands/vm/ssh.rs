//! `bioxen vm ssh`: the system's own SSH client in a VM, with the key and the host key that are known.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use bioxen::VmName;
use bioxen_xcp::making::Entry;
use bioxen_xcp::ssh::Command;
use bioxen_xcp::{Identity, Jump};

use crate::failure::Failure;
use crate::registry::Registry;
use crate::runtime;
use crate::signals::{Signals, Stop};

const AFTER_HELP: &str = "\
Examples:
  bioxen vm ssh assembler
  bioxen vm ssh assembler -- df -h
  bioxen vm ssh assembler -- 'sort names.txt | uniq -c'";

/// By which name the key of a jump host is known.
const JUMP: &str = "jump";

/// Log in to a VM's guest with OpenSSH
///
/// As the user that Lua runs as, by the key that was made for the VM and by way of the pool's jump host, where
/// it has one; both must show the host keys that are known, and the user's own SSH configuration counts for
/// nothing. One word behind `--` is a line for the
/// guest's shell; several are a program and its arguments, each passed on as it is. The exit code is the
/// program's own; 255 says that OpenSSH could not connect.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// Give up on a guest that has not told its address after this time
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// What to run there instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Logs in.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let program = find("ssh").ok_or(Failure::NoOpenSsh)?;
    let line = line(&arguments.command)?;
    let registry = Registry::open()?;
    runtime::block_on(async {
        // From here on to the end: a key must not stay behind.
        let mut signals = Signals::listen()?;
        let way = signals.or_stop(reach(arguments, &registry)).await?;
        let keys = Keys::write(&arguments.name, &way).map_err(Failure::Temporary)?;
        let mut ssh = tokio::process::Command::new(&program);
        ssh.args(keys.options(&arguments.name, &way, &program)).args(line);
        let status = run(ssh, &mut signals).await.map_err(Failure::OpenSsh)?;
        Ok(ExitCode::from(code(status)))
    })
}

/// The way into a guest.
struct Way {
    entry: Entry,
    address: IpAddr,
    jump: Option<Jump>,
}

async fn reach(arguments: &Arguments, registry: &Registry) -> Result<Way, Failure> {
    let vm = registry.reach(&arguments.name).await?;
    let jump = vm.pool.guests().jump.clone();
    let reached = async {
        Ok(Way { entry: vm.entry()?, address: vm.address(arguments.timeout).await?, jump })
    };
    let reached = reached.await;
    vm.close().await;
    reached
}

/// A program on the path.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|it| it.is_file())
}

/// What the guest's shell is given to run, if anything.
fn line(words: &[OsString]) -> Result<Option<OsString>, Failure> {
    match words {
        [] => Ok(None),
        [line] => Ok(Some(line.clone())),
        [program, arguments @ ..] => {
            let command = Command::new(program).arguments(arguments);
            command.shell_line().map(Some).map_err(Failure::Ssh)
        }
    }
}

/// The keys in files that only we can read, until this is dropped.
struct Keys {
    directory: tempfile::TempDir,
}

impl Keys {
    fn write(name: &VmName, way: &Way) -> io::Result<Self> {
        let keys = Self { directory: tempfile::Builder::new().prefix("bioxen-ssh-").tempdir()? };
        if let Some(key) = way.entry.client_key() {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(keys.client())?;
            file.write_all(key.to_openssh().expose().as_bytes())?;
        }
        fs::write(keys.known_hosts(), format!("{name} {}\n", way.entry.host_key))?;
        if let Some(jump) = &way.jump {
            fs::write(keys.known_jump(), format!("{JUMP} {}\n", jump.host_key))?;
        }
        Ok(keys)
    }

    fn client(&self) -> PathBuf {
        self.path().join("key")
    }

    fn known_hosts(&self) -> PathBuf {
        self.path().join("known_hosts")
    }

    fn known_jump(&self) -> PathBuf {
        self.path().join("known_jump")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What OpenSSH is told, up to the command.
    fn options(&self, name: &VmName, way: &Way, program: &Path) -> Vec<OsString> {
        let Way { entry, address, jump } = way;
        let key = entry.client_key().map(|_| self.client());
        let mut options = settings(name.as_str(), &self.known_hosts(), key.as_deref());
        if let Some(jump) = jump {
            let mut setting = OsString::from("ProxyCommand=");
            setting.push(self.proxy(jump, program));
            options.extend(["-o".into(), setting]);
        }
        let place = ["-p", &entry.port.to_string(), "-l", &entry.user, "--", &address.to_string()];
        options.extend(place.map(OsString::from));
        options
    }

    /// The line by which OpenSSH connects to a guest by way of the jump host, for the user's shell.
    fn proxy(&self, jump: &Jump, program: &Path) -> OsString {
        let key = match &jump.identity {
            Identity::Agent => None,
            Identity::File(path) => Some(path.as_path()),
        };
        let mut words = vec![program.into()];
        words.extend(settings(JUMP, &self.known_jump(), key));
        let place = &jump.place;
        words.extend(["-p", &place.port().to_string(), "-l", place.user()].map(OsString::from));
        let mut line = OsString::new();
        for word in &words {
            line.push(quoted(word));
            line.push(" ");
        }
        // OpenSSH puts the guest's address and port into this; all else it is to leave as it is.
        line.push("-W '[%h]:%p' -- ");
        line.push(place.host());
        line
    }
}

/// What OpenSSH is told of a host: by which name its key is known in that file, and by which key it is entered;
/// by those of the agent where there is none.
fn settings(host: &str, known_hosts: &Path, key: Option<&Path>) -> Vec<OsString> {
    // OpenSSH reads such a value by words.
    let mut known = OsString::from("UserKnownHostsFile=\"");
    known.push(known_hosts);
    known.push("\"");
    let mut options: Vec<OsString> = ["-F", "none"].map(OsString::from).into();
    let mut settings = vec![
        known,
        "GlobalKnownHostsFile=/dev/null".into(),
        "StrictHostKeyChecking=yes".into(),
        "UpdateHostKeys=no".into(),
        "PasswordAuthentication=no".into(),
        "KbdInteractiveAuthentication=no".into(),
        format!("HostKeyAlias={host}").into(),
    ];
    if let Some(key) = key {
        options.extend(["-i".into(), key.into()]);
        settings.extend(["IdentitiesOnly=yes", "IdentityAgent=none"].map(OsString::from));
    }
    for setting in settings {
        options.extend([OsStr::new("-o").to_owned(), setting]);
    }
    options
}

/// A word for a shell, in a line of which OpenSSH replaces what follows `%`.
fn quoted(word: &OsStr) -> OsString {
    let mut bytes = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => bytes.extend(b"'\\''"),
            b'%' => bytes.extend(b"%%"),
            other => bytes.push(*other),
        }
    }
    bytes.push(b'\'');
    OsString::from_vec(bytes)
}

/// Runs a program to its end. Ctrl-C is its own affair, as it is on the same terminal; SIGTERM ends it.
async fn run(
    mut program: tokio::process::Command,
    signals: &mut Signals,
) -> io::Result<ExitStatus> {
    let mut child = program.kill_on_drop(true).spawn()?;
    loop {
        tokio::select! {
            status = child.wait() => return status,
            stop = signals.next() => match stop {
                Stop::Interrupt => {}
                Stop::Terminate => child.start_kill()?,
            },
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let of_signal = status.signal().map(|signal| 128 + signal);
    status.code().or(of_signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_for_the_shell_and_has_nothing_to_be_replaced() {
        for (word, line) in [("plain", "'plain'"), ("it's", r"'it'\''s'"), ("50%h", "'50%%h'")] {
            assert_eq!(quoted(OsStr::new(word)), line);
        }
    }
}
