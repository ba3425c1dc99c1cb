//! Why the state could not be read or changed.

use std::io;
use std::path::PathBuf;

use bioxen_core::{AddressRange, VmName};
use rusqlite::ErrorCode;
use uuid::Uuid;

use crate::vm::Phase;

/// Why the state could not be read or changed. Nothing has been changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file or directory cannot be made or locked.
    #[error("state `{}` cannot be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database cannot be read or written.
    #[error("state database `{}` cannot be used", path.display())]
    Database {
        /// Where it is.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Another process wrote for longer than we wait.
    #[error("state database `{}` was held by another process for too long", path.display())]
    Busy {
        /// Where it is.
        path: PathBuf,
    },
    /// A newer program has written it.
    #[error("state database `{}` has the form {found}, and this program knows {known}", path.display())]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its form.
        found: u32,
        /// The newest form that this program knows.
        known: u32,
    },
    /// There is a VM of that name.
    #[error("there is a vm `{name}` already, on pool `{pool}`: it is {phase}")]
    Duplicate {
        /// The name.
        name: VmName,
        /// Where that VM is.
        pool: String,
        /// In which phase it is.
        phase: Phase,
    },
    /// The VM on the pool has a name here already.
    #[error("vm {uuid} of the pool is known here already, as `{name}`")]
    Known {
        /// Its uuid on the pool.
        uuid: String,
        /// Its name here.
        name: VmName,
    },
    /// There is no such VM.
    #[error("there is no vm `{name}`; there are: {there}")]
    NoSuchVm {
        /// The name.
        name: VmName,
        /// The names that there are.
        there: String,
    },
    /// A VM that has no uuid on its pool cannot be ready.
    #[error("vm `{name}` has no uuid on its pool yet")]
    NotMade {
        /// The VM.
        name: VmName,
    },
    /// A VM that was adopted is not ours to delete.
    #[error("vm `{name}` was there before us, and is not ours to delete")]
    Adopted {
        /// The VM.
        name: VmName,
    },
    /// A VM that is being deleted does not become ready again.
    #[error("vm `{name}` is being deleted")]
    Deleting {
        /// The VM.
        name: VmName,
    },
    /// Another controller sees to the VM, and is alive.
    #[error("vm `{name}` is in the hands of another process, controller {controller}")]
    Held {
        /// The VM.
        name: VmName,
        /// The other controller.
        controller: Uuid,
    },
    /// All addresses of the range are taken.
    #[error("no address of {range} is free on network {network}: {given} were given to VMs")]
    NoAddressFree {
        /// The range.
        range: AddressRange,
        /// The network.
        network: String,
        /// How many of them VMs were given; the others may not be.
        given: usize,
    },
}

impl StateError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::File { path, .. } => {
                format!("check that `{}` is yours to read and write", path.display())
            }
            Self::Database { path, source } => match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => "make room on the disk that it is on".into(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => format!(
                    "it is damaged: put a copy of `{}` in its place, or move it away to start anew",
                    path.display()
                ),
                _ => format!("check that `{}` is yours to read and write", path.display()),
            },
            Self::Busy { .. } => "try again; if it stays so, find the process that holds it".into(),
            Self::Newer { .. } => "use the program that wrote it, or a newer one".into(),
            Self::Duplicate { name, .. } => {
                format!("choose another name, or delete it: `bioxen vm delete {name}`")
            }
            Self::Known { name, .. } => format!("use it by that name: `bioxen vm show {name}`"),
            Self::NoSuchVm { .. } => "`bioxen vm list` shows the VMs".into(),
            Self::NotMade { .. } => "write down its uuid first".into(),
            Self::Adopted { .. } => "it can be forgotten, and stays on its pool".into(),
            Self::Deleting { .. } | Self::Held { .. } => "wait until that has ended".into(),
            Self::NoAddressFree { .. } => {
                "delete a VM that has one of them, or declare a wider range".into()
            }
        };
        Some(hint)
    }

    /// Whether what was asked for is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NoSuchVm { .. })
    }
}
