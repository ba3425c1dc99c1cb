//! Why a command ended without doing what it was asked, and what the shell sees then.
//!
//! How a *run* ended is no failure in this sense: the command did its work, and the run's record has
//! the exit code.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bioxen::{CreateError, EvalError, StartVmError, VmName, VmType};
use bioxen_state::StateError;
use bioxen_xcp::import::ImportError;
use bioxen_xcp::machine::{Cause, MachineError, Refusal};
use bioxen_xcp::making::MakeError;
use bioxen_xcp::networks::NetworkError;
use bioxen_xcp::plan::PlanError;
use bioxen_xcp::ssh::files::FileError;
use bioxen_xcp::ssh::{InvalidKey, PublicKey, SshError};
use bioxen_xcp::{
    ConfigurationError, Endpoint, Fingerprint, PoolError, SecretError, SettingsError,
};
use xenapi::ConsoleError;

#[cfg(target_os = "linux")]
use crate::commands::SimulatorError;
use crate::report::Report;
use crate::signals::Stop;

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Create(CreateError),
    #[error(transparent)]
    Restart(StartVmError),
    #[error(transparent)]
    Evaluate(EvalError),
    #[error("the code ends in the middle of a statement")]
    Incomplete,
    #[error("could not read the code from standard input")]
    ReadCode(#[source] io::Error),
    #[error("could not write to standard output")]
    Output(#[source] io::Error),
    #[error("nobody reads standard output any more")]
    OutputClosed,
    #[error("could not start the command's own machinery")]
    Runtime(#[source] io::Error),
    #[error("could not use the terminal")]
    Terminal(#[source] io::Error),
    #[error("could not prepare the demonstration's data")]
    DemoData(#[source] io::Error),
    #[error("could not start a simulated pool for the demonstration")]
    DemoPool(#[source] io::Error),
    #[error("could not write manual pages to `{}`", directory.display())]
    WritePages { directory: PathBuf, source: io::Error },
    #[error("this process's environment names no home directory")]
    NoHome,
    #[error(transparent)]
    Configuration(ConfigurationError),
    #[error(transparent)]
    Settings(SettingsError),
    #[error(transparent)]
    Secret(SecretError),
    #[error("`{}` cannot be read", path.display())]
    ReadOld { path: PathBuf, source: io::Error },
    #[error("`{}` cannot be imported", path.display())]
    Import { path: PathBuf, source: ImportError },
    #[error("could not find out the working directory")]
    WorkingDirectory(#[source] io::Error),
    #[error("no pool has a name yet")]
    NoPools,
    #[error("which pool? There are {there}")]
    WhichPool { there: String },
    #[error(transparent)]
    Pool(PoolError),
    #[error(
        "the certificate of {address} has the fingerprint {found}, and nothing says whether to trust it"
    )]
    UnknownCertificate { address: Endpoint, found: Fingerprint },
    #[error(transparent)]
    State(StateError),
    #[error("vm `{vm}` is on pool `{pool}`, which is not in the configuration any more")]
    UnknownPool { vm: VmName, pool: String },
    #[error("a vm of type `{vm_type}` cannot outlive the command that makes it")]
    NeedsDaemon { vm_type: VmType },
    #[error("option file `{}` cannot be read", path.display())]
    ReadOption { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Plan(Box<PlanError>),
    #[error(transparent)]
    Make(Box<MakeError>),
    #[error("vm `{vm}` was not made within {after:?}")]
    MakeTimeout { vm: VmName, after: Duration },
    #[error("vm `{vm}` was not ready within {after:?}")]
    WaitTimeout { vm: VmName, after: Duration },
    #[error(transparent)]
    Machine(Box<MachineError>),
    #[error(transparent)]
    Network(Box<NetworkError>),
    #[error("nothing is remembered of how the guest of vm `{vm}` is entered")]
    NoEntry { vm: VmName },
    #[error("`{option}` is about a virtual machine, and a vm of type `basic` has none")]
    NeedsMachine { option: &'static str },
    #[error("`{}` cannot be in the guest of a virtual machine as it is here", path.display())]
    GuestPath { path: PathBuf },
    #[error("the guest of vm `{vm}` was lost before its results were here")]
    Lost { vm: VmName },
    #[error(transparent)]
    File(Box<FileError>),
    #[error(transparent)]
    Ssh(Box<SshError>),
    #[error(transparent)]
    Copy(Box<FileError>),
    #[error("the key in `{}` cannot be used", path.display())]
    Key { path: PathBuf, source: InvalidKey },
    #[error("the SSH server at {address} shows the host key {}, and nothing says whether to trust it", found.fingerprint())]
    UnknownHostKey { address: IpAddr, found: Box<PublicKey> },
    #[error("neither the source nor the target is in a vm")]
    NoVmInCopy,
    #[error("could not keep something in a file for the moment")]
    Temporary(#[source] io::Error),
    #[error("there is no `ssh` on this machine")]
    NoOpenSsh,
    #[error("could not run `ssh`")]
    OpenSsh(#[source] io::Error),
    #[error("could not find out which consoles vm `{vm}` has")]
    Consoles { vm: String, source: Box<xenapi::Error> },
    #[error("vm `{vm}` has no such console")]
    NoConsole { vm: String },
    #[error(transparent)]
    Console(Box<ConsoleError>),
    #[error("could not listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{what}")]
    NotConfirmed { what: String },
    #[error("`{}` is no path", path.display())]
    Path { path: PathBuf, source: io::Error },
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Simulator(SimulatorError),
    #[error("stopped")]
    Stopped(Stop),
}

impl Failure {
    /// What a machine said.
    pub(crate) fn machine(error: MachineError) -> Self {
        Self::Machine(Box::new(error))
    }

    /// What a guest said over SSH.
    pub(crate) fn ssh(error: SshError) -> Self {
        Self::Ssh(Box::new(error))
    }

    /// What a network said.
    pub(crate) fn network(error: NetworkError) -> Self {
        Self::Network(Box::new(error))
    }

    /// What writing to standard output came to.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Output(error),
        }
    }

    /// What the shell sees: 2 is what the user can correct in the command line; 3 that there is no
    /// such thing, 4 that it is not in the state for this, 5 that somebody was not reached, 6 that
    /// they do not allow it; 125 is ours where a script's own code is passed on.
    fn exit_code(&self) -> u8 {
        match self {
            Self::NoPools
            | Self::UnknownPool { .. }
            | Self::Configuration(ConfigurationError::NoSuchPool(_))
            | Self::Pool(PoolError::NoSuchPool(_)) => 3,
            Self::Configuration(ConfigurationError::Duplicate { .. })
            | Self::Import { source: ImportError::Taken { .. }, .. } => 4,
            #[cfg(target_os = "linux")]
            Self::Simulator(error) if error.is_refusal() => 4,
            #[cfg(target_os = "linux")]
            Self::Simulator(_) => 1,
            Self::State(error) if error.is_missing() => 3,
            Self::Machine(error) => of_machine(error),
            Self::Network(error) => of_network(error),
            Self::Ssh(error) => of_ssh(error),
            Self::Copy(error) => match error.as_ref() {
                FileError::Ssh(error) => of_ssh(error),
                FileError::Remote { missing: true, .. } => 3,
                _ => 1,
            },
            Self::Key { .. } | Self::NoVmInCopy => 2,
            Self::UnknownHostKey { .. } => 5,
            Self::NoConsole { .. } => 4,
            Self::Console(_) | Self::Consoles { .. } | Self::Listen { .. } => 1,
            Self::Temporary(_) | Self::NoOpenSsh | Self::OpenSsh(_) => 125,
            Self::State(
                StateError::Duplicate { .. }
                | StateError::Known { .. }
                | StateError::Held { .. }
                | StateError::Deleting { .. }
                | StateError::Adopted { .. },
            )
            | Self::NoEntry { .. } => 4,
            Self::NeedsDaemon { .. }
            | Self::NeedsMachine { .. }
            | Self::GuestPath { .. }
            | Self::ReadOption { .. }
            | Self::Plan(_) => 2,
            Self::Lost { .. } | Self::File(_) => 125,
            Self::State(_) | Self::Make(_) => 1,
            Self::MakeTimeout { .. } | Self::WaitTimeout { .. } => 124,
            Self::Pool(PoolError::Which { .. }) => 2,
            Self::Pool(error) if error.is_unreachable() => 5,
            Self::Pool(error) if error.is_forbidden() => 6,
            Self::Pool(_)
            | Self::WritePages { .. }
            | Self::Incomplete
            | Self::NoHome
            | Self::Configuration(_)
            | Self::Settings(_)
            | Self::Secret(_)
            | Self::Import { source: ImportError::Unreadable(_), .. }
            | Self::WorkingDirectory(_)
            | Self::NotConfirmed { .. } => 1,
            Self::ReadCode(_)
            | Self::Evaluate(EvalError::Script { .. })
            | Self::WhichPool { .. }
            | Self::ReadOld { .. }
            | Self::Import { .. }
            | Self::Path { .. } => 2,
            Self::UnknownCertificate { .. } => 5,
            Self::Create(_)
            | Self::Restart(_)
            | Self::Evaluate(_)
            | Self::Output(_)
            | Self::Runtime(_)
            | Self::Terminal(_)
            | Self::DemoData(_)
            | Self::DemoPool(_) => 125,
            // As if SIGPIPE had ended the process, which is how other tools end then.
            Self::OutputClosed => 141,
            Self::Stopped(stop) => stop.exit_code(),
        }
    }

    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Create(error) => error.hint(),
            Self::Restart(error) => error.hint(),
            Self::Evaluate(error) => error.hint(),
            Self::WritePages { .. } => Some("name a directory that you may write to".into()),
            Self::DemoData(_) => Some("set TMPDIR to a directory with 50 kB to spare".into()),
            Self::DemoPool(_) => Some(
                "see that TMPDIR can be written to, and that nothing listens on port 2222".into(),
            ),
            Self::NoHome => Some("set HOME, or BIOXEN_HOME to where things are to be kept".into()),
            Self::Configuration(error) => error.hint(),
            Self::Settings(error) => Some(error.hint()),
            Self::Secret(error) => Some(error.hint()),
            Self::Import { source, .. } => Some(source.hint()),
            Self::ReadOld { .. } => Some("name a file of the library that is there".into()),
            Self::WorkingDirectory(_) => Some("change to a directory that is there".into()),
            Self::NoPools => Some("add one: `bioxen pool add NAME URL --password WHERE`".into()),
            Self::WhichPool { .. } => Some("name one of them".into()),
            Self::Pool(error) => error.hint(),
            #[cfg(target_os = "linux")]
            Self::Simulator(error) => error.hint(),
            Self::UnknownCertificate { found, .. } => Some(format!(
                "compare it with the host's own, then give it: `--fingerprint {found}`"
            )),
            Self::State(error) => error.hint(),
            Self::UnknownPool { vm, pool } if pool == crate::commands::SIMULATED_POOL => Some(format!(
                "start it again, `bioxen sim start`, or let go of the VM: `bioxen vm forget {vm}`"
            )),
            Self::UnknownPool { vm, pool } => Some(format!(
                "put it back, `bioxen pool add {pool} URL --password WHERE`, or let go of the VM: `bioxen vm forget {vm}`"
            )),
            Self::NeedsDaemon { .. } => Some(
                "use `bioxen run`, `bioxen eval` or `bioxen repl`, which make one and end it"
                    .into(),
            ),
            Self::NeedsMachine { .. } => Some("add `--vm-type xcpng`".into()),
            Self::GuestPath { .. } => {
                Some("name a path below the working directory, without `..`".into())
            }
            Self::Lost { .. } => {
                Some("run it again; what the script printed is all there is".into())
            }
            Self::File(error) => Some(error.hint()),
            Self::ReadOption { .. } => Some("name a file that you may read".into()),
            Self::Plan(error) => Some(error.hint()),
            Self::Make(error) => Some(error.hint()),
            Self::MakeTimeout { .. } => {
                Some("what had been made was removed; allow more time with `--timeout`".into())
            }
            Self::WaitTimeout { vm, .. } => {
                Some(format!("it stays as it is; look at `bioxen vm show {vm}`, or wait again"))
            }
            Self::Machine(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Ssh(error) => Some(error.hint()),
            Self::Copy(error) => Some(error.hint()),
            Self::Key { source: InvalidKey::Locked, .. } => Some(
                "make one for this without a passphrase, `ssh-keygen -t ed25519 -N '' -f FILE`, and let it in"
                    .into(),
            ),
            Self::Key { source, .. } => Some(source.hint().to_owned()),
            Self::UnknownHostKey { found, .. } => Some(format!(
                "compare it with the guest's own, then give it: `--host-key '{found}'`"
            )),
            Self::NoVmInCopy => Some("write NAME:PATH for a path in a VM".into()),
            Self::Temporary(_) => Some("set TMPDIR to a directory with room".into()),
            Self::NoOpenSsh | Self::OpenSsh(_) => Some(
                "install OpenSSH's client: `apt install openssh-client`, or `dnf install openssh-clients`"
                    .into(),
            ),
            Self::Consoles { source, .. } => source.hint(),
            Self::NoConsole { vm } => {
                Some(format!("start it, or see `bioxen vm console {vm}` for what it has"))
            }
            Self::Console(error) => error.hint(),
            Self::Listen { .. } => Some("choose another port".into()),
            Self::NoEntry { vm } => Some(format!(
                "delete it with `bioxen vm delete {vm}` and make it again, or adopt it with a key"
            )),
            Self::NotConfirmed { .. } => {
                Some("answer `y`, or give `--yes` where there is one".into())
            }
            Self::Path { .. }
            | Self::Incomplete
            | Self::ReadCode(_)
            | Self::Output(_)
            | Self::OutputClosed
            | Self::Runtime(_)
            | Self::Terminal(_)
            | Self::Stopped(_) => None,
        }
    }

    /// The message for a person.
    fn report(&self) -> Report {
        Report::of(self, self.hint())
    }

    /// The message and its causes on one line, for a place among other results.
    pub(crate) fn in_one_line(&self) -> String {
        let Report { message, causes, .. } = self.report();
        std::iter::once(message).chain(causes).collect::<Vec<_>>().join(": ")
    }

    /// Says it on standard error, unless there is nothing to say, and returns the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        match self {
            Self::OutputClosed | Self::Stopped(_) => {}
            failure => failure.report().error(),
        }
        ExitCode::from(self.exit_code())
    }
}

/// What the shell sees where something did not become of a machine.
fn of_machine(error: &MachineError) -> u8 {
    match error {
        MachineError::NotFound { .. } | MachineError::Gone { .. } => 3,
        MachineError::Ambiguous { .. } | MachineError::NotAVm { .. } => 2,
        MachineError::Refused { reason, .. } => match reason.as_ref() {
            Refusal::NoSuchHost { .. } | Refusal::NoSuchSnapshot { .. } => 3,
            Refusal::AmbiguousHost { .. }
            | Refusal::AmbiguousSnapshot { .. }
            | Refusal::Size { .. }
            | Refusal::Shrink { .. } => 2,
            _ => 4,
        },
        MachineError::State { .. } | MachineError::NoHost { .. } => 4,
        error if error.is_timeout() => 124,
        MachineError::Pool { source, .. } => of_pool(source),
        _ => 1,
    }
}

/// What the shell sees where something did not become of a network.
fn of_network(error: &NetworkError) -> u8 {
    match error {
        NetworkError::NotFound { .. } => 3,
        NetworkError::NameTaken { .. }
        | NetworkError::VlanTaken { .. }
        | NetworkError::NotOurs { .. }
        | NetworkError::InUse { .. } => 4,
        NetworkError::Name { .. }
        | NetworkError::Tag { .. }
        | NetworkError::Ambiguous { .. }
        | NetworkError::NotPhysical { .. } => 2,
        NetworkError::Pool { source, .. } => of_pool(source),
        _ => 1,
    }
}

/// What the shell sees where a pool did not do something.
fn of_pool(cause: &Cause) -> u8 {
    match cause {
        cause if cause.is_unreachable() => 5,
        cause if cause.is_forbidden() => 6,
        _ => 1,
    }
}

/// What the shell sees where a guest was not spoken to.
fn of_ssh(error: &SshError) -> u8 {
    match error {
        SshError::Command { .. } | SshError::Identity { .. } => 2,
        SshError::Jump { source } => of_ssh(source),
        SshError::LoginRefused { .. } | SshError::Refused { .. } => 6,
        SshError::Connect { .. }
        | SshError::Timeout { .. }
        | SshError::WrongHostKey { .. }
        | SshError::NothingInCommon { .. }
        | SshError::Handshake { .. }
        | SshError::NoWay { .. }
        | SshError::Lost { .. } => 5,
        _ => 1,
    }
}

#[cfg(test)]
mod troubleshooting;
