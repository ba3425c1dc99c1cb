//! `bioxen vm ssh`: the system's own SSH client in a VM, with the key and the host key that are known.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use bioxen::VmName;
use bioxen_xcp::making::Entry;
use bioxen_xcp::ssh::Command;

use crate::failure::Failure;
use crate::registry::Registry;
use crate::runtime;
use crate::signals::{Signals, Stop};

const AFTER_HELP: &str = "\
Examples:
  bioxen vm ssh assembler
  bioxen vm ssh assembler -- df -h
  bioxen vm ssh assembler -- 'sort names.txt | uniq -c'";

/// Log in to a VM's guest with OpenSSH
///
/// As the user that Lua runs as, by the key that was made for the VM; the guest must show the host key that
/// is known, and the user's own SSH configuration counts for nothing. One word behind `--` is a line for the
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
        let (entry, address) = signals.or_stop(reach(arguments, &registry)).await?;
        let keys = Keys::write(&arguments.name, &entry).map_err(Failure::Temporary)?;
        let mut ssh = tokio::process::Command::new(program);
        ssh.args(keys.options(&arguments.name, &entry, address)).args(line);
        let status = run(ssh, &mut signals).await.map_err(Failure::OpenSsh)?;
        Ok(ExitCode::from(code(status)))
    })
}

async fn reach(arguments: &Arguments, registry: &Registry) -> Result<(Entry, IpAddr), Failure> {
    let vm = registry.reach(&arguments.name).await?;
    let reached = async { Ok((vm.entry()?, vm.address(arguments.timeout).await?)) };
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
    fn write(name: &VmName, entry: &Entry) -> io::Result<Self> {
        let keys = Self { directory: tempfile::Builder::new().prefix("bioxen-ssh-").tempdir()? };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(keys.client())?;
        file.write_all(entry.client_key.to_openssh().expose().as_bytes())?;
        fs::write(keys.known_hosts(), format!("{name} {}\n", entry.host_key))?;
        Ok(keys)
    }

    fn client(&self) -> PathBuf {
        self.path().join("key")
    }

    fn known_hosts(&self) -> PathBuf {
        self.path().join("known_hosts")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What OpenSSH is told, up to the command.
    fn options(&self, name: &VmName, entry: &Entry, address: IpAddr) -> Vec<OsString> {
        let file = |option: &str, path: PathBuf| {
            // OpenSSH reads such a value by words.
            let mut text = OsString::from(format!("{option}=\""));
            text.push(path);
            text.push("\"");
            text
        };
        let mut options: Vec<OsString> = ["-F", "none", "-i"].map(OsString::from).into();
        options.push(self.client().into());
        let settings = [
            file("UserKnownHostsFile", self.known_hosts()),
            "GlobalKnownHostsFile=/dev/null".into(),
            "StrictHostKeyChecking=yes".into(),
            "UpdateHostKeys=no".into(),
            "IdentitiesOnly=yes".into(),
            "IdentityAgent=none".into(),
            "PasswordAuthentication=no".into(),
            "KbdInteractiveAuthentication=no".into(),
            format!("HostKeyAlias={name}").into(),
        ];
        for setting in settings {
            options.extend([OsStr::new("-o").to_owned(), setting]);
        }
        let place = ["-p", &entry.port.to_string(), "-l", &entry.user, "--", &address.to_string()];
        options.extend(place.map(OsString::from));
        options
    }
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
