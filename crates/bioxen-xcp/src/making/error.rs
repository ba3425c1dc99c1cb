//! Why a machine was not made.

use std::io;
use std::time::Duration;

use bioxen_core::{CallHomeAddress, VmName};
use xenapi::mirror::WaitError;
use xenapi::{Error, TaskError, TransferError};

use super::LuaError;
use crate::cloud_init::{InvalidCloudConfig, InvalidSetting, SeedError};
use crate::machine::MachineError;
use crate::plan::{PlanError, StepKind};
use crate::ssh::SshError;
use crate::ssh::files::FileError;

/// A machine was not made. What had been made was removed again, but for what `left` names.
#[derive(Debug, thiserror::Error)]
#[error("vm `{vm}` was not made{}", at(*step))]
pub struct MakeError {
    /// The VM.
    pub vm: VmName,
    /// The step that failed, if it was one.
    pub step: Option<StepKind>,
    /// Why.
    #[source]
    pub cause: Box<Cause>,
    /// What could not be removed, each with the reason.
    pub left: Vec<String>,
}

fn at(step: Option<StepKind>) -> String {
    step.map_or(String::new(), |step| format!(": step `{step}` failed"))
}

impl MakeError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        let hint = self.cause.hint();
        if self.left.is_empty() {
            return hint;
        }
        let left = self.left.join("; ");
        format!("{hint}. Left behind, to be removed by `bioxen vm gc`: {left}")
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// It cannot be made as ordered.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its origin could not be copied.
    #[error(transparent)]
    Machine(Box<MachineError>),
    /// The pool refused, or was not reached.
    #[error(transparent)]
    Pool(#[from] Error),
    /// The pool began, and failed.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The seed disk could not be sent.
    #[error("the seed disk could not be sent")]
    Transfer(#[source] Box<TransferError>),
    /// What was waited for did not come.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A setting of the guest is none.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The cloud-config of the user's own is none.
    #[error(transparent)]
    CloudConfig(#[from] InvalidCloudConfig),
    /// The settings make no seed.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The copy lacks the template's disk.
    #[error("the copy has no disk `{device}`, which the template had")]
    NoDisk {
        /// The number of its device.
        device: String,
    },
    /// The guest was not entered.
    #[error(transparent)]
    Ssh(Box<SshError>),
    /// The guest failed to set itself up.
    #[error("cloud-init failed in the guest: {}", errors.join("; "))]
    CloudInit {
        /// What it says of that.
        errors: Vec<String>,
    },
    /// A file could not be copied into the guest.
    #[error(transparent)]
    File(Box<FileError>),
    /// Lua did not come up.
    #[error(transparent)]
    Lua(Box<LuaError>),
    /// The seed disk could not be removed.
    #[error("the seed disk could not be removed")]
    Removal(#[source] Box<MachineError>),
    /// What is known of it could not be noted.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Nobody can listen where its guest is to call.
    #[error("could not listen at {at} for the guest to call home")]
    Listen {
        /// Where.
        at: CallHomeAddress,
        /// What the system says.
        source: io::Error,
    },
    /// It took too long.
    #[error("it took longer than {after:?}")]
    Deadline {
        /// How long it may take.
        after: Duration,
    },
    /// Nobody waits for it any more.
    #[error("it was given up")]
    Abandoned,
}

impl From<LuaError> for Cause {
    fn from(error: LuaError) -> Self {
        Self::Lua(Box::new(error))
    }
}

impl From<MachineError> for Cause {
    fn from(error: MachineError) -> Self {
        Self::Machine(Box::new(error))
    }
}

impl From<FileError> for Cause {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}

impl From<SshError> for Cause {
    fn from(error: SshError) -> Self {
        Self::Ssh(Box::new(error))
    }
}

impl From<TransferError> for Cause {
    fn from(error: TransferError) -> Self {
        Self::Transfer(Box::new(error))
    }
}

impl Cause {
    /// Whether the pool may have done, or may yet do, what it was asked for last.
    pub(super) fn is_unclear(&self) -> bool {
        match self {
            Self::Pool(error) => error.may_have_run(),
            Self::Task(error) => {
                error.may_have_run() || matches!(error, TaskError::Cancelled { .. })
            }
            Self::Machine(error) => match error.as_ref() {
                MachineError::Pool { source, .. } => source.is_unclear(),
                _ => false,
            },
            Self::Deadline { .. } => true,
            Self::Plan(_)
            | Self::Transfer(_)
            | Self::Wait(_)
            | Self::Setting(_)
            | Self::CloudConfig(_)
            | Self::Seed(_)
            | Self::NoDisk { .. }
            | Self::Ssh(_)
            | Self::CloudInit { .. }
            | Self::File(_)
            | Self::Lua(_)
            | Self::Removal(_)
            | Self::Journal(_)
            | Self::Listen { .. }
            | Self::Abandoned => false,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        let of_code = |code: Option<&str>| match code? {
            "NO_HOSTS_AVAILABLE" | "HOST_NOT_ENOUGH_FREE_MEMORY" => Some(
                "no host has room for it: ask for less memory, or stop VMs that are not needed"
                    .to_owned(),
            ),
            "SR_FULL" | "SR_BACKEND_FAILURE_44" => Some(
                "the storage is full: free some of it, or name another with `--storage`".into(),
            ),
            "HANDLE_INVALID" => {
                Some("something was removed meanwhile; look at the pool and try again".into())
            }
            _ => None,
        };
        let check = || "find out what the pool says with `bioxen pool check`".to_owned();
        match self {
            Self::Plan(error) => error.hint(),
            Self::Machine(error) => error.hint().unwrap_or_else(check),
            Self::Pool(error) => {
                of_code(error.code()).or_else(|| error.hint()).unwrap_or_else(check)
            }
            Self::Task(TaskError::Failed { source, .. }) => of_code(Some(source.code()))
                .or_else(|| source.hint().map(str::to_owned))
                .unwrap_or_else(check),
            Self::Task(_) | Self::Transfer(_) => check(),
            Self::Wait(_) => {
                "see that the template has guest tools and its network a DHCP server; or give an address with `--network NAME,address=…`, or let the guest call home with `--call-home`".into()
            }
            Self::Setting(error) => error.hint(),
            Self::CloudConfig(error) => error.hint(),
            Self::Seed(error) => error.hint(),
            Self::NoDisk { .. } => "somebody changes the template at the same time; try again".into(),
            Self::Ssh(error) => error.hint(),
            Self::CloudInit { .. } => {
                "correct what it complains about: a package that is not there, a command that fails, no way to the network".into()
            }
            Self::File(error) => error.hint(),
            Self::Lua(error) => error.hint(),
            Self::Removal(_) => "`bioxen vm gc` removes it later".into(),
            Self::Listen { .. } => "name an address of this machine that guests reach; without a port it is a free one".into(),
            Self::Journal(_) => "see that the state directory can be written to".into(),
            Self::Deadline { .. } => "see what the pool and the guest's console say, and try again".into(),
            Self::Abandoned => "ask for it again".into(),
        }
    }
}

/// What is known of a machine could not be noted.
#[derive(Debug, thiserror::Error)]
#[error("could not note what is known of the machine")]
pub struct JournalError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
